//! How events enter: the pipeline of one stream and the sources that feed it.

pub mod files;
pub mod ingest;
pub mod kafka;
