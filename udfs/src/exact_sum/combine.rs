//! Means, variances and interpolation from exact parts: integers all the way, one division, one rounding.

use super::{ExactSum, Finite, Moments, NAN, Unit, divide_and_round, round};

/// The largest power of ten below 2^64.
const TEN_19: u64 = 10_000_000_000_000_000_000;

/// The factors, each below 2^64, of 10^`digits`.
fn tens(digits: u32, into: &mut Vec<u64>) {
    into.extend(std::iter::repeat_n(TEN_19, (digits / 19) as usize));
    if !digits.is_multiple_of(19) {
        into.push(10u64.pow(digits % 19));
    }
}

/// The limbs of `magnitude * factor`.
fn times(magnitude: &[u64], factor: u64) -> Vec<u64> {
    let mut product = Vec::with_capacity(magnitude.len() + 1);
    let mut carry = 0u128;
    for limb in magnitude {
        carry += u128::from(*limb) * u128::from(factor);
        product.push(carry as u64);
        carry >>= 64;
    }
    product.push(carry as u64);
    product
}

/// The double nearest to `magnitude * 2^exponent * 10^-scale`.
fn round_decimal(negative: bool, magnitude: &[u64], exponent: i64, scale: i32) -> f64 {
    let mut factors = Vec::new();
    tens(scale.unsigned_abs(), &mut factors);
    if scale >= 0 {
        return divide_and_round(negative, magnitude, exponent, &factors);
    }
    let product = factors.iter().fold(magnitude.to_vec(), |product, factor| times(&product, *factor));
    round(negative, &product, exponent, false)
}

/// The sum as a double, rounded once; decimals have `scale` digits behind the point.
pub(crate) fn sum_of(moments: &Moments, unit: Unit, scale: i32) -> f64 {
    if let Some((sum, _)) = moments.general_form(unit) {
        return sum.to_f64();
    }
    let (negative, magnitude) = moments.part.sum.magnitude();
    if scale == 0 {
        round(negative, &magnitude, unit.exponents().0, false)
    } else {
        round_decimal(negative, &magnitude, unit.exponents().0, scale)
    }
}

/// The mean: the sum rounded once, divided by the count. A zero is +0.
pub(crate) fn mean_of(moments: &Moments, count: u64, unit: Unit, scale: i32) -> f64 {
    let mean = sum_of(moments, unit, scale) / count as f64;
    // A quotient that underflows keeps the sum's sign; the zero that comes out has none.
    if mean == 0.0 { 0.0 } else { mean }
}

/// The variance with divisor `count - less`: `(n Q - S S) / (n (n - less))`, rounded once; NaN next to special values.
pub(crate) fn variance_of(moments: &Moments, count: u64, less: u64, unit: Unit, scale: i32) -> f64 {
    if moments.special().is_some() {
        return NAN;
    }
    if let Some((sum, squares)) = moments.general_form(unit) {
        return variance_general(&sum, &squares, count, less);
    }
    let (_, sum) = moments.part.sum.magnitude();
    let (_, squares) = moments.part.squares.magnitude();
    // n Q at the exponent of S S: one limb up for binary units, where Q counts in 2^-192 and S S in 2^-256.
    let shift = usize::from(unit == Unit::Binary);
    let mut spread = [0u64; 8];
    let mut carry = 0u128;
    for (place, limb) in spread[shift..].iter_mut().zip(squares.into_iter().chain([0])) {
        carry += u128::from(limb) * u128::from(count);
        *place = carry as u64;
        carry >>= 64;
    }
    let mut borrow = false;
    for (limb, term) in spread.iter_mut().zip(squared(&sum)) {
        (*limb, borrow) = limb.borrowing_sub(term, borrow);
    }
    debug_assert!(!borrow, "invariant: n Q is never less than S S");
    let exponent = 2 * unit.exponents().0;
    let divisor = count.checked_mul(count - less);
    if let (0, Some(divisor)) = (scale, divisor) {
        return if crate::seeded::seeded_bug("variance-rounded-twice") {
            round(false, &spread, exponent, false) / divisor as f64
        } else {
            divide_and_round(false, &spread, exponent, &[divisor])
        };
    }
    divide_variance(&spread, exponent, count, less, scale)
}

fn divide_variance(spread: &[u64], exponent: i64, count: u64, less: u64, scale: i32) -> f64 {
    let mut divisors = vec![count, count - less];
    if scale >= 0 {
        tens(2 * scale.unsigned_abs(), &mut divisors);
        return divide_and_round(false, spread, exponent, &divisors);
    }
    let mut factors = Vec::new();
    tens(2 * scale.unsigned_abs(), &mut factors);
    let spread = factors.iter().fold(spread.to_vec(), |product, factor| times(&product, *factor));
    divide_and_round(false, &spread, exponent, &divisors)
}

#[inline]
fn squared(x: &[u64; 4]) -> [u64; 8] {
    let mut product = [0u64; 8];
    for (i, a) in x.iter().enumerate() {
        if *a == 0 {
            continue;
        }
        let mut carry = 0u128;
        for (j, b) in x.iter().enumerate() {
            carry += u128::from(*a) * u128::from(*b) + u128::from(product[i + j]);
            product[i + j] = carry as u64;
            carry >>= 64;
        }
        product[i + 4] = carry as u64;
    }
    product
}

