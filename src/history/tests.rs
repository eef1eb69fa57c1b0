use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryViewArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use serde_json::json;

use super::*;
use crate::error::Kind;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// 2024-05-01 00:00.
const START: i64 = 1_714_521_600_000_000;

/// `id VARCHAR, amount DOUBLE, ts TIMESTAMP`, with or without a primary key.
fn schema(primary_key: bool) -> HistorySchema {
    let columns = Schema::new(vec![
        Field::new("id", DataType::Utf8View, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("ts", timestamp_type(), false),
    ]);
    let key = if primary_key { vec![0] } else { vec![] };
    HistorySchema::try_new(Arc::new(columns), key, 2).expect("schema")
}

/// Rows of (id, amount, time, offset, revision) from partition "p".
fn rows(rows: &[(&str, f64, i64, i64, i32)]) -> RecordBatch {
    let times = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.1))),
        times(rows.iter().map(|r| r.2).collect()),
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|_| "p"))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))),
        times(rows.iter().map(|_| START).collect()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.4))),
    ];
    RecordBatch::try_new(schema(true).stored(), columns).expect("rows")
}

fn rejected(records: &[(&str, i64)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![START; records.len()]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryViewArray::from_iter_values(records.iter().map(|r| r.0.as_bytes()))),
        Arc::new(StringViewArray::from_iter_values(records.iter().map(|_| "no JSON"))),
        Arc::new(StringViewArray::from_iter_values(records.iter().map(|_| "p"))),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.1))),
        Arc::new(times),
    ];
    RecordBatch::try_new(rejected_schema(), columns).expect("records")
}

fn progress(expected: Option<i64>, version: i64) -> Vec<Progress> {
    vec![Progress { app_id: "s/0/p".into(), partition: Some("p".into()), expected, version, numbered_from: None }]
}

fn step(accepted: RecordBatch, expected: Option<i64>, version: i64) -> Commit {
    Commit { accepted: vec![accepted], progress: progress(expected, version), ..Commit::default() }
}

async fn memory() -> Warehouse {
    Warehouse::open("memory://").await.expect("warehouse")
}

async fn history(warehouse: &Warehouse, primary_key: bool) -> StreamHistory {
    StreamHistory::create(warehouse, "s", "s", schema(primary_key)).await.expect("history")
}

async fn committed(history: &StreamHistory, commit: Commit) -> i64 {
    match history.commit(commit).await.expect("commit") {
        Outcome::Committed { version } => version,
        other => panic!("{other:?}"),
    }
}

