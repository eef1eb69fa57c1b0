//! Input of any kind: SQL, records, files and warehouses that nobody in their right mind would send, and processes that end at the wrong time.
//!
//! Whatever comes in, there is an error or a row in `$rejected`, never a panic, a lost event or an event counted twice. Random cases come
//! from seeds that a failure prints; `ASOF_ROBUST_SEEDS` (1) multiplies how many there are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use asof::{Clock, Durability, Engine, Error, IngestCounts, Kind, Output, VerifyOptions, WallTime};
use datafusion::parquet::arrow::ArrowWriter;
use futures::FutureExt;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::slt::{StillClock, USUAL_NOW};

const STREAM: &str = "CREATE STREAM pay (id VARCHAR, u VARCHAR NOT NULL, n BIGINT, x DOUBLE, ok BOOLEAN, ts TIMESTAMP NOT NULL,
    PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '1 minute')";
const VIEW: &str = "CREATE FEATURE VIEW spend ENTITY (u) AS
    SELECT count(*) OVER h AS n, sum(x) OVER h AS s, max(id) OVER h AS m FROM pay WINDOW h AS (RANGE INTERVAL '1 hour' PRECEDING)";

/// How many random cases, where the usual number is `usual`.
fn cases(usual: u64) -> u64 {
    let times = std::env::var("ASOF_ROBUST_SEEDS").ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    usual * times.max(1)
}

async fn try_open(warehouse: &Path) -> Result<Engine, Error> {
    let location = warehouse.to_str().expect("a temporary path is UTF-8");
    Engine::builder().warehouse(location).durability(Durability::Process).clock(Arc::new(StillClock(USUAL_NOW))).build().await
}

async fn open(warehouse: &Path) -> Engine {
    try_open(warehouse).await.unwrap_or_else(|e| panic!("open: {e}"))
}

/// A warehouse with the stream and the view.
async fn with_stream(warehouse: &Path) -> Engine {
    let engine = open(warehouse).await;
    run(&engine, STREAM).await;
    run(&engine, VIEW).await;
    engine
}

async fn run(engine: &Engine, sql: &str) -> Vec<Output> {
    engine.execute(sql, &[]).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"))
}

async fn refused(engine: &Engine, sql: &str) -> Error {
    match engine.execute(sql, &[]).await {
        Ok(_) => panic!("accepted: {}", sql.chars().take(200).collect::<String>()),
        Err(e) => e,
    }
}

fn counts(outputs: &[Output]) -> IngestCounts {
    outputs.iter().find_map(|o| if let Output::Done { counts, .. } = o { *counts } else { None }).expect("a write counts")
}

/// The rows of a query as one column of 64-bit integers.
async fn numbers(engine: &Engine, sql: &str) -> Vec<i64> {
    let mut outputs = run(engine, sql).await;
    let Some(Output::Rows { batches, .. }) = outputs.pop() else { panic!("no rows from: {sql}") };
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn rows_of(engine: &Engine, table: &str) -> u64 {
    numbers(engine, &format!("SELECT count(*) FROM \"{table}\"")).await[0].unsigned_abs()
}

/// What has come in must lie in the three tables, exactly.
async fn conserved(engine: &Engine, stream: &str, total: &IngestCounts) {
    assert_eq!(total.read, total.accepted + total.duplicate + total.late + total.rejected, "{total:?}");
    assert_eq!(
        rows_of(engine, stream).await,
        total.accepted - total.conflicts,
        "accepted, of which conflicts hide one row each: {total:?}"
    );
    assert_eq!(rows_of(engine, &format!("{stream}$late")).await, total.late, "{total:?}");
    assert_eq!(rows_of(engine, &format!("{stream}$rejected")).await, total.rejected, "{total:?}");
}

/// An event as a JSON line; minutes from 2029-12-31 22:00.
fn line(id: u64, minute: u64) -> String {
    let (hour, minute) = (22 + minute / 60, minute % 60);
    format!(
        "{{\"id\":\"p{id}\",\"u\":\"u{}\",\"n\":{id},\"x\":{id}.25,\"ok\":true,\"ts\":\"2029-12-31T{hour}:{minute:02}:00Z\"}}\n",
        id % 3
    )
}

// ---- SQL

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "OVER",
    "WINDOW",
    "AS",
    "OF",
    "ASOF",
    "JOIN",
    "ON",
    "USING",
    "MATCH_CONDITION",
    "FOR",
    "ENTITY",
    "TIMESTAMP",
    "INTERVAL",
    "BEFORE",
    "CREATE",
    "OR",
    "REPLACE",
    "STREAM",
    "FEATURE",
    "VIEW",
    "IF",
    "NOT",
    "EXISTS",
    "PRIMARY",
    "KEY",
    "WATERMARK",
    "WITH",
    "RANGE",
    "ROWS",
    "GROUPS",
    "BETWEEN",
    "AND",
    "PRECEDING",
    "FOLLOWING",
    "CURRENT",
    "ROW",
    "UNBOUNDED",
    "UNION",
    "ALL",
    "DISTINCT",
    "FILTER",
    "INSERT",
    "INTO",
    "VALUES",
    "REPROCESS",
    "RESUME",
    "PAST",
    "GAP",
    "STATUS",
    "LATE",
    "EVENTS",
    "SHOW",
    "STREAMS",
    "FEATURES",
    "DESCRIBE",
    "EXPLAIN",
    "ALTER",
    "ADD",
    "COLUMN",
    "SET",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "IN",
    "LIKE",
    "IS",
    "NULL",
    "TRUE",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "median",
    "array_agg",
    "first_value",
    "last_n",
    "percentile_cont",
    "approx_distinct",
    "as_of",
    "extract",
    "epoch",
    "TUMBLE",
    "HOP",
    "SESSION",
    "window_start",
    "coalesce",
    "pay",
    "spend",
    "id",
    "u",
    "n",
    "x",
    "ts",
    "h",
    "\"pay$late\"",
    "VARCHAR",
    "BIGINT",
    "DOUBLE",
    "DECIMAL",
    "BOOLEAN",
    "(",
    ")",
    "(",
    ")",
    ",",
    ",",
    ".",
    "*",
    "+",
    "-",
    "/",
    "%",
    "=",
    "<",
    ">",
    "<=",
    ">=",
    "<>",
    "||",
    "::",
    "[",
    "]",
    "{",
    "}",
    ";",
    ":",
    "$1",
    "$99",
    "?",
    "@",
    "\\",
    "'",
    "\"",
    "--",
    "/*",
    "*/",
    "0",
    "1",
    "-1",
    "1e308",
    "1e999",
    "9223372036854775808",
    "99999999999999999999999999999999999999999",
    "0.1",
    ".",
    "''",
    "'a'",
    "'1 hour'",
    "'-3 months'",
    "'2029-12-31 23:00:00'",
    "'+262143-01-01'",
    "E'\\x'",
    "X'00'",
    "N'a'",
    "U&'\\0041'",
    "'\u{0}'",
    "'é\u{301}\u{10ffff}'",
    "\u{feff}",
    "\u{a0}",
];

