//! Exact sums: real numbers added without error and rounded once, so that no order, grouping or retraction matters.
//!
//! [`ExactSum`] is a superaccumulator: a two's-complement number in a window of 64-bit limbs that covers what was added,
//! plus counters for NaN and the infinities, so that everything that was added can be taken back. It holds sums of
//! doubles and of their squares over the whole range. [`Fixed`] is the short form for ordinary magnitudes; the two
//! together make [`Moments`]. Not here: which values are summed.
//!
//! Source: Neal, "Fast exact summation using small and large superaccumulators", arXiv 1505.05571.

mod combine;
mod encode;
mod fixed;
mod gather;
mod moments;
mod round;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use combine::{Number, Rank, interpolate, mean_of, sum_of, variance_of};
pub(crate) use fixed::Fixed;
pub(crate) use gather::Gather;
pub(crate) use moments::{Moments, Part, Unit};
pub(crate) use round::{divide_and_round, round};

/// The one NaN that is ever stored or given.
pub(crate) const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// An exact sum of doubles, or of squares of doubles.
///
/// - Equal multisets of terms, in any order and after any retractions, are equal and encode to equal bytes.
/// - Cost: some tens of nanoseconds a term; eight bytes a limb, two to four limbs for ordinary data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExactSum {
    /// The position of the lowest limb: limb i weighs 2^(64 (first + i)).
    first: i32,
    /// Two's complement, sign-extended above; no zero limb below and no sign limb above, so the form is canonical.
    limbs: Vec<u64>,
    nan: i64,
    positive_infinities: i64,
    negative_infinities: i64,
}

/// The limbs' positions that sums of doubles and of their squares can reach, with room for 2^64 terms.
const FIRST_MIN: i32 = -36;
const LAST_MAX: i32 = 36;

impl ExactSum {
    /// The empty sum.
    pub fn new() -> ExactSum {
        ExactSum::default()
    }

    /// Adds a double.
    pub fn add(&mut self, x: f64) {
        self.add_double(x, false);
    }

    /// Takes a double back.
    pub fn sub(&mut self, x: f64) {
        self.add_double(x, true);
    }

    /// Adds x squared, without rounding.
    pub fn add_square(&mut self, x: f64) {
        self.add_product(x, false);
    }

    /// Takes x squared back.
    pub fn sub_square(&mut self, x: f64) {
        self.add_product(x, true);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        self.nan = self.nan.wrapping_add(other.nan);
        self.positive_infinities = self.positive_infinities.wrapping_add(other.positive_infinities);
        self.negative_infinities = self.negative_infinities.wrapping_add(other.negative_infinities);
        if !other.limbs.is_empty() {
            let (negative, magnitude) = other.magnitude();
            self.accumulate(negative, &magnitude, other.first * 64);
        }
    }

    /// Takes another sum back.
    pub fn unmerge(&mut self, other: &ExactSum) {
        self.nan = self.nan.wrapping_sub(other.nan);
        self.positive_infinities = self.positive_infinities.wrapping_sub(other.positive_infinities);
        self.negative_infinities = self.negative_infinities.wrapping_sub(other.negative_infinities);
        if !other.limbs.is_empty() {
            let (negative, magnitude) = other.magnitude();
            self.accumulate(!negative, &magnitude, other.first * 64);
        }
    }

    /// The sum with the other sign: of its finite terms, and with the infinities exchanged.
    pub fn negative(&self) -> ExactSum {
        let mut sum = ExactSum { nan: self.nan, ..ExactSum::default() };
        sum.positive_infinities = self.negative_infinities;
        sum.negative_infinities = self.positive_infinities;
        let (negative, magnitude) = self.magnitude();
        sum.accumulate(!negative, &magnitude, self.first * 64);
        sum
    }

    /// Whether nothing is left: no finite part, no NaN and no infinity.
    pub fn is_empty(&self) -> bool {
        self.limbs.is_empty() && self.nan == 0 && self.positive_infinities == 0 && self.negative_infinities == 0
    }

    /// Whether a NaN or an infinity is among the terms.
    pub fn is_special(&self) -> bool {
        self.nan != 0 || self.positive_infinities != 0 || self.negative_infinities != 0
    }

    /// The sum rounded once to the nearest double, ties to even.
    ///
    /// NaN if a NaN or infinities of both signs are among the terms; infinite beyond the range; a zero is +0.
    pub fn to_f64(&self) -> f64 {
        if let Some(special) = self.special() {
            return special;
        }
        let (negative, magnitude) = self.magnitude();
        round(negative, &magnitude, i64::from(self.first) * 64, false)
    }

