//! Statements: run, prepared, with parameters; their errors.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use asof::flight::client::IngestMode;
use asof::flight::{ExchangeRequest, FeatureRequest, Remedy, Response};

use super::server::{Server, refused, rows, text};

fn strings(name: &str, values: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([(name, Arc::new(StringArray::from(values.to_vec())) as ArrayRef)]).expect("a batch")
}

async fn answer(response: asof::flight::Outcome<Response>) -> String {
    match response.expect("an answer") {
        Response::Rows(rows) => text(&rows.collect().await.expect("rows")),
        Response::Done { message, .. } => message,
    }
}

#[tokio::test]
async fn statements_answer_rows_or_say_what_was_done() {
    let server = Server::new().await;
    let client = server.client().await;
    assert_eq!(rows(&client, "SELECT id, x FROM pay ORDER BY id").await, "a|1.5\nb|2.0\nc|4.0");
    assert_eq!(
        rows(&client, "SELECT * FROM spend FOR ENTITY u IN ('bob', 'zoe', 'bob')").await,
        "bob|1|2.0|b\nzoe|0|NULL|NULL\nbob|1|2.0|b"
    );
    assert_eq!(
        answer(client.execute("DROP FEATURE VIEW shops; CREATE STREAM other (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts)").await).await,
        "stream \"other\" created"
    );
    let Ok(Response::Done { counts: Some(counts), .. }) =
        client.execute("INSERT INTO pay VALUES ('a', 'ann', 1, 1.5, '2024-05-01 10:00:00')").await
    else {
        panic!("an insert has counts")
    };
    assert_eq!((counts.read, counts.accepted, counts.duplicate), (1, 0, 1));
    assert_eq!(rows(&client, "").await, "");
    assert_eq!(rows(&client, "SELECT 1; SELECT 2").await, "2");
}

