//! The AS OF join as an operator of DataFusion: one side is indexed, the other streams past it once.
//!
//! - Indexed left (the usual training spine): its distinct (key, match value) pairs are slots. Each right row falls into the slot of the nearest
//!   left row that it can match; the best of each slot is kept, and filled on to the slots behind it at the end. The right side is neither
//!   partitioned nor sorted nor kept: every partition of it streams past the one shared index, and the bests of the partitions are merged.
//! - Indexed right (a small table beside a big left side): its best row per (key, match value) is found by each left row as it streams.
//! - Where the memory pool refuses: both sides go to disk in pieces by key, and each piece is joined alone (`grace`).
//!
//! Rows come out in no particular order, left and right columns as the plan says. Memory: the indexed side, and of a streamed right side
//! the rows that lead.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::JoinSet;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, SpillMetrics};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::grace::{self, Pieces, Spilled, Spiller};
use super::keys::{Value, fits_i64};
use super::shape::{Build, Shape, Source, output_schema};
use super::side::{Index, Joined, Leading, SideRows};
use super::winners::Payload;

/// Joins left rows as they come with an indexed right side.
trait Probe: Send + Sync {
    fn cursors(&self) -> Vec<u32>;

    fn join(&self, shape: &Shape, left: &RecordBatch, cursors: &mut [u32]) -> Result<RecordBatch>;
}

#[derive(Debug)]
struct RightIndex<V> {
    index: Index<V>,
    payload: Payload,
}

impl<V: Value> Probe for RightIndex<V> {
    fn cursors(&self) -> Vec<u32> {
        self.index.cursors()
    }

    fn join(&self, shape: &Shape, left: &RecordBatch, cursors: &mut [u32]) -> Result<RecordBatch> {
        let (slots, _) = self.index.locate(shape, Build::Left, left, cursors)?;
        shape.assemble(left, self.payload.gather(&slots)?)
    }
}

/// What the partitions of the output share.
enum Prepared {
    Joined(Joined, #[expect(dead_code, reason = "held until the rows are out")] Vec<MemoryReservation>),
    Index(Box<dyn Probe>, #[expect(dead_code, reason = "held until the rows are out")] MemoryReservation),
    Pieces(Pieces),
}

type Preparation = Shared<BoxFuture<'static, Result<Arc<Prepared>, Arc<DataFusionError>>>>;

/// One execution of the plan: what its partitions share, until all have taken it.
struct Execution {
    context: Arc<TaskContext>,
    preparation: Preparation,
    taken: Vec<bool>,
}

/// See the module.
pub struct AsofJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    shape: Arc<Shape>,
    build: Build,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    executions: Mutex<Vec<Execution>>,
}

impl fmt::Debug for AsofJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsofJoinExec")
            .field("left", &self.left)
            .field("right", &self.right)
            .field("shape", &self.shape)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

impl AsofJoinExec {
    /// The join of two inputs with the schemas of `shape`.
    pub fn new(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>, shape: Arc<Shape>, build: Build) -> Self {
        let of_left = left.output_partitioning().partition_count();
        let partitions = match build {
            Build::Left if shape.has_right_output() => of_left.max(right.output_partitioning().partition_count()),
            _ => of_left,
        };
        let boundedness = match left.boundedness() {
            Boundedness::Bounded => right.boundedness(),
            unbounded => unbounded,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            boundedness,
        );
        Self {
            left,
            right,
            shape,
            build,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            executions: Mutex::new(Vec::new()),
        }
    }

    /// Which side is indexed.
    pub fn build(&self) -> Build {
        self.build
    }

    #[cfg(test)]
    pub(super) fn with_build(&self, build: Build) -> Self {
        Self::new(Arc::clone(&self.left), Arc::clone(&self.right), Arc::clone(&self.shape), build)
    }

