//! What changed in the set of visible events since a version of history: what brings a state of that version up to date.
//!
//! Rows are only ever added; with a primary key a new one may hide an old one. So the rows that come are the visible ones of new files,
//! and those that go are the rows of old files that are hidden now and were not. Files that were rewritten since are read as they were.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;

use super::scan::{HistoryTable, Scan, TableOptions, columns_named};
use super::visible::no_column;
use super::{OFFSET, PARTITION, Part, REVISION, StreamHistory};
use crate::error::Result;

/// The difference between two versions.
#[derive(Debug)]
pub struct Since {
    /// Rows that are not visible any more, in the columns of the stream.
    pub gone: Vec<RecordBatch>,
    /// The rows that became visible, to be scanned.
    pub come: Arc<HistoryTable>,
}

impl StreamHistory {
    /// What changed after a version.
    pub async fn since(&self, version: i64) -> Result<Since> {
        let table = self.part(Part::History);
        let (now, before) = (table.current(), table.at(Some(version)).await?);
        let old = before.files(table).await?;
        let options = TableOptions { version: Some(now.version()), since: Some(version), ..TableOptions::default() };
        let come = self.table(Part::History, options).await?;
        let (hidden, hidden_before) = (self.losers(&now).await?, self.losers(&before).await?);
        let mut gone = Vec::new();
        let touched = old.iter().filter(|f| f.has_any(hidden.times())).cloned().collect::<Vec<_>>();
        if !touched.is_empty() && !Arc::ptr_eq(&hidden, &hidden_before) {
            let width = self.schema().columns().fields().len();
            let mut columns: Vec<usize> = (0..width).collect();
            columns.extend(columns_named(&table.layout().schema, &[PARTITION, OFFSET, REVISION])?);
            let range = hidden.times().first().copied().zip(hidden.times().last().copied());
            let scan = Scan {
                table: Arc::clone(table),
                columns,
                exact_range: None,
                pruning_range: range,
                pruning: vec![],
                partitions: 2,
                limit: None,
            };
            let mut rows = scan.read(self, &touched)?;
            while let Some(batch) = rows.try_next().await? {
                let column = |i: usize| batch.columns().get(width + i).ok_or_else(no_column);
                let partitions = column(0)?.as_string_view_opt().ok_or_else(no_column)?;
                let offsets = column(1)?.as_primitive_opt::<Int64Type>().ok_or_else(no_column)?;
                let revisions = column(2)?.as_primitive_opt::<Int32Type>().ok_or_else(no_column)?;
                let goes = |row: usize| {
                    let (partition, offset, revision) = (partitions.value(row), offsets.value(row), revisions.value(row));
                    hidden.contains(partition, offset, revision) && !hidden_before.contains(partition, offset, revision)
                };
                let goes = (0..batch.num_rows()).map(|row| Some(goes(row))).collect::<BooleanArray>();
                if goes.true_count() > 0 {
                    let rows = filter_record_batch(&batch, &goes)?.columns()[..width].to_vec();
                    gone.push(RecordBatch::try_new(self.schema().columns().clone(), rows)?);
                }
            }
        }
        Ok(Since { gone, come })
    }

    /// The mark that the commit of a version carries; `None` for a commit that is not one of rows.
    pub async fn commit_mark(&self, version: i64) -> Result<Option<String>> {
        self.part(Part::History).mark(version).await
    }
}
