//! The oracle: what a feature view's value is, written from DESIGN.md and to be read.
//!
//! It shares no code with the engine and knows no tricks: events are plain vectors, every window is a filter over them, every sum is an
//! exact integer. The engine's two paths are compared with it bit for bit by `random`.
//!
//! ```text
//! Case ── ingest (section 4) ──▶ History ── relate (2.2, 2.3) ──▶ Relation ── value (3) ──▶ Vec<Value>
//! generate::case(seed)           visible rows, counts            a view's events           one entity at one instant
//! ```
//! Not here: the sketches. Their values are the engine's to define, so they are compared between the paths only ([`Value::Unchecked`]).

pub(crate) mod aggregate;
pub(crate) mod civil;
pub(crate) mod exact;
pub(crate) mod expr;
pub(crate) mod frame;
pub(crate) mod generate;
pub(crate) mod ingest;
pub(crate) mod render;
pub(crate) mod value;
pub(crate) mod view;

#[cfg(test)]
mod tests;

pub(crate) use ingest::{Call, CallKind, Cell, Counts, History, Record, Stream};
pub(crate) use value::{Type, Value};
pub(crate) use view::{Relation, View};

/// One generated world: streams, what arrives in them, views, and what is asked of the views.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) streams: Vec<Stream>,
    pub(crate) calls: Vec<Call>,
    pub(crate) views: Vec<View>,
    pub(crate) questions: Vec<Question>,
}

/// One entity of one view at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) view: usize,
    pub(crate) entity: Vec<Value>,
    pub(crate) at: i64,
    pub(crate) strict: bool,
}

impl Case {
    /// The history after the first `calls` calls.
    pub(crate) fn history(&self, calls: usize) -> History {
        let mut history = History::new(&self.streams);
        for call in &self.calls[..calls] {
            history.apply(&self.streams, call);
        }
        history
    }

    /// The events of each view, given a history.
    pub(crate) fn relations(&self, history: &History) -> Vec<Relation> {
        self.views.iter().map(|view| view.relate(&self.streams, history)).collect()
    }
}
