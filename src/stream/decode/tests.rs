//! Decoding as tables: what goes in, what comes out, whatever the format and the cut of the chunks.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit as ArrowUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::stream::schema::StreamColumn;

mod debezium;
mod messages;

pub(super) fn utc() -> DataType {
    DataType::Timestamp(ArrowUnit::Microsecond, Some("UTC".into()))
}

pub(super) fn schema_of(columns: &[(&str, DataType, bool)]) -> Arc<StreamSchema> {
    let event_time = columns.iter().position(|(name, _, _)| *name == "ts").unwrap();
    let columns = columns.iter().map(|(name, data_type, nullable)| StreamColumn {
        name: (*name).into(),
        data_type: data_type.clone(),
        nullable: *nullable,
    });
    Arc::new(StreamSchema::try_new(columns.collect(), vec![], event_time, 0).unwrap())
}

/// A time, an integer that must be there, and one nullable column of the type in question.
pub(super) fn around(data_type: DataType) -> Arc<StreamSchema> {
    schema_of(&[("ts", utc(), false), ("n", DataType::Int64, false), ("v", data_type, true)])
}

pub(super) fn micros() -> Options {
    Options { time_unit: Some(TimeUnit::Microsecond), ..Options::default() }
}

/// Every record as text in the order of offsets: its values, or `!` and the reason.
pub(super) fn shown(decoded: &Decoded) -> Vec<String> {
    assert_eq!(decoded.offsets.len(), decoded.rows.num_rows());
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = decoded.rows.columns().iter().map(super::batch::showable).collect();
    let columns: Vec<_> = columns.iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
    let rows = decoded
        .offsets
        .iter()
        .enumerate()
        .map(|(row, offset)| (*offset, columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" ")));
    let mut all: Vec<(i64, String)> = rows.collect();
    all.extend(decoded.rejected.iter().map(|r| (r.offset, format!("!{}", r.reason))));
    all.sort();
    all.into_iter().map(|(_, text)| text).collect()
}

fn json(schema: &Arc<StreamSchema>, options: &Options, input: &[u8]) -> Decoded {
    let mut lines = JsonLines::try_new(Arc::clone(schema), options, 0).unwrap();
    lines.feed(input);
    lines.finish();
    lines.take().unwrap()
}

fn csv(schema: &Arc<StreamSchema>, options: &Options, input: &[u8]) -> Result<Decoded> {
    let mut lines = CsvLines::try_new(Arc::clone(schema), options, CsvOptions::default(), 0)?;
    lines.feed(input)?;
    lines.finish()?;
    lines.take()
}

/// One value of a type as JSON; the expectation is the value shown, or `!` and what the reason contains.
fn check_value(data_type: DataType, cases: &[(&str, &str)]) {
    let schema = around(data_type.clone());
    for (value, expected) in cases {
        let line = format!("{{\"ts\":0,\"n\":1,\"v\":{value}}}");
        let got = shown(&json(&schema, &micros(), line.as_bytes()));
        assert_eq!(got.len(), 1, "{line}");
        match expected.strip_prefix('!') {
            Some(reason) => {
                assert!(got[0].starts_with("!field \"v\": ") && got[0].contains(reason), "{data_type} {value}: {}", got[0]);
            }
            None => assert_eq!(got[0], format!("1970-01-01T00:00:00Z 1 {expected}"), "{data_type} {value}"),
        }
    }
}

