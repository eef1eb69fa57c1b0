//! `--param`: a value on the command line types itself, as a literal in SQL does.

use datafusion::common::ScalarValue;

const DECIMAL_DIGITS_MAX: usize = 38;

/// The value that a text stands for: `true`, `false`, `null`, an integer, a number, else a string. Single quotes make a string of
/// anything, with `''` for a quote inside.
///
/// A number with leading zeros or a plus sign is a string: it is more likely a code than a quantity, and the digits would be lost.
/// An integer beyond 64 bits is a DECIMAL.
pub(super) fn parse(text: &str) -> Result<ScalarValue, String> {
    let string = |s: String| Ok(ScalarValue::Utf8(Some(s)));
    if let Some(rest) = text.strip_prefix('\'') {
        return string(unquote(rest)?);
    }
    match text.to_ascii_lowercase().as_str() {
        "null" => return Ok(ScalarValue::Null),
        "true" => return Ok(ScalarValue::Boolean(Some(true))),
        "false" => return Ok(ScalarValue::Boolean(Some(false))),
        _ => {}
    }
    match number(text) {
        Some(Number::Integer) => integer(text),
        Some(Number::Real) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(ScalarValue::Float64(Some(value))),
            _ => Err("the number is beyond the range of DOUBLE; single quotes make a string of it".into()),
        },
        None => string(text.into()),
    }
}

/// The text between quotes, its first quote taken off.
fn unquote(rest: &str) -> Result<String, String> {
    let inner = rest.strip_suffix('\'').ok_or("a string that begins with a quote ends with one")?;
    if inner.replace("''", "").contains('\'') {
        return Err("a quote inside a quoted string is written twice".into());
    }
    Ok(inner.replace("''", "'"))
}

fn integer(text: &str) -> Result<ScalarValue, String> {
    if let Ok(value) = text.parse() {
        return Ok(ScalarValue::Int64(Some(value)));
    }
    match text.parse::<i128>() {
        Ok(value) if text.trim_start_matches('-').len() <= DECIMAL_DIGITS_MAX => Ok(ScalarValue::Decimal128(Some(value), 38, 0)),
        _ => Err("the integer has more than 38 digits; single quotes make a string of it".into()),
    }
}

enum Number {
    Integer,
    Real,
}

/// What kind of number a text is, by SQL's grammar with a minus sign in front.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let plain = |s: &str| !s.is_empty() && all_digits(s);
    if !all_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if whole.is_empty() && fraction.is_none_or(str::is_empty) {
        return None;
    }
    if !fraction.is_none_or(all_digits) || !exponent.is_none_or(|e| plain(e.strip_prefix(['+', '-']).unwrap_or(e))) {
        return None;
    }
    Some(if fraction.is_none() && exponent.is_none() { Number::Integer } else { Number::Real })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_type_themselves() {
        let int = |v| ScalarValue::Int64(Some(v));
        let double = |v| ScalarValue::Float64(Some(v));
        let string = |s: &str| ScalarValue::Utf8(Some(s.into()));
        let cases = [
            ("42", int(42)),
            ("-1", int(-1)),
            ("0", int(0)),
            ("9223372036854775807", int(i64::MAX)),
            ("9223372036854775808", ScalarValue::Decimal128(Some(9_223_372_036_854_775_808), 38, 0)),
            ("4.2", double(4.2)),
            (".5", double(0.5)),
            ("1.", double(1.0)),
            ("-1e-3", double(-0.001)),
            ("1E5", double(1e5)),
            ("true", ScalarValue::Boolean(Some(true))),
            ("FALSE", ScalarValue::Boolean(Some(false))),
            ("null", ScalarValue::Null),
            ("ann", string("ann")),
            ("", string("")),
            ("'42'", string("42")),
            ("'null'", string("null")),
            ("'it''s'", string("it's")),
            ("''", string("")),
            ("it's", string("it's")),
            ("007", string("007")),
            ("+5", string("+5")),
            ("-", string("-")),
            (".", string(".")),
            ("1e", string("1e")),
            ("1.2.3", string("1.2.3")),
            ("NaN", string("NaN")),
            ("inf", string("inf")),
            ("2024-05-01", string("2024-05-01")),
            ("0x10", string("0x10")),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
        for wrong in ["'", "'a", "'a'b'", "1e999", &"9".repeat(39), &"9".repeat(60)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
