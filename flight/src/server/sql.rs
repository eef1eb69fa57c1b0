//! Statements of Flight SQL and of tickets with SQL: run, prepared, cancelled, and their rows as messages.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Command,
    ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage,
    SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use serde::Serialize;

use super::Core;
use super::connection::{Connection, Statement};
use super::results::ResultId;
use super::service::{Answers, command};
use crate::backend::{Answer, PutCounts, Rows};
use crate::ipc::{plain_batch, plain_schema};
use crate::request::{REQUEST_BYTES_MAX, SqlRequest, TicketRequest, VERSION};
use crate::status::{Failure, Outcome, Remedy};

/// The location that stands for the connection on which it is told, for a client that cannot reach the other.
pub(super) const REUSE_CONNECTION: &str = "arrow-flight-reuse-connection://?";

/// The handle of what was done and has no rows.
const DONE: &[u8] = b"done";

/// What was done, beside the information on an answer without rows.
#[derive(Debug, Serialize)]
struct DoneText<'a> {
    v: u32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<PutCounts>,
}

/// Refuses what names a transaction.
pub(super) fn no_transaction(id: &Option<Bytes>) -> Outcome<()> {
    match id {
        Some(id) if !id.is_empty() => Err(Failure::new(Remedy::Unimplemented, "transactions are not supported")),
        _ => Ok(()),
    }
}

/// Refuses a prepared statement whose parameters are not as many as it takes.
pub(super) fn check_bound(statement: &Statement) -> Outcome<()> {
    let (wanted, given) = (statement.prepared.parameters.fields().len(), statement.bound.as_ref().map_or(0, RecordBatch::num_columns));
    if wanted != given {
        return Err(Failure::invalid(format!("the statement has {wanted} parameters, {given} are given")));
    }
    Ok(())
}

/// Batches as messages, the schema first.
pub(super) fn encoded(schema: SchemaRef, batches: impl Stream<Item = Outcome<RecordBatch>> + Send + 'static) -> Answers<FlightData> {
    let batches = batches.map(|b| b.map_err(|e| FlightError::Tonic(Box::new(e.into()))));
    FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map(|m| m.map_err(Into::into)).boxed()
}

/// A schema as an encapsulated message; empty for none.
fn schema_bytes(schema: Option<&Schema>) -> Outcome<Bytes> {
    let Some(schema) = schema else { return Ok(Bytes::new()) };
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    Ok(message.map_err(|e: arrow::error::ArrowError| Failure::internal(e.to_string()))?.0)
}

/// The information on an answer.
pub(super) fn info(schema: &Schema, endpoints: Vec<FlightEndpoint>, descriptor: FlightDescriptor) -> Outcome<FlightInfo> {
    let info = FlightInfo::new().try_with_schema(schema).map_err(|e| Failure::internal(e.to_string()))?;
    let ordered = endpoints.len() == 1;
    Ok(info.with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1).with_ordered(ordered).with_endpoints(endpoints))
}

fn handle_ticket(handle: impl Into<Bytes>) -> Ticket {
    Ticket::new(TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec())
}

/// The result that a handle names, and which endpoint of it.
fn result_of(handle: &[u8]) -> Outcome<(ResultId, usize)> {
    match handle.split_last_chunk::<1>() {
        Some((id, [endpoint])) if id.len() == 16 => Ok((id.try_into().unwrap_or_default(), usize::from(*endpoint))),
        _ => Err(Failure::invalid("the ticket is not one of this server's")),
    }
}

impl Core {
    /// Runs a statement; rows are computed when the endpoints are pulled, everything else has been done when this returns.
    pub(super) async fn query(
        &self,
        connection: &Connection,
        sql: String,
        parameters: Option<RecordBatch>,
        descriptor: FlightDescriptor,
    ) -> Outcome<FlightInfo> {
        let ticket = parameters.is_none().then(|| TicketRequest::Sql(SqlRequest { sql: sql.clone(), params: vec![] }).to_bytes());
        match connection.session.run(sql, parameters).await? {
            Answer::Rows(Rows { location: Some(address), schema, .. }) if ticket.as_ref().is_some_and(|t| t.len() <= REQUEST_BYTES_MAX) => {
                // Pulled here it would be asked for there all the same.
                let endpoint = FlightEndpoint::new()
                    .with_ticket(Ticket::new(ticket.unwrap_or_default()))
                    .with_location(address)
                    .with_location(REUSE_CONNECTION);
                info(&plain_schema(&schema), vec![endpoint], descriptor)
            }
            Answer::Rows(rows) => {
                let endpoints = if rows.unordered { self.limits.endpoints.clamp(1, 255) } else { 1 };
                let (id, schema) = self.results.add(rows, endpoints)?;
                let expires_us =
                    self.backend.now_us().saturating_add(i64::try_from(self.limits.result_wait.as_micros()).unwrap_or(i64::MAX));
                let expires = prost_types::Timestamp {
                    seconds: expires_us.div_euclid(1_000_000),
                    nanos: i32::try_from(expires_us.rem_euclid(1_000_000) * 1000).unwrap_or(0),
                };
                let endpoint = |i: usize| {
                    let handle = [id.as_slice(), &[i as u8]].concat();
                    FlightEndpoint::new().with_ticket(handle_ticket(handle)).with_expiration_time(expires)
                };
                info(&schema, (0..endpoints).map(endpoint).collect(), descriptor)
            }
            Answer::Done { message, counts } => {
                let endpoint = FlightEndpoint::new().with_ticket(handle_ticket(DONE));
                let records = counts.map_or(0, |c| i64::try_from(c.accepted).unwrap_or(i64::MAX));
                let text = serde_json::to_vec(&DoneText { v: VERSION, message: &message, counts }).unwrap_or_default();
                Ok(info(&Schema::empty(), vec![endpoint], descriptor)?.with_total_records(records).with_app_metadata(text))
            }
        }
    }