async fn query(history: &StreamHistory, part: Part, options: TableOptions, sql: &str) -> crate::error::Result<RecordBatch> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let table = history.table(part, options).await?;
    context.register_table("t", table)?;
    let frame = context.sql(sql).await?;
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The result of a query over the visible rows, one line a row.
async fn lines(history: &StreamHistory, part: Part, options: TableOptions, sql: &str) -> String {
    let batch = query(history, part, options, sql).await.expect("query");
    let text = pretty_format_batches(&[batch]).expect("format").to_string();
    let rows = text.lines().filter(|l| l.starts_with('|')).skip(1);
    rows.map(|l| l.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("; ")
}

async fn seen(history: &StreamHistory, version: Option<i64>) -> String {
    let options = TableOptions { version, ..TableOptions::default() };
    lines(history, Part::History, options, "SELECT id, amount FROM t ORDER BY ts, id").await
}

#[tokio::test]
async fn a_commit_is_read_back_in_its_own_types_and_columns() {
    let history = history(&memory().await, true).await;
    assert_eq!(history.version(), 0);
    assert_eq!(history.transaction_version("s/0/p").await.expect("transaction"), None);
    let commit = Commit {
        accepted: vec![rows(&[("a", 1.0, START, 0, 0), ("b", 2.0, START + DAY, 1, 0)])],
        late: vec![rows(&[("l", 3.0, START - DAY, 2, 0)])],
        rejected: vec![rejected(&[("{", 3)])],
        progress: progress(None, 4),
        info: json!({"counts": {"read": 4}}).as_object().cloned().unwrap_or_default(),
        ..Commit::default()
    };
    let version = committed(&history, commit).await;
    assert_eq!(version, 1);
    assert_eq!(history.transaction_version("s/0/p").await.expect("transaction"), Some(4));
    let info = history.commit_info(version).await.expect("info").expect("some");
    assert_eq!(info["counts"]["read"], 4);
    assert_eq!(seen(&history, None).await, "a 1.0; b 2.0");
    let stored = TableOptions { hidden: true, ..TableOptions::default() };
    let all = query(&history, Part::History, stored, "SELECT * FROM t").await.expect("all");
    assert_eq!(all.schema().fields(), schema(true).stored().fields());
    let shown = lines(&history, Part::Late, TableOptions::default(), "SELECT * FROM t").await;
    assert_eq!(shown, "l 3.0 2024-04-30T00:00:00Z p 2 2024-05-01T00:00:00Z");
    let shown = "SELECT arrow_cast(raw, 'Utf8') AS raw, reason, _partition, _offset FROM t";
    assert_eq!(lines(&history, Part::Rejected, TableOptions::default(), shown).await, "{ no JSON p 3");
    assert_eq!(lines(&history, Part::History, TableOptions::default(), "SELECT count(*) FROM t").await, "2");
}

#[tokio::test]
async fn a_repeated_or_stale_commit_changes_nothing() {
    let warehouse = memory().await;
    let history = history(&warehouse, true).await;
    committed(&history, step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await;
    let again = history.commit(step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await.expect("commit");
    assert_eq!(again, Outcome::Superseded { app_id: "s/0/p".into(), found: Some(1) });
    let ahead = history.commit(step(rows(&[("c", 1.0, START, 5, 0)]), Some(5), 6)).await.expect("commit");
    assert_eq!(ahead, Outcome::Superseded { app_id: "s/0/p".into(), found: Some(1) });
    let nothing = Commit { progress: progress(Some(1), 9), ..Commit::default() };
    assert_eq!(committed(&history, nothing).await, 2);
    assert_eq!(seen(&history, None).await, "a 1.0");
    let reopened = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    assert_eq!(reopened.transaction_version("s/0/p").await.expect("transaction"), Some(9));
    assert_eq!(reopened.transaction_version("other").await.expect("transaction"), None);
    let error = history.commit(Commit::default()).await.expect_err("no progress");
    assert_eq!(error.kind(), Kind::Internal);
}

/// A process that dies between the tables' commits leaves late rows behind; the next attempt, with other bounds, completes them.
#[tokio::test]
async fn a_step_that_stopped_between_tables_is_completed_without_a_second_copy() {
    let history = history(&memory().await, true).await;
    let late = rows(&[("l1", 1.0, START, 1, 0), ("l2", 2.0, START, 2, 0)]);
    commit_aside(&history.inner.late, vec![late], &progress(None, 3)).await.expect("late");
    assert_eq!(history.farthest_version("s/0/p").await.expect("farthest"), Some(3));
    assert_eq!(history.transaction_version("s/0/p").await.expect("history"), None);
    let wider = Commit {
        accepted: vec![rows(&[("a", 1.0, START + HOUR, 0, 0)])],
        late: vec![rows(&[("l1", 1.0, START, 1, 0), ("l2", 2.0, START, 2, 0), ("l3", 3.0, START, 4, 0)])],
        rejected: vec![rejected(&[("x", 3)])],
        progress: progress(None, 5),
        ..Commit::default()
    };
    committed(&history, wider).await;
    let late = lines(&history, Part::Late, TableOptions::default(), "SELECT id FROM t ORDER BY id").await;
    assert_eq!(late, "l1; l2; l3");
    assert_eq!(lines(&history, Part::Rejected, TableOptions::default(), "SELECT _offset FROM t").await, "3");
    assert_eq!(seen(&history, None).await, "a 1.0");
}

#[tokio::test]
async fn a_token_is_applied_once_whatever_was_left_behind() {
    let history = history(&memory().await, true).await;
    let progress = |next| {
        let token = Progress { app_id: "s/0/token/x".into(), partition: None, expected: None, version: 1, numbered_from: None };
        let push = Progress { app_id: "s/0/p".into(), partition: Some("p".into()), expected: None, version: next, numbered_from: None };
        vec![push, token]
    };
    let late = |offset| vec![rows(&[("l", 1.0, START, offset, 0)])];
    commit_aside(&history.inner.late, late(0), &progress(1)).await.expect("late");
    // The retry is numbered behind what was left; its late row is there under its first number.
    let retry = Commit { late: late(1), progress: progress(2), ..Commit::default() };
    committed(&history, retry).await;
    assert_eq!(lines(&history, Part::Late, TableOptions::default(), "SELECT id, _offset FROM t").await, "l 0");
    let third = Commit { late: late(2), progress: progress(3), ..Commit::default() };
    assert!(matches!(history.commit(third).await.expect("commit"), Outcome::Superseded { .. }));
}

/// The greatest payload is seen, whichever came first; an earlier version shows what was known then.
#[tokio::test]
async fn of_conflicting_rows_the_greatest_is_seen_at_every_version() {
    let warehouse = memory().await;
    let history = history(&warehouse, true).await;
    committed(&history, step(rows(&[("a", 5.0, START, 0, 0), ("b", 1.0, START, 1, 0)]), None, 2)).await;
    committed(&history, step(rows(&[("a", 7.0, START, 2, 1), ("c", 1.0, START + DAY, 3, 0)]), Some(2), 4)).await;
    committed(&history, step(rows(&[("a", 6.0, START, 4, 1), ("b", 0.5, START, 5, 1)]), Some(4), 6)).await;
    committed(&history, step(rows(&[("a", 9.0, START + 1, 6, 0)]), Some(6), 7)).await;
    for history in [history, StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open")] {
        assert_eq!(seen(&history, None).await, "a 7.0; b 1.0; a 9.0; c 1.0");
        assert_eq!(seen(&history, Some(1)).await, "a 5.0; b 1.0");
        assert_eq!(seen(&history, Some(2)).await, "a 7.0; b 1.0; c 1.0");
        assert_eq!(seen(&history, Some(3)).await, "a 7.0; b 1.0; c 1.0");
        assert_eq!(seen(&history, Some(0)).await, "");
        let all = TableOptions { all_rows: true, ..TableOptions::default() };
        assert_eq!(lines(&history, Part::History, all, "SELECT count(*), sum(amount) FROM t").await, "7 29.5");
        let late_day = TableOptions { time_range: Some((START + DAY, START + 2 * DAY)), ..TableOptions::default() };
        assert_eq!(lines(&history, Part::History, late_day, "SELECT id FROM t").await, "c");
    }
}

/// The same file copied again after it was changed gives rows of the same source coordinates.
#[tokio::test]
async fn rows_of_equal_coordinates_do_not_hide_each_other() {
    let history = history(&memory().await, true).await;
    committed(&history, step(rows(&[("a", 5.0, START, 0, 0)]), None, 1)).await;
    committed(&history, step(rows(&[("a", 7.0, START, 0, 1), ("b", 1.0, START, 1, 0)]), Some(1), 2)).await;
    assert_eq!(seen(&history, None).await, "a 7.0; b 1.0");
}

#[tokio::test]
async fn without_a_primary_key_every_copy_is_seen() {
    let history = history(&memory().await, false).await;
    committed(&history, step(rows(&[("a", 5.0, START, 0, 0), ("a", 5.0, START, 1, 0)]), None, 2)).await;
    assert_eq!(seen(&history, None).await, "a 5.0; a 5.0");
}

/// Without a conflict in the times asked for, the plan reads no hidden column and has no node of ours.
#[tokio::test]
async fn only_files_that_overlap_a_conflict_are_checked() {
    let history = history(&memory().await, true).await;
    committed(&history, step(rows(&[("a", 5.0, START, 0, 0)]), None, 1)).await;
    committed(&history, step(rows(&[("b", 5.0, START + DAY, 1, 0)]), Some(1), 2)).await;
    let plan = async |range| {
        let context = SessionContext::new();
        let options = TableOptions { time_range: range, ..TableOptions::default() };
        let table = history.table(Part::History, options).await.expect("table");
        let frame = context.read_table(table).expect("frame");
        let plan = frame.create_physical_plan().await.expect("plan");
        displayable(plan.as_ref()).indent(false).to_string()
    };
    assert!(!plan(None).await.contains("VisibleExec"));
    committed(&history, step(rows(&[("a", 7.0, START, 2, 1)]), Some(2), 3)).await;
    let both = plan(None).await;
    assert_eq!(both.matches("VisibleExec").count(), 1, "{both}");
    assert_eq!(both.matches("_revision").count(), 1, "{both}");
    assert!(!plan(Some((START + DAY, i64::MAX))).await.contains("VisibleExec"));
}

#[tokio::test]
async fn files_outside_of_the_times_are_not_opened() {
    let warehouse = memory().await;
    let history = history(&warehouse, true).await;
    for day in 0..10 {
        let batch = rows(&[("a", 1.0, START + day * DAY, day * 2, 0), ("b", 2.0, START + day * DAY + HOUR, day * 2 + 1, 0)]);
        committed(&history, step(batch, (day > 0).then_some(day * 2), day * 2 + 2)).await;
    }
    let table = history.table(Part::History, TableOptions::default()).await.expect("table");
    assert_eq!(table.files_in(None), (10, 10));
    assert_eq!(table.files_in(Some((START + 3 * DAY, START + 5 * DAY))), (3, 10));
    assert_eq!(table.files_in(Some((START + 3 * DAY + HOUR, START + 3 * DAY + HOUR))), (1, 10));
    assert_eq!(table.files_in(Some((START + 3 * DAY + HOUR + 1, START + 4 * DAY - 1))), (0, 10));
    assert_eq!(table.time_bounds(), Some((START, START + 9 * DAY + HOUR)));
    assert_eq!(table.rows_stored(), Some(20));
    // Both ends belong to the range, to the microsecond, and rows outside do not come through.
    let range = TableOptions { time_range: Some((START + HOUR, START + 2 * DAY)), ..TableOptions::default() };
    let count = "SELECT count(*), min(ts), max(ts) FROM t";
    assert_eq!(lines(&history, Part::History, range, count).await, "4 2024-05-01T01:00:00Z 2024-05-03T00:00:00Z");
    // A filter of SQL prunes as well: with the other days' files gone, it still answers.
    let files = history.table(Part::History, TableOptions::default()).await.expect("table");
    for file in files.files.iter().filter(|f| f.time_min >= START + 2 * DAY) {
        warehouse.store().delete(&file.location).await.expect("delete");
    }
    let day = "SELECT count(*) FROM t WHERE ts >= TIMESTAMP '2024-05-02 00:00:00' AND ts < TIMESTAMP '2024-05-03 00:00:00'";
    assert_eq!(lines(&history, Part::History, TableOptions::default(), day).await, "2");
    let between = "SELECT count(*) FROM t WHERE ts BETWEEN '2024-05-01T00:00:00Z' AND '2024-05-02T00:30:00Z'";
    assert_eq!(lines(&history, Part::History, TableOptions::default(), between).await, "3");
    let error = query(&history, Part::History, TableOptions::default(), "SELECT sum(amount) FROM t").await.expect_err("missing");
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.message().contains("streams/s/_date=2024-05-"), "{error}");
}

#[tokio::test]
async fn rows_since_a_version_are_those_of_later_commits() {
    let history = history(&memory().await, true).await;
    committed(&history, step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await;
    committed(&history, step(rows(&[("b", 1.0, START, 1, 0)]), Some(1), 2)).await;
    committed(&history, step(rows(&[("c", 1.0, START, 2, 0)]), Some(2), 3)).await;
    let since = |since| TableOptions { since: Some(since), ..TableOptions::default() };
    let sql = "SELECT id FROM t ORDER BY id";
    assert_eq!(lines(&history, Part::History, since(1), sql).await, "b; c");
    assert_eq!(lines(&history, Part::History, since(3), sql).await, "");
    let second = TableOptions { version: Some(2), ..since(1) };
    assert_eq!(lines(&history, Part::History, second, sql).await, "b");
    let error = history.table(Part::History, since(0)).await;
    assert!(error.is_ok());
    let beyond = TableOptions { version: Some(99), ..TableOptions::default() };
    let error = history.table(Part::History, beyond).await.expect_err("no such version");
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(error.message(), "history of stream \"s\" (streams/s) has no version 99; its newest is 3");
}

#[tokio::test]
async fn two_writers_of_the_same_source_one_wins() {
    let warehouse = memory().await;
    let first = history(&warehouse, true).await;
    let second = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    for round in 0..8 {
        let expected = (round > 0).then_some(round);
        let one = first.commit(step(rows(&[("a", 1.0, START + round, round, 0)]), expected, round + 1));
        let two = second.commit(step(rows(&[("b", 2.0, START + round, round, 0)]), expected, round + 1));
        let (one, two) = futures::join!(one, two);
        let outcomes = [one.expect("first"), two.expect("second")];
        let won = outcomes.iter().filter(|o| matches!(o, Outcome::Committed { .. })).count();
        assert_eq!(won, 1, "{outcomes:?}");
        first.refresh().await.expect("refresh");
        second.refresh().await.expect("refresh");
    }
    let count = lines(&second, Part::History, TableOptions::default(), "SELECT count(*), count(DISTINCT ts) FROM t").await;
    assert_eq!(count, "8 8");
}

#[tokio::test]
async fn writers_of_different_sources_both_come_through() {
    let warehouse = memory().await;
    let first = history(&warehouse, true).await;
    let second = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    let other = Commit {
        accepted: vec![rows(&[("b", 2.0, START, 0, 0)])],
        progress: vec![Progress { app_id: "s/0/q".into(), partition: Some("q".into()), expected: None, version: 1, numbered_from: None }],
        ..Commit::default()
    };
    let (one, two) = futures::join!(first.commit(step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)), second.commit(other));
    assert!(matches!(one.expect("first"), Outcome::Committed { .. }));
    assert!(matches!(two.expect("second"), Outcome::Committed { .. }));
    first.refresh().await.expect("refresh");
    assert_eq!(seen(&first, None).await, "a 1.0; b 2.0");
}

#[tokio::test]
async fn identities_are_found_with_their_visible_row() {
    let history = history(&memory().await, true).await;
    let first = rows(&[("a", 5.0, START, 0, 0), ("b", 1.0, START, 1, 0), ("a", 2.0, START + DAY, 2, 0)]);
    committed(&history, step(first, None, 3)).await;
    committed(&history, step(rows(&[("a", 7.0, START, 3, 1), ("a", 6.0, START, 4, 2)]), Some(3), 5)).await;
    let times = vec![START + DAY, START, START, START + 5, START, START];
    let keys = Schema::new(vec![Field::new("ts", timestamp_type(), false), Field::new("id", DataType::Utf8View, false)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(StringViewArray::from(vec!["a", "a", "none", "a", "b", "a"])),
    ];
    let keys = RecordBatch::try_new(Arc::new(keys), columns).expect("keys");
    let existing = history.lookup_identities(&keys, None).await.expect("lookup");
    let amounts = existing.visible.column(1).as_primitive::<Float64Type>();
    let found = existing.found.iter().map(|f| f.map(|f| (amounts.value(f), existing.revision_max[f]))).collect::<Vec<_>>();
    assert_eq!(found, [Some((2.0, 0)), Some((7.0, 2)), None, None, Some((1.0, 0)), Some((7.0, 2))]);
    assert_eq!(existing.visible.schema().fields(), schema(true).columns().fields());
    let before = history.lookup_identities(&keys, Some(0)).await.expect("lookup");
    assert!(before.found.iter().all(Option::is_none));
    assert_eq!(before.visible.num_rows(), 0);
}

#[tokio::test]
async fn added_columns_are_null_in_older_rows() {
    let warehouse = memory().await;
    let old = history(&warehouse, true).await;
    committed(&old, step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await;
    let mut fields = schema(true).columns().fields().iter().cloned().collect::<Vec<_>>();
    fields.push(Arc::new(Field::new("note", DataType::Utf8View, true)));
    let wider = HistorySchema::try_new(Arc::new(Schema::new(fields)), vec![0], 2).expect("schema");
    let error = StreamHistory::open(&warehouse, "s", "s", wider.clone()).await.expect_err("not there yet");
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.message().ends_with(" has no column \"note\""), "{error}");
    let new = old.add_columns(wider.clone()).await.expect("add");
    let again = old.add_columns(wider.clone()).await.expect("again");
    assert_eq!(again.version(), new.version());
    let base = rows(&[("a", 2.0, START, 1, 1), ("b", 3.0, START, 2, 0)]);
    let mut columns = base.columns().to_vec();
    columns.insert(3, Arc::new(StringViewArray::from(vec![Some("hi"), None])));
    let batch = RecordBatch::try_new(wider.stored(), columns).expect("rows");
    committed(&new, step(batch, Some(1), 3)).await;
    let sql = "SELECT id, amount, coalesce(note, 'null') AS note FROM t ORDER BY id, amount";
    assert_eq!(lines(&new, Part::History, TableOptions::default(), sql).await, "a 2.0 hi; b 3.0 null");
    let all = TableOptions { all_rows: true, ..TableOptions::default() };
    assert_eq!(lines(&new, Part::History, all.clone(), sql).await, "a 1.0 null; a 2.0 hi; b 3.0 null");
    assert_eq!(lines(&new, Part::History, all.clone(), "SELECT id FROM t WHERE note = 'hi'").await, "a");
    // Rewritten by a handle from before, the rows would lose the column.
    old.refresh().await.expect("refresh");
    assert_eq!(old.compact(Part::History, 2).await.expect("compact"), None);
    assert!(new.compact(Part::History, 2).await.expect("compact").is_some());
    assert_eq!(lines(&new, Part::History, all, sql).await, "a 1.0 null; a 2.0 hi; b 3.0 null");
}

/// More rows than a row group, of many dates in no order, in little memory.
#[tokio::test]
async fn a_writer_splits_rows_by_date_and_loses_none() {
    let warehouse = memory().await;
    let history = history(&warehouse, false).await;
    let options =
        WriteOptions { row_group_rows: 1000, file_bytes: 16 << 10, pending_rows_max: 5_000, memory_bytes_max: 1 << 20, threads: 2 };
    let mut writer = history.writer(options).expect("writer");
    let mut expected = 0;
    for batch in 0..20_i64 {
        let ids = (0..3000).map(|i| format!("id{}", (batch * 3000 + i) * 7919 % 100_003)).collect::<Vec<_>>();
        let data = ids.iter().zip(0_i64..).map(|(id, i)| {
            let row = batch * 3000 + i;
            expected += row;
            (id.as_str(), 0.5, START + (row * 48_271 % 40) * DAY + row, row, 0)
        });
        writer.write(rows(&data.collect::<Vec<_>>())).await.expect("write");
    }
    let files = writer.finish().await.expect("finish");
    assert_eq!(files.rows(), 60_000);
    let count = "SELECT count(*), count(DISTINCT id), sum(_offset), count(DISTINCT _offset) FROM t";
    let hidden = TableOptions { hidden: true, ..TableOptions::default() };
    assert_eq!(lines(&history, Part::History, hidden.clone(), count).await, "0 0  0");
    committed(&history, Commit { files, progress: progress(None, 60_000), ..Commit::default() }).await;
    assert_eq!(lines(&history, Part::History, hidden, count).await, format!("60000 60000 {expected} 60000"));
    let table = history.table(Part::History, TableOptions::default()).await.expect("table");
    let (day, all) = table.files_in(Some((START, START + DAY - 1)));
    assert!(day * 20 < all, "{day} of {all}");
    for file in table.files.iter() {
        assert_eq!(file.time_min.div_euclid(DAY), file.time_max.div_euclid(DAY), "{}", file.path);
    }
}

#[tokio::test]
async fn times_and_values_at_the_edges_come_back() {
    let history = history(&memory().await, true).await;
    let data = [
        ("min", f64::NAN, i64::MIN, 0, 0),
        ("zero", -0.0, 0, 1, 0),
        ("before", f64::INFINITY, -1, 2, 0),
        ("max", 5e-324, i64::MAX, 3, 0),
        (
            "\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}",
            1.0,
            7,
            4,
            0,
        ),
    ];
    committed(&history, step(rows(&data), None, 5)).await;
    let ids = "SELECT _offset FROM t ORDER BY ts";
    let hidden = TableOptions { hidden: true, ..TableOptions::default() };
    assert_eq!(lines(&history, Part::History, hidden.clone(), ids).await, "0; 2; 1; 4; 3");
    for (time, offset) in [(i64::MIN, "0"), (i64::MAX, "3"), (-1, "2"), (0, "1")] {
        let one = TableOptions { time_range: Some((time, time)), ..hidden.clone() };
        assert_eq!(lines(&history, Part::History, one, ids).await, offset);
    }
    let over = "SELECT _offset FROM t WHERE amount > 1000 ORDER BY _offset";
    assert_eq!(lines(&history, Part::History, hidden.clone(), over).await, "0; 2");
    let batch = query(&history, Part::History, hidden, "SELECT amount FROM t ORDER BY _offset").await.expect("amounts");
    let bits = batch.column(0).as_primitive::<Float64Type>().values().iter().map(|f| f.to_bits());
    assert_eq!(bits.collect::<Vec<_>>(), data.map(|r| r.1.to_bits()));
}

#[tokio::test]
async fn a_damaged_log_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("folder");
    let location = folder.path().to_str().expect("path");
    let warehouse = Warehouse::open(location).await.expect("warehouse");
    let history = history(&warehouse, true).await;
    committed(&history, step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await;
    committed(&history, step(rows(&[("b", 1.0, START, 1, 0)]), Some(1), 2)).await;
    let log = folder.path().join("streams/s/_delta_log");
    let damage = async |version: i64, bytes: Option<&[u8]>| {
        let file = log.join(format!("{version:020}.json"));
        let saved = std::fs::read(&file).expect("read");
        match bytes {
            Some(bytes) => std::fs::write(&file, bytes).expect("write"),
            None => std::fs::remove_file(&file).expect("remove"),
        }
        let result = match StreamHistory::open(&warehouse, "s", "s", schema(true)).await {
            Ok(history) => query(&history, Part::History, TableOptions::default(), "SELECT * FROM t").await.map(|_| ()),
            Err(e) => Err(e),
        };
        std::fs::write(&file, saved).expect("restore");
        result.expect_err("damaged")
    };
    for (version, bytes) in [
        (1, Some(b"{\"add\": {\"path\"".as_slice())),
        (2, Some(b"garbage\xff\xfe".as_slice())),
        (0, Some(b"".as_slice())),
        (1, None),
        (0, None),
    ] {
        let error = damage(version, bytes).await;
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert!(error.message().contains("stream \"s\" (streams/s)"), "{error}");
    }
    assert_eq!(seen(&StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open"), None).await, "a 1.0; b 1.0");
    std::fs::remove_dir_all(folder.path().join("streams")).expect("remove");
    let error = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect_err("missing");
    assert_eq!(error.kind(), Kind::Data);
    assert_eq!(error.message(), "history of stream \"s\" (streams/s) is missing: there is no log in it");
}

#[tokio::test]
async fn many_commits_pass_a_checkpoint_and_stay_readable() {
    let folder = tempfile::tempdir().expect("folder");
    let location = folder.path().to_str().expect("path");
    let warehouse = Warehouse::open(location).await.expect("warehouse");
    let history = history(&warehouse, true).await;
    for i in 0..120 {
        committed(&history, step(rows(&[("a", 1.0, START + i, i, 0)]), (i > 0).then_some(i), i + 1)).await;
    }
    history.settle().await.expect("settle");
    assert_eq!(history.transaction_version("s/0/p").await.expect("transaction"), Some(120));
    assert_eq!(lines(&history, Part::History, TableOptions::default(), "SELECT count(ts) FROM t").await, "120");
    let checkpoint = folder.path().join("streams/s/_delta_log/_last_checkpoint");
    assert!(checkpoint.exists());
    let reopened = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    assert_eq!(reopened.transaction_version("s/0/p").await.expect("transaction"), Some(120));
    let table = reopened.table(Part::History, TableOptions::default()).await.expect("table");
    assert_eq!(table.files_in(Some((START + 7, START + 8))), (2, 120));
    assert_eq!(table.rows_stored(), Some(120));
    for (version, rows) in [(120, "120"), (101, "101"), (50, "50"), (1, "1")] {
        let options = TableOptions { version: Some(version), ..TableOptions::default() };
        assert_eq!(lines(&reopened, Part::History, options, "SELECT count(ts) FROM t").await, rows);
    }
}

#[test]
fn folders_hold_no_name_that_a_path_should_not() {
    assert_eq!(folder_name("transactions", 0), "transactions");
    assert_eq!(folder_name("transactions", 2), "transactions.2");
    assert_eq!(folder_name("../a b$", 0), "~2e~2e~2fa~20b~24");
    assert_ne!(folder_name("a.1", 0), folder_name("a", 1));
}

#[test]
fn reserved_and_ambiguous_names_are_refused() {
    let with = |name: &str| {
        let mut fields = schema(true).columns().fields().iter().cloned().collect::<Vec<_>>();
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
        HistorySchema::try_new(Arc::new(Schema::new(fields)), vec![0], 2)
    };
    assert_eq!(with("_Offset").expect_err("reserved").message(), "column name \"_Offset\" is reserved");
    assert_eq!(with("Amount").expect_err("case").kind(), Kind::Invalid);
    assert!(with("note").is_ok());
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_writing() {
    let folder = tempfile::tempdir().expect("folder");
    let warehouse = Warehouse::open(folder.path().to_str().expect("path")).await.expect("warehouse");
    let history = history(&warehouse, true).await;
    let make = |batch: i64| {
        let ids = (0..65_536).map(|i| format!("t{:09}", batch * 65_536 + i)).collect::<Vec<_>>();
        let data = ids.iter().zip(0_i64..).map(|(id, i)| {
            let row = batch * 65_536 + i;
            (id.as_str(), (row % 10_007) as f64 * 0.01, START + row * 50_000, row, 0)
        });
        rows(&data.collect::<Vec<_>>())
    };
    let batches = (0..32).map(make).collect::<Vec<_>>();
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let start = std::time::Instant::now();
    let mut writer = history.writer(WriteOptions::default()).expect("writer");
    for batch in batches {
        writer.write(batch).await.expect("write");
    }
    let files = writer.finish().await.expect("finish");
    let elapsed = start.elapsed();
    println!("write {} ns/row, {} files, {} rows", elapsed.as_nanos() / total as u128, files.len(), total);
    committed(&history, Commit { files, progress: progress(None, total as i64), ..Commit::default() }).await;
    let start = std::time::Instant::now();
    println!(
        "{}",
        lines(&history, Part::History, TableOptions::default(), "SELECT count(*), count(DISTINCT id), sum(amount), max(ts) FROM t").await
    );
    println!("read {} ns/row", start.elapsed().as_nanos() / total as u128);
    let start = std::time::Instant::now();
    for next in total as i64..total as i64 + 100 {
        committed(&history, step(rows(&[("a", 1.0, START + next, next, 0)]), Some(next), next + 1)).await;
    }
    println!("small commit {} us", start.elapsed().as_micros() / 100);
}

/// Every type of a column, with NULL and its edges, comes back to the bit; so it does through Delta's own scan.
#[tokio::test]
async fn every_type_comes_back_and_other_readers_agree() {
    use arrow::array::*;
    let fields = vec![
        Field::new("ts", timestamp_type(), false),
        Field::new("boolean", DataType::Boolean, true),
        Field::new("tinyint", DataType::Int8, true),
        Field::new("smallint", DataType::Int16, true),
        Field::new("int", DataType::Int32, true),
        Field::new("bigint", DataType::Int64, true),
        Field::new("real", DataType::Float32, true),
        Field::new("double", DataType::Float64, true),
        Field::new("decimal", DataType::Decimal128(38, 10), true),
        Field::new("small decimal", DataType::Decimal128(9, 2), true),
        Field::new("varchar", DataType::Utf8View, true),
        Field::new("varbinary", DataType::BinaryView, true),
        Field::new("date", DataType::Date32, true),
        Field::new("timestamp", timestamp_type(), true),
    ];
    let schema = HistorySchema::try_new(Arc::new(Schema::new(fields)), vec![], 0).expect("schema");
    let utc = |values: Vec<Option<i64>>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let decimal = |values: Vec<Option<i128>>, precision, scale| {
        let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
        Arc::new(array.expect("decimal")) as ArrayRef
    };
    let columns: Vec<ArrayRef> = vec![
        utc(vec![Some(START), Some(START + 1), Some(START + 2)]),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(-0.0)])),
        Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None, Some(f64::MIN_POSITIVE / 2.0)])),
        decimal(vec![Some(-(10_i128.pow(38) - 1)), None, Some(10_i128.pow(38) - 1)], 38, 10),
        decimal(vec![Some(-999_999_999), None, Some(1)], 9, 2),
        Arc::new(StringViewArray::from(vec![Some(""), None, Some("\u{0}\u{1f600} and a text longer than twelve bytes")])),
        Arc::new(BinaryViewArray::from(vec![Some(b"".as_slice()), None, Some(b"\xff\x00\xfe".as_slice())])),
        Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(2_932_896)])),
        utc(vec![Some(-1), None, Some(253_402_300_799_999_999)]),
        Arc::new(StringViewArray::from(vec!["p", "p", "p"])),
        Arc::new(Int64Array::from(vec![0, 1, 2])),
        utc(vec![Some(START); 3]),
        Arc::new(Int32Array::from(vec![0, 0, 0])),
    ];
    let batch = RecordBatch::try_new(schema.stored(), columns).expect("rows");
    let warehouse = memory().await;
    let history = StreamHistory::create(&warehouse, "s", "s", schema).await.expect("history");
    committed(&history, step(batch.clone(), None, 3)).await;
    let hidden = TableOptions { hidden: true, ..TableOptions::default() };
    let back = query(&history, Part::History, hidden, "SELECT * FROM t ORDER BY ts").await.expect("rows");
    assert_eq!(back, batch);
    let bits = |batch: &RecordBatch| batch.column(6).as_primitive::<arrow::datatypes::Float32Type>().value(0).to_bits();
    assert_eq!(bits(&back), bits(&batch));

    let delta = history.inner.history.delta_table().await;
    let context = SessionContext::new();
    delta.update_datafusion_session(&context.state()).expect("session");
    context.register_table("d", delta.table_provider().await.expect("provider")).expect("register");
    let sql = "SELECT count(*), min(_date), max(\"int\"), count(varchar), min(ts) FROM d WHERE ts > '2024-05-01T00:00:00Z'";
    let rows = context.sql(sql).await.expect("sql").collect().await.expect("rows");
    let text = pretty_format_batches(&rows).expect("format").to_string();
    assert!(text.contains("| 2        | 2024-05-01   | 2147483647 | 1                | 2024-05-01T00:00:00.000001Z |"), "{text}");
}

