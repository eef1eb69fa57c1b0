//! Feature views: the events of a view (DESIGN 2.2, 2.3) and the value of each feature at an instant.
//!
//! Readings, where the text leaves a choice:
//! - The empty set gives a latest-row view's expressions a row of NULLs, so `coalesce(tier, 'none')` is 'none' for an entity never seen.
//! - The order of an enriched event is its left event's. Left events equal in every column find the same right rows, so no tie is left.
//! - ttl hides TUMBLE's and HOP's events, not their bounds: those stand "whether or not the window holds events".

use std::cmp::Ordering;

use super::expr::{Expr, Scope};
use super::frame::Frame;
use super::ingest::{History, Stream};
use super::value::{Type, Value, order_rows};

/// Where a view's events come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Stream(usize),
    /// `(SELECT columns FROM stream WHERE filter)`
    Subquery {
        arm: Arm,
        names: Vec<String>,
        time: usize,
        common: bool,
    },
    /// `left ASOF JOIN right ...`: the columns of the left stream, then those of each right one.
    Enriched {
        left: usize,
        rights: Vec<Right>,
    },
    /// `(SELECT ... UNION ALL SELECT ...)`, the event time at the same place.
    Union {
        arms: Vec<Arm>,
        names: Vec<String>,
        time: usize,
    },
}

/// A projection of one stream; `filter` and `columns` see its columns.
#[derive(Debug, Clone)]
pub(crate) struct Arm {
    pub(crate) stream: usize,
    pub(crate) columns: Vec<Expr>,
    pub(crate) filter: Option<Expr>,
}

/// The right side of an enrichment.
#[derive(Debug, Clone)]
pub(crate) struct Right {
    pub(crate) stream: usize,
    /// `>=`, else `>`.
    pub(crate) inclusive: bool,
    /// Column of the leftmost stream, column of this one. None: all rows are one group.
    pub(crate) on: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Windowed,
    Grouped(Frame),
    Latest,
}

#[derive(Debug, Clone)]
pub(crate) struct Feature {
    pub(crate) name: String,
    pub(crate) expr: Expr,
}

/// A declared view. Columns are those of its relation.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) entity: Vec<usize>,
    pub(crate) source: Source,
    pub(crate) filter: Option<Expr>,
    pub(crate) shape: Shape,
    pub(crate) features: Vec<Feature>,
    pub(crate) ttl_us: Option<i64>,
    /// How it is written; it means nothing.
    pub(crate) style: u32,
}

/// One event of a view.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: i64,
    pub(crate) order: Vec<Value>,
    pub(crate) cells: Vec<Value>,
}

/// A view's events, after its WHERE, in the order of section 4.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) types: Vec<Type>,
    pub(crate) events: Vec<Event>,
}

impl Source {
    /// The columns' types.
    pub(crate) fn types(&self, streams: &[Stream]) -> Vec<Type> {
        match self {
            Source::Stream(stream) => streams[*stream].types(),
            Source::Subquery { arm, .. } => arm.types(streams),
            Source::Enriched { left, rights } => {
                std::iter::once(*left).chain(rights.iter().map(|right| right.stream)).flat_map(|stream| streams[stream].types()).collect()
            }
            Source::Union { arms, .. } => arms[0].types(streams),
        }
    }

    /// The event-time column.
    pub(crate) fn time(&self, streams: &[Stream]) -> usize {
        match self {
            Source::Stream(stream) | Source::Enriched { left: stream, .. } => streams[*stream].time,
            Source::Subquery { time, .. } | Source::Union { time, .. } => *time,
        }
    }

