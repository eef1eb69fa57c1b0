//! A lane over the stored rows: which rows count, what their values are as sums and as order keys.
//!
//! Everything here looks at rows one by one; the directory shortens it for large runs.

use super::store::{Layout, Place, Store, low_mask};
use super::{Dictionary, Run};
use crate::exact_sum::{Gather, Moments, NAN, Number, Unit};
use crate::output::Cell;
use crate::program::{Kind, Lane, Program};

/// A value column of a run, read by physical row.
#[derive(Clone, Copy)]
pub(crate) struct ColumnView<'a> {
    pub(crate) store: &'a Store,
    pub(crate) layout: &'a Layout,
    pub(crate) kind: Kind,
    place: Place,
    dictionary: Option<&'a Dictionary>,
    validity: &'a [u64],
}

/// The order of `min` as an integer: of floats with -0 equal to +0 and NaN greatest.
#[inline]
pub(crate) fn float_key(x: f64) -> i64 {
    // Adding +0 turns -0 into +0.
    let bits = if x.is_nan() { NAN.to_bits() } else { (x + 0.0).to_bits() } as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

fn float_of_key(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63) as u64 >> 1) as i64) as u64)
}

fn widen(bits: u32) -> f64 {
    let x = f32::from_bits(bits);
    if x.is_nan() { NAN } else { f64::from(x) }
}

impl<'a> ColumnView<'a> {
    pub(crate) fn new(run: &'a Run, program: &'a Program, value: usize) -> ColumnView<'a> {
        let (store, layout) = (&run.store, &program.layout);
        let kind = program.kinds[value];
        let dictionary = if kind == Kind::Bytes { run.dictionary(layout.dictionaries[value]) } else { None };
        let validity = store.bits(layout, layout.validity(value));
        ColumnView { store, layout, kind, place: layout.values[value], dictionary, validity }
    }

    #[inline]
    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.validity[row / 64] >> (row % 64) & 1 == 1
    }

    /// The stored bits of a value of at most 64 bits; of bytes the code.
    #[inline(always)]
    pub(crate) fn word(&self, row: usize) -> u64 {
        match self.place {
            Place::Word(column) | Place::Wide(column) => self.store.word(column, row),
            Place::Half(column) => u64::from(self.store.half(self.layout, column, row)),
            Place::Bit(column) => u64::from(self.store.bit(self.layout, column, row)),
        }
    }

    #[inline]
    pub(crate) fn wide(&self, row: usize) -> i128 {
        match self.place {
            Place::Wide(column) => (u128::from(self.store.word(column, row)) | u128::from(self.store.word(column + 1, row)) << 64) as i128,
            _ => i128::from(self.word(row) as i64),
        }
    }

    /// The value's key in the order of `min`, in 64 bits; of bytes the code, which only tells values apart.
    #[inline(always)]
    fn key64(&self, row: usize) -> i64 {
        let word = self.word(row);
        match self.kind {
            Kind::Int32 | Kind::Date => i64::from(word as u32 as i32),
            Kind::Float32 => float_key(widen(word as u32)),
            Kind::Float64 => float_key(f64::from_bits(word)),
            _ => word as i64,
        }
    }

    /// The value's key: equal for equal values, and but for bytes in the order of `min`.
    #[inline]
    pub(crate) fn key(&self, row: usize) -> i128 {
        if let Kind::Decimal { .. } = self.kind { self.wide(row) } else { i128::from(self.key64(row)) }
    }

    /// The value that a key stands for.
    pub(crate) fn cell_of_key(&self, key: i128) -> Cell<'a> {
        match self.kind {
            Kind::Boolean => Cell::Boolean(key != 0),
            Kind::Float32 | Kind::Float64 => Cell::Float(float_of_key(key as i64)),
            Kind::Decimal { .. } => Cell::Decimal(key),
            Kind::Bytes => Cell::Bytes(self.bytes(key as u32)),
            Kind::Int32 | Kind::Int64 | Kind::Date | Kind::Timestamp => Cell::Int(key as i64),
        }
    }

    /// The number that a key stands for; of what is no number, its key.
    pub(crate) fn number_of_key(&self, key: i128) -> Number {
        match self.kind {
            Kind::Float32 | Kind::Float64 => Number::Float(float_of_key(key as i64)),
            Kind::Decimal { scale } => Number::Whole { value: key, scale: i32::from(scale) },
            _ => Number::Whole { value: key, scale: 0 },
        }
    }

    #[inline]
    pub(crate) fn bytes(&self, code: u32) -> &'a [u8] {
        self.dictionary.map_or(&[], |dictionary| dictionary.get(code))
    }

    /// How many codes there are, of bytes; else none.
    pub(crate) fn codes(&self) -> usize {
        self.dictionary.map_or(0, Dictionary::len)
    }

    /// The stored value with its own bits.
    pub(crate) fn cell(&self, row: usize) -> Cell<'a> {
        if !self.is_valid(row) {
            return Cell::Null;
        }
        match self.kind {
            Kind::Boolean => Cell::Boolean(self.word(row) != 0),
            Kind::Float32 => Cell::Float(widen(self.word(row) as u32)),
            Kind::Float64 => Cell::Float(f64::from_bits(self.word(row))),
            Kind::Decimal { .. } => Cell::Decimal(self.wide(row)),
            Kind::Bytes => Cell::Bytes(self.bytes(self.word(row) as u32)),
            Kind::Int32 | Kind::Int64 | Kind::Date | Kind::Timestamp => Cell::Int(self.key64(row)),
        }
    }

    /// Of two keys the lesser, or the greater.
    #[inline]
    pub(crate) fn pick(&self, a: i128, b: i128, greater: bool) -> i128 {
        if self.kind == Kind::Bytes {
            // No code is as large as these sentinels of "no value".
            match (a == none(greater), b == none(greater)) {
                (true, _) => b,
                (_, true) => a,
                _ if (self.bytes(a as u32) > self.bytes(b as u32)) == greater => a,
                _ => b,
            }
        } else if greater {
            a.max(b)
        } else {
            a.min(b)
        }
    }
}