/// Whatever a byte of the log or of a data file is changed to: an answer or an error, never a panic.
#[tokio::test]
async fn damaged_bytes_never_panic() {
    use rand::{Rng, SeedableRng};
    let folder = tempfile::tempdir().expect("folder");
    let warehouse = Warehouse::open(folder.path().to_str().expect("path")).await.expect("warehouse");
    let history = history(&warehouse, true).await;
    committed(&history, step(rows(&[("a", 1.0, START, 0, 0), ("b", 1.5, START + 1, 1, 0)]), None, 2)).await;
    committed(&history, step(rows(&[("a", 2.0, START, 2, 1)]), Some(2), 3)).await;
    let table = history.table(Part::History, TableOptions::default()).await.expect("table");
    let data = table.files.iter().map(|f| folder.path().join(f.location.as_ref()));
    let log = (0..3).map(|v| folder.path().join(format!("streams/s/_delta_log/{v:020}.json")));
    let files = data.chain(log).collect::<Vec<_>>();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let (mut answers, mut errors) = (0, 0);
    for round in 0..300 {
        let file = &files[round % files.len()];
        let saved = std::fs::read(file).expect("read");
        let mut bytes = saved.clone();
        match random.random_range(0..3) {
            0 => bytes.truncate(random.random_range(0..saved.len())),
            1 => {
                let at = random.random_range(0..saved.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            _ => {
                let at = random.random_range(0..saved.len());
                let end = (at + random.random_range(1..32)).min(saved.len());
                random.fill(&mut bytes[at..end]);
            }
        }
        std::fs::write(file, bytes).expect("write");
        let warehouse = warehouse.clone();
        let read = tokio::spawn(async move {
            let history = StreamHistory::open(&warehouse, "s", "s", schema(true)).await?;
            history.transaction_version("s/0/p").await?;
            query(&history, Part::History, TableOptions::default(), "SELECT id, amount, ts FROM t").await
        });
        match read.await.unwrap_or_else(|e| panic!("round {round}, {}: {e}", file.display())) {
            Ok(_) => answers += 1,
            Err(e) => {
                assert!(matches!(e.kind(), Kind::Data | Kind::Unavailable | Kind::Invalid), "{:?} {e}", e.kind());
                errors += 1;
            }
        }
        std::fs::write(file, saved).expect("restore");
    }
    assert!(answers > 0 && errors > 50, "{answers} answers, {errors} errors");
}

/// A put that fails though it was done, and one that fails and was not, end in one copy each.
#[tokio::test]
async fn the_log_tells_what_a_failed_put_did() {
    let store = Arc::new(faults::Faults::default());
    let url = url::Url::parse("memory:///w/").expect("url");
    let warehouse = Warehouse::open_with_store(url, store.clone()).await.expect("warehouse");
    let history = history(&warehouse, true).await;
    store.fail_next_commit(faults::Fault::Unanswered);
    assert_eq!(committed(&history, step(rows(&[("a", 1.0, START, 0, 0)]), None, 1)).await, 1);
    store.fail_next_commit(faults::Fault::Refused);
    let commit = || step(rows(&[("b", 2.0, START, 1, 0)]), Some(1), 2);
    let error = history.commit(commit()).await.expect_err("failed");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(committed(&history, commit()).await, 2);
    store.fail_next_commit(faults::Fault::FullDisk);
    let error = history.commit(step(rows(&[("c", 2.0, START, 2, 0)]), Some(2), 3)).await.expect_err("full disk");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("no space left"), "{error}");
    assert_eq!(seen(&history, None).await, "a 1.0; b 2.0");
    let reopened = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    assert_eq!(seen(&reopened, None).await, "a 1.0; b 2.0");
}

/// A store that fails once, when told to.
pub(crate) mod faults {
    use std::fmt;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Fault {
        Refused,
        Unanswered,
        /// It is done, told to have failed, and cannot be read the next time.
        Dark,
        FullDisk,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Faults {
        inner: InMemory,
        next: Mutex<Option<Fault>>,
        dark: Mutex<Option<Path>>,
    }

    impl Faults {
        pub(crate) fn fail_next_commit(&self, fault: Fault) {
            *self.next.lock().expect("lock") = Some(fault);
        }

        fn takes(&self, wanted: impl Fn(Fault) -> bool) -> Option<Fault> {
            let mut next = self.next.lock().expect("lock");
            if next.is_some_and(wanted) { next.take() } else { None }
        }
    }

    impl fmt::Display for Faults {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("faults")
        }
    }

    fn failed(why: &str) -> Error {
        Error::Generic { store: "faults", source: why.into() }
    }

    #[async_trait]
    impl ObjectStore for Faults {
        async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
            let log = location.as_ref().contains("_delta_log");
            match self.takes(|fault| log == (fault != Fault::FullDisk)) {
                Some(Fault::Refused) => return Err(failed("connection reset")),
                Some(Fault::FullDisk) => return Err(failed("no space left on device")),
                Some(fault @ (Fault::Unanswered | Fault::Dark)) => {
                    if fault == Fault::Dark {
                        *self.dark.lock().expect("lock") = Some(location.clone());
                    }
                    self.inner.put_opts(location, payload, opts).await?;
                    return Err(failed("timeout"));
                }
                None => {}
            }
            self.inner.put_opts(location, payload, opts).await
        }

        async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, opts).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            if self.dark.lock().expect("lock").take_if(|dark| dark == location).is_some() {
                return Err(failed("connection reset"));
            }
            self.inner.get_opts(location, options).await
        }

        fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }
}

