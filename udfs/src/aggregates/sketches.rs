//! `approx_distinct` and `approx_percentile_cont`, made at the read from the rows of the frame.

use crate::exact_sum::Number;
use crate::output::Cell;
use crate::program::Kind;
use crate::run::{LaneView, Located};
use crate::sketch::ddsketch::DdSketch;
use crate::sketch::hll::{Hll, hash_bytes, hash_key};

/// About how many distinct values there are.
pub(super) fn distinct(view: &LaneView<'_>, place: &Located<'_>) -> Cell<'static> {
    let Some(column) = view.column else { return Cell::Int(0) };
    let mut sketch = Hll::new();
    view.each(place.low, place.high, |row| {
        let key = column.key(row);
        sketch.add(if column.kind == Kind::Bytes { hash_bytes(column.bytes(key as u32)) } else { hash_key(key) });
    });
    Cell::Int(sketch.estimate() as i64)
}

/// About the value at fraction `p` of the values in sorted order.
pub(super) fn percentile(p: f64, view: &LaneView<'_>, place: &Located<'_>) -> Cell<'static> {
    let Some(column) = view.column else { return Cell::Null };
    let mut sketch = DdSketch::new();
    view.each(place.low, place.high, |row| {
        let number = column.number_of_key(column.key(row));
        sketch.add(if let Number::Float(x) = number { x } else { number.to_f64() });
    });
    sketch.quantile(p).map_or(Cell::Null, Cell::Float)
}
