//! Which events are in history already: identities against the files that may hold them.
//!
//! Files are chosen by time, row groups and pages by their statistics; identities are compared first, and whole rows are read only where
//! one is found. What is held is the keys asked for and the rows found of them. Not here: what a duplicate or a conflict does (`stream`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::row::Rows;
use futures::{StreamExt, TryStreamExt, stream};

use super::REVISION;
use super::StreamHistory;
use super::files::DataFile;
use super::scan::{Scan, columns_named};
use super::visible::{Keys, no_column};
use crate::error::{Error, Result};

/// How many files are read at once.
const READS: usize = 2;

/// The events of a batch of identities that are in history.
#[derive(Debug)]
pub struct Existing {
    /// Of each identity asked for: its row in `visible`.
    pub found: Vec<Option<usize>>,
    /// The visible row of each identity that was found, in the stream's columns.
    pub visible: RecordBatch,
    /// Of each row in `visible`: the greatest revision of its identity.
    pub revision_max: Vec<i32>,
}

impl StreamHistory {
    /// Looks up identities in a version of history; `None` is the newest that this process knows.
    ///
    /// - Shapes: `keys` has the event time, then the primary key's columns in its order. The same identity may come several times.
    /// - Errors: [`crate::error::Kind::Internal`] for a stream without primary key or keys of other columns;
    ///   [`crate::error::Kind::Data`] for a file that is missing or damaged.
    /// - Cost: one scan of the key columns of the row groups that hold such times, and of whole rows where one is found. Batches that are
    ///   large and narrow in time are best.
    pub async fn lookup_identities(&self, keys: &RecordBatch, version: Option<i64>) -> Result<Existing> {
        let schema = self.schema();
        if schema.primary_key().is_empty() {
            return Err(Error::internal("a stream without primary key has no identities to look up"));
        }
        let converter = Keys::try_new(schema)?;
        if keys.num_columns() != converter.identity.len() {
            return Err(no_column());
        }
        let mut times = keys.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(no_column)?.values().to_vec();
        times.sort_unstable();
        times.dedup();
        let wanted = converter.identities(keys)?;
        let mut slots: HashMap<&[u8], usize> = HashMap::with_capacity(wanted.num_rows());
        let wanted_bytes = (0..wanted.num_rows()).map(|row| wanted.row(row).data()).collect::<Vec<_>>();
        for bytes in &wanted_bytes {
            let next = slots.len();
            slots.entry(bytes).or_insert(next);
        }
        let search = Search { history: self, converter: &converter, slots: &slots, times: &times };
        let table = &self.inner.history;
        let snapshot = table.at(version).await?;
        let files = snapshot.files(table).await?.iter().filter(|f| f.has_any(&times)).cloned().collect::<Vec<_>>();
        let holding = stream::iter(files).map(|file| search.holds_any(file)).buffer_unordered(READS);
        let holding = holding.try_filter_map(async |file| Ok(file)).try_collect::<Vec<_>>().await;
        let doing = || format!("looking up events in {}", snapshot.name());
        let holding = holding.map_err(|e| e.context(doing()))?;
        let best = search.best(&holding).await.map_err(|e| e.context(doing()))?;
        best.answer(self, wanted_bytes.iter().map(|bytes| slots.get(bytes).copied()))
    }
}

struct Search<'a> {
    history: &'a StreamHistory,
    converter: &'a Keys,
    /// A number for each identity.
    slots: &'a HashMap<&'a [u8], usize>,
    /// Ascending.
    times: &'a [i64],
}

