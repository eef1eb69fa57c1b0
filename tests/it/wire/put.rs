//! Writing: acknowledged means durable, counts add up, a token makes a retry harmless.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use asof::flight::client::IngestMode;
use asof::flight::{PutCounts, PutRequest};

use super::server::{Server, cli, rows};

/// Events of one user, one a minute.
fn events(ids: &[&str], from_minute: usize) -> RecordBatch {
    let n = ids.len();
    let times: Vec<String> = (0..n).map(|i| format!("2024-05-01 11:{:02}:00", from_minute + i)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("ts", Arc::new(StringArray::from(times))),
        ("id", Arc::new(StringArray::from(ids.to_vec()))),
        ("u", Arc::new(StringArray::from(vec!["eve"; n]))),
        ("shop", Arc::new(Int64Array::from(vec![7; n]))),
        ("x", Arc::new(Float64Array::from(vec![1.0; n]))),
    ];
    RecordBatch::try_from_iter(columns).expect("events")
}

fn put(token: Option<&str>) -> PutRequest {
    PutRequest { stream: "pay".into(), token: token.map(str::to_owned) }
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_the_server_is_killed() {
    let server = Server::new().await;
    let client = server.client().await;
    let batches = vec![events(&["p", "q"], 0), events(&["r", "p"], 2)];
    let counts = client.put(&put(None), &batches[0].schema(), futures::stream::iter(batches)).await.expect("written");
    assert_eq!(counts, PutCounts { read: 4, accepted: 4, ..PutCounts::default() });
    assert_eq!(rows(&client, "SELECT n, latest FROM spend FOR ENTITY 'eve'").await, "4|p");
    let folder = server.folder();
    // Dropped is killed: nothing is flushed.
    drop(server);
    let server = Server::start(folder, &[]);
    assert_eq!(rows(&server.client().await, "SELECT n, latest FROM spend FOR ENTITY 'eve'").await, "4|p");
}

#[tokio::test]
async fn counts_and_rejected_rows() {
    let server = Server::new().await;
    let client = server.client().await;
    let good = events(&["p", "q"], 30);
    client.put(&put(None), &good.schema(), futures::stream::iter([good.clone()])).await.expect("written");
    // One seen before, one late, one without its user, one new.
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(StringArray::from(vec!["p", "old", "nobody", "new"]))),
        ("u", Arc::new(StringArray::from(vec![Some("eve"), Some("eve"), None, Some("eve")]))),
        ("shop", Arc::new(Int64Array::from(vec![7, 7, 7, 7]))),
        ("x", Arc::new(Float64Array::from(vec![1.0; 4]))),
        (
            "ts",
            Arc::new(StringArray::from(vec!["2024-05-01 11:30:00", "2024-05-01 09:00:00", "2024-05-01 11:31:00", "2024-05-01 11:32:00"])),
        ),
    ];
    let mixed = RecordBatch::try_from_iter(columns).expect("events");
    let counts = client.put(&put(None), &mixed.schema(), futures::stream::iter([mixed])).await.expect("written");
    assert_eq!(counts.read, counts.accepted + counts.duplicate + counts.late + counts.rejected);
    assert_eq!((counts.accepted, counts.duplicate, counts.late, counts.rejected), (1, 1, 1, 1), "{counts:?}");
    assert!(rows(&client, "SELECT * FROM \"pay$rejected\"").await.contains('u'), "a rejected row has its reason");
    assert_eq!(rows(&client, "SELECT count(*) FROM \"pay$late\"").await, "1");
    assert_eq!(client.ingest("pay", vec![events(&["s"], 40)], IngestMode::Append, false).await.expect("ingested"), 1);
}

#[tokio::test]
async fn a_token_is_applied_once() {
    let server = Server::new().await;
    let client = server.client().await;
    let batch = events(&["p", "q", "r"], 0);
    let first = client.put(&put(Some("load-1")), &batch.schema(), futures::stream::iter([batch.clone()])).await.expect("written");
    assert_eq!(first.accepted, 3);
    let again = client.put(&put(Some("load-1")), &batch.schema(), futures::stream::iter([batch.clone()])).await.expect("acknowledged");
    assert_eq!(again.accepted, 0, "{again:?}");
    assert_eq!(rows(&client, "SELECT count(*) FROM pay WHERE u = 'eve'").await, "3");
}

#[tokio::test]
async fn another_process_is_told_who_writes_and_how_to_connect() {
    let server = Server::new().await;
    let insert = "INSERT INTO pay VALUES ('z', 'zoe', 1, 1.0, '2024-05-01 10:02:00')";
    let (code, _, errors) = cli(&server.warehouse(), &["sql", "-c", insert]);
    assert_eq!(code, Some(4), "{errors}");
    assert!(errors.contains(&format!("--connect {}", server.uri())), "{errors}");
    let (code, out, errors) = cli(&server.warehouse(), &["sql", "--connect", &server.uri(), "-c", insert]);
    assert_eq!((code, out.trim()), (Some(0), "INSERT: read 1, accepted 1, duplicate 0, late 0, rejected 0"), "{errors}");
}
