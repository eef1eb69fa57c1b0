//! Partial results over blocks of a large run, so that a window of any width costs its edges and a logarithm.
//!
//! Blocks are groups of `1 << shift` physical rows; only complete ones have entries. Sums and counts are prefixes,
//! taken *before* each block, so a range is the difference of two of them and evicted rows need no change.
//! The totals run on to the last row. A change inside the run cuts the directory back and extends it again.

use super::Run;
use super::lane::{LaneView, none};
use super::levels::Levels;
use super::occurrences::Occurrences;
use crate::exact_sum::{ExactSum, Moments, Part};
use crate::program::{Kind, Lane, Program};
use crate::rows::Rows;

/// Partial results of a large run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    shift: u32,
    blocks: usize,
    lanes: Vec<LaneDirectory>,
}

/// Partial results of one lane.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneDirectory {
    /// Rows that count, before each block and before the first incomplete one.
    counts: Vec<u64>,
    parts: Vec<Part>,
    /// The general parts of the same prefixes; empty while there is none.
    general: Vec<Option<Box<(ExactSum, ExactSum)>>>,
    total_count: u64,
    total: Moments,
    least: Levels,
    greatest: Levels,
    pub(crate) occurrences: Occurrences,
}

impl Directory {
    pub(crate) fn new(program: &Program, shift: u32) -> Directory {
        let mut directory = Directory { shift, blocks: 0, lanes: Vec::new() };
        directory.lanes.resize_with(program.lanes.len(), LaneDirectory::default);
        directory.lanes.iter_mut().for_each(LaneDirectory::start);
        directory
    }

    /// Forgets all rows, keeping allocations.
    pub(crate) fn clear(&mut self) {
        self.blocks = 0;
        for lane in &mut self.lanes {
            lane.counts.clear();
            lane.parts.clear();
            lane.general.clear();
            lane.least.clear();
            lane.greatest.clear();
            lane.occurrences.clear();
            (lane.total_count, lane.total) = (0, Moments::default());
            lane.start();
        }
    }

    pub(crate) fn lane(&self, lane: usize) -> &LaneDirectory {
        &self.lanes[lane]
    }

