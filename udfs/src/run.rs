//! One entity's events, in order, as columns; what streaming keeps per entity and batch reuses as scratch.
//!
//! A run answers every frame at any instant from its horizon on, exactly, whatever the order in which its events came
//! and whatever was evicted. Up to [`LARGE`] rows it is one allocation of plain columns; beyond, a directory of partial
//! results shortens the way. Rows are addressed by *physical* row inside the crate and by position from the oldest
//! row held outside of it.
//!
//! Not here: what is computed over a frame (`aggregates`), and which entity the run belongs to.

mod base;
mod bulk;
mod codec;
mod dictionary;
mod directory;
mod evict;
mod extremes;
mod keys;
mod lane;
mod levels;
mod locate;
mod mark;
mod occurrences;
mod store;

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray};

use crate::output::Column;
use crate::program::{Kind, Program};
use crate::rows::Rows;
use crate::window::{Frame, Instant};

pub(crate) use base::{FoldedLane, Needed, compare};
pub use codec::{RunsIn, RunsOut};
pub(crate) use dictionary::Dictionary;
pub(crate) use directory::Directory;
pub(crate) use lane::{ColumnView, LaneView, none, unit_of};
pub(crate) use locate::Located;
pub(crate) use occurrences::popcount;
pub(crate) use store::Layout;

use base::{Base, within};
use keys::Keys;
use store::{Place, Store, row_number};

/// Above this many rows a run has a directory.
pub(crate) const LARGE: usize = 128;

/// The directory's blocks: 64 rows, the words of the bit columns.
const BLOCK_SHIFT: u32 = 6;

/// Scratch runs trade memory for shorter edges.
const SCRATCH_SHIFT: u32 = 3;

/// What became of a change to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// Every instant from the horizon on has the value of the changed set of events.
    Done,
    /// It lies behind what was folded or evicted and cannot be applied exactly; the run is unchanged and must be rebuilt.
    Rebuild,
}

/// One entity's events, in order.
///
/// Every call must be given the program that the run was first used with.
#[derive(Debug, Clone, Default)]
pub struct Run {
    store: Store,
    start: u32,
    len: u32,
    scratch: bool,
    evicted: bool,
    /// The greatest event time that was evicted, if any was.
    boundary: i64,
    extra: Option<Box<Extra>>,
}

/// What a run of numbers only, small and never evicted, does without.
#[derive(Debug, Clone, Default)]
struct Extra {
    /// One per value column of bytes, in their order.
    dictionaries: Vec<Dictionary>,
    keys: Keys,
    directory: Option<Box<Directory>>,
    base: Option<Box<Base>>,
}

impl Run {
    /// An empty run: a few words, nothing on the heap.
    pub fn new() -> Run {
        Run::default()
    }

    /// An empty run for one entity after the other: [`Run::clear`] keeps its allocations.
    pub fn scratch() -> Run {
        Run { scratch: true, ..Run::default() }
    }

    /// The number of events held.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no events are held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the run is as good as a new one: nothing is held, and what was evicted left nothing that later instants need.
    pub fn is_vacant(&self, program: &Program) -> bool {
        self.len == 0 && !(self.evicted && (program.needed.any || program.ttl().is_some()))
    }

    /// Whether the ttl, if there is one, has not passed at an instant: the last event that counts there lies within it.
    pub fn is_live(&self, program: &Program, at: Instant) -> bool {
        let Some(ttl) = program.ttl() else { return true };
        let newest = self.range(program, &Frame::Rows { start: Some(0), end: 0 }, at);
        let last = self.times(newest).first().copied().or(self.boundary());
        last.is_some_and(|last| last.saturating_add(ttl) >= at.at)
    }

