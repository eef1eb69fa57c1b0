//! From the AST to the logical node, and from there to the operator.
//!
//! Names resolve as DataFusion resolves them for any join, over both sides together. What DESIGN 2.3 does not allow is refused with what was
//! found and what to write. A right side that is more than a table (a feature view) is offered to [`RightSides`] first, as written, and again
//! once its names are resolved.

use std::fmt;
use std::sync::Arc;

use asof_sql::Span;
use async_trait::async_trait;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::logical_expr::expr_rewriter::normalize_col_with_schemas_and_ambiguity_check;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection, UserDefinedLogicalNode};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr, Join, JoinConstraint, JoinOperator, Spanned, TableFactor};

use super::batch::AsofJoinExec;
use super::logical::{AsofJoin, AsofJoinNode, MatchOp, Places, TieOrder};
use super::rewrite::{is_asof, nest};
use super::shape::{Build, Key, Shape};

/// An AS OF join as it was written, its left side planned.
#[derive(Debug)]
pub struct AsofSyntax<'a> {
    /// The left side.
    pub left: &'a LogicalPlan,
    /// The right side: a table's name and alias, a subquery, a nested join.
    pub right: &'a TableFactor,
    /// What stands in `MATCH_CONDITION (...)`.
    pub match_condition: &'a SqlExpr,
    /// `ON`, `USING` or nothing.
    pub constraint: &'a JoinConstraint,
}

/// What the catalog knows of the right sides of AS OF joins.
pub trait RightSides: fmt::Debug + Send + Sync {
    /// Plans the join when its right side is not an ordinary relation, judging by what is written; `None` leaves it to the ordinary join.
    ///
    /// A name here may be shadowed by a CTE, which only [`Self::plan_resolved`] sees.
    fn plan_written(&self, _join: &AsofSyntax<'_>, _context: &mut dyn RelationPlannerContext) -> Result<Option<LogicalPlan>> {
        Ok(None)
    }

    /// Plans the join when its planned right side is not an ordinary relation (a scan of a table that stands for a feature view);
    /// `None` leaves it to the ordinary join. Expressions have the types that were written.
    fn plan_resolved(&self, _join: &AsofJoin) -> Result<Option<LogicalPlan>> {
        Ok(None)
    }

    /// The order of ties of a table that has one of its own; `None` is all columns from left to right.
    fn tie_order(&self, _table: &TableReference) -> Option<TieOrder> {
        None
    }
}

/// A catalog with ordinary tables only.
#[derive(Debug, Clone, Copy, Default)]
pub struct OrdinaryTables;

impl RightSides for OrdinaryTables {}

/// Plans the nested joins that [`super::rewrite_asof`] makes.
#[derive(Debug, Clone)]
pub struct AsofRelationPlanner {
    sides: Arc<dyn RightSides>,
}

impl AsofRelationPlanner {
    /// A planner that asks `sides` about right sides.
    pub fn new(sides: Arc<dyn RightSides>) -> Self {
        Self { sides }
    }
}

impl Default for AsofRelationPlanner {
    fn default() -> Self {
        Self::new(Arc::new(OrdinaryTables))
    }
}

