//! Which types a value column may have, and what type each function gives.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, TimeUnit};

use super::{Function, ProgramError, timestamp_type};

/// How a value column is stored and ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    /// TINYINT, SMALLINT and INT.
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal {
        scale: i8,
    },
    Date,
    Timestamp,
    /// Strings and binaries: a code into the run's dictionary.
    Bytes,
}

impl Kind {
    pub(crate) fn of(data_type: &DataType) -> Result<Kind, ProgramError> {
        Ok(match data_type {
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::Int32 => Kind::Int32,
            DataType::Int64 => Kind::Int64,
            DataType::Float32 => Kind::Float32,
            DataType::Float64 => Kind::Float64,
            DataType::Decimal128(_, scale) => Kind::Decimal { scale: *scale },
            DataType::Date32 => Kind::Date,
            DataType::Timestamp(TimeUnit::Microsecond, _) => Kind::Timestamp,
            DataType::Utf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView => Kind::Bytes,
            other => return Err(ProgramError(format!("values of type {other} cannot be aggregated"))),
        })
    }

    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Kind::Int32 | Kind::Int64 | Kind::Float32 | Kind::Float64 | Kind::Decimal { .. })
    }
}

/// The function's name in SQL.
pub(super) fn name(function: Function) -> &'static str {
    match function {
        Function::CountAll | Function::Count | Function::CountDistinct => "count",
        Function::Sum | Function::SumDistinct => "sum",
        Function::Avg | Function::AvgDistinct => "avg",
        Function::VarPop => "var_pop",
        Function::VarSamp => "var_samp",
        Function::StddevPop => "stddev_pop",
        Function::StddevSamp => "stddev_samp",
        Function::Min => "min",
        Function::Max => "max",
        Function::FirstValue => "first_value",
        Function::LastValue => "last_value",
        Function::ArrayAgg => "array_agg",
        Function::FirstN(_) => "first_n",
        Function::LastN(_) => "last_n",
        Function::Median => "median",
        Function::PercentileCont(_) => "percentile_cont",
        Function::ApproxDistinct => "approx_distinct",
        Function::ApproxPercentileCont(_) => "approx_percentile_cont",
        Function::WindowStart => "window_start",
        Function::WindowEnd => "window_end",
    }
}

pub(super) fn result_type(function: Function, value: Option<&DataType>) -> Result<DataType, ProgramError> {
    let name = name(function);
    let value = match (function, value) {
        (Function::CountAll, None) => return Ok(DataType::Int64),
        (Function::WindowStart | Function::WindowEnd, None) => return Ok(timestamp_type()),
        (Function::CountAll | Function::WindowStart | Function::WindowEnd, Some(_)) => {
            return Err(ProgramError(format!("{name} takes no value")));
        }
        (_, Some(value)) => value,
        (_, None) => return Err(ProgramError(format!("{name} takes one value"))),
    };
    let kind = Kind::of(value)?;
    let numeric = || {
        if kind.is_numeric() { Ok(()) } else { Err(ProgramError(format!("{name} takes a number, not {}", crate::names::sql_name(value)))) }
    };
    let probability = |p: f64| {
        if (0.0..=1.0).contains(&p) { Ok(()) } else { Err(ProgramError(format!("{name} takes a fraction from 0 to 1, not {p}"))) }
    };
    match function {
        Function::CountAll | Function::Count | Function::CountDistinct | Function::ApproxDistinct => Ok(DataType::Int64),
        Function::WindowStart | Function::WindowEnd => Ok(timestamp_type()),
        Function::Sum | Function::SumDistinct => {
            numeric()?;
            Ok(match kind {
                Kind::Int32 | Kind::Int64 => DataType::Int64,
                Kind::Decimal { scale } => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
                _ => DataType::Float64,
            })
        }
        Function::Avg
        | Function::AvgDistinct
        | Function::VarPop
        | Function::VarSamp
        | Function::StddevPop
        | Function::StddevSamp
        | Function::Median => numeric().map(|()| DataType::Float64),
        Function::PercentileCont(p) | Function::ApproxPercentileCont(p) => {
            numeric()?;
            probability(p)?;
            Ok(DataType::Float64)
        }
        Function::Min | Function::Max | Function::FirstValue | Function::LastValue => Ok(value.clone()),
        Function::FirstN(0) | Function::LastN(0) => Err(ProgramError(format!("{name} takes a positive count"))),
        Function::ArrayAgg | Function::FirstN(_) | Function::LastN(_) => {
            Ok(DataType::List(Arc::new(Field::new_list_field(value.clone(), true))))
        }
    }
}
