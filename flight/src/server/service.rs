//! The Flight service: who may ask, and which part answers. Our own requests are told by their first byte, Flight SQL's by their message.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Core;
use super::connection::{self, Connection};
use crate::request::{TicketRequest, is_ours};
use crate::status::{Failure, Outcome, Remedy};

/// The service over the parts.
pub(super) struct Service(pub(super) Arc<Core>);

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A message of Flight SQL.
pub(super) fn command(bytes: &[u8]) -> Outcome<Command> {
    let any = Any::decode(bytes).map_err(|e| Failure::invalid(format!("the request is neither JSON nor a message of Flight SQL: {e}")))?;
    Command::try_from(any).map_err(|e| Failure::invalid(format!("the message of Flight SQL cannot be read: {e}")))
}

/// An action of Flight SQL, which the standard wraps once more.
fn unpacked<M: arrow_flight::sql::ProstMessageExt>(action: &Action) -> Outcome<M> {
    let wrong = |e: String| Failure::invalid(format!("the action \"{}\" cannot be read: {e}", action.r#type));
    let any = Any::decode(&*action.body).map_err(|e| wrong(e.to_string()))?;
    any.unpack().map_err(|e| wrong(e.to_string()))?.ok_or_else(|| wrong("it holds another message".into()))
}

/// Whether two secrets are equal; takes as long for any secret of one length.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

impl Service {
    fn authorize(&self, metadata: &MetadataMap) -> Outcome<()> {
        let Some(token) = &self.0.token else { return Ok(()) };
        let wrong = |message: &str| Err(Failure::new(Remedy::Unauthenticated, message));
        let Some(given) = metadata.get("authorization") else {
            return wrong("the server asks for a token: send the header \"authorization: Bearer <token>\"");
        };
        let given = given.as_bytes();
        match given.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") && same(given[7..].trim_ascii(), token.as_bytes()) => Ok(()),
            _ => wrong("the token is wrong"),
        }
    }

    /// The connection of a request that may be answered.
    fn enter<T>(&self, request: &Request<T>) -> Outcome<Arc<Connection>> {
        self.authorize(request.metadata())?;
        connection::of(request)
    }

    async fn info(&self, connection: &Connection, descriptor: FlightDescriptor) -> Outcome<FlightInfo> {
        let core = &self.0;
        if is_ours(&descriptor.cmd) {
            return match TicketRequest::parse(&descriptor.cmd)? {
                TicketRequest::Sql(sql) => core.query(connection, sql.sql.clone(), sql.parameters()?, descriptor).await,
                TicketRequest::Features(request, keys) => core.features_info(connection, &request, &keys, descriptor).await,
            };
        }
        if descriptor.cmd.is_empty() {
            return Err(Failure::invalid("the descriptor has no command; a path names what is written to or exchanged with"));
        }
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(q) => {
                super::sql::no_transaction(&q.transaction_id)?;
                core.query(connection, q.query, None, descriptor).await
            }
            Command::CommandPreparedStatementQuery(q) => {
                let statement = connection.statement(&q.prepared_statement_handle)?;
                super::sql::check_bound(&statement)?;
                core.query(connection, statement.sql, statement.bound, descriptor).await
            }
            other => core.catalog_info(connection, other, descriptor).await,
        }
    }

    async fn schema(&self, connection: &Connection, descriptor: FlightDescriptor) -> Outcome<arrow::datatypes::SchemaRef> {
        let core = &self.0;
        let of_sql = async |sql: String| {
            let columns = connection.session.prepare(sql).await?.columns;
            Ok(columns.map_or_else(|| Arc::new(arrow::datatypes::Schema::empty()), |c| crate::ipc::plain_schema(&c)))
        };
        if is_ours(&descriptor.cmd) {
            return match TicketRequest::parse(&descriptor.cmd)? {
                TicketRequest::Sql(sql) => of_sql(sql.sql).await,
                TicketRequest::Features(request, _) => Ok(connection.session.reader(&request).await?.layout(true).schema.clone()),
            };
        }
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(q) => of_sql(q.query).await,
            Command::CommandPreparedStatementQuery(q) => of_sql(connection.statement(&q.prepared_statement_handle)?.sql).await,
            other => Ok(core.catalog(connection, other).await?.schema()),
        }
    }

    async fn get(&self, connection: &Connection, ticket: &[u8]) -> Outcome<Answers<FlightData>> {
        let core = &self.0;
        if is_ours(ticket) {
            return match TicketRequest::parse(ticket)? {
                TicketRequest::Sql(sql) => {
                    let parameters = sql.parameters()?;
                    core.get_sql(connection, sql.sql, parameters).await
                }
                TicketRequest::Features(request, keys) => core.get_features(connection, request, &keys).await,
            };
        }
        match command(ticket)? {
            Command::TicketStatementQuery(t) => core.get_result(&t.statement_handle),
            other => {
                let batch = core.catalog(connection, other).await?;
                Ok(super::sql::encoded(batch.schema(), futures::stream::iter([Ok(batch)])))
            }
        }
    }

    async fn act(&self, connection: &Connection, action: Action) -> Outcome<Vec<Bytes>> {
        use arrow_flight::sql::ProstMessageExt;
        let core = &self.0;
        Ok(match action.r#type.as_str() {
            "CreatePreparedStatement" => vec![core.prepare(connection, unpacked(&action)?).await?.as_any().encode_to_vec().into()],
            "ClosePreparedStatement" => {
                let request: arrow_flight::sql::ActionClosePreparedStatementRequest = unpacked(&action)?;
                connection.close(&request.prepared_statement_handle)?;
                vec![]
            }
            "CancelFlightInfo" => vec![core.cancel_flight_info(&action.body)?],
            "CancelQuery" => vec![core.cancel_query(&unpacked(&action)?)?],
            "CloseSession" => {
                connection.close_all();
                // CloseSessionResult { status: CLOSED }.
                vec![Bytes::from_static(&[0x08, 0x01])]
            }
            "health" => {
                let status = if *core.closing.borrow() || !*core.ready.borrow() { "NOT_SERVING" } else { "SERVING" };
                vec![Bytes::from(format!("{{\"v\":1,\"status\":\"{status}\"}}"))]
            }
            "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
                let message = "transactions are not supported: each statement, and each put, is done as a whole or not at all";
                return Err(Failure::new(Remedy::Unimplemented, message));
            }
            other => return Err(Failure::new(Remedy::Unimplemented, format!("the action \"{other}\" is not known"))),
        })
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    /// A name and password as some drivers send them: the password is the token, and comes back as one.
    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        let wrong = || Failure::new(Remedy::Unauthenticated, "the handshake takes \"authorization: Basic\" with the token as password");
        let token = match &self.0.token {
            None => "none".to_owned(),
            Some(token) => {
                let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).ok_or_else(wrong)?;
                let given = header.strip_prefix("Basic ").and_then(|b| STANDARD.decode(b.trim()).ok()).ok_or_else(wrong)?;
                let password = given.iter().position(|b| *b == b':').and_then(|at| given.get(at + 1..)).ok_or_else(wrong)?;
                if !same(password, token.as_bytes()) {
                    return Err(Failure::new(Remedy::Unauthenticated, "the token is wrong").into());
                }
                token.clone()
            }
        };
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.clone()) };
        let mut response = Response::new(futures::stream::iter([Ok(answer)]).boxed());
        if let Ok(header) = format!("Bearer {token}").parse() {
            response.metadata_mut().insert("authorization", header);
        }
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.enter(&request)?;
        Err(Status::unimplemented("flights are not listed; ask for the tables of Flight SQL"))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let connection = self.enter(&request)?;
        Ok(Response::new(self.info(&connection, request.into_inner()).await?))
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        // The work begins when an endpoint is pulled, so that the information is always complete.
        let connection = self.enter(&request)?;
        let info = self.info(&connection, request.into_inner()).await?;
        Ok(Response::new(PollInfo { info: Some(info), flight_descriptor: None, progress: None, expiration_time: None }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let connection = self.enter(&request)?;
        let schema = self.schema(&connection, request.into_inner()).await?;
        let options = arrow::ipc::writer::IpcWriteOptions::default();
        let result = arrow_flight::SchemaAsIpc::new(&schema, &options).try_into();
        Ok(Response::new(result.map_err(|e: arrow::error::ArrowError| Failure::internal(e.to_string()))?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let connection = self.enter(&request)?;
        Ok(Response::new(self.get(&connection, &request.get_ref().ticket).await?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let connection = self.enter(&request)?;
        let answer = self.0.put(&connection, request.into_inner()).await?;
        Ok(Response::new(futures::stream::iter([Ok(PutResult { app_metadata: answer })]).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let connection = self.enter(&request)?;
        let answers = self.act(&connection, request.into_inner()).await?;
        Ok(Response::new(futures::stream::iter(answers.into_iter().map(|body| Ok(arrow_flight::Result { body }))).boxed()))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.enter(&request)?;
        let actions = [
            ("CreatePreparedStatement", "ActionCreatePreparedStatementRequest in, ActionCreatePreparedStatementResult out"),
            ("ClosePreparedStatement", "ActionClosePreparedStatementRequest in"),
            ("CancelFlightInfo", "CancelFlightInfoRequest in, CancelFlightInfoResult out"),
            ("CancelQuery", "ActionCancelQueryRequest in, ActionCancelQueryResult out"),
            ("CloseSession", "closes the prepared statements of the connection"),
            ("health", "{\"v\":1,\"status\":\"SERVING\"} out"),
        ];
        let actions = actions.map(|(t, d)| Ok(ActionType { r#type: t.into(), description: d.into() }));
        Ok(Response::new(futures::stream::iter(actions).boxed()))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        let connection = self.enter(&request)?;
        Ok(Response::new(self.0.exchange(&connection, request.into_inner()).await?))
    }
}