#[test]
fn json_values() {
    check_value(
        DataType::Boolean,
        &[
            ("true", "true"),
            ("false", "false"),
            ("null", "NULL"),
            ("1", "!BOOLEAN wanted, found number 1"),
            ("\"true\"", "!found string \"true\""),
            ("{}", "!found an object"),
            ("tru", "!malformed"),
        ],
    );
    check_value(
        DataType::Int8,
        &[
            ("127", "127"),
            ("-128", "-128"),
            ("128", "!out of range"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("12.5", "!would be lost"),
            ("true", "!TINYINT wanted, found a boolean"),
            ("\"1\"", "!found string"),
            ("[1]", "!found an array"),
        ],
    );
    check_value(DataType::Int16, &[("32767", "32767"), ("32768", "!out of range")]);
    check_value(DataType::Int32, &[("-2147483648", "-2147483648"), ("2147483648", "!out of range")]);
    check_value(
        DataType::Int64,
        &[
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "!out of range"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740993.0", "9007199254740993"),
            ("01", "!malformed"),
            ("-", "!malformed"),
            ("1e400", "!out of range"),
        ],
    );
    check_value(
        DataType::Float64,
        &[
            ("12.34", "12.34"),
            ("-0.0", "-0.0"),
            ("-0", "-0.0"),
            ("1", "1.0"),
            ("1e400", "!out of range"),
            ("1e-400", "0.0"),
            ("\"NaN\"", "NaN"),
            ("\"inf\"", "inf"),
            ("\"Infinity\"", "inf"),
            ("\"-Infinity\"", "-inf"),
            ("\"1.5\"", "!found string"),
            ("NaN", "!malformed"),
            ("0.1000000000000000055511151231257827021181583404541015625", "0.1"),
        ],
    );
    check_value(DataType::Float32, &[("0.1", "0.1"), ("1e39", "!out of range"), ("16777217", "16777216.0")]);
    check_value(
        DataType::Decimal128(6, 2),
        &[
            ("12.34", "12.34"),
            ("\"12.34\"", "12.34"),
            ("12.340", "12.34"),
            ("12.345", "!would be lost"),
            ("9999.99", "9999.99"),
            ("10000", "!out of range"),
            ("-1e3", "-1000.00"),
            ("\"x\"", "!found string"),
            ("true", "!found a boolean"),
        ],
    );
    check_value(
        DataType::Decimal128(38, 0),
        &[
            ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
            ("100000000000000000000000000000000000000", "!out of range"),
        ],
    );
    check_value(
        DataType::Utf8View,
        &[
            ("\"\"", ""),
            ("\"abc\"", "abc"),
            ("\"a\\\"b\\\\c\\/\\u00e9\\ud83d\\ude00\"", "a\"b\\c/é😀"),
            ("\"é😀\"", "é😀"),
            ("5", "!VARCHAR wanted, found number 5"),
            ("\"\\ud83d\"", "!surrogate"),
            ("\"\\ud83d\\u0041\"", "!surrogate"),
            ("\"\\udc00\"", "!surrogate"),
            ("\"\\x\"", "!an escape"),
            ("\"\\u12g4\"", "!hexadecimal"),
            ("\"a\tb\"", "!end of the string"),
            ("\"twelve bytes\"", "twelve bytes"),
            ("\"thirteen byte\\u0073\"", "thirteen bytes"),
        ],
    );
    check_value(DataType::BinaryView, &[("\"Zm9v\"", "666f6f"), ("\"\\\\x00ff\"", "00ff"), ("\"%\"", "!base64"), ("1", "!found number")]);
    check_value(DataType::Date32, &[("\"2024-02-29\"", "2024-02-29"), ("\"2023-02-29\"", "!DATE wanted"), ("19782", "!found number")]);
    check_value(
        utc(),
        &[
            ("\"2024-01-01T00:00:00.1234567Z\"", "2024-01-01T00:00:00.123456Z"),
            ("1704067200000000", "2024-01-01T00:00:00Z"),
            ("-0.5", "1969-12-31T23:59:59.999999Z"),
            ("1e18", "!out of range"),
            ("\"yesterday\"", "!TIMESTAMP wanted, found string"),
        ],
    );
}

#[test]
fn numeric_timestamps_need_a_unit() {
    let schema = around(DataType::Int64);
    for (unit, number, expected) in [
        ("s", "1704067200.5", "2024-01-01T00:00:00.500Z"),
        ("ms", "1704067200000.0019", "2024-01-01T00:00:00.000001Z"),
        ("us", "1704067200000001", "2024-01-01T00:00:00.000001Z"),
        ("ns", "1704067200000001999", "2024-01-01T00:00:00.000001Z"),
        ("ns", "-1", "1969-12-31T23:59:59.999999Z"),
        ("s", "-0.0000001", "1969-12-31T23:59:59.999999Z"),
    ] {
        let options = Options { time_unit: Some(TimeUnit::parse(unit).unwrap()), ..Options::default() };
        let line = format!("{{\"ts\":{number},\"n\":1}}");
        assert_eq!(shown(&json(&schema, &options, line.as_bytes())), [format!("{expected} 1 NULL")], "{unit} {number}");
        let line = format!("ts,n\n{number},1\n");
        assert_eq!(shown(&csv(&schema, &options, line.as_bytes()).unwrap()), [format!("{expected} 1 NULL")]);
    }
    let got = shown(&json(&schema, &Options::default(), b"{\"ts\":1704067200,\"n\":1}"));
    assert_eq!(got, ["!field \"ts\": TIMESTAMP wanted, found number 1704067200, and option time_unit is not set"]);
    assert!(TimeUnit::parse("m").is_err());
}

#[test]
fn json_records() {
    let schema = around(DataType::Utf8View);
    let deep = |n: usize| format!("{{\"ts\":0,\"n\":1,\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
    let cases: &[(&str, &str)] = &[
        ("{\"ts\":0,\"n\":7,\"v\":\"a\"}", "1970-01-01T00:00:00Z 7 a"),
        (" { \"v\" : \"a\" , \"n\" : 7 , \"ts\" : 0 } ", "1970-01-01T00:00:00Z 7 a"),
        ("{\"ts\":0,\"n\":7}", "1970-01-01T00:00:00Z 7 NULL"),
        ("{\"\\u0074s\":0,\"\\u006e\":7}", "1970-01-01T00:00:00Z 7 NULL"),
        ("{\"ts\":0,\"n\":7,\"x\":{\"a\":[1,{\"b\":null},\"\\ud800\"],\"a\":2},\"y\":[],\"z\":{}}", "1970-01-01T00:00:00Z 7 NULL"),
        ("{\"ts\":0}", "!field \"n\": is missing, and the column is NOT NULL"),
        ("{\"ts\":0,\"n\":null}", "!field \"n\": is NULL, and the column is NOT NULL"),
        ("{}", "!field \"ts\": is missing, and the column is NOT NULL"),
        ("{\"ts\":0,\"n\":1,\"n\":1}", "!field \"n\": stands twice in the record"),
        ("{\"ts\":0,\"n\":1,\"\\u006e\":1}", "!field \"n\": stands twice in the record"),
        ("{\"ts\":0,\"n\":1,\"x\":1,\"y\":2,\"\\u0078\":3}", "!field \"x\": stands twice in the record"),
        ("{\"ts\":0,\"n\":1,\"v\":null,\"v\":null}", "!field \"v\": stands twice in the record"),
        ("[1]", "!record is an array, not an object"),
        ("5", "!record is a number, not an object"),
        ("null", "!record is null, not an object"),
        ("hello", "!malformed JSON at byte 0: a value wanted, found 'h'"),
        ("{\"ts\":0,\"n\":1", "!malformed JSON at byte 13: a comma or the end of the object wanted, found the end"),
        ("{\"ts\":0,\"n\":1}}", "!malformed JSON at byte 14: nothing after the object wanted, found '}'"),
        ("{\"ts\":0,\"n\":1,}", "!malformed JSON at byte 14: a field's name in quotes wanted, found '}'"),
        ("{\"ts\" 0}", "!malformed JSON at byte 6: a colon after a field's name wanted, found '0'"),
        ("{ts:0}", "!malformed JSON at byte 1: a field's name in quotes wanted, found 't'"),
        ("{\"ts\":0,\"n\":1,\"x\":[1,]}", "!field \"x\": malformed JSON at byte 21: a value wanted, found ']'"),
        ("{\"ts\":0,\"n\":1,\"x\":[1}}", "!field \"x\": malformed JSON at byte 20: a comma or the end of the array wanted, found '}'"),
        (
            "{\"ts\":0,\"n\":1,\"x\":{\"a\":1]}",
            "!field \"x\": malformed JSON at byte 24: a comma or the end of the object wanted, found ']'",
        ),
        ("{\"ts\":0,\"n\":1,\"x\":{,}}", "!field \"x\": malformed JSON at byte 19: a field's name in quotes wanted, found ','"),
        ("{\"ts\":0,\"n\":1,\"x\":[,1]}", "!field \"x\": malformed JSON at byte 19: a value wanted, found ','"),
        ("{\"ts\":0,\"n\":1,\"x\":nul}", "!field \"x\": malformed JSON at byte 18: null wanted, found 'n'"),
        ("{\"ts\":0,\"n\":1,\"x\":\"", "!field \"x\": malformed JSON at byte 19: the end of the string wanted, found the end"),
        ("{\"ts\":0,\"n\":1,\"x\":\"\\", "!field \"x\": malformed JSON at byte 20: an escape wanted, found the end"),
        ("{\"ts\":0,\"n\":1,\"v\":\"é\\é\"}", "!field \"v\": malformed JSON at byte 22: an escape wanted, found 'é'"),
        (&deep(127), "1970-01-01T00:00:00Z 1 NULL"),
        (&deep(128), "!field \"x\": nested too deep at byte 145"),
        (&deep(1_000_000), "!field \"x\": nested too deep at byte 145"),
    ];
    for (line, expected) in cases {
        let decoded = json(&schema, &micros(), line.as_bytes());
        assert_eq!(shown(&decoded), [*expected], "{}", super::columns::shortened(line));
        if let Some(rejected) = decoded.rejected.first() {
            assert_eq!(rejected.raw, line.as_bytes());
        }
    }
    // The same record after each other one: the expected order of fields is only a guess.
    for (line, expected) in cases.iter().filter(|(line, _)| line.len() < 1000) {
        for (other, _) in cases.iter().filter(|(line, _)| line.len() < 1000) {
            let both = json(&schema, &micros(), format!("{other}\n{line}").as_bytes());
            assert_eq!(shown(&both).last().map(String::as_str), Some(*expected), "{other}\n{line}");
        }
    }
}

#[test]
fn lines_and_offsets() {
    let schema = around(DataType::Utf8View);
    let good = "{\"ts\":0,\"n\":1}";
    let row = "1970-01-01T00:00:00Z 1 NULL";
    let input = [b"\xef\xbb\xbf", good.as_bytes(), b"\r\n\n  \t\n\r\n", b"{\"ts\":0,\"n\":1,\"v\":\"\xff\"}\n", good.as_bytes()].concat();
    let decoded = json(&schema, &micros(), &input);
    assert_eq!(decoded.offsets, [0, 2]);
    assert_eq!(decoded.rejected[0].offset, 1);
    assert_eq!(decoded.rejected[0].raw, b"{\"ts\":0,\"n\":1,\"v\":\"\xff\"}");
    assert_eq!(shown(&decoded), [row, "!invalid UTF-8 at byte 19", row]);
    assert_eq!(json(&schema, &micros(), b"").read(), 0);
    assert_eq!(json(&schema, &micros(), b"\n\n").read(), 0);
    // A message of a log may hold line feeds.
    let mut decoder = JsonDecoder::try_new(schema, &micros()).unwrap();
    decoder.record(41, b"{\"ts\":0,\n\"n\":1}\n");
    decoder.record(43, b"");
    assert_eq!(decoder.pending(), 2);
    let decoded = decoder.take().unwrap();
    assert_eq!((decoded.offsets.as_slice(), decoded.rejected[0].offset), (&[41][..], 43));
    assert_eq!(decoder.take().unwrap().read(), 0);
}

#[test]
fn a_line_of_a_hundred_megabytes_is_one_rejected_row() {
    let schema = around(DataType::Utf8View);
    let mut lines = JsonLines::try_new(Arc::clone(&schema), &micros(), 0).unwrap();
    lines.feed(b"{\"ts\":0,\"n\":1}\n{\"ts\":0,\"n\":2,\"v\":\"");
    let chunk = vec![b'a'; 1 << 20];
    for _ in 0..100 {
        lines.feed(&chunk);
        assert!(lines.held() <= 16 << 20);
    }
    lines.feed(b"\"}\n{\"ts\":0,\"n\":3}\n");
    let decoded = lines.take().unwrap();
    assert_eq!(decoded.offsets, [0, 2]);
    assert_eq!(decoded.rejected[0].raw.len(), RAW_PREFIX_BYTES);
    assert!(decoded.rejected[0].raw.starts_with(b"{\"ts\":0,\"n\":2,\"v\":\"aaaa"));
    let length = (100 << 20) + 21;
    let reason = format!("record of {length} bytes is longer than the limit of 16777216 bytes");
    assert_eq!(decoded.rejected[0].reason, reason);
}

#[test]
fn the_future_is_rejected() {
    let schema = around(DataType::Utf8View);
    let options = Options { latest_us: Some(100), ..micros() };
    let input = b"{\"ts\":100,\"n\":1}\n{\"ts\":101,\"n\":1}\n";
    let reason = "!field \"ts\": event time is 1 us too far in the future";
    assert_eq!(shown(&json(&schema, &options, input)), ["1970-01-01T00:00:00.000100Z 1 NULL", reason]);
    assert_eq!(shown(&csv(&schema, &options, b"n,ts\n1,101\n").unwrap()), [reason]);
    let times = arrow::array::TimestampMicrosecondArray::from(vec![100, 101]);
    let batch =
        RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef), ("n", Arc::new(arrow::array::Int8Array::from(vec![1, 1])))]);
    let decoded = decode_batch(&schema, &options, &batch.unwrap(), 0).unwrap();
    assert_eq!(shown(&decoded)[1], reason);
}