/// Statements that are right, to be made wrong.
const STATEMENTS: &[&str] = &[
    STREAM,
    VIEW,
    "SELECT * FROM spend FOR ENTITY 'u1'",
    "SELECT n, s / 2 AS half FROM spend FOR ENTITY u IN ('u1', 'u2', NULL) AS OF TIMESTAMP '2029-12-31 23:00:00'",
    "SELECT l.id, v.* FROM pay l ASOF JOIN spend v MATCH_CONDITION (l.ts > v.ts) ON l.u = v.u WHERE l.n > 3 ORDER BY l.id",
    "SELECT a.id, b.id FROM pay a ASOF JOIN pay b MATCH_CONDITION (a.ts >= b.ts) USING (u)",
    "CREATE FEATURE VIEW g ENTITY (u) WITH (ttl = '3 days', owner = 'me') AS SELECT count(*) AS c, window_end() AS e FROM pay GROUP BY u, HOP(ts, INTERVAL '1 minute', INTERVAL '5 minutes')",
    "CREATE FEATURE VIEW e ENTITY (u) AS SELECT sum(p.x * q.n) FILTER (WHERE q.ok) OVER (ROWS 5 PRECEDING) AS f FROM pay p ASOF JOIN pay q MATCH_CONDITION (p.ts > q.ts) ON p.u = q.u",
    "CREATE FEATURE d ENTITY (u) AS SELECT sum(x * exp(-extract(epoch FROM as_of() - ts) / 60)) OVER (RANGE INTERVAL '1 day' PRECEDING) AS f FROM pay",
    "INSERT INTO pay VALUES ('a', 'b', 1, 2.5, true, TIMESTAMP '2029-12-31 23:00:00'), ('c', 'd', NULL, NULL, NULL, TIMESTAMP '2029-12-31 23:00:01')",
    "EXPLAIN FEATURE VIEW spend; DESCRIBE spend; SHOW CREATE pay; SHOW STREAMS; SHOW FEATURE VIEWS; SHOW FEATURES; SHOW STREAM STATUS FOR pay; RESUME STREAM pay PAST GAP",
    "WITH c AS (SELECT u, count(*) AS k FROM pay GROUP BY u) SELECT * FROM c WHERE k IN (SELECT n FROM pay) UNION ALL SELECT 'a', 1",
    "ALTER STREAM pay ADD COLUMN extra DECIMAL(10, 2); REPROCESS LATE EVENTS FOR pay",
];