/// What a history is, at every version: its visible rows, all rows with their hidden columns, and what came since every earlier version.
async fn all_of(history: &StreamHistory, newest: i64) -> Vec<String> {
    let mut found = Vec::new();
    for version in 1..=newest {
        found.push(seen(history, Some(version)).await);
        let all = TableOptions { version: Some(version), hidden: true, all_rows: true, ..TableOptions::default() };
        found.push(lines(history, Part::History, all.clone(), "SELECT * FROM t ORDER BY _offset, _revision").await);
        for since in 0..version {
            let options = TableOptions { since: Some(since), ..all.clone() };
            found.push(lines(history, Part::History, options, "SELECT _offset FROM t ORDER BY _offset").await);
        }
    }
    found
}

/// What changed since a version, as the offsets of rows that go are not told, by id and amount.
async fn changed(history: &StreamHistory, version: i64) -> String {
    let since = history.since(version).await.expect("since");
    let context = SessionContext::new();
    let come = context.read_table(since.come).expect("table").collect().await.expect("rows");
    let text = |batches: &[RecordBatch]| {
        let mut rows: Vec<String> = batches
            .iter()
            .flat_map(|b| {
                let (ids, amounts) = (b.column(0).as_string_view(), b.column(1).as_primitive::<Float64Type>());
                (0..b.num_rows()).map(|i| format!("{} {}", ids.value(i), amounts.value(i))).collect::<Vec<_>>()
            })
            .collect();
        rows.sort();
        rows.join("; ")
    };
    format!("gone {} come {}", text(&since.gone), text(&come))
}

