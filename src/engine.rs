//! The engine: a warehouse opened for reading and writing, and the only place that wires the parts together.
//!
//! A statement goes `parse` → `statement` → one of: the registry (definitions), a stream's pipeline (writes), the online views (serving),
//! a DataFusion plan (everything else). Locks, in this order: the catalog's, a stream's pipeline, a view's state. Not here: the meaning
//! of any operator.

pub mod checkpoint;
mod compact;
mod connection;
mod explain;
mod group;
mod metrics;
mod session;
mod show;
mod sources;
mod statement;
mod status;
pub(crate) mod views;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use tokio::sync::Mutex;

pub use self::connection::{Connection, Ingest, Object, PendingRows, Prepared, Reply};
use self::group::{Groups, Share};
use self::metrics::Metrics;
use self::sources::Sources;
use self::views::Views;
pub use crate::connect::ingest::IngestCounts;
use crate::connect::ingest::{Pipeline, history_schema};
use crate::connect::status::Statuses;
use crate::error::{Error, Result};
use crate::history::{Part, StreamHistory, TableOptions};
use crate::op::asof_join::{Identity, TieOrder};
use crate::op::relation::batch::RelationSource;
use crate::op::window::View;
use crate::op::window::logical::ViewTable;
use crate::registry::Registry;
use crate::serve::lookup::Peers;
use crate::serve::scans::{HistoryScans, Pinned};
use crate::settings::Settings;
use crate::time::{Clock, SystemClock};
pub use crate::warehouse::Durability;
use crate::warehouse::{Lease, Warehouse};

/// What a statement answers.
#[derive(Debug, Clone)]
pub enum Output {
    /// Rows.
    Rows {
        /// Their columns; its metadata says where feature values come from.
        schema: SchemaRef,
        /// The rows.
        batches: Vec<RecordBatch>,
        /// What else is to be said, as that the answer came from history.
        note: Option<String>,
    },
    /// Something was done.
    Done {
        /// What, in one line.
        message: String,
        /// What became of records, where some were written.
        counts: Option<IngestCounts>,
    },
}

/// Builds an engine.
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    location: String,
    settings: Settings,
    clock: Arc<dyn Clock>,
    durability: Durability,
}

impl EngineBuilder {
    /// Where everything durable lives: a path or a URL.
    #[must_use]
    pub fn warehouse(mut self, location: impl Into<String>) -> Self {
        self.location = location.into();
        self
    }

    /// What a user may tune.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where the time of day comes from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// When a write counts as done; [`Durability::Disk`] unless it is said.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Opens the warehouse.
    pub async fn build(self) -> Result<Engine> {
        let warehouse = Warehouse::open_with(&self.location, self.durability).await?;
        self.build_over(warehouse).await
    }

    /// Opens what is in a warehouse.
    async fn build_over(self, warehouse: Warehouse) -> Result<Engine> {
        let registry = Registry::replay(&warehouse.catalog().load().await?)?;
        let mut session = Err(Error::internal("no session"));
        let opened = self.clock.now().0;
        let inner = Arc::new_cyclic(|weak| {
            session = session::session(weak, &self.settings);
            let context = match &session {
                Ok(context) => context.clone(),
                Err(_) => SessionContext::new(),
            };
            Inner {
                warehouse,
                settings: self.settings,
                clock: self.clock,
                context,
                registry: RwLock::new(Arc::new(registry)),
                catalog: Mutex::new(()),
                streams: Mutex::new(BTreeMap::new()),
                readers: Mutex::new(BTreeMap::new()),
                views: Views::default(),
                sources: Sources::default(),
                groups: Groups::default(),
                peers: Peers::default(),
                written: RwLock::new(BTreeSet::new()),
                metrics: Metrics::new(weak.clone(), opened),
                statuses: Statuses::default(),
                positions_known: std::sync::Mutex::default(),
                address: RwLock::new(None),
                temporary_bytes: AtomicUsize::new(0),
                parsed: connection::ParsedTexts::default(),
            }
        });
        session?;
        inner.warehouse.register(&inner.context.runtime_env());
        Ok(Engine { inner })
    }
}

/// An open warehouse; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// How long a process that ends takes for checkpoints before its partitions go to others.
const LAST_CHECKPOINTS: Duration = Duration::from_secs(1);

