//! Exact sums against rational arithmetic, on ordinary and hostile inputs.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// The rational that a finite double is.
pub(crate) fn rational(x: f64) -> BigRational {
    let finite = Finite::of(x).expect("finite");
    let mantissa = BigInt::from(finite.mantissa) * if finite.negative { -1 } else { 1 };
    let power = BigInt::one() << finite.exponent.unsigned_abs();
    if finite.exponent < 0 { BigRational::new(mantissa, power) } else { BigRational::from_integer(mantissa * power) }
}

/// The double nearest to a rational, ties to even; zero is +0.
pub(crate) fn nearest(x: &BigRational) -> f64 {
    if x.is_zero() {
        return 0.0;
    }
    let negative = x.is_negative();
    let x = x.abs();
    // The exponent of the last place: start low, raise until 53 bits hold the whole part.
    let mut exponent = (x.numer().bits() as i64 - x.denom().bits() as i64 - 54).max(-1074);
    let scaled = |exponent: i64| {
        if exponent >= 0 {
            &x / BigRational::from_integer(BigInt::one() << exponent as u64)
        } else {
            &x * BigRational::from_integer(BigInt::one() << (-exponent) as u64)
        }
    };
    while scaled(exponent).to_integer().bits() > 53 {
        exponent += 1;
    }
    let value = scaled(exponent);
    let mut whole = value.to_integer();
    let rest = value - BigRational::from_integer(whole.clone());
    let half = BigRational::new(BigInt::one(), BigInt::from(2));
    if rest > half || (rest == half && whole.bit(0)) {
        whole += 1;
    }
    let whole = whole.to_u64().expect("at most 2^53") as f64;
    // Powers of two are exact; two steps keep the intermediate inside the range, and the product is exact or infinite.
    let half = exponent / 2;
    let value = whole * 2f64.powi(half as i32) * 2f64.powi((exponent - half) as i32);
    if negative && value != 0.0 { -value } else { value }
}

/// The exact sum's definition.
fn naive_sum(xs: &[f64]) -> f64 {
    let nan = xs.iter().any(|x| x.is_nan());
    let (up, down) = (xs.contains(&f64::INFINITY), xs.contains(&f64::NEG_INFINITY));
    match (nan, up, down) {
        (false, false, false) => nearest(&xs.iter().map(|x| rational(*x)).sum()),
        (false, true, false) => f64::INFINITY,
        (false, false, true) => f64::NEG_INFINITY,
        _ => NAN,
    }
}

/// Doubles of every kind that breaks sums.
pub(crate) fn hostile(rng: &mut impl Rng) -> f64 {
    match rng.random_range(0..14) {
        0 => 0.0,
        1 => -0.0,
        2 => f64::from_bits(rng.random_range(0..1 << 52)),
        3 => -f64::from_bits(rng.random_range(0..1 << 52)),
        4 => f64::MAX,
        5 => -f64::MAX,
        6 => f64::MIN_POSITIVE,
        7 => rng.random_range(-1e3..1e3),
        8 => rng.random_range(-1e300..1e300),
        9 => rng.random_range(-1e-300..1e-300),
        10 => (rng.random_range(-10_000..10_000) as f64) / 100.0,
        11 => 2f64.powi(rng.random_range(-1074..1024)),
        12 => -(2f64.powi(rng.random_range(-110..90))),
        _ => loop {
            let x = f64::from_bits(rng.random());
            if x.is_finite() {
                break x;
            }
        },
    }
}

