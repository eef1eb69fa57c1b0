//! A client's session: statements, puts and readers, each on the runtime where it belongs.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use asof_flight::backend::{TableKind, TemporaryMode};
use asof_flight::{Answer, FeatureReader, FeatureRequest, Outcome, Prepared, PutCounts, Rows, Session, TableInfo};
use asof_sql::ast::ObjectKind;
use async_trait::async_trait;

use super::Shared;
use super::reader::reader;
use crate::engine::{Connection, Ingest, Reply};

pub(super) struct WireSession {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl WireSession {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let connection = Arc::new(shared.engine.connect());
        Self { shared, connection }
    }

    fn answer(&self, reply: Reply) -> Answer {
        match reply {
            Reply::Done { message, counts } => Answer::Done { message, counts: counts.map(Into::into) },
            Reply::Rows(rows) => {
                let (schema, unordered, location) = (rows.schema.clone(), rows.unordered, rows.location.clone());
                let shared = self.shared.clone();
                Answer::Rows(Rows { schema, unordered, location, start: Box::new(move || shared.work.rows(rows)) })
            }
        }
    }
}

fn kind(kind: Option<ObjectKind>) -> TableKind {
    match kind {
        Some(ObjectKind::Stream) => TableKind::Stream,
        Some(ObjectKind::FeatureView) => TableKind::FeatureView,
        Some(ObjectKind::Table) => TableKind::Table,
        None => TableKind::Temporary,
    }
}

#[async_trait]
impl Session for WireSession {
    async fn prepare(&self, sql: String) -> Outcome<Prepared> {
        let connection = self.connection.clone();
        let prepared = self.shared.work.read(async move { Ok(connection.prepare(&sql).await?) }).await?;
        Ok(Prepared { columns: prepared.columns, parameters: prepared.parameters })
    }

    async fn run(&self, sql: String, parameters: Option<RecordBatch>) -> Outcome<Answer> {
        let connection = self.connection.clone();
        let reply = if connection.is_quick(&sql) {
            connection.run(&sql, parameters).await?
        } else if connection.only_reads(&sql)? {
            self.shared.work.read(async move { Ok(connection.run(&sql, parameters).await?) }).await?
        } else {
            self.shared.work.write(async move { Ok(connection.run(&sql, parameters).await?) }).await?
        };
        Ok(self.answer(reply))
    }

    async fn tables(&self) -> Outcome<Vec<TableInfo>> {
        let connection = self.connection.clone();
        let objects = self.shared.work.read(async move { Ok(connection.objects().await?) }).await?;
        Ok(objects.into_iter().map(|o| TableInfo { name: o.name, kind: kind(o.kind), schema: o.schema, key: o.key }).collect())
    }

    async fn reader(&self, request: &FeatureRequest) -> Outcome<Arc<dyn FeatureReader>> {
        Ok(reader(&self.shared, request)?)
    }

    async fn put(&self, stream: String, rows: Vec<RecordBatch>, token: Option<String>) -> Outcome<PutCounts> {
        let connection = self.connection.clone();
        let written = async move { Ok(connection.push(&stream, &rows, token.as_deref()).await?) };
        Ok(self.shared.work.write(written).await?.into())
    }

    async fn kind(&self, name: &str) -> Outcome<Option<TableKind>> {
        Ok(self.connection.kind(name).map(kind))
    }

    async fn put_temporary(&self, table: String, schema: SchemaRef, rows: Vec<RecordBatch>, mode: TemporaryMode) -> Outcome<()> {
        let how = match mode {
            TemporaryMode::Create => Ingest::Create,
            TemporaryMode::Append => Ingest::Append,
            TemporaryMode::CreateOrAppend => Ingest::CreateOrAppend,
            TemporaryMode::Replace => Ingest::Replace,
        };
        let connection = self.connection.clone();
        self.shared.work.read(async move { Ok(connection.ingest(&table, schema, rows, how)?) }).await
    }
}
