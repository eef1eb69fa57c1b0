//! Partial results over blocks of a large run, so that a window of any width costs its edges and a logarithm.
//!
//! Blocks are groups of `1 << shift` physical rows; only complete ones have entries. Sums and counts are prefixes,
//! taken *before* each block, so a range is the difference of two of them and evicted rows need no change. The prefixes
//! of all lanes before a block lie side by side, since a bound is looked up in all of them and each line of memory that
//! is not in a cache costs as much as adding a dozen rows. The totals run on to the last row. A change inside the run
//! cuts the directory back and extends it again.

use super::Run;
use super::extremes::{Extremes, NARROW_SHIFT};
use super::grow;
use super::lane::{LaneView, none};
use super::occurrences::Occurrences;
use crate::exact_sum::{ExactSum, Fixed, Moments, Part};
use crate::program::{Lane, Program};
use crate::rows::Rows;

/// Partial results of a large run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    shift: u32,
    blocks: usize,
    /// The complete groups of narrow extremes.
    groups: usize,
    /// The time of each block's first row.
    times: Vec<i64>,
    /// A record of `stride` words before each block and before the first incomplete one.
    prefixes: Vec<u64>,
    stride: usize,
    lanes: Vec<LaneDirectory>,
}

/// Partial results of one lane.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneDirectory {
    /// Where in a record the lane's words are.
    place: Words,
    total_count: u64,
    total: Moments,
    /// The general parts of the prefixes; empty while there is none.
    general: Vec<Option<Box<(ExactSum, ExactSum)>>>,
    least: Extremes,
    greatest: Extremes,
    pub(crate) occurrences: Occurrences,
}

/// The words of one lane in a record: where each part is, if it is kept.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    /// Rows that count.
    count: Option<u16>,
    /// Four limbs.
    sum: Option<u16>,
    /// Six limbs.
    squares: Option<u16>,
}

impl Words {
    /// The words that a lane needs, from `next` on.
    fn of(lane: &Lane, next: &mut usize) -> Words {
        let mut take = |kept: bool, words: usize| {
            let first = *next;
            *next += if kept { words } else { 0 };
            kept.then(|| u16::try_from(first).expect("invariant: a program has fewer than a thousand lanes"))
        };
        let needs = lane.needs;
        let counts_all = lane.value.is_none() && lane.mask.is_none();
        Words { count: take(needs.count && !counts_all, 1), sum: take(needs.moments(), 4), squares: take(needs.squares, 6) }
    }

    fn read_count(self, record: &[u64]) -> u64 {
        self.count.map_or(0, |at| record[usize::from(at)])
    }

    fn read(self, record: &[u64]) -> Part {
        let mut part = Part::default();
        if let Some(at) = self.sum {
            part.sum = Fixed(std::array::from_fn(|limb| record[usize::from(at) + limb]));
        }
        if let Some(at) = self.squares {
            part.squares = Fixed(std::array::from_fn(|limb| record[usize::from(at) + limb]));
        }
        part
    }

    fn write(self, record: &mut [u64], count: u64, part: &Part) {
        if let Some(at) = self.count {
            record[usize::from(at)] = count;
        }
        if let Some(at) = self.sum {
            record[usize::from(at)..][..4].copy_from_slice(&part.sum.0);
        }
        if let Some(at) = self.squares {
            record[usize::from(at)..][..6].copy_from_slice(&part.squares.0);
        }
    }
}

impl Directory {
    pub(crate) fn new(program: &Program, shift: u32) -> Directory {
        let mut stride = 0;
        let lanes = program.lanes.iter().map(|lane| {
            let extremes = || lane.value.map(|value| Extremes::new(program.kinds[value])).unwrap_or_default();
            let (least, greatest) = (extremes(), extremes());
            LaneDirectory { place: Words::of(lane, &mut stride), least, greatest, ..LaneDirectory::default() }
        });
        let lanes = lanes.collect();
        Directory { shift, blocks: 0, groups: 0, times: Vec::new(), prefixes: vec![0; stride], stride, lanes }
    }

