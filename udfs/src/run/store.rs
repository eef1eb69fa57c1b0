//! The columns of a run in one allocation: 64-bit columns first, then 32-bit ones, then bits.
//!
//! Every column has room for `capacity` rows, a multiple of four, so a column's place follows from its number and the
//! capacity. A layout is the program's; the store holds only words. Not here: which rows are live (`Run`).

use crate::program::{Kind, Lane};
use crate::window::Frame;

/// The words of a line of memory, on the machines that we know.
const LINE: usize = 8;

/// Where a value column is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A 64-bit column.
    Word(usize),
    /// Two 64-bit columns, the low word first.
    Wide(usize),
    /// A 32-bit column.
    Half(usize),
    /// A bit column.
    Bit(usize),
}

/// The columns of a program's runs. Column 0 of the 64-bit ones is the event time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    words: usize,
    halves: usize,
    bits: usize,
    pub(crate) values: Vec<Place>,
    /// Per value column of bytes, the number of its dictionary; of others the number is of no use.
    pub(crate) dictionaries: Vec<usize>,
    /// The 64-bit column of places in the heap of order keys.
    pub(crate) key: Option<usize>,
    validity: usize,
    masks: usize,
    distinct: usize,
    sessions: usize,
    /// The 64-bit columns that are read row by row at the edges of frames.
    pub(crate) edges: Vec<usize>,
    /// The session frames, in the order of their bit columns: (frame, gap).
    pub(crate) session_frames: Vec<(usize, i64)>,
}

impl Layout {
    pub(crate) fn new(kinds: &[Kind], mask_count: usize, ordered: bool, lanes: &[Lane], frames: &[Frame]) -> Layout {
        let mut layout = Layout { words: 1, ..Layout::default() };
        if ordered {
            layout.key = Some(layout.words);
            layout.words += 1;
        }
        let mut dictionaries = 0;
        for kind in kinds {
            layout.dictionaries.push(dictionaries);
            dictionaries += usize::from(*kind == Kind::Bytes);
            layout.values.push(match kind {
                Kind::Boolean => Place::Bit(take(&mut layout.bits, 1)),
                Kind::Int32 | Kind::Float32 | Kind::Date | Kind::Bytes => Place::Half(take(&mut layout.halves, 1)),
                Kind::Int64 | Kind::Float64 | Kind::Timestamp => Place::Word(take(&mut layout.words, 1)),
                Kind::Decimal { .. } => Place::Wide(take(&mut layout.words, 2)),
            });
        }
        let read =
            |value: &usize| lanes.iter().any(|lane| lane.value == Some(*value) && (lane.needs.moments() | lane.needs.min | lane.needs.max));
        let column = |value: usize| if let Place::Word(column) = layout.values[value] { Some(column) } else { None };
        layout.edges = (0..kinds.len()).filter(read).filter_map(column).collect();
        let gap = |(frame, of): (usize, &Frame)| if let Frame::Session { gap } = of { Some((frame, *gap)) } else { None };
        layout.session_frames = frames.iter().enumerate().filter_map(gap).collect();
        layout.validity = take(&mut layout.bits, kinds.len());
        layout.masks = take(&mut layout.bits, mask_count);
        layout.distinct = take(&mut layout.bits, lanes.iter().filter(|lane| lane.needs.distinct).count());
        layout.sessions = take(&mut layout.bits, layout.session_frames.len());
        layout
    }

    /// The bit column that says where a value is not NULL.
    pub(crate) fn validity(&self, value: usize) -> usize {
        self.validity + value
    }

    /// The bit column of a mask.
    pub(crate) fn mask(&self, mask: usize) -> usize {
        self.masks + mask
    }

    /// The bit column of a distinct lane: the last occurrence of its value so far.
    pub(crate) fn distinct(&self, slot: usize) -> usize {
        self.distinct + slot
    }

    /// The bit column of a session frame: the row starts a run.
    pub(crate) fn session(&self, slot: usize) -> usize {
        self.sessions + slot
    }

    fn size(&self, capacity: usize) -> usize {
        self.words * capacity + self.halves * (capacity / 2) + self.bits * capacity.div_ceil(64)
    }
}

fn take(counter: &mut usize, count: usize) -> usize {
    let first = *counter;
    *counter += count;
    first
}

/// The words of a run's columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    words: Vec<u64>,
    capacity: u32,
}

impl Store {
    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    /// A 64-bit column.
    #[inline]
    pub(crate) fn words(&self, column: usize) -> &[u64] {
        let capacity = self.capacity();
        &self.words[column * capacity..(column + 1) * capacity]
    }

