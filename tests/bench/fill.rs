//! What is measured over: one stream, a view of 20 features and one of 50, and what both must answer, by the batch path.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightClient, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use tonic::transport::Channel;

use super::Result;
use super::flight::{channel, save_answers};
use super::world::{DAY_US, START_US, World, Zipf, below, chance, view};

const ROWS: usize = 50_000;

const STREAM: &str = "CREATE STREAM events (
  user_id VARCHAR NOT NULL, amount DOUBLE, balance DOUBLE, merchant BIGINT, ts TIMESTAMP NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
)";

/// Counts, sums, means, extremes, spreads and distinct counts over an hour, a day and a week.
const TWENTY: &str = "CREATE FEATURE VIEW spend20 ENTITY (user_id) WITH (look_back = '1 day') AS
SELECT count(*) OVER hour AS f0, sum(amount) OVER hour AS f1, avg(amount) OVER hour AS f2, max(amount) OVER hour AS f3,
       stddev_samp(amount) OVER hour AS f4, count(DISTINCT merchant) OVER hour AS f5,
       count(*) OVER day AS f6, sum(amount) OVER day AS f7, avg(balance) OVER day AS f8, max(amount) OVER day AS f9,
       stddev_samp(amount) OVER day AS f10, count(DISTINCT merchant) OVER day AS f11, min(balance) OVER day AS f12,
       count(*) OVER week AS f13, sum(amount) OVER week AS f14, avg(balance) OVER week AS f15, max(amount) OVER week AS f16,
       stddev_samp(amount) OVER week AS f17, count(DISTINCT merchant) OVER week AS f18, min(balance) OVER week AS f19
FROM events
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING), day AS (RANGE INTERVAL '24 hours' PRECEDING), week AS (RANGE INTERVAL '7 days' PRECEDING)";

/// Fifty doubles, as the peers hold them: ten aggregates over five windows.
fn fifty() -> String {
    let windows = [("hour", "1 hour"), ("shift", "8 hours"), ("day", "24 hours"), ("half", "3 days"), ("week", "7 days")];
    let aggregates = [
        "CAST(count(*) OVER {w} AS DOUBLE)",
        "sum(amount) OVER {w}",
        "avg(amount) OVER {w}",
        "min(amount) OVER {w}",
        "max(amount) OVER {w}",
        "stddev_samp(amount) OVER {w}",
        "sum(balance) OVER {w}",
        "avg(balance) OVER {w}",
        "min(balance) OVER {w}",
        "max(balance) OVER {w}",
    ];
    let mut features = vec![];
    for (window, _) in windows {
        for aggregate in aggregates {
            features.push(format!("{} AS f{}", aggregate.replace("{w}", window), features.len() + 1));
        }
    }
    let frames: Vec<String> = windows.iter().map(|(w, length)| format!("{w} AS (RANGE INTERVAL '{length}' PRECEDING)")).collect();
    format!(
        "CREATE FEATURE VIEW spend50 ENTITY (user_id) WITH (look_back = '1 day') AS SELECT {} FROM events WINDOW {}",
        features.join(", "),
        frames.join(", ")
    )
}

pub(crate) async fn run(dir: &Path, asof: &str, entities: usize, events: usize) -> Result<()> {
    if events < entities {
        return Err("every entity has an event: --events is at least --entities".into());
    }
    std::fs::create_dir_all(dir)?;
    let channel = channel(asof).await?;
    let mut sql = FlightSqlServiceClient::new(channel.clone());
    for statement in [STREAM, TWENTY, &fifty()] {
        sql.execute_update(statement.to_owned(), None).await?;
    }
    let begun = std::time::Instant::now();
    let accepted = put(channel, entities, events).await?;
    println!("fill: {accepted} events of {entities} entities in {:.1} s", begun.elapsed().as_secs_f64());
    let instant = "2024-01-08 00:00:00";
    std::fs::write(dir.join("instant"), instant)?;
    for count in [20, 50] {
        let name = view(count);
        let values = train(&mut sql, &name, &features(count), instant).await?;
        if values.num_rows() != entities {
            return Err(format!("training answered {} rows of {entities}", values.num_rows()).into());
        }
        let mut writer = arrow::ipc::writer::FileWriter::try_new(File::create(dir.join(format!("{name}.arrow")))?, &values.schema())?;
        writer.write(&values)?;
        writer.finish()?;
    }
    save_answers(asof, &World::read(dir, 50)?).await?;
    println!("fill: what must be answered is in {}", dir.display());
    Ok(())
}

