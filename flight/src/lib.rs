//! The wire of Asof: Arrow Flight requests, a server over a backend that it declares, and a client.
//!
//! ```text
//! client ─▶ request (tickets, descriptors) ─▶ server ─▶ backend (a trait) ─▶ whoever implements it
//! ```
//! One port answers Flight SQL, tickets that clients build themselves, sessions of `DoExchange` and `DoPut` into streams. What SQL means,
//! where features come from and where rows go is the backend's. Not here: the engine.

pub mod backend;
pub mod client;
pub mod ipc;
pub mod request;
pub mod server;
pub mod status;

pub use backend::{Answer, Backend, FeatureReader, Features, Prepared, PutCounts, Rows, Session, TableInfo};
pub use client::{Client, ClientOptions, Response};

pub use request::{ExchangeRequest, FeatureRequest, PutRequest, SqlRequest, TicketRequest};
pub use server::{Limits, ServerOptions, check_identity, serve};
pub use status::{Failure, Outcome, Remedy};

/// Chooses the cryptography of TLS: with two in the dependencies, neither is chosen by itself.
pub(crate) fn use_crypto() {
    // An error says that one was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
