//! Twenty features of one entity in process: latency over Zipf-chosen entities, and what the state takes.

use std::sync::Arc;
use std::time::Instant as Wall;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use asof::{Engine, Output};
use asof_udfs::{Instant, Value};
use parquet::arrow::ArrowWriter;

use super::data::{DAY_US, START_US, Zipf, below, chance};
use super::{Result, peak_mb};

const BATCH_ROWS: usize = 200_000;
const LOOKUPS: usize = 2_000_000;
const CHECKED: usize = 2_000;

/// Three numeric columns of an event are held; 20 features over three windows.
pub(crate) const DEFINITIONS: &str = "
CREATE STREAM events (
  user_id VARCHAR NOT NULL, amount DOUBLE, balance DOUBLE, merchant BIGINT, ts TIMESTAMP NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
);
CREATE FEATURE VIEW spend ENTITY (user_id) AS
SELECT count(*) OVER hour AS f0, sum(amount) OVER hour AS f1, avg(amount) OVER hour AS f2, max(amount) OVER hour AS f3,
       stddev_samp(amount) OVER hour AS f4, count(DISTINCT merchant) OVER hour AS f5,
       count(*) OVER day AS f6, sum(amount) OVER day AS f7, avg(balance) OVER day AS f8, max(amount) OVER day AS f9,
       stddev_samp(amount) OVER day AS f10, count(DISTINCT merchant) OVER day AS f11, min(balance) OVER day AS f12,
       count(*) OVER week AS f13, sum(amount) OVER week AS f14, avg(balance) OVER week AS f15, max(amount) OVER week AS f16,
       stddev_samp(amount) OVER week AS f17, count(DISTINCT merchant) OVER week AS f18, min(balance) OVER week AS f19
FROM events
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING), day AS (RANGE INTERVAL '24 hours' PRECEDING), week AS (RANGE INTERVAL '7 days' PRECEDING);";

pub(crate) async fn run(events: usize, entities: usize) -> Result<()> {
    let warehouse = tempfile::tempdir()?;
    let engine = Engine::builder().warehouse(warehouse.path().to_string_lossy()).build().await?;
    engine.execute(DEFINITIONS, &[]).await?;
    let online = engine.online("spend").await?;

    // Every entity once, then by Zipf's law; all of it within the longest window, so that nothing is evicted.
    let mut rng = chance(2);
    let zipf = Zipf::new(entities, &mut rng);
    let step = (7 * DAY_US / events as i64).max(1);
    let mut alone = 0;
    let begun = Wall::now();
    let mut first = 0;
    while first < events {
        if first == entities {
            alone = online.size().2;
        }
        let end = if first < entities { entities.min(events) } else { events };
        let rows = first..(first + BATCH_ROWS).min(end);
        first = rows.end;
        let users = rows.clone().map(|i| if i < entities { i as u32 } else { zipf.draw(&mut rng) });
        let users: ArrayRef = Arc::new(StringViewArray::from_iter_values(users.map(|u| format!("u{u}"))));
        let money = |rng: &mut _| below(rng, 1_000_000) as f64 / 100.0;
        let amounts: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| money(&mut rng))));
        let balances: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| money(&mut rng))));
        let merchants: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| below(&mut rng, 5_000) as i64)));
        let times = TimestampMicrosecondArray::from_iter_values(rows.map(|i| START_US + i as i64 * step)).with_timezone("UTC");
        let batch = RecordBatch::try_from_iter([
            ("user_id", users),
            ("amount", amounts),
            ("balance", balances),
            ("merchant", merchants),
            ("ts", Arc::new(times) as ArrayRef),
        ])?;
        engine.push_batch("events", batch, None).await?;
    }
    let loaded = begun.elapsed().as_secs_f64();
    let (held_entities, held, bytes) = online.size();
    if (held_entities, held) != (entities, events) {
        return Err(format!("{held} events of {held_entities} entities are held, not {events} of {entities}").into());
    }
    println!("lookup: {events} events of {entities} entities, pushed in {loaded:.1} s ({:.0} events/s)", events as f64 / loaded);
    println!("  state {} MB, {:.1} bytes an event in all; process peak {} MB", bytes >> 20, bytes as f64 / events as f64, peak_mb());
    if alone > 0 && events > entities {
        let more = (bytes - alone) as f64 / (events - entities) as f64;
        println!("  an entity with one event {:.1} bytes; each further event {more:.1} bytes", alone as f64 / entities as f64);
    }
    println!("  48 bytes an event and 200 an entity would be {} MB", (48 * events + 200 * entities) >> 20);

    let at = Instant { at: START_US + events as i64 * step, strict: false };
    let keys: Vec<String> = (0..LOOKUPS).map(|_| format!("u{}", zipf.draw(&mut rng))).collect();
    let mut out: [Value; 20] = std::array::from_fn(|_| Value::Null);
    let mut took = Vec::with_capacity(LOOKUPS);
    let begun = Wall::now();
    for key in &keys {
        let asked = Wall::now();
        online.aggregates(Some(key.as_bytes()), at, &mut out);
        took.push(asked.elapsed().as_nanos() as u64);
    }
    let all = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let part = |p: f64| took[((took.len() - 1) as f64 * p) as usize] as f64 / 1_000.0;
    println!(
        "lookup: {:.0} a second; p50 {:.2} us, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, greatest {:.1}",
        LOOKUPS as f64 / all,
        part(0.5),
        part(0.9),
        part(0.99),
        part(0.999),
        part(1.0)
    );
    check(&engine, &online, &keys[..CHECKED], at).await?;
    engine.close().await?;
    Ok(())
}

