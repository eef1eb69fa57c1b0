//! One batch of events in columns, as the caller evaluated them: times, order keys, value columns and FILTER masks.
//!
//! Checked once against the program, so that [`Run`](crate::Run) reads cells without looking at types again. Not here:
//! which entity a row belongs to.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, StringArray, StringViewArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use crate::exact_sum::Moments;
use crate::output::Cell;
use crate::program::{Kind, Lane, Program};

/// Why columns do not fit a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsError(String);

impl fmt::Display for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RowsError {}

/// A batch of events, ready to be inserted into runs or removed from them, row by row.
#[derive(Debug, Clone)]
pub struct Rows {
    pub(crate) times: ScalarBuffer<i64>,
    pub(crate) keys: Option<BinaryArray>,
    pub(crate) values: Vec<Source>,
    pub(crate) masks: Vec<BooleanBuffer>,
}

/// A value column of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) cells: Cells,
    pub(crate) nulls: Option<NullBuffer>,
}

#[derive(Debug, Clone)]
pub(crate) enum Cells {
    Boolean(BooleanBuffer),
    Int8(ScalarBuffer<i8>),
    Int16(ScalarBuffer<i16>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    Decimal(ScalarBuffer<i128>),
    Utf8(StringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    BinaryView(BinaryViewArray),
}

impl Rows {
    /// Checks columns against the program; all have the same number of rows.
    ///
    /// - `times`: microseconds since the Unix epoch (`array.values().clone()` of an Int64 or timestamp array).
    /// - `order_keys`: needed when the program is ordered, else dropped; compared as bytes.
    /// - `masks`: NULL counts as false.
    pub fn try_new(
        program: &Program,
        times: ScalarBuffer<i64>,
        order_keys: Option<BinaryArray>,
        values: Vec<ArrayRef>,
        masks: Vec<BooleanArray>,
    ) -> Result<Rows, RowsError> {
        let rows = times.len();
        let refuse = |why: String| Err(RowsError(why));
        let keys = match order_keys {
            _ if !program.ordered => None,
            None => return refuse("order keys are missing".into()),
            Some(keys) if keys.len() != rows => return refuse(format!("{} order keys for {rows} rows", keys.len())),
            keys => keys,
        };
        if values.len() != program.types.len() || masks.len() != program.mask_count {
            return refuse(format!(
                "{} values and {} masks where {} and {} are declared",
                values.len(),
                masks.len(),
                program.types.len(),
                program.mask_count
            ));
        }
        if values.iter().any(|value| value.len() != rows) || masks.iter().any(|mask| mask.len() != rows) {
            return refuse(format!("a column's length differs from the {rows} times"));
        }
        let mut sources = Vec::with_capacity(values.len());
        for (index, (value, wanted)) in values.iter().zip(&program.types).enumerate() {
            match Source::of(value, wanted) {
                Some(source) => sources.push(source),
                None => return refuse(format!("value {index} is {} where {wanted} is declared", value.data_type())),
            }
        }
        let masks = masks.iter().map(mask_bits).collect();
        Ok(Rows { times, keys, values: sources, masks })
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The event time of a row.
    pub fn time(&self, row: usize) -> i64 {
        self.times[row]
    }

    /// Whether a row passes a lane's mask.
    pub(crate) fn passes(&self, lane: &Lane, row: usize) -> bool {
        lane.mask.is_none_or(|mask| self.masks[mask].value(row))
    }

    /// The value of a row; `None` for NULL.
    pub(crate) fn cell(&self, program: &Program, value: usize, row: usize) -> Option<Cell<'_>> {
        let source = &self.values[value];
        if !source.is_valid(row) {
            return None;
        }
        Some(match program.kinds[value] {
            Kind::Boolean => Cell::Boolean(source.word(row) != 0),
            Kind::Float32 => Cell::Float(f64::from(f32::from_bits(source.word(row) as u32))),
            Kind::Float64 => Cell::Float(f64::from_bits(source.word(row))),
            Kind::Decimal { .. } => Cell::Decimal(source.decimal(row)),
            Kind::Bytes => Cell::Bytes(source.bytes(row)),
            Kind::Int32 | Kind::Int64 | Kind::Date | Kind::Timestamp => Cell::Int(source.word(row) as i64),
        })
    }

    /// Adds a row's value to a lane's sums, or takes it back; the row counts in the lane.
    #[inline]
    pub(crate) fn sum(&self, value: usize, row: usize, take_back: bool, squares: bool, into: &mut Moments) {
        match &self.values[value].cells {
            Cells::Float64(x) => into.double(x[row], take_back, squares),
            Cells::Float32(x) => into.double(f64::from(x[row]), take_back, squares),
            Cells::Decimal(x) => into.part.whole(x[row], take_back, squares),
            _ => into.part.whole(i128::from(self.values[value].word(row) as i64), take_back, squares),
        }
    }

    pub(crate) fn key(&self, row: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[], |keys| keys.value(row))
    }
}

impl Source {
    fn of(array: &ArrayRef, wanted: &DataType) -> Option<Source> {
        let text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View);
        let binary = |data_type: &DataType| matches!(data_type, DataType::Binary | DataType::BinaryView);
        let got = array.data_type();
        let fits = got == wanted
            || (text(got) && text(wanted))
            || (binary(got) && binary(wanted))
            || (matches!(got, DataType::Decimal128(..)) && decimal_scale(got) == decimal_scale(wanted))
            || (matches!(got, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _))
                && matches!(wanted, DataType::Timestamp(..)));
        if !fits {
            return None;
        }
        let cells = match got {
            DataType::Boolean => Cells::Boolean(array.as_boolean().values().clone()),
            DataType::Int8 => Cells::Int8(array.as_primitive::<Int8Type>().values().clone()),
            DataType::Int16 => Cells::Int16(array.as_primitive::<Int16Type>().values().clone()),
            DataType::Int32 => Cells::Int32(array.as_primitive::<Int32Type>().values().clone()),
            DataType::Date32 => Cells::Int32(array.as_primitive::<Date32Type>().values().clone()),
            DataType::Int64 => Cells::Int64(array.as_primitive::<Int64Type>().values().clone()),
            DataType::Timestamp(..) => Cells::Int64(array.as_primitive::<TimestampMicrosecondType>().values().clone()),
            DataType::Float32 => Cells::Float32(array.as_primitive::<Float32Type>().values().clone()),
            DataType::Float64 => Cells::Float64(array.as_primitive::<Float64Type>().values().clone()),
            DataType::Decimal128(..) => Cells::Decimal(array.as_primitive::<Decimal128Type>().values().clone()),
            DataType::Utf8 => Cells::Utf8(array.as_string().clone()),
            DataType::Utf8View => Cells::Utf8View(array.as_string_view().clone()),
            DataType::Binary => Cells::Binary(array.as_binary().clone()),
            DataType::BinaryView => Cells::BinaryView(array.as_binary_view().clone()),
            _ => return None,
        };
        Some(Source { cells, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0).cloned() })
    }

    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    /// The stored bits of a value of at most 64 bits: integers sign-extended, REAL and DOUBLE as their own bits.
    pub(crate) fn word(&self, row: usize) -> u64 {
        match &self.cells {
            Cells::Boolean(x) => u64::from(x.value(row)),
            Cells::Int8(x) => i64::from(x[row]) as u64,
            Cells::Int16(x) => i64::from(x[row]) as u64,
            Cells::Int32(x) => i64::from(x[row]) as u64,
            Cells::Int64(x) => x[row] as u64,
            Cells::Float32(x) => u64::from(x[row].to_bits()),
            Cells::Float64(x) => x[row].to_bits(),
            Cells::Decimal(_) | Cells::Utf8(_) | Cells::Utf8View(_) | Cells::Binary(_) | Cells::BinaryView(_) => 0,
        }
    }

    pub(crate) fn decimal(&self, row: usize) -> i128 {
        if let Cells::Decimal(x) = &self.cells { x[row] } else { 0 }
    }

    pub(crate) fn bytes(&self, row: usize) -> &[u8] {
        match &self.cells {
            Cells::Utf8(x) => x.value(row).as_bytes(),
            Cells::Utf8View(x) => x.value(row).as_bytes(),
            Cells::Binary(x) => x.value(row),
            Cells::BinaryView(x) => x.value(row),
            _ => &[],
        }
    }
}

fn decimal_scale(data_type: &DataType) -> Option<i8> {
    if let DataType::Decimal128(_, scale) = data_type { Some(*scale) } else { None }
}

fn mask_bits(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        Some(nulls) => mask.values() & nulls.inner(),
        None => mask.values().clone(),
    }
}
