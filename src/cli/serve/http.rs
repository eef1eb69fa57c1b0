//! What operators' tools ask over plain HTTP: `/metrics`, `/health`, `/ready`, and nothing else.
//!
//! No request has a body that is read, no path leads into the warehouse. Bounded: connections, the bytes of a request's head, and the time
//! from the first byte of a connection to the last of its one answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::engine::Engine;

/// Scrapers and probes are few; one more is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// The least that the HTTP library takes; a scraper's head has some hundred bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) engine: Engine,
    /// Whether every view has its online state.
    pub(super) ready: watch::Receiver<bool>,
    /// Whether the server was told to stop.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, watched: Watched) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(e) => {
                // Out of file descriptors, or a client that went away in between: the next one may do.
                tracing::warn!(error = %e, "a connection for metrics cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!("a connection for metrics is refused: the limit is reached");
            continue;
        };
        let watched = watched.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let answers = service_fn(move |request| answer(watched.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                // One question, one connection: nothing idle has to be watched, and scrapes are seconds apart.
                .keep_alive(false)
                .serve_connection(TokioIo::new(tcp), answers);
            match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::debug!(error = %e, "a connection for metrics broke off"),
                Err(_) => tracing::debug!("a connection for metrics took too long"),
            }
        });
    }
}

async fn answer(watched: Watched, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/health" | "/ready") {
        return Ok(text(StatusCode::NOT_FOUND, TEXT, "not found; there are /metrics, /health and /ready\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match path {
        "/metrics" => {
            // It takes the locks of states one after the other, so it stays off the threads that answer look-ups.
            let engine = watched.engine;
            match tokio::task::spawn_blocking(move || engine.metrics()).await {
                Ok(Ok(metrics)) => text(StatusCode::OK, OPENMETRICS, metrics),
                Ok(Err(e)) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{e}\n")),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be gathered\n"),
            }
        }
        "/ready" if *watched.stopping.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n"),
        "/ready" if !*watched.ready.borrow() => {
            text(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: a feature view has no online state yet\n")
        }
        "/ready" => text(StatusCode::OK, TEXT, "ready\n"),
        _ => text(StatusCode::OK, TEXT, "serving\n"),
    })
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