    fn events(&self, streams: &[Stream], history: &History) -> Vec<Event> {
        let stream_events = |stream: usize| {
            history.visible(streams, stream).into_iter().map(move |row| Event {
                at: streams[stream].time_of(&row),
                order: streams[stream].order_key(&row),
                cells: row,
            })
        };
        match self {
            Source::Stream(stream) => stream_events(*stream).collect(),
            Source::Subquery { arm, .. } => stream_events(arm.stream).filter_map(|event| arm.project(streams, event)).collect(),
            Source::Union { arms, .. } => {
                let projected = arms.iter().flat_map(|arm| stream_events(arm.stream).filter_map(|event| arm.project(streams, event)));
                // By event time, then by the projected columns from left to right.
                let mut events: Vec<Event> = projected
                    .map(|event| Event {
                        order: std::iter::once(Value::Ts(event.at)).chain(event.cells.iter().cloned()).collect(),
                        ..event
                    })
                    .collect();
                events.sort_by(|a, b| order_rows(&a.order, &b.order));
                events
            }
            Source::Enriched { left, rights } => {
                let mut events: Vec<Event> = stream_events(*left).collect();
                for right in rights {
                    let candidates: Vec<Event> = stream_events(right.stream).collect();
                    let width = streams[right.stream].columns.len();
                    for event in &mut events {
                        let matches = |candidate: &&Event| {
                            let in_time = if right.inclusive { candidate.at <= event.at } else { candidate.at < event.at };
                            let on = |&(l, r): &(usize, usize)| {
                                !event.cells[l].is_null() && event.cells[l].compare(&candidate.cells[r]) == Ordering::Equal
                            };
                            in_time && right.on.iter().all(on)
                        };
                        // In order, so the last one has the greatest time and at that time is the greatest row.
                        let found = candidates.iter().rfind(matches);
                        event.cells.extend(found.map_or(vec![Value::Null; width], |found| found.cells.clone()));
                    }
                }
                events
            }
        }
    }
}

impl Arm {
    fn types(&self, streams: &[Stream]) -> Vec<Type> {
        let types = streams[self.stream].types();
        self.columns.iter().map(|column| column.type_of(&types)).collect()
    }

    fn project(&self, streams: &[Stream], event: Event) -> Option<Event> {
        let types = streams[self.stream].types();
        let scope = Scope::row(&types, &event.cells);
        if self.filter.as_ref().is_some_and(|filter| !filter.holds(&scope)) {
            return None;
        }
        let cells = self.columns.iter().map(|column| column.eval(&scope)).collect();
        Some(Event { cells, ..event })
    }
}

impl View {
    pub(crate) fn relate(&self, streams: &[Stream], history: &History) -> Relation {
        let types = self.source.types(streams);
        let mut events = self.source.events(streams, history);
        events.retain(|event| self.filter.as_ref().is_none_or(|filter| filter.holds(&Scope::row(&types, &event.cells))));
        Relation { types, events }
    }

    pub(crate) fn entity_types(&self, streams: &[Stream]) -> Vec<Type> {
        let types = self.source.types(streams);
        self.entity.iter().map(|&column| types[column].clone()).collect()
    }

    pub(crate) fn feature_types(&self, streams: &[Stream]) -> Vec<Type> {
        let types = self.source.types(streams);
        self.features.iter().map(|feature| feature.expr.type_of(&types)).collect()
    }

    /// Every feature of one entity at one instant.
    pub(crate) fn value(&self, relation: &Relation, entity: &[Value], at: i64, strict: bool) -> Vec<Value> {
        // A NULL key has the value of the empty set: no event belongs to it.
        let is_mine = |event: &&Event| {
            let equal = |(&column, key): (&usize, &Value)| !key.is_null() && event.cells[column].compare(key) == Ordering::Equal;
            self.entity.iter().zip(entity).all(equal)
        };
        let is_past = |event: &&Event| if strict { event.at < at } else { event.at <= at };
        let mut past: Vec<&Event> = relation.events.iter().filter(is_mine).filter(is_past).collect();
        // At exactly last + ttl it still lives.
        if let (Some(ttl), Some(last)) = (self.ttl_us, past.last())
            && at - last.at > ttl
        {
            past.clear();
        }
        let times: Vec<i64> = past.iter().map(|event| event.at).collect();
        let bounds = match self.shape {
            Shape::Grouped(frame) => {
                let inside = frame.inside(&times, at);
                (inside.start, inside.end)
            }
            Shape::Windowed | Shape::Latest => (None, None),
        };
        let aggregate = |aggregate: &super::aggregate::Aggregate| {
            let inside = aggregate.frame.inside(&times, at);
            let rows: Vec<&[Value]> = inside.positions.iter().map(|&i| past[i].cells.as_slice()).collect();
            aggregate.value(&relation.types, &rows, at)
        };
        let newest = past.last().map(|event| event.cells.as_slice());
        let scope = Scope { types: &relation.types, cells: newest, at: Some(at), aggregate: Some(&aggregate), bounds };
        self.features.iter().map(|feature| feature.expr.eval(&scope)).collect()
    }
}
