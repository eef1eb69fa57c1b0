//! Avro against values encoded by hand: what each type becomes, what rejects a record, and a registry that is sometimes not there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::tests::{around, micros, schema_of, shown, utc};
use super::super::{FieldPath, MessageDecoder, MessageFormat, TimeUnit};
use super::*;
use crate::error::{Error, Kind};

mod http;
mod random;

/// Schemas at hand: a text, a reason why there is none, or nothing, which is "not now".
#[derive(Debug, Default)]
struct AtHand {
    texts: Mutex<HashMap<u32, Result<String, String>>>,
    asked: AtomicUsize,
}

impl AtHand {
    fn of(text: &str) -> Arc<Self> {
        let at_hand = Self::default();
        at_hand.put(1, text);
        Arc::new(at_hand)
    }

    fn put(&self, id: u32, text: &str) {
        self.texts.lock().unwrap().insert(id, Ok(text.to_owned()));
    }
}

impl Schemas for AtHand {
    fn schema(&self, id: u32) -> Result<Result<Arc<str>, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = self.texts.lock().unwrap().get(&id).cloned();
        text.map(|text| text.map(Into::into)).ok_or_else(|| Error::unavailable("no answer"))
    }
}

fn long(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while bits > 127 {
        bytes.push(bits as u8 | 128);
        bits >>= 7;
    }
    bytes.push(bits as u8);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    [long(value.len() as i64), value.into()].concat()
}

fn message(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), record].concat()
}

fn decoder(schema: Arc<StreamSchema>, options: &Options, schemas: Arc<dyn Schemas>) -> MessageDecoder {
    MessageDecoder::try_new(schema, MessageFormat::Avro, options, Some(schemas)).unwrap()
}

/// One record of the time, `n` and a field `v` of an Avro type, shown without the first two.
fn one_value(avro: &str, bytes: &[u8], data_type: DataType, options: &Options) -> String {
    let schema = format!(
        r#"{{"type":"record","name":"r","namespace":"x.y","fields":[
            {{"name":"ts","type":{{"type":"long","logicalType":"timestamp-micros"}}}},
            {{"name":"v","type":{avro}}},{{"name":"n","type":"int"}}]}}"#
    );
    let mut decoder = decoder(around(data_type), options, AtHand::of(&schema));
    decoder.record(0, None, Some(&message(1, &[&long(0)[..], bytes, &long(1)].concat()))).unwrap();
    let shown = shown(&decoder.take().unwrap()).remove(0);
    shown.replace("1970-01-01T00:00:00Z 1 ", "").replace("!field \"v\": ", "!")
}

/// Values of one Avro type: bytes, the column's type, the value shown or `!` and the beginning of the reason.
fn check(avro: &str, cases: &[(&[u8], DataType, &str)]) {
    for (bytes, data_type, expected) in cases {
        let got = one_value(avro, bytes, data_type.clone(), &Options::default());
        let fits = if expected.starts_with('!') { got.starts_with(expected) } else { got == *expected };
        assert!(fits, "{avro} {bytes:02x?} as {data_type}: {got}, not {expected}");
    }
}