    /// Runs a statement of a client-built ticket: its rows, at once.
    pub(super) async fn get_sql(
        &self,
        connection: &Connection,
        sql: String,
        parameters: Option<RecordBatch>,
    ) -> Outcome<Answers<FlightData>> {
        match connection.session.run(sql, parameters).await? {
            Answer::Rows(rows) => {
                let schema = plain_schema(&rows.schema);
                let plain = schema.clone();
                let batches = (rows.start)().map(move |b| b.and_then(|b| plain_batch(b.columns(), b.num_rows(), &plain)));
                Ok(encoded(schema, batches))
            }
            Answer::Done { .. } => Ok(encoded(Arc::new(Schema::empty()), futures::stream::empty())),
        }
    }

    /// The rows of an endpoint.
    pub(super) fn get_result(&self, handle: &[u8]) -> Outcome<Answers<FlightData>> {
        if handle == DONE {
            return Ok(encoded(Arc::new(Schema::empty()), futures::stream::empty()));
        }
        let (id, endpoint) = result_of(handle)?;
        let (schema, rows) = self.results.take(id, endpoint)?;
        Ok(encoded(schema, rows))
    }

    /// Runs a statement that answers no rows; returns how many records it wrote, -1 where it writes none.
    pub(super) async fn update(&self, connection: &Connection, sql: String, parameters: Option<RecordBatch>) -> Outcome<i64> {
        match connection.session.run(sql, parameters).await? {
            Answer::Done { counts, .. } => Ok(counts.map_or(0, |c| i64::try_from(c.accepted).unwrap_or(i64::MAX))),
            Answer::Rows(_) => Err(Failure::invalid("the statement answers rows; run it as a query")),
        }
    }

    pub(super) async fn prepare(
        &self,
        connection: &Connection,
        request: ActionCreatePreparedStatementRequest,
    ) -> Outcome<ActionCreatePreparedStatementResult> {
        no_transaction(&request.transaction_id)?;
        let prepared = connection.session.prepare(request.query.clone()).await?;
        let columns = prepared.columns.as_ref().map(|c| plain_schema(c));
        let parameters = Some(plain_schema(&prepared.parameters)).filter(|p| !p.fields().is_empty());
        let statement = Statement { sql: request.query, prepared, bound: None };
        let prepared_statement_handle = connection.prepare(statement, self.limits.prepared)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle,
            dataset_schema: schema_bytes(columns.as_deref())?,
            parameter_schema: schema_bytes(parameters.as_deref())?,
        })
    }

    /// Cancels the results that an information names.
    fn cancel(&self, info: Option<&FlightInfo>) -> Outcome<bool> {
        let info = info.ok_or_else(|| Failure::invalid("what is to be cancelled is not given"))?;
        let mut found = false;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            if let Ok(Command::TicketStatementQuery(t)) = command(&ticket.ticket)
                && let Ok((id, _)) = result_of(&t.statement_handle)
            {
                found |= self.results.cancel(&id);
            }
        }
        Ok(found)
    }

    pub(super) fn cancel_flight_info(&self, body: &[u8]) -> Outcome<Bytes> {
        let request = CancelFlightInfoRequest::decode(body).map_err(|e| Failure::invalid(format!("the request cannot be read: {e}")))?;
        let status = if self.cancel(request.info.as_ref())? { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
        Ok(CancelFlightInfoResult { status: status as i32 }.encode_to_vec().into())
    }

    pub(super) fn cancel_query(&self, request: &ActionCancelQueryRequest) -> Outcome<Bytes> {
        let info = FlightInfo::decode(&*request.info).map_err(|e| Failure::invalid(format!("the request cannot be read: {e}")))?;
        // CANCELLED, or NOT_CANCELLABLE.
        let result = if self.cancel(Some(&info))? { 1 } else { 3 };
        Ok(ActionCancelQueryResult { result }.as_any().encode_to_vec().into())
    }
}
