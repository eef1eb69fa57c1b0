//! Intervals: `'30 seconds'`, `'1 day 12 hours'`, `'01:30:00'`, `'2' HOUR`.
//!
//! A day is 24 hours and a week seven days; months and years are calendar months. Anything finer than a microsecond, or that does
//! not fit, is refused.

use datafusion::sql::sqlparser::ast::{DateTimeField, Expr, Interval as SqlInterval, Spanned, UnaryOperator, Value};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::{Cursor, Parsed};
use crate::ast::Interval;
use crate::codes::E0403;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// The value of an interval's text.
///
/// - Units: year, month, week, day, hour, minute, second, millisecond, microsecond, in singular, plural and their usual short forms;
///   a number without a unit is seconds. Several parts add up. `hh:mm`, `hh:mm:ss` and fractions of a fixed unit are read.
/// - Errors: what is wrong, as the end of a sentence.
pub fn parse_interval(text: &str) -> Result<Interval, String> {
    let words = split(text);
    if words.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut total = Parts::default();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word.contains(':') {
            total.add_clock(word)?;
            continue;
        }
        let number = Decimal::parse(word).ok_or_else(|| format!("\"{word}\" is not a number"))?;
        let unit = match words.next_if(|next| !starts_number(next)) {
            Some(name) => Unit::find(name).ok_or_else(|| format!("\"{name}\" is not a unit of time"))?,
            None => Unit::Micros(SECOND_US),
        };
        total.add(number, unit)?;
    }
    total.finish()
}

/// The value of an interval expression of embedded SQL, with or without a unit behind the string.
pub fn interval_of(interval: &SqlInterval) -> Result<Interval, Diagnostic> {
    let span = Span::from(Expr::Interval(interval.clone()).span());
    let invalid = |reason: String| Diagnostic::error(E0403, span, format!("interval is not valid: {reason}"));
    let SqlInterval { value, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
    if last_field.is_some() || leading_precision.is_some() || fractional_seconds_precision.is_some() {
        return Err(invalid("ranges and precisions of fields are not read".to_owned())
            .help("Write the units into the string: INTERVAL '1 day 12 hours'."));
    }
    let text = constant_text(value).ok_or_else(|| invalid("it is not a constant".to_owned()))?;
    match leading_field {
        Some(field) => with_unit(&text, &unit_name(field)).map_err(invalid),
        None => parse_interval(&text).map_err(invalid),
    }
}

/// Reads `INTERVAL '...' [unit]` or `INTERVAL n unit`.
pub(super) fn interval(cursor: &mut Cursor<'_>) -> Parsed<(Interval, Span)> {
    let start = cursor.index();
    cursor.expect_words(&["INTERVAL"])?;
    let negative = cursor.eat_token(&Token::Minus);
    let text = match cursor.peek() {
        Some(Token::SingleQuotedString(text)) if !negative => text.clone(),
        Some(Token::Number(text, _)) => format!("{}{text}", if negative { "-" } else { "" }),
        _ => return Err(cursor.unexpected("an interval such as '30 seconds'")),
    };
    cursor.advance();
    let value = match cursor.peek() {
        Some(Token::Word(word)) if word.quote_style.is_none() && Unit::find(&word.value).is_some() => {
            cursor.advance();
            with_unit(&text, &word.value)
        }
        _ => parse_interval(&text),
    };
    let span = cursor.span_from(start);
    match value {
        Ok(interval) => Ok((interval, span)),
        Err(reason) => Err(Diagnostic::error(E0403, span, format!("interval is not valid: {reason}"))),
    }
}

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Micros(i64),
}

impl Unit {
    fn find(name: &str) -> Option<Unit> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" | "years" | "yr" | "yrs" | "y" => Unit::Months(12),
            "month" | "months" | "mon" | "mons" => Unit::Months(1),
            "week" | "weeks" | "w" => Unit::Micros(7 * DAY_US),
            "day" | "days" | "d" => Unit::Micros(DAY_US),
            "hour" | "hours" | "hr" | "hrs" | "h" => Unit::Micros(HOUR_US),
            "minute" | "minutes" | "min" | "mins" | "m" => Unit::Micros(MINUTE_US),
            "second" | "seconds" | "sec" | "secs" | "s" => Unit::Micros(SECOND_US),
            "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => Unit::Micros(1_000),
            "microsecond" | "microseconds" | "usec" | "usecs" | "us" => Unit::Micros(1),
            _ => return None,
        })
    }
}

fn unit_name(field: &DateTimeField) -> String {
    field.to_string()
}

fn with_unit(text: &str, unit: &str) -> Result<Interval, String> {
    let number = text.trim();
    if Decimal::parse(number).is_none() {
        return Err(format!("\"{number}\" is not a number"));
    }
    parse_interval(&format!("{number} {unit}"))
}

