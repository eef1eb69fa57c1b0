//! Events of a view cut into pieces by entity hash, in memory or, under a memory limit, in spill files.
//!
//! A piece holds what a run keeps of each event, evaluated already: entity columns, event time, order key, values, masks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::Result as DfResult;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SpillFile;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use super::super::View;
use super::sweep::SpineView;
use crate::error::{Error, Result};
use crate::op::events::Events;
use crate::op::relation::{mask, utc};
use crate::state::key::EntityKeys;

/// How many pieces there are: enough that one of them fits the cache for millions of events.
pub(super) const PIECES: usize = 64;

/// The piece of an entity.
pub(super) fn piece_of(hash: u64) -> usize {
    (hash >> 58) as usize % PIECES
}

/// A piece as the sweep takes it.
pub(super) struct PieceEvents {
    pub entity: Vec<ArrayRef>,
    pub times: ScalarBuffer<i64>,
    pub keys: Option<BinaryArray>,
    pub values: Vec<ArrayRef>,
    pub masks: Vec<BooleanArray>,
}

/// One task's part of every piece.
#[derive(Default)]
struct Part {
    held: Vec<Vec<RecordBatch>>,
    files: Vec<Vec<Arc<dyn SpillFile>>>,
}

/// The events of a view that can matter to a spine, by piece.
pub(super) struct Pieces {
    parts: Vec<Part>,
    shape: Shape,
    threads: usize,
    _reservations: Vec<MemoryReservation>,
}

/// The columns of a piece.
#[derive(Clone)]
struct Shape {
    schema: SchemaRef,
    entity: usize,
    keyed: bool,
    values: usize,
    masks: usize,
}

impl Shape {
    fn of(view: &View) -> Self {
        let plan = &view.plan;
        let mut fields: Vec<Field> = plan.entity.iter().map(|e| Field::new(&e.name, e.data_type.clone(), true)).collect();
        fields.push(Field::new("__time", asof_sql::plan::instant_type(), true));
        if plan.ordered {
            fields.push(Field::new("__key", DataType::Binary, true));
        }
        fields.extend(plan.values.iter().enumerate().map(|(i, v)| Field::new(format!("__value_{i}"), v.expr.data_type.clone(), true)));
        fields.extend((0..plan.masks.len()).map(|i| Field::new(format!("__mask_{i}"), DataType::Boolean, true)));
        Self {
            schema: Arc::new(Schema::new(fields)),
            entity: plan.entity.len(),
            keyed: plan.ordered,
            values: plan.values.len(),
            masks: plan.masks.len(),
        }
    }
}

/// A set of hashes that may hold some more: events of entities that the spine does not name are dropped early.
struct Wanted {
    bits: Vec<u64>,
    mask: usize,
}

impl Wanted {
    fn of(spine: &SpineView) -> Self {
        let size = (spine.times.len() * 16).next_power_of_two().clamp(1 << 10, 1 << 30);
        let mut wanted = Self { bits: vec![0; size / 64], mask: size - 1 };
        for key in (0..spine.times.len()).filter_map(|row| spine.key(row)) {
            let at = EntityKeys::hash(key) as usize & wanted.mask;
            wanted.bits[at / 64] |= 1 << (at % 64);
        }
        wanted
    }

    fn may_hold(&self, hash: u64) -> bool {
        let at = hash as usize & self.mask;
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }
}

impl Pieces {
    /// Runs a plan of events and cuts them; the partitions run side by side.
    pub(super) async fn collect(
        plan: Arc<dyn ExecutionPlan>,
        view: Arc<View>,
        spine: Arc<SpineView>,
        context: Arc<TaskContext>,
    ) -> DfResult<Pieces> {
        let partitions = plan.properties().output_partitioning().partition_count();
        let shape = Shape::of(&view);
        let wanted = Arc::new(Wanted::of(&spine));
        let spilled = Arc::new(AtomicBool::new(false));
        let next_id = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..partitions)
            .map(|partition| {
                let reservation =
                    MemoryConsumer::new(format!("FeatureJoinExec events {partition}")).with_can_spill(true).register(context.memory_pool());
                let mut cutter = Cutter {
                    view: view.clone(),
                    shape: shape.clone(),
                    wanted: wanted.clone(),
                    part: Part { held: vec![vec![]; PIECES], files: (0..PIECES).map(|_| vec![]).collect() },
                    reservation,
                    context: context.clone(),
                    spilled: spilled.clone(),
                    next_id: next_id.clone(),
                };
                let (plan, context) = (plan.clone(), context.clone());
                SpawnedTask::spawn(async move {
                    let rows = view_rows_schema(&cutter.view);
                    let mut stream = plan.execute(partition, context)?;
                    while let Some(batch) = stream.next().await {
                        let events = Events::from_batch(&batch?, &rows, cutter.shape.keyed)?;
                        cutter.push(&events)?;
                    }
                    Ok::<_, datafusion::error::DataFusionError>((cutter.part, cutter.reservation))
                })
            })
            .collect();
        let (mut parts, mut reservations) = (Vec::new(), Vec::new());
        for task in tasks {
            let (part, reservation) = task.join_unwind().await.map_err(|e| Error::internal(e.to_string()))??;
            parts.push(part);
            reservations.push(reservation);
        }
        Ok(Pieces { parts, shape, threads: context.session_config().target_partitions().max(1), _reservations: reservations })
    }

    /// How many threads the sweep may use.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// All events of one piece; `None` where there are none.
    pub(super) fn load(&self, piece: usize) -> Result<Option<PieceEvents>> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        for part in &self.parts {
            for file in part.files.get(piece).into_iter().flatten() {
                let path = file.path().ok_or_else(|| Error::internal("a spill file has no path"))?;
                let reader = StreamReader::try_new(std::io::BufReader::new(std::fs::File::open(path)?), None)?;
                for batch in reader {
                    batches.push(batch?);
                }
            }
            batches.extend(part.held.get(piece).into_iter().flatten().cloned());
        }
        if batches.is_empty() {
            return Ok(None);
        }
        let all = concat_batches(&self.shape.schema, &batches)?;
        let mut columns = all.columns().iter().cloned();
        let mut next = |n: usize| columns.by_ref().take(n).collect::<Vec<ArrayRef>>();
        let entity = next(self.shape.entity);
        let times = next(1);
        let times = times.first().and_then(|t| t.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::internal("a piece lacks its event times"))?.values().clone();
        let keys = if self.shape.keyed { next(1).first().and_then(|k| k.as_binary_opt::<i32>().cloned()) } else { None };
        let values = next(self.shape.values);
        let masks = next(self.shape.masks).iter().filter_map(|m| m.as_boolean_opt().cloned()).collect();
        Ok(Some(PieceEvents { entity, times, keys, values, masks }))
    }
}

