//! The histories of a view's streams at pinned versions, as the batch lowering scans them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use asof_sql::plan::Scan;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::Error;
use crate::history::{ARRIVED_AT, OFFSET, PARTITION, Part, StreamHistory, TableOptions};
use crate::op::relation::batch::StreamScan;

/// A point in the order of arrival: this record and all that arrived before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// When it was accepted, microseconds.
    pub at: i64,
    /// Its source partition.
    pub partition: String,
    /// Its offset there.
    pub offset: i64,
}

/// One stream's history at a version.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The history.
    pub history: StreamHistory,
    /// The version.
    pub version: i64,
    /// Only what had arrived by then: `Some(None)` is nothing; `None` is everything.
    pub upto: Option<Option<Arrival>>,
}

/// Histories by stream.
#[derive(Debug, Clone)]
pub struct HistoryScans {
    /// The pinned histories.
    pub streams: BTreeMap<String, Pinned>,
}

impl Arrival {
    /// The records that had arrived by then, as a condition on the hidden columns.
    fn condition(&self) -> Expr {
        let time = lit(ScalarValue::TimestampMicrosecond(Some(self.at), Some("UTC".into())));
        let partition = lit(ScalarValue::Utf8View(Some(self.partition.clone())));
        let same_time = col(ARRIVED_AT).eq(time.clone());
        let earlier_partition = same_time.clone().and(col(PARTITION).lt(partition.clone()));
        let same_partition = same_time.and(col(PARTITION).eq(partition)).and(col(OFFSET).lt_eq(lit(self.offset)));
        col(ARRIVED_AT).lt(time).or(earlier_partition).or(same_partition)
    }
}

#[async_trait]
impl StreamScan for HistoryScans {
    fn versions(&self) -> Vec<(String, i64)> {
        self.streams.iter().map(|(name, pinned)| (name.clone(), pinned.version)).collect()
    }

    async fn scan(&self, scan: &Scan, range: (i64, i64), context: &TaskContext) -> DfResult<Arc<dyn ExecutionPlan>> {
        let pinned = self.streams.get(&scan.stream).ok_or_else(|| Error::internal(format!("stream \"{}\" is not pinned", scan.stream)))?;
        let time_range = (range != (i64::MIN, i64::MAX)).then_some(range);
        let options = TableOptions { version: Some(pinned.version), time_range, hidden: pinned.upto.is_some(), ..TableOptions::default() };
        let table = pinned.history.table(Part::History, options).await?;
        let session = SessionContext::new_with_config_rt(
            SessionConfig::new().with_target_partitions(context.session_config().target_partitions()),
            context.runtime_env(),
        );
        let Some(upto) = &pinned.upto else {
            return table.scan(&session.state(), Some(&scan.columns), &[], None).await;
        };
        let width = pinned.history.schema().columns().fields().len();
        let mut columns = scan.columns.clone();
        columns.extend(width..width + 3);
        let plan = table.scan(&session.state(), Some(&columns), &[], None).await?;
        let condition = upto.as_ref().map_or(lit(false), Arrival::condition);
        let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
        let predicate = create_physical_expr(&condition, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
        debug_assert_eq!(predicate.data_type(&plan.schema())?, DataType::Boolean);
        let filtered: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(predicate, plan)?);
        let keep = (0..scan.columns.len()).map(|i| {
            let name = filtered.schema().field(i).name().clone();
            (
                Arc::new(datafusion::physical_expr::expressions::Column::new(&name, i)) as Arc<dyn datafusion::physical_expr::PhysicalExpr>,
                name,
            )
        });
        Ok(Arc::new(ProjectionExec::try_new(keep.collect::<Vec<_>>(), filtered.clone())?))
    }
}