/// A text for the parser.
fn soup(rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..4) {
        0 => (0..rng.random_range(1..40)).map(|_| *WORDS.choose(rng).expect("words")).collect::<Vec<_>>().join(if rng.random_bool(0.9) {
            " "
        } else {
            ""
        }),
        1 => {
            let mut bytes = vec![0; rng.random_range(0..200)];
            rng.fill_bytes(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => {
            let text = *STATEMENTS.choose(rng).expect("statements");
            let mut words: Vec<&str> = text.split_inclusive([' ', '(', ')', ',', '.']).collect();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..words.len());
                match rng.random_range(0..5) {
                    0 => drop(words.remove(at)),
                    1 => words.insert(at, words[rng.random_range(0..words.len())]),
                    2 => words[at] = WORDS.choose(rng).expect("words"),
                    3 => {
                        let other = rng.random_range(0..words.len());
                        words.swap(at, other);
                    }
                    _ => words.truncate(at.max(1)),
                }
                if words.is_empty() {
                    words.push(" ");
                }
            }
            words.concat()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_sql_or_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..cases(1500) {
        let text = soup(&mut ChaCha8Rng::seed_from_u64(seed));
        // A file of any name must not be written where the tests run.
        if text.to_uppercase().contains("COPY") {
            continue;
        }
        match AssertUnwindSafe(engine.execute(&text, &[])).catch_unwind().await {
            Err(_) => panic!("seed {seed}: a panic from {text:?}"),
            Ok(Ok(_)) => accepted += 1,
            Ok(Err(e)) => {
                refused += 1;
                assert!(e.kind() != Kind::Internal, "seed {seed}: {e}\nfrom {text:?}");
                assert!(!e.message().trim().is_empty(), "seed {seed}: an error that says nothing, from {text:?}");
            }
        }
    }
    assert!(refused > 500 && accepted > 20, "{accepted} accepted, {refused} refused");
}

/// No text overflows the stack, and what is too deep is said to be.
#[tokio::test(flavor = "multi_thread")]
async fn depth_and_size_are_limited() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let nested = |open: &str, inside: &str, close: &str, n: usize| format!("{}{inside}{}", open.repeat(n), close.repeat(n));
    let view = |expr: &str| format!("CREATE FEATURE VIEW deep ENTITY (u) AS SELECT {expr} AS f FROM pay");
    let over = "OVER (RANGE INTERVAL '1 hour' PRECEDING)";
    let too_deep = [
        format!("SELECT 1{}", " + 1".repeat(2000)),
        view(&format!("sum(n{}) {over}", " + 1".repeat(2000))),
        format!("SELECT {}", nested("(", "1", ")", 10_000)),
        view(&format!("sum({}) {over}", nested("(", "n", ")", 10_000))),
        format!("SELECT {}", nested("(SELECT ", "1", ")", 10_000)),
        format!("SELECT * FROM {}", nested("(SELECT * FROM ", "pay", ")", 5000)),
        format!("SELECT {} true", "NOT ".repeat(10_000)),
        format!("SELECT {}1", "- ".repeat(10_000)),
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", 5000)),
        format!("SELECT {}", nested("CAST(", "1", " AS INT)", 5000)),
        format!("SELECT {}", nested("abs(", "1", ")", 5000)),
        format!("SELECT {}", nested("[", "1", "]", 5000)),
        format!("SELECT 1 WHERE true{}", " AND true".repeat(5000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3000)),
        format!("SELECT 1{}", "::int".repeat(5000)),
        format!("SELECT * FROM pay a{}", " ASOF JOIN pay b MATCH_CONDITION (a.ts > b.ts)".repeat(2000)),
        format!("SELECT * FROM spend FOR ENTITY {}", nested("(", "'u1'", ")", 10_000)),
        format!("SELECT n{} FROM spend FOR ENTITY 'u1'", " + 1".repeat(2000)),
        format!("INSERT INTO pay SELECT {}", nested("(", "1", ")", 10_000)),
        format!("CREATE STREAM deep (ts TIMESTAMP, a {}, WATERMARK FOR ts AS ts)", nested("ARRAY<", "INT", ">", 5000)),
        format!("EXPLAIN {}SELECT 1", "EXPLAIN ".repeat(10_000)),
        "(".repeat(100_000),
        "SELECT ".repeat(50_000),
        format!("SELECT '{}'", "x".repeat(20 << 20)),
    ];
    for text in too_deep {
        let start = text.chars().take(60).collect::<String>();
        match AssertUnwindSafe(engine.execute(&text, &[])).catch_unwind().await {
            Err(_) => panic!("a panic from {start}..."),
            Ok(Ok(_)) => panic!("accepted: {start}..."),
            Ok(Err(e)) => {
                assert_eq!(e.kind(), Kind::Invalid, "{start}...: {}", e.message().chars().take(300).collect::<String>());
                assert!(e.message().len() < 20_000, "{start}...: a message of {} bytes", e.message().len());
            }
        }
    }
    // Comments are no depth, and ordinary lists are not deep.
    run(&engine, &format!("SELECT 1 {}", nested("/* ", "", " */", 20))).await;
    run(&engine, &format!("SELECT 1 IN ({})", (0..500).map(|i| i.to_string()).collect::<Vec<_>>().join(", "))).await;
    // The engine goes on.
    assert_eq!(rows_of(&engine, "pay").await, 0);
}

// ---- records

/// Bytes that are a record, nearly one, or nothing of the kind; without a line feed.
fn record(rng: &mut ChaCha8Rng, id: u64, minute: u64) -> Vec<u8> {
    let mut bytes = line(id, minute).into_bytes();
    bytes.pop();
    match rng.random_range(0..6) {
        0 | 1 => {}
        2 => {
            bytes = vec![0; rng.random_range(1..120)];
            rng.fill_bytes(&mut bytes);
        }
        3 => bytes.truncate(rng.random_range(1..bytes.len())),
        4 => {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = *b"\"{}[]:,\\0-9eE.truefalsnN\xff\x00\xc3 ".choose(rng).expect("bytes");
            }
        }
        _ => {
            let values: [&[u8]; 12] = [
                b"null",
                b"{}",
                b"[[[]]]",
                b"1e400",
                b"-0",
                b"\"\\ud800\"",
                b"18446744073709551616",
                b"\"9999-99-99\"",
                b"true",
                b"NaN",
                b"\"\"",
                b"{\"a\":{\"b\":1}}",
            ];
            let text = String::from_utf8(bytes).expect("a line is UTF-8");
            let field = *["id", "u", "n", "x", "ok", "ts"].choose(rng).expect("fields");
            let start = text.find(&format!("\"{field}\":")).expect("the field") + field.len() + 3;
            let end = start + text[start..].find([',', '}']).expect("an end");
            bytes = [&text.as_bytes()[..start], values.choose(rng).expect("values"), &text.as_bytes()[end..]].concat();
        }
    }
    for byte in &mut bytes {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        bytes.push(b'x');
    }
    bytes
}

