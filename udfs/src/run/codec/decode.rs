//! Bytes back into runs, whatever the bytes.

use super::{BASE, EVICTED, folded};
use crate::codec::{Bits, CodecError, Column, Reader, SHORT, signed};
use crate::program::{Kind, Program};
use crate::run::dictionary::Dictionary;
use crate::run::store::{Place, Store};
use crate::run::{LARGE, Layout, Run, capacity_above, row_number};

/// Runs as they lie in bytes, taken out one after the other.
#[derive(Debug)]
pub struct RunsIn<'a> {
    program: &'a Program,
    flags: &'a [u8],
    lengths: Column<'a>,
    boundaries: Column<'a>,
    firsts: Column<'a>,
    steps: Column<'a>,
    key_lengths: Column<'a>,
    keys: Reader<'a>,
    values: Vec<ValuesIn<'a>>,
    masks: Vec<Bits>,
    bases: Reader<'a>,
    // How much was taken: runs, boundaries, runs with rows, steps.
    run: usize,
    boundary: usize,
    filled: usize,
    step: usize,
    row: usize,
}

#[derive(Debug)]
struct ValuesIn<'a> {
    valid: Bits,
    words: Column<'a>,
    high: Column<'a>,
    bits: Bits,
    entries: Column<'a>,
    entry_lengths: Column<'a>,
    entry_bytes: Reader<'a>,
    entry: usize,
}

impl<'a> RunsIn<'a> {
    /// Runs of a program, from bytes of [`RunsOut::finish`].
    pub fn new<'b: 'a>(program: &'a Program, from: &mut Reader<'b>) -> Result<RunsIn<'a>, CodecError> {
        let runs = from.count()?;
        let flags = from.raw(runs)?;
        let lengths = from.column(runs, false)?;
        let boundaries = from.column(flags.iter().filter(|flags| **flags & EVICTED != 0).count(), false)?;
        let filled = (0..runs).filter(|run| lengths.get(*run) > 0).count();
        let firsts = from.column(filled, false)?;
        // A row that is no run's first takes a byte at least.
        let rows = lengths.sum(from.left().saturating_add(filled))?;
        if row_number_of(rows).is_none() {
            return Err(CodecError("there are too many rows"));
        }
        let steps = from.column(rows - filled, true)?;
        let key_lengths = from.column(if program.layout.key.is_some() { rows } else { 0 }, false)?;
        let keys = Reader::new(from.raw(key_lengths.sum(from.left())?)?);
        let mut values = Vec::with_capacity(program.kinds.len());
        for kind in &program.kinds {
            values.push(ValuesIn::new(*kind, runs, rows, from)?);
        }
        let masks = (0..program.mask_count).map(|_| from.bits(rows)).collect::<Result<_, _>>()?;
        let bases = Reader::new(from.string()?);
        let (run, boundary, step, row) = (0, 0, 0, 0);
        let filled = 0;
        Ok(RunsIn {
            program,
            flags,
            lengths,
            boundaries,
            firsts,
            steps,
            key_lengths,
            keys,
            values,
            masks,
            bases,
            run,
            boundary,
            filled,
            step,
            row,
        })
    }

    /// How many runs are still to come.
    pub fn left(&self) -> usize {
        self.flags.len() - self.run
    }

    /// The next run; none where all were taken.
    pub fn next_run(&mut self) -> Result<Option<Run>, CodecError> {
        let Some(flags) = self.flags.get(self.run).copied() else { return Ok(None) };
        let program = self.program;
        let mut run = Run::new();
        if flags & EVICTED != 0 {
            (run.evicted, run.boundary) = (true, signed(self.boundaries.get(self.boundary)));
            self.boundary += 1;
        }
        if flags & BASE != 0 {
            run.extra_mut().base = Some(Box::new(folded::decode(program, &mut self.bases)?));
        }
        let length = self.lengths.get(self.run) as usize;
        self.run += 1;
        if length > 0 {
            self.rows(&mut run, length)?;
            run.mark_all(program);
            if length > LARGE {
                run.build_directory(program);
            }
        }
        Ok(Some(run))
    }

    fn rows(&mut self, run: &mut Run, length: usize) -> Result<(), CodecError> {
        let (program, layout, first_row) = (self.program, &self.program.layout, self.row);
        let mut capacity = 0;
        while capacity < length && capacity < 64 {
            capacity = capacity_above(capacity, false);
        }
        let capacity = capacity.max(if length > 64 { length.next_multiple_of(64) } else { 0 });
        let mut store = Store::default();
        store.resize(layout, capacity, 0, 0);
        let mut time = signed(self.firsts.get(self.filled));
        self.filled += 1;
        store.set_word(0, 0, time as u64);
        for row in 1..length {
            let next = (time as u64).wrapping_add(self.steps.get(self.step)) as i64;
            self.step += 1;
            if next < time {
                return Err(CodecError("events are out of order"));
            }
            time = next;
            store.set_word(0, row, time as u64);
        }
        if let Some(column) = layout.key {
            let keys = &mut run.extra_mut().keys;
            let mut before: &[u8] = &[];
            for row in 0..length {
                let key = self.keys.raw(self.key_lengths.get(first_row + row) as usize)?;
                if row > 0 && store.word(0, row) == store.word(0, row - 1) && key < before {
                    return Err(CodecError("events are out of order"));
                }
                before = key;
                store.set_word(column, row, keys.push(key));
            }
        }
        for (value, from) in self.values.iter_mut().enumerate() {
            fill_bits(&mut store, layout, layout.validity(value), &from.valid, first_row, length);
            let kind = program.kinds[value];
            let flip = if matches!(kind, Kind::Int64 | Kind::Timestamp) { 1 << 63 } else { 0 };
            match layout.values[value] {
                Place::Word(column) => (0..length).for_each(|row| store.set_word(column, row, from.words.get(first_row + row) ^ flip)),
                Place::Wide(column) => {
                    for row in 0..length {
                        store.set_word(column, row, from.words.get(first_row + row));
                        store.set_word(column + 1, row, from.high.get(first_row + row) ^ 1 << 63);
                    }
                }
                Place::Bit(column) => fill_bits(&mut store, layout, column, &from.bits, first_row, length),
                Place::Half(column) if kind == Kind::Bytes => {
                    let dictionary = from.dictionary(self.run - 1)?;
                    for row in 0..length {
                        let code = from.words.get(first_row + row);
                        let valid = from.valid.get(first_row + row);
                        if valid && code >= dictionary.len() as u64 {
                            return Err(CodecError("a code stands for nothing"));
                        }
                        store.set_half(layout, column, row, if valid { code as u32 } else { 0 });
                    }
                    let dictionaries = &mut run.extra_mut().dictionaries;
                    dictionaries.resize_with(dictionaries.len().max(layout.dictionaries[value] + 1), Dictionary::default);
                    dictionaries[layout.dictionaries[value]] = dictionary;
                }
                Place::Half(column) => {
                    let flip = if kind == Kind::Float32 { 0 } else { 1 << 31 };
                    (0..length).for_each(|row| store.set_half(layout, column, row, from.words.get(first_row + row) as u32 ^ flip));
                }
            }
        }
        for (mask, from) in self.masks.iter().enumerate() {
            fill_bits(&mut store, layout, layout.mask(mask), from, first_row, length);
        }
        self.row += length;
        (run.store, run.start, run.len) = (store, 0, row_number(length));
        Ok(())
    }
}

