//! Debezium's envelopes: what becomes of each operation, where a change stands, what time it has.

use super::*;
use crate::stream::order::OrderKeys;
use crate::stream::schema::{OPERATION, POSITION};

/// A table of customers as a stream of changes.
fn customers() -> Arc<StreamSchema> {
    let column = |name: &str, data_type: DataType| StreamColumn { name: name.into(), data_type, nullable: true };
    let columns = vec![
        column("id", DataType::Int64),
        column("tier", DataType::Utf8View),
        column("ts", utc()),
        column(POSITION, DataType::Utf8View),
        column(OPERATION, DataType::Utf8View),
    ];
    let columns = columns.into_iter().map(|c| StreamColumn { nullable: c.name != OPERATION, ..c }).collect();
    Arc::new(StreamSchema::try_new(columns, vec![3, 0], 2, 0).unwrap())
}

fn decoder(options: &Options) -> MessageDecoder {
    MessageDecoder::try_new(customers(), MessageFormat::Debezium, options, None).unwrap()
}

fn one(payload: &str) -> String {
    let mut decoder = decoder(&micros());
    decoder.record(7, Some(b"{\"id\":1}"), Some(payload.as_bytes())).unwrap();
    let decoded = decoder.take().unwrap();
    assert_eq!(decoded.rejected.iter().map(|r| r.raw.as_slice()).collect::<Vec<_>>(), vec![payload.as_bytes(); decoded.rejected.len()]);
    shown(&decoded).remove(0)
}

const SOURCE: &str = r#"{"connector":"postgresql","ts_ms":5,"lsn":42,"xmin":null}"#;

