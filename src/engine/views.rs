//! The online states of views: built from history at the first use or at CREATE, kept up by every step of ingestion, rebuilt where a
//! change could not be applied exactly. A view has one state, or, in a process that has some partitions of a stream that several share,
//! one for each of them: then a partition's state comes and goes with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::TimestampMicrosecondType;
use asof_sql::plan::Scan;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;

use super::Inner;
use super::checkpoint::Known;
use crate::connect::ingest::Changes;
use crate::error::{Error, Result};
use crate::history::{HistoryTable, Part as HistoryPart, StreamHistory, TableOptions};
use crate::op::relation::batch::StreamScan;
use crate::op::relation::stream::Change;
use crate::op::window::View;
use crate::op::window::stream::OnlineView;
use crate::serve::scans::{HistoryScans, Pinned};
use crate::stream::placement::Placement;

/// How many batches of history are read ahead of what is applied: some hundred thousand rows.
const BATCHES_AHEAD: usize = 16;

/// What an online state is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// The view.
    pub(crate) view: String,
    /// The partition whose entities it holds; `None`: all entities.
    pub(crate) part: Option<Part>,
}

/// A partition as it was assigned to this process: when it comes again, it is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    /// Its number.
    pub(crate) partition: i32,
    /// The number of the assignment, counted over the process.
    pub(crate) assignment: u64,
}

impl Slot {
    /// The one state of a view.
    pub(crate) fn whole(view: &str) -> Self {
        Self { view: view.to_owned(), part: None }
    }

    /// The folder of its checkpoints, of the view's own.
    pub(super) fn folder(&self, view: &str) -> String {
        self.part.map_or_else(|| view.to_owned(), |part| part_folder(view, part.partition))
    }
}

/// What belongs to one partition has a folder of its own: the names of views and streams have no dot before a letter.
pub(super) fn part_folder(folder: &str, partition: i32) -> String {
    format!("{folder}.p{partition}")
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.part {
            None => write!(f, "{}", self.view),
            Some(part) => write!(f, "{} of partition {}", self.view, part.partition),
        }
    }
}

/// The rows that a state is of, where these are not all.
#[derive(Debug, Clone)]
pub(crate) struct Only {
    stream: String,
    placement: Placement,
    partition: i32,
}

impl Only {
    /// Of rows of a stream those that count.
    pub(super) fn of(only: Option<&Self>, stream: &str, rows: RecordBatch) -> Result<RecordBatch> {
        match only {
            Some(only) if only.stream == stream => only.placement.rows_in(only.partition, &rows),
            _ => Ok(rows),
        }
    }
}

/// Online states by view.
#[derive(Debug, Default)]
pub(crate) struct Views {
    online: RwLock<BTreeMap<Slot, Arc<OnlineView>>>,
    /// Held while a view's state is made.
    building: Mutex<BTreeMap<Slot, Arc<tokio::sync::Mutex<()>>>>,
    /// Their checkpoints.
    pub(super) known: Known,
}

impl Views {
    pub(super) fn get(&self, slot: &Slot) -> Option<Arc<OnlineView>> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).get(slot).cloned()
    }

    pub(super) fn put(&self, slot: &Slot, view: Arc<OnlineView>) {
        self.online.write().unwrap_or_else(|e| e.into_inner()).insert(slot.clone(), view);
    }

    fn building(&self, slot: &Slot) -> Arc<tokio::sync::Mutex<()>> {
        self.building.lock().unwrap_or_else(|e| e.into_inner()).entry(slot.clone()).or_default().clone()
    }

    /// Forgets the states of a view.
    pub(super) fn remove(&self, view: &str) {
        self.forget(|slot| slot.view == view);
    }

    /// Forgets states that are of no more use.
    pub(super) fn forget(&self, gone: impl Fn(&Slot) -> bool) {
        self.online.write().unwrap_or_else(|e| e.into_inner()).retain(|slot, _| !gone(slot));
        self.building.lock().unwrap_or_else(|e| e.into_inner()).retain(|slot, _| !gone(slot));
    }

    pub(super) fn reading(&self, stream: &str) -> Vec<(Slot, Arc<OnlineView>)> {
        let online = self.online.read().unwrap_or_else(|e| e.into_inner());
        online.iter().filter(|(_, v)| v.view.plan.streams().contains(&stream)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    pub(super) fn named(&self) -> Vec<(Slot, Arc<OnlineView>)> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).iter().map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// The memory and the entities of each view, over all of its states.
    pub(super) fn sizes(&self) -> BTreeMap<String, (usize, usize)> {
        let mut sizes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (slot, online) in self.named() {
            let (bytes, entities) = sizes.entry(slot.view).or_default();
            *bytes += online.memory_bytes();
            *entities += online.entities();
        }
        sizes
    }

    pub(super) fn all(&self) -> Vec<Arc<OnlineView>> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).values().cloned().collect()
    }
}

