//! Debezium's envelope of one changed row, as JSON, with and without the `schema` and `payload` around it.
//!
//! A record is a change: a row as it is now (`after`, of the operations c, u and r), or the row that was deleted (`before`, of d). Its fields
//! are found as those of JSON are. Two columns come from the envelope, and the stream has them beside those that it declares:
//! - `_op`: the operation, `c`, `u`, `r` or `d`.
//! - `_position`: where the change stands in the log of its database, as a text that sorts as the log does: `lsn` (Postgres), the number of
//!   `file`, `pos` and `row` (MySQL, MariaDB), `commit_lsn`, `change_lsn` and `event_serial_no` (SQL Server), and for any other source
//!   `ts_ms` and the message's offset. It is the first part of the primary key: two changes of one row at one time are two events, in
//!   the order of the log, and a change that the connector sends again is a duplicate.
//!
//! The event time is the stream's column where `after` has it; else, and of every delete, it is the time that the database says,
//! `source.ts_ns`, `ts_us` or `ts_ms`. (What `before` says of a deleted row is when it was last written, not when it went.)
//!
//! A tombstone, the NULL that Debezium sends after a delete for topics that are compacted, says nothing that the delete did not say: it is
//! counted, and is no event and no rejected record. A truncated table (t) and a logical message (m) are changes of no row and are rejected,
//! and so is a row with a value that the database did not log (`__debezium_unavailable_value`) in one of the stream's columns.
//!
//! Values are as in JSON, so the connector's `decimal.handling.mode` is to be `string` or `double`, and a number is a TIMESTAMP only under
//! the option `time_unit`. Not here: the envelope in Avro; events that a transformation has flattened are plain JSON.

use std::sync::Arc;

use super::columns::{Collector, Record, Value, is_time, shortened};
use super::json::fields::{Fields, read_record};
use super::json::reader::{Reader, resolve_value};
use super::number::{Grammar, Number};
use super::path::Wanted;
use super::{Decoded, Options};
use crate::error::{Error, Result};
use crate::stream::schema::{OPERATION, POSITION, StreamSchema};

/// What stands in the place of a value that was not logged.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same for a column of bytes.
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

/// Decodes records that are one envelope each.
#[derive(Debug)]
pub(super) struct DebeziumDecoder {
    fields: Fields,
    record: Record,
    collector: Collector,
    position: usize,
    operation: usize,
    record_bytes_max: usize,
    depth_max: usize,
    tombstones: u64,
}

impl DebeziumDecoder {
    /// A decoder for a stream that has the two columns of the envelope.
    pub(super) fn try_new(schema: Arc<StreamSchema>, options: &Options) -> Result<Self> {
        let column = |name: &str| {
            let column = schema.columns().iter().position(|c| c.name == name);
            column.ok_or_else(|| Error::internal(format!("a stream of format 'debezium' without column \"{name}\"")))
        };
        let (position, operation) = (column(POSITION)?, column(OPERATION)?);
        let mut wanted = Wanted::of_stream(&schema, options)?;
        // A row may have fields of these names, which are not meant.
        wanted.fields.retain(|(_, wanted)| !wanted.columns.contains(&position) && !wanted.columns.contains(&operation));
        Ok(Self {
            fields: Fields::new(&wanted, schema.columns().len(), options),
            record: Record::default(),
            collector: Collector::try_new(schema, options)?,
            position,
            operation,
            record_bytes_max: options.record_bytes_max,
            depth_max: options.depth_max.clamp(1, 128),
            tombstones: 0,
        })
    }

    /// Decodes one message.
    pub(super) fn record(&mut self, offset: i64, raw: Option<&[u8]>) {
        let Some(raw) = raw else {
            self.tombstones += 1;
            return;
        };
        if raw.len() > self.record_bytes_max {
            self.collector.reject_too_long(offset, raw, raw.len() as u64, self.record_bytes_max);
            return;
        }
        let read = match std::str::from_utf8(raw) {
            Ok(text) => self.envelope(offset, text),
            Err(e) => Err(format!("invalid UTF-8 at byte {}", e.valid_up_to())),
        };
        if let Err(reason) = read {
            self.collector.reject(offset, raw, reason);
        }
    }

