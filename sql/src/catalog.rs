//! What the binder asks of whoever keeps the definitions.

use std::sync::Arc;

use arrow::datatypes::DataType;

use crate::plan::FeaturePlan;

/// The column in which a stream of changed rows says where in its source's log a change stands.
pub const POSITION: &str = "_position";
/// The column in which a stream of changed rows says what was done: [`DELETE`] or another operation.
pub const OPERATION: &str = "_op";
/// The operation after which a row is no more.
pub const DELETE: &str = "d";

/// A column of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamColumn {
    /// Its name.
    pub name: String,
    /// Its canonical Arrow type.
    pub data_type: DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// A declared stream, as far as meaning goes.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its columns in declaration order.
    pub columns: Vec<StreamColumn>,
    /// The primary key, indexes into the columns; empty: a multiset.
    pub primary_key: Vec<usize>,
    /// The event-time column.
    pub event_time: usize,
    /// The allowed disorder, microseconds.
    pub disorder: i64,
}

/// The definitions that names stand for.
pub trait Catalog {
    /// A stream by name.
    fn stream(&self, name: &str) -> Option<Arc<StreamInfo>>;
    /// A feature view by name.
    fn view(&self, name: &str) -> Option<Arc<FeaturePlan>>;
    /// The names of all streams.
    fn stream_names(&self) -> Vec<String>;
    /// The names of all feature views.
    fn view_names(&self) -> Vec<String>;
}