impl RelationPlanner for AsofRelationPlanner {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let (mut tables, alias) = match relation {
            TableFactor::NestedJoin { table_with_joins, alias } if table_with_joins.joins.last().is_some_and(is_asof) => {
                (table_with_joins, alias)
            }
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        check_length(&tables.joins)?;
        let first = tables.joins.iter().rposition(|j| !is_asof(j)).map_or(0, |i| i + 1);
        let chain = tables.joins.split_off(first);
        // What comes before is a nested join too, so that a lateral first relation is planned as one.
        nest(&mut tables);
        let mut plan = context.plan(TableFactor::NestedJoin { table_with_joins: tables, alias: None })?;
        for join in chain {
            plan = self.plan_join(plan, join, context)?;
        }
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

impl AsofRelationPlanner {
    fn plan_join(&self, left: LogicalPlan, join: Join, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Join { relation: right, global, join_operator: JoinOperator::AsOf { match_condition, constraint } } = join else {
            return plan_err!("a join in a chain of ASOF JOINs is another join");
        };
        if global {
            return plan_err!("GLOBAL ASOF JOIN is not supported; write ASOF JOIN");
        }
        if is_lateral(&right) {
            return plan_err!("the right side of ASOF JOIN is LATERAL; join a relation that stands alone");
        }
        let written = AsofSyntax { left: &left, right: &right, match_condition: &match_condition, constraint: &constraint };
        if let Some(plan) = self.sides.plan_written(&written, context)? {
            return Ok(plan);
        }
        let right = context.plan(right)?;
        let join = resolve(left, right, match_condition, constraint, context)?;
        if let Some(plan) = self.sides.plan_resolved(&join)? {
            return Ok(plan);
        }
        let ties = scanned_table(&join.right).and_then(|t| self.sides.tie_order(t));
        join.into_plan(ties.as_ref())
    }
}

/// AS OF joins in one FROM: the plan is as deep as the chain is long.
const CHAIN_MAX: usize = 64;
/// Runs of AS OF joins with other joins between them: planning recurses once for each.
const RUNS_MAX: usize = 12;

/// Refuses what would overflow the stack of a thread of 2 MiB, with room to spare.
fn check_length(joins: &[Join]) -> Result<()> {
    if joins.iter().filter(|j| is_asof(j)).count() > CHAIN_MAX {
        return plan_err!("FROM chains more than {CHAIN_MAX} ASOF JOINs; join some of them in a subquery or a CTE");
    }
    if joins.chunk_by(|a, b| is_asof(a) == is_asof(b)).count() > 2 * RUNS_MAX {
        return plan_err!(
            "FROM chains ASOF JOINs and other joins by turns, more than {RUNS_MAX} times; join some of them in a subquery or a CTE"
        );
    }
    Ok(())
}

fn is_lateral(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
        _ => false,
    }
}

/// The table that a plan reads whole, under whatever alias.
fn scanned_table(plan: &LogicalPlan) -> Option<&TableReference> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => scanned_table(&alias.input),
        LogicalPlan::TableScan(scan) if scan.projection.is_none() => Some(&scan.table_name),
        _ => None,
    }
}

fn resolve(
    left: LogicalPlan,
    right: LogicalPlan,
    match_condition: SqlExpr,
    constraint: JoinConstraint,
    context: &mut dyn RelationPlannerContext,
) -> Result<AsofJoin> {
    let joined = left.schema().join(right.schema())?;
    let scope = Scope { left: &left, right: &right, joined };
    let condition = Span::from(match_condition.span());
    let keys = match &constraint {
        JoinConstraint::On(on) => on.span().into(),
        JoinConstraint::Using(names) => names.iter().map(|n| Span::from(n.span())).fold(Span::NONE, Span::to),
        JoinConstraint::Natural | JoinConstraint::None => condition,
    };
    let places = Places { condition, keys };
    let (match_left, op, match_right) = scope.condition(match_condition, context).map_err(|e| places.refuse_condition(e))?;
    let (keys, hidden) = scope.keys(constraint, context).map_err(|e| places.refuse_keys(e))?;
    Ok(AsofJoin { left, right, keys, match_left, op, match_right, hidden, places })
}

fn unnest(mut e: SqlExpr) -> SqlExpr {
    while let SqlExpr::Nested(inner) = e {
        e = *inner;
    }
    e
}

/// Equalities of a left and a right expression, and the right columns that do not come out.
type Keys = (Vec<(Expr, Expr)>, Vec<Column>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Left { "left" } else { "right" })
    }
}

struct Scope<'a> {
    left: &'a LogicalPlan,
    right: &'a LogicalPlan,
    joined: DFSchema,
}

