//! Rows to Parquet files: split by event date, encoded on threads of their own, measured for the log.
//!
//! A [`Writer`] gathers rows per date until a row group is full, encodes its columns in parallel while the caller makes the next
//! batches, and puts a file when it is large enough. Rows gathered and files being made are bounded, whatever dates the rows have.
//! Nothing is visible before a commit names the files; those of a writer that is dropped are never read. Not here: the commit (`table`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{BatchCoalescer, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use chrono::{Datelike, NaiveDate};
use deltalake_core::kernel::Add;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use tokio::task::JoinHandle;

use super::table::{Layout, Table, inside};
use super::{ARRIVED_AT, DATE, OFFSET, PARTITION, REVISION, stats};
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock};

const DAY_US: i64 = 86_400_000_000;
const DAYS_TO_EPOCH: i32 = 719_163;

/// A value that is new in more than half of this many rows gets no dictionary.
const SAMPLE_ROWS: usize = 4096;

/// A piece of a batch with fewer rows is copied together with its neighbours.
const PIECE_ROWS: usize = 2048;

/// Row groups with fewer rows are encoded by one thread.
const PARALLEL_ROWS: usize = 16_384;

/// How a [`Writer`] shapes its files.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Rows of a full row group.
    pub row_group_rows: usize,
    /// The encoded bytes from which on a file is put.
    pub file_bytes: usize,
    /// Rows that wait for their row groups, over all dates.
    pub pending_rows_max: usize,
    /// Bytes of rows that wait and of files that are not put yet, over all dates.
    pub memory_bytes_max: usize,
    /// Threads that encode.
    pub threads: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            row_group_rows: 262_144,
            file_bytes: 64 << 20,
            pending_rows_max: 2 << 20,
            memory_bytes_max: 256 << 20,
            threads: std::thread::available_parallelism().map_or(2, usize::from).min(4),
        }
    }
}

/// Files that were written and that no commit names yet.
#[derive(Debug, Clone, Default)]
pub struct WrittenFiles {
    files: Vec<Add>,
    rows: u64,
}

impl WrittenFiles {
    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many rows are in them.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes another writer's files, too.
    pub fn extend(&mut self, other: WrittenFiles) {
        self.files.extend(other.files);
        self.rows += other.rows;
    }

    pub(super) fn into_actions(self) -> Vec<Add> {
        self.files
    }
}

/// Writes rows of one table to data files, of any number of rows in bounded memory.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
    options: WriteOptions,
    open: BTreeMap<i32, OpenFile>,
    pending_rows: usize,
    memory_bytes: usize,
    properties: Option<Arc<WriterProperties>>,
    encoding: Option<(i32, JoinHandle<Result<Encoder>>)>,
    written: WrittenFiles,
}

/// The file of one date.
#[derive(Debug)]
struct OpenFile {
    /// Small pieces on their way to `pending`.
    small: BatchCoalescer,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    encoder: Option<Encoder>,
    /// Bytes of `encoder`, also while a thread has it.
    encoded_bytes: usize,
}

impl Writer {
    pub(super) fn try_new(table: Arc<Table>, options: WriteOptions) -> Result<Self> {
        Ok(Self {
            table,
            options,
            open: BTreeMap::new(),
            pending_rows: 0,
            memory_bytes: 0,
            properties: None,
            encoding: None,
            written: WrittenFiles::default(),
        })
    }

