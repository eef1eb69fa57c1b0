//! Rounding: limbs to the nearest double, ties to even, once.

/// The double nearest to `(-1)^negative * magnitude * 2^exponent`, ties to even; a zero is +0.
///
/// `sticky` says that the true magnitude is a little more, by less than one unit of the lowest bit given.
pub(crate) fn round(negative: bool, magnitude: &[u64], exponent: i64, sticky: bool) -> f64 {
    let Some(top) = magnitude.iter().rposition(|limb| *limb != 0) else { return 0.0 };
    let magnitude = &magnitude[..=top];
    let bit_length = top as i64 * 64 + 64 - i64::from(magnitude[top].leading_zeros());
    let lowest = (exponent + bit_length - 53).max(-1074);
    let dropped = lowest - exponent;
    let mantissa = if dropped <= 0 {
        // Every bit is kept; fewer than 53 of them, so they lie in the lowest limb.
        debug_assert!(!sticky, "invariant: a sticky rest comes with more bits than are kept");
        magnitude[0] << (-dropped)
    } else if dropped > bit_length {
        0
    } else {
        let kept = bits_from(magnitude, dropped);
        let below = dropped - 1;
        let half = bits_from(magnitude, below) & 1 == 1;
        let rest = sticky || any_below(magnitude, below);
        kept + u64::from(half && (rest || kept & 1 == 1))
    };
    let bits = if mantissa >> 52 == 0 {
        mantissa
    } else {
        // A mantissa of 2^53 carries into the exponent by itself, its fraction being zero.
        let biased = (lowest + 1075) as u64;
        match (mantissa >> 53 == 1, biased) {
            (false, 0..2047) => biased << 52 | (mantissa & ((1 << 52) - 1)),
            (true, 0..2046) => (biased + 1) << 52,
            _ => f64::INFINITY.to_bits(),
        }
    };
    let value = f64::from_bits(bits);
    if negative && value != 0.0 { -value } else { value }
}

/// The lowest 64 bits of `magnitude >> shift`.
fn bits_from(magnitude: &[u64], shift: i64) -> u64 {
    let (limb, bit) = ((shift / 64) as usize, (shift % 64) as u32);
    let low = magnitude.get(limb).copied().unwrap_or(0) >> bit;
    let high = if bit == 0 { 0 } else { magnitude.get(limb + 1).copied().unwrap_or(0) << (64 - bit) };
    low | high
}

fn any_below(magnitude: &[u64], bits: i64) -> bool {
    let (limb, bit) = ((bits / 64) as usize, (bits % 64) as u32);
    magnitude[..limb.min(magnitude.len())].iter().any(|limb| *limb != 0)
        || magnitude.get(limb).is_some_and(|limb| limb & ((1 << bit) - 1) != 0)
}

/// The double nearest to `magnitude * 2^exponent / (product of divisors)`, rounded once; no divisor is zero.
pub(crate) fn divide_and_round(negative: bool, magnitude: &[u64], exponent: i64, divisors: &[u64]) -> f64 {
    let Some(top) = magnitude.iter().rposition(|limb| *limb != 0) else { return 0.0 };
    // The quotient keeps at least two limbs less one bit: one limb of the dividend per divisor, and three more.
    // Limbs below those only tell whether the rest is zero.
    let kept = divisors.len() + 3;
    let mut dividend = [0u64; 16];
    debug_assert!(kept <= dividend.len(), "invariant: at most 13 divisors");
    let mut sticky = false;
    let (mut limbs, low) = (top + 1, (top + 1).saturating_sub(kept));
    sticky |= magnitude[..low].iter().any(|limb| *limb != 0);
    let padding = kept.saturating_sub(limbs);
    limbs = kept;
    for (to, from) in dividend[padding..limbs].iter_mut().zip(&magnitude[low..=top]) {
        *to = *from;
    }
    let exponent = exponent + 64 * (low as i64 - padding as i64);
    for divisor in divisors {
        sticky |= divide(&mut dividend[..limbs], *divisor) != 0;
    }
    round(negative, &dividend[..limbs], exponent, sticky)
}

/// Divides limbs in place and gives the rest.
fn divide(limbs: &mut [u64], divisor: u64) -> u64 {
    let mut rest = 0;
    if let Ok(short) = u32::try_from(divisor) {
        // Two divisions of 64 bits cost less than one of 128.
        let divisor = u64::from(short);
        for limb in limbs.iter_mut().rev() {
            let high = rest << 32 | *limb >> 32;
            let low = (high % divisor) << 32 | *limb & 0xffff_ffff;
            *limb = ((high / divisor) << 32) | (low / divisor);
            rest = low % divisor;
        }
        return rest;
    }
    for limb in limbs.iter_mut().rev() {
        let part = u128::from(rest) << 64 | u128::from(*limb);
        *limb = (part / u128::from(divisor)) as u64;
        rest = part.wrapping_sub(u128::from(*limb) * u128::from(divisor)) as u64;
    }
    rest
}
