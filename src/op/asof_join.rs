//! The AS OF join between ordinary relations: for each left row the one right row nearest in the match value (DESIGN 2.3).
//!
//! ```text
//! Query ─rewrite_asof─▶ NestedJoin ─AsofRelationPlanner─▶ AsofJoinNode ─AsofExtensionPlanner─▶ AsofJoinExec
//!       rewrite                     planner               logical                              batch
//! ```
//! Every left row comes out exactly once, in no particular order; right columns are NULL where nothing matches. Ties at one match value
//! go to the greatest row of the right side, compared column by column from left to right, NULLs first, strings by bytes, floats by value
//! with -0 before +0 and NaN last. NULL keys and NULL match values match nothing.
//!
//! Not here: feature views on the right side, which [`RightSides`] may take over, and AS OF joins inside a feature view.

mod batch;
mod grace;
mod keys;
mod logical;
mod planner;
mod rewrite;
mod shape;
mod side;
mod slots;
mod winners;

#[cfg(test)]
mod tests;

pub use batch::AsofJoinExec;
pub use logical::{AsofJoin, AsofJoinNode, Identity, MatchOp, Places, TieOrder};
pub use planner::{AsofExtensionPlanner, AsofRelationPlanner, AsofSyntax, OrdinaryTables, PushLeftFilters, RightSides};
pub use rewrite::rewrite_asof;
pub use shape::{Build, Key, Shape};
