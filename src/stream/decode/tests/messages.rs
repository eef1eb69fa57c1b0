//! Messages of a log, and columns that are read from below the top of a record.

use super::*;

/// A stream with a column for each path, all but the time of one type, and what its decoder makes of one payload.
fn at_paths(data_type: &DataType, paths: &[(&str, &str)], payload: &str) -> Vec<String> {
    let columns = paths.iter().map(|(name, _)| (*name, data_type.clone(), !name.ends_with('!')));
    let columns: Vec<_> = [("ts", utc(), false)].into_iter().chain(columns).collect();
    let paths = paths.iter().filter(|(_, path)| !path.is_empty());
    let paths = paths.map(|(name, path)| ((*name).to_owned(), FieldPath::parse(path).unwrap())).collect();
    let options = Options { paths, ..micros() };
    let mut decoder = MessageDecoder::try_new(schema_of(&columns), MessageFormat::Json, &options, None).unwrap();
    // Twice, since the first record teaches the order of fields.
    for offset in 0..2 {
        decoder.record(offset, None, Some(payload.as_bytes())).unwrap();
    }
    let shown = shown(&decoder.take().unwrap());
    assert_eq!(shown[0], shown[1], "{payload}");
    vec![shown[0].replace("1970-01-01T00:00:00Z ", "")]
}