/// Writes the events, a week of them, in order of time; gives how many were accepted.
async fn put(channel: Channel, entities: usize, events: usize) -> Result<u64> {
    let mut rng = chance(2);
    let zipf = Zipf::new(entities, &mut rng);
    let step = (7 * DAY_US / events as i64).max(1);
    let mut accepted = 0;
    let mut client = FlightClient::new(channel);
    for first in (0..events).step_by(ROWS) {
        let rows = first..(first + ROWS).min(events);
        let count = rows.len() as u64;
        let users = rows.clone().map(|i| if i < entities { i as u32 } else { zipf.draw(&mut rng) });
        let users: ArrayRef = Arc::new(StringArray::from_iter_values(users.map(|u| format!("u{u}"))));
        let amounts: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| below(&mut rng, 1_000_000) as f64 / 100.0)));
        let balances: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| below(&mut rng, 1_000_000) as f64 / 100.0)));
        let merchants: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| below(&mut rng, 5_000) as i64)));
        let times = TimestampMicrosecondArray::from_iter_values(rows.map(|i| START_US + i as i64 * step)).with_timezone("UTC");
        let batch = RecordBatch::try_from_iter([
            ("user_id", users),
            ("amount", amounts),
            ("balance", balances),
            ("merchant", merchants),
            ("ts", Arc::new(times) as ArrayRef),
        ])?;
        let messages = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["events".into()])))
            .build(futures::stream::once(async { Ok::<_, FlightError>(batch) }));
        let mut answers = client.do_put(messages).await?;
        let mut taken = 0;
        while let Some(answer) = answers.next().await {
            let counts: serde_json::Value = serde_json::from_slice(&answer?.app_metadata)?;
            taken += counts["accepted"].as_u64().unwrap_or(0);
        }
        if taken != count {
            return Err(format!("{taken} of {count} events were accepted").into());
        }
        accepted += taken;
    }
    Ok(accepted)
}

/// The names of a view's features.
pub(crate) fn features(count: usize) -> Vec<String> {
    let first = if count == 20 { 0 } else { 1 };
    (first..first + count).map(|i| format!("f{i}")).collect()
}

/// Every entity's features at the instant, by the batch path.
pub(crate) fn training(view: &str, features: &[String], instant: &str) -> String {
    format!(
        "SELECT l.user_id, v.{} FROM (SELECT DISTINCT user_id, TIMESTAMP '{instant}' AS at FROM events) l
         ASOF JOIN {view} v MATCH_CONDITION (l.at >= v.ts) ON l.user_id = v.user_id",
        features.join(", v.")
    )
}

async fn train(sql: &mut FlightSqlServiceClient<Channel>, view: &str, features: &[String], instant: &str) -> Result<RecordBatch> {
    let info = sql.execute(training(view, features, instant), None).await?;
    let mut batches = vec![];
    for endpoint in info.endpoint {
        let stream = sql.do_get(endpoint.ticket.ok_or("an endpoint without a ticket")?).await?;
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    let schema = batches.first().ok_or("training answered nothing")?.schema();
    let all = concat_batches(&schema, &batches)?;
    // One kind of string in the file, whatever the server sends.
    let mut columns: Vec<(String, ArrayRef)> =
        schema.fields().iter().map(|f| f.name().clone()).zip(all.columns().iter().cloned()).collect();
    columns[0].1 = cast(&columns[0].1, &DataType::Utf8)?;
    let sorted = arrow::compute::sort_to_indices(&columns[0].1, None, None)?;
    for (_, column) in &mut columns {
        *column = arrow::compute::take(column, &sorted, None)?;
    }
    if columns[0].1.null_count() > 0 {
        return Err("training answered an entity that is NULL".into());
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}
