//! Brings `ASOF JOIN` to where a relation planner sees it.
//!
//! DataFusion's planner refuses the join operator before any extension is asked, but it asks for every table factor. So
//! `a JOIN b ... ASOF JOIN c JOIN d` becomes `(a JOIN b ... ASOF JOIN c) JOIN d`, the factor reaching to the last AS OF join: a nested join
//! without an alias adds no scope, so qualified names resolve as before. What is inside stays a list, however long.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinOperator, Select, Statement, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

/// Turns every `ASOF JOIN` of a query or statement into a nested join that ends with it, in subqueries and CTEs too.
///
/// Applied twice it changes nothing more.
pub fn rewrite_asof<N: VisitMut>(node: &mut N) {
    let _ = VisitMut::visit(node, &mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = std::convert::Infallible;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        select.from.iter_mut().for_each(nest);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor
            // One that ends with an AS OF join is what the planner looks for.
            && !table_with_joins.joins.last().is_some_and(is_asof)
        {
            nest(table_with_joins);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Self::Break> {
        if let Statement::Update(update) = statement {
            nest(&mut update.table);
        }
        ControlFlow::Continue(())
    }
}

pub(super) fn is_asof(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

/// Puts all up to the last AS OF join into a nested join of its own.
pub(super) fn nest(from: &mut TableWithJoins) {
    let Some(last) = from.joins.iter().rposition(is_asof) else { return };
    let behind = from.joins.split_off(last + 1);
    let joins = std::mem::replace(&mut from.joins, behind);
    let nothing = TableFactor::TableFunction { expr: Expr::Identifier(Ident::new("")), alias: None };
    let relation = std::mem::replace(&mut from.relation, nothing);
    from.relation = TableFactor::NestedJoin { table_with_joins: Box::new(TableWithJoins { relation, joins }), alias: None };
}