fn variance_general(sum: &ExactSum, squares: &ExactSum, count: u64, less: u64) -> f64 {
    let (_, sum_limbs) = sum.magnitude();
    let (_, squares_limbs) = squares.magnitude();
    let square = multiply(&sum_limbs, &sum_limbs);
    let scaled = times(&squares_limbs, count);
    // Both as limbs above the lower of the two exponents.
    let exponent = squares.exponent().min(2 * sum.exponent());
    let mut spread = vec![0u64; ((squares.exponent() - exponent) / 64) as usize];
    spread.extend_from_slice(&scaled);
    let below = ((2 * sum.exponent() - exponent) / 64) as usize;
    spread.resize(spread.len().max(below + square.len()), 0);
    let mut borrow = false;
    for (place, limb) in spread.iter_mut().enumerate() {
        let term = place.checked_sub(below).and_then(|index| square.get(index)).copied().unwrap_or(0);
        (*limb, borrow) = limb.borrowing_sub(term, borrow);
    }
    debug_assert!(!borrow, "invariant: n Q is never less than S S");
    divide_and_round(false, &spread, exponent, &[count, count - less])
}

fn multiply(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut product = vec![0u64; a.len() + b.len()];
    for (i, x) in a.iter().enumerate() {
        let mut carry = 0u128;
        for (j, y) in b.iter().enumerate() {
            carry += u128::from(*x) * u128::from(*y) + u128::from(product[i + j]);
            product[i + j] = carry as u64;
            carry >>= 64;
        }
        product[i + b.len()] = carry as u64;
    }
    product
}

/// A number on its way through a quantile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// A REAL or a DOUBLE.
    Float(f64),
    /// A whole number of units of 10^-scale.
    Whole { value: i128, scale: i32 },
}

impl Number {
    /// The nearest double; a zero is +0, a NaN the canonical one.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Number::Float(x) if x.is_nan() => NAN,
            Number::Float(x) => x + 0.0,
            Number::Whole { value, scale } => {
                let magnitude = value.unsigned_abs();
                round_decimal(value < 0, &[magnitude as u64, (magnitude >> 64) as u64], 0, scale)
            }
        }
    }
}

/// A position `p (n - 1)` among n sorted values, exactly: a whole index and a fraction `numerator / 2^bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) index: usize,
    pub(crate) numerator: u128,
    pub(crate) bits: u32,
}

impl Rank {
    /// The rank of the fraction p, a double in [0, 1], among `count` values, at least one.
    pub(crate) fn of(p: f64, count: usize) -> Rank {
        let Some(Finite { mantissa, exponent, .. }) = Finite::of(p) else {
            return Rank { index: 0, numerator: 0, bits: 0 };
        };
        let product = u128::from(mantissa) * (count as u128 - 1);
        // p is at most 1, so its exponent is negative: 1 is 2^52 times 2^-52.
        let bits = exponent.unsigned_abs();
        if bits >= 128 {
            return Rank { index: 0, numerator: product, bits };
        }
        Rank { index: (product >> bits) as usize, numerator: product & ((1 << bits) - 1), bits }
    }
}

/// The value at a rank between two neighbours in sorted order, interpolated exactly and rounded once.
pub(crate) fn interpolate(below: Number, above: Number, rank: Rank) -> f64 {
    if rank.numerator == 0 {
        return below.to_f64();
    }
    if let (Number::Float(low), Number::Float(high)) = (below, above) {
        if low.is_nan() || high.is_nan() {
            return NAN;
        }
        match (low.is_infinite(), high.is_infinite()) {
            (true, true) if low != high => return NAN,
            (true, _) => return low,
            (_, true) => return high,
            _ => {}
        }
    }
    // low + f (high - low), with f = numerator / 2^bits.
    let mut value = ExactSum::new();
    let (low, scale) = limbs_of(below);
    let (high, _) = limbs_of(above);
    let shift = -(rank.bits as i32);
    value.accumulate(low.0, &low.1, low.2);
    value.accumulate(low.0 ^ true, &scaled(&low.1, rank.numerator), low.2 + shift);
    value.accumulate(high.0, &scaled(&high.1, rank.numerator), high.2 + shift);
    let (negative, magnitude) = value.magnitude();
    round_decimal(negative, &magnitude, value.exponent(), scale)
}

/// (sign, magnitude, binary exponent) of a finite number, and its decimal scale.
fn limbs_of(number: Number) -> ((bool, [u64; 2], i32), i32) {
    match number {
        Number::Float(x) => {
            let finite = Finite::of(x).unwrap_or(Finite { negative: false, mantissa: 0, exponent: 0 });
            ((finite.negative, [finite.mantissa, 0], finite.exponent), 0)
        }
        Number::Whole { value, scale } => {
            let magnitude = value.unsigned_abs();
            ((value < 0, [magnitude as u64, (magnitude >> 64) as u64], 0), scale)
        }
    }
}

fn scaled(magnitude: &[u64; 2], factor: u128) -> Vec<u64> {
    multiply(magnitude, &[factor as u64, (factor >> 64) as u64])
}
