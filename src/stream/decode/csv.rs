//! CSV as in RFC 4180: fields apart by a delimiter, quoted where they hold one, a quote doubled inside quotes.
//!
//! What is particular to CSV:
//! - The first record is the header, whose names find the columns; without one (an option) the fields are the columns in declaration
//!   order. A header that lacks a NOT NULL column, or names a column twice, is an error of the whole input.
//! - An empty field is NULL, an empty field in quotes the empty string. Space is part of a field.
//! - A record with more or fewer fields than the header is rejected.
//! - Numbers may also have a leading plus, leading zeros, or a point without digits on one side; booleans are `true` and `false` in any case.
//! - Blank lines are no records and have no offset; the header has none either. Text behind a closing quote rejects its record.
//! - A record longer than the limit, quoted line ends included, is rejected, and reading goes on at the next line end: so one
//!   stray quote costs no more than the limit. A quote still open at the end of the input rejects what it opened.

use std::sync::Arc;

use super::columns::{Collector, Kind, Record, Value, wanted};
use super::{Decoded, Options, RAW_PREFIX_BYTES};
use crate::error::{Error, Result};
use crate::stream::schema::StreamSchema;

/// How a CSV input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvOptions {
    /// The byte between fields.
    pub delimiter: u8,
    /// Whether the first record names the columns.
    pub header: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', header: true }
    }
}

/// Decodes an input of CSV that comes in chunks.
#[derive(Debug)]
pub struct CsvLines {
    collector: Collector,
    record: Record,
    delimiter: u8,
    /// Which column each field is; None before the header.
    fields: Option<Vec<Option<usize>>>,
    limit: usize,
    /// What was fed of the record that is not complete; of one that is too long, its prefix.
    carry: Vec<u8>,
    /// How far `carry` was looked through, and in which state that left off.
    scanned: usize,
    state: State,
    too_long: Option<u64>,
    next: i64,
    begun: bool,
}

/// Where in a record a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: the end of the field, or the first half of a doubled quote.
    Quote,
}

impl CsvLines {
    /// A decoder for an input whose first record behind the header has the offset `first`.
    pub fn try_new(schema: Arc<StreamSchema>, options: &Options, csv: CsvOptions, first: i64) -> Result<Self> {
        if matches!(csv.delimiter, b'"' | b'\r' | b'\n') || !csv.delimiter.is_ascii() {
            return Err(Error::invalid("CSV delimiter is a quote, a line end or no single ASCII character"));
        }
        let fields = (!csv.header).then(|| (0..schema.columns().len()).map(Some).collect());
        Ok(Self {
            // A header names columns; paths are of formats that nest.
            collector: Collector::try_new(schema, &Options { paths: Vec::new(), ..options.clone() })?,
            record: Record::default(),
            delimiter: csv.delimiter,
            fields,
            limit: options.record_bytes_max,
            carry: Vec::new(),
            scanned: 0,
            state: State::FieldStart,
            too_long: None,
            next: first,
            begun: false,
        })
    }

