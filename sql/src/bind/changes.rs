//! Views over streams of changed rows: what may be asked of changes, and what a deleted row means.
//!
//! A stream of changes ([`crate::catalog::OPERATION`] is among its columns) holds what happened to the rows of a table, deletes too. One view of
//! it is plainly right: the current row of each key, a latest-row view whose entity is the table's primary key. Its features are those of
//! the newest change, masked by "it is no delete", so that a deleted row has the value of the empty set; `ROWS` counts before `FILTER`, so
//! the row before a delete never shows through. Everything else is refused: an aggregate would count versions of rows as events, and a
//! condition that a delete's incomplete row does not meet would bring a deleted row back.

use datafusion::sql::sqlparser::ast;

use super::Errors;
use super::scope::Scope;
use crate::ast::CreateFeatureView;
use crate::catalog::{DELETE, OPERATION, POSITION};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::plan::{Relation, Scan, Shape};

/// The condition under which the newest change shows a row, where the view reads changes at all; what is wrong goes to `errors`.
pub(crate) fn alive(scope: &Scope, shape: Shape, statement: &CreateFeatureView, errors: &mut Errors) -> Option<ast::Expr> {
    let mut changes: Option<&Scan> = None;
    scope.relation.visit_scans(&mut |scan| {
        if scan.schema.index_of(OPERATION).is_ok() {
            changes = changes.or(Some(scan));
        }
    });
    let scan = changes?;
    let stream = &scan.stream;
    let refused = |what: String| Diagnostic::error(codes::E0507, statement.query_span, what);
    let current = format!("Stream \"{stream}\" holds the changes of a table; a view of it is the current row of each key.");
    if shape != Shape::LatestRow {
        errors.push(
            refused(format!("an aggregate over stream \"{stream}\" would take changes for events"))
                .remark(current)
                .help(format!("Write SELECT columns FROM {stream}, without aggregates and GROUP BY.")),
        );
        return None;
    }
    if !matches!(scope.relation, Relation::Scan(_)) {
        errors.push(
            refused(format!("a view of stream \"{stream}\" reads it alone and whole: no WHERE, join, UNION or subquery"))
                .remark(current)
                .help("A feature may hold the condition: CASE WHEN ... THEN ... END."),
        );
        return None;
    }
    let mut key: Vec<&str> = scan.order.0.iter().map(|c| scan.schema.field(*c).name().as_str()).filter(|n| *n != POSITION).collect();
    let mut entity: Vec<&str> = statement.entity.names.iter().map(|n| n.value.as_str()).collect();
    let written = key.join(", ");
    key.sort_unstable();
    entity.sort_unstable();
    entity.dedup();
    if key != entity {
        errors.push(
            refused(format!("the entity of a view of stream \"{stream}\" is the primary key of its table"))
                .remark(current)
                .help(format!("Write ENTITY ({written}).")),
        );
        return None;
    }
    let column = scope.find(None, OPERATION).first().map(|c| scope.column(*c, ast::Ident::new(OPERATION).span))?;
    Some(ast::Expr::BinaryOp {
        left: Box::new(column),
        op: ast::BinaryOperator::NotEq,
        right: Box::new(ast::Expr::value(ast::Value::SingleQuotedString(DELETE.to_owned()))),
    })
}
