//! The online states of views: built from history at the first use or at CREATE, kept up by every step of ingestion, rebuilt where a
//! change could not be applied exactly.

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
use crate::history::{HistoryTable, Part, StreamHistory, TableOptions};
use crate::op::relation::batch::StreamScan;
use crate::op::relation::stream::Change;
use crate::op::window::View;
use crate::op::window::stream::OnlineView;
use crate::serve::scans::{HistoryScans, Pinned};

/// How many batches of history are read ahead of what is applied: some hundred thousand rows.
const BATCHES_AHEAD: usize = 16;

/// Online states by view.
#[derive(Debug, Default)]
pub(crate) struct Views {
    online: RwLock<BTreeMap<String, Arc<OnlineView>>>,
    /// Held while a view's state is made.
    building: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Their checkpoints.
    pub(super) known: Known,
}

impl Views {
    pub(super) fn get(&self, name: &str) -> Option<Arc<OnlineView>> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).get(name).cloned()
    }

    pub(super) fn put(&self, name: &str, view: Arc<OnlineView>) {
        self.online.write().unwrap_or_else(|e| e.into_inner()).insert(name.to_owned(), view);
    }

    fn building(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.building.lock().unwrap_or_else(|e| e.into_inner()).entry(name.to_owned()).or_default().clone()
    }

    pub(super) fn remove(&self, name: &str) {
        self.online.write().unwrap_or_else(|e| e.into_inner()).remove(name);
    }

    pub(super) fn reading(&self, stream: &str) -> Vec<(String, Arc<OnlineView>)> {
        let online = self.online.read().unwrap_or_else(|e| e.into_inner());
        online.iter().filter(|(_, v)| v.view.plan.streams().contains(&stream)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    pub(super) fn named(&self) -> Vec<(String, Arc<OnlineView>)> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).iter().map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<OnlineView>> {
        self.online.read().unwrap_or_else(|e| e.into_inner()).values().cloned().collect()
    }
}

impl Inner {
    /// The online state of a view; where it is not there, begun from a checkpoint or built from history.
    pub(crate) async fn online(&self, name: &str) -> Result<Arc<OnlineView>> {
        let unknown = || Error::invalid(format!("unknown feature view \"{name}\""));
        if let Some(online) = self.views.get(name) {
            // Streams that another process writes are looked at anew; one's own are known.
            for stream in online.view.plan.streams().into_iter().filter(|s| !self.is_written(s)) {
                self.stream(stream).await?;
            }
            let registry = self.registry();
            if !online.is_stale() && Arc::ptr_eq(&online.view, &registry.views.get(name).ok_or_else(unknown)?.view) {
                return Ok(online);
            }
        }
        let building = self.views.building(name);
        let _building = building.lock().await;
        let registry = self.registry();
        let defined = registry.views.get(name).ok_or_else(unknown)?;
        if let Some(online) = self.views.get(name).filter(|v| !v.is_stale() && Arc::ptr_eq(&v.view, &defined.view)) {
            return Ok(online);
        }
        let begun = Instant::now();
        // What history has is read while steps go on.
        let (mut histories, mut greatest) = (Vec::new(), None);
        for stream in sorted_streams(&defined.view) {
            let open = self.stream(&stream).await?;
            let open = open.lock().await;
            greatest = greatest.max(open.pipeline.greatest());
            histories.push((stream, open.pipeline.history().clone()));
        }
        let recovered = self.recovered(name, defined, &histories, greatest).await;
        let checkpoint = recovered.as_ref().and_then(|_| self.views.known.newest(name)).map(|newest| newest.epoch);
        let (mut online, versions) = match recovered {
            Some(recovered) => recovered,
            None => self.built(&defined.view, &histories, greatest).await?,
        };
        // From here on no step may come between what is read of history and the first change that is applied.
        let mut held = self.hold(&sorted_streams(&online.view)).await?;
        for (stream, open) in &mut held {
            // What may be in history already must not be applied once more.
            self.settle(stream, open).await?;
            if open.pipeline.is_in_doubt() {
                self.commit_staged(stream, open).await?;
            }
        }
        let now: Vec<(String, StreamHistory)> = held.iter().map(|(name, open)| (name.clone(), open.pipeline.history().clone())).collect();
        greatest = held.iter().map(|(_, open)| open.pipeline.greatest()).max().flatten();
        let followed = self.follow_history(&online, &versions, &now).await;
        if followed.is_err() || online.is_stale() {
            (online, _) = self.built(&defined.view, &now, greatest).await?;
        }
        online.saw(greatest);
        online.advance(self.horizon(&online.view, greatest));
        // What is in the state and not yet in history.
        for (stream, open) in &held {
            for changes in open.pipeline.staged_changes() {
                if let Changes::Rows { gone, come } = changes {
                    online.apply(&[Change { stream, rows: gone, gone: true }, Change { stream, rows: come, gone: false }])?;
                }
            }
        }
        online.sweep();
        if !Arc::ptr_eq(&self.registry().views.get(name).ok_or_else(unknown)?.view, &online.view) {
            return Err(Error::unavailable(format!("feature view \"{name}\" was defined anew; try again")));
        }
        self.views.known.begun(name, checkpoint, begun);
        self.views.put(name, online.clone());
        Ok(online)
    }

