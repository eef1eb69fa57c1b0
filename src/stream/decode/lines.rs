//! Lines out of chunks: where a chunk ends never matters, and no line takes more memory than the limit.
//!
//! A line ends with a line feed, and the last one may end with the input. Not here: what a line means; a carriage return before the
//! line feed is left to the format.

use super::RAW_PREFIX_BYTES;

/// What a splitter found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One or more whole lines, each but perhaps the last with its line feed.
    Lines(&'a [u8]),
    /// A line longer than the limit: its first [`RAW_PREFIX_BYTES`] (or fewer) and its length without the line feed.
    TooLong(&'a [u8], u64),
}

/// Cuts fed chunks into lines.
#[derive(Debug)]
pub struct LineSplitter {
    limit: usize,
    /// The line begun in an earlier chunk; of one that is too long, its prefix.
    carry: Vec<u8>,
    /// The length so far of a line known to be too long.
    too_long: Option<u64>,
}

impl LineSplitter {
    /// A splitter for lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, carry: Vec::new(), too_long: None }
    }

    /// Takes a chunk and hands on what it completes, in order.
    pub fn feed(&mut self, mut chunk: &[u8], mut sink: impl FnMut(Piece<'_>)) {
        if !self.carry.is_empty() || self.too_long.is_some() {
            let Some(end) = memchr::memchr(b'\n', chunk) else {
                self.hold(chunk);
                return;
            };
            self.hold(&chunk[..end]);
            self.release(&mut sink);
            chunk = &chunk[end + 1..];
        }
        let Some(last) = memchr::memrchr(b'\n', chunk) else {
            self.hold(chunk);
            return;
        };
        let (lines, rest) = chunk.split_at(last + 1);
        if lines.len() <= self.limit {
            sink(Piece::Lines(lines));
        } else {
            self.split(lines, &mut sink);
        }
        self.hold(rest);
    }

    /// Ends the input: what is left is the last line.
    pub fn finish(&mut self, mut sink: impl FnMut(Piece<'_>)) {
        if !self.carry.is_empty() || self.too_long.is_some() {
            self.release(&mut sink);
        }
    }

    /// The bytes held for a line that is not complete.
    pub fn held(&self) -> usize {
        self.carry.len()
    }

    /// Hands on whole lines of which some may be too long.
    fn split(&self, mut lines: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let mut good = 0;
        while let Some(length) = memchr::memchr(b'\n', &lines[good..]) {
            if length <= self.limit {
                good += length + 1;
                continue;
            }
            if good > 0 {
                sink(Piece::Lines(&lines[..good]));
            }
            let line = &lines[good..good + length];
            sink(Piece::TooLong(&line[..length.min(RAW_PREFIX_BYTES)], length as u64));
            lines = &lines[good + length + 1..];
            good = 0;
        }
        if good > 0 {
            sink(Piece::Lines(&lines[..good]));
        }
    }

    fn hold(&mut self, part: &[u8]) {
        let length = self.too_long.unwrap_or(self.carry.len() as u64) + part.len() as u64;
        if self.too_long.is_none() && length <= self.limit as u64 {
            self.carry.extend_from_slice(part);
            return;
        }
        self.too_long = Some(length);
        let missing = RAW_PREFIX_BYTES.saturating_sub(self.carry.len()).min(part.len());
        self.carry.extend_from_slice(&part[..missing]);
        self.carry.truncate(RAW_PREFIX_BYTES);
        self.carry.shrink_to(RAW_PREFIX_BYTES);
    }

    fn release(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        match self.too_long.take() {
            Some(length) => sink(Piece::TooLong(&self.carry, length)),
            None => sink(Piece::Lines(&self.carry)),
        }
        self.carry.clear();
        self.carry.shrink_to(1 << 20);
    }
}
