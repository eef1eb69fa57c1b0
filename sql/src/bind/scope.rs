//! What the names of a FROM clause stand for while a view is bound: a relation, its columns with their qualifiers, its event time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};

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

    /// The same rows under one alias.
    pub(crate) fn aliased(mut self, alias: &str) -> Scope {
        for (qualifier, _) in &mut self.columns {
            *qualifier = Some(TableReference::bare(alias));
        }
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

fn named(columns: Vec<(Option<TableReference>, FieldRef)>) -> DFSchema {
    // Two columns of one qualifier and name cannot come about: streams have unique columns and subqueries are checked.
    DFSchema::new_with_metadata(columns, HashMap::new()).unwrap_or_else(|_| DFSchema::empty())
}

/// A schema in which every column may be NULL: rows that are not read are NULL.
pub(crate) fn nullable(fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    let fields = fields.into_iter().map(|f| Field::new(f.name(), f.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
