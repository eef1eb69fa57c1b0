//! What was evicted, folded: the partial results of unbounded and session frames over rows that are gone.
//!
//! A set of folded rows belongs to all unbounded frames together, and one to each session frame (the part of the
//! session in progress that left). A row that arrives or goes behind the boundary is folded in or out where that is
//! exact, ignored where no frame can see it, and else asks for a rebuild.

use std::collections::VecDeque;

use super::lane::LaneView;
use super::{Applied, Run};
use crate::exact_sum::Moments;
use crate::output::{Cell, Value};
use crate::program::{Aggregate, Holding, Lane, Program, holding};
use crate::rows::Rows;
use crate::window::Frame;

/// What a run remembers of evicted rows beside the greatest evicted time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    /// Every instant from here on is answered.
    pub(crate) horizon: i64,
    /// The order key of the last evicted row.
    pub(crate) key: Box<[u8]>,
    /// All evicted rows, for unbounded frames.
    pub(crate) all: Option<FoldedRows>,
    /// Per session frame, the evicted rows of the session that the last of them belongs to.
    pub(crate) sessions: Vec<Option<FoldedRows>>,
}

/// Rows folded into partial results.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoldedRows {
    pub(crate) rows: u64,
    pub(crate) first_time: i64,
    pub(crate) lanes: Vec<FoldedLane>,
}

/// One lane of folded rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoldedLane {
    pub(crate) count: u64,
    pub(crate) moments: Moments,
    pub(crate) least: Value,
    pub(crate) greatest: Value,
    pub(crate) first: Vec<Value>,
    pub(crate) last: VecDeque<Value>,
}

/// Which folded rows a program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needed {
    /// Whether a base is needed at all: folded rows, or ROWS frames that count what is held.
    pub(crate) any: bool,
    /// Whether unbounded frames are folded.
    pub(crate) all: bool,
    /// The newest rows before the horizon that ROWS frames need.
    pub(crate) rows: u64,
}

impl Needed {
    pub(crate) fn by(frames: &[Frame], aggregates: &[Aggregate]) -> Needed {
        let mut needed = Needed::default();
        for (index, frame) in frames.iter().enumerate() {
            let folded = holding(index, aggregates) == Holding::Folded;
            match frame {
                Frame::Session { .. } => needed.any = true,
                Frame::Rows { start: Some(start), .. } => needed.rows = needed.rows.max(start.saturating_add(1)),
                Frame::Rows { start: None, end } => needed.rows = needed.rows.max(*end),
                _ => {}
            }
            needed.all |= folded && frame.is_unbounded();
        }
        needed.any |= needed.all | (needed.rows > 0);
        needed
    }
}

impl FoldedRows {
    fn new(program: &Program, first_time: i64) -> FoldedRows {
        FoldedRows { rows: 0, first_time, lanes: vec![FoldedLane::default(); program.lanes.len()] }
    }

    /// Folds the physical rows `low..high`, in order.
    fn fold(&mut self, run: &Run, program: &Program, low: usize, high: usize) {
        self.rows += (high - low) as u64;
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            of.fold(&LaneView::new(run, program, lane), lane, low, high);
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let of_lane = |lane: &FoldedLane| {
            size_of::<FoldedLane>() + lane.moments.heap_bytes() + (lane.first.len() + lane.last.len()) * size_of::<Value>()
        };
        self.lanes.iter().map(of_lane).sum()
    }
}

impl FoldedLane {
    fn fold(&mut self, view: &LaneView<'_>, lane: &Lane, low: usize, high: usize) {
        self.count += view.count(low, high);
        if lane.needs.moments() {
            view.sum(low, high, false, lane.needs.squares, &mut self.moments);
        }
        if let (Some(column), true) = (view.column, lane.needs.min | lane.needs.max) {
            view.each(low, high, |row| {
                let cell = column.cell_of_key(column.key(row));
                replace_if(&mut self.least, cell, false);
                replace_if(&mut self.greatest, cell, true);
            });
        }
        let Some(column) = view.column else { return };
        if lane.folded.first > 0 {
            let mut at = low;
            while self.first.len() < lane.folded.first
                && let Some(row) = view.first(at, high)
            {
                self.first.push(column.cell(row).into());
                at = row + 1;
            }
        }
        if lane.folded.last > 0 {
            let mut found = Vec::new();
            let mut at = high;
            while found.len() < lane.folded.last
                && let Some(row) = view.last(low, at)
            {
                found.push(Value::from(column.cell(row)));
                at = row;
            }
            self.last.extend(found.into_iter().rev());
            while self.last.len() > lane.folded.last {
                self.last.pop_front();
            }
        }
    }
}

