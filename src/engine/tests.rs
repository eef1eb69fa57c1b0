//! An engine over a storage that fails.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;
use crate::error::Kind;
use crate::history::tests::faults::{Fault, Faults};

const DEFINITIONS: &str = "
CREATE STREAM s (id VARCHAR, u VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, PRIMARY KEY (id), WATERMARK FOR ts AS ts - INTERVAL '1 hour');
CREATE FEATURE VIEW v ENTITY (u) AS SELECT count(*) OVER (RANGE UNBOUNDED PRECEDING) AS n FROM s";

async fn number(engine: &Engine, sql: &str) -> i64 {
    let answer = engine.execute(sql, &[]).await.expect("answered").pop();
    let Some(Output::Rows { batches, .. }) = answer else { panic!("{answer:?}") };
    let last = batches[0].columns().last().expect("a column");
    last.as_primitive::<Int64Type>().value(0)
}

/// The commit is in history, and nobody knows: history and the online state say the same as soon as either is asked for it, and who
/// repeats the call, as one does, adds nothing.
#[tokio::test]
async fn a_commit_of_unknown_fate_is_neither_lost_nor_there_twice() {
    for (token, history_first) in [(None, false), (None, true), (Some("t"), false), (Some("t"), true)] {
        let store = Arc::new(Faults::default());
        let url = url::Url::parse("memory:///w/").expect("url");
        let warehouse = Warehouse::open_with_store(url, store.clone()).await.expect("warehouse");
        let engine = Engine::builder().build_over(warehouse).await.expect("engine");
        engine.execute(DEFINITIONS, &[]).await.expect("defined");
        let line = |id: &str| format!("{{\"id\": \"{id}\", \"u\": \"x\", \"ts\": \"2024-05-01 00:00:00\"}}").into_bytes();
        engine.push_json("s", &line("a"), None).await.expect("pushed");
        let (online, history) = ("SELECT * FROM v FOR ENTITY 'x'", "SELECT count(*) FROM s");
        assert_eq!(number(&engine, online).await, 1);

        store.fail_next_commit(Fault::Dark);
        let error = engine.push_json("s", &line("b"), token).await.expect_err("told to have failed");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        if history_first {
            assert_eq!((number(&engine, history).await, number(&engine, online).await), (2, 2), "{token:?}");
        }
        let again = engine.push_json("s", &line("b"), token).await.expect("repeated");
        assert_eq!((again.accepted, again.duplicate), if token.is_some() { (0, 0) } else { (0, 1) });
        engine.push_json("s", &line("c"), None).await.expect("pushed");
        assert_eq!((number(&engine, history).await, number(&engine, online).await), (3, 3), "{token:?}");
    }
}

