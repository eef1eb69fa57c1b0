//! One `CREATE FEATURE VIEW` statement as a whole: shape, entity, features.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use asof_udfs::{Aggregate, Frame, Function, Program};
use datafusion::common::{DFSchema, TableReference};
use datafusion::sql::sqlparser::ast;

use super::Errors;
use super::aggregate::{Aggregates, CallKind, has_aggregate};
use super::changes;
use super::expr::{ExprBinder, fold, span_of};
use super::frame::{Implied, NamedWindows, group_window};
use super::options::view_options;
use super::prune::prune;
use super::relation::{Ctes, RelationBinder};
use super::scope::Scope;
use crate::ast::CreateFeatureView;
use crate::catalog::{Catalog, OPERATION, POSITION};
use crate::codes;
use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::{
    AS_OF, AggregateCall, DeferredAggregate, EntityColumn, Feature, FeaturePlan, FeatureValue, Fingerprint, Relation, Shape, feature_text,
    instant_type, relation_text,
};
use crate::span::Span;

/// Binds the definition of a feature view.
///
/// - Errors: every reason found why it cannot be exact in both paths, each with its place.
pub fn bind_feature_view(statement: &CreateFeatureView, catalog: &dyn Catalog) -> Result<FeaturePlan, Vec<Diagnostic>> {
    let binder = RelationBinder { catalog, ctes: Ctes::new() };
    let mut errors = Errors::new();
    let (options, ttl) = view_options(&statement.options, &mut errors);
    let query = &statement.query;
    let aggregates = |name: &str| super::aggregate::is_aggregate_name(name);
    errors.extend(crate::parse::check_scalar_calls(query, |name| ExprBinder::shared().is_scalar(name) && !aggregates(name)));
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        errors.push(Diagnostic::error(codes::E0105, statement.query_span, "ORDER BY and LIMIT are not supported in a feature view"));
    }
    let inner;
    let binder = match &query.with {
        None => &binder,
        Some(with) => {
            inner = binder.with_ctes(with)?;
            &inner
        }
    };
    let select = match query.body.as_ref() {
        ast::SetExpr::Select(select) => select,
        _ => {
            errors.push(
                Diagnostic::error(codes::E0507, statement.query_span, "a feature view is one SELECT")
                    .help("Put streams together below it: SELECT ... FROM (SELECT ... UNION ALL SELECT ...) e."),
            );
            return Err(errors);
        }
    };
    for (present, clause) in
        [(select.distinct.is_some(), "DISTINCT"), (select.having.is_some(), "HAVING"), (select.qualify.is_some(), "QUALIFY")]
    {
        if present {
            errors.push(Diagnostic::error(codes::E0105, span_of(select.as_ref()), format!("{clause} is not supported in a feature view")));
        }
    }
    let scope = match binder.from(&select.from, statement.query_span) {
        Ok(scope) => scope,
        Err(mut more) => {
            errors.append(&mut more);
            return Err(errors);
        }
    };
    let select = &scope.with_merged(select);
    let scope = match binder.filtered(scope, select.selection.as_ref()) {
        Ok(scope) => scope,
        Err(mut more) => {
            errors.append(&mut more);
            return Err(errors);
        }
    };
    ViewBinder { statement, select, scope: &scope, errors }.bind(options, ttl)
}

struct ViewBinder<'a> {
    statement: &'a CreateFeatureView,
    select: &'a ast::Select,
    scope: &'a Scope,
    errors: Errors,
}

/// A SELECT item on its way to a feature.
struct Item {
    name: String,
    sql: ast::Expr,
    text: String,
    span: Span,
}

