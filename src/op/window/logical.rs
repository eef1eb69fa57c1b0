//! Feature views inside ordinary SQL: the table that a view's name stands for, and the join of a spine with views as a plan node.
//!
//! `L ASOF JOIN view` is recognised when its right side is a scan of a [`ViewTable`]; joins of several views on one spine become one
//! node, so that the spine is read and kept once. Not here: how it runs (`batch`), how history is pinned (`engine`).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof_sql::plan::{FeaturePlan, instant_type};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, plan_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, TableType, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::batch::{EventSource, FeatureJoinExec, ViewJoin};
use super::{View, check_key_types};
use crate::op::asof_join::{AsofJoin, MatchOp};

/// What a view's name stands for in FROM: its entity, features and instant, for every instant. It can only be joined AS OF.
#[derive(Debug)]
pub struct ViewTable {
    /// The view.
    pub view: Arc<View>,
    /// Its events, at the version of history that the statement reads.
    pub source: Arc<dyn EventSource>,
    schema: SchemaRef,
}

impl ViewTable {
    /// The table of a view.
    pub fn new(view: Arc<View>, source: Arc<dyn EventSource>) -> Self {
        let mut fields: Vec<_> = view.plan.output_schema().fields().to_vec();
        fields.push(Arc::new(Field::new(&view.plan.time_column, instant_type(), true)));
        Self { view, source, schema: Arc::new(Schema::new(fields)) }
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan_err!(
            "feature view \"{}\" has a value at every instant; read it with FOR ENTITY, or join it with ASOF JOIN",
            self.view.plan.name
        )
    }
}

/// One view of the node.
#[derive(Debug, Clone)]
struct Joined {
    view: Arc<View>,
    source: Arc<dyn EventSource>,
    keys: Vec<Expr>,
    instant: Expr,
    strict: bool,
    /// The view's columns as they are named here, and which of them do not come out (the keys of USING).
    columns: DFSchemaRef,
    hidden: Vec<usize>,
}

/// A spine joined with feature views.
#[derive(Debug, Clone)]
pub struct FeatureJoinNode {
    spine: Arc<LogicalPlan>,
    views: Vec<Joined>,
    schema: DFSchemaRef,
}

