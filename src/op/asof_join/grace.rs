//! The join of sides that do not fit in memory: both on disk in pieces by key, each piece joined alone.
//!
//! A piece's left rows are taken in chunks that fit, and the piece's right rows stream past each chunk: any left rows can be answered
//! apart from the others. So a key with more rows than memory holds, or a join without keys, costs more passes and never fails.

use std::hash::BuildHasher;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::hash_utils::create_hashes_with_hasher;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::spill_file::SpillFile;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::SpillMetrics;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::DefaultHashBuilder;
use tokio::sync::mpsc::Sender;

use super::keys::{Value, canonical, fits_i64};
use super::shape::{Build, Shape, evaluate};
use super::side::{Joined, Leading, SideRows};

/// How many pieces a side with keys is cut into.
const PIECES: usize = 16;
/// A chunk of no more left rows than this is joined whether the memory pool agrees or not.
const MIN_CHUNK_ROWS: usize = 1024;

/// One side's rows on disk, by piece.
pub(super) struct Spilled {
    manager: SpillManager,
    files: Vec<Option<Arc<dyn SpillFile>>>,
    bytes: usize,
    rows: usize,
}

/// Both sides on disk.
pub(super) struct Pieces {
    left: Spilled,
    right: Vec<Spilled>,
}

impl Pieces {
    pub(super) fn new(left: Spilled, right: Vec<Spilled>) -> Self {
        Self { left, right }
    }
}

/// Appends a batch to a file and says how large it was; without a batch ends the file. DataFusion's own writer has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<(usize, Option<Arc<dyn SpillFile>>)> + Send>;

fn writer(manager: &SpillManager) -> Result<Writer> {
    let mut file = manager.create_in_progress_file("AsofJoin")?;
    Ok(Box::new(move |batch| match batch {
        Some(batch) => Ok((file.append_batch(batch)?, None)),
        None => Ok((0, file.finish()?)),
    }))
}

/// Writes one side's rows to the pieces their keys belong to.
pub(super) struct Spiller {
    manager: SpillManager,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    hash: DefaultHashBuilder,
    files: Vec<Writer>,
    bytes: usize,
    rows: usize,
}