#[test]
fn csv_records() {
    let schema = schema_of(&[
        ("ts", utc(), false),
        ("n", DataType::Int64, false),
        ("v", DataType::Utf8View, true),
        ("d", DataType::Float64, true),
        ("b", DataType::Boolean, true),
    ]);
    let at = "1970-01-01T00:00:00Z";
    let cases: &[(&str, &[&str])] = &[
        ("n,ts,v,d,b\n1,0,a,1.5,TRUE\n+02,0,,,\n", &["1 a 1.5 true", "2 NULL NULL NULL"]),
        ("n,ts,v\r\n1,0,\"\"\r\n\r\n1,0,\"a,\"\"b\"\"\nc\"\r\n", &["1  NULL NULL", "1 a,\"b\"\nc NULL NULL"]),
        ("x,\"n\",ts,y\n9,1,0,9", &["1 NULL NULL NULL"]),
        (
            "n,ts,d\n1,0,NaN\n1,0,-inf\n1,0,.5\n1,0,x\n",
            &["1 NULL NaN NULL", "1 NULL -inf NULL", "1 NULL 0.5 NULL", "!field \"d\": DOUBLE wanted, found string \"x\""],
        ),
        ("n,ts\n1\n1,0,2\n1,0\n", &["!record has 1 fields where 2 are due", "!record has 3 fields where 2 are due", "1 NULL NULL NULL"]),
        (
            "n,ts\n,0\n1.5,0\na,0\n",
            &[
                "!field \"n\": is NULL, and the column is NOT NULL",
                "!field \"n\": BIGINT wanted, found number 1.5, which has digits that would be lost",
                "!field \"n\": BIGINT wanted, found \"a\"",
            ],
        ),
        ("n,ts,v\n1,0,\"a\"b\n1,0,a\"b\n", &["!text stands behind a closing quote at byte 7", "1 a\"b NULL NULL"]),
        ("n,ts,v\n1,0,\"a\n1,0,b\n", &["!a quote is open at the end of the input"]),
        ("n,ts,b\n1,0,yes\n", &["!field \"b\": BOOLEAN wanted, found \"yes\""]),
    ];
    for (input, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|e| if e.starts_with('!') { (*e).into() } else { format!("{at} {e}") }).collect();
        let decoded = csv(&schema, &micros(), input.as_bytes()).unwrap();
        assert_eq!(shown(&decoded), expected, "{input}");
    }
    for (input, expected) in [
        ("", "CSV input has no header"),
        ("n,v\n", "CSV header lacks column \"ts\", which is NOT NULL"),
        ("n,ts,n\n", "CSV header names column \"n\" twice"),
        ("\"n\"x,ts\n", "CSV header: text stands behind a closing quote at byte 3"),
    ] {
        assert_eq!(csv(&schema, &micros(), input.as_bytes()).unwrap_err().message(), expected);
    }
    let bad = CsvOptions { delimiter: b'"', header: true };
    assert!(CsvLines::try_new(Arc::clone(&schema), &micros(), bad, 0).is_err());
    let bare = CsvOptions { delimiter: b';', header: false };
    let mut lines = CsvLines::try_new(schema, &micros(), bare, 5).unwrap();
    lines.feed(b"0;1;a,b;;\n").unwrap();
    lines.finish().unwrap();
    let decoded = lines.take().unwrap();
    assert_eq!((shown(&decoded), decoded.offsets), (vec![format!("{at} 1 a,b NULL NULL")], vec![5]));
}