fn sum_all(xs: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    xs.iter().for_each(|x| sum.add(*x));
    sum
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

#[test]
fn rounding_is_nearest_even() {
    let tiny = f64::from_bits(1);
    for (xs, expected) in [
        (vec![], 0.0),
        (vec![-0.0, -0.0], 0.0),
        (vec![1e16, 1.0], 1e16),
        (vec![1e16, 1.0, tiny], 1e16 + 2.0),
        (vec![1e16, 3.0], 1e16 + 4.0),
        (vec![1e308, 1e308, -1e308], 1e308),
        (vec![f64::MAX, f64::MAX], f64::INFINITY),
        (vec![f64::MAX, 2f64.powi(970)], f64::INFINITY),
        (vec![f64::MAX, f64::MAX * 2f64.powi(-54)], f64::MAX),
        (vec![tiny, -tiny], 0.0),
        (vec![f64::INFINITY, f64::NEG_INFINITY], NAN),
        (vec![f64::INFINITY, 1.0], f64::INFINITY),
        (vec![f64::NAN, 1.0], NAN),
    ] {
        let got = sum_all(&xs).to_f64();
        assert!(same(got, expected), "{xs:?} gives {got}, not {expected}");
    }
}

#[test]
fn sums_agree_with_rationals_in_any_order() {
    for seed in 0..3000u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut xs: Vec<f64> = (0..rng.random_range(0..20)).map(|_| hostile(&mut rng)).collect();
        if rng.random_bool(0.3) {
            let negated: Vec<f64> = xs.iter().map(|x| -x).collect();
            xs.extend(negated);
            xs.push(hostile(&mut rng));
        }
        if rng.random_bool(0.05) {
            xs.push([f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.random_range(0..3)]);
        }
        let expected = naive_sum(&xs);
        let sum = sum_all(&xs);
        assert!(same(sum.to_f64(), expected), "seed {seed}: {xs:?} gives {}, not {expected}", sum.to_f64());
        // Another order, in two halves, with terms that come and go.
        let mut other = ExactSum::new();
        let extra: Vec<f64> = (0..5).map(|_| hostile(&mut rng)).chain([f64::NAN, f64::INFINITY]).collect();
        extra.iter().for_each(|x| other.add(*x));
        let (left, right) = xs.split_at(xs.len() / 2);
        right.iter().rev().for_each(|x| other.add(*x));
        other.merge(&sum_all(left));
        extra.iter().for_each(|x| other.sub(*x));
        assert_eq!(sum, other, "seed {seed}");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        sum.encode(&mut a);
        other.encode(&mut b);
        assert_eq!(a, b, "seed {seed}");
        assert_eq!(ExactSum::decode(&a), Some((sum.clone(), &[][..])), "seed {seed}");
        let mut zero = sum.negative();
        zero.merge(&sum);
        if !sum.is_special() {
            assert!(zero.is_empty(), "seed {seed}");
        }
        other.unmerge(&sum);
        assert!(other.is_empty(), "seed {seed}");
    }
}

#[test]
fn moments_agree_with_rationals() {
    for seed in 0..3000u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let whole = rng.random_bool(0.3);
        let (unit, scale) = if whole { (Unit::Whole, rng.random_range(0..=38)) } else { (Unit::Binary, 0) };
        let ordinary = rng.random_bool(0.5);
        let mut moments = Moments::default();
        let mut values: Vec<BigRational> = Vec::new();
        let mut sums = ExactSum::new();
        for _ in 0..rng.random_range(1..12) {
            if whole {
                let x = random_whole(&mut rng);
                moments.part.whole(x, false, true);
                values.push(BigRational::new(BigInt::from(x), BigInt::from(10).pow(scale as u32)));
            } else {
                let x = if ordinary { rng.random_range(-1e6..1e6) } else { hostile(&mut rng) };
                moments.double(x, false, true);
                sums.add_square(x);
                values.push(rational(x));
            }
        }
        // Something that comes and goes leaves no trace.
        let mut other = Moments::default();
        for _ in 0..3 {
            let x = hostile(&mut rng);
            other.double(x, false, true);
            moments.double(x, false, true);
        }
        moments.unmerge(&other, true);
        let n = BigRational::from_integer(BigInt::from(values.len()));
        let sum: BigRational = values.iter().sum();
        let squares: BigRational = values.iter().map(|x| x * x).sum();
        if !whole {
            assert!(same(sums.to_f64(), nearest(&squares)), "seed {seed}: squares");
        }
        let total = nearest(&sum);
        assert!(same(sum_of(&moments, unit, scale), total), "seed {seed}: sum");
        let mean = total / values.len() as f64 + 0.0;
        assert!(same(mean_of(&moments, values.len() as u64, unit, scale), mean), "seed {seed}: mean");
        for less in 0..values.len().min(2) {
            let divisor = &n * (&n - BigRational::from_integer(BigInt::from(less)));
            let expected = nearest(&((&n * &squares - &sum * &sum) / divisor));
            let got = variance_of(&moments, values.len() as u64, less as u64, unit, scale);
            assert!(same(got, expected), "seed {seed}: variance {got}, not {expected}");
        }
    }
}

