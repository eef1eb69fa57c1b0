//! Arrow batches, as Parquet files, INSERT and DoPut bring them: columns found by name and brought to canonical types.
//!
//! What is particular to Arrow:
//! - A column whose type can never be the stream's is an error of the whole batch, and so is a NOT NULL column that is not there;
//!   a value that does not fit rejects its row, whose raw bytes are the row as JSON.
//! - Integers, floats and decimals go where the same number in JSON would go, a float by its shortest decimal digits. REAL takes the nearest of
//!   a DOUBLE.
//! - Timestamps of any unit, with any zone or none (UTC), dates (their midnight), and whole numbers under the option `time_unit`
//!   become TIMESTAMP, cut toward the past. DATE takes dates only.
//! - Strings go where the same string in JSON would go; dictionaries and runs stand for their values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{cast, filter_record_batch, take_record_batch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::columns::{Builder, Kind, Record, Value, is_date, is_time, shortened, too_far, wanted};
use super::number::Number;
use super::{Decoded, Options, Rejected};
use crate::error::{Error, Result};
use crate::stream::schema::{StreamColumn, StreamSchema, sql_name};

/// Decodes a batch whose first row has the offset `first`.
///
/// - Errors: [`crate::error::Kind::Invalid`] where the batch's columns do not fit the stream's.
/// - Cost: columns of canonical types are shared, not copied, unless a row is rejected.
pub fn decode_batch(schema: &StreamSchema, options: &Options, batch: &RecordBatch, first: i64) -> Result<Decoded> {
    let mut faults = Faults::default();
    let mut columns = Vec::with_capacity(schema.columns().len());
    for column in schema.columns() {
        let source = source_of(batch, column)?;
        let array = match source {
            None => new_null_array(&column.data_type, batch.num_rows()),
            Some(source) => convert(source, column, options, &mut faults)?,
        };
        if !column.nullable
            && let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0)
        {
            for row in (0..nulls.len()).filter(|row| nulls.is_null(*row)) {
                faults.add(row, || format!("field \"{}\": is NULL, and the column is NOT NULL", column.name));
            }
        }
        columns.push(array);
    }
    if let Some(latest) = options.latest_us {
        let name = &schema.columns()[schema.event_time()].name;
        let times = columns[schema.event_time()].as_primitive::<TimestampMicrosecondType>();
        for (row, time) in times.iter().enumerate() {
            if let Some(time) = time.filter(|time| *time > latest) {
                faults.add(row, || too_far(name, time, latest));
            }
        }
    }
    let offset = |row: usize| first.saturating_add(row as i64);
    let Faults(faults) = faults;
    if faults.is_empty() {
        let rows = RecordBatch::try_new(Arc::clone(schema.arrow_schema()), columns)?;
        let offsets = (0..batch.num_rows()).map(offset).collect();
        return Ok(Decoded { rows, offsets, rejected: Vec::new(), tombstones: 0 });
    }
    let valid: Vec<bool> = (0..batch.num_rows()).map(|row| !faults.contains_key(&row)).collect();
    let offsets = (0..batch.num_rows()).filter(|row| valid[*row]).map(offset).collect();
    // NOT NULL holds only for what is left.
    let loose = schema.arrow_schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    let loose = Arc::new(arrow::datatypes::Schema::new(loose.collect::<Vec<_>>()));
    let kept = filter_record_batch(&RecordBatch::try_new(loose, columns)?, &BooleanArray::from(valid))?;
    let rows = RecordBatch::try_new(Arc::clone(schema.arrow_schema()), kept.columns().to_vec())?;
    let bad = UInt64Array::from_iter_values(faults.keys().map(|row| *row as u64));
    let raw = render(&take_record_batch(batch, &bad)?)?;
    let rejected = faults.into_iter().zip(raw);
    let rejected = rejected.map(|((row, reason), raw)| Rejected { offset: offset(row), raw, reason });
    Ok(Decoded { rows, offsets, rejected: rejected.collect(), tombstones: 0 })
}

/// The first thing wrong with each row that is not valid.
#[derive(Default)]
struct Faults(BTreeMap<usize, String>);

impl Faults {
    fn add(&mut self, row: usize, reason: impl FnOnce() -> String) {
        self.0.entry(row).or_insert_with(reason);
    }
}

