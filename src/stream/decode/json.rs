//! JSON lines: one object per line, read in one pass, straight to typed values.
//!
//! What is particular to JSON:
//! - A field that stands twice in one record rejects it, whether the stream has it or not; which of two values is meant is nobody's guess.
//!   Inside the values of ignored fields only the syntax is checked, all of it.
//! - A number's place takes a JSON number; DECIMAL also a string of one, and REAL and DOUBLE the strings `NaN`, `Infinity`,
//!   `-Infinity`, `inf` and `-inf`. No other type takes the wrong kind of value: `"5"` is no BIGINT and `5` no VARCHAR.
//! - Blank lines are no records and have no offset: an offset is the number of a record, from the first line on.
//! - A byte order mark at the beginning of the input is passed over.
//!
//! This is a reader of its own because it needs what parsers hide: the digits of numbers, the doubled fields, the place of an error,
//! and no stack that grows with the input. Fields are expected in the order of the record before, so that a name is compared once.

use std::collections::HashMap;
use std::sync::Arc;

use super::columns::{Collector, Kind, Record, Value, shortened, wanted};
use super::lines::{LineSplitter, Piece};
use super::number::{Grammar, Number};
use super::{Decoded, Options};
use crate::error::Result;
use crate::stream::schema::StreamSchema;

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
        Ok(Self {
            fields: Fields::new(&schema, options),
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

    /// Rejects a record for what its source says of it.
    pub fn reject(&mut self, offset: i64, raw: &[u8], reason: &str) {
        self.collector.reject(offset, raw, reason.to_owned());
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

/// A field that the stream does not have.
const IGNORED: usize = usize::MAX;

/// The names of a stream's fields, and the order in which the last record had them.
#[derive(Debug)]
struct Fields {
    /// Name and closing quote, as a record holds them; None for a name that JSON can only write with escapes.
    quoted: Vec<Option<Box<[u8]>>>,
    by_name: HashMap<Box<str>, usize>,
    expected: Vec<usize>,
    /// The ignored fields of the record being read.
    ignored: Vec<Name>,
    depth_max: usize,
}

/// Where a name is: in the record, or without its escapes in [`Record::text`].
#[derive(Debug, Clone, Copy)]
enum Name {
    Plain(usize, usize),
    Unescaped(usize, usize),
}

impl Fields {
    fn new(schema: &StreamSchema, options: &Options) -> Self {
        let plain = |name: &str| !name.bytes().any(|b| b == b'"' || b == b'\\' || b < 0x20);
        let quoted = |name: &str| plain(name).then(|| format!("{name}\"").into_bytes().into_boxed_slice());
        Self {
            quoted: schema.columns().iter().map(|c| quoted(&c.name)).collect(),
            by_name: schema.columns().iter().enumerate().map(|(i, c)| (c.name.as_str().into(), i)).collect(),
            expected: (0..schema.columns().len()).collect(),
            ignored: Vec::new(),
            depth_max: options.depth_max.clamp(1, 128),
        }
    }
}

/// Reads one record into `record`, or says why it is none.
fn read_record(fields: &mut Fields, record: &mut Record, collector: &Collector, text: &str) -> Result<(), String> {
    record.clear(collector.kinds.len());
    fields.ignored.clear();
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, name: Name::Plain(0, 0) };
    reader.space();
    if reader.peek() != b'{' {
        let found = reader.found();
        // A line that is no JSON at all is told so.
        reader.skip_value(fields.depth_max)?;
        return Err(format!("record is {found}, not an object"));
    }
    reader.at += 1;
    reader.space();
    let mut position = 0;
    if reader.peek() == b'}' {
        reader.at += 1;
    } else {
        loop {
            let column = reader.name(fields, record, position)?;
            position += 1;
            reader.space();
            reader.expect(b':', "a colon after a field's name")?;
            reader.space();
            if column == IGNORED {
                let name = reader.name;
                fields.ignored.push(name);
                // The record is one level, so its fields have one less.
                reader
                    .skip_value(fields.depth_max - 1)
                    .map_err(|why| format!("field \"{}\": {why}", shortened(resolve(name, text, &record.text))))?;
            } else {
                let Record { values, text: unescaped, bytes } = &mut *record;
                let slot = &mut values[column];
                if !matches!(slot, Value::Absent) {
                    let name = &collector.schema().columns()[column].name;
                    return Err(format!("field \"{name}\": stands twice in the record"));
                }
                reader.value(collector.kinds[column], unescaped, bytes, slot).map_err(|fault| {
                    let column = &collector.schema().columns()[column];
                    match *fault {
                        Fault::Syntax(why) => format!("field \"{}\": {why}", column.name),
                        Fault::Type(found) => wanted(&column.name, &column.data_type, &found),
                    }
                })?;
            }
            reader.space();
            match reader.peek() {
                b',' => reader.at += 1,
                b'}' => {
                    reader.at += 1;
                    break;
                }
                _ => return Err(reader.malformed("a comma or the end of the object")),
            }
            reader.space();
        }
    }
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(reader.malformed("nothing after the object"));
    }
    if let Some(name) = twice(&fields.ignored, text, &record.text) {
        return Err(format!("field \"{}\": stands twice in the record", shortened(name)));
    }
    Ok(())
}

fn resolve<'a>(name: Name, text: &'a str, unescaped: &'a str) -> &'a str {
    match name {
        Name::Plain(start, end) => text.get(start..end).unwrap_or_default(),
        Name::Unescaped(start, end) => unescaped.get(start..end).unwrap_or_default(),
    }
}

/// The name that stands twice among the ignored fields.
fn twice<'a>(names: &[Name], text: &'a str, unescaped: &'a str) -> Option<&'a str> {
    const FEW: usize = 8;
    let name = |i: usize| resolve(names[i], text, unescaped);
    if names.len() <= FEW {
        return (1..names.len()).map(name).enumerate().find(|(i, n)| (0..=*i).any(|j| name(j) == *n)).map(|(_, n)| n);
    }
    let mut sorted: Vec<&str> = (0..names.len()).map(name).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Why a field's value is none.
enum Fault {
    /// The text is no JSON.
    Syntax(String),
    /// The value is JSON, of another type.
    Type(String),
}

impl Fault {
    #[cold]
    fn syntax(why: String) -> Box<Self> {
        Box::new(Self::Syntax(why))
    }

    #[cold]
    fn of_type(found: String) -> Box<Self> {
        Box::new(Self::Type(found))
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// The name read last.
    name: Name,
}

impl<'a> Reader<'a> {
    /// The next byte; 0 at the end, which no place of JSON's grammar allows.
    #[inline]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &str) -> Result<(), String> {
        if self.peek() != byte {
            return Err(self.malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    fn malformed(&self, wanted: &str) -> String {
        let found = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        format!("malformed JSON at byte {}: {wanted} wanted, found {found}", self.at)
    }

    /// What kind of value begins here.
    fn found(&self) -> &'static str {
        match self.peek() {
            b'{' => "an object",
            b'[' => "an array",
            b'"' => "a string",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => "a number",
        }
    }

    /// The field whose name begins here, expected to be the one that the last record had at this position.
    #[inline]
    fn name(&mut self, fields: &mut Fields, record: &mut Record, position: usize) -> Result<usize, String> {
        self.expect(b'"', "a field's name in quotes")?;
        let expected = fields.expected.get(position).copied().unwrap_or(IGNORED);
        if let Some(Some(quoted)) = fields.quoted.get(expected)
            && self.bytes[self.at..].starts_with(quoted)
        {
            self.at += quoted.len();
            return Ok(expected);
        }
        self.unexpected_name(fields, record, position)
    }

    fn unexpected_name(&mut self, fields: &mut Fields, record: &mut Record, position: usize) -> Result<usize, String> {
        let mut name = Value::Null;
        self.string(&mut record.text, &mut name)?;
        self.name = match name {
            Value::Unescaped(start, end) => Name::Unescaped(start, end),
            Value::Text(start, end) => Name::Plain(start, end),
            _ => Name::Plain(0, 0),
        };
        let column = fields.by_name.get(resolve(self.name, self.text, &record.text)).copied().unwrap_or(IGNORED);
        match fields.expected.get_mut(position) {
            Some(expected) => *expected = column,
            // As many as any record of sense has; the rest are looked up.
            None if position < 4096 => fields.expected.push(column),
            None => {}
        }
        Ok(column)
    }

    /// Puts the value of a column of this kind into `slot`.
    #[inline]
    fn value(&mut self, kind: Kind, unescaped: &mut String, bytes: &mut Vec<u8>, slot: &mut Value) -> Result<(), Box<Fault>> {
        match self.peek() {
            b'"' => {
                self.at += 1;
                self.string(unescaped, slot).map_err(Fault::syntax)?;
                if kind == Kind::Text {
                    return Ok(());
                }
                let text = match *slot {
                    Value::Unescaped(start, end) => unescaped.get(start..end),
                    Value::Text(start, end) => self.text.get(start..end),
                    _ => None,
                };
                kind.of_text(text.unwrap_or_default(), bytes, slot).map_err(Fault::of_type)
            }
            b'-' | b'0'..=b'9' => {
                let Some(number) = Number::scan(self.rest(), Grammar::Json) else {
                    return Err(Fault::syntax(self.malformed("a number")));
                };
                self.at += number.text().len();
                kind.of_number(&number, slot).map_err(Fault::of_type)
            }
            b'n' => {
                *slot = Value::Null;
                self.literal("null").map_err(Fault::syntax)
            }
            b't' if kind == Kind::Boolean => {
                *slot = Value::Boolean(true);
                self.literal("true").map_err(Fault::syntax)
            }
            b'f' if kind == Kind::Boolean => {
                *slot = Value::Boolean(false);
                self.literal("false").map_err(Fault::syntax)
            }
            b'{' | b'[' | b't' | b'f' => Err(Fault::of_type(format!("found {}", self.found()))),
            _ => Err(Fault::syntax(self.malformed("a value"))),
        }
    }

    #[inline]
    fn literal(&mut self, literal: &str) -> Result<(), String> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.malformed(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Passes over a string up to its closing quote (true) or its next escape (false).
    #[inline]
    fn string_body(&mut self) -> Result<bool, String> {
        self.plain();
        match self.peek() {
            b'"' => Ok(true),
            b'\\' => Ok(false),
            _ => Err(self.malformed("the end of the string")),
        }
    }

    /// Puts the string whose opening quote was passed into `slot`, as a range of the text or, where it has escapes, of `unescaped`.
    #[inline]
    fn string(&mut self, unescaped: &mut String, slot: &mut Value) -> Result<(), String> {
        let start = self.at;
        if self.string_body()? {
            self.at += 1;
            *slot = Value::Text(start, self.at - 1);
            return Ok(());
        }
        let begin = unescaped.len();
        self.escaped(start, unescaped)?;
        *slot = Value::Unescaped(begin, unescaped.len());
        Ok(())
    }

    /// Passes over the bytes of a string that stand for themselves.
    #[inline]
    fn plain(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGHS: u64 = ONES * 0x80;
        while let Some(word) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            // Bytes that are a quote, a backslash or below a space set their high bit; above the first of them it may be wrong.
            let zero = |x: u64| x.wrapping_sub(ONES) & !x;
            let special =
                (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | (word.wrapping_sub(ONES * 0x20) & !word))
                    & HIGHS;
            if special != 0 {
                self.at += (special.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while !matches!(self.peek(), b'"' | b'\\' | 0..0x20) {
            self.at += 1;
        }
    }

    #[cold]
    fn escaped(&mut self, start: usize, unescaped: &mut String) -> Result<(), String> {
        let mut copied = start;
        loop {
            unescaped.push_str(self.text.get(copied..self.at).unwrap_or_default());
            if self.peek() == b'"' {
                self.at += 1;
                return Ok(());
            }
            let escape = self.escape()?;
            let Some(character) = escape else { return Err(self.malformed("a whole surrogate pair")) };
            unescaped.push(character);
            copied = self.at;
            self.string_body()?;
        }
    }

    /// The character of the escape that begins here; None for half of a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, String> {
        self.at += 1;
        let escape = self.peek();
        self.at += 1;
        Ok(Some(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if !(0xd800..0xdc00).contains(&unit) || !self.bytes[self.at..].starts_with(b"\\u") {
                    return Ok(char::from_u32(unit));
                }
                let second = self.at;
                self.at += 2;
                let low = self.hex()?;
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = second;
                    return Ok(None);
                }
                return Ok(char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)));
            }
            _ => {
                self.at = (self.at - 1).min(self.bytes.len());
                return Err(self.malformed("an escape"));
            }
        }))
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.bytes[self.at..].first_chunk::<4>();
        let digit = |unit: u32, d: &u8| char::from(*d).to_digit(16).map(|d| unit << 4 | d);
        let unit = digits.and_then(|digits| digits.iter().try_fold(0, digit));
        let unit = unit.ok_or_else(|| self.malformed("four hexadecimal digits"))?;
        self.at += 4;
        Ok(unit)
    }

    fn skip_string(&mut self) -> Result<(), String> {
        self.expect(b'"', "a field's name in quotes")?;
        while !self.string_body()? {
            self.escape()?;
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over a value, all of its syntax checked, without recursion.
    fn skip_value(&mut self, depth_max: usize) -> Result<(), String> {
        // One bit for each open object or array: 1 for an object.
        let mut open = 0u128;
        let mut depth = 0;
        loop {
            self.space();
            let mut empty = false;
            match self.peek() {
                bracket @ (b'{' | b'[') => {
                    if depth >= depth_max.min(128) {
                        return Err(format!("nested too deep at byte {}", self.at));
                    }
                    let object = bracket == b'{';
                    open = open << 1 | u128::from(object);
                    depth += 1;
                    self.at += 1;
                    self.space();
                    empty = self.peek() == if object { b'}' } else { b']' };
                    if object && !empty {
                        self.skip_name()?;
                    }
                    if !empty {
                        continue;
                    }
                }
                b'"' => {
                    self.skip_string()?;
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => {
                    let number = Number::scan(self.rest(), Grammar::Json);
                    self.at += number.ok_or_else(|| self.malformed("a value"))?.text().len();
                }
            }
            // A value is complete, or an object or array is empty: close what closes here.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.space();
                let object = open & 1 == 1;
                match self.peek() {
                    b',' if !empty => {
                        self.at += 1;
                        if object {
                            self.space();
                            self.skip_name()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ if object => return Err(self.malformed("a comma or the end of the object")),
                    _ => return Err(self.malformed("a comma or the end of the array")),
                }
                self.at += 1;
                open >>= 1;
                depth -= 1;
                empty = false;
            }
        }
    }

    fn skip_name(&mut self) -> Result<(), String> {
        self.skip_string()?;
        self.space();
        self.expect(b':', "a colon after a field's name")
    }
}