fn random_whole(rng: &mut impl Rng) -> i128 {
    const LIMIT: i128 = 10i128.pow(38) - 1;
    match rng.random_range(0..4) {
        0 => i128::from(rng.random_range(-1000..1000)),
        1 => i128::from(rng.random::<i64>()),
        2 => LIMIT * [-1, 1][rng.random_range(0..2)],
        _ => rng.random_range(-LIMIT..=LIMIT),
    }
}

#[test]
fn variance_is_exact_over_the_whole_range() {
    for (xs, expected) in [
        (vec![1e200, 1e200], 0.0),
        (vec![1e-200, 1e-200], 0.0),
        (vec![f64::MAX, -f64::MAX], f64::INFINITY),
        (vec![1e16, 1e16 + 2.0], 2.0),
        (vec![f64::INFINITY, 1.0], NAN),
    ] {
        let mut moments = Moments::default();
        xs.iter().for_each(|x| moments.double(*x, false, true));
        let got = variance_of(&moments, xs.len() as u64, 1, Unit::Binary, 0);
        assert!(same(got, expected), "{xs:?} gives {got}");
    }
}

#[test]
fn interpolation_agrees_with_rationals() {
    for seed in 0..3000u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let p = match rng.random_range(0..6) {
            0 => 0.5,
            1 => 1.0,
            2 => f64::from_bits(rng.random_range(0..1 << 40)),
            3 => 1.0 - f64::EPSILON / 2.0,
            4 => 2f64.powi(-rng.random_range(1..1074)),
            _ => rng.random_range(0.0..1.0),
        };
        let count = rng.random_range(1..1000usize);
        let rank = Rank::of(p, count);
        let exact = rational(p) * BigRational::from_integer(BigInt::from(count - 1));
        assert_eq!(exact.to_integer().to_usize(), Some(rank.index), "seed {seed}");
        let fraction = exact.fract();
        let power = BigInt::one() << rank.bits;
        assert_eq!(fraction, BigRational::new(BigInt::from(rank.numerator), power), "seed {seed}");
        let (low, high, scale) = if rng.random_bool(0.7) {
            (Number::Float(hostile(&mut rng)), Number::Float(hostile(&mut rng)), 0)
        } else {
            let scale = rng.random_range(0..39);
            let mut whole = || Number::Whole { value: random_whole(&mut rng), scale };
            (whole(), whole(), scale)
        };
        let value = |number: Number| match number {
            Number::Float(x) => rational(x),
            Number::Whole { value, .. } => BigRational::new(BigInt::from(value), BigInt::from(10).pow(scale as u32)),
        };
        let expected = nearest(&(value(low) + fraction * (value(high) - value(low))));
        let got = interpolate(low, high, rank);
        assert!(same(got, expected), "seed {seed}: {low:?} {high:?} {p} of {count}: {got}, not {expected}");
    }
}

#[test]
fn special_neighbours_decide() {
    let (inf, between) = (f64::INFINITY, Rank { index: 0, numerator: 1, bits: 1 });
    for (low, high, expected) in [(1.0, NAN, NAN), (1.0, inf, inf), (-inf, 1.0, -inf), (-inf, inf, NAN), (inf, inf, inf), (inf, NAN, NAN)] {
        assert!(same(interpolate(Number::Float(low), Number::Float(high), between), expected), "{low} {high}");
    }
    let whole = Rank { index: 0, numerator: 0, bits: 1 };
    assert!(same(interpolate(Number::Float(-0.0), Number::Float(NAN), whole), 0.0));
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut decoded = 0;
    for _ in 0..200_000 {
        let mut bytes: Vec<u8> = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
        if bytes.len() > 3 && rng.random_bool(0.8) {
            (bytes[0], bytes[2]) = (rng.random_range(0..8), rng.random_range(0..5));
        }
        if let Some((sum, rest)) = ExactSum::decode(&bytes) {
            decoded += 1;
            let mut again = Vec::new();
            sum.encode(&mut again);
            assert_eq!(again, bytes[..bytes.len() - rest.len()]);
            let mut double = sum.clone();
            double.merge(&sum);
            double.to_f64();
        }
    }
    assert!(decoded > 1000);
}
