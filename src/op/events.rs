//! Events on their way through the operators: columns, event times, order keys, and whether each comes or goes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int8Array, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use asof_sql::plan::instant_type;

use crate::error::{Error, Result};

/// The hidden column of event times behind the columns of a batch.
pub const TIME: &str = "__time";
/// The hidden column of order keys behind the event times, where the view is ordered.
pub const KEY: &str = "__key";

/// A batch of events, or of changes to a set of events.
#[derive(Debug, Clone)]
pub struct Events {
    /// The columns of the relation.
    pub rows: RecordBatch,
    /// The event times, microseconds; one a row.
    pub times: ScalarBuffer<i64>,
    /// What orders rows of one event time; `None` where nothing depends on it.
    pub keys: Option<BinaryArray>,
    /// +1 for a row that comes, -1 for one that goes; `None`: all come.
    pub weights: Option<Int8Array>,
}

impl Events {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Whether a row goes away.
    pub fn goes(&self, row: usize) -> bool {
        self.weights.as_ref().is_some_and(|w| w.value(row) < 0)
    }

    /// The rows for which a mask is true.
    pub fn filtered(&self, mask: &BooleanArray) -> Result<Events> {
        if mask.true_count() == mask.len() {
            return Ok(self.clone());
        }
        let times = TimestampMicrosecondArray::new(self.times.clone(), None);
        let keep = |a: &dyn Array| arrow::compute::filter(a, mask);
        let keys = self.keys.as_ref().map(|k| keep(k)).transpose()?;
        let weights = self.weights.as_ref().map(|w| keep(w)).transpose()?;
        Ok(Events {
            rows: filter_record_batch(&self.rows, mask)?,
            times: keep(&times)?.as_primitive::<TimestampMicrosecondType>().values().clone(),
            keys: keys.map(|k| k.as_binary::<i32>().clone()),
            weights: weights.map(|w| w.as_primitive::<arrow::datatypes::Int8Type>().clone()),
        })
    }

    /// The batch with the hidden columns behind the others; weights do not travel in batches.
    pub fn into_batch(self, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut columns = self.rows.columns().to_vec();
        columns.push(Arc::new(TimestampMicrosecondArray::new(self.times, None).with_timezone("UTC")) as ArrayRef);
        if let Some(keys) = self.keys {
            columns.push(Arc::new(keys));
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }

    /// The events of a batch with hidden columns.
    pub fn from_batch(batch: &RecordBatch, rows: &SchemaRef, keyed: bool) -> Result<Events> {
        let width = rows.fields().len();
        let column = |i: usize| batch.columns().get(i).ok_or_else(|| Error::internal("a batch of events lacks its hidden columns"));
        let times = column(width)?.as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| Error::internal("event times must be microseconds"))?;
        let keys = if keyed { Some(column(width + 1)?.as_binary::<i32>().clone()) } else { None };
        Ok(Events {
            rows: RecordBatch::try_new(rows.clone(), batch.columns()[..width].to_vec())?,
            times: times.values().clone(),
            keys,
            weights: None,
        })
    }
}

/// The schema of batches with hidden columns.
pub fn batch_schema(rows: &SchemaRef, keyed: bool) -> SchemaRef {
    let mut fields = rows.fields().to_vec();
    fields.push(Arc::new(Field::new(TIME, instant_type(), false)));
    if keyed {
        fields.push(Arc::new(Field::new(KEY, DataType::Binary, false)));
    }
    Arc::new(Schema::new(fields))
}
