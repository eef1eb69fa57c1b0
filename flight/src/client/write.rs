//! What a client writes: rows into streams, temporary tables, and prepared statements with their parameters.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandPreparedStatementQuery, CommandStatementIngest, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
    TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;

use super::{Client, Response};
use crate::backend::PutCounts;
use crate::ipc::{batch_message, plain_batch, plain_schema, schema_message, schema_of};
use crate::request::PutRequest;
use crate::server::CountsText;
use crate::status::{Failure, Outcome};

/// What becomes of a table that rows are ingested into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Made; one of that name must not exist.
    Create,
    /// Extended; it must exist.
    Append,
    /// Extended, or made where it does not exist.
    CreateOrAppend,
    /// Made anew.
    Replace,
}

/// A prepared statement; it ends with its connection.
#[derive(Debug, Clone)]
pub struct PreparedStatement {
    client: Client,
    handle: Bytes,
    columns: Option<SchemaRef>,
    parameters: Option<SchemaRef>,
}

impl Client {
    /// Writes batches into a stream; returns when they are durable.
    pub async fn put(
        &self,
        request: &PutRequest,
        schema: &SchemaRef,
        batches: impl Stream<Item = RecordBatch> + Send + 'static,
    ) -> Outcome<PutCounts> {
        let answer = self.send(FlightDescriptor::new_cmd(request.to_bytes()), schema, batches).await?;
        let counts: CountsText =
            serde_json::from_slice(&answer).map_err(|e| Failure::internal(format!("the answer of the put cannot be read: {e}")))?;
        Ok(counts.counts)
    }

    /// Sends rows into a stream, or into a temporary table of the connection; returns how many there were.
    pub async fn ingest(&self, table: &str, batches: Vec<RecordBatch>, mode: IngestMode, temporary: bool) -> Outcome<i64> {
        let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| Failure::invalid("there is nothing to ingest"))?;
        let (missing, exists) = match mode {
            IngestMode::Create => (TableNotExistOption::Create, TableExistsOption::Fail),
            IngestMode::Append => (TableNotExistOption::Fail, TableExistsOption::Append),
            IngestMode::CreateOrAppend => (TableNotExistOption::Create, TableExistsOption::Append),
            IngestMode::Replace => (TableNotExistOption::Create, TableExistsOption::Replace),
        };
        let options = TableDefinitionOptions { if_not_exist: missing as i32, if_exists: exists as i32 };
        let command = CommandStatementIngest {
            table_definition_options: Some(options),
            table: table.to_owned(),
            temporary,
            ..CommandStatementIngest::default()
        };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let answer = self.send(descriptor, &schema, futures::stream::iter(batches)).await?;
        let result = DoPutUpdateResult::decode(&*answer);
        Ok(result.map_err(|e| Failure::internal(format!("the answer of the ingest cannot be read: {e}")))?.record_count)
    }

    /// Sends a put; returns the metadata of its answer.
    async fn send(
        &self,
        descriptor: FlightDescriptor,
        schema: &SchemaRef,
        batches: impl Stream<Item = RecordBatch> + Send + 'static,
    ) -> Outcome<Bytes> {
        let schema = plain_schema(schema);
        let first = schema_message(&schema).with_descriptor(descriptor);
        // A batch that does not fit ends the put with an empty message, which the server refuses.
        let rest = batches.map(move |b| plain_batch(b.columns(), b.num_rows(), &schema).and_then(|b| batch_message(&b)));
        let messages =
            futures::stream::iter([first]).chain(rest.map(|m| m.unwrap_or_else(|_| FlightData::new().with_data_body(vec![0u8]))));
        let mut answers = self.inner.clone().do_put(self.request(messages)).await?.into_inner();
        let mut last = Bytes::new();
        while let Some(answer) = answers.message().await? {
            last = answer.app_metadata;
        }
        Ok(last)
    }

    /// Prepares a statement.
    pub async fn prepare(&self, sql: &str) -> Outcome<PreparedStatement> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let result: Option<ActionCreatePreparedStatementResult> = self.sql_action("CreatePreparedStatement", &request).await?;
        let result = result.ok_or_else(|| Failure::internal("the prepared statement has no answer"))?;
        let schema = |bytes: &Bytes| if bytes.is_empty() { Ok(None) } else { schema_of(bytes).map(Some) };
        Ok(PreparedStatement {
            client: self.clone(),
            columns: schema(&result.dataset_schema)?,
            parameters: schema(&result.parameter_schema)?,
            handle: result.prepared_statement_handle,
        })
    }
}

impl PreparedStatement {
    /// The columns of its answer; `None` for one without rows.
    pub fn columns(&self) -> Option<&SchemaRef> {
        self.columns.as_ref()
    }

    /// Its parameters; `None` where it takes none.
    pub fn parameters(&self) -> Option<&SchemaRef> {
        self.parameters.as_ref()
    }

    /// Runs it, with one set of parameters a row.
    pub async fn execute(&self, parameters: Option<&RecordBatch>) -> Outcome<Response> {
        let command = CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone() };
        let mut descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        if let Some(batch) = parameters {
            let answer = self.client.send(descriptor.clone(), &batch.schema(), futures::stream::iter([batch.clone()])).await?;
            let bound = DoPutPreparedStatementResult::decode(&*answer).ok().and_then(|r| r.prepared_statement_handle);
            if let Some(prepared_statement_handle) = bound {
                let command = CommandPreparedStatementQuery { prepared_statement_handle };
                descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
            }
        }
        let info = self.client.info_of(descriptor).await?;
        self.client.response(info).await
    }

    /// Forgets it.
    pub async fn close(self) -> Outcome<()> {
        let request = ActionClosePreparedStatementRequest { prepared_statement_handle: self.handle.clone() };
        self.client.sql_action::<ActionCreatePreparedStatementResult>("ClosePreparedStatement", &request).await.map(|_| ())
    }
}
