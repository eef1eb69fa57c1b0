//! Files as sources: JSON lines, CSV and Parquet by path, folder or glob, decoded on a task of their own.
//!
//! Decoded chunks come through a bounded channel, so that decoding and the pipeline run side by side in bounded memory. Not here: what
//! becomes of the records (`ingest`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use asof_sql::ast::FileFormat;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
#[expect(deprecated, reason = "its successor is a trait to implement; the reader itself does all that is needed")]
use datafusion::parquet::arrow::async_reader::ParquetObjectReader;
use datafusion::prelude::SessionContext;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::stream::decode::{CsvLines, CsvOptions, Decoded, JsonLines, Options, decode_batch};
use crate::stream::schema::StreamSchema;

/// Rows of one decoded chunk.
const CHUNK_ROWS: usize = 65_536;
/// Decoded chunks that wait for the pipeline.
const CHUNKS_WAITING: usize = 4;

/// Files of one format.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// The files, by name.
    pub files: Vec<ObjectMeta>,
    format: FileFormat,
    /// What was asked for, for messages.
    what: String,
}

impl Files {
    /// Finds the files of a path, folder or glob.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] where there is none, or where the format is neither given nor told by the ending.
    pub async fn find(context: &SessionContext, path: &str, format: Option<FileFormat>) -> Result<Self> {
        let url = ListingTableUrl::parse(path).map_err(|e| Error::invalid(format!("\"{path}\" is not a usable path: {e}")))?;
        let store = context.runtime_env().object_store(&url)?;
        let unreadable = |e: &dyn std::fmt::Display| Error::invalid(format!("cannot read \"{path}\": {e}"));
        let state = context.state();
        let listed = url.list_all_files(&state, store.as_ref(), "").await.map_err(|e| unreadable(&e))?;
        let mut files: Vec<ObjectMeta> = listed.try_collect().await.map_err(|e| unreadable(&e))?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        let Some(first) = files.first() else { return Err(Error::invalid(format!("no file at \"{path}\""))) };
        let by_ending = match first.location.extension().map(str::to_lowercase).as_deref() {
            Some("json" | "jsonl" | "ndjson") => Some(FileFormat::Json),
            Some("csv") => Some(FileFormat::Csv),
            Some("parquet") => Some(FileFormat::Parquet),
            _ => None,
        };
        let format = format
            .or(by_ending)
            .ok_or_else(|| Error::invalid(format!("the format of \"{path}\" is not known; give FORMAT json, csv or parquet")))?;
        Ok(Self { store, files, format, what: path.to_owned() })
    }

    /// One of the files alone.
    pub fn only(&self, file: &ObjectMeta) -> Files {
        Files { files: vec![file.clone()], ..self.clone() }
    }

    /// Decodes all files, one after the other; records are numbered from 0 over all of them, and those before `skip` are left out.
    pub fn decode(self, schema: Arc<StreamSchema>, options: Options, skip: i64) -> mpsc::Receiver<Result<Decoded>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
        tokio::spawn(async move {
            // The end of the channel says that all was read, so a reader that a damaged file makes panic has to say that it did not.
            let decoded = AssertUnwindSafe(self.decode_all(&schema, &options, skip, &sender)).catch_unwind().await;
            if let Err(e) = decoded.unwrap_or_else(|_| Err(Error::data("the file is damaged"))) {
                // A closed channel means that nobody waits for the error.
                let _ = sender.send(Err(e.context(format!("reading \"{}\"", self.what)))).await;
            }
        });
        receiver
    }

    async fn decode_all(&self, schema: &Arc<StreamSchema>, options: &Options, skip: i64, out: &Sender) -> Result<()> {
        let mut next = 0;
        for file in &self.files {
            next = match self.format {
                FileFormat::Json => self.json(file, schema, options, next, skip, out).await?,
                FileFormat::Csv => self.csv(file, schema, options, next, skip, out).await?,
                FileFormat::Parquet => self.parquet(file, schema, options, next, skip, out).await?,
                FileFormat::Delta => {
                    return Err(Error::invalid("a Delta table is read with CREATE EXTERNAL TABLE and INSERT INTO ... SELECT"));
                }
            };
        }
        Ok(())
    }

    async fn json(
        &self,
        file: &ObjectMeta,
        schema: &Arc<StreamSchema>,
        options: &Options,
        first: i64,
        skip: i64,
        out: &Sender,
    ) -> Result<i64> {
        let mut lines = JsonLines::try_new(schema.clone(), options, first)?;
        let mut bytes = self.store.get(&file.location).await?.into_stream();
        while let Some(chunk) = bytes.next().await {
            lines.feed(&chunk?);
            if lines.pending() >= CHUNK_ROWS && !send(out, lines.take()?, skip).await? {
                return Ok(lines.next_offset());
            }
        }
        lines.finish();
        send(out, lines.take()?, skip).await?;
        Ok(lines.next_offset())
    }

    async fn csv(
        &self,
        file: &ObjectMeta,
        schema: &Arc<StreamSchema>,
        options: &Options,
        first: i64,
        skip: i64,
        out: &Sender,
    ) -> Result<i64> {
        let mut lines = CsvLines::try_new(schema.clone(), options, CsvOptions::default(), first)?;
        let mut bytes = self.store.get(&file.location).await?.into_stream();
        while let Some(chunk) = bytes.next().await {
            lines.feed(&chunk?)?;
            if lines.pending() >= CHUNK_ROWS && !send(out, lines.take()?, skip).await? {
                return Ok(lines.next_offset());
            }
        }
        lines.finish()?;
        send(out, lines.take()?, skip).await?;
        Ok(lines.next_offset())
    }

    async fn parquet(
        &self,
        file: &ObjectMeta,
        schema: &Arc<StreamSchema>,
        options: &Options,
        mut next: i64,
        skip: i64,
        out: &Sender,
    ) -> Result<i64> {
        #[expect(deprecated, reason = "as above")]
        let reader = ParquetObjectReader::new(self.store.clone(), file.location.clone()).with_file_size(file.size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let names: Vec<&str> = schema.columns().iter().map(|c| c.name.as_str()).collect();
        let wanted: Vec<usize> =
            builder.schema().fields().iter().enumerate().filter(|(_, f)| names.contains(&f.name().as_str())).map(|(i, _)| i).collect();
        let projection = datafusion::parquet::arrow::ProjectionMask::roots(builder.parquet_schema(), wanted);
        let mut batches = builder.with_projection(projection).with_batch_size(CHUNK_ROWS).build()?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let decoded = decode_batch(schema, options, &batch, next)?;
            next += batch.num_rows() as i64;
            if !send(out, decoded, skip).await? {
                break;
            }
        }
        Ok(next)
    }
}

type Sender = mpsc::Sender<Result<Decoded>>;

/// Hands a chunk on, without the records before `skip`; false where nobody takes it.
async fn send(out: &Sender, mut decoded: Decoded, skip: i64) -> Result<bool> {
    if skip > 0 {
        let first = decoded.offsets.partition_point(|o| *o < skip);
        decoded.rows = decoded.rows.slice(first, decoded.rows.num_rows() - first);
        decoded.offsets.drain(..first);
        decoded.rejected.retain(|r| r.offset >= skip);
    }
    if decoded.read() == 0 {
        return Ok(true);
    }
    Ok(out.send(Ok(decoded)).await.is_ok())
}
