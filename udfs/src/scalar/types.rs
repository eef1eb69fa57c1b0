//! The types inside an expression, and which of them two operands share.
//!
//! Columns, literals and results have one of the canonical types and no other: BOOLEAN; the four signed integers; REAL,
//! DOUBLE; DECIMAL to 38 digits; strings and bytes as views; DATE; TIMESTAMP in microseconds UTC; and, for a difference
//! of two timestamps or an interval without months, a duration in microseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

pub use crate::names::sql_name;

/// TIMESTAMP.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// What a difference of timestamps is.
pub(super) const DURATION: DataType = DataType::Duration(TimeUnit::Microsecond);

/// An interval with months; it stands only beside a timestamp or a date.
pub(super) const MONTHS: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The canonical type that holds values of `data_type`, or `None` for a type that no column may have.
pub fn canonical_type(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Utf8View | BinaryView => data_type.clone(),
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 | UInt64 => Int64,
        Float16 => Float32,
        Utf8 | LargeUtf8 => Utf8View,
        Binary | LargeBinary | FixedSizeBinary(_) => BinaryView,
        Date64 => Date32,
        Timestamp(_, zone) if zone.as_deref().is_none_or(is_utc) => timestamp(),
        Duration(_) => DURATION,
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale)
            if *scale >= 0 && i16::from(*scale) <= i16::from(*precision) =>
        {
            Decimal128(*precision, *scale)
        }
        List(item) => {
            let inner = canonical_type(item.data_type())?;
            List(Arc::new(Field::new(item.name(), inner, item.is_nullable())))
        }
        Dictionary(_, values) => canonical_type(values)?,
        _ => return None,
    })
}

/// Whether a zone's name is one of UTC's.
pub(super) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Z" | "+00:00" | "-00:00" | "+00" | "+0000" | "Etc/UTC" | "GMT")
}

pub(super) fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

pub(super) fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

pub(super) fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

pub(super) fn is_numeric(data_type: &DataType) -> bool {
    is_integer(data_type) || is_float(data_type) || is_decimal(data_type)
}

pub(super) fn is_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, Some(_)))
}

/// The decimal that holds every value of an integer type; decimals are kept.
pub(super) fn decimal_of(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        _ => return None,
    })
}

/// The type in which two numbers meet. A decimal beside an integer stays a decimal; beside a float it becomes DOUBLE.
pub(super) fn numeric_common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::*;
    if !is_numeric(left) || !is_numeric(right) {
        return None;
    }
    Some(match (left, right) {
        (Float64, _) | (_, Float64) => Float64,
        (Float32, other) | (other, Float32) => {
            if is_decimal(other) {
                Float64
            } else {
                Float32
            }
        }
        (Decimal128(..), _) | (_, Decimal128(..)) => {
            let ((p1, s1), (p2, s2)) = (decimal_of(left)?, decimal_of(right)?);
            let scale = s1.max(s2);
            let whole = (p1 as i8 - s1).max(p2 as i8 - s2);
            Decimal128((whole + scale).min(38) as u8, scale)
        }
        (Int64, _) | (_, Int64) => Int64,
        (Int32, _) | (_, Int32) => Int32,
        (Int16, _) | (_, Int16) => Int16,
        _ => Int8,
    })
}

/// The type in which two values are compared: a string takes the other's type, a date beside a timestamp is one.
pub(super) fn comparison_common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::*;
    match (left, right) {
        (Utf8View, other) | (other, Utf8View) if is_numeric(other) => Some(other.clone()),
        _ => union_common(left, right),
    }
}

/// The type in which two values are branches of one expression (CASE, coalesce, greatest): beside a number a string stays.
pub(super) fn union_common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::*;
    if left == right {
        return Some(left.clone());
    }
    match (left, right) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Utf8View, other) | (other, Utf8View) if is_numeric(other) => Some(Utf8View),
        (Utf8View, other) | (other, Utf8View) if matches!(other, Date32 | BinaryView) || is_timestamp(other) => Some(other.clone()),
        (Date32, other) | (other, Date32) if is_timestamp(other) => Some(other.clone()),
        _ => numeric_common(left, right),
    }
}

/// A type as the name of an operation spells it.
pub(super) fn suffix(data_type: &DataType) -> String {
    sql_name(data_type).to_lowercase().replace(", ", "_").replace('(', "_").replace(')', "")
}
