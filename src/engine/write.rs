//! Statements and calls that write: INSERT, pushes, COPY, REPROCESS, and file connectors. All end in one step of a stream's pipeline.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use asof_sql::ast::{CopyFrom, FileFormat, Insert};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use tokio::sync::OwnedMutexGuard;

use super::{Inner, OpenStream, Output, unknown_stream};
use crate::connect::files::Files;
use crate::connect::ingest::{IngestCounts, PUSH, Step, decode_options};
use crate::error::{Error, Result};
use crate::registry::{Connector, Stream};
use crate::stream::decode::{Decoded, JsonLines, decode_batch};
use crate::stream::watermark::Granularity;
use crate::warehouse::lease::LEASE_US;

impl Inner {
    pub(super) fn definition(&self, stream: &str) -> Result<Stream> {
        let registry = self.registry();
        registry.streams.get(stream).cloned().ok_or_else(|| unknown_stream(&registry, stream))
    }

    /// A stream's pipeline for writing: this process holds the stream's lease, and there is room for state.
    async fn writing(&self, stream: &str) -> Result<OwnedMutexGuard<OpenStream>> {
        self.check_state()?;
        self.holding(stream).await
    }

    /// Refuses to take more in where the online state is at its bound.
    pub(super) fn check_state(&self) -> Result<()> {
        let state = self.state_bytes();
        if state > self.settings.state_limit_bytes {
            return Err(Error::unavailable(format!(
                "online state takes {state} bytes, more than state_limit_bytes ({}); drop views or raise it (serve --state-limit-bytes)",
                self.settings.state_limit_bytes
            )));
        }
        Ok(())
    }

    /// A stream's pipeline, whose lease this process holds; of a stream that several share, one that remembers what all of them have read.
    pub(super) async fn holding(&self, stream: &str) -> Result<OwnedMutexGuard<OpenStream>> {
        let mut open = self.stream(stream).await?.lock_owned().await;
        let shared = open.pipeline.is_shared();
        if shared {
            self.settle(stream, &mut open).await?;
            self.commit_staged(stream, &mut open).await?;
        }
        let renew = self.now().saturating_sub(open.renewed) > LEASE_US / 3;
        if let Some(lease) = &open.lease {
            lease.check().await?;
            if renew {
                lease.renew().await?;
            }
        } else if !shared {
            let definition = self.definition(stream)?;
            let address = self.address.read().unwrap_or_else(|e| e.into_inner()).clone();
            let lease = self.warehouse.acquire(&definition.folder, address.as_deref(), self.clock.clone()).await?;
            // Another process may have written until now.
            if let Err(e) = self.catch_up(stream, &mut open).await {
                lease.release().await?;
                return Err(e);
            }
            open.lease = Some(lease);
            self.written.write().unwrap_or_else(|e| e.into_inner()).insert(stream.to_owned());
        }
        if shared {
            // What the others have read counts; what they go on to read, the commit will meet.
            self.catch_up(stream, &mut open).await?;
        }
        if renew {
            open.renewed = self.now();
        }
        self.settle(stream, &mut open).await?;
        Ok(open)
    }

    /// Takes and renews the leases of all streams, so that what is served is kept up without a look at the store; a stream that another
    /// process writes is read as before.
    pub(super) async fn keep_leases(&self) {
        let registry = self.registry();
        // Of those that several processes share the group decides.
        let streams = registry.streams.iter().filter(|(_, s)| s.key().is_none() || !self.is_member());
        let streams: Vec<String> = streams.map(|(name, _)| name.clone()).collect();
        futures::future::join_all(streams.iter().map(|name| self.keep_lease(name))).await;
    }

    async fn keep_lease(&self, name: &str) {
        // Also where there is no room for more: the stream stays this process's.
        let held = self.holding(name).await.and_then(|_| self.check_state());
        self.note_lease(name, held.as_ref().err()).await;
        let Err(e) = held else { return };
        tracing::warn!(stream = name, error = %e, "the stream's lease is not held");
        if e.kind() == crate::error::Kind::Closed {
            // Another process writes it now: from here on it is looked at anew.
            self.written.write().unwrap_or_else(|e| e.into_inner()).remove(name);
            if let Some(open) = self.streams.lock().await.get(name).cloned() {
                open.lock().await.lease = None;
            }
        }
    }

