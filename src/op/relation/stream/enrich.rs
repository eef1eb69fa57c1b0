//! The streaming AS OF join: left events enriched by the newest right row, and enriched anew when a right row comes late or goes.
//!
//! Per key it keeps the right rows ("versions") and the left events, both in order, as Arrow row encodings. A change of a version at
//! time r can only concern left events from r up to the next version: these are matched before and after, and what differs comes out as
//! a row that goes and a row that comes.
//!
//! Eviction keeps the left events that instants from the horizon on can read, the versions since the oldest of these, and the newest
//! version before it. A newest version that goes is followed by one that is no longer held:
//! that is an error, upon which the owner builds the view anew from history.

mod codec;

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BinaryBuilder, Int8Builder, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use arrow::row::{OwnedRow, RowConverter, SortField};
use asof_sql::plan::AsofJoin;
use hashbrown::HashMap;

use super::{Change, Node};
use crate::error::{Error, Result};
use crate::op::events::Events;
use crate::state::key::EntityKeys;

/// One row of a side: its place in the order, and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    time: i64,
    key: Box<[u8]>,
    columns: OwnedRow,
}

impl Row {
    fn place(&self) -> (i64, &[u8], &[u8]) {
        (self.time, &self.key, self.columns.as_ref())
    }

    fn bytes(&self) -> usize {
        size_of::<Row>() + self.key.len() + self.columns.as_ref().len()
    }
}

/// The rows of one key, each side ascending.
#[derive(Debug, Default)]
struct Group {
    left: Vec<Row>,
    right: Vec<Row>,
}

impl Group {
    /// The version that a left event at `time` sees: the last that is not after it.
    fn matching(&self, time: i64, strict: bool) -> Option<&Row> {
        let end = self.right.partition_point(|v| v.time < time || (!strict && v.time == time));
        end.checked_sub(1).and_then(|i| self.right.get(i))
    }

    /// The left events that versions of time `time` can concern: up to the next later version.
    fn concerned(&self, time: i64, strict: bool) -> std::ops::Range<usize> {
        let next = self.right.iter().skip(self.right.partition_point(|v| v.time <= time)).map(|v| v.time).next();
        let sees = |left: i64, version: i64| version < left || (!strict && version == left);
        let start = self.left.partition_point(|l| !sees(l.time, time));
        let end = next.map_or(self.left.len(), |n| self.left.partition_point(|l| !sees(l.time, n)));
        start..end.max(start)
    }
}

/// Puts a row into its place; equal rows stand side by side.
fn insert(rows: &mut Vec<Row>, row: Row) {
    let at = rows.partition_point(|r| r.place() <= row.place());
    rows.insert(at, row);
}

/// Takes one row equal to `row` away; whether there was one.
fn take(rows: &mut Vec<Row>, row: &Row) -> bool {
    let at = rows.partition_point(|r| r.place() < row.place());
    let found = rows.get(at).is_some_and(|r| r == row);
    if found {
        rows.remove(at);
    }
    found
}

/// The rows of a key, empty at first.
fn group_of<'a>(groups: &'a mut HashMap<Box<[u8]>, Group>, key: &[u8]) -> &'a mut Group {
    if !groups.contains_key(key) {
        groups.insert(key.into(), Group::default());
    }
    groups.entry(key.into()).or_default()
}

/// Rows that come and go, collected until they are turned back into columns.
struct Out {
    rows: Vec<(Row, Option<OwnedRow>, i8)>,
}

/// The operator and its state.
#[derive(Debug)]
pub(super) struct Enrich {
    plan: AsofJoin,
    left: Node,
    right: Node,
    ordered: bool,
    left_rows: Arc<RowConverter>,
    right_rows: Arc<RowConverter>,
    right_schema: SchemaRef,
    groups: HashMap<Box<[u8]>, Group>,
    bytes: usize,
    exact_from: i64,
}

fn converter(schema: &SchemaRef) -> Result<Arc<RowConverter>> {
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    Ok(Arc::new(RowConverter::new(fields)?))
}

impl Enrich {
    pub(super) fn try_new(plan: &AsofJoin, left: Node, right: Node, ordered: bool) -> Result<Self> {
        let (left_schema, right_schema) = (plan.left.schema(), plan.right.schema());
        Ok(Self {
            left_rows: converter(&left_schema)?,
            right_rows: converter(&right_schema)?,
            right_schema,
            plan: plan.clone(),
            left,
            right,
            ordered,
            groups: HashMap::new(),
            bytes: 0,
            exact_from: i64::MIN,
        })
    }

    pub(super) fn push(&mut self, change: &Change<'_>) -> Result<Vec<Events>> {
        let mut out = Out { rows: vec![] };
        for events in self.left.push(change)? {
            self.push_left(&events, &mut out)?;
        }
        for events in self.right.push(change)? {
            self.push_right(&events, &mut out)?;
        }
        self.emit(out)
    }

    fn push_left(&mut self, events: &Events, out: &mut Out) -> Result<()> {
        let keys = self.join_keys(events, true)?;
        let rows = Self::rows(&self.left_rows, events)?;
        let strict = self.plan.strict;
        for (i, row) in rows.into_iter().enumerate() {
            let goes = events.goes(i);
            let Some(key) = keys.get(i) else {
                // A NULL key matches nothing; the event itself stays an event.
                out.rows.push((row, None, if goes { -1 } else { 1 }));
                continue;
            };
            let group = group_of(&mut self.groups, key);
            let matched = group.matching(row.time, strict).map(|v| v.columns.clone());
            if goes {
                if take(&mut group.left, &row) {
                    self.bytes -= row.bytes();
                }
                out.rows.push((row, matched, -1));
            } else {
                self.bytes += row.bytes();
                insert(&mut group.left, row.clone());
                out.rows.push((row, matched, 1));
            }
        }
        Ok(())
    }

