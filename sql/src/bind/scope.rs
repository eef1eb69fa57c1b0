//! What the names of a FROM clause stand for while a view is bound: a relation, its columns with their qualifiers, its event time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};
use datafusion::sql::sqlparser::ast;

use crate::plan::{AS_OF, Relation, instant_type};

/// A relation with the names of its columns.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The rows.
    pub relation: Relation,
    /// One entry a column: its qualifier and its field.
    pub columns: Vec<(Option<TableReference>, FieldRef)>,
    /// The column that holds the event time, where one does.
    pub time: Option<usize>,
    /// The name of the event-time column of the leftmost stream.
    pub time_name: String,
    /// How many of the columns, from the left, come from the leftmost stream.
    pub leftmost: usize,
    /// Names that USING has made one: unqualified they are the leftmost column of the name.
    pub merged: Vec<String>,
}

impl Scope {
    /// The columns as DataFusion resolves names over them.
    pub(crate) fn df_schema(&self) -> DFSchema {
        named(self.columns.clone())
    }

    /// The columns and the instant.
    pub(crate) fn df_schema_at_instant(&self) -> DFSchema {
        let instant = (None, Arc::new(Field::new(AS_OF, instant_type(), true)));
        named(self.columns.iter().cloned().chain([instant]).collect())
    }

    /// A SELECT in which the merged names are qualified, so that they are not ambiguous.
    pub(crate) fn with_merged(&self, select: &ast::Select) -> ast::Select {
        let mut select = select.clone();
        if !self.merged.is_empty() {
            let _ = ast::VisitMut::visit(&mut select.projection, &mut Qualify(self));
            let _ = ast::VisitMut::visit(&mut select.selection, &mut Qualify(self));
        }
        select
    }

    /// A column as an expression that names it and no other.
    pub(crate) fn column(&self, i: usize, span: datafusion::sql::sqlparser::tokenizer::Span) -> ast::Expr {
        let (qualifier, field) = &self.columns[i];
        let ident = |name: &str| ast::Ident { span, ..ast::Ident::with_quote('"', name) };
        match qualifier {
            Some(q) => ast::Expr::CompoundIdentifier(vec![ident(q.table()), ident(field.name())]),
            None => ast::Expr::Identifier(ident(field.name())),
        }
    }

    /// The same rows under one alias.
    pub(crate) fn aliased(mut self, alias: &str) -> Scope {
        for (qualifier, _) in &mut self.columns {
            *qualifier = Some(TableReference::bare(alias));
        }
        self.merged.clear();
        self
    }

    /// The places of the columns with a name, and a qualifier where one is given.
    pub(crate) fn find(&self, qualifier: Option<&str>, name: &str) -> Vec<usize> {
        let matches = |(q, f): &(Option<TableReference>, FieldRef)| {
            f.name() == name && qualifier.is_none_or(|wanted| q.as_ref().is_some_and(|q| q.table() == wanted))
        };
        self.columns.iter().enumerate().filter(|(_, c)| matches(c)).map(|(i, _)| i).collect()
    }
}

struct Qualify<'a>(&'a Scope);

impl ast::VisitorMut for Qualify<'_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<()> {
        if let ast::Expr::Identifier(i) = expr {
            let name = super::expr::fold(i);
            if let Some(first) = self.0.find(None, &name).first().filter(|_| self.0.merged.contains(&name)) {
                *expr = self.0.column(*first, i.span);
            }
        }
        std::ops::ControlFlow::Continue(())
    }
}

fn named(columns: Vec<(Option<TableReference>, FieldRef)>) -> DFSchema {
    // Two columns of one qualifier and name cannot come about: streams have unique columns and subqueries are checked.
    DFSchema::new_with_metadata(columns, HashMap::new()).unwrap_or_else(|_| DFSchema::empty())
}

/// A schema in which every column may be NULL: rows that are not read are NULL.
pub(crate) fn nullable(fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    let fields = fields.into_iter().map(|f| Field::new(f.name(), f.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
