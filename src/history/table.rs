//! One Delta table: its snapshots, its transactions, and commits that are checked against the very snapshot they build on.
//!
//! Delta does not refuse a transaction version that is already there, so every commit compares first, and is put only as the next
//! version of the snapshot it was compared on; whoever comes second compares again. What a failed put did to the log is read from
//! the log, where each commit carries its own mark. Not here: which rows, which files (`write`), which tables together (`history`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use deltalake_core::checkpoints::create_checkpoint;
use deltalake_core::kernel::transaction::{CommitData, CommitProperties, PROTOCOL, TransactionError};
use deltalake_core::kernel::{Action, Add, DataType as DeltaType, DecimalType, PrimitiveType, Remove, StructField, Transaction, Version};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::files::{DataFile, Files};
use super::visible::Losers;
use super::{DATE, Guard, Outcome, Part, Progress};
use crate::error::{Error, Kind, Result};
use crate::time::{Clock, SystemClock};
use crate::warehouse::Warehouse;

/// How often a commit is compared anew where other processes commit to the same table.
const ATTEMPTS: usize = 32;

/// How many transactions of a snapshot are remembered; the log has them all.
const TRANSACTIONS_KEPT: usize = 10_000;

/// How many old versions stay loaded.
const VERSIONS_KEPT: usize = 4;

/// How many entries of the log are read at once.
const LOG_READS: usize = 8;

/// How many commits lie between two checkpoints of the log.
const CHECKPOINT_COMMITS: i64 = 100;

/// What the program says of a commit, in the log's `commitInfo`.
const INFO_KEY: &str = "asof";
const MARK_KEY: &str = "asofCommit";

/// The columns of a table's files, and how the files lie.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) part: Part,
    pub(super) schema: SchemaRef,
    /// The timestamp that files are pruned by.
    pub(super) time: usize,
    /// Whether they lie by its date.
    pub(super) by_date: bool,
}

/// One Delta table of a stream.
#[derive(Debug)]
pub(super) struct Table {
    warehouse: Warehouse,
    stream: String,
    folder: String,
    /// How the table is called in messages.
    name: String,
    /// In the warehouse's store.
    path: Path,
    log: LogStoreRef,
    layout: Arc<Layout>,
    current: Arc<Mutex<Arc<Snapshot>>>,
    old: Mutex<Vec<Arc<Snapshot>>>,
    checkpoint: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// One version of a table: what was loaded of its log, and the commits that this process has put behind it since.
#[derive(Debug)]
pub(super) struct Snapshot {
    base: Arc<Base>,
    own: Vec<Arc<OwnCommit>>,
    version: i64,
    files: OnceCell<Arc<Files>>,
    losers: OnceCell<Arc<Losers>>,
}

/// A version as it was loaded from the log.
#[derive(Debug)]
struct Base {
    state: DeltaTableState,
    log: LogStoreRef,
    name: String,
    transactions: Mutex<HashMap<String, Option<i64>>>,
    files: OnceCell<Arc<Files>>,
    /// The files of another version, most of which are here too.
    seed: Option<Arc<Files>>,
}

/// What a commit of this process added and, where it is a rewrite of rows that are there, took away.
#[derive(Debug)]
struct OwnCommit {
    version: i64,
    files: Vec<Arc<DataFile>>,
    removed: Vec<String>,
    transactions: Vec<(String, i64)>,
}

/// The application transactions of a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) progress: &'a [Progress],
    pub(super) guards: &'a [Guard],
    pub(super) notes: &'a [(String, i64)],
}

impl<'a> Sources<'a> {
    /// Nothing but the progress of sources.
    pub(super) fn of(progress: &'a [Progress]) -> Self {
        Self { progress, guards: &[], notes: &[] }
    }

    /// Those that the commit sets.
    fn moved(&self) -> impl Iterator<Item = (&'a str, i64)> {
        let progress = self.progress.iter().map(|p| (p.app_id.as_str(), p.version));
        progress.chain(self.notes.iter().map(|(app_id, version)| (app_id.as_str(), *version)))
    }
}

/// What a commit does to the files of a table.
struct Change {
    removed: Vec<Remove>,
    files: Vec<Add>,
    operation: DeltaOperation,
}

