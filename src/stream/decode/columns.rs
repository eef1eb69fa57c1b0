//! One record's values on their way into typed columns.
//!
//! A decoder leaves a record's values in a [`Record`]; only a record that is whole and valid is appended, so nothing is ever taken
//! back from a column. Values hold no memory of their own: text is a range of the record or of its scratch space.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int8Builder,
    Int16Builder, Int32Builder, Int64Builder, RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;

use super::number::{Misfit, Number};
use super::text::{DATE_MAX, DATE_MIN, TIME_MAX, TIME_MIN, parse_date, parse_timestamp};
use super::{Decoded, Options, RAW_PREFIX_BYTES, Rejected, TimeUnit, base64, path};
use crate::error::{Error, Result};
use crate::stream::placement::Placement;
use crate::stream::schema::{StreamSchema, sql_name};

/// How the text of one column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer { min: i64, max: i64 },
    Real,
    Double,
    Decimal { precision: u8, scale: i8 },
    Text,
    Bytes,
    Date,
    Timestamp { unit: Option<TimeUnit> },
}

/// One value of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// The record has no such field yet.
    Absent,
    Null,
    Boolean(bool),
    /// Integers, days and microseconds.
    Integer(i64),
    /// REAL too, exactly.
    Double(f64),
    /// An i128 in two halves, high and low, so that a value is no wider than text.
    Decimal(i64, u64),
    /// A range of the record's text.
    Text(usize, usize),
    /// A range of [`Record::text`].
    Unescaped(usize, usize),
    /// A range of [`Record::bytes`].
    Bytes(usize, usize),
}

/// The values of the record being read, one for each column, and what they are made of.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) values: Vec<Value>,
    /// Texts that had escapes, without them.
    pub(super) text: String,
    /// Binaries, decoded.
    pub(super) bytes: Vec<u8>,
}

impl Record {
    pub(super) fn clear(&mut self, columns: usize) {
        self.values.clear();
        self.values.resize(columns, Value::Absent);
        self.text.clear();
        self.bytes.clear();
    }
}

impl Kind {
    pub(super) fn new(data_type: &DataType, options: &Options) -> Result<Self> {
        let integer = |min: i64, max: i64| Self::Integer { min, max };
        Ok(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => integer(i64::MIN, i64::MAX),
            DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => Self::Decimal { precision: *precision, scale: *scale },
            DataType::Utf8View => Self::Text,
            DataType::BinaryView => Self::Bytes,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(_, _) => Self::Timestamp { unit: options.time_unit },
            other => return Err(Error::internal(format!("a stream's column of type {other}"))),
        })
    }

    /// Puts the value of a number into `slot`, or says what was found in its place.
    ///
    /// A slot rather than a result, here and below: moving a value about costs more than making it.
    #[inline]
    pub(super) fn of_number(self, number: &Number<'_>, slot: &mut Value) -> Result<(), String> {
        match self {
            Self::Integer { min, max } => match number.to_i64() {
                Ok(value) if (min..=max).contains(&value) => *slot = Value::Integer(value),
                Ok(_) => return Err(misfit(number, Misfit::Range)),
                Err(why) => return Err(misfit(number, why)),
            },
            Self::Double => *slot = Value::Double(number.to_f64().map_err(|why| misfit(number, why))?),
            Self::Real => *slot = Value::Double(number.to_f32().map_err(|why| misfit(number, why))?.into()),
            Self::Timestamp { unit: Some(unit) } => {
                let micros = number.to_floor(unit.to_micros_exponent()).map_err(|why| misfit(number, why))?;
                if !is_time(micros) {
                    return Err(misfit(number, Misfit::Range));
                }
                *slot = Value::Integer(micros);
            }
            Self::Decimal { precision, scale } => {
                let value = number.to_scaled(scale.into()).map_err(|why| misfit(number, why))?;
                if value.unsigned_abs() >= 10u128.pow(precision.into()) {
                    return Err(misfit(number, Misfit::Range));
                }
                *slot = Value::decimal(value);
            }
            Self::Timestamp { unit: None } => {
                return Err(format!("found number {}, and option time_unit is not set", shortened(number.text())));
            }
            Self::Boolean | Self::Text | Self::Bytes | Self::Date => {
                return Err(format!("found number {}", shortened(number.text())));
            }
        }
        Ok(())
    }

    /// Puts the value of a text that stands in this column's place as text into `slot`; VARCHAR is left to the caller, who knows
    /// where the text is.
    #[inline]
    pub(super) fn of_text(self, text: &str, bytes: &mut Vec<u8>, slot: &mut Value) -> Result<(), String> {
        let found = || format!("found string \"{}\"", shortened(text));
        *slot = match self {
            Self::Timestamp { .. } => Value::Integer(parse_timestamp(text).ok_or_else(found)?),
            Self::Date => Value::Integer(parse_date(text).ok_or_else(found)?.into()),
            Self::Decimal { .. } => return self.of_number(&Number::from_text(text).ok_or_else(found)?, slot),
            Self::Real | Self::Double => match text {
                "NaN" => Value::Double(f64::NAN),
                "Infinity" | "inf" => Value::Double(f64::INFINITY),
                "-Infinity" | "-inf" => Value::Double(f64::NEG_INFINITY),
                _ => return Err(found()),
            },
            Self::Bytes => {
                let start = bytes.len();
                base64::append_bytes(text, bytes).map_err(|why| format!("{}, {why}", found()))?;
                Value::Bytes(start, bytes.len())
            }
            Self::Boolean | Self::Integer { .. } | Self::Text => return Err(found()),
        };
        Ok(())
    }

    /// Puts the value of a text where everything is text, as in CSV, into `slot`: numbers and booleans too.
    pub(super) fn of_untyped(self, text: &str, bytes: &mut Vec<u8>, slot: &mut Value) -> Result<(), String> {
        let found = || format!("found \"{}\"", shortened(text));
        match self {
            Self::Boolean if text.eq_ignore_ascii_case("true") => *slot = Value::Boolean(true),
            Self::Boolean if text.eq_ignore_ascii_case("false") => *slot = Value::Boolean(false),
            Self::Boolean => return Err(found()),
            Self::Integer { .. } => return self.of_number(&Number::from_text(text).ok_or_else(found)?, slot),
            Self::Real | Self::Double | Self::Timestamp { .. } => match Number::from_text(text) {
                Some(number) => return self.of_number(&number, slot),
                None => return self.of_text(text, bytes, slot),
            },
            _ => return self.of_text(text, bytes, slot),
        }
        Ok(())
    }
}

