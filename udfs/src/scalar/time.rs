//! Dates, timestamps and the differences between them, in microseconds UTC.
//!
//! A difference of timestamps is a duration in microseconds, and so is an interval without months: a day is 24 hours.
//! Out of range is NULL.

use arrow::array::ArrayRef;
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Operator};

use super::calendar::{self, civil_from_days, day_of, days_from_civil};
use super::cast;
use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_f64, map1, map2, operation, single};
use super::lower::{Lower, Typed};
use super::pattern::constant_text;
use super::types::{self, DURATION, MONTHS, is_float, is_integer, is_timestamp, sql_name, suffix};
use crate::time::DAY_US;

type Lowered = std::result::Result<Option<Typed>, CompileError>;

/// `left operator right` where one of them is a time, or `None` where neither is.
pub(super) fn arithmetic(lower: &Lower<'_>, operator: Operator, left: Typed, right: Typed) -> Lowered {
    use DataType::{Date32, Int64};
    let sign = match operator {
        Operator::Plus => 1,
        Operator::Minus => -1,
        Operator::Multiply | Operator::Divide => 0,
        _ => return Ok(None),
    };
    let (l, r) = (left.data_type.clone(), right.data_type.clone());
    let apply = |name: &str, kernel: Time, output: &DataType, operands: Vec<Typed>| {
        Ok(Some(operation(name, kernel, output.clone(), Nulls::Any, operands)))
    };
    let time = |t: &DataType| is_timestamp(t) || *t == Date32;
    let null = |output: DataType| Ok(Some(Typed::literal(ScalarValue::try_from(&output)?, output)));
    match sign {
        0 if l == DURATION && is_integer(&r) => {
            let operands = vec![left, lower.cast(right, &Int64)?];
            if operator == Operator::Multiply {
                apply("multiply_interval", Time::Multiply, &DURATION, operands)
            } else {
                apply("divide_interval", Time::Divide, &DURATION, operands)
            }
        }
        0 if r == DURATION && is_integer(&l) && operator == Operator::Multiply => self::arithmetic(lower, operator, right, left),
        // `interval + time` is `time + interval`.
        1 if (time(&r) && (l == DURATION || l == MONTHS)) || (r == Date32 && is_integer(&l)) => {
            self::arithmetic(lower, operator, right, left)
        }
        1 | -1 if time(&l) && r == MONTHS => plus_months(lower, sign, left, &right),
        1 | -1 if time(&l) && r == DURATION => plus_duration(lower, sign, left, right),
        1 | -1 if l == DURATION && r == DURATION => {
            let (name, kernel) = if sign > 0 { ("add_interval", Time::Add) } else { ("subtract_interval", Time::Subtract) };
            apply(name, kernel, &DURATION, vec![left, right])
        }
        1 | -1 if l == Date32 && is_integer(&r) => {
            let operands = vec![left, lower.cast(right, &Int64)?];
            let (name, kernel) = if sign > 0 { ("add_days", Time::AddDays) } else { ("subtract_days", Time::SubtractDays) };
            apply(name, kernel, &Date32, operands)
        }
        -1 if l == Date32 && r == Date32 => apply("days_between", Time::DaysBetween, &Int64, vec![left, right]),
        // NULL takes the other's type, and so does the sum; a difference is what that of two such times is.
        -1 if l == DataType::Null && time(&r) || r == DataType::Null && time(&l) => {
            null(if l == Date32 || r == Date32 { Int64 } else { DURATION })
        }
        1 if l == DataType::Null && time(&r) => null(r),
        1 if r == DataType::Null && time(&l) => null(l),
        _ if l == DataType::Null && r == DURATION || r == DataType::Null && l == DURATION => null(DURATION),
        -1 if time(&l) && time(&r) => {
            let to = types::timestamp();
            let operands = vec![lower.cast(left, &to)?, lower.cast(right, &to)?];
            apply("subtract_timestamps", Time::Between, &DURATION, operands)
        }
        _ => Ok(None),
    }
}

