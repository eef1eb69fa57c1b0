//! The batch mode of feature views: a spine of instants joined with views, point-in-time correct, one output row per spine row.
//!
//! The spine is read first: its instants bound the event time that is read, its entities which events are kept. Per view, events are cut
//! into *pieces* by entity hash (`pieces`; spilled under a memory limit), and each piece is swept once: an entity's events in order into
//! one scratch run, its instants in order out of it (`sweep`). Columns of several views meet by the number of the spine row.
//!
//! Rows come out in the order of the spine as its partitions are read, one after the other. A spine larger than `spine_rows_max` is
//! processed in slices of that many rows, so that memory is bounded by a slice.

mod pieces;
mod sweep;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{concat, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use asof_sql::plan::instant_type;
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream};
use futures::{Stream, StreamExt, TryStreamExt};

use self::pieces::Pieces;
use self::sweep::{SpineView, Swept, sweep};
use super::{View, entity_columns};
use crate::error::Error;
use crate::state::key::EntityKeys;

/// Where the events of a view come from, at one pinned version of history.
#[async_trait]
pub trait EventSource: fmt::Debug + Send + Sync {
    /// A plan of the view's events in a range of event time, both ends included; batches have the hidden columns of `op::events`.
    async fn events(&self, range: (i64, i64), context: &TaskContext) -> DfResult<Arc<dyn ExecutionPlan>>;
    /// What is read, for EXPLAIN.
    fn describe(&self) -> String;
    /// The streams that are read, each with the version of its history.
    fn versions(&self) -> Vec<(String, i64)>;
}

/// One view joined to the spine.
#[derive(Debug, Clone)]
pub struct ViewJoin {
    /// The view.
    pub view: Arc<View>,
    /// Its events.
    pub source: Arc<dyn EventSource>,
    /// The entity of a spine row: one expression an entity column, in the order of the view's.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The instant of a spine row: a timestamp.
    pub instant: Arc<dyn PhysicalExpr>,
    /// Whether events at the instant do not count (`>`).
    pub strict: bool,
}

impl ViewJoin {
    /// The columns that the view adds: entity, features, instant.
    fn fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = self.view.plan.output_schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new(&self.view.plan.time_column, instant_type(), true));
        fields
    }
}