fn add(total: &mut IngestCounts, c: IngestCounts) {
    *total += c;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_records_or_rejected() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let mut total = IngestCounts::default();
    let mut sent = BTreeSet::new();
    for seed in 0..cases(40) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let records: Vec<Vec<u8>> =
            (0..rng.random_range(1..60)).map(|i| record(&mut rng, seed * 30 + i / 2, seed.min(100) + i % 16 / 8)).collect();
        let counted = AssertUnwindSafe(engine.push_json("pay", &records.join(&b'\n'), None)).catch_unwind().await;
        let counted = counted.unwrap_or_else(|_| panic!("seed {seed}: a panic")).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(counted.read, records.len() as u64, "seed {seed}: every line is a record");
        add(&mut total, counted);
        sent.extend(records);
    }
    assert!(total.rejected > 100 && total.accepted > 100 && total.duplicate > 0, "{total:?}");
    conserved(&engine, "pay", &total).await;
    // What was rejected lies there byte for byte, with a reason.
    let Some(Output::Rows { batches, .. }) = run(&engine, "SELECT * FROM \"pay$rejected\"").await.pop() else { panic!("no rows") };
    for batch in &batches {
        let (raw, reason) = (batch.column(0).as_binary_view(), batch.column(1).as_string_view());
        for row in 0..batch.num_rows() {
            assert!(sent.contains(raw.value(row)), "rejected bytes that nobody sent: {:?}", String::from_utf8_lossy(raw.value(row)));
            assert!(!reason.value(row).is_empty());
        }
    }
    // The same again changes nothing but the count of what is no event.
    let before = rows_of(&engine, "pay").await;
    let again = engine.push_json("pay", &sent.iter().cloned().collect::<Vec<_>>().join(&b'\n'), None).await.expect("the same again");
    add(&mut total, again);
    assert_eq!(again.accepted, 0, "{again:?}");
    assert_eq!(rows_of(&engine, "pay").await, before);
    conserved(&engine, "pay", &total).await;
    engine.close().await.expect("close");
}

/// The same through files: one COPY is all or nothing, and the reader of a damaged file never ends quietly.
#[tokio::test(flavor = "multi_thread")]
async fn any_file_is_loaded_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let mut total = IngestCounts::default();
    let mut failed = 0;
    for seed in 0..cases(90) {
        let mut rng = ChaCha8Rng::seed_from_u64(1_000_000 + seed);
        let (ending, mut bytes) = match seed % 3 {
            0 => ("json", (0..20).map(|i| record(&mut rng, 5000 + seed * 10 + i, i)).collect::<Vec<_>>().join(&b'\n')),
            1 => ("parquet", parquet(10_000 + seed * 10, 20)),
            _ => ("csv", csv(20_000 + seed * 10, 20)),
        };
        if seed % 3 > 0 {
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            if rng.random_bool(0.2) {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
        }
        let path = folder.path().join(format!("f{seed}.{ending}"));
        fs::write(&path, &bytes).expect("a file");
        let sql = format!("COPY pay FROM '{}'", path.display());
        match AssertUnwindSafe(engine.execute(&sql, &[])).catch_unwind().await {
            Err(_) => panic!("seed {seed}: a panic from {}", path.display()),
            Ok(Ok(outputs)) => add(&mut total, counts(&outputs)),
            Ok(Err(e)) => {
                failed += 1;
                assert!(e.kind() != Kind::Internal, "seed {seed}: {e}");
            }
        }
        assert_eq!(
            rows_of(&engine, "pay").await,
            total.accepted - total.conflicts,
            "seed {seed}: what failed left something, or what was read is not there"
        );
    }
    assert!(failed > 5 && total.accepted > 300, "{failed} failed, {total:?}");
    conserved(&engine, "pay", &total).await;
}

