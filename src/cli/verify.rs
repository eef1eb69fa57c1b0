//! `asof verify`: the online state against the batch plan, and an exit code that says whether a bit differed.

use std::io::{self, Write};

use super::args;
use super::exit::{Code, Failure, say};
use super::interrupt::or_interrupt;
use super::progress::Progress;
use super::sql::{CLOSE_TIMEOUT, close};
use crate::verify::{VerifyOptions, VerifyReport};

/// Runs `asof verify`.
pub(super) async fn run(warehouse: &str, options: args::VerifyOptions) -> Result<Code, Failure> {
    let progress = Progress::new();
    let engine = super::open(warehouse, &progress).await?;
    progress.begin("verify");
    let verified = or_interrupt(engine.verify(engine_options(options))).await;
    progress.end();
    let closed = close(engine, CLOSE_TIMEOUT).await;
    let report = verified??;
    writeln!(io::stdout().lock(), "{}", report.to_string().trim_end()).map_err(Failure::Output)?;
    if report.pairs == 0 {
        say("note: no entity has an event, so nothing was compared");
    }
    closed?;
    Ok(code(&report))
}

fn engine_options(given: args::VerifyOptions) -> VerifyOptions {
    let mut options = VerifyOptions { view: given.view, ..VerifyOptions::default() };
    options.sample = given.sample.unwrap_or(options.sample);
    options.seed = given.seed.unwrap_or(options.seed);
    options.checkpoints = given.checkpoints.map_or(options.checkpoints, |n| n as usize);
    options.instants_per_entity = given.instants.map_or(options.instants_per_entity, |n| n as usize);
    options
}

fn code(report: &VerifyReport) -> Code {
    if report.differing_bits == 0 && report.differences.is_empty() { Code::Done } else { Code::Difference }
}
