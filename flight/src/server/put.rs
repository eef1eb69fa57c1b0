//! What clients write: rows into streams, temporary tables, parameters, and statements without rows.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    Command, CommandStatementIngest, DoPutPreparedStatementResult, DoPutUpdateResult, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use serde::{Deserialize, Serialize};
use tonic::Streaming;

use super::connection::Connection;
use super::service::command;
use super::{Core, silent};
use crate::backend::{PutCounts, TableKind, TemporaryMode};
use crate::ipc::{Decoder, Received};
use crate::request::{PutRequest, VERSION, is_ours};
use crate::status::{Failure, Outcome, Remedy};

/// The answer to a put into a stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CountsText {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) counts: PutCounts,
}

/// The messages of one put.
struct Incoming<'a> {
    messages: Streaming<FlightData>,
    first: Option<FlightData>,
    decoder: Decoder,
    core: &'a Core,
}

impl Incoming<'_> {
    async fn batch(&mut self) -> Outcome<Option<RecordBatch>> {
        loop {
            let message = match self.first.take() {
                Some(first) => first,
                None => {
                    let next = tokio::time::timeout(self.core.limits.idle, self.messages.next()).await;
                    match next.map_err(|_| silent())? {
                        None => return Ok(None),
                        Some(message) => message.map_err(Failure::from)?,
                    }
                }
            };
            match self.decoder.take(&message)? {
                Received::Batch(batch) => return Ok(Some(batch)),
                Received::Preamble | Received::Nothing => {}
            }
        }
    }

    /// All that is left, as long as it is within the limit.
    async fn all(&mut self) -> Outcome<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.batch().await? {
            batches.push(batch);
            if self.decoder.bytes > self.core.limits.put_bytes {
                let message = format!("the put has more than {} bytes, which is the limit for one commit", self.core.limits.put_bytes);
                return Err(Failure::new(Remedy::Exhausted, message));
            }
        }
        Ok(batches)
    }

    fn schema(&self) -> Outcome<SchemaRef> {
        self.decoder.schema().cloned().ok_or_else(|| Failure::invalid("the put has no schema"))
    }
}

