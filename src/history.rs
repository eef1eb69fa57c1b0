//! History: the durable events of one stream, in three Delta tables under the warehouse.
//!
//! ```text
//! streams/<folder>/   what was accepted: the stream's columns, _partition, _offset, _arrived_at, _revision; by event date (_date)
//! late/<folder>/      what came too late, the same columns
//! rejected/<folder>/  what could not be taken: raw, reason, _partition, _offset, _arrived_at
//! ```
//!
//! A [`Commit`] holds what one step of ingestion read and how far each source then is, as Delta's application transactions. Late and
//! rejected rows are committed first, history last, each with the same transactions; whoever repeats a step after a crash
//! skips, table by table, what is there. So a record is in exactly one table, exactly once. Rows are only ever
//! added; the tables hold no deletion vectors and no column mapping, and keep their log and every file, so that every version stays readable,
//! to other tools too.
//!
//! - [`write`]: rows to Parquet files by event date, with the statistics that readers prune by.
//! - [`scan`]: the tables as DataFusion sees them, pruned by event time.
//! - [`visible`]: which rows of a primary key's conflicts are seen: only the greatest in the order of the stream.
//! - [`lookup`]: which identities are there already.
//! - [`since`]: what changed since a version.
//! - [`compact`]: small files become large ones.
//!
//! To read the events in order of arrival, scan with the hidden columns (`TableOptions { hidden: true, all_rows: true, .. }`) and sort
//! by `_arrived_at`, `_partition`, `_offset`.
//!
//! Not here: what is late or a duplicate (`stream`), who may write (`warehouse::lease`).

pub mod compact;
mod files;
pub mod lookup;
pub mod scan;
pub mod since;
mod stats;
mod table;
pub mod visible;
pub mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::execution::TaskContext;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::{Map, Value};

pub use self::lookup::Existing;
pub use self::scan::{HistoryTable, TableOptions};
use self::table::{Layout, Sources, Table};
pub use self::write::{WriteOptions, Writer, WrittenFiles};
use crate::crash::crash_point;
use crate::error::{Error, Result};
use crate::warehouse::Warehouse;

/// The hidden column that names the source partition.
pub const PARTITION: &str = "_partition";
/// The hidden column that counts within the partition.
pub const OFFSET: &str = "_offset";
/// The hidden column that says when the event was accepted.
pub const ARRIVED_AT: &str = "_arrived_at";
/// The hidden column that is above 0 where a row conflicts with an earlier one of its identity.
pub const REVISION: &str = "_revision";
/// The column that files lie by: the day of the event time. Known to other tools, never shown.
pub const DATE: &str = "_date";
/// The column of rejected records that holds their bytes.
pub const RAW: &str = "raw";
/// The column of rejected records that says why.
pub const REASON: &str = "reason";

/// The columns of a stream, what identifies an event and what says when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySchema {
    columns: SchemaRef,
    primary_key: Vec<usize>,
    event_time: usize,
}

impl HistorySchema {
    /// - `columns` have the canonical types; `primary_key` is empty where the stream is a multiset.
    /// - Errors: [`crate::error::Kind::Invalid`] for a name that history needs or that differs from another only in case.
    pub fn try_new(columns: SchemaRef, primary_key: Vec<usize>, event_time: usize) -> Result<Self> {
        let time = columns.fields().get(event_time).map(|f| f.data_type());
        if time != Some(&timestamp_type()) || primary_key.iter().any(|c| *c >= columns.fields().len()) {
            return Err(Error::internal("a history without event time, or with a key that is not there"));
        }
        for (i, field) in columns.fields().iter().enumerate() {
            let name = field.name();
            if [PARTITION, OFFSET, ARRIVED_AT, REVISION, DATE].iter().any(|hidden| name.eq_ignore_ascii_case(hidden)) {
                return Err(Error::invalid(format!("column name \"{name}\" is reserved")));
            }
            let same = |other: &&Arc<Field>| other.name().to_lowercase() == name.to_lowercase();
            if let Some(other) = columns.fields()[..i].iter().find(same) {
                return Err(Error::invalid(format!(
                    "columns \"{}\" and \"{name}\" differ in case only, which history cannot hold",
                    other.name()
                )));
            }
        }
        Ok(Self { columns, primary_key, event_time })
    }