    /// Takes rows, in any order; returns when there is room for more.
    ///
    /// - Errors: [`crate::error::Kind::Internal`] for a batch of other columns or with a NULL where there can be none;
    ///   [`crate::error::Kind::Unavailable`] where a file cannot be put. The writer is then of no more use.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let layout = Arc::clone(self.table.layout());
        let batch = RecordBatch::try_new(Arc::clone(&layout.schema), batch.columns().to_vec())
            .map_err(|e| Error::internal(format!("rows do not fit {}: {e}", self.table.name())))?;
        for (date, piece) in split(&layout, batch)? {
            self.add(date, piece)?;
            let full = self.open.get(&date).is_some_and(|f| f.pending_rows >= self.options.row_group_rows);
            if full {
                self.encode(date).await?;
            }
        }
        while self.pending_rows > self.options.pending_rows_max || self.memory_bytes > self.options.memory_bytes_max {
            self.make_room().await?;
        }
        Ok(())
    }

    /// Writes what is left and names the files for [`super::Commit::files`].
    pub async fn finish(mut self) -> Result<WrittenFiles> {
        for date in self.open.keys().copied().collect::<Vec<_>>() {
            self.encode(date).await?;
            self.settle().await?;
            self.put(date).await?;
        }
        let table = self.table.path();
        let paths = self.written.files.iter().map(|file| inside(format!("{table}/{}", file.path)));
        self.table.warehouse().sync(paths.collect()).await?;
        Ok(self.written)
    }

    fn add(&mut self, date: i32, piece: RecordBatch) -> Result<()> {
        let rows = piece.num_rows();
        let bytes = bytes_of(&piece);
        let schema = piece.schema();
        let file = self.open.entry(date).or_insert_with(|| OpenFile {
            small: BatchCoalescer::new(schema, 4 * PIECE_ROWS),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            encoder: None,
            encoded_bytes: 0,
        });
        if rows < PIECE_ROWS {
            file.small.push_batch(piece)?;
            while let Some(batch) = file.small.next_completed_batch() {
                file.pending.push(batch);
            }
        } else {
            file.pending.push(piece);
        }
        file.pending_rows += rows;
        file.pending_bytes += bytes;
        self.pending_rows += rows;
        self.memory_bytes += bytes;
        Ok(())
    }

    /// Starts encoding a date's waiting rows as one row group, once the row group before is encoded.
    async fn encode(&mut self, date: i32) -> Result<()> {
        self.settle().await?;
        let Some(file) = self.open.get_mut(&date) else { return Ok(()) };
        file.small.finish_buffered_batch()?;
        while let Some(batch) = file.small.next_completed_batch() {
            file.pending.push(batch);
        }
        if file.pending.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut file.pending);
        self.pending_rows -= std::mem::take(&mut file.pending_rows);
        self.memory_bytes -= std::mem::take(&mut file.pending_bytes);
        let layout = self.table.layout();
        let properties = match (&self.properties, batches.first()) {
            (Some(properties), _) => Arc::clone(properties),
            (None, Some(sample)) => Arc::new(properties(layout, sample)?),
            (None, None) => return Ok(()),
        };
        self.properties = Some(Arc::clone(&properties));
        let encoder = match file.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::try_new(&layout.schema, properties)?,
        };
        let threads = self.options.threads;
        let job = tokio::task::spawn_blocking(move || encoder.encode(&batches, threads));
        self.encoding = Some((date, job));
        Ok(())
    }

    /// Waits for the row group that is being encoded, and puts its file where that is large enough.
    async fn settle(&mut self) -> Result<()> {
        let Some((date, job)) = self.encoding.take() else { return Ok(()) };
        let encoder = job.await.map_err(|e| Error::internal(format!("encoding rows failed: {e}")))??;
        let bytes = encoder.bytes();
        let Some(file) = self.open.get_mut(&date) else { return Err(Error::internal("encoded rows of no file")) };
        self.memory_bytes = self.memory_bytes - file.encoded_bytes + bytes;
        file.encoded_bytes = bytes;
        file.encoder = Some(encoder);
        if bytes >= self.options.file_bytes { self.put(date).await } else { Ok(()) }
    }

    /// Encodes the date with most rows, or puts the largest file where that is what takes the memory.
    async fn make_room(&mut self) -> Result<()> {
        self.settle().await?;
        let most_rows = self.open.iter().filter(|(_, f)| f.pending_rows > 0).max_by_key(|(_, f)| f.pending_bytes);
        let largest = self.open.iter().filter(|(_, f)| f.encoder.is_some()).max_by_key(|(_, f)| f.encoded_bytes);
        let waiting = most_rows.map_or(0, |(_, f)| f.pending_bytes);
        let many = self.pending_rows > self.options.pending_rows_max;
        match (most_rows.map(|(d, _)| *d), largest.map(|(d, f)| (*d, f.encoded_bytes))) {
            (Some(date), largest) if many || largest.is_none_or(|(_, bytes)| bytes <= waiting) => {
                self.encode(date).await?;
                self.settle().await
            }
            (_, Some((date, _))) => self.put(date).await,
            _ => Ok(()),
        }
    }

    /// Puts the file of a date. Rows that still wait go to its next file.
    async fn put(&mut self, date: i32) -> Result<()> {
        let Some(file) = self.open.get_mut(&date) else { return Ok(()) };
        let encoder = file.encoder.take();
        self.memory_bytes -= std::mem::take(&mut file.encoded_bytes);
        if file.pending_rows == 0 {
            self.open.remove(&date);
        }
        let Some(encoder) = encoder else { return Ok(()) };
        let rows = encoder.rows;
        let (bytes, stats) = encoder.finish()?;
        let by_date = self.table.layout().by_date;
        let name = format!("part-{}.zstd.parquet", uuid::Uuid::new_v4());
        let day = format_date(date);
        let path = if by_date { format!("{DATE}={day}/{name}") } else { name };
        let location = inside(format!("{}/{path}", self.table.path()));
        let size = i64::try_from(bytes.len()).map_err(|_| Error::internal("a file of more than 8 EiB"))?;
        let warehouse = self.table.warehouse();
        let put = warehouse.store().put(&location, bytes.into()).await;
        put.map_err(|e| Error::unavailable(format!("cannot write \"{}\": {e}", warehouse.name_of(&location))))?;
        self.written.rows += rows;
        self.written.files.push(Add {
            path,
            partition_values: by_date.then(|| (DATE.to_owned(), Some(day))).into_iter().collect(),
            size,
            modification_time: SystemClock.now().0 / 1000,
            data_change: true,
            stats: Some(stats),
            ..Add::default()
        });
        Ok(())
    }
}

