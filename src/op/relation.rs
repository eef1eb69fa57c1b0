//! From the accepted events of streams to the events of a view: the shared meaning of Scan, Filter, Project and Union.
//!
//! `stream` pushes changes through a tree of operators, `batch` makes a DataFusion plan; both evaluate rows by the functions here.

pub mod batch;
pub mod stream;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::TimestampMicrosecondType;
use asof_sql::plan::{Filter, Project, Scan};

use crate::error::{Error, Result};
use crate::op::events::Events;
use crate::stream::order::OrderKeys;

/// Order keys of rows: the given columns, from left to right, in the order of DESIGN 4.
pub fn order_keys(columns: &[ArrayRef], rows: usize) -> Result<BinaryArray> {
    let types: Vec<_> = columns.iter().map(|c| c.data_type().clone()).collect();
    OrderKeys::for_columns((0..columns.len()).collect(), &types)?.keys_of(columns, rows)
}

/// The events of a scan, from a batch of the columns that it reads, in the order of [`Scan::columns`]. Columns that are not read are
/// NULL; nothing above looks at them.
pub fn scan(scan: &Scan, batch: &RecordBatch, keyed: bool) -> Result<Events> {
    let read = |column: usize| {
        let at = scan.columns.iter().position(|c| *c == column);
        at.and_then(|at| batch.columns().get(at)).cloned()
    };
    let times = read(scan.event_time).ok_or_else(|| Error::internal("a scan lacks its event time"))?;
    let times: ScalarBuffer<i64> = times.as_primitive::<TimestampMicrosecondType>().values().clone();
    let keys = if keyed {
        let columns: Option<Vec<_>> = scan.order.0.iter().map(|c| read(*c)).collect();
        let columns = columns.ok_or_else(|| Error::internal("a scan lacks a column of its order"))?;
        Some(order_keys(&columns, times.len())?)
    } else {
        None
    };
    let n = batch.num_rows();
    let columns =
        scan.schema.fields().iter().enumerate().map(|(i, f)| read(i).unwrap_or_else(|| new_null_array(f.data_type(), n))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    Ok(Events { rows: RecordBatch::try_new_with_options(scan.schema.clone(), columns, &options)?, times, keys, weights: None })
}

/// The rows for which the predicate is true.
pub fn filter(filter: &Filter, events: &Events) -> Result<Events> {
    events.filtered(&mask(&filter.predicate, &events.rows)?)
}

/// The rows with other columns.
pub fn project(project: &Project, events: Events) -> Result<Events> {
    let columns: Vec<ArrayRef> = project.exprs.iter().map(|e| e.evaluate(&events.rows)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(events.len()));
    Ok(Events { rows: RecordBatch::try_new_with_options(project.schema.clone(), columns, &options)?, ..events })
}

/// The events of a union's branch: the order key is made from the projected columns.
pub fn branch(events: Events, keyed: bool) -> Result<Events> {
    let keys = if keyed { Some(order_keys(events.rows.columns(), events.len())?) } else { None };
    Ok(Events { keys, ..events })
}

/// A condition over rows as a mask without NULLs: NULL is false.
pub fn mask(predicate: &asof_udfs::scalar::Compiled, rows: &RecordBatch) -> Result<BooleanArray> {
    let value = predicate.evaluate(rows)?;
    let Some(truth) = value.as_boolean_opt() else { return Ok(BooleanArray::from(vec![false; rows.num_rows()])) };
    Ok(match value.nulls() {
        None => truth.clone(),
        Some(nulls) => BooleanArray::new(truth.values() & nulls.inner(), None),
    })
}

/// The canonical type of times inside the engine.
pub fn utc(times: ScalarBuffer<i64>) -> ArrayRef {
    Arc::new(arrow::array::TimestampMicrosecondArray::new(times, None).with_timezone("UTC"))
}