fn source_of<'a>(batch: &'a RecordBatch, column: &StreamColumn) -> Result<Option<&'a ArrayRef>> {
    let schema = batch.schema_ref();
    let mut found = schema.fields().iter().enumerate().filter(|(_, field)| *field.name() == column.name);
    let first = found.next();
    if found.next().is_some() {
        return Err(Error::invalid(format!("column \"{}\" is there twice", column.name)));
    }
    match first {
        Some((index, _)) => Ok(Some(batch.column(index))),
        None if column.nullable => Ok(None),
        None => Err(Error::invalid(format!("column \"{}\" is NOT NULL and is missing", column.name))),
    }
}

/// A column in its canonical type; NULL where the value is a fault.
fn convert(source: &ArrayRef, column: &StreamColumn, options: &Options, faults: &mut Faults) -> Result<ArrayRef> {
    let kind = Kind::new(&column.data_type, options)?;
    match (source.data_type(), kind) {
        (DataType::Null, _) => return Ok(new_null_array(&column.data_type, source.len())),
        (DataType::Dictionary(_, values), _) => {
            return convert(&cast(source, values)?, column, options, faults);
        }
        (DataType::RunEndEncoded(_, values), _) => {
            return convert(&cast(source, values.data_type())?, column, options, faults);
        }
        (DataType::Boolean, Kind::Boolean) => return Ok(Arc::clone(source)),
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Kind::Text)
        | (DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_), Kind::Bytes) => {
            return Ok(cast(source, &column.data_type)?);
        }
        (from, Kind::Integer { .. }) if *from == column.data_type => return Ok(Arc::clone(source)),
        (DataType::Float64, Kind::Double) => return Ok(canonical_f64(source)),
        (from, Kind::Timestamp { .. }) if *from == column.data_type && all(source, is_time) => {
            return Ok(Arc::clone(source));
        }
        (from, Kind::Decimal { precision, .. }) if *from == column.data_type => {
            let values = source.as_primitive::<Decimal128Type>();
            if values.validate_decimal_precision(precision).is_ok() {
                return Ok(Arc::clone(source));
            }
        }
        (from, Kind::Date) if *from == column.data_type => {
            let days = source.as_primitive::<Date32Type>();
            if days.values().iter().all(|day| is_date((*day).into())) {
                return Ok(Arc::clone(source));
            }
        }
        _ => {}
    }
    let values = Values { column, kind, source };
    macro_rules! numbers {
        ($type:ty, $number:expr) => {
            values.each(faults, source.as_primitive::<$type>(), $number)
        };
    }
    let integer = |v: i128| kind.of_integer(v);
    let incompatible = || {
        let what = match (source.data_type().is_integer(), kind) {
            (true, Kind::Timestamp { unit: None }) => ", unless option time_unit says what it counts",
            _ => "",
        };
        Error::invalid(format!(
            "column \"{}\" is {} and cannot be read from {}{what}",
            column.name,
            sql_name(&column.data_type),
            source.data_type()
        ))
    };
    let numeric = match kind {
        Kind::Integer { .. } | Kind::Real | Kind::Double | Kind::Decimal { .. } => true,
        Kind::Timestamp { unit } => unit.is_some(),
        _ => false,
    };
    match source.data_type() {
        DataType::Int8 if numeric => numbers!(Int8Type, |v| integer(v.into())),
        DataType::Int16 if numeric => numbers!(Int16Type, |v| integer(v.into())),
        DataType::Int32 if numeric => numbers!(Int32Type, |v| integer(v.into())),
        DataType::Int64 if numeric => numbers!(Int64Type, |v| integer(v.into())),
        DataType::UInt8 if numeric => numbers!(UInt8Type, |v| integer(v.into())),
        DataType::UInt16 if numeric => numbers!(UInt16Type, |v| integer(v.into())),
        DataType::UInt32 if numeric => numbers!(UInt32Type, |v| integer(v.into())),
        DataType::UInt64 if numeric => numbers!(UInt64Type, |v| integer(v.into())),
        DataType::Float16 if numeric => numbers!(Float16Type, |v| kind.of_float(f64::from(v), &v.to_f32().to_string())),
        DataType::Float32 if numeric => numbers!(Float32Type, |v| match kind {
            Kind::Real | Kind::Double => Ok(Value::Double(v.into())),
            _ => kind.of_float(v.into(), &v.to_string()),
        }),
        DataType::Float64 if numeric => numbers!(Float64Type, |v| match kind {
            Kind::Real => nearest_f32(v),
            _ => kind.of_float(v, &v.to_string()),
        }),
        DataType::Decimal32(_, scale) if numeric => {
            numbers!(Decimal32Type, |v| kind.of_digits(&v.to_string(), *scale))
        }
        DataType::Decimal64(_, scale) if numeric => {
            numbers!(Decimal64Type, |v| kind.of_digits(&v.to_string(), *scale))
        }
        DataType::Decimal128(_, scale) if numeric => {
            numbers!(Decimal128Type, |v| kind.of_digits(&v.to_string(), *scale))
        }
        DataType::Decimal256(_, scale) if numeric => {
            numbers!(Decimal256Type, |v| kind.of_digits(&v.to_string(), *scale))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if kind.takes_text() => values.texts(faults),
        DataType::Date32 => match kind {
            Kind::Date => numbers!(Date32Type, |v| Ok(Value::Integer(v.into()))),
            Kind::Timestamp { .. } => numbers!(Date32Type, |v| Ok(scaled(v.into(), 86_400_000_000))),
            _ => Err(incompatible()),
        },
        DataType::Date64 => match kind {
            Kind::Date => numbers!(Date64Type, |v| Ok(Value::Integer(v.div_euclid(86_400_000)))),
            Kind::Timestamp { .. } => numbers!(Date64Type, |v| Ok(scaled(v, 1000))),
            _ => Err(incompatible()),
        },
        DataType::Timestamp(unit, _) if matches!(kind, Kind::Timestamp { .. }) => {
            use arrow::datatypes::TimeUnit as Unit;
            match unit {
                Unit::Second => numbers!(TimestampSecondType, |v| Ok(scaled(v, 1_000_000))),
                Unit::Millisecond => numbers!(TimestampMillisecondType, |v| Ok(scaled(v, 1000))),
                Unit::Microsecond => numbers!(TimestampMicrosecondType, |v| Ok(Value::Integer(v))),
                Unit::Nanosecond => numbers!(TimestampNanosecondType, |v| Ok(Value::Integer(v.div_euclid(1000)))),
            }
        }
        _ => Err(incompatible()),
    }
}

