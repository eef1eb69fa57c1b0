#![doc = include_str!("ARCHITECTURE.md")]

pub(crate) mod crash;
pub mod error;
pub mod settings;
pub mod time;

pub mod state;

pub mod history;
pub mod stream;
pub mod warehouse;

pub mod op;

pub mod connect;

pub mod registry;
pub mod serve;

pub mod engine;
pub mod verify;
pub mod wire;

pub mod cli;

pub use asof_flight as flight;
pub use datafusion::common::ScalarValue;
pub use engine::{Connection, Durability, Engine, EngineBuilder, IngestCounts, Output};
pub use error::{Error, Kind, Result};
pub use settings::{ReadPath, Settings};
pub use time::{Clock, SystemClock, WallTime};
pub use verify::{VerifyOptions, VerifyReport};
