//! A client in Rust: features in one round trip, a session, events written with their counts, and a training set from several endpoints.
//!
//! Asks the server at the address given (`grpc://127.0.0.1:8815`), which serves what `examples/quickstart.sql` made.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use asof_flight::client::IngestMode;
use asof_flight::request::At;
use asof_flight::{Client, ClientOptions, ExchangeRequest, FeatureRequest, PutRequest, Response, SqlRequest, TicketRequest};

/// 2024-05-01 11:45, microseconds since the Unix epoch.
const INSTANT_US: i64 = 1_714_563_900_000_000;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "grpc://127.0.0.1:8815".into());
    let client = Client::connect(&address, ClientOptions::default()).await?;
    tickets(&client).await?;
    session(&client).await?;
    write(&client).await?;
    train(&client).await
}

fn request(features: &[&str]) -> FeatureRequest {
    FeatureRequest {
        views: vec!["user_spend".into()],
        features: features.iter().map(|f| (*f).into()).collect(),
        at: At::AsOf(INSTANT_US),
        ..FeatureRequest::default()
    }
}

fn column(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// One request, one answer: by keys, and by SQL.
async fn tickets(client: &Client) -> Result<()> {
    let keys = serde_json::from_str(r#"{"user_id": ["ann", "bob", "cy"]}"#)?;
    let by_keys = client.get(&TicketRequest::Features(request(&[]), keys)).await?.collect().await?;
    println!("by keys\n{}", pretty_format_batches(&by_keys)?);
    let sql = "SELECT spend_1h / 60 AS a_minute FROM user_spend FOR ENTITY user_id = $1 AS OF TIMESTAMP '2024-05-01 11:45:00'";
    let by_sql = TicketRequest::Sql(SqlRequest { sql: sql.into(), params: vec!["bob".into()] });
    println!("by SQL\n{}", pretty_format_batches(&client.get(&by_sql).await?.collect().await?)?);
    Ok(())
}

/// Keys are sent ahead of the answers, which come in the same order.
async fn session(client: &Client) -> Result<()> {
    let users = ["ann", "bob", "cy"];
    let batches = users.map(|u| RecordBatch::try_from_iter([("user_id", column(&[u]))]));
    let batches = batches.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let wanted = ExchangeRequest { features: request(&["spend_1h", "payments_1h"]), with_keys: true };
    let mut session = client.exchange(&wanted, &batches[0].schema()).await?;
    for batch in &batches {
        session.send(batch).await?;
    }
    let mut answers = vec![];
    while answers.len() < batches.len() {
        let (answer, _) = session.receive().await?.ok_or("the session ended early")?;
        answers.push(answer);
    }
    println!("by session\n{}", pretty_format_batches(&answers)?);
    Ok(())
}

/// Two events, one of them sent before. When the counts come they are durable; the token makes a retry harmless.
async fn write(client: &Client) -> Result<()> {
    let sql = "SELECT payment_id, user_id, amount, ts FROM payments WHERE payment_id = 'p4'
               UNION ALL SELECT 'p5', 'bob', 3.5, TIMESTAMP '2024-05-01 11:40:00'";
    let events = client.query(sql).await?;
    let schema = events.first().ok_or("no events")?.schema();
    for attempt in ["first", "again"] {
        let put = PutRequest { stream: "payments".into(), token: Some("two payments".into()) };
        let counts = client.put(&put, &schema, futures::stream::iter(events.clone())).await?;
        println!("written, {attempt}: accepted {}, duplicate {}", counts.accepted, counts.duplicate);
    }
    Ok(())
}

/// Labels go up as a temporary table of the connection; the training set comes down from all endpoints at once.
async fn train(client: &Client) -> Result<()> {
    let labels = client.query("SELECT user_id, ts, amount > 10 AS large FROM payments").await?;
    client.ingest("labels", labels, IngestMode::Replace, true).await?;
    let sql = "SELECT l.large, u.payments_1h, u.spend_1h FROM labels l ASOF JOIN user_spend u MATCH_CONDITION (l.ts > u.ts) ON l.user_id = u.user_id";
    let info = client.info(sql).await?;
    let pulls = info.endpoint.into_iter().filter_map(|e| e.ticket).map(|ticket| async { client.pull(ticket).await?.collect().await });
    let rows: usize = futures::future::try_join_all(pulls).await?.iter().flatten().map(RecordBatch::num_rows).sum();
    println!("training: {rows} rows");
    // Rows of any statement can also be taken as they come.
    if let Response::Rows(mut batches) = client.execute(&format!("{sql} ORDER BY l.ts")).await? {
        while let Some(batch) = batches.next().await {
            println!("{}", pretty_format_batches(&[batch?])?);
        }
    }
    Ok(())
}
