//! Arrow columns as bytes: what the state keeps of whole rows.
//!
//! A column is what is NULL, then its values: numbers up to 64 bits as a column of numbers, wider ones as they are, strings behind their
//! lengths. A column of NULLs alone, as of one that is not read, is one byte. The type is not written: whoever reads knows it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryBuilder, BinaryViewBuilder, BooleanArray, StringBuilder, StringViewBuilder, make_array,
    new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::DataType;
use asof_udfs::codec::{Bits, CodecError, Reader, Writer};

use crate::error::{Error, Result};

const NO_NULLS: u8 = 0;
const SOME_NULLS: u8 = 1;
const ALL_NULLS: u8 = 2;

/// The columns of numbers keep the order of signed ones.
fn sign_of(data_type: &DataType, width: usize) -> u64 {
    let signed = !data_type.is_unsigned_integer() && !data_type.is_floating() && width <= 8;
    if signed { 1 << (width * 8 - 1) } else { 0 }
}

fn bits(of: impl Iterator<Item = bool>) -> Bits {
    let mut bits = Bits::new();
    of.for_each(|bit| bits.push(u64::from(bit), 1));
    bits
}

/// Appends a column.
///
/// - Errors: [`crate::error::Kind::Unavailable`] naming the type, where it is none that a checkpoint can hold.
pub fn encode(array: &dyn Array, into: &mut Writer) -> Result<()> {
    let (n, data_type) = (array.len(), array.data_type());
    if n == 0 {
        return Ok(());
    }
    let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
    match &nulls {
        None => into.byte(NO_NULLS),
        Some(nulls) if nulls.null_count() == n => {
            into.byte(ALL_NULLS);
            return Ok(());
        }
        Some(nulls) => {
            into.byte(SOME_NULLS);
            into.bits(&bits((0..n).map(|row| nulls.is_valid(row))));
        }
    }
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let strings = |into: &mut Writer, value: &dyn Fn(usize) -> Vec<u8>| {
        let values: Vec<Vec<u8>> = (0..n).map(|row| if valid(row) { value(row) } else { vec![] }).collect();
        into.column(&values.iter().map(|v| v.len() as u64).collect::<Vec<_>>(), false);
        values.iter().for_each(|v| into.raw(v));
    };
    match data_type {
        DataType::Boolean => {
            let values = array.as_boolean();
            into.bits(&bits((0..n).map(|row| valid(row) && values.value(row))));
        }
        DataType::Utf8 => strings(into, &|row| array.as_string::<i32>().value(row).into()),
        DataType::Utf8View => strings(into, &|row| array.as_string_view().value(row).into()),
        DataType::Binary => strings(into, &|row| array.as_binary::<i32>().value(row).into()),
        DataType::BinaryView => strings(into, &|row| array.as_binary_view().value(row).into()),
        _ => {
            let unknown = || Error::unavailable(format!("a checkpoint cannot hold values of type {data_type}"));
            let width = data_type.primitive_width().ok_or_else(unknown)?;
            let data = array.to_data();
            let bytes = data.buffers().first().map_or(&[][..], |b| b.as_slice());
            let bytes = bytes.get(data.offset() * width..(data.offset() + n) * width).ok_or_else(unknown)?;
            let zero = [0; 32];
            let cells = bytes.chunks_exact(width).enumerate().map(|(row, cell)| if valid(row) { cell } else { &zero[..width] });
            if width > 8 {
                cells.for_each(|cell| into.raw(cell));
            } else {
                let sign = sign_of(data_type, width);
                let word = |cell: &[u8]| cell.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) ^ sign;
                into.column(&cells.map(word).collect::<Vec<_>>(), false);
            }
        }
    }
    Ok(())
}