/// A Parquet file in the making, in memory.
struct Encoder {
    schema: SchemaRef,
    writer: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    groups: usize,
    rows: u64,
    null_counts: Vec<u64>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Encoder {
    fn try_new(schema: &SchemaRef, properties: Arc<WriterProperties>) -> Result<Self> {
        let parquet = ArrowSchemaConverter::new().convert(schema)?;
        let writer = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), properties)?;
        let factory = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(schema));
        let null_counts = vec![0; schema.fields().len()];
        Ok(Self { schema: Arc::clone(schema), writer, factory, groups: 0, rows: 0, null_counts })
    }

    fn bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Encodes batches as one row group, column by column on several threads.
    fn encode(mut self, batches: &[RecordBatch], threads: usize) -> Result<Self> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let writers = self.factory.create_column_writers(self.groups)?;
        let threads = if rows < PARALLEL_ROWS { 1 } else { threads.clamp(1, writers.len().max(1)) };
        let chunks = encode_columns(&self.schema, writers, batches, threads)?;
        let mut group = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        for batch in batches {
            for (count, column) in self.null_counts.iter_mut().zip(batch.columns()) {
                *count += column.null_count() as u64;
            }
        }
        self.groups += 1;
        self.rows += rows as u64;
        Ok(self)
    }

    /// The file and its statistics for the log.
    fn finish(mut self) -> Result<(Vec<u8>, String)> {
        let metadata = self.writer.finish()?;
        let stats = stats::to_json(&self.schema, &metadata, &self.null_counts);
        Ok((std::mem::take(self.writer.inner_mut()), stats))
    }
}

fn encode_columns(
    schema: &Schema,
    writers: Vec<ArrowColumnWriter>,
    batches: &[RecordBatch],
    threads: usize,
) -> Result<Vec<ArrowColumnChunk>> {
    let encode = |column: usize, mut writer: ArrowColumnWriter| -> Result<ArrowColumnChunk> {
        for batch in batches {
            for leaf in compute_leaves(schema.field(column), batch.column(column))? {
                writer.write(&leaf)?;
            }
        }
        Ok(writer.close()?)
    };
    if threads == 1 {
        return writers.into_iter().enumerate().map(|(column, writer)| encode(column, writer)).collect();
    }
    // Each thread takes the next column that nobody has: columns differ much in cost.
    let slots = writers.into_iter().map(|writer| Mutex::new((Some(writer), None))).collect::<Vec<_>>();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let column = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(column) else { return };
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.1 = slot.0.take().map(|writer| encode(column, writer));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let done = slots.into_iter().map(|slot| {
        let (_, chunk) = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        chunk.unwrap_or_else(|| Err(Error::internal("a column was not encoded")))
    });
    done.collect()
}