impl Core {
    /// Answers one put; what it returns goes back as metadata.
    pub(super) async fn put(&self, connection: &Connection, mut messages: Streaming<FlightData>) -> Outcome<Bytes> {
        let _permit = tokio::time::timeout(self.limits.idle, self.puts.acquire())
            .await
            .map_err(|_| Failure::new(Remedy::Exhausted, format!("{} puts run, which is the limit", self.limits.puts)))?
            .map_err(|e| Failure::internal(e.to_string()))?;
        let first = self.first_message(&mut messages, "put").await?;
        let descriptor = first.flight_descriptor.clone().ok_or_else(|| Failure::invalid("the first message of a put has a descriptor"))?;
        let mut incoming = Incoming { messages, first: Some(first), decoder: Decoder::default(), core: self };
        if descriptor.r#type() == DescriptorType::Path {
            return self.put_stream(connection, PutRequest::of_path(&descriptor.path)?, &mut incoming).await;
        }
        if is_ours(&descriptor.cmd) {
            return self.put_stream(connection, PutRequest::parse(&descriptor.cmd)?, &mut incoming).await;
        }
        let updated = |record_count: i64| Ok(DoPutUpdateResult { record_count }.encode_to_vec().into());
        match command(&descriptor.cmd)? {
            Command::CommandStatementUpdate(c) => {
                super::sql::no_transaction(&c.transaction_id)?;
                updated(self.update(connection, c.query, None).await?)
            }
            Command::CommandStatementIngest(c) => updated(self.ingest(connection, c, &mut incoming).await?),
            Command::CommandPreparedStatementQuery(c) => {
                self.bind(connection, &c.prepared_statement_handle, &mut incoming).await?;
                Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(c.prepared_statement_handle) }.encode_to_vec().into())
            }
            Command::CommandPreparedStatementUpdate(c) => {
                self.bind(connection, &c.prepared_statement_handle, &mut incoming).await?;
                let statement = connection.statement(&c.prepared_statement_handle)?;
                super::sql::check_bound(&statement)?;
                updated(self.update(connection, statement.sql, statement.bound).await?)
            }
            Command::CommandStatementSubstraitPlan(_) => Err(Failure::new(Remedy::Unimplemented, "Substrait plans are not run; send SQL")),
            other => Err(Failure::invalid(format!("the descriptor of the put names nothing that is put: \"{}\"", other.type_url()))),
        }
    }

    /// Keeps parameters for the next run; none leave what was bound before.
    async fn bind(&self, connection: &Connection, handle: &Bytes, incoming: &mut Incoming<'_>) -> Outcome<()> {
        let statement = connection.statement(handle)?;
        let batches = incoming.all().await?;
        let Some(schema) = incoming.decoder.schema().filter(|s| !s.fields().is_empty()).cloned() else { return Ok(()) };
        let (wanted, given) = (statement.prepared.parameters.fields().len(), schema.fields().len());
        if wanted != given {
            return Err(Failure::invalid(format!("the statement has {wanted} parameters, {given} are given")));
        }
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > self.limits.keys {
            return Err(Failure::invalid(format!("{rows} rows of parameters are given, the limit is {}", self.limits.keys)));
        }
        connection.bind(handle, concat_batches(&schema, &batches)?)
    }

    async fn put_stream(&self, connection: &Connection, request: PutRequest, incoming: &mut Incoming<'_>) -> Outcome<Bytes> {
        let counts = self.write(connection, &request.stream, request.token, incoming).await?;
        Ok(serde_json::to_vec(&CountsText { v: VERSION, counts }).unwrap_or_default().into())
    }

    /// Writes rows into a stream in commits of bounded size; with a token in one.
    async fn write(&self, connection: &Connection, stream: &str, token: Option<String>, incoming: &mut Incoming<'_>) -> Outcome<PutCounts> {
        let session = &connection.session;
        match session.kind(stream).await? {
            Some(TableKind::Stream) => {}
            Some(other) => {
                return Err(Failure::invalid(format!("\"{stream}\" is a {}; only streams are written", other.name().to_lowercase())));
            }
            // The backend names the nearest.
            None => return session.put(stream.to_owned(), vec![], None).await,
        }
        if token.is_some() {
            let rows = incoming.all().await?;
            incoming.schema()?;
            return session.put(stream.to_owned(), rows, token).await;
        }
        let (mut total, mut rows) = (PutCounts::default(), Vec::new());
        loop {
            let next = incoming.batch().await;
            let ended = !matches!(next, Ok(Some(_)));
            let written = |e: Failure| match total.read {
                0 => e,
                n => Failure::new(e.remedy, format!("behind the first {n} rows, which are written: {}", e.message)),
            };
            if let Some(batch) = next.map_err(written)? {
                rows.push(batch);
            }
            if incoming.decoder.bytes > self.limits.put_bytes || ended {
                incoming.decoder.bytes = 0;
                if !rows.is_empty() {
                    total += session.put(stream.to_owned(), std::mem::take(&mut rows), None).await.map_err(written)?;
                }
            }
            if ended {
                incoming.schema()?;
                return Ok(total);
            }
        }
    }

    /// `adbc_ingest`: into a stream, or into a temporary table of the connection.
    async fn ingest(&self, connection: &Connection, c: CommandStatementIngest, incoming: &mut Incoming<'_>) -> Outcome<i64> {
        super::sql::no_transaction(&c.transaction_id)?;
        if c.catalog.as_deref().is_some_and(|n| !n.is_empty() && n != "asof")
            || c.schema.as_deref().is_some_and(|n| !n.is_empty() && n != "public")
        {
            return Err(Failure::invalid("tables are in the catalog \"asof\" and the schema \"public\""));
        }
        let TableDefinitionOptions { if_not_exist, if_exists } = c.table_definition_options.unwrap_or_default();
        let missing = TableNotExistOption::try_from(if_not_exist).unwrap_or_default();
        let exists = TableExistsOption::try_from(if_exists).unwrap_or_default();
        let rows = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let kind = connection.session.kind(&c.table).await?;
        match kind {
            Some(TableKind::Stream) if !c.temporary => {
                if exists != TableExistsOption::Append {
                    let message = format!("stream \"{}\" exists; rows are appended to a stream (mode=\"append\")", c.table);
                    return Err(Failure::new(Remedy::Exists, message));
                }
                let counts = self.write(connection, &c.table, c.options.get("token").cloned(), incoming).await?;
                return Ok(i64::try_from(counts.read).unwrap_or(i64::MAX));
            }
            // The backend names the nearest.
            None if !c.temporary && missing == TableNotExistOption::Fail => {
                return connection.session.put(c.table, vec![], None).await.map(|_| 0);
            }
            None if !c.temporary => {
                return Err(Failure::invalid(format!(
                    "there is no stream \"{}\"; CREATE STREAM makes one, and a table of this connection is made with temporary=True",
                    c.table
                )));
            }
            Some(other) if other != TableKind::Temporary => {
                return Err(Failure::new(Remedy::Exists, format!("\"{}\" is a {}", c.table, other.name().to_lowercase())));
            }
            _ => {}
        }
        let mode = match (missing, exists) {
            (TableNotExistOption::Fail, _) if kind.is_none() => {
                return Err(Failure::new(Remedy::NotFound, format!("there is no temporary table \"{}\"", c.table)));
            }
            (_, TableExistsOption::Replace) => TemporaryMode::Replace,
            (TableNotExistOption::Fail, TableExistsOption::Append) => TemporaryMode::Append,
            (_, TableExistsOption::Append) => TemporaryMode::CreateOrAppend,
            _ => TemporaryMode::Create,
        };
        let batches = incoming.all().await?;
        let n = batches.iter().map(RecordBatch::num_rows).sum();
        connection.session.put_temporary(c.table, incoming.schema()?, batches, mode).await?;
        Ok(rows(n))
    }
}