fn view_rows_schema(view: &View) -> SchemaRef {
    view.plan.relation.schema()
}

/// The batch without the text buffers of rows that were not taken: a string view keeps the whole page that it points into.
fn compact(batch: &RecordBatch) -> DfResult<RecordBatch> {
    let columns = batch.columns().iter().map(|c| match c.data_type() {
        DataType::Utf8View => Arc::new(c.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(c.as_binary_view().gc()) as ArrayRef,
        _ => c.clone(),
    });
    Ok(RecordBatch::try_new(batch.schema(), columns.collect())?)
}

/// Cuts the batches of one partition.
struct Cutter {
    view: Arc<View>,
    shape: Shape,
    wanted: Arc<Wanted>,
    part: Part,
    reservation: MemoryReservation,
    context: Arc<TaskContext>,
    spilled: Arc<AtomicBool>,
    next_id: Arc<AtomicUsize>,
}

impl Cutter {
    fn push(&mut self, events: &Events) -> DfResult<()> {
        let plan = &self.view.plan;
        let entity: Vec<ArrayRef> = plan.entity.iter().map(|e| events.rows.column(e.column).clone()).collect();
        let keys = EntityKeys::try_new(&entity, events.len())?;
        // A counting sort of the wanted rows by piece.
        let mut pieces = vec![u8::MAX; events.len()];
        let mut starts = [0u32; PIECES + 1];
        for (row, piece) in pieces.iter_mut().enumerate() {
            let Some(hash) = keys.get(row).map(EntityKeys::hash).filter(|h| self.wanted.may_hold(*h)) else { continue };
            *piece = piece_of(hash) as u8;
            starts[usize::from(*piece) + 1] += 1;
        }
        for i in 0..PIECES {
            starts[i + 1] += starts[i];
        }
        let mut next = starts;
        let mut picks = vec![0u32; starts[PIECES] as usize];
        for (row, piece) in pieces.iter().enumerate().filter(|(_, p)| **p != u8::MAX) {
            let at = &mut next[usize::from(*piece)];
            picks[*at as usize] = row as u32;
            *at += 1;
        }
        if picks.is_empty() {
            return Ok(());
        }
        let mut columns = entity;
        columns.push(utc(events.times.clone()));
        if self.shape.keyed {
            let keys = events.keys.clone().ok_or_else(|| Error::internal("events of an ordered view lack their keys"))?;
            columns.push(Arc::new(keys));
        }
        for value in &plan.values {
            columns.push(value.expr.evaluate(&events.rows)?);
        }
        for m in &plan.masks {
            columns.push(Arc::new(mask(m, &events.rows)?));
        }
        let rows = RecordBatch::try_new(self.shape.schema.clone(), columns)?;
        let sorted = compact(&take_record_batch(&rows, &UInt32Array::from(picks))?)?;
        if self.reservation.try_grow(sorted.get_array_memory_size()).is_err() {
            self.spill()?;
            self.reservation.try_grow(sorted.get_array_memory_size())?;
        }
        for piece in 0..PIECES {
            let (from, to) = (starts[piece] as usize, starts[piece + 1] as usize);
            if from < to {
                self.part.held[piece].push(sorted.slice(from, to - from));
            }
        }
        Ok(())
    }

    /// Writes what is held to files, a file a piece, and gives the memory back.
    fn spill(&mut self) -> DfResult<()> {
        self.spilled.store(true, Ordering::Relaxed);
        for piece in 0..PIECES {
            let held = std::mem::take(&mut self.part.held[piece]);
            if held.is_empty() {
                continue;
            }
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let file = self.context.runtime_env().disk_manager.create_tmp_file(&format!("feature join piece {piece} {id}"))?;
            let path = file.path().ok_or_else(|| Error::internal("a spill file has no path"))?;
            let mut writer = StreamWriter::try_new(std::io::BufWriter::new(std::fs::File::create(path)?), &self.shape.schema)?;
            // One batch: slices would write their whole buffers each.
            writer.write(&concat_batches(&self.shape.schema, &held)?)?;
            writer.finish()?;
            self.part.files[piece].push(file);
        }
        self.reservation.free();
        Ok(())
    }
}
