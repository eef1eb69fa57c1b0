//! Results between their plan and their pulls: each row once over all endpoints, bounded in time and number.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use asof::flight::{Client, Remedy};

use super::server::Server;

const ROWS: i64 = 100_000;

async fn numbers(client: &Client, ticket: arrow_flight::Ticket) -> Vec<i64> {
    let mut pulled = client.pull(ticket).await.expect("an endpoint");
    let mut all = Vec::new();
    while let Some(batch) = pulled.next().await {
        all.extend_from_slice(batch.expect("rows").column(0).as_primitive::<Int64Type>().values());
    }
    all
}

fn tickets(info: &arrow_flight::FlightInfo) -> Vec<arrow_flight::Ticket> {
    info.endpoint.iter().map(|e| e.ticket.clone().expect("a ticket")).collect()
}

/// Many rows out of few: a training query, as far as endpoints are concerned.
fn many() -> String {
    format!("SELECT i.value AS i FROM (SELECT id FROM pay WHERE id = 'a') p CROSS JOIN generate_series(1, {ROWS}) i")
}

#[tokio::test]
async fn each_row_once_over_all_endpoints() {
    let server = Server::with(&["--endpoints", "4"]).await;
    let (client, other) = (server.client().await, server.client().await);
    for parallel in [false, true] {
        let info = client.info(&many()).await.expect("information");
        assert_eq!(info.endpoint.len(), 4);
        assert!(info.endpoint.iter().all(|e| e.expiration_time.is_some()));
        let mut all = Vec::new();
        if parallel {
            let pulls = tickets(&info).into_iter().enumerate().map(|(i, t)| numbers(if i % 2 == 0 { &client } else { &other }, t));
            all = futures::future::join_all(pulls).await.concat();
        } else {
            for ticket in tickets(&info).into_iter().rev() {
                all.extend(numbers(&other, ticket).await);
            }
        }
        assert_eq!(all.len() as i64, ROWS);
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len() as i64, ROWS);
        let again = client.pull(tickets(&info).remove(0)).await.map(drop).expect_err("pulled once");
        assert_eq!(again.remedy, Remedy::NotFound);
    }
}

#[tokio::test]
async fn an_order_has_one_endpoint() {
    let server = Server::new().await;
    let client = server.client().await;
    for (sql, endpoints) in
        [("SELECT * FROM pay", 2), ("SELECT * FROM pay ORDER BY id", 1), ("SELECT * FROM pay LIMIT 2", 1), ("SELECT 1", 1)]
    {
        assert_eq!(client.info(sql).await.expect("information").endpoint.len(), endpoints, "{sql}");
    }
    assert_eq!(client.info("SELECT * FROM spend FOR ENTITY 'ann'").await.expect("information").endpoint.len(), 1);
    let info = client.info(&format!("{} ORDER BY i DESC", many())).await.expect("information");
    let all = numbers(&client, tickets(&info).remove(0)).await;
    assert!(all.len() as i64 == ROWS && all.is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn a_result_is_of_when_it_was_planned() {
    let server = Server::new().await;
    let client = server.client().await;
    let info = client.info("SELECT length(id)::BIGINT FROM pay").await.expect("information");
    client.execute("INSERT INTO pay VALUES ('later', 'zoe', 1, 1.0, '2024-05-01 10:02:00')").await.map(drop).expect("inserted");
    let mut all = Vec::new();
    for ticket in tickets(&info) {
        all.extend(numbers(&client, ticket).await);
    }
    assert_eq!(all, [1, 1, 1]);
}

#[tokio::test]
async fn results_expire_and_are_cancelled() {
    let server = Server::with(&["--result-seconds", "1"]).await;
    let client = server.client().await;
    let info = client.info("SELECT * FROM pay").await.expect("information");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let e = client.pull(tickets(&info).remove(0)).await.map(drop).expect_err("it has expired");
    assert!(e.remedy == Remedy::NotFound && e.message.contains("expired"), "{e}");
    let info = client.info("SELECT * FROM pay").await.expect("information");
    assert!(client.cancel(info.clone()).await.expect("cancelled"));
    assert_eq!(client.pull(tickets(&info).remove(0)).await.map(drop).expect_err("it was cancelled").remedy, Remedy::NotFound);
    assert!(!client.cancel(info).await.expect("nothing to cancel"));
}

/// More rows than any test waits for.
const ENDLESS: &str = "SELECT i.value AS i FROM pay CROSS JOIN generate_series(1, 1000000000000) i";

#[tokio::test]
async fn a_client_that_goes_away_stops_the_work() {
    let mut server = Server::new().await;
    let client = server.client().await;
    let info = client.info(ENDLESS).await.expect("information");
    let mut pulled = client.pull(tickets(&info).remove(0)).await.expect("an endpoint");
    assert!(pulled.next().await.expect("rows").is_ok());
    drop(pulled);
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match client.pull(tickets(&info).remove(1)).await {
                Err(e) if e.remedy == Remedy::NotFound => break,
                Err(e) => panic!("{e}"),
                // The server had not noticed yet: this reader goes away too.
                Ok(mut rows) => {
                    if let Some(Err(e)) = rows.next().await {
                        assert_eq!(e.remedy, Remedy::Cancelled);
                    }
                }
            }
        }
    });
    ended.await.expect("the result is void");
    let info = client.info(ENDLESS).await.expect("information");
    let mut pulled = client.pull(tickets(&info).remove(0)).await.expect("an endpoint");
    assert!(pulled.next().await.expect("rows").is_ok());
    assert!(client.cancel(info).await.expect("cancelled"));
    let cancelled = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match pulled.next().await.expect("rows, then the cancellation") {
                Ok(_) => {}
                Err(e) => break e,
            }
        }
    });
    assert_eq!(cancelled.await.expect("it ends").remedy, Remedy::Cancelled);
    server.is_unharmed().await;
}
