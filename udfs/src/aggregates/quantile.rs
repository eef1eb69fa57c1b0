//! `median` and `percentile_cont`: exact order statistics, interpolated exactly.

use crate::exact_sum::{Rank, interpolate};
use crate::output::Cell;
use crate::run::{LaneView, Located};

/// The value at fraction `p` of the values in sorted order.
pub(super) fn percentile(p: f64, view: &LaneView<'_>, place: &Located<'_>) -> Cell<'static> {
    let Some(column) = view.column else { return Cell::Null };
    let mut keys = Vec::with_capacity(place.high - place.low);
    view.each(place.low, place.high, |row| keys.push(column.key(row)));
    if keys.is_empty() {
        return Cell::Null;
    }
    let rank = Rank::of(p, keys.len());
    let (_, below, behind) = keys.select_nth_unstable(rank.index);
    let below = *below;
    let above = if rank.numerator == 0 { below } else { behind.iter().copied().min().unwrap_or(below) };
    Cell::Float(interpolate(column.number_of_key(below), column.number_of_key(above), rank))
}