    fn envelope(&mut self, offset: i64, text: &str) -> Result<(), String> {
        const NAMES: [&str; 4] = ["op", "before", "after", "source"];
        let [mut op, mut before, mut after, mut source, payload] =
            members(text, "record", ["op", "before", "after", "source", "payload"], self.depth_max)?;
        if let (None, Some(payload)) = (op, payload) {
            [op, before, after, source] = members(payload, "payload", NAMES, self.depth_max)?;
        }
        let (operation, image, name) = match op {
            Some(op @ ("\"c\"" | "\"u\"" | "\"r\"")) => (&op[1..2], after, "after"),
            Some("\"d\"") => ("d", before, "before"),
            Some("\"t\"") => return Err("field \"op\": a table was truncated, which is a change of no row".to_owned()),
            Some("\"m\"") => return Err("field \"op\": a logical message, which is a change of no row".to_owned()),
            Some(other) => return Err(format!("field \"op\": \"c\", \"u\", \"r\" or \"d\" wanted, found {}", shortened(other))),
            None => return Err("field \"op\": is missing, so the record is no envelope of Debezium".to_owned()),
        };
        let image = image.ok_or_else(|| format!("field \"{name}\": is missing, and the operation is {operation}"))?;
        let source = Source::read(source.ok_or("field \"source\": is missing")?, self.depth_max)?;
        let Self { fields, record, collector, .. } = self;
        read_record(fields, record, collector, image)?;
        let time = collector.schema().event_time();
        if operation == "d" || record.values[time] == Value::Absent {
            record.values[time] = Value::Integer(source.time_us()?);
        }
        if image.contains(UNAVAILABLE) || image.contains(UNAVAILABLE_BASE64) {
            check_available(record, collector, image)?;
        }
        record.values[self.position] = scratch(record, &source.position(offset)?);
        record.values[self.operation] = scratch(record, operation);
        collector.append(offset, record, image)
    }

    pub(super) fn pending(&self) -> usize {
        self.collector.pending() + self.tombstones as usize
    }

    pub(super) fn take(&mut self) -> Result<Decoded> {
        let mut decoded = self.collector.take()?;
        decoded.tombstones = std::mem::take(&mut self.tombstones);
        Ok(decoded)
    }

    pub(super) fn collector(&mut self) -> &mut Collector {
        &mut self.collector
    }
}

fn scratch(record: &mut Record, text: &str) -> Value {
    let start = record.text.len();
    record.text.push_str(text);
    Value::Unescaped(start, record.text.len())
}

/// Rejects a row of which a column's value is not there; what else there is of it would be a wrong value.
fn check_available(record: &Record, collector: &Collector, image: &str) -> Result<(), String> {
    for (column, value) in record.values.iter().enumerate() {
        let bytes = match value {
            Value::Bytes(start, end) => record.bytes.get(*start..*end).unwrap_or_default(),
            _ => resolve_value(*value, image, &record.text).as_bytes(),
        };
        if bytes == UNAVAILABLE.as_bytes() {
            let label = collector.label(column);
            return Err(format!("field \"{label}\": the value is not in the database's log (for Postgres, see REPLICA IDENTITY FULL)"));
        }
    }
    Ok(())
}

/// The values of some fields of the object that a text is, as text; None for null. All of the text's syntax is checked.
fn members<'a, const N: usize>(text: &'a str, what: &str, names: [&str; N], depth_max: usize) -> Result<[Option<&'a str>; N], String> {
    let mut found = [None; N];
    let mut reader = Reader::new(text);
    let mut unescaped = String::new();
    reader.space();
    if reader.peek() != b'{' {
        let is = reader.found();
        reader.skip_value(depth_max)?;
        return Err(format!("{what} is {is}, not an object"));
    }
    reader.at += 1;
    reader.space();
    let mut more = reader.peek() != b'}';
    while more {
        reader.expect(b'"', "a field's name in quotes")?;
        unescaped.clear();
        let mut name = Value::Null;
        reader.string(&mut unescaped, &mut name)?;
        reader.space();
        reader.expect(b':', "a colon after a field's name")?;
        reader.space();
        let start = reader.at;
        reader.skip_value(depth_max - 1)?;
        let name = resolve_value(name, text, &unescaped);
        if let Some(slot) = names.iter().position(|n| *n == name).map(|i| &mut found[i])
            && slot.replace(text.get(start..reader.at).unwrap_or_default()).is_some()
        {
            return Err(format!("field \"{name}\": stands twice in the {what}"));
        }
        reader.space();
        more = reader.peek() == b',';
        if more {
            reader.at += 1;
            reader.space();
        }
    }
    reader.expect(b'}', "a comma or the end of the object")?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.malformed("nothing after the object"));
    }
    Ok(found.map(|value| value.filter(|value| *value != "null")))
}

