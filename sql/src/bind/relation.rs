//! FROM and WHERE of a feature view as a [`Relation`]: a stream, a projection of one, streams enriched by AS OF joins, a UNION ALL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use asof_udfs::scalar::{self, Compiled};
use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, cast, type_coercion::binary::comparison_coercion};
use datafusion::sql::sqlparser::ast;

use super::Errors;
use super::expr::{ExprBinder, fold, refused, span_of};
use super::scope::{Scope, nullable};
use crate::catalog::{Catalog, StreamInfo};
use crate::codes;
use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::{AsofJoin, Filter, OrderColumns, Project, Relation, Scan, Union};
use crate::span::Span;

/// The subqueries that names of a WITH clause stand for.
pub(crate) type Ctes<'a> = HashMap<String, &'a ast::Query>;

/// Binds FROM clauses against a catalog.
pub(crate) struct RelationBinder<'a> {
    pub(crate) catalog: &'a dyn Catalog,
    pub(crate) ctes: Ctes<'a>,
}

/// More branches than any real view has; it bounds what nested names can expand to.
const MAX_BRANCHES: usize = 64;

fn err<T>(d: Diagnostic) -> Result<T, Errors> {
    Err(vec![d])
}

impl<'a> RelationBinder<'a> {
    /// The FROM clause of a SELECT, AS OF joins included.
    pub(crate) fn from(&self, from: &'a [ast::TableWithJoins], at: Span) -> Result<Scope, Errors> {
        let [table] = from else {
            let message = if from.is_empty() { "a feature view needs a FROM" } else { "a feature view reads one relation" };
            return err(Diagnostic::error(codes::E0507, at, message)
                .help("Enrich a stream with ASOF JOIN ... MATCH_CONDITION (...), or put streams together with UNION ALL."));
        };
        let mut scope = self.factor(&table.relation)?;
        for join in &table.joins {
            let ast::JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else {
                return err(Diagnostic::error(codes::E0507, span_of(&join.relation), "a feature view joins streams by ASOF JOIN only")
                    .help("Write ASOF JOIN stream MATCH_CONDITION (left.ts >= right.ts) ON left.key = right.key."));
            };
            let mut right = self.factor(&join.relation)?;
            if self.is_subquery(&join.relation) {
                // Ties of a subquery or CTE are decided by its own columns, as a union's are.
                let schema = right.relation.schema();
                right.relation = Relation::Union(Union { inputs: vec![right.relation], schema });
            }
            scope = self.asof(scope, right, match_condition, constraint, span_of(&join.relation))?;
        }
        Ok(scope)
    }

