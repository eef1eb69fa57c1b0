//! Temporary tables: rows that a client sent and that it alone can read, until it goes away.
//!
//! They are seen by what runs for their connection: the names of a query are resolved in its own task.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use super::super::Inner;
use crate::error::{Error, Result};

tokio::task_local! {
    /// The temporary tables of the connection that the present task works for.
    pub(super) static TEMPORARY: Arc<TemporaryTables>;
}

/// The temporary table of a name, of the connection that the present task works for.
pub(in crate::engine) fn temporary_table(name: &str) -> Option<Arc<dyn TableProvider>> {
    TEMPORARY.try_with(|tables| tables.get(name)).ok().flatten()
}

/// What becomes of a temporary table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingest {
    /// Made; one of that name must not exist.
    Create,
    /// Extended; it must exist.
    Append,
    /// Extended, or made where it does not exist.
    CreateOrAppend,
    /// Made anew.
    Replace,
}

#[derive(Debug)]
struct Kept {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    table: Arc<MemTable>,
    bytes: usize,
}

/// The temporary tables of one connection.
#[derive(Debug)]
pub(super) struct TemporaryTables {
    engine: Arc<Inner>,
    tables: RwLock<BTreeMap<String, Kept>>,
}

impl TemporaryTables {
    pub(super) fn new(engine: &Arc<Inner>) -> Self {
        Self { engine: engine.clone(), tables: RwLock::default() }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let tables = self.tables.read().unwrap_or_else(|e| e.into_inner());
        tables.get(name).map(|t| t.table.clone() as Arc<dyn TableProvider>)
    }

    pub(super) fn all(&self) -> Vec<(String, SchemaRef)> {
        let tables = self.tables.read().unwrap_or_else(|e| e.into_inner());
        tables.iter().map(|(name, t)| (name.clone(), t.schema.clone())).collect()
    }

    pub(super) fn put(&self, name: &str, schema: SchemaRef, mut batches: Vec<RecordBatch>, how: Ingest) -> Result<()> {
        let mut tables = self.tables.write().unwrap_or_else(|e| e.into_inner());
        let before = tables.get(name).map_or(0, |t| t.bytes);
        match (tables.get(name), how) {
            (Some(_), Ingest::Create) => return Err(Error::invalid(format!("temporary table \"{name}\" exists"))),
            (None, Ingest::Append) => return Err(Error::invalid(format!("there is no temporary table \"{name}\""))),
            (Some(kept), Ingest::Append | Ingest::CreateOrAppend) => {
                let shape = |s: &SchemaRef| s.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>();
                if shape(&kept.schema) != shape(&schema) {
                    return Err(Error::invalid(format!("the rows do not have the columns of temporary table \"{name}\"")));
                }
                let all = kept.batches.iter().cloned().chain(batches);
                batches = all.map(|b| super::with_schema(&b, &kept.schema)).collect::<Result<_>>()?;
            }
            _ => {}
        }
        let schema = tables.get(name).filter(|_| how != Ingest::Replace).map_or(schema, |t| t.schema.clone());
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let limit = self.engine.settings.memory_limit_bytes / 2;
        let taken = self.engine.temporary_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let made = if taken.saturating_sub(before) > limit {
            Err(Error::unavailable(format!("temporary tables take {taken} bytes, more than half of memory_limit_bytes ({limit})")))
        } else {
            // As many partitions as there are threads to read them.
            let parts = self.engine.settings.threads.clamp(1, batches.len().max(1));
            let mut partitions = vec![Vec::new(); parts];
            let size = batches.len().div_ceil(parts).max(1);
            batches.chunks(size).zip(&mut partitions).for_each(|(chunk, partition)| partition.extend_from_slice(chunk));
            MemTable::try_new(schema.clone(), partitions).map_err(Error::from)
        };
        match made {
            Ok(table) => {
                self.engine.temporary_bytes.fetch_sub(before, Ordering::AcqRel);
                tables.insert(name.to_owned(), Kept { schema, batches, table: Arc::new(table), bytes });
                Ok(())
            }
            Err(e) => {
                self.engine.temporary_bytes.fetch_sub(bytes, Ordering::AcqRel);
                Err(e)
            }
        }
    }
}

impl Drop for TemporaryTables {
    fn drop(&mut self) {
        let tables = self.tables.get_mut().unwrap_or_else(|e| e.into_inner());
        let bytes = tables.values().map(|t| t.bytes).sum();
        self.engine.temporary_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}