/// Feeds an input whole, byte by byte and in random pieces: all must agree.
fn check_cuts(rng: &mut StdRng, input: &[u8], decode: impl Fn(&[&[u8]]) -> Vec<String>) {
    let whole = decode(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&bytes), whole, "byte by byte: {:?}", String::from_utf8_lossy(input));
    for _ in 0..4 {
        let mut pieces = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rng.random_range(0..=rest.len().min(20)));
            pieces.push(piece);
            rest = tail;
        }
        assert_eq!(decode(&pieces), whole, "{:?}", pieces.iter().map(|p| String::from_utf8_lossy(p)).collect::<Vec<_>>());
    }
}

#[test]
fn cuts_change_nothing_and_random_bytes_never_panic() {
    let schema = schema_of(&[
        ("ts", utc(), false),
        ("n", DataType::Int16, true),
        ("v", DataType::Utf8View, true),
        ("m", DataType::Decimal128(5, 2), true),
        ("y", DataType::BinaryView, true),
        ("d", DataType::Float32, true),
    ]);
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\n",
        b"\r\n",
        b"{\"ts\":0",
        b"\"ts\":0,",
        b"\"n\":",
        b"\"v\":",
        b"\"m\":",
        b"\"y\":",
        b"\"d\":",
        b"1",
        b"-2.5",
        b"1e9",
        b"null",
        b"true",
        b"\"abc\"",
        b"\\u00e9",
        b"\\ud800",
        b"\xc3\xa9",
        b"\xff",
        b"\"\"",
        b" ",
        b"ts,n,v\n",
        b"0,1,\"x",
        b"\",",
        b"12.345",
        b"{\"ts\":5,\"n\":1}\n",
        b"0,1,a\n",
        b"\xef\xbb\xbf",
        b"\0",
    ];
    for seed in 0..3000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut input = Vec::new();
        for _ in 0..rng.random_range(0..40) {
            if rng.random_range(0..20) == 0 {
                input.push(rng.random());
            } else {
                input.extend_from_slice(words[rng.random_range(0..words.len())]);
            }
        }
        let limit = if rng.random() { rng.random_range(1..60) } else { 1 << 20 };
        // Every other input has columns below the top.
        let paths = [("v", "$.v.v"), ("m", "$.v.m"), ("d", "$.n[1]")].map(|(c, p)| (c.to_owned(), FieldPath::parse(p).unwrap()));
        let paths = if rng.random() { paths.into() } else { Vec::new() };
        let options = Options { record_bytes_max: limit, paths, ..micros() };
        let raws = |decoded: &Decoded| decoded.rejected.iter().map(|r| format!("{:?}", r.raw)).collect::<Vec<_>>();
        check_cuts(&mut rng, &input, |pieces| {
            let mut lines = JsonLines::try_new(Arc::clone(&schema), &options, 0).unwrap();
            for piece in pieces {
                lines.feed(piece);
            }
            lines.finish();
            let decoded = lines.take().unwrap();
            assert_eq!(decoded.read() as i64, lines.next_offset());
            [shown(&decoded), raws(&decoded)].concat()
        });
        check_cuts(&mut rng, &input, |pieces| {
            let csv = CsvOptions { delimiter: b',', header: seed % 2 == 0 };
            let mut lines = CsvLines::try_new(Arc::clone(&schema), &options, csv, 0).unwrap();
            let fed = pieces.iter().try_for_each(|piece| lines.feed(piece)).and_then(|()| lines.finish());
            match fed {
                Ok(()) => {
                    let decoded = lines.take().unwrap();
                    assert_eq!(decoded.read() as i64, lines.next_offset());
                    [shown(&decoded), raws(&decoded)].concat()
                }
                Err(e) => vec![e.to_string()],
            }
        });
    }
}