    #[inline]
    pub(crate) fn word(&self, column: usize, row: usize) -> u64 {
        self.words[column * self.capacity() + row]
    }

    #[inline]
    pub(crate) fn set_word(&mut self, column: usize, row: usize, value: u64) {
        let at = column * self.capacity() + row;
        self.words[at] = value;
    }

    #[inline]
    fn half_base(&self, layout: &Layout, column: usize) -> usize {
        layout.words * self.capacity() + column * (self.capacity() / 2)
    }

    #[inline]
    pub(crate) fn half(&self, layout: &Layout, column: usize, row: usize) -> u32 {
        (self.words[self.half_base(layout, column) + row / 2] >> (row % 2 * 32)) as u32
    }

    #[inline]
    pub(crate) fn set_half(&mut self, layout: &Layout, column: usize, row: usize, value: u32) {
        let at = self.half_base(layout, column) + row / 2;
        let shift = row % 2 * 32;
        self.words[at] = self.words[at] & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    #[inline]
    fn bit_base(&self, layout: &Layout, column: usize) -> usize {
        let capacity = self.capacity();
        layout.words * capacity + layout.halves * (capacity / 2) + column * capacity.div_ceil(64)
    }

    /// A bit column, 64 rows a word.
    #[inline]
    pub(crate) fn bits(&self, layout: &Layout, column: usize) -> &[u64] {
        let base = self.bit_base(layout, column);
        &self.words[base..base + self.capacity().div_ceil(64)]
    }

    #[inline]
    pub(crate) fn bit(&self, layout: &Layout, column: usize, row: usize) -> bool {
        self.words[self.bit_base(layout, column) + row / 64] >> (row % 64) & 1 == 1
    }

    #[inline]
    pub(crate) fn set_bit(&mut self, layout: &Layout, column: usize, row: usize, value: bool) {
        let at = self.bit_base(layout, column) + row / 64;
        self.words[at] = self.words[at] & !(1 << (row % 64)) | u64::from(value) << (row % 64);
    }

    /// Reads a word of every line; see `Run::warm`.
    pub(crate) fn warm(&self) -> u64 {
        self.words.iter().step_by(LINE).fold(0, |all, word| all ^ word)
    }

    /// Reads the lines around a row that the edge of a frame needs; see `Run::warm`.
    pub(crate) fn warm_at(&self, layout: &Layout, row: usize) -> u64 {
        let of_column = |column: &usize| {
            let words = self.words(*column);
            let lines = words[row.saturating_sub(2 * LINE)..words.len().min(row + 2 * LINE)].iter().step_by(LINE);
            lines.fold(0, |all, word| all ^ word)
        };
        let words = layout.edges.iter().map(of_column).fold(0, |all, one| all ^ one);
        let group = row.min(self.capacity() - 1) / 64;
        (0..layout.bits).fold(words, |all, column| all ^ self.words[self.bit_base(layout, column) + group])
    }

    /// Moves to another capacity, leaving out the first `drop` rows (a multiple of 64) of `end`.
    pub(crate) fn resize(&mut self, layout: &Layout, capacity: usize, drop: usize, end: usize) {
        debug_assert!(drop.is_multiple_of(64) && end - drop <= capacity && capacity.is_multiple_of(4));
        let mut to = Store { words: vec![0; layout.size(capacity)], capacity: row_number(capacity) };
        for column in 0..layout.words {
            let base = column * capacity;
            to.words[base..base + end - drop].copy_from_slice(&self.words(column)[drop..end]);
        }
        for column in 0..layout.halves {
            let (from, base) = (self.half_base(layout, column), to.half_base(layout, column));
            let (first, last) = (from + drop / 2, from + end.div_ceil(2));
            to.words[base..base + last - first].copy_from_slice(&self.words[first..last]);
        }
        for column in 0..layout.bits {
            let (from, base) = (self.bit_base(layout, column), to.bit_base(layout, column));
            let (first, last) = (from + drop / 64, from + end.div_ceil(64));
            to.words[base..base + last - first].copy_from_slice(&self.words[first..last]);
        }
        *self = to;
    }

    /// Moves rows `drop..end` to the front, `drop` being a multiple of 64.
    pub(crate) fn shift_blocks(&mut self, layout: &Layout, drop: usize, end: usize) {
        debug_assert!(drop.is_multiple_of(64));
        for column in 0..layout.words {
            let base = column * self.capacity();
            self.words.copy_within(base + drop..base + end, base);
        }
        for column in 0..layout.halves {
            let base = self.half_base(layout, column);
            self.words.copy_within(base + drop / 2..base + end.div_ceil(2), base);
        }
        for column in 0..layout.bits {
            let base = self.bit_base(layout, column);
            self.words.copy_within(base + drop / 64..base + end.div_ceil(64), base);
        }
    }

    /// Copies the cells of a row to another.
    pub(crate) fn copy_row(&mut self, layout: &Layout, from: usize, to: usize) {
        for column in 0..layout.words {
            self.set_word(column, to, self.word(column, from));
        }
        for column in 0..layout.halves {
            self.set_half(layout, column, to, self.half(layout, column, from));
        }
        for column in 0..layout.bits {
            self.set_bit(layout, column, to, self.bit(layout, column, from));
        }
    }

    /// Opens a row at `at` by moving rows `at..end` up by one; the row's cells are left as they were.
    pub(crate) fn open(&mut self, layout: &Layout, at: usize, end: usize) {
        for column in 0..layout.words {
            let base = column * self.capacity();
            self.words.copy_within(base + at..base + end, base + at + 1);
        }
        for column in 0..layout.halves {
            let base = self.half_base(layout, column);
            shift_up(&mut self.words[base..], at * 32, end * 32, 32);
        }
        for column in 0..layout.bits {
            let base = self.bit_base(layout, column);
            shift_up(&mut self.words[base..], at, end, 1);
        }
    }

    /// Closes `count` rows at `at` by moving rows `at + count..end` down.
    pub(crate) fn close(&mut self, layout: &Layout, at: usize, count: usize, end: usize) {
        for column in 0..layout.words {
            let base = column * self.capacity();
            self.words.copy_within(base + at + count..base + end, base + at);
        }
        for column in 0..layout.halves {
            let base = self.half_base(layout, column);
            for _ in 0..count {
                shift_down(&mut self.words[base..], at * 32, end * 32, 32);
            }
        }
        for column in 0..layout.bits {
            let base = self.bit_base(layout, column);
            for _ in 0..count {
                shift_down(&mut self.words[base..], at, end, 1);
            }
        }
    }
}

/// A row number as stored; runs are bounded by memory far below 2^32 rows.
pub(crate) fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("invariant: a run holds fewer than 2^32 rows")
}

