//! Evaluation: all aggregates of a program over one run at one instant.
//!
//! Frames are located first. Then each lane walks its frames, which stand narrower before wider, so that a frame that
//! ends where the one before it ended only adds the rows by which it is wider; from the partial results of a frame all
//! of its aggregates follow. What has no partial results (arrays, quantiles, sketches) is read from the rows.
//!
//! Not here: which partial results are kept (`run`), exact arithmetic (`exact_sum`).

mod bounds;
mod distinct;
mod first_last;
mod moments;
mod quantile;
mod sketches;
#[cfg(test)]
pub(crate) mod tests;

use crate::exact_sum::Moments;
use crate::output::{Cell, Output, Value};
use crate::program::{Function, Lane, LaneUse, Program};
use crate::run::{Directory, FoldedLane, LaneView, Located, Run, compare, none};
use crate::window::Instant;

impl Program {
    /// Evaluates every aggregate over a run's events at an instant; slot i is aggregate i, `None` is the empty set.
    ///
    /// - The instant is not before the horizon of the run's last eviction.
    /// - Cost: O(log events) for aggregates with partial results, O(frame) for the others.
    pub fn evaluate<O: Output + ?Sized>(&self, run: Option<&Run>, at: Instant, out: &mut O) {
        match run.and_then(|run| Some((run, self.alive(run, at)?))) {
            Some((run, end)) => {
                let mut located = [Located::default(); 8];
                if self.frames.len() <= located.len() {
                    self.evaluate_run(run, at, end, &mut located[..self.frames.len()], out);
                } else {
                    self.evaluate_run(run, at, end, &mut vec![Located::default(); self.frames.len()], out);
                }
            }
            None => self.evaluate_nothing(at, out),
        }
    }

    /// The end of the events up to the instant, unless there are none or the ttl hides them.
    fn alive(&self, run: &Run, at: Instant) -> Option<usize> {
        if run.is_empty() && run.boundary().is_none() {
            return None;
        }
        run.warm(self);
        let end = run.up_to(at);
        let Some(ttl) = self.ttl else { return Some(end) };
        let held = if end > run.start() { Some(run.store().word(0, end - 1) as i64) } else { None };
        let last = held.max(run.boundary())?;
        let dies = last.saturating_add(ttl);
        let dead = if crate::seeded::seeded_bug("ttl-edge") { dies <= at.at } else { dies < at.at };
        (!dead).then_some(end)
    }

    fn evaluate_nothing<O: Output + ?Sized>(&self, at: Instant, out: &mut O) {
        for (slot, aggregate) in self.aggregates.iter().enumerate() {
            let cell = match aggregate.function {
                Function::CountAll | Function::Count | Function::CountDistinct | Function::ApproxDistinct => Cell::Int(0),
                Function::WindowStart | Function::WindowEnd => {
                    bounds::fixed(&self.frames[aggregate.frame], aggregate.function, at).map_or(Cell::Null, Cell::Int)
                }
                _ => Cell::Null,
            };
            out.cell(slot, cell);
        }
    }

    fn evaluate_run<'a, O: Output + ?Sized>(&self, run: &'a Run, at: Instant, end: usize, located: &mut [Located<'a>], out: &mut O) {
        for (index, (frame, place)) in self.frames.iter().zip(located.iter_mut()).enumerate() {
            *place = run.locate(self, frame, Some(index), at, end);
        }
        run.warm_frames(self, located);
        for (index, lane) in self.lanes.iter().enumerate() {
            if !lane.uses.is_empty() {
                let view = LaneView::new(run, self, lane);
                LaneState::new(run, lane, index, view, self).evaluate(located, out);
            }
        }
        for raw in &self.raw {
            let place = &located[raw.frame];
            if let Function::WindowStart | Function::WindowEnd = raw.function {
                let cell = bounds::of(run, &self.frames[raw.frame], raw.function, at, place).map_or(Cell::Null, Cell::Int);
                out.cell(raw.slot, cell);
                continue;
            }
            let lane = &self.lanes[raw.lane];
            let view = LaneView::new(run, self, lane);
            let folded = place.folded.and_then(|folded| folded.lanes.get(raw.lane));
            match raw.function {
                Function::FirstValue | Function::LastValue | Function::ArrayAgg | Function::FirstN(_) | Function::LastN(_) => {
                    first_last::give(raw.function, raw.slot, &view, place, folded, out);
                }
                Function::SumDistinct | Function::AvgDistinct => {
                    let cell = distinct::sum(raw.function, &view, place);
                    give_sum(cell, raw.slot, out);
                }
                Function::Median => out.cell(raw.slot, quantile::percentile(0.5, &view, place)),
                Function::PercentileCont(p) => out.cell(raw.slot, quantile::percentile(p, &view, place)),
                Function::ApproxDistinct => out.cell(raw.slot, sketches::distinct(&view, place)),
                Function::ApproxPercentileCont(p) => out.cell(raw.slot, sketches::percentile(p, &view, place)),
                _ => out.cell(raw.slot, Cell::Null),
            }
        }
    }
}

/// A sum's cell; `None` is one that does not fit its type.
fn give_sum<O: Output + ?Sized>(cell: Option<Cell<'_>>, slot: usize, out: &mut O) {
    match cell {
        Some(cell) => out.cell(slot, cell),
        None => {
            out.cell(slot, Cell::Null);
            out.overflow(slot);
        }
    }
}

