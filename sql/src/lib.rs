//! The dialect of Asof: from SQL text to statements, and from a feature view's definition to its plan.
//!
//! ```text
//! text ─parse─▶ ast::Statement ─bind(catalog)─▶ plan::FeaturePlan ─▶ (root package) stream operators and batch plan
//!        └──────────────┴────────────┴─▶ diagnostic::Diagnostic: code, span, note, help
//! ```
//!
//! Queries that are not feature views stay sqlparser's and are planned by DataFusion; see the root package.
//! Not here: what a plan computes (`asof_udfs`), how it runs, where definitions are kept.

pub mod ast;
pub mod bind;
pub mod catalog;
pub mod codes;
pub mod diagnostic;
pub mod limits;
pub mod parse;
pub mod plan;
pub mod span;

pub use diagnostic::Diagnostic;
pub use span::Span;