/// A time plus or minus a duration: whole constant days keep a DATE, anything else makes it a TIMESTAMP.
fn plus_duration(lower: &Lower<'_>, sign: i32, left: Typed, right: Typed) -> Lowered {
    if left.data_type == DataType::Date32
        && let Expr::Literal(ScalarValue::DurationMicrosecond(Some(micros)), _) = &right.expr
        && micros % DAY_US == 0
    {
        let days = Typed::literal((micros / DAY_US).into(), DataType::Int64);
        let operator = if sign > 0 { Operator::Plus } else { Operator::Minus };
        return arithmetic(lower, operator, left, days);
    }
    let output = types::timestamp();
    let operands = vec![lower.cast(left, &output)?, right];
    let (name, kernel) = if sign > 0 { ("add_timestamp", Time::Later) } else { ("subtract_timestamp", Time::Earlier) };
    Ok(Some(operation(name, kernel, output, Nulls::Any, operands)))
}

/// A time plus or minus a constant interval with months: the months first, with the day clamped to the month's end.
fn plus_months(lower: &Lower<'_>, sign: i32, left: Typed, right: &Typed) -> Lowered {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(value), _) = &right.expr else {
        return Err(CompileError::new("interval of months is not a constant"));
    };
    let Some(value) = value else {
        return Ok(Some(Typed::literal(ScalarValue::try_from(&left.data_type)?, left.data_type)));
    };
    let out_of_range = || CompileError::new("interval is out of range");
    let micros = lower.interval_micros(*value)?.checked_mul(sign.into()).ok_or_else(out_of_range)?;
    let months = value.months.checked_mul(sign).ok_or_else(out_of_range)?;
    let date = left.data_type == DataType::Date32 && micros % DAY_US == 0;
    let left = lower.cast(left, &types::timestamp())?;
    let moved =
        operation(format!("add_months[{months} {micros}]"), Time::Months { months, micros }, types::timestamp(), Nulls::Any, vec![left]);
    if date { lower.cast(moved, &DataType::Date32).map(Some) } else { Ok(Some(moved)) }
}

/// The negation of a duration, or `None` of anything else.
pub(super) fn negate(operand: &Typed) -> Option<Typed> {
    (operand.data_type == DURATION).then(|| operation("negate_interval", Time::Negate, DURATION, Nulls::Any, vec![operand.clone()]))
}

/// The names [`function`] answers to.
pub(super) const FUNCTIONS: &[&str] = &[
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "to_date",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];

/// A function of times, by DataFusion's name.
pub(super) fn function(lower: &Lower<'_>, name: &str, args: &[Typed]) -> std::result::Result<Typed, CompileError> {
    match (name, args) {
        ("date_part", [part, value]) => date_part(lower, part, value),
        ("date_trunc", [unit, value]) => date_trunc(lower, unit, value),
        ("date_bin", [stride, value]) => date_bin(lower, stride, value, None),
        ("date_bin", [stride, value, origin]) => date_bin(lower, stride, value, Some(origin)),
        ("make_date", [year, month, day]) => {
            let operands = [year, month, day].into_iter().map(|part| lower.integer(name, part.clone()));
            let operands = operands.collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(operation(name, Time::MakeDate, DataType::Date32, Nulls::Any, operands))
        }
        ("to_date", [value]) => cast::explicit(lower, value.clone(), &DataType::Date32),
        ("to_unixtime", [value]) => {
            let value = time_of(lower, name, value)?;
            Ok(operation("floor_seconds", Time::Seconds, DataType::Int64, Nulls::OfOperands, vec![value]))
        }
        ("from_unixtime" | "to_timestamp" | "to_timestamp_seconds", [value]) => from_number(lower, name, value, TimeUnit::Second),
        ("to_timestamp_millis", [value]) => from_number(lower, name, value, TimeUnit::Millisecond),
        ("to_timestamp_micros", [value]) => from_number(lower, name, value, TimeUnit::Microsecond),
        ("to_timestamp_nanos", [value]) => from_number(lower, name, value, TimeUnit::Nanosecond),
        _ => Err(CompileError::new(format!("function \"{name}\" does not take {} arguments in a feature view", args.len()))),
    }
}

fn from_number(lower: &Lower<'_>, name: &str, value: &Typed, unit: TimeUnit) -> std::result::Result<Typed, CompileError> {
    let output = types::timestamp();
    if is_integer(&value.data_type) {
        return cast::explicit(lower, value.clone(), &DataType::Timestamp(unit, None));
    }
    if is_float(&value.data_type) && unit == TimeUnit::Second {
        let value = lower.cast(value.clone(), &DataType::Float64)?;
        return Ok(operation("timestamp_of_fractional_seconds", Time::FractionalSeconds, output, Nulls::Any, vec![value]));
    }
    let value = time_of(lower, name, value)?;
    match (name, unit) {
        ("to_timestamp_seconds", _) | (_, TimeUnit::Millisecond) => cast::explicit(lower, value, &DataType::Timestamp(unit, None)),
        _ => Ok(value),
    }
}

