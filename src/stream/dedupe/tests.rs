//! The verdicts against a map of whole rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Verdict::{Conflict, Duplicate, New, Unknown};
use super::*;
use crate::stream::schema::StreamColumn;

type Row = (i64, i64, Option<&'static str>, f64);
type Payloads = Vec<(Option<&'static str>, u64)>;

fn schema() -> StreamSchema {
    let column = |name: &str, data_type: DataType| StreamColumn { name: name.into(), data_type, nullable: true };
    let columns = vec![
        column("ts", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))),
        column("id", DataType::Int64),
        column("v", DataType::Utf8View),
        column("d", DataType::Float64),
    ];
    StreamSchema::try_new(columns, vec![1], 0, 0).unwrap()
}

fn batch(rows: &[Row]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.0));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.2))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.3))),
    ];
    RecordBatch::try_new(Arc::clone(schema().arrow_schema()), columns).unwrap()
}

fn dedupe() -> Dedupe {
    Dedupe::with_seeds(&schema(), usize::MAX, 100, [1, 2]).unwrap()
}

#[test]
fn copies_conflicts_and_new_rows() {
    let a = (5, 1, Some("a"), 1.0);
    let b = (5, 1, Some("b"), 1.0);
    let mut table = dedupe();
    let judged = table.judge(&batch(&[a, a, b, a, b, (6, 1, Some("a"), 1.0), (5, 2, Some("a"), 1.0)])).unwrap();
    assert_eq!(judged.verdicts, [New, Duplicate, Conflict, Duplicate, Duplicate, New, New]);
    assert_eq!(judged.earlier(2), Some(0));
    assert_eq!((judged.earlier(0), judged.earlier(3)), (None, None));
    assert_eq!(judged.count(Duplicate), 3);
    let c = (5, 1, Some("c"), 1.0);
    let d = (5, 1, Some("d"), 1.0);
    let judged = table.judge(&batch(&[b, c, d, c])).unwrap();
    assert_eq!(judged.verdicts, [Duplicate, Conflict, Conflict, Duplicate]);
    assert_eq!((judged.earlier(1), judged.earlier(2)), (None, Some(1)));
    assert_eq!(table.len(), 6);
}

#[test]
fn columns_are_equal_by_bits() {
    let mut table = dedupe();
    let rows = [
        (5, 1, Some(""), 0.0),
        (5, 1, None, 0.0),
        (5, 1, Some(""), -0.0),
        (5, 1, Some("\0"), 0.0),
        (5, 1, None, f64::NAN),
        (5, 1, None, f64::NAN),
    ];
    let judged = table.judge(&batch(&rows)).unwrap();
    assert_eq!(judged.verdicts, [New, Conflict, Conflict, Conflict, Conflict, Duplicate]);
}

#[test]
fn what_is_forgotten_is_unknown() {
    let mut table = dedupe();
    table.judge(&batch(&[(99, 1, None, 0.0), (100, 1, None, 0.0), (250, 1, None, 0.0)])).unwrap();
    assert_eq!((table.buckets.len(), table.known_from()), (3, i64::MIN));
    table.forget_before(150);
    table.forget_before(120);
    assert_eq!((table.buckets.len(), table.known_from()), (2, 150));
    let rows = [
        (99, 1, None, 0.0),
        (99, 1, None, 0.0),
        (99, 1, None, 1.0),
        (149, 1, None, 0.0),
        (150, 1, None, 0.0),
        (250, 1, None, 0.0),
        (99, 2, None, 0.0),
    ];
    let judged = table.judge(&batch(&rows)).unwrap();
    assert_eq!(judged.verdicts, [Unknown, Duplicate, Unknown, Unknown, New, Duplicate, Unknown]);
    assert_eq!((judged.earlier(0), judged.earlier(2), judged.earlier(6)), (None, Some(0), None));
    // Nothing of an unknown row is kept.
    assert_eq!(table.judge(&batch(&rows[..1])).unwrap().verdicts, [Unknown]);
    table.forget_before(1000);
    assert!(table.is_empty());
    assert_eq!(table.memory_bytes(), 0);
}