/// Whether so many rows can be numbered.
fn row_number_of(rows: usize) -> Option<u32> {
    u32::try_from(rows).ok().filter(|rows| *rows < u32::MAX / 2)
}

/// Writes the bits `first..first + length` of a column into the first rows of a store.
fn fill_bits(store: &mut Store, layout: &Layout, column: usize, from: &Bits, first: usize, length: usize) {
    for row in 0..length {
        if from.get(first + row) {
            store.set_bit(layout, column, row, true);
        }
    }
}

impl<'a> ValuesIn<'a> {
    fn new<'b: 'a>(kind: Kind, runs: usize, rows: usize, from: &mut Reader<'b>) -> Result<ValuesIn<'a>, CodecError> {
        let nothing = Reader::new(&[]).column(0, false)?;
        let valid = from.bits(rows)?;
        let mut values = ValuesIn {
            valid,
            words: nothing,
            high: nothing,
            bits: Bits::new(),
            entries: nothing,
            entry_lengths: nothing,
            entry_bytes: Reader::new(&[]),
            entry: 0,
        };
        match kind {
            Kind::Boolean => values.bits = from.bits(rows)?,
            Kind::Bytes => {
                values.entries = from.column(runs, false)?;
                values.entry_lengths = from.column(values.entries.sum(from.left())?, true)?;
                values.entry_bytes = Reader::new(from.raw(values.entry_lengths.sum(from.left())?)?);
                values.words = from.column(rows, false)?;
            }
            Kind::Int64 | Kind::Timestamp | Kind::Int32 | Kind::Date | Kind::Float32 | Kind::Float64 => {
                values.words = from.column(rows, false)?;
            }
            Kind::Decimal { .. } => (values.words, values.high) = (from.column(rows, false)?, from.column(rows, false)?),
        }
        Ok(values)
    }

    /// The byte strings of the next run with rows.
    fn dictionary(&mut self, run: usize) -> Result<Dictionary, CodecError> {
        let count = self.entries.get(run) as usize;
        let lengths = self.entry..self.entry + count;
        self.entry += count;
        let mut end = 0;
        let ends = lengths.map(|entry| {
            end += self.entry_lengths.get(entry) as usize;
            end
        });
        let ends: Vec<usize> = ends.collect();
        let bytes = self.entry_bytes.raw(ends.last().copied().unwrap_or(0)).map_err(|_| SHORT)?;
        Ok(Dictionary::of(bytes.to_vec(), ends))
    }
}
