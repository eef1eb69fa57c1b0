//! A restart: the state of twenty features from a checkpoint, and from history, with every answer compared.
//!
//! Estimate for 10 M events of 1 M entities on two cores. An event takes 5 bytes of time, two doubles, a number of two bytes: 23; a key and
//! what belongs to an entity some 30: 260 MB. Decoding an event costs 5 ns a column and 45 ns for its mark of a distinct value, and the long
//! runs' partial results 100 ns more for two thirds of them; an entity two allocations and a probe, 0.3 us: 1.5 s of work, so 0.8 s on two
//! cores, and as much again for memory that is touched for the first time. From history it is what ingestion into the index costs, 0.8 us an
//! event on one thread, and Parquet: 10 s. Target: 5 s from a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant as Wall;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use asof::Engine;
use asof::op::window::stream::OnlineView;
use asof_udfs::{Instant, Value};

use super::data::{DAY_US, START_US, Zipf, below, chance};
use super::lookup::DEFINITIONS;
use super::{Result, peak_mb};

const BATCH_ROWS: usize = 200_000;
const CHECKED: usize = 200_000;

async fn open(warehouse: &Path) -> Result<Engine> {
    Ok(Engine::builder().warehouse(warehouse.to_string_lossy()).build().await?)
}

pub(crate) async fn run(events: usize, entities: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = open(folder.path()).await?;
    engine.execute(DEFINITIONS, &[]).await?;
    let online = engine.online("spend").await?;
    let mut rng = chance(3);
    let zipf = Zipf::new(entities, &mut rng);
    let step = (7 * DAY_US / events as i64).max(1);
    for first in (0..events).step_by(BATCH_ROWS) {
        let rows = first..(first + BATCH_ROWS).min(events);
        let users = rows.clone().map(|i| if i < entities { i as u32 } else { zipf.draw(&mut rng) });
        let users: ArrayRef = Arc::new(StringViewArray::from_iter_values(users.map(|u| format!("u{u}"))));
        let money = |rng: &mut _| below(rng, 1_000_000) as f64 / 100.0;
        let amounts: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| money(&mut rng))));
        let balances: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| money(&mut rng))));
        let merchants: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| below(&mut rng, 5_000) as i64)));
        let times = TimestampMicrosecondArray::from_iter_values(rows.map(|i| START_US + i as i64 * step)).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 5] =
            [("user_id", users), ("amount", amounts), ("balance", balances), ("merchant", merchants), ("ts", Arc::new(times) as ArrayRef)];
        engine.push_batch("events", RecordBatch::try_from_iter(columns)?, None).await?;
    }
    let (held_entities, held_events, bytes) = online.size();
    println!("recover: {held_events} events of {held_entities} entities in {} MB", bytes >> 20);
    engine.checkpoint("spend").await?;
    let taken = engine.checkpointed("spend").ok_or("no checkpoint was taken")?;
    let ms = |us: i64| us as f64 / 1e3;
    println!(
        "  checkpoint of {} MB: ingestion waited {:.0} ms, all took {:.0} ms; process peak {} MB",
        taken.bytes >> 20,
        ms(taken.held_us),
        ms(taken.took_us),
        peak_mb()
    );
    let at = Instant { at: START_US + events as i64 * step, strict: false };
    let expected = answers(&online, entities, at);
    drop(online);
    engine.close().await?;

    for (what, runs) in [("checkpoint", 3), ("history", 1)] {
        if what == "history" {
            std::fs::remove_dir_all(folder.path().join("checkpoints"))?;
        }
        for _ in 0..runs {
            let begun = Wall::now();
            let engine = open(folder.path()).await?;
            let online = engine.online("spend").await?;
            let all = begun.elapsed().as_secs_f64();
            let state = engine.begun("spend").ok_or("no state")?;
            if state.checkpoint.is_some() != (what == "checkpoint") || answers(&online, entities, at) != expected {
                return Err(format!("the state from {what} is another: {state:?}").into());
            }
            println!(
                "  from {what}: {:.2} s, {all:.2} s with the opening of the stream; {} MB held",
                ms(state.took_us) / 1e3,
                online.size().2 >> 20
            );
        }
    }
    println!("  {} look-ups each gave the same bits", CHECKED.min(entities));
    Ok(())
}

/// All features of some entities, as their bits.
fn answers(online: &OnlineView, entities: usize, at: Instant) -> Vec<u64> {
    let mut out: [Value; 20] = std::array::from_fn(|_| Value::Null);
    let mut bits = Vec::new();
    for i in 0..CHECKED.min(entities) {
        let key = format!("u{}", i * (entities / CHECKED.min(entities)));
        online.aggregates(Some(key.as_bytes()), at, &mut out);
        bits.extend(out.iter().map(|value| match value {
            Value::Int(x) => *x as u64,
            Value::Float(x) => x.to_bits(),
            _ => u64::MAX,
        }));
    }
    bits
}