#[test]
fn accepts_what_serde_json_accepts() {
    // Another parser's word on syntax, for records of which the stream knows no field but the time.
    let schema = schema_of(&[("ts", utc(), true)]);
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "1",
        "-0",
        "0.5",
        "1e5",
        "01",
        "null",
        "true",
        "false",
        "\"\\n\"",
        "\"\\u0041\"",
        " ",
        "{}",
        "[]",
        "-",
        "\"\\q\"",
        "\"\t\"",
        "{\"c\":1}",
        "[1,2]",
        "\"é\"",
        ".",
        "1.",
        "tru",
    ];
    let mut accepted = 0;
    for seed in 0..20_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut value = String::new();
        for _ in 0..rng.random_range(1..7) {
            value.push_str(words[rng.random_range(0..words.len())]);
        }
        let line = format!("{{\"ts\":0,\"x\":{value}}}");
        let ours = json(&schema, &micros(), line.as_bytes());
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&line).is_ok();
        let twice = ours.rejected.first().is_some_and(|r| r.reason.contains("twice"));
        assert_eq!(ours.rejected.is_empty(), theirs && !twice, "{line} {:?}", ours.rejected.first());
        accepted += u32::from(theirs);
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn random_records_come_back() {
    let schema = schema_of(&[
        ("id", DataType::Int64, true),
        ("ts", utc(), false),
        ("name", DataType::Utf8View, true),
        ("amount", DataType::Float64, true),
        ("price", DataType::Decimal128(20, 5), true),
        ("ok", DataType::Boolean, true),
    ]);
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut input = String::new();
        let mut expected = Vec::new();
        for _ in 0..20 {
            let id: i64 = rng.random::<i64>() >> rng.random_range(0..64);
            let ts: i64 = rng.random_range(-60_000_000_000_000_000..250_000_000_000_000_000);
            let name: String = (0..rng.random_range(0..20)).map(|_| rng.random::<char>()).collect();
            let amount = f64::from_bits(rng.random());
            let amount = if amount.is_finite() { amount } else { -0.0 };
            let price: i128 = i128::from(rng.random::<i64>()) * 10;
            let ok: bool = rng.random();
            let digits = format!("{}{}.{:05}", if price < 0 { "-" } else { "" }, price.abs() / 100_000, price.abs() % 100_000);
            let mut fields = [
                format!("\"id\":{id}"),
                format!("\"ts\":{ts}"),
                format!("\"name\":{}", serde_json::to_string(&name).unwrap()),
                format!("\"amount\":{amount:?}"),
                format!("\"price\":{digits}"),
                format!("\"ok\":{ok}"),
            ];
            for i in (1..fields.len()).rev() {
                fields.swap(i, rng.random_range(0..=i));
            }
            input += &format!("{{{}}}\n", fields.join(","));
            expected.push((id, ts, name, amount.to_bits(), price, ok));
        }
        let decoded = json(&schema, &micros(), input.as_bytes());
        assert_eq!(decoded.rejected, [], "seed {seed}");
        let columns = decoded.rows.columns();
        for (row, (id, ts, name, amount, price, ok)) in expected.iter().enumerate() {
            use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
            assert_eq!(columns[0].as_primitive::<Int64Type>().value(row), *id, "seed {seed}");
            assert_eq!(columns[1].as_primitive::<TimestampMicrosecondType>().value(row), *ts, "seed {seed}");
            assert_eq!(columns[2].as_string_view().value(row), name, "seed {seed}");
            assert_eq!(columns[3].as_primitive::<Float64Type>().value(row).to_bits(), *amount, "seed {seed}");
            assert_eq!(columns[4].as_primitive::<Decimal128Type>().value(row), *price, "seed {seed}");
            assert_eq!(columns[5].as_boolean().value(row), *ok, "seed {seed}");
        }
    }
}

