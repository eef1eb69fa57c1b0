//! What a stream's events look like: the columns in canonical types, the identity, the event time and its disorder.
//!
//! Every decoder ends in these types and every later stage begins with them. The catalog makes a [`StreamSchema`] from
//! `CREATE STREAM`. Not here: the connector and its options, the hidden columns of history.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use asof_udfs::scalar::sql_name;

pub use asof_sql::catalog::{OPERATION, POSITION};

use crate::error::{Error, Result};

/// One column of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamColumn {
    /// The name, as JSON objects, CSV headers and Arrow fields spell it.
    pub name: String,
    /// A canonical type: see [`is_canonical`].
    pub data_type: DataType,
    /// Whether NULL is allowed.
    pub nullable: bool,
}

/// The columns of a stream, what identifies an event and what says when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSchema {
    columns: Vec<StreamColumn>,
    primary_key: Vec<usize>,
    event_time: usize,
    disorder_us: i64,
    arrow: SchemaRef,
}

impl StreamSchema {
    /// A stream's schema from its declaration.
    ///
    /// - The event time and the primary key become NOT NULL, whatever `columns` says.
    /// - Errors: [`crate::error::Kind::Invalid`] for a column of no canonical type, two columns of one name, a primary key over a
    ///   float or an absent or repeated column, an event time that is no timestamp, a negative disorder.
    pub fn try_new(mut columns: Vec<StreamColumn>, primary_key: Vec<usize>, event_time: usize, disorder_us: i64) -> Result<Self> {
        for (i, column) in columns.iter().enumerate() {
            if !is_canonical(&column.data_type) {
                return Err(Error::invalid(format!(
                    "column \"{}\" has type {}, which is no type of a stream's column",
                    column.name, column.data_type
                )));
            }
            if columns[..i].iter().any(|c| c.name == column.name) {
                return Err(Error::invalid(format!("column \"{}\" is declared twice", column.name)));
            }
        }
        for (i, &key) in primary_key.iter().enumerate() {
            let Some(column) = columns.get_mut(key) else {
                return Err(Error::invalid("primary key names a column that is not there"));
            };
            if primary_key[..i].contains(&key) {
                return Err(Error::invalid(format!("primary key names column \"{}\" twice", column.name)));
            }
            if column.data_type.is_floating() {
                return Err(Error::invalid(format!("primary key column \"{}\" is a float, which cannot identify an event", column.name)));
            }
            column.nullable = false;
        }
        let Some(time) = columns.get_mut(event_time) else {
            return Err(Error::invalid("watermark names a column that is not there"));
        };
        if !matches!(time.data_type, DataType::Timestamp(_, _)) {
            return Err(Error::invalid(format!("event time column \"{}\" is {}, not TIMESTAMP", time.name, sql_name(&time.data_type))));
        }
        time.nullable = false;
        if disorder_us < 0 {
            return Err(Error::invalid("disorder of a watermark is negative"));
        }
        let fields = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        let arrow = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { columns, primary_key, event_time, disorder_us, arrow })
    }

    /// The columns in declaration order.
    pub fn columns(&self) -> &[StreamColumn] {
        &self.columns
    }

    /// The columns of the primary key, in its own order; empty where the stream is a multiset.
    pub fn primary_key(&self) -> &[usize] {
        &self.primary_key
    }

    /// The column of the event time.
    pub fn event_time(&self) -> usize {
        self.event_time
    }

    /// How far a record may lie behind the greatest event time of its partition, in microseconds.
    pub fn disorder_us(&self) -> i64 {
        self.disorder_us
    }

    /// The Arrow schema of decoded batches: the columns in declaration order, in canonical types.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The columns behind the primary key in the order of events: all that are neither key nor event time, in declaration order.
    pub fn payload(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|c| *c != self.event_time && !self.primary_key.contains(c))
    }

    /// The event times of a batch in this schema.
    pub fn times<'a>(&self, rows: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
        rows.columns()
            .get(self.event_time)
            .and_then(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>())
            .filter(|times| times.null_count() == 0)
            .ok_or_else(|| Error::internal("a batch of events has no event time"))
    }
}

/// Whether a stream's column may have this type: what the SQL types become once decoded.
pub fn is_canonical(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8View
        | DataType::BinaryView
        | DataType::Date32 => true,
        DataType::Decimal128(precision, scale) => (1..=38).contains(precision) && *scale >= 0 && i16::from(*scale) <= i16::from(*precision),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => zone.as_ref() == "UTC",
        _ => false,
    }
}
