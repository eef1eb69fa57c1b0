//! Numbers in text, kept as their decimal digits until the column's type is known.
//!
//! Nothing passes through a float but REAL and DOUBLE: integers, decimals and numeric timestamps come from the digits. Floats are
//! the nearest to the digits: by one exact operation where mantissa and power of ten are exact, else by the standard library.

/// A number as it was written.
#[derive(Debug)]
pub(super) struct Number<'a> {
    text: &'a str,
    negative: bool,
    /// The digits without leading zeros, as long as they are at most 19.
    mantissa: u64,
    /// How many digits, leading zeros apart.
    digits: usize,
    /// The power of ten of the last digit; saturated far beyond every type's range.
    exponent: i64,
}

/// Which spellings are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// RFC 8259.
    Json,
    /// SQL and CSV: also a leading plus, leading zeros, and a point without digits on one of its sides.
    Text,
}

/// Why a number does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is out of the range of the type.
    Range,
    /// It has digits that the type cannot hold.
    Fraction,
}

/// Beyond this every number is zero or out of range of every type; far enough from the ends of i64 to add digits.
const EXPONENT_MAX: i64 = 1 << 40;

const POWERS_F64: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

impl<'a> Number<'a> {
    /// The number at the beginning of `text`; None where there is none.
    #[inline(always)]
    pub(super) fn scan(text: &'a str, grammar: Grammar) -> Option<Self> {
        let bytes = text.as_bytes();
        let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let negative = at(0) == b'-';
        let mut i = usize::from(negative || (grammar == Grammar::Text && at(0) == b'+'));
        let start = i;
        while at(i) == b'0' {
            i += 1;
        }
        let zeros = i - start;
        let mut mantissa = 0;
        let mut digits = take_digits(bytes, &mut i, &mut mantissa);
        let whole = zeros + digits;
        if grammar == Grammar::Json && (whole == 0 || (zeros > 0 && whole > 1)) {
            return None;
        }
        let mut exponent = 0;
        if at(i) == b'.' {
            i += 1;
            let start = i;
            if digits == 0 {
                while at(i) == b'0' {
                    i += 1;
                }
            }
            digits += take_digits(bytes, &mut i, &mut mantissa);
            exponent = -((i - start) as i64);
            if i == start && (grammar == Grammar::Json || whole == 0) {
                return None;
            }
        } else if whole == 0 {
            return None;
        }
        if at(i) | 0x20 == b'e' {
            i += 1;
            let down = at(i) == b'-';
            if down || at(i) == b'+' {
                i += 1;
            }
            let start = i;
            let mut power = 0i64;
            while at(i).is_ascii_digit() {
                power = (power * 10 + i64::from(at(i) - b'0')).min(EXPONENT_MAX);
                i += 1;
            }
            if i == start {
                return None;
            }
            exponent += if down { -power } else { power };
        }
        Some(Self { text: text.get(..i)?, negative, mantissa, digits, exponent })
    }