impl Scope<'_> {
    /// The two match values and how the left one compares.
    fn condition(&self, match_condition: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<(Expr, MatchOp, Expr)> {
        let shown = match_condition.to_string();
        let SqlExpr::BinaryOp { left: a, op, right: b } = unnest(match_condition) else {
            return plan_err!("MATCH_CONDITION is ({shown}), not a comparison; write MATCH_CONDITION (left.time >= right.time)");
        };
        let op = match op {
            BinaryOperator::GtEq => MatchOp::AtOrBefore,
            BinaryOperator::Gt => MatchOp::Before,
            BinaryOperator::LtEq => MatchOp::AtOrAfter,
            BinaryOperator::Lt => MatchOp::After,
            BinaryOperator::And => {
                return plan_err!("MATCH_CONDITION ({shown}) joins comparisons by AND; keep one of >=, >, <=, < and move equalities to ON");
            }
            op => return plan_err!("MATCH_CONDITION ({shown}) compares by {op}; use one of >=, >, <=, <"),
        };
        let (a, b) = (self.expr(*a, context)?, self.expr(*b, context)?);
        match (self.side(&a, "MATCH_CONDITION", &shown)?, self.side(&b, "MATCH_CONDITION", &shown)?) {
            (Side::Left, Side::Right) => Ok((a, op, b)),
            (Side::Right, Side::Left) => Ok((b, op.flip(), a)),
            (side, _) => {
                plan_err!("both sides of MATCH_CONDITION ({shown}) are over the {side} side; compare one expression of each side")
            }
        }
    }

    fn keys(&self, constraint: JoinConstraint, context: &mut dyn RelationPlannerContext) -> Result<Keys> {
        let mut keys = Vec::new();
        let mut hidden = Vec::new();
        match constraint {
            JoinConstraint::None => {}
            JoinConstraint::Natural => return plan_err!("NATURAL is not supported with ASOF JOIN; name the key columns by USING (...)"),
            JoinConstraint::On(on) => {
                let mut pending = vec![on];
                while let Some(part) = pending.pop() {
                    let shown = part.to_string();
                    match unnest(part) {
                        SqlExpr::BinaryOp { left: a, op: BinaryOperator::And, right: b } => pending.extend([*b, *a]),
                        SqlExpr::BinaryOp { left: a, op: BinaryOperator::Eq, right: b } => {
                            let (a, b) = (self.expr(*a, context)?, self.expr(*b, context)?);
                            match (self.side(&a, "ON", &shown)?, self.side(&b, "ON", &shown)?) {
                                (Side::Left, Side::Right) => keys.push((a, b)),
                                (Side::Right, Side::Left) => keys.push((b, a)),
                                (side, _) => {
                                    return plan_err!(
                                        "both sides of {shown} in ON are over the {side} side; filter in WHERE or in a subquery instead"
                                    );
                                }
                            }
                        }
                        _ => {
                            return plan_err!(
                                "ON of an ASOF JOIN holds {shown}; it takes equalities joined by AND, anything else belongs in WHERE or in a subquery"
                            );
                        }
                    }
                }
            }
            JoinConstraint::Using(names) => {
                for name in names {
                    let [part] = name.0.as_slice() else {
                        return plan_err!("USING names {name}; it takes plain column names");
                    };
                    let Some(ident) = part.as_ident() else { return plan_err!("USING names {name}; it takes plain column names") };
                    let column = Column::from_name(context.normalize_ident(ident.clone()));
                    let find = |plan: &LogicalPlan| {
                        normalize_col_with_schemas_and_ambiguity_check(
                            Expr::Column(column.clone()),
                            &[&[plan.schema()]],
                            &[plan.using_columns()?.into_iter().collect::<Vec<_>>()].concat(),
                        )
                    };
                    let (l, r) = (find(self.left)?, find(self.right)?);
                    if let Expr::Column(c) = &r
                        && !hidden.contains(c)
                    {
                        hidden.push(c.clone());
                        keys.push((l, r));
                    }
                }
            }
        }
        Ok((keys, hidden))
    }

    fn expr(&self, e: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
        let e = context.sql_to_expr(e, &self.joined)?;
        let using: Vec<_> = self.left.using_columns()?.into_iter().chain(self.right.using_columns()?).collect();
        normalize_col_with_schemas_and_ambiguity_check(e, &[&[self.left.schema(), self.right.schema()]], &using)
    }

    /// The one side whose columns an expression is made of.
    fn side(&self, e: &Expr, clause: &str, shown: &str) -> Result<Side> {
        let mut found = None;
        e.apply(|e| {
            found = found.or(match e {
                Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => Some("a subquery"),
                Expr::AggregateFunction(_) => Some("an aggregate"),
                Expr::WindowFunction(_) => Some("a window function"),
                Expr::OuterReferenceColumn(..) => Some("a column of an outer query"),
                _ => None,
            });
            Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if let Some(found) = found {
            return plan_err!("{clause} ({shown}) holds {found}; compute it in a subquery of the side it belongs to");
        }
        if e.is_volatile() {
            return plan_err!("{clause} ({shown}) holds {e}, whose value changes from call to call; use an expression over columns");
        }
        let columns = e.column_refs();
        let within = |plan: &LogicalPlan| columns.iter().all(|c| plan.schema().has_column(c));
        match (columns.is_empty(), within(self.left), within(self.right)) {
            (true, ..) => plan_err!("{clause} ({shown}) compares with {e}, which names no column; compare one expression of each side"),
            (_, true, false) => Ok(Side::Left),
            (_, false, true) => Ok(Side::Right),
            _ => plan_err!("{clause} ({shown}) mixes columns of both sides in {e}; keep each side of the comparison to one relation"),
        }
    }
}

/// Moves the conjuncts of a filter above an AS OF join that are over left columns alone below its left side.
///
/// A left row comes out once, whatever the others are, so the filter may as well come first. Filters over right columns stay:
/// they would change which row matches.
#[derive(Debug, Clone, Copy, Default)]
pub struct PushLeftFilters;

impl OptimizerRule for PushLeftFilters {
    fn name(&self) -> &str {
        "push_left_filters_below_asof_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        // Column pruning leaves a projection of plain columns between the two.
        let projection = match filter.input.as_ref() {
            LogicalPlan::Projection(p) if p.expr.iter().all(|e| matches!(e, Expr::Column(_))) => Some(p),
            _ => None,
        };
        let input = projection.map_or(&filter.input, |p| &p.input);
        let LogicalPlan::Extension(extension) = input.as_ref() else { return Ok(Transformed::no(plan)) };
        let Some(node) = extension.node.as_any().downcast_ref::<AsofJoinNode>() else { return Ok(Transformed::no(plan)) };
        let (left, right) = node.sides();
        let (down, stay): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate.clone()).into_iter().partition(|e| {
            let columns = e.column_refs();
            !e.is_volatile()
                && !columns.is_empty()
                && columns.iter().all(|c| left.schema().has_column(c) && !right.schema().has_column(c))
                && !e.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)))).unwrap_or(true)
        });
        let Some(down) = conjunction(down) else { return Ok(Transformed::no(plan)) };
        let joined = node.plan_with_left(LogicalPlan::Filter(Filter::try_new(down, Arc::new(left.clone()))?))?;
        let joined = match projection {
            Some(p) => LogicalPlan::Projection(Projection::try_new(p.expr.clone(), Arc::new(joined))?),
            None => joined,
        };
        Ok(Transformed::yes(match conjunction(stay) {
            Some(stay) => LogicalPlan::Filter(Filter::try_new(stay, Arc::new(joined))?),
            None => joined,
        }))
    }
}

