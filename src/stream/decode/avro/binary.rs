//! Avro's binary form, read forward; nothing it says is believed beyond the bytes that are there.
//!
//! Work is bounded by the record's length: values of no bytes (nulls, empty records) are counted, since an array may claim any number.

use super::schema::{Node, Scalar, Schema};

/// How many values of no bytes a record may hold beside those its length accounts for.
const FREE_VALUES: u64 = 1 << 20;

/// A place in a record.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    values_left: u64,
}

/// What is wrong with a record's bytes, or why it is too much.
pub(super) type Malformed = String;

impl<'a> Cursor<'a> {
    /// The bytes of a record, from `at` on.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, values_left: FREE_VALUES + bytes.len() as u64 }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[cold]
    pub(super) fn malformed(&self, what: &str) -> Malformed {
        format!("malformed Avro at byte {}: {what}", self.at)
    }

    /// Counts a value.
    #[inline]
    pub(super) fn count(&mut self) -> Result<(), Malformed> {
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(self.malformed("more values than a record of this length can hold")),
        }
        Ok(())
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        let mut bits = 0u64;
        for (i, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            // The tenth byte has room for the last bit only.
            if i == 9 && *byte > 1 {
                break;
            }
            bits |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.at += i + 1;
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(self.malformed(if self.left() < 10 { "the end inside a number" } else { "a number of more than 64 bits" }))
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        let start = self.at;
        let long = self.long()?;
        i32::try_from(long).map_err(|_| {
            self.at = start;
            self.malformed("an int of more than 32 bits")
        })
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.bytes.get(self.at) {
            Some(byte @ (0 | 1)) => {
                self.at += 1;
                Ok(*byte == 1)
            }
            Some(_) => Err(self.malformed("a boolean that is neither 0 nor 1")),
            None => Err(self.malformed("the end where a boolean is due")),
        }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.left() {
            let left = self.left();
            return Err(self.malformed(&format!("{length} bytes are due and {left} are left")));
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Bytes behind their length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => {
                self.at = start;
                Err(self.malformed("a negative length"))
            }
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|e| {
            self.at = self.at - bytes.len() + e.valid_up_to();
            self.malformed("invalid UTF-8")
        })
    }

    /// One of so many branches or symbols.
    pub(super) fn index(&mut self, count: usize, what: &str) -> Result<usize, Malformed> {
        let start = self.at;
        let index = self.long()?;
        usize::try_from(index).ok().filter(|i| *i < count).ok_or_else(|| {
            self.at = start;
            self.malformed(&format!("{what} {index} where there are {count}"))
        })
    }

    /// The beginning of a block of an array or a map: how many values it has, and how many bytes where it says so; None at the end.
    pub(super) fn block(&mut self) -> Result<Option<(u64, Option<usize>)>, Malformed> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count > 0).then_some((count.unsigned_abs(), None)));
        }
        let start = self.at;
        let length = self.long()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.left());
        match length {
            Some(length) => Ok(Some((count.unsigned_abs(), Some(length)))),
            None => {
                self.at = start;
                Err(self.malformed("a block that is longer than the record"))
            }
        }
    }

    /// Passes over a value of a type that nests `depth` levels at most.
    pub(super) fn skip(&mut self, schema: &Schema, node: usize, depth: usize) -> Result<(), Malformed> {
        self.count()?;
        let below = || depth.checked_sub(1);
        match schema.node(node) {
            Node::Scalar(scalar) => self.skip_scalar(scalar),
            Node::Union(branches) => {
                let branch = self.index(branches.len(), "branch")?;
                self.skip(schema, branches[branch], depth)
            }
            Node::Record(fields) => {
                let depth = below().ok_or_else(|| self.too_deep())?;
                fields.iter().try_for_each(|(_, field)| self.skip(schema, *field, depth))
            }
            Node::Array(items) => {
                let depth = below().ok_or_else(|| self.too_deep())?;
                self.skip_blocks(|cursor| cursor.skip(schema, *items, depth))
            }
            Node::Map(values) => {
                let depth = below().ok_or_else(|| self.too_deep())?;
                self.skip_blocks(|cursor| {
                    cursor.bytes()?;
                    cursor.skip(schema, *values, depth)
                })
            }
        }
    }

    #[cold]
    pub(super) fn too_deep(&self) -> Malformed {
        format!("nested too deep at byte {}", self.at)
    }

    fn skip_blocks(&mut self, mut value: impl FnMut(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        while let Some((count, length)) = self.block()? {
            match length {
                Some(length) => self.at += length,
                None => (0..count).try_for_each(|_| value(self))?,
            }
            self.count()?;
        }
        Ok(())
    }

    fn skip_scalar(&mut self, scalar: &Scalar) -> Result<(), Malformed> {
        match scalar {
            Scalar::Null => Ok(()),
            Scalar::Boolean => self.boolean().map(|_| ()),
            Scalar::Int | Scalar::Date => self.int().map(|_| ()),
            Scalar::Long | Scalar::Timestamp(_) => self.long().map(|_| ()),
            Scalar::Float => self.take(4).map(|_| ()),
            Scalar::Double => self.take(8).map(|_| ()),
            Scalar::Bytes | Scalar::Text | Scalar::Decimal { fixed: None, .. } => self.bytes().map(|_| ()),
            Scalar::Fixed(size) | Scalar::Decimal { fixed: Some(size), .. } => self.take(*size).map(|_| ()),
            Scalar::Enum(symbols) => self.index(symbols.len(), "symbol").map(|_| ()),
            Scalar::Uuid => self.take(16).map(|_| ()),
        }
    }
}