impl ViewBinder<'_> {
    fn bind(mut self, options: crate::plan::ViewOptions, ttl: Option<i64>) -> Result<FeaturePlan, Vec<Diagnostic>> {
        let entity = self.entity();
        let entity_names: Vec<String> = entity.iter().map(|e| e.name.clone()).collect();
        let time = self.scope.time_name.clone();
        let grouped = self.group_by(&entity_names);
        let items = self.items(&entity_names);
        let shape = match (&grouped, items.iter().any(|i| has_aggregate(&i.sql))) {
            (Some(_), _) => Shape::Grouped,
            (None, true) => Shape::Windowed,
            (None, false) => Shape::LatestRow,
        };
        let named = NamedWindows::collect(&self.select.named_window, &mut self.errors);
        let implied = Implied { entity: &entity_names, time: &time };
        named.check(&implied, &mut self.errors);
        let alive = changes::alive(self.scope, shape, self.statement, &mut self.errors);
        let mut aggregates = Aggregates::new(self.scope, named, implied, grouped);
        if let Some(alive) = alive {
            aggregates.show_only(&alive);
        }
        let mut extracted = Vec::new();
        for item in items {
            let mut sql = item.sql.clone();
            if shape == Shape::LatestRow {
                Self::latest_columns(&mut sql, &mut aggregates);
            } else {
                aggregates.extract(&mut sql);
            }
            extracted.push((item, sql));
        }
        if shape == Shape::LatestRow {
            // as_of() is the only call left to replace.
            for (_, sql) in &mut extracted {
                aggregates.extract(sql);
            }
        }
        self.errors.append(&mut aggregates.errors);
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let (values, masks, frames) = (aggregates.values, aggregates.masks, aggregates.frames);
        let (mut calls, mut deferred): (Vec<AggregateCall>, Vec<DeferredAggregate>) = (vec![], vec![]);
        for call in aggregates.calls {
            match call.kind {
                CallKind::Run(c) => calls.push(c),
                CallKind::Deferred(d) => deferred.push(*d),
            }
        }
        let results: Vec<(String, DataType)> = calls
            .iter()
            .map(|c| (c.name.clone(), c.data_type.clone()))
            .chain(deferred.iter().map(|d| (d.name.clone(), d.data_type.clone())))
            .collect();
        let ordered = needs_order(&calls, &deferred, &frames);
        let program = Program::try_new(
            values.iter().map(|v| v.expr.data_type.clone()).collect(),
            masks.len(),
            ordered,
            frames.clone(),
            calls.iter().map(|c| Aggregate { function: c.function, value: c.value, mask: c.mask, frame: c.frame }).collect(),
            ttl,
        );
        let program = match program {
            Ok(p) => Arc::new(p),
            Err(e) => {
                self.errors.push(Diagnostic::error(codes::E0402, self.statement.query_span, e.to_string()));
                return Err(self.errors);
            }
        };
        let features = self.features(extracted, &entity, &results, shape);
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let relation = prune(&self.scope.relation, &entity, &values, &masks, ordered);
        let mut plan = FeaturePlan {
            name: self.statement.name.value.clone(),
            shape,
            entity,
            time_column: time,
            relation,
            values,
            masks,
            frames,
            aggregates: calls,
            deferred,
            features,
            ttl,
            options,
            program,
            ordered,
            fingerprint: Fingerprint::of(""),
        };
        fingerprints(&mut plan, &self.scope.relation);
        Ok(plan)
    }

    fn entity(&mut self) -> Vec<EntityColumn> {
        let mut entity = Vec::new();
        for name in &self.statement.entity.names {
            // A column that both sides of an AS OF join carry is the leftmost stream's.
            let Some(&column) = self.scope.find(None, &name.value).first() else {
                let d = Diagnostic::error(codes::E0201, name.span, format!("unknown column \"{}\"", name.value));
                let known = self.scope.columns.iter().map(|(_, f)| f.name().as_str());
                self.errors.push(match nearest(&name.value, known) {
                    Some(near) => d.help(format!("The nearest known column is \"{near}\".")),
                    None => d,
                });
                continue;
            };
            if column >= self.scope.leftmost {
                self.errors.push(
                    Diagnostic::error(
                        codes::E0507,
                        name.span,
                        format!("entity column \"{}\" must come from the leftmost stream", name.value),
                    )
                    .help("An event belongs to an entity by its own columns; start FROM with the stream that has it."),
                );
            }
            if Some(column) == self.scope.time {
                self.errors.push(Diagnostic::error(codes::E0507, name.span, "the event time cannot be an entity column"));
            }
            let data_type = self.scope.columns[column].1.data_type().clone();
            let allowed = matches!(
                data_type,
                DataType::Int8
                    | DataType::Int16
                    | DataType::Int32
                    | DataType::Int64
                    | DataType::Utf8View
                    | DataType::Date32
                    | DataType::Timestamp(_, _)
                    | DataType::Decimal128(_, _)
                    | DataType::Boolean
            );
            if !allowed {
                self.errors.push(
                    Diagnostic::error(
                        codes::E0402,
                        name.span,
                        format!("an entity column cannot be of type {}", asof_udfs::scalar::sql_name(&data_type)),
                    )
                    .help("Use integers, strings, dates, timestamps, decimals or booleans."),
                );
            }
            entity.push(EntityColumn { name: name.value.clone(), data_type, column });
        }
        entity
    }

    /// The frame of a grouped view; its GROUP BY must be the entity, with one window at most.
    fn group_by(&mut self, entity: &[String]) -> Option<Frame> {
        let (exprs, modifiers) = match &self.select.group_by {
            ast::GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
            ast::GroupByExpr::All(_) => {
                self.errors.push(
                    Diagnostic::error(codes::E0306, self.statement.query_span, "GROUP BY ALL is not supported")
                        .help(format!("Write GROUP BY {}.", entity.join(", "))),
                );
                return Some(Frame::UNBOUNDED);
            }
        };
        if exprs.is_empty() && modifiers.is_empty() {
            return None;
        }
        if !modifiers.is_empty() {
            self.errors.push(Diagnostic::error(
                codes::E0306,
                self.statement.query_span,
                "ROLLUP, CUBE and TOTALS are not supported in a feature view",
            ));
        }
        let (mut frame, mut named) = (None, Vec::new());
        for expr in exprs {
            match group_window(expr, &self.scope.time_name) {
                Some(Ok(_)) if frame.is_some() => {
                    self.errors.push(Diagnostic::error(codes::E0306, span_of(expr), "a grouped view has one window"));
                }
                Some(Ok(f)) => frame = Some(f),
                Some(Err(d)) => self.errors.push(d),
                None => named.push((expr, column_name(expr))),
            }
        }
        let mut written: Vec<_> = named.iter().map(|(_, n)| n.clone()).collect();
        let mut meant: Vec<_> = entity.iter().map(|e| Some(e.clone())).collect();
        written.sort();
        meant.sort();
        if written != meant {
            let at = named.first().map_or(self.statement.query_span, |(e, _)| span_of(*e));
            self.errors.push(
                Diagnostic::error(codes::E0306, at, "GROUP BY must be the entity, and a window at most")
                    .note(self.statement.entity.span, format!("The entity is ({}).", entity.join(", ")))
                    .help(format!(
                        "Write GROUP BY {0} or GROUP BY {0}, TUMBLE({1}, INTERVAL '1 hour').",
                        entity.join(", "),
                        self.scope.time_name
                    )),
            );
        }
        Some(frame.unwrap_or(Frame::UNBOUNDED))
    }

    /// The SELECT list with a name each; the entity's own columns are left out, they are part of every row.
    fn items(&mut self, entity: &[String]) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for item in &self.select.projection {
            let (sql, alias) = match item {
                ast::SelectItem::UnnamedExpr(e) => (e, None),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(alias))),
                ast::SelectItem::Wildcard(o) if o.to_string().is_empty() => {
                    self.all_columns(None, entity, &mut items);
                    continue;
                }
                ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(n), o) if o.to_string().is_empty() => {
                    let qualifier = n.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                    self.all_columns(Some(&qualifier), entity, &mut items);
                    continue;
                }
                other => {
                    self.errors.push(Diagnostic::error(codes::E0105, span_of(other), "the item is not supported in a feature view"));
                    continue;
                }
            };
            let span = span_of(sql);
            let plain = column_name(sql);
            let Some(name) = alias.clone().or_else(|| plain.clone()) else {
                self.errors.push(Diagnostic::error(codes::E0107, span, "a feature needs a name").help("Add AS name."));
                continue;
            };
            let is_entity = plain.as_ref().is_some_and(|p| entity.contains(p));
            if is_entity && (alias.is_none() || alias == plain) {
                continue;
            }
            if plain.as_deref() == Some(&self.scope.time_name) && alias.is_none() {
                self.errors.push(
                    Diagnostic::error(codes::E0507, span, format!("the event time \"{name}\" is the view's instant, not a feature")).help(
                        format!(
                            "For the time of the last event write {name} AS last_{name} in a latest-row view, or max({name}) OVER a window."
                        ),
                    ),
                );
                continue;
            }
            items.push(Item { name, sql: sql.clone(), text: sql.to_string(), span });
        }
        for i in 0..items.len() {
            let (name, span) = (items[i].name.clone(), items[i].span);
            if items[..i].iter().any(|other| other.name == name) {
                self.errors.push(
                    Diagnostic::error(codes::E0202, span, format!("feature \"{name}\" is defined twice"))
                        .help("Give one of them another name with AS."),
                );
            }
            if entity.contains(&name) || name == self.scope.time_name {
                self.errors.push(
                    Diagnostic::error(codes::E0202, span, format!("feature \"{name}\" has the name of an entity or event-time column"))
                        .help("Give it another name with AS."),
                );
            }
            if name.starts_with("__") {
                self.errors.push(Diagnostic::error(codes::E0204, span, "a name that begins with two underscores is reserved"));
            }
        }
        if items.is_empty() && self.errors.is_empty() {
            self.errors.push(Diagnostic::error(codes::E0107, self.statement.query_span, "a feature view needs at least one feature"));
        }
        items
    }

    fn all_columns(&mut self, qualifier: Option<&str>, entity: &[String], items: &mut Vec<Item>) {
        for (i, (q, field)) in self.scope.columns.iter().enumerate() {
            let wanted = qualifier.is_none_or(|w| q.as_ref().is_some_and(|q| q.table() == w));
            // What only orders changes is no feature of a row, unless it is named.
            let of_change = [OPERATION, POSITION].contains(&field.name().as_str());
            if !wanted || of_change || Some(i) == self.scope.time || entity.contains(field.name()) {
                continue;
            }
            let mut parts = vec![ast::Ident::with_quote('"', field.name())];
            if let Some(q) = q {
                parts.insert(0, ast::Ident::with_quote('"', q.table()));
            }
            let sql = if parts.len() == 1 { ast::Expr::Identifier(parts.remove(0)) } else { ast::Expr::CompoundIdentifier(parts) };
            items.push(Item { name: field.name().clone(), text: field.name().clone(), sql, span: self.statement.query_span });
        }
    }

    /// Replaces every column of a latest-row feature by the newest row's value of it; the entity's own columns are that row's too.
    fn latest_columns(sql: &mut ast::Expr, aggregates: &mut Aggregates<'_>) {
        use std::ops::ControlFlow;
        struct Columns<'x, 'y>(&'x mut Aggregates<'y>);
        impl ast::VisitorMut for Columns<'_, '_> {
            type Break = ();
            fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
                let Some(name) = column_name(expr) else { return ControlFlow::Continue(()) };
                if name == AS_OF || name.starts_with("__aggregate_") {
                    return ControlFlow::Continue(());
                }
                match self.0.latest(expr) {
                    Some(call) => {
                        let mut ident = ast::Ident::new(call);
                        ident.span = ast::Spanned::span(expr);
                        *expr = ast::Expr::Identifier(ident);
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Break(()),
                }
            }
        }
        let _ = ast::VisitMut::visit(sql, &mut Columns(aggregates));
    }

    fn features(
        &mut self,
        items: Vec<(Item, ast::Expr)>,
        entity: &[EntityColumn],
        results: &[(String, DataType)],
        shape: Shape,
    ) -> Vec<Feature> {
        let mut columns: Vec<(Option<TableReference>, FieldRef)> = Vec::new();
        columns.extend(entity.iter().map(|e| (None, Arc::new(Field::new(&e.name, e.data_type.clone(), true)))));
        columns.push((None, Arc::new(Field::new(AS_OF, instant_type(), true))));
        columns.extend(results.iter().map(|(n, t)| (None, Arc::new(Field::new(n, t.clone(), true)))));
        let schema = DFSchema::new_with_metadata(columns, HashMap::new()).unwrap_or_else(|_| DFSchema::empty());
        let mut features = Vec::new();
        for (item, sql) in items {
            let whole = match &sql {
                ast::Expr::Identifier(i) => results.iter().position(|(n, _)| *n == i.value),
                _ => None,
            };
            let (value, data_type) = match whole {
                Some(i) => (FeatureValue::Aggregate(i), results[i].1.clone()),
                None => match ExprBinder::shared().compile(&sql, &schema) {
                    Ok(c) => {
                        let t = c.data_type.clone();
                        (FeatureValue::Computed(c), t)
                    }
                    Err(d) => {
                        self.errors.push(self.plain_column(d, shape));
                        continue;
                    }
                },
            };
            if matches!(data_type, DataType::Null) {
                self.errors
                    .push(Diagnostic::error(codes::E0402, item.span, format!("feature \"{}\" has no type", item.name)).help("Add a CAST."));
            }
            features.push(Feature { name: item.name, data_type, value, text: item.text, fingerprint: Fingerprint::of("") });
        }
        features
    }

    /// A column of the relation beside aggregates: the reason and the rewrite.
    fn plain_column(&self, d: Diagnostic, shape: Shape) -> Diagnostic {
        let name = d.message.strip_prefix("unknown column \"").and_then(|r| r.strip_suffix('"'));
        match name.filter(|n| !self.scope.find(None, n).is_empty()) {
            Some(name) if shape != Shape::LatestRow => {
                Diagnostic::error(codes::E0307, d.span, format!("column \"{name}\" stands beside aggregates"))
                    .help(format!("Write last_value({name}) OVER a window, or make it an entity column."))
            }
            _ => d,
        }
    }
}

