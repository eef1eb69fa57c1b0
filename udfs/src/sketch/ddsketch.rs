//! DDSketch: about the value at a fraction of a multiset, within one percent of it.
//!
//! A value falls into the bucket of its sign and of the ceiling of its logarithm to base gamma = 1.01 / 0.99; the
//! state is the number of values in each bucket, which depends only on the multiset. Nothing is ever collapsed. The
//! answer is the bucket's middle, within 1 % of the value of rank floor(p (n - 1)). NaN sorts behind +Inf.
//!
//! Logarithms and powers are those of the pinned `libm`, so the buckets do not depend on the machine.
//!
//! Source: Masson, Rim and Lee, "DDSketch", VLDB 2019.

use std::collections::BTreeMap;

const ACCURACY: f64 = 0.01;
const GAMMA: f64 = (1.0 + ACCURACY) / (1.0 - ACCURACY);

/// A bucket, in the order of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    NegativeInfinity,
    /// Minus the bucket of the magnitude, so that greater magnitudes come first.
    Negative(i32),
    Zero,
    Positive(i32),
    PositiveInfinity,
    NaN,
}

/// A sketch of a multiset of doubles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DdSketch {
    counts: BTreeMap<Bucket, u64>,
    count: u64,
}

impl DdSketch {
    /// The sketch of nothing.
    pub fn new() -> DdSketch {
        DdSketch::default()
    }

    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        *self.counts.entry(bucket(x)).or_default() += 1;
        self.count += 1;
    }

    /// Adds all of another sketch's multiset.
    pub fn merge(&mut self, other: &DdSketch) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
    }

    /// About the value of rank floor(p (n - 1)), `p` in [0, 1]; `None` of nothing.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let last = self.count.checked_sub(1)?;
        let rank = (p * last as f64) as u64;
        let mut seen = 0;
        for (bucket, count) in &self.counts {
            seen += count;
            if seen > rank {
                return Some(middle(*bucket));
            }
        }
        None
    }
}

fn index(magnitude: f64) -> i32 {
    libm::ceil(libm::log(magnitude) / libm::log(GAMMA)) as i32
}

fn bucket(x: f64) -> Bucket {
    if x.is_nan() {
        Bucket::NaN
    } else if x == 0.0 {
        Bucket::Zero
    } else if x.is_infinite() {
        if x > 0.0 { Bucket::PositiveInfinity } else { Bucket::NegativeInfinity }
    } else if x > 0.0 {
        Bucket::Positive(index(x))
    } else {
        Bucket::Negative(-index(-x))
    }
}

/// The value that is within the accuracy of all of a bucket's.
fn middle(bucket: Bucket) -> f64 {
    // In two steps, since a power of gamma may leave the range where the middle of its bucket does not.
    let of = |index: i32| {
        let power = libm::exp(f64::from(index) * libm::log(GAMMA) / 2.0);
        let value = power * (2.0 / (GAMMA + 1.0)) * power;
        if value.is_finite() { value } else { f64::MAX }
    };
    match bucket {
        Bucket::NegativeInfinity => f64::NEG_INFINITY,
        Bucket::Negative(index) => -of(-index),
        Bucket::Zero => 0.0,
        Bucket::Positive(index) => of(index),
        Bucket::PositiveInfinity => f64::INFINITY,
        Bucket::NaN => crate::exact_sum::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_within_one_percent() {
        let mut values: Vec<f64> = (1..2000i32).map(|i| libm::exp(f64::from(i) / 50.0 - 20.0)).collect();
        values.extend((1..500).map(|i| -f64::from(i)));
        values.extend([0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY]);
        let (mut sketch, mut other) = (DdSketch::new(), DdSketch::new());
        values.iter().for_each(|x| sketch.add(*x));
        values.iter().rev().for_each(|x| other.add(*x));
        assert_eq!(sketch, other);
        values.sort_by(f64::total_cmp);
        for step in 0..=100 {
            let p = f64::from(step) / 100.0;
            let exact = values[(p * (values.len() - 1) as f64) as usize];
            let got = sketch.quantile(p).expect("values");
            let close = got == exact || (got - exact).abs() <= exact.abs() * 0.010_000_1;
            assert!(close, "{p}: {got} for {exact}");
        }
        sketch.add(f64::NAN);
        assert!(sketch.quantile(1.0).is_some_and(f64::is_nan));
        assert_eq!(DdSketch::new().quantile(0.5), None);
    }
}
