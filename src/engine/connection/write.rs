//! What a client writes through its connection: rows of parameters, batches for a stream, temporary tables.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use asof_sql::ast::Insert;
use datafusion::sql::sqlparser::ast;

use super::super::IngestCounts;
use super::super::statement::sql_errors;
use super::{Connection, Ingest, Reply, SOURCE};
use crate::error::{Error, Result};

impl Connection {
    /// `INSERT INTO stream VALUES ($1, $2, ...)` with many rows of parameters: one step.
    pub(super) async fn insert_rows(&self, insert: &Insert, batch: &RecordBatch, picks: &[usize], sql: &str) -> Result<Reply> {
        self.inner.writable(&insert.stream).map_err(|d| sql_errors(&d, SOURCE, sql))?;
        let registry = self.inner.registry();
        let stream = registry.streams.get(&insert.stream.value).ok_or_else(|| Error::internal("a writable stream is defined"))?;
        let names: Vec<&str> = match &insert.columns {
            Some(names) => names.names.iter().map(|n| n.value.as_str()).collect(),
            None => stream.schema.columns().iter().map(|c| c.name.as_str()).collect(),
        };
        if names.len() != picks.len() {
            let message = format!("INSERT INTO \"{}\" names {} columns, its source has {}", insert.stream.value, names.len(), picks.len());
            return Err(Error::invalid(message));
        }
        if let Some(name) = names.iter().find(|n| !stream.schema.columns().iter().any(|c| c.name == **n)) {
            return Err(Error::invalid(format!("stream \"{}\" has no column \"{name}\"", insert.stream.value)));
        }
        let columns: Vec<_> = picks.iter().map(|i| batch.column(*i).clone()).collect();
        let fields: Vec<Field> = names.iter().zip(&columns).map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let counts = self.inner.push_batch(&insert.stream.value, &[rows], None).await?;
        Ok(Reply::Done { message: format!("INSERT: read {}, accepted {}", counts.read, counts.accepted), counts: Some(counts) })
    }

    /// Writes batches into a stream as one step; their columns must be the stream's, those that are NOT NULL among them.
    pub async fn push(&self, stream: &str, batches: &[RecordBatch], token: Option<&str>) -> Result<IngestCounts> {
        if let Some(batch) = batches.first() {
            self.check_columns(stream, &batch.schema())?;
        }
        self.inner.push_batch(stream, batches, token).await
    }

    fn check_columns(&self, stream: &str, given: &Schema) -> Result<()> {
        let registry = self.inner.registry();
        let Some(stream_schema) = registry.streams.get(stream).map(|s| s.schema.clone()) else { return Ok(()) };
        let columns = stream_schema.columns();
        if let Some(extra) = given.fields().iter().find(|f| !columns.iter().any(|c| &c.name == f.name())) {
            let near = asof_sql::diagnostic::nearest(extra.name(), columns.iter().map(|c| c.name.as_str()));
            let near = near.map_or_else(String::new, |n| format!("; the nearest column is \"{n}\""));
            return Err(Error::invalid(format!("stream \"{stream}\" has no column \"{}\"{near}", extra.name())));
        }
        if let Some(missing) = columns.iter().find(|c| !c.nullable && given.field_with_name(&c.name).is_err()) {
            return Err(Error::invalid(format!("column \"{}\" of stream \"{stream}\" is NOT NULL and is not given", missing.name)));
        }
        let time = &columns[stream_schema.event_time()].name;
        let found = given.field_with_name(time)?.data_type();
        if found.is_numeric() && registry.streams.get(stream).is_some_and(|s| s.options.time_unit.is_none()) {
            return Err(Error::invalid(format!("column \"{time}\" of stream \"{stream}\" is a timestamp, found {found}")));
        }
        Ok(())
    }

    /// Keeps rows as a temporary table of this connection.
    pub fn ingest(&self, table: &str, schema: SchemaRef, batches: Vec<RecordBatch>, how: Ingest) -> Result<()> {
        if self.inner.registry().kind(table).is_some() {
            return Err(Error::invalid(format!("\"{table}\" is the name of another object")));
        }
        self.temporary.put(table, schema, batches, how)
    }
}

/// Which parameters the one row of VALUES is made of, where it is made of nothing else.
pub(super) fn plain_values(insert: &Insert) -> Option<Vec<usize>> {
    let ast::SetExpr::Values(values) = insert.source.body.as_ref() else { return None };
    let [row] = values.rows.as_slice() else { return None };
    row.iter()
        .map(|cell| match cell {
            ast::Expr::Value(v) => match &v.value {
                ast::Value::Placeholder(p) => p.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