/// The name of a bare column, qualified or not.
fn column_name(sql: &ast::Expr) -> Option<String> {
    match sql {
        ast::Expr::Identifier(i) => Some(fold(i)),
        ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        _ => None,
    }
}

fn needs_order(calls: &[AggregateCall], deferred: &[DeferredAggregate], frames: &[Frame]) -> bool {
    let by_order = |f: Function| {
        matches!(f, Function::FirstValue | Function::LastValue | Function::ArrayAgg | Function::FirstN(_) | Function::LastN(_))
    };
    calls.iter().any(|c| by_order(c.function))
        || deferred.iter().any(|d| by_order(d.function))
        || frames.iter().any(|f| matches!(f, Frame::Rows { .. }))
}

/// Fills in what each feature and the view mean.
fn fingerprints(plan: &mut FeaturePlan, relation: &Relation) {
    let entity: Vec<_> = plan.entity.iter().map(|e| format!("{} {}", e.name, e.data_type)).collect();
    let head = format!("entity({}); ttl({:?}); {}", entity.join(", "), plan.ttl, relation_text(relation));
    let value = |i: Option<usize>| i.map_or(String::new(), |i| plan.values[i].expr.text());
    let mut texts: Vec<(String, String)> = Vec::new();
    for c in &plan.aggregates {
        let mask = c.mask.map_or(String::new(), |m| plan.masks[m].text());
        texts.push((c.name.clone(), format!("{:?}({}) FILTER({mask}) OVER({:?})", c.function, value(c.value), plan.frames[c.frame])));
    }
    for d in &plan.deferred {
        let part = |c: &Option<asof_udfs::scalar::Compiled>| c.as_ref().map_or(String::new(), |c| c.text());
        texts.push((
            d.name.clone(),
            format!("{:?}({}) FILTER({}) OVER({:?}) AT", d.function, part(&d.argument), part(&d.filter), plan.frames[d.frame]),
        ));
    }
    let mut all = head.clone();
    for f in &mut plan.features {
        let text = feature_text(&f.value, &texts);
        f.fingerprint = Fingerprint::of(&format!("{head}; {text}"));
        all.push_str(&format!("; {} = {text}", f.name));
    }
    plan.fingerprint = Fingerprint::of(&all);
}