/// A stream that this process has opened.
#[derive(Debug)]
struct OpenStream {
    pipeline: Pipeline,
    /// Held from the first write on; never of a stream that several processes share.
    lease: Option<Lease>,
    /// What this process has of a stream that several share.
    share: Option<Arc<Share>>,
    /// When the lease was acquired or renewed, microseconds.
    renewed: i64,
}

impl OpenStream {
    /// Whether this process may still commit what it has read.
    async fn check_leases(&self) -> Result<()> {
        let parts = self.share.iter().flat_map(|share| share.leases());
        futures::future::try_join_all(parts.chain(&self.lease).map(Lease::check)).await.map(|_| ())
    }
}

pub(crate) struct Inner {
    pub(crate) warehouse: Warehouse,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) context: SessionContext,
    registry: RwLock<Arc<Registry>>,
    /// Held while the catalog changes.
    catalog: Mutex<()>,
    streams: Mutex<BTreeMap<String, Arc<Mutex<OpenStream>>>>,
    /// The histories of streams that are only read, with the definitions that they were opened by.
    readers: Mutex<BTreeMap<String, (Arc<Registry>, StreamHistory)>>,
    views: Views,
    sources: Sources,
    groups: Groups,
    /// The other processes that share streams.
    pub(crate) peers: Peers,
    /// The streams whose lease this process holds.
    written: RwLock<BTreeSet<String>>,
    /// What is counted and timed.
    pub(crate) metrics: Metrics,
    /// How far each stream is.
    pub(crate) statuses: Statuses,
    /// The streams of whose statuses nothing is left to be looked up in history.
    positions_known: std::sync::Mutex<BTreeSet<String>>,
    /// Where others reach this process, for those whom a lease turns away.
    address: RwLock<Option<String>>,
    /// The memory of all temporary tables, bytes.
    temporary_bytes: AtomicUsize,
    parsed: connection::ParsedTexts,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("warehouse", &self.warehouse).finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins building an engine over `./warehouse`.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            location: "./warehouse".into(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            durability: Durability::Disk,
        }
    }

    /// Runs a script, statement after statement; stops at the first error. `$1` and so on stand for `params`.
    pub async fn execute(&self, sql: &str, params: &[ScalarValue]) -> Result<Vec<Output>> {
        self.execute_named(sql, "<sql>", params).await
    }

    /// Runs a script whose errors name a file.
    pub async fn execute_named(&self, sql: &str, source: &str, params: &[ScalarValue]) -> Result<Vec<Output>> {
        let mut outputs = Vec::new();
        self.execute_each(sql, source, params, &mut |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        })
        .await?;
        Ok(outputs)
    }

    /// Runs a script and hands each statement's output on as it is there; stops at the first error, or where `each` says so.
    pub async fn execute_each(
        &self,
        sql: &str,
        source: &str,
        params: &[ScalarValue],
        each: &mut (dyn FnMut(Output) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let statements = asof_sql::parse::parse(sql, source).map_err(|d| statement::sql_errors(&d, source, sql))?;
        for statement in &statements {
            if each(self.inner.run(statement, source, sql, params).await?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Writes JSON lines into a stream as one step; acknowledged means durable.
    pub async fn push_json(&self, stream: &str, lines: &[u8], token: Option<&str>) -> Result<IngestCounts> {
        self.inner.push_json(stream, lines, token).await
    }

    /// Writes a batch into a stream as one step; acknowledged means durable.
    pub async fn push_batch(&self, stream: &str, batch: RecordBatch, token: Option<&str>) -> Result<IngestCounts> {
        self.inner.push_batch(stream, &[batch], token).await
    }

    /// The names of streams, views and tables.
    pub fn names(&self) -> Vec<String> {
        self.inner.registry().names().map(str::to_owned).collect()
    }

    /// The online state of a view: what it holds, and aggregates by key without Arrow. Built from history where it is not there yet.
    pub async fn online(&self, view: &str) -> Result<Arc<crate::op::window::stream::OnlineView>> {
        self.inner.online(view).await
    }

    /// What the engine tells about itself, in the text format of OpenMetrics. It never waits for a write or for the storage.
    pub fn metrics(&self) -> Result<String> {
        self.inner.metrics.encode()
    }

    /// Takes the last checkpoints and releases what this process holds of the warehouse.
    pub async fn close(self) -> Result<()> {
        // Partitions go with the reading, and their states with them.
        let last = tokio::time::timeout(LAST_CHECKPOINTS, self.inner.last_checkpoints(true));
        if last.await.is_err() {
            tracing::info!("the last checkpoints of partitions are not taken: whoever has them next follows history");
        }
        self.inner.stop_sources(None).await;
        self.inner.last_checkpoints(false).await;
        let streams = std::mem::take(&mut *self.inner.streams.lock().await);
        for stream in streams.into_values() {
            let mut stream = stream.lock().await;
            let settled = stream.pipeline.history().settle().await;
            if let Some(lease) = stream.lease.take() {
                lease.release().await?;
            }
            settled?;
        }
        Ok(())
    }
}

impl Inner {
    /// The definitions as they are now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        let guard: RwLockReadGuard<'_, Arc<Registry>> = self.registry.read().unwrap_or_else(|e| e.into_inner());
        guard.clone()
    }

    fn set_registry(&self, registry: Registry) {
        *self.registry.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(registry);
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now().0
    }

    /// A stream's pipeline, opened at the first use.
    async fn stream(&self, name: &str) -> Result<Arc<Mutex<OpenStream>>> {
        let mut streams = self.streams.lock().await;
        if let Some(open) = streams.get(name).cloned() {
            drop(streams);
            if !self.is_written(name) {
                self.catch_up(name, &mut *open.lock().await).await?;
            }
            return Ok(open);
        }
        let registry = self.registry();
        let definition = registry.streams.get(name).ok_or_else(|| unknown_stream(&registry, name))?;
        let pipeline = Pipeline::open(&self.warehouse, name, definition, self.settings.dedupe_limit_bytes, false, &[]).await?;
        // States that were made with an earlier pipeline may lack what others have written since.
        self.invalidate_views_of(name);
        let open = Arc::new(Mutex::new(OpenStream { pipeline, lease: None, share: None, renewed: 0 }));
        streams.insert(name.to_owned(), open.clone());
        self.readers.lock().await.remove(name);
        Ok(open)
    }

    /// Whether this process writes a stream, so that nobody else does.
    fn is_written(&self, name: &str) -> bool {
        self.written.read().unwrap_or_else(|e| e.into_inner()).contains(name)
    }

    /// Takes in what another process has written.
    async fn catch_up(&self, name: &str, open: &mut OpenStream) -> Result<()> {
        if open.pipeline.history().refresh().await? == open.pipeline.remembers() {
            return Ok(());
        }
        self.reopen(name, open).await
    }

    /// Takes note of what the other processes that share a stream have committed. Nothing is staged.
    async fn follow_others(&self, name: &str, open: &mut OpenStream) -> Result<()> {
        open.pipeline.history().refresh().await?;
        if open.pipeline.is_overtaken().await? { self.reopen(name, open).await } else { Ok(()) }
    }

    /// Settles a commit of whose fate nothing is known.
    async fn settle(&self, name: &str, open: &mut OpenStream) -> Result<()> {
        if !open.pipeline.is_doubtful() {
            return Ok(());
        }
        open.pipeline.history().refresh().await?;
        self.reopen(name, open).await
    }

    /// Opens a stream's pipeline anew, and makes the views that read it be built anew.
    async fn reopen(&self, name: &str, open: &mut OpenStream) -> Result<()> {
        // Before anything can fail or be given up: from then on they answer no more.
        self.invalidate_views_of(name);
        if open.pipeline.has_uncommitted() {
            // It would be forgotten, and what is read next would be taken for what comes behind it.
            return Err(Error::closed(format!("what was read of stream \"{name}\" is to be read anew")));
        }
        let registry = self.registry();
        let definition = registry.streams.get(name).ok_or_else(|| unknown_stream(&registry, name))?;
        let reads = open.pipeline.reads().to_vec();
        let opened = Pipeline::open(&self.warehouse, name, definition, self.settings.dedupe_limit_bytes, false, &reads).await?;
        opened.take_place_of(&mut open.pipeline);
        Ok(())
    }

    fn invalidate_views_of(&self, stream: &str) {
        for (_, online) in self.views.reading(stream) {
            online.invalidate();
        }
    }

    /// A stream's history; readable while it is written.
    pub(crate) async fn history(&self, name: &str) -> Result<StreamHistory> {
        if !self.streams.lock().await.contains_key(name) {
            return self.read_history(name).await;
        }
        let open = self.stream(name).await?;
        let mut open = open.lock().await;
        // What history may have and no view has taken in is told by neither alone.
        self.settle(name, &mut open).await?;
        // What was served is there when history is asked.
        self.commit_staged(name, &mut open).await?;
        if open.pipeline.is_shared() {
            self.follow_others(name, &mut open).await?;
        }
        Ok(open.pipeline.history().clone())
    }

    /// The history of a stream that this process neither writes nor serves: no event that a writer would remember is read for it.
    async fn read_history(&self, name: &str) -> Result<StreamHistory> {
        let registry = self.registry();
        let mut readers = self.readers.lock().await;
        if let Some((_, history)) = readers.get(name).filter(|(of, _)| Arc::ptr_eq(of, &registry)) {
            history.refresh().await?;
            return Ok(history.clone());
        }
        let definition = registry.streams.get(name).ok_or_else(|| unknown_stream(&registry, name))?;
        let history = StreamHistory::open(&self.warehouse, name, &definition.folder, history_schema(&definition.schema)?).await?;
        readers.insert(name.to_owned(), (registry, history.clone()));
        Ok(history)
    }

    /// The histories of a view's streams at their newest versions.
    pub(crate) async fn pinned(&self, view: &View) -> Result<Arc<HistoryScans>> {
        let mut streams = BTreeMap::new();
        for name in view.plan.streams() {
            let history = self.history(name).await?;
            let version = history.version();
            streams.insert(name.to_owned(), Pinned { history, version, upto: None });
        }
        Ok(Arc::new(HistoryScans { streams }))
    }

    /// The events of a view at the newest versions of its streams.
    pub(crate) async fn source(&self, view: &Arc<View>) -> Result<Arc<RelationSource>> {
        let streams = self.pinned(view).await?;
        Ok(Arc::new(RelationSource { relation: view.plan.relation.clone(), ordered: view.plan.ordered, streams }))
    }

    /// What a name stands for in a query.
    pub(crate) async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let registry = self.registry();
        for (suffix, part) in [("$late", Part::Late), ("$rejected", Part::Rejected), ("", Part::History)] {
            if let Some(stream) = name.strip_suffix(suffix).filter(|s| registry.streams.contains_key(*s)) {
                let history = self.history(stream).await?;
                let options = TableOptions { hidden: part != Part::History, all_rows: part != Part::History, ..TableOptions::default() };
                return Ok(Some(history.table(part, options).await?));
            }
        }
        if let Some(view) = registry.views.get(name) {
            let source = self.source(&view.view).await?;
            return Ok(Some(Arc::new(ViewTable::new(view.view.clone(), source))));
        }
        match registry.tables.get(name) {
            Some(table) => Ok(Some(self.external_table(table).await?)),
            None => Ok(None),
        }
    }

    /// The order of a stream's rows of one event time.
    fn tie_order(&self, name: &str) -> Option<TieOrder> {
        let registry = self.registry();
        let info = registry.streams.get(name)?.info.clone();
        let rest = (0..info.columns.len()).filter(|c| *c != info.event_time && !info.primary_key.contains(c));
        let columns: Vec<usize> = info.primary_key.iter().copied().chain(rest).collect();
        let identity = (!info.primary_key.is_empty()).then_some(Identity { time: info.event_time, columns: info.primary_key.len() });
        Some(TieOrder { columns, identity })
    }
}

/// Errors found in a text, rendered against it.
pub(crate) fn rendered(errors: &[asof_sql::Diagnostic], source: &str, sql: &str) -> Error {
    statement::sql_errors(errors, source, sql)
}

fn unknown_stream(registry: &Registry, name: &str) -> Error {
    let known: Vec<&str> = registry.streams.keys().map(String::as_str).collect();
    match asof_sql::diagnostic::nearest(name, known) {
        Some(near) => Error::invalid(format!("unknown stream \"{name}\"; the nearest known stream is \"{near}\"")),
        None => Error::invalid(format!("unknown stream \"{name}\"")),
    }
}

#[cfg(test)]
mod tests;