/// An argument as a timestamp: dates and strings are cast.
fn time_of(lower: &Lower<'_>, name: &str, value: &Typed) -> std::result::Result<Typed, CompileError> {
    match &value.data_type {
        DataType::Date32 | DataType::Utf8View | DataType::Null => {}
        other if is_timestamp(other) => {}
        other => return Err(CompileError::new(format!("function \"{name}\" does not take {}", sql_name(other)))),
    }
    lower.cast(value.clone(), &types::timestamp())
}

/// What `extract` takes out of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Epoch,
}

impl Part {
    fn of(text: &str) -> Option<Part> {
        let text = text.trim_matches(['\'', '"']).to_lowercase();
        Some(match text.as_str() {
            "y" | "yr" | "yrs" | "year" | "years" => Part::Year,
            "isoyear" => Part::IsoYear,
            "qtr" | "quarter" => Part::Quarter,
            "mon" | "mons" | "month" | "months" => Part::Month,
            "w" | "week" | "weeks" => Part::Week,
            "d" | "day" | "days" => Part::Day,
            "h" | "hr" | "hrs" | "hour" | "hours" => Part::Hour,
            "m" | "min" | "mins" | "minute" | "minutes" => Part::Minute,
            "s" | "sec" | "secs" | "second" | "seconds" => Part::Second,
            "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => Part::Millisecond,
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => Part::Microsecond,
            "ns" | "nanosecond" | "nanoseconds" => Part::Nanosecond,
            "dow" => Part::DayOfWeek,
            "isodow" => Part::IsoDayOfWeek,
            "doy" => Part::DayOfYear,
            "epoch" => Part::Epoch,
            _ => return None,
        })
    }

    /// Of an instant. Seconds and finer count from the minute, as DataFusion has it.
    fn of_instant(self, at: i64) -> i64 {
        let (days, of_day) = (day_of(at), at.rem_euclid(DAY_US));
        let (year, month, day) = civil_from_days(days);
        match self {
            Part::Year => year,
            Part::IsoYear => calendar::iso_week(days).0,
            Part::Quarter => (month - 1) / 3 + 1,
            Part::Month => month,
            Part::Week => calendar::iso_week(days).1,
            Part::Day => day,
            Part::Hour => of_day / 3_600_000_000,
            Part::Minute => of_day / 60_000_000 % 60,
            Part::Second => of_day / 1_000_000 % 60,
            Part::Millisecond => of_day / 1_000 % 60_000,
            Part::Microsecond => of_day % 60_000_000,
            Part::Nanosecond => of_day % 60_000_000 * 1_000,
            Part::DayOfWeek => (calendar::weekday(days) + 1) % 7,
            Part::IsoDayOfWeek => calendar::weekday(days) + 1,
            Part::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            Part::Epoch => at.div_euclid(1_000_000),
        }
    }

    /// Of a duration: the whole of it in that unit, truncated toward zero, as DataFusion has it.
    fn of_duration(self, micros: i64) -> Option<i64> {
        Some(match self {
            Part::Week => micros / (7 * DAY_US),
            Part::Day => micros / DAY_US,
            Part::Hour => micros / 3_600_000_000,
            Part::Minute => micros / 60_000_000,
            Part::Second => micros / 1_000_000,
            Part::Millisecond => micros / 1_000,
            Part::Microsecond => micros,
            Part::Nanosecond => micros.checked_mul(1_000)?,
            _ => return None,
        })
    }
}

