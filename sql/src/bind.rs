//! From a parsed `CREATE FEATURE VIEW` to its [`FeaturePlan`]: names, types, windows, aggregates, and every refusal.
//!
//! What cannot be compiled exactly into both paths is refused here, with the reason and a rewrite; what passes never fails later.
//! Errors are collected, not stopped at, where one does not hide another.

mod aggregate;
mod changes;
mod expr;
mod frame;
mod options;
mod prune;
mod relation;
mod scope;
mod view;

pub use expr::{ExprBinder, diagnostic_of};
pub use options::{duration_of, interval, parse_duration, unknown_option};
pub use view::bind_feature_view;

use crate::diagnostic::Diagnostic;

/// The diagnostics found so far while binding one statement.
pub(crate) type Errors = Vec<Diagnostic>;