    /// Forgets all rows, keeping allocations.
    pub(crate) fn clear(&mut self) {
        (self.blocks, self.groups) = (0, 0);
        self.times.clear();
        self.prefixes.truncate(self.stride);
        for lane in &mut self.lanes {
            lane.general.clear();
            lane.least.clear();
            lane.greatest.clear();
            lane.occurrences.clear();
            (lane.total_count, lane.total) = (0, Moments::default());
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
                + lane.general.capacity() * 8
                + lane.general.iter().flatten().map(|x| x.0.heap_bytes() + x.1.heap_bytes() + 96).sum::<usize>()
                + lane.least.heap_bytes()
                + lane.greatest.heap_bytes()
                + lane.occurrences.heap_bytes()
        };
        self.times.capacity() * 8 + self.prefixes.capacity() * 8 + self.lanes.iter().map(of_lane).sum::<usize>()
    }

    /// Forgets the blocks that hold physical row `row` or a later one.
    pub(crate) fn cut(&mut self, row: usize) {
        self.blocks = self.blocks.min(row >> self.shift);
        self.groups = self.groups.min(row >> self.shift.min(NARROW_SHIFT));
        self.times.truncate(self.blocks);
        self.prefixes.truncate((self.blocks + 1) * self.stride);
        for lane in &mut self.lanes {
            lane.general.truncate(self.blocks + 1);
            lane.least.truncate(row >> lane.least.shift(self.shift));
            lane.greatest.truncate(row >> lane.greatest.shift(self.shift));
        }
    }

    /// The rows among which the first of `start..end` lies whose time is not before a bound.
    pub(crate) fn narrow(&self, start: usize, end: usize, is_before: impl Fn(i64) -> bool) -> (usize, usize) {
        // Blocks with rows that were evicted may not be in order with the others.
        let first = start.div_ceil(1 << self.shift);
        if first >= self.blocks {
            return (start, end);
        }
        let block = first + self.times[first..].partition_point(|time| is_before(*time));
        let low = if block == first { start } else { (block - 1) << self.shift };
        (low, if block == self.blocks { end } else { block << self.shift })
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
        self.groups -= rows >> self.shift.min(NARROW_SHIFT);
        self.times.drain(..blocks);
        self.prefixes.drain(..blocks * self.stride);
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            of.general.drain(..blocks.min(of.general.len()));
            let view = LaneView::new(run, program, lane);
            if let Some(column) = view.column {
                of.least.drop_front(rows >> of.least.shift(self.shift), &column, false);
                of.greatest.drop_front(rows >> of.greatest.shift(self.shift), &column, true);
            }
            if lane.needs.distinct {
                of.occurrences.rebuild(run, program, lane);
            }
        }
    }

    /// Whether a group of extremes is complete at `end` and has no entry; where a block is, a group is too.
    pub(crate) fn is_behind(&self, end: usize) -> bool {
        self.groups < end >> self.shift.min(NARROW_SHIFT)
    }

    /// Makes the entries of all blocks and groups that are complete at `end`.
    pub(crate) fn extend(&mut self, run: &Run, program: &Program, end: usize) {
        while (self.blocks + 1) << self.shift <= end {
            let (low, high) = (self.blocks << self.shift, (self.blocks + 1) << self.shift);
            grow(&mut self.times, 1);
            self.times.push(run.store().word(0, low) as i64);
            grow(&mut self.prefixes, self.stride);
            self.prefixes.resize(self.prefixes.len() + self.stride, 0);
            let (before, after) = self.prefixes[self.blocks * self.stride..].split_at_mut(self.stride);
            for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
                if lane.needs.count | lane.needs.moments() {
                    of.prefix_block(&LaneView::new(run, program, lane), lane, self.blocks, (low, high), end, (before, after));
                }
            }
            self.blocks += 1;
        }
        for (of, lane) in self.lanes.iter_mut().zip(&program.lanes) {
            if lane.needs.min | lane.needs.max {
                of.extend_extremes(&LaneView::new(run, program, lane), lane, self.shift, end);
            }
        }
        self.groups = end >> self.shift.min(NARROW_SHIFT);
    }

    /// Reads what every evaluation needs; see `Run::warm`.
    pub(crate) fn warm(&self) -> u64 {
        let of_lane = |lane: &LaneDirectory| lane.total_count ^ lane.least.len() as u64 ^ lane.greatest.len() as u64;
        self.lanes.iter().map(of_lane).fold(self.times.first().map_or(0, |time| *time as u64), |all, one| all ^ one)
    }

    /// Reads what a bound at a row needs; see `Run::warm`.
    pub(crate) fn warm_at(&self, row: usize) -> u64 {
        let from = (row >> self.shift).min(self.blocks) * self.stride;
        let to = self.prefixes.len().min(from + 2 * self.stride);
        let prefixes = self.prefixes[from..to].iter().step_by(8).fold(0, |all, word| all ^ word);
        let group = row >> self.shift.min(NARROW_SHIFT);
        self.lanes.iter().fold(prefixes, |all, lane| all ^ lane.least.warm(group) ^ lane.greatest.warm(group))
    }

    /// How many rows of `low..high` count in a lane.
    pub(crate) fn count(&self, lane: usize, view: &LaneView<'_>, low: usize, high: usize) -> u64 {
        let (first, last) = (low.div_ceil(1 << self.shift), (high >> self.shift).min(self.blocks));
        if view.counts_all() || high - low < 256 || first >= last {
            return view.count(low, high);
        }
        let count = |block: usize| self.lanes[lane].place.read_count(self.record(block));
        count(last) - count(first) + view.count(low, first << self.shift) + view.count(last << self.shift, high)
    }

    /// What lies before a block.
    fn record(&self, block: usize) -> &[u64] {
        &self.prefixes[block * self.stride..(block + 1) * self.stride]
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
            sums.merge_prefix(&of.place.read(self.record(block)), of.general.get(block), take_back, squares);
            view.sum(start, row, take_back, squares, sums);
        } else {
            if is_last {
                sums.merge_prefix(&of.total.part, Some(&of.total.general), take_back, squares);
            } else {
                sums.merge_prefix(&of.place.read(self.record(block + 1)), of.general.get(block + 1), take_back, squares);
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
        let of = &self.lanes[index];
        // Both have groups of one size; where both are kept, they have equally many.
        let (shift, groups) = (of.least.shift(self.shift), of.least.len().max(of.greatest.len()));
        let (first, last) = (low.div_ceil(1 << shift), (high >> shift).min(groups));
        let (Some(column), true) = (view.column, first < last) else { return view.extremes(low, high, found) };
        let found = if crate::seeded::seeded_bug("min-edge-dropped") { found } else { view.extremes(low, first << shift, found) };
        let (mut least, mut greatest) = view.extremes(last << shift, high, found);
        if lane.needs.min {
            least = of.least.query(first, last, least, &column, false);
        }
        if lane.needs.max {
            greatest = of.greatest.query(first, last, greatest, &column, true);
        }
        (least, greatest)
    }
}

