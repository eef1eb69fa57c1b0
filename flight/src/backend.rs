//! What the server needs of whoever implements it: sessions that run SQL, readers of features, streams to write to.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::ipc::Layout;
use crate::request::{At, FeatureRequest};
use crate::status::Outcome;

/// Batches as they are computed. Dropping it stops the work.
pub type RowStream = Pin<Box<dyn Stream<Item = Outcome<RecordBatch>> + Send>>;

/// What serves.
pub trait Backend: Send + Sync + 'static {
    /// The session of a new connection; it ends when the last handle is dropped.
    fn connect(&self) -> Arc<dyn Session>;

    /// The time of day, microseconds since the Unix epoch.
    fn now_us(&self) -> i64;

    /// The name and version of the server.
    fn name(&self) -> (&str, &str);
}

/// What one connection may do. Every call runs to its end or is cancelled by dropping it; what writes is never half done.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// What a statement gives and takes.
    async fn prepare(&self, sql: String) -> Outcome<Prepared>;

    /// Runs a script; the answer is that of its last statement. Each row of `parameters` is one set of values.
    async fn run(&self, sql: String, parameters: Option<RecordBatch>) -> Outcome<Answer>;

    /// What there is to read: streams, views, tables and the session's own temporary tables.
    async fn tables(&self) -> Outcome<Vec<TableInfo>>;

    /// A reader of features; cheap where the same was asked for before.
    async fn reader(&self, request: &FeatureRequest) -> Outcome<Arc<dyn FeatureReader>>;

    /// Writes rows into a stream as one commit; returns when they are durable.
    async fn put(&self, stream: String, rows: Vec<RecordBatch>, token: Option<String>) -> Outcome<PutCounts>;

    /// The kind of the object of a name; `None` where there is none.
    async fn kind(&self, name: &str) -> Outcome<Option<TableKind>>;

    /// Makes, extends or replaces a temporary table of this session.
    async fn put_temporary(&self, table: String, schema: SchemaRef, rows: Vec<RecordBatch>, mode: TemporaryMode) -> Outcome<()>;
}

/// Features of entities by key, without SQL.
#[async_trait]
pub trait FeatureReader: Send + Sync + 'static {
    /// The entity columns, in order.
    fn keys(&self) -> &SchemaRef;

    /// The columns of an answer: the features, or the entity columns before them.
    fn layout(&self, with_keys: bool) -> &Layout;

    /// The features of entities: one column an entity column in, one column a feature out, rows in the order given.
    /// `here`: an entity that another process has is an error that says which.
    async fn read(&self, keys: Vec<ArrayRef>, at: At, here: bool) -> Outcome<Features>;

    /// The address of the other process that has all of these entities; `None` where there is no such, or where they are here.
    async fn served_at(&self, keys: &[ArrayRef]) -> Option<String>;

    /// Whether definitions have changed since this reader was made.
    fn is_outdated(&self) -> bool;
}

/// The features of entities.
#[derive(Debug, Clone)]
pub struct Features {
    /// The keys as the entity columns' types; NULL where no entity can have the key that was given.
    pub keys: Vec<ArrayRef>,
    /// A column a feature, a row an entity.
    pub columns: Vec<ArrayRef>,
    /// What else is to be said, as that they were computed from history.
    pub note: Option<String>,
}

/// What a statement gives and takes.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The columns of its answer; `None` for one that answers no rows.
    pub columns: Option<SchemaRef>,
    /// Its parameters, named `$1` and so on, with the types that were found.
    pub parameters: SchemaRef,
}

/// What a statement answers.
pub enum Answer {
    /// Rows, computed when they are asked for.
    Rows(Rows),
    /// Something was done.
    Done {
        /// What, in one line.
        message: String,
        /// What became of records, where some were written.
        counts: Option<PutCounts>,
    },
}

/// Rows, computed when they are asked for.
pub struct Rows {
    /// Their columns.
    pub schema: SchemaRef,
    /// The address of the other process that has all that the rows are made of; `None` where there is no such.
    pub location: Option<String>,
    /// Starts the work.
    pub start: Box<dyn FnOnce() -> RowStream + Send>,
    /// Whether the order of the rows means nothing, so that several readers may share them.
    pub unordered: bool,
}

/// What became of written records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PutCounts {
    /// Records read.
    pub read: u64,
    /// Of them accepted.
    pub accepted: u64,
    /// Of them seen before.
    pub duplicate: u64,
    /// Of them late.
    pub late: u64,
    /// Of them rejected.
    pub rejected: u64,
    /// Of the accepted those in conflict with another.
    pub conflicts: u64,
}

impl std::ops::AddAssign for PutCounts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.rejected += other.rejected;
        self.conflicts += other.conflicts;
    }
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// A stream.
    Stream,
    /// A feature view.
    FeatureView,
    /// A table that others wrote.
    Table,
    /// A temporary table of the session.
    Temporary,
}

impl TableKind {
    /// As catalogs show it.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Stream => "STREAM",
            TableKind::FeatureView => "FEATURE VIEW",
            TableKind::Table => "TABLE",
            TableKind::Temporary => "LOCAL TEMPORARY",
        }
    }

    /// All of them.
    pub const ALL: [TableKind; 4] = [TableKind::FeatureView, TableKind::Temporary, TableKind::Stream, TableKind::Table];
}

/// Something that can be read.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: TableKind,
    /// Its columns.
    pub schema: SchemaRef,
    /// What identifies its rows: a stream's primary key, a view's entity.
    pub key: Vec<String>,
}

/// What becomes of a temporary table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemporaryMode {
    /// Made; one of that name must not exist.
    Create,
    /// Extended; it must exist.
    Append,
    /// Extended, or made where it does not exist.
    CreateOrAppend,
    /// Made anew.
    Replace,
}
