//! Checkpoints of online states: a view that begins from one answers as history does, whatever came since and whatever became of the files.
//!
//! Every test ends in the same comparison: the online answers of all views, at instants on both sides of now, against history's. Random worlds
//! (`random`) and scripts (`slt`) restart through checkpoints too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use asof::warehouse::Warehouse;
use asof::warehouse::checkpoints::Manifest;
use asof::{Clock, Durability, Engine, Kind, Output, ReadPath, Settings, WallTime};

use crate::slt::{USUAL_NOW, render_rows};

const WORLD: &str = "
    CREATE STREAM pay (id VARCHAR, u VARCHAR NOT NULL, cur VARCHAR, n BIGINT, x DOUBLE, d DECIMAL(10, 2), ts TIMESTAMP NOT NULL,
      PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '1 hour');
    CREATE STREAM rates (cur VARCHAR, rate DOUBLE, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 hour');
    CREATE FEATURE VIEW spend ENTITY (u) AS
      SELECT count(*) OVER h AS n, sum(x) OVER h AS s, max(id) OVER h AS m, count(DISTINCT cur) OVER h AS curs, last_value(cur) OVER h AS cur
      FROM pay WINDOW h AS (RANGE INTERVAL '20 minutes' PRECEDING);
    CREATE FEATURE VIEW ever ENTITY (u) WITH (ttl = '2 hours') AS
      SELECT count(*) OVER e AS n, sum(x) OVER e AS s, stddev_pop(x) OVER e AS dev, sum(d) OVER e AS d, min(id) OVER e AS lo,
             last_value(cur) OVER e AS cur, first_n(n, 2) OVER e AS f2, sum(n) OVER r AS l3
      FROM pay WINDOW e AS (RANGE UNBOUNDED PRECEDING), r AS (ROWS 2 PRECEDING);
    CREATE FEATURE VIEW sitting ENTITY (u) AS
      SELECT count(*) AS n, sum(x) AS s, window_start() AS began FROM pay GROUP BY u, SESSION(ts, INTERVAL '5 minutes');
    CREATE FEATURE VIEW euros ENTITY (u) AS
      SELECT sum(p.x * r.rate) OVER h AS s, count(*) OVER h AS n
      FROM pay p ASOF JOIN rates r MATCH_CONDITION (p.ts >= r.ts) ON p.cur = r.cur WINDOW h AS (RANGE INTERVAL '20 minutes' PRECEDING);
    CREATE FEATURE VIEW both_of ENTITY (cur) AS
      SELECT count(*) OVER h AS n, sum(v) OVER h AS s
      FROM (SELECT cur, x AS v, ts FROM pay UNION ALL SELECT cur, rate AS v, ts FROM rates) WINDOW h AS (RANGE INTERVAL '1 hour' PRECEDING);";

const VIEWS: [(&str, &str); 5] = [("spend", "u"), ("ever", "u"), ("sitting", "u"), ("euros", "u"), ("both_of", "cur")];

#[derive(Debug)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::SeqCst))
    }
}

/// Whether an engine takes checkpoints.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Them,
    None,
}

async fn open_at(warehouse: &Path, read_path: ReadPath, takes: Takes, clock: Arc<dyn Clock>) -> Engine {
    let interval = if takes == Takes::Them { 60_000_000 } else { 0 };
    let settings = Settings { read_path, checkpoint_interval_us: interval, ..Settings::default() };
    let builder = Engine::builder().warehouse(warehouse.to_str().expect("a temporary path is UTF-8")).settings(settings).clock(clock);
    builder.durability(Durability::Process).build().await.unwrap_or_else(|e| panic!("open: {e}"))
}

async fn open(warehouse: &Path, takes: Takes) -> Engine {
    open_at(warehouse, ReadPath::Online, takes, Arc::new(HandClock(AtomicI64::new(USUAL_NOW)))).await
}

async fn run(engine: &Engine, sql: &str) -> Vec<Output> {
    engine.execute(sql, &[]).await.unwrap_or_else(|e| panic!("{e}\nin: {sql}"))
}

