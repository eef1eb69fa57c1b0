//! Exact numbers: integers over one denominator, rounded once to the nearest double, ties to even.

use num_bigint::{BigInt, Sign};
use num_traits::{One, ToPrimitive, Zero};

use super::value::Value;

/// Every finite double is a whole number of 2^-1074.
const UNIT: u64 = 1074;

pub(crate) fn power_of_ten(exponent: i8) -> BigInt {
    BigInt::from(10).pow(u32::try_from(exponent).expect("scales are not negative"))
}

/// The denominator that `numerator` uses for this value.
pub(crate) fn denominator(value: &Value) -> BigInt {
    match value {
        Value::Int(_) => BigInt::one(),
        Value::Dec(_, scale) => power_of_ten(*scale),
        Value::F32(_) | Value::F64(_) => BigInt::one() << UNIT,
        other => panic!("{other:?} is no number"),
    }
}

/// A finite number as a whole number of 1 / [`denominator`].
pub(crate) fn numerator(value: &Value) -> BigInt {
    match value {
        Value::Int(x) => BigInt::from(*x),
        Value::Dec(digits, _) => BigInt::from(*digits),
        Value::F32(x) => units(f64::from(*x)),
        Value::F64(x) => units(*x),
        other => panic!("{other:?} is no number"),
    }
}

fn units(x: f64) -> BigInt {
    assert!(x.is_finite(), "{x} has no exact value");
    let bits = x.to_bits();
    let exponent = (bits >> 52) & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    let magnitude = if exponent == 0 { BigInt::from(fraction) } else { BigInt::from(fraction | 1 << 52) << (exponent - 1) };
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

/// `numerator / denominator` rounded once to the nearest double, ties to even. Zero is +0; what is too large is infinite.
pub(crate) fn nearest(numerator: &BigInt, denominator: &BigInt) -> f64 {
    assert!(denominator.sign() == Sign::Plus, "a denominator is positive");
    if numerator.is_zero() {
        return 0.0;
    }
    let negative = numerator.sign() == Sign::Minus;
    let n = BigInt::from(numerator.magnitude().clone());
    // 2^floor <= n / denominator < 2^(floor + 1)
    let mut floor = n.bits() as i64 - denominator.bits() as i64;
    let below = if floor >= 0 { n < denominator << floor as u64 } else { &n << floor.unsigned_abs() < *denominator };
    if below {
        floor -= 1;
    }
    let unit = (floor - 52).max(-1074);
    // n / denominator in units of 2^unit
    let (top, bottom) = if unit >= 0 { (n, denominator << unit as u64) } else { (n << unit.unsigned_abs(), denominator.clone()) };
    let (mut whole, rest) = (&top / &bottom, &top % &bottom);
    let twice = rest << 1u8;
    if twice > bottom || (twice == bottom && (&whole % 2u8).is_one()) {
        whole += 1u8;
    }
    let whole = whole.to_u64().expect("at most 2^53");
    let mut magnitude = from_units(whole, unit);
    if negative {
        magnitude = -magnitude;
    }
    if magnitude == 0.0 { 0.0 } else { magnitude }
}

/// `whole * 2^unit` for a whole of at most 2^53, where unit is -1074 or the whole is at least 2^52.
fn from_units(whole: u64, unit: i64) -> f64 {
    if unit == -1074 {
        // Subnormals, and the first two binades of the normal numbers, count in this unit.
        return f64::from_bits(whole);
    }
    let (whole, unit) = if whole == 1 << 53 { (1 << 52, unit + 1) } else { (whole, unit) };
    let exponent = unit + 52 + 1023;
    if exponent >= 2047 { f64::INFINITY } else { f64::from_bits(((exponent as u64) << 52) | (whole - (1 << 52))) }
}