#[test]
fn columns_are_read_from_paths() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: &[Case] = &[
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"b":7}}"#, "7"),
        (&[("v", "$.a.b")], r#"{"a":{"x":[1,{"b":9}],"b":7,"y":{}},"ts":0,"b":8,"v":9}"#, "7"),
        (&[("v", "$.a.b")], r#"{"ts":0,"\u0061":{"\u0062":7}}"#, "7"),
        (&[("v", "$.a.b"), ("b", "")], r#"{"ts":0,"a":{"b":7},"b":8}"#, "7 8"),
        (&[("v", "$.w"), ("w", "$.v")], r#"{"ts":0,"v":1,"w":2}"#, "2 1"),
        (&[("v", "$.a.b"), ("w", "$.a.c.d")], r#"{"ts":0,"a":{"c":{"d":1},"b":2}}"#, "2 1"),
        // Several columns of one value.
        (&[("v", "$.a"), ("a", "")], r#"{"ts":0,"a":5}"#, "5 5"),
        (&[("v", "$.a.b"), ("w", "$.a.b")], r#"{"ts":0,"a":{"b":5}}"#, "5 5"),
        (&[("v", "$.a.b"), ("w", "$.a.b")], r#"{"ts":0,"a":{"b":null}}"#, "NULL NULL"),
        // A value and something below it: never both.
        (&[("v", "$.a"), ("w", "$.a.b")], r#"{"ts":0,"a":5}"#, "5 NULL"),
        (&[("v", "$.a"), ("w", "$.a.b")], r#"{"ts":0,"a":{"b":1}}"#, "!field \"a\": BIGINT wanted, found an object"),
        // Places of arrays.
        (&[("v", "$.a[1]")], r#"{"ts":0,"a":[1,2,3]}"#, "2"),
        (&[("v", "$.a[1]"), ("w", "$.a[0]"), ("x", "$.a[7]")], r#"{"ts":0,"a":[ 1 , 2 ]}"#, "2 1 NULL"),
        (&[("v", "$.a[1].b"), ("w", "$.a[0][1]")], r#"{"ts":0,"a":[[3,4],{"b":5}]}"#, "5 4"),
        (&[("v", "$.a[0].b"), ("w", "$.a.b")], r#"{"ts":0,"a":[{"b":5}]}"#, "5 NULL"),
        (&[("v", "$.a[0].b"), ("w", "$.a.b")], r#"{"ts":0,"a":{"b":5}}"#, "NULL 5"),
        (&[("v", "$.a[0]")], r#"{"ts":0,"a":[]}"#, "NULL"),
        // What is not there is absent, also behind what is no object.
        (&[("v", "$.a.b")], r#"{"ts":0}"#, "NULL"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{}}"#, "NULL"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":null}"#, "NULL"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":"text"}"#, "NULL"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":[{"b":1}]}"#, "NULL"),
        (&[("v", "$.a[0]")], r#"{"ts":0,"a":{"0":1}}"#, "NULL"),
        (&[("v", "$.a.b.c")], r#"{"ts":0,"a":{"b":1}}"#, "NULL"),
        (&[("v!", "$.a.b")], r#"{"ts":0,"a":{}}"#, "!field \"a.b\": is missing, and the column is NOT NULL"),
        (&[("v!", "$.a.b")], r#"{"ts":0,"a":{"b":null}}"#, "!field \"a.b\": is NULL, and the column is NOT NULL"),
        // Reasons name the path.
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"b":"x"}}"#, "!field \"a.b\": BIGINT wanted, found string \"x\""),
        (&[("v", "$['a b'][0]")], r#"{"ts":0,"a b":[true]}"#, "!field \"['a b'][0]\": BIGINT wanted, found a boolean"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"b":1,"b":1}}"#, "!field \"a.b\": stands twice in the record"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"b":1},"a":{}}"#, "!field \"a\": stands twice in the record"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":1,"a":1}"#, "!field \"a\": stands twice in the record"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"x":1,"x":1}}"#, "!field \"a.x\": stands twice in the record"),
        (&[("v", "$.a.b")], r#"{"ts":0,"x":1,"a":{"x":1},"y":{"x":1,"x":2}}"#, "NULL"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"b":1}"#, "!malformed JSON at byte 19: a comma or the end of the object wanted, found the end"),
        (&[("v", "$.a.b")], r#"{"ts":0,"a":{"x":tru}}"#, "!field \"a.x\": malformed JSON at byte 17: true wanted, found 't'"),
        (&[("v", "$.a[1]")], r#"{"ts":0,"a":[nul,1]}"#, "!field \"a[0]\": malformed JSON at byte 13: null wanted, found 'n'"),
        (&[("v", "$.a[1]")], r#"{"ts":0,"a":[1,]}"#, "!field \"a[1]\": malformed JSON at byte 15: a value wanted, found ']'"),
        (
            &[("v", "$.a[1]")],
            r#"{"ts":0,"a":[1 2]}"#,
            "!field \"a\": malformed JSON at byte 15: a comma or the end of the array wanted, found '2'",
        ),
    ];
    for (paths, payload, expected) in cases {
        assert_eq!(at_paths(&DataType::Int64, paths, payload), [*expected], "{paths:?} {payload}");
    }
    // Strings of several columns keep their text, escapes or not.
    let both = at_paths(&DataType::Utf8View, &[("v", "$.a.b"), ("w", "$.a.b")], r#"{"ts":0,"a":{"b":"\u00e9 and more than twelve"}}"#);
    assert_eq!(both, ["é and more than twelve é and more than twelve"]);
    // Depth counts the objects that are read as it counts those that are not.
    for (levels, expected) in [(126, "7"), (127, "!field \"a.x\": nested too deep at byte 149")] {
        let x = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let got = at_paths(&DataType::Int64, &[("v", "$.a.b")], &format!(r#"{{"ts":0,"a":{{"b":7,"x":{x}}}}}"#));
        assert_eq!(got, [expected], "{levels}");
    }
}

#[test]
fn a_path_is_of_a_column() {
    let options = Options { paths: vec![("other".into(), FieldPath::parse("$.a").unwrap())], ..micros() };
    let e = MessageDecoder::try_new(around(DataType::Int64), MessageFormat::Json, &options, None).unwrap_err();
    assert_eq!(e.message(), "option \"json_path.other\": the stream has no column \"other\"");
}

#[test]
fn messages_have_offsets_of_their_own() {
    let mut decoder = MessageDecoder::try_new(around(DataType::Utf8View), MessageFormat::Json, &micros(), None).unwrap();
    decoder.record(5, Some(b"key"), Some(b"{\"ts\":0,\n\"n\":1}")).unwrap();
    decoder.record(7, Some(b"key"), None).unwrap();
    decoder.record(8, None, Some(b"")).unwrap();
    decoder.set_latest_us(Some(0));
    decoder.record(11, None, Some(b"{\"ts\":1,\"n\":1}")).unwrap();
    assert_eq!(decoder.pending(), 4);
    let decoded = decoder.take().unwrap();
    assert_eq!((decoder.pending(), decoded.offsets.as_slice()), (0, &[5][..]));
    let rejected: Vec<_> = decoded.rejected.iter().map(|r| (r.offset, r.raw.as_slice(), r.reason.as_str())).collect();
    assert_eq!(
        rejected,
        [
            (7, &b""[..], "payload is NULL"),
            (8, b"", "malformed JSON at byte 0: a value wanted, found the end"),
            (11, b"{\"ts\":1,\"n\":1}", "field \"ts\": event time is 1 us too far in the future"),
        ]
    );
    for name in MessageFormat::NAMES {
        assert_eq!(MessageFormat::find(name).unwrap().name(), *name);
    }
    assert_eq!(MessageFormat::find("JSON"), None);
}

#[test]
fn paths_agree_with_a_walk_over_the_parsed_value() {
    // Random nested records, read by paths and by another parser.
    fn value(rng: &mut StdRng, depth: u32) -> String {
        match rng.random_range(0..if depth == 0 { 3 } else { 6 }) {
            0 => "null".to_owned(),
            1 | 2 => rng.random_range(-9..9).to_string(),
            3 => {
                let items: Vec<_> = (0..rng.random_range(0..4)).map(|_| value(rng, depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let mut names = vec!["a", "b", "c", "d"];
                names.truncate(rng.random_range(0..5));
                let turn = rng.random_range(0..names.len().max(1));
                names.rotate_left(turn);
                let fields: Vec<_> = names.iter().map(|name| format!("\"{name}\":{}", value(rng, depth - 1))).collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }
    let paths = ["$.a.b", "$.a.c.d", "$.a[1]", "$.b[0].a", "$.b[0][2]", "$.c", "$.d.d.d.d", "$.a.b"];
    let pointers = ["/a/b", "/a/c/d", "/a/1", "/b/0/a", "/b/0/2", "/c", "/d/d/d/d", "/a/b"];
    let names: Vec<String> = (0..paths.len()).map(|i| format!("p{i}")).collect();
    let mut columns = vec![("ts", utc(), false)];
    columns.extend(names.iter().map(|name| (name.as_str(), DataType::Int64, true)));
    let parsed = names.iter().zip(paths).map(|(name, path)| (name.clone(), FieldPath::parse(path).unwrap()));
    let options = Options { paths: parsed.collect(), ..micros() };
    let mut decoder = MessageDecoder::try_new(schema_of(&columns), MessageFormat::Json, &options, None).unwrap();
    let (mut accepted, mut found) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let fields: Vec<_> = ["a", "b", "c", "d"].map(|name| format!("\"{name}\":{}", value(&mut rng, 4))).into();
        let text = format!("{{\"ts\":0,{}}}", fields.join(","));
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        // An index into an object, or a name into an array, is another thing to a pointer.
        let walk = |pointer: &str| {
            pointer.split('/').skip(1).try_fold(&tree, |at, step| match step.parse::<usize>() {
                Ok(index) => at.as_array()?.get(index),
                Err(_) => at.as_object()?.get(step),
            })
        };
        let expected: Vec<_> = pointers.iter().map(|p| walk(p)).collect();
        decoder.record(seed as i64, None, Some(text.as_bytes())).unwrap();
        let decoded = decoder.take().unwrap();
        if expected.iter().flatten().any(|v| v.is_array() || v.is_object()) {
            assert!(decoded.rejected[0].reason.contains("BIGINT wanted, found a"), "{text}: {:?}", decoded.rejected);
            continue;
        }
        let expected = expected.iter().map(|v| v.and_then(serde_json::Value::as_i64).map_or("NULL".to_owned(), |v| v.to_string()));
        let expected: Vec<_> = expected.collect();
        found += expected.iter().filter(|v| *v != "NULL").count();
        assert_eq!(shown(&decoded), [format!("1970-01-01T00:00:00Z {}", expected.join(" "))], "{text}");
        accepted += 1;
    }
    assert!(accepted > 1000 && found > 1000, "{accepted} {found}");
}