fn columns(first: u64, rows: u64) -> Vec<(&'static str, ArrayRef)> {
    let ids = || first..first + rows;
    let times = ids().map(|i| USUAL_NOW - 3_600_000_000 + i as i64);
    vec![
        ("id", Arc::new(StringArray::from_iter_values(ids().map(|i| format!("p{i}"))))),
        ("u", Arc::new(StringArray::from_iter_values(ids().map(|i| format!("u{}", i % 3))))),
        ("n", Arc::new(Int64Array::from_iter_values(ids().map(|i| i as i64)))),
        ("x", Arc::new(Float64Array::from_iter_values(ids().map(|i| i as f64)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
    ]
}

fn write_parquet(columns: Vec<(&'static str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    bytes
}

fn parquet(first: u64, rows: u64) -> Vec<u8> {
    write_parquet(columns(first, rows))
}

fn csv(first: u64, rows: u64) -> Vec<u8> {
    let lines = (first..first + rows).map(|i| format!("p{i},u{},{i},\"{i}.5\",true,2029-12-31T23:00:{:02}Z\n", i % 3, i % 60));
    format!("id,u,n,x,ok,ts\n{}", lines.collect::<String>()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_loaded_say_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("noise.parquet"), b"PAR1 this is no Parquet PAR1").expect("a file");
    fs::write(path("empty.parquet"), b"").expect("a file");
    fs::write(path("short.parquet"), &parquet(0, 10)[..50]).expect("a file");
    fs::write(path("events.what"), b"{}").expect("a file");
    fs::create_dir(path("folder.json")).expect("a folder");
    std::os::unix::fs::symlink(path("loop.json"), path("loop.json")).expect("a link");
    std::os::unix::fs::symlink(path("nowhere"), path("dangling.json")).expect("a link");
    for name in [
        "missing.json",
        "missing/of/all.json",
        "noise.parquet",
        "empty.parquet",
        "short.parquet",
        "events.what",
        "folder.json",
        "loop.json",
        "dangling.json",
    ] {
        let e = refused(&engine, &format!("COPY pay FROM '{}'", path(name))).await;
        assert!(e.kind() != Kind::Internal, "{name}: {e}");
        assert!(e.message().contains(name.split('/').next().expect("a name")), "{name}: the message does not name the file: {e}");
    }
    // A NOT NULL column that the file does not have: either the file is refused by the column's name, or every row is.
    let without = |gone: &str| write_parquet(columns(0, 10).into_iter().filter(|(name, _)| *name != gone).collect());
    for column in ["u", "ts"] {
        let file = path(&format!("without-{column}.parquet"));
        fs::write(&file, without(column)).expect("a file");
        match engine.execute(&format!("COPY pay FROM '{file}'"), &[]).await {
            Err(e) => assert!(e.message().contains(&format!("\"{column}\"")), "{e}"),
            Ok(outputs) => {
                assert_eq!((counts(&outputs).accepted, counts(&outputs).rejected), (0, 10), "{column}");
            }
        }
    }
    assert_eq!(rows_of(&engine, "pay").await, 0);
    // A column that may be NULL may be missing, and one of another type is rejected row by row or as a whole.
    fs::write(path("fewer.parquet"), without("x")).expect("a file");
    assert_eq!(counts(&run(&engine, &format!("COPY pay FROM '{}'", path("fewer.parquet"))).await).accepted, 10);
    let mut odd = columns(100, 10);
    odd[2].1 = Arc::new(StringArray::from_iter_values((0..10).map(|i| format!("word {i}"))));
    fs::write(path("odd.parquet"), write_parquet(odd)).expect("a file");
    match engine.execute(&format!("COPY pay FROM '{}'", path("odd.parquet")), &[]).await {
        Err(e) => assert!(e.message().contains("\"n\""), "{e}"),
        Ok(outputs) => assert_eq!(counts(&outputs).rejected, 10),
    }
    assert_eq!(rows_of(&engine, "pay").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_line_of_100_megabytes_is_one_rejected_row() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = with_stream(&folder.path().join("w")).await;
    let long =
        format!("{}{{\"id\":\"{}\",\"u\":\"u\",\"ts\":\"2029-12-31T23:00:00Z\"}}\n{}", line(1, 1), "x".repeat(100 << 20), line(2, 2));
    let counted = engine.push_json("pay", long.as_bytes(), None).await.expect("a push");
    assert_eq!((counted.read, counted.accepted, counted.rejected), (3, 2, 1));
    let Some(Output::Rows { batches, .. }) = run(&engine, "SELECT raw FROM \"pay$rejected\"").await.pop() else { panic!("no rows") };
    let kept = batches[0].column(0).as_binary_view().value(0).len();
    assert!((1..=1 << 20).contains(&kept), "{kept} bytes of the line are kept");
}

// ---- warehouses

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn files_under(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_under(&path, into) } else { into.push(path) }
    }
    into.sort();
}

/// A closed warehouse with something in every table.
async fn filled(warehouse: &Path) {
    let engine = with_stream(warehouse).await;
    for call in 0..4 {
        let lines: String = (0..20).map(|i| line(call * 20 + i, call * 20 + i)).collect();
        engine.push_json("pay", format!("{lines}what is this\n").as_bytes(), Some(&format!("call {call}"))).await.expect("a push");
    }
    let late = engine.push_json("pay", line(500, 0).as_bytes(), None).await.expect("a push");
    assert_eq!(late.late, 1);
    // A conflict, so that one row hides another.
    let conflict = line(79, 79).replace("\"n\":79", "\"n\":80");
    assert_eq!(engine.push_json("pay", conflict.as_bytes(), None).await.expect("a push").conflicts, 1);
    run(&engine, "SELECT * FROM spend FOR ENTITY 'u1'").await;
    engine.close().await.expect("close");
}

/// Whatever became of one file of a warehouse: it opens or says why not, every statement answers or says why not.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_warehouse_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("whole");
    filled(&whole).await;
    let mut files = Vec::new();
    files_under(&whole, &mut files);
    assert!(files.len() > 10, "{files:?}");
    let (mut unharmed, mut errors) = (0, 0);
    for seed in 0..cases(100) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let victim = files[seed as usize % files.len()].strip_prefix(&whole).expect("a file of the warehouse");
        let damaged = folder.path().join(format!("d{seed}"));
        copy_folder(&whole, &damaged);
        let file = damaged.join(victim);
        let mut bytes = fs::read(&file).expect("the file");
        let what = match (seed / files.len() as u64 + rng.random_range(0..2)) % 6 {
            0 => {
                bytes.clear();
                "emptied"
            }
            1 => {
                bytes.truncate(bytes.len() / 2);
                "cut in half"
            }
            2 => {
                rng.fill_bytes(&mut bytes);
                "overwritten with noise"
            }
            3 => {
                for _ in 0..4 {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }
                "changed in four bytes"
            }
            4 => {
                bytes = b"{\"add\":{\"path\":\"nowhere.parquet\",\"partitionValues\":{},\"size\":-1,\"modificationTime\":0,\"dataChange\":true}}\n[]\n".to_vec();
                "replaced by other JSON"
            }
            _ => {
                bytes.clear();
                "removed"
            }
        };
        if what == "removed" {
            fs::remove_file(&file).expect("removed")
        } else {
            fs::write(&file, &bytes).expect("written")
        }
        let said = format!("seed {seed}: {} {what}", victim.display());
        let attempt = async {
            let engine = try_open(&damaged).await?;
            let mut first = None;
            let statements = [
                "SELECT count(*), sum(n), max(id) FROM pay",
                "SELECT count(*) FROM \"pay$late\"",
                "SELECT count(*) FROM \"pay$rejected\"",
                "SELECT * FROM spend FOR ENTITY u IN ('u0', 'u1')",
                "SELECT * FROM spend FOR ENTITY 'u1' AS OF TIMESTAMP '2029-12-31 22:30:00'",
                "INSERT INTO pay VALUES ('p900', 'u1', 1, 2.5, true, TIMESTAMP '2029-12-31 23:30:00')",
                "SHOW FEATURES",
                "CREATE STREAM other (a INT, ts TIMESTAMP, WATERMARK FOR ts AS ts)",
            ];
            for sql in statements {
                if let Err(e) = engine.execute(sql, &[]).await {
                    first.get_or_insert(e);
                }
            }
            if let Err(e) = engine.close().await {
                first.get_or_insert(e);
            }
            first.map_or(Ok(()), Err)
        };
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Err(_) => panic!("{said}: a panic"),
            Ok(Ok(())) => unharmed += 1,
            Ok(Err(e)) => {
                errors += 1;
                assert!(e.kind() != Kind::Internal, "{said}: {e}");
                assert!(!e.message().contains("panicked"), "{said}: {e}");
            }
        }
        fs::remove_dir_all(&damaged).expect("removed");
    }
    assert!(errors > 30, "{errors} errors, {unharmed} times no harm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_warehouse_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    filled(&warehouse).await;
    for (text, says) in [
        ("{\"layout\":99,\"semantics\":1}", "layout 99"),
        ("{\"layout\":1,\"semantics\":4294967295}", "semantics 4294967295"),
        ("{\"layout\":99999999999,\"semantics\":1}", "format"),
        ("{}", "format"),
        ("", "format"),
        ("\u{0}", "format"),
    ] {
        fs::write(warehouse.join("format"), text).expect("written");
        let e = try_open(&warehouse).await.expect_err(text);
        assert_eq!(e.kind(), Kind::Data, "{text}: {e}");
        assert!(e.message().contains(says), "{text}: {e}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "here is a file").expect("written");
    for place in [file.clone(), file.join("below"), PathBuf::from("/proc/none"), PathBuf::from("/dev/full"), PathBuf::from("/dev/full/w")] {
        let e = try_open(&place).await.expect_err("no folder can be there");
        assert!(matches!(e.kind(), Kind::Unavailable | Kind::Invalid), "{}: {e}", place.display());
        assert!(e.message().contains(&place.display().to_string()), "{}: {e}", place.display());
    }
    for location in ["", "gopher://x/y", "file://elsewhere/w", "\u{0}"] {
        let e = Engine::builder().warehouse(location).build().await.expect_err("no warehouse can be there");
        assert!(e.kind() != Kind::Internal, "{location:?}: {e}");
    }
    // A file stands where a folder has to be made.
    for part in ["catalog", "streams", "leases", "rejected", "late"] {
        let warehouse = folder.path().join(part);
        let engine = open(&warehouse).await;
        fs::write(warehouse.join(part), "in the way").expect("written");
        let made = async {
            engine.execute(STREAM, &[]).await?;
            engine.push_json("pay", format!("{}no event\n", line(1, 60)).as_bytes(), None).await?;
            engine.push_json("pay", line(2, 0).as_bytes(), None).await
        };
        let e = made.await.expect_err(part);
        assert!(e.kind() != Kind::Internal, "{part}: {e}");
    }
}

// ---- processes

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asof"));
    command.env_remove("ASOF_WAREHOUSE").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn spawn_sql(warehouse: &Path, sql: &str, shell: &str) -> Child {
    let script = warehouse.with_extension("sql");
    fs::File::create(&script).and_then(|mut f| f.write_all(sql.as_bytes())).expect("a script");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_asof")]);
    command.args(["--warehouse", warehouse.to_str().expect("UTF-8"), "sql", "-f", script.to_str().expect("UTF-8")]);
    command
        .env_remove("ASOF_WAREHOUSE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

fn insert(id: u64) -> String {
    format!(
        "INSERT INTO pay VALUES ('p{id}', 'u{}', {id}, {id}.5, true, TIMESTAMP '2026-01-01 10:00:00' + INTERVAL '{id} seconds');\n",
        id % 3
    )
}

async fn reopen(warehouse: &Path) -> Engine {
    Engine::builder()
        .warehouse(warehouse.to_str().expect("UTF-8"))
        .durability(Durability::Process)
        .build()
        .await
        .unwrap_or_else(|e| panic!("reopen: {e}"))
}

/// A process is killed while it writes: what it acknowledged is there, once, and its lease does not outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for round in 0..cases(4) {
        let warehouse = folder.path().join(format!("w{round}"));
        let engine = reopen(&warehouse).await;
        run(&engine, STREAM).await;
        run(&engine, VIEW).await;
        engine.close().await.expect("close");

        let mut child = spawn_sql(&warehouse, &(0..2000).map(insert).collect::<String>(), "");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut rng = ChaCha8Rng::seed_from_u64(round);
        let mut acknowledged = 0;
        for _ in 0..rng.random_range(3..30) {
            let line = lines.next().expect("the script is longer").expect("UTF-8");
            assert!(line.starts_with("INSERT: read 1, accepted 1"), "{line}");
            acknowledged += 1;
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..30_000))).await;
        child.kill().expect("killed");
        child.wait().expect("ended");
        acknowledged += lines.map_while(Result::ok).filter(|l| l.starts_with("INSERT:")).count() as u64;

        let engine = reopen(&warehouse).await;
        let ids = numbers(&engine, "SELECT n FROM pay ORDER BY n").await;
        assert!(ids.len() as u64 >= acknowledged, "{acknowledged} were acknowledged, {} are there", ids.len());
        assert_eq!(ids, (0..ids.len() as i64).collect::<Vec<_>>(), "each once, none skipped");
        // Sent again from the start: what is there counts as a copy, the rest goes on.
        let again: String = (0..ids.len() as u64 + 5).map(line_2026).collect();
        let counted = engine.push_json("pay", again.as_bytes(), None).await.unwrap_or_else(|e| panic!("the lease of a dead process: {e}"));
        assert_eq!((counted.duplicate, counted.accepted), (ids.len() as u64, 5), "{counted:?}");
        let report = engine.verify(VerifyOptions::default()).await.expect("verify");
        assert!(report.differences.is_empty(), "after the crash both paths agree");
        engine.close().await.expect("close");
    }
}

/// The event that [`insert`] writes.
fn line_2026(id: u64) -> String {
    let (hour, minute, second) = (10 + id / 3600, id / 60 % 60, id % 60);
    format!(
        "{{\"id\":\"p{id}\",\"u\":\"u{}\",\"n\":{id},\"x\":{id}.5,\"ok\":true,\"ts\":\"2026-01-01T{hour}:{minute:02}:{second:02}Z\"}}\n",
        id % 3
    )
}

/// No file may grow beyond a few blocks, as on a full disk: what does not fit fails, what was acknowledged stays, and all goes on once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let engine = reopen(&warehouse).await;
    run(&engine, STREAM).await;
    engine.close().await.expect("close");
    let wide = "INSERT INTO pay SELECT concat('w', value), repeat(md5(CAST(value AS VARCHAR)), 40), value, 1.5, true, TIMESTAMP '2026-01-01 12:00:00' FROM generate_series(1, 20000);\n";
    let script = format!("{}{}{wide}", insert(1), insert(2));
    // 512 bytes a block; the signal that would end the process is ignored, so that the write fails instead.
    let out = spawn_sql(&warehouse, &script, "trap '' XFSZ; ulimit -f 200;").wait_with_output().expect("ended");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(4), "{stdout}{stderr}");
    assert_eq!(stdout.lines().filter(|l| l.starts_with("INSERT: read 1, accepted 1")).count(), 2, "{stdout}{stderr}");
    assert!(!stderr.contains("panicked") && stderr.to_lowercase().contains("file too large"), "{stderr}");
    let engine = reopen(&warehouse).await;
    assert_eq!(numbers(&engine, "SELECT n FROM pay ORDER BY n").await, [1, 2]);
    assert_eq!(counts(&run(&engine, wide).await).accepted, 20_000);
    assert_eq!(rows_of(&engine, "pay").await, 20_002);
}