impl Table {
    pub(super) async fn open(warehouse: Warehouse, stream: String, folder: String, layout: Layout, create: bool) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'~' | b'.');
        if folder.is_empty() || folder.starts_with('.') || !folder.bytes().all(allowed) {
            return Err(Error::internal(format!("\"{folder}\" is no folder of a stream")));
        }
        let area = match layout.part {
            Part::History => "streams",
            Part::Late => "late",
            Part::Rejected => "rejected",
        };
        let path = inside(format!("{area}/{folder}"));
        let name = format!("{} of stream \"{stream}\" ({path})", part_name(layout.part));
        let url = warehouse.url().join(&format!("{area}/{folder}/"));
        let url = url.map_err(|e| Error::internal(format!("{name} has no URL: {e}")))?;
        let root = Arc::clone(warehouse.root_store());
        let prefix = Path::from_url_path(url.path()).map_err(|e| Error::internal(format!("{name} has no path: {e}")))?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), prefix));
        let log: LogStoreRef = default_logstore(store, root, &url, &StorageConfig::default());
        let there = log.is_delta_table_location().await.map_err(|e| delta_error(&name, e))?;
        if !there {
            if !create {
                return Err(Error::data(format!("{name} is missing: there is no log in it")));
            }
            create_table(&log, &layout).await.map_err(|e| delta_error(&name, e))?;
            warehouse.sync(vec![log_entry(&path, 0)]).await?;
        }
        let state = load(&log, None).await.map_err(|e| delta_error(&name, e))?;
        check_schema(&name, &state, &layout)?;
        PROTOCOL.can_write_to(&state).map_err(|e| delta_error(&name, e.into()))?;
        let base = Base::new(state, Arc::clone(&log), name.clone(), None);
        let current = Arc::new(Mutex::new(Arc::new(Snapshot::new(Arc::new(base), Vec::new()))));
        let (layout, old, checkpoint) = (Arc::new(layout), Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { warehouse, stream, folder, name, path, log, layout, current, old, checkpoint })
    }

    pub(super) fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }

    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// How the table is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The newest version that is known.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&lock(&self.current))
    }

    /// Looks for newer versions.
    pub(super) async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let current = self.current();
        let known = to_delta(current.version).ok_or_else(|| self.no_version(current.version))?;
        let newest = self.log.get_latest_version(known).await.map_err(|e| delta_error(&self.name, e))?;
        if newest <= known {
            return Ok(current);
        }
        let mut state = current.base.state.clone();
        state.update(self.log.as_ref(), None).await.map_err(|e| delta_error(&self.name, e))?;
        check_schema(&self.name, &state, &self.layout)?;
        let seed = current.files.get().or(current.base.files.get()).or(current.base.seed.as_ref()).cloned();
        let base = Base::new(state, Arc::clone(&self.log), self.name.clone(), seed);
        Ok(self.advance(Snapshot::new(Arc::new(base), Vec::new())))
    }

    /// The snapshot of one version; `None` is the newest that is known.
    pub(super) async fn at(&self, version: Option<i64>) -> Result<Arc<Snapshot>> {
        let current = self.current();
        let Some(version) = version.filter(|v| *v != current.version) else { return Ok(current) };
        let newest = if version > current.version { self.refresh().await? } else { current };
        let Some(wanted) = to_delta(version).filter(|_| version <= newest.version) else {
            let message = format!("{} has no version {version}; its newest is {}", self.name, newest.version);
            return Err(Error::invalid(message));
        };
        if version >= newest.base.version() {
            let own = newest.own.iter().filter(|own| own.version <= version).cloned().collect();
            return Ok(Arc::new(Snapshot::new(Arc::clone(&newest.base), own)));
        }
        if let Some(found) = lock(&self.old).iter().find(|s| s.version == version) {
            return Ok(Arc::clone(found));
        }
        let state = load(&self.log, Some(wanted)).await.map_err(|e| delta_error(&self.name, e))?;
        let seed = newest.files.get().or(newest.base.files.get()).cloned();
        let base = Base::new(state, Arc::clone(&self.log), self.name.clone(), seed);
        let loaded = Arc::new(Snapshot::new(Arc::new(base), Vec::new()));
        let mut old = lock(&self.old);
        if old.len() >= VERSIONS_KEPT {
            old.remove(0);
        }
        old.push(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Commits files with their transactions, as soon as each source is where the commit expects it.
    pub(super) async fn commit(&self, files: Vec<Add>, sources: Sources<'_>, info: Map<String, Value>) -> Result<Outcome> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.current();
            if let Some(superseded) = snapshot.superseded(sources.progress, sources.guards).await? {
                return Ok(superseded);
            }
            if let Some(version) = self.try_commit(&snapshot, files.clone(), sources, info.clone()).await? {
                return Ok(Outcome::Committed { version });
            }
        }
        Err(Error::unavailable(format!("{} is written by others all the time", self.name)))
    }

    /// Puts one commit as the version after `snapshot`; `None`, with the table's newest version loaded, where that is taken.
    pub(super) async fn try_commit(
        &self,
        snapshot: &Arc<Snapshot>,
        files: Vec<Add>,
        sources: Sources<'_>,
        info: Map<String, Value>,
    ) -> Result<Option<i64>> {
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        self.put(snapshot, Change { removed: vec![], files, operation }, sources, info).await
    }

    /// Puts a commit as the version after `snapshot` by which files hold the rows of others, and no row changes; `None`, with the table's
    /// newest version loaded, where that is taken.
    pub(super) async fn try_rewrite(
        &self,
        snapshot: &Arc<Snapshot>,
        old: &[Arc<DataFile>],
        files: Vec<Add>,
        info: Map<String, Value>,
    ) -> Result<Option<i64>> {
        let now = SystemClock.now().0 / 1000;
        let removed = old.iter().map(|file| Remove {
            path: file.path.clone(),
            data_change: false,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(file.date.iter().map(|date| (DATE.to_owned(), Some(date.clone()))).collect()),
            size: i64::try_from(file.bytes).ok(),
            ..Remove::default()
        });
        let files = files.into_iter().map(|file| Add { data_change: false, ..file }).collect();
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        self.put(snapshot, Change { removed: removed.collect(), files, operation }, Sources::of(&[]), info).await
    }

    async fn put(&self, snapshot: &Arc<Snapshot>, change: Change, sources: Sources<'_>, info: Map<String, Value>) -> Result<Option<i64>> {
        let Change { removed, files, operation } = change;
        let version = snapshot.version + 1;
        let number = to_delta(version).ok_or_else(|| self.no_version(version))?;
        let added = files.iter().map(|add| DataFile::added(self, add).map(Arc::new)).collect::<Result<Vec<_>>>()?;
        let gone = removed.iter().map(|file| file.path.clone()).collect();
        let mark = uuid::Uuid::new_v4();
        let metadata = [(MARK_KEY.to_owned(), json!(mark.to_string())), (INFO_KEY.to_owned(), Value::Object(info))];
        let transactions = sources.moved().map(|(app_id, version)| Transaction::new(app_id, version)).collect();
        let actions = removed.into_iter().map(Action::Remove).chain(files.into_iter().map(Action::Add)).collect();
        let data = CommitData::new(actions, operation, HashMap::from(metadata), transactions);
        let bytes = data.get_bytes().map_err(|e| delta_error(&self.name, e.into()))?;
        let put = self.log.write_commit_entry(number, CommitOrBytes::LogBytes(bytes), mark).await;
        if let Err(e) = put {
            let taken = matches!(e, TransactionError::VersionAlreadyExists(_));
            // A put may fail after it was done. The mark tells whether the version is this commit.
            match self.commit_value(version, MARK_KEY).await {
                Ok(Some(Value::String(there))) if there == mark.to_string() => {}
                Ok(_) if taken => {
                    let newest = self.refresh().await?;
                    // What is built on is to last as long as what is built: whoever put it may not have come to that.
                    let entries = (version..=newest.version).filter_map(to_delta).map(|number| log_entry(&self.path, number));
                    self.warehouse.sync(entries.collect()).await?;
                    return Ok(None);
                }
                Ok(_) | Err(_) => return Err(delta_error(&self.name, e.into())),
            }
        }
        self.warehouse.sync(vec![log_entry(&self.path, number)]).await?;
        let transactions = sources.moved().map(|(app_id, version)| (app_id.to_owned(), version)).collect();
        let mut own = snapshot.own.clone();
        own.push(Arc::new(OwnCommit { version, files: added, removed: gone, transactions }));
        self.advance(Snapshot::new(Arc::clone(&snapshot.base), own));
        if (version + 1) % CHECKPOINT_COMMITS == 0 {
            self.start_checkpoint(number).await;
        }
        Ok(Some(version))
    }

    /// Lets a checkpoint of a version be made behind the commits that follow, and the own commits that it holds be forgotten. One that
    /// fails is made up for by the next.
    async fn start_checkpoint(&self, version: Version) {
        let mut running = self.checkpoint.lock().await;
        if let Some(running) = running.take() {
            // It failed or not; the log is complete without it.
            let _ = running.await;
        }
        let (log, name, current) = (Arc::clone(&self.log), self.name.clone(), Arc::clone(&self.current));
        *running = Some(tokio::spawn(async move {
            let mut table = DeltaTable::new(Arc::clone(&log));
            let made = match table.load_version(version).await {
                Ok(()) => create_checkpoint(&table, None).await,
                Err(e) => Err(e),
            };
            if let Err(e) = made {
                tracing::warn!(table = name, version, error = %e, "a checkpoint of the log was not made");
            }
            let Ok(state) = table.snapshot().cloned() else { return };
            let mut current = lock(&current);
            let seed = current.files.get().or(current.base.files.get()).or(current.base.seed.as_ref()).cloned();
            let base = Base::new(state, log, name, seed);
            if base.version() > current.base.version() && base.version() <= current.version {
                let own = current.own.iter().filter(|own| own.version > base.version()).cloned().collect();
                *current = Arc::new(Snapshot::new(Arc::new(base), own));
            }
        }));
    }

    /// Waits for the checkpoint that runs behind the commits, if any.
    pub(super) async fn settle(&self) -> Result<()> {
        if let Some(running) = self.checkpoint.lock().await.take() {
            running.await.map_err(|e| Error::internal(format!("a checkpoint of {} stopped: {e}", self.name)))?;
        }
        Ok(())
    }

    /// The table as deltalake has it.
    #[cfg(test)]
    pub(super) async fn delta_table(&self) -> DeltaTable {
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        table.load().await.expect("a table");
        table
    }

    fn no_version(&self, version: i64) -> Error {
        Error::invalid(format!("{} has no version {version}", self.name))
    }

    /// Adds nullable columns to the table; those that it has are passed over.
    pub(super) async fn add_columns(&self, fields: &[Arc<Field>]) -> Result<()> {
        let snapshot = self.refresh().await?;
        let there = snapshot.base.state.schema();
        let missing = fields.iter().filter(|f| there.field(f.name()).is_none());
        let missing = missing.map(|f| delta_field(f)).collect::<Result<Vec<_>>>()?;
        if missing.is_empty() {
            return Ok(());
        }
        let table = DeltaTable::new(Arc::clone(&self.log));
        let properties = CommitProperties::default().with_cleanup_expired_logs(Some(false));
        let added = table.add_columns().with_fields(missing).with_commit_properties(properties).await;
        let added = added.map_err(|e| delta_error(&self.name, e))?;
        let version = added.version().unwrap_or_default();
        self.warehouse.sync(vec![log_entry(&self.path, version)]).await?;
        self.refresh().await.map(|_| ())
    }

    /// What the program said of the commit that made a version.
    pub(super) async fn commit_info(&self, version: i64) -> Result<Option<Map<String, Value>>> {
        match self.commit_value(version, INFO_KEY).await? {
            Some(Value::Object(info)) => Ok(Some(info)),
            _ => Ok(None),
        }
    }

    /// The mark of the commit that made a version.
    pub(super) async fn mark(&self, version: i64) -> Result<Option<String>> {
        match self.commit_value(version, MARK_KEY).await? {
            Some(Value::String(mark)) => Ok(Some(mark)),
            _ => Ok(None),
        }
    }

    async fn commit_value(&self, version: i64, key: &str) -> Result<Option<Value>> {
        let mut actions = self.actions(version).await?;
        let info = actions.iter_mut().find_map(|action| action.get_mut("commitInfo"));
        Ok(info.and_then(|info| info.get_mut(key)).map(Value::take))
    }

    /// What the commit of a version did.
    async fn actions(&self, version: i64) -> Result<Vec<Value>> {
        let name = &self.name;
        let missing = || Error::data(format!("{name} has no log entry of version {version}"));
        let number = to_delta(version).ok_or_else(missing)?;
        let bytes = self.log.read_commit_entry(number).await.map_err(|e| delta_error(name, e))?;
        let bytes = bytes.ok_or_else(missing)?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let damaged = |e| Error::data(format!("the log of {name} is damaged at version {version}: {e}"));
        lines.map(|line| serde_json::from_slice(line).map_err(damaged)).collect()
    }

    /// The files by which rows came after version `since`, up to `snapshot`; those that were rewritten later among them, and no rewritten ones.
    pub(super) async fn files_since(&self, snapshot: &Snapshot, since: i64) -> Result<Vec<Arc<DataFile>>> {
        if since >= snapshot.version {
            return Ok(Vec::new());
        }
        let before = self.at(Some(since)).await?;
        let (now, before) = (snapshot.files(self).await?, before.files(self).await?);
        // What was rewritten since holds no row of before, so that what is new among the files is new among the rows.
        if before.iter().all(|file| now.get(&file.path).is_some()) {
            return Ok(now.iter().filter(|file| before.get(&file.path).is_none()).cloned().collect());
        }
        let commits = futures::stream::iter(since + 1..=snapshot.version).map(|version| self.files_of(version)).buffered(LOG_READS);
        commits.try_concat().await
    }

    /// The files by which rows came with the commit of a version.
    async fn files_of(&self, version: i64) -> Result<Vec<Arc<DataFile>>> {
        let added = self.actions(version).await?.into_iter().filter_map(|mut action| action.get_mut("add").map(Value::take));
        let damaged = |e| Error::data(format!("the log of {} is damaged at version {version}: {e}", self.name));
        let added = added.map(|add| serde_json::from_value::<Add>(add).map_err(damaged)).collect::<Result<Vec<_>>>()?;
        added.iter().filter(|add| add.data_change).map(|add| DataFile::added(self, add).map(Arc::new)).collect()
    }

    /// Makes a snapshot the current one, unless one that is newer is there.
    fn advance(&self, next: Snapshot) -> Arc<Snapshot> {
        let mut current = lock(&self.current);
        if next.version > current.version {
            *current = Arc::new(next);
        }
        Arc::clone(&current)
    }
}