    fn preparation(&self, partition: usize, context: &Arc<TaskContext>) -> Preparation {
        let mut running = self.executions.lock().unwrap_or_else(PoisonError::into_inner);
        let found = running.iter().position(|e| Arc::ptr_eq(&e.context, context) && !e.taken[partition]);
        let at = found.unwrap_or_else(|| {
            let work = Work {
                shape: Arc::clone(&self.shape),
                build: self.build,
                left: Arc::clone(&self.left),
                right: Arc::clone(&self.right),
                context: Arc::clone(context),
                spill_metrics: SpillMetrics::new(&self.metrics, partition),
            };
            let preparation = async move { work.prepare().await.map(Arc::new).map_err(Arc::new) }.boxed().shared();
            let taken = vec![false; self.properties.partitioning.partition_count()];
            running.push(Execution { context: Arc::clone(context), preparation, taken });
            running.len() - 1
        });
        let execution = &mut running[at];
        execution.taken[partition] = true;
        let preparation = execution.preparation.clone();
        if execution.taken.iter().all(|t| *t) {
            running.swap_remove(at);
        }
        preparation
    }
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { keys, matched, op, ties, .. } = self.shape.as_ref();
        let condition = format!("{} {op} {}", matched.left, matched.right);
        let on = keys.iter().map(|k| format!("{} = {}", k.left, k.right)).collect::<Vec<_>>().join(", ");
        let ties = ties.iter().map(|i| format!("{}@{i}", self.shape.right_schema.field(*i).name())).collect::<Vec<_>>().join(", ");
        let build = if self.build == Build::Left { "left" } else { "right" };
        match t {
            DisplayFormatType::TreeRender => {
                writeln!(f, "match={condition}")?;
                if !on.is_empty() {
                    writeln!(f, "on={on}")?;
                }
                writeln!(f, "index={build}")
            }
            _ => {
                write!(f, "AsofJoinExec: match=[{condition}]")?;
                if !on.is_empty() {
                    write!(f, ", on=[{on}]")?;
                }
                if !ties.is_empty() {
                    write!(f, ", ties=[{ties}]")?;
                }
                write!(f, ", index={build}")?;
                let whole = self.left.schema().fields().len();
                let natural = self.shape.output.iter().take(whole).enumerate().all(|(i, s)| *s == Source::Left(i));
                if !natural || self.shape.output.len() < whole {
                    let names: Vec<&str> = self.shape.schema.fields().iter().map(|f| f.name().as_str()).collect();
                    write!(f, ", projection=[{}]", names.join(", "))?;
                }
                Ok(())
            }
        }
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        let keys = self.shape.keys.iter().chain([&self.shape.matched]);
        for e in keys.flat_map(|k| [&k.left, &k.right]) {
            if f(e)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(right), Some(left), true) = (children.pop(), children.pop(), children.is_empty()) else {
            return internal_err!("an AS OF join has two inputs");
        };
        Ok(Arc::new(Self::new(left, right, Arc::clone(&self.shape), self.build)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let shape = Arc::clone(&self.shape);
        let schema = Arc::clone(&shape.schema);
        let partitions = self.properties.partitioning.partition_count();
        let left = Arc::clone(&self.left);
        if !shape.has_right_output() {
            // Every left row comes out once whatever it matches.
            let rows = left.execute(partition, context)?.map(move |batch| shape.assemble(&batch?, Vec::new()));
            return Ok(counted(schema, rows, metrics));
        }
        let preparation = self.preparation(partition, &context);
        let rows = stream::once(async move {
            let prepared = preparation.await.map_err(DataFusionError::Shared)?;
            let rows = match prepared.as_ref() {
                Prepared::Joined(joined, _) => {
                    let turns = (partition..joined.len()).step_by(partitions);
                    let prepared = Arc::clone(&prepared);
                    stream::iter(turns)
                        .map(move |i| match prepared.as_ref() {
                            Prepared::Joined(joined, _) => joined.batch(&shape, i),
                            _ => internal_err!("an AS OF join changed its kind"),
                        })
                        .boxed()
                }
                Prepared::Index(index, _) => {
                    let prepared = Arc::clone(&prepared);
                    let mut cursors = index.cursors();
                    left.execute(partition, context)?
                        .map(move |batch| match prepared.as_ref() {
                            Prepared::Index(index, _) => index.join(&shape, &batch?, &mut cursors),
                            _ => internal_err!("an AS OF join changed its kind"),
                        })
                        .boxed()
                }
                Prepared::Pieces(pieces) => grace::join(shape, pieces, (partition, partitions), context)?,
            };
            Ok::<_, DataFusionError>(rows)
        })
        .try_flatten();
        Ok(counted(schema, rows, metrics))
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None), ChildStats::Skip]
    }