impl Spiller {
    /// Both sides of a join are given the same `hash`.
    pub(super) fn try_new(
        context: &TaskContext,
        schema: SchemaRef,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        hash: DefaultHashBuilder,
        metrics: SpillMetrics,
    ) -> Result<Self> {
        let manager = SpillManager::new(context.runtime_env(), metrics, schema);
        let pieces = if keys.is_empty() { 1 } else { PIECES };
        let files = (0..pieces).map(|_| writer(&manager)).collect::<Result<_>>()?;
        Ok(Self { manager, keys, hash, files, bytes: 0, rows: 0 })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        if let [file] = self.files.as_mut_slice() {
            self.bytes += file(Some(batch))?.0;
            return Ok(());
        }
        let keys: Vec<_> = evaluate(&self.keys, batch)?.iter().map(canonical).collect();
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes_with_hasher(&keys, &self.hash, &mut hashes)?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.files.len()];
        for (i, hash) in hashes.into_iter().enumerate() {
            // Hashed once more, so that pieces have nothing in common with the tables inside them.
            rows[self.hash.hash_one(hash) as usize % PIECES].push(i as u32);
        }
        for (file, rows) in self.files.iter_mut().zip(rows) {
            if !rows.is_empty() {
                self.bytes += file(Some(&take_record_batch(batch, &UInt32Array::from(rows))?))?.0;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Spilled> {
        let files = self.files.iter_mut().map(|f| Ok(f(None)?.1)).collect::<Result<_>>()?;
        Ok(Spilled { manager: self.manager, files, bytes: self.bytes, rows: self.rows })
    }
}

/// One piece, ready to be read as often as it takes.
struct Piece {
    shape: Arc<Shape>,
    left: Option<(SpillManager, Arc<dyn SpillFile>)>,
    right: Vec<(SpillManager, Arc<dyn SpillFile>)>,
    /// What a leading row is expected to take.
    right_row_bytes: usize,
    batch_rows: usize,
}

/// The rows of every `step`th piece from `first`, where `share` is (first, step).
pub(super) fn join(
    shape: Arc<Shape>,
    pieces: &Pieces,
    share: (usize, usize),
    context: Arc<TaskContext>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let (bytes, rows) = pieces.right.iter().fold((0, 0), |(b, r), s| (b + s.bytes, r + s.rows));
    let mut mine = Vec::new();
    for p in (share.0..pieces.left.files.len()).step_by(share.1.max(1)) {
        let file = |s: &Spilled| s.files.get(p).cloned().flatten().map(|f| (s.manager.clone(), f));
        mine.push(Piece {
            shape: Arc::clone(&shape),
            left: file(&pieces.left),
            right: pieces.right.iter().filter_map(file).collect(),
            right_row_bytes: bytes / rows.max(1),
            batch_rows: context.session_config().batch_size(),
        });
    }
    let generic = !fits_i64(&shape.match_type()?);
    let held = MemoryConsumer::new("AsofJoin[piece]").with_can_spill(true).register(context.memory_pool());
    let mut output = RecordBatchReceiverStreamBuilder::new(Arc::clone(&shape.schema), 2);
    let sender = output.tx();
    output.spawn(async move {
        for piece in mine {
            if generic {
                piece.join::<Box<[u8]>>(&held, &sender).await?;
            } else {
                piece.join::<i64>(&held, &sender).await?;
            }
        }
        Ok(())
    });
    Ok(output.build().boxed())
}

impl Piece {
    async fn join<V: Value>(&self, held: &MemoryReservation, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
        let Some((manager, file)) = &self.left else { return Ok(()) };
        let mut left = manager.read_spill_as_stream_unbuffered(Arc::clone(file), None)?;
        let mut chunk = SideRows::<V>::try_new(&self.shape, Build::Left)?;
        while let Some(batch) = left.next().await {
            chunk.push(&self.shape, batch?)?;
            let expected = chunk.memory_bytes() + chunk.rows() * 2 * (self.right_row_bytes + 32);
            if held.try_resize(expected).is_err() {
                let full = std::mem::replace(&mut chunk, SideRows::try_new(&self.shape, Build::Left)?);
                self.join_chunk::<V>(full.batches, held, sender).await?;
            }
        }
        self.join_chunk::<V>(chunk.batches, held, sender).await?;
        held.free();
        Ok(())
    }

    /// Joins left rows with the whole piece's right rows, in halves where together they do not fit.
    async fn join_chunk<V: Value>(
        &self,
        batches: Vec<RecordBatch>,
        held: &MemoryReservation,
        sender: &Sender<Result<RecordBatch>>,
    ) -> Result<()> {
        let mut pending = vec![batches];
        while let Some(batches) = pending.pop() {
            match self.try_chunk::<V>(&batches, held).await? {
                Some(joined) => {
                    for i in 0..joined.len() {
                        if sender.send(self.joined(&joined, i)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                None => pending.extend(halves(batches)),
            }
        }
        Ok(())
    }

    fn joined(&self, joined: &Joined, i: usize) -> Result<RecordBatch> {
        joined.batch(&self.shape, i)
    }

    async fn try_chunk<V: Value>(&self, batches: &[RecordBatch], held: &MemoryReservation) -> Result<Option<Joined>> {
        let mut rows = SideRows::<V>::try_new(&self.shape, Build::Left)?;
        for batch in batches {
            rows.push(&self.shape, batch.clone())?;
        }
        let must = rows.rows() <= MIN_CHUNK_ROWS;
        let fixed = rows.memory_bytes();
        let (index, batches, slot_of) = rows.build();
        let mut leading = Leading::new(&self.shape, &index, false);
        for (manager, file) in &self.right {
            let mut right = manager.read_spill_as_stream_unbuffered(Arc::clone(file), None)?;
            while let Some(batch) = right.next().await {
                leading.offer(&self.shape, &index, &batch?)?;
                if held.try_resize(fixed + leading.memory_bytes()).is_ok() {
                    continue;
                }
                leading.compact()?;
                let bytes = fixed + leading.memory_bytes();
                if held.try_resize(bytes).is_err() {
                    if !must {
                        return Ok(None);
                    }
                    held.resize(bytes);
                }
            }
        }
        let payload = Leading::finish(vec![leading], &self.shape, &index)?;
        Ok(Some(Joined::new(batches, slot_of, payload, self.batch_rows)))
    }
}

/// Two halves of some rows, by batches while there are several.
fn halves(mut batches: Vec<RecordBatch>) -> [Vec<RecordBatch>; 2] {
    if batches.len() > 1 {
        let second = batches.split_off(batches.len() / 2);
        return [second, batches];
    }
    let cut = |b: &RecordBatch| {
        let middle = b.num_rows() / 2;
        [vec![b.slice(middle, b.num_rows() - middle)], vec![b.slice(0, middle)]]
    };
    batches.first().map_or_else(Default::default, cut)
}