#[test]
fn operations() {
    let row = r#"{"id":1,"tier":"gold","ts":9,"x":{"y":[1]}}"#;
    let envelope =
        |op: &str, before: &str, after: &str| format!(r#"{{"before":{before},"after":{after},"source":{SOURCE},"op":{op},"ts_ms":99}}"#);
    let at = |time: &str, op: &str| format!("1 gold 1970-01-01T00:00:00{time}Z 00000000000000000042 {op}");
    let cases = [
        (envelope("\"c\"", "null", row), at(".000009", "c")),
        (envelope("\"u\"", row, row), at(".000009", "u")),
        (envelope("\"r\"", "null", row), at(".000009", "r")),
        // A delete happened when the database says, not when its row was last written.
        (envelope("\"d\"", row, "null"), at(".005", "d")),
        (envelope("\"d\"", r#"{"id":1}"#, "null"), "1 NULL 1970-01-01T00:00:00.005Z 00000000000000000042 d".to_owned()),
        // So does a row without the column.
        (envelope("\"c\"", "null", r#"{"tier":"gold","id":1}"#), at(".005", "c")),
        (envelope("\"c\"", "null", r#"{"tier":"gold","id":1,"ts":null}"#), "!field \"ts\": is NULL, and the column is NOT NULL".to_owned()),
        // The names of the envelope's columns are no fields of a row.
        (envelope("\"c\"", "null", r#"{"id":1,"tier":"gold","_op":"d","_position":"9"}"#), at(".005", "c")),
        (envelope("\"d\"", "null", "null"), "!field \"before\": is missing, and the operation is d".to_owned()),
        (envelope("\"u\"", row, "null"), "!field \"after\": is missing, and the operation is u".to_owned()),
        (envelope("\"t\"", "null", "null"), "!field \"op\": a table was truncated, which is a change of no row".to_owned()),
        (envelope("\"m\"", "null", "null"), "!field \"op\": a logical message, which is a change of no row".to_owned()),
        (envelope("\"x\"", "null", row), "!field \"op\": \"c\", \"u\", \"r\" or \"d\" wanted, found \"x\"".to_owned()),
        (envelope("\"\"", "null", row), "!field \"op\": \"c\", \"u\", \"r\" or \"d\" wanted, found \"\"".to_owned()),
        (row.to_owned(), "!field \"op\": is missing, so the record is no envelope of Debezium".to_owned()),
        (envelope("\"c\"", "null", r#"{"id":"1"}"#), "!field \"id\": BIGINT wanted, found string \"1\"".to_owned()),
        (envelope("\"c\"", "null", "[1]"), "!record is an array, not an object".to_owned()),
        (
            envelope("\"u\"", "null", r#"{"id":1,"tier":"__debezium_unavailable_value"}"#),
            "!field \"tier\": the value is not in the database's log (for Postgres, see REPLICA IDENTITY FULL)".to_owned(),
        ),
        (envelope("\"u\"", "null", r#"{"id":1,"tier":"gold","notes":"__debezium_unavailable_value"}"#), at(".005", "u")),
        (format!(r#"{{"op":"c","op":"d","after":{row},"source":{SOURCE}}}"#), "!field \"op\": stands twice in the record".to_owned()),
        (format!(r#"{{"op":"c","after":{row}}}"#), "!field \"source\": is missing".to_owned()),
        ("5".to_owned(), "!record is a number, not an object".to_owned()),
        ("{\"op\":\"c\"".to_owned(), "!malformed JSON at byte 9: a comma or the end of the object wanted, found the end".to_owned()),
        ("{\"op\":\"c\"}x".to_owned(), "!malformed JSON at byte 10: nothing after the object wanted, found 'x'".to_owned()),
    ];
    for (payload, expected) in &cases {
        assert_eq!(one(payload), *expected, "{payload}");
        // With the schema of the JSON converter around it, the same.
        if !expected.contains("record") && !expected.contains("malformed") {
            let wrapped = format!(r#" {{"schema":{{"type":"struct","fields":[{{"field":"op"}}]}},"payload": {payload} }} "#);
            assert_eq!(one(&wrapped), *expected, "{wrapped}");
        }
    }
    assert_eq!(one(r#"{"schema":{},"payload":7}"#), "!payload is a number, not an object");
}

#[test]
fn positions_sort_as_the_log_does() {
    let logs: &[&[&str]] = &[
        &[r#""lsn":9"#, r#""lsn":10"#, r#""lsn":18446744073709551615"#],
        &[
            r#""file":"mysql-bin.000009","pos":900,"row":0"#,
            r#""file":"mysql-bin.000010","pos":4,"row":0"#,
            r#""file":"mysql-bin.000010","pos":4,"row":1"#,
            r#""file":"mysql-bin.999999","pos":1"#,
            r#""file":"mysql-bin.1000000","pos":0"#,
        ],
        &[
            r#""commit_lsn":"00000027:00000ac0:0001","change_lsn":null"#,
            r#""commit_lsn":"00000027:00000ac0:0001","change_lsn":"00000027:00000ac0:0002","event_serial_no":1"#,
            r#""commit_lsn":"00000027:00000ac0:0001","change_lsn":"00000027:00000ac0:0002","event_serial_no":2"#,
            r#""commit_lsn":"00000027:00000AC1:0001","change_lsn":"00000027:00000ac0:0002""#,
        ],
        // Unknown sources: by their time, then by the offset, which goes up below.
        &[r#""scn":"5""#, r#""scn":"4""#],
    ];
    for log in logs {
        let mut decoder = decoder(&micros());
        for (offset, place) in log.iter().enumerate() {
            let payload = format!(r#"{{"op":"c","after":{{"id":1}},"source":{{"ts_ms":5,{place}}}}}"#);
            decoder.record(offset as i64, None, Some(payload.as_bytes())).unwrap();
        }
        let decoded = decoder.take().unwrap();
        assert_eq!(decoded.rejected, []);
        let keys = OrderKeys::for_stream(&customers()).unwrap().keys(&decoded.rows).unwrap();
        let keys: Vec<_> = keys.iter().flatten().collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "{log:?}");
    }
    for (source, expected) in [
        (r#"{"ts_ms":5,"lsn":"0/16B"}"#, "field \"source.lsn\": a number from 0 on wanted, found \"0/16B\""),
        (r#"{"ts_ms":5,"file":"binlog","pos":1}"#, "field \"source.file\": a number from 0 on wanted, found binlog"),
        (r#"{"lsn":1}"#, "field \"source.ts_ms\": is missing, and the row has no event time"),
        (r#"{"ts_ms":"now","lsn":1}"#, "field \"source.ts_ms\": a time wanted, found \"now\""),
        (r#"{"ts_us":1}"#, "field \"source\": has no position and no \"ts_ms\""),
        (r#"{"ts_ms":99999999999999999,"lsn":1}"#, "field \"source.ts_ms\": a time wanted, found 99999999999999999"),
        ("7", "source is a number, not an object"),
    ] {
        assert_eq!(one(&format!(r#"{{"op":"c","after":{{"id":1}},"source":{source}}}"#)), format!("!{expected}"));
    }
    for (source, expected) in [
        (r#"{"ts_ms":1,"ts_us":1002,"ts_ns":1003999,"lsn":1}"#, "001003"),
        (r#"{"ts_ms":1,"ts_us":1002,"lsn":1}"#, "001002"),
        (r#"{"ts_ms":1,"ts_us":null,"lsn":1}"#, "001"),
    ] {
        let got = one(&format!(r#"{{"op":"c","after":{{"id":1}},"source":{source}}}"#));
        assert_eq!(got, format!("1 NULL 1970-01-01T00:00:00.{expected}Z 00000000000000000001 c"));
    }
}

#[test]
fn tombstones_are_counted() {
    let mut decoder = decoder(&Options { latest_us: Some(4000), ..micros() });
    let delete = format!(r#"{{"op":"d","before":{{"id":1}},"source":{SOURCE}}}"#);
    decoder.record(0, Some(b"1"), Some(delete.as_bytes())).unwrap();
    decoder.record(1, Some(b"1"), None).unwrap();
    decoder.set_latest_us(None);
    decoder.record(2, Some(b"1"), Some(delete.as_bytes())).unwrap();
    decoder.record(3, Some(b"1"), None).unwrap();
    decoder.record(4, None, Some(b"\xff")).unwrap();
    assert_eq!(decoder.pending(), 5);
    let decoded = decoder.take().unwrap();
    assert_eq!((decoded.tombstones, decoded.offsets.as_slice(), decoded.read()), (2, &[2][..], 5));
    let reasons: Vec<_> = decoded.rejected.iter().map(|r| (r.offset, r.reason.as_str())).collect();
    assert_eq!(reasons, [(0, "field \"ts\": event time is 1000 us too far in the future"), (4, "invalid UTF-8 at byte 0")]);
    assert_eq!(decoder.take().unwrap().read(), 0);
}

#[test]
fn random_envelopes_never_panic() {
    let words = [
        "{",
        "}",
        "\"op\":",
        "\"c\"",
        "\"d\"",
        "\"before\":",
        "\"after\":",
        "\"source\":",
        "\"payload\":",
        ",",
        "null",
        "{\"id\":1}",
        "{\"ts_ms\":5,\"lsn\":1}",
        "\"\"",
        "\"",
        "\\u0041",
        "é",
        "1",
        "-1",
        "[",
        "]",
        "\"file\":\"a.1\"",
        "\"lsn\":\"\"",
        ":",
        " ",
        "\"ts_ns\":1e400",
    ];
    let mut accepted = 0;
    for seed in 0..20_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let pick = |rng: &mut StdRng| words[rng.random_range(0..words.len())];
        let mut text: Vec<u8> = Vec::new();
        if rng.random() {
            // Mostly what is right, so that some records are accepted.
            let mut or = |right: &'static str| if rng.random_range(0..3) > 0 { right } else { pick(&mut rng) };
            let (a, b, c) = (or("\"c\""), or("{\"id\":1}"), or("1"));
            text.extend(format!("{{\"op\":{a},\"after\":{b},\"source\":{{\"ts_ms\":5,\"lsn\":{c}}}}}").bytes());
        }
        for _ in 0..rng.random_range(0..15) {
            text.extend(pick(&mut rng).bytes());
        }
        let mut decoder = decoder(&micros());
        decoder.record(0, None, Some(&text)).unwrap();
        let decoded = decoder.take().unwrap();
        assert_eq!(decoded.read(), 1);
        accepted += decoded.offsets.len();
    }
    assert!(accepted > 0);
}