/// The order of `min` on values of one type.
pub(crate) fn compare(a: &Cell<'_>, b: &Cell<'_>) -> std::cmp::Ordering {
    match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => super::lane::float_key(*a).cmp(&super::lane::float_key(*b)),
        (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
        (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(b),
        (Cell::Boolean(a), Cell::Boolean(b)) => a.cmp(b),
        (Cell::Bytes(a), Cell::Bytes(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    }
}

fn replace_if(best: &mut Value, cell: Cell<'_>, greater: bool) {
    let order = compare(&cell, &best.cell());
    if *best == Value::Null || (if greater { order.is_gt() } else { order.is_lt() }) {
        *best = cell.into();
    }
}

impl Base {
    /// Folds the physical rows `low..high`, which leave; `before` is the time of the row evicted before them.
    pub(crate) fn fold(&mut self, run: &Run, program: &Program, needed: Needed, before: Option<i64>, low: usize, high: usize) {
        let times = run.store.words(0);
        if needed.all {
            let all = self.all.get_or_insert_with(|| FoldedRows::new(program, times[low] as i64));
            all.fold(run, program, low, high);
        }
        let layout = &program.layout;
        self.sessions.resize(layout.session_frames.len(), None);
        for (slot, (frame, gap)) in layout.session_frames.iter().enumerate() {
            if holding(*frame, &program.aggregates) != Holding::Folded {
                continue;
            }
            // Only the session of the last row that leaves can still be in progress.
            let starts = run.store.bits(layout, layout.session(slot));
            let start = super::locate::last_set(starts, low, high);
            let first = start.unwrap_or(low);
            let joins = before.is_some_and(|before| within(times[low] as i64, before, *gap));
            if start.is_some() || !joins || self.sessions[slot].is_none() {
                self.sessions[slot] = Some(FoldedRows::new(program, times[first] as i64));
            }
            if let Some(session) = &mut self.sessions[slot] {
                session.fold(run, program, first, high);
            }
        }
    }

    /// Applies an event behind the boundary; `Rebuild` leaves everything as it was.
    pub(crate) fn apply(&mut self, program: &Program, needed: Needed, rows: &Rows, row: usize, boundary: i64, remove: bool) -> Applied {
        let time = rows.times[row];
        let is_boundary = time == boundary && rows.key(row) == &*self.key;
        let mut sets: Vec<&mut FoldedRows> = Vec::new();
        if needed.all {
            match &mut self.all {
                Some(all) if can_fold(all, program, rows, row, remove, is_boundary) => {
                    // The first time is no result of an unbounded frame; it only has to stay a lower bound.
                    all.first_time = all.first_time.min(time);
                    sets.push(all);
                }
                _ => return Applied::Rebuild,
            }
        }
        for ((_, gap), session) in program.layout.session_frames.iter().zip(&mut self.sessions) {
            let Some(session) = session else { continue };
            if time < session.first_time && !within(session.first_time, time, *gap) {
                continue;
            }
            // Inside the session a further event changes no neighbour's distance; one that goes, or reaches back, may.
            let inside = time > session.first_time && !remove;
            if !inside || !can_fold(session, program, rows, row, remove, is_boundary) {
                return Applied::Rebuild;
            }
            sets.push(session);
        }
        for set in sets {
            set.apply(program, rows, row, remove);
        }
        Applied::Done
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Base>()
            + self.key.len()
            + self.sessions.capacity() * size_of::<Option<FoldedRows>>()
            + self.sessions.iter().flatten().chain(&self.all).map(FoldedRows::heap_bytes).sum::<usize>()
    }
}

/// Whether `later - earlier` is at most `gap`.
pub(crate) fn within(later: i64, earlier: i64, gap: i64) -> bool {
    later.checked_sub(earlier).is_some_and(|distance| distance <= gap)
}

/// Whether an event behind the boundary can be folded in or out exactly.
fn can_fold(set: &FoldedRows, program: &Program, rows: &Rows, row: usize, remove: bool, is_boundary: bool) -> bool {
    program.lanes.iter().zip(&set.lanes).all(|(lane, of)| {
        if !rows.passes(lane, row) {
            return true;
        }
        // Of an unmasked lane the last row folded is the boundary itself, so an older event is not its last value.
        let keeps_last = lane.folded.last == 0 || (lane.folded.last == 1 && lane.mask.is_none() && !is_boundary);
        if lane.folded.first > 0 || !keeps_last {
            return false;
        }
        let (Some(value), true) = (lane.value, remove) else { return true };
        let Some(cell) = rows.cell(program, value, row) else { return true };
        let is = |best: &Value| compare(&cell, &best.cell()).is_eq();
        !((lane.needs.min && is(&of.least)) || (lane.needs.max && is(&of.greatest)))
    })
}

impl FoldedRows {
    fn apply(&mut self, program: &Program, rows: &Rows, row: usize, remove: bool) {
        let step = |count: u64| if remove { count.saturating_sub(1) } else { count + 1 };
        self.rows = step(self.rows);
        for (lane, of) in program.lanes.iter().zip(&mut self.lanes) {
            if !rows.passes(lane, row) {
                continue;
            }
            let Some(value) = lane.value else {
                of.count = step(of.count);
                continue;
            };
            let Some(cell) = rows.cell(program, value, row) else { continue };
            of.count = step(of.count);
            if lane.needs.moments() {
                match cell {
                    Cell::Float(x) => of.moments.double(x, remove, lane.needs.squares),
                    Cell::Int(x) => of.moments.part.whole(i128::from(x), remove, lane.needs.squares),
                    Cell::Decimal(x) => of.moments.part.whole(x, remove, lane.needs.squares),
                    _ => {}
                }
            }
            if !remove && (lane.needs.min | lane.needs.max) {
                replace_if(&mut of.least, canonical(cell), false);
                replace_if(&mut of.greatest, canonical(cell), true);
            }
        }
    }
}

/// The value as `min` and `max` give it: a zero is +0.
fn canonical(cell: Cell<'_>) -> Cell<'_> {
    if let Cell::Float(x) = cell { Cell::Float(x + 0.0) } else { cell }
}
