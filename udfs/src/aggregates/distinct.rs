//! `count(DISTINCT x)`, `sum(DISTINCT x)`, `avg(DISTINCT x)`.
//!
//! The distinct values of a range that ends at the run's last row are its bits of last occurrences; any other range is
//! read.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::moments;
use crate::exact_sum::{Moments, Number};
use crate::output::Cell;
use crate::program::{Function, Kind, Lane, Program};
use crate::run::{LaneView, Located, Run, popcount};

/// The number of distinct values in `low..high`, given that of `known.1..high`.
#[expect(clippy::too_many_arguments, reason = "the state of one lane, taken apart for borrowing")]
pub(super) fn count(
    run: &Run,
    program: &Program,
    lane: &Lane,
    index: usize,
    view: &LaneView<'_>,
    low: usize,
    high: usize,
    known: (u64, usize),
) -> u64 {
    let end = run.end();
    if high != end && (high - low) / 2 <= end - high {
        return scan(view, low, high);
    }
    let bits = run.store().bits(&program.layout, program.layout.distinct(lane.distinct_slot));
    let marked = |low: usize, high: usize| match run.directory() {
        Some(directory) => directory.lane(index).occurrences.count(bits, low, high),
        None => popcount(bits, low, high),
    };
    if high == end {
        return known.0 + marked(low, known.1);
    }
    // Values that occur again behind the range have no bit inside it: look back for each of them, once.
    let mut behind = Keys::new(view, end - high);
    let mut missing = 0;
    view.each(high, end, |row| missing += u64::from(behind.insert(view, row)));
    let mut count = marked(low, high);
    for row in (low..high).rev().filter(|row| view.counts(*row)) {
        if missing == 0 {
            break;
        }
        if behind.remove(view, row) {
            (count, missing) = (count + 1, missing - 1);
        }
    }
    count
}

/// The number of distinct values in `low..high`, by reading them all.
fn scan(view: &LaneView<'_>, low: usize, high: usize) -> u64 {
    let mut seen = Keys::new(view, high - low);
    let mut count = 0;
    view.each(low, high, |row| count += u64::from(seen.insert(view, row)));
    count
}

/// A set of keys: bits by code for bytes, a table for other kinds.
struct Keys {
    codes: Vec<u64>,
    table: HashTable<i128>,
}

impl Keys {
    fn new(view: &LaneView<'_>, count: usize) -> Keys {
        let codes = view.column.map_or(0, |column| column.codes());
        Keys { codes: vec![0; codes.div_ceil(64)], table: HashTable::with_capacity(if codes == 0 { count } else { 0 }) }
    }

    /// Adds a row's key; whether it was new.
    fn insert(&mut self, view: &LaneView<'_>, row: usize) -> bool {
        let Some(column) = view.column else { return false };
        let key = column.key(row);
        if let Some(word) = self.codes.get_mut(key as usize / 64).filter(|_| column.kind == Kind::Bytes) {
            let bit = 1 << (key as usize % 64);
            let fresh = *word & bit == 0;
            *word |= bit;
            return fresh;
        }
        match self.table.entry(spread(key), |other| *other == key, |other| spread(*other)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(key);
                true
            }
        }
    }

    /// Takes a row's key away; whether it was there.
    fn remove(&mut self, view: &LaneView<'_>, row: usize) -> bool {
        let Some(column) = view.column else { return false };
        let key = column.key(row);
        if let Some(word) = self.codes.get_mut(key as usize / 64).filter(|_| column.kind == Kind::Bytes) {
            let bit = 1 << (key as usize % 64);
            let was = *word & bit != 0;
            *word &= !bit;
            return was;
        }
        self.table.find_entry(spread(key), |other| *other == key).map(|entry| entry.remove()).is_ok()
    }
}

/// A hash of a key; the set is never iterated, so nothing depends on it.
fn spread(key: i128) -> u64 {
    let folded = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    folded ^ folded >> 32
}

/// The distinct keys of `low..high`, sorted.
fn keys(view: &LaneView<'_>, low: usize, high: usize) -> Vec<i128> {
    let Some(column) = view.column else { return Vec::new() };
    let mut keys = Vec::with_capacity(high - low);
    view.each(low, high, |row| keys.push(column.key(row)));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The sum or the mean of the distinct values; `None` where a sum does not fit its type.
pub(super) fn sum(function: Function, view: &LaneView<'_>, place: &Located<'_>) -> Option<Cell<'static>> {
    let Some(column) = view.column else { return Some(Cell::Null) };
    let keys = keys(view, place.low, place.high);
    let mut total = Moments::default();
    for key in &keys {
        match column.number_of_key(*key) {
            Number::Float(x) => total.double(x, false, false),
            Number::Whole { value, .. } => total.part.whole(value, false, false),
        }
    }
    match function {
        Function::SumDistinct => moments::sum(view, keys.len() as u64, &total),
        _ => Some(moments::spread(function, view, keys.len() as u64, &total)),
    }
}
