//! The two sides while they meet: the indexed side's rows and slots, the streamed right side's leading rows, and what comes of both.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;

use super::keys::{Keys, NONE, Value, exclude, without_nulls};
use super::shape::{Build, Layout, Shape};
use super::slots::Slots;
use super::winners::{Payload, Winners, new_bytes};

/// The rows of the side that is indexed, while they are collected.
pub(super) struct SideRows<V> {
    side: Build,
    keys: Keys,
    pub(super) batches: Vec<RecordBatch>,
    groups: Vec<u32>,
    values: Vec<V>,
    bytes: usize,
    buffers: HashSet<usize>,
}

/// What one side's rows are found by.
#[derive(Debug)]
pub(super) struct Index<V> {
    keys: Keys,
    slots: Slots<V>,
}

impl<V: Value> SideRows<V> {
    pub(super) fn try_new(shape: &Shape, side: Build) -> Result<Self> {
        let keys = Keys::try_new(&shape.key_types()?)?;
        Ok(Self { side, keys, batches: Vec::new(), groups: Vec::new(), values: Vec::new(), bytes: 0, buffers: HashSet::new() })
    }

    pub(super) fn push(&mut self, shape: &Shape, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (keys, matched) = shape.values(self.side, &batch)?;
        let mut groups = self.keys.insert(&keys, batch.num_rows())?;
        exclude(&mut groups, without_nulls(std::slice::from_ref(&matched)));
        let values = V::column(&matched)?;
        if std::mem::size_of::<V>() > 8 {
            self.bytes += values.iter().map(V::heap_bytes).sum::<usize>();
        }
        self.groups.extend(groups);
        self.values.extend_from_slice(&values);
        self.bytes += batch.columns().iter().map(|c| new_bytes(&c.to_data(), &mut self.buffers)).sum::<usize>();
        self.batches.push(batch);
        Ok(())
    }

    pub(super) fn rows(&self) -> usize {
        self.groups.len()
    }

    /// Bytes held now and while the index is built.
    pub(super) fn memory_bytes(&self) -> usize {
        let row = 2 * (4 + std::mem::size_of::<V>()) + std::mem::size_of::<(V, u32)>() + 4;
        self.bytes + self.rows() * row + self.keys.memory_bytes()
    }

    /// Bytes of the batches alone.
    pub(super) fn row_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one entry per row that leads, at most.
    pub(super) fn entry_bytes(&self) -> usize {
        Winners::<V>::entry_bytes(self.rows())
    }

    /// Whether no more slots can be numbered.
    pub(super) fn is_full(&self) -> bool {
        self.rows() >= u32::MAX as usize - 1
    }

    /// The index, the batches, and the slot of each of their rows.
    pub(super) fn build(self) -> (Index<V>, Vec<RecordBatch>, Vec<u32>) {
        let groups = self.keys.len();
        let (slots, slot_of) = Slots::build(&self.groups, self.values, groups);
        (Index { keys: self.keys, slots }, self.batches, slot_of)
    }

    /// The index of a right side, and the greatest row of each slot: of the rows with one key and match value.
    pub(super) fn build_right(self, shape: &Shape) -> Result<(Index<V>, Payload)> {
        let (index, batches, slot_of) = self.build();
        let layout = shape.layout(false);
        let mut winners = Winners::<V>::new(index.slots.len(), layout.ties.clone(), false);
        let same = vec![V::default(); batches.iter().map(RecordBatch::num_rows).max().unwrap_or_default()];
        let mut start = 0;
        for batch in batches {
            let columns = layout.keep.iter().map(|i| Arc::clone(batch.column(*i))).collect();
            // Rows of one slot have one value, so only ties decide.
            winners.offer(&slot_of[start..start + batch.num_rows()], &same, columns)?;
            start += batch.num_rows();
        }
        let payload = winners.finish(&layout.output, &layout.types, |_| {});
        Ok((index, payload))
    }
}

impl<V: Value> Index<V> {
    pub(super) fn cursors(&self) -> Vec<u32> {
        self.slots.cursors()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.slots.memory_bytes()
    }

