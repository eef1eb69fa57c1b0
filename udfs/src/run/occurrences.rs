//! Distinct values of a lane: one bit per row, "the last occurrence of its value so far".
//!
//! The distinct values of any range that ends at the last row are the bits set in it. A large run finds a value's last
//! occurrence through an index, a small one by looking back. Bits live in the run's store; here is the index, and for
//! wide ranges the number of bits set per 4096 rows. Not here: ranges that end earlier (`aggregates::distinct`).

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::Run;
use super::lane::{LaneView, each_group};
use crate::program::{Kind, Lane, Program};

/// Rows per count of bits.
const GROUP: usize = 4096;

/// Where each value of a lane last occurred.
#[derive(Debug, Clone, Default)]
pub(crate) struct Occurrences {
    /// By code, for bytes: the row plus one, or zero.
    by_code: Vec<u32>,
    /// For other kinds: (row, hash). Rows that were evicted leave entries that match nothing.
    by_value: HashTable<(u32, u32)>,
    /// Bits set per `GROUP` physical rows.
    counts: Vec<u32>,
}

fn hash(key: i128) -> u32 {
    xxh3_64(&key.to_le_bytes()) as u32
}

/// Spreads a stored hash over 64 bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Occurrences {
    pub(crate) fn clear(&mut self) {
        self.by_code.clear();
        self.counts.clear();
        if self.by_value.capacity() > 4096 {
            self.by_value = HashTable::new();
        } else {
            self.by_value.clear();
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.by_code.capacity() * 4 + self.by_value.allocation_size() + self.counts.capacity() * 4
    }

    /// The last row that holds a key, no earlier than `start`.
    pub(crate) fn find(&self, view: &LaneView<'_>, key: i128, start: usize) -> Option<usize> {
        let column = view.column?;
        if column.kind == Kind::Bytes {
            let row = *self.by_code.get(key as usize)? as usize;
            return row.checked_sub(1).filter(|row| *row >= start);
        }
        let hash = hash(key);
        let same = |entry: &(u32, u32)| entry.1 == hash && entry.0 as usize >= start && column.key(entry.0 as usize) == key;
        self.by_value.find(spread(hash), same).map(|entry| entry.0 as usize)
    }

    /// Says that a key's last row was `before` and is now `row`; `None` where there is none.
    pub(crate) fn set(&mut self, kind: Kind, key: i128, before: Option<usize>, row: Option<usize>) {
        let number = |row: usize| super::store::row_number(row);
        if kind == Kind::Bytes {
            let code = key as usize;
            if code >= self.by_code.len() {
                self.by_code.resize(code + 1, 0);
            }
            self.by_code[code] = row.map_or(0, |row| number(row) + 1);
            return;
        }
        let hash = hash(key);
        let entry = before.and_then(|before| {
            let before = number(before);
            self.by_value.find_entry(spread(hash), |entry| *entry == (before, hash)).ok()
        });
        match (entry, row) {
            (Some(mut entry), Some(row)) => entry.get_mut().0 = number(row),
            (Some(entry), None) => {
                entry.remove();
            }
            (None, Some(row)) => {
                self.by_value.insert_unique(spread(hash), (number(row), hash), |entry| spread(entry.1));
            }
            (None, None) => {}
        }
    }

    /// Counts a bit that was set or cleared.
    pub(crate) fn count_bit(&mut self, row: usize, set: bool) {
        let group = row / GROUP;
        if group >= self.counts.len() {
            self.counts.resize(group + 1, 0);
        }
        self.counts[group] = if set { self.counts[group] + 1 } else { self.counts[group] - 1 };
    }

    /// Counts anew from the group of row `changed` on, leaving out the rows `changed..from`.
    pub(crate) fn recount(&mut self, bits: &[u64], changed: usize, from: usize, end: usize) {
        let first = changed / GROUP;
        self.counts.resize(first, 0);
        for group in first..end.div_ceil(GROUP) {
            let (low, high) = (group * GROUP, end.min((group + 1) * GROUP));
            let left_out = popcount(bits, changed.clamp(low, high), from.clamp(low, high));
            self.counts.push((popcount(bits, low, high) - left_out) as u32);
        }
    }

    /// The bits set in `low..high`.
    pub(crate) fn count(&self, bits: &[u64], low: usize, high: usize) -> u64 {
        let (first, last) = (low.div_ceil(GROUP), high / GROUP);
        if first >= last {
            return popcount(bits, low, high);
        }
        let whole: u64 = (first..last).map(|group| u64::from(self.counts.get(group).copied().unwrap_or(0))).sum();
        popcount(bits, low, first * GROUP) + whole + popcount(bits, last * GROUP, high)
    }

    /// Builds the index and the counts anew from the bits of the live rows.
    pub(crate) fn rebuild(&mut self, run: &Run, program: &Program, lane: &Lane) {
        self.clear();
        let view = LaneView::new(run, program, lane);
        let Some(column) = view.column else { return };
        let bits = run.store.bits(&program.layout, program.layout.distinct(lane.distinct_slot));
        let (start, end) = (run.start(), run.end());
        each_group(start, end, |group, inside| {
            let mut set = bits[group] & inside;
            while set != 0 {
                let row = group * 64 + set.trailing_zeros() as usize;
                self.set(column.kind, column.key(row), None, Some(row));
                set &= set - 1;
            }
        });
        self.counts = (0..end.div_ceil(GROUP)).map(|group| popcount(bits, group * GROUP, end.min((group + 1) * GROUP)) as u32).collect();
    }
}

/// The bits set in `low..high`.
pub(crate) fn popcount(bits: &[u64], low: usize, high: usize) -> u64 {
    let mut count = 0;
    each_group(low, high, |group, inside| count += u64::from((bits[group] & inside).count_ones()));
    count
}
