//! The offline jobs: history written by our own ingestion, one training query, the result in memory as Arrow.

use std::path::PathBuf;
use std::time::Instant as Wall;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use asof::{Engine, Output};

use super::{Result, peak_mb};

const DEFINITIONS: &str = "
CREATE STREAM events (
  event_id BIGINT, user_id VARCHAR NOT NULL, merchant_id VARCHAR, amount DOUBLE, status VARCHAR, ts TIMESTAMP NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
)";
const WINDOWS: [(&str, u32); 3] = [("1h", 1), ("24h", 24), ("7d", 168)];
const AGGREGATES: [(&str, &str); 7] = [
    ("cnt", "count(amount)"),
    ("sum", "sum(amount)"),
    ("avg", "avg(amount)"),
    ("min", "min(amount)"),
    ("max", "max(amount)"),
    ("std", "stddev_samp(amount)"),
    ("dm", "count(DISTINCT merchant_id)"),
];

fn home() -> PathBuf {
    let cache = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/asof-bench");
    std::env::var_os("ASOF_BENCH").map_or_else(cache, PathBuf::from)
}

async fn open(events: usize) -> Result<Engine> {
    let warehouse = home().join(format!("warehouse_{events}"));
    Ok(Engine::builder().warehouse(warehouse.to_string_lossy()).build().await?)
}

/// Writes history and defines the view; what was there is replaced.
pub(crate) async fn load(events: usize) -> Result<()> {
    let warehouse = home().join(format!("warehouse_{events}"));
    if warehouse.exists() {
        std::fs::remove_dir_all(&warehouse)?;
    }
    std::fs::create_dir_all(home())?;
    let engine = open(events).await?;
    engine.execute(DEFINITIONS, &[]).await?;
    let begun = Wall::now();
    let file = home().join(format!("data/events_{events}.parquet"));
    let copied = engine.execute(&format!("COPY events FROM '{}' (FORMAT parquet)", file.display()), &[]).await?.pop();
    let seconds = begun.elapsed().as_secs_f64();
    match copied {
        Some(Output::Done { counts: Some(counts), .. }) if counts.accepted == events as u64 => {}
        other => return Err(format!("COPY of {events} events answered {other:?}").into()),
    }
    let features: Vec<String> =
        WINDOWS.iter().flat_map(|(w, _)| AGGREGATES.iter().map(move |(name, call)| format!("{call} OVER w{w} AS {name}_{w}"))).collect();
    let windows: Vec<String> = WINDOWS.iter().map(|(w, hours)| format!("w{w} AS (RANGE INTERVAL '{hours} hours' PRECEDING)")).collect();
    let view =
        format!("CREATE FEATURE VIEW rolling ENTITY (user_id) AS SELECT {} FROM events WINDOW {}", features.join(", "), windows.join(", "));
    engine.execute(&view, &[]).await?;
    engine.close().await?;
    let rate = events as f64 / seconds;
    println!(
        "{{\"peer\": \"asof\", \"job\": \"load\", \"events\": {events}, \"secs\": {seconds:.3}, \"events_per_s\": {rate:.0}, \"peak_mb\": {}}}",
        peak_mb()
    );
    Ok(())
}

pub(crate) async fn run(job: &str, events: usize, labels: usize) -> Result<()> {
    let engine = open(events).await?;
    let file = home().join(format!("data/labels_{labels}.parquet"));
    engine
        .execute(&format!("CREATE EXTERNAL TABLE IF NOT EXISTS labels_{labels} STORED AS PARQUET LOCATION '{}'", file.display()), &[])
        .await?;
    let sql = if job == "roll" {
        let features: Vec<String> =
            WINDOWS.iter().flat_map(|(w, _)| AGGREGATES.iter().map(move |(name, _)| format!("u.{name}_{w}"))).collect();
        format!(
            "SELECT l.label_id, {} FROM labels_{labels} l ASOF JOIN rolling u MATCH_CONDITION (l.ts >= u.ts) ON l.user_id = u.user_id",
            features.join(", ")
        )
    } else {
        let recent = |column: &str, name: &str| format!("CASE WHEN e.ts >= l.ts - INTERVAL '7 days' THEN e.{column} END AS {name}");
        let columns = ["event_id", "amount", "merchant_id", "status"].map(|c| recent(c, c)).join(", ");
        format!(
            "SELECT l.label_id, {columns}, {} FROM labels_{labels} l ASOF JOIN events e MATCH_CONDITION (l.ts >= e.ts) ON l.user_id = e.user_id",
            recent("ts", "ets")
        )
    };
    let begun = Wall::now();
    let answer = engine.execute(&sql, &[]).await?.pop();
    let seconds = begun.elapsed().as_secs_f64();
    let peak = peak_mb();
    let Some(Output::Rows { batches, .. }) = answer else {
        return Err("the training query answered no rows".into());
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let names: Vec<String> = if job == "roll" {
        WINDOWS.iter().flat_map(|(w, _)| ["cnt", "sum", "max", "std", "dm"].map(|n| format!("{n}_{w}"))).collect()
    } else {
        vec!["event_id".into(), "amount".into()]
    };
    let mut sums = Vec::new();
    for name in &names {
        sums.push(format!("\"{name}\": {}", digits(total(&batches, name)?)));
    }
    println!(
        "{{\"peer\": \"asof\", \"job\": \"{job}\", \"events\": {events}, \"labels\": {labels}, \"rows\": {rows}, \"secs\": {seconds:.3}, \
         \"peak_mb\": {peak}, \"check\": {{{}}}}}",
        sums.join(", ")
    );
    engine.close().await?;
    Ok(())
}

/// The sum of a column's finite values.
fn total(batches: &[RecordBatch], name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for batch in batches {
        let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
        let column = cast(column, &DataType::Float64)?;
        let column = arrow::array::AsArray::as_primitive::<Float64Type>(&column).clone();
        sum += column.iter().flatten().filter(|v| v.is_finite()).sum::<f64>();
    }
    Ok(sum)
}

/// A number with eight significant digits, as JSON.
fn digits(value: f64) -> f64 {
    format!("{value:.7e}").parse().unwrap_or(value)
}