/// Plans [`AsofJoinNode`] as [`AsofJoinExec`]; everything else it leaves to the next planner.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsofExtensionPlanner;

#[async_trait]
impl ExtensionPlanner for AsofExtensionPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<AsofJoinNode>() else { return Ok(None) };
        let ([left_in, right_in], [left, right]) = (logical_inputs, physical_inputs) else {
            return plan_err!("an AS OF join has two inputs");
        };
        let over = |e: &Expr, input: &LogicalPlan| planner.create_physical_expr(e, input.schema(), session, planning);
        let (l, op, r) = node.match_condition();
        let matched = Key { left: over(l, left_in)?, right: over(r, right_in)? };
        let keys =
            node.keys().iter().map(|(l, r)| Ok(Key { left: over(l, left_in)?, right: over(r, right_in)? })).collect::<Result<Vec<_>>>()?;
        let ties = node.ties().iter().map(|c| right_in.schema().index_of_column(c)).collect::<Result<Vec<_>>>()?;
        for tie in &ties {
            let field = right.schema();
            let field = field.field(*tie);
            if !RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]) {
                return plan_err!(
                    "column \"{}\" of the right side of ASOF JOIN has type {}, which has no order to break ties by; leave it out in a subquery",
                    field.name(),
                    field.data_type()
                );
            }
        }
        let shape = Shape::try_new(left.schema(), right.schema(), keys, matched, op, ties, &node.right_output())?;
        let build = smaller_side(left.as_ref(), right.as_ref());
        Ok(Some(Arc::new(AsofJoinExec::new(Arc::clone(left), Arc::clone(right), Arc::new(shape), build))))
    }
}

/// Rows of a right side small enough to build on when the left side's are not known.
const SMALL_RIGHT_ROWS: usize = 100_000;

fn smaller_side(left: &dyn ExecutionPlan, right: &dyn ExecutionPlan) -> Build {
    let rows = |plan: &dyn ExecutionPlan| {
        let statistics = StatisticsContext::new().compute(plan, &StatisticsArgs::new()).ok()?;
        statistics.num_rows.get_value().copied()
    };
    match (rows(left), rows(right)) {
        (Some(l), Some(r)) if r < l => Build::Right,
        (None, Some(r)) if r <= SMALL_RIGHT_ROWS => Build::Right,
        _ => Build::Left,
    }
}