/// The key that loses against every value in `pick`.
pub(crate) const fn none(greater: bool) -> i128 {
    if greater { i128::MIN } else { i128::MAX }
}

/// How a kind is summed: its unit, and the digits behind the point.
pub(crate) fn unit_of(kind: Kind) -> (Unit, i32) {
    match kind {
        Kind::Float32 | Kind::Float64 => (Unit::Binary, 0),
        Kind::Decimal { scale } => (Unit::Whole, i32::from(scale)),
        _ => (Unit::Whole, 0),
    }
}

/// A lane's rows: a value column, or none, through a mask, or none.
#[derive(Clone, Copy)]
pub(crate) struct LaneView<'a> {
    pub(crate) column: Option<ColumnView<'a>>,
    mask: Option<&'a [u64]>,
}

impl<'a> LaneView<'a> {
    pub(crate) fn new(run: &'a Run, program: &'a Program, lane: &Lane) -> LaneView<'a> {
        let layout = &program.layout;
        LaneView {
            column: lane.value.map(|value| ColumnView::new(run, program, value)),
            mask: lane.mask.map(|mask| run.store.bits(layout, layout.mask(mask))),
        }
    }

    /// The same rows whether or not the value is NULL.
    pub(crate) fn mask_only(&self) -> LaneView<'a> {
        LaneView { column: None, mask: self.mask }
    }

    /// Whether every row counts.
    pub(crate) fn counts_all(&self) -> bool {
        self.column.is_none() && self.mask.is_none()
    }

    /// Whether a row passes the mask.
    #[inline]
    pub(crate) fn passes(&self, row: usize) -> bool {
        self.mask.is_none_or(|mask| mask[row / 64] >> (row % 64) & 1 == 1)
    }

    /// Whether a row passes the mask and its value is not NULL.
    #[inline]
    pub(crate) fn counts(&self, row: usize) -> bool {
        self.passes(row) && self.column.is_none_or(|column| column.is_valid(row))
    }

    /// The rows of a 64-row group that count.
    #[inline]
    fn group(&self, group: usize) -> u64 {
        self.mask.map_or(u64::MAX, |mask| mask[group]) & self.column.map_or(u64::MAX, |column| column.validity[group])
    }

    /// The rows of a 64-row group that pass the mask.
    #[inline]
    fn passing(&self, group: usize) -> u64 {
        self.mask.map_or(u64::MAX, |mask| mask[group])
    }

    /// How many rows of `low..high` count.
    pub(crate) fn count(&self, low: usize, high: usize) -> u64 {
        if self.counts_all() {
            return (high - low) as u64;
        }
        let mut count = 0;
        each_group(low, high, |group, inside| count += u64::from((self.group(group) & inside).count_ones()));
        count
    }

    /// Visits the rows of `low..high` that count, oldest first.
    #[inline]
    pub(crate) fn each(&self, low: usize, high: usize, mut visit: impl FnMut(usize)) {
        each_group(low, high, |group, inside| {
            let mut bits = self.group(group) & inside;
            while bits != 0 {
                visit(group * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        });
    }

    /// The first row of `low..high` that passes the mask.
    pub(crate) fn first(&self, low: usize, high: usize) -> Option<usize> {
        if self.mask.is_none() {
            return (low < high).then_some(low);
        }
        let mut at = low;
        while at < high {
            let bits = self.passing(at / 64) >> (at % 64);
            if bits != 0 {
                let row = at + bits.trailing_zeros() as usize;
                return (row < high).then_some(row);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The last row of `low..high` that passes the mask.
    pub(crate) fn last(&self, low: usize, high: usize) -> Option<usize> {
        if self.mask.is_none() {
            return (low < high).then(|| high - 1);
        }
        let mut end = high;
        while end > low {
            let group = (end - 1) / 64;
            let bits = self.passing(group) & low_mask(end - group * 64);
            if bits != 0 {
                let row = group * 64 + 63 - bits.leading_zeros() as usize;
                return (row >= low).then_some(row);
            }
            end = group * 64;
        }
        None
    }

    /// Adds the values of `low..high` to the sums, or takes them back.
    #[inline]
    pub(crate) fn sum(&self, low: usize, high: usize, take_back: bool, squares: bool, into: &mut Moments) {
        let Some(column) = self.column else { return };
        let mut gather = Gather::default();
        for from in (low..high).step_by(Gather::ROWS) {
            let to = high.min(from + Gather::ROWS);
            match (column.kind, column.place) {
                (Kind::Float64, Place::Word(place)) => {
                    let words = column.store.words(place);
                    self.each(from, to, |row| gather.double(f64::from_bits(words[row]), take_back, squares, into));
                }
                (Kind::Float32, _) => {
                    self.each(from, to, |row| gather.double(widen(column.word(row) as u32), take_back, squares, into));
                }
                (Kind::Decimal { .. }, _) => self.each(from, to, |row| into.part.whole(column.wide(row), take_back, squares)),
                _ => self.each(from, to, |row| gather.whole(column.key64(row), squares)),
            }
            gather.give(take_back, squares, into);
        }
    }

    /// The least and greatest keys of `low..high` and of what was found before.
    #[inline]
    pub(crate) fn extremes(&self, low: usize, high: usize, (least, greatest): (i128, i128)) -> (i128, i128) {
        let Some(column) = self.column else { return (least, greatest) };
        if let Kind::Bytes | Kind::Decimal { .. } = column.kind {
            let (mut least, mut greatest) = (least, greatest);
            self.each(low, high, |row| {
                let key = column.key(row);
                least = column.pick(key, least, false);
                greatest = column.pick(key, greatest, true);
            });
            return (least, greatest);
        }
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        let mut any = false;
        if let (Kind::Float64, Place::Word(place)) = (column.kind, column.place) {
            let words = column.store.words(place);
            self.each(low, high, |row| {
                let key = float_key(f64::from_bits(words[row]));
                (min, max, any) = (min.min(key), max.max(key), true);
            });
        } else {
            self.each(low, high, |row| {
                let key = column.key64(row);
                (min, max, any) = (min.min(key), max.max(key), true);
            });
        }
        if any { (least.min(i128::from(min)), greatest.max(i128::from(max))) } else { (least, greatest) }
    }
}

/// Visits the 64-row groups of `low..high` with the rows that lie inside.
#[inline]
pub(crate) fn each_group(low: usize, high: usize, mut visit: impl FnMut(usize, u64)) {
    if low >= high {
        return;
    }
    let (first, last) = (low / 64, (high - 1) / 64);
    for group in first..=last {
        let below = if group == first { low_mask(low % 64) } else { 0 };
        let above = if group == last { low_mask((high - 1) % 64 + 1) } else { u64::MAX };
        visit(group, above & !below);
    }
}