/// Moves the bits `from..to` up by `by`, which divides 64; the bits `from..from + by` keep what they were.
fn shift_up(words: &mut [u64], from: usize, to: usize, by: usize) {
    if from >= to {
        return;
    }
    let (first, last) = (from / 64, (to + by - 1) / 64);
    for at in (first..=last).rev() {
        let below = if at > first { words[at - 1] >> (64 - by) } else { 0 };
        let moved = words[at] << by | below;
        let low = if at == first { low_mask(from % 64 + by) } else { 0 };
        let high = if at == last { !low_mask((to + by - 1) % 64 + 1) } else { 0 };
        words[at] = words[at] & (low | high) | moved & !(low | high);
    }
}

/// Moves the bits `from + by..to` down by `by`, which divides 64; what lies behind them in their last word moves too.
fn shift_down(words: &mut [u64], from: usize, to: usize, by: usize) {
    if from + by >= to {
        return;
    }
    let (first, last) = (from / 64, (to - 1) / 64);
    for at in first..=last {
        let above = if at < last { words[at + 1] << (64 - by) } else { 0 };
        let moved = words[at] >> by | above;
        let low = if at == first { low_mask(from % 64) } else { 0 };
        words[at] = words[at] & low | moved & !low;
    }
}

/// The lowest `bits` bits, at most 64 of them.
#[inline]
pub(crate) fn low_mask(bits: usize) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_move_single_cells() {
        for by in [1, 32] {
            for (from, to) in [(0, 5), (3, 3), (2, 4), (0, 64 / by), (1, 130 / by), (63 / by, 130 / by), (64 / by, 128 / by)] {
                let before: Vec<u64> = (0..4u64).map(|i| 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i + 3)).collect();
                let cell = |words: &[u64], at: usize| words[at * by / 64] >> (at * by % 64) & low_mask(by);
                let mut up = before.clone();
                shift_up(&mut up, from * by, to * by, by);
                let mut down = before.clone();
                shift_down(&mut down, from * by, to * by, by);
                for at in 0..256 / by {
                    let expected = if at > from && at <= to { at - 1 } else { at };
                    assert_eq!(cell(&up, at), cell(&before, expected), "up by {by}: {from}..{to} at {at}");
                    if at + 1 < to {
                        let expected = if at >= from { at + 1 } else { at };
                        assert_eq!(cell(&down, at), cell(&before, expected), "down by {by}: {from}..{to} at {at}");
                    }
                }
            }
        }
    }
}
