//! A client's connection: what belongs to it lives as long as it does, and one that never speaks is closed.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Request;
use tonic::transport::server::{Connected, TlsConnectInfo};

use super::Limits;
use crate::backend::{Backend, Prepared, Session};
use crate::status::{Failure, Outcome, Remedy};

/// The bytes that every HTTP/2 client begins with.
const PREFACE_BYTES: usize = 24;

/// What belongs to one connection: it ends with the socket and the last request.
pub(super) struct Connection {
    pub(super) session: Arc<dyn Session>,
    prepared: Mutex<HashMap<Bytes, Statement>>,
}

/// A prepared statement and the parameters that are bound to it.
#[derive(Clone)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) prepared: Prepared,
    pub(super) bound: Option<RecordBatch>,
}

impl Connection {
    fn statements(&self) -> MutexGuard<'_, HashMap<Bytes, Statement>> {
        self.prepared.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn statement(&self, handle: &Bytes) -> Outcome<Statement> {
        self.statements().get(handle).cloned().ok_or_else(unknown_handle)
    }

    pub(super) fn prepare(&self, statement: Statement, limit: usize) -> Outcome<Bytes> {
        let mut statements = self.statements();
        if statements.len() >= limit {
            let message = format!("this connection has {limit} prepared statements, which is the limit; close some");
            return Err(Failure::new(Remedy::Exhausted, message));
        }
        let handle = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        statements.insert(handle.clone(), statement);
        Ok(handle)
    }

    pub(super) fn bind(&self, handle: &Bytes, parameters: RecordBatch) -> Outcome<()> {
        self.statements().get_mut(handle).ok_or_else(unknown_handle)?.bound = Some(parameters);
        Ok(())
    }

    pub(super) fn close(&self, handle: &Bytes) -> Outcome<()> {
        self.statements().remove(handle).map(|_| ()).ok_or_else(unknown_handle)
    }

    pub(super) fn close_all(&self) {
        self.statements().clear();
    }
}

fn unknown_handle() -> Failure {
    Failure::new(Remedy::NotFound, "unknown prepared statement; handles belong to the connection that prepared them and end with it")
}

/// The connection that a request came by.
pub(super) fn of<T>(request: &Request<T>) -> Outcome<Arc<Connection>> {
    let found = request.extensions().get::<Handle>();
    let found = found.or_else(|| request.extensions().get::<TlsConnectInfo<Handle>>().map(TlsConnectInfo::get_ref));
    found.map(|h| h.0.clone()).ok_or_else(|| Failure::internal("a request without its connection"))
}

/// What tonic hands to the requests of a connection.
#[derive(Clone)]
pub(super) struct Handle(Arc<Connection>);

/// A socket with what belongs to it.
pub(super) struct Io {
    tcp: TcpStream,
    connection: Arc<Connection>,
    /// Until the client has said its first words.
    silent: Option<Silence>,
    _permit: OwnedSemaphorePermit,
}

/// What a client has said that has not said enough, and how long it is waited for.
struct Silence {
    bytes: usize,
    patience: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connected for Io {
    type ConnectInfo = Handle;

    fn connect_info(&self) -> Handle {
        Handle(self.connection.clone())
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let io = &mut *self;
        match Pin::new(&mut io.tcp).poll_read(cx, buf) {
            Poll::Ready(done) => {
                let read = buf.filled().len() - before;
                if let Some(silence) = &mut io.silent {
                    silence.bytes += read;
                    if silence.bytes >= PREFACE_BYTES {
                        io.silent = None;
                    }
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                let Some(silence) = &mut io.silent else { return Poll::Pending };
                ready!(silence.patience.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client said nothing")))
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// The connections that a listener accepts. One above the limit is closed at once; the others do not notice.
pub(super) fn incoming(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    limits: &Limits,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Io>> + use<> {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let first_word = limits.first_word;
    futures::stream::unfold((listener, backend, permits, closing), move |(listener, backend, permits, closing)| async move {
        loop {
            let tcp = match listener.accept().await {
                Ok((tcp, _)) => tcp,
                Err(e) => {
                    // Out of file descriptors, or a client that went away in between: the next one may do.
                    tracing::warn!(error = %e, "a connection cannot be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                tracing::warn!("a connection is refused: the limit is reached");
                continue;
            };
            let _ = tcp.set_nodelay(true);
            let connection = Arc::new(Connection { session: backend.connect(), prepared: Mutex::default() });
            let mut stopping = closing.clone();
            let patience = Box::pin(async move {
                let _ = tokio::time::timeout(first_word, stopping.wait_for(|c| *c)).await;
            });
            let io = Io { tcp, connection, silent: Some(Silence { bytes: 0, patience }), _permit: permit };
            return Some((Ok(io), (listener, backend, permits, closing)));
        }
    })
}
