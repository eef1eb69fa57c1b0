//! Sum and sum of squares of one lane, in the short fixed form wherever a value fits it.
//!
//! Each value goes by its own magnitude either to the fixed part or to the general part, always the same way, so that
//! adding, merging and taking back stay exact without ever moving a sum from one form to the other.

use super::{ExactSum, Finite, Fixed};

/// The biased exponent of the least doubles of the fixed part: those of a mantissa times 2^-96.
pub(super) const LEAST: u32 = 1075 - 96;
/// By how much the exponents of the greatest lie above it.
pub(super) const FITS: u32 = 17 + 96;

/// The unit in which the fixed part counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Integers and unscaled decimals: one.
    Whole,
    /// Doubles: 2^-128 for the sum, 2^-192 for the squares.
    Binary,
}

impl Unit {
    /// The binary exponents of the units of sum and squares.
    pub(crate) fn exponents(self) -> (i64, i64) {
        match self {
            Unit::Whole => (0, 0),
            Unit::Binary => (-128, -192),
        }
    }
}

/// Sum and sum of squares, the part that fits: doubles that are multiples of 2^-96 below 2^70 in magnitude, and all
/// integers and decimals. Below 2^128 with headroom for 2^51 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    pub(crate) sum: Fixed<4>,
    pub(crate) squares: Fixed<6>,
}

impl Part {
    #[inline]
    pub(crate) fn add(&mut self, other: &Part, squares: bool) {
        self.sum.add(&other.sum);
        if squares {
            self.squares.add(&other.squares);
        }
    }

    #[inline]
    pub(crate) fn sub(&mut self, other: &Part, squares: bool) {
        self.sum.sub(&other.sum);
        if squares {
            self.squares.sub(&other.squares);
        }
    }

    /// Adds a double, or takes it back; false where it does not fit.
    #[inline]
    pub(crate) fn double(&mut self, x: f64, take_back: bool, squares: bool) -> bool {
        let bits = x.to_bits();
        let biased = (bits >> 52 & 0x7ff) as u32;
        let exponent = biased.wrapping_sub(LEAST);
        if exponent > FITS {
            // Zeros fit too; subnormals, tiny, huge and special values do not.
            return bits << 1 == 0;
        }
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        let negative = (bits >> 63 == 1) != take_back;
        let shift = exponent + 32;
        let wide = u128::from(mantissa) << (shift % 64);
        self.sum.accumulate(negative, [wide as u64, (wide >> 64) as u64, 0], (shift / 64) as usize);
        if squares {
            let shift = 2 * exponent;
            let bit = shift % 64;
            let product = u128::from(mantissa) * u128::from(mantissa);
            let low = product << bit;
            let high = if bit == 0 { 0 } else { (product >> (128 - bit)) as u64 };
            self.squares.accumulate(take_back, [low as u64, (low >> 64) as u64, high], (shift / 64) as usize);
        }
        true
    }

    /// Adds a whole number, or takes it back.
    #[inline]
    pub(crate) fn whole(&mut self, x: i128, take_back: bool, squares: bool) {
        let magnitude = x.unsigned_abs();
        let (low, high) = (magnitude as u64, (magnitude >> 64) as u64);
        self.sum.accumulate((x < 0) != take_back, [low, high, 0], 0);
        if squares {
            if high == 0 {
                let product = u128::from(low) * u128::from(low);
                self.squares.accumulate(take_back, [product as u64, (product >> 64) as u64, 0], 0);
            } else {
                let cross = u128::from(low) * u128::from(high);
                let (below, above) = (u128::from(low) * u128::from(low), u128::from(high) * u128::from(high));
                self.squares.accumulate(take_back, [below as u64, (below >> 64) as u64, 0], 0);
                for _ in 0..2 {
                    self.squares.accumulate(take_back, [cross as u64, (cross >> 64) as u64, 0], 1);
                }
                self.squares.accumulate(take_back, [above as u64, (above >> 64) as u64, 0], 2);
            }
        }
    }
}

/// Sum and sum of squares of a multiset of values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Moments {
    pub(crate) part: Part,
    /// What did not fit the fixed part: (sum, squares).
    pub(crate) general: Option<Box<(ExactSum, ExactSum)>>,
}

impl Moments {
    #[inline]
    pub(crate) fn double(&mut self, x: f64, take_back: bool, squares: bool) {
        if !self.part.double(x, take_back, squares) {
            self.general_double(x, take_back);
        }
    }

    #[cold]
    fn general_double(&mut self, x: f64, take_back: bool) {
        debug_assert!(Finite::of(x).is_none_or(|finite| finite.mantissa != 0), "invariant: zeros fit the fixed part");
        let (sum, squares) = &mut **self.general.get_or_insert_default();
        if take_back {
            sum.sub(x);
            squares.sub_square(x);
        } else {
            sum.add(x);
            squares.add_square(x);
        }
    }

    pub(crate) fn merge(&mut self, other: &Moments, squares: bool) {
        self.part.add(&other.part, squares);
        if let Some(general) = &other.general {
            let mine = self.general.get_or_insert_default();
            mine.0.merge(&general.0);
            mine.1.merge(&general.1);
        }
    }

    #[cfg(test)]
    pub(crate) fn unmerge(&mut self, other: &Moments, squares: bool) {
        self.part.sub(&other.part, squares);
        if let Some(general) = &other.general {
            let mine = self.general.get_or_insert_default();
            mine.0.unmerge(&general.0);
            mine.1.unmerge(&general.1);
        }
    }

    /// Adds a stored prefix, or takes it back.
    #[inline]
    pub(crate) fn merge_prefix(
        &mut self,
        part: &Part,
        general: Option<&Option<Box<(ExactSum, ExactSum)>>>,
        take_back: bool,
        squares: bool,
    ) {
        if take_back {
            self.part.sub(part, squares)
        } else {
            self.part.add(part, squares)
        }
        if let Some(Some(general)) = general {
            let mine = self.general.get_or_insert_default();
            if take_back {
                mine.0.unmerge(&general.0);
                mine.1.unmerge(&general.1);
            } else {
                mine.0.merge(&general.0);
                mine.1.merge(&general.1);
            }
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.general
            .as_ref()
            .map_or(0, |general| std::mem::size_of::<(ExactSum, ExactSum)>() + general.0.heap_bytes() + general.1.heap_bytes())
    }

    fn has_general(&self) -> bool {
        self.general.as_ref().is_some_and(|general| !general.0.is_empty() || !general.1.is_empty())
    }

    /// The special value, if special terms decide the sum.
    pub(crate) fn special(&self) -> Option<f64> {
        self.general.as_ref().and_then(|general| general.0.special())
    }

    /// Sum and squares in the general form, where values that do not fit the fixed form are among the terms.
    pub(crate) fn general_form(&self, unit: Unit) -> Option<(ExactSum, ExactSum)> {
        if !self.has_general() {
            return None;
        }
        let (mut sum, mut squares) = (**self.general.as_ref()?).clone();
        let (sum_exponent, squares_exponent) = unit.exponents();
        let (negative, magnitude) = self.part.sum.magnitude();
        sum.accumulate(negative, &magnitude, sum_exponent as i32);
        let (negative, magnitude) = self.part.squares.magnitude();
        squares.accumulate(negative, &magnitude, squares_exponent as i32);
        Some((sum, squares))
    }
}
