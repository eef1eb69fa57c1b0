//! Cost of twenty features of one entity among many: what a look-up in process pays beneath the index, cache misses included.
//!
//! Estimate first: three windows take two searches by time, four prefixes with their edges of up to 32 rows, three rounded
//! sums, means and deviations: 1 us where it is warm. A cold entity of some thousand rows waits for about forty lines of
//! memory at 0.1 us.
//!
//! Workload: every entity once, then by Zipf 0.99, 7 days in all; three numeric columns, windows of an hour, a day and a week;
//! asked by the same law at the end. Seed 7. `cargo bench -p asof-udfs --bench lookup -- [events] [entities]`, 10,000,000 of
//! 1,000,000 by default.

use std::sync::Arc;
use std::time::Instant as Wall;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use asof_udfs::{Aggregate, Frame, Function, Instant, Program, Rows, Run, Value};
use hashbrown::HashTable;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

const HOUR: i64 = 3_600_000_000;
const SPAN: i64 = 7 * 24 * HOUR;
const LOOKUPS: usize = 2_000_000;
const BATCH: usize = 200_000;

/// Numbers below n with probability proportional to 1 / (k + 1)^0.99, the frequent ones spread over the range.
struct Zipf {
    upto: Vec<f64>,
    ids: Vec<u32>,
}

impl Zipf {
    fn new(count: usize, rng: &mut impl Rng) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=count).map(|k| {
            sum += (k as f64).powf(-0.99);
            sum
        });
        let upto = weights.collect();
        let mut ids: Vec<u32> = (0..count as u32).collect();
        for i in (1..count).rev() {
            ids.swap(i, rng.random_range(0..=i));
        }
        Zipf { upto, ids }
    }

    fn draw(&self, rng: &mut impl Rng) -> u32 {
        let x = rng.random::<f64>() * self.upto.last().copied().unwrap_or(0.0);
        self.ids[self.upto.partition_point(|at| *at <= x).min(self.ids.len() - 1)]
    }
}

fn program() -> Program {
    let frames = vec![Frame::last(HOUR), Frame::last(24 * HOUR), Frame::last(7 * 24 * HOUR)];
    let (amount, balance, merchant) = (Some(0), Some(1), Some(2));
    let hour = [
        (Function::CountAll, None),
        (Function::Sum, amount),
        (Function::Avg, amount),
        (Function::Max, amount),
        (Function::StddevSamp, amount),
        (Function::CountDistinct, merchant),
    ];
    let longer = [
        (Function::CountAll, None),
        (Function::Sum, amount),
        (Function::Avg, balance),
        (Function::Max, amount),
        (Function::StddevSamp, amount),
        (Function::CountDistinct, merchant),
        (Function::Min, balance),
    ];
    let frame = |frame: usize, of: &[(Function, Option<usize>)]| -> Vec<Aggregate> {
        of.iter().map(|(function, value)| Aggregate { function: *function, value: *value, mask: None, frame }).collect()
    };
    let aggregates = [frame(0, &hour), frame(1, &longer), frame(2, &longer)].concat();
    let types = vec![DataType::Float64, DataType::Float64, DataType::Int64];
    Program::try_new(types, 0, false, frames, aggregates, None).expect("valid")
}

struct Entity {
    key: Box<str>,
    run: Run,
}

/// Runs by key, each in an allocation of its own, as the index holds them.
struct Index(Vec<HashTable<Box<Entity>>>);

impl Index {
    fn of(&mut self, key: &str) -> &mut Run {
        let hash = xxh3_64(key.as_bytes());
        let entry = self.0[(hash >> 58) as usize].entry(hash, |one| *one.key == *key, |one| xxh3_64(one.key.as_bytes()));
        &mut entry.or_insert_with(|| Box::new(Entity { key: key.into(), run: Run::new() })).into_mut().run
    }

