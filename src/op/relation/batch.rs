//! The batch lowering of a relation: a DataFusion plan of the view's events in a range of event time.
//!
//! Rows carry their event time and order key as hidden columns behind the others (`op::events`). Filter and Project evaluate the same
//! compiled expressions as the streaming path; DataFusion's optimizer never sees them. Not here: which files are read (`history`).

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use asof_sql::plan::display::relation_tree;
use asof_sql::plan::{AsofJoin, Relation, Scan};
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::{branch, filter, project, scan};
use crate::error::{Error, Result};
use crate::op::asof_join::{AsofJoinExec, Build, Key, MatchOp, Shape};
use crate::op::events::{Events, KEY, TIME, batch_schema};
use crate::op::window::batch::EventSource;

/// Where the events of streams come from.
#[async_trait]
pub trait StreamScan: fmt::Debug + Send + Sync {
    /// A plan of the visible accepted events of a stream with event times in a range, both ends included: the columns of
    /// [`Scan::columns`] in that order.
    async fn scan(&self, scan: &Scan, range: (i64, i64), context: &TaskContext) -> DfResult<Arc<dyn ExecutionPlan>>;
    /// The streams, each with the version of its history.
    fn versions(&self) -> Vec<(String, i64)>;
}

/// A relation over the histories of its streams.
#[derive(Debug)]
pub struct RelationSource {
    /// The relation.
    pub relation: Relation,
    /// Whether rows have order keys.
    pub ordered: bool,
    /// The histories.
    pub streams: Arc<dyn StreamScan>,
}

#[async_trait]
impl EventSource for RelationSource {
    async fn events(&self, range: (i64, i64), context: &TaskContext) -> DfResult<Arc<dyn ExecutionPlan>> {
        lower(&self.relation, self.ordered, range, self.streams.as_ref(), context).await
    }

    fn describe(&self) -> String {
        relation_tree(&self.relation)
    }

    fn versions(&self) -> Vec<(String, i64)> {
        self.streams.versions()
    }
}

/// The plan of a relation's events.
async fn lower(
    relation: &Relation,
    keyed: bool,
    range: (i64, i64),
    streams: &dyn StreamScan,
    context: &TaskContext,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    Ok(match relation {
        Relation::Scan(s) => {
            let input = streams.scan(s, range, context).await?;
            let s = s.clone();
            let schema = batch_schema(&s.schema, keyed);
            let text = format!("stream {}", s.stream);
            MapExec::wrap(input, schema.clone(), text, Arc::new(move |batch| scan(&s, batch, keyed)?.into_batch(&schema)))
        }
        Relation::Filter(f) => {
            let input = Box::pin(lower(&f.input, keyed, range, streams, context)).await?;
            let (f, rows) = (f.clone(), f.input.schema());
            let schema = batch_schema(&rows, keyed);
            let text = format!("filter {}", f.predicate.logical);
            MapExec::wrap(
                input,
                schema.clone(),
                text,
                Arc::new(move |batch| filter(&f, &Events::from_batch(batch, &rows, keyed)?)?.into_batch(&schema)),
            )
        }
        Relation::Project(p) => {
            let input = Box::pin(lower(&p.input, keyed, range, streams, context)).await?;
            let (p, rows) = (p.clone(), p.input.schema());
            let schema = batch_schema(&p.schema, keyed);
            let text = format!("project {}", p.exprs.iter().map(|e| e.logical.to_string()).collect::<Vec<_>>().join(", "));
            MapExec::wrap(
                input,
                schema.clone(),
                text,
                Arc::new(move |batch| project(&p, Events::from_batch(batch, &rows, keyed)?)?.into_batch(&schema)),
            )
        }
        Relation::AsofJoin(j) => {
            let left = Box::pin(lower(&j.left, keyed, range, streams, context)).await?;
            // The newest right row before the first left one may be arbitrarily old.
            let right = Box::pin(lower(&j.right, true, (i64::MIN, range.1), streams, context)).await?;
            join(j, keyed, left, right)?
        }
        Relation::Union(u) => {
            let mut inputs = Vec::new();
            for input in &u.inputs {
                let plan = Box::pin(lower(input, false, range, streams, context)).await?;
                let rows = input.schema();
                let (shape, schema) = (u.schema.clone(), batch_schema(&u.schema, keyed));
                let map = move |batch: &RecordBatch| {
                    let mut events = Events::from_batch(batch, &rows, false)?;
                    events.rows = events.rows.with_schema(shape.clone())?;
                    branch(events, keyed)?.into_batch(&schema)
                };
                inputs.push(MapExec::wrap(plan, batch_schema(&u.schema, keyed), "branch".into(), Arc::new(map)));
            }
            UnionExec::try_new(inputs)?
        }
    })
}