    /// The stream's columns in declaration order.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The columns of the primary key.
    pub fn primary_key(&self) -> &[usize] {
        &self.primary_key
    }

    /// The column of the event time.
    pub fn event_time(&self) -> usize {
        self.event_time
    }

    /// The columns that a batch of accepted or late rows has: the stream's, then [`PARTITION`], [`OFFSET`], [`ARRIVED_AT`], [`REVISION`].
    pub fn stored(&self) -> SchemaRef {
        let mut fields = self.columns.fields().iter().cloned().collect::<Vec<_>>();
        fields.extend(coordinates());
        fields.push(Arc::new(Field::new(REVISION, DataType::Int32, false)));
        Arc::new(Schema::new(fields))
    }
}

/// The columns that a batch of rejected records has.
pub fn rejected_schema() -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new(RAW, DataType::BinaryView, false)), Arc::new(Field::new(REASON, DataType::Utf8View, false))];
    fields.extend(coordinates());
    Arc::new(Schema::new(fields))
}

fn coordinates() -> [Arc<Field>; 3] {
    [
        Arc::new(Field::new(PARTITION, DataType::Utf8View, false)),
        Arc::new(Field::new(OFFSET, DataType::Int64, false)),
        Arc::new(Field::new(ARRIVED_AT, timestamp_type(), false)),
    ]
}

fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The name of a stream's folders: its name, with what no path should hold written `~hh`, and its lineage from the second on.
pub fn folder_name(stream: &str, lineage: u64) -> String {
    let mut folder = String::with_capacity(stream.len());
    for byte in stream.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => folder.push(char::from(byte)),
            other => folder.push_str(&format!("~{other:02x}")),
        }
    }
    if lineage > 0 {
        folder.push_str(&format!(".{lineage}"));
    }
    folder
}

/// How far one source is once a commit is there: an application transaction of Delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The source: one per stream lineage and partition, or a token.
    pub app_id: String,
    /// The `_partition` of its rows; `None` for a token.
    pub partition: Option<String>,
    /// What the commit builds on; `None` where nothing of this source was committed before.
    pub expected: Option<i64>,
    /// What is true once it is there: the next offset of the partition.
    pub version: i64,
    /// The first offset, where the records have none of their own: a table that is beyond it holds others of these numbers.
    pub numbered_from: Option<i64>,
}

/// An application transaction that a commit builds on and does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Its name.
    pub app_id: String,
    /// What it is; `None` where it is not there.
    pub expected: Option<i64>,
}

/// What one step of ingestion adds to a stream.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Accepted rows in the schema of [`HistorySchema::stored`].
    pub accepted: Vec<RecordBatch>,
    /// Accepted rows that a [`Writer`] wrote already.
    pub files: WrittenFiles,
    /// Late rows, in the same schema.
    pub late: Vec<RecordBatch>,
    /// Rejected records in the schema of [`rejected_schema`].
    pub rejected: Vec<RecordBatch>,
    /// How far each source then is; at least one.
    pub progress: Vec<Progress>,
    /// What history must still be like: otherwise nothing is committed.
    pub guards: Vec<Guard>,
    /// Numbers that history keeps under a name, like a source's, and nobody compares.
    pub notes: Vec<(String, i64)>,
    /// What else is to be said of the commit: counts, where `$late` was read up to.
    pub info: Map<String, Value>,
}

/// What became of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in history, for good.
    Committed {
        /// The version of history that it made.
        version: i64,
    },
    /// A source is not where the commit builds on, so nothing was added to history: the commit is there already, or another
    /// process has gone on.
    Superseded {
        /// The source.
        app_id: String,
        /// How far it is.
        found: Option<i64>,
    },
}

