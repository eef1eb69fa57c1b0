//! Streams that are read from a topic, on the client library's mock cluster in this process: what needs no real broker.
//!
//! A log of random records (out of order, copied, in conflict, late, malformed) is produced in parts, with restarts between; then
//! history, `$late`, `$rejected` and the answers are compared with what a naive reading of the log gives. Not here: crashes, rebalances
//! and a real broker (`tests/kafka`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::pretty::pretty_format_batches;
use asof::{Durability, Engine, Kind, Output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "payments";
const PARTITIONS: i32 = 3;
const MINUTE: i64 = 60_000_000;
/// 2024-05-01 00:00:00.
const BASE: i64 = 1_714_521_600_000_000;
const VIEW: &str = "CREATE FEATURE VIEW spend ENTITY (u) AS
    SELECT count(*) OVER h AS n, sum(x) OVER h AS s FROM pay WINDOW h AS (RANGE INTERVAL '1 hour' PRECEDING)";

fn stream(brokers: &str, more: &str) -> String {
    format!(
        "CREATE STREAM pay (id VARCHAR, u VARCHAR NOT NULL, x DOUBLE, ts TIMESTAMP NOT NULL, PRIMARY KEY (id),
            WATERMARK FOR ts AS ts - INTERVAL '1 minute')
         WITH (connector = 'kafka', brokers = '{brokers}', topic = '{TOPIC}', format = 'json', time_unit = 'us' {more})"
    )
}

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    cluster
}

async fn open(warehouse: &Path) -> Engine {
    let location = warehouse.to_str().expect("a temporary path is UTF-8");
    Engine::builder().warehouse(location).durability(Durability::Process).build().await.unwrap_or_else(|e| panic!("open: {e}"))
}

async fn run(engine: &Engine, sql: &str) -> Vec<Output> {
    engine.execute(sql, &[]).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"))
}

async fn rows(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    match run(engine, sql).await.pop() {
        Some(Output::Rows { batches, .. }) => batches,
        _ => panic!("no rows from: {sql}"),
    }
}