/// A batch of one column beside the time, read into a column of another type.
fn check_column(from: ArrayRef, to: DataType, expected: &[&str]) {
    let schema = schema_of(&[("ts", utc(), false), ("v", to.clone(), true)]);
    let times = arrow::array::TimestampMicrosecondArray::from(vec![0; from.len()]);
    let what = format!("{} to {to}", from.data_type());
    let batch = RecordBatch::try_from_iter([("ts", Arc::new(times) as ArrayRef), ("v", from)]).unwrap();
    let got = match decode_batch(&schema, &Options::default(), &batch, 0) {
        Ok(decoded) => shown(&decoded).into_iter().map(|t| t.replace("1970-01-01T00:00:00Z ", "").replace("!field \"v\": ", "!")).collect(),
        Err(e) => vec![format!("error: {e}")],
    };
    assert_eq!(got.len(), expected.len(), "{what}: {got:?}");
    for (got, expected) in got.iter().zip(expected) {
        match expected.strip_prefix('!') {
            Some(reason) => assert!(got.starts_with('!') && got.contains(reason), "{what}: {got} is not {expected}"),
            None => assert_eq!(got, expected, "{what}"),
        }
    }
}

#[test]
fn arrow_columns() {
    use arrow::array::*;
    let i64s = || Arc::new(Int64Array::from(vec![Some(127), Some(128), None])) as ArrayRef;
    check_column(i64s(), DataType::Int8, &["127", "!out of range", "NULL"]);
    check_column(i64s(), DataType::Float64, &["127.0", "128.0", "NULL"]);
    check_column(i64s(), DataType::Decimal128(4, 1), &["127.0", "128.0", "NULL"]);
    check_column(i64s(), DataType::Decimal128(3, 1), &["!out of range", "!out of range", "NULL"]);
    check_column(i64s(), DataType::Utf8View, &["error: column \"v\" is VARCHAR and cannot be read from Int64"]);
    check_column(
        i64s(),
        utc(),
        &["error: column \"v\" is TIMESTAMP and cannot be read from Int64, unless option time_unit says what it counts"],
    );
    check_column(i64s(), DataType::Boolean, &["error: column \"v\" is BOOLEAN and cannot be read from Int64"]);
    check_column(Arc::new(UInt64Array::from(vec![1, u64::MAX])), DataType::Int64, &["1", "!out of range"]);
    check_column(Arc::new(UInt8Array::from(vec![255])), DataType::Int16, &["255"]);
    check_column(Arc::new(Float32Array::from(vec![0.1, f32::NAN])), DataType::Float64, &["0.10000000149011612", "NaN"]);
    check_column(Arc::new(Float64Array::from(vec![0.1, 1e39, f64::INFINITY])), DataType::Float32, &["0.1", "!out of range", "inf"]);
    check_column(Arc::new(Float64Array::from(vec![2.0, 2.5, f64::NAN])), DataType::Int64, &["2", "!would be lost", "!found NaN"]);
    check_column(Arc::new(Float64Array::from(vec![12.34, 12.345])), DataType::Decimal128(5, 2), &["12.34", "!would be lost"]);
    let decimals = Decimal128Array::from(vec![1234, 12345]).with_precision_and_scale(10, 3).unwrap();
    check_column(Arc::new(decimals.clone()), DataType::Float64, &["1.234", "12.345"]);
    check_column(Arc::new(decimals.clone()), DataType::Decimal128(10, 2), &["!would be lost", "!would be lost"]);
    check_column(Arc::new(decimals), DataType::Decimal128(38, 4), &["1.2340", "12.3450"]);
    check_column(Arc::new(LargeStringArray::from(vec![Some("a"), None])), DataType::Utf8View, &["a", "NULL"]);
    let dictionary: DictionaryArray<arrow::datatypes::Int8Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    check_column(Arc::new(dictionary), DataType::Utf8View, &["a", "NULL", "a"]);
    check_column(Arc::new(StringArray::from(vec!["2024-01-01", "x"])), DataType::Date32, &["2024-01-01", "!found string"]);
    check_column(Arc::new(StringArray::from(vec!["1.5"])), DataType::Decimal128(3, 1), &["1.5"]);
    check_column(Arc::new(StringArray::from(vec!["1"])), DataType::Int64, &["error: column \"v\" is BIGINT and cannot be read from Utf8"]);
    check_column(Arc::new(StringArray::from(vec!["Zm9v"])), DataType::BinaryView, &["666f6f"]);
    check_column(Arc::new(BinaryArray::from(vec![b"foo".as_slice()])), DataType::BinaryView, &["666f6f"]);
    check_column(Arc::new(NullArray::new(2)), DataType::Utf8View, &["NULL", "NULL"]);
    check_column(Arc::new(BooleanArray::from(vec![true])), DataType::Boolean, &["true"]);
    check_column(
        Arc::new(TimestampNanosecondArray::from(vec![1999, -1])),
        utc(),
        &["1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z"],
    );
    let zoned = TimestampMillisecondArray::from(vec![1]).with_timezone("+02:00");
    check_column(Arc::new(zoned), utc(), &["1970-01-01T00:00:00.001Z"]);
    check_column(
        Arc::new(TimestampSecondArray::from(vec![1, i64::MAX, i64::MIN])),
        utc(),
        &["1970-01-01T00:00:01Z", "!out of range", "!out of range"],
    );
    let absurd = TimestampMicrosecondArray::from(vec![1, i64::MAX]).with_timezone("UTC");
    check_column(Arc::new(absurd), utc(), &["1970-01-01T00:00:00.000001Z", "!out of range"]);
    check_column(Arc::new(Date32Array::from(vec![1, i32::MAX])), DataType::Date32, &["1970-01-02", "!out of range"]);
    check_column(Arc::new(Date32Array::from(vec![1, i32::MAX])), utc(), &["1970-01-02T00:00:00Z", "!out of range"]);
    check_column(Arc::new(Date64Array::from(vec![-1])), DataType::Date32, &["1969-12-31"]);
}