impl LaneDirectory {
    /// Writes the prefix `after` the rows `low..high` of a block from the one `before` them.
    fn prefix_block(
        &mut self,
        view: &LaneView<'_>,
        lane: &Lane,
        block: usize,
        (low, high): (usize, usize),
        end: usize,
        (before, after): (&[u64], &mut [u64]),
    ) {
        // An append that completes the block already has the new prefix: the totals.
        let complete = high == end;
        let count = if complete { self.total_count } else { self.place.read_count(before) + view.count(low, high) };
        if !lane.needs.moments() {
            return self.place.write(after, count, &Part::default());
        }
        let mut prefix = match complete {
            true => self.total.clone(),
            false => Moments { part: self.place.read(before), general: self.general.get(block).cloned().flatten() },
        };
        if !complete || crate::seeded::seeded_bug("block-merged-twice") {
            view.sum(low, high, false, lane.needs.squares, &mut prefix);
        }
        self.place.write(after, count, &prefix.part);
        if prefix.general.is_some() || !self.general.is_empty() {
            self.general.resize(block + 1, None);
            self.general.push(prefix.general);
        }
    }

    /// Adds the extremes of the groups that are complete at `end`.
    fn extend_extremes(&mut self, view: &LaneView<'_>, lane: &Lane, shift: u32, end: usize) {
        let (Some(column), shift) = (view.column, self.least.shift(shift)) else { return };
        for group in self.least.len().max(self.greatest.len())..end >> shift {
            let (least, greatest) = view.extremes(group << shift, (group + 1) << shift, (none(false), none(true)));
            if lane.needs.min {
                self.least.push(least, &column, false);
            }
            if lane.needs.max {
                self.greatest.push(greatest, &column, true);
            }
        }
    }
}
