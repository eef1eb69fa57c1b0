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