/// The AS OF join of two plans of events: matched by event time, ties by the right side's order key.
fn join(j: &AsofJoin, keyed: bool, left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let (width_left, width_right) = (j.left.schema().fields().len(), j.right.schema().fields().len());
    let column = |name: &str, index: usize| Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>;
    let keys = j.on.iter().map(|(l, r)| Key { left: l.expr.clone(), right: r.expr.clone() }).collect();
    let matched = Key { left: column(TIME, width_left), right: column(TIME, width_right) };
    let op = if j.strict { MatchOp::Before } else { MatchOp::AtOrBefore };
    let ties = vec![width_right + 1];
    let right_output: Vec<usize> = (0..width_right).collect();
    let shape = Shape::try_new(left.schema(), right.schema(), keys, matched, op, ties, &right_output)?;
    let joined: Arc<dyn ExecutionPlan> = Arc::new(AsofJoinExec::new(left, right, Arc::new(shape), Build::Right));
    // Left columns, left hidden columns, right columns: the hidden ones move behind.
    let hidden = 1 + usize::from(keyed);
    let order: Vec<usize> =
        (0..width_left).chain(width_left + hidden..width_left + hidden + width_right).chain(width_left..width_left + hidden).collect();
    let schema = batch_schema(&j.schema, keyed);
    debug_assert!(!keyed || schema.field(schema.fields().len() - 1).name() == KEY, "invariant: the key is last");
    let out = schema.clone();
    let map = move |batch: &RecordBatch| Ok(RecordBatch::try_new(out.clone(), order.iter().map(|i| batch.column(*i).clone()).collect())?);
    Ok(MapExec::wrap(joined, schema, "enriched".into(), Arc::new(map)))
}

type Map = Arc<dyn Fn(&RecordBatch) -> Result<RecordBatch> + Send + Sync>;

/// Applies a function of rows to every batch; partitions stay.
struct MapExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    text: String,
    map: Map,
    properties: Arc<PlanProperties>,
}

impl MapExec {
    fn wrap(input: Arc<dyn ExecutionPlan>, schema: SchemaRef, text: String, map: Map) -> Arc<dyn ExecutionPlan> {
        let partitions = datafusion::physical_plan::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let equivalence = EquivalenceProperties::new(schema.clone());
        let properties = PlanProperties::new(equivalence, partitions, EmissionType::Incremental, Boundedness::Bounded);
        Arc::new(MapExec { input, schema, text, map, properties: Arc::new(properties) })
    }
}

impl fmt::Debug for MapExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapExec({})", self.text)
    }
}

impl DisplayAs for MapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventsExec: {}", self.text)
    }
}

impl ExecutionPlan for MapExec {
    fn name(&self) -> &str {
        "EventsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        // The expressions are compiled and closed: nothing may rewrite them.
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| Error::internal("EventsExec has one child"))?;
        Ok(MapExec::wrap(input, self.schema.clone(), self.text.clone(), self.map.clone()))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let map = self.map.clone();
        let batches = self.input.execute(partition, context)?.map(move |batch| Ok(map(&batch?)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }
}
