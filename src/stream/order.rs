//! The order of events of one event time: primary key, then all other columns in declaration order.
//!
//! A key is a byte string whose byte order is that order: NULLs first, false before true, numbers by value, floats with -0 before
//! +0 and NaN last, strings and binaries by bytes. It is Arrow's row format, which has this order for canonical types as long as
//! every NaN is the canonical one, as decoding leaves it; `tests` holds it to that. Keys of two batches compare with one another.
//! The event time is no part of a key. Not here: which of two conflicting rows came first, which never matters.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::schema::StreamSchema;
use crate::error::{Error, Result};

/// Makes the order keys of one relation's rows.
#[derive(Debug, Clone)]
pub struct OrderKeys {
    columns: Vec<usize>,
    converter: Arc<RowConverter>,
}

impl OrderKeys {
    /// The keys of a stream's events: primary key, then the payload, in the order of the schema.
    pub fn for_stream(schema: &StreamSchema) -> Result<Self> {
        let columns: Vec<usize> = schema.primary_key().iter().copied().chain(schema.payload()).collect();
        let types = columns.iter().map(|c| schema.columns()[*c].data_type.clone()).collect::<Vec<_>>();
        Self::for_columns(columns, &types)
    }

    /// The keys of any relation: its columns at `columns`, of the types `types`, compared from left to right.
    ///
    /// A relation without columns has one empty key for all its rows.
    pub fn for_columns(columns: Vec<usize>, types: &[DataType]) -> Result<Self> {
        if columns.len() != types.len() {
            return Err(Error::internal("order keys have as many columns as types"));
        }
        let nulls_first = SortOptions { descending: false, nulls_first: true };
        let fields = types.iter().map(|t| SortField::new_with_options(t.clone(), nulls_first));
        Ok(Self { columns, converter: Arc::new(RowConverter::new(fields.collect())?) })
    }

    /// The key of every row of a batch.
    ///
    /// - Errors: [`crate::error::Kind::Data`] where the keys of one batch take 2 GiB or more; [`crate::error::Kind::Internal`]
    ///   where the batch has other columns.
    /// - Cost: about the bytes of the columns, copied; a string takes 33 bytes for each 32, at least 9.
    pub fn keys(&self, rows: &RecordBatch) -> Result<BinaryArray> {
        self.keys_of(rows.columns(), rows.num_rows())
    }

    /// As [`OrderKeys::keys`], of bare columns.
    pub fn keys_of(&self, columns: &[ArrayRef], rows: usize) -> Result<BinaryArray> {
        if self.columns.is_empty() {
            return Ok(BinaryArray::from_iter_values((0..rows).map(|_| b"")));
        }
        let chosen = self.columns.iter().map(|c| columns.get(*c).cloned());
        let chosen = chosen.collect::<Option<Vec<_>>>().ok_or_else(|| Error::internal("order keys of other columns"))?;
        Ok(self.converter.convert_columns(&chosen)?.try_into_binary()?)
    }

    /// Compares one row of each of two batches, of one event time; the greatest is the one that is visible.
    pub fn compare(&self, left: &RecordBatch, left_row: usize, right: &RecordBatch, right_row: usize) -> Result<Ordering> {
        let (left, right) = (one_row(left, left_row)?, one_row(right, right_row)?);
        let (left, right) = (self.keys(&left)?, self.keys(&right)?);
        Ok(left.value(0).cmp(right.value(0)))
    }
}

fn one_row(rows: &RecordBatch, row: usize) -> Result<RecordBatch> {
    if row >= rows.num_rows() {
        return Err(Error::internal("a row behind the end of its batch"));
    }
    Ok(rows.slice(row, 1))
}

#[cfg(test)]
mod tests;
