//! JSON's grammar, one value after the other, straight to the values of columns.
//!
//! The reader stands at a byte of one record and goes forward; what is wrong is told with that byte. No recursion: how deep a
//! record nests costs a bit of a number. Not here: which field belongs to which column.

use super::super::columns::{Kind, Value};
use super::super::number::{Grammar, Number};

/// Where a name is: in the record, or without its escapes in [`super::Record::text`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    Plain(usize, usize),
    Unescaped(usize, usize),
}

pub(super) fn resolve<'a>(name: Name, text: &'a str, unescaped: &'a str) -> &'a str {
    match name {
        Name::Plain(start, end) => text.get(start..end).unwrap_or_default(),
        Name::Unescaped(start, end) => unescaped.get(start..end).unwrap_or_default(),
    }
}

/// The text of a value that is one; empty for any other.
pub(in super::super) fn resolve_value<'a>(value: Value, text: &'a str, unescaped: &'a str) -> &'a str {
    match value {
        Value::Text(start, end) => resolve(Name::Plain(start, end), text, unescaped),
        Value::Unescaped(start, end) => resolve(Name::Unescaped(start, end), text, unescaped),
        _ => "",
    }
}

/// Why a field's value is none.
pub(super) enum Fault {
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

pub(in super::super) struct Reader<'a> {
    pub(in super::super) text: &'a str,
    pub(in super::super) bytes: &'a [u8],
    pub(in super::super) at: usize,
    /// The name read last, of a field that was not expected.
    pub(super) name: Name,
}

impl<'a> Reader<'a> {
    pub(in super::super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, name: Name::Plain(0, 0) }
    }

    /// The next byte; 0 at the end, which no place of JSON's grammar allows.
    #[inline]
    pub(in super::super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    #[inline]
    pub(in super::super) fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    #[inline]
    pub(in super::super) fn expect(&mut self, byte: u8, what: &str) -> Result<(), String> {
        if self.peek() != byte {
            return Err(self.malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    pub(in super::super) fn malformed(&self, wanted: &str) -> String {
        let found = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        format!("malformed JSON at byte {}: {wanted} wanted, found {found}", self.at)
    }

    /// What kind of value begins here.
    pub(in super::super) fn found(&self) -> &'static str {
        match self.peek() {
            b'{' => "an object",
            b'[' => "an array",
            b'"' => "a string",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => "a number",
        }
    }

    /// Puts the value of a column of this kind into `slot`.
    #[inline]
    pub(super) fn value(&mut self, kind: Kind, unescaped: &mut String, bytes: &mut Vec<u8>, slot: &mut Value) -> Result<(), Box<Fault>> {
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
    pub(in super::super) fn string(&mut self, unescaped: &mut String, slot: &mut Value) -> Result<(), String> {
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
    pub(in super::super) fn skip_value(&mut self, depth_max: usize) -> Result<(), String> {
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