    fn get(&self, key: &str) -> Option<&Run> {
        let hash = xxh3_64(key.as_bytes());
        self.0[(hash >> 58) as usize].find(hash, |one| *one.key == *key).map(|one| &one.run)
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<usize>().ok());
    let (events, entities) = (numbers.next().unwrap_or(10_000_000), numbers.next().unwrap_or(1_000_000));
    let program = program();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let zipf = Zipf::new(entities, &mut rng);
    let step = SPAN / events as i64;
    let mut index = Index((0..64).map(|_| HashTable::new()).collect());
    let begun = Wall::now();
    for first in (0..events).step_by(BATCH) {
        let batch = first..(first + BATCH).min(events);
        let mut users: Vec<(u32, u32)> =
            batch.clone().map(|i| (if i < entities { i as u32 } else { zipf.draw(&mut rng) }, (i - first) as u32)).collect();
        let mut money = || -> ArrayRef {
            Arc::new(batch.clone().map(|_| Some(f64::from(rng.random_range(0..1_000_000)) / 100.0)).collect::<Float64Array>())
        };
        let columns = vec![money(), money()];
        let merchants: ArrayRef = Arc::new(batch.clone().map(|_| Some(rng.random_range(0..5_000))).collect::<Int64Array>());
        let times = batch.clone().map(|i| i as i64 * step).collect();
        let rows = Rows::try_new(&program, times, None, [columns, vec![merchants]].concat(), vec![]).expect("fits");
        users.sort_unstable();
        for same in users.chunk_by(|a, b| a.0 == b.0) {
            let selection: Vec<u32> = same.iter().map(|(_, row)| *row).collect();
            let _ = index.of(&format!("u{}", same[0].0)).insert_many(&program, &rows, &selection);
        }
    }
    let bytes: usize = index.0.iter().flatten().map(|one| one.run.memory_bytes()).sum();
    println!("{events} events of {entities} entities in {:.1} s; runs {} MB", begun.elapsed().as_secs_f64(), bytes >> 20);

    let keys: Vec<String> = (0..LOOKUPS).map(|_| format!("u{}", zipf.draw(&mut rng))).collect();
    let mut out = vec![Value::Null; 20];
    let mut took: Vec<(u64, usize)> = Vec::with_capacity(LOOKUPS);
    let mut sum = 0u64;
    let begun = Wall::now();
    for key in &keys {
        let asked = Wall::now();
        let run = index.get(key);
        program.evaluate(run, Instant::inclusive(SPAN), &mut out);
        took.push((asked.elapsed().as_nanos() as u64, run.map_or(0, Run::len)));
        for value in &out {
            let bits = match value {
                Value::Int(x) => *x as u64,
                Value::Float(x) => x.to_bits(),
                _ => 1,
            };
            sum = sum.wrapping_mul(31).wrapping_add(bits);
        }
    }
    let all = begun.elapsed();
    println!("{:.0} look-ups a second, checksum {sum:016x}", LOOKUPS as f64 / all.as_secs_f64());
    report("all", took.iter().map(|one| one.0));
    for digits in 0..7 {
        let class = 10usize.pow(digits)..10usize.pow(digits + 1);
        let name = format!("{} to {} events", class.start, class.end);
        report(&name, took.iter().filter(|one| class.contains(&one.1)).map(|one| one.0));
    }
}

fn report(name: &str, took: impl Iterator<Item = u64>) {
    let mut took: Vec<u64> = took.collect();
    if took.is_empty() {
        return;
    }
    took.sort_unstable();
    let part = |p: f64| took[((took.len() - 1) as f64 * p) as usize] as f64 / 1_000.0;
    let mean = took.iter().sum::<u64>() as f64 / took.len() as f64 / 1_000.0;
    println!(
        "  {name}: {} look-ups, mean {mean:.2} us, p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}",
        took.len(),
        part(0.5),
        part(0.9),
        part(0.99),
        part(0.999)
    );
}