impl Base {
    fn new(state: DeltaTableState, log: LogStoreRef, name: String, seed: Option<Arc<Files>>) -> Self {
        Self { state, log, name, transactions: Mutex::default(), files: OnceCell::new(), seed }
    }

    fn version(&self) -> i64 {
        i64::try_from(self.state.version()).unwrap_or(i64::MAX)
    }

    async fn transaction_version(&self, app_id: &str) -> Result<Option<i64>> {
        if let Some(known) = lock(&self.transactions).get(app_id) {
            return Ok(*known);
        }
        let found = self.state.transaction_version(self.log.as_ref(), app_id).await;
        let found = found.map_err(|e| delta_error(&self.name, e))?;
        let mut transactions = lock(&self.transactions);
        if transactions.len() >= TRANSACTIONS_KEPT {
            transactions.clear();
        }
        transactions.insert(app_id.to_owned(), found);
        Ok(found)
    }
}

impl Snapshot {
    fn new(base: Arc<Base>, own: Vec<Arc<OwnCommit>>) -> Self {
        let version = own.last().map_or_else(|| base.version(), |own| own.version);
        Self { base, own, version, files: OnceCell::new(), losers: OnceCell::new() }
    }

    pub(super) fn version(&self) -> i64 {
        self.version
    }

    /// How the table is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.base.name
    }

    /// The data files of this version.
    pub(super) async fn files(&self, table: &Table) -> Result<&Arc<Files>> {
        let Base { state, seed, files, .. } = self.base.as_ref();
        let read = async || Files::read(table, state, seed.as_deref()).map(Arc::new);
        let base = files.get_or_try_init(read).await?;
        let added = self.own.iter().flat_map(|own| own.files.iter().cloned());
        let removed: HashSet<&str> = self.own.iter().flat_map(|own| &own.removed).map(String::as_str).collect();
        Ok(self.files.get_or_init(async || base.with(added, &removed)).await)
    }

    /// Whether the table has the columns of a layout and no others: what is rewritten by it then keeps all that it has.
    pub(super) fn has_only(&self, layout: &Layout) -> bool {
        self.base.state.schema().fields().len() == layout.schema.fields().len() + usize::from(layout.by_date)
    }

    /// The rows of this version that are not seen, once they are known.
    pub(super) fn losers(&self) -> &OnceCell<Arc<Losers>> {
        &self.losers
    }

    pub(super) async fn transaction_version(&self, app_id: &str) -> Result<Option<i64>> {
        let of = |own: &Arc<OwnCommit>| own.transactions.iter().find(|(id, _)| id == app_id).map(|(_, v)| *v);
        match self.own.iter().rev().find_map(of) {
            Some(version) => Ok(Some(version)),
            None => self.base.transaction_version(app_id).await,
        }
    }

    /// The first source that is not where a commit expects it.
    pub(super) async fn superseded(&self, progress: &[Progress], guards: &[Guard]) -> Result<Option<Outcome>> {
        let moved = progress.iter().map(|p| (&p.app_id, p.expected));
        for (app_id, expected) in moved.chain(guards.iter().map(|g| (&g.app_id, g.expected))) {
            let found = self.transaction_version(app_id).await?;
            if found != expected {
                return Ok(Some(Outcome::Superseded { app_id: app_id.clone(), found }));
            }
        }
        Ok(None)
    }
}

