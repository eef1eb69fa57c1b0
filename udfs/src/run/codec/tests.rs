//! Runs through their bytes: equal runs are equal bytes, and any bytes are a run or are refused.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::aggregates::tests::{churned, random_program, through_bytes};
use crate::codec::{Reader, Writer};
use crate::*;

fn encoded(program: &Program, runs: &[Run]) -> Vec<u8> {
    let mut out = RunsOut::new(program);
    runs.iter().for_each(|run| out.push(run));
    let mut writer = Writer::new();
    out.finish(&mut writer);
    writer.into_bytes()
}

#[test]
fn equal_runs_are_equal_bytes() {
    for seed in 0..100 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let program = random_program(&mut rng, 1000);
        let runs: Vec<Run> = (0..rng.random_range(0..6)).map(|_| churned(&program, &mut rng)).collect();
        let bytes = encoded(&program, &runs);
        let again: Vec<Run> = runs.iter().map(|run| through_bytes(&program, run)).collect();
        assert_eq!(bytes, encoded(&program, &again), "seed {seed}");
        let mut reader = Reader::new(&bytes);
        let mut read = RunsIn::new(&program, &mut reader).expect("the bytes of runs");
        for (i, run) in runs.iter().enumerate() {
            let run_read = read.next_run().expect("the bytes of runs").expect("as many as were written");
            assert_eq!((run_read.len(), run_read.last_time()), (run.len(), run.last_time()), "seed {seed} run {i}");
        }
        assert!(read.next_run().expect("the end").is_none());
        assert_eq!(reader.left(), 0);
    }
}

#[test]
fn any_bytes_are_runs_or_refused() {
    let count: u64 = std::env::var("ASOF_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    for seed in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let program = random_program(&mut rng, 1000);
        let runs: Vec<Run> = (0..rng.random_range(1..4)).map(|_| churned(&program, &mut rng)).collect();
        let good = encoded(&program, &runs);
        for _ in 0..60 {
            let mut bytes = good.clone();
            match rng.random_range(0..4) {
                0 => bytes.truncate(rng.random_range(0..bytes.len())),
                1 => bytes = (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
                2 => (0..4).for_each(|_| {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }),
                _ => {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << rng.random_range(0..8);
                }
            }
            let mut reader = Reader::new(&bytes);
            let Ok(mut read) = RunsIn::new(&program, &mut reader) else { continue };
            while let Ok(Some(run)) = read.next_run() {
                // What was read is a run like any other, to be written again.
                assert!(run.memory_bytes() < (1 << 20) + bytes.len() * 100);
                assert!(!encoded(&program, &[run]).is_empty());
            }
        }
    }
}
