//! Cost of the run alone, on one thread: appending, evaluating, memory.
//!
//! Estimate first: an append stores 24 bytes, adds one exact sum and one exact square (12 ns) and looks up a string
//! (20 ns): some 60 ns. An evaluation of 21 aggregates over three windows searches three bounds (60 ns), takes four
//! prefixes with short edges (200 ns), and rounds three sums, means and deviations (400 ns): under 1 us.
//!
//! Workload: Zipf 0.99 over 100,000 users and 5,000 merchants in 30 days, amounts of whole cents, one evaluation per ten
//! events at random times; seed 7. `cargo bench -p asof-udfs -- [millions of events] [batch]`, 10 by default.
//!
//! The check: evaluations of the batch shape and of the serving shape agree in every bit.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, StringViewArray};
use arrow::datatypes::DataType;
use asof_udfs::{Aggregate, Cell, Frame, Function, Instant, Output, Program, Rows, Run};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const USERS: usize = 100_000;
const MERCHANTS: usize = 5_000;
const HOUR: i64 = 3_600_000_000;
const SPAN: i64 = 30 * 24 * HOUR;

/// This thread's processor time where the system tells it (Linux, to some milliseconds), so that a busy machine does
/// not count; else nothing is measured.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// Numbers 0..n with probability proportional to 1 / (i + 1)^0.99.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize) -> Zipf {
        let mut sum = 0.0;
        let weights = (0..count).map(|i| {
            sum += 1.0 / ((i + 1) as f64).powf(0.99);
            sum
        });
        let cumulative: Vec<f64> = weights.collect();
        Zipf(cumulative.iter().map(|x| x / sum).collect())
    }

    fn draw(&self, rng: &mut impl Rng) -> usize {
        let x: f64 = rng.random();
        self.0.partition_point(|at| *at < x)
    }
}

/// A checksum of all bits given.
#[derive(Default)]
struct Sum(u64);

impl Output for Sum {
    fn cell(&mut self, slot: usize, cell: Cell<'_>) {
        let bits = match cell {
            Cell::Int(x) => x as u64,
            Cell::Float(x) => x.to_bits(),
            _ => 1,
        };
        self.0 = self.0.wrapping_mul(31).wrapping_add(bits ^ slot as u64);
    }

