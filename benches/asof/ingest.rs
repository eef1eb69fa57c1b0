//! JSON lines into history on disk and the online state of a view of eight features.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant as Wall;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use asof::{Engine, IngestCounts, Output};

use super::data::{DAY_US, START_US, Zipf, below, chance};
use super::{Result, median, peak_mb};

const USERS: usize = 100_000;
const MERCHANTS: usize = 5_000;
const LATE_US: u64 = 30_000_000;
const HOUR_US: i64 = DAY_US / 24;
/// Lines of one push.
const PUSH_LINES: usize = 50_000;

const DEFINITIONS: &str = "
CREATE STREAM events (
  event_id BIGINT, user_id VARCHAR NOT NULL, merchant_id VARCHAR NOT NULL, amount DOUBLE, status VARCHAR, ts TIMESTAMP NOT NULL,
  PRIMARY KEY (event_id), WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
) WITH (time_unit = 'us');
CREATE FEATURE VIEW activity ENTITY (user_id) AS
SELECT count(*) OVER hour AS cnt_1h, count(*) OVER day AS cnt_24h, sum(amount) OVER hour AS sum_1h, sum(amount) OVER day AS sum_24h,
       avg(amount) OVER day AS avg_24h, max(amount) OVER day AS max_24h,
       count(*) FILTER (WHERE status = 'declined') OVER day AS declined_24h, count(DISTINCT merchant_id) OVER day AS merchants_24h
FROM events
WINDOW hour AS (RANGE INTERVAL '1 hour' PRECEDING), day AS (RANGE INTERVAL '24 hours' PRECEDING);";

/// What one user's last day comes to.
#[derive(Debug, Default)]
struct Recount {
    counts: [i64; 4],
    sums: [f64; 2],
    max: f64,
}

struct Lines {
    text: Vec<u8>,
    lines: usize,
    copies: usize,
    last_us: i64,
    user: u32,
    recount: Recount,
}

/// Events in the order in which they arrive, and the recount of the user of the last one.
fn lines(events: usize) -> Lines {
    struct Event {
        arrival: i64,
        id: usize,
        ts: i64,
        user: u32,
        merchant: u32,
        cents: u64,
        status: &'static str,
    }
    let mut rng = chance(1);
    let (users, merchants) = (Zipf::new(USERS, &mut rng), Zipf::new(MERCHANTS, &mut rng));
    let step = (2 * DAY_US / events as i64).max(1) as u64;
    let mut made: Vec<Event> = Vec::with_capacity(events + events / 64);
    let mut copies = 0;
    for id in 0..events {
        let ts = START_US + (id as u64 * step + below(&mut rng, step)) as i64;
        let arrival = ts + below(&mut rng, LATE_US) as i64;
        let status = match below(&mut rng, 100) {
            0..90 => "approved",
            90..97 => "declined",
            _ => "pending",
        };
        let cents = 100 + below(&mut rng, 1 << 16) * below(&mut rng, 1 << 16) / (1 << 17);
        let event = || Event { arrival, id, ts, user: 0, merchant: 0, cents, status };
        let (user, merchant) = (users.draw(&mut rng), merchants.draw(&mut rng));
        made.push(Event { user, merchant, ..event() });
        if below(&mut rng, 100) == 0 {
            copies += 1;
            let arrival = arrival + below(&mut rng, (ts + LATE_US as i64 - arrival) as u64) as i64;
            made.push(Event { arrival, user, merchant, ..event() });
        }
    }
    made.sort_by_key(|e| e.arrival);
    let last_us = made.iter().map(|e| e.ts).max().unwrap_or(START_US);
    let user = made.last().map_or(0, |e| e.user);
    let mut recount = Recount::default();
    let (mut seen, mut shops) = (BTreeSet::new(), BTreeSet::new());
    for e in made.iter().filter(|e| e.user == user && e.ts >= last_us - DAY_US) {
        if !seen.insert(e.id) {
            continue;
        }
        let amount = e.cents as f64 / 100.0;
        shops.insert(e.merchant);
        recount.counts[1] += 1;
        recount.sums[1] += amount;
        recount.max = recount.max.max(amount);
        recount.counts[2] += i64::from(e.status == "declined");
        if e.ts >= last_us - HOUR_US {
            recount.counts[0] += 1;
            recount.sums[0] += amount;
        }
    }
    recount.counts[3] = shops.len() as i64;
    let mut text = String::with_capacity(made.len() * 115);
    for Event { id, ts, user, merchant, cents, status, .. } in &made {
        let (whole, part) = (cents / 100, cents % 100);
        let _ = writeln!(
            text,
            "{{\"event_id\":{id},\"user_id\":\"u{user}\",\"merchant_id\":\"m{merchant}\",\"amount\":{whole}.{part:02},\"status\":\"{status}\",\"ts\":{ts}}}"
        );
    }
    Lines { text: text.into_bytes(), lines: made.len(), copies, last_us, user, recount }
}

