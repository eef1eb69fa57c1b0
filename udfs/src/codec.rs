//! Bytes of state: what a checkpoint is written in and read from.
//!
//! [`Writer`] and [`Reader`] know numbers, byte strings, columns of numbers and columns of bits. A column of numbers is the least of them
//! and, for each, the distance to it in as few bytes as the greatest needs; a column of bits that are all equal is one byte. Equal values
//! are equal bytes. A reader takes any bytes: what cannot have been written is a [`CodecError`], and nothing is allocated that the bytes
//! left do not account for, as long as the caller bounds the length of a column by what it has read. Not here: what the columns mean
//! (`run::codec`), checksums, files.

use std::fmt;

/// Why bytes are no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecError(pub &'static str);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for CodecError {}

/// The end came before what was announced.
pub const SHORT: CodecError = CodecError("the bytes end too early");

/// A signed number as an unsigned one of the same order.
pub fn ordered(x: i64) -> u64 {
    x as u64 ^ 1 << 63
}

/// The signed number of [`ordered`].
pub fn signed(x: u64) -> i64 {
    (x ^ 1 << 63) as i64
}

/// Bytes that grow.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing yet.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Eight bytes, the low one first.
    pub fn word(&mut self, word: u64) {
        self.raw(&word.to_le_bytes());
    }

    /// A number, short if it is small: seven bits a byte.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// A byte string behind its length.
    pub fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A column of numbers; whoever reads it knows how many. With `tangible` each takes at least one byte, so that the bytes bound how
    /// many there are.
    pub fn column(&mut self, numbers: &[u64], tangible: bool) {
        let (least, greatest) = numbers.iter().fold((u64::MAX, 0), |(a, b), x| (a.min(*x), b.max(*x)));
        let Some(span) = greatest.checked_sub(least) else { return };
        let width = (8 - span.leading_zeros() as usize / 8).max(usize::from(tangible));
        self.word(least);
        self.byte(width as u8);
        let start = self.bytes.len();
        // Whole words are written over one another, the last of them cut.
        self.bytes.resize(start + numbers.len() * width + 8, 0);
        let into = &mut self.bytes[start..];
        for (i, number) in numbers.iter().enumerate() {
            into[i * width..i * width + 8].copy_from_slice(&(number - least).to_le_bytes());
        }
        self.bytes.truncate(start + numbers.len() * width);
    }

    /// A column of bits; whoever reads it knows how many.
    pub fn bits(&mut self, bits: &Bits) {
        if bits.len == 0 {
            return;
        }
        let ones: usize = bits.words.iter().map(|word| word.count_ones() as usize).sum();
        match ones {
            0 => self.byte(NONE),
            _ if ones == bits.len => self.byte(ALL),
            _ => {
                self.byte(SOME);
                let start = self.bytes.len();
                bits.words.iter().for_each(|word| self.word(*word));
                self.bytes.truncate(start + bits.len.div_ceil(8));
            }
        }
    }
}

const NONE: u8 = 0;
const ALL: u8 = 1;
const SOME: u8 = 2;

/// A column of bits, 64 a word, the first one lowest; those behind the end are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

/// Up to 64 bits of a column from a place on; what is above `count` is zero.
#[inline]
pub(crate) fn bits_at(words: &[u64], from: usize, count: usize) -> u64 {
    let (word, shift) = (from / 64, from % 64);
    let low = words.get(word).copied().unwrap_or(0) >> shift;
    let high = if shift + count > 64 { words.get(word + 1).copied().unwrap_or(0) << (64 - shift) } else { 0 };
    let mask = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    (low | high) & mask
}

impl Bits {
    /// No bits.
    pub fn new() -> Bits {
        Bits::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds up to 64 bits, the lowest first.
    #[inline]
    pub fn push(&mut self, bits: u64, count: usize) {
        let shift = self.len % 64;
        if shift == 0 {
            self.words.push(bits);
        } else {
            if let Some(last) = self.words.last_mut() {
                *last |= bits << shift;
            }
            if shift + count > 64 {
                self.words.push(bits >> (64 - shift));
            }
        }
        self.len += count;
        if count == 0 && shift == 0 {
            self.words.pop();
        }
    }

    /// Adds the bits `from..to` of a column.
    #[inline]
    pub(crate) fn extend(&mut self, words: &[u64], from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let count = (to - at).min(64);
            self.push(bits_at(words, at, count), count);
            at += count;
        }
    }

    /// One bit; false behind the end.
    pub fn get(&self, at: usize) -> bool {
        bits_at(&self.words, at, 1) == 1
    }

    #[cfg(test)]
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// All of these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// All bytes that are left.
    pub fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, CodecError> {
        self.raw(1).map(|bytes| bytes[0])
    }