/// Plans the join if its right side is a feature view; `None` if it is not.
pub fn plan_feature_join(join: &AsofJoin) -> DfResult<Option<LogicalPlan>> {
    let mut right = &join.right;
    while let LogicalPlan::SubqueryAlias(alias) = right {
        right = &alias.input;
    }
    let LogicalPlan::TableScan(scan) = right else { return Ok(None) };
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let Some(table) = (provider.as_ref() as &dyn std::any::Any).downcast_ref::<ViewTable>() else { return Ok(None) };
    let plan = &table.view.plan;
    let strict = strict(plan, join).map_err(|e| join.places.refuse_condition(e))?;
    let keys = entity_keys(plan, join).map_err(|e| join.places.refuse_keys(e))?;
    let columns = join.right.schema().clone();
    let hidden = join.hidden.iter().filter_map(|c| columns.index_of_column(c).ok()).collect();
    let joined =
        Joined { view: table.view.clone(), source: table.source.clone(), keys, instant: join.match_left.clone(), strict, columns, hidden };
    let node = match &join.left {
        LogicalPlan::Extension(e) if e.node.as_any().downcast_ref::<FeatureJoinNode>().is_some_and(|n| n.spine_has(&joined)) => {
            let below = e.node.as_any().downcast_ref::<FeatureJoinNode>().cloned();
            let Some(below) = below else { return plan_err!("a feature join changed while it was planned") };
            FeatureJoinNode::try_new(below.spine, below.views.into_iter().chain([joined]).collect())?
        }
        left => FeatureJoinNode::try_new(Arc::new(left.clone()), vec![joined])?,
    };
    Ok(Some(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
}

fn name_of(e: &Expr) -> Option<&str> {
    if let Expr::Column(c) = e { Some(&c.name) } else { None }
}

/// Whether events at the instant do not count.
fn strict(plan: &FeaturePlan, join: &AsofJoin) -> DfResult<bool> {
    let strict = match join.op {
        MatchOp::AtOrBefore => false,
        MatchOp::Before => true,
        MatchOp::AtOrAfter | MatchOp::After => {
            return plan_err!(
                "feature view \"{}\" is joined backward in time; write MATCH_CONDITION (left.time >= {}.{})",
                plan.name,
                plan.name,
                plan.time_column
            );
        }
    };
    if name_of(&join.match_right) != Some(plan.time_column.as_str()) {
        return plan_err!(
            "the match condition of feature view \"{}\" compares with its event-time column \"{}\", found {}",
            plan.name,
            plan.time_column,
            join.match_right
        );
    }
    let time = join.match_left.get_type(join.left.schema())?;
    if !matches!(time, DataType::Timestamp(_, _) | DataType::Null) {
        return plan_err!("the instant of feature view \"{}\" must be a timestamp, found {} of type {time}", plan.name, join.match_left);
    }
    Ok(strict)
}

/// The entity of a spine row.
fn entity_keys(plan: &FeaturePlan, join: &AsofJoin) -> DfResult<Vec<Expr>> {
    let mut keys: Vec<Option<Expr>> = vec![None; plan.entity.len()];
    for (left, right) in &join.keys {
        let Some(at) = name_of(right).and_then(|n| plan.entity.iter().position(|e| e.name == n)) else {
            return plan_err!("feature view \"{}\" is joined on its entity ({}), found {right}", plan.name, entity_list(plan));
        };
        if keys[at].replace(left.clone()).is_some() {
            return plan_err!("entity column \"{}\" of feature view \"{}\" is joined twice", plan.entity[at].name, plan.name);
        }
        check_key_types(&plan.entity[at].name, &plan.entity[at].data_type, &left.get_type(join.left.schema())?)?;
    }
    let Some(keys) = keys.into_iter().collect() else {
        return plan_err!(
            "feature view \"{}\" is joined on all of its entity ({}); add the missing equality to ON",
            plan.name,
            entity_list(plan)
        );
    };
    Ok(keys)
}

fn entity_list(plan: &FeaturePlan) -> String {
    plan.entity.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl FeatureJoinNode {
    fn try_new(spine: Arc<LogicalPlan>, views: Vec<Joined>) -> DfResult<Self> {
        let mut fields: Vec<_> = spine.schema().iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        for v in &views {
            for i in (0..v.columns.fields().len()).filter(|i| !v.hidden.contains(i)) {
                let (q, f) = v.columns.qualified_field(i);
                fields.push((q.cloned(), Arc::new(f.as_ref().clone().with_nullable(true))));
            }
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, spine.schema().metadata().clone())?);
        Ok(Self { spine, views, schema })
    }

    /// Whether a further view's keys and instant come from the spine alone.
    fn spine_has(&self, joined: &Joined) -> bool {
        let schema = self.spine.schema();
        joined.keys.iter().chain([&joined.instant]).flat_map(|e| e.column_refs()).all(|c| schema.has_column(c))
    }

    /// The views that are read, each with the fingerprint of its meaning.
    pub fn fingerprints(&self) -> Vec<(String, String)> {
        self.views.iter().map(|v| (v.view.plan.name.clone(), v.view.plan.fingerprint.to_string())).collect()
    }

    /// The streams that are read, each with the version of its history.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.views.iter().flat_map(|v| v.source.versions()).map(|(name, version)| (name, version.to_string())).collect()
    }
}

impl PartialEq for Joined {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
            && self.keys == other.keys
            && self.instant == other.instant
            && self.strict == other.strict
            && self.columns == other.columns
    }
}

impl Eq for Joined {}

impl PartialEq for FeatureJoinNode {
    fn eq(&self, other: &Self) -> bool {
        self.spine == other.spine && self.views == other.views && self.schema == other.schema
    }
}

