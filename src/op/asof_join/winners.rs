//! The best right row of each slot so far, and only those rows' columns.
//!
//! Batches are kept whole while one of their rows leads. When what is kept outgrows what leads, the leading rows of the batches since the
//! last time are gathered into new ones and the rest is let go; where that is not enough, those of all batches are. History comes nearly in
//! order, so a row that still leads by then mostly leads for good and is copied once. Memory is that of the slots, not of the right side.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayData, ArrayRef, AsArray, DynComparator, make_comparator, new_null_array};
use datafusion::arrow::compute::{SortOptions, interleave};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::keys::{NONE, Value, canonical};

/// Rows of one gathered batch: offsets of 32 bits hold strings of 32 KiB each. Tests are small and gather all the same.
const GATHER_ROWS: usize = if cfg!(test) { 1 << 5 } else { 1 << 16 };
/// Rows kept beyond three per leading row before the kept batches are gathered anew.
const SLACK_ROWS: usize = if cfg!(test) { 1 << 4 } else { 1 << 16 };

#[derive(Debug, Clone, Default)]
struct Best<V> {
    value: V,
    batch: u32,
    row: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Winners<V> {
    best: Vec<Best<V>>,
    kept: Vec<Vec<ArrayRef>>,
    /// How many of the kept batches, from the first, were gathered; and their rows.
    gathered: usize,
    gathered_rows: usize,
    /// Positions in a kept batch of the columns that decide ties.
    ties: Vec<usize>,
    forward: bool,
    filled: usize,
    kept_rows: usize,
    kept_bytes: usize,
    buffers: HashSet<usize>,
}

impl<V: Value> Winners<V> {
    pub(super) fn new(slots: usize, ties: Vec<usize>, forward: bool) -> Self {
        let none = Best { value: V::default(), batch: NONE, row: 0 };
        Self {
            best: vec![none; slots],
            kept: Vec::new(),
            gathered: 0,
            gathered_rows: 0,
            ties,
            forward,
            filled: 0,
            kept_rows: 0,
            kept_bytes: 0,
            buffers: HashSet::new(),
        }
    }

    /// Bytes of the entries for `slots` slots.
    pub(super) fn entry_bytes(slots: usize) -> usize {
        slots * std::mem::size_of::<Best<V>>()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        Self::entry_bytes(self.best.len()) + self.kept_bytes + self.buffers.len() * 16
    }