    /// Eight bytes, the low one first.
    pub fn word(&mut self) -> Result<u64, CodecError> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A number of [`Writer::number`].
    pub fn number(&mut self) -> Result<u64, CodecError> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(CodecError("a number is too large"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    /// How many things follow that take at least one byte each.
    pub fn count(&mut self) -> Result<usize, CodecError> {
        let count = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        if count > self.left() { Err(SHORT) } else { Ok(count) }
    }

    /// A byte string.
    pub fn string(&mut self) -> Result<&'a [u8], CodecError> {
        let count = self.count()?;
        self.raw(count)
    }

    /// A column of `count` numbers; `tangible` as it was written.
    pub fn column(&mut self, count: usize, tangible: bool) -> Result<Column<'a>, CodecError> {
        if count == 0 {
            return Ok(Column { least: 0, width: 0, bytes: &[], count });
        }
        let (least, width) = (self.word()?, usize::from(self.byte()?));
        if width > 8 || width < usize::from(tangible) {
            return Err(CodecError("a column of numbers has no such width"));
        }
        let bytes = self.raw(count.checked_mul(width).ok_or(SHORT)?)?;
        Ok(Column { least, width, bytes, count })
    }

    /// A column of `count` bits.
    pub fn bits(&mut self, count: usize) -> Result<Bits, CodecError> {
        if count == 0 {
            return Ok(Bits::default());
        }
        let words = count.div_ceil(64);
        let mut words = match self.byte()? {
            NONE => vec![0; words],
            ALL => vec![u64::MAX; words],
            SOME => {
                let bytes = self.raw(count.div_ceil(8))?;
                let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                bytes.chunks(8).map(word).collect()
            }
            _ => return Err(CodecError("a column of bits has no such form")),
        };
        if let (Some(last), true) = (words.last_mut(), !count.is_multiple_of(64)) {
            *last &= (1 << (count % 64)) - 1;
        }
        Ok(Bits { words, len: count })
    }
}

/// A column of numbers as it lies in the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    least: u64,
    width: usize,
    bytes: &'a [u8],
    count: usize,
}

impl Column<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One number; 0 behind the end.
    #[inline]
    pub fn get(&self, at: usize) -> u64 {
        if at >= self.count {
            return 0;
        }
        let from = self.bytes.get(at * self.width..).unwrap_or(&[]);
        let distance = match from.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word) & if self.width == 8 { u64::MAX } else { (1 << (self.width * 8)) - 1 },
            None => from.iter().take(self.width).rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        self.least.wrapping_add(distance)
    }

    /// The sum of all, where it is at most `most`.
    pub fn sum(&self, most: usize) -> Result<usize, CodecError> {
        let mut sum = 0usize;
        for at in 0..self.count {
            let number = usize::try_from(self.get(at)).map_err(|_| SHORT)?;
            sum = sum.checked_add(number).filter(|sum| *sum <= most).ok_or(SHORT)?;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for case in 0..500 {
            let n = rng.random_range(0..200);
            let bits = rng.random_range(0..65);
            let base: u64 = rng.random();
            let numbers: Vec<u64> = (0..n)
                .map(|_| base.wrapping_add(if bits == 64 { rng.random() } else { rng.random::<u64>() & ((1 << bits) - 1) }))
                .collect();
            let truth: Vec<bool> = (0..n).map(|_| case % 3 == 1 || (case % 3 == 2 && rng.random())).collect();
            let mut column = Bits::new();
            truth.iter().for_each(|bit| column.push(u64::from(*bit), 1));
            let mut copied = Bits::new();
            let cut = rng.random_range(0..=n);
            copied.extend(column.words(), 0, cut);
            copied.extend(column.words(), cut, n);
            assert_eq!(copied, column);
            let tangible = rng.random();
            let mut writer = Writer::new();
            numbers.iter().for_each(|x| writer.number(*x));
            writer.column(&numbers, tangible);
            writer.bits(&column);
            writer.string(b"end");
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            assert!(numbers.iter().all(|x| reader.number() == Ok(*x)));
            let read = reader.column(n, tangible).expect("a column");
            assert_eq!((0..n).map(|i| read.get(i)).collect::<Vec<_>>(), numbers);
            let read = reader.bits(n).expect("bits");
            assert_eq!(read, column);
            assert_eq!((0..n).map(|i| read.get(i)).collect::<Vec<_>>(), truth);
            assert_eq!(reader.string(), Ok(&b"end"[..]));
            assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.random_range(0..40)).map(|_| if rng.random() { rng.random() } else { 0xff }).collect();
            let mut reader = Reader::new(&bytes);
            let n = rng.random_range(0..50);
            let _ = match rng.random_range(0..5) {
                0 => reader.number().map(drop),
                1 => reader.string().map(drop),
                2 => reader.column(n, rng.random()).and_then(|c| c.sum(1000).map(drop)),
                3 => reader.bits(n).map(drop),
                _ => reader.word().map(drop),
            };
            assert!(reader.column(usize::MAX, true).is_err());
        }
    }
}