    /// Takes the next chunk of the input and decodes the records that it completes.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] for a header that does not fit the stream; the decoder is of no use then.
    pub fn feed(&mut self, mut chunk: &[u8]) -> Result<()> {
        if self.too_long.is_some() {
            match memchr::memchr(b'\n', chunk) {
                None => {
                    self.lengthen(chunk);
                    return Ok(());
                }
                Some(end) => {
                    self.lengthen(&chunk[..end]);
                    let prefix = std::mem::take(&mut self.carry);
                    self.end_too_long(&prefix)?;
                    chunk = &chunk[end + 1..];
                }
            }
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(chunk);
        let done = self.records(&carry)?;
        carry.drain(..done);
        if self.too_long.is_some() {
            carry.truncate(RAW_PREFIX_BYTES);
            carry.shrink_to(RAW_PREFIX_BYTES);
        }
        self.carry = carry;
        Ok(())
    }

    /// Ends the input: a last record without a line feed is a record.
    ///
    /// - Errors: as [`CsvLines::feed`]; also where a header is due and there is none.
    pub fn finish(&mut self) -> Result<()> {
        let mut carry = std::mem::take(&mut self.carry);
        if self.too_long.is_some() {
            self.end_too_long(&carry)?;
            carry.clear();
        }
        let open = self.state == State::Quoted;
        (self.scanned, self.state) = (0, State::FieldStart);
        if open && self.fields.is_some() {
            self.collector.reject(self.next, &carry, "a quote is open at the end of the input".to_owned());
            self.next += 1;
        } else {
            self.line(&carry)?;
        }
        if self.fields.is_none() {
            return Err(Error::data("CSV input has no header"));
        }
        Ok(())
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// The bytes held of a record that is not complete.
    pub fn held(&self) -> usize {
        self.carry.len()
    }

    /// Sets the greatest event time that is not too far in the future, for the records that follow.
    pub fn set_latest_us(&mut self, latest_us: Option<i64>) {
        self.collector.latest_us = latest_us;
    }

    /// How many records wait to be taken.
    pub fn pending(&self) -> usize {
        self.collector.pending()
    }

    /// Takes what was decoded since the last time.
    pub fn take(&mut self) -> Result<Decoded> {
        self.collector.take()
    }

    /// Decodes the records that end in `data`, and returns where the one begins that does not.
    ///
    /// A record that is not complete within the limit ends at the first line end behind the limit, wherever chunks are cut.
    fn records(&mut self, data: &[u8]) -> Result<usize> {
        let mut start = 0;
        let mut at = self.scanned;
        loop {
            let end = self.record_end(data, &mut at);
            if end.unwrap_or(data.len()) - start <= self.limit {
                let Some(end) = end else { break };
                self.line(&data[start..end])?;
            } else {
                at = start + self.limit;
                let end = memchr::memchr(b'\n', &data[at..]).map(|length| at + length);
                let record = &data[start..end.unwrap_or(data.len())];
                self.too_long = Some(record.len() as u64);
                self.state = State::FieldStart;
                let Some(end) = end else {
                    self.scanned = 0;
                    return Ok(start);
                };
                self.end_too_long(&record[..record.len().min(RAW_PREFIX_BYTES)])?;
                at = end + 1;
            }
            start = at;
        }
        self.scanned = at - start;
        Ok(start)
    }

    /// Looks on from `at` for the line end that ends the record, and leaves `at` behind it, or at the end of `data`.
    fn record_end(&mut self, data: &[u8], at: &mut usize) -> Option<usize> {
        while *at < data.len() {
            let rest = &data[*at..];
            let step = match self.state {
                // Outside quotes only a line end matters, and a quote where a field begins.
                State::FieldStart | State::Plain => memchr::memchr2(b'\n', b'"', rest),
                State::Quoted => memchr::memchr(b'"', rest),
                State::Quote => Some(0),
            };
            let Some(step) = step else {
                if self.state != State::Quoted {
                    self.state = if rest.ends_with(&[self.delimiter]) { State::FieldStart } else { State::Plain };
                }
                *at = data.len();
                return None;
            };
            let opens = if step > 0 { rest[step - 1] == self.delimiter } else { self.state == State::FieldStart };
            *at += step + 1;
            self.state = match (self.state, rest[step]) {
                (State::Quoted, _) => State::Quote,
                (State::Quote, b'"') => State::Quoted,
                (_, b'\n') => {
                    self.state = State::FieldStart;
                    return Some(*at - 1);
                }
                (State::Quote, byte) if byte == self.delimiter => State::FieldStart,
                (State::Quote, _) => State::Plain,
                (_, _) if opens => State::Quoted,
                (_, _) => State::Plain,
            };
        }
        None
    }

    /// Takes one record without its line end.
    fn line(&mut self, raw: &[u8]) -> Result<()> {
        let mark = if self.begun { None } else { raw.strip_prefix(b"\xef\xbb\xbf") };
        self.begun = true;
        let raw = mark.unwrap_or(raw);
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.is_empty() {
            return Ok(());
        }
        let Some(fields) = &self.fields else {
            self.fields = Some(self.header(raw)?);
            return Ok(());
        };
        let offset = self.next;
        self.next += 1;
        let text = match std::str::from_utf8(raw) {
            Ok(text) => text,
            Err(e) => {
                self.collector.reject(offset, raw, format!("invalid UTF-8 at byte {}", e.valid_up_to()));
                return Ok(());
            }
        };
        let read = read_record(fields, self.delimiter, &mut self.record, &self.collector, text);
        if let Err(reason) = read.and_then(|()| self.collector.append(offset, &self.record, text)) {
            self.collector.reject(offset, raw, reason);
        }
        Ok(())
    }

    fn header(&self, raw: &[u8]) -> Result<Vec<Option<usize>>> {
        let text = std::str::from_utf8(raw).map_err(|_| Error::invalid("CSV header is not UTF-8"))?;
        let columns = self.collector.schema().columns();
        let mut fields = Vec::new();
        let mut unescaped = String::new();
        let mut split = Fields { text, at: 0, delimiter: self.delimiter, done: false };
        while let Some(field) = split.next(&mut unescaped).map_err(|why| Error::invalid(format!("CSV header: {why}")))? {
            let name = match field.value {
                Value::Unescaped(start, end) => unescaped.get(start..end),
                Value::Text(start, end) => text.get(start..end),
                _ => None,
            };
            let column = columns.iter().position(|c| Some(c.name.as_str()) == name);
            if let Some(column) = column.filter(|column| fields.contains(&Some(*column))) {
                return Err(Error::invalid(format!("CSV header names column \"{}\" twice", columns[column].name)));
            }
            fields.push(column);
        }
        for (i, column) in columns.iter().enumerate() {
            if !column.nullable && !fields.contains(&Some(i)) {
                return Err(Error::invalid(format!("CSV header lacks column \"{}\", which is NOT NULL", column.name)));
            }
        }
        Ok(fields)
    }

    fn lengthen(&mut self, part: &[u8]) {
        if let Some(length) = &mut self.too_long {
            *length += part.len() as u64;
        }
        let missing = RAW_PREFIX_BYTES.saturating_sub(self.carry.len()).min(part.len());
        self.carry.extend_from_slice(&part[..missing]);
    }

    fn end_too_long(&mut self, prefix: &[u8]) -> Result<()> {
        let length = self.too_long.take().unwrap_or_default();
        if self.fields.is_none() {
            return Err(Error::invalid("CSV header is longer than the limit of a record"));
        }
        self.collector.reject_too_long(self.next, prefix, length, self.limit);
        self.next += 1;
        Ok(())
    }
}

/// One field of a record.
struct Field {
    value: Value,
    quoted: bool,
}

/// The fields of one record, from left to right.
struct Fields<'a> {
    text: &'a str,
    at: usize,
    delimiter: u8,
    done: bool,
}

impl Fields<'_> {
    fn next(&mut self, unescaped: &mut String) -> Result<Option<Field>, String> {
        if self.done {
            return Ok(None);
        }
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            let start = self.at;
            let length = memchr::memchr(self.delimiter, &bytes[start..]);
            self.done = length.is_none();
            let end = length.map_or(bytes.len(), |length| start + length);
            self.at = end + 1;
            return Ok(Some(Field { value: Value::Text(start, end), quoted: false }));
        }
        self.at += 1;
        let start = self.at;
        let begin = unescaped.len();
        let mut copied = start;
        loop {
            let Some(length) = memchr::memchr(b'"', &bytes[self.at..]) else {
                return Err("a quote is not closed".to_owned());
            };
            let end = self.at + length;
            self.at = end + 1;
            match bytes.get(self.at) {
                Some(b'"') => {
                    unescaped.push_str(self.text.get(copied..=end).unwrap_or_default());
                    self.at += 1;
                    copied = self.at;
                    continue;
                }
                Some(byte) if *byte == self.delimiter => self.at += 1,
                Some(_) => return Err(format!("text stands behind a closing quote at byte {}", self.at)),
                None => self.done = true,
            }
            let value = if copied == start {
                Value::Text(start, end)
            } else {
                unescaped.push_str(self.text.get(copied..end).unwrap_or_default());
                Value::Unescaped(begin, unescaped.len())
            };
            return Ok(Some(Field { value, quoted: true }));
        }
    }
}

fn read_record(fields: &[Option<usize>], delimiter: u8, record: &mut Record, collector: &Collector, text: &str) -> Result<(), String> {
    record.clear(collector.kinds.len());
    let mut split = Fields { text, at: 0, delimiter, done: false };
    let mut count = 0;
    while let Some(field) = split.next(&mut record.text)? {
        let column = fields.get(count).copied();
        count += 1;
        let Some(Some(column)) = column else { continue };
        let kind = collector.kinds[column];
        let content = match field.value {
            Value::Unescaped(start, end) => record.text.get(start..end),
            Value::Text(start, end) => text.get(start..end),
            _ => None,
        };
        let content = content.unwrap_or_default();
        let slot = &mut record.values[column];
        if content.is_empty() && !field.quoted {
            *slot = Value::Null;
        } else if kind == Kind::Text {
            *slot = field.value;
        } else {
            kind.of_untyped(content, &mut record.bytes, slot).map_err(|found| {
                let column = &collector.schema().columns()[column];
                wanted(&column.name, &column.data_type, &found)
            })?;
        }
    }
    if count != fields.len() {
        return Err(format!("record has {count} fields where {} are due", fields.len()));
    }
    Ok(())
}