#[test]
fn arrow_rows_are_rejected_one_by_one() {
    let schema = schema_of(&[("ts", utc(), false), ("n", DataType::Int8, false), ("v", DataType::Utf8View, true)]);
    let n = arrow::array::Int32Array::from(vec![Some(1), None, Some(300), Some(4)]);
    let ts = arrow::array::TimestampSecondArray::from(vec![Some(0), Some(1), Some(2), None]);
    let extra = StringArray::from(vec!["a", "b\nc", "d", "e"]);
    let batch = RecordBatch::try_from_iter([("extra", Arc::new(extra) as ArrayRef), ("n", Arc::new(n)), ("ts", Arc::new(ts))]);
    let batch = batch.unwrap();
    let decoded = decode_batch(&schema, &Options::default(), &batch, 10).unwrap();
    assert_eq!(decoded.rows.schema_ref(), schema.arrow_schema());
    assert_eq!(
        shown(&decoded),
        [
            "1970-01-01T00:00:00Z 1 NULL",
            "!field \"n\": is NULL, and the column is NOT NULL",
            "!field \"n\": TINYINT wanted, found number 300, which is out of range",
            "!field \"ts\": is NULL, and the column is NOT NULL",
        ]
        .map(String::from)
    );
    assert_eq!(decoded.offsets, [10]);
    let raw: Vec<_> = decoded.rejected.iter().map(|r| String::from_utf8_lossy(&r.raw).into_owned()).collect();
    assert_eq!(raw[0], "{\"extra\":\"b\\nc\",\"n\":null,\"ts\":\"1970-01-01T00:00:01\"}");
    assert_eq!(decoded.rejected.iter().map(|r| r.offset).collect::<Vec<_>>(), [11, 12, 13]);

    let missing = batch.project(&[0, 1]).unwrap();
    let error = decode_batch(&schema, &Options::default(), &missing, 0).unwrap_err();
    assert_eq!(error.message(), "column \"ts\" is NOT NULL and is missing");
    let twice = Arc::new(Schema::new(vec![Field::new("n", DataType::Float64, false); 2]));
    let one: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let twice = RecordBatch::try_new(twice, vec![Arc::clone(&one), one]).unwrap();
    assert!(decode_batch(&schema, &Options::default(), &twice, 0).is_err());
}

