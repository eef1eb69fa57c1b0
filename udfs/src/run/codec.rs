//! Runs as bytes, many at once: what a checkpoint keeps of them.
//!
//! Only what a run holds is written: events, what was folded, the greatest evicted time. Codes are numbered anew in the order of the rows,
//! so equal runs of equal events are equal bytes, however they came about. Marks and directories follow from the rows and are made again.
//!
//! ```text
//! runs        how many
//! run         flags (evicted, has a base), how many rows, boundary of the evicted ones, first time of the ones with rows
//! row         distance to the time before; order key; value columns (validity, values); masks
//! base        of the runs that have one: horizon, key, folded rows (`folded`)
//! ```
//! Each line is columns over all runs or rows. A decoder takes any bytes and gives runs of sound form, or an error. That sums and values are
//! those of events is not seen from the bytes: whoever keeps them checks that they are the ones written before they are decoded. Not
//! here: which entity a run belongs to.

mod decode;
mod folded;
#[cfg(test)]
mod tests;

pub use decode::RunsIn;

use super::Run;
use super::dictionary::Dictionary;
use super::store::Place;
use crate::codec::{Bits, Writer, bits_at, ordered};
use crate::program::{Kind, Program};

const EVICTED: u8 = 1;
const BASE: u8 = 2;

/// Runs on their way into bytes.
#[derive(Debug)]
pub struct RunsOut<'a> {
    program: &'a Program,
    flags: Vec<u8>,
    lengths: Vec<u64>,
    boundaries: Vec<u64>,
    firsts: Vec<u64>,
    steps: Vec<u64>,
    key_lengths: Vec<u64>,
    keys: Vec<u8>,
    values: Vec<ValuesOut>,
    masks: Vec<Bits>,
    bases: Writer,
    /// By old code, the new one of a run's value.
    codes: Vec<u32>,
}

#[derive(Debug, Default)]
struct ValuesOut {
    valid: Bits,
    words: Vec<u64>,
    high: Vec<u64>,
    bits: Bits,
    /// Per run, how many distinct byte strings; their lengths; they themselves.
    entries: Vec<u64>,
    entry_lengths: Vec<u64>,
    entry_bytes: Vec<u8>,
}

impl<'a> RunsOut<'a> {
    /// No runs of a program yet.
    pub fn new(program: &'a Program) -> RunsOut<'a> {
        let mut values = Vec::new();
        values.resize_with(program.kinds.len(), ValuesOut::default);
        RunsOut {
            program,
            flags: vec![],
            lengths: vec![],
            boundaries: vec![],
            firsts: vec![],
            steps: vec![],
            key_lengths: vec![],
            keys: vec![],
            values,
            masks: vec![Bits::new(); program.mask_count],
            bases: Writer::new(),
            codes: vec![],
        }
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Adds a run.
    pub fn push(&mut self, run: &Run) {
        let base = run.base();
        self.flags.push(if run.evicted { EVICTED } else { 0 } | if base.is_some() { BASE } else { 0 });
        self.lengths.push(run.len() as u64);
        if run.evicted {
            self.boundaries.push(ordered(run.boundary));
        }
        if let Some(base) = base {
            folded::encode(base, self.program, &mut self.bases);
        }
        if !run.is_empty() {
            self.rows(run);
        } else {
            self.values.iter_mut().zip(&self.program.kinds).filter(|(_, kind)| **kind == Kind::Bytes).for_each(|(v, _)| v.entries.push(0));
        }
    }

    fn rows(&mut self, run: &Run) {
        let (program, layout, store) = (self.program, &self.program.layout, &run.store);
        let (start, end) = (run.start(), run.end());
        let times = &store.words(0)[start..end];
        self.firsts.push(ordered(times[0] as i64));
        self.steps.extend(times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        if let (Some(column), Some(extra)) = (layout.key, &run.extra) {
            for place in &store.words(column)[start..end] {
                let key = extra.keys.get(*place);
                self.key_lengths.push(key.len() as u64);
                self.keys.extend_from_slice(key);
            }
        }
        for (value, out) in self.values.iter_mut().enumerate() {
            out.valid.extend(store.bits(layout, layout.validity(value)), start, end);
            match layout.values[value] {
                Place::Word(column) => out.words.extend_from_slice(&store.words(column)[start..end]),
                Place::Wide(column) => {
                    out.words.extend_from_slice(&store.words(column)[start..end]);
                    out.high.extend_from_slice(&store.words(column + 1)[start..end]);
                }
                Place::Bit(column) => out.bits.extend(store.bits(layout, column), start, end),
                Place::Half(column) if program.kinds[value] == Kind::Bytes => {
                    let dictionary = run.dictionary(layout.dictionaries[value]);
                    let valid = store.bits(layout, layout.validity(value));
                    let codes = (start..end).map(|row| (store.half(layout, column, row), bits_at(valid, row, 1) == 1));
                    out.bytes(dictionary, codes, &mut self.codes);
                }
                Place::Half(column) => out.words.extend((start..end).map(|row| u64::from(store.half(layout, column, row)))),
            }
        }
        for (mask, out) in self.masks.iter_mut().enumerate() {
            out.extend(store.bits(layout, layout.mask(mask)), start, end);
        }
    }

    /// The bytes of all.
    pub fn finish(self, into: &mut Writer) {
        into.number(self.flags.len() as u64);
        into.raw(&self.flags);
        into.column(&self.lengths, false);
        into.column(&self.boundaries, false);
        into.column(&self.firsts, false);
        into.column(&self.steps, true);
        into.column(&self.key_lengths, false);
        into.raw(&self.keys);
        for (kind, out) in self.program.kinds.iter().zip(self.values) {
            into.bits(&out.valid);
            match kind {
                Kind::Boolean => into.bits(&out.bits),
                Kind::Bytes => {
                    into.column(&out.entries, false);
                    into.column(&out.entry_lengths, true);
                    into.raw(&out.entry_bytes);
                    into.column(&out.words, false);
                }
                Kind::Int64 | Kind::Timestamp => into.column(&flipped(out.words, 63), false),
                Kind::Int32 | Kind::Date => into.column(&flipped(out.words, 31), false),
                Kind::Float32 | Kind::Float64 => into.column(&out.words, false),
                Kind::Decimal { .. } => {
                    into.column(&out.words, false);
                    into.column(&flipped(out.high, 63), false);
                }
            }
        }
        self.masks.iter().for_each(|mask| into.bits(mask));
        into.string(&self.bases.into_bytes());
    }
}

/// Numbers of both signs stand close together once their sign bit is turned.
fn flipped(mut words: Vec<u64>, sign: u32) -> Vec<u64> {
    words.iter_mut().for_each(|word| *word ^= 1 << sign);
    words
}

impl ValuesOut {
    /// The byte strings of one run: those that rows have, each once, in the order of the rows.
    fn bytes(&mut self, dictionary: Option<&Dictionary>, codes: impl Iterator<Item = (u32, bool)>, new: &mut Vec<u32>) {
        new.clear();
        new.resize(dictionary.map_or(0, Dictionary::len), u32::MAX);
        let mut count = 0;
        for (code, valid) in codes {
            let Some((dictionary, slot)) = dictionary.zip(new.get_mut(code as usize)).filter(|_| valid) else {
                self.words.push(0);
                continue;
            };
            if *slot == u32::MAX {
                *slot = count;
                count += 1;
                let bytes = dictionary.get(code);
                self.entry_lengths.push(bytes.len() as u64);
                self.entry_bytes.extend_from_slice(bytes);
            }
            self.words.push(u64::from(*slot));
        }
        self.entries.push(u64::from(count));
    }
}
