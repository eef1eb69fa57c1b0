//! What a statement gives and takes, without running it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof_sql::ast::{ForEntity, Insert, Instant, KeyLiteral, Statement, StatementKind};
use asof_sql::plan::instant_type;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;

use super::super::Output;
use super::super::statement::sql_errors;
use super::super::status::status_schema;
use super::{Connection, SOURCE, TEMPORARY};
use crate::error::{Error, Result};
use crate::serve::lookup::{Parameters, for_entity};

/// What a statement gives and takes.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The columns of its answer; `None` for one without rows.
    pub columns: Option<SchemaRef>,
    /// Its parameters, `$1` and so on; a type that was not found is VARCHAR.
    pub parameters: SchemaRef,
}

impl Connection {
    /// What the last statement of a script gives and takes.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let statements = self.inner.parsed.get(sql)?;
        let Some(last) = statements.last() else { return Ok(Prepared { columns: None, parameters: Arc::new(Schema::empty()) }) };
        let mut types: Vec<Option<DataType>> = vec![None; last.parameters];
        let columns = TEMPORARY.scope(self.temporary.clone(), self.columns(last, sql, &mut types)).await;
        let columns = match columns {
            // What it reads may be made by a statement before it.
            Err(_) if statements.len() > 1 => None,
            columns => columns?,
        };
        let types = types.into_iter().enumerate();
        let parameters = types.map(|(i, t)| Field::new(format!("${}", i + 1), t.unwrap_or(DataType::Utf8), true));
        Ok(Prepared { columns, parameters: Arc::new(Schema::new(parameters.collect::<Vec<_>>())) })
    }

    async fn columns(&self, statement: &Statement, sql: &str, types: &mut [Option<DataType>]) -> Result<Option<SchemaRef>> {
        let nulls = vec![ScalarValue::Null; types.len()];
        match &statement.kind {
            StatementKind::Query(query) => {
                self.inner.check_query(query).map_err(|d| sql_errors(&d, SOURCE, sql))?;
                let placed = |e: Error| e.at(&self.inner.registry(), statement, SOURCE, sql);
                let plan = self.inner.plan(query, &[]).await.map_err(placed)?;
                for (name, t) in plan.get_parameter_types()? {
                    let at = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
                    if let Some(slot) = at.and_then(|at| types.get_mut(at)) {
                        *slot = t;
                    }
                }
                let mut metadata = plan.schema().metadata().clone();
                metadata.extend(self.inner.lineage(&plan));
                let fields = plan.schema().fields().clone();
                Ok(Some(Arc::new(Schema::new_with_metadata(fields, metadata))))
            }
            StatementKind::ForEntity(f) => {
                let columns = self.columns_of_lookup(f, sql).await?;
                self.key_types(f, types);
                Ok(Some(columns))
            }
            StatementKind::Insert(insert) => {
                self.value_types(insert, types);
                self.inner.writable(&insert.stream).map_err(|d| sql_errors(&d, SOURCE, sql))?;
                Ok(None)
            }
            StatementKind::Show(_) | StatementKind::Describe { .. } | StatementKind::ShowCreate { .. } => {
                match self.inner.run(statement, SOURCE, sql, &nulls).await? {
                    Output::Rows { schema, .. } => Ok(Some(schema)),
                    Output::Done { .. } => Ok(None),
                }
            }
            StatementKind::ShowStreamStatus { .. } => Ok(Some(status_schema())),
            StatementKind::Explain(explain) => {
                let names = match &explain.target {
                    asof_sql::ast::ExplainTarget::FeatureView(_) => ["part", "text"],
                    asof_sql::ast::ExplainTarget::Statement(_) => ["plan_type", "plan"],
                };
                Ok(Some(Arc::new(Schema::new(names.map(|n| Field::new(n, DataType::Utf8, true)).to_vec()))))
            }
            _ => Ok(None),
        }
    }

    /// The columns of a look-up: those of its answer for no entity.
    pub(super) async fn columns_of_lookup(&self, f: &ForEntity, sql: &str) -> Result<SchemaRef> {
        let mut nobody = f.clone();
        nobody.keys.rows.clear();
        nobody.at = Instant::Now;
        let answer = for_entity(&self.inner, &nobody, Parameters::Values(&[])).await?;
        Ok(answer.map_err(|d| sql_errors(&d, SOURCE, sql))?.0)
    }

    /// A parameter among the keys has its entity column's type.
    fn key_types(&self, f: &ForEntity, types: &mut [Option<DataType>]) {
        let registry = self.inner.registry();
        let mut entity: Vec<(String, DataType)> = Vec::new();
        if let ast::SetExpr::Select(select) = f.query.body.as_ref() {
            for from in &select.from {
                let ast::TableFactor::Table { name, .. } = &from.relation else { continue };
                let Some(ident) = name.0.last().and_then(|p| p.as_ident()) else { continue };
                let Some(view) = registry.views.get(&asof_sql::ast::fold(&ident.value, ident.quote_style.is_some())) else { continue };
                for e in &view.view.plan.entity {
                    if !entity.iter().any(|(n, _)| n == &e.name) {
                        entity.push((e.name.clone(), e.data_type.clone()));
                    }
                }
            }
        }
        for row in &f.keys.rows {
            for (place, value) in row.values.iter().enumerate() {
                let KeyLiteral::Parameter(n) = value.literal else { continue };
                let found = match &f.keys.columns {
                    Some(columns) => columns.get(place).and_then(|c| entity.iter().find(|(n, _)| n == &c.value)),
                    None => entity.get(place),
                };
                if let (Some((_, t)), Some(slot)) = (found, n.checked_sub(1).and_then(|i| types.get_mut(i))) {
                    *slot = Some(t.clone());
                }
            }
        }
        if let Instant::AsOf { expr, .. } | Instant::Before { expr, .. } = &f.at
            && let Some(slot) =
                expr.to_string().strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).and_then(|n| types.get_mut(n.checked_sub(1)?))
        {
            *slot = Some(instant_type());
        }
    }

    /// A parameter that stands for a column in VALUES has the column's type.
    fn value_types(&self, insert: &Insert, types: &mut [Option<DataType>]) {
        let registry = self.inner.registry();
        let Some(stream) = registry.streams.get(&insert.stream.value) else { return };
        let columns = stream.schema.columns();
        let ast::SetExpr::Values(values) = insert.source.body.as_ref() else { return };
        for row in &values.rows {
            for (place, cell) in row.iter().enumerate() {
                let column = match &insert.columns {
                    Some(names) => names.names.get(place).and_then(|n| columns.iter().find(|c| c.name == n.value)),
                    None => columns.get(place),
                };
                let ast::Expr::Value(v) = cell else { continue };
                let ast::Value::Placeholder(p) = &v.value else { continue };
                let at = p.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
                if let (Some(column), Some(slot)) = (column, at.and_then(|at| types.get_mut(at))) {
                    *slot = Some(column.data_type.clone());
                }
            }
        }
    }
}
