//! JSON lines: one object per line, read in one pass, straight to typed values.
//!
//! What is particular to JSON:
//! - A field that stands twice in one record rejects it, whether the stream has it or not; which of two values is meant is nobody's guess.
//!   The same holds in every object that a column's path goes through. Inside the values of ignored fields only the syntax is
//!   checked, all of it.
//! - A number's place takes a JSON number; DECIMAL also a string of one, and REAL and DOUBLE the strings `NaN`, `Infinity`,
//!   `-Infinity`, `inf` and `-inf`. No other type takes the wrong kind of value: `"5"` is no BIGINT and `5` no VARCHAR.
//! - Blank lines are no records and have no offset: an offset is the number of a record, from the first line on.
//! - A byte order mark at the beginning of the input is passed over.
//!
//! This is a reader of its own because it needs what parsers hide: the digits of numbers, the doubled fields, the place of an error,
//! and no stack that grows with the input. Fields are expected in the order of the record before, so that a name is compared once.

use std::sync::Arc;

use self::fields::{Fields, read_record};
use super::columns::{Collector, Record};
use super::lines::{LineSplitter, Piece};
use super::path::Wanted;
use super::{Decoded, Options};
use crate::error::Result;
use crate::stream::schema::StreamSchema;

pub(super) mod fields;
pub(super) mod reader;

/// Decodes records that are one JSON object each.
#[derive(Debug)]
pub struct JsonDecoder {
    fields: Fields,
    record: Record,
    collector: Collector,
    record_bytes_max: usize,
}

impl JsonDecoder {
    /// A decoder for a stream.
    pub fn try_new(schema: Arc<StreamSchema>, options: &Options) -> Result<Self> {
        let wanted = Wanted::of_stream(&schema, options)?;
        Ok(Self {
            fields: Fields::new(&wanted, schema.columns().len(), options),
            record: Record::default(),
            collector: Collector::try_new(schema, options)?,
            record_bytes_max: options.record_bytes_max,
        })
    }

    /// Sets the greatest event time that is not too far in the future, for the records that follow.
    pub fn set_latest_us(&mut self, latest_us: Option<i64>) {
        self.collector.latest_us = latest_us;
    }

    /// Decodes one record, as a message of a log is; line feeds in it are white space.
    pub fn record(&mut self, offset: i64, raw: &[u8]) {
        if raw.len() > self.record_bytes_max {
            self.too_long(offset, raw, raw.len() as u64);
            return;
        }
        match std::str::from_utf8(raw) {
            Ok(text) => self.text(offset, text),
            Err(e) => {
                let reason = format!("invalid UTF-8 at byte {}", e.valid_up_to());
                self.collector.reject(offset, raw, reason);
            }
        }
    }

    /// Decodes whole lines, the first record of which has the offset `next`; returns the offset behind the last.
    pub fn lines(&mut self, mut next: i64, lines: &[u8]) -> i64 {
        // The whole is checked for UTF-8 at once; only where that fails does each line answer for itself.
        let all = std::str::from_utf8(lines).ok();
        let mut start = 0;
        while start < lines.len() {
            let end = memchr::memchr(b'\n', &lines[start..]).map_or(lines.len(), |length| start + length);
            let line = start..if end > start && lines[end - 1] == b'\r' { end - 1 } else { end };
            start = end + 1;
            let raw = &lines[line.clone()];
            if raw.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r')) {
                continue;
            }
            match all.and_then(|all| all.get(line)) {
                Some(text) if text.len() <= self.record_bytes_max => self.text(next, text),
                _ => self.record(next, raw),
            }
            next += 1;
        }
        next
    }

    /// Rejects a record that is longer than the limit, of which only the beginning was kept.
    pub fn too_long(&mut self, offset: i64, prefix: &[u8], length: u64) {
        self.collector.reject_too_long(offset, prefix, length, self.record_bytes_max);
    }

    /// How many records wait to be taken.
    pub fn pending(&self) -> usize {
        self.collector.pending()
    }

    /// Takes what was decoded since the last time.
    pub fn take(&mut self) -> Result<Decoded> {
        self.collector.take()
    }

    pub(super) fn collector(&mut self) -> &mut Collector {
        &mut self.collector
    }

    #[inline]
    fn text(&mut self, offset: i64, text: &str) {
        let read = read_record(&mut self.fields, &mut self.record, &self.collector, text);
        if let Err(reason) = read.and_then(|()| self.collector.append(offset, &self.record, text)) {
            self.collector.reject(offset, text.as_bytes(), reason);
        }
    }
}

/// Decodes an input of JSON lines that comes in chunks.
#[derive(Debug)]
pub struct JsonLines {
    decoder: JsonDecoder,
    splitter: LineSplitter,
    next: i64,
    begun: bool,
}

impl JsonLines {
    /// A decoder for an input whose first record has the offset `first`.
    pub fn try_new(schema: Arc<StreamSchema>, options: &Options, first: i64) -> Result<Self> {
        Ok(Self {
            decoder: JsonDecoder::try_new(schema, options)?,
            splitter: LineSplitter::new(options.record_bytes_max),
            next: first,
            begun: false,
        })
    }

    /// Takes the next chunk of the input and decodes the lines that it completes.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self { decoder, splitter, next, begun } = self;
        splitter.feed(chunk, |piece| take_piece(decoder, next, begun, piece));
    }

    /// Ends the input: a last line without a line feed is a record.
    pub fn finish(&mut self) {
        let Self { decoder, splitter, next, begun } = self;
        splitter.finish(|piece| take_piece(decoder, next, begun, piece));
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// The bytes held of a line that is not complete.
    pub fn held(&self) -> usize {
        self.splitter.held()
    }

    /// Sets the greatest event time that is not too far in the future, for the records that follow.
    pub fn set_latest_us(&mut self, latest_us: Option<i64>) {
        self.decoder.set_latest_us(latest_us);
    }

    /// How many records wait to be taken.
    pub fn pending(&self) -> usize {
        self.decoder.pending()
    }

    /// Takes what was decoded since the last time.
    pub fn take(&mut self) -> Result<Decoded> {
        self.decoder.take()
    }
}

fn take_piece(decoder: &mut JsonDecoder, next: &mut i64, begun: &mut bool, piece: Piece<'_>) {
    match piece {
        Piece::Lines(lines) => {
            let mark = if *begun { None } else { lines.strip_prefix(b"\xef\xbb\xbf") };
            *next = decoder.lines(*next, mark.unwrap_or(lines));
        }
        Piece::TooLong(prefix, length) => {
            decoder.too_long(*next, prefix, length);
            *next += 1;
        }
    }
    *begun = true;
}
