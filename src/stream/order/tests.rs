//! Arrow's row format against the order as DESIGN has it, written out.

use arrow::array::{
    BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array, StringViewArray,
    TimestampMicrosecondArray,
};

use super::*;
use crate::stream::schema::StreamColumn;

/// Keys of a column whose values stand in their order must ascend strictly.
fn check_ascending(column: ArrayRef) {
    let data_type = column.data_type().clone();
    let keys = OrderKeys::for_columns(vec![0], std::slice::from_ref(&data_type)).unwrap();
    let array = keys.keys_of(std::slice::from_ref(&column), column.len()).unwrap();
    for row in 1..column.len() {
        assert!(array.value(row - 1) < array.value(row), "{data_type} row {row}");
        // Keys made apart are the same keys.
        let alone = OrderKeys::for_columns(vec![0], std::slice::from_ref(&data_type)).unwrap();
        assert_eq!(alone.keys_of(&[column.slice(row, 1)], 1).unwrap().value(0), array.value(row));
    }
}

#[test]
fn values_of_each_type_ascend() {
    let floats =
        [f64::NEG_INFINITY, f64::MIN, -1.0, -f64::MIN_POSITIVE, -5e-324, -0.0, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
    check_ascending(Arc::new(Float64Array::from_iter(std::iter::once(None).chain(floats.map(Some)))));
    let floats = [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1e-45, 1.0, f32::INFINITY, f32::NAN];
    check_ascending(Arc::new(Float32Array::from_iter(std::iter::once(None).chain(floats.map(Some)))));
    check_ascending(Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)])));
    check_ascending(Arc::new(Int8Array::from(vec![None, Some(-128), Some(-1), Some(0), Some(127)])));
    check_ascending(Arc::new(Int64Array::from(vec![None, Some(i64::MIN), Some(-1), Some(0), Some(i64::MAX)])));
    check_ascending(Arc::new(Date32Array::from(vec![None, Some(-5), Some(0), Some(5)])));
    let times = TimestampMicrosecondArray::from(vec![None, Some(i64::MIN), Some(-1), Some(0), Some(i64::MAX)]);
    check_ascending(Arc::new(times.with_timezone("UTC")));
    let decimals = Decimal128Array::from(vec![None, Some(-(10i128.pow(37))), Some(-1), Some(0), Some(1), Some(10i128.pow(37))]);
    check_ascending(Arc::new(decimals.with_precision_and_scale(38, 3).unwrap()));
    let texts = ["", "\0", "\0\0", "\u{1}", "A", "a", "a\0", "a\0b", "aa", "ab", "b", "é", "中", "😀"].map(String::from);
    let long = ["x".repeat(31), "x".repeat(32), "x".repeat(33), "x".repeat(64), "x".repeat(65), "xy".into()];
    let mut texts: Vec<String> = texts.into_iter().chain(long).collect();
    texts.sort();
    check_ascending(Arc::new(StringViewArray::from_iter(std::iter::once(None).chain(texts.iter().map(Some)))));
    let bytes: Vec<&[u8]> = vec![b"", b"\0", b"\0\0", b"\x7f", b"\x80", b"\xff", b"\xff\0", b"\xff\xff"];
    check_ascending(Arc::new(BinaryViewArray::from_iter(std::iter::once(None).chain(bytes.into_iter().map(Some)))));
}

#[test]
fn columns_compare_key_first_and_without_the_time() {
    let column = |name: &str, data_type: DataType| StreamColumn { name: name.into(), data_type, nullable: true };
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let columns = vec![
        column("a", DataType::Utf8View),
        column("ts", utc),
        column("k2", DataType::Int64),
        column("k1", DataType::Int64),
        column("b", DataType::Utf8View),
    ];
    let schema = StreamSchema::try_new(columns, vec![3, 2], 1, 0).unwrap();
    let rows = |rows: &[(&str, i64, i64, i64, Option<&str>)]| {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.4))),
        ];
        RecordBatch::try_new(Arc::clone(schema.arrow_schema()), columns).unwrap()
    };
    // k1, k2, a, b; the time decides nothing.
    let sorted = rows(&[
        ("z", 9, 8, 1, Some("z")),
        ("a", 8, 9, 1, Some("z")),
        ("a", 7, 0, 2, None),
        ("a", 6, 0, 2, Some("")),
        ("a", 5, 0, 2, Some("b")),
        ("ab", 4, 0, 2, None),
    ]);
    let order = OrderKeys::for_stream(&schema).unwrap();
    let keys = order.keys(&sorted).unwrap();
    for i in 0..sorted.num_rows() {
        for j in 0..sorted.num_rows() {
            assert_eq!(keys.value(i).cmp(keys.value(j)), i.cmp(&j), "{i} {j}");
            assert_eq!(order.compare(&sorted, i, &sorted, j).unwrap(), i.cmp(&j), "{i} {j}");
        }
    }
    let same = rows(&[("a", 1, 1, 1, None), ("a", 2, 1, 1, None)]);
    assert_eq!(order.compare(&same, 0, &same, 1).unwrap(), Ordering::Equal);
    assert!(order.compare(&same, 0, &same, 2).is_err());
    let none = OrderKeys::for_columns(vec![], &[]).unwrap();
    assert_eq!(none.keys(&same).unwrap().value(1), b"");
}
