//! Casts: every CAST is a TRY_CAST. What does not fit its new type, or does not parse, is NULL.
//!
//! Arrow's kernels in their lenient mode do most of it; a column on which one still fails is cast row by row. Ours are the
//! casts between times (without chrono's range), and from decimals to floats (rounded once).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::util::display::FormatOptions;
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::calendar;
use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_nan, map1, null_where_it_fails, operation, single};
use super::lower::{Lower, Typed};
use super::types::{self, DURATION, MONTHS, is_decimal, is_float, is_integer, is_numeric, is_timestamp, sql_name, suffix};
use crate::time::DAY_US;

/// CAST as a statement writes it: `to` is the type that DataFusion read.
pub(super) fn explicit(lower: &Lower<'_>, operand: Typed, to: &DataType) -> std::result::Result<Typed, CompileError> {
    if operand.data_type == DataType::Utf8View && matches!(to, DataType::Interval(_)) {
        return lower.interval_literal(operand);
    }
    let refuse = || {
        CompileError::new(format!(
            "{} cannot be cast to {} in a feature view",
            sql_name(&operand.data_type),
            types::canonical_type(to).map_or_else(|| to.to_string(), |to| sql_name(&to))
        ))
    };
    let unsigned = matches!(to, DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64);
    let target = types::canonical_type(to).filter(|_| !unsigned).ok_or_else(refuse)?;
    let from = &operand.data_type;
    if from == &DURATION && target != DURATION || from == &MONTHS {
        return Err(refuse().help("Take extract(epoch FROM ...) for its seconds."));
    }
    if is_timestamp(&target) && (is_float(from) || is_decimal(from)) {
        return Err(refuse().help("Use to_timestamp(...), which takes seconds."));
    }
    if from != &target && !allowed(from, &target) {
        return Err(refuse());
    }
    let DataType::Timestamp(unit, _) = to else { return lower.cast(operand, &target) };
    if is_integer(from) {
        let operand = lower.cast(operand, &DataType::Int64)?;
        return Ok(operation(format!("timestamp_of_{}", unit_name(*unit)), FromUnit(*unit), target, Nulls::Any, vec![operand]));
    }
    let operand = lower.cast(operand, &target)?;
    match unit {
        // A precision below microseconds truncates toward the past.
        TimeUnit::Second | TimeUnit::Millisecond => {
            let step = if *unit == TimeUnit::Second { 1_000_000 } else { 1_000 };
            let name = format!("truncate_to_{}", unit_name(*unit));
            Ok(operation(name, Floor(step), target, Nulls::Any, vec![operand]))
        }
        _ => Ok(operand),
    }
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// Whether SQL may cast between two canonical types.
fn allowed(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Null, _) => true,
        (List(_) | Struct(_), _) | (_, List(_) | Struct(_)) => false,
        (Duration(_) | Interval(_), _) | (_, Duration(_) | Interval(_)) => false,
        (Boolean, other) | (other, Boolean) => is_integer(other) || is_float(other) || *other == Utf8View,
        (Date32, other) | (other, Date32) => matches!(other, Int32 | Int64 | Utf8View) || is_timestamp(other),
        (from, Timestamp(..)) => is_integer(from) || *from == Utf8View,
        (Timestamp(..), to) => matches!(to, Int64 | Utf8View),
        (BinaryView, Utf8View) | (Utf8View, BinaryView) => true,
        (Utf8View, to) => is_numeric(to),
        (from, Utf8View) => is_numeric(from),
        _ => is_numeric(from) && is_numeric(to),
    }
}

/// The cast of an operand that needs one. `to` may be any type that Arrow casts to.
pub(super) fn operation_of(operand: Typed, to: &DataType) -> std::result::Result<Typed, CompileError> {
    let from = operand.data_type.clone();
    if !can_cast_types(&from, to) {
        return Err(CompileError::new(format!("{} cannot become {}", sql_name(&from), sql_name(to))));
    }
    let nulls = if always_fits(&from, to) { Nulls::OfOperands } else { Nulls::Any };
    let name = format!("cast_{}_{}", suffix(&from), suffix(to));
    Ok(operation(name, Cast(to.clone()), to.clone(), nulls, vec![operand]))
}

fn always_fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Int8 | Int16 | Int32 | Int64, Float32 | Float64 | Int64)
        | (Int8 | Int16 | Int32, Int32)
        | (Int8 | Int16, Int16)
        | (Float32 | Float64, Float32 | Float64)
        | (Decimal128(..), Float32 | Float64)
        | (Utf8View, Utf8 | LargeUtf8 | BinaryView)
        | (Utf8 | LargeUtf8, Utf8View) => true,
        (from, Decimal128(to_precision, to_scale)) => types::decimal_of(from)
            .is_some_and(|(precision, scale)| scale <= *to_scale && precision as i8 - scale <= *to_precision as i8 - to_scale),
        _ => false,
    }
}

