//! Benchmarks with checked answers: ingestion, look-ups, and the two offline jobs that `benches/peers/run.sh` puts beside DuckDB and Polars.
//!
//! | job | estimate on one core, from the cost of each stage | target |
//! | --- | --- | --- |
//! | ingest | a line: JSON 0.55 µs, deduplicate 0.17, Parquet 0.45, index 0.55 to 0.86: 1.7 to 2.0 µs, so 0.5 to 0.6 M/s, 0.9 M/s on two | 0.7 M/s |
//! | lookup | 20 features, three windows, Zipf: 3.5 µs mean, 6.6 µs p99 | p99 10 µs |
//! | lookup, state | an event: time, three columns, distinct 44 bytes; an entity 95 bytes | 48 and 200 |
//! | recover | 23 bytes an event; 10 M events of 1 M entities decoded in 1.5 s of work | 5 s |
//! | roll | an event: decode 76 ns, partition and sort 76, sweep 167: 3.2 s for 10 M, and 4.4 s for the one-thread floor | a twentieth of DuckDB |
//! | asof | an event: decode 76 ns, its slot some 50: 1.3 s for 10 M on one thread | two thirds of the fastest peer |
//!
//! Keys follow Zipf's law with exponent 0.99. Events of `ingest` arrive up to 30 s out of order, 1 % of them a second time, none late; `lookup` has
//! every entity once and then Zipf; the offline jobs read what `benches/peers/gen.py` makes. The seed is 7 everywhere.
//!
//! ```text
//! asof ingest [EVENTS] [RUNS]          JSON lines into history and the online state of eight features, by COPY and by push
//! asof lookup [EVENTS] [ENTITIES]      20 features of one entity in process: latency and memory
//! asof recover [EVENTS] [ENTITIES]     the same state after a restart: from a checkpoint and from history
//! asof load EVENTS                     the offline jobs' history from $ASOF_BENCH/data/events_EVENTS.parquet, by COPY
//! asof roll|asof EVENTS LABELS         an offline job; prints one JSON line as benches/peers/j3.py does
//! ```

mod data;
mod ingest;
mod lookup;
mod offline;
mod recover;

use std::process::ExitCode;

/// What a benchmark fails with: it has nobody to recover.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` appends `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<()> {
    let number = |place: usize, otherwise: usize| words.get(place).map_or(Ok(otherwise), |w| w.replace('_', "").parse());
    match words.first().map(String::as_str) {
        None => {
            ingest::run(1_000_000, 3).await?;
            lookup::run(1_000_000, 100_000).await
        }
        Some("ingest") => ingest::run(number(1, 3_000_000)?, number(2, 3)?).await,
        Some("lookup") => lookup::run(number(1, 10_000_000)?, number(2, 1_000_000)?).await,
        Some("recover") => recover::run(number(1, 10_000_000)?, number(2, 1_000_000)?).await,
        Some("load") => offline::load(number(1, 1_000_000)?).await,
        Some(job @ ("roll" | "asof")) => offline::run(job, number(1, 1_000_000)?, number(2, 100_000)?).await,
        Some(other) => Err(format!("no benchmark \"{other}\": ingest, lookup, recover, load, roll, asof").into()),
    }
}

/// The most memory this process has held, MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    peak.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
