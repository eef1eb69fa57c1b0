//! `sum`, `avg`, variances and standard deviations from exact sums and sums of squares.

use crate::exact_sum::{Moments, mean_of, sum_of, variance_of};
use crate::output::Cell;
use crate::program::{Function, Kind};
use crate::run::{LaneView, unit_of};

/// The largest magnitude of a DECIMAL(38, s), unscaled, plus one.
const DECIMAL_LIMIT: u128 = 10u128.pow(38);

/// The sum of `count` values; `None` where it does not fit its type.
pub(super) fn sum(view: &LaneView<'_>, count: u64, moments: &Moments) -> Option<Cell<'static>> {
    let Some(column) = view.column.filter(|_| count > 0) else { return Some(Cell::Null) };
    let whole = || moments.part.sum.to_i128();
    match column.kind {
        Kind::Float32 | Kind::Float64 => Some(Cell::Float(sum_of(moments, unit_of(column.kind).0, 0))),
        Kind::Decimal { .. } => whole().filter(|sum| sum.unsigned_abs() < DECIMAL_LIMIT).map(Cell::Decimal),
        _ => whole().and_then(|sum| i64::try_from(sum).ok()).map(Cell::Int),
    }
}

/// A mean, variance or standard deviation of `count` values.
pub(super) fn spread(function: Function, view: &LaneView<'_>, count: u64, moments: &Moments) -> Cell<'static> {
    let less = u64::from(matches!(function, Function::VarSamp | Function::StddevSamp));
    let Some(column) = view.column.filter(|_| count > less) else { return Cell::Null };
    let (unit, scale) = unit_of(column.kind);
    Cell::Float(match function {
        Function::Avg | Function::AvgDistinct => mean_of(moments, count, unit, scale),
        Function::VarPop | Function::VarSamp => variance_of(moments, count, less, unit, scale),
        Function::StddevPop | Function::StddevSamp => root(variance_of(moments, count, less, unit, scale)),
        _ => return Cell::Null,
    })
}

/// The square root, which IEEE 754 rounds once; a NaN stays the canonical one.
fn root(variance: f64) -> f64 {
    if variance.is_nan() { crate::exact_sum::NAN } else { variance.sqrt() }
}