/// The partial results of one lane over the frame last looked at.
struct LaneState<'a> {
    run: &'a Run,
    lane: &'a Lane,
    index: usize,
    view: LaneView<'a>,
    program: &'a Program,
    directory: Option<&'a Directory>,
    /// The rows that the partial results cover.
    low: usize,
    high: usize,
    count: u64,
    moments: Moments,
    extremes: (i128, i128),
    distinct: u64,
}

impl<'a> LaneState<'a> {
    fn new(run: &'a Run, lane: &'a Lane, index: usize, view: LaneView<'a>, program: &'a Program) -> Self {
        let (directory, moments) = (run.directory(), Moments::default());
        let extremes = (none(false), none(true));
        LaneState {
            run,
            lane,
            index,
            view,
            program,
            directory,
            low: usize::MAX,
            high: usize::MAX,
            count: 0,
            moments,
            extremes,
            distinct: 0,
        }
    }

    fn evaluate<O: Output + ?Sized>(&mut self, located: &[Located<'a>], out: &mut O) {
        for lane_use in &self.lane.uses {
            let place = &located[lane_use.frame];
            if place.high != self.high || place.low > self.low {
                self.start_at(place.high);
            }
            self.extend(place.low);
            match place.folded.and_then(|folded| folded.lanes.get(self.index)) {
                Some(folded) => self.give_with(folded, lane_use, out),
                None => {
                    let cells = (self.extreme(false).unwrap_or(Cell::Null), self.extreme(true).unwrap_or(Cell::Null));
                    self.give(lane_use, self.count, &self.moments, cells, out);
                }
            }
        }
    }

    /// The least or greatest value so far, where the lane keeps it and there is one.
    fn extreme(&self, greater: bool) -> Option<Cell<'a>> {
        let kept = if greater { self.lane.needs.max } else { self.lane.needs.min };
        let key = if greater { self.extremes.1 } else { self.extremes.0 };
        self.view.column.filter(|_| kept && self.count > 0).map(|column| column.cell_of_key(key))
    }

    /// Begins with no rows before `high`.
    fn start_at(&mut self, high: usize) {
        (self.low, self.high, self.count, self.distinct) = (high, high, 0, 0);
        self.extremes = (none(false), none(true));
        if self.lane.needs.moments() {
            self.moments = Moments::default();
        }
    }

    /// Takes the rows from `low` on into the partial results.
    fn extend(&mut self, low: usize) {
        let (from, to, needs) = (low, self.low, self.lane.needs);
        if from == to {
            return;
        }
        self.low = low;
        match self.directory {
            Some(directory) => {
                if needs.count {
                    self.count += directory.count(self.index, &self.view, from, to);
                }
                if needs.moments() {
                    if to - from <= directory.short() {
                        self.view.sum(from, to, false, needs.squares, &mut self.moments);
                    } else {
                        let end = self.run.end();
                        self.moments = directory.sums(self.lane, self.index, &self.view, from, self.high, end);
                    }
                }
                if needs.min | needs.max {
                    self.extremes = directory.extremes(self.lane, self.index, &self.view, from, to, self.extremes);
                }
            }
            None => {
                if needs.count {
                    self.count += self.view.count(from, to);
                }
                if needs.moments() {
                    self.view.sum(from, to, false, needs.squares, &mut self.moments);
                }
                if needs.min | needs.max {
                    self.extremes = self.view.extremes(from, to, self.extremes);
                }
            }
        }
        if needs.distinct {
            self.distinct =
                distinct::count(self.run, self.program, self.lane, self.index, &self.view, self.low, self.high, (self.distinct, to));
        }
    }

    /// Gives the aggregates of a frame that continues from folded rows.
    fn give_with<O: Output + ?Sized>(&self, folded: &FoldedLane, lane_use: &LaneUse, out: &mut O) {
        let mut moments = self.moments.clone();
        moments.merge(&folded.moments, self.lane.needs.squares);
        let best = |other: &Value, greater: bool| -> Option<Cell<'a>> {
            let cell = self.extreme(greater)?;
            let other = other.cell();
            let order = compare(&cell, &other);
            let keep = other == Cell::Null || (if greater { order.is_gt() } else { order.is_lt() });
            keep.then_some(cell)
        };
        let least = best(&folded.least, false);
        let greatest = best(&folded.greatest, true);
        let cells = (least.unwrap_or(folded.least.cell()), greatest.unwrap_or(folded.greatest.cell()));
        self.give(lane_use, self.count + folded.count, &moments, cells, out);
    }

    fn give<O: Output + ?Sized>(&self, lane_use: &LaneUse, count: u64, moments: &Moments, extremes: (Cell<'_>, Cell<'_>), out: &mut O) {
        for (slot, function) in &lane_use.outputs {
            let cell = match function {
                Function::CountAll | Function::Count => Cell::Int(count as i64),
                Function::CountDistinct => Cell::Int(self.distinct as i64),
                Function::Min => extremes.0,
                Function::Max => extremes.1,
                Function::Sum => {
                    give_sum(moments::sum(&self.view, count, moments), *slot, out);
                    continue;
                }
                function => moments::spread(*function, &self.view, count, moments),
            };
            out.cell(*slot, cell);
        }
    }
}