impl Eq for FeatureJoinNode {}

impl Hash for FeatureJoinNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spine.hash(state);
        for v in &self.views {
            v.view.plan.name.hash(state);
            v.keys.hash(state);
            v.instant.hash(state);
            v.strict.hash(state);
        }
    }
}

impl PartialOrd for FeatureJoinNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for FeatureJoinNode {
    fn name(&self) -> &str {
        "FeatureJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.spine]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.views.iter().flat_map(|v| v.keys.iter().chain([&v.instant])).cloned().collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // A condition on the spine may come first: each of its rows comes out once. One on a feature cannot.
        self.views.iter().flat_map(|v| v.columns.fields().iter().map(|f| f.name().clone())).collect()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.spine.schema();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|i| *i < schema.fields().len()).collect();
        for column in self.views.iter().flat_map(|v| v.keys.iter().chain([&v.instant])).flat_map(|e| e.column_refs()) {
            needed.push(schema.index_of_column(column).ok()?);
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeatureJoin:")?;
        for v in &self.views {
            let keys: Vec<_> = v.keys.iter().map(ToString::to_string).collect();
            write!(f, " {} ON [{}] AT {} {}", v.view.plan.name, keys.join(", "), if v.strict { ">" } else { ">=" }, v.instant)?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let Ok([spine]) = <[LogicalPlan; 1]>::try_from(inputs) else { return plan_err!("a feature join has one input") };
        let mut exprs = exprs.into_iter().map(Expr::unalias);
        let mut views = self.views.clone();
        for v in &mut views {
            for key in &mut v.keys {
                match exprs.next() {
                    Some(e) => *key = e,
                    None => return plan_err!("a feature join lacks an expression"),
                }
            }
            match exprs.next() {
                Some(e) => v.instant = e,
                None => return plan_err!("a feature join lacks an expression"),
            }
        }
        Self::try_new(Arc::new(spine), views)
    }
}

/// Plans [`FeatureJoinNode`] as [`FeatureJoinExec`]; everything else it leaves to the next planner.
#[derive(Debug, Clone, Copy)]
pub struct FeatureJoinPlanner {
    /// The rows of a spine that are processed at once.
    pub spine_rows_max: usize,
}

#[async_trait]
impl ExtensionPlanner for FeatureJoinPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<FeatureJoinNode>() else { return Ok(None) };
        let ([logical], [spine]) = (logical_inputs, physical_inputs) else { return plan_err!("a feature join has one input") };
        let over = |e: &Expr| planner.create_physical_expr(e, logical.schema(), session, planning);
        let mut views = Vec::new();
        for v in &node.views {
            let keys = v.keys.iter().map(over).collect::<DfResult<Vec<_>>>()?;
            views.push(ViewJoin { view: v.view.clone(), source: v.source.clone(), keys, instant: over(&v.instant)?, strict: v.strict });
        }
        let schema = FeatureJoinExec::output_schema(&spine.schema(), &views);
        let width = spine.schema().fields().len();
        let exec: Arc<dyn ExecutionPlan> = Arc::new(FeatureJoinExec::new(spine.clone(), views, schema.clone(), self.spine_rows_max));
        if node.views.iter().all(|v| v.hidden.is_empty()) {
            return Ok(Some(exec));
        }
        let mut keep: Vec<usize> = (0..width).collect();
        let mut first = width;
        for v in &node.views {
            let n = v.columns.fields().len();
            keep.extend((0..n).filter(|i| !v.hidden.contains(i)).map(|i| first + i));
            first += n;
        }
        let exprs: Vec<_> = keep
            .into_iter()
            .map(|i| {
                (
                    Arc::new(PhysicalColumn::new(schema.field(i).name(), i)) as Arc<dyn datafusion::physical_expr::PhysicalExpr>,
                    schema.field(i).name().clone(),
                )
            })
            .collect();
        Ok(Some(Arc::new(ProjectionExec::try_new(exprs, exec)?)))
    }
}