async fn count(engine: &Engine, table: &str) -> i64 {
    rows(engine, &format!("SELECT count(*) FROM \"{table}\"")).await[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn produce(cluster: &Cluster, log: &[Record]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "0").create().expect("a producer");
    for record in log {
        let message = BaseRecord::<(), [u8]>::to(TOPIC).partition(record.partition).payload(record.raw.as_slice());
        producer.send(message).unwrap_or_else(|(e, _)| panic!("{e}"));
    }
    producer.flush(Duration::from_secs(30)).expect("all is produced");
}

/// Waits until something is so.
async fn until(engine: &Engine, what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        if began.elapsed() > Duration::from_secs(60) {
            let status = pretty_format_batches(&rows(engine, "SHOW STREAM STATUS").await).expect("a table");
            panic!("not within a minute: {what}\n{status}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A message, and what it says where it is an event.
#[derive(Debug, Clone)]
struct Record {
    partition: i32,
    raw: Vec<u8>,
    event: Option<Event>,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    u: String,
    x: i64,
    ts: i64,
}

fn random_log(seed: u64, records: usize) -> Vec<Record> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut log: Vec<Record> = Vec::new();
    for i in 0..records {
        let partition = rng.random_range(0..PARTITIONS);
        let event = match rng.random_range(0..20) {
            // A copy, perhaps in another partition.
            0 | 1 if !log.is_empty() => log[rng.random_range(0..log.len())].event.clone(),
            // The same identity with another payload.
            2 if !log.is_empty() => log[rng.random_range(0..log.len())].event.clone().map(|e| Event { x: e.x + 1, ..e }),
            3 => None,
            kind => {
                // Time goes on by a second a record; most are in order, some within the disorder, some behind it.
                let back = match kind {
                    4..=8 => rng.random_range(0..MINUTE),
                    9 => rng.random_range(0..10 * MINUTE),
                    _ => 0,
                };
                let ts = BASE + i as i64 * 1_000_000 - back;
                Some(Event { id: format!("p{i}"), u: format!("u{}", rng.random_range(0..7)), x: rng.random_range(-50..50), ts })
            }
        };
        let raw = match &event {
            Some(e) => format!(r#"{{"id":"{}","u":"{}","x":{},"ts":{}}}"#, e.id, e.u, e.x, e.ts),
            None if i % 2 == 0 => "{\"id\": 7".into(),
            None => r#"{"id":"a","x":1,"ts":"2024-05-01 00:00:00"}"#.into(),
        };
        log.push(Record { partition, raw: raw.into_bytes(), event });
    }
    log
}

/// What a log means, read naively.
#[derive(Debug, Default)]
struct Meaning {
    visible: BTreeMap<(i64, String), Event>,
    late: BTreeSet<(String, i64)>,
    rejected: BTreeSet<(String, i64)>,
}

fn meaning(log: &[Record]) -> Meaning {
    let mut meaning = Meaning::default();
    let mut offsets: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for record in log {
        let (offset, greatest) = offsets.entry(record.partition).or_insert((0, i64::MIN));
        let at = (format!("{TOPIC}/{}", record.partition), *offset);
        *offset += 1;
        let Some(event) = &record.event else {
            meaning.rejected.insert(at);
            continue;
        };
        let late = event.ts < greatest.saturating_sub(MINUTE);
        *greatest = (*greatest).max(event.ts);
        if late {
            meaning.late.insert(at);
            continue;
        }
        let seen = meaning.visible.entry((event.ts, event.id.clone())).or_insert_with(|| event.clone());
        // Of a conflict the greatest row is seen: by the entity, then by the value.
        if (&event.u, event.x) > (&seen.u, seen.x) {
            *seen = event.clone();
        }
    }
    meaning
}

async fn coordinates(engine: &Engine, table: &str) -> BTreeSet<(String, i64)> {
    let mut found = BTreeSet::new();
    for batch in rows(engine, &format!("SELECT _partition, _offset FROM \"{table}\"")).await {
        let (partitions, offsets) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let new = found.insert((partitions.value(row).to_owned(), offsets.value(row)));
            assert!(new, "twice in {table}: {} {}", partitions.value(row), offsets.value(row));
        }
    }
    found
}

async fn compare(engine: &Engine, expected: &Meaning) {
    let mut visible = BTreeMap::new();
    for batch in rows(engine, "SELECT id, u, CAST(x AS BIGINT), ts FROM pay").await {
        for row in 0..batch.num_rows() {
            let text = |c: usize| batch.column(c).as_string_view().value(row).to_owned();
            let ts = batch.column(3).as_primitive::<TimestampMicrosecondType>().value(row);
            let event = Event { id: text(0), u: text(1), x: batch.column(2).as_primitive::<Int64Type>().value(row), ts };
            assert!(visible.insert((ts, text(0)), event).is_none(), "two rows of one identity are seen");
        }
    }
    assert_eq!(visible, expected.visible);
    assert_eq!(coordinates(engine, "pay$late").await, expected.late);
    assert_eq!(coordinates(engine, "pay$rejected").await, expected.rejected);
    let last = expected.visible.keys().map(|(ts, _)| *ts).max().unwrap_or(BASE);
    for u in 0..7 {
        let sql = format!("SELECT n, s FROM spend FOR ENTITY 'u{u}' AS OF TIMESTAMP '{}'", timestamp(last));
        let answer = rows(engine, &sql).await;
        let events = expected.visible.values().filter(|e| e.u == format!("u{u}") && e.ts >= last - 60 * MINUTE && e.ts <= last);
        let values: Vec<i64> = events.map(|e| e.x).collect();
        assert_eq!(answer[0].column(0).as_primitive::<Int64Type>().value(0), values.len() as i64, "{sql}");
        let sum = answer[0].column(1).as_primitive::<Float64Type>();
        let got = (!sum.is_null(0)).then(|| sum.value(0));
        assert_eq!(got, (!values.is_empty()).then(|| values.iter().sum::<i64>() as f64), "{sql}");
    }
}

fn timestamp(us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(us).expect("a time of our era").format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_means_the_same_however_it_is_read() {
    for (seed, more) in [(1, ""), (2, ", commit_rows = 37, commit_interval = '1 hour'"), (3, ", commit_interval = '10 milliseconds'")] {
        let log = random_log(seed, 2_000);
        let (cluster, folder) = (cluster(), tempfile::tempdir().expect("a temporary folder"));
        let mut engine = open(folder.path()).await;
        run(&engine, &stream(&cluster.bootstrap_servers(), more)).await;
        run(&engine, VIEW).await;
        let parts: Vec<&[Record]> = log.chunks(700).collect();
        for (i, part) in parts.iter().enumerate() {
            engine.keep_sources().await;
            produce(&cluster, part);
            let expected = meaning(&log[..(i * 700 + part.len())]);
            let behind = async || {
                count(&engine, "pay").await == expected.visible.len() as i64
                    && count(&engine, "pay$late").await == expected.late.len() as i64
                    && count(&engine, "pay$rejected").await == expected.rejected.len() as i64
            };
            until(&engine, "the log is read", behind).await;
            compare(&engine, &expected).await;
            engine.close().await.expect("it closes");
            engine = open(folder.path()).await;
        }
        compare(&engine, &meaning(&log)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_served_before_it_is_committed() {
    let (cluster, folder) = (cluster(), tempfile::tempdir().expect("a temporary folder"));
    let engine = open(folder.path()).await;
    run(&engine, &stream(&cluster.bootstrap_servers(), ", commit_interval = '1 hour'")).await;
    run(&engine, VIEW).await;
    engine.keep_sources().await;
    let event = Event { id: "a".into(), u: "u1".into(), x: 5, ts: BASE };
    let raw = format!(r#"{{"id":"a","u":"u1","x":5,"ts":{BASE}}}"#).into_bytes();
    produce(&cluster, &[Record { partition: 0, raw, event: Some(event) }]);
    let sql = format!("SELECT n FROM spend FOR ENTITY 'u1' AS OF TIMESTAMP '{}'", timestamp(BASE));
    let served = async || rows(&engine, &sql).await[0].column(0).as_primitive::<Int64Type>().value(0) == 1;
    until(&engine, "the event is served", served).await;
    let data = || std::fs::read_dir(folder.path().join("streams/pay")).expect("the table's folder").count();
    // The log alone: no file of rows.
    assert_eq!(data(), 1, "nothing is committed yet");
    // A view that is made now has it too, and a read of history commits it first.
    run(&engine, "CREATE FEATURE VIEW other ENTITY (u) AS SELECT max(x) OVER (RANGE INTERVAL '1 day' PRECEDING) AS m FROM pay").await;
    let other = rows(&engine, &format!("SELECT m FROM other FOR ENTITY 'u1' AS OF TIMESTAMP '{}'", timestamp(BASE))).await;
    assert_eq!(other[0].column(0).as_primitive::<Float64Type>().value(0), 5.0);
    assert_eq!(data(), 1, "nothing is committed yet");
    assert_eq!(count(&engine, "pay").await, 1);
    assert_eq!(data(), 2, "history was asked");
    engine.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_the_stream() {
    let (first, second, folder) = (cluster(), cluster(), tempfile::tempdir().expect("a temporary folder"));
    let engine = open(folder.path()).await;
    run(&engine, &stream(&first.bootstrap_servers(), "")).await;
    engine.keep_sources().await;
    let log = random_log(9, 300);
    produce(&first, &log);
    let expected = meaning(&log);
    until(&engine, "the log is read", async || count(&engine, "pay").await == expected.visible.len() as i64).await;
    // Another topic of the same name: it ends before the place where reading goes on.
    run(&engine, &format!("ALTER STREAM pay SET (brokers = '{}')", second.bootstrap_servers())).await;
    // Its offsets are those of other records: there is no going on with it.
    let refused = async || {
        let error = engine.execute("RESUME STREAM pay PAST GAP", &[]).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        error.to_string().contains("create another stream")
    };
    until(&engine, "the gap is found", refused).await;
    run(&engine, &format!("ALTER STREAM pay SET (brokers = '{}')", first.bootstrap_servers())).await;
    produce(&first, &[Record { partition: 1, raw: br#"{"id":"new","u":"u1","x":1,"ts":1714999999000000}"#.to_vec(), event: None }]);
    until(&engine, "it goes on", async || count(&engine, "pay").await == expected.visible.len() as i64 + 1).await;
    engine.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = open(folder.path()).await;
    let usual = stream("127.0.0.1:1", "");
    for (option, code) in [
        ("\"kafka.sasl.password\" = 'hunter2'", "E0604"),
        ("\"kafka.enable.auto.commit\" = 'true'", "E0602"),
        ("commit_rows = '0'", "E0602"),
        ("commit_interval = 'soon'", "E0602"),
        ("start = 'tomorrow'", "E0602"),
        ("path = 'x.json'", "E0602"),
        ("format = 'parquet'", "E0602"),
    ] {
        let sql = usual.replace("format = 'json'", option);
        let error = engine.execute(&sql, &[]).await.expect_err(&sql);
        assert!(error.to_string().contains(code), "{error}");
    }
    let missing = "CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 't')";
    let error = engine.execute(missing, &[]).await.expect_err("without brokers");
    assert!(error.to_string().contains("brokers"), "{error}");
}
