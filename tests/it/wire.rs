//! The wire: the real binary as a process, asked by the typed client, and by bytes that no client of ours would send.

mod bad_input;
mod features;
mod metrics;
mod process;
mod put;
mod results;
mod server;
mod sql;