async fn load(log: &LogStoreRef, version: Option<Version>) -> Result<DeltaTableState, DeltaTableError> {
    DeltaTableState::try_new(log.as_ref(), version).await
}

async fn create_table(log: &LogStoreRef, layout: &Layout) -> Result<(), DeltaTableError> {
    let mut columns = Vec::with_capacity(layout.schema.fields().len() + 1);
    for field in layout.schema.fields() {
        columns.push(delta_field(field).map_err(|e| DeltaTableError::Generic(e.to_string()))?);
    }
    if layout.by_date {
        columns.push(StructField::not_null(DATE, DeltaType::DATE));
    }
    let create = CreateBuilder::new()
        .with_log_store(Arc::clone(log))
        .with_columns(columns)
        .with_partition_columns(layout.by_date.then_some(DATE))
        .with_configuration([
            ("delta.enableExpiredLogCleanup", Some("false")),
            ("delta.dataSkippingNumIndexedCols", Some("-1")),
            ("delta.appendOnly", Some("true")),
        ])
        .with_save_mode(SaveMode::Ignore);
    create.await.map(|_| ())
}

fn check_schema(name: &str, state: &DeltaTableState, layout: &Layout) -> Result<()> {
    let there = state.schema();
    for field in layout.schema.fields() {
        let wanted = delta_type(field.data_type())?;
        match there.field(field.name()) {
            None => return Err(Error::data(format!("{name} has no column \"{}\"", field.name()))),
            Some(found) if *found.data_type() != wanted => {
                return Err(Error::data(format!(
                    "column \"{}\" of {name} has type {}, where {wanted} is declared",
                    field.name(),
                    found.data_type()
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn delta_field(field: &Field) -> Result<StructField> {
    Ok(StructField::new(field.name(), delta_type(field.data_type())?, field.is_nullable()))
}

fn delta_type(data_type: &DataType) -> Result<DeltaType> {
    let primitive = match data_type {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 => PrimitiveType::Byte,
        DataType::Int16 => PrimitiveType::Short,
        DataType::Int32 => PrimitiveType::Integer,
        DataType::Int64 => PrimitiveType::Long,
        DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Utf8View => PrimitiveType::String,
        DataType::BinaryView => PrimitiveType::Binary,
        DataType::Date32 => PrimitiveType::Date,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => PrimitiveType::Timestamp,
        DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).map_err(|_| Error::internal("a decimal has a negative scale"))?;
            let decimal = DecimalType::try_new(*precision, scale);
            PrimitiveType::Decimal(decimal.map_err(|e| Error::internal(format!("no decimal of Delta: {e}")))?)
        }
        other => return Err(Error::internal(format!("{other} is no type of a history's column"))),
    };
    Ok(DeltaType::Primitive(primitive))
}

/// An error of Delta: of the storage, which may pass, or of what is stored.
fn delta_error(name: &str, e: DeltaTableError) -> Error {
    let kind = match &e {
        DeltaTableError::ObjectStore { source: object_store::Error::NotFound { .. } } => Kind::Data,
        DeltaTableError::ObjectStore { .. } | DeltaTableError::Io { .. } => Kind::Unavailable,
        _ => Kind::Data,
    };
    Error::new(kind, format!("{name} cannot be read or written: {e}"))
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::History => "history",
        Part::Late => "table of late events",
        Part::Rejected => "table of rejected records",
    }
}

/// Where the log of a table keeps a version.
fn log_entry(table: &Path, version: Version) -> Path {
    inside(format!("{table}/_delta_log/{version:020}.json"))
}

/// A path of the warehouse's store as it is written: `Path::from` would escape what a stream's name has made of it.
pub(super) fn inside(path: String) -> Path {
    Path::parse(&path).unwrap_or_else(|_| Path::from(path))
}

fn to_delta(version: i64) -> Option<Version> {
    Version::try_from(version).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