    /// Bytes of the run, heap included.
    pub fn memory_bytes(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| {
            size_of::<Extra>()
                + extra.dictionaries.iter().map(|one| size_of::<Dictionary>() + one.heap_bytes()).sum::<usize>()
                + extra.keys.heap_bytes()
                + extra.directory.as_ref().map_or(0, |one| size_of::<Directory>() + one.heap_bytes())
                + extra.base.as_ref().map_or(0, |one| one.heap_bytes())
        });
        size_of::<Run>() + self.store.heap_bytes() + extra
    }

    /// The greatest event time that the run has seen and that was not removed, held or evicted.
    pub fn last_time(&self) -> Option<i64> {
        let last = if self.len > 0 { Some(self.store.word(0, self.end() - 1) as i64) } else { None };
        last.max(self.boundary())
    }

    /// The time of the oldest event held.
    pub fn first_time(&self) -> Option<i64> {
        (self.len > 0).then(|| self.store.word(0, self.start()) as i64)
    }

    /// Forgets everything but the allocations, for the next entity of a batch.
    pub fn clear(&mut self, _program: &Program) {
        (self.start, self.len, self.evicted, self.boundary, self.scratch) = (0, 0, false, 0, true);
        if let Some(extra) = &mut self.extra {
            extra.dictionaries.iter_mut().for_each(Dictionary::clear);
            extra.keys.clear();
            extra.base = None;
            match &mut extra.directory {
                Some(directory) if directory.shift() == SCRATCH_SHIFT => directory.clear(),
                directory => *directory = None,
            }
        }
    }

    /// Adds event `row` of `rows`, in its place; at the end is fast.
    ///
    /// - Cost: some tens of nanoseconds at the end; elsewhere O(events behind it).
    pub fn insert(&mut self, program: &Program, rows: &Rows, row: usize) -> Applied {
        let (time, key) = (rows.times[row], rows.key(row));
        if self.evicted && program.needed.any && self.is_behind(time, key) {
            let boundary = self.boundary;
            let Some(base) = self.base_mut() else { return Applied::Rebuild };
            return base.apply(program, program.needed, rows, row, boundary, false);
        }
        let at = self.place(program, time, key);
        if self.evicted && self.bridges(program, time, at) {
            return Applied::Rebuild;
        }
        if self.end() == self.store.capacity() {
            let before = self.end();
            self.make_room(program);
            let moved = before - self.end();
            self.insert_at(program, rows, row, at - moved);
        } else {
            self.insert_at(program, rows, row, at);
        }
        Applied::Done
    }

    /// Takes away one event that is equal to event `row` of `rows` in all that is stored.
    ///
    /// - Cost: O(events behind it).
    pub fn remove(&mut self, program: &Program, rows: &Rows, row: usize) -> Applied {
        let (time, key) = (rows.times[row], rows.key(row));
        let Some(at) = self.find(program, rows, row) else {
            let is_behind = self.evicted && (self.is_behind(time, key) || time == self.boundary);
            if !is_behind || (program.ttl.is_some() && time == self.boundary) {
                return Applied::Rebuild;
            }
            if !program.needed.any {
                return Applied::Done;
            }
            let boundary = self.boundary;
            let Some(base) = self.base_mut() else { return Applied::Rebuild };
            return base.apply(program, program.needed, rows, row, boundary, true);
        };
        if self.evicted && program.needed.rows > 0 {
            // A row that left would come into sight of a ROWS frame.
            let horizon = self.base().map_or(i64::MAX, |base| base.horizon);
            let before = (self.first_at(horizon) - self.start()) as u64;
            if time < horizon && before <= program.needed.rows {
                return Applied::Rebuild;
            }
        }
        self.unmark(program, at);
        if let Some(key) = program.layout.key {
            let place = self.store.word(key, at);
            self.extra_mut().keys.forget(place);
        }
        let end = self.end();
        self.store.close(&program.layout, at, 1, end);
        self.len -= 1;
        self.remark_behind(program, at, false);
        if let Some(mut directory) = self.take_directory() {
            directory.total(program, rows, row, true);
            directory.cut(at);
            directory.extend(self, program, self.end());
            self.extra_mut().directory = Some(directory);
        }
        Applied::Done
    }

    /// The positions of a frame's rows at an instant; what was folded is not among them.
    pub fn range(&self, program: &Program, frame: &Frame, at: Instant) -> Range<usize> {
        if self.len == 0 {
            return 0..0;
        }
        let located = self.locate(program, frame, None, at, self.up_to(at));
        located.low - self.start()..located.high - self.start()
    }

    /// The event times at these positions.
    pub fn times(&self, range: Range<usize>) -> Vec<i64> {
        let rows = self.physical(range);
        if rows.is_empty() {
            return Vec::new();
        }
        self.store.words(0)[rows].iter().map(|word| *word as i64).collect()
    }

    /// A value column at these positions, in the program's type.
    pub fn column(&self, program: &Program, value: usize, range: Range<usize>) -> ArrayRef {
        let rows = self.physical(range);
        let mut column = Column::new(&program.types[value], rows.len());
        if !rows.is_empty() {
            let view = ColumnView::new(self, program, value);
            rows.for_each(|row| column.push(view.cell(row)));
        }
        column.finish()
    }

    /// A mask at these positions.
    pub fn mask(&self, program: &Program, mask: usize, range: Range<usize>) -> BooleanArray {
        let layout = &program.layout;
        self.physical(range).map(|row| Some(self.store.bit(layout, layout.mask(mask), row))).collect()
    }

    fn physical(&self, range: Range<usize>) -> Range<usize> {
        self.start() + range.start.min(self.len())..self.start() + range.end.min(self.len())
    }

    /// The first physical row held.
    pub(crate) fn start(&self) -> usize {
        self.start as usize
    }

    /// The physical row behind the last.
    pub(crate) fn end(&self) -> usize {
        (self.start + self.len) as usize
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The greatest evicted time.
    pub(crate) fn boundary(&self) -> Option<i64> {
        self.evicted.then_some(self.boundary)
    }

    pub(crate) fn base(&self) -> Option<&Base> {
        self.extra.as_ref()?.base.as_deref()
    }

    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.extra.as_ref()?.directory.as_deref()
    }

    /// A dictionary by its number in the layout.
    pub(crate) fn dictionary(&self, number: usize) -> Option<&Dictionary> {
        self.extra.as_ref()?.dictionaries.get(number)
    }

    fn base_mut(&mut self) -> Option<&mut Base> {
        self.extra.as_mut()?.base.as_deref_mut()
    }

    fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    fn take_directory(&mut self) -> Option<Box<Directory>> {
        self.extra.as_mut()?.directory.take()
    }

    /// Whether an event comes before the last one that was evicted.
    fn is_behind(&self, time: i64, key: &[u8]) -> bool {
        time < self.boundary || (time == self.boundary && self.base().is_some_and(|base| key < &*base.key))
    }

    /// Whether an event at physical row `at` would join a session whose older part left without being folded.
    fn bridges(&self, program: &Program, time: i64, at: usize) -> bool {
        let layout = &program.layout;
        layout.session_frames.iter().enumerate().any(|(slot, (_, gap))| {
            if self.base().and_then(|base| base.sessions.get(slot)).is_some_and(Option::is_some) {
                return false;
            }
            let before = if at > self.start() { self.store.word(0, at - 1) as i64 } else { self.boundary };
            within(time, before, *gap) && locate::last_set(self.store.bits(layout, layout.session(slot)), self.start(), at).is_none()
        })
    }

    /// The order of an event against a row.
    fn compare_row(&self, program: &Program, row: usize, time: i64, key: &[u8]) -> std::cmp::Ordering {
        let by_time = (self.store.word(0, row) as i64).cmp(&time);
        by_time.then_with(|| match (program.layout.key, &self.extra) {
            (Some(column), Some(extra)) => extra.keys.get(self.store.word(column, row)).cmp(key),
            _ => std::cmp::Ordering::Equal,
        })
    }

    /// Where an event belongs: behind all rows that are not after it.
    fn place(&self, program: &Program, time: i64, key: &[u8]) -> usize {
        let (start, end) = (self.start(), self.end());
        if self.len == 0 || self.compare_row(program, end - 1, time, key).is_le() {
            return end;
        }
        let (mut low, mut high) = (start, end - 1);
        while low < high {
            let middle = low.midpoint(high);
            if self.compare_row(program, middle, time, key).is_le() { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// A row equal to an event in all that is stored.
    fn find(&self, program: &Program, rows: &Rows, row: usize) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let (time, key) = (rows.times[row], rows.key(row));
        let mut at = self.place(program, time, key);
        while at > self.start() && self.compare_row(program, at - 1, time, key).is_eq() {
            at -= 1;
            if self.equals(program, rows, row, at) {
                return Some(at);
            }
        }
        None
    }

    fn equals(&self, program: &Program, rows: &Rows, row: usize, at: usize) -> bool {
        let (store, layout) = (&self.store, &program.layout);
        let masks = rows.masks.iter().enumerate();
        masks.into_iter().all(|(mask, bits)| bits.value(row) == store.bit(layout, layout.mask(mask), at))
            && rows.values.iter().enumerate().all(|(value, source)| {
                let valid = store.bit(layout, layout.validity(value), at);
                if !valid || !source.is_valid(row) {
                    return valid == source.is_valid(row);
                }
                let view = ColumnView::new(self, program, value);
                match program.kinds[value] {
                    Kind::Bytes => view.bytes(view.word(at) as u32) == source.bytes(row),
                    Kind::Decimal { .. } => view.wide(at) == source.decimal(row),
                    _ => match layout.values[value] {
                        Place::Half(_) => view.word(at) as u32 == source.word(row) as u32,
                        _ => view.word(at) == source.word(row),
                    },
                }
            })
    }

    /// Makes room for a row at the end; positions may move down.
    fn make_room(&mut self, program: &Program) {
        let (capacity, end) = (self.store.capacity(), self.end());
        let dropped = self.start() / 64 * 64;
        if dropped > 0 && dropped >= capacity / 4 {
            self.store.shift_blocks(&program.layout, dropped, end);
        } else {
            self.store.resize(&program.layout, capacity_above(capacity, self.scratch), dropped, end);
        }
        self.moved_down(program, dropped);
    }

    /// Says that the first `dropped` physical rows are gone and all others moved down.
    fn moved_down(&mut self, program: &Program, dropped: usize) {
        self.start -= row_number(dropped);
        if dropped > 0
            && let Some(mut directory) = self.take_directory()
        {
            directory.drop_front(self, program, dropped);
            self.extra_mut().directory = Some(directory);
        }
    }

    fn insert_at(&mut self, program: &Program, rows: &Rows, row: usize, at: usize) {
        let end = self.end();
        if at < end {
            self.store.open(&program.layout, at, end);
        }
        self.len = row_number(self.len as usize + 1);
        self.write(program, rows, row, at);
        self.remark_behind(program, at + 1, true);
        self.mark(program, at);
        match self.take_directory() {
            Some(mut directory) => {
                directory.total(program, rows, row, false);
                if at < end {
                    directory.cut(at);
                }
                if directory.is_behind(end + 1) {
                    directory.extend(self, program, end + 1);
                }
                self.extra_mut().directory = Some(directory);
            }
            None if self.scratch || self.len() > LARGE => self.build_directory(program),
            None => {}
        }
    }

    fn build_directory(&mut self, program: &Program) {
        let shift = if self.scratch { SCRATCH_SHIFT } else { BLOCK_SHIFT };
        let mut directory = Box::new(Directory::new(program, shift));
        directory.fill(self, program);
        self.extra_mut().directory = Some(directory);
    }

    /// Writes an event's cells into physical row `at`.
    fn write(&mut self, program: &Program, rows: &Rows, row: usize, at: usize) {
        let layout = &program.layout;
        self.store.set_word(0, at, rows.times[row] as u64);
        if let Some(column) = layout.key {
            let place = self.extra_mut().keys.push(rows.key(row));
            self.store.set_word(column, at, place);
        }
        for (value, source) in rows.values.iter().enumerate() {
            let valid = source.is_valid(row);
            self.store.set_bit(layout, layout.validity(value), at, valid);
            match layout.values[value] {
                Place::Word(column) => self.store.set_word(column, at, if valid { source.word(row) } else { 0 }),
                Place::Wide(column) => {
                    let wide = if valid { source.decimal(row) as u128 } else { 0 };
                    self.store.set_word(column, at, wide as u64);
                    self.store.set_word(column + 1, at, (wide >> 64) as u64);
                }
                Place::Bit(column) => self.store.set_bit(layout, column, at, valid && source.word(row) != 0),
                Place::Half(column) => {
                    let half = match (valid, program.kinds[value]) {
                        (false, _) => 0,
                        (true, Kind::Bytes) => self.code(program, value, source.bytes(row)),
                        (true, _) => source.word(row) as u32,
                    };
                    self.store.set_half(layout, column, at, half);
                }
            }
        }
        for (mask, bits) in rows.masks.iter().enumerate() {
            self.store.set_bit(layout, layout.mask(mask), at, bits.value(row));
        }
    }

    fn code(&mut self, program: &Program, value: usize, bytes: &[u8]) -> u32 {
        let number = program.layout.dictionaries[value];
        let dictionaries = &mut self.extra_mut().dictionaries;
        if dictionaries.len() <= number {
            dictionaries.resize_with(number + 1, Dictionary::default);
        }
        dictionaries[number].code(bytes)
    }
}

/// The next capacity of a run's store: in small steps first, later by a quarter.
fn capacity_above(capacity: usize, scratch: bool) -> usize {
    const STEPS: [usize; 7] = [4, 8, 16, 24, 32, 48, 64];
    match STEPS.iter().find(|step| **step > capacity) {
        Some(_) if scratch => 256,
        Some(step) => *step,
        None if scratch => capacity * 2,
        None if capacity < 1024 => (capacity + capacity / 2).next_multiple_of(64),
        None => (capacity + capacity / 4).next_multiple_of(64),
    }
}

/// Makes room for more elements, an eighth at once: doubling would hold too much memory in a million large runs.
fn grow<T>(elements: &mut Vec<T>, more: usize) {
    if elements.capacity() - elements.len() < more {
        elements.reserve_exact(more.max(elements.len() / 8).max(4));
    }
}