impl Value {
    pub(super) fn decimal(value: i128) -> Self {
        Self::Decimal((value >> 64) as i64, value as u64)
    }
}

#[cold]
fn misfit(number: &Number<'_>, why: Misfit) -> String {
    match why {
        Misfit::Range => format!("found number {}, which is out of range", shortened(number.text())),
        Misfit::Fraction => format!("found number {}, which has digits that would be lost", shortened(number.text())),
    }
}

/// A text for a message: its beginning.
pub(super) fn shortened(text: &str) -> String {
    const CHARS: usize = 60;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The columns, offsets and rejected records gathered so far.
#[derive(Debug)]
pub(super) struct Collector {
    schema: Arc<StreamSchema>,
    pub(super) kinds: Vec<Kind>,
    builders: Vec<Builder>,
    offsets: Vec<i64>,
    rejected: Vec<Rejected>,
    pub(super) latest_us: Option<i64>,
    labels: Vec<Box<str>>,
    placed: Option<(Placement, i32)>,
}

impl Collector {
    pub(super) fn try_new(schema: Arc<StreamSchema>, options: &Options) -> Result<Self> {
        let types = || schema.columns().iter().map(|c| &c.data_type);
        let kinds = types().map(|t| Kind::new(t, options)).collect::<Result<_>>()?;
        let builders = types().map(Builder::new).collect::<Result<_>>()?;
        let latest_us = options.latest_us;
        let labels = path::labels(&schema, options)?;
        Ok(Self { schema, kinds, builders, offsets: Vec::new(), rejected: Vec::new(), latest_us, labels, placed: options.placed })
    }

    /// What a column is called in a reason: the path of its field.
    pub(super) fn label(&self, column: usize) -> &str {
        &self.labels[column]
    }

    pub(super) fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// How many records wait to be taken.
    pub(super) fn pending(&self) -> usize {
        self.offsets.len() + self.rejected.len()
    }

    /// Appends a record, or says why it is no event. `source` is what [`Value::Text`] points into.
    #[inline]
    pub(super) fn append(&mut self, offset: i64, record: &Record, source: &str) -> Result<(), String> {
        for (i, (value, column)) in record.values.iter().zip(self.schema.columns()).enumerate() {
            if !column.nullable && matches!(value, Value::Absent | Value::Null) {
                let what = if *value == Value::Null { "is NULL" } else { "is missing" };
                return Err(format!("field \"{}\": {what}, and the column is NOT NULL", self.label(i)));
            }
        }
        if let (Some(latest), Some(Value::Integer(time))) = (self.latest_us, record.values.get(self.schema.event_time())) {
            self.check_future(*time, latest)?;
        }
        if let Some((placement, partition)) = &self.placed {
            self.check_place(placement, *partition, record, source)?;
        }
        for (value, builder) in record.values.iter().zip(&mut self.builders) {
            builder.append(*value, record, source);
        }
        self.offsets.push(offset);
        Ok(())
    }

    /// Whether a record lies where its key puts it.
    fn check_place(&self, placement: &Placement, partition: i32, record: &Record, source: &str) -> Result<(), String> {
        let right = match record.values.get(placement.column) {
            Some(Value::Integer(key)) => placement.of_integer(*key),
            Some(Value::Text(from, to)) => placement.of_bytes(source.as_bytes().get(*from..*to).unwrap_or_default()),
            Some(Value::Unescaped(from, to)) => placement.of_bytes(record.text.as_bytes().get(*from..*to).unwrap_or_default()),
            // The key is part of the primary key, so that it is never NULL, and has one of these types.
            _ => return Err(format!("field \"{}\": says no partition", self.label(placement.column))),
        };
        if right != partition {
            let label = self.label(placement.column);
            return Err(format!("field \"{label}\": the key belongs to partition {right}, the record was found in partition {partition}"));
        }
        Ok(())
    }

    fn check_future(&self, time: i64, latest: i64) -> Result<(), String> {
        if time > latest {
            return Err(too_far(self.label(self.schema.event_time()), time, latest));
        }
        Ok(())
    }

    pub(super) fn reject(&mut self, offset: i64, raw: &[u8], reason: String) {
        self.rejected.push(Rejected { offset, raw: raw.to_vec(), reason });
    }

    pub(super) fn reject_too_long(&mut self, offset: i64, prefix: &[u8], length: u64, limit: usize) {
        let raw = &prefix[..prefix.len().min(RAW_PREFIX_BYTES)];
        let reason = format!("record of {length} bytes is longer than the limit of {limit} bytes");
        self.reject(offset, raw, reason);
    }

    pub(super) fn take(&mut self) -> Result<Decoded> {
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        let rows = RecordBatch::try_new(Arc::clone(self.schema.arrow_schema()), columns)?;
        let (offsets, rejected) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.rejected));
        Ok(Decoded { rows, offsets, rejected, tombstones: 0 })
    }
}

