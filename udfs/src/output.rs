//! Where results go: one entity's scalars, or typed Arrow columns with one row per evaluation.
//!
//! An evaluation gives each slot (the aggregate's index) exactly one cell or one list. Not here: what the values mean.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int8Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, NullArray, StringBuilder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef};

use crate::program::Program;

/// One value on its way out, borrowed from the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Boolean(bool),
    /// An integer of any width, days of a date, microseconds of a timestamp.
    Int(i64),
    /// A REAL or a DOUBLE.
    Float(f64),
    /// The unscaled integer of a decimal.
    Decimal(i128),
    /// A string (valid UTF-8) or binary.
    Bytes(&'a [u8]),
}

/// Takes the results of [`Program::evaluate`](crate::Program::evaluate), each slot once.
pub trait Output {
    /// Takes the value of a slot.
    fn cell(&mut self, slot: usize, cell: Cell<'_>);
    /// Takes the elements of an array-valued slot, oldest first.
    fn list(&mut self, slot: usize, items: &mut dyn Iterator<Item = Cell<'_>>);
    /// Takes note that the NULL just given stands for a sum that does not fit its type.
    fn overflow(&mut self, _slot: usize) {}
}

/// One owned scalar of a look-up, without Arrow.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// SQL NULL.
    #[default]
    Null,
    /// A boolean.
    Boolean(bool),
    /// An integer of any width, days of a date, microseconds of a timestamp.
    Int(i64),
    /// A REAL or a DOUBLE.
    Float(f64),
    /// The unscaled integer of a decimal.
    Decimal(i128),
    /// A string (valid UTF-8) or binary.
    Bytes(Box<[u8]>),
    /// An array, oldest first.
    List(Vec<Value>),
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Value {
        match cell {
            Cell::Null => Value::Null,
            Cell::Boolean(x) => Value::Boolean(x),
            Cell::Int(x) => Value::Int(x),
            Cell::Float(x) => Value::Float(x),
            Cell::Decimal(x) => Value::Decimal(x),
            Cell::Bytes(x) => Value::Bytes(x.into()),
        }
    }
}

impl Value {
    /// The value as a borrowed cell; a list gives NULL, its items are read one by one.
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Value::Null | Value::List(_) => Cell::Null,
            Value::Boolean(x) => Cell::Boolean(*x),
            Value::Int(x) => Cell::Int(*x),
            Value::Float(x) => Cell::Float(*x),
            Value::Decimal(x) => Cell::Decimal(*x),
            Value::Bytes(x) => Cell::Bytes(x),
        }
    }
}

/// Slot i goes to element i; a slot beyond the end is dropped.
impl Output for [Value] {
    fn cell(&mut self, slot: usize, cell: Cell<'_>) {
        if let Some(place) = self.get_mut(slot) {
            *place = cell.into();
        }
    }

    fn list(&mut self, slot: usize, items: &mut dyn Iterator<Item = Cell<'_>>) {
        if let Some(place) = self.get_mut(slot) {
            *place = Value::List(items.map(Value::from).collect());
        }
    }
}

/// Slot i goes to element i; the vector must already have one element per slot.
impl Output for Vec<Value> {
    fn cell(&mut self, slot: usize, cell: Cell<'_>) {
        self.as_mut_slice().cell(slot, cell);
    }

    fn list(&mut self, slot: usize, items: &mut dyn Iterator<Item = Cell<'_>>) {
        self.as_mut_slice().list(slot, items);
    }
}

/// Collects evaluations into Arrow columns of [`Program::output_types`](crate::Program::output_types), one row each.
#[derive(Debug)]
pub struct ColumnsOut {
    columns: Vec<Column>,
}

impl ColumnsOut {
    /// Empty columns for the program's aggregates, with room for `rows` rows.
    pub fn new(program: &Program, rows: usize) -> ColumnsOut {
        ColumnsOut::with_types(program.output_types(), rows)
    }

    /// Empty columns of these types, with room for `rows` rows.
    pub fn with_types(types: &[DataType], rows: usize) -> ColumnsOut {
        ColumnsOut { columns: types.iter().map(|data_type| Column::new(data_type, rows)).collect() }
    }

    /// Whether it is time to finish: a column nears what 32-bit offsets can hold.
    pub fn is_full(&self) -> bool {
        const LIMIT: usize = 1 << 30;
        self.columns.iter().any(|column| column.bytes().max(column.items()) >= LIMIT)
    }

    /// The columns gathered so far; afterwards the columns are empty again.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        self.columns.iter_mut().map(Column::finish).collect()
    }
}

impl Output for ColumnsOut {
    fn cell(&mut self, slot: usize, cell: Cell<'_>) {
        if let Some(column) = self.columns.get_mut(slot) {
            column.push(cell);
        }
    }

    fn list(&mut self, slot: usize, items: &mut dyn Iterator<Item = Cell<'_>>) {
        if let Some(Column::List(list)) = self.columns.get_mut(slot) {
            let mut count = 0;
            for item in items {
                list.items.push(item);
                count += 1;
            }
            list.lengths.push(count);
            list.valid.push(true);
            list.count += count;
        }
    }
}