    /// Sets rows of a batch, each with its slot and match value, against the best of their slots.
    pub(super) fn offer(&mut self, slots: &[u32], values: &[V], columns: Vec<ArrayRef>) -> Result<()> {
        let current = self.kept.len() as u32;
        let mut ties = Ties::new(&self.ties);
        let mut leads = false;
        for (i, slot) in slots.iter().enumerate() {
            if *slot == NONE {
                continue;
            }
            let best = &mut self.best[*slot as usize];
            let order = values[i].cmp(&best.value);
            let better = if best.batch == NONE {
                self.filled += 1;
                true
            } else {
                match order {
                    Ordering::Equal if ties.columns.is_empty() => false,
                    Ordering::Equal => {
                        let old = if best.batch == current { &columns } else { &self.kept[best.batch as usize] };
                        ties.compare((best.batch, old, best.row), (current, &columns, i as u32))? == Ordering::Less
                    }
                    order => (order == Ordering::Greater) != self.forward,
                }
            };
            if better {
                *best = Best { value: values[i].clone(), batch: current, row: i as u32 };
                leads = true;
            }
        }
        if leads {
            self.kept_rows += slots.len();
            self.keep(columns);
            if self.kept_rows > 3 * self.filled + SLACK_ROWS {
                self.gather(self.gathered)?;
                if self.kept_rows > 2 * self.filled + SLACK_ROWS {
                    self.gather(0)?;
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, columns: Vec<ArrayRef>) {
        self.kept_bytes += columns.iter().map(|c| new_bytes(&c.to_data(), &mut self.buffers)).sum::<usize>();
        self.kept.push(columns);
    }

    /// Lets go of all rows that lead nowhere.
    pub(super) fn compact(&mut self) -> Result<()> {
        self.gather(0)
    }

    /// Lets go of the rows that lead nowhere in the batches behind the first `from`.
    fn gather(&mut self, from: usize) -> Result<()> {
        let kept = self.kept.split_off(from);
        let mut kept_rows = if from == 0 { 0 } else { self.gathered_rows };
        let width = kept.first().map_or(0, Vec::len);
        let sources: Vec<Vec<&dyn Array>> = (0..width).map(|c| kept.iter().map(|k| k[c].as_ref()).collect()).collect();
        let mut rows = Vec::with_capacity(GATHER_ROWS.min(self.filled));
        let mut start = 0;
        while start < self.best.len() {
            rows.clear();
            let mut end = start;
            while end < self.best.len() && rows.len() < GATHER_ROWS {
                let best = &mut self.best[end];
                if best.batch != NONE && best.batch as usize >= from {
                    rows.push((best.batch as usize - from, best.row as usize));
                    (best.batch, best.row) = (self.kept.len() as u32, rows.len() as u32 - 1);
                }
                end += 1;
            }
            start = end;
            if !rows.is_empty() {
                let gathered = sources.iter().map(|arrays| Ok(tight(interleave(arrays, &rows)?))).collect::<Result<Vec<_>>>()?;
                self.kept.push(gathered);
            }
            kept_rows += rows.len();
        }
        self.gathered = self.kept.len();
        self.gathered_rows = kept_rows;
        self.kept_rows = kept_rows;
        self.buffers.clear();
        let arrays = self.kept.iter().flatten();
        self.kept_bytes = arrays.map(|c| new_bytes(&c.to_data(), &mut self.buffers)).sum();
        Ok(())
    }

    /// The kept batches, nothing but leading rows in them.
    pub(super) fn into_batches(mut self) -> Result<Vec<Vec<ArrayRef>>> {
        self.compact()?;
        Ok(self.kept)
    }

    /// The best of all parts, each of which saw other rows of the right side.
    pub(super) fn merge(parts: Vec<Self>) -> Result<Option<Self>> {
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else { return Ok(None) };
        for part in parts {
            let offset = whole.kept.len() as u32;
            whole.kept_rows += part.kept_rows;
            part.kept.into_iter().for_each(|k| whole.keep(k));
            let columns = whole.ties.clone();
            let mut ties = Ties::new(&columns);
            for (ours, theirs) in whole.best.iter_mut().zip(part.best) {
                if theirs.batch == NONE {
                    continue;
                }
                let theirs = Best { batch: theirs.batch + offset, ..theirs };
                let better = ours.batch == NONE
                    || match theirs.value.cmp(&ours.value) {
                        Ordering::Equal if ties.columns.is_empty() => false,
                        Ordering::Equal => {
                            let (a, b) = (&whole.kept[ours.batch as usize], &whole.kept[theirs.batch as usize]);
                            ties.compare((ours.batch, a, ours.row), (theirs.batch, b, theirs.row))? == Ordering::Less
                        }
                        order => (order == Ordering::Greater) != whole.forward,
                    };
                whole.filled += usize::from(ours.batch == NONE);
                if better {
                    *ours = theirs;
                }
            }
        }
        Ok(Some(whole))
    }

    /// What is asked once all rows were offered: per slot, filled by `fill`, the columns `output` of the best row.
    pub(super) fn finish(self, output: &[usize], types: &[DataType], fill: impl FnOnce(&mut [(u32, u32)])) -> Payload {
        let mut rows: Vec<(u32, u32)> = self.best.into_iter().map(|b| (b.batch, b.row)).collect();
        fill(&mut rows);
        let columns = output
            .iter()
            .zip(types)
            .map(|(c, t)| std::iter::once(new_null_array(t, 1)).chain(self.kept.iter().map(|k| Arc::clone(&k[*c]))).collect())
            .collect();
        Payload { rows, columns }
    }
}

/// The right columns of each slot's row.
#[derive(Debug)]
pub(super) struct Payload {
    /// Batch and row per slot; batch [`NONE`] is no row.
    rows: Vec<(u32, u32)>,
    /// Per column one null, then the batches.
    columns: Vec<Vec<ArrayRef>>,
}

impl Payload {
    /// Bytes of the slots; the rows belong to whoever gave them.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.capacity() * 8
    }

    /// The columns for rows with these slots; NULL where there is no slot, or nothing in it.
    pub(super) fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows: Vec<(usize, usize)> = slots
            .iter()
            .map(|s| match self.rows.get(*s as usize) {
                Some((batch, row)) if *batch != NONE => (*batch as usize + 1, *row as usize),
                _ => (0, 0),
            })
            .collect();
        let gather = |arrays: &Vec<ArrayRef>| {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            Ok(interleave(&arrays, &rows)?)
        };
        self.columns.iter().map(gather).collect()
    }
}

/// Compares rows by the tie columns, with the comparators of each pair of batches made once.
struct Ties<'a> {
    columns: &'a [usize],
    made: HashMap<(u32, u32), Vec<DynComparator>>,
}

impl<'a> Ties<'a> {
    fn new(columns: &'a [usize]) -> Self {
        Self { columns, made: HashMap::new() }
    }

    fn compare(&mut self, a: (u32, &Vec<ArrayRef>, u32), b: (u32, &Vec<ArrayRef>, u32)) -> Result<Ordering> {
        let comparators = match self.made.entry((a.0, b.0)) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => {
                let order = SortOptions { descending: false, nulls_first: true };
                let make = |c: &usize| Ok(make_comparator(&canonical(&a.1[*c]), &canonical(&b.1[*c]), order)?);
                e.insert(self.columns.iter().map(make).collect::<Result<_>>()?)
            }
        };
        let decide = |c: &DynComparator| c(a.2 as usize, b.2 as usize);
        Ok(comparators.iter().map(decide).find(|o| o.is_ne()).unwrap_or(Ordering::Equal))
    }
}

/// Bytes of the buffers not met before; batches share them.
pub(super) fn new_bytes(data: &ArrayData, met: &mut HashSet<usize>) -> usize {
    let buffers = data.buffers().iter().chain(data.nulls().map(|n| n.buffer()));
    let own: usize = buffers.filter(|b| met.insert(b.data_ptr().as_ptr() as usize)).map(|b| b.capacity()).sum();
    own + data.child_data().iter().map(|c| new_bytes(c, met)).sum::<usize>() + 64
}

/// Views of strings without the bytes of rows that are not there.
fn tight(array: ArrayRef) -> ArrayRef {
    fn slack<T: datafusion::arrow::datatypes::ByteViewType>(a: &datafusion::arrow::array::GenericByteViewArray<T>) -> bool {
        let held: usize = a.data_buffers().iter().map(|b| b.capacity()).sum();
        held > 2 * a.total_buffer_bytes_used() + 4096
    }
    match array.data_type() {
        DataType::Utf8View if slack(array.as_string_view()) => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView if slack(array.as_binary_view()) => Arc::new(array.as_binary_view().gc()),
        _ => array,
    }
}