    pub(crate) fn lane_mut(&mut self, lane: usize) -> &mut LaneDirectory {
        &mut self.lanes[lane]
    }

    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let of_lane = |lane: &LaneDirectory| {
            size_of::<LaneDirectory>()
                + lane.counts.capacity() * 8
                + lane.parts.capacity() * size_of::<Part>()
                + lane.general.capacity() * 8
                + lane.general.iter().flatten().map(|x| x.0.heap_bytes() + x.1.heap_bytes() + 96).sum::<usize>()
                + lane.least.heap_bytes()
                + lane.greatest.heap_bytes()
                + lane.occurrences.heap_bytes()
        };
        self.lanes.iter().map(of_lane).sum()
    }

    /// Forgets the blocks that hold physical row `row` or a later one.
    pub(crate) fn cut(&mut self, row: usize) {
        self.blocks = self.blocks.min(row >> self.shift);
        for lane in &mut self.lanes {
            lane.counts.truncate(self.blocks + 1);
            lane.parts.truncate(self.blocks + 1);
            lane.general.truncate(self.blocks + 1);
            lane.least.truncate(self.blocks);
            lane.greatest.truncate(self.blocks);
        }
    }

    /// Adds an event to the totals, or takes it back.
    #[inline]
    pub(crate) fn total(&mut self, program: &Program, rows: &Rows, row: usize, take_back: bool) {
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            let valid = lane.value.is_none_or(|value| rows.values[value].is_valid(row));
            if !valid || !rows.passes(lane, row) {
                continue;
            }
            of.total_count = if take_back { of.total_count - 1 } else { of.total_count + 1 };
            if let (Some(value), true) = (lane.value, lane.needs.moments()) {
                rows.sum(value, row, take_back, lane.needs.squares, &mut of.total);
            }
        }
    }

    /// Takes the totals and the index of occurrences from the rows stored, for a directory that is new.
    pub(crate) fn fill(&mut self, run: &Run, program: &Program) {
        let end = run.end();
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            let view = LaneView::new(run, program, lane);
            of.total_count = view.count(0, end);
            if lane.needs.moments() {
                view.sum(0, end, false, lane.needs.squares, &mut of.total);
            }
            if lane.needs.distinct {
                of.occurrences.rebuild(run, program, lane);
            }
        }
        self.extend(run, program, end);
    }

    /// Drops the first `rows` physical rows, a multiple of 64.
    pub(crate) fn drop_front(&mut self, run: &Run, program: &Program, rows: usize) {
        let blocks = rows >> self.shift;
        self.blocks -= blocks;
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            of.counts.drain(..blocks);
            if lane.needs.moments() {
                of.parts.drain(..blocks);
            }
            of.general.drain(..blocks.min(of.general.len()));
            let view = LaneView::new(run, program, lane);
            if let Some(column) = view.column {
                of.least.drop_front(blocks, |a, b| column.pick(a, b, false));
                of.greatest.drop_front(blocks, |a, b| column.pick(a, b, true));
            }
            if lane.needs.distinct {
                of.occurrences.rebuild(run, program, lane);
            }
        }
    }

    /// Whether a block is complete at `end` and has no entry.
    pub(crate) fn is_behind(&self, end: usize) -> bool {
        (self.blocks + 1) << self.shift <= end
    }

    /// Makes the entries of all blocks that are complete at `end`.
    pub(crate) fn extend(&mut self, run: &Run, program: &Program, end: usize) {
        while self.is_behind(end) {
            let (low, high) = (self.blocks << self.shift, (self.blocks + 1) << self.shift);
            for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
                of.push_block(&LaneView::new(run, program, lane), lane, low, high, end);
            }
            self.blocks += 1;
        }
    }

    /// How many rows of `low..high` count in a lane.
    pub(crate) fn count(&self, lane: usize, view: &LaneView<'_>, low: usize, high: usize) -> u64 {
        let (first, last) = (low.div_ceil(1 << self.shift), (high >> self.shift).min(self.blocks));
        if view.counts_all() || high - low < 1024 || first >= last {
            return view.count(low, high);
        }
        let counts = &self.lanes[lane].counts;
        counts[last] - counts[first] + view.count(low, first << self.shift) + view.count(last << self.shift, high)
    }

    /// Up to how many rows are read rather than looked up.
    pub(crate) fn short(&self) -> usize {
        1 << self.shift >> 1
    }

    /// The sums over the rows `low..high`, `end` being the run's end.
    pub(crate) fn sums(&self, lane: &Lane, index: usize, view: &LaneView<'_>, low: usize, high: usize, end: usize) -> Moments {
        let mut sums = Moments::default();
        self.before(lane, index, view, (high, end), false, &mut sums);
        self.before(lane, index, view, (low, end), true, &mut sums);
        sums
    }

    /// Adds the sums over all rows before physical row `row`, or takes them back.
    fn before(&self, lane: &Lane, index: usize, view: &LaneView<'_>, (row, end): (usize, usize), take_back: bool, sums: &mut Moments) {
        let (of, squares) = (&self.lanes[index], lane.needs.squares);
        let block = (row >> self.shift).min(self.blocks);
        let start = block << self.shift;
        let is_last = block == self.blocks;
        let stop = if is_last { end } else { start + (1 << self.shift) };
        // The shorter way: up from the prefix before the block, or down from the one behind it, or from the total.
        if row - start <= stop - row {
            sums.merge_prefix(&of.parts[block], of.general.get(block), take_back, squares);
            view.sum(start, row, take_back, squares, sums);
        } else {
            if is_last {
                sums.merge_prefix(&of.total.part, Some(&of.total.general), take_back, squares);
            } else {
                sums.merge_prefix(&of.parts[block + 1], of.general.get(block + 1), take_back, squares);
            }
            view.sum(row, stop, !take_back, squares, sums);
        }
    }

    /// The least and greatest keys of `low..high` and of what was found before.
    pub(crate) fn extremes(
        &self,
        lane: &Lane,
        index: usize,
        view: &LaneView<'_>,
        low: usize,
        high: usize,
        found: (i128, i128),
    ) -> (i128, i128) {
        let (first, last) = (low.div_ceil(1 << self.shift), (high >> self.shift).min(self.blocks));
        let (Some(column), true) = (view.column, first < last) else { return view.extremes(low, high, found) };
        let of = &self.lanes[index];
        let found = if crate::seeded::seeded_bug("min-edge-dropped") { found } else { view.extremes(low, first << self.shift, found) };
        let (mut least, mut greatest) = view.extremes(last << self.shift, high, found);
        if lane.needs.min {
            least = match column.kind {
                Kind::Bytes => of.least.query(first, last, least, |a, b| column.pick(a, b, false)),
                _ => of.least.query(first, last, least, i128::min),
            };
        }
        if lane.needs.max {
            greatest = match column.kind {
                Kind::Bytes => of.greatest.query(first, last, greatest, |a, b| column.pick(a, b, true)),
                _ => of.greatest.query(first, last, greatest, i128::max),
            };
        }
        (least, greatest)
    }
}

impl LaneDirectory {
    fn start(&mut self) {
        self.counts.push(0);
        self.parts.push(Part::default());
    }

    fn prefix(&self, block: usize) -> Moments {
        Moments { part: self.parts[block], general: self.general.get(block).cloned().flatten() }
    }

    fn push_block(&mut self, view: &LaneView<'_>, lane: &Lane, low: usize, high: usize, end: usize) {
        let last = self.counts.len() - 1;
        // An append that completes the block already has the new prefix: the totals.
        let complete = high == end;
        let count = if complete { self.total_count } else { self.counts[last] + view.count(low, high) };
        self.counts.push(count);
        if lane.needs.moments() {
            let mut prefix = if complete { self.total.clone() } else { self.prefix(last) };
            if !complete || crate::seeded::seeded_bug("block-merged-twice") {
                view.sum(low, high, false, lane.needs.squares, &mut prefix);
            }
            self.parts.push(prefix.part);
            if prefix.general.is_some() || !self.general.is_empty() {
                self.general.resize(last + 1, None);
                self.general.push(prefix.general);
            }
        }
        if let (Some(column), true) = (view.column, lane.needs.min | lane.needs.max) {
            let (least, greatest) = view.extremes(low, high, (none(false), none(true)));
            if lane.needs.min {
                match column.kind {
                    Kind::Bytes => self.least.push(least, |a, b| column.pick(a, b, false)),
                    _ => self.least.push(least, i128::min),
                }
            }
            if lane.needs.max {
                match column.kind {
                    Kind::Bytes => self.greatest.push(greatest, |a, b| column.pick(a, b, true)),
                    _ => self.greatest.push(greatest, i128::max),
                }
            }
        }
    }
}