/// The text of a constant: a string or a number with its sign.
fn constant_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Some(text.clone()),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => Some(format!("-{text}")),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Splits at white space and between a number and a unit behind it: `5min` is `5` and `min`.
fn split(text: &str) -> Vec<&str> {
    text.split_whitespace()
        .flat_map(|word| {
            let unit_at = word.find(|c: char| c.is_ascii_alphabetic()).filter(|at| *at > 0 && starts_number(word));
            let (number, unit) = unit_at.and_then(|at| word.split_at_checked(at)).unwrap_or((word, ""));
            [number, unit]
        })
        .filter(|word| !word.is_empty())
        .collect()
}

fn starts_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// A decimal number: digits and how many of them stand behind the point.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    fn parse(text: &str) -> Option<Decimal> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = format!("{whole}{fraction}");
        // More digits than this cannot be a number of microseconds.
        if all.is_empty() || all.len() > 30 || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let value: i128 = all.parse().ok()?;
        Some(Decimal { digits: if negative { -value } else { value }, scale: u32::try_from(fraction.len()).ok()? })
    }

    /// The product with a unit, if it is whole.
    fn times(self, unit: i64) -> Option<i128> {
        let product = self.digits.checked_mul(i128::from(unit))?;
        let divisor = 10_i128.checked_pow(self.scale)?;
        (product % divisor == 0).then_some(product / divisor)
    }
}

#[derive(Default)]
struct Parts {
    months: i128,
    micros: i128,
}

impl Parts {
    fn add(&mut self, number: Decimal, unit: Unit) -> Result<(), String> {
        let (sum, unit, finest) = match unit {
            Unit::Months(months) => (&mut self.months, months, "a month"),
            Unit::Micros(micros) => (&mut self.micros, micros, "a microsecond"),
        };
        let value = number.times(unit).ok_or_else(|| format!("it is finer than {finest}"))?;
        *sum = sum.checked_add(value).ok_or_else(|| "it is too long".to_owned())?;
        Ok(())
    }

    /// `[-]hh:mm[:ss[.ffffff]]`.
    fn add_clock(&mut self, word: &str) -> Result<(), String> {
        let invalid = || format!("\"{word}\" is not a time of the form hh:mm:ss");
        let (sign, fields) = match word.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", word),
        };
        let fields: Vec<&str> = fields.split(':').collect();
        let units = [HOUR_US, MINUTE_US, SECOND_US];
        if !(2..=3).contains(&fields.len()) || fields.iter().any(|field| !field.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(invalid());
        }
        for (index, (field, unit)) in fields.iter().zip(units).enumerate() {
            let number = Decimal::parse(&format!("{sign}{field}")).ok_or_else(invalid)?;
            let whole = number.scale == 0 || index == 2;
            let in_range = index == 0 || number.digits.unsigned_abs() < 60 * 10_u128.saturating_pow(number.scale);
            if !whole || !in_range {
                return Err(invalid());
            }
            self.add(number, Unit::Micros(unit))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Interval, String> {
        match (i32::try_from(self.months), i64::try_from(self.micros)) {
            (Ok(months), Ok(micros)) => Ok(Interval { months, micros }),
            _ => Err("it is too long".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_exactly_or_refused() {
        let check = |text: &str, expected: Result<(i32, i64), &str>| {
            let got = parse_interval(text).map(|interval| (interval.months, interval.micros));
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        };
        check("30 seconds", Ok((0, 30 * SECOND_US)));
        check("1 hour", Ok((0, HOUR_US)));
        check("24 HOURS", Ok((0, DAY_US)));
        check("7 days", Ok((0, 7 * DAY_US)));
        check("2 weeks 1 day -3 hours", Ok((0, 15 * DAY_US - 3 * HOUR_US)));
        check("1 month", Ok((1, 0)));
        check("1 year 2 mons 5 min", Ok((14, 5 * MINUTE_US)));
        check("0.5 years", Ok((6, 0)));
        check("1.5 s", Ok((0, 1_500_000)));
        check("5min", Ok((0, 5 * MINUTE_US)));
        check("10", Ok((0, 10 * SECOND_US)));
        check("01:30", Ok((0, HOUR_US + 30 * MINUTE_US)));
        check("-00:00:01.5", Ok((0, -1_500_000)));
        check("1 day 00:00:00.000001", Ok((0, DAY_US + 1)));
        check("-1 day", Ok((0, -DAY_US)));
        check("", Err("it is empty"));
        check("soon", Err("\"soon\" is not a number"));
        check("1 fortnight", Err("\"fortnight\" is not a unit of time"));
        check("0.0000001 s", Err("it is finer than a microsecond"));
        check("1.3 months", Err("it is finer than a month"));
        check("1:60", Err("\"1:60\" is not a time of the form hh:mm:ss"));
        check("1:2:3:4", Err("\"1:2:3:4\" is not a time of the form hh:mm:ss"));
        check("999999999999 days", Err("it is too long"));
        check("99999999999 months", Err("it is too long"));
        check("1e3 s", Err("\"e3\" is not a unit of time"));
        check("- 1 s", Err("\"-\" is not a number"));
    }
}