#[tokio::test]
async fn schemas_carry_plain_types_and_where_values_come_from() {
    let server = Server::new().await;
    let client = server.client().await;
    let sql = "SELECT p.u, s.n FROM pay p ASOF JOIN spend s MATCH_CONDITION (p.ts >= s.ts) ON p.u = s.u";
    let Ok(Response::Rows(answer)) = client.execute(sql).await else { panic!("rows") };
    assert_eq!(answer.schema().field(0).data_type(), &DataType::Utf8);
    let metadata = answer.schema().metadata();
    assert!(metadata.contains_key("asof.view.spend") && metadata.contains_key("asof.history.pay"), "{metadata:?}");
    assert_eq!(answer.collect().await.expect("rows").iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_bound_batch_of_n_rows_is_n_entities() {
    let server = Server::new().await;
    let client = server.client().await;
    for sql in ["SELECT * FROM spend FOR ENTITY u = ?", "SELECT * FROM spend FOR ENTITY u = $1"] {
        let prepared = client.prepare(sql).await.expect("prepared");
        assert_eq!(prepared.columns().expect("rows").fields().len(), 4);
        assert_eq!(prepared.parameters().expect("parameters").field(0).data_type(), &DataType::Utf8);
        let batch = strings("0", &["bob", "zoe", "ann", "bob"]);
        assert_eq!(answer(prepared.execute(Some(&batch)).await).await, "bob|1|2.0|b\nzoe|0|NULL|NULL\nann|2|5.5|c\nbob|1|2.0|b", "{sql}");
        assert_eq!(answer(prepared.execute(Some(&strings("0", &["ann"]))).await).await, "ann|2|5.5|c");
        assert_eq!(answer(prepared.execute(Some(&strings("0", &[]))).await).await, "");
        prepared.close().await.expect("closed");
    }
    let two = client.prepare("SELECT n FROM spend FOR ENTITY u = $1 AS OF $2").await.expect("prepared");
    assert!(matches!(two.parameters().expect("parameters").field(1).data_type(), DataType::Timestamp(..)));
    let many: ArrayRef = Arc::new(StringArray::from((0..5000).map(|i| if i % 2 == 0 { "ann" } else { "bob" }).collect::<Vec<_>>()));
    let many = RecordBatch::try_from_iter([("u", many)]).expect("a batch");
    let prepared = client.prepare("SELECT u, n FROM spend FOR ENTITY u = $1").await.expect("prepared");
    let Ok(Response::Rows(found)) = prepared.execute(Some(&many)).await else { panic!("rows") };
    assert_eq!(text(&found.collect().await.expect("rows")).lines().filter(|l| *l == "bob|1").count(), 2500);
    // The keys of the statement for the first row, then for the second.
    let prepared = client.prepare("SELECT u, n FROM spend FOR ENTITY u IN ($2, 'bob', $1)").await.expect("prepared");
    let [first, second] = [["ann", "zoe"], ["yan", "ann"]].map(|v| Arc::new(StringArray::from(v.to_vec())) as ArrayRef);
    let pairs = RecordBatch::try_from_iter([("1", first), ("2", second)]).expect("a batch");
    assert_eq!(answer(prepared.execute(Some(&pairs)).await).await, "yan|0\nbob|1\nann|2\nann|2\nbob|1\nzoe|0");
    let e = two.execute(Some(&pairs)).await.map(drop).expect_err("an instant each");
    assert_eq!(e.message, "parameters outside of the keys take one row of parameters, 2 are given");
}

#[tokio::test]
async fn a_bound_batch_is_cast_by_columns() {
    let server = Server::new().await;
    let client = server.client().await;
    let sql = "CREATE STREAM days (d DATE NOT NULL, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 minute');
        CREATE FEATURE VIEW by_day ENTITY (d) AS SELECT count(*) OVER w AS n FROM days WINDOW w AS (RANGE UNBOUNDED PRECEDING);
        INSERT INTO days VALUES ('2024-05-01', '2024-05-01 10:00:00')";
    client.execute(sql).await.map(drop).expect("defined");
    let bound = async |sql: &str, keys: ArrayRef| {
        let prepared = client.prepare(sql).await.expect("prepared");
        prepared.execute(Some(&RecordBatch::try_from_iter([("1", keys)]).expect("a batch"))).await
    };
    let (by_shop, by_day) = ("SELECT shop, n FROM shops FOR ENTITY shop = $1", "SELECT n FROM by_day FOR ENTITY d = $1");
    // 1.5 is no shop, and is not told to be the one that it would be cut to; NULL has no type.
    let keys: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![Some(1.0), Some(1.5), None, Some(2.0)]));
    assert_eq!(answer(bound(by_shop, keys).await).await, "1|2\nNULL|0\nNULL|0\n2|1");
    assert_eq!(answer(bound(by_shop, Arc::new(StringArray::from(vec![None::<&str>; 2]))).await).await, "NULL|0\nNULL|0");
    assert_eq!(answer(bound(by_day, Arc::new(StringArray::from(vec!["2024-05-01", "2024-05-02"]))).await).await, "1\n0");
    for (sql, keys, says) in [
        (by_shop, Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef, "entity column \"shop\" is a number, found a string"),
        (by_day, Arc::new(StringArray::from(vec!["2024-05-01", "soon"])), "soon is no value of type Date32"),
    ] {
        let e = bound(sql, keys).await.map(drop).expect_err("refused");
        assert!(e.remedy == Remedy::Invalid && e.message.contains("error[E0501]") && e.message.contains(says), "{e}");
        assert!(e.message.contains("$1\n") && e.message.contains("^^"), "{e}");
    }
    // So it is where keys come without SQL.
    let days = RecordBatch::try_from_iter([("d", Arc::new(StringArray::from(vec!["soon"])) as ArrayRef)]).expect("keys");
    let wanted = FeatureRequest { views: vec!["by_day".into()], ..FeatureRequest::default() };
    let mut session = client.exchange(&ExchangeRequest { features: wanted, with_keys: false }, &days.schema()).await.expect("a session");
    let e = session.features(&days).await.expect_err("no date");
    assert!(e.remedy == Remedy::Invalid && e.message.contains("soon is no value of type Date32"), "{e}");
}