fn date_part(lower: &Lower<'_>, part: &Typed, value: &Typed) -> std::result::Result<Typed, CompileError> {
    let Some(text) = constant_text("part of a date", part)? else {
        return Err(CompileError::new("part of a date is NULL"));
    };
    let part = Part::of(&text).ok_or_else(|| {
        CompileError::new(format!("unknown part of a date \"{}\"", text.to_lowercase()))
            .help("Parts are year, quarter, month, week, day, hour, minute, second, dow, doy and epoch.")
    })?;
    let duration = value.data_type == DURATION;
    let value = if duration { value.clone() } else { time_of(lower, "date_part", value)? };
    if duration && part != Part::Epoch && part.of_duration(0).is_none() {
        return Err(
            CompileError::new(format!("an interval has no {}", text.to_lowercase())).help("Take epoch, day, hour, minute or second of it.")
        );
    }
    let output = match part {
        Part::Epoch => DataType::Float64,
        Part::Nanosecond => DataType::Int64,
        _ => DataType::Int32,
    };
    let nulls = if duration && part != Part::Epoch { Nulls::Any } else { Nulls::OfOperands };
    let name = format!("extract_{}_{}", format!("{part:?}").to_lowercase(), suffix(&value.data_type));
    Ok(operation(name, Extract { part, duration }, output, nulls, vec![value]))
}

#[derive(Debug)]
struct Extract {
    part: Part,
    duration: bool,
}

impl Kernel for Extract {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        type Us = TimestampMicrosecondType;
        type Span = DurationMicrosecondType;
        let (value, part) = (single(operands)?, self.part);
        match (self.duration, part) {
            (false, Part::Epoch) => map1::<Us, Float64Type>(value, rows, &DataType::Float64, |at| Some(seconds(at))),
            (true, Part::Epoch) => map1::<Span, Float64Type>(value, rows, &DataType::Float64, |span| Some(seconds(span))),
            (false, Part::Nanosecond) => map1::<Us, Int64Type>(value, rows, &DataType::Int64, |at| Some(part.of_instant(at))),
            (true, Part::Nanosecond) => map1::<Span, Int64Type>(value, rows, &DataType::Int64, |span| part.of_duration(span)),
            (false, _) => map1::<Us, Int32Type>(value, rows, &DataType::Int32, |at| part.of_instant(at).try_into().ok()),
            (true, _) => map1::<Span, Int32Type>(value, rows, &DataType::Int32, |span| part.of_duration(span)?.try_into().ok()),
        }
    }
}

/// Microseconds as seconds, rounded once: below 2^53 both sides of the division are exact, beyond it the digits are parsed.
fn seconds(micros: i64) -> f64 {
    if micros.unsigned_abs() <= 1 << 53 {
        return micros as f64 / 1e6;
    }
    format!("{micros}e-6").parse().unwrap_or(f64::NAN)
}

/// To what a time is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Micros(i64),
    Week,
    Months(i64),
}

fn date_trunc(lower: &Lower<'_>, unit: &Typed, value: &Typed) -> std::result::Result<Typed, CompileError> {
    let text = constant_text("unit of date_trunc", unit)?.unwrap_or_default().to_lowercase();
    let cut = match text.as_str() {
        "microsecond" => Cut::Micros(1),
        "millisecond" => Cut::Micros(1_000),
        "second" => Cut::Micros(1_000_000),
        "minute" => Cut::Micros(60_000_000),
        "hour" => Cut::Micros(3_600_000_000),
        "day" => Cut::Micros(DAY_US),
        "week" => Cut::Week,
        "month" => Cut::Months(1),
        "quarter" => Cut::Months(3),
        "year" => Cut::Months(12),
        _ => {
            return Err(CompileError::new(format!("unknown unit \"{text}\" of date_trunc"))
                .help("Units are year, quarter, month, week, day, hour, minute, second, millisecond and microsecond."));
        }
    };
    let value = time_of(lower, "date_trunc", value)?;
    Ok(operation(format!("date_trunc_{text}"), Time::Truncate(cut), types::timestamp(), Nulls::Any, vec![value]))
}

fn date_bin(lower: &Lower<'_>, stride: &Typed, value: &Typed, origin: Option<&Typed>) -> std::result::Result<Typed, CompileError> {
    let stride = match &stride.expr {
        Expr::Literal(ScalarValue::DurationMicrosecond(Some(stride)), _) if *stride > 0 => *stride,
        _ => {
            return Err(CompileError::new("stride of date_bin is not a constant interval of a positive, fixed length")
                .help("For calendar units use date_trunc."));
        }
    };
    let value = time_of(lower, "date_bin", value)?;
    let origin = match origin {
        Some(origin) => time_of(lower, "date_bin", origin)?,
        None => Typed::literal(ScalarValue::TimestampMicrosecond(Some(0), Some("UTC".into())), types::timestamp()),
    };
    let name = format!("date_bin[{stride}]");
    Ok(operation(name, Time::Bin(stride), types::timestamp(), Nulls::Any, vec![value, origin]))
}