/// The peak of the process's memory, bytes.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[test]
fn a_line_of_100_megabytes_in_a_file_takes_bounded_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("long.json");
    let mut out = std::io::BufWriter::new(fs::File::create(&file).expect("a file"));
    out.write_all(line_2026(1).as_bytes()).expect("written");
    out.write_all(b"{\"id\":\"").expect("written");
    for _ in 0..1600 {
        out.write_all(&[b'x'; 1 << 16]).expect("written");
    }
    out.write_all(format!("\"}}\n{}", line_2026(2)).as_bytes()).expect("written");
    out.into_inner().expect("written").sync_all().expect("written");

    let load = |name: &str, file: &str| {
        let warehouse = folder.path().join(name);
        let mut child = spawn_sql(&warehouse, &format!("{STREAM}; COPY pay FROM '{file}';"), "");
        let mut most = 0;
        while child.try_wait().expect("a state").is_none() {
            most = most.max(peak(&child).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        let out = child.wait_with_output().expect("ended");
        (most, format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    };
    let small = folder.path().join("small.json");
    fs::write(&small, format!("{}no event\n{}", line_2026(1), line_2026(2))).expect("written");
    let (usual, said) = load("w1", small.to_str().expect("UTF-8"));
    assert!(said.contains("COPY: read 3, accepted 2, duplicate 0, late 0, rejected 1"), "{said}");
    let (most, said) = load("w2", file.to_str().expect("UTF-8"));
    assert!(said.contains("COPY: read 3, accepted 2, duplicate 0, late 0, rejected 1"), "{said}");
    assert!(usual > 1 << 20, "memory was measured: {usual}");
    assert!(most < usual + (64 << 20), "{most} bytes at the most, {usual} for a short line");
}

#[test]
fn the_binary_says_what_is_wrong_and_how() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let run = |args: &[&str]| {
        let out = binary().arg("--warehouse").arg(&warehouse).args(args).output().expect("the binary runs");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(run(&["sql", "-c", "SELECT 1 AS one"]).0, Some(0));
    let (code, _, stderr) = run(&["sql", "-c", "SELECT * FROM nowhere"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("nowhere"), "{stderr}");
    assert_eq!(run(&["sql"]).0, Some(2));
    let (code, _, stderr) = run(&["sql", "-f", "/nowhere/at/all.sql"]);
    assert!(code == Some(3) && stderr.contains("/nowhere/at/all.sql"), "{code:?} {stderr}");
    assert_eq!(run(&["frobnicate"]).0, Some(2));
    assert_eq!(run(&["verify", "nowhere"]).0, Some(3));
    let not_text = folder.path().join("bytes.sql");
    fs::write(&not_text, [0x53, 0x45, 0xff, 0xfe, 0x00]).expect("written");
    let (code, _, stderr) = run(&["sql", "-f", not_text.to_str().expect("UTF-8")]);
    assert!(code == Some(3) && !stderr.contains("panicked"), "{stderr}");
}

// ---- writers and tokens

/// A clock that the test moves.
#[derive(Debug)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_writer_is_told_who_writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("w").to_str().expect("UTF-8").to_owned();
    let clock = Arc::new(HandClock(AtomicI64::new(USUAL_NOW)));
    let build = || Engine::builder().warehouse(&location).durability(Durability::Process).clock(clock.clone()).build();
    let first = build().await.expect("open");
    run(&first, STREAM).await;
    run(&first, VIEW).await;
    first.push_json("pay", line(1, 1).as_bytes(), None).await.expect("the first writer");

    let second = build().await.expect("a second may open");
    let e = second.push_json("pay", line(2, 2).as_bytes(), None).await.expect_err("one writes at a time");
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    assert!(e.message().contains(&format!("process {}", std::process::id())), "{e}");
    assert_eq!(rows_of(&second, "pay").await, 1, "another may read");

    // The first falls silent; the second takes over, and the first finds out before it writes.
    clock.0.fetch_add(60_000_000, Ordering::SeqCst);
    let counted = second.push_json("pay", format!("{}{}", line(1, 1), line(2, 2)).as_bytes(), None).await.expect("an expired lease");
    assert_eq!((counted.duplicate, counted.accepted), (1, 1), "the new writer knows what the old one wrote");
    let e = first.push_json("pay", line(3, 3).as_bytes(), None).await.expect_err("the lease is gone");
    assert_eq!(e.kind(), Kind::Closed, "{e}");
    second.close().await.expect("close");
    drop(first);

    // Given back, it is free at once; dropped without that, until it expires.
    let third = build().await.expect("open");
    third.push_json("pay", line(3, 3).as_bytes(), None).await.expect("a lease given back");
    drop(third);
    let fourth = build().await.expect("open");
    assert_eq!(fourth.push_json("pay", line(4, 4).as_bytes(), None).await.expect_err("not yet expired").kind(), Kind::Unavailable);
    clock.0.fetch_add(60_000_000, Ordering::SeqCst);
    let counted = fourth.push_json("pay", (1..=4).map(|i| line(i, i)).collect::<String>().as_bytes(), None).await.expect("expired");
    assert_eq!((counted.late, counted.duplicate, counted.accepted), (1, 2, 1));
    fourth.close().await.expect("close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_applied_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let mut engine = open(&warehouse).await;
    // Without a primary key nothing else would hold a copy back.
    run(&engine, "CREATE STREAM bag (a BIGINT, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 minute')").await;
    let file = folder.path().join("bag.json");
    fs::write(&file, "{\"a\":1,\"ts\":\"2029-12-31T23:00:00Z\"}\n{\"a\":1,\"ts\":\"2029-12-31T23:00:00Z\"}\n").expect("written");
    let copy = format!("COPY bag FROM '{}' (FORMAT json, token 'once')", file.display());
    let push = "{\"a\":2,\"ts\":\"2029-12-31T23:00:00Z\"}\n".as_bytes();
    assert_eq!(counts(&run(&engine, &copy).await).accepted, 2);
    assert_eq!(engine.push_json("bag", push, Some("push")).await.expect("a push").accepted, 1);
    for restart in [false, true, true] {
        if restart {
            engine.close().await.expect("close");
            engine = open(&warehouse).await;
        }
        assert_eq!(counts(&run(&engine, &copy).await), IngestCounts::default());
        assert_eq!(engine.push_json("bag", push, Some("push")).await.expect("a push"), IngestCounts::default());
        assert_eq!(rows_of(&engine, "bag").await, 3);
    }
    // A COPY that failed has not used its token up.
    let broken = folder.path().join("broken.parquet");
    fs::write(&broken, &parquet(0, 100)[..400]).expect("written");
    refused(&engine, &format!("COPY bag FROM '{}' (token 'again')", broken.display())).await;
    assert_eq!(counts(&run(&engine, &copy.replace("once", "again")).await).accepted, 2);
    assert_eq!(rows_of(&engine, "bag").await, 5);
    engine.close().await.expect("close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_remembers_identities_and_lateness() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let mut engine = with_stream(&warehouse).await;
    let mut total = IngestCounts::default();
    for round in 0..4u64 {
        let lines: String = (0..3).map(|i| line(round * 3 + i, 20 * round + i)).collect();
        let counted = engine.push_json("pay", lines.as_bytes(), None).await.expect("a push");
        assert_eq!((counted.accepted, counted.late, counted.duplicate), (3, 0, 0), "round {round}");
        add(&mut total, counted);
        // From the second round on the newest of the round before is late.
        if round > 0 {
            let counted = engine.push_json("pay", line(round * 3 - 1, 20 * round - 18).as_bytes(), None).await.expect("a push");
            assert_eq!((counted.accepted, counted.late, counted.duplicate), (0, 1, 0), "round {round}");
            add(&mut total, counted);
        }
        // The newest event again, before and behind a restart.
        let again = line(round * 3 + 2, 20 * round + 2);
        for _ in 0..2 {
            let counted = engine.push_json("pay", again.as_bytes(), None).await.expect("a push");
            assert_eq!((counted.duplicate, counted.accepted, counted.late), (1, 0, 0), "round {round}");
            add(&mut total, counted);
            engine.close().await.expect("close");
            engine = open(&warehouse).await;
        }
        conserved(&engine, "pay", &total).await;
    }
    // Late events that are copies of what is there add nothing when they are brought in.
    let counted = counts(&run(&engine, "REPROCESS LATE EVENTS FOR pay").await);
    assert_eq!((counted.read, counted.duplicate), (3, 3), "{counted:?}");
    assert_eq!(counts(&run(&engine, "REPROCESS LATE EVENTS FOR pay").await).read, 0, "none comes twice");
    let report = engine.verify(VerifyOptions::default()).await.expect("verify");
    assert!(report.differences.is_empty());
    engine.close().await.expect("close");
}

/// While events are replaced by others of their identity, a reader finds the one or the other: never none, never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_never_sees_half_of_an_update() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = open(&folder.path().join("w")).await;
    run(&engine, STREAM).await;
    run(&engine, "CREATE FEATURE VIEW all_of ENTITY (u) AS SELECT count(*) OVER w AS n, sum(n) OVER w AS s FROM pay WINDOW w AS (RANGE UNBOUNDED PRECEDING)").await;
    // Two thousand events of one entity, all replaced in one call again and again.
    let call = |round: u64| {
        (0..2000).map(|i| format!("{{\"id\":\"p{i}\",\"u\":\"u\",\"n\":{round},\"ts\":\"2029-12-31T23:00:00Z\"}}\n")).collect::<String>()
    };
    engine.push_json("pay", call(1).as_bytes(), None).await.expect("a push");
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (engine, done) = (engine.clone(), done.clone());
        tokio::spawn(async move {
            for round in 2..20 {
                let counted = engine.push_json("pay", call(round).as_bytes(), None).await.expect("a push");
                assert_eq!(counted.conflicts, 2000);
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let mut seen = BTreeSet::new();
    while !done.load(Ordering::SeqCst) {
        let both = numbers(&engine, "SELECT n * 1000000 + s FROM all_of FOR ENTITY 'u'").await[0];
        let (n, s) = (both / 1_000_000, both % 1_000_000);
        assert!(n == 2000 && s % 2000 == 0, "{n} events with a sum of {s}");
        seen.insert(s);
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer");
    assert!(seen.len() > 1, "the reader came between updates");
    assert_eq!(numbers(&engine, "SELECT s FROM all_of FOR ENTITY 'u'").await, [19 * 2000]);
}
