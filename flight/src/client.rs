//! The client: typed requests over one channel.
//!
//! A [`Client`] is cheap to clone; clones share the connection, its temporary tables and its prepared statements. Every call answers with
//! the server's own text where it fails.

mod exchange;
mod write;

use std::pin::Pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightData, FlightDescriptor, FlightInfo, Ticket};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use serde::Deserialize;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};

pub use self::exchange::Exchange;
pub use self::write::{IngestMode, PreparedStatement};
use crate::backend::PutCounts;
use crate::ipc::{Decoder, Received};
use crate::request::{ExchangeRequest, TicketRequest};
use crate::status::{Failure, Outcome, Remedy};

/// The longest message that is taken, bytes.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// How a client connects.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// What the server asks for as a token.
    pub token: Option<String>,
    /// The certificate to trust, PEM; the server's own where it signed itself.
    pub certificate: Option<Vec<u8>>,
    /// The name in the server's certificate, where it is not the host of the address.
    pub server_name: Option<String>,
}

/// A client of a server.
#[derive(Debug, Clone)]
pub struct Client {
    inner: FlightServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
}

/// What a statement answers.
pub enum Response {
    /// Rows, as they come.
    Rows(Batches),
    /// Something was done.
    Done {
        /// What, in one line.
        message: String,
        /// What became of records, where some were written.
        counts: Option<PutCounts>,
    },
}

/// Rows as they come. Dropping it tells the server to stop.
pub struct Batches {
    schema: SchemaRef,
    batches: Pin<Box<dyn Stream<Item = Outcome<RecordBatch>> + Send>>,
}

impl Batches {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; `None` behind the last.
    pub async fn next(&mut self) -> Option<Outcome<RecordBatch>> {
        self.batches.next().await
    }

    /// All of them.
    pub async fn collect(mut self) -> Outcome<Vec<RecordBatch>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }
}

#[derive(Debug, Deserialize)]
struct DoneText {
    message: String,
    counts: Option<PutCounts>,
}

