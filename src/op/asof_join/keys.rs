//! Values as the join compares them: integers where the type fits in 64 bits in order, memcomparable bytes elsewhere; and key tuples as group numbers.

use std::fmt::Debug;
use std::hash::BuildHasher;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait, PrimitiveArray, StructArray,
};
use datafusion::arrow::buffer::{NullBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::*;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use hashbrown::{DefaultHashBuilder, HashTable};

/// No group, no slot, no batch.
pub(super) const NONE: u32 = u32::MAX;

/// Whether the values of a type fit in an `i64` so that their order is the integers'.
pub(super) fn fits_i64(t: &DataType) -> bool {
    match t {
        DataType::Boolean | DataType::Float16 => true,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => true,
        DataType::Float32 | DataType::Float64 | DataType::Date32 | DataType::Date64 => true,
        DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => true,
        DataType::Decimal32(..) | DataType::Decimal64(..) => true,
        DataType::Decimal128(p, _) => *p <= 18,
        _ => false,
    }
}

fn f64_bits(v: f64) -> i64 {
    let bits = (if v.is_nan() { f64::NAN } else { v }).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The values of a type that [`fits_i64`]; at a null, any.
pub(super) fn to_i64(array: &ArrayRef) -> Result<ScalarBuffer<i64>> {
    fn map<T: ArrowPrimitiveType>(array: &ArrayRef, f: impl Fn(T::Native) -> i64) -> ScalarBuffer<i64> {
        array.as_primitive::<T>().values().iter().map(|v| f(*v)).collect()
    }
    fn own<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef) -> ScalarBuffer<i64> {
        array.as_primitive::<T>().values().clone()
    }
    use TimeUnit::*;
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().values().iter().map(i64::from).collect(),
        DataType::Int8 => map::<Int8Type>(array, i64::from),
        DataType::Int16 => map::<Int16Type>(array, i64::from),
        DataType::Int32 => map::<Int32Type>(array, i64::from),
        DataType::Int64 => own::<Int64Type>(array),
        DataType::UInt8 => map::<UInt8Type>(array, i64::from),
        DataType::UInt16 => map::<UInt16Type>(array, i64::from),
        DataType::UInt32 => map::<UInt32Type>(array, i64::from),
        DataType::UInt64 => map::<UInt64Type>(array, |v| (v ^ (1 << 63)) as i64),
        DataType::Float16 => map::<Float16Type>(array, |v| f64_bits(v.to_f64())),
        DataType::Float32 => map::<Float32Type>(array, |v| f64_bits(f64::from(v))),
        DataType::Float64 => map::<Float64Type>(array, f64_bits),
        DataType::Date32 => map::<Date32Type>(array, i64::from),
        DataType::Date64 => own::<Date64Type>(array),
        DataType::Time32(Second) => map::<Time32SecondType>(array, i64::from),
        DataType::Time32(_) => map::<Time32MillisecondType>(array, i64::from),
        DataType::Time64(Microsecond) => own::<Time64MicrosecondType>(array),
        DataType::Time64(_) => own::<Time64NanosecondType>(array),
        DataType::Timestamp(Second, _) => own::<TimestampSecondType>(array),
        DataType::Timestamp(Millisecond, _) => own::<TimestampMillisecondType>(array),
        DataType::Timestamp(Microsecond, _) => own::<TimestampMicrosecondType>(array),
        DataType::Timestamp(Nanosecond, _) => own::<TimestampNanosecondType>(array),
        DataType::Duration(Second) => own::<DurationSecondType>(array),
        DataType::Duration(Millisecond) => own::<DurationMillisecondType>(array),
        DataType::Duration(Microsecond) => own::<DurationMicrosecondType>(array),
        DataType::Duration(Nanosecond) => own::<DurationNanosecondType>(array),
        DataType::Decimal32(..) => map::<Decimal32Type>(array, i64::from),
        DataType::Decimal64(..) => own::<Decimal64Type>(array),
        DataType::Decimal128(..) => map::<Decimal128Type>(array, |v| v as i64),
        other => return internal_err!("values of type {other} do not fit in 64 bits"),
    })
}

/// The array with every NaN the one canonical NaN, which Arrow's total order puts last.
pub(super) fn canonical(array: &ArrayRef) -> ArrayRef {
    fn list<O: OffsetSizeTrait>(array: &ArrayRef) -> ArrayRef {
        let list = array.as_list::<O>();
        let (DataType::List(field) | DataType::LargeList(field)) = array.data_type() else { return Arc::clone(array) };
        let values = canonical(list.values());
        Arc::new(GenericListArray::<O>::new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned()))
    }
    fn floats<T: ArrowPrimitiveType>(array: &ArrayRef, odd: impl Fn(T::Native) -> bool, nan: T::Native) -> ArrayRef {
        let floats: &PrimitiveArray<T> = array.as_primitive();
        if floats.values().iter().any(|v| odd(*v)) {
            Arc::new(floats.unary::<_, T>(|v| if odd(v) { nan } else { v }))
        } else {
            Arc::clone(array)
        }
    }
    match array.data_type() {
        DataType::Float64 => floats::<Float64Type>(array, |v| v.is_nan() && v.to_bits() != f64::NAN.to_bits(), f64::NAN),
        DataType::Float32 => floats::<Float32Type>(array, |v| v.is_nan() && v.to_bits() != f32::NAN.to_bits(), f32::NAN),
        DataType::Float16 => {
            let nan = half_nan();
            floats::<Float16Type>(array, |v| v.is_nan() && v.to_bits() != nan.to_bits(), nan)
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let whole = array.as_struct();
            let columns = whole.columns().iter().map(canonical).collect();
            Arc::new(StructArray::new(fields.clone(), columns, whole.nulls().cloned()))
        }
        DataType::List(_) => list::<i32>(array),
        DataType::LargeList(_) => list::<i64>(array),
        _ => Arc::clone(array),
    }
}