/// A column under construction. A cell of another type than the column's is NULL; evaluation never gives one.
#[derive(Debug)]
pub(crate) enum Column {
    Null(usize),
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Utf8(StringBuilder),
    Utf8View(StringViewBuilder),
    Binary(BinaryBuilder),
    BinaryView(BinaryViewBuilder),
    List(Box<ListColumn>),
}

#[derive(Debug)]
pub(crate) struct ListColumn {
    field: FieldRef,
    items: Column,
    lengths: Vec<usize>,
    valid: Vec<bool>,
    count: usize,
}

impl Column {
    pub(crate) fn new(data_type: &DataType, rows: usize) -> Column {
        match data_type {
            DataType::Boolean => Column::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Column::Int8(Int8Builder::with_capacity(rows)),
            DataType::Int16 => Column::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Column::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Column::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Column::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Column::Float64(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(..) => Column::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone())),
            DataType::Date32 => Column::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp(..) => {
                Column::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type.clone()))
            }
            DataType::Utf8 => Column::Utf8(StringBuilder::new()),
            DataType::Utf8View => Column::Utf8View(StringViewBuilder::with_capacity(rows)),
            DataType::Binary => Column::Binary(BinaryBuilder::new()),
            DataType::BinaryView => Column::BinaryView(BinaryViewBuilder::with_capacity(rows)),
            DataType::List(field) => Column::List(Box::new(ListColumn {
                field: field.clone(),
                items: Column::new(field.data_type(), rows),
                lengths: Vec::with_capacity(rows),
                valid: Vec::with_capacity(rows),
                count: 0,
            })),
            _ => Column::Null(0),
        }
    }

    pub(crate) fn push(&mut self, cell: Cell<'_>) {
        match self {
            Column::Null(rows) => *rows += 1,
            Column::Boolean(b) => b.append_option(if let Cell::Boolean(x) = cell { Some(x) } else { None }),
            Column::Int8(b) => b.append_option(int(cell)),
            Column::Int16(b) => b.append_option(int(cell)),
            Column::Int32(b) => b.append_option(int(cell)),
            Column::Int64(b) => b.append_option(int(cell)),
            Column::Float32(b) => b.append_option(float(cell).map(narrow)),
            Column::Float64(b) => b.append_option(float(cell)),
            Column::Decimal(b) => b.append_option(if let Cell::Decimal(x) = cell { Some(x) } else { None }),
            Column::Date(b) => b.append_option(int(cell)),
            Column::Timestamp(b) => b.append_option(int(cell)),
            Column::Utf8(b) => b.append_option(bytes(cell).and_then(|x| std::str::from_utf8(x).ok())),
            Column::Utf8View(b) => b.append_option(bytes(cell).and_then(|x| std::str::from_utf8(x).ok())),
            Column::Binary(b) => b.append_option(bytes(cell)),
            Column::BinaryView(b) => b.append_option(bytes(cell)),
            Column::List(list) => {
                list.lengths.push(0);
                list.valid.push(false);
            }
        }
    }

    /// The bytes of a column with 32-bit offsets.
    fn bytes(&self) -> usize {
        match self {
            Column::Utf8(b) => b.values_slice().len(),
            Column::Binary(b) => b.values_slice().len(),
            Column::List(list) => list.items.bytes(),
            _ => 0,
        }
    }

    /// The items of a list column.
    fn items(&self) -> usize {
        if let Column::List(list) = self { list.count } else { 0 }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Column::Boolean(b) => Arc::new(b.finish()),
            Column::Int8(b) => Arc::new(b.finish()),
            Column::Int16(b) => Arc::new(b.finish()),
            Column::Int32(b) => Arc::new(b.finish()),
            Column::Int64(b) => Arc::new(b.finish()),
            Column::Float32(b) => Arc::new(b.finish()),
            Column::Float64(b) => Arc::new(b.finish()),
            Column::Decimal(b) => Arc::new(b.finish()),
            Column::Date(b) => Arc::new(b.finish()),
            Column::Timestamp(b) => Arc::new(b.finish()),
            Column::Utf8(b) => Arc::new(b.finish()),
            Column::Utf8View(b) => Arc::new(b.finish()),
            Column::Binary(b) => Arc::new(b.finish()),
            Column::BinaryView(b) => Arc::new(b.finish()),
            Column::List(list) => {
                list.count = 0;
                let offsets = OffsetBuffer::from_lengths(list.lengths.drain(..));
                let nulls = NullBuffer::from(std::mem::take(&mut list.valid));
                let items = list.items.finish();
                Arc::new(ListArray::new(list.field.clone(), offsets, items, Some(nulls)))
            }
        }
    }
}

fn int<T: TryFrom<i64>>(cell: Cell<'_>) -> Option<T> {
    if let Cell::Int(x) = cell { T::try_from(x).ok() } else { None }
}

fn float(cell: Cell<'_>) -> Option<f64> {
    if let Cell::Float(x) = cell { Some(x) } else { None }
}

fn bytes(cell: Cell<'_>) -> Option<&[u8]> {
    if let Cell::Bytes(x) = cell { Some(x) } else { None }
}

/// The REAL that a widened REAL came from; NaN stays the canonical one.
fn narrow(x: f64) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x as f32 }
}
