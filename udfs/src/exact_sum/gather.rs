//! Rows side by side on their way into sums: values of like magnitude add up in registers, limbs are touched once.

use super::Moments;
use super::moments::{FITS, LEAST};

/// Sum and squares of some rows, so far as they begin at the same limbs.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// The limbs at which sum and squares begin.
    at: (u32, u32),
    sum: i128,
    low: u128,
    high: u64,
}

impl Gather {
    /// After how many rows at the latest they must be given: terms are below 2^116 and 2^170.
    pub(crate) const ROWS: usize = 1024;

    /// Takes a double; one that no register holds goes to the sums at once.
    #[inline(always)]
    pub(crate) fn double(&mut self, x: f64, take_back: bool, squares: bool, into: &mut Moments) {
        let bits = x.to_bits();
        let exponent = ((bits >> 52 & 0x7ff) as u32).wrapping_sub(LEAST);
        if exponent > FITS {
            return into.double(x, take_back, squares);
        }
        let (place, square_place) = (exponent + 32, if squares { 2 * exponent } else { 0 });
        let at = (place / 64, square_place / 64);
        if at != self.at {
            self.give(take_back, squares, into);
            self.at = at;
        }
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        let term = (u128::from(mantissa) << (place % 64)) as i128;
        self.sum += if bits >> 63 == 1 { -term } else { term };
        if squares {
            self.square(u128::from(mantissa) * u128::from(mantissa), square_place % 64);
        }
    }

    /// Takes an integer; not to be mixed with doubles.
    #[inline(always)]
    pub(crate) fn whole(&mut self, x: i64, squares: bool) {
        self.sum += i128::from(x);
        if squares {
            self.square(u128::from(x.unsigned_abs()) * u128::from(x.unsigned_abs()), 0);
        }
    }

    #[inline(always)]
    fn square(&mut self, product: u128, shift: u32) {
        let (low, carry) = self.low.overflowing_add(product << shift);
        self.low = low;
        // In two steps, since a shift may be by all of 128 bits.
        self.high += (product >> 64 >> (64 - shift)) as u64 + u64::from(carry);
    }

    /// Adds to the sums what was taken, or takes it back, and is empty.
    #[inline]
    pub(crate) fn give(&mut self, take_back: bool, squares: bool, into: &mut Moments) {
        into.part.sum.add_at(if take_back { -self.sum } else { self.sum }, self.at.0 as usize);
        if squares {
            let magnitude = [self.low as u64, (self.low >> 64) as u64, self.high];
            into.part.squares.accumulate(take_back, magnitude, self.at.1 as usize);
        }
        *self = Gather::default();
    }
}
