//! Answering: features of entities now and in the past, and the histories that batch plans read.

pub mod files;
pub mod lookup;
pub mod scans;