    /// The state of a view from history, and the versions that it is of.
    async fn built(
        &self,
        view: &Arc<View>,
        histories: &[(String, StreamHistory)],
        greatest: Option<i64>,
    ) -> Result<(Arc<OnlineView>, BTreeMap<String, i64>)> {
        let online = Arc::new(OnlineView::try_new(view.clone())?);
        online.saw(greatest);
        online.advance(self.horizon(&online.view, greatest));
        let pinned = |history: &StreamHistory| Pinned { history: history.clone(), version: history.version(), upto: None };
        let scans = HistoryScans { streams: histories.iter().map(|(name, history)| (name.clone(), pinned(history))).collect() };
        bootstrap(&online, &scans, self.context.task_ctx()).await?;
        let versions = scans.streams.iter().map(|(name, pinned)| (name.clone(), pinned.version)).collect();
        Ok((online, versions))
    }

    /// The online state of a view where it is there and nobody else writes its streams.
    pub(crate) fn ready_view(&self, name: &str) -> Option<Arc<OnlineView>> {
        let online = self.views.get(name).filter(|o| !o.is_stale())?;
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
        for (name, online) in self.views.reading(stream) {
            if online.is_stale() {
                continue;
            }
            let applied = match changes {
                Changes::Rows { gone, come } => {
                    online.apply(&[Change { stream, rows: gone, gone: true }, Change { stream, rows: come, gone: false }])
                }
                Changes::Since(version) => {
                    online.begin_load();
                    let applied = self.apply_since(&online, stream, history, *version).await;
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
                self.metrics.fresh(&name, self.now().saturating_sub(newest));
            }
        }
    }

    async fn apply_since(&self, online: &OnlineView, stream: &str, history: &StreamHistory, version: i64) -> Result<()> {
        let table = history.table(Part::History, TableOptions { since: Some(version), all_rows: true, ..TableOptions::default() }).await?;
        self.apply_table(online, stream, history, table).await
    }

    /// Applies all rows of a table of history as rows that come.
    pub(super) async fn apply_table(
        &self,
        online: &OnlineView,
        stream: &str,
        history: &StreamHistory,
        table: Arc<HistoryTable>,
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
            let rows = batches.drain(..).map(|batch| canonical(&batch, history)).collect::<Result<Vec<_>>>()?;
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
pub(crate) async fn bootstrap(online: &OnlineView, scans: &HistoryScans, context: Arc<datafusion::execution::TaskContext>) -> Result<()> {
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
                online.apply(&[Change { stream: &scan.stream, rows: &widen(&batch?, scan)?, gone: false }])?;
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