#[derive(Debug)]
enum Time {
    /// Timestamp and duration.
    Later,
    Earlier,
    /// Two timestamps.
    Between,
    /// Two durations.
    Add,
    Subtract,
    /// Duration and integer.
    Multiply,
    Divide,
    Negate,
    /// Date and integer.
    AddDays,
    SubtractDays,
    DaysBetween,
    Months {
        months: i32,
        micros: i64,
    },
    Truncate(Cut),
    Bin(i64),
    MakeDate,
    Seconds,
    FractionalSeconds,
}

impl Kernel for Time {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        type Us = TimestampMicrosecondType;
        type Span = DurationMicrosecondType;
        let timestamp = types::timestamp();
        match self {
            Time::Later => map2::<Us, Span, Us>(operands, rows, &timestamp, i64::checked_add),
            Time::Earlier => map2::<Us, Span, Us>(operands, rows, &timestamp, i64::checked_sub),
            Time::Between => map2::<Us, Us, Span>(operands, rows, &DURATION, i64::checked_sub),
            Time::Add => map2::<Span, Span, Span>(operands, rows, &DURATION, i64::checked_add),
            Time::Subtract => map2::<Span, Span, Span>(operands, rows, &DURATION, i64::checked_sub),
            Time::Multiply => map2::<Span, Int64Type, Span>(operands, rows, &DURATION, i64::checked_mul),
            Time::Divide => map2::<Span, Int64Type, Span>(operands, rows, &DURATION, i64::checked_div),
            Time::Negate => map1::<Span, Span>(single(operands)?, rows, &DURATION, i64::checked_neg),
            Time::AddDays => map2::<Date32Type, Int64Type, Date32Type>(operands, rows, &DataType::Date32, |date, days| {
                i64::from(date).checked_add(days)?.try_into().ok()
            }),
            Time::SubtractDays => map2::<Date32Type, Int64Type, Date32Type>(operands, rows, &DataType::Date32, |date, days| {
                i64::from(date).checked_sub(days)?.try_into().ok()
            }),
            Time::DaysBetween => {
                map2::<Date32Type, Date32Type, Int64Type>(operands, rows, &DataType::Int64, |a, b| Some(i64::from(a) - i64::from(b)))
            }
            Time::Months { months, micros } => {
                map1::<Us, Us>(single(operands)?, rows, &timestamp, |at| calendar::plus(at, *months, *micros))
            }
            Time::Truncate(cut) => map1::<Us, Us>(single(operands)?, rows, &timestamp, |at| truncate(at, *cut)),
            Time::Bin(stride) => map2::<Us, Us, Us>(operands, rows, &timestamp, |at, origin| {
                let since = i128::from(at) - i128::from(origin);
                let stride = i128::from(*stride);
                (i128::from(origin) + since.div_euclid(stride) * stride).try_into().ok()
            }),
            Time::MakeDate => {
                let [year, month, day] = operands else { return internal_err!("make_date takes 3 operands") };
                let (year, month, day) = (year.cells::<Int64Type>()?, month.cells::<Int64Type>()?, day.cells::<Int64Type>()?);
                super::kernel::build::<Date32Type>(rows, &DataType::Date32, |row| {
                    calendar::date(year.get(row)?, month.get(row)?, day.get(row)?)?.try_into().ok()
                })
            }
            Time::Seconds => map1::<Us, Int64Type>(single(operands)?, rows, &DataType::Int64, |at| Some(at.div_euclid(1_000_000))),
            Time::FractionalSeconds => map1::<Float64Type, Us>(single(operands)?, rows, &timestamp, |seconds| {
                let micros = canonical_f64((seconds * 1e6).floor());
                // The bounds are the first floats beyond 64 bits; NaN is within none.
                (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&micros).then_some(micros as i64)
            }),
        }
    }
}

fn truncate(at: i64, cut: Cut) -> Option<i64> {
    match cut {
        Cut::Micros(step) => at.div_euclid(step).checked_mul(step),
        Cut::Week => {
            let days = day_of(at);
            (days - calendar::weekday(days)).checked_mul(DAY_US)
        }
        Cut::Months(months) => {
            let (year, month, _) = civil_from_days(day_of(at));
            days_from_civil(year, (month - 1) / months * months + 1, 1).checked_mul(DAY_US)
        }
    }
}