#[tokio::test]
async fn compaction_changes_files_and_no_row_of_any_version() {
    let warehouse = memory().await;
    let history = history(&warehouse, true).await;
    let mut next = 0;
    // Two days in turn; every third commit brings a row that conflicts with the one before.
    for i in 0..9i64 {
        let (day, id) = (START + (i % 2) * DAY, format!("e{}", i / 3));
        let commit = Commit {
            accepted: vec![rows(&[(&id, i as f64, START, next, i as i32 % 3), ("x", 1.0, day + i, next + 1, 0)])],
            late: vec![rows(&[("l", 3.0, day, next + 2, 0)])],
            rejected: vec![rejected(&[("{", next + 3)])],
            progress: progress((i > 0).then_some(next), next + 4),
            ..Commit::default()
        };
        next += 4;
        assert_eq!(committed(&history, commit).await, i + 1);
    }
    let before = all_of(&history, 9).await;
    let mut changes = Vec::new();
    for version in 0..9 {
        changes.push(changed(&history, version).await);
    }
    let files = async |history: &StreamHistory, part| history.table(part, TableOptions::default()).await.expect("table").files.len();
    assert_eq!(files(&history, Part::History).await, 13);

    let done = history.compact(Part::History, 4).await.expect("compact").expect("some");
    assert_eq!((done.version, done.files, done.written), (10, 9, 1));
    let done = history.compact(Part::History, 4).await.expect("compact").expect("the other day");
    assert_eq!((done.version, done.files, done.written, done.rows), (11, 4, 1, 4));
    assert_eq!(history.compact(Part::History, 2).await.expect("compact"), None);
    for part in [Part::Late, Part::Rejected] {
        while history.compact(part, 2).await.expect("compact").is_some() {}
    }
    assert_eq!((files(&history, Part::History).await, files(&history, Part::Late).await), (2, 2));
    assert_eq!(files(&history, Part::Rejected).await, 1);
    assert_eq!(lines(&history, Part::Late, TableOptions::default(), "SELECT count(*), sum(_offset) FROM t").await, "9 162");
    assert_eq!(lines(&history, Part::Rejected, TableOptions::default(), "SELECT count(*), sum(_offset) FROM t").await, "9 171");

    let reopened = StreamHistory::open(&warehouse, "s", "s", schema(true)).await.expect("open");
    for history in [&history, &reopened] {
        assert_eq!(all_of(history, 9).await, before);
        for version in 0..9 {
            assert_eq!(changed(history, version).await, changes[version as usize], "since {version}");
        }
        assert_eq!(seen(history, None).await, seen(history, Some(9)).await);
        assert_eq!(changed(history, 10).await, "gone  come ");
        assert_eq!(history.transaction_version("s/0/p").await.expect("transaction"), Some(next));
    }
    // The stream goes on, and its new rows are told from those that only moved.
    committed(&history, step(rows(&[("e0", 99.0, START, next, 3)]), Some(next), next + 1)).await;
    assert_eq!(changed(&history, 9).await, "gone e0 2 come e0 99");
    assert_eq!(changed(&history, 11).await, "gone e0 2 come e0 99");
    let late = TableOptions { since: Some(8), ..TableOptions::default() };
    assert_eq!(lines(&history, Part::Late, late, "SELECT _offset FROM t").await, "34");
    let delta = history.inner.history.delta_table().await;
    assert_eq!(delta.snapshot().expect("state").log_data().num_files(), 3);
}