impl Inner {
    /// The states that a view has in this process.
    pub(super) fn slots(&self, name: &str) -> Vec<Slot> {
        let whole = || vec![Slot::whole(name)];
        let registry = self.registry();
        let Some(defined) = registry.views.get(name) else { return whole() };
        match registry.shared(&defined.view.plan) {
            Some((stream, ..)) if self.is_member() => self.share(stream).map(|share| share.slots(name).collect()).unwrap_or_default(),
            _ => whole(),
        }
    }

    /// Makes the states that a view has in this process.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where its stream is shared and the group has not assigned anything yet.
    pub(super) async fn ready(&self, name: &str) -> Result<()> {
        let registry = self.registry();
        let shared = registry.views.get(name).and_then(|v| registry.shared(&v.view.plan)).filter(|_| self.is_member());
        if let Some((stream, ..)) = shared
            && self.share(stream).is_none()
        {
            return Err(Error::unavailable(format!("the group has not shared out the partitions of stream \"{stream}\" yet")));
        }
        for slot in self.slots(name) {
            self.online_of(&slot).await?;
        }
        Ok(())
    }

    /// The online state of a view that has one.
    pub(crate) async fn online(&self, name: &str) -> Result<Arc<OnlineView>> {
        match self.slots(name).as_slice() {
            [slot] if slot.part.is_none() => self.online_of(slot).await,
            _ => Err(Error::invalid(format!("the online state of feature view \"{name}\" is shared out among processes"))),
        }
    }

    /// The rows that a state is of; an error where its partition is another process's by now.
    fn only(&self, slot: &Slot, view: &View) -> Result<Option<Only>> {
        let Some(part) = slot.part else { return Ok(None) };
        let registry = self.registry();
        let shared = registry.shared(&view.plan).and_then(|(stream, ..)| Some((stream, self.share(stream)?)));
        let shared = shared.filter(|(_, share)| share.part(part.partition) == Some(part));
        let (stream, share) = shared.ok_or_else(|| Error::unavailable(format!("partition {} is moving; try again", part.partition)))?;
        Ok(Some(Only { stream: stream.to_owned(), placement: share.placement, partition: part.partition }))
    }