/// Joins a spine with feature views.
#[derive(Debug)]
pub struct FeatureJoinExec {
    spine: Arc<dyn ExecutionPlan>,
    views: Vec<ViewJoin>,
    schema: SchemaRef,
    spine_rows_max: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FeatureJoinExec {
    /// A join of the spine with views; the output is the spine's columns, then each view's entity, features and instant.
    pub fn new(spine: Arc<dyn ExecutionPlan>, views: Vec<ViewJoin>, schema: SchemaRef, spine_rows_max: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            spine,
            views,
            schema,
            spine_rows_max: spine_rows_max.max(1),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The schema of a join of a spine with views.
    pub fn output_schema(spine: &Schema, views: &[ViewJoin]) -> SchemaRef {
        let fields = spine.fields().iter().map(|f| f.as_ref().clone());
        Arc::new(Schema::new_with_metadata(
            fields.chain(views.iter().flat_map(ViewJoin::fields)).collect::<Vec<_>>(),
            spine.metadata().clone(),
        ))
    }
}

impl DisplayAs for FeatureJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeatureJoinExec:")?;
        for v in &self.views {
            let keys: Vec<_> = v.keys.iter().map(ToString::to_string).collect();
            write!(f, " {} ON [{}] AT {} {}", v.view.plan.name, keys.join(", "), if v.strict { ">" } else { ">=" }, v.instant)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for FeatureJoinExec {
    fn name(&self) -> &str {
        "FeatureJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.spine]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion>,
    ) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion> {
        let mut go = datafusion::common::tree_node::TreeNodeRecursion::Continue;
        for e in self.views.iter().flat_map(|v| v.keys.iter().chain([&v.instant])) {
            go = f(e)?;
            if go == datafusion::common::tree_node::TreeNodeRecursion::Stop {
                break;
            }
        }
        Ok(go)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let [spine] = <[_; 1]>::try_from(children).map_err(|_| Error::internal("a feature join has one child"))?;
        Ok(Arc::new(Self::new(spine, self.views.clone(), self.schema.clone(), self.spine_rows_max)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(Error::internal("a feature join has one partition").into());
        }
        let join = Join {
            spine: self.spine.clone(),
            views: self.views.clone(),
            schema: self.schema.clone(),
            spine_rows_max: self.spine_rows_max,
            context,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), join.run())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One execution of the join.
struct Join {
    spine: Arc<dyn ExecutionPlan>,
    views: Vec<ViewJoin>,
    schema: SchemaRef,
    spine_rows_max: usize,
    context: Arc<TaskContext>,
    metrics: BaselineMetrics,
}

impl Join {
    fn run(self) -> impl Stream<Item = DfResult<RecordBatch>> + Send {
        let spine = datafusion::physical_plan::execute_stream(self.spine.clone(), self.context.clone());
        let state = (Arc::new(self), spine.map(Some));
        // Slices of the spine, one after the other; each gives its output batches.
        let slices = futures::stream::unfold(state, |(join, spine)| async move {
            match spine {
                Err(e) => Some((Err(e), (join, Ok(None)))),
                Ok(None) => None,
                Ok(Some(mut spine)) => match join.slice(&mut spine).await {
                    Ok(None) => None,
                    Ok(Some(output)) => Some((Ok(output), (join, Ok(Some(spine))))),
                    Err(e) => Some((Err(e), (join, Ok(None)))),
                },
            }
        });
        slices.try_flatten()
    }

    /// Reads the next slice of the spine and computes its rows; `None` at its end.
    async fn slice(
        &self,
        spine: &mut SendableRecordBatchStream,
    ) -> DfResult<Option<impl Stream<Item = DfResult<RecordBatch>> + Send + use<>>> {
        let reservation = MemoryConsumer::new("FeatureJoinExec spine").register(self.context.memory_pool());
        let (mut batches, mut rows) = (Vec::new(), 0);
        while rows < self.spine_rows_max {
            let Some(batch) = spine.next().await.transpose()? else { break };
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows();
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        if batches.is_empty() {
            return Ok(None);
        }
        let mut swept = Vec::with_capacity(self.views.len());
        for view in &self.views {
            swept.push(self.view(view, &batches, rows).await?);
        }
        let output = Arc::new(SliceOutput { swept, schema: self.schema.clone(), metrics: self.metrics.clone(), _held: reservation });
        let mut first_row = 0;
        let parts = batches.into_iter().map(move |batch| {
            let rows = first_row..first_row + batch.num_rows();
            first_row = rows.end;
            (batch, rows)
        });
        // Rows are gathered from all over the pieces; one thread for that would let the others wait.
        let threads = self.context.session_config().target_partitions().max(1);
        let gathered = futures::stream::iter(parts).map(move |(batch, rows)| {
            let output = output.clone();
            let task = SpawnedTask::spawn_blocking(move || output.batch(&batch, rows));
            async move {
                let batch: DfResult<RecordBatch> = task.join_unwind().await.map_err(|e| Error::internal(e.to_string()))?;
                batch
            }
        });
        Ok(Some(gathered.buffered(threads)))
    }

    /// One view for every row of a slice.
    async fn view(&self, join: &ViewJoin, batches: &[RecordBatch], rows: usize) -> DfResult<ViewColumns> {
        let spine = Arc::new(spine_of(join, batches, rows)?);
        let mut columns = ViewColumns {
            join: join.clone(),
            entity: spine.entity.clone(),
            instants: spine.instant_column.clone(),
            swept: vec![],
            places: vec![],
        };
        let Some(range) = spine.event_range(join.view.reach_us()) else { return Ok(columns) };
        let plan = join.source.events(range, &self.context).await?;
        let pieces = Pieces::collect(plan, join.view.clone(), spine.clone(), self.context.clone()).await?;
        let (swept, places) = sweep(pieces, join.view.clone(), spine, join.strict).await?;
        columns.swept = swept;
        columns.places = places;
        Ok(columns)
    }
}

/// What the output rows of a slice are made of.
struct SliceOutput {
    swept: Vec<ViewColumns>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
    /// The spine's memory.
    _held: MemoryReservation,
}

impl SliceOutput {
    /// The output of a batch of the spine, its rows `rows` of the slice.
    fn batch(&self, batch: &RecordBatch, rows: std::ops::Range<usize>) -> DfResult<RecordBatch> {
        let _timer = self.metrics.elapsed_compute().timer();
        let mut columns = batch.columns().to_vec();
        for s in &self.swept {
            columns.extend(s.columns(rows.clone())?);
        }
        self.metrics.record_output(batch.num_rows());
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The entities and instants of a slice.
fn spine_of(join: &ViewJoin, batches: &[RecordBatch], rows: usize) -> DfResult<SpineView> {
    let evaluate = |e: &Arc<dyn PhysicalExpr>| -> DfResult<ArrayRef> {
        let parts = batches.iter().map(|b| e.evaluate(b)?.into_array(b.num_rows())).collect::<DfResult<Vec<_>>>()?;
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    };
    let given = join.keys.iter().map(evaluate).collect::<DfResult<Vec<_>>>()?;
    let (entity, unknown) = entity_columns(&join.view.plan, &given)?;
    let instants =
        arrow::compute::cast(&evaluate(&join.instant)?, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())))?;
    let times = arrow::array::AsArray::as_primitive::<TimestampMicrosecondType>(&instants).clone();
    let keys = EntityKeys::try_new(&entity, rows)?;
    Ok(SpineView { keys, unknown, times, entity, instant_column: instants })
}

/// The columns of one view for a slice: results in pieces, and where each spine row's is.
struct ViewColumns {
    join: ViewJoin,
    entity: Vec<ArrayRef>,
    instants: ArrayRef,
    swept: Vec<Swept>,
    /// Piece and row within it; `None` where the instant is NULL.
    places: Vec<Option<(u32, u32)>>,
}

impl ViewColumns {
    fn columns(&self, rows: std::ops::Range<usize>) -> DfResult<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> = self.entity.iter().map(|e| e.slice(rows.start, rows.len())).collect();
        let null_piece = self.swept.len();
        let places: Vec<(usize, usize)> = if self.places.is_empty() {
            vec![(null_piece, 0); rows.len()]
        } else {
            self.places[rows.clone()].iter().map(|p| p.map_or((null_piece, 0), |(piece, row)| (piece as usize, row as usize))).collect()
        };
        for (i, feature) in self.join.view.plan.features.iter().enumerate() {
            let null = new_null_array(&feature.data_type, 1);
            let arrays: Vec<&dyn Array> = self.swept.iter().map(|s| s.features[i].as_ref()).chain([null.as_ref()]).collect();
            columns.push(interleave(&arrays, &places)?);
        }
        columns.push(self.instants.slice(rows.start, rows.len()));
        Ok(columns)
    }
}
