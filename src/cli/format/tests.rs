use std::io;
use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Float64Type, Int32Type};
use arrow::ipc::reader::StreamReader;

use super::*;

fn rows(columns: Vec<(&str, ArrayRef)>) -> Output {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    Output::Rows { schema, batches: vec![batch], note: None }
}

fn print(format: Format, output: &Output) -> String {
    let mut out = Vec::new();
    Printer::new(format, &mut out).print(output).unwrap();
    String::from_utf8(out).unwrap()
}

fn sample() -> Output {
    let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(1.0), None, Some(f64::NAN)]), None]);
    rows(vec![
        ("name", Arc::new(StringArray::from(vec![Some("ann, \"the\" one"), Some("")]))),
        ("n", Arc::new(Int64Array::from(vec![Some(-7), None]))),
        ("spend", Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NEG_INFINITY]))),
        ("small", Arc::new(Float32Array::from(vec![0.1, 1e16]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_714_557_600_000_001), Some(i64::MAX)]).with_timezone("UTC"))),
        ("list", Arc::new(list)),
        ("price", Arc::new(Decimal128Array::from(vec![Some(1230), None]).with_precision_and_scale(10, 2).unwrap())),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("raw", Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0, 255]), None]))),
    ])
}

#[test]
fn a_table() {
    let expected = r#"
 name           |    n |               spend | small | ts                          | list             | price | ok   | raw
----------------+------+---------------------+-------+-----------------------------+------------------+-------+------+--------
 ann, "the" one |   -7 | 0.30000000000000004 |   0.1 | 2024-05-01T10:00:00.000001Z | [1.0, NULL, NaN] | 12.30 | true | \x00ff
                | NULL |           -Infinity |  1e16 | 9223372036854775807us       | NULL             |  NULL | NULL | NULL
(2 rows)
"#;
    assert_eq!(print(Format::Table, &sample()), expected.trim_start_matches('\n'));
}

#[test]
fn a_table_of_several_lines_and_control_characters() {
    let output = rows(vec![
        ("part", Arc::new(StringArray::from(vec!["plan", "x\u{1b}[31m"]))),
        ("text", Arc::new(StringArray::from(vec!["Window\n  Stream s\n", "日本\té"]))),
    ]);
    let expected = r#"
 part        | text
-------------+------------
 plan        | Window
             |   Stream s
 x\u{1b}[31m | 日本\té
(2 rows)
"#;
    assert_eq!(print(Format::Table, &output), expected.trim_start_matches('\n'));
}

#[test]
fn csv_quotes_what_needs_it() {
    let expected = "name,n,spend,small,ts,list,price,ok,raw\n\
        \"ann, \"\"the\"\" one\",-7,0.30000000000000004,0.1,2024-05-01T10:00:00.000001Z,\"[1.0,null,\"\"NaN\"\"]\",12.30,true,\\x00ff\n\
        \"\",,-Infinity,1e16,9223372036854775807us,,,,\n";
    assert_eq!(print(Format::Csv, &sample()), expected);
}

#[test]
fn json_lines_are_json() {
    let text = print(Format::Json, &sample());
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["name"], "ann, \"the\" one");
    assert_eq!(lines[0]["list"], serde_json::json!([1.0, null, "NaN"]));
    assert_eq!(lines[0]["raw"], "\\x00ff");
    assert_eq!(lines[1]["spend"], "-Infinity");
    assert_eq!(lines[1]["n"], serde_json::Value::Null);
    assert!(text.contains("\"price\":12.30,\"ok\":true"));
}

#[test]
fn a_repeated_name_is_numbered_in_json() {
    let one = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
    let output = rows(vec![("ts", one()), ("ts_2", one()), ("ts", one()), ("ts", one())]);
    assert_eq!(print(Format::Json, &output), "{\"ts\":1,\"ts_2\":1,\"ts_3\":1,\"ts_4\":1}\n");
}

#[test]
fn dictionaries_show_their_values() {
    let names: DictionaryArray<Int32Type> = [Some("a"), None].into_iter().collect();
    assert_eq!(print(Format::Json, &rows(vec![("k", Arc::new(names))])), "{\"k\":\"a\"}\n{\"k\":null}\n");
}

#[test]
fn arrow_is_a_stream_for_each_result() {
    let mut out = Vec::new();
    let mut printer = Printer::new(Format::Arrow, &mut out);
    printer.print(&sample()).unwrap();
    printer.print(&Output::Done { message: "not data".into(), counts: None }).unwrap();
    printer.print(&sample()).unwrap();
    let mut input = out.as_slice();
    for _ in 0..2 {
        let batches: Vec<RecordBatch> = StreamReader::try_new(&mut input, None).unwrap().map(Result::unwrap).collect();
        let Output::Rows { batches: expected, .. } = sample() else { unreachable!() };
        assert_eq!(format!("{batches:?}"), format!("{expected:?}"));
    }
    assert!(input.is_empty());
}

#[test]
fn messages_stand_among_tables_only() {
    let done = Output::Done { message: "created stream \"s\"".into(), counts: None };
    assert_eq!(print(Format::Table, &done), "created stream \"s\"\n");
    for format in [Format::Csv, Format::Json, Format::Arrow] {
        assert_eq!(print(format, &done), "");
    }
}

#[test]
fn a_reader_that_went_away_is_an_output_failure() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Table, Format::Csv, Format::Json, Format::Arrow] {
        let failed = Printer::new(format, Gone).print(&sample()).unwrap_err();
        assert_eq!(failed.code() as u8, 141, "{format:?}");
    }
}