    /// The value where special terms decide it.
    pub(crate) fn special(&self) -> Option<f64> {
        match (self.nan != 0, self.positive_infinities != 0, self.negative_infinities != 0) {
            (false, false, false) => None,
            (false, true, false) => Some(f64::INFINITY),
            (false, false, true) => Some(f64::NEG_INFINITY),
            _ => Some(NAN),
        }
    }

    /// The finite part as a sign and the limbs of its magnitude at `exponent()`.
    pub(crate) fn magnitude(&self) -> (bool, Vec<u64>) {
        let mut magnitude = self.limbs.clone();
        let negative = magnitude.last().is_some_and(|top| *top >> 63 == 1);
        if negative {
            negate(&mut magnitude);
        }
        (negative, magnitude)
    }

    /// The binary exponent of the lowest limb.
    pub(crate) fn exponent(&self) -> i64 {
        i64::from(self.first) * 64
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.limbs.capacity() * 8
    }

    fn add_double(&mut self, x: f64, negate: bool) {
        match Finite::of(x) {
            Some(x) => self.accumulate(x.negative != negate, &[x.mantissa], x.exponent),
            None => self.count_special(x, negate),
        }
    }

    fn add_product(&mut self, x: f64, negate: bool) {
        match Finite::of(x) {
            Some(x) => {
                let product = u128::from(x.mantissa) * u128::from(x.mantissa);
                self.accumulate(negate, &[product as u64, (product >> 64) as u64], 2 * x.exponent);
            }
            None => self.count_special(x * x, negate),
        }
    }

    fn count_special(&mut self, x: f64, negate: bool) {
        let step = if negate { -1 } else { 1 };
        let counter = if x.is_nan() {
            &mut self.nan
        } else if x > 0.0 {
            &mut self.positive_infinities
        } else {
            &mut self.negative_infinities
        };
        *counter = counter.wrapping_add(step);
    }

    /// Adds or subtracts `magnitude * 2^exponent`.
    pub(crate) fn accumulate(&mut self, negative: bool, magnitude: &[u64], exponent: i32) {
        let Some(top) = magnitude.iter().rposition(|limb| *limb != 0) else { return };
        let first = exponent.div_euclid(64);
        let shift = exponent.rem_euclid(64) as u32;
        // One limb for the bits shifted out above, one more so that the sum's sign fits.
        self.cover(first, first + top as i32 + 2);
        let mut carry = false;
        let mut high = 0;
        let start = (first - self.first) as usize;
        for (step, limb) in self.limbs[start..].iter_mut().enumerate() {
            let low = if step <= top { magnitude[step] } else { 0 };
            if step > top + 1 && !carry {
                break;
            }
            let term = if shift == 0 { low } else { low << shift | high >> (64 - shift) };
            high = if shift == 0 { 0 } else { low };
            (*limb, carry) = if negative { limb.borrowing_sub(term, carry) } else { limb.carrying_add(term, carry) };
        }
        self.trim();
    }

    /// Extends the window to the limbs `first..=last` and one sign limb above all that it holds.
    fn cover(&mut self, first: i32, last: i32) {
        if self.limbs.is_empty() {
            self.first = first;
        }
        let sign = self.limbs.last().map_or(0, |top| ((*top as i64) >> 63) as u64);
        if first < self.first {
            let below = (self.first - first) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, below));
            self.first = first;
        }
        let length = (last - self.first + 1).max(self.limbs.len() as i32 + 1) as usize;
        self.limbs.resize(length, sign);
    }

    fn trim(&mut self) {
        while let [.., below, top] = self.limbs[..] {
            if top != ((below as i64) >> 63) as u64 {
                break;
            }
            self.limbs.pop();
        }
        if self.limbs == [0] {
            self.limbs.clear();
        }
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        if zeros > 0 {
            self.limbs.drain(..zeros);
            self.first += zeros as i32;
        }
        if self.limbs.is_empty() {
            self.first = 0;
        }
    }
}

/// A finite double as `mantissa * 2^exponent`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finite {
    pub(crate) negative: bool,
    pub(crate) mantissa: u64,
    pub(crate) exponent: i32,
}

impl Finite {
    #[inline]
    pub(crate) fn of(x: f64) -> Option<Finite> {
        let bits = x.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let negative = bits >> 63 == 1;
        match biased {
            0x7ff => None,
            0 => Some(Finite { negative, mantissa: fraction, exponent: -1074 }),
            _ => Some(Finite { negative, mantissa: fraction | 1 << 52, exponent: biased - 1075 }),
        }
    }
}

/// Two's-complement negation in place.
pub(crate) fn negate(limbs: &mut [u64]) {
    let mut carry = true;
    for limb in limbs {
        (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
    }
}