    fn push_right(&mut self, events: &Events, out: &mut Out) -> Result<()> {
        let keys = self.join_keys(events, false)?;
        let rows = Self::rows(&self.right_rows, events)?;
        let strict = self.plan.strict;
        for (i, row) in rows.into_iter().enumerate() {
            let Some(key) = keys.get(i) else { continue };
            let group = group_of(&mut self.groups, key);
            let concerned = group.concerned(row.time, strict);
            let before: Vec<Option<OwnedRow>> =
                group.left[concerned.clone()].iter().map(|l| group.matching(l.time, strict).map(|v| v.columns.clone())).collect();
            if events.goes(i) {
                if take(&mut group.right, &row) {
                    self.bytes -= row.bytes();
                }
                let seen = |v: &Row| v.time < self.exact_from || (!strict && v.time == self.exact_from);
                if seen(&row) && !group.right.iter().any(|v| seen(v) && v.place() > row.place()) {
                    return Err(Error::unavailable("the version that takes the place of one that goes is no longer held"));
                }
            } else {
                self.bytes += row.bytes();
                insert(&mut group.right, row);
            }
            for (left, before) in group.left[concerned].iter().zip(before) {
                let after = group.matching(left.time, strict).map(|v| v.columns.clone());
                if before != after && !asof_udfs::seeded_bug("late-right-ignored") {
                    out.rows.push((left.clone(), before, -1));
                    out.rows.push((left.clone(), after, 1));
                }
            }
        }
        Ok(())
    }

    /// The join keys of rows; `None` where one of them is NULL. Without ON all rows have the one empty key.
    fn join_keys(&self, events: &Events, left: bool) -> Result<EntityKeys> {
        let side = self.plan.on.iter().map(|(l, r)| if left { l } else { r });
        let columns: Vec<ArrayRef> = side.map(|e| e.evaluate(&events.rows)).collect::<Result<_, _>>()?;
        EntityKeys::try_new(&columns, events.len())
    }

    fn rows(converter: &RowConverter, events: &Events) -> Result<Vec<Row>> {
        let encoded = converter.convert_columns(events.rows.columns())?;
        let key = |i: usize| events.keys.as_ref().map_or(&b""[..], |k| k.value(i));
        Ok((0..events.len()).map(|i| Row { time: events.times[i], key: key(i).into(), columns: encoded.row(i).owned() }).collect())
    }

    fn emit(&self, out: Out) -> Result<Vec<Events>> {
        if out.rows.is_empty() {
            return Ok(vec![]);
        }
        let n = out.rows.len();
        let mut columns = self.left_rows.convert_rows(out.rows.iter().map(|(l, _, _)| l.columns.row()))?;
        // Unmatched rows take the NULL row behind the matched ones.
        let matched: Vec<_> = out.rows.iter().filter_map(|(_, r, _)| r.as_ref()).collect();
        let found = self.right_rows.convert_rows(matched.iter().map(|r| r.row()))?;
        let mut next = 0u32;
        let nulls = u32::try_from(matched.len()).unwrap_or(u32::MAX);
        let picks: Vec<u32> = out
            .rows
            .iter()
            .map(|(_, r, _)| match r {
                Some(_) => {
                    next += 1;
                    next - 1
                }
                None => nulls,
            })
            .collect();
        let picks = arrow::array::UInt32Array::from(picks);
        for (field, found) in self.right_schema.fields().iter().zip(found) {
            let null = new_null_array(field.data_type(), 1);
            columns.push(arrow::compute::take(&concat(&[&found, &null])?, &picks, None)?);
        }
        let mut weights = Int8Builder::with_capacity(n);
        let mut keys = BinaryBuilder::new();
        for (left, _, weight) in &out.rows {
            weights.append_value(*weight);
            keys.append_value(&left.key);
        }
        let keys: BinaryArray = keys.finish();
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        Ok(vec![Events {
            rows: RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)?,
            times: out.rows.iter().map(|(l, _, _)| l.time).collect::<Vec<_>>().into(),
            keys: self.ordered.then_some(keys),
            weights: Some(weights.finish()),
        }])
    }

    pub(super) fn evict(&mut self, horizon: i64, reach: Option<i64>) {
        self.left.evict(horizon, reach);
        self.right.evict(horizon, reach);
        let Some(reach) = reach else { return };
        let oldest = horizon.saturating_sub(reach);
        if oldest <= self.exact_from {
            return;
        }
        self.exact_from = oldest;
        let mut freed = 0;
        let strict = self.plan.strict;
        self.groups.retain(|_, group| {
            let gone = group.left.partition_point(|l| l.time < oldest);
            freed += group.left.drain(..gone).map(|r| r.bytes()).sum::<usize>();
            // The newest version that the oldest instant sees stays, whichever left event comes next.
            let seen = group.right.partition_point(|v| v.time < oldest || (!strict && v.time == oldest));
            freed += group.right.drain(..seen.saturating_sub(1)).map(|r| r.bytes()).sum::<usize>();
            !group.left.is_empty() || !group.right.is_empty()
        });
        self.bytes = self.bytes.saturating_sub(freed);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let groups: usize = self.groups.keys().map(|k| k.len() + size_of::<(Box<[u8]>, Group)>()).sum();
        self.bytes + groups + self.left.memory_bytes() + self.right.memory_bytes()
    }
}
