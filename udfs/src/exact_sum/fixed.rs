//! Two's-complement integers of N limbs: the short form of exact sums of ordinary magnitude.
//!
//! Callers bound what they add so that nothing overflows; see `Moments`.

use super::negate;

/// A two's-complement integer, lowest limb first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed<const N: usize>(pub(crate) [u64; N]);

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Fixed([0; N])
    }
}

impl<const N: usize> Fixed<N> {
    #[inline]
    pub(crate) fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            (*limb, carry) = limb.carrying_add(term, carry);
        }
    }

    #[inline]
    pub(crate) fn sub(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, term) in self.0.iter_mut().zip(other.0) {
            (*limb, borrow) = limb.borrowing_sub(term, borrow);
        }
    }

    /// Adds a number of two limbs at a limb's position.
    #[inline]
    pub(crate) fn add_at(&mut self, x: i128, at: usize) {
        let mut term = [(x >> 127) as u64; N];
        term[..at].fill(0);
        term[at] = x as u64;
        if let Some(place) = term.get_mut(at + 1) {
            *place = (x >> 64) as u64;
        }
        self.add(&Fixed(term));
    }

    /// Adds or subtracts a magnitude of up to three limbs at a limb's position.
    #[inline]
    pub(crate) fn accumulate(&mut self, negative: bool, magnitude: [u64; 3], at: usize) {
        // Where the compiler knows the position, the term stays in registers.
        match at {
            0 => self.accumulate_at(negative, magnitude, 0),
            1 => self.accumulate_at(negative, magnitude, 1),
            2 => self.accumulate_at(negative, magnitude, 2),
            _ => self.accumulate_at(negative, magnitude, at),
        }
    }

    #[inline(always)]
    fn accumulate_at(&mut self, negative: bool, magnitude: [u64; 3], at: usize) {
        let mut term = [0u64; N];
        for (step, limb) in magnitude.into_iter().enumerate() {
            if let Some(place) = term.get_mut(at + step) {
                *place = limb;
            }
        }
        if negative { self.sub(&Fixed(term)) } else { self.add(&Fixed(term)) }
    }

    #[inline]
    pub(crate) fn is_negative(&self) -> bool {
        self.0[N - 1] >> 63 == 1
    }

    /// The sign and the limbs of the magnitude.
    #[inline]
    pub(crate) fn magnitude(&self) -> (bool, [u64; N]) {
        let negative = self.is_negative();
        let mut magnitude = self.0;
        if negative {
            negate(&mut magnitude);
        }
        (negative, magnitude)
    }

    /// The value where it fits 128 bits.
    pub(crate) fn to_i128(self) -> Option<i128> {
        let low = (u128::from(self.0[1]) << 64 | u128::from(self.0[0])) as i128;
        let sign = (low >> 127) as u64;
        self.0[2..].iter().all(|limb| *limb == sign).then_some(low)
    }
}
