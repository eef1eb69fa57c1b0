//! What a look-up's text means: which views it asks, where its keys stand, what each item of its SELECT list takes. Resolved once a text;
//! keys, instant and values are every request's own.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use arrow::datatypes::DataType;
use asof_sql::ast::{ForEntity, fold};
use asof_sql::diagnostic::nearest;
use asof_sql::plan::instant_type;
use asof_sql::{Diagnostic, Span, codes};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::Spanned;

use super::{Checked, one};
use crate::op::window::View;
use crate::registry::Registry;

/// A look-up whose names are resolved against the definitions of one moment.
#[derive(Debug)]
pub(crate) struct LookupPlan {
    registry: Weak<Registry>,
    pub(super) asked: Vec<Asked>,
    /// The entity columns of all views, each once.
    pub(super) entity: Vec<(String, DataType)>,
    /// Which value of a row of keys is which entity column's.
    pub(super) places: Vec<usize>,
    /// What the views give: each view's entity columns, features and event time, in this order.
    pub(super) columns: Vec<Column>,
    /// What the answer has.
    pub(super) items: Vec<Item>,
}

/// A view that is asked, under its name in the statement.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    alias: String,
    pub(super) view: Arc<View>,
    /// Which of the look-up's entity columns are its own, in its order.
    pub(super) entity: Vec<usize>,
}

/// A column that a view gives, under the view's name in the statement.
#[derive(Debug)]
pub(super) struct Column {
    alias: String,
    name: String,
    pub(super) data_type: DataType,
}

/// An item of the answer, under its name.
#[derive(Debug)]
pub(super) enum Item {
    /// The column at this place.
    Column(usize, String),
    /// Computed by DataFusion's rules from columns that it calls `c0`, `c1` and so on.
    Computed { expr: String, span: Span, name: String },
}

impl LookupPlan {
    /// Resolves the names of a look-up.
    pub(crate) fn new(registry: &Arc<Registry>, f: &ForEntity) -> Checked<Self> {
        let ast::SetExpr::Select(select) = f.query.body.as_ref() else {
            return one(Diagnostic::error(codes::E0503, f.span, "FOR ENTITY stands behind SELECT ... FROM views"));
        };
        let mut asked = views(registry, &select.from)?;
        let entity = entity_list(&asked, f.span)?;
        let places = key_places(f, &entity)?;
        let mut columns = Vec::new();
        for a in &mut asked {
            let plan = &a.view.plan;
            a.entity = plan.entity.iter().filter_map(|e| entity.iter().position(|(n, _)| n == &e.name)).collect();
            let keys = plan.entity.iter().map(|e| (&e.name, e.data_type.clone()));
            let features = plan.features.iter().map(|f| (&f.name, f.data_type.clone()));
            let all = keys.chain(features).chain([(&plan.time_column, instant_type())]);
            columns.extend(all.map(|(name, data_type)| Column { alias: a.alias.clone(), name: name.clone(), data_type }));
        }
        let mut plan = Self { registry: Arc::downgrade(registry), asked, entity, places, columns, items: vec![] };
        plan.items = plan.select(&select.projection, f)?;
        Ok(plan)
    }

    /// Whether the names still mean the same: no definition has changed.
    pub(crate) fn is_of(&self, registry: &Arc<Registry>) -> bool {
        std::ptr::eq(self.registry.as_ptr(), Arc::as_ptr(registry))
    }

    /// The names of the views.
    pub(super) fn views(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(|a| a.name.as_str())
    }

    fn find(&self, qualifier: Option<&str>, name: &str) -> Vec<usize> {
        let is = |c: &Column| c.name == name && qualifier.is_none_or(|q| q == c.alias);
        (0..self.columns.len()).filter(|i| is(&self.columns[*i])).collect()
    }