/// The same entities and instant by the batch path: every bit.
async fn check(engine: &Engine, online: &asof::op::window::stream::OnlineView, keys: &[String], at: Instant) -> Result<()> {
    let spine = tempfile::Builder::new().suffix(".parquet").tempfile()?;
    let n = keys.len();
    let times = TimestampMicrosecondArray::from_value(at.at, n).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..n as i64)) as ArrayRef),
        ("user_id", Arc::new(StringViewArray::from_iter_values(keys)) as ArrayRef),
        ("ts", Arc::new(times) as ArrayRef),
    ])?;
    let mut writer = ArrowWriter::try_new(spine.reopen()?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    let features: Vec<String> = (0..20).map(|i| format!("v.f{i}")).collect();
    let sql = format!(
        "CREATE EXTERNAL TABLE spine STORED AS PARQUET LOCATION '{}';
         SELECT l.id, {} FROM spine l ASOF JOIN spend v MATCH_CONDITION (l.ts >= v.ts) ON l.user_id = v.user_id",
        spine.path().display(),
        features.join(", ")
    );
    let Some(Output::Rows { batches, .. }) = engine.execute(&sql, &[]).await?.pop() else {
        return Err("the training query answered no rows".into());
    };
    let mut rows = 0;
    let mut out: [Value; 20] = std::array::from_fn(|_| Value::Null);
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let key = &keys[batch.column(0).as_primitive::<Int64Type>().value(row) as usize];
            online.aggregates(Some(key.as_bytes()), at, &mut out);
            for (value, column) in out.iter().zip(&batch.columns()[1..]) {
                let same = match (value, column.data_type()) {
                    (Value::Null, _) => column.is_null(row),
                    (Value::Int(x), DataType::Int64) => column.is_valid(row) && column.as_primitive::<Int64Type>().value(row) == *x,
                    (Value::Float(x), DataType::Float64) => {
                        column.is_valid(row) && column.as_primitive::<Float64Type>().value(row).to_bits() == x.to_bits()
                    }
                    _ => false,
                };
                if !same {
                    return Err(format!("{key}: online {value:?} is not history's {:?}", column.slice(row, 1)).into());
                }
            }
            rows += 1;
        }
    }
    if rows != n {
        return Err(format!("{rows} rows of {n}").into());
    }
    println!("  {n} look-ups equal the batch path, bit for bit");
    Ok(())
}
