//! Scalar expressions of feature views: compiled once, evaluated by both paths, never failing on a row.
//!
//! ```text
//! Expr as SQL planned it ─ allowed? ─▶ typed bottom-up ─▶ our operations only ─▶ PhysicalExpr
//! ```
//!
//! [`compile`] turns a logical expression into operations that are functions of one row's values alone: an operation that
//! would fail on a row gives NULL for that row, floats compare in the order of `min`, a computed NaN is the one canonical
//! NaN, and no bit depends on the machine's math library, on batch boundaries or on a session's settings.
//! No optimizer sees the result. Types inside are few: see [`types`].
//! Not here: aggregates and windows (`crate::run`), names and spans (the binder), `as_of()` (a column to this module).

mod allowed;
mod arithmetic;
mod calendar;
mod cast;
mod compare;
mod compile;
mod conditional;
mod evaluate;
mod kernel;
mod lower;
mod math;
mod null_on_error;
mod pattern;
mod text;
mod time;
mod types;

#[cfg(test)]
mod tests;

pub use allowed::{expr_planners, functions};
pub use compile::{CompileError, Compiled, Predicate, compile, compile_predicate};
pub use kernel::canonical_nan;
pub use types::{canonical_type, sql_name};
