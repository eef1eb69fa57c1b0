//! The server: one port for Flight SQL, tickets, sessions and writing.
//!
//! `connection` numbers nothing and keeps what belongs to a client; `service` tells requests apart; `sql`, `metadata`, `results` answer
//! Flight SQL, `features` tickets and exchanges, `put` what is written. Every queue, table and wait has a bound in [`Limits`].

mod connection;
mod features;
mod metadata;
mod put;
mod results;
mod service;
mod sql;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightData;
use arrow_flight::flight_service_server::FlightServiceServer;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::Streaming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

pub(crate) use self::put::CountsText;
use self::results::Results;
use self::service::Service;
use crate::backend::Backend;
use crate::status::{Failure, Outcome, Remedy};

/// The bounds of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Requests of one connection at one time.
    pub streams_per_connection: u32,
    /// `DoExchange` sessions at one time.
    pub exchanges: usize,
    /// Puts at one time.
    pub puts: usize,
    /// The longest message, bytes.
    pub message_bytes: usize,
    /// Keys of one request.
    pub keys: usize,
    /// Prepared statements of one connection.
    pub prepared: usize,
    /// Results that wait to be pulled.
    pub results: usize,
    /// The endpoints of a result whose rows have no order.
    pub endpoints: usize,
    /// How long a result waits to be pulled.
    pub result_wait: Duration,
    /// The most that a put keeps before it is written, bytes; a put with a token has no more in all.
    pub put_bytes: usize,
    /// How long a client may take to say its first word.
    pub first_word: Duration,
    /// How long a put or an exchange may say nothing.
    pub idle: Duration,
    /// How long requests may take to finish once the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams_per_connection: 256,
            exchanges: 1024,
            puts: 16,
            message_bytes: 64 << 20,
            keys: 100_000,
            prepared: 1024,
            results: 1024,
            endpoints: 2,
            result_wait: Duration::from_secs(300),
            put_bytes: 128 << 20,
            first_word: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            drain: Duration::from_secs(20),
        }
    }
}

/// How a server is run.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Its bounds.
    pub limits: Limits,
    /// Certificate and key, PEM.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// What clients show as `authorization: Bearer`.
    pub token: Option<String>,
    /// Whether it answers yet.
    pub ready: watch::Receiver<bool>,
}

/// What all requests share.
struct Core {
    backend: Arc<dyn Backend>,
    limits: Limits,
    token: Option<String>,
    ready: watch::Receiver<bool>,
    closing: watch::Receiver<bool>,
    results: Arc<Results>,
    exchanges: Arc<Semaphore>,
    puts: Arc<Semaphore>,
}

fn silent() -> Failure {
    Failure::new(Remedy::Cancelled, "the client said nothing for too long")
}

fn stopping(what: &str) -> Failure {
    Failure::new(Remedy::Unavailable, format!("the server is stopping; begin the {what} anew"))
}

impl Core {
    /// The message that begins a put or an exchange. Nothing has been done for its client yet, so that a server that stops does not wait.
    async fn first_message(&self, messages: &mut Streaming<FlightData>, what: &str) -> Outcome<FlightData> {
        let mut closing = self.closing.clone();
        let first = tokio::select! {
            biased;
            first = tokio::time::timeout(self.limits.idle, messages.next()) => first.map_err(|_| silent())?,
            _ = closing.wait_for(|c| *c) => return Err(stopping(what)),
        };
        first.ok_or_else(|| Failure::invalid(format!("the {what} ended before it began")))?.map_err(Failure::from)
    }
}

/// Serves until `shutdown`: then nothing new is accepted, and what runs may finish within [`Limits::drain`].
pub async fn serve(
    backend: Arc<dyn Backend>,
    listener: TcpListener,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Outcome<()> {
    crate::ipc::keep_decoding_quiet();
    let ServerOptions { limits, tls, token, mut ready } = options;
    let (close, closing) = watch::channel(false);
    let results = Arc::new(Results::new(limits.results, limits.result_wait));
    let core = Arc::new(Core {
        backend: backend.clone(),
        token,
        ready: ready.clone(),
        closing: closing.clone(),
        results: results.clone(),
        exchanges: Arc::new(Semaphore::new(limits.exchanges)),
        puts: Arc::new(Semaphore::new(limits.puts)),
        limits: limits.clone(),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::NotServing).await;
    let flight = FlightServiceServer::new(Service(core)).max_decoding_message_size(limits.message_bytes);
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    if let Some((certificate, key)) = tls {
        server = with_identity(server, certificate, key, limits.first_word)?;
    }
    let told = health.clone();
    let readiness = tokio::spawn(async move {
        while !*ready.borrow_and_update() {
            if ready.changed().await.is_err() {
                return;
            }
        }
        told.set_service_status("", ServingStatus::Serving).await;
        told.set_serving::<FlightServiceServer<Service>>().await;
    });
    let sweeping = tokio::spawn(async move { results.sweep().await });
    let stopped = async move {
        shutdown.await;
        readiness.abort();
        health.set_service_status("", ServingStatus::NotServing).await;
        let _ = close.send(true);
    };
    let incoming = connection::incoming(listener, backend, &limits, closing.clone());
    let serving = server.add_service(health_service).add_service(flight).serve_with_incoming_shutdown(incoming, stopped);
    let mut closing = closing;
    let done = tokio::select! {
        done = serving => done.map_err(|e| Failure::new(Remedy::Unavailable, format!("the server stopped: {}", chain(&e)))),
        () = async { let _ = closing.wait_for(|c| *c).await; tokio::time::sleep(limits.drain).await } => {
            tracing::warn!("requests that did not finish in time are dropped");
            Ok(())
        }
    };
    sweeping.abort();
    done
}

fn with_identity(server: Server, certificate: Vec<u8>, key: Vec<u8>, first_word: Duration) -> Outcome<Server> {
    crate::use_crypto();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)).timeout(first_word);
    server.tls_config(tls).map_err(|e| Failure::invalid(format!("the certificate or key cannot be used: {}", chain(&e))))
}

/// Whether a certificate and key, PEM, can be served with.
pub fn check_identity(certificate: Vec<u8>, key: Vec<u8>) -> Outcome<()> {
    with_identity(Server::builder(), certificate, key, Duration::from_secs(1)).map(drop)
}

/// An error with its causes.
fn chain(e: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (e.to_string(), e.source());
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}