#[test]
fn every_nan_is_the_canonical_one() {
    let schema = schema_of(&[("ts", utc(), false), ("v", DataType::Float64, true), ("w", DataType::Float32, true)]);
    let v = Float64Array::from(vec![f64::from_bits(0xfff8_0000_0000_0001), f64::from_bits(0x7ff0_0000_0000_0001), -0.0]);
    let w = arrow::array::Float32Array::from(vec![f32::from_bits(0xffc0_0001), f32::from_bits(0x7f80_0001), -0.0]);
    let ts = arrow::array::TimestampMicrosecondArray::from(vec![0; 3]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(v) as ArrayRef), ("w", Arc::new(w)), ("ts", Arc::new(ts))]);
    let from_arrow = decode_batch(&schema, &Options::default(), &batch.unwrap(), 0).unwrap();
    let line = "{\"ts\":0,\"v\":\"NaN\",\"w\":\"NaN\"}\n";
    let from_json = json(&schema, &micros(), format!("{line}{line}{{\"ts\":0,\"v\":-0.0,\"w\":-0.0}}").as_bytes());
    let from_csv = csv(&schema, &micros(), b"ts,v,w\n0,NaN,NaN\n0,NaN,NaN\n0,-0,-0\n").unwrap();
    for decoded in [from_arrow, from_json, from_csv] {
        let v = decoded.rows.column(1).as_primitive::<Float64Type>();
        let bits: Vec<u64> = v.values().iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0000, 0x8000_0000_0000_0000]);
        let w = decoded.rows.column(2).as_primitive::<arrow::datatypes::Float32Type>();
        let bits: Vec<u32> = w.values().iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [0x7fc0_0000, 0x7fc0_0000, 0x8000_0000]);
    }
}