/// The reason of a record from the future.
pub(super) fn too_far(name: &str, time: i64, latest: i64) -> String {
    format!("field \"{name}\": event time is {} us too far in the future", time.saturating_sub(latest))
}

/// What a column's type wants, for a reason: `field "amount": DOUBLE wanted, found ...`.
pub(super) fn wanted(name: &str, data_type: &DataType, found: &str) -> String {
    format!("field \"{name}\": {} wanted, {found}", sql_name(data_type))
}

/// Whether a day is one that DATE has.
pub(super) fn is_date(day: i64) -> bool {
    (i64::from(DATE_MIN)..=i64::from(DATE_MAX)).contains(&day)
}

/// Whether a microsecond is one that TIMESTAMP has.
pub(super) fn is_time(micros: i64) -> bool {
    (TIME_MIN..=TIME_MAX).contains(&micros)
}

#[derive(Debug)]
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringViewBuilder),
    Bytes(BinaryViewBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        Ok(match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Self::Int8(Int8Builder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(_, _) => Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone())),
            DataType::Utf8View => Self::Text(StringViewBuilder::new()),
            DataType::BinaryView => Self::Bytes(BinaryViewBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(_, _) => Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone())),
            other => return Err(Error::internal(format!("a stream's column of type {other}"))),
        })
    }

    /// Appends a value that a [`Kind`] of this column's type made.
    #[inline]
    pub(super) fn append(&mut self, value: Value, record: &Record, source: &str) {
        match (self, value) {
            (Self::Int64(b), Value::Integer(v)) => b.append_value(v),
            (Self::Timestamp(b), Value::Integer(v)) => b.append_value(v),
            (Self::Float64(b), Value::Double(v)) => b.append_value(if v.is_nan() { f64::NAN } else { v }),
            (Self::Text(b), Value::Text(start, end)) => b.append_value(piece(source, start..end)),
            (Self::Text(b), Value::Unescaped(start, end)) => b.append_value(piece(&record.text, start..end)),
            (Self::Bytes(b), Value::Bytes(start, end)) => b.append_value(record.bytes.get(start..end).unwrap_or(&[])),
            (Self::Boolean(b), Value::Boolean(v)) => b.append_value(v),
            // The range was checked by the kind; `as` keeps the value.
            (Self::Int8(b), Value::Integer(v)) => b.append_value(v as i8),
            (Self::Int16(b), Value::Integer(v)) => b.append_value(v as i16),
            (Self::Int32(b), Value::Integer(v)) => b.append_value(v as i32),
            (Self::Date(b), Value::Integer(v)) => b.append_value(v as i32),
            (Self::Float32(b), Value::Double(v)) => b.append_value(if v.is_nan() { f32::NAN } else { v as f32 }),
            (Self::Decimal(b), Value::Decimal(high, low)) => {
                b.append_value(i128::from(high) << 64 | i128::from(low));
            }
            (builder, value) => {
                debug_assert!(matches!(value, Value::Absent | Value::Null), "{value:?} in another type's column");
                builder.append_null();
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(b) => b.append_null(),
            Self::Int8(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal(b) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Bytes(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Bytes(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}

#[inline]
fn piece(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}
