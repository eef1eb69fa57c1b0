//! Events from one seed, the same on every machine but for the last bit of Zipf's `powf`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The seed of everything.
pub(crate) const SEED: u64 = 7;
/// 2024-01-01, microseconds since the Unix epoch.
pub(crate) const START_US: i64 = 1_704_067_200_000_000;
pub(crate) const DAY_US: i64 = 86_400_000_000;

pub(crate) fn chance(stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    rng.set_stream(stream);
    rng
}

/// A number below `n`.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// Numbers below `n` by Zipf's law with exponent 0.99; the frequent ones are spread over the range.
pub(crate) struct Zipf {
    upto: Vec<f64>,
    ids: Vec<u32>,
}

impl Zipf {
    pub(crate) fn new(n: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut total = 0.0;
        let upto = (1..=n).map(|k| {
            total += (k as f64).powf(-0.99);
            total
        });
        let upto = upto.collect();
        let mut ids: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            ids.swap(i, below(rng, i as u64 + 1) as usize);
        }
        Self { upto, ids }
    }

    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> u32 {
        let total = self.upto.last().copied().unwrap_or(0.0);
        let at = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.ids[self.upto.partition_point(|u| *u <= at).min(self.ids.len() - 1)]
    }
}