fn half_nan() -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::NAN
}

/// A match value in the form that is compared.
pub(super) trait Value: Ord + Clone + Default + Debug + Send + Sync + 'static {
    /// The values of one batch.
    type Column: std::ops::Deref<Target = [Self]> + Send;

    /// The values of an array; at a null, any.
    fn column(array: &ArrayRef) -> Result<Self::Column>;

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;
}

impl Value for i64 {
    type Column = ScalarBuffer<i64>;

    fn column(array: &ArrayRef) -> Result<Self::Column> {
        to_i64(array)
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Value for Box<[u8]> {
    type Column = Vec<Box<[u8]>>;

    fn column(array: &ArrayRef) -> Result<Self::Column> {
        let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())])?;
        let rows = converter.convert_columns(&[canonical(array)])?;
        Ok(rows.iter().map(|r| Box::from(r.as_ref())).collect())
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

/// The rows that have a null in none of the columns; `None` where that is all rows.
pub(super) fn without_nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |nulls, c| NullBuffer::union(nulls.as_ref(), c.logical_nulls().as_ref())).filter(|n| n.null_count() > 0)
}

/// Numbers key tuples from 0 in the order they are first seen.
#[derive(Debug)]
pub(super) enum Keys {
    /// No key columns: one group.
    All,
    Int {
        table: HashTable<(i64, u32)>,
        hash: DefaultHashBuilder,
    },
    /// One column of strings or binary: up to 12 bytes as an Arrow view holds them inline, longer ones apart.
    Text {
        short: HashTable<(u128, u32)>,
        long: Bytes,
        hash: DefaultHashBuilder,
        groups: u32,
    },
    Tuple {
        converter: RowConverter,
        rows: Bytes,
        hash: DefaultHashBuilder,
    },
}

impl Keys {
    pub(super) fn try_new(types: &[DataType]) -> Result<Self> {
        let hash = DefaultHashBuilder::default();
        Ok(match types {
            [] => Self::All,
            [t] if fits_i64(t) => Self::Int { table: HashTable::new(), hash },
            [DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View] => {
                Self::Text { short: HashTable::new(), long: Bytes::default(), hash, groups: 0 }
            }
            types => {
                let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?;
                Self::Tuple { converter, rows: Bytes::default(), hash }
            }
        })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::All => 1,
            Self::Int { table, .. } => table.len() as u32,
            Self::Text { groups, .. } => *groups,
            Self::Tuple { rows, .. } => rows.table.len() as u32,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Int { table, .. } => table.capacity() * 18,
            Self::Text { short, long, .. } => short.capacity() * 36 + long.memory_bytes(),
            Self::Tuple { rows, .. } => rows.memory_bytes(),
        }
    }

    /// The group of each of the `rows` rows, a new one for a key not seen before; [`NONE`] where a part of the key is null.
    pub(super) fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let valid = without_nulls(columns);
        let ok = |i: usize| valid.as_ref().is_none_or(|v| v.is_valid(i));
        match self {
            Self::All => Ok(vec![0; rows]),
            Self::Int { table, hash } => {
                let values = to_i64(one(columns)?)?;
                Ok((0..rows)
                    .map(|i| {
                        if !ok(i) {
                            return NONE;
                        }
                        let (value, next) = (values[i], table.len() as u32);
                        table.entry(hash.hash_one(value), |e| e.0 == value, |e| hash.hash_one(e.0)).or_insert((value, next)).get().1
                    })
                    .collect())
            }
            Self::Text { short, long, hash, groups } => {
                let text = Text::try_new(one(columns)?)?;
                Ok((0..rows)
                    .map(|i| {
                        if !ok(i) {
                            return NONE;
                        }
                        let group = match text.short(i) {
                            Some(view) => {
                                short.entry(hash.hash_one(view), |e| e.0 == view, |e| hash.hash_one(e.0)).or_insert((view, *groups)).get().1
                            }
                            None => long.insert(hash, text.bytes(i), *groups),
                        };
                        *groups += u32::from(group == *groups);
                        group
                    })
                    .collect())
            }
            Self::Tuple { converter, rows: known, hash } => {
                let columns: Vec<_> = columns.iter().map(canonical).collect();
                let encoded = converter.convert_columns(&columns)?;
                Ok(encoded
                    .iter()
                    .enumerate()
                    .map(|(i, row)| if ok(i) { known.insert(hash, row.as_ref(), known.table.len() as u32) } else { NONE })
                    .collect())
            }
        }
    }

    /// The group of each of the `rows` rows; [`NONE`] where the key is unknown or a part of it is null.
    pub(super) fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let valid = without_nulls(columns);
        let ok = |i: usize| valid.as_ref().is_none_or(|v| v.is_valid(i));
        match self {
            Self::All => Ok(vec![0; rows]),
            Self::Int { table, hash } => {
                let values = to_i64(one(columns)?)?;
                let group = |i: usize| table.find(hash.hash_one(values[i]), |e| e.0 == values[i]).map_or(NONE, |e| e.1);
                Ok((0..rows).map(|i| if ok(i) { group(i) } else { NONE }).collect())
            }
            Self::Text { short, long, hash, .. } => {
                let text = Text::try_new(one(columns)?)?;
                Ok((0..rows)
                    .map(|i| match text.short(i) {
                        _ if !ok(i) => NONE,
                        Some(view) => short.find(hash.hash_one(view), |e| e.0 == view).map_or(NONE, |e| e.1),
                        None => long.find(hash, text.bytes(i)),
                    })
                    .collect())
            }
            Self::Tuple { converter, rows: known, hash } => {
                let columns: Vec<_> = columns.iter().map(canonical).collect();
                let encoded = converter.convert_columns(&columns)?;
                Ok(encoded.iter().enumerate().map(|(i, row)| if ok(i) { known.find(hash, row.as_ref()) } else { NONE }).collect())
            }
        }
    }
}

