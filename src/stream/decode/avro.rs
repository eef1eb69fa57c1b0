//! Avro, as producers write it that keep their schemas in a registry: a zero byte, the schema's id in four bytes (the greatest first), the
//! record in Avro's binary.
//!
//! Each record is read by the very schema it was written with, its fields found by name; a schema is asked for once and then held. What
//! is particular to Avro:
//! - int and long go where the same number in JSON would go; float and double also, by their shortest decimal digits; decimal by its digits.
//!   REAL takes the nearest of a double.
//! - `timestamp-millis`, `-micros`, `-nanos` and the `local-` ones (UTC) become TIMESTAMP, cut toward the past, and nothing else; `date`
//!   becomes DATE, or the TIMESTAMP of its midnight. A plain long is a TIMESTAMP only under the option `time_unit`.
//! - string, enum and uuid go where the same string in JSON would go; bytes and fixed become VARBINARY. Of a union the value counts.
//! - A path goes into records by the names of fields, into maps by keys and into arrays by place.
//! - Logical types that are not named here count as the type they stand on, as the specification has it.
//!
//! A reader of its own, because a record that is wrong must not touch its neighbours, and because what a column may be read from is for
//! this stream's columns to say, value by value. Not here: schemas that refer to other schemas of the registry; they are refused.

use std::collections::HashMap;
use std::sync::Arc;

use self::program::Program;
use self::schema::Schema;
use super::columns::{Collector, Record};
use super::path::Wanted;
use super::{Decoded, Options};
use crate::error::Result;
use crate::stream::schema::StreamSchema;

mod binary;
mod program;
mod registry;
mod schema;

#[cfg(test)]
mod tests;

pub use registry::{RegistryClient, RegistrySettings};

/// Where the schemas of writers are kept.
pub trait Schemas: std::fmt::Debug + Send + Sync {
    /// The text of a schema, or why there is none.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where it cannot be known now.
    fn schema(&self, id: u32) -> Result<Result<Arc<str>, String>>;
}

/// How many schemas a decoder holds; when there are more it begins anew.
const PROGRAMS_MAX: usize = 256;
/// The zero byte and the id.
const HEAD_BYTES: usize = 5;

/// Decodes records that are one Avro message each.
#[derive(Debug)]
pub(super) struct AvroDecoder {
    schemas: Arc<dyn Schemas>,
    wanted: Wanted,
    /// The reading of each schema, or why there is none.
    programs: HashMap<u32, Result<Program, String>>,
    /// Ids without a schema. They are asked for again after each [`AvroDecoder::take`], since a schema may come yet.
    missing: HashMap<u32, String>,
    record: Record,
    collector: Collector,
    record_bytes_max: usize,
    depth_max: usize,
}

impl AvroDecoder {
    pub(super) fn try_new(schema: Arc<StreamSchema>, options: &Options, schemas: Arc<dyn Schemas>) -> Result<Self> {
        Ok(Self {
            schemas,
            wanted: Wanted::of_stream(&schema, options)?,
            programs: HashMap::new(),
            missing: HashMap::new(),
            record: Record::default(),
            collector: Collector::try_new(schema, options)?,
            record_bytes_max: options.record_bytes_max,
            depth_max: options.depth_max.clamp(1, 128),
        })
    }

    /// Decodes one record; on an error nothing was taken.
    pub(super) fn record(&mut self, offset: i64, raw: &[u8]) -> Result<()> {
        if raw.len() > self.record_bytes_max {
            self.collector.reject_too_long(offset, raw, raw.len() as u64, self.record_bytes_max);
            return Ok(());
        }
        if let Err(reason) = self.read(offset, raw)? {
            self.collector.reject(offset, raw, reason);
        }
        Ok(())
    }

    fn read(&mut self, offset: i64, raw: &[u8]) -> Result<Result<(), String>> {
        let id = match raw {
            [0, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
            [] => return Ok(Err("payload is empty".to_owned())),
            [0, ..] => return Ok(Err(format!("malformed Avro at byte {}: the end inside the schema's id", raw.len()))),
            [first, ..] => return Ok(Err(format!("malformed Avro at byte 0: the byte 0 of a registry's messages wanted, found {first}"))),
        };
        if !self.programs.contains_key(&id) {
            if let Some(reason) = self.missing.get(&id) {
                return Ok(Err(reason.clone()));
            }
            match self.schemas.schema(id)? {
                Ok(text) => {
                    let program = Schema::parse(&text).and_then(|schema| Program::new(schema, &self.wanted, self.depth_max));
                    let program = program.map_err(|why| format!("schema {id}: {why}"));
                    if self.programs.len() >= PROGRAMS_MAX {
                        self.programs.clear();
                    }
                    self.programs.insert(id, program);
                }
                Err(why) => {
                    let reason = format!("schema {id}: {why}");
                    self.missing.insert(id, reason.clone());
                    return Ok(Err(reason));
                }
            }
        }
        let Self { programs, record, collector, .. } = self;
        Ok(match programs.get(&id) {
            Some(Ok(program)) => program.read(raw, HEAD_BYTES, record, collector).and_then(|()| collector.append(offset, record, "")),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("schema {id} is not there")),
        })
    }

    pub(super) fn take(&mut self) -> Result<Decoded> {
        self.missing.clear();
        self.collector.take()
    }

    pub(super) fn pending(&self) -> usize {
        self.collector.pending()
    }

    pub(super) fn collector(&mut self) -> &mut Collector {
        &mut self.collector
    }
}
