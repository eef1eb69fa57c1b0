//! The table.

use super::drive::{Load, Pace, Tally};

pub(crate) fn head() {
    println!(
        "| what | features | entities a request | load | connections | requests/s | vectors/s | p50 ms | p99 ms | p99.9 ms | greatest ms | wrong | target |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
}

/// Prints a line; whether the target was met and every answer right.
#[expect(clippy::too_many_arguments, reason = "a line of a table has its columns")]
pub(crate) fn line(
    name: &str,
    features: usize,
    batch: usize,
    connections: usize,
    load: Load,
    tally: &Tally,
    trained: Option<u64>,
    target: (Option<f64>, Option<f64>),
) -> bool {
    let ms = |q: f64| tally.latency.value_at_quantile(q) as f64 / 1e6;
    let reached = tally.answers as f64 / tally.seconds;
    let vectors = reached * batch as f64;
    let how = match load.pace {
        Pace::Open { rate } => format!("open {rate:.0}/s"),
        Pace::Closed { depth } => format!("closed, {depth} each"),
    };
    let unanswered = tally.due.saturating_sub(tally.answers);
    let mut met = tally.wrong == 0 && tally.answers > 0 && unanswered <= tally.due / 1000;
    let mut wanted = vec![];
    if let Some(most) = target.0 {
        let good = ms(0.99) <= most;
        met &= good;
        wanted.push(format!("p99 {most} ms: {}", if good { "met" } else { "missed" }));
    }
    if let Some(least) = target.1 {
        let good = vectors >= least;
        met &= good;
        wanted.push(format!("{least:.0} vectors/s: {}", if good { "met" } else { "missed" }));
    }
    if let Some(rows) = trained {
        wanted.push(format!("{rows} training rows meanwhile"));
    }
    if unanswered > 0 {
        wanted.push(format!("{unanswered} unanswered"));
    }
    println!(
        "| {name} | {features} | {batch} | {how} | {connections} | {reached:.0} | {vectors:.0} | {:.3} | {:.3} | {:.3} | {:.3} | {} | {} |",
        ms(0.5),
        ms(0.99),
        ms(0.999),
        tally.latency.max() as f64 / 1e6,
        tally.wrong,
        wanted.join("; ")
    );
    met
}