    /// An online state; where it is not there, begun from a checkpoint or built from history.
    pub(crate) async fn online_of(&self, slot: &Slot) -> Result<Arc<OnlineView>> {
        let name = slot.view.as_str();
        let unknown = || Error::invalid(format!("unknown feature view \"{name}\""));
        if let Some(online) = self.views.get(slot) {
            // Streams that another process writes are looked at anew; one's own are known.
            for stream in online.view.plan.streams().into_iter().filter(|s| !self.is_written(s)) {
                self.stream(stream).await?;
            }
            let registry = self.registry();
            if !online.is_stale() && Arc::ptr_eq(&online.view, &registry.views.get(name).ok_or_else(unknown)?.view) {
                return Ok(online);
            }
        }
        let building = self.views.building(slot);
        let _building = building.lock().await;
        let registry = self.registry();
        let defined = registry.views.get(name).ok_or_else(unknown)?;
        if let Some(online) = self.views.get(slot).filter(|v| !v.is_stale() && Arc::ptr_eq(&v.view, &defined.view)) {
            return Ok(online);
        }
        let only = self.only(slot, &defined.view)?;
        let only = only.as_ref();
        let begun = Instant::now();
        // What history has is read while steps go on.
        let (mut histories, mut greatest) = (Vec::new(), None);
        for stream in sorted_streams(&defined.view) {
            let open = self.stream(&stream).await?;
            let open = open.lock().await;
            greatest = greatest.max(open.pipeline.greatest());
            histories.push((stream, open.pipeline.history().clone()));
        }
        let recovered = self.recovered(slot, defined, &histories, greatest, only).await;
        let checkpoint = recovered.as_ref().and_then(|_| self.views.known.newest(slot)).map(|newest| newest.epoch);
        let (mut online, versions) = match recovered {
            Some(recovered) => recovered,
            None => self.built(&defined.view, &histories, greatest, only).await?,
        };
        // From here on no step may come between what is read of history and the first change that is applied.
        let mut held = self.hold(&sorted_streams(&online.view)).await?;
        for (stream, open) in &mut held {
            // What may be in history already must not be applied once more.
            self.settle(stream, open).await?;
            if open.pipeline.is_in_doubt() {
                self.commit_staged(stream, open).await?;
            }
            if open.pipeline.is_overtaken().await? {
                // A state of more than its pipeline knows of would be told to be older than it is.
                return Err(Error::unavailable(format!("another process has written to stream \"{stream}\" a moment ago; try again")));
            }
        }
        let now: Vec<(String, StreamHistory)> = held.iter().map(|(name, open)| (name.clone(), open.pipeline.history().clone())).collect();
        greatest = held.iter().map(|(_, open)| open.pipeline.greatest()).max().flatten();
        let followed = self.follow_history(&online, &versions, &now, only).await;
        if followed.is_err() || online.is_stale() {
            (online, _) = self.built(&defined.view, &now, greatest, only).await?;
        }
        online.saw(greatest);
        online.advance(self.horizon(&online.view, greatest));
        // What is in the state and not yet in history.
        for (stream, open) in &held {
            for changes in open.pipeline.uncommitted_changes() {
                if let Changes::Rows { gone, come } = changes {
                    let (gone, come) = (Only::of(only, stream, gone.clone())?, Only::of(only, stream, come.clone())?);
                    online.apply(&[Change { stream, rows: &gone, gone: true }, Change { stream, rows: &come, gone: false }])?;
                }
            }
        }
        online.sweep();
        if !Arc::ptr_eq(&self.registry().views.get(name).ok_or_else(unknown)?.view, &online.view) {
            return Err(Error::unavailable(format!("feature view \"{name}\" was defined anew; try again")));
        }
        self.views.known.begun(slot, checkpoint, begun);
        self.views.put(slot, online.clone());
        if let Err(moved) = self.only(slot, &online.view) {
            // Whoever gave the partition up may have looked before it was put.
            self.views.forget(|s| s == slot);
            return Err(moved);
        }
        Ok(online)
    }

    /// The state of a view from history, and the versions that it is of.
    async fn built(
        &self,
        view: &Arc<View>,
        histories: &[(String, StreamHistory)],
        greatest: Option<i64>,
        only: Option<&Only>,
    ) -> Result<(Arc<OnlineView>, BTreeMap<String, i64>)> {
        let online = Arc::new(OnlineView::try_new(view.clone())?);
        online.saw(greatest);
        online.advance(self.horizon(&online.view, greatest));
        let pinned = |history: &StreamHistory| Pinned { history: history.clone(), version: history.version(), upto: None };
        let scans = HistoryScans { streams: histories.iter().map(|(name, history)| (name.clone(), pinned(history))).collect() };
        bootstrap(&online, &scans, self.context.task_ctx(), only).await?;
        let versions = scans.streams.iter().map(|(name, pinned)| (name.clone(), pinned.version)).collect();
        Ok((online, versions))
    }

    /// The online state of a view where it is there and nobody else writes its streams.
    pub(crate) fn ready_view(&self, name: &str) -> Option<Arc<OnlineView>> {
        self.ready_slot(&Slot::whole(name))
    }

    /// The same of one state.
    pub(crate) fn ready_slot(&self, slot: &Slot) -> Option<Arc<OnlineView>> {
        let online = self.views.get(slot).filter(|o| !o.is_stale())?;
        let written = self.written.read().unwrap_or_else(|e| e.into_inner());
        online.view.plan.streams().into_iter().all(|s| written.contains(s)).then(|| online.clone())
    }