/// Payments `ids`, one a minute from 2026-01-01 10:00, and a rate every seventh; every tenth payment is ten minutes late.
async fn push(engine: &Engine, ids: std::ops::Range<u64>) {
    let minute = |m: u64| format!("2026-01-01T{:02}:{:02}:00Z", 10 + m / 60, m % 60);
    let pays: String = ids
        .clone()
        .map(|i| {
            let at = minute(if i % 10 == 9 { i - 9 } else { i });
            format!(
                "{{\"id\":\"p{i:05}\",\"u\":\"u{}\",\"cur\":\"c{}\",\"n\":{i},\"x\":{}.{},\"d\":\"{i}.25\",\"ts\":\"{at}\"}}\n",
                i % 3,
                i % 4,
                i * 37 % 101,
                i % 10
            )
        })
        .collect();
    let rates: String = ids.step_by(7).map(|i| format!("{{\"cur\":\"c{}\",\"rate\":1.{i},\"ts\":\"{}\"}}\n", i % 4, minute(i))).collect();
    for (stream, lines) in [("pay", pays), ("rates", rates)] {
        let counts = engine.push_json(stream, lines.as_bytes(), None).await.expect("a push");
        assert_eq!((counts.late, counts.rejected), (0, 0), "{counts:?}");
    }
}

/// Every view's answers for its entities, at some instants from the horizon on.
async fn answers(engine: &Engine, upto: u64) -> Vec<String> {
    let mut all = Vec::new();
    for (view, entity) in VIEWS {
        for minute in [upto, upto + 15, upto + 90] {
            let at = format!("2026-01-01 {:02}:{:02}:00", 10 + minute / 60, minute % 60);
            let keys = if entity == "u" { "'u0', 'u1', 'u2', 'nobody'" } else { "'c0', 'c1', 'c2', 'c3'" };
            for word in ["AS OF", "BEFORE"] {
                let sql = format!("SELECT * FROM {view} FOR ENTITY {entity} IN ({keys}) {word} TIMESTAMP '{at}'");
                let Some(Output::Rows { batches, .. }) = run(engine, &sql).await.pop() else { panic!("no rows") };
                all.extend(render_rows(&batches).into_iter().map(|row| format!("{view} {word} {at}: {row}")));
            }
        }
    }
    all
}

/// The online answers are history's.
async fn right(engine: &Engine, warehouse: &Path, upto: u64) {
    let online = answers(engine, upto).await;
    let clock = Arc::new(HandClock(AtomicI64::new(USUAL_NOW)));
    let history = answers(&open_at(warehouse, ReadPath::History, Takes::None, clock).await, upto).await;
    for (online, history) in online.iter().zip(&history) {
        assert_eq!(online, history);
    }
    assert!(online.iter().any(|row| !row.ends_with("NULL")), "something is answered");
}

/// The epochs that views began from.
fn begun(engine: &Engine) -> Vec<Option<u64>> {
    VIEWS.iter().map(|(view, _)| engine.begun(view).expect("the view has a state").checkpoint).collect()
}

fn files_under(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_under(&path, into) } else { into.push(path) }
    }
    into.sort();
}

fn files(warehouse: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_under(&warehouse.join("checkpoints"), &mut files);
    files
}