/// Where a change comes from, each field as it was written.
struct Source<'a> {
    ts_ms: Option<&'a str>,
    ts_us: Option<&'a str>,
    ts_ns: Option<&'a str>,
    lsn: Option<&'a str>,
    file: Option<&'a str>,
    pos: Option<&'a str>,
    row: Option<&'a str>,
    commit_lsn: Option<&'a str>,
    change_lsn: Option<&'a str>,
    serial: Option<&'a str>,
}

impl<'a> Source<'a> {
    fn read(text: &'a str, depth_max: usize) -> Result<Self, String> {
        let names = ["ts_ms", "ts_us", "ts_ns", "lsn", "file", "pos", "row", "commit_lsn", "change_lsn", "event_serial_no"];
        let [ts_ms, ts_us, ts_ns, lsn, file, pos, row, commit_lsn, change_lsn, serial] = members(text, "source", names, depth_max)?;
        Ok(Self { ts_ms, ts_us, ts_ns, lsn, file, pos, row, commit_lsn, change_lsn, serial })
    }

    /// When the database changed the row, in microseconds.
    fn time_us(&self) -> Result<i64, String> {
        let (name, text, exponent) = match (self.ts_ns, self.ts_us, self.ts_ms) {
            (Some(text), _, _) => ("ts_ns", text, -3),
            (None, Some(text), _) => ("ts_us", text, 0),
            (None, None, Some(text)) => ("ts_ms", text, 3),
            (None, None, None) => return Err("field \"source.ts_ms\": is missing, and the row has no event time".to_owned()),
        };
        let time = Number::scan(text, Grammar::Json).filter(|n| n.text() == text).and_then(|n| n.to_floor(exponent).ok());
        time.filter(|t| is_time(*t)).ok_or_else(|| format!("field \"source.{name}\": a time wanted, found {}", shortened(text)))
    }

    /// The place in the database's log, as a text that sorts as the log does.
    fn position(&self, offset: i64) -> Result<String, String> {
        if let Some(lsn) = self.lsn {
            return Ok(format!("{:020}", count("lsn", lsn)?));
        }
        if let (Some(file), Some(pos)) = (self.file, self.pos) {
            // Files are numbered, and one number has more digits than another: mysql-bin.999999, mysql-bin.1000000.
            let digits = file.trim_matches('"').rsplit('.').next().unwrap_or_default();
            let row = self.row.map_or(Ok(0), |row| count("row", row))?;
            return Ok(format!("{:020}/{:020}/{row:010}", count("file", digits)?, count("pos", pos)?));
        }
        if self.commit_lsn.is_some() || self.change_lsn.is_some() {
            // Hexadecimal of a fixed width; absent, as the second is of a snapshot, it comes first.
            let lsn = |text: Option<&str>| text.unwrap_or_default().trim_matches('"').to_ascii_lowercase();
            let serial = self.serial.map_or(Ok(0), |serial| count("event_serial_no", serial))?;
            return Ok(format!("{}/{}/{serial:010}", lsn(self.commit_lsn), lsn(self.change_lsn)));
        }
        let ts = self.ts_ms.ok_or("field \"source\": has no position and no \"ts_ms\"")?;
        Ok(format!("{:020}/{offset:020}", count("ts_ms", ts)?))
    }
}

/// A number from 0 on.
fn count(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("field \"source.{name}\": a number from 0 on wanted, found {}", shortened(text)))
}