/// One of the three tables of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// What was accepted.
    History,
    /// What came too late.
    Late,
    /// What could not be taken.
    Rejected,
}

/// The history of one stream; cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamHistory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    warehouse: Warehouse,
    schema: HistorySchema,
    history: Arc<Table>,
    late: Arc<Table>,
    rejected: Arc<Table>,
    visible: Arc<visible::Cache>,
    context: Arc<TaskContext>,
    /// Nanoseconds that the last commit took; 0 once somebody asked.
    commit_took: AtomicU64,
}

impl StreamHistory {
    /// Makes the tables of a new stream; those that are there already, with the same columns, are taken as they are.
    ///
    /// To be called before the stream is in the catalog: tables without a stream are harmless.
    pub async fn create(warehouse: &Warehouse, stream: &str, folder: &str, schema: HistorySchema) -> Result<Self> {
        Self::with_tables(warehouse, stream, folder, schema, true).await
    }

    /// Opens the tables of a stream that the catalog knows.
    ///
    /// - Errors: [`crate::error::Kind::Data`] naming the table, where it is missing, damaged, or has other columns.
    pub async fn open(warehouse: &Warehouse, stream: &str, folder: &str, schema: HistorySchema) -> Result<Self> {
        Self::with_tables(warehouse, stream, folder, schema, false).await
    }

    async fn with_tables(warehouse: &Warehouse, stream: &str, folder: &str, schema: HistorySchema, create: bool) -> Result<Self> {
        let stored = schema.stored();
        let time = schema.event_time;
        let layouts = [
            Layout { part: Part::History, schema: Arc::clone(&stored), time, by_date: true },
            Layout { part: Part::Late, schema: stored, time, by_date: true },
            Layout { part: Part::Rejected, schema: rejected_schema(), time: 4, by_date: false },
        ];
        let open = |layout| Table::open(warehouse.clone(), stream.to_owned(), folder.to_owned(), layout, create);
        let [history, late, rejected] = layouts.map(open);
        let (history, late, rejected) = futures::try_join!(history, late, rejected)?;
        let (history, late, rejected) = (Arc::new(history), Arc::new(late), Arc::new(rejected));
        let visible = Arc::new(visible::Cache::default());
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        warehouse.register(&context.runtime_env());
        let context = context.task_ctx();
        let warehouse = warehouse.clone();
        Ok(Self { inner: Arc::new(Inner { warehouse, schema, history, late, rejected, visible, context, commit_took: AtomicU64::new(0) }) })
    }

    /// The stream's columns.
    pub fn schema(&self) -> &HistorySchema {
        &self.inner.schema
    }

    /// The newest version of history that this process knows: its own commits, and what [`StreamHistory::refresh`] found.
    pub fn version(&self) -> i64 {
        self.inner.history.current().version()
    }

    /// The folder of its tables: the lineage.
    pub fn folder(&self) -> &str {
        self.inner.history.folder()
    }

    /// Looks for commits of other processes, in all three tables; returns the version of history.
    pub async fn refresh(&self) -> Result<i64> {
        let Inner { history, late, rejected, .. } = self.inner.as_ref();
        futures::try_join!(history.refresh(), late.refresh(), rejected.refresh())?;
        Ok(self.version())
    }

    /// How far a source is in history; `None` where nothing of it was committed.
    pub async fn transaction_version(&self, app_id: &str) -> Result<Option<i64>> {
        self.inner.history.current().transaction_version(app_id).await
    }