pub(crate) async fn run(events: usize, runs: usize) -> Result<()> {
    let lines = lines(events);
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile()?;
    std::fs::write(file.path(), &lines.text)?;
    println!(
        "ingest: {} lines of {} bytes on average, {} of them copies",
        lines.lines,
        lines.text.len() / lines.lines.max(1),
        lines.copies
    );
    for way in ["copy", "push"] {
        let mut rates = Vec::new();
        for _ in 0..runs.max(1) {
            let warehouse = tempfile::tempdir()?;
            let engine = Engine::builder().warehouse(warehouse.path().to_string_lossy()).build().await?;
            engine.execute(DEFINITIONS, &[]).await?;
            engine.online("activity").await?;
            let begun = Wall::now();
            let counts =
                if way == "copy" { copy(&engine, &file.path().to_string_lossy()).await? } else { push(&engine, &lines.text).await? };
            let seconds = begun.elapsed().as_secs_f64();
            check(&engine, &lines, counts).await?;
            let (entities, held, bytes) = engine.online("activity").await?.size();
            println!("  {way}: {seconds:.2} s; online {held} events of {entities} entities in {} MB", bytes >> 20);
            rates.push(lines.lines as f64 / seconds);
            engine.close().await?;
        }
        let (least, most) = rates.iter().fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        println!("{way}: {:.0} events/s (median of {}, {least:.0} to {most:.0}), peak {} MB", median(&rates), rates.len(), peak_mb());
    }
    Ok(())
}

async fn copy(engine: &Engine, path: &str) -> Result<IngestCounts> {
    match engine.execute(&format!("COPY events FROM '{path}' (FORMAT json)"), &[]).await?.pop() {
        Some(Output::Done { counts: Some(counts), .. }) => Ok(counts),
        other => Err(format!("COPY answered {other:?}").into()),
    }
}

async fn push(engine: &Engine, text: &[u8]) -> Result<IngestCounts> {
    let mut total = IngestCounts::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr::memchr_iter(b'\n', rest).nth(PUSH_LINES - 1).map_or(rest.len(), |at| at + 1);
        let (now, later) = rest.split_at(end);
        let counts = engine.push_json("events", now, None).await?;
        total.read += counts.read;
        total.accepted += counts.accepted;
        total.duplicate += counts.duplicate;
        total.late += counts.late;
        total.rejected += counts.rejected;
        rest = later;
    }
    Ok(total)
}

async fn check(engine: &Engine, lines: &Lines, counts: IngestCounts) -> Result<()> {
    let expected = (lines.lines as u64, (lines.lines - lines.copies) as u64, lines.copies as u64, 0, 0);
    let found = (counts.read, counts.accepted, counts.duplicate, counts.late, counts.rejected);
    if expected != found {
        return Err(format!("read, accepted, duplicate, late, rejected: {found:?}, not {expected:?}").into());
    }
    let sql = format!(
        "SELECT cnt_1h, cnt_24h, declined_24h, merchants_24h, sum_1h, sum_24h, max_24h FROM activity \
         FOR ENTITY 'u{}' AS OF to_timestamp_micros({})",
        lines.user, lines.last_us
    );
    let Some(Output::Rows { batches, .. }) = engine.execute(&sql, &[]).await?.pop() else {
        return Err("the look-up answered no rows".into());
    };
    let row = batches.iter().find(|b| b.num_rows() > 0).ok_or("the look-up answered no row")?;
    let int = |c: usize| row.column(c).as_primitive::<Int64Type>().value(0);
    let float = |c: usize| row.column(c).as_primitive::<Float64Type>().value(0);
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
    let Recount { counts, sums, max } = &lines.recount;
    let same = (0..4).all(|i| int(i) == counts[i]) && near(float(4), sums[0]) && near(float(5), sums[1]) && float(6) == *max;
    if !same {
        return Err(format!("features of u{} are {row:?}, not {:?}", lines.user, lines.recount).into());
    }
    Ok(())
}