    /// The place of a column that a statement names: an entity column is one and the same in all views.
    fn resolve(&self, parts: &[ast::Ident]) -> Result<usize, Diagnostic> {
        let folded: Vec<String> = parts.iter().map(|i| fold(&i.value, i.quote_style.is_some())).collect();
        let (qualifier, name) = match folded.as_slice() {
            [name] => (None, name),
            [q, name] => (Some(q.as_str()), name),
            _ => (None, &folded[folded.len() - 1]),
        };
        let span =
            parts.first().map(|p| Span::from(p.span)).unwrap_or_default().to(parts.last().map(|p| Span::from(p.span)).unwrap_or_default());
        let found = self.find(qualifier, name);
        match found.as_slice() {
            [] => {
                let d = Diagnostic::error(codes::E0201, span, format!("unknown feature \"{}\"", folded.join(".")));
                Err(match nearest(name, self.columns.iter().map(|c| c.name.as_str())) {
                    Some(near) => d.help(format!("The nearest known feature is \"{near}\".")),
                    None => d,
                })
            }
            [first] => Ok(*first),
            [first, ..] if self.entity.iter().any(|(n, _)| n == name) => Ok(*first),
            _ => {
                let of: Vec<_> = found.iter().map(|i| format!("{}.{name}", self.columns[*i].alias)).collect();
                Err(Diagnostic::error(codes::E0203, span, format!("feature \"{name}\" is ambiguous"))
                    .help(format!("Write one of {}.", of.join(", "))))
            }
        }
    }

    fn select(&self, projection: &[ast::SelectItem], f: &ForEntity) -> Checked<Vec<Item>> {
        let (mut items, mut errors): (Vec<Item>, Vec<Diagnostic>) = (vec![], vec![]);
        let item = |i: usize| Item::Column(i, self.columns[i].name.clone());
        for selected in projection {
            let (expr, alias) = match selected {
                ast::SelectItem::Wildcard(_) => {
                    items.extend(self.entity.iter().filter_map(|(name, _)| self.find(None, name).first().copied()).map(item));
                    for (a, feature) in self.asked.iter().flat_map(|a| a.view.plan.features.iter().map(move |f| (a, f))) {
                        if self.find(None, &feature.name).len() > 1 {
                            let message = format!("feature \"{}\" is in two of the views, so * is ambiguous", feature.name);
                            let d = Diagnostic::error(codes::E0203, f.query.span(), message);
                            errors.push(d.help("Name the features, qualified by their view."));
                        }
                        items.extend(self.find(Some(&a.alias), &feature.name).first().copied().map(item));
                    }
                    continue;
                }
                ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(n), _) => {
                    let alias = n.0.last().and_then(|p| p.as_ident()).map(|i| fold(&i.value, i.quote_style.is_some())).unwrap_or_default();
                    let Some(a) = self.asked.iter().find(|a| a.alias == alias) else {
                        errors.push(Diagnostic::error(codes::E0201, n.span(), format!("unknown view \"{alias}\"")));
                        continue;
                    };
                    let of = |c: &Column| c.alias == alias && c.name != a.view.plan.time_column;
                    items.extend((0..self.columns.len()).filter(|i| of(&self.columns[*i])).map(item));
                    continue;
                }
                ast::SelectItem::UnnamedExpr(e) => (e, None),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(&alias.value, alias.quote_style.is_some()))),
                other => {
                    errors.push(Diagnostic::error(codes::E0503, other.span(), "the item is not supported beside FOR ENTITY"));
                    continue;
                }
            };
            let parts = match expr {
                ast::Expr::Identifier(i) => Some(std::slice::from_ref(i)),
                ast::Expr::CompoundIdentifier(parts) => Some(parts.as_slice()),
                _ => None,
            };
            match parts {
                Some(parts) => match self.resolve(parts) {
                    Ok(i) => items.push(Item::Column(i, alias.unwrap_or_else(|| self.columns[i].name.clone()))),
                    Err(d) => errors.push(d),
                },
                None => match self.computed(expr) {
                    Ok(computed) => {
                        let name = alias.unwrap_or_else(|| expr.to_string());
                        items.push(Item::Computed { expr: computed.to_string(), span: expr.span().into(), name });
                    }
                    Err(mut d) => errors.append(&mut d),
                },
            }
        }
        if errors.is_empty() { Ok(items) } else { Err(errors) }
    }

    /// An expression over the places of columns.
    fn computed(&self, expr: &ast::Expr) -> Checked<ast::Expr> {
        struct Places<'a>(&'a LookupPlan, Vec<Diagnostic>);
        impl ast::VisitorMut for Places<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, e: &mut ast::Expr) -> ControlFlow<()> {
                let parts = match e {
                    ast::Expr::Identifier(i) => vec![i.clone()],
                    ast::Expr::CompoundIdentifier(parts) => parts.clone(),
                    ast::Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)) => {
                        let d = Diagnostic::error(codes::E0503, v.span, "a parameter does not stand in the SELECT list of FOR ENTITY");
                        self.1.push(d.help("Parameters stand among the keys and for the instant."));
                        return ControlFlow::Continue(());
                    }
                    _ => return ControlFlow::Continue(()),
                };
                match self.0.resolve(&parts) {
                    Ok(i) => *e = ast::Expr::Identifier(ast::Ident::new(format!("c{i}"))),
                    Err(d) => self.1.push(d),
                }
                ControlFlow::Continue(())
            }
        }
        let mut computed = expr.clone();
        let mut places = Places(self, vec![]);
        let _ = ast::VisitMut::visit(&mut computed, &mut places);
        if places.1.is_empty() { Ok(computed) } else { Err(places.1) }
    }
}

