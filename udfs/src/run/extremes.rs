//! The least or the greatest keys of a lane over groups of rows.
//!
//! Keys of 64 bits take half the memory, so their groups are smaller and a window's edges shorter. Whether a group has
//! any row that counts is known from counts; the key of one without says nothing.

use super::lane::ColumnView;
use super::levels::Levels;
use crate::program::Kind;

/// Rows of a group of 64-bit keys, as a shift.
pub(super) const NARROW_SHIFT: u32 = 4;

/// Keys by group, in the width of their kind.
#[derive(Debug, Clone)]
pub(crate) enum Extremes {
    Narrow(Levels<i64>),
    /// Decimals, and bytes by code.
    Wide(Levels<i128>),
}

impl Default for Extremes {
    fn default() -> Self {
        Extremes::Wide(Levels::default())
    }
}

impl Extremes {
    pub(crate) fn new(kind: Kind) -> Extremes {
        match kind {
            Kind::Bytes | Kind::Decimal { .. } => Extremes::Wide(Levels::default()),
            _ => Extremes::Narrow(Levels::default()),
        }
    }

    /// The rows of a group where the blocks of prefixes have `1 << shift` rows.
    pub(crate) fn shift(&self, shift: u32) -> u32 {
        if let Extremes::Narrow(_) = self { shift.min(NARROW_SHIFT) } else { shift }
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Extremes::Narrow(levels) => levels.len(),
            Extremes::Wide(levels) => levels.len(),
        }
    }

    /// Adds a group's key.
    pub(crate) fn push(&mut self, key: i128, column: &ColumnView<'_>, greater: bool) {
        match self {
            Extremes::Narrow(levels) if greater => levels.push(key.max(i128::from(i64::MIN)) as i64, i64::max),
            Extremes::Narrow(levels) => levels.push(key.min(i128::from(i64::MAX)) as i64, i64::min),
            Extremes::Wide(levels) => levels.push(key, |a, b| column.pick(a, b, greater)),
        }
    }

    /// The winner of the groups `low..high` and `best`.
    pub(crate) fn query(&self, low: usize, high: usize, best: i128, column: &ColumnView<'_>, greater: bool) -> i128 {
        match self {
            Extremes::Narrow(levels) if greater => best.max(i128::from(levels.query(low, high, i64::MIN, i64::max))),
            Extremes::Narrow(levels) => best.min(i128::from(levels.query(low, high, i64::MAX, i64::min))),
            Extremes::Wide(levels) => levels.query(low, high, best, |a, b| column.pick(a, b, greater)),
        }
    }

    /// Reads the keys next to a group; see `Run::warm`.
    pub(crate) fn warm(&self, group: usize) -> u64 {
        match self {
            Extremes::Narrow(levels) => levels.keys().get(group).map_or(0, |key| *key as u64),
            Extremes::Wide(levels) => levels.keys().get(group).map_or(0, |key| *key as u64),
        }
    }

    /// Keeps the first `groups` groups.
    pub(crate) fn truncate(&mut self, groups: usize) {
        match self {
            Extremes::Narrow(levels) => levels.truncate(groups),
            Extremes::Wide(levels) => levels.truncate(groups),
        }
    }

    /// Drops the first `groups` groups.
    pub(crate) fn drop_front(&mut self, groups: usize, column: &ColumnView<'_>, greater: bool) {
        match self {
            Extremes::Narrow(levels) if greater => levels.drop_front(groups, i64::max),
            Extremes::Narrow(levels) => levels.drop_front(groups, i64::min),
            Extremes::Wide(levels) => levels.drop_front(groups, |a, b| column.pick(a, b, greater)),
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Extremes::Narrow(levels) => levels.clear(),
            Extremes::Wide(levels) => levels.clear(),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Extremes::Narrow(levels) => levels.heap_bytes(),
            Extremes::Wide(levels) => levels.heap_bytes(),
        }
    }
}
