//! Comparisons. Floats are ordered as `min` and `max` order them: -0 equals +0, and NaN equals NaN and is greater than
//! every number. Decimals of different scales are compared exactly. All other types have Arrow's order.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, i256};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::Operator;

use super::arithmetic::scale_up;
use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, operation, pair};
use super::lower::{Lower, Typed};
use super::types::{self, DURATION, MONTHS, is_decimal, is_float, sql_name, suffix};

/// The order of floats.
pub(super) fn float_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// `left operator right`, where the operator is a comparison.
pub(super) fn lower(lower: &Lower<'_>, left: Typed, operator: Operator, right: Typed) -> std::result::Result<Typed, CompileError> {
    let (found_left, found_right) = (left.data_type.clone(), right.data_type.clone());
    let refuse = |help: Option<&str>| {
        let error = CompileError::new(format!("{} and {} cannot be compared by {operator}", sql_name(&found_left), sql_name(&found_right)));
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    };
    if found_left == MONTHS || found_right == MONTHS {
        return Err(refuse(Some("An interval of months has no length of its own; write it in days.")));
    }
    let Some(common) = types::comparison_common(&found_left, &found_right) else {
        let time = found_left == DURATION || found_right == DURATION;
        return Err(refuse(time.then_some("Compare it with an INTERVAL, or take extract(epoch FROM ...) for seconds.")));
    };
    if matches!(common, DataType::List(_)) {
        return Err(refuse(None));
    }
    let common = if common == DataType::Null { DataType::Boolean } else { common };
    let distinct = matches!(operator, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom);
    let nulls = if distinct { Nulls::Never } else { Nulls::OfOperands };
    let (kind, left, right) = match own(lower, &common, &left, &right)? {
        Some(own) => own,
        None => (Kind::Arrow, lower.cast(left, &common)?, lower.cast(right, &common)?),
    };
    let name = format!("{}_{}_{}", name(operator), suffix(&left.data_type), suffix(&right.data_type));
    Ok(operation(name, Compare { operator, kind }, DataType::Boolean, nulls, vec![left, right]))
}

/// The comparison that is ours for this type, if one is, with its operands cast.
fn own(
    lower: &Lower<'_>,
    common: &DataType,
    left: &Typed,
    right: &Typed,
) -> std::result::Result<Option<(Kind, Typed, Typed)>, CompileError> {
    if is_float(common) {
        let kind = if *common == DataType::Float32 { Kind::Float32 } else { Kind::Float64 };
        return Ok(Some((kind, lower.cast(left.clone(), common)?, lower.cast(right.clone(), common)?)));
    }
    if is_decimal(common) {
        let cast = |operand: &Typed| {
            let (precision, scale) = match types::decimal_of(&operand.data_type) {
                Some(decimal) => decimal,
                // A string or NULL beside a decimal takes its type.
                None => types::decimal_of(common).unwrap_or((38, 0)),
            };
            lower.cast(operand.clone(), &DataType::Decimal128(precision, scale)).map(|typed| (typed, scale))
        };
        let ((left, left_scale), (right, right_scale)) = (cast(left)?, cast(right)?);
        return Ok(Some((Kind::Decimal { left_scale, right_scale }, left, right)));
    }
    Ok(None)
}

fn name(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "equal",
        Operator::NotEq => "not_equal",
        Operator::Lt => "less",
        Operator::LtEq => "less_or_equal",
        Operator::Gt => "greater",
        Operator::GtEq => "greater_or_equal",
        Operator::IsDistinctFrom => "distinct",
        _ => "not_distinct",
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Float32,
    Float64,
    Decimal {
        left_scale: i8,
        right_scale: i8,
    },
    /// Any other type, both sides alike.
    Arrow,
}

#[derive(Debug)]
struct Compare {
    operator: Operator,
    kind: Kind,
}

impl Kernel for Compare {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        let [left, right] = pair(operands)?;
        match self.kind {
            Kind::Arrow => {
                let kernel = match self.operator {
                    Operator::Eq => cmp::eq,
                    Operator::NotEq => cmp::neq,
                    Operator::Lt => cmp::lt,
                    Operator::LtEq => cmp::lt_eq,
                    Operator::Gt => cmp::gt,
                    Operator::GtEq => cmp::gt_eq,
                    Operator::IsDistinctFrom => cmp::distinct,
                    _ => cmp::not_distinct,
                };
                Ok(Arc::new(kernel(left.datum().as_ref(), right.datum().as_ref())?))
            }
            Kind::Float32 => {
                let (left, right) = (left.cells::<Float32Type>()?, right.cells::<Float32Type>()?);
                let widen = |value: Option<f32>| value.map(f64::from);
                self.run(rows, |row| (widen(left.get(row)), widen(right.get(row))), float_order)
            }
            Kind::Float64 => {
                let (left, right) = (left.cells::<Float64Type>()?, right.cells::<Float64Type>()?);
                self.run(rows, |row| (left.get(row), right.get(row)), float_order)
            }
            Kind::Decimal { left_scale, right_scale } => {
                let (left, right) = (left.cells::<Decimal128Type>()?, right.cells::<Decimal128Type>()?);
                self.run(rows, |row| (left.get(row), right.get(row)), |a, b| decimal_order(a, left_scale, b, right_scale))
            }
        }
    }
}

/// 38 digits times ten to the 38 fit in 256 bits, so the order is exact.
pub(super) fn decimal_order(a: i128, left_scale: i8, b: i128, right_scale: i8) -> Ordering {
    if left_scale == right_scale {
        return a.cmp(&b);
    }
    let scale = left_scale.max(right_scale);
    let widen = |value, from| scale_up(i256::from_i128(value), scale - from);
    widen(a, left_scale).cmp(&widen(b, right_scale))
}

impl Compare {
    fn run<T: Copy>(
        &self,
        rows: usize,
        at: impl Fn(usize) -> (Option<T>, Option<T>),
        order: impl Fn(T, T) -> Ordering,
    ) -> Result<ArrayRef> {
        let mut builder = BooleanBuilder::with_capacity(rows);
        for row in 0..rows {
            let value = match (at(row), self.operator) {
                ((Some(a), Some(b)), operator) => Some(holds(operator, order(a, b))?),
                ((a, b), Operator::IsDistinctFrom) => Some(a.is_some() || b.is_some()),
                ((a, b), Operator::IsNotDistinctFrom) => Some(a.is_none() && b.is_none()),
                _ => None,
            };
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }
}

fn holds(operator: Operator, order: Ordering) -> Result<bool> {
    Ok(match operator {
        Operator::Eq | Operator::IsNotDistinctFrom => order.is_eq(),
        Operator::NotEq | Operator::IsDistinctFrom => order.is_ne(),
        Operator::Lt => order.is_lt(),
        Operator::LtEq => order.is_le(),
        Operator::Gt => order.is_gt(),
        Operator::GtEq => order.is_ge(),
        other => return internal_err!("{other} is no comparison"),
    })
}