    fn is_subquery(&self, factor: &ast::TableFactor) -> bool {
        match factor {
            ast::TableFactor::Table { name, .. } => {
                name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| self.ctes.contains_key(&fold(i)))
            }
            _ => true,
        }
    }

    fn factor(&self, factor: &'a ast::TableFactor) -> Result<Scope, Errors> {
        match factor {
            ast::TableFactor::Table { name, alias, args: None, .. } => {
                if let Some(columns) = alias.as_ref().filter(|a| !a.columns.is_empty()) {
                    return err(Diagnostic::error(codes::E0105, columns.name.span, "column aliases are not supported here"));
                }
                let table = match name.0.as_slice() {
                    [ast::ObjectNamePart::Identifier(i)] => fold(i),
                    _ => return err(Diagnostic::error(codes::E0204, span_of(name), "a stream is named by one name")),
                };
                let alias = alias.as_ref().map(|a| fold(&a.name));
                if let Some(query) = self.ctes.get(&table) {
                    // Without its own name, a subquery that names itself reads the stream of that name, and nothing loops.
                    let mut inner = RelationBinder { catalog: self.catalog, ctes: self.ctes.clone() };
                    inner.ctes.remove(&table);
                    return Ok(inner.query(query, true)?.aliased(alias.as_ref().unwrap_or(&table)));
                }
                match self.catalog.stream(&table) {
                    Some(stream) => Ok(scan(&stream, alias.as_ref().unwrap_or(&table))),
                    None => err(self.unknown(&table, span_of(name))),
                }
            }
            ast::TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                let scope = self.query(subquery, true)?;
                match alias {
                    Some(a) if a.columns.is_empty() => Ok(scope.aliased(&fold(&a.name))),
                    Some(a) => err(Diagnostic::error(codes::E0105, a.name.span, "column aliases are not supported here")),
                    None => Ok(Scope { columns: scope.columns.into_iter().map(|(_, f)| (None, f)).collect(), ..scope }),
                }
            }
            ast::TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.from(std::slice::from_ref(table_with_joins), span_of(factor))
            }
            other => {
                err(Diagnostic::error(codes::E0507, span_of(other), "a feature view reads streams, and subqueries over streams, only"))
            }
        }
    }

    fn unknown(&self, name: &str, span: Span) -> Diagnostic {
        if self.catalog.view(name).is_some() {
            return Diagnostic::error(codes::E0206, span, format!("\"{name}\" is a feature view; a feature view is made from streams"))
                .help("Read the streams that it reads.");
        }
        let d = Diagnostic::error(codes::E0201, span, format!("unknown stream \"{name}\""));
        let known = self.catalog.stream_names();
        match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => d.help(format!("The nearest known stream is \"{near}\".")),
            None => d.help("Declare it with CREATE STREAM first."),
        }
    }

    /// A subquery, CTE or branch that projects and filters; `named` where its columns are its own, not the whole view's.
    pub(crate) fn query(&self, query: &'a ast::Query, projected: bool) -> Result<Scope, Errors> {
        if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
            return err(Diagnostic::error(codes::E0105, span_of(query), "ORDER BY and LIMIT are not supported in a feature view"));
        }
        let inner;
        let binder = match &query.with {
            None => self,
            Some(with) => {
                inner = self.with_ctes(with)?;
                &inner
            }
        };
        binder.body(&query.body, projected)
    }

    /// This binder with the names of a WITH clause added.
    pub(crate) fn with_ctes(&self, with: &'a ast::With) -> Result<RelationBinder<'a>, Errors> {
        if with.recursive {
            return err(Diagnostic::error(codes::E0105, span_of(with), "a recursive WITH is not supported in a feature view"));
        }
        let mut ctes = self.ctes.clone();
        for cte in &with.cte_tables {
            if !cte.alias.columns.is_empty() {
                return err(Diagnostic::error(codes::E0105, cte.alias.name.span, "column aliases are not supported here"));
            }
            ctes.insert(fold(&cte.alias.name), &cte.query);
        }
        // A CTE sees those before it; a name cannot see itself, since streams and CTEs of one name would loop.
        Ok(RelationBinder { catalog: self.catalog, ctes })
    }

    fn body(&self, body: &'a ast::SetExpr, projected: bool) -> Result<Scope, Errors> {
        match body {
            ast::SetExpr::Select(select) if projected => self.projection(select),
            ast::SetExpr::Select(select) => self.from(&select.from, span_of(select.as_ref())),
            ast::SetExpr::Query(query) => self.query(query, projected),
            ast::SetExpr::SetOperation { op: ast::SetOperator::Union, set_quantifier: ast::SetQuantifier::All, left, right } => {
                let left = self.body(left, true)?;
                union(left, self.body(right, true)?, span_of(body))
            }
            other => err(Diagnostic::error(codes::E0507, span_of(other), "a feature view reads SELECT and UNION ALL only")
                .help("Streams are put together with UNION ALL; duplicates are removed within each stream by its primary key.")),
        }
    }

    fn projection(&self, select: &'a ast::Select) -> Result<Scope, Errors> {
        let at = span_of(select);
        let grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty());
        if grouped || select.having.is_some() || select.distinct.is_some() || select.qualify.is_some() || !select.named_window.is_empty() {
            return err(Diagnostic::error(codes::E0507, at, "a subquery of a feature view projects and filters only")
                .help("Put GROUP BY, windows and aggregates into the view's own SELECT."));
        }
        let scope = self.from(&select.from, at)?;
        let select = &scope.with_merged(select);
        let scope = self.filtered(scope, select.selection.as_ref())?;
        let schema = scope.df_schema();
        let (mut exprs, mut fields, mut errors): (Vec<Compiled>, Vec<FieldRef>, Errors) = (vec![], vec![], vec![]);
        let mut time = None;
        for item in &select.projection {
            match self.items(item, &scope) {
                Ok(items) => {
                    for (name, sql, source) in items {
                        match ExprBinder::shared().compile(&sql, &schema) {
                            Ok(compiled) => {
                                if source.is_some() && source == scope.time {
                                    if time.is_some() {
                                        errors.push(Diagnostic::error(codes::E0507, span_of(item), "the event time is selected twice"));
                                    }
                                    time = Some(exprs.len());
                                }
                                if fields.iter().any(|f| f.name() == &name) {
                                    errors.push(
                                        Diagnostic::error(codes::E0202, span_of(item), format!("column \"{name}\" is selected twice"))
                                            .help("Give one of them another name with AS."),
                                    );
                                }
                                fields.push(Arc::new(Field::new(name, compiled.data_type.clone(), true)));
                                exprs.push(compiled);
                            }
                            Err(d) => errors.push(d),
                        }
                    }
                }
                Err(d) => errors.push(d),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let time_name = time.map_or_else(|| scope.time_name.clone(), |t| fields[t].name().clone());
        let schema = nullable(fields.iter().cloned());
        let leftmost = fields.len();
        let relation = Relation::Project(Project { input: Box::new(scope.relation), exprs, schema });
        Ok(Scope { relation, columns: fields.into_iter().map(|f| (None, f)).collect(), time, time_name, leftmost, merged: vec![] })
    }

    /// The expressions of one SELECT item: name, expression, and the column where it is just one.
    fn items(&self, item: &ast::SelectItem, scope: &Scope) -> Result<Vec<(String, ast::Expr, Option<usize>)>, Diagnostic> {
        let column = |e: &ast::Expr| match e {
            ast::Expr::Identifier(i) => scope.find(None, &fold(i)).first().copied(),
            ast::Expr::CompoundIdentifier(p) if p.len() == 2 => scope.find(Some(&fold(&p[0])), &fold(&p[1])).first().copied(),
            _ => None,
        };
        match item {
            ast::SelectItem::ExprWithAlias { expr, alias } => Ok(vec![(fold(alias), expr.clone(), column(expr))]),
            ast::SelectItem::UnnamedExpr(expr) => match column(expr) {
                Some(i) => Ok(vec![(scope.columns[i].1.name().clone(), expr.clone(), Some(i))]),
                None if matches!(expr, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)) => {
                    Ok(vec![(expr.to_string(), expr.clone(), None)])
                }
                None => Err(Diagnostic::error(codes::E0107, span_of(expr), "the expression needs a name").help("Add AS name.")),
            },
            ast::SelectItem::Wildcard(options)
                if *options == ast::WildcardAdditionalOptions::default() || options.to_string().is_empty() =>
            {
                Ok((0..scope.columns.len()).map(|i| self.whole(scope, i)).collect())
            }
            ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if options.to_string().is_empty() =>
            {
                let qualifier = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                let of: Vec<_> = (0..scope.columns.len())
                    .filter(|i| scope.columns[*i].0.as_ref().is_some_and(|q| q.table() == qualifier))
                    .map(|i| self.whole(scope, i))
                    .collect();
                if of.is_empty() {
                    return Err(Diagnostic::error(codes::E0201, span_of(name), format!("unknown table \"{qualifier}\"")));
                }
                Ok(of)
            }
            other => Err(Diagnostic::error(codes::E0105, span_of(other), "the item is not supported in a feature view")),
        }
    }

    fn whole(&self, scope: &Scope, i: usize) -> (String, ast::Expr, Option<usize>) {
        let (qualifier, field) = &scope.columns[i];
        let quoted = |s: &str| ast::Ident::with_quote('"', s);
        let sql = match qualifier {
            Some(q) => ast::Expr::CompoundIdentifier(vec![quoted(q.table()), quoted(field.name())]),
            None => ast::Expr::Identifier(quoted(field.name())),
        };
        (field.name().clone(), sql, Some(i))
    }

    /// The rows for which a WHERE is true.
    pub(crate) fn filtered(&self, scope: Scope, selection: Option<&ast::Expr>) -> Result<Scope, Errors> {
        let Some(selection) = selection else { return Ok(scope) };
        if let Some(span) = super::aggregate::mentions_instant(selection) {
            return err(Diagnostic::error(codes::E0406, span, "as_of() is not allowed in WHERE")
                .help("Put the condition into FILTER (WHERE ...) of the aggregate, or use a window."));
        }
        let predicate = ExprBinder::shared().predicate(selection, &scope.df_schema()).map_err(|d| vec![d])?;
        Ok(Scope { relation: Relation::Filter(Filter { input: Box::new(scope.relation), predicate }), ..scope })
    }

    fn asof(
        &self,
        left: Scope,
        right: Scope,
        match_condition: &ast::Expr,
        constraint: &ast::JoinConstraint,
        at: Span,
    ) -> Result<Scope, Errors> {
        if matches!(&right.relation, Relation::Union(u) if u.inputs.len() > 1 || matches!(u.inputs[0], Relation::Union(_)))
            || right.relation.has_join()
        {
            return err(Diagnostic::error(codes::E0507, at, "the right side of an AS OF join in a feature view is one stream")
                .help("Project and filter one stream; join further streams by further ASOF JOINs."));
        }
        let strict = match_strictness(match_condition, &left, &right).map_err(|d| vec![d])?;
        let mut on = Vec::new();
        let mut using = Vec::new();
        match constraint {
            ast::JoinConstraint::None => {}
            ast::JoinConstraint::On(condition) => self.equalities(condition, &left, &right, &mut on)?,
            ast::JoinConstraint::Using(names) => {
                for name in names {
                    let Some(column) = name.0.last().and_then(|p| p.as_ident()) else { continue };
                    let name = fold(column);
                    let side = |scope: &Scope, which: &str| match scope.find(None, &name).first() {
                        Some(i) => Ok(scope.column(*i, column.span)),
                        None => Err(vec![Diagnostic::error(
                            codes::E0506,
                            column.span,
                            format!("column \"{name}\" of USING is not on the {which} side"),
                        )]),
                    };
                    on.push(self.pair(&side(&left, "left")?, &side(&right, "right")?, &left, &right).map_err(|d| vec![d])?);
                    using.push(name);
                }
            }
            ast::JoinConstraint::Natural => {
                return err(Diagnostic::error(codes::E0506, at, "NATURAL is not supported").help("Write ON or USING."));
            }
        }
        let mut columns = left.columns.clone();
        for (qualifier, field) in &right.columns {
            // A USING column is the left one's when it is named alone.
            let hidden = using.contains(field.name()) && qualifier.is_none();
            if columns.iter().any(|(q, f)| q == qualifier && f.name() == field.name()) && !hidden {
                return err(Diagnostic::error(
                    codes::E0203,
                    at,
                    format!("column \"{}\" stands on both sides under one name", field.name()),
                )
                .help("Give the sides different aliases."));
            }
            columns.push((qualifier.clone(), Arc::new(field.as_ref().clone().with_nullable(true))));
        }
        let schema = nullable(columns.iter().map(|(_, f)| f.clone()));
        let leftmost = left.leftmost;
        let merged = left.merged.iter().cloned().chain(using).collect();
        let relation = Relation::AsofJoin(AsofJoin { left: Box::new(left.relation), right: Box::new(right.relation), on, strict, schema });
        Ok(Scope { relation, columns, time: left.time, time_name: left.time_name, leftmost, merged })
    }

    fn equalities(&self, condition: &ast::Expr, left: &Scope, right: &Scope, on: &mut Vec<(Compiled, Compiled)>) -> Result<(), Errors> {
        match condition {
            ast::Expr::Nested(inner) => self.equalities(inner, left, right, on),
            ast::Expr::BinaryOp { left: a, op: ast::BinaryOperator::And, right: b } => {
                self.equalities(a, left, right, on)?;
                self.equalities(b, left, right, on)
            }
            ast::Expr::BinaryOp { left: a, op: ast::BinaryOperator::Eq, right: b } => {
                let pair = match self.pair(a, b, left, right) {
                    Ok(pair) => Ok(pair),
                    // Written the other way round; where both fail, the first error speaks.
                    Err(first) => self.pair(b, a, left, right).map_err(|_| first),
                };
                on.push(pair.map_err(|d| vec![d])?);
                Ok(())
            }
            other => err(Diagnostic::error(codes::E0506, span_of(other), "ON of an AS OF join is one or more equalities joined by AND")
                .help("Put other conditions into WHERE or into a subquery of the right side.")),
        }
    }

    fn pair(&self, a: &ast::Expr, b: &ast::Expr, left: &Scope, right: &Scope) -> Result<(Compiled, Compiled), Diagnostic> {
        let binder = ExprBinder::shared();
        let (ls, rs) = (left.df_schema(), right.df_schema());
        let (le, re) = (binder.logical(a, &ls)?, binder.logical(b, &rs)?);
        for column in le.column_refs() {
            if ls.index_of_column(column).is_ok_and(|i| i >= left.leftmost) {
                return Err(Diagnostic::error(codes::E0506, span_of(a), "a left key of ON must come from the leftmost stream")
                    .help("A key that was itself looked up could change later; join on columns of the first stream."));
            }
        }
        let compile = |e: Expr, schema, sql: &ast::Expr| scalar::compile(e, schema).map_err(|e| refused(&e, span_of(sql)));
        let (lc, rc) = (compile(le.clone(), &ls, a)?, compile(re.clone(), &rs, b)?);
        let common = comparison_coercion(&lc.data_type, &rc.data_type).filter(|t| {
            let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
            text(&lc.data_type) == text(&rc.data_type) && !t.is_floating() && !t.is_nested()
        });
        let Some(common) = common else {
            let message =
                format!("keys of types {} and {} cannot be joined", scalar::sql_name(&lc.data_type), scalar::sql_name(&rc.data_type));
            return Err(Diagnostic::error(codes::E0506, span_of(a), message)
                .help("Join integers, strings, dates, timestamps, decimals or booleans of one kind."));
        };
        let lc = if lc.data_type == common { lc } else { compile(cast(le, common.clone()), &ls, a)? };
        let rc = if rc.data_type == common { rc } else { compile(cast(re, common), &rs, b)? };
        Ok((lc, rc))
    }
}

