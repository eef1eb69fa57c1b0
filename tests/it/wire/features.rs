//! Features in one round trip, and sessions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof::flight::request::At;
use asof::flight::{ExchangeRequest, FeatureRequest, Remedy, SqlRequest, TicketRequest};
use serde_json::json;

use super::server::{Server, rows, text};

fn request(views: &[&str], features: &[&str]) -> FeatureRequest {
    let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    FeatureRequest { views: own(views), features: own(features), ..FeatureRequest::default() }
}

fn ticket(views: &[&str], features: &[&str], keys: serde_json::Value) -> TicketRequest {
    TicketRequest::Features(request(views, features), keys.as_object().expect("an object").clone())
}

fn keys(values: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([("u", Arc::new(StringArray::from(values.to_vec())) as ArrayRef)]).expect("keys")
}

fn key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("u", DataType::Utf8, true)]))
}

fn exchange(views: &[&str], features: &[&str]) -> ExchangeRequest {
    ExchangeRequest { features: request(views, features), with_keys: false }
}

#[tokio::test]
async fn tickets_answer_in_the_order_of_the_keys() {
    let server = Server::new().await;
    let client = server.client().await;
    let get = async |t: TicketRequest| text(&client.get(&t).await.expect("an answer").collect().await.expect("rows"));
    assert_eq!(
        get(ticket(&["spend"], &[], json!({"u": ["bob", "zoe", null, "ann"]}))).await,
        "bob|1|2.0|b\nzoe|0|NULL|NULL\nNULL|0|NULL|NULL\nann|2|5.5|c"
    );
    let two = ticket(&["spend", "shops"], &["dearest", "spend.n", "shops.n"], json!({"u": ["ann", "bob"], "shop": [2, "1"]}));
    assert_eq!(get(two).await, "ann|2|4.0|2|1\nbob|1|2.0|1|2");
    let sql = SqlRequest { sql: "SELECT id FROM pay WHERE u = $1 AND x < $2 ORDER BY id".into(), params: vec![json!("ann"), json!(3)] };
    assert_eq!(get(TicketRequest::Sql(sql)).await, "a");
    // What the answer says of an instant is what the statement says of it.
    let at = FeatureRequest { at: At::AsOf(1_714_557_600_000_000), ..request(&["spend"], &[]) };
    let past = TicketRequest::Features(at, json!({"u": ["ann"]}).as_object().expect("an object").clone());
    assert_eq!(get(past).await, rows(&client, "SELECT * FROM spend FOR ENTITY 'ann' AS OF TIMESTAMP '2024-05-01 10:00:00'").await);
    let before = FeatureRequest { at: At::Before(1_714_557_600_000_000), ..request(&["spend"], &["n"]) };
    assert_eq!(get(TicketRequest::Features(before, json!({"u": ["ann"]}).as_object().expect("an object").clone())).await, "ann|0");
}

#[tokio::test]
async fn an_answer_from_history_says_so_or_is_refused() {
    let server = Server::new().await;
    let past = r#"{"v":1,"views":["spend"],"features":["n"],"keys":{"u":["ann"]},"as_of":"2024-01-01T00:00:00Z"}"#;
    let notes = async |server: &Server| -> Result<String, tonic::Status> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).expect("an address").connect().await;
        let mut raw = arrow_flight::flight_service_client::FlightServiceClient::new(channel.expect("a channel"));
        let mut messages = raw.do_get(arrow_flight::Ticket::new(past)).await?.into_inner();
        let mut notes = String::new();
        while let Some(message) = messages.message().await? {
            notes.push_str(std::str::from_utf8(&message.app_metadata).expect("metadata is JSON"));
        }
        Ok(notes)
    };
    assert_eq!(notes(&server).await.expect("an answer"), r#"{"note":"\"spend\" computed from history","v":1}"#);
    let sql = "SELECT n FROM spend FOR ENTITY 'ann' AS OF TIMESTAMP '2024-01-01'";
    let Ok(asof::flight::Response::Rows(answer)) = server.client().await.execute(sql).await else { panic!("rows") };
    assert_eq!(answer.schema().metadata()["asof.note"], "\"spend\" computed from history");
    let server = Server::with(&["--online-only"]).await;
    let refused = notes(&server).await.expect_err("it is refused");
    assert!(refused.message().contains("answers online from 2024-05-01T09:50:00"), "{refused:?}");
}

#[tokio::test]
async fn an_exchange_answers_each_batch_in_order() {
    let server = Server::new().await;
    let client = server.client().await;
    let mut session = client.exchange(&exchange(&["spend"], &["s", "n"]), &key_schema()).await.expect("a session");
    assert_eq!(session.schema().expect("a schema").fields().len(), 2);
    assert_eq!(text(&[session.features(&keys(&["bob", "ann"])).await.expect("features")]), "2.0|1\n5.5|2");
    // Ahead of the answers, as many as fit.
    for i in 0..10u8 {
        session.send_with(&keys(&vec!["ann"; usize::from(i)]), vec![i].into()).await.expect("sent");
    }
    for i in 0..10u8 {
        let (answer, metadata) = session.receive().await.expect("an answer").expect("one for each batch");
        assert_eq!((answer.num_rows(), metadata.as_ref()), (usize::from(i), [i].as_slice()));
    }
    // What is written meanwhile is seen.
    client.execute("INSERT INTO pay VALUES ('d', 'bob', 1, 8.0, '2024-05-01 10:02:00')").await.map(drop).expect("inserted");
    assert_eq!(text(&[session.features(&keys(&["bob"])).await.expect("features")]), "10.0|2");
    let with = ExchangeRequest { with_keys: true, ..exchange(&["spend"], &[]) };
    let mut session = client.exchange(&with, &key_schema()).await.expect("a session");
    assert_eq!(text(&[session.features(&keys(&["ann"])).await.expect("features")]), "ann|2|5.5|c");
}

#[tokio::test]
async fn an_exchange_ends_where_its_view_changes() {
    let server = Server::new().await;
    let client = server.client().await;
    let mut session = client
        .exchange(&exchange(&["shops"], &[]), &Arc::new(Schema::new(vec![Field::new("shop", DataType::Int64, true)])))
        .await
        .expect("a session");
    let shops = RecordBatch::try_from_iter([("shop", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).expect("keys");
    assert_eq!(text(&[session.features(&shops).await.expect("features")]), "2|2.0");
    // Another definition that changes nothing here is not noticed.
    client.execute("CREATE STREAM other (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts)").await.map(drop).expect("created");
    assert_eq!(text(&[session.features(&shops).await.expect("features")]), "2|2.0");
    let more = "CREATE OR REPLACE FEATURE VIEW shops ENTITY (shop) AS SELECT count(*) OVER w AS n, max(x) OVER w AS dearest, min(x) OVER w AS cheapest
        FROM pay WINDOW w AS (RANGE UNBOUNDED PRECEDING)";
    client.execute(more).await.map(drop).expect("replaced");
    assert_eq!(session.features(&shops).await.expect_err("its columns changed").remedy, Remedy::Closed);
}