#[derive(Debug)]
struct Cast(DataType);

impl Kernel for Cast {
    fn evaluate(&self, operands: &[Operand], _: usize) -> Result<ArrayRef> {
        column(single(operands)?.array(), &self.0)
    }
}

/// Integers of a unit since the epoch as timestamps.
#[derive(Debug)]
pub(super) struct FromUnit(pub(super) TimeUnit);

impl Kernel for FromUnit {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let output = types::timestamp();
        map1::<Int64Type, TimestampMicrosecondType>(single(operands)?, rows, &output, |value| micros(value, self.0))
    }
}

/// Truncation toward the past to a multiple of so many microseconds.
#[derive(Debug)]
struct Floor(i64);

impl Kernel for Floor {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        type Us = TimestampMicrosecondType;
        map1::<Us, Us>(single(operands)?, rows, &types::timestamp(), |value| value.div_euclid(self.0).checked_mul(self.0))
    }
}

/// A count of units in microseconds, truncated toward the past.
pub(super) fn micros(value: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1_000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1_000)),
    }
}

/// Casts a column; what does not fit is NULL.
///
/// - Errors: the two types have no cast between them.
pub(super) fn column(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    use DataType::*;
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(match (array.data_type(), to) {
        (Timestamp(unit, _), to) if is_timestamp(to) => match unit {
            TimeUnit::Second => convert::<TimestampSecondType, TimestampMicrosecondType>(array, to, |v| micros(v, *unit)),
            TimeUnit::Millisecond => convert::<TimestampMillisecondType, TimestampMicrosecondType>(array, to, |v| micros(v, *unit)),
            TimeUnit::Microsecond => convert::<TimestampMicrosecondType, TimestampMicrosecondType>(array, to, Some),
            TimeUnit::Nanosecond => convert::<TimestampNanosecondType, TimestampMicrosecondType>(array, to, |v| micros(v, *unit)),
        },
        (Duration(unit), Duration(TimeUnit::Microsecond)) => match unit {
            TimeUnit::Second => convert::<DurationSecondType, DurationMicrosecondType>(array, to, |v| micros(v, *unit)),
            TimeUnit::Millisecond => convert::<DurationMillisecondType, DurationMicrosecondType>(array, to, |v| micros(v, *unit)),
            _ => convert::<DurationNanosecondType, DurationMicrosecondType>(array, to, |v| micros(v, *unit)),
        },
        (Date32, to) if is_timestamp(to) => {
            convert::<Date32Type, TimestampMicrosecondType>(array, to, |days| i64::from(days).checked_mul(DAY_US))
        }
        (from, Date32) if is_timestamp(from) => {
            convert::<TimestampMicrosecondType, Date32Type>(array, to, |at| i32::try_from(calendar::day_of(at)).ok())
        }
        (Decimal128(_, scale), Float64) => {
            let scale = *scale;
            convert::<Decimal128Type, Float64Type>(array, to, |value| Some(decimal_f64(value, scale)))
        }
        (Decimal128(_, scale), Float32) => {
            let scale = *scale;
            // Parsing the digits rounds once; by way of DOUBLE it would round twice.
            convert::<Decimal128Type, Float32Type>(array, to, |value| format!("{value}e-{scale}").parse().ok())
        }
        _ => canonical_nan(arrow_cast(array, to)?),
    })
}

/// `value` over ten to the `scale`, correctly rounded.
fn decimal_f64(value: i128, scale: i8) -> f64 {
    const EXACT: [f64; 23] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];
    // Both sides exact: the division rounds once.
    if value.unsigned_abs() <= 1 << 53
        && let Some(power) = usize::try_from(scale).ok().and_then(|scale| EXACT.get(scale))
    {
        return value as f64 / power;
    }
    format!("{value}e-{scale}").parse().unwrap_or(f64::NAN)
}

fn convert<A: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    f: impl Fn(A::Native) -> Option<O::Native>,
) -> ArrayRef {
    let result: PrimitiveArray<O> = array.as_primitive::<A>().unary_opt(f);
    Arc::new(result.with_data_type(to.clone()))
}

fn arrow_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, format_options: FormatOptions::default() };
    if !can_cast_types(array.data_type(), to) {
        return exec_err!("{} cannot be cast to {to}", array.data_type());
    }
    null_where_it_fails(0..array.len(), to, &|rows| Ok(cast_with_options(&array.slice(rows.start, rows.len()), to, &options)?))
}
