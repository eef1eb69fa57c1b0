//! The messages of a log, whatever their format: one decoder that a connector hands each message to.
//!
//! A message is a key and a payload, each perhaps NULL. The payload is the record; the key is not read. A NULL payload (a tombstone,
//! which tells a compacted topic to forget a key) says nothing about an event and is rejected, except by Debezium's format, which counts it.

use std::sync::Arc;

use super::avro::{AvroDecoder, Schemas};
use super::columns::Collector;
use super::debezium::DebeziumDecoder;
use super::{Decoded, JsonDecoder, Options};
use crate::error::{Error, Result};
use crate::stream::schema::StreamSchema;

/// How the payload of a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageFormat {
    /// One JSON object.
    Json,
    /// Avro in the wire format of schema registries: a zero byte, the schema's id in four bytes, the record in Avro's binary.
    Avro,
    /// Debezium's envelope of a changed row, as JSON.
    Debezium,
}

impl MessageFormat {
    /// The names of all formats, as the option `format` spells them.
    pub const NAMES: &[&str] = &["json", "avro", "debezium"];

    /// The format of an option's text; None for a text that names none.
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "avro" => Some(Self::Avro),
            "debezium" => Some(Self::Debezium),
            _ => None,
        }
    }

    /// The name, as the option `format` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Avro => "avro",
            Self::Debezium => "debezium",
        }
    }
}

/// Decodes the messages of one log.
#[derive(Debug)]
pub struct MessageDecoder(Inner);

#[derive(Debug)]
enum Inner {
    Json(Box<JsonDecoder>),
    Avro(Box<AvroDecoder>),
    Debezium(Box<DebeziumDecoder>),
}

impl MessageDecoder {
    /// A decoder for the messages of a stream. `schemas` is where Avro finds those of its writers; other formats need none.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] where the options do not fit the stream or the format.
    pub fn try_new(schema: Arc<StreamSchema>, format: MessageFormat, options: &Options, schemas: Option<Arc<dyn Schemas>>) -> Result<Self> {
        Ok(Self(match (format, schemas) {
            (MessageFormat::Json, _) => Inner::Json(Box::new(JsonDecoder::try_new(schema, options)?)),
            (MessageFormat::Avro, Some(schemas)) => Inner::Avro(Box::new(AvroDecoder::try_new(schema, options, schemas)?)),
            (MessageFormat::Avro, None) => return Err(Error::invalid("format 'avro' needs the option \"schema_registry\"")),
            (MessageFormat::Debezium, _) => Inner::Debezium(Box::new(DebeziumDecoder::try_new(schema, options)?)),
        }))
    }

    /// Decodes one message, which becomes a row or a rejected record.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where what the message cannot be read without is not at hand now. Nothing was
    ///   taken then: the same message is to be given again, before any later one.
    pub fn record(&mut self, offset: i64, _key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<()> {
        match (&mut self.0, payload) {
            (Inner::Json(decoder), Some(payload)) => decoder.record(offset, payload),
            (Inner::Avro(decoder), Some(payload)) => decoder.record(offset, payload)?,
            (Inner::Debezium(decoder), payload) => decoder.record(offset, payload),
            (_, None) => self.collector().reject(offset, &[], "payload is NULL".to_owned()),
        }
        Ok(())
    }

    /// Sets the greatest event time that is not too far in the future, for the messages that follow.
    pub fn set_latest_us(&mut self, latest_us: Option<i64>) {
        self.collector().latest_us = latest_us;
    }

    /// How many records wait to be taken.
    pub fn pending(&self) -> usize {
        match &self.0 {
            Inner::Json(decoder) => decoder.pending(),
            Inner::Avro(decoder) => decoder.pending(),
            Inner::Debezium(decoder) => decoder.pending(),
        }
    }

    /// Takes what was decoded since the last time.
    pub fn take(&mut self) -> Result<Decoded> {
        match &mut self.0 {
            Inner::Json(decoder) => decoder.take(),
            Inner::Avro(decoder) => decoder.take(),
            Inner::Debezium(decoder) => decoder.take(),
        }
    }

    fn collector(&mut self) -> &mut Collector {
        match &mut self.0 {
            Inner::Json(decoder) => decoder.collector(),
            Inner::Avro(decoder) => decoder.collector(),
            Inner::Debezium(decoder) => decoder.collector(),
        }
    }
}