/// How columns are encoded, judged by the first rows.
fn properties(layout: &Layout, sample: &RecordBatch) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(1)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("asof {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(None);
    for (i, field) in layout.schema.fields().iter().enumerate() {
        let path = ColumnPath::new(vec![field.name().clone()]);
        let rising = i == layout.time || field.name() == OFFSET || field.name() == ARRIVED_AT;
        let constant = field.name() == PARTITION || field.name() == REVISION;
        if rising {
            properties =
                properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        } else if field.data_type().is_floating() {
            // Parquet's least and greatest float pass over NaN, which is greater than all: nobody may prune by them.
            properties = properties
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_dictionary_enabled(path, repeats(sample.column(i))?);
        } else if !constant {
            properties = properties.set_column_dictionary_enabled(path, repeats(sample.column(i))?);
        }
    }
    Ok(properties.build())
}

/// Whether at most half of the first rows have a value of their own.
fn repeats(column: &ArrayRef) -> Result<bool> {
    let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
    let rows = RowConverter::new(vec![SortField::new(sample.data_type().clone())])?.convert_columns(&[Arc::clone(&sample)])?;
    let distinct = rows.iter().collect::<std::collections::HashSet<_>>().len();
    Ok(2 * distinct <= sample.len())
}

/// The rows of each date, in the order they came.
fn split(layout: &Layout, batch: RecordBatch) -> Result<Vec<(i32, RecordBatch)>> {
    if !layout.by_date {
        return Ok(vec![(0, batch)]);
    }
    let times = batch.column(layout.time).as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or_else(|| Error::internal("rows without event time"))?.values().clone();
    let dates = times.iter().map(|t| date_of(*t)).collect::<Vec<_>>();
    let runs = dates.chunk_by(|a, b| a == b).collect::<Vec<_>>();
    let mut rows_of: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    if runs.iter().all(|run| run.len() >= PIECE_ROWS) || runs.len() <= 2 {
        let mut start = 0;
        let slice = |run: &[i32]| {
            let piece = batch.slice(start, run.len());
            start += run.len();
            (run.first().copied().unwrap_or_default(), piece)
        };
        return Ok(runs.into_iter().map(slice).collect());
    }
    for (row, date) in dates.iter().enumerate() {
        let row = u32::try_from(row).map_err(|_| Error::internal("a batch of more than 4 billion rows"))?;
        rows_of.entry(*date).or_default().push(row);
    }
    let pieces = rows_of.into_iter().map(|(date, rows)| Ok((date, take_record_batch(&batch, &UInt32Array::from(rows))?)));
    pieces.collect()
}

/// About the memory that only these rows take.
fn bytes_of(batch: &RecordBatch) -> usize {
    let column = |c: &ArrayRef| match c.data_type() {
        DataType::Utf8View => 16 * c.len() + c.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => 16 * c.len() + c.as_binary_view().total_buffer_bytes_used(),
        other => c.len() * other.primitive_width().unwrap_or(1),
    };
    batch.columns().iter().map(column).sum()
}

/// The day of an event time since the Unix epoch. What lies outside of years 1 to 9999 counts as their first or last day.
fn date_of(time: i64) -> i32 {
    let day = i32::try_from(time.div_euclid(DAY_US)).unwrap_or(if time < 0 { i32::MIN } else { i32::MAX });
    day.clamp(first_day(), last_day())
}

/// The event times of a day, as [`date_of`] has it.
pub(super) fn times_of_date(date: i32) -> (i64, i64) {
    let start = i64::from(date) * DAY_US;
    let from = if date <= first_day() { i64::MIN } else { start };
    let to = if date >= last_day() { i64::MAX } else { start + DAY_US - 1 };
    (from, to)
}

/// January 1st of year 1.
const fn first_day() -> i32 {
    1 - DAYS_TO_EPOCH
}

/// December 31st of year 9999.
const fn last_day() -> i32 {
    3_652_059 - DAYS_TO_EPOCH
}

fn format_date(date: i32) -> String {
    let date = NaiveDate::from_num_days_from_ce_opt(date.saturating_add(DAYS_TO_EPOCH)).unwrap_or_default();
    date.format("%Y-%m-%d").to_string()
}

/// A date as [`format_date`] writes it; `None` for another text.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|d| d.num_days_from_ce() - DAYS_TO_EPOCH)
}