impl Search<'_> {
    /// The file, if a row of it has one of the identities.
    async fn holds_any(&self, file: Arc<DataFile>) -> Result<Option<Arc<DataFile>>> {
        let mut rows = self.scan(&file, self.converter.identity.clone()).read(self.history, std::slice::from_ref(&file))?;
        while let Some(batch) = rows.try_next().await? {
            if self.converter.identities(&batch)?.iter().any(|id| self.slots.contains_key(id.data())) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The greatest row of each identity among the rows of some files.
    async fn best(&self, files: &[Arc<DataFile>]) -> Result<Best> {
        let keys = self.converter;
        let stored = &self.history.inner.history.layout().schema;
        let mut columns = keys.identity.iter().chain(&keys.payload).copied().collect::<Vec<_>>();
        columns.extend(columns_named(stored, &[REVISION])?);
        let mut best = Best { rows: vec![None; self.slots.len()], batches: Vec::new() };
        for file in files {
            let mut rows = self.scan(file, columns.clone()).read(self.history, std::slice::from_ref(file))?;
            while let Some(batch) = rows.try_next().await? {
                let identities = keys.identities(&batch)?;
                let asked = identities.iter().map(|id| Some(self.slots.contains_key(id.data()))).collect::<BooleanArray>();
                if asked.true_count() > 0 {
                    let batch = filter_record_batch(&batch, &asked)?;
                    let identities = keys.identities(&batch)?;
                    best.take(keys, batch, &identities, self.slots)?;
                }
            }
        }
        Ok(best)
    }

    fn scan(&self, file: &DataFile, columns: Vec<usize>) -> Scan {
        let first = self.times.partition_point(|t| *t < file.time_min);
        let last = self.times.partition_point(|t| *t <= file.time_max);
        let range = self.times.get(first).copied().zip(last.checked_sub(1).and_then(|l| self.times.get(l)).copied());
        Scan {
            table: Arc::clone(&self.history.inner.history),
            columns,
            exact_range: None,
            pruning_range: range,
            pruning: Vec::new(),
            partitions: 1,
            limit: None,
        }
    }
}

/// The greatest rows found so far.
struct Best {
    /// Of each identity: batch, row, and the greatest revision.
    rows: Vec<Option<(usize, usize, i32)>>,
    /// The rows found, with the payload's comparable bytes.
    batches: Vec<(RecordBatch, Rows)>,
}

impl Best {
    fn take(&mut self, keys: &Keys, batch: RecordBatch, identities: &Rows, slots: &HashMap<&[u8], usize>) -> Result<()> {
        let payloads = keys.payloads(&batch, keys.identity.len())?;
        let last = batch.num_columns().saturating_sub(1);
        let revisions = batch.columns().get(last).and_then(|c| c.as_primitive_opt::<Int32Type>().cloned());
        let revisions = revisions.ok_or_else(no_column)?;
        let here = self.batches.len();
        self.batches.push((batch, payloads));
        for (row, identity) in identities.iter().enumerate() {
            let Some(slot) = slots.get(identity.data()).and_then(|slot| self.rows.get_mut(*slot)) else { continue };
            let revision = revisions.value(row);
            *slot = Some(match *slot {
                None => (here, row, revision),
                Some((of, at, greatest)) => {
                    let payload = |batch: usize, row: usize| self.batches.get(batch).map(|(_, p)| p.row(row).data().to_vec());
                    let (of, at) = if payload(here, row) > payload(of, at) { (here, row) } else { (of, at) };
                    (of, at, greatest.max(revision))
                }
            });
        }
        Ok(())
    }

    fn answer(self, history: &StreamHistory, asked: impl Iterator<Item = Option<usize>>) -> Result<Existing> {
        let mut place_of = vec![None; self.rows.len()];
        let (mut rows, mut revision_max) = (Vec::new(), Vec::new());
        for (place, found) in place_of.iter_mut().zip(&self.rows) {
            if let Some((batch, row, revision)) = found {
                *place = Some(rows.len());
                rows.push((*batch, *row));
                revision_max.push(*revision);
            }
        }
        let found = asked.map(|slot| slot.and_then(|slot| place_of.get(slot).copied().flatten())).collect();
        let schema = history.schema().columns();
        let batches = self.batches.iter().map(|(batch, _)| batch).collect::<Vec<_>>();
        let visible = match batches.is_empty() {
            true => RecordBatch::new_empty(Arc::clone(schema)),
            false => {
                let rows = interleave_record_batch(&batches, &rows)?;
                // The batches have identity and payload in an order of their own.
                let columns = schema.fields().iter().map(|f| rows.column_by_name(f.name()).cloned().ok_or_else(no_column));
                RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>>>()?)?
            }
        };
        Ok(Existing { found, visible, revision_max })
    }
}