    /// The number that a whole text is.
    pub(super) fn from_text(text: &'a str) -> Option<Self> {
        Self::scan(text, Grammar::Text).filter(|number| number.text.len() == text.len())
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The nearest DOUBLE.
    #[inline]
    pub(super) fn to_f64(&self) -> Result<f64, Misfit> {
        if self.digits <= 19 && self.mantissa <= 1 << 53 && (-22..=22).contains(&self.exponent) {
            // Both operands are exact, so the one operation rounds once.
            let magnitude = self.mantissa as f64;
            let power = POWERS_F64[self.exponent.unsigned_abs() as usize];
            let value = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return Ok(if self.negative { -value } else { value });
        }
        let value: f64 = self.text.parse().map_err(|_| Misfit::Range)?;
        if value.is_finite() { Ok(value) } else { Err(Misfit::Range) }
    }

    /// The nearest REAL, never by way of DOUBLE.
    pub(super) fn to_f32(&self) -> Result<f32, Misfit> {
        let value: f32 = self.text.parse().map_err(|_| Misfit::Range)?;
        if value.is_finite() { Ok(value) } else { Err(Misfit::Range) }
    }

    /// The integer, where it is one.
    #[inline]
    pub(super) fn to_i64(&self) -> Result<i64, Misfit> {
        if self.digits <= 18 && self.exponent == 0 {
            let magnitude = self.mantissa as i64;
            return Ok(if self.negative { -magnitude } else { magnitude });
        }
        i64::try_from(self.to_scaled(0)?).map_err(|_| Misfit::Range)
    }

    /// The number times ten to the `scale`, where that is an integer.
    pub(super) fn to_scaled(&self, scale: i64) -> Result<i128, Misfit> {
        let exact = self.exact();
        let (magnitude, rest) = exact.shifted(scale)?;
        if rest {
            return Err(Misfit::Fraction);
        }
        let magnitude = i128::try_from(magnitude).map_err(|_| Misfit::Range)?;
        Ok(if self.negative { -magnitude } else { magnitude })
    }

    /// The greatest integer at most the number times ten to the `scale`.
    #[inline]
    pub(super) fn to_floor(&self, scale: i64) -> Result<i64, Misfit> {
        if scale == 0 && self.digits <= 18 && self.exponent == 0 {
            return self.to_i64();
        }
        let (magnitude, rest) = self.exact().shifted(scale)?;
        let magnitude = i128::try_from(magnitude).map_err(|_| Misfit::Range)?;
        let floor = if self.negative { -magnitude - i128::from(rest) } else { magnitude };
        i64::try_from(floor).map_err(|_| Misfit::Range)
    }

    fn exact(&self) -> Exact {
        if self.digits <= 19 {
            return Exact { mantissa: u128::from(self.mantissa), exponent: self.exponent, rest: false };
        }
        // 38 digits are kept, as many as any type holds; of those behind, only whether they are all zero.
        let mut exact = Exact { mantissa: 0, exponent: self.exponent, rest: false };
        let mut kept = 0;
        let digits = self.text.bytes().take_while(|b| b | 0x20 != b'e').filter(u8::is_ascii_digit);
        for digit in digits.skip_while(|d| *d == b'0') {
            let digit = digit - b'0';
            if kept < 38 {
                exact.mantissa = exact.mantissa * 10 + u128::from(digit);
                kept += 1;
            } else {
                exact.exponent += 1;
                exact.rest |= digit != 0;
            }
        }
        exact
    }
}

/// Takes the digits that begin at `at` into the mantissa, and says how many there were.
#[inline(always)]
fn take_digits(bytes: &[u8], at: &mut usize, mantissa: &mut u64) -> usize {
    let start = *at;
    while let Some(word) = bytes.get(*at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word) ^ 0x3030_3030_3030_3030;
        // After the xor a digit is 0 to 9: no high nibble, and none when 6 is added.
        if (word | word.wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
            break;
        }
        // Neighbours are joined to pairs, pairs to fours, fours to the whole, the first digit in the lowest byte.
        let pairs = (word * 10 + (word >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
        let eight = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
        *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
        *at += 8;
    }
    while let Some(digit) = bytes.get(*at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
    *at - start
}

/// A magnitude: mantissa times ten to the exponent, and whether there is more behind the last digit.
#[derive(Debug, Clone, Copy)]
struct Exact {
    mantissa: u128,
    exponent: i64,
    rest: bool,
}

impl Exact {
    /// The whole part of the magnitude times ten to the `scale`, and whether there is a rest.
    fn shifted(self, scale: i64) -> Result<(u128, bool), Misfit> {
        let power = self.exponent + scale;
        let ten_to = |power: i64| u32::try_from(power).ok().and_then(|p| 10u128.checked_pow(p));
        if self.mantissa == 0 {
            return Ok((0, self.rest));
        }
        if power >= 0 {
            let factor = ten_to(power).ok_or(Misfit::Range)?;
            let whole = self.mantissa.checked_mul(factor).ok_or(Misfit::Range)?;
            return Ok((whole, self.rest));
        }
        match ten_to(-power) {
            Some(divisor) => Ok((self.mantissa / divisor, self.rest || !self.mantissa.is_multiple_of(divisor))),
            None => Ok((0, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Grammar, Misfit, Number};

    fn number(text: &str) -> Number<'_> {
        Number::from_text(text).unwrap_or_else(|| panic!("{text} is no number"))
    }

    #[test]
    fn grammars() {
        let both = ["0", "-0", "1", "-12", "1.5", "0.05", "1e3", "1E+3", "1e-3", "-0.0e0", "10.010"];
        let text_only = ["+1", "01", "00", ".5", "5.", "-.5e1", "-01.0"];
        let neither = ["", "-", "+", ".", "e", "1e", "1e+", "-e1", "1.2.3", "--1", "0x1", "NaN", " 1", "1 ", "1_0"];
        let json = |text: &str| Number::scan(text, Grammar::Json).is_some_and(|n| n.text().len() == text.len());
        for text in both {
            assert!(json(text) && Number::from_text(text).is_some(), "{text}");
        }
        for text in text_only {
            assert!(!json(text) && Number::from_text(text).is_some(), "{text}");
        }
        for text in neither {
            assert!(!json(text) && Number::from_text(text).is_none(), "{text}");
        }
    }

    #[test]
    fn integers_are_exact() {
        let many_zeros = format!("1.{}", "0".repeat(500));
        let sticky = format!("1.{}1", "0".repeat(500));
        let cases: &[(&str, Result<i64, Misfit>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("1.0", Ok(1)),
            ("1e3", Ok(1000)),
            ("1200e-2", Ok(12)),
            ("1.5", Err(Misfit::Fraction)),
            ("1e-1", Err(Misfit::Fraction)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(Misfit::Range)),
            ("9007199254740993.0", Ok(9_007_199_254_740_993)),
            ("1e19", Err(Misfit::Range)),
            ("1e999999999999999999999", Err(Misfit::Range)),
            ("0e999999999999999999999", Ok(0)),
            ("1e-999999999999999999999", Err(Misfit::Fraction)),
            ("00000000000000000000000000000000000000000000000000007", Ok(7)),
            (&many_zeros, Ok(1)),
            (&sticky, Err(Misfit::Fraction)),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text).to_i64(), *expected, "{text}");
        }
    }

    #[test]
    fn scaled_and_floored() {
        assert_eq!(number("12.34").to_scaled(2), Ok(1234));
        assert_eq!(number("12.340").to_scaled(2), Ok(1234));
        assert_eq!(number("12.345").to_scaled(2), Err(Misfit::Fraction));
        assert_eq!(number("-0.01").to_scaled(2), Ok(-1));
        let nines = "9".repeat(38);
        assert_eq!(number(&nines).to_scaled(0).map(|v| v.to_string()), Ok(nines.clone()));
        assert_eq!(number(&format!("0.{nines}")).to_scaled(38).map(|v| v.to_string()), Ok(nines.clone()));
        assert_eq!(number(&format!("{nines}0")).to_scaled(0), Err(Misfit::Range));
        for (text, scale, expected) in [
            ("1.5", 0, 1),
            ("-1.5", 0, -2),
            ("-1.0", 0, -1),
            ("1704067200.123456789", 6, 1_704_067_200_123_456),
            ("-0.0000001", 6, -1),
            ("-1e-400", 6, -1),
            ("1704067200123456789", -3, 1_704_067_200_123_456),
            ("-1", -3, -1),
            ("-0", 6, 0),
            ("-1.00000000000000000000000000000000000000000000000001", 6, -1_000_001),
        ] {
            assert_eq!(number(text).to_floor(scale), Ok(expected), "{text}");
        }
        assert_eq!(number("1e30").to_floor(6), Err(Misfit::Range));
    }

    #[test]
    fn floats_are_nearest() {
        for text in [
            "0",
            "-0",
            "0.1",
            "12.34",
            "1e22",
            "1e23",
            "123456789012345678",
            "9007199254740993",
            "9007199254740992.5",
            "4.9e-324",
            "2.4703282292062327e-324",
            "1.7976931348623157e308",
            "0.000001",
            "8.5e-23",
            "1e-400",
            "179769313486231570814527423731704356798070567525844996598917476803157260780028538760589558632766878171540458953514382464234321326889464182768467546703537516986049910576551282076245490090389328944075868508455133942304583236903222948165808559332123347747e-1",
        ] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number(text).to_f64().map(f64::to_bits), Ok(expected.to_bits()), "{text}");
            let expected: f32 = text.parse().unwrap();
            let got = number(text).to_f32().ok();
            assert_eq!(got.map(f32::to_bits), Some(expected).filter(|v| v.is_finite()).map(f32::to_bits), "{text}");
        }
        assert_eq!(number("1e400").to_f64(), Err(Misfit::Range));
        assert_eq!(number("-1e39").to_f32(), Err(Misfit::Range));
        assert!(number("1e39").to_f64().is_ok());
    }
}