fn views(registry: &Registry, from: &[ast::TableWithJoins]) -> Checked<Vec<Asked>> {
    let (mut asked, mut errors): (Vec<Asked>, Vec<Diagnostic>) = (vec![], vec![]);
    for from in from {
        let ast::TableFactor::Table { name, alias, .. } = &from.relation else { continue };
        let Some(ident) = name.0.last().and_then(|p| p.as_ident()) else { continue };
        let table = fold(&ident.value, ident.quote_style.is_some());
        let span: Span = name.span().into();
        match registry.views.get(&table) {
            Some(v) => {
                let alias = alias.as_ref().map_or_else(|| table.clone(), |a| fold(&a.name.value, a.name.quote_style.is_some()));
                if asked.iter().any(|a| a.alias == alias) {
                    errors.push(Diagnostic::error(codes::E0202, span, format!("\"{alias}\" stands twice in FROM")));
                }
                asked.push(Asked { name: table, alias, view: v.view.clone(), entity: vec![] });
            }
            None if registry.kind(&table).is_some() => {
                let message = format!("\"{table}\" is no feature view; FOR ENTITY asks feature views");
                errors.push(Diagnostic::error(codes::E0206, span, message));
            }
            None => {
                let d = Diagnostic::error(codes::E0201, span, format!("unknown feature view \"{table}\""));
                errors.push(match nearest(&table, registry.views.keys().map(String::as_str)) {
                    Some(near) => d.help(format!("The nearest known feature view is \"{near}\".")),
                    None => d,
                });
            }
        }
    }
    if errors.is_empty() { Ok(asked) } else { Err(errors) }
}

fn entity_list(asked: &[Asked], span: Span) -> Checked<Vec<(String, DataType)>> {
    let mut entity: Vec<(String, DataType)> = Vec::new();
    for e in asked.iter().flat_map(|a| &a.view.plan.entity) {
        match entity.iter().find(|(n, _)| n == &e.name) {
            None => entity.push((e.name.clone(), e.data_type.clone())),
            Some((_, t)) if t != &e.data_type => {
                let message = format!("entity column \"{}\" has type {t} in one view and {} in another", e.name, e.data_type);
                return one(Diagnostic::error(codes::E0501, span, message));
            }
            Some(_) => {}
        }
    }
    Ok(entity)
}

/// Which value of a row is which entity column's.
fn key_places(f: &ForEntity, entity: &[(String, DataType)]) -> Checked<Vec<usize>> {
    let list = || entity.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
    let Some(columns) = &f.keys.columns else {
        if let Some(row) = f.keys.rows.iter().find(|row| row.values.len() != entity.len()) {
            let message = format!("the entity has {} columns ({}), found {} values", entity.len(), list(), row.values.len());
            let d = Diagnostic::error(codes::E0501, row.span, message);
            return one(d.help(format!("Write FOR ENTITY ({}) IN ((...)), or name each column.", list())));
        }
        return Ok((0..entity.len()).collect());
    };
    let mut places: Vec<Option<usize>> = vec![None; entity.len()];
    for (at, name) in columns.iter().enumerate() {
        let Some(i) = entity.iter().position(|(n, _)| n == &name.value) else {
            let message = format!("\"{}\" is no entity column; the entity is ({})", name.value, list());
            let d = Diagnostic::error(codes::E0501, name.span, message);
            return one(match nearest(&name.value, entity.iter().map(|(n, _)| n.as_str())) {
                Some(near) => d.help(format!("The nearest entity column is \"{near}\".")),
                None => d,
            });
        };
        if places[i].replace(at).is_some() {
            return one(Diagnostic::error(codes::E0501, name.span, format!("entity column \"{}\" is given twice", name.value)));
        }
    }
    let mut found = Vec::with_capacity(places.len());
    for (place, (name, _)) in places.into_iter().zip(entity) {
        let Some(place) = place else {
            let message = format!("entity column \"{name}\" is not given");
            return one(Diagnostic::error(codes::E0501, f.keys.span, message).help(format!("Name all of ({}).", list())));
        };
        found.push(place);
    }
    Ok(found)
}
