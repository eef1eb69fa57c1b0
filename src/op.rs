//! The operators of the plan, each with its two modes side by side over one shared meaning.
//!
//! The only place that sees both the streaming and the batch path. `relation` takes streams to a view's events, `window` takes events to
//! features, `asof_join` joins ordinary tables. Not here: which views exist (`registry`), how answers leave (`serve`).

pub mod asof_join;
pub mod events;
pub mod relation;
pub mod window;
