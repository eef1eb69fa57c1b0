//! How events enter: the pipeline of one stream, the sources that feed it, and how far each is.

pub mod files;
pub mod ingest;
pub mod kafka;
pub mod status;