    /// The earliest instant that the online state of a view answers (DESIGN 6); nothing is held back where there are no events.
    pub(crate) fn horizon(&self, view: &View, greatest: Option<i64>) -> i64 {
        let Some(greatest) = greatest else { return i64::MIN };
        let registry = self.registry();
        let plan = &view.plan;
        let skew = |s: &&str| {
            let given = registry.streams.get(*s).and_then(|s| s.options.max_future_skew);
            given.unwrap_or(self.settings.max_future_skew_default_us)
        };
        let skew = plan.streams().iter().map(skew).max().unwrap_or(0);
        let look_back = plan.options.look_back.unwrap_or(self.settings.look_back_default_us);
        greatest.min(self.now()).saturating_sub(plan.relation.greatest_disorder()).saturating_sub(skew).saturating_sub(look_back)
    }

    /// Applies a step of a stream to the views that read it. The caller holds the stream's pipeline; the step is in history.
    pub(super) async fn apply(&self, stream: &str, history: &StreamHistory, greatest: Option<i64>, changes: &Changes) {
        let newest = newest(history, changes);
        let split = self.split(stream, changes);
        for (slot, online) in self.views.reading(stream) {
            if online.is_stale() {
                continue;
            }
            let only = match self.only(&slot, &online.view) {
                Ok(only) => only,
                // It is another process's by now, and nobody asks this state any more.
                Err(_) => continue,
            };
            let of_stream = only.as_ref().filter(|only| only.stream == stream);
            let applied = match changes {
                Changes::Rows { gone, come } => match (&split, of_stream) {
                    (Ok(Some(split)), Some(only)) => split.get(&only.partition).map_or(Ok(()), |[gone, come]| {
                        online.apply(&[Change { stream, rows: gone, gone: true }, Change { stream, rows: come, gone: false }])
                    }),
                    (Ok(None) | Err(_), Some(_)) => Err(Error::internal("rows are not told apart by partition")),
                    _ => online.apply(&[Change { stream, rows: gone, gone: true }, Change { stream, rows: come, gone: false }]),
                },
                Changes::Since(version) => {
                    online.begin_load();
                    let applied = self.apply_since(&online, stream, history, *version, only.as_ref()).await;
                    // After an error it answers no more: the state is given up below.
                    if applied.is_ok() {
                        online.end_load();
                    }
                    applied
                }
                Changes::Unknown => {
                    online.invalidate();
                    Ok(())
                }
            };
            if applied.is_err() {
                // The step is durable: history is right, so the state is built anew from it.
                online.invalidate();
            }
            online.saw(greatest);
            online.advance(self.horizon(&online.view, online.greatest()));
            if let Some(newest) = newest.filter(|_| !online.is_stale()) {
                self.metrics.fresh(&slot.view, self.now().saturating_sub(newest));
            }
        }
    }

    /// The rows of a step by partition, those that go and those that come, where the stream's states are.
    fn split(&self, stream: &str, changes: &Changes) -> Result<Option<BTreeMap<i32, [RecordBatch; 2]>>> {
        let (Some(share), Changes::Rows { gone, come }) = (self.share(stream), changes) else { return Ok(None) };
        let nothing = || [gone.slice(0, 0), come.slice(0, 0)];
        let mut split = BTreeMap::new();
        for (place, rows) in [gone, come].into_iter().enumerate() {
            for (partition, rows) in share.placement.split(rows)? {
                split.entry(partition).or_insert_with(nothing)[place] = rows;
            }
        }
        Ok(Some(split))
    }

    async fn apply_since(
        &self,
        online: &OnlineView,
        stream: &str,
        history: &StreamHistory,
        version: i64,
        only: Option<&Only>,
    ) -> Result<()> {
        let options = TableOptions { since: Some(version), all_rows: true, ..TableOptions::default() };
        let table = history.table(HistoryPart::History, options).await?;
        self.apply_table(online, stream, history, table, only).await
    }

