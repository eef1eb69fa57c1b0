//! Entity keys as bytes: equal entities have equal bytes, in both paths and in every process.

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;

/// The keys of a batch of rows; a row with a NULL in its key has none.
#[derive(Debug)]
pub struct EntityKeys {
    form: Form,
    null: Option<arrow::buffer::NullBuffer>,
}

#[derive(Debug)]
enum Form {
    /// One string column: its bytes are the key.
    Text(StringViewArray),
    /// Anything else: the row format of the columns.
    Rows(Rows),
    /// No column: all rows have the one empty key.
    One,
}

impl EntityKeys {
    /// The keys of rows given as columns of canonical types.
    pub fn try_new(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        let null = columns.iter().fold(None, |null, c| arrow::buffer::NullBuffer::union(null.as_ref(), c.logical_nulls().as_ref()));
        let form = match columns {
            [] => Form::One,
            [one] if one.data_type() == &DataType::Utf8View => Form::Text(one.as_string_view().clone()),
            many => {
                let fields = many.iter().map(|c| SortField::new(c.data_type().clone())).collect();
                Form::Rows(RowConverter::new(fields)?.convert_columns(many)?)
            }
        };
        debug_assert!(columns.iter().all(|c| c.len() == rows), "invariant: one key a row");
        Ok(Self { form, null })
    }

    /// The key of a row; `None` where it belongs to no entity.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if self.null.as_ref().is_some_and(|n| n.is_null(row)) {
            return None;
        }
        Some(match &self.form {
            Form::Text(text) => text.value(row).as_bytes(),
            Form::Rows(rows) => rows.row(row).data(),
            Form::One => b"",
        })
    }

    /// The pinned hash of a key.
    pub fn hash(key: &[u8]) -> u64 {
        xxh3_64(key)
    }
}