/// Reads a column of `n` values, a number that the bytes were seen to account for.
pub fn decode(data_type: &DataType, n: usize, from: &mut Reader<'_>) -> Result<ArrayRef> {
    if n == 0 {
        return Ok(new_empty_array(data_type));
    }
    let nulls = match from.byte().map_err(damaged)? {
        NO_NULLS => None,
        SOME_NULLS => Some(from.bits(n).map_err(damaged)?),
        ALL_NULLS => return Ok(new_null_array(data_type, n)),
        _ => return Err(damaged(CodecError("a column has no such form"))),
    };
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.get(row));
    let null_buffer = || nulls.as_ref().map(|nulls| NullBuffer::from(BooleanBuffer::collect_bool(n, |row| nulls.get(row))));
    let mut strings = || -> Result<Vec<Option<&[u8]>>> {
        let lengths = from.column(n, false).map_err(damaged)?;
        let mut bytes = Reader::new(from.raw(lengths.sum(from.left()).map_err(damaged)?).map_err(damaged)?);
        let value = |row: usize| Ok(Some(bytes.raw(lengths.get(row) as usize).map_err(damaged)?).filter(|_| valid(row)));
        (0..n).map(value).collect()
    };
    let text = |value: Option<&[u8]>| -> Result<Option<String>> {
        let text = value.map(|v| std::str::from_utf8(v).map(str::to_owned)).transpose();
        text.map_err(|_| damaged(CodecError("a string is no UTF-8")))
    };
    Ok(match data_type {
        DataType::Boolean => {
            let values = from.bits(n).map_err(damaged)?;
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(n, |row| values.get(row)), null_buffer()))
        }
        DataType::Utf8 => {
            let mut out = StringBuilder::new();
            for value in strings()? {
                out.append_option(text(value)?);
            }
            Arc::new(out.finish())
        }
        DataType::Utf8View => {
            let mut out = StringViewBuilder::new();
            for value in strings()? {
                out.append_option(text(value)?);
            }
            Arc::new(out.finish())
        }
        DataType::Binary => {
            let mut out = BinaryBuilder::new();
            strings()?.into_iter().for_each(|value| out.append_option(value));
            Arc::new(out.finish())
        }
        DataType::BinaryView => {
            let mut out = BinaryViewBuilder::new();
            strings()?.into_iter().for_each(|value| out.append_option(value));
            Arc::new(out.finish())
        }
        _ => {
            let unknown = || Error::data(format!("a checkpoint holds no values of type {data_type}"));
            let width = data_type.primitive_width().ok_or_else(unknown)?;
            let bytes = if width > 8 {
                from.raw(n.checked_mul(width).ok_or_else(unknown)?).map_err(damaged)?.to_vec()
            } else {
                let (column, sign) = (from.column(n, false).map_err(damaged)?, sign_of(data_type, width));
                (0..n).flat_map(|row| (column.get(row) ^ sign).to_le_bytes().into_iter().take(width)).collect()
            };
            // The values must be aligned as their type is: words are, whatever they hold.
            let mut words = vec![0i128; bytes.len().div_ceil(16)];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks(16)) {
                *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | i128::from(*byte));
            }
            let data = ArrayData::builder(data_type.clone()).len(n).add_buffer(Buffer::from_vec(words)).nulls(null_buffer());
            make_array(data.build()?)
        }
    })
}

/// The error of bytes that are no state.
pub fn damaged(e: CodecError) -> Error {
    Error::data(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float32Array, Int8Array, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt16Array};

    #[test]
    fn columns_come_back() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(-1), Some(i64::MAX)])),
            Arc::new(Int8Array::from(vec![-128, 127, 0, -1])),
            Arc::new(UInt16Array::from(vec![65535, 0, 1, 2])),
            Arc::new(Float32Array::from(vec![Some(-0.0), Some(f32::INFINITY), None, Some(1e-40)])),
            Arc::new(Decimal128Array::from(vec![Some(i128::MIN), Some(0), None, Some(7)])),
            Arc::new(TimestampMicrosecondArray::from(vec![1, -1, 0, 5]).with_timezone("UTC")),
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some(""), Some("a longer string than a view holds itself")])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
            new_null_array(&DataType::Utf8View, 4),
        ];
        for column in columns {
            for slice in [column.clone(), column.slice(1, 2), column.slice(0, 0)] {
                let mut writer = Writer::new();
                encode(&slice, &mut writer).expect("a known type");
                let bytes = writer.into_bytes();
                let mut reader = Reader::new(&bytes);
                let read = decode(slice.data_type(), slice.len(), &mut reader).expect("the bytes of a column");
                assert_eq!(&read, &slice);
                assert_eq!(reader.left(), 0);
                for at in 0..bytes.len() {
                    let mut wrong = bytes.clone();
                    wrong[at] ^= 0x55;
                    let _ = decode(slice.data_type(), slice.len(), &mut Reader::new(&wrong));
                    let _ = decode(slice.data_type(), slice.len(), &mut Reader::new(&bytes[..at]));
                }
            }
        }
    }
}