/// A closed warehouse whose views have `epochs` checkpoints, and how many payments it has.
async fn filled(warehouse: &Path, epochs: u64) -> u64 {
    for epoch in 0..epochs {
        let engine = open(warehouse, Takes::Them).await;
        if epoch == 0 {
            run(&engine, WORLD).await;
        } else {
            engine.warm().await.expect("states");
        }
        push(&engine, epoch * 100..(epoch + 1) * 100).await;
        engine.close().await.expect("close");
    }
    epochs * 100 - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_begins_from_its_checkpoint_and_follows_history() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let last = filled(&warehouse, 1).await;
    let engine = open(&warehouse, Takes::None).await;
    right(&engine, &warehouse, last).await;
    assert_eq!(begun(&engine), [Some(1); 5]);
    assert!(engine.checkpointed("spend").is_some_and(|c| c.taken_at_us == USUAL_NOW && c.bytes > 0));
    // The state that was read is kept up like any other; what came is then found in history.
    push(&engine, 100..150).await;
    right(&engine, &warehouse, 149).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::None).await;
    right(&engine, &warehouse, 149).await;
    assert_eq!(begun(&engine), [Some(1); 5], "followed from the first");

    // Conflicts: of a row that the checkpoint holds, of one that came since, and twice over; one names another entity.
    for (id, minute, u, n) in [(95, 95, "u9", 1), (140, 140, "u0", 1), (140, 140, "u1", 9999), (141, 141, "u0", 0)] {
        let line = format!(
            "{{\"id\":\"p{id:05}\",\"u\":\"{u}\",\"cur\":\"c9\",\"n\":{n},\"x\":7.5,\"d\":\"1.00\",\"ts\":\"2026-01-01T{:02}:{:02}:00Z\"}}\n",
            10 + minute / 60,
            minute % 60
        );
        let counts = engine.push_json("pay", line.as_bytes(), None).await.expect("a push");
        assert_eq!(counts.conflicts, 1, "{counts:?}");
    }
    right(&engine, &warehouse, 149).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::Them).await;
    right(&engine, &warehouse, 149).await;
    assert_eq!(engine.begun("spend").and_then(|b| b.checkpoint), Some(1), "conflicts are followed");
    // An old load: some views fold it, others do not see it, none answers wrong.
    let old = folder.path().join("old.json");
    let lines: Vec<String> = (0..50)
        .map(|i| {
            format!(
                "{{\"id\":\"old{i}\",\"u\":\"u{}\",\"cur\":\"c1\",\"n\":{i},\"x\":0.1,\"ts\":\"2025-12-31T0{}:00:00Z\"}}",
                i % 3,
                i % 10
            )
        })
        .collect();
    fs::write(&old, lines.join("\n")).expect("written");
    run(&engine, &format!("COPY pay FROM '{}' (FORMAT json)", old.display())).await;
    right(&engine, &warehouse, 149).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::Them).await;
    right(&engine, &warehouse, 149).await;
    assert!(begun(&engine).iter().all(|b| *b > Some(1)), "{:?}", begun(&engine));
    // Nothing has changed: nothing is written.
    let before = files(&warehouse);
    engine.close().await.expect("close");
    assert_eq!(files(&warehouse), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_checkpoints_are_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let last = filled(&warehouse, 4).await;
    let names = |ending: &str| {
        let mut names: Vec<String> =
            files(&warehouse).iter().filter_map(|p| p.file_name()?.to_str().map(str::to_owned)).filter(|n| n.ends_with(ending)).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(".json"), ["00000000000000000003.json", "00000000000000000004.json"]);
    let spend = files(&warehouse).into_iter().filter(|p| p.starts_with(warehouse.join("checkpoints/spend.2"))).count();
    assert_eq!(spend, 4, "two manifests, two chunks: {:?}", files(&warehouse));
    let engine = open(&warehouse, Takes::None).await;
    right(&engine, &warehouse, last).await;
    assert_eq!(begun(&engine), [Some(4); 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("whole");
    let last = filled(&whole, 2).await;
    let newest: Vec<PathBuf> = files(&whole)
        .into_iter()
        .filter(|p| p.display().to_string().contains("00000000000000000002"))
        .map(|p| p.strip_prefix(&whole).expect("below").to_path_buf())
        .collect();
    assert!(newest.len() >= 10, "{newest:?}");
    let all: Vec<PathBuf> = files(&whole).into_iter().map(|p| p.strip_prefix(&whole).expect("below").to_path_buf()).collect();
    let harms: [(&str, &[PathBuf], Option<u64>); 6] = [
        ("cut", newest.as_slice(), Some(1)),
        ("flipped", newest.as_slice(), Some(1)),
        ("removed", newest.as_slice(), Some(1)),
        ("newer", newest.as_slice(), Some(1)),
        ("flipped", all.as_slice(), None),
        ("removed", all.as_slice(), None),
    ];
    for (round, (harm, victims, expected)) in harms.into_iter().enumerate() {
        for only in ["chunk-", ".json"] {
            let damaged = folder.path().join(format!("{harm}{round}{only}"));
            copy_folder(&whole, &damaged);
            let mut harmed = 0;
            for victim in victims.iter().filter(|v| v.display().to_string().contains(only)) {
                let path = damaged.join(victim);
                let mut bytes = fs::read(&path).expect("the file");
                let middle = bytes.len() / 2;
                match harm {
                    "cut" => bytes.truncate(middle),
                    "flipped" => bytes[middle] ^= 4,
                    "newer" if only == ".json" => {
                        let text = String::from_utf8(bytes).expect("JSON").replace("\"format\":1", "\"format\":2");
                        bytes = text.into_bytes();
                    }
                    "newer" => continue,
                    _ => {}
                }
                harmed += 1;
                if harm == "removed" { fs::remove_file(&path).expect("removed") } else { fs::write(&path, bytes).expect("written") }
            }
            let engine = open(&damaged, Takes::Them).await;
            right(&engine, &damaged, last).await;
            let expected = if harmed == 0 { Some(2) } else { expected };
            assert_eq!(begun(&engine), [expected; 5], "{harm} {only}");
            // The next one is as good as ever.
            push(&engine, last + 1..last + 20).await;
            engine.close().await.expect("close");
            let engine = open(&damaged, Takes::None).await;
            right(&engine, &damaged, last + 19).await;
            assert!(begun(&engine).iter().all(|b| *b > expected), "{harm} {only}: {:?}", begun(&engine));
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let into = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &into);
        } else {
            fs::copy(&path, &into).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_of_one_definition_and_one_view() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let last = filled(&warehouse, 1).await;
    let definition = "SELECT count(*) OVER h AS n, sum(x) OVER h AS s, max(id) OVER h AS m, count(DISTINCT cur) OVER h AS curs,
        last_value(cur) OVER h AS cur FROM pay WINDOW h AS (RANGE INTERVAL '20 minutes' PRECEDING)";
    let began = |engine: &Engine| engine.begun("spend").expect("a state").checkpoint;

    // What changes no value changes no state.
    let engine = open(&warehouse, Takes::None).await;
    run(&engine, &format!("CREATE OR REPLACE FEATURE VIEW spend ENTITY (u) WITH (owner = 'me') AS {definition}")).await;
    assert_eq!(began(&engine), Some(1));
    // A new column of a stream does not concern views that were there.
    run(&engine, "ALTER STREAM pay ADD COLUMN note VARCHAR").await;
    push(&engine, last + 1..last + 10).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::Them).await;
    right(&engine, &warehouse, last + 9).await;
    assert_eq!(begun(&engine), [Some(1); 5]);
    // A further feature keeps more.
    let further = definition.replace("last_value(cur)", "avg(d) OVER h AS d, last_value(cur)");
    run(&engine, &format!("CREATE OR REPLACE FEATURE VIEW spend ENTITY (u) AS {further}")).await;
    assert_eq!(began(&engine), None);
    push(&engine, last + 10..last + 20).await;
    right(&engine, &warehouse, last + 19).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::Them).await;
    right(&engine, &warehouse, last + 19).await;
    assert_eq!(began(&engine), Some(2));
    // The one before is of the old definition: it is no way out.
    engine.close().await.expect("close");
    for path in files(&warehouse) {
        if path.display().to_string().contains("spend") && path.display().to_string().contains("00000000000000000002") {
            fs::remove_file(path).expect("removed");
        }
    }
    let engine = open(&warehouse, Takes::Them).await;
    right(&engine, &warehouse, last + 19).await;
    assert_eq!(began(&engine), None);

    // A view of the same name, and even of the same definition, is another view.
    run(&engine, "DROP FEATURE VIEW spend").await;
    assert!(!files(&warehouse).iter().any(|p| p.display().to_string().contains("spend")), "{:?}", files(&warehouse));
    run(&engine, &format!("CREATE FEATURE VIEW spend ENTITY (u) AS {further}")).await;
    assert_eq!(began(&engine), None);
    push(&engine, last + 20..last + 30).await;
    engine.close().await.expect("close");
    let engine = open(&warehouse, Takes::None).await;
    right(&engine, &warehouse, last + 29).await;
    assert_eq!(began(&engine), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_writer_is_fenced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = Warehouse::open(folder.path().to_str().expect("UTF-8")).await.expect("a warehouse");
    let checkpoints = warehouse.checkpoints("v.3");
    let manifest = |taken_at_us| Manifest {
        format: 1,
        semantics: 1,
        state: 1,
        view: "v".into(),
        definition: "d".into(),
        streams: vec![],
        horizon_us: 0,
        greatest_us: None,
        taken_at_us,
        chunks: vec![],
    };
    let chunks = |n: u8| vec![vec![n; 10].into(), vec![n; 20].into()];

    // Of two that chose one epoch, the first to put a chunk has it.
    let (mut stale, mut newer) = (checkpoints.begin().await.expect("begun"), checkpoints.begin().await.expect("begun"));
    assert_eq!((stale.epoch(), newer.epoch()), (1, 1));
    newer.put(chunks(2)).await.expect("put");
    let e = stale.put(chunks(1)).await.expect_err("it is taken");
    assert_eq!(e.kind(), Kind::Closed, "{e}");
    newer.finish(manifest(2)).await.expect("finished");
    let e = stale.finish(manifest(1)).await.expect_err("its manifest is there");
    assert_eq!(e.kind(), Kind::Closed, "{e}");

    // One that slept since before takes nothing from those that went on, and is not the newest.
    let mut slept = checkpoints.begin().await.expect("begun");
    slept.put(chunks(9)).await.expect("put");
    for n in [3, 4, 5] {
        let mut writer = checkpoints.begin().await.expect("begun");
        writer.put(chunks(n)).await.expect("put");
        writer.finish(manifest(n.into())).await.expect("finished");
    }
    slept.finish(manifest(9)).await.expect("its epoch was its own");
    let epochs = checkpoints.epochs().await.expect("a list");
    assert_eq!(epochs, [5, 4, 2], "two of the newer ones, and what the sleeper left");
    for (epoch, n) in [(5, 5u8), (4, 4)] {
        let manifest = checkpoints.manifest(epoch).await.expect("a manifest");
        assert_eq!((manifest.taken_at_us, manifest.chunks.len()), (n.into(), 2));
        assert_eq!(checkpoints.chunk(epoch, 1, &manifest.chunks[1]).await.expect("a chunk"), vec![n; 20]);
    }
    let manifest_2 = checkpoints.manifest(2).await.expect("a manifest");
    assert!(checkpoints.chunk(2, 0, &manifest_2.chunks[0]).await.is_err(), "its chunks were an orphan's");
    let mut next = checkpoints.begin().await.expect("begun");
    next.put(chunks(6)).await.expect("put");
    next.finish(manifest(6)).await.expect("finished");
    assert_eq!(checkpoints.epochs().await.expect("a list"), [6, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_on_the_way_leaves_the_one_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // (where it ends, the epochs that views begin from then)
    for (point, expected) in
        [("checkpoint.chunk:1", [1, 1, 1, 1, 1]), ("checkpoint.manifest:1", [2, 1, 1, 1, 1]), ("checkpoint.chunk:3", [1; 5])]
    {
        let warehouse = folder.path().join(point.replace([':', '.'], "-"));
        let last = filled(&warehouse, 1).await;
        // Views are closed in the order of their names.
        let script = "SELECT * FROM both_of FOR ENTITY 'c1'; SELECT * FROM euros FOR ENTITY 'u1'; SELECT * FROM ever FOR ENTITY 'u1';
            SELECT * FROM sitting FOR ENTITY 'u1'; SELECT * FROM spend FOR ENTITY 'u1';
            INSERT INTO pay VALUES ('q1', 'u1', 'c1', 5, 2.5, 3.25, TIMESTAMP '2026-01-01 11:39:00');";
        let file = folder.path().join("script.sql");
        fs::write(&file, script).expect("written");
        let status = Command::new(env!("CARGO_BIN_EXE_asof"))
            .args(["--warehouse", warehouse.to_str().expect("UTF-8"), "sql", "-f", file.to_str().expect("UTF-8")])
            .env_remove("ASOF_WAREHOUSE")
            .env("ASOF_CRASH", point)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("the binary runs");
        assert_eq!(status.code(), None, "{point}: it was to end by a signal");
        let engine = open(&warehouse, Takes::Them).await;
        right(&engine, &warehouse, last).await;
        let mut found: Vec<Option<u64>> = begun(&engine);
        found.sort_by_key(|f| std::cmp::Reverse(*f));
        if point != "checkpoint.chunk:3" {
            assert_eq!(found, expected.map(Some), "{point}");
        }
        push(&engine, last + 1..last + 20).await;
        engine.close().await.expect("close");
        let engine = open(&warehouse, Takes::Them).await;
        right(&engine, &warehouse, last + 19).await;
        assert!(begun(&engine).iter().all(|b| *b > Some(1)), "{point}: {:?}", begun(&engine));
        engine.close().await.expect("close");
        // Two rounds later no trace of the attempt is left: every epoch folder has its manifest.
        let engine = open(&warehouse, Takes::Them).await;
        engine.warm().await.expect("states");
        push(&engine, last + 20..last + 40).await;
        engine.close().await.expect("close");
        let all = files(&warehouse);
        for chunk in all.iter().filter(|p| !p.display().to_string().ends_with(".json")) {
            let manifest = chunk.parent().expect("an epoch").with_extension("json");
            assert!(all.contains(&manifest), "{point}: {} is an orphan", chunk.display());
        }
    }
}

/// In a process that serves, a checkpoint is due after the interval, where something has changed.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_taken_when_they_are_due() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let warehouse = folder.path().join("w");
    let clock = Arc::new(HandClock(AtomicI64::new(USUAL_NOW)));
    let engine = open_at(&warehouse, ReadPath::Online, Takes::Them, clock.clone()).await;
    run(&engine, WORLD).await;
    push(&engine, 0..50).await;
    let epoch = || engine.checkpointed("spend").map(|c| c.epoch);
    engine.keep_checkpoints().await;
    assert_eq!(epoch(), Some(1), "the first at once");
    push(&engine, 50..60).await;
    engine.keep_checkpoints().await;
    assert_eq!(epoch(), Some(1), "not yet");
    // However slow the machine, a hold of ten minutes is none of these.
    clock.0.fetch_add(600_000_000, Ordering::SeqCst);
    engine.keep_checkpoints().await;
    assert_eq!(epoch(), Some(2));
    clock.0.fetch_add(600_000_000, Ordering::SeqCst);
    engine.keep_checkpoints().await;
    assert_eq!(epoch(), Some(2), "nothing has changed");
    assert!(engine.checkpoint("spend").await.is_ok_and(|taken| !taken));
    push(&engine, 60..70).await;
    assert!(engine.checkpoint("spend").await.is_ok_and(|taken| taken));
    // The process ends as by a kill: the last checkpoints are those that were taken.
    drop(engine);
    let engine = open(&warehouse, Takes::None).await;
    right(&engine, &warehouse, 69).await;
    assert_eq!(engine.begun("spend").and_then(|b| b.checkpoint), Some(3));
    assert_eq!(engine.begun("ever").and_then(|b| b.checkpoint), Some(2));
}