    /// The latest event time that is not too far in the future.
    fn latest(&self, stream: &Stream) -> i64 {
        self.now().saturating_add(stream.options.max_future_skew.unwrap_or(self.settings.max_future_skew_default_us))
    }

    pub(super) async fn applied(&self, stream: &str, open: &OpenStream, step: Step) -> IngestCounts {
        if let Some(changes) = step.changes.as_ref().filter(|_| !open.pipeline.is_shared() || self.is_current(stream, open)) {
            self.metrics.step(stream, &step.counts, open.pipeline.history().commit_took());
            self.apply(stream, open.pipeline.history(), open.pipeline.greatest(), changes).await;
        }
        step.counts
    }

    /// One call of JSON lines.
    pub(super) async fn push_json(&self, stream: &str, lines: &[u8], token: Option<&str>) -> Result<IngestCounts> {
        let definition = self.definition(stream)?;
        let mut open = self.writing(stream).await?;
        let options = decode_options(&definition, self.settings.record_bytes_max, Some(self.latest(&definition)));
        let first = open.pipeline.next_offset(PUSH).await?;
        let mut decoder = JsonLines::try_new(definition.schema.clone(), &options, first)?;
        decoder.feed(lines);
        decoder.finish();
        let decoded = decoder.take()?;
        self.push(stream, &mut open, decoded, token).await
    }

    /// One call of batches.
    pub(crate) async fn push_batch(&self, stream: &str, batches: &[RecordBatch], token: Option<&str>) -> Result<IngestCounts> {
        let definition = self.definition(stream)?;
        let mut open = self.writing(stream).await?;
        let options = decode_options(&definition, self.settings.record_bytes_max, Some(self.latest(&definition)));
        let first = open.pipeline.next_offset(PUSH).await?;
        let batch = match batches {
            [] => return Ok(IngestCounts::default()),
            [one] => one.clone(),
            [head, ..] => arrow::compute::concat_batches(&head.schema(), batches)?,
        };
        let decoded = decode_batch(&definition.schema, &options, &batch, first)?;
        self.push(stream, &mut open, decoded, token).await
    }

    async fn push(&self, stream: &str, open: &mut OpenStream, decoded: Decoded, token: Option<&str>) -> Result<IngestCounts> {
        let now = self.now();
        let step = open.pipeline.take(PUSH, decoded, Granularity::Call, token, now).await?;
        self.note_step(stream, &open.pipeline, PUSH, &step).await;
        Ok(self.applied(stream, open, step).await)
    }

