//! Exact aggregates over one entity's events, shared by the streaming and the batch path.
//!
//! ```text
//! Program (what to compute) ──┐
//! Rows (events in columns) ───┴─▶ Run (one entity's events in order) ── evaluate at an instant ─▶ Output
//! ```
//!
//! Every value is a pure function of the set of events in the run and of the instant: never of the order in which
//! the events arrived, of batch sizes, or of what was evicted. Floating-point sums are therefore exact and rounded
//! once ([`exact_sum`]).
//!
//! Not here: SQL, state by key, time of day, I/O.

pub mod aggregates;
pub mod codec;
pub mod exact_sum;
pub mod names;
pub mod output;
pub mod program;
pub mod rows;
pub mod run;
#[cfg(feature = "datafusion")]
pub mod scalar;
pub mod seeded;
pub mod sketch;
pub mod time;
pub mod window;

pub use exact_sum::ExactSum;
pub use output::{Cell, ColumnsOut, Output, Value};
pub use program::{Aggregate, Function, Program, ProgramError, Retention};
pub use rows::{Rows, RowsError};
pub use run::{Applied, Run, RunsIn, RunsOut};
#[doc(hidden)]
pub use seeded::seeded_bug;
pub use window::{Bound, Frame, Instant};