#[tokio::test]
async fn parameters_of_queries_and_inserts() {
    let server = Server::new().await;
    let client = server.client().await;
    let prepared = client.prepare("SELECT id FROM pay WHERE x > $1 AND u = $2 ORDER BY id").await.expect("prepared");
    let given: [(&str, ArrayRef); 2] =
        [("a", Arc::new(arrow::array::Float64Array::from(vec![1.0]))), ("b", Arc::new(StringArray::from(vec!["ann"])))];
    assert_eq!(answer(prepared.execute(Some(&RecordBatch::try_from_iter(given).expect("a batch"))).await).await, "a\nc");
    let insert = client.prepare("INSERT INTO pay VALUES (?, ?, ?, ?, ?)").await.expect("prepared");
    assert!(insert.columns().is_none());
    let types: Vec<_> = insert.parameters().expect("parameters").fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!((&types[0], &types[2], &types[3]), (&DataType::Utf8, &DataType::Int64, &DataType::Float64));
    let given: [(&str, ArrayRef); 5] = [
        ("1", Arc::new(StringArray::from(vec!["d", "e"]))),
        ("2", Arc::new(StringArray::from(vec!["dan", "dan"]))),
        ("3", Arc::new(Int64Array::from(vec![3, 3]))),
        ("4", Arc::new(arrow::array::Float64Array::from(vec![1.0, 2.0]))),
        ("5", Arc::new(StringArray::from(vec!["2024-05-01 10:01:00", "2024-05-01 10:02:00"]))),
    ];
    let Ok(Response::Done { counts: Some(counts), .. }) = insert.execute(Some(&RecordBatch::try_from_iter(given).expect("a batch"))).await
    else {
        panic!("counts")
    };
    assert_eq!((counts.read, counts.accepted), (2, 2));
    assert_eq!(rows(&client, "SELECT * FROM spend FOR ENTITY 'dan'").await, "dan|2|3.0|e");
}

#[tokio::test]
async fn errors_keep_their_text_and_their_carets() {
    let server = Server::new().await;
    let client = server.client().await;
    let e = refused(&client, "SELECT *\n  FROM spent FOR ENTITY 'ann'").await;
    assert_eq!(e.remedy, Remedy::Invalid);
    assert!(e.message.starts_with("error[E0201]: unknown feature view \"spent\"\n --> <sql>:2:8\n"), "{e}");
    assert!(e.message.contains("2 |   FROM spent FOR ENTITY 'ann'\n  |        ^^^^^") && e.message.contains("\"spend\""), "{e}");
    let prepared = client.prepare("SELECT * FROM nowhere").await.expect_err("no such table");
    assert!(prepared.message.contains("unknown table \"nowhere\""), "{prepared}");
    // A result that fails while it is computed.
    let late = refused(&client, "SELECT 1 / (shop - 1) FROM pay").await;
    assert!(late.message.to_lowercase().contains("divide by zero"), "{late}");
}

#[tokio::test]
async fn temporary_tables_belong_to_their_connection() {
    let server = Server::new().await;
    let (client, other) = (server.client().await, server.client().await);
    let spine: [(&str, ArrayRef); 2] = [
        ("u", Arc::new(StringArray::from(vec!["ann", "bob", "ann"]))),
        (
            "at",
            Arc::new(
                arrow::array::TimestampMicrosecondArray::from(vec![1_714_557_630_000_000, 1_714_557_630_000_000, 1_714_557_720_000_000])
                    .with_timezone("UTC"),
            ),
        ),
    ];
    let spine = RecordBatch::try_from_iter(spine).expect("a spine");
    assert_eq!(client.ingest("labels", vec![spine.clone()], IngestMode::Create, true).await.expect("ingested"), 3);
    let sql = "SELECT l.u, s.n FROM labels l ASOF JOIN spend s MATCH_CONDITION (l.at >= s.ts) ON l.u = s.u ORDER BY l.u, s.n";
    assert_eq!(rows(&client, sql).await, "ann|1\nann|2\nbob|1");
    assert!(refused(&other, sql).await.message.contains("unknown table \"labels\""));
    assert_eq!(
        client.ingest("labels", vec![spine.clone()], IngestMode::Create, true).await.expect_err("it exists").remedy,
        Remedy::Invalid
    );
    client.ingest("labels", vec![spine.clone()], IngestMode::Append, true).await.expect("appended");
    assert_eq!(rows(&client, "SELECT count(*) FROM labels").await, "6");
    client.ingest("labels", vec![spine.clone()], IngestMode::Replace, true).await.expect("replaced");
    assert_eq!(rows(&client, "SELECT count(*) FROM labels").await, "3");
    assert_eq!(
        client.ingest("pay", vec![spine.clone()], IngestMode::Create, true).await.expect_err("a stream's name").remedy,
        Remedy::Exists
    );
    assert!(client.ingest("nothing", vec![spine], IngestMode::Create, false).await.expect_err("no stream").message.contains("temporary"));
}
