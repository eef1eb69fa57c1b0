use super::*;
use arrow::datatypes::DataType;

fn refused(ticket: &str) -> String {
    TicketRequest::parse(ticket.as_bytes()).expect_err(ticket).message
}

#[test]
fn tickets_survive_the_wire() {
    let sql = TicketRequest::Sql(SqlRequest { sql: "SELECT $1".into(), params: vec![Value::from(1), Value::from("a"), Value::Null] });
    assert_eq!(TicketRequest::parse(&sql.to_bytes()).unwrap(), sql);
    let keys = serde_json::from_str::<KeyLists>(r#"{"user_id":["u1",null]}"#).unwrap();
    let request =
        FeatureRequest { views: vec!["v".into()], features: vec!["f".into()], at: At::Before(1_000_001), ..FeatureRequest::default() };
    let bytes = TicketRequest::Features(request.clone(), keys.clone()).to_bytes();
    let TicketRequest::Features(read, read_keys) = TicketRequest::parse(&bytes).unwrap() else { panic!("a ticket of features") };
    assert_eq!((FeatureRequest { text: String::new(), source: "", ..read }, read_keys), (request, keys));
}

#[test]
fn exchanges_and_puts_survive_the_wire() {
    let exchange = ExchangeRequest { features: FeatureRequest { views: vec!["v".into()], ..FeatureRequest::default() }, with_keys: true };
    let mut read = ExchangeRequest::parse(&exchange.to_bytes()).unwrap();
    (read.features.text, read.features.source) = (String::new(), "");
    assert_eq!(read, exchange);
    let put = PutRequest { stream: "s".into(), token: Some("t".into()) };
    assert_eq!(PutRequest::parse(&put.to_bytes()).unwrap(), put);
}

#[test]
fn wrong_tickets_say_what_is_wrong() {
    assert!(refused(r#"{"v":1,"sql":"SELECT 1"#).contains("cannot be read"));
    assert!(refused(r#"{"v":2,"sql":"SELECT 1"}"#).contains("version 2"));
    assert!(refused(r#"{"sql":"SELECT 1"}"#).contains("no version"));
    assert!(refused(r#"{"v":1}"#).contains("\"sql\", or \"views\""));
    assert!(refused(r#"{"v":1,"sql":"SELECT 1","as_of":"2026-01-01"}"#).contains("only \"params\""));
    assert!(refused(r#"{"v":1,"views":["v"],"keys":{},"strict":true}"#).contains("\"as_of\""));
    assert!(refused(r#"{"v":1,"views":["v"],"keys":{},"as_of":"soon"}"#).contains("^^^^"));
    let unknown = refused(r#"{"v":1,"sql":"SELECT 1","verbose":true}"#);
    assert!(unknown.contains("unknown field `verbose`") && unknown.contains("--> <ticket>:1:"), "{unknown}");
    for twice in [
        r#"{"v":1,"views":["v"],"keys":{"user_id":["u1"],"user_id":["u2"]}}"#,
        r#"{"v":1,"views":["v"],"keys":{"user_id":["u1"],"user\u005fid":["u2"]}}"#,
    ] {
        let twice = refused(twice);
        assert!(twice.contains("entity column \"user_id\" is given twice") && twice.contains("--> <ticket>:1:"), "{twice}");
    }
    assert!(refused(r#"{"v":1,"views":["v"],"views":["w"],"keys":{}}"#).contains("duplicate field `views`"));
    let long = format!(r#"{{"v":1,"sql":"{}"}}"#, "x".repeat(REQUEST_BYTES_MAX));
    assert!(refused(&long).contains("the limit is 65536"));
    assert!(TicketRequest::parse(b"{\xff").unwrap_err().message.contains("not UTF-8"));
}

#[test]
fn carets_stand_under_names_however_they_are_written() {
    let under = |text: &str, word: &str| {
        let message = pointed_at("m", "ticket", text, word, None).message;
        let lines: Vec<Vec<char>> = message.lines().map(|l| l.chars().collect()).collect();
        let [.., line, carets] = lines.as_slice() else { panic!("{message}") };
        carets.iter().zip(line).filter(|(c, _)| **c == '^').map(|(_, l)| *l).collect::<String>()
    };
    assert_eq!(under(r#"{"views":["ü\"v"]}"#, "ü\"v"), r#"ü\"v"#);
    assert_eq!(under(r#"{"views":["\u00fcv\ud83d\ude00"]}"#, "üv😀"), r"\u00fcv\ud83d\ude00");
    assert_eq!(under("vü", "vü"), "vü");
    assert_eq!(under("{}", "v"), "{");
}

#[test]
fn truncated_tickets_are_refused_at_every_length() {
    let whole =
        br#"{"v":1,"views":["v"],"features":["a","b"],"keys":{"user_id":["u1","u2"]},"as_of":"2026-03-01T12:00:00Z","strict":false}"#;
    for n in 0..whole.len() {
        assert!(TicketRequest::parse(&whole[..n]).is_err(), "{n} bytes");
    }
    assert!(TicketRequest::parse(whole).is_ok());
}

fn keys(text: &str, columns: &[(&str, DataType)]) -> Outcome<Vec<ArrayRef>> {
    let entity = Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()));
    key_arrays(&serde_json::from_str(text).unwrap(), &entity, text, 3)
}

#[test]
fn keys_take_the_entitys_types() {
    let one = |text: &str, t: DataType| keys(text, &[("k", t)]);
    assert_eq!(one(r#"{"k":["a",null]}"#, DataType::Utf8View).unwrap()[0].null_count(), 1);
    assert_eq!(one(r#"{"k":[1,"2"]}"#, DataType::Int64).unwrap()[0].len(), 2);
    assert_eq!(one(r#"{"k":["2026-03-01"]}"#, DataType::Date32).unwrap()[0].null_count(), 0);
    for (text, t, says) in [
        (r#"{"k":[42]}"#, DataType::Utf8View, "is a string, found a number"),
        (r#"{"k":["x"]}"#, DataType::Int64, "is a number, found a string"),
        (r#"{"k":[1]}"#, DataType::Boolean, "is a boolean, found a number"),
        (r#"{"k":["soon"]}"#, DataType::Date32, "of type Date32"),
        (r#"{"k":"a"}"#, DataType::Utf8View, "no list"),
        (r#"{"k":["a","b","c","d"]}"#, DataType::Utf8View, "the limit is 3"),
        (r#"{"j":["a"]}"#, DataType::Utf8View, "\"j\" is no entity column; the entity is (k)"),
    ] {
        let message = one(text, t).unwrap_err().message;
        assert!(message.contains(says), "{text}: {message}");
    }
    let two = keys(r#"{"a":["x"],"b":["x","y"]}"#, &[("a", DataType::Utf8View), ("b", DataType::Utf8View)]).unwrap_err();
    assert!(two.message.contains("another has"), "{two}");
}

#[test]
fn a_number_that_its_type_cannot_hold_is_none_other() {
    let own = |text: &str, t: DataType| {
        let column = keys(text, &[("k", t)]).unwrap().remove(0);
        let value = |i: usize| match column.is_null(i) {
            true => "NULL".to_owned(),
            false => arrow::util::display::array_value_to_string(&column, i).unwrap(),
        };
        (0..column.len()).map(value).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(own(r#"{"k":[12.505,"12.499",12.5]}"#, DataType::Decimal128(6, 2)), "NULL NULL 12.50");
    assert_eq!(own(r#"{"k":[42.5,42.0,300.0]}"#, DataType::Int8), "NULL 42 NULL");
    assert_eq!(own(r#"{"k":["9007199254740993",0.5,null]}"#, DataType::Int64), "9007199254740993 NULL NULL");
}

#[test]
fn carets_stand_under_the_place() {
    let message = keys(r#"{"k":[42]}"#, &[("k", DataType::Utf8View)]).unwrap_err().message;
    assert!(message.contains("1 | {\"k\":[42]}\n  |       ^^"), "{message}");
}
