//! The integration tests, one binary: SQL scripts in every mode, random worlds against the oracle, checkpoints, diagnostics.

mod checkpoints;
mod diagnostics;
mod kafka;
mod layers;
mod oracle;
mod random;
mod robust;
mod slt;
mod wire;