    /// Applies all rows of a table of history as rows that come.
    pub(super) async fn apply_table(
        &self,
        online: &OnlineView,
        stream: &str,
        history: &StreamHistory,
        table: Arc<HistoryTable>,
        only: Option<&Only>,
    ) -> Result<()> {
        let plan = self.context.read_table(table)?.create_physical_plan().await?;
        let (sender, mut receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        let context = self.context.task_ctx();
        // History is read while what was read before is applied.
        let reading = SpawnedTask::spawn(async move {
            // One partition after the other, which is the order of time as far as files tell.
            for partition in 0..plan.output_partitioning().partition_count() {
                let mut batches = plan.execute(partition, context.clone())?;
                while let Some(batch) = batches.next().await.transpose()? {
                    if sender.send(batch).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok::<_, DataFusionError>(())
        });
        let mut batches = Vec::new();
        // Many batches at once: an entity's rows of all of them are applied together.
        while receiver.recv_many(&mut batches, BATCHES_AHEAD).await > 0 {
            let rows = batches.drain(..).map(|batch| Only::of(only, stream, canonical(&batch, history)?)).collect::<Result<Vec<_>>>()?;
            let changes: Vec<Change<'_>> = rows.iter().map(|rows| Change { stream, rows, gone: false }).collect();
            online.apply(&changes)?;
        }
        reading.join_unwind().await.map_err(|e| Error::internal(e.to_string()))??;
        Ok(())
    }

    /// The memory of all online states, bytes.
    pub(super) fn state_bytes(&self) -> usize {
        self.views.all().iter().map(|v| v.memory_bytes()).sum()
    }
}

/// The newest event that comes with a step; of a load nothing is new.
fn newest(history: &StreamHistory, changes: &Changes) -> Option<i64> {
    let Changes::Rows { come, .. } = changes else { return None };
    let times = come.columns().get(history.schema().event_time())?.as_primitive_opt::<TimestampMicrosecondType>()?;
    arrow::compute::max(times)
}

/// The names of a view's streams in the order in which their pipelines are locked.
pub(super) fn sorted_streams(view: &View) -> Vec<String> {
    let mut names: Vec<String> = view.plan.streams().into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Fills an empty state from history: right sides of joins before what they enrich, everything in bounded batches.
pub(crate) async fn bootstrap(
    online: &OnlineView,
    scans: &HistoryScans,
    context: Arc<datafusion::execution::TaskContext>,
    only: Option<&Only>,
) -> Result<()> {
    let plan = &online.view.plan;
    let mut order: Vec<Scan> = Vec::new();
    plan.relation.visit_scans(&mut |s| match order.iter_mut().find(|o| o.stream == s.stream) {
        Some(o) => {
            o.columns.extend(s.columns.iter().copied());
            o.columns.sort_unstable();
            o.columns.dedup();
        }
        None => order.push(s.clone()),
    });
    let leftmost = plan.relation.leftmost().stream.clone();
    order.reverse();
    let reach = online.view.reach_us();
    for scan in &order {
        let whole = plan.relation.has_join() && scan.stream != leftmost;
        let from = match reach {
            Some(reach) if !whole => online.horizon().saturating_sub(reach),
            _ => i64::MIN,
        };
        let physical: Arc<dyn ExecutionPlan> = scans.scan(scan, (from, i64::MAX), &context).await?;
        for partition in 0..physical.output_partitioning().partition_count() {
            let mut batches = physical.execute(partition, context.clone())?;
            while let Some(batch) = batches.next().await {
                let rows = Only::of(only, &scan.stream, widen(&batch?, scan)?)?;
                online.apply(&[Change { stream: &scan.stream, rows: &rows, gone: false }])?;
            }
        }
    }
    Ok(())
}

/// A batch of some columns as one of all columns of the stream; what was not read is NULL and never looked at.
pub(crate) fn widen(batch: &RecordBatch, scan: &Scan) -> Result<RecordBatch> {
    let n = batch.num_rows();
    let columns: Vec<ArrayRef> = scan
        .schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| match scan.columns.iter().position(|c| *c == i).and_then(|at| batch.columns().get(at)) {
            Some(column) => column.clone(),
            None => new_null_array(f.data_type(), n),
        })
        .collect();
    Ok(RecordBatch::try_new_with_options(scan.schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(n)))?)
}

fn canonical(batch: &RecordBatch, history: &StreamHistory) -> Result<RecordBatch> {
    let columns = batch.columns()[..history.schema().columns().fields().len()].to_vec();
    Ok(RecordBatch::try_new(history.schema().columns().clone(), columns)?)
}