/// A column on its way from one type to another, value by value.
struct Values<'a> {
    column: &'a StreamColumn,
    kind: Kind,
    source: &'a ArrayRef,
}

impl Values<'_> {
    fn each<T: ArrowPrimitiveType>(
        &self,
        faults: &mut Faults,
        source: &arrow::array::PrimitiveArray<T>,
        value: impl Fn(T::Native) -> Result<Value, String>,
    ) -> Result<ArrayRef> {
        self.build(faults, source.iter().map(|v| v.map_or(Ok(Value::Null), &value)), &mut Record::default())
    }

    fn texts(&self, faults: &mut Faults) -> Result<ArrayRef> {
        let texts = cast(self.source, &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        let mut record = Record::default();
        let values = texts.iter().map(|text| {
            let mut value = Value::Null;
            text.map_or(Ok(()), |text| self.kind.of_text(text, &mut record.bytes, &mut value)).map(|()| value)
        });
        let values: Vec<_> = values.collect();
        self.build(faults, values.into_iter(), &mut record)
    }

    fn build(&self, faults: &mut Faults, values: impl Iterator<Item = Result<Value, String>>, record: &mut Record) -> Result<ArrayRef> {
        let mut builder = Builder::new(&self.column.data_type)?;
        for (row, value) in values.enumerate() {
            let value = value.and_then(|value| self.in_range(value)).unwrap_or_else(|found| {
                faults.add(row, || wanted(&self.column.name, &self.column.data_type, &found));
                Value::Null
            });
            builder.append(value, record, "");
        }
        Ok(builder.finish())
    }

    /// Dates and timestamps have a range narrower than their bits.
    fn in_range(&self, value: Value) -> Result<Value, String> {
        let fits = match (self.kind, value) {
            (Kind::Date, Value::Integer(day)) => is_date(day),
            (Kind::Timestamp { .. }, Value::Integer(micros)) => is_time(micros),
            _ => true,
        };
        if fits { Ok(value) } else { Err("found one out of range".to_owned()) }
    }
}