    /// How far a source is in the farthest of the three tables.
    ///
    /// It is ahead of [`StreamHistory::transaction_version`] after a crash between the commits of one step. A source that cannot be
    /// read again, where the server numbers the records, goes on from here, so that no coordinate is given twice.
    pub async fn farthest_version(&self, app_id: &str) -> Result<Option<i64>> {
        let Inner { history, late, rejected, .. } = self.inner.as_ref();
        let (history, late, rejected) = (history.current(), late.current(), rejected.current());
        let (a, b, c) = futures::try_join!(
            history.transaction_version(app_id),
            late.transaction_version(app_id),
            rejected.transaction_version(app_id)
        )?;
        Ok(a.max(b).max(c))
    }

    /// What [`Commit::info`] said of the commit that made a version of history; `None` where it said nothing.
    pub async fn commit_info(&self, version: i64) -> Result<Option<Map<String, Value>>> {
        self.inner.history.commit_info(version).await
    }

    /// A writer for more rows than memory holds; what it wrote goes into [`Commit::files`].
    pub fn writer(&self, options: WriteOptions) -> Result<Writer> {
        Writer::try_new(Arc::clone(&self.inner.history), options)
    }

    /// Adds a step to the three tables: all of it or, after a crash, what a repetition completes.
    ///
    /// - Returns [`Outcome::Superseded`], and leaves history as it is, where a source is not where the commit expects it.
    /// - Rows of late and rejected records that those tables hold already, by their coordinates and transactions, are skipped.
    /// - Errors: [`crate::error::Kind::Unavailable`] where the storage fails; what became of the commit, its transactions then say.
    pub async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let started = Instant::now();
        let outcome = self.commit_all(commit).await?;
        if let Outcome::Committed { .. } = outcome {
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.inner.commit_took.store(took.max(1), Ordering::Relaxed);
        }
        Ok(outcome)
    }

    /// How long the last commit took until it was durable, told once: `None` where none was made since this was last asked.
    pub fn commit_took(&self) -> Option<Duration> {
        match self.inner.commit_took.swap(0, Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    async fn commit_all(&self, commit: Commit) -> Result<Outcome> {
        let Inner { history, late, rejected, .. } = self.inner.as_ref();
        let Commit { accepted, mut files, late: late_rows, rejected: rejected_rows, progress, guards, notes, info } = commit;
        if progress.is_empty() {
            return Err(Error::internal("a commit says how far no source is"));
        }
        // What would be refused at the end is refused before it can leave rows in the other tables.
        if let Some(superseded) = history.current().superseded(&progress, &guards).await? {
            history.refresh().await?;
            return Ok(superseded);
        }
        if !accepted.is_empty() {
            let mut writer = self.writer(WriteOptions::default())?;
            for batch in accepted {
                writer.write(batch).await?;
            }
            files.extend(writer.finish().await?);
        }
        crash_point("history.prepared");
        for (table, rows, point) in [(late, late_rows, "late.committed"), (rejected, rejected_rows, "rejected.committed")] {
            if rows.iter().any(|batch| batch.num_rows() > 0) {
                commit_aside(table, rows, &progress).await?;
                crash_point(point);
            }
        }
        let outcome = history.commit(files.into_actions(), Sources { progress: &progress, guards: &guards, notes: &notes }, info).await?;
        crash_point("history.committed");
        Ok(outcome)
    }

    /// Makes the tables take further columns, all nullable and behind those that are there; older rows have NULL in them.
    ///
    /// To be called before the catalog says so. Rows written through the older handle stay without these columns.
    pub async fn add_columns(&self, schema: HistorySchema) -> Result<Self> {
        let old = self.inner.schema.columns.fields();
        let new = schema.columns.fields();
        if new.len() < old.len() || new[..old.len()] != old[..] || new[old.len()..].iter().any(|f| !f.is_nullable()) {
            return Err(Error::internal("columns of a history can only be added, at the end, and nullable"));
        }
        let added = &new[old.len()..];
        let Inner { warehouse, history, late, .. } = self.inner.as_ref();
        futures::try_join!(history.add_columns(added), late.add_columns(added))?;
        Self::open(warehouse, history.stream(), history.folder(), schema).await
    }

    /// The table of accepted, late or rejected rows as DataFusion sees it.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] for a version that is not there; [`crate::error::Kind::Data`] naming the table and
    ///   the file of its log that is damaged.
    pub async fn table(&self, part: Part, options: TableOptions) -> Result<Arc<HistoryTable>> {
        HistoryTable::open(self, part, options).await.map(Arc::new)
    }

    /// Waits for what runs behind the commits: the checkpoints of the logs. To be called before the process ends.
    pub async fn settle(&self) -> Result<()> {
        let Inner { history, late, rejected, .. } = self.inner.as_ref();
        futures::try_join!(history.settle(), late.settle(), rejected.settle()).map(|_| ())
    }

    fn part(&self, part: Part) -> &Arc<Table> {
        match part {
            Part::History => &self.inner.history,
            Part::Late => &self.inner.late,
            Part::Rejected => &self.inner.rejected,
        }
    }
}

/// Adds rows to the late or rejected table, but for those that an earlier attempt of the same step left there.
async fn commit_aside(table: &Arc<Table>, rows: Vec<RecordBatch>, progress: &[Progress]) -> Result<()> {
    let mut files: Option<(Vec<Option<i64>>, WrittenFiles)> = None;
    loop {
        let snapshot = table.current();
        let mut found = Vec::with_capacity(progress.len());
        for source in progress {
            found.push(snapshot.transaction_version(&source.app_id).await?);
        }
        if progress.iter().zip(&found).any(|(source, found)| source.numbered_from.zip(*found).is_some_and(|(from, found)| found > from)) {
            return Err(Error::unavailable("another process has written to the stream meanwhile; nothing was written: try again"));
        }
        let there = |(source, found): (&Progress, &Option<i64>)| found.is_some_and(|v| v >= source.version);
        let tokens = progress.iter().zip(&found).filter(|(source, _)| source.partition.is_none());
        if tokens.into_iter().any(there) || progress.iter().zip(&found).all(there) {
            return Ok(());
        }
        // The files of an attempt that met another writer are of use again only if that one did not move these sources.
        let written = match files.take().filter(|(for_found, _)| *for_found == found) {
            Some((_, written)) => written,
            None => {
                let mut writer = Writer::try_new(Arc::clone(table), WriteOptions::default())?;
                for batch in &rows {
                    writer.write(without_committed(batch, progress, &found)?).await?;
                }
                writer.finish().await?
            }
        };
        let ahead = progress.iter().zip(&found).filter(|pair| !there(*pair)).map(|(source, _)| source.clone());
        let ahead = ahead.collect::<Vec<_>>();
        if table.try_commit(&snapshot, written.clone().into_actions(), Sources::of(&ahead), Map::new()).await?.is_some() {
            return Ok(());
        }
        files = Some((found, written));
    }
}

/// The rows whose offset their partition's transaction has not passed yet.
fn without_committed(batch: &RecordBatch, progress: &[Progress], found: &[Option<i64>]) -> Result<RecordBatch> {
    let passed = |(source, found): (&Progress, &Option<i64>)| match (&source.partition, found) {
        (Some(partition), Some(found)) if Some(*found) > source.expected => Some((partition.clone(), *found)),
        _ => None,
    };
    let passed = progress.iter().zip(found).filter_map(passed).collect::<Vec<_>>();
    if passed.is_empty() {
        return Ok(batch.clone());
    }
    let missing = || Error::internal("a batch of late or rejected rows has no coordinates");
    let partitions = batch.column_by_name(PARTITION).and_then(|c| c.as_string_view_opt()).ok_or_else(missing)?;
    let offsets = batch.column_by_name(OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
    let keep = (0..batch.num_rows()).map(|row| {
        let (partition, offset) = (partitions.value(row), offsets.value(row));
        !passed.iter().any(|(name, next)| name == partition && offset < *next)
    });
    let keep: BooleanArray = keep.map(Some).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

#[cfg(test)]
pub(crate) mod tests;