    /// The slots that rows of the other side fall into, and their match values.
    pub(super) fn locate(&self, shape: &Shape, side: Build, batch: &RecordBatch, cursors: &mut [u32]) -> Result<(Vec<u32>, V::Column)> {
        let (keys, matched) = shape.values(side, batch)?;
        let mut slots = self.keys.find(&keys, batch.num_rows())?;
        exclude(&mut slots, without_nulls(std::slice::from_ref(&matched)));
        let values = V::column(&matched)?;
        let op = if side == Build::Right { shape.op } else { shape.op.flip() };
        self.slots.locate(&mut slots, op, &values, cursors);
        Ok((slots, values))
    }
}

/// The streamed right side's leading rows, and how they are read from its batches.
pub(super) struct Leading<V> {
    winners: Winners<V>,
    layout: Layout,
    cursors: Vec<u32>,
}

impl<V: Value> Leading<V> {
    /// `whole` keeps what is needed to spill a leading row as a row of the right side.
    pub(super) fn new(shape: &Shape, index: &Index<V>, whole: bool) -> Self {
        let layout = shape.layout(whole);
        let winners = Winners::new(index.slots.len(), layout.ties.clone(), shape.op.is_forward());
        Self { winners, layout, cursors: index.cursors() }
    }

    pub(super) fn offer(&mut self, shape: &Shape, index: &Index<V>, batch: &RecordBatch) -> Result<()> {
        let (slots, values) = index.locate(shape, Build::Right, batch, &mut self.cursors)?;
        let columns = self.layout.keep.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        self.winners.offer(&slots, &values, columns)
    }

    /// Fits the reservation to what is held; false where the pool refuses even after gathering.
    pub(super) fn fits(&mut self, reservation: &MemoryReservation) -> Result<bool> {
        if reservation.try_resize(self.memory_bytes()).is_ok() {
            return Ok(true);
        }
        self.winners.compact()?;
        Ok(reservation.try_resize(self.memory_bytes()).is_ok())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.winners.memory_bytes() + self.cursors.capacity() * 4
    }

    /// Bytes that are needed before the first row.
    pub(super) fn entry_bytes(index: &Index<V>) -> usize {
        Winners::<V>::entry_bytes(index.slots.len())
    }

    pub(super) fn compact(&mut self) -> Result<()> {
        self.winners.compact()
    }

    pub(super) fn into_batches(self, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let batches = self.winners.into_batches()?;
        batches.into_iter().map(|columns| Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)).collect()
    }

    pub(super) fn finish(parts: Vec<Self>, shape: &Shape, index: &Index<V>) -> Result<Payload> {
        let layout = match parts.first() {
            Some(p) => p.layout.clone(),
            None => shape.layout(false),
        };
        let whole = Winners::merge(parts.into_iter().map(|p| p.winners).collect())?;
        let whole = whole.unwrap_or_else(|| Winners::new(index.slots.len(), layout.ties.clone(), shape.op.is_forward()));
        let fill = |rows: &mut [(u32, u32)]| index.slots.fill(rows, shape.op.is_forward(), |r| r.0 == NONE);
        Ok(whole.finish(&layout.output, &layout.types, fill))
    }
}

/// Left rows with their slots, and what is in the slots.
#[derive(Debug)]
pub(super) struct Joined {
    /// Batches of the left side and where their rows' slots start.
    batches: Vec<(RecordBatch, usize)>,
    slots: Vec<u32>,
    payload: Payload,
}

impl Joined {
    /// Cuts the batches to `batch_rows`, so that what comes out is bounded.
    pub(super) fn new(left: Vec<RecordBatch>, slots: Vec<u32>, payload: Payload, batch_rows: usize) -> Self {
        let mut batches = Vec::with_capacity(left.len());
        let mut start = 0;
        for batch in left {
            let mut at = 0;
            while at < batch.num_rows() {
                let rows = batch_rows.max(1).min(batch.num_rows() - at);
                batches.push((batch.slice(at, rows), start + at));
                at += rows;
            }
            start += at;
        }
        Self { batches, slots, payload }
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn batch(&self, shape: &Shape, i: usize) -> Result<RecordBatch> {
        let (batch, start) = &self.batches[i];
        shape.assemble(batch, self.payload.gather(&self.slots[*start..start + batch.num_rows()])?)
    }
}