#[tokio::test]
async fn a_commit_or_another_compaction_that_comes_between_loses_nothing() {
    let warehouse = memory().await;
    let first = history(&warehouse, true).await;
    for i in 0..4 {
        committed(&first, step(rows(&[("a", 1.0, START + i, i, 0)]), (i > 0).then_some(i), i + 1)).await;
    }
    let [second, third] = [0, 1].map(|_| StreamHistory::open(&warehouse, "s", "s", schema(true)));
    let (second, third) = (second.await.expect("open"), third.await.expect("open"));
    committed(&second, step(rows(&[("a", 1.0, START + 4, 4, 0)]), Some(4), 5)).await;
    // It knows of four files only, and comes behind the commit that it did not know of.
    let done = first.compact(Part::History, 2).await.expect("compact").expect("some");
    assert_eq!((done.version, done.files), (6, 4));
    // Of these files another has nothing to rewrite any more.
    assert_eq!(third.compact(Part::History, 2).await.expect("compact"), None);
    for history in [&first, &second, &third] {
        history.refresh().await.expect("refresh");
        let hidden = TableOptions { hidden: true, ..TableOptions::default() };
        assert_eq!(lines(history, Part::History, hidden, "SELECT count(*), sum(_offset) FROM t").await, "5 10");
    }
    committed(&second, step(rows(&[("a", 1.0, START + 5, 5, 0)]), Some(5), 6)).await;
    assert_eq!(lines(&second, Part::History, TableOptions::default(), "SELECT count(*) FROM t").await, "6");
}