    /// `INSERT INTO`: one step.
    pub(super) async fn insert(&self, insert: &Insert, params: &[ScalarValue]) -> Result<Output> {
        let definition = self.definition(&insert.stream.value)?;
        // Rows may write one column as a string here and as TIMESTAMP '...' there: both are read as the column's own type.
        let plan = match self.plan(&insert.source, params).await {
            Err(e) if e.message().contains("Inconsistent data type") => self.plan(&literal_rows(&insert.source), params).await?,
            plan => plan?,
        };
        let batches = self.collect(plan).await?;
        let names: Vec<String> = match &insert.columns {
            Some(names) => names.names.iter().map(|n| n.value.clone()).collect(),
            None => definition.schema.columns().iter().map(|c| c.name.clone()).collect(),
        };
        let given = batches.1.first().map_or(batches.0.fields().len(), RecordBatch::num_columns);
        if given != names.len() {
            return Err(Error::invalid(format!(
                "INSERT INTO \"{}\" names {} columns, its source has {given}",
                insert.stream.value,
                names.len()
            )));
        }
        for (i, name) in names.iter().enumerate() {
            if !definition.schema.columns().iter().any(|c| &c.name == name) {
                return Err(Error::invalid(format!("stream \"{}\" has no column \"{name}\"", insert.stream.value)));
            }
            if names[..i].contains(name) {
                return Err(Error::invalid(format!("INSERT INTO names column \"{name}\" twice")));
            }
        }
        let renamed = batches.1.iter().map(|b| {
            let fields: Vec<Field> = names.iter().zip(b.columns()).map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(b.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), b.columns().to_vec(), &options)?)
        });
        let renamed: Vec<RecordBatch> = renamed.collect::<Result<_>>()?;
        let counts = self.push_batch(&insert.stream.value, &renamed, None).await?;
        Ok(done("INSERT", counts))
    }

    /// `COPY stream FROM`: one commit, exempt from lateness.
    pub(super) async fn copy_from(&self, copy: &CopyFrom) -> Result<Output> {
        let stream = &copy.stream.value;
        let definition = self.definition(stream)?;
        let token = copy.token.as_ref().map(|(t, _)| t.as_str());
        let files = Files::find(&self.context, &copy.path, copy.format.map(|(f, _)| f)).await?;
        let mut open = self.writing(stream).await?;
        if let Some(token) = token
            && open.pipeline.applied(token).await?
        {
            return Ok(done("COPY (token applied before)", IngestCounts::default()));
        }
        let options = decode_options(&definition, self.settings.record_bytes_max, None);
        let mut decoded = files.decode(definition.schema.clone(), options, 0);
        let partition = format!("copy-{}", uuid::Uuid::new_v4().simple());
        let now = self.now();
        let mut load = open.pipeline.load(partition, now).await?;
        while let Some(chunk) = decoded.recv().await {
            let added = match chunk {
                Ok(chunk) => load.add(chunk).await,
                Err(e) => Err(e),
            };
            if let Err(e) = added {
                load.abandon();
                return Err(e);
            }
        }
        let step = load.commit(token).await?;
        let counts = self.applied(stream, &open, step).await;
        Ok(done("COPY", counts))
    }

    /// `REPROCESS LATE EVENTS FOR`.
    pub(super) async fn reprocess(&self, stream: &str) -> Result<Output> {
        self.definition(stream)?;
        let mut open = self.writing(stream).await?;
        let now = self.now();
        let step = open.pipeline.reprocess(now).await?;
        let counts = self.applied(stream, &open, step).await;
        Ok(done("REPROCESS", counts))
    }

    /// Reads what is new in the files of a stream with the file connector.
    pub(crate) async fn read_files(&self, stream: &str) -> Result<IngestCounts> {
        let definition = self.definition(stream)?;
        let Connector::File { path, format, .. } = &definition.options.connector else { return Ok(IngestCounts::default()) };
        let format = format.as_deref().and_then(FileFormat::find);
        let files = Files::find(&self.context, path, format).await?;
        let mut total = IngestCounts::default();
        for file in &files.files {
            let partition = format!("file/{}", file.location);
            let mut open = self.writing(stream).await?;
            // What a crash left half done is read again: coordinates in a file are its own.
            let skip = open.pipeline.committed_offset(&partition).await?.unwrap_or(0);
            let options = decode_options(&definition, self.settings.record_bytes_max, Some(self.latest(&definition)));
            let mut decoded = files.only(file).decode(definition.schema.clone(), options, skip);
            while let Some(chunk) = decoded.recv().await {
                let now = self.now();
                let step = open.pipeline.take(&partition, chunk?, Granularity::Record, None, now).await?;
                self.note_step(stream, &open.pipeline, &partition, &step).await;
                total += self.applied(stream, &open, step).await;
            }
        }
        Ok(total)
    }
}

/// VALUES in which `TIMESTAMP '...'` and `DATE '...'` are plain strings, which the stream's own column reads: so rows may mix both.
fn literal_rows(source: &ast::Query) -> ast::Query {
    let mut source = source.clone();
    if let ast::SetExpr::Values(values) = source.body.as_mut() {
        for cell in values.rows.iter_mut().flat_map(|r| r.iter_mut()) {
            if let ast::Expr::TypedString(t) = cell
                && matches!(t.data_type, ast::DataType::Timestamp(..) | ast::DataType::Date)
            {
                *cell = ast::Expr::Value(t.value.clone());
            }
        }
    }
    source
}

fn done(what: &str, counts: IngestCounts) -> Output {
    let c = counts;
    let message = format!(
        "{what}: read {}, accepted {}, duplicate {}, late {}, rejected {}{}",
        c.read,
        c.accepted,
        c.duplicate,
        c.late,
        c.rejected,
        if c.conflicts > 0 { format!(", of the accepted {} in conflict", c.conflicts) } else { String::new() }
    );
    Output::Done { message, counts: Some(counts) }
}