#[test]
fn a_batch_is_taken_back() {
    let mut table = dedupe();
    let rows = [(5, 1, None, 0.0), (5, 1, None, 1.0), (505, 1, None, 0.0)];
    table.load(&batch(&rows[..1])).unwrap();
    let first = table.judge(&batch(&rows)).unwrap();
    assert_eq!(first.verdicts, [Duplicate, Conflict, New]);
    let second = table.judge(&batch(&rows)).unwrap();
    assert_eq!(second.verdicts, [Duplicate; 3]);
    table.undo(&second);
    table.undo(&first);
    assert_eq!((table.len(), table.buckets.len()), (1, 1));
    assert_eq!(table.judge(&batch(&rows)).unwrap().verdicts, [Duplicate, Conflict, New]);
}

#[test]
fn memory_is_bounded_and_counted() {
    let bound = 64 * 1024;
    let mut table = Dedupe::with_seeds(&schema(), bound, 100, [1, 2]).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for i in 0..200 {
        let rows: Vec<Row> = (0..100).map(|_| (i * 50 + rng.random_range(0..2000), rng.random(), None, 0.0)).collect();
        table.judge(&batch(&rows)).unwrap();
        assert!(table.memory_bytes() <= bound, "{}", table.memory_bytes());
        let counted: usize = table.buckets.values().map(|t| t.allocation_size() + BUCKET_BYTES).sum();
        assert_eq!(table.memory_bytes(), counted);
        let first = table.buckets.keys().next().map(|b| b * 100);
        assert!(first.is_none_or(|first| first >= table.known_from()));
    }
    assert!(table.known_from() > 0);
    // A bound too small for anything keeps nothing, and says so.
    let mut table = Dedupe::with_seeds(&schema(), 0, 100, [1, 2]).unwrap();
    assert_eq!(table.judge(&batch(&[(5, 1, None, 0.0)])).unwrap().verdicts, [New]);
    assert_eq!(table.judge(&batch(&[(5, 1, None, 0.0)])).unwrap().verdicts, [Unknown]);
}

#[test]
fn a_stream_without_a_key_has_no_table() {
    let schema = StreamSchema::try_new(schema().columns().to_vec(), vec![], 0, 0).unwrap();
    assert!(Dedupe::try_new(&schema, 1).is_err());
    assert!(Dedupe::try_new(&self::schema(), 1).is_ok());
}

#[test]
fn random_batches_agree_with_a_map_of_rows() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut table = Dedupe::with_seeds(&schema(), usize::MAX, rng.random_range(1..40), [rng.random(), rng.random()]).unwrap();
        let mut seen: BTreeMap<(i64, i64), Payloads> = BTreeMap::new();
        let mut floor = i64::MIN;
        for _ in 0..10 {
            let rows: Vec<Row> = (0..rng.random_range(0..30))
                .map(|_| {
                    let text = [None, Some("a"), Some("a text of more than twelve bytes")][rng.random_range(0..3)];
                    (rng.random_range(-50..50), rng.random_range(0..4), text, [0.0, -0.0, 1.0][rng.random_range(0..3)])
                })
                .collect();
            let mut unknown: Vec<Row> = Vec::new();
            let expected: Vec<Verdict> = rows
                .iter()
                .map(|row| {
                    let same = |r: &Row| (r.0, r.1, r.2, r.3.to_bits()) == (row.0, row.1, row.2, row.3.to_bits());
                    if row.0 < floor {
                        let verdict = if unknown.iter().any(same) { Duplicate } else { Unknown };
                        unknown.push(*row);
                        return verdict;
                    }
                    let payload = (row.2, row.3.to_bits());
                    let payloads = seen.entry((row.0, row.1)).or_default();
                    let verdict = match payloads.len() {
                        0 => New,
                        _ if payloads.contains(&payload) => return Duplicate,
                        _ => Conflict,
                    };
                    payloads.push(payload);
                    verdict
                })
                .collect();
            assert_eq!(table.judge(&batch(&rows)).unwrap().verdicts, expected, "seed {seed}");
            if rng.random_range(0..4) == 0 {
                floor = floor.max(rng.random_range(-60..20));
                table.forget_before(floor);
            }
        }
    }
}