/// Whether the match is strict; the two sides must be the two event times.
fn match_strictness(condition: &ast::Expr, left: &Scope, right: &Scope) -> Result<bool, Diagnostic> {
    let expected = || {
        Diagnostic::error(
            codes::E0505,
            span_of(condition),
            "MATCH_CONDITION in a feature view compares the two streams' event times by >= or >",
        )
        .help("Write MATCH_CONDITION (left.ts >= right.ts).")
    };
    let (a, op, b) = match condition {
        ast::Expr::Nested(inner) => return match_strictness(inner, left, right),
        ast::Expr::BinaryOp { left, op, right } => (left.as_ref(), op, right.as_ref()),
        _ => return Err(expected()),
    };
    let is_time = |e: &ast::Expr, scope: &Scope| {
        let found = match e {
            ast::Expr::Identifier(i) => scope.find(None, &fold(i)),
            ast::Expr::CompoundIdentifier(p) if p.len() == 2 => scope.find(Some(&fold(&p[0])), &fold(&p[1])),
            _ => vec![],
        };
        scope.time.is_some_and(|t| found.contains(&t))
    };
    use ast::BinaryOperator::{Gt, GtEq, Lt, LtEq};
    let ambiguous = |e: &ast::Expr| matches!(e, ast::Expr::Identifier(i) if !left.find(None, &fold(i)).is_empty() && !right.find(None, &fold(i)).is_empty());
    if let Some(e) = [a, b].into_iter().find(|e| ambiguous(e)) {
        return Err(Diagnostic::error(codes::E0203, span_of(e), format!("column \"{e}\" is ambiguous"))
            .help("Qualify it with the stream's name or alias."));
    }
    let forward = || {
        Diagnostic::error(codes::E0505, span_of(condition), "the match condition of a feature view cannot look forward in time")
            .help("Only >= and > from the left event to the right one never read the future.")
    };
    match (is_time(a, left) && is_time(b, right), is_time(a, right) && is_time(b, left), op) {
        (true, _, GtEq) | (_, true, LtEq) => Ok(false),
        (true, _, Gt) | (_, true, Lt) => Ok(true),
        (true, _, LtEq | Lt) | (_, true, GtEq | Gt) => Err(forward()),
        _ => Err(expected()),
    }
}