#[test]
fn values() {
    use DataType as T;
    let logical = |of: &str, name: &str| format!(r#"{{"type":"{of}","logicalType":"{name}"}}"#);
    check(r#""boolean""#, &[(&[1], T::Boolean, "true"), (&[0], T::Boolean, "false"), (&[1], T::Int64, "!BIGINT wanted, found a boolean")]);
    check(
        r#""int""#,
        &[
            (&long(-5), T::Int64, "-5"),
            (&long(127), T::Int8, "127"),
            (&long(128), T::Int8, "!TINYINT wanted, found number 128, which is out of range"),
            (&long(7), T::Float64, "7.0"),
            (&long(7), T::Decimal128(4, 2), "7.00"),
            (&long(7), T::Utf8View, "!VARCHAR wanted, found number 7"),
            (&long(7), T::Boolean, "!BOOLEAN wanted, found number 7"),
            (&long(1 << 31), T::Int64, "!malformed Avro at byte 6: an int of more than 32 bits"),
        ],
    );
    check(
        r#""long""#,
        &[
            (&long(i64::MAX), T::Int64, "9223372036854775807"),
            (&long(i64::MIN), T::Int64, "-9223372036854775808"),
            (&long(5), utc(), "!TIMESTAMP wanted, found number 5, and option time_unit is not set"),
            (&[0xff; 10], T::Int64, "!malformed Avro at byte 6: a number of more than 64 bits"),
            (&[0x80, 0], T::Int64, "0"),
        ],
    );
    check(
        r#""double""#,
        &[
            (&1.5f64.to_le_bytes(), T::Float64, "1.5"),
            (&f64::NAN.to_le_bytes(), T::Float64, "NaN"),
            (&2.0f64.to_le_bytes(), T::Int64, "2"),
            (&2.5f64.to_le_bytes(), T::Int64, "!BIGINT wanted, found number 2.5, which has digits that would be lost"),
            (&1e39f64.to_le_bytes(), T::Float32, "!REAL wanted, found number 1e39, which is out of range"),
            (&12.34f64.to_le_bytes(), T::Decimal128(4, 2), "12.34"),
        ],
    );
    check(r#""float""#, &[(&0.1f32.to_le_bytes(), T::Float32, "0.1"), (&0.1f32.to_le_bytes(), T::Float64, "0.10000000149011612")]);
    check(
        r#""string""#,
        &[
            (&text("é and more than twelve"), T::Utf8View, "é and more than twelve"),
            (&text("5"), T::Int64, "!BIGINT wanted, found string \"5\""),
            (&text("2024-02-29"), T::Date32, "2024-02-29"),
            (&text("1970-01-01T00:00:01Z"), utc(), "1970-01-01T00:00:01Z"),
            (&text("12.5"), T::Decimal128(4, 2), "12.50"),
            (&text("Zm9v"), T::BinaryView, "666f6f"),
            (&[2, 0xff], T::Utf8View, "!malformed Avro at byte 7: invalid UTF-8"),
            (&[1], T::Utf8View, "!malformed Avro at byte 6: a negative length"),
            (&[100], T::Utf8View, "!malformed Avro at byte 7: 50 bytes are due and 1 are left"),
        ],
    );
    check(r#""bytes""#, &[(&[4, 0, 255], T::BinaryView, "00ff"), (&[4, 0, 255], T::Utf8View, "!VARCHAR wanted, found 2 bytes")]);
    check(r#"{"type":"fixed","name":"f","size":2}"#, &[(&[0, 255], T::BinaryView, "00ff")]);
    check(
        r#"{"type":"enum","name":"e","symbols":["A","B"]}"#,
        &[
            (&[2], T::Utf8View, "B"),
            (&[4], T::Utf8View, "!malformed Avro at byte 6: symbol 2 where there are 2"),
            (&[1], T::Utf8View, "!malformed"),
        ],
    );
    check(
        &logical("int", "date"),
        &[
            (&long(1), T::Date32, "1970-01-02"),
            (&long(1), utc(), "1970-01-02T00:00:00Z"),
            (&long(1), T::Int64, "!BIGINT wanted, found a date"),
            (&long(1 << 30), T::Date32, "!DATE wanted, found day 1073741824, which is out of range"),
        ],
    );
    for name in ["timestamp-millis", "local-timestamp-millis"] {
        check(
            &logical("long", name),
            &[
                (&long(-1), utc(), "1969-12-31T23:59:59.999Z"),
                (&long(i64::MAX), utc(), "!TIMESTAMP wanted, found microsecond 9223372036854775807, which is out of range"),
                (&long(0), T::Int64, "!BIGINT wanted, found a timestamp"),
            ],
        );
    }
    check(&logical("long", "timestamp-micros"), &[(&long(1), utc(), "1970-01-01T00:00:00.000001Z")]);
    check(&logical("long", "local-timestamp-nanos"), &[(&long(-1), utc(), "1969-12-31T23:59:59.999999Z")]);
    check(&logical("string", "uuid"), &[(&text("a-b"), T::Utf8View, "a-b")]);
    let bytes: Vec<u8> = (0..16).collect();
    check(
        r#"{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}"#,
        &[(&bytes, T::Utf8View, "00010203-0405-0607-0809-0a0b0c0d0e0f"), (&bytes, T::BinaryView, "!VARBINARY wanted, found string")],
    );
    check(
        r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
        &[
            (&[4, 4, 210], T::Decimal128(9, 2), "12.34"),
            (&[4, 4, 210], T::Decimal128(9, 1), "!DECIMAL(9, 1) wanted, found number 1234e-2, which has digits that would be lost"),
            (&[2, 0xff], T::Decimal128(9, 2), "-0.01"),
            (&[0], T::Decimal128(9, 2), "0.00"),
            (&[4, 4, 210], T::Float64, "12.34"),
            (&[&[40][..], &[0xff; 19], &[0x9c]].concat(), T::Int64, "-1"),
            (&[&[40][..], &[0x7f; 20]].concat(), T::Decimal128(38, 2), "!DECIMAL(38, 2) wanted, found a decimal that is out of range"),
            (
                &[&[34][..], &[0], &[0xff; 16]].concat(),
                T::Decimal128(38, 2),
                "!DECIMAL(38, 2) wanted, found a decimal that is out of range",
            ),
        ],
    );
    check(
        r#"{"type":"fixed","name":"d","size":3,"logicalType":"decimal","precision":6,"scale":2}"#,
        &[(&[0, 4, 210], T::Decimal128(9, 2), "12.34")],
    );
    // What is no such logical type is the type below it.
    check(&logical("string", "timestamp-micros"), &[(&text("a"), T::Utf8View, "a")]);
    check(&logical("int", "time-millis"), &[(&long(5), T::Int64, "5")]);
    check(r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":3}"#, &[(&[2, 7], T::BinaryView, "07")]);
    check(
        r#"["null","long"]"#,
        &[
            (&[0], T::Int64, "NULL"),
            (&[&[2][..], &long(9)].concat(), T::Int64, "9"),
            (&[4], T::Int64, "!malformed Avro at byte 6: branch 2 where there are 2"),
        ],
    );
    check(r#"["long","string"]"#, &[(&[&[2][..], &text("x")].concat(), T::Int64, "!BIGINT wanted, found string \"x\"")]);
    check(r#"{"type":"array","items":"long"}"#, &[(&[0], T::Int64, "!BIGINT wanted, found an array")]);
    check(r#"{"type":"map","values":"long"}"#, &[(&[0], T::Int64, "!BIGINT wanted, found a map")]);
    check(r#"{"type":"record","name":"q","fields":[]}"#, &[(&[], T::Int64, "!BIGINT wanted, found a record")]);
    // A long counts what the option says.
    for (unit, expected) in [(TimeUnit::Second, "1970-01-01T00:00:05Z"), (TimeUnit::Nanosecond, "1970-01-01T00:00:00Z")] {
        let options = Options { time_unit: Some(unit), ..Options::default() };
        assert_eq!(one_value(r#""long""#, &long(5), utc(), &options), expected);
    }
}

const PLAIN: &str = r#"{"type":"record","name":"r","fields":[
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"n","type":"long"}]}"#;

#[test]
fn a_bad_record_leaves_its_neighbours_alone() {
    let mut decoder = decoder(around(DataType::Utf8View), &Options::default(), AtHand::of(PLAIN));
    let good = message(1, &[long(0), long(7)].concat());
    let cases: &[(Option<&[u8]>, &str)] = &[
        (Some(&good), "1970-01-01T00:00:00Z 7 NULL"),
        (None, "!payload is NULL"),
        (Some(b""), "!payload is empty"),
        (Some(b"{\"ts\":0,\"n\":1}"), "!malformed Avro at byte 0: the byte 0 of a registry's messages wanted, found 123"),
        (Some(&good[..4]), "!malformed Avro at byte 4: the end inside the schema's id"),
        (Some(&good[..5]), "!field \"ts\": malformed Avro at byte 5: the end inside a number"),
        (Some(&good[..6]), "!field \"n\": malformed Avro at byte 6: the end inside a number"),
        (Some(&[&good[..], &[1, 2]].concat()), "!malformed Avro at byte 7: 2 bytes stand behind the record"),
        (Some(&good), "1970-01-01T00:00:00Z 7 NULL"),
    ];
    for (offset, (payload, _)) in cases.iter().enumerate() {
        decoder.record(offset as i64, None, *payload).unwrap();
    }
    assert_eq!(decoder.pending(), cases.len());
    let decoded = decoder.take().unwrap();
    assert_eq!(shown(&decoded), cases.iter().map(|(_, expected)| (*expected).to_owned()).collect::<Vec<_>>());
    for rejected in &decoded.rejected {
        assert_eq!(rejected.raw, cases[rejected.offset as usize].0.unwrap_or_default());
    }
    decoder.set_latest_us(Some(-1));
    decoder.record(0, None, Some(&good)).unwrap();
    assert_eq!(shown(&decoder.take().unwrap()), ["!field \"ts\": event time is 1 us too far in the future"]);
}

#[test]
fn what_cannot_be_known_now_is_asked_again_and_nothing_is_taken() {
    let schemas = Arc::new(AtHand::default());
    let mut decoder = decoder(around(DataType::Utf8View), &Options::default(), Arc::clone(&schemas) as Arc<dyn Schemas>);
    let payload = message(9, &[long(0), long(7)].concat());
    for _ in 0..3 {
        assert_eq!(decoder.record(4, None, Some(&payload)).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(decoder.pending(), 0);
    }
    // What the registry does not have is asked for once until the next `take`, and may come.
    schemas.texts.lock().unwrap().insert(9, Err("the registry has none".to_owned()));
    decoder.record(4, None, Some(&payload)).unwrap();
    decoder.record(5, None, Some(&payload)).unwrap();
    assert_eq!(shown(&decoder.take().unwrap()), ["!schema 9: the registry has none"; 2]);
    assert_eq!(schemas.asked.load(Ordering::Relaxed), 4);
    schemas.put(9, PLAIN);
    for offset in 6..9 {
        decoder.record(offset, None, Some(&payload)).unwrap();
    }
    assert_eq!(decoder.take().unwrap().offsets, [6, 7, 8]);
    assert_eq!(schemas.asked.load(Ordering::Relaxed), 5);
}

#[test]
fn schemas_that_are_none_reject_their_records() {
    for (schema, expected) in [
        ("{", "schema 1: no JSON: EOF while parsing an object at line 1 column 1"),
        ("7", "schema 1: 7 is no type"),
        ("\"long\"", "schema 1: the record is a plain value, not a record with fields"),
        ("\"other\"", "schema 1: type \"other\" is not defined"),
        ("{}", "schema 1: a type has no \"type\""),
        (r#"{"type":"record","fields":[]}"#, "schema 1: a named type has no \"name\""),
        (r#"{"type":"record","name":"r"}"#, "schema 1: a record has no \"fields\""),
        (r#"{"type":"record","name":"r","fields":[{"name":"a"}]}"#, "schema 1: field \"a\" has no \"type\""),
        (
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
            "schema 1: field \"a\" is defined twice",
        ),
        (
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"enum","name":"r","symbols":[]}}]}"#,
            "schema 1: type \"r\" is defined twice",
        ),
        (r#"[["null"]]"#, "schema 1: a union stands directly in a union"),
        (r#"{"type":"record","name":"r","fields":[]}"#, "field \"ts\": is missing, and the column is NOT NULL"),
    ] {
        let mut decoder = decoder(around(DataType::Utf8View), &Options::default(), AtHand::of(schema));
        decoder.record(0, None, Some(&message(1, b""))).unwrap();
        assert_eq!(shown(&decoder.take().unwrap()), [format!("!{expected}")], "{schema}");
    }
    assert!(MessageDecoder::try_new(around(DataType::Int64), MessageFormat::Avro, &micros(), None).is_err());
}

#[test]
fn names_are_found_in_their_namespaces_and_types_may_contain_themselves() {
    let schema = r#"{"type":"record","name":"a.b.r","fields":[
        {"name":"ts","type":"long"},
        {"name":"e","type":{"type":"enum","name":"e","symbols":["X","Y"]}},
        {"name":"list","type":["null",{"type":"record","name":"list","namespace":"c","fields":[
            {"name":"e","type":"a.b.e"},{"name":"next","type":["null","list"]}]}]},
        {"name":"again","type":["null","c.list"]}]}"#;
    let columns = [("ts", utc(), false), ("e", DataType::Utf8View, true), ("deep", DataType::Utf8View, true)];
    let paths = vec![("deep".to_owned(), FieldPath::parse("$.list.next.next.e").unwrap())];
    let mut decoder = decoder(schema_of(&columns), &Options { paths, ..micros() }, AtHand::of(schema));
    let links = |n: usize| [&[2, 2].repeat(n)[..], &[0]].concat();
    for (offset, (list, again)) in [(0, 0), (3, 0), (2, 5), (200, 0), (0, 200)].into_iter().enumerate() {
        let record = [&long(0)[..], &[0], &links(list), &links(again)].concat();
        decoder.record(offset as i64, None, Some(&message(1, &record))).unwrap();
    }
    let at = "1970-01-01T00:00:00Z X";
    let expected = [
        format!("{at} NULL"),
        format!("{at} Y"),
        format!("{at} NULL"),
        "!field \"list.next.next.next\": nested too deep at byte 262".to_owned(),
        "!field \"again\": nested too deep at byte 263".to_owned(),
    ];
    assert_eq!(shown(&decoder.take().unwrap()), expected);
}

#[test]
fn work_is_bounded_by_the_bytes_of_a_record() {
    let around_type = |avro: &str| {
        format!(
            r#"{{"type":"record","name":"r","fields":[{{"name":"ts","type":"long"}},{{"name":"n","type":"long"}},{{"name":"v","type":{avro}}}]}}"#
        )
    };
    let run = |avro: &str, bytes: &[u8], path: &str| {
        let paths = vec![("v".to_owned(), FieldPath::parse(path).unwrap())];
        let mut decoder = decoder(around(DataType::Int64), &Options { paths, ..micros() }, AtHand::of(&around_type(avro)));
        decoder.record(0, None, Some(&message(1, &[&long(0)[..], &long(1), bytes].concat()))).unwrap();
        shown(&decoder.take().unwrap()).remove(0)
    };
    let many = [long(i64::MAX), long(0)].concat();
    let more = "!field \"v\": malformed Avro at byte 17: more values than a record of this length can hold";
    // Nulls take no bytes: passed over, and read for one place.
    assert_eq!(run(r#"{"type":"array","items":"null"}"#, &many, "$.w"), more);
    assert_eq!(run(r#"{"type":"array","items":"null"}"#, &many, "$.v[3]"), more);
    let nothing = r#"{"type":"array","items":{"type":"record","name":"q","fields":[{"name":"x","type":"null"}]}}"#;
    assert_eq!(run(nothing, &many, "$.v[3].x"), more);
    // A record that contains itself without end.
    let endless = r#"{"type":"record","name":"q","fields":[{"name":"q","type":"q"}]}"#;
    assert!(run(endless, &[], "$.w").starts_with("!field \"v\": nested too deep"));
    assert!(run(endless, &[], "$.v.q.x").starts_with("!field \"v.q.q\": nested too deep"));
    // Blocks that say how long they are, truly or not.
    let array = r#"{"type":"array","items":"long"}"#;
    let sized = |length: i64| [long(-2), long(length), long(5), long(6), long(1), long(7), long(0)].concat();
    assert_eq!(run(array, &sized(2), "$.v[2]"), "1970-01-01T00:00:00Z 1 7");
    assert_eq!(run(array, &sized(2), "$.w"), "1970-01-01T00:00:00Z 1 NULL");
    assert_eq!(run(array, &sized(1), "$.v[2]"), "!field \"v\": malformed Avro at byte 11: a block of another length than it says");
    assert_eq!(run(array, &sized(99), "$.v[2]"), "!field \"v\": malformed Avro at byte 8: a block that is longer than the record");
    assert_eq!(run(array, &sized(-1), "$.w"), "!field \"v\": malformed Avro at byte 8: a block that is longer than the record");
    // A key that stands twice.
    let map = [&long(2)[..], &text("k"), &long(1), &text("k"), &long(1), &long(0)].concat();
    assert_eq!(run(r#"{"type":"map","values":"long"}"#, &map, "$.v.k"), "!field \"v.k\": stands twice in the record");
}
