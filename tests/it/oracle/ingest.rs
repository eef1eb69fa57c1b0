//! Streams: order, identity, lateness, rejection and conservation (DESIGN section 4), one record at a time.
//!
//! Readings, where section 4 leaves a choice:
//! - A copy is a duplicate when it equals any stored copy of its identity, not only the visible one.
//! - Lateness comes before identity, so a copy that arrives late is late and no duplicate.
//! - A late record's time never raises the greatest time, and a duplicate's may (its first copy may have come by COPY, which raises nothing).

use std::cmp::Ordering;

use super::value::{Type, Value, order_rows};

/// A column of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Also said by being in the primary key.
    pub(crate) not_null: bool,
}

/// A declared stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) primary_key: Vec<usize>,
    pub(crate) time: usize,
    pub(crate) disorder_us: i64,
}

/// What stands in one field of an arriving record.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Value(Value),
    /// No such field in the record: NULL.
    Missing,
    /// JSON text that is not of the column's type.
    Bad(String),
}

/// One arriving record.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    /// One cell a column; `style` varies how they are written and means nothing.
    Row { cells: Vec<Cell>, style: u32 },
    /// A line that is no JSON object.
    Raw(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum CallKind {
    /// JSON lines pushed in one call.
    Push,
    /// One INSERT statement.
    Insert,
    /// COPY of a JSON file: exempt from lateness, and moves no greatest event time.
    Copy,
    /// `REPROCESS LATE EVENTS`: brings no records of its own.
    Reprocess,
}

/// One atomic call that brings records.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) stream: usize,
    pub(crate) kind: CallKind,
    pub(crate) records: Vec<Record>,
}

/// What a call's reply counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) accepted: u64,
    pub(crate) duplicate: u64,
    pub(crate) late: u64,
    pub(crate) rejected: u64,
    /// Among the accepted.
    pub(crate) conflicts: u64,
}

/// What was accepted into one stream, and what was not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accepted {
    /// Every stored row, conflicts among them, in the order of arrival.
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) late: Vec<Vec<Value>>,
    pub(crate) rejected: u64,
    /// How many of the late ones were brought in since.
    reprocessed: usize,
    /// A push stream is one partition.
    greatest: Option<i64>,
}

/// What has been accepted into all streams, and each call's counts.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) streams: Vec<Accepted>,
    pub(crate) counts: Vec<Counts>,
}

/// Past every moment at which a test runs, so further in the future than any skew.
pub(crate) const FAR_FUTURE: i64 = 32_472_144_000_000_000; // 2999-01-01

impl Stream {
    pub(crate) fn types(&self) -> Vec<Type> {
        self.columns.iter().map(|column| column.ty.clone()).collect()
    }

    pub(crate) fn is_not_null(&self, column: usize) -> bool {
        self.columns[column].not_null || column == self.time || self.primary_key.contains(&column)
    }

    pub(crate) fn time_of(&self, row: &[Value]) -> i64 {
        match row[self.time] {
            Value::Ts(at) => at,
            ref other => panic!("{other:?} is no event time"),
        }
    }

    /// Event time, primary key, then the remaining columns in declaration order.
    pub(crate) fn order_key(&self, row: &[Value]) -> Vec<Value> {
        let rest = (0..row.len()).filter(|i| *i != self.time && !self.primary_key.contains(i));
        std::iter::once(self.time).chain(self.primary_key.iter().copied()).chain(rest).map(|i| row[i].clone()).collect()
    }

    fn identity(&self, row: &[Value]) -> Vec<Value> {
        std::iter::once(self.time).chain(self.primary_key.iter().copied()).map(|i| row[i].clone()).collect()
    }

    /// The row, or none where it is to be rejected.
    fn decode(&self, record: &Record, kind: CallKind) -> Option<Vec<Value>> {
        let Record::Row { cells, .. } = record else { return None };
        let mut row = Vec::new();
        for (column, cell) in cells.iter().enumerate() {
            let value = match cell {
                Cell::Value(value) => value.clone(),
                Cell::Missing => Value::Null,
                Cell::Bad(_) => return None,
            };
            if value.is_null() && self.is_not_null(column) {
                return None;
            }
            row.push(value);
        }
        (kind == CallKind::Copy || self.time_of(&row) < FAR_FUTURE).then_some(row)
    }
}

impl Accepted {
    /// Deduplicates and accepts one valid row.
    fn store(&mut self, stream: &Stream, row: Vec<Value>, counts: &mut Counts) {
        if !stream.primary_key.is_empty() {
            let (at, identity) = (stream.time_of(&row), stream.identity(&row));
            let is_same = |stored: &&Vec<Value>| stream.time_of(stored) == at && order_rows(&stream.identity(stored), &identity).is_eq();
            let same: Vec<&Vec<Value>> = self.rows.iter().filter(is_same).collect();
            if same.iter().any(|stored| order_rows(stored, &row).is_eq()) {
                counts.duplicate += 1;
                return;
            }
            if !same.is_empty() {
                counts.conflicts += 1;
            }
        }
        counts.accepted += 1;
        self.rows.push(row);
    }
}

impl History {
    pub(crate) fn new(streams: &[Stream]) -> History {
        History { streams: vec![Accepted::default(); streams.len()], counts: Vec::new() }
    }

    pub(crate) fn apply(&mut self, streams: &[Stream], call: &Call) {
        let stream = &streams[call.stream];
        let state = &mut self.streams[call.stream];
        if call.kind == CallKind::Reprocess {
            // As by COPY: exempt from lateness, and no greatest time moves. `$late` keeps them, and none comes twice.
            let mut counts = Counts { read: (state.late.len() - state.reprocessed) as u64, ..Counts::default() };
            let late: Vec<Vec<Value>> = state.late[state.reprocessed..].to_vec();
            for row in late {
                state.store(stream, row, &mut counts);
            }
            state.reprocessed = state.late.len();
            self.counts.push(counts);
            return;
        }
        let mut counts = Counts { read: call.records.len() as u64, ..Counts::default() };
        // The rows of one call are judged against the time before the call, never against each other.
        let before = state.greatest;
        for record in &call.records {
            let Some(row) = stream.decode(record, call.kind) else {
                counts.rejected += 1;
                state.rejected += 1;
                continue;
            };
            let at = stream.time_of(&row);
            if call.kind != CallKind::Copy {
                if before.is_some_and(|greatest| at < greatest - stream.disorder_us) {
                    counts.late += 1;
                    state.late.push(row);
                    continue;
                }
                state.greatest = state.greatest.max(Some(at));
            }
            state.store(stream, row, &mut counts);
        }
        assert_eq!(counts.read, counts.accepted + counts.duplicate + counts.late + counts.rejected);
        self.counts.push(counts);
    }

    /// A stream's visible events in the order of section 4: of one identity the greatest row alone.
    pub(crate) fn visible(&self, streams: &[Stream], stream: usize) -> Vec<Vec<Value>> {
        let declared = &streams[stream];
        let mut rows = self.streams[stream].rows.clone();
        rows.sort_by(|a, b| order_rows(&declared.order_key(a), &declared.order_key(b)));
        if declared.primary_key.is_empty() {
            return rows;
        }
        let is_last = |i: usize| {
            rows.get(i + 1).is_none_or(|next| order_rows(&declared.identity(&rows[i]), &declared.identity(next)) != Ordering::Equal)
        };
        (0..rows.len()).filter(|&i| is_last(i)).map(|i| rows[i].clone()).collect()
    }
}