impl Kind {
    fn takes_text(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp { .. } | Self::Decimal { .. } | Self::Real | Self::Double | Self::Bytes)
    }

    pub(super) fn of_integer(self, value: i128) -> Result<Value, String> {
        match self {
            Self::Integer { min, max } => match i64::try_from(value) {
                Ok(value) if (min..=max).contains(&value) => Ok(Value::Integer(value)),
                _ => Err(format!("found number {value}, which is out of range")),
            },
            Self::Double => Ok(Value::Double(value as f64)),
            Self::Real => Ok(Value::Double((value as f32).into())),
            _ => self.of_digits(&value.to_string(), 0),
        }
    }

    pub(super) fn of_float(self, value: f64, digits: &str) -> Result<Value, String> {
        match self {
            Self::Double => Ok(Value::Double(value)),
            Self::Real => Ok(Value::Double(value)),
            _ => self.value_of(digits).unwrap_or_else(|| Err(format!("found {value}"))),
        }
    }

    fn value_of(self, digits: &str) -> Option<Result<Value, String>> {
        let number = Number::from_text(digits)?;
        let mut value = Value::Null;
        Some(self.of_number(&number, &mut value).map(|()| value))
    }

    /// The value of an integer's digits divided by ten to the scale.
    pub(super) fn of_digits(self, digits: &str, scale: i8) -> Result<Value, String> {
        let text = format!("{digits}e{}", -i16::from(scale));
        self.value_of(&text).unwrap_or_else(|| Err(format!("found {}", shortened(&text))))
    }
}

pub(super) fn nearest_f32(value: f64) -> Result<Value, String> {
    let nearest = value as f32;
    if value.is_finite() && !nearest.is_finite() {
        return Err(format!("found number {value:e}, which is out of range"));
    }
    Ok(Value::Double(nearest.into()))
}

/// Beyond the range of a microsecond the value saturates, which is out of range of TIMESTAMP all the more.
fn scaled(value: i64, factor: i64) -> Value {
    Value::Integer(value.saturating_mul(factor))
}

fn all(source: &ArrayRef, holds: impl Fn(i64) -> bool) -> bool {
    let micros = source.as_primitive::<TimestampMicrosecondType>();
    micros.values().iter().all(|v| holds(*v))
}

fn canonical_f64(source: &ArrayRef) -> ArrayRef {
    let values = source.as_primitive::<Float64Type>();
    if !values.values().iter().any(|v| v.is_nan()) {
        return Arc::clone(source);
    }
    Arc::new(values.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
}

/// A column that can be shown: a timestamp's zone by offset, since the names of zones are not known everywhere.
pub(super) fn showable(column: &ArrayRef) -> ArrayRef {
    use arrow::datatypes::TimeUnit as Unit;
    macro_rules! zoned {
        ($type:ty) => {
            Arc::new(column.as_primitive::<$type>().clone().with_timezone("+00:00"))
        };
    }
    match column.data_type() {
        DataType::Timestamp(Unit::Second, Some(_)) => zoned!(TimestampSecondType),
        DataType::Timestamp(Unit::Millisecond, Some(_)) => zoned!(TimestampMillisecondType),
        DataType::Timestamp(Unit::Microsecond, Some(_)) => zoned!(TimestampMicrosecondType),
        DataType::Timestamp(Unit::Nanosecond, Some(_)) => zoned!(TimestampNanosecondType),
        _ => Arc::clone(column),
    }
}

/// Each row as JSON, NULLs written out; what JSON cannot write, as Arrow shows it.
fn render(rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(f, c)| (f.name(), showable(c), true));
    let rows = &RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    if writer.write(rows).and_then(|()| writer.finish()).is_ok() {
        let lines = writer.into_inner();
        let lines: Vec<Vec<u8>> = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect();
        if lines.len() == rows.num_rows() {
            return Ok(lines);
        }
    }
    let options = FormatOptions::default().with_null("null").with_display_error(true);
    let schema = rows.schema();
    let mut lines = vec![Vec::new(); rows.num_rows()];
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let shown = ArrayFormatter::try_new(column.as_ref(), &options).ok();
        for (row, line) in lines.iter_mut().enumerate() {
            let value = shown.as_ref().map_or_else(|| "?".to_owned(), |shown| shown.value(row).to_string());
            line.extend_from_slice(format!("{}={value} ", field.name()).as_bytes());
        }
    }
    Ok(lines)
}