const SHARED: &str = "
CREATE STREAM s (u VARCHAR NOT NULL, id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, PRIMARY KEY (u, id), WATERMARK FOR ts AS ts - INTERVAL '1 minute')
WITH (connector = 'kafka', brokers = 'localhost:1', topic = 't', \"group\" = 'g', \"key\" = 'u')";

/// Processes over one warehouse, each with a pipeline of the stream `s` of its own; no broker is asked.
struct Processes {
    warehouse: Warehouse,
    stream: crate::registry::Stream,
}

impl Processes {
    async fn begin() -> Self {
        let url = url::Url::parse("memory:///w/").expect("url");
        let warehouse = Warehouse::open_with_store(url, Arc::new(object_store::memory::InMemory::new())).await.expect("warehouse");
        let engine = Engine::builder().build_over(warehouse.clone()).await.expect("engine");
        engine.execute(SHARED, &[]).await.expect("defined");
        let stream = engine.inner.registry().streams["s"].clone();
        Self { warehouse, stream }
    }

    /// A process that reads these partitions from where history has them, or from their first record.
    async fn member(&self, reads: &[i32]) -> Pipeline {
        let mut pipeline = Pipeline::open(&self.warehouse, "s", &self.stream, 1 << 20, false, reads).await.expect("opened");
        pipeline.set_partition_count(2);
        for partition in reads {
            let name = format!("t/{partition}");
            match pipeline.committed_offset(&name).await.expect("offset") {
                Some(next) => pipeline.reads_from(&name, next),
                None => pipeline.skip_to(&[(name, 0)], false).await.expect("begun"),
            }
        }
        pipeline
    }

    /// Records of one user at these seconds, from an offset on.
    fn records(&self, user: &str, first: i64, seconds: &[i64]) -> crate::stream::decode::Decoded {
        let options = crate::stream::decode::Options::default();
        let mut lines = crate::stream::decode::JsonLines::try_new(self.stream.schema.clone(), &options, first).expect("lines");
        for second in seconds {
            let (minute, second) = (second / 60, second % 60);
            lines.feed(format!("{{\"u\": \"{user}\", \"id\": 1, \"ts\": \"2024-05-01 00:{minute:02}:{second:02}\"}}\n").as_bytes());
        }
        lines.finish();
        lines.take().expect("decoded")
    }

    async fn rows(&self) -> usize {
        self.rows_of(Part::History).await
    }

    async fn rows_of(&self, part: Part) -> usize {
        let reader = self.member(&[]).await;
        let options = TableOptions { all_rows: true, ..TableOptions::default() };
        let table = reader.history().table(part, options).await.expect("table");
        SessionContext::new().read_table(table).expect("read").count().await.expect("counted")
    }
}

#[tokio::test]
async fn a_partition_goes_from_one_process_to_another_with_its_offset_and_its_time() {
    let processes = Processes::begin().await;
    let mut a = processes.member(&[0, 1]).await;
    a.stage("t/0", &processes.records("x", 0, &[600]), 1, 0).await.expect("staged");
    a.flush().await.expect("committed");
    // Commits of the other partition come behind it.
    for offset in 0..3 {
        a.stage("t/1", &processes.records("y", offset, &[1200 + offset]), offset + 1, 0).await.expect("staged");
        a.flush().await.expect("committed");
    }
    let mut b = processes.member(&[0]).await;
    assert_eq!(b.committed_offset("t/0").await.expect("offset"), Some(1));
    // Late by the time of its own partition, not by that of the other.
    let step = b.stage("t/0", &processes.records("x", 1, &[539, 540]), 3, 0).await.expect("staged");
    assert_eq!((step.counts.late, step.counts.accepted), (1, 1));
}

#[tokio::test]
async fn who_lost_a_partition_commits_nothing_of_it() {
    let processes = Processes::begin().await;
    let mut a = processes.member(&[0, 1]).await;
    let mut b = processes.member(&[0]).await;
    for process in [&mut a, &mut b] {
        process.stage("t/0", &processes.records("x", 0, &[1, 2]), 2, 0).await.expect("staged");
    }
    b.flush().await.expect("committed");
    assert_eq!(a.flush().await.expect_err("fenced").kind(), Kind::Closed);
    assert_eq!(processes.rows().await, 2);

    // One that comes to know history as it is, and goes on from where it was.
    let mut a = processes.member(&[0, 1]).await;
    b.stage("t/0", &processes.records("x", 2, &[3, 4]), 4, 0).await.expect("staged");
    b.flush().await.expect("committed");
    a.stage("t/1", &processes.records("y", 0, &[5]), 1, 0).await.expect("staged");
    a.flush().await.expect("committed");
    let again = a.stage("t/0", &processes.records("x", 2, &[3, 4]), 4, 0).await;
    let error = match again {
        Ok(_) => a.flush().await.expect_err("fenced"),
        Err(e) => e,
    };
    assert_eq!(error.kind(), Kind::Closed);
    assert_eq!(processes.rows().await, 5);
}

#[tokio::test]
async fn what_is_not_read_from_the_topic_comes_before_or_behind_what_is() {
    use crate::connect::ingest::PUSH;
    use crate::stream::watermark::Granularity;
    let processes = Processes::begin().await;
    let (mut a, mut b) = (processes.member(&[0]).await, processes.member(&[1]).await);
    b.stage("t/1", &processes.records("y", 0, &[1]), 1, 0).await.expect("staged");
    b.flush().await.expect("committed");
    a.stage("t/0", &processes.records("x", 0, &[1]), 1, 0).await.expect("staged");
    a.flush().await.expect("committed");
    // It does not remember what the other has read, and knows that.
    assert!(a.remembers() < a.history().refresh().await.expect("refreshed"));

    // Another reads on while a step is on its way.
    let mut a = processes.member(&[0]).await;
    assert_eq!(a.remembers(), a.history().refresh().await.expect("refreshed"));
    let load = a.load("copy".into(), 0).await.expect("begun");
    b.stage("t/1", &processes.records("y", 1, &[2]), 2, 0).await.expect("staged");
    b.flush().await.expect("committed");
    let error = load.commit(None).await.expect_err("come before");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");

    // Behind it: a copy is one, and whoever had read it already begins anew.
    let mut a = processes.member(&[0]).await;
    b.stage("t/1", &processes.records("y", 2, &[3]), 3, 0).await.expect("staged");
    let step = a.take(PUSH, processes.records("y", 0, &[2, 3]), Granularity::Call, None, 0).await.expect("taken");
    assert_eq!((step.counts.duplicate, step.counts.accepted), (1, 1));
    assert_eq!(b.flush().await.expect_err("begins anew").kind(), Kind::Closed);
    let mut b = processes.member(&[1]).await;
    let step = b.stage("t/1", &processes.records("y", 2, &[3]), 3, 0).await.expect("staged");
    assert_eq!(step.counts.duplicate, 1);
    b.flush().await.expect("committed");
    assert_eq!(processes.rows().await, 4);

    // A new column, too, is something that all begin anew for.
    a.announce().await.expect("announced");
    assert!(!b.is_overtaken().await.expect("asked"));
    b.history().refresh().await.expect("refreshed");
    assert!(b.is_overtaken().await.expect("asked"));
}

/// Records are staged while a commit is under way: each of the two commits has its own, and builds on the one before.
#[tokio::test]
async fn records_are_staged_behind_a_commit() {
    let processes = Processes::begin().await;
    let mut a = processes.member(&[0, 1]).await;
    a.stage("t/0", &processes.records("x", 0, &[600]), 1, 0).await.expect("staged");
    a.begin_commit().expect("begun");
    assert!(a.staged_since().is_none() && a.has_uncommitted() && a.is_in_doubt());
    assert_eq!(a.uncommitted_changes().count(), 1);
    // Of the same partition, of another one, and a late one by the times of before.
    a.stage("t/0", &processes.records("w", 1, &[700]), 2, 0).await.expect("staged");
    a.stage("t/1", &processes.records("y", 0, &[700]), 1, 0).await.expect("staged");
    let late = a.stage("t/0", &processes.records("v", 2, &[630]), 3, 0).await.expect("staged");
    assert_eq!(late.counts.late, 1);
    a.finish_commit().await.expect("committed");
    assert_eq!(a.take_flushed(), [("t/0".to_owned(), 1), ("t/1".to_owned(), 0)].into());
    assert!(!a.is_in_doubt() && a.staged_since().is_some() && a.uncommitted_changes().count() == 3);
    a.flush().await.expect("committed");
    assert_eq!(a.take_flushed(), [("t/0".to_owned(), 3), ("t/1".to_owned(), 1)].into());
    assert!(!a.has_uncommitted());
    assert_eq!((processes.rows().await, processes.rows_of(Part::Late).await), (3, 1));

    // Who has lost the partition meanwhile finds that out at the end of the commit, and what is staged behind it is as little committed.
    let mut b = processes.member(&[0]).await;
    for process in [&mut a, &mut b] {
        process.stage("t/0", &processes.records("u", 3, &[800]), 4, 0).await.expect("staged");
    }
    b.flush().await.expect("committed");
    a.begin_commit().expect("begun");
    // Whether it is told here or there depends on what ends first.
    let staged = a.stage("t/0", &processes.records("t", 4, &[900]), 5, 0).await.map(drop);
    let fenced = match staged {
        Ok(()) => a.flush().await.expect_err("fenced"),
        Err(e) => e,
    };
    assert_eq!(fenced.kind(), Kind::Closed, "{fenced}");
    assert_eq!(processes.rows().await, 4);
}

/// Two processes give the same numbers to what they were told to insert: the late records of one are not taken for those of the other.
#[tokio::test]
async fn late_records_of_two_inserts_are_told_apart() {
    use crate::connect::ingest::PUSH;
    use crate::stream::watermark::Granularity;
    let processes = Processes::begin().await;
    let (mut a, mut first) = (processes.member(&[0]).await, processes.member(&[1]).await);
    let push = async |process: &mut Pipeline, user: &str, seconds: &[i64]| {
        let first = process.next_offset(PUSH).await?;
        process.take(PUSH, processes.records(user, first, seconds), Granularity::Record, None, 0).await
    };
    push(&mut first, "x", &[600]).await.expect("taken");
    let mut b = processes.member(&[1]).await;
    // It leaves its late record aside before it finds that another came before.
    let error = push(&mut a, "y", &[600, 1]).await.expect_err("come before");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let error = push(&mut b, "z", &[600, 2]).await.expect_err("the numbers are another's");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!((processes.rows().await, processes.rows_of(Part::Late).await), (1, 1));
    let counts = push(&mut b, "z", &[600, 2]).await.expect("taken").counts;
    assert_eq!((counts.accepted, counts.late), (1, 1));
    assert_eq!((processes.rows().await, processes.rows_of(Part::Late).await), (2, 2));
}