impl Client {
    /// Connects to `grpc://host:port`, or with TLS to `grpc+tls://host:port`.
    pub async fn connect(uri: &str, options: ClientOptions) -> Outcome<Self> {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("grpc", uri));
        let tls = match scheme {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "grpcs" | "https" => true,
            other => return Err(Failure::invalid(format!("\"{other}\" is no scheme of a server's address; write grpc:// or grpc+tls://"))),
        };
        let address = format!("{}://{rest}", if tls { "https" } else { "http" });
        let wrong = |e: tonic::transport::Error| Failure::invalid(format!("\"{uri}\" is no address of a server: {}", causes(&e)));
        let mut endpoint = Endpoint::from_shared(address).map_err(wrong)?;
        endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(60))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        if tls {
            crate::use_crypto();
            let mut config = ClientTlsConfig::new();
            if let Some(pem) = options.certificate {
                config = config.ca_certificate(Certificate::from_pem(pem));
            }
            if let Some(name) = options.server_name {
                config = config.domain_name(name);
            }
            endpoint = endpoint.tls_config(config).map_err(wrong)?;
        }
        let channel = endpoint
            .connect()
            .await
            .map_err(|e| Failure::new(Remedy::Unavailable, format!("no server answers at \"{uri}\": {}", causes(&e))))?;
        let authorization = options.token.map(|t| format!("Bearer {t}").parse()).transpose();
        let authorization = authorization.map_err(|_| Failure::invalid("the token holds what no header can"))?;
        let inner = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { inner, authorization })
    }

    /// A request with the token.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.authorization {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// Runs a script and answers what its last statement does.
    pub async fn execute(&self, sql: &str) -> Outcome<Response> {
        let info = self.info(sql).await?;
        self.response(info).await
    }

    /// Runs a script to the end and takes all of its rows; none for one that answers no rows.
    pub async fn query(&self, sql: &str) -> Outcome<Vec<RecordBatch>> {
        match self.execute(sql).await? {
            Response::Rows(rows) => rows.collect().await,
            Response::Done { .. } => Ok(vec![]),
        }
    }

    /// Plans a query: its endpoints can be pulled here or elsewhere, in any order, each once.
    pub async fn info(&self, sql: &str) -> Outcome<FlightInfo> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        self.info_of(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())).await
    }

    /// What the server says of a descriptor.
    pub async fn info_of(&self, descriptor: FlightDescriptor) -> Outcome<FlightInfo> {
        Ok(self.inner.clone().get_flight_info(self.request(descriptor)).await?.into_inner())
    }

    async fn response(&self, info: FlightInfo) -> Outcome<Response> {
        if !info.app_metadata.is_empty()
            && let Ok(done) = serde_json::from_slice::<DoneText>(&info.app_metadata)
        {
            return Ok(Response::Done { message: done.message, counts: done.counts });
        }
        let mut tickets = info.endpoint.into_iter().filter_map(|e| e.ticket).collect::<Vec<_>>().into_iter();
        let first = tickets.next().ok_or_else(|| Failure::internal("the answer has no endpoint"))?;
        let first = self.pull(first).await?;
        let (schema, client) = (first.schema.clone(), self.clone());
        let rest = futures::stream::iter(tickets).then(move |ticket| {
            let client = client.clone();
            async move {
                match client.pull(ticket).await {
                    Ok(batches) => batches.batches,
                    Err(e) => futures::stream::iter([Err(e)]).boxed(),
                }
            }
        });
        Ok(Response::Rows(Batches { schema, batches: first.batches.chain(rest.flatten()).boxed() }))
    }

    /// The rows behind a ticket of the server.
    pub async fn pull(&self, ticket: Ticket) -> Outcome<Batches> {
        let messages = self.inner.clone().do_get(self.request(ticket)).await?.into_inner();
        batches(messages).await
    }

    /// The rows behind a ticket that one builds oneself: one round trip.
    pub async fn get(&self, ticket: &TicketRequest) -> Outcome<Batches> {
        self.pull(Ticket::new(ticket.to_bytes())).await
    }

    /// Opens a session in which each batch of keys gives one batch of features.
    pub async fn exchange(&self, request: &ExchangeRequest, keys: &SchemaRef) -> Outcome<Exchange> {
        Exchange::open(self, request, keys).await
    }

    /// Stops a result; false where there is none any more.
    pub async fn cancel(&self, info: FlightInfo) -> Outcome<bool> {
        let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
        let answers = self.action("CancelFlightInfo", body).await?;
        let answer = answers.first().ok_or_else(|| Failure::internal("the cancellation has no answer"))?;
        let result = arrow_flight::CancelFlightInfoResult::decode(&**answer);
        let result = result.map_err(|e| Failure::internal(format!("the cancellation's answer cannot be read: {e}")))?;
        Ok(result.status == arrow_flight::CancelStatus::Cancelled as i32)
    }

    /// Whether the server answers requests yet.
    pub async fn is_serving(&self) -> Outcome<bool> {
        let answers = self.action("health", Bytes::new()).await?;
        Ok(answers.first().is_some_and(|a| a.windows(9).any(|w| w == b"\"SERVING\"")))
    }

    async fn action(&self, name: &str, body: impl Into<Bytes>) -> Outcome<Vec<Bytes>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let mut answers = self.inner.clone().do_action(self.request(action)).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            all.push(answer.body);
        }
        Ok(all)
    }

    /// An action of Flight SQL with its answer.
    async fn sql_action<M: ProstMessageExt>(&self, name: &str, request: &impl ProstMessageExt) -> Outcome<Option<M>> {
        let answers = self.action(name, request.as_any().encode_to_vec()).await?;
        let Some(answer) = answers.first() else { return Ok(None) };
        let wrong = |e: String| Failure::internal(format!("the answer of \"{name}\" cannot be read: {e}"));
        Any::decode(&**answer).map_err(|e| wrong(e.to_string()))?.unpack().map_err(|e| wrong(e.to_string()))
    }
}

/// Messages as batches; the schema comes first.
async fn batches(mut messages: Streaming<FlightData>) -> Outcome<Batches> {
    let mut decoder = Decoder::default();
    while decoder.schema().is_none() {
        let message = messages.message().await?.ok_or_else(|| Failure::internal("an answer without a schema"))?;
        decoder.take(&message)?;
    }
    let schema = decoder.schema().cloned().ok_or_else(|| Failure::internal("an answer without a schema"))?;
    let batches = futures::stream::unfold(Some((decoder, messages)), |state| async move {
        let (mut decoder, mut messages) = state?;
        loop {
            let message = match messages.message().await {
                Ok(None) => return None,
                Ok(Some(message)) => message,
                Err(e) => return Some((Err(e.into()), None)),
            };
            match decoder.take(&message) {
                Ok(Received::Batch(batch)) => return Some((Ok(batch), Some((decoder, messages)))),
                Ok(Received::Preamble | Received::Nothing) => {}
                Err(e) => return Some((Err(e), None)),
            }
        }
    });
    Ok(Batches { schema, batches: batches.boxed() })
}

fn causes(e: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (e.to_string(), e.source());
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}