fn scan(stream: &StreamInfo, alias: &str) -> Scope {
    let fields: Vec<FieldRef> = stream.columns.iter().map(|c| Arc::new(Field::new(&c.name, c.data_type.clone(), true))).collect();
    let all = 0..stream.columns.len();
    let order =
        if stream.primary_key.is_empty() { all.clone().filter(|i| *i != stream.event_time).collect() } else { stream.primary_key.clone() };
    let relation = Relation::Scan(Scan {
        stream: stream.name.clone(),
        columns: all.collect(),
        schema: nullable(fields.iter().cloned()),
        event_time: stream.event_time,
        order: OrderColumns(order),
        disorder: stream.disorder,
    });
    let qualifier = TableReference::bare(alias);
    let time_name = stream.columns[stream.event_time].name.clone();
    let leftmost = fields.len();
    let columns = fields.into_iter().map(|f| (Some(qualifier.clone()), f)).collect();
    Scope { relation, columns, time: Some(stream.event_time), time_name, leftmost, merged: vec![] }
}

fn union(left: Scope, right: Scope, at: Span) -> Result<Scope, Errors> {
    if left.relation.has_join() || right.relation.has_join() {
        return err(Diagnostic::error(codes::E0507, at, "a UNION ALL of enriched streams is not supported")
            .help("Put the streams together first, or make one view a stream."));
    }
    if left.columns.len() != right.columns.len() {
        let message = format!("the branches of UNION ALL have {} and {} columns", left.columns.len(), right.columns.len());
        return err(Diagnostic::error(codes::E0507, at, message));
    }
    for ((_, a), (_, b)) in left.columns.iter().zip(&right.columns) {
        if a.name() != b.name() || a.data_type() != b.data_type() {
            let message = format!(
                "the branches of UNION ALL differ: \"{}\" {} and \"{}\" {}",
                a.name(),
                scalar::sql_name(a.data_type()),
                b.name(),
                scalar::sql_name(b.data_type())
            );
            return err(
                Diagnostic::error(codes::E0507, at, message).help("Use the same names and types in the same places: add AS and CAST.")
            );
        }
    }
    if left.time.is_none() || left.time != right.time {
        return err(Diagnostic::error(codes::E0507, at, "the branches of UNION ALL need the event time at the same place")
            .help("Select each stream's event time as the same column of each branch."));
    }
    let mut inputs = Vec::new();
    for side in [left.relation, right.relation] {
        match side {
            Relation::Union(u) => inputs.extend(u.inputs),
            other => inputs.push(other),
        }
    }
    if inputs.len() > MAX_BRANCHES {
        return err(Diagnostic::error(codes::E0103, at, format!("a UNION ALL of more than {MAX_BRANCHES} branches is not supported")));
    }
    let columns: Vec<_> = left.columns.into_iter().map(|(_, f)| (None, f)).collect();
    let schema = nullable(columns.iter().map(|(_, f): &(Option<TableReference>, FieldRef)| f.clone()));
    let leftmost = columns.len();
    Ok(Scope {
        relation: Relation::Union(Union { inputs, schema }),
        columns,
        time: left.time,
        time_name: left.time_name,
        leftmost,
        merged: vec![],
    })
}