    /// As many rows as the left side has, and its columns as they are there.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut all = Statistics::new_unknown(&self.shape.schema);
        if let (Some(left), None) = (inputs.first(), args.partition()) {
            all.num_rows = left.num_rows;
            for (column, source) in all.column_statistics.iter_mut().zip(&self.shape.output) {
                if let Source::Left(i) = source
                    && let Some(known) = left.column_statistics.get(*i)
                {
                    *column = known.clone();
                }
            }
        }
        Ok(Arc::new(all))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mut output = Vec::with_capacity(projection.expr().len());
        for e in projection.expr() {
            let Some(column) = e.expr.downcast_ref::<Column>() else { return Ok(None) };
            if column.name() != e.alias || column.index() >= self.shape.output.len() {
                return Ok(None);
            }
            output.push(self.shape.output[column.index()]);
        }
        if output.len() >= self.shape.output.len() {
            return Ok(None);
        }
        let schema = output_schema(&self.shape.left_schema, &self.shape.right_schema, &output)?;
        let shape = Shape { output, schema, ..self.shape.as_ref().clone() };
        Ok(Some(Arc::new(Self::new(Arc::clone(&self.left), Arc::clone(&self.right), Arc::new(shape), self.build))))
    }
}

fn counted(
    schema: SchemaRef,
    rows: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    metrics: BaselineMetrics,
) -> SendableRecordBatchStream {
    let rows = rows.inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// All that the preparation of one execution reads.
pub(super) struct Work {
    pub(super) shape: Arc<Shape>,
    build: Build,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    spill_metrics: SpillMetrics,
}

/// What one task made of one partition of the right side.
enum Half<V> {
    Leading(Box<Leading<V>>, MemoryReservation),
    Spilled(Spilled),
}

impl Work {
    async fn prepare(self) -> Result<Prepared> {
        match (fits_i64(&self.shape.match_type()?), self.build) {
            (true, Build::Left) => self.index_left::<i64>().await,
            (false, Build::Left) => self.index_left::<Box<[u8]>>().await,
            (true, Build::Right) => self.index_right::<i64>().await,
            (false, Build::Right) => self.index_right::<Box<[u8]>>().await,
        }
    }

    fn reservation(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(format!("AsofJoin[{name}]")).with_can_spill(true).register(self.context.memory_pool())
    }

    fn spiller(&self, side: Build, hash: &hashbrown::DefaultHashBuilder) -> Result<Spiller> {
        let schema = if side == Build::Left { &self.shape.left_schema } else { &self.shape.right_schema };
        Spiller::try_new(&self.context, Arc::clone(schema), self.shape.key_exprs(side), hash.clone(), self.spill_metrics.clone())
    }

    async fn index_left<V: Value>(self) -> Result<Prepared> {
        let held = self.reservation("left");
        let mut rows = SideRows::<V>::try_new(&self.shape, Build::Left)?;
        let mut left = execute_stream(Arc::clone(&self.left), Arc::clone(&self.context))?;
        let hash = hashbrown::DefaultHashBuilder::default();
        while let Some(batch) = left.next().await {
            rows.push(&self.shape, batch?)?;
            if held.try_resize(rows.memory_bytes()).is_err() || rows.is_full() {
                let left_files = self.spill_rest(Build::Left, rows.batches, left, &hash).await?;
                held.free();
                let right = execute_stream(Arc::clone(&self.right), Arc::clone(&self.context))?;
                let right_files = self.spill_rest(Build::Right, Vec::new(), right, &hash).await?;
                return Ok(Prepared::Pieces(Pieces::new(left_files, vec![right_files])));
            }
        }
        drop(left);
        let held_rows = rows.row_bytes();
        let (index, batches, slot_of) = rows.build();
        held.try_resize(held_rows + index.memory_bytes() + 4 * slot_of.len())?;
        let index = Arc::new(index);

        let work = Arc::new(self);
        let full = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for partition in 0..work.right.output_partitioning().partition_count() {
            let (work, index, full, hash) = (Arc::clone(&work), Arc::clone(&index), Arc::clone(&full), hash.clone());
            tasks.spawn(async move { work.stream_right(partition, &index, &full, &hash).await });
        }
        let (mut leading, mut spilled, mut reservations) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(done) = tasks.join_next().await {
            match done.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?? {
                Half::Leading(part, reservation) => {
                    leading.push(*part);
                    reservations.push(reservation);
                }
                Half::Spilled(files) => spilled.push(files),
            }
        }
        if !spilled.is_empty() {
            drop(index);
            for part in leading {
                let mut spiller = work.spiller(Build::Right, &hash)?;
                part.into_batches(&work.shape.right_schema)?.iter().try_for_each(|b| spiller.write(b))?;
                spilled.push(spiller.finish()?);
            }
            drop(reservations);
            let mut spiller = work.spiller(Build::Left, &hash)?;
            batches.iter().try_for_each(|b| spiller.write(b))?;
            return Ok(Prepared::Pieces(Pieces::new(spiller.finish()?, spilled)));
        }
        let payload = Leading::finish(leading, &work.shape, &index)?;
        let batch_rows = work.context.session_config().batch_size();
        reservations.push(held);
        Ok(Prepared::Joined(Joined::new(batches, slot_of, payload, batch_rows), reservations))
    }

    async fn stream_right<V: Value>(
        &self,
        partition: usize,
        index: &Index<V>,
        full: &AtomicBool,
        hash: &hashbrown::DefaultHashBuilder,
    ) -> Result<Half<V>> {
        let held = self.reservation("right");
        // A pool without a limit never refuses, so nothing will have to be spilled as it came.
        let whole = !matches!(self.context.memory_pool().memory_limit(), MemoryLimit::Infinite);
        let mut right = self.right.execute(partition, Arc::clone(&self.context))?;
        if held.try_resize(Leading::<V>::entry_bytes(index)).is_err() {
            full.store(true, Ordering::Relaxed);
            return Ok(Half::Spilled(self.spill_rest(Build::Right, Vec::new(), right, hash).await?));
        }
        let mut leading = Leading::new(&self.shape, index, whole);
        while let Some(batch) = right.next().await {
            let batch = batch?;
            leading.offer(&self.shape, index, &batch)?;
            drop(batch);
            if full.load(Ordering::Relaxed) || !leading.fits(&held)? {
                full.store(true, Ordering::Relaxed);
                let rows = leading.into_batches(&self.right.schema())?;
                let files = self.spill_rest(Build::Right, rows, right, hash).await?;
                return Ok(Half::Spilled(files));
            }
        }
        Ok(Half::Leading(Box::new(leading), held))
    }

    async fn spill_rest(
        &self,
        side: Build,
        first: Vec<RecordBatch>,
        mut rest: SendableRecordBatchStream,
        hash: &hashbrown::DefaultHashBuilder,
    ) -> Result<Spilled> {
        let mut spiller = self.spiller(side, hash)?;
        for batch in first {
            spiller.write(&batch)?;
        }
        while let Some(batch) = rest.next().await {
            spiller.write(&batch?)?;
        }
        spiller.finish()
    }

    async fn index_right<V: Value>(self) -> Result<Prepared> {
        let held = self.reservation("right");
        let mut rows = SideRows::<V>::try_new(&self.shape, Build::Right)?;
        let mut right = execute_stream(Arc::clone(&self.right), Arc::clone(&self.context))?;
        let hash = hashbrown::DefaultHashBuilder::default();
        while let Some(batch) = right.next().await {
            rows.push(&self.shape, batch?)?;
            let entries = rows.entry_bytes();
            if held.try_resize(rows.memory_bytes() + entries).is_err() || rows.is_full() {
                let right_files = self.spill_rest(Build::Right, rows.batches, right, &hash).await?;
                held.free();
                let left = execute_stream(Arc::clone(&self.left), Arc::clone(&self.context))?;
                let left_files = self.spill_rest(Build::Left, Vec::new(), left, &hash).await?;
                return Ok(Prepared::Pieces(Pieces::new(left_files, vec![right_files])));
            }
        }
        let held_rows = rows.row_bytes();
        let (index, payload) = rows.build_right(&self.shape)?;
        held.try_resize(held_rows + index.memory_bytes() + payload.memory_bytes())?;
        Ok(Prepared::Index(Box::new(RightIndex { index, payload }), held))
    }
}