fn one(columns: &[ArrayRef]) -> Result<&ArrayRef> {
    columns.first().ok_or_else(|| internal_datafusion_err!("a key column is missing"))
}

/// One column of strings, whatever its layout.
enum Text<'a> {
    View(&'a datafusion::arrow::array::StringViewArray),
    Small(&'a datafusion::arrow::array::StringArray),
    Large(&'a datafusion::arrow::array::LargeStringArray),
}

impl<'a> Text<'a> {
    fn try_new(array: &'a ArrayRef) -> Result<Self> {
        match array.data_type() {
            DataType::Utf8View => Ok(Self::View(array.as_string_view())),
            DataType::Utf8 => Ok(Self::Small(array.as_string())),
            DataType::LargeUtf8 => Ok(Self::Large(array.as_string())),
            other => internal_err!("a string key has type {other}"),
        }
    }

    /// The length and the bytes, where these are at most 12: the layout of an inline view.
    fn short(&self, i: usize) -> Option<u128> {
        match self {
            Self::View(a) => {
                let view = *a.views().get(i)?;
                (view as u32 <= 12).then_some(view)
            }
            _ => {
                let bytes = self.bytes(i);
                (bytes.len() <= 12).then(|| {
                    let mut view = [0u8; 16];
                    view[0] = bytes.len() as u8;
                    view[4..4 + bytes.len()].copy_from_slice(bytes);
                    u128::from_le_bytes(view)
                })
            }
        }
    }

    fn bytes(&self, i: usize) -> &'a [u8] {
        match self {
            Self::View(a) => a.value(i).as_bytes(),
            Self::Small(a) => a.value(i).as_bytes(),
            Self::Large(a) => a.value(i).as_bytes(),
        }
    }
}

/// Byte strings and their groups, the bytes one after the other.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// Hash, start, length, group.
    table: HashTable<(u64, usize, u32, u32)>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn insert(&mut self, hash: &DefaultHashBuilder, key: &[u8], next: u32) -> u32 {
        let code = hash.hash_one(key);
        let Self { table, bytes } = self;
        let found = table.find(code, |e| e.0 == code && bytes[e.1..].starts_with(key) && e.2 as usize == key.len());
        if let Some(e) = found {
            return e.3;
        }
        let start = bytes.len();
        bytes.extend_from_slice(key);
        table.insert_unique(code, (code, start, key.len() as u32, next), |e| e.0);
        next
    }

    fn find(&self, hash: &DefaultHashBuilder, key: &[u8]) -> u32 {
        let code = hash.hash_one(key);
        let same = |e: &(u64, usize, u32, u32)| e.0 == code && e.2 as usize == key.len() && self.bytes[e.1..].starts_with(key);
        self.table.find(code, same).map_or(NONE, |e| e.3)
    }

    fn memory_bytes(&self) -> usize {
        self.table.capacity() * 26 + self.bytes.capacity()
    }
}

/// Rows of which a key or the match value is null take no part.
pub(super) fn exclude(groups: &mut [u32], nulls: Option<NullBuffer>) {
    if let Some(nulls) = nulls {
        let valid = BooleanArray::new(nulls.into_inner(), None);
        groups.iter_mut().zip(valid.values().iter()).for_each(|(g, ok)| {
            if !ok {
                *g = NONE;
            }
        });
    }
}