    fn list(&mut self, _: usize, _: &mut dyn Iterator<Item = Cell<'_>>) {}
}

fn windows_program() -> Program {
    let frames = vec![Frame::last(HOUR), Frame::last(24 * HOUR), Frame::last(7 * 24 * HOUR)];
    let mut aggregates = Vec::new();
    for frame in 0..3 {
        for function in
            [Function::CountAll, Function::Sum, Function::Avg, Function::Min, Function::Max, Function::StddevSamp, Function::CountDistinct]
        {
            let value = match function {
                Function::CountAll => None,
                Function::CountDistinct => Some(1),
                _ => Some(0),
            };
            aggregates.push(Aggregate { function, value, mask: None, frame });
        }
    }
    Program::try_new(vec![DataType::Float64, DataType::Utf8View], 0, false, frames, aggregates, None).expect("valid")
}

struct Events {
    /// Per user, ascending times: (time, amount, merchant).
    of_user: Vec<Vec<(i64, f64, u32)>>,
    names: Vec<String>,
}

fn generate(count: usize) -> Events {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (users, merchants) = (Zipf::new(USERS), Zipf::new(MERCHANTS));
    let mut of_user = vec![Vec::new(); USERS];
    for i in 0..count {
        let time = (i as i64 * (SPAN / 1000) / count as i64) * 1000 + rng.random_range(0..1000);
        let amount = f64::from(rng.random_range(100..50_000)) / 100.0;
        of_user[users.draw(&mut rng)].push((time, amount, merchants.draw(&mut rng) as u32));
    }
    of_user.iter_mut().for_each(|events| events.sort_by_key(|event| event.0));
    Events { of_user, names: (0..MERCHANTS).map(|i| format!("m{i:06}")).collect() }
}

fn rows(program: &Program, events: &[(i64, f64, u32)], names: &[String]) -> Rows {
    let amounts: ArrayRef = Arc::new(events.iter().map(|event| Some(event.1)).collect::<Float64Array>());
    let merchants: ArrayRef = Arc::new(events.iter().map(|event| Some(names[event.2 as usize].as_str())).collect::<StringViewArray>());
    Rows::try_new(program, events.iter().map(|event| event.0).collect(), None, vec![amounts, merchants], vec![]).expect("fits")
}

fn batch_and_serving(count: usize, batch_only: bool) {
    let program = windows_program();
    let events = generate(count);
    // Pieces of about 64 k events, as batch would cut them.
    let mut pieces: Vec<(Rows, Vec<std::ops::Range<usize>>)> = Vec::new();
    let mut at = 0;
    while at < USERS {
        let (mut flat, mut ranges) = (Vec::new(), Vec::new());
        while at < USERS && (flat.is_empty() || flat.len() + events.of_user[at].len() <= 65_536) {
            let start = flat.len();
            flat.extend_from_slice(&events.of_user[at]);
            ranges.push(start..flat.len());
            at += 1;
        }
        pieces.push((rows(&program, &flat, &events.names), ranges));
    }
    let labels = |user: &std::ops::Range<usize>, rows: &Rows, rng: &mut ChaCha8Rng| {
        let mut times = Vec::new();
        for row in user.clone() {
            if rng.random_range(0..10) == 0 {
                times.push(rows.time(row) + rng.random_range(0..HOUR));
            }
        }
        times.sort_unstable();
        times
    };

    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let at: Vec<Vec<Vec<i64>>> =
        pieces.iter().map(|(rows, users)| users.iter().map(|user| labels(user, rows, &mut rng)).collect()).collect();
    let mut run = Run::scratch();
    let (mut sum, mut evaluations) = (Sum::default(), 0);
    let started = processor_time();
    for ((rows, users), labels) in pieces.iter().zip(&at) {
        for (user, labels) in users.iter().zip(labels) {
            run.clear(&program);
            let mut next = user.start;
            for label in labels {
                while next < user.end && rows.time(next) <= *label {
                    let _ = run.insert(&program, rows, next);
                    next += 1;
                }
                program.evaluate(Some(&run), Instant::inclusive(*label), &mut sum);
                evaluations += 1;
            }
        }
    }
    let total = processor_time() - started;
    println!("batch: {count} events, {evaluations} evaluations of 21 aggregates: {:.2} s, sum {:016x}", total.as_secs_f64(), sum.0);
    // The two costs apart: appends alone, then evaluations are the rest.
    let started = processor_time();
    for (rows, users) in &pieces {
        for user in users {
            run.clear(&program);
            for row in user.clone() {
                let _ = run.insert(&program, rows, row);
            }
        }
    }
    let appended = processor_time() - started;
    println!(
        "  append {} ns/event, evaluate about {} ns",
        appended.as_nanos() / count as u128,
        total.saturating_sub(appended).as_nanos() / evaluations as u128
    );

    if batch_only {
        return;
    }
    let mut runs: Vec<Run> = (0..USERS).map(|_| Run::new()).collect();
    let started = processor_time();
    let mut user_index = 0;
    for (rows, users) in &pieces {
        for user in users {
            for row in user.clone() {
                let _ = runs[user_index].insert(&program, rows, row);
            }
            user_index += 1;
        }
    }
    let appended = processor_time() - started;
    let bytes: usize = runs.iter().map(Run::memory_bytes).sum();
    println!("serving: append {} ns/event, {:.1} bytes/event in all", appended.as_nanos() / count as u128, bytes as f64 / count as f64);
    // The same labels again: whole runs, so instants before the last event; every bit as before.
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut check = Sum::default();
    let mut user_index = 0;
    for (rows, users) in &pieces {
        for user in users {
            if user.len() < 20_000 {
                for label in labels(user, rows, &mut rng) {
                    let mut one = Sum::default();
                    program.evaluate(Some(&runs[user_index]), Instant::inclusive(label), &mut one);
                    check.0 = check.0.wrapping_add(one.0);
                }
            } else {
                labels(user, rows, &mut rng);
            }
            user_index += 1;
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut expected = Sum::default();
    for (rows, users) in &pieces {
        for user in users {
            let labels = labels(user, rows, &mut rng);
            if user.len() >= 20_000 {
                continue;
            }
            run.clear(&program);
            let mut next = user.start;
            for label in labels {
                while next < user.end && rows.time(next) <= label {
                    let _ = run.insert(&program, rows, next);
                    next += 1;
                }
                let mut one = Sum::default();
                program.evaluate(Some(&run), Instant::inclusive(label), &mut one);
                expected.0 = expected.0.wrapping_add(one.0);
            }
        }
    }
    assert_eq!(check.0, expected.0, "serving and batch differ");

    // Look-ups at the end of the stream, by Zipf and uniformly.
    let zipf = Zipf::new(USERS);
    for (name, uniform) in [("zipf", false), ("uniform", true)] {
        let keys: Vec<usize> = (0..200_000).map(|_| if uniform { rng.random_range(0..USERS) } else { zipf.draw(&mut rng) }).collect();
        let mut times: Vec<u64> = Vec::with_capacity(keys.len());
        let started = processor_time();
        for key in &keys {
            let one = std::time::Instant::now();
            program.evaluate(Some(&runs[*key]), Instant::inclusive(SPAN + rng.random_range(0..HOUR)), &mut sum);
            times.push(one.elapsed().as_nanos() as u64);
        }
        let cpu = processor_time() - started;
        times.sort_unstable();
        let mean = cpu.as_nanos() / times.len() as u128;
        println!(
            "  look-up {name}: mean {mean} ns (processor), p50 {} ns, p99 {} ns (wall)",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }
}

/// Bytes of runs of three doubles: many small ones, and one large.
fn memory() {
    let frames = vec![Frame::last(HOUR), Frame::last(24 * HOUR)];
    let functions = [Function::Sum, Function::StddevSamp, Function::Min, Function::Max, Function::Count];
    let aggregates = (0..3)
        .flat_map(|value| functions.map(|function| Aggregate { function, value: Some(value), mask: None, frame: value % 2 }))
        .collect();
    let program = Program::try_new(vec![DataType::Float64; 3], 0, false, frames, aggregates, None).expect("valid");
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let count = 1_000_000;
    let column =
        |rng: &mut ChaCha8Rng| -> ArrayRef { Arc::new((0..count).map(|_| Some(rng.random_range(0.0..1000.0))).collect::<Float64Array>()) };
    let columns = vec![column(&mut rng), column(&mut rng), column(&mut rng)];
    let rows = Rows::try_new(&program, (0..count as i64).collect(), None, columns, vec![]).expect("fits");
    for (name, entities) in [("10 events each", count / 10), ("100", count / 100), ("1000", count / 1000), ("one run", 1)] {
        let mut runs: Vec<Run> = (0..entities).map(|_| Run::new()).collect();
        for row in 0..count {
            let at = if entities == 1 { 0 } else { rng.random_range(0..entities) };
            let _ = runs[at].insert(&program, &rows, row);
        }
        let bytes: usize = runs.iter().map(Run::memory_bytes).sum();
        let budget = 48 * count + 200 * entities;
        println!(
            "memory: {name}: {:.1} bytes/event, {:.0} % of 48 an event and 200 an entity (map slot and key apart)",
            bytes as f64 / count as f64,
            100.0 * bytes as f64 / budget as f64
        );
    }
}

fn main() {
    let millions = std::env::args().filter_map(|arg| arg.parse::<f64>().ok()).next().unwrap_or(10.0);
    let batch_only = std::env::args().any(|arg| arg == "batch");
    if !batch_only {
        memory();
    }
    batch_and_serving((millions * 1e6) as usize, batch_only);
}
