//! The integration tests, one binary: SQL scripts in every mode, random worlds against the oracle, diagnostics.

mod oracle;
mod random;
mod slt;
