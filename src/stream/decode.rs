//! From what a source delivers to columns: JSON lines, CSV and Arrow batches become one shape, or rows that say why not.
//!
//! A record is valid or rejected, nothing between: what cannot be decoded, lacks a NOT NULL column, does not fit its type or lies
//! too far in the future becomes a [`Rejected`] with its raw bytes and the reason, and decoding goes on. Every record read is one
//! or the other, or a tombstone, which is counted. Memory is bounded by the chunk that is fed and the longest line allowed.
//!
//! What all formats share (each format's page says how its own values look):
//! - Fields are found by name, spelled exactly as the column; fields that the stream does not have are ignored, absent ones are
//!   NULL.
//! - Integers and decimals take a value only where it fits exactly; nothing is rounded. `1.0` and `1e3` are integers, `1.5` is none.
//! - REAL and DOUBLE take the nearest float; a finite number beyond the range of the type is rejected. Every NaN is stored as the
//!   one canonical NaN; -0 stays.
//! - VARCHAR takes only text, BOOLEAN only true and false.
//! - DATE is `YYYY-MM-DD`. TIMESTAMP is that date, optionally with `T` or a space and `HH:MM[:SS[.fraction]]` and a zone (`Z`,
//!   `UTC`, `+HH`, `+HHMM`, `+HH:MM`); without a zone it is UTC; digits finer than a microsecond are cut off toward the past. A
//!   number is a timestamp only where the option `time_unit` says of what. Years run from 0001 to 9999.
//! - VARBINARY in text is base64 (standard alphabet, with or without padding), or hexadecimal behind `\x`.
//!
//! Not here: what is late (`watermark`), what was here before (`dedupe`), where rejected rows go.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::placement::Placement;
use super::schema::StreamSchema;
use crate::error::{Error, Result};

mod avro;
mod base64;
mod batch;
mod columns;
mod csv;
mod debezium;
mod json;
mod lines;
mod message;
mod number;
mod path;
mod text;

#[cfg(test)]
mod tests;

pub use avro::{RegistryClient, RegistrySettings, Schemas};
pub use batch::decode_batch;
pub use csv::{CsvLines, CsvOptions};
pub use json::{JsonDecoder, JsonLines};
pub use lines::{LineSplitter, Piece};
pub use message::{MessageDecoder, MessageFormat};
pub use path::FieldPath;
pub use text::parse_timestamp as parse_time;

/// How many bytes of a record longer than [`Options::record_bytes_max`] are kept as its raw bytes.
pub const RAW_PREFIX_BYTES: usize = 64 * 1024;

/// What a number in a timestamp's place counts, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

impl TimeUnit {
    /// The unit of an option's text: `s`, `ms`, `us` or `ns`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "s" => Ok(Self::Second),
            "ms" => Ok(Self::Millisecond),
            "us" => Ok(Self::Microsecond),
            "ns" => Ok(Self::Nanosecond),
            _ => Err(Error::invalid(format!("option time_unit is '{text}', not 's', 'ms', 'us' or 'ns'"))),
        }
    }

    /// The power of ten that turns this unit into microseconds.
    fn to_micros_exponent(self) -> i64 {
        match self {
            Self::Second => 6,
            Self::Millisecond => 3,
            Self::Microsecond => 0,
            Self::Nanosecond => -3,
        }
    }
}

/// How records are read.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a number in a timestamp's place counts; None rejects it.
    pub time_unit: Option<TimeUnit>,
    /// The longest record in bytes, its line end apart; a longer one is rejected.
    pub record_bytes_max: usize,
    /// How deep objects and arrays may nest, the record itself included; at most 128.
    pub depth_max: usize,
    /// The greatest event time that is not too far in the future; None has no such limit, as for COPY.
    pub latest_us: Option<i64>,
    /// Columns by name that JSON and Avro hold in another place than the field of the column's name.
    pub paths: Vec<(String, FieldPath)>,
    /// Where the records lie that are read, and the partition that they are read from: one that its key puts elsewhere is rejected.
    pub placed: Option<(Placement, i32)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_unit: None, record_bytes_max: 16 * 1024 * 1024, depth_max: 128, latest_us: None, paths: Vec::new(), placed: None }
    }
}

/// A record that is no event of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the source.
    pub offset: i64,
    /// What was read: the line, or a row as JSON; of a record that is too long the first [`RAW_PREFIX_BYTES`].
    pub raw: Vec<u8>,
    /// Why, with the field's path.
    pub reason: String,
}

/// What became of some records of one source.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The valid records, in the order of offsets, with the columns of [`StreamSchema::arrow_schema`].
    pub rows: RecordBatch,
    /// The offset of each valid record.
    pub offsets: Vec<i64>,
    /// All other records, in the order of offsets.
    pub rejected: Vec<Rejected>,
    /// Records that only repeat what one before them said, as a tombstone does after a delete; they count as duplicates.
    pub tombstones: u64,
}

impl Decoded {
    /// No records.
    pub fn empty(schema: &StreamSchema) -> Self {
        let rows = RecordBatch::new_empty(Arc::clone(schema.arrow_schema()));
        Self { rows, offsets: Vec::new(), rejected: Vec::new(), tombstones: 0 }
    }

    /// How many records were read.
    pub fn read(&self) -> u64 {
        (self.rows.num_rows() + self.rejected.len()) as u64 + self.tombstones
    }
}
