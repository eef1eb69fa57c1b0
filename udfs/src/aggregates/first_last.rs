//! `first_value`, `last_value`, `first_n`, `last_n`, `array_agg`: values in the order of events, stored bits, NULLs kept.

use crate::output::{Cell, Output};
use crate::program::Function;
use crate::run::{FoldedLane, LaneView, Located};

/// Gives one of these aggregates; folded rows come before the rows held.
pub(super) fn give<O: Output + ?Sized>(
    function: Function,
    slot: usize,
    view: &LaneView<'_>,
    place: &Located<'_>,
    folded: Option<&FoldedLane>,
    out: &mut O,
) {
    let Some(column) = view.column else { return out.cell(slot, Cell::Null) };
    let (low, high) = (place.low, place.high);
    match function {
        Function::FirstValue => {
            let old = folded.and_then(|folded| folded.first.first());
            let cell = old.map(|value| value.cell()).or_else(|| view.first(low, high).map(|row| column.cell(row)));
            out.cell(slot, cell.unwrap_or(Cell::Null));
        }
        Function::LastValue => {
            let old = || folded.and_then(|folded| folded.last.back()).map(|value| value.cell());
            let cell = view.last(low, high).map(|row| column.cell(row)).or_else(old);
            out.cell(slot, cell.unwrap_or(Cell::Null));
        }
        _ => {
            let old = |of: &FoldedLane| if matches!(function, Function::FirstN(_)) { of.first.len() } else { of.last.len() };
            let old_count = folded.map_or(0, old);
            let count = old_count + passing(view, low, high);
            let (skip, take) = match function {
                Function::FirstN(n) => (0, n as usize),
                Function::LastN(n) => (count.saturating_sub(n as usize), n as usize),
                _ => (0, count),
            };
            if count == 0 {
                return out.cell(slot, Cell::Null);
            }
            let old = (0..old_count).filter_map(|index| {
                let folded = folded?;
                let value = if matches!(function, Function::FirstN(_)) { folded.first.get(index) } else { folded.last.get(index) };
                value.map(|value| value.cell())
            });
            // Rows before the first one that is wanted are skipped by counting, not by reading them.
            let from = if skip > old_count { skip_passing(view, low, high, skip - old_count) } else { low };
            let held = (from..high).filter(|row| view.passes(*row)).map(|row| column.cell(row));
            out.list(slot, &mut old.skip(skip.min(old_count)).chain(held).take(take));
        }
    }
}

/// How many rows of `low..high` pass the mask.
fn passing(view: &LaneView<'_>, low: usize, high: usize) -> usize {
    view.mask_only().count(low, high) as usize
}

/// The row behind the first `count` rows of `low..high` that pass the mask.
fn skip_passing(view: &LaneView<'_>, low: usize, high: usize, count: usize) -> usize {
    let all = view.mask_only();
    if all.counts_all() {
        return low + count;
    }
    let (mut from, mut left) = (low, count as u64);
    while from < high {
        let next = high.min((from / 64 + 1) * 64);
        let here = all.count(from, next);
        if here > left {
            break;
        }
        (from, left) = (next, left - here);
    }
    (from..high).filter(|row| view.passes(*row)).nth(left as usize).unwrap_or(high)
}
