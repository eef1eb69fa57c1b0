//! The pipeline of one stream: decode → lateness → deduplicate → accepted → history, and what that changes for views.
//!
//! One writer per stream. A step is committed to history before anything else sees it; the changes that views apply are given back only
//! after. On an error nothing has happened: what was remembered of the step is taken back. Conservation holds for every step:
//! read = accepted + duplicate + late + rejected, conflicts among the accepted. Records that can be read again are staged instead
//! ([`staged`]): judged at once, committed many together. Not here: which views apply the changes (`engine`).

pub mod shared;
pub mod staged;

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{filter_record_batch, take_record_batch};

use arrow::row::{RowConverter, SortField};
use datafusion::prelude::SessionContext;
use serde_json::{Map, Value, json};

use self::shared::{Alone, Shared};
use self::staged::{Committed, Pending, Staged};
use crate::error::{Error, Result};
use crate::history::{
    Commit, Existing, HistorySchema, Outcome, Part, Progress, StreamHistory, TableOptions, WriteOptions, Writer, rejected_schema,
};
use crate::registry::Stream;
use crate::stream::decode::{Decoded, Options, Rejected};
use crate::stream::dedupe::{Dedupe, Judged, Verdict};
use crate::stream::order::OrderKeys;
use crate::stream::schema::StreamSchema;
use crate::stream::watermark::{Granularity, PartitionTimes};
use crate::warehouse::Warehouse;

/// What became of the records of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IngestCounts {
    /// Records read.
    pub read: u64,
    /// Events in history, conflicts among them.
    pub accepted: u64,
    /// Copies equal in every column.
    pub duplicate: u64,
    /// Records behind the watermark.
    pub late: u64,
    /// Records that are no event.
    pub rejected: u64,
    /// Accepted events whose identity another event has.
    pub conflicts: u64,
}

impl IngestCounts {
    fn check(&self) -> Result<()> {
        if self.read != self.accepted + self.duplicate + self.late + self.rejected {
            return Err(Error::internal(format!("records are not conserved: {self:?}")));
        }
        Ok(())
    }

    /// The same, where each record that is counted as stored is in the commit.
    fn check_stored(&self, commit: &Commit) -> Result<()> {
        self.check()?;
        let rows = |batches: &[RecordBatch]| batches.iter().map(|b| b.num_rows() as u64).sum::<u64>();
        let stored = (rows(&commit.accepted) + commit.files.rows(), rows(&commit.late), rows(&commit.rejected));
        if stored != (self.accepted, self.late, self.rejected) {
            return Err(Error::internal(format!("records are not conserved: {self:?}, and to be stored are {stored:?}")));
        }
        Ok(())
    }
}

impl AddAssign for IngestCounts {
    fn add_assign(&mut self, o: Self) {
        self.read += o.read;
        self.accepted += o.accepted;
        self.duplicate += o.duplicate;
        self.late += o.late;
        self.rejected += o.rejected;
        self.conflicts += o.conflicts;
    }
}

/// What a step changed in the set of visible events.
#[derive(Debug, Clone)]
pub enum Changes {
    /// Rows that go and come, in this order.
    Rows {
        /// Rows that a greater row of their identity now hides.
        gone: RecordBatch,
        /// Rows that are now visible.
        come: RecordBatch,
    },
    /// Rows of history that came after a version; none of them hides another.
    Since(i64),
    /// More than can be said: whoever keeps state reads history anew.
    Unknown,
}

/// The outcome of a step.
#[derive(Debug)]
pub struct Step {
    /// What became of the records.
    pub counts: IngestCounts,
    /// What changed; `None` where the step was applied before.
    pub changes: Option<Changes>,
}

/// The partition of a push stream, whose records the server numbers.
pub const PUSH: &str = "push";

/// The pipeline of one stream.
pub struct Pipeline {
    schema: Arc<StreamSchema>,
    history: StreamHistory,
    context: SessionContext,
    order: OrderKeys,
    times: PartitionTimes,
    dedupe: Option<Dedupe>,
    greatest: Option<i64>,
    last_arrival: i64,
    dedupe_bytes_max: usize,
    staged: Staged,
    /// The commit that is under way.
    pending: Option<Pending>,
    committed: Committed,
    /// The version of history up to which all is remembered that views were given.
    seen: i64,
    /// The version up to which nothing is missing of what is remembered: less than the other where processes share the stream.
    whole: i64,
    /// Whether a commit was begun of whose fate nothing is known.
    doubtful: bool,
    /// What other processes have of the stream, where several share it.
    shared: Option<Shared>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("history", &self.history).field("greatest", &self.greatest).finish_non_exhaustive()
    }
}

/// The history schema of a stream.
pub fn history_schema(schema: &StreamSchema) -> Result<HistorySchema> {
    HistorySchema::try_new(schema.arrow_schema().clone(), schema.primary_key().to_vec(), schema.event_time())
}

fn offset_app(partition: &str) -> String {
    format!("asof/partition/{partition}")
}

fn token_app(token: &str) -> String {
    format!("asof/token/{token}")
}

const REPROCESS_APP: &str = "asof/reprocess";

/// Accepted rows of one batch, with their revisions, and what they change.
struct Accepted {
    rows: Vec<usize>,
    revisions: Vec<i32>,
    duplicate: u64,
    conflicts: u64,
    judged: Option<Judged>,
    gone: RecordBatch,
    come: RecordBatch,
}

/// Judged records, as they are stored.
struct Sorted {
    counts: IngestCounts,
    stored: RecordBatch,
    late: RecordBatch,
    rejected: RecordBatch,
    accepted: Accepted,
}

impl Pipeline {
    /// Opens a stream's pipeline: history, and what is remembered of recent events. `reads` are the partitions of the topic whose records
    /// come in here, where several processes share the stream.
    pub async fn open(
        warehouse: &Warehouse,
        name: &str,
        stream: &Stream,
        dedupe_bytes_max: usize,
        create: bool,
        reads: &[i32],
    ) -> Result<Self> {
        let schema = stream.schema.clone();
        let history = match create {
            true => StreamHistory::create(warehouse, name, &stream.folder, history_schema(&schema)?).await?,
            false => StreamHistory::open(warehouse, name, &stream.folder, history_schema(&schema)?).await?,
        };
        let context = SessionContext::new();
        warehouse.register(&context.runtime_env());
        let mut pipeline = Self {
            context,
            order: OrderKeys::for_stream(&schema)?,
            dedupe: None,
            schema,
            history,
            times: PartitionTimes::new(),
            greatest: None,
            last_arrival: i64::MIN,
            dedupe_bytes_max,
            staged: Staged::default(),
            pending: None,
            committed: Committed::default(),
            seen: 0,
            whole: 0,
            doubtful: false,
            shared: Shared::of(stream, reads),
        };
        pipeline.recover().await?;
        Ok(pipeline)
    }

    async fn recover(&mut self) -> Result<()> {
        self.seen = self.history.version();
        self.whole = self.seen;
        match &mut self.shared {
            Some(shared) => shared.recover(&self.history, &mut self.times).await?,
            None => self.recover_times().await?,
        }
        let all = self.history.table(Part::History, TableOptions::default()).await?;
        self.greatest = self.greatest_event_time(all.time_bounds()).await?;
        if !self.schema.primary_key().is_empty() {
            let mut dedupe = Dedupe::try_new(&self.schema, self.dedupe_bytes_max)?;
            if let Some(greatest) = self.greatest {
                let least = self.times.iter().map(|(_, t)| t).min().unwrap_or(greatest);
                let from = least.saturating_sub(self.schema.disorder_us());
                dedupe.forget_before(from);
                let options = TableOptions { time_range: Some((from, i64::MAX)), all_rows: true, ..TableOptions::default() };
                for batch in read_table(&self.context, &self.history, Part::History, options).await? {
                    dedupe.load(&batch)?;
                }
            }
            self.dedupe = Some(dedupe);
        }
        Ok(())
    }

    /// The times that lateness is judged by, as the last commit left them.
    async fn recover_times(&mut self) -> Result<()> {
        // Every commit of ours carries the greatest event time of each partition; commits that only change columns carry nothing.
        let mut version = self.history.version();
        let mut info = None;
        while version > 0 && info.is_none() {
            info = self.history.commit_info(version).await?.and_then(|i| i.get("partition_times").cloned());
            version -= 1;
        }
        let info = info.filter(|_| !asof_udfs::seeded_bug("restart-forgets-lateness"));
        for (partition, time) in info.as_ref().and_then(Value::as_object).into_iter().flatten() {
            self.times.restore(partition, time.as_i64());
        }
        Ok(())
    }

    /// The greatest event time of history; file statistics are bounds that DESIGN does not promise to be tight, so the newest are read.
    async fn greatest_event_time(&self, bounds: Option<(i64, i64)>) -> Result<Option<i64>> {
        let Some((_, upper)) = bounds else { return Ok(None) };
        let mut width = 3_600_000_000i64;
        loop {
            let from = upper.saturating_sub(width);
            let options = TableOptions { time_range: Some((from, i64::MAX)), ..TableOptions::default() };
            let batches = read_table(&self.context, &self.history, Part::History, options).await?;
            let greatest = batches.iter().filter_map(|b| self.schema.times(b).ok().and_then(arrow::compute::max)).max();
            if greatest.is_some() || from == i64::MIN {
                return Ok(greatest);
            }
            width = width.saturating_mul(64);
        }
    }

    /// The stream's columns.
    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// The stream's tables.
    pub fn history(&self) -> &StreamHistory {
        &self.history
    }

    /// The greatest accepted event time.
    pub fn greatest(&self) -> Option<i64> {
        self.greatest
    }

    /// The partitions that valid records came from, in the order of names.
    pub fn partitions(&self) -> impl Iterator<Item = &str> {
        self.times.iter().map(|(partition, _)| partition)
    }

    /// The greatest event time of a partition minus the disorder; None before its first valid record.
    pub fn watermark(&self, partition: &str) -> Option<i64> {
        self.times.greatest(partition).map(|greatest| greatest.saturating_sub(self.schema.disorder_us()))
    }

    /// The memory of the table of recent identities, bytes.
    pub fn dedupe_bytes(&self) -> usize {
        self.dedupe.as_ref().map_or(0, Dedupe::memory_bytes)
    }

    /// The offset of the next record of a partition.
    pub async fn next_offset(&self, partition: &str) -> Result<i64> {
        Ok(self.history.farthest_version(&offset_app(partition)).await?.unwrap_or(0))
    }

    /// The offset of the next record of a partition whose records can be read again; `None` where none was committed.
    pub async fn committed_offset(&self, partition: &str) -> Result<Option<i64>> {
        Self::committed_in(&self.history, partition).await
    }

    /// The same, of a history whose pipeline is busy.
    pub async fn committed_in(history: &StreamHistory, partition: &str) -> Result<Option<i64>> {
        history.transaction_version(&offset_app(partition)).await
    }

    /// Whether a token was applied.
    pub async fn applied(&self, token: &str) -> Result<bool> {
        Ok(self.history.transaction_version(&token_app(token)).await?.is_some() && !asof_udfs::seeded_bug("token-forgotten"))
    }

    /// Takes a new column in; older events have NULL.
    pub async fn add_columns(&mut self, schema: Arc<StreamSchema>) -> Result<()> {
        self.flush().await?;
        self.history = self.history.add_columns(history_schema(&schema)?).await?;
        self.order = OrderKeys::for_stream(&schema)?;
        self.schema = schema;
        // A row's fingerprint covers its columns, so what was remembered is no longer comparable.
        self.dedupe = None;
        self.recover().await
    }

    /// Commits. Whatever ends it otherwise leaves the pipeline in doubt: the commit may be there, and is not remembered.
    async fn put(&mut self, commit: Commit) -> Result<Outcome> {
        self.doubtful = true;
        let outcome = self.history.commit(commit).await?;
        if let Outcome::Committed { version } = outcome {
            self.committed_as(version);
            self.doubtful = false;
        }
        Ok(outcome)
    }

    /// Takes note of a commit of this pipeline.
    fn committed_as(&mut self, version: i64) {
        // Between two of them others may have come.
        if self.shared.is_none() || version == self.whole + 1 {
            self.whole = version;
        }
        self.seen = version;
    }

    /// The version of history that the views are of which the steps were given to.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// The version of history up to which the pipeline remembers all rows.
    pub fn remembers(&self) -> i64 {
        self.whole
    }

    /// Whether a commit of whose fate nothing is known keeps the pipeline from judging right; it is to be opened anew.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    fn arrival(&mut self, now: i64) -> i64 {
        self.last_arrival = now.max(self.last_arrival.saturating_add(1));
        self.last_arrival
    }

    /// Takes decoded records of one partition as one step. `granularity` says against what lateness is judged.
    pub async fn take(
        &mut self,
        partition: &str,
        decoded: Decoded,
        granularity: Granularity,
        token: Option<&str>,
        now: i64,
    ) -> Result<Step> {
        if let Some(token) = token
            && self.applied(token).await?
        {
            return Ok(Step { counts: IngestCounts::default(), changes: None });
        }
        self.flush().await?;
        let alone = self.alone().await?;
        let next = self.next_offset(partition).await?;
        let last = decoded.offsets.iter().copied().chain(decoded.rejected.iter().map(|r| r.offset)).max();
        let before = self.times.greatest(partition);
        let sorted = self.sort_out(partition, &decoded, granularity, now).await?;
        let Sorted { counts, accepted, .. } = sorted;
        let result = async {
            let app_id = offset_app(partition);
            let expected = self.history.transaction_version(&app_id).await?;
            let mut progress = vec![Progress {
                app_id,
                partition: Some(partition.to_owned()),
                expected,
                version: last.map_or(next, |l| l + 1),
                numbered_from: Some(next),
            }];
            if let Some(token) = token {
                progress.push(Progress { app_id: token_app(token), partition: None, expected: None, version: 1, numbered_from: None });
            }
            let commit = Commit {
                accepted: non_empty(sorted.stored),
                late: non_empty(sorted.late),
                rejected: if asof_udfs::seeded_bug("rejected-unsaid") { vec![] } else { non_empty(sorted.rejected) },
                progress,
                guards: alone.guards,
                notes: alone.notes.into_iter().chain(self.time_note(partition)).collect(),
                info: self.info(&counts),
                ..Commit::default()
            };
            counts.check_stored(&commit)?;
            match self.put_alone(commit).await? {
                Outcome::Committed { .. } => Ok(()),
                Outcome::Superseded { app_id, .. } => {
                    Err(Error::closed(format!("another process has gone on writing the stream (\"{app_id}\"); open the warehouse again")))
                }
            }
        }
        .await;
        if let Err(e) = result {
            self.times.restore(partition, before);
            self.undo(&accepted);
            return Err(e);
        }
        self.noted(&accepted.come)?;
        self.forget();
        Ok(Step { counts, changes: Some(Changes::Rows { gone: accepted.gone, come: accepted.come }) })
    }

    /// Judges decoded records: what is accepted, late and rejected, as it is stored. On an error nothing is remembered.
    async fn sort_out(&mut self, partition: &str, decoded: &Decoded, granularity: Granularity, now: i64) -> Result<Sorted> {
        let mut counts = IngestCounts { read: decoded.read(), rejected: decoded.rejected.len() as u64, ..IngestCounts::default() };
        let arrived = self.arrival(now);
        let event_times: Vec<i64> = self.schema.times(&decoded.rows)?.values().to_vec();
        // On the side: what is staged may be committed below, with the times as they were before these records.
        let mut times = self.times.clone();
        let late_mask = BooleanArray::from(times.judge(partition, &event_times, self.schema.disorder_us(), granularity));
        let on_time_mask = arrow::compute::not(&late_mask)?;
        let offsets = Int64Array::from(decoded.offsets.clone());
        let part = |mask: &BooleanArray| -> Result<(RecordBatch, Int64Array)> {
            let offsets = arrow::compute::filter(&offsets, mask)?;
            Ok((filter_record_batch(&decoded.rows, mask)?, offsets.as_primitive().clone()))
        };
        let (late_rows, late_offsets) = part(&late_mask)?;
        let (rows, offsets) = part(&on_time_mask)?;
        let late = self.stored(&late_rows, partition, &late_offsets, arrived, &vec![0; late_rows.num_rows()])?;
        let rejected = rejected_batch(&decoded.rejected, partition, arrived)?;
        counts.late = late_rows.num_rows() as u64;
        let accepted = self.judge(&rows, None).await?;
        counts.accepted = accepted.rows.len() as u64;
        counts.duplicate = accepted.duplicate + decoded.tombstones;
        counts.conflicts = accepted.conflicts;
        let stored = counts.check().and_then(|()| {
            let picks = picks(&accepted.rows);
            let kept = take_record_batch(&rows, &picks)?;
            let kept_offsets = arrow::compute::take(&offsets, &picks, None)?;
            self.stored(&kept, partition, kept_offsets.as_primitive(), arrived, &accepted.revisions)
        });
        match stored {
            Ok(stored) => {
                self.times = times;
                Ok(Sorted { counts, stored, late, rejected, accepted })
            }
            Err(e) => {
                self.undo(&accepted);
                Err(e)
            }
        }
    }

    fn undo(&mut self, accepted: &Accepted) {
        if let (Some(dedupe), Some(judged)) = (&mut self.dedupe, &accepted.judged) {
            dedupe.undo(judged);
        }
    }

    fn noted(&mut self, rows: &RecordBatch) -> Result<()> {
        self.greatest = self.greatest.max(arrow::compute::max(self.schema.times(rows)?));
        Ok(())
    }

    fn forget(&mut self) {
        let least = self.times.iter().map(|(_, t)| t).min();
        if let (Some(dedupe), Some(least)) = (&mut self.dedupe, least) {
            dedupe.forget_before(least.saturating_sub(self.schema.disorder_us()));
        }
    }

    fn info(&self, counts: &IngestCounts) -> Map<String, Value> {
        let mut info = Map::new();
        if self.shared.is_none() {
            let times: Map<String, Value> = self.times.iter().map(|(p, t)| (p.to_owned(), json!(t))).collect();
            info.insert("partition_times".into(), Value::Object(times));
        }
        info.insert(
            "counts".into(),
            json!({"read": counts.read, "accepted": counts.accepted, "duplicate": counts.duplicate, "late": counts.late,
                   "rejected": counts.rejected, "conflicts": counts.conflicts}),
        );
        info
    }

    /// Which rows are accepted, and what they change. `aside` remembers rows that the live table does not know, over the batches of one
    /// commit that is not there yet.
    async fn judge(&mut self, rows: &RecordBatch, aside: Option<&mut Dedupe>) -> Result<Accepted> {
        let n = rows.num_rows();
        let nothing = RecordBatch::new_empty(rows.schema());
        let has_uncommitted = self.has_uncommitted();
        let Some(dedupe) = &mut self.dedupe else {
            return Ok(Accepted {
                rows: (0..n).collect(),
                revisions: vec![0; n],
                duplicate: 0,
                conflicts: 0,
                judged: None,
                gone: nothing,
                come: rows.clone(),
            });
        };
        let mut judged = dedupe.judge(rows)?;
        let in_doubt = judged.verdicts.iter().any(|v| matches!(v, Verdict::Unknown | Verdict::Conflict));
        if in_doubt && has_uncommitted {
            // History decides, and has to hold what was accepted before.
            dedupe.undo(&judged);
            self.flush().await?;
            let Some(dedupe) = &mut self.dedupe else { return Err(Error::internal("a table of identities is gone")) };
            judged = dedupe.judge(rows)?;
        }
        let mut verdicts = judged.verdicts.clone();
        if let Some(aside) = aside {
            let unknown: Vec<u32> = (0..n).filter(|r| verdicts[*r] == Verdict::Unknown).map(|r| r as u32).collect();
            let sub = aside.judge(&take_record_batch(rows, &UInt32Array::from(unknown.clone()))?)?;
            for (row, verdict) in unknown.iter().zip(&sub.verdicts) {
                // What is new to this commit may still be in history; what is not is decided.
                verdicts[*row as usize] = if *verdict == Verdict::New { Verdict::Unknown } else { *verdict };
            }
        }
        let doubtful: Vec<usize> = (0..n).filter(|r| matches!(verdicts[*r], Verdict::Unknown | Verdict::Conflict)).collect();
        let kept_of = |verdicts: &[Verdict]| -> Vec<usize> { (0..n).filter(|r| verdicts[*r] != Verdict::Duplicate).collect() };
        if doubtful.is_empty() {
            let kept = kept_of(&verdicts);
            let duplicate = (n - kept.len()) as u64;
            let come = if duplicate == 0 { rows.clone() } else { take_record_batch(rows, &picks(&kept))? };
            return Ok(Accepted {
                revisions: vec![0; kept.len()],
                rows: kept,
                duplicate,
                conflicts: 0,
                judged: Some(judged),
                gone: nothing,
                come,
            });
        }
        let looked_up = self.resolve(rows, &mut verdicts, &doubtful).await;
        let (gone, come, revisions_of) = match looked_up {
            Ok(found) => found,
            Err(e) => {
                if let Some(dedupe) = &mut self.dedupe {
                    dedupe.undo(&judged);
                }
                return Err(e);
            }
        };
        let kept = kept_of(&verdicts);
        let revisions: Vec<i32> = kept.iter().map(|r| revisions_of.get(r).copied().unwrap_or(0)).collect();
        let conflicts = revisions.iter().filter(|r| **r > 0).count() as u64;
        Ok(Accepted { duplicate: (n - kept.len()) as u64, revisions, rows: kept, conflicts, judged: Some(judged), gone, come })
    }

    /// Decides the doubtful rows against history: turns unknown copies into duplicates, and finds what each identity showed before and
    /// shows now. Gives the rows that go, those that come, and the revisions of conflicting rows.
    async fn resolve(
        &self,
        rows: &RecordBatch,
        verdicts: &mut [Verdict],
        doubtful: &[usize],
    ) -> Result<(RecordBatch, RecordBatch, HashMap<usize, i32>)> {
        let identity: Vec<usize> = std::iter::once(self.schema.event_time()).chain(self.schema.primary_key().iter().copied()).collect();
        let keys = take_record_batch(&rows.project(&identity)?, &picks(doubtful))?;
        let existing = self.history.lookup_identities(&keys, None).await?;
        let converter = RowConverter::new(identity.iter().map(|c| SortField::new(rows.column(*c).data_type().clone())).collect())?;
        let columns: Vec<ArrayRef> = identity.iter().map(|c| rows.column(*c).clone()).collect();
        let ids = converter.convert_columns(&columns)?;
        let order_new = self.order.keys(rows)?;
        let order_old = self.order.keys(&existing.visible)?;
        let hidden = self.hidden_copies(rows, verdicts, doubtful, &existing, &order_new).await?;
        // Per identity in doubt: the visible row of history, the greatest accepted so far, and the next revision.
        struct Seen {
            old: Option<usize>,
            best: Option<usize>,
            revision: i32,
        }
        let mut seen: HashMap<Vec<u8>, Seen> = HashMap::new();
        for (row, old) in doubtful.iter().zip(&existing.found) {
            let revision = old.map_or(-1, |o| existing.revision_max.get(o).copied().unwrap_or(0));
            seen.entry(ids.row(*row).data().to_vec()).or_insert(Seen { old: *old, best: None, revision });
        }
        let mut revisions = HashMap::new();
        let (mut plain, mut gone_old) = (Vec::new(), Vec::new());
        for (row, verdict) in verdicts.iter_mut().enumerate() {
            if *verdict == Verdict::Duplicate {
                continue;
            }
            let Some(seen) = seen.get_mut(ids.row(row).data()) else {
                plain.push(row);
                continue;
            };
            // Equal in identity and in all other columns: a copy, of history's visible row or of one accepted a moment ago.
            let copy = seen.old.is_some_and(|o| order_old.value(o) == order_new.value(row)) || hidden.contains(&row);
            if copy && *verdict == Verdict::Unknown {
                *verdict = Verdict::Duplicate;
                continue;
            }
            // A row in conflict with one of this commit, which history does not know yet, is a conflict all the same.
            seen.revision = (seen.revision + 1).max(i32::from(*verdict == Verdict::Conflict));
            if seen.revision > 0 {
                revisions.insert(row, seen.revision);
            }
            if seen.best.is_none_or(|b| order_new.value(row) > order_new.value(b)) {
                seen.best = Some(row);
            }
        }
        for seen in seen.values() {
            match (seen.old, seen.best) {
                (_, None) => {}
                (None, Some(best)) => plain.push(best),
                (Some(old), Some(best)) if order_new.value(best) > order_old.value(old) => {
                    if !asof_udfs::seeded_bug("conflict-keeps-both") {
                        gone_old.push(old);
                    }
                    plain.push(best);
                }
                (Some(_), Some(_)) => {}
            }
        }
        plain.sort_unstable();
        gone_old.sort_unstable();
        let come = take_record_batch(rows, &picks(&plain))?;
        let gone = take_record_batch(&existing.visible, &picks(&gone_old))?;
        let gone = RecordBatch::try_new(rows.schema(), gone.columns().to_vec())?;
        Ok((gone, come, revisions))
    }

    /// Of the unknown rows those that equal a row of history which a greater one hides.
    async fn hidden_copies(
        &self,
        rows: &RecordBatch,
        verdicts: &[Verdict],
        doubtful: &[usize],
        existing: &Existing,
        order: &BinaryArray,
    ) -> Result<HashSet<usize>> {
        let times = self.schema.times(rows)?;
        let mut copies = HashSet::new();
        for (row, old) in doubtful.iter().zip(&existing.found) {
            let contested = old.is_some_and(|o| existing.revision_max.get(o).is_some_and(|r| *r > 0));
            if verdicts[*row] != Verdict::Unknown || !contested {
                continue;
            }
            // Conflicts are rare, so one small read for each is well spent.
            let at = times.value(*row);
            let options = TableOptions { time_range: Some((at, at)), all_rows: true, ..TableOptions::default() };
            for batch in read_table(&self.context, &self.history, Part::History, options).await? {
                let keys = self.order.keys(&batch)?;
                if keys.iter().any(|k| k == Some(order.value(*row))) {
                    copies.insert(*row);
                }
            }
        }
        Ok(copies)
    }

    fn stored(&self, rows: &RecordBatch, partition: &str, offsets: &Int64Array, arrived: i64, revisions: &[i32]) -> Result<RecordBatch> {
        let n = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(StringViewArray::from(vec![partition; n])));
        columns.push(Arc::new(offsets.clone()));
        columns.push(Arc::new(TimestampMicrosecondArray::from(vec![arrived; n]).with_timezone("UTC")));
        columns.push(Arc::new(Int32Array::from(revisions.to_vec())));
        Ok(RecordBatch::try_new(self.history.schema().stored(), columns)?)
    }

    /// Begins loading history: many batches, one commit.
    pub async fn load(&mut self, partition: String, now: i64) -> Result<Load<'_>> {
        self.flush().await?;
        let alone = self.alone().await?;
        let writer = self.history.writer(WriteOptions::default())?;
        let aside = match self.dedupe {
            Some(_) => Some(Dedupe::try_new(&self.schema, self.dedupe_bytes_max)?),
            None => None,
        };
        let arrived = self.arrival(now);
        let known_from = self.dedupe.as_ref().map_or(i64::MIN, Dedupe::known_from);
        Ok(Load {
            pipeline: self,
            writer,
            partition,
            arrived,
            aside,
            known_from,
            counts: IngestCounts::default(),
            rejected: vec![],
            rejected_bytes: 0,
            judged: vec![],
            greatest: None,
            next: 0,
            alone,
        })
    }

    /// Brings late records that were not yet into history.
    pub async fn reprocess(&mut self, now: i64) -> Result<Step> {
        self.flush().await?;
        let Alone { guards, notes } = self.alone().await?;
        let expected = self.history.transaction_version(REPROCESS_APP).await?;
        let options = TableOptions { since: expected, hidden: true, all_rows: true, ..TableOptions::default() };
        let table = self.history.table(Part::Late, options.clone()).await?;
        let upto = table.version();
        let arrived = self.arrival(now);
        let mut counts = IngestCounts::default();
        let batches = read_table(&self.context, &self.history, Part::Late, options).await?;
        let mut stored = Vec::new();
        let (mut all_gone, mut all_come) = (vec![], vec![]);
        let mut judged = Vec::new();
        let result = async {
            let all = concat_all(&batches)?;
            if let Some(all) = all {
                let width = self.schema.columns().len();
                let rows = RecordBatch::try_new(self.schema.arrow_schema().clone(), all.columns()[..width].to_vec())?;
                counts.read = rows.num_rows() as u64;
                let mut aside = match self.dedupe {
                    Some(_) => Some(Dedupe::try_new(&self.schema, self.dedupe_bytes_max)?),
                    None => None,
                };
                let accepted = self.judge(&rows, aside.as_mut()).await?;
                counts.accepted = accepted.rows.len() as u64;
                counts.duplicate = accepted.duplicate;
                counts.conflicts = accepted.conflicts;
                // Coordinates stay those of the source; the arrival is now.
                let mut kept = take_record_batch(&all, &picks(&accepted.rows))?.columns().to_vec();
                let n = accepted.rows.len();
                kept.truncate(width + 2);
                kept.push(Arc::new(TimestampMicrosecondArray::from(vec![arrived; n]).with_timezone("UTC")));
                kept.push(Arc::new(Int32Array::from(accepted.revisions.clone())));
                stored.push(RecordBatch::try_new(self.history.schema().stored(), kept)?);
                all_gone.push(accepted.gone);
                all_come.push(accepted.come);
                judged.extend(accepted.judged);
            }
            if upto == expected.unwrap_or(-1) {
                return Ok(());
            }
            let progress = vec![Progress { app_id: REPROCESS_APP.into(), partition: None, expected, version: upto, numbered_from: None }];
            let commit = Commit {
                accepted: stored.into_iter().filter(|b| b.num_rows() > 0).collect(),
                progress,
                guards,
                notes,
                info: self.info(&counts),
                ..Commit::default()
            };
            counts.check_stored(&commit)?;
            match self.put_alone(commit).await? {
                Outcome::Committed { .. } => Ok(()),
                Outcome::Superseded { .. } => Err(Error::closed("another process has reprocessed the stream's late events")),
            }
        }
        .await;
        if let Err(e) = result {
            if let Some(dedupe) = &mut self.dedupe {
                judged.iter().rev().for_each(|j| dedupe.undo(j));
            }
            return Err(e);
        }
        let empty = RecordBatch::new_empty(self.schema.arrow_schema().clone());
        let (gone, come) = (all_gone.pop().unwrap_or_else(|| empty.clone()), all_come.pop().unwrap_or(empty));
        self.noted(&come)?;
        Ok(Step { counts, changes: Some(Changes::Rows { gone, come }) })
    }
}

/// A load of history that is not committed yet; dropped, it leaves nothing.
pub struct Load<'a> {
    pipeline: &'a mut Pipeline,
    writer: Writer,
    partition: String,
    arrived: i64,
    aside: Option<Dedupe>,
    known_from: i64,
    counts: IngestCounts,
    rejected: Vec<Rejected>,
    rejected_bytes: usize,
    judged: Vec<Judged>,
    greatest: Option<i64>,
    next: i64,
    alone: Alone,
}

/// Rejected records of one load that are kept in memory until its commit, bytes.
const REJECTED_BYTES_MAX: usize = 256 << 20;

impl Load<'_> {
    /// Adds decoded records; they are exempt from lateness and move no partition's greatest event time.
    pub async fn add(&mut self, decoded: Decoded) -> Result<()> {
        self.counts.read += decoded.read();
        self.counts.rejected += decoded.rejected.len() as u64;
        let last = decoded.offsets.iter().copied().chain(decoded.rejected.iter().map(|r| r.offset)).max();
        self.next = self.next.max(last.map_or(0, |l| l + 1));
        self.rejected_bytes += decoded.rejected.iter().map(|r| r.raw.len()).sum::<usize>();
        self.rejected.extend(decoded.rejected);
        if self.rejected_bytes > REJECTED_BYTES_MAX {
            return Err(Error::data(format!("more than {REJECTED_BYTES_MAX} bytes of the input are no events; is it the right format?")));
        }
        let accepted = self.pipeline.judge(&decoded.rows, self.aside.as_mut()).await?;
        let forgot = |d: &Option<Dedupe>, from: i64| d.as_ref().is_some_and(|d| d.known_from() > from);
        let over = forgot(&self.pipeline.dedupe, self.known_from) || forgot(&self.aside, i64::MIN);
        self.judged.extend(accepted.judged);
        if over {
            return Err(Error::unavailable(format!(
                "one COPY holds more identities than the {} bytes of dedupe_limit_bytes remember; load it in several parts",
                self.pipeline.dedupe_bytes_max
            )));
        }
        self.counts.accepted += accepted.rows.len() as u64;
        self.counts.duplicate += accepted.duplicate + decoded.tombstones;
        self.counts.conflicts += accepted.conflicts;
        self.greatest = self.greatest.max(arrow::compute::max(self.pipeline.schema.times(&decoded.rows)?));
        if accepted.rows.is_empty() {
            return Ok(());
        }
        let all = accepted.rows.len() == decoded.rows.num_rows();
        let offsets = Int64Array::from(decoded.offsets);
        let (kept, offsets) = if all {
            (decoded.rows, offsets)
        } else {
            let picks = picks(&accepted.rows);
            (take_record_batch(&decoded.rows, &picks)?, arrow::compute::take(&offsets, &picks, None)?.as_primitive().clone())
        };
        let stored = self.pipeline.stored(&kept, &self.partition, &offsets, self.arrived, &accepted.revisions)?;
        self.writer.write(stored).await
    }

    /// Makes all of it visible at once.
    pub async fn commit(self, token: Option<&str>) -> Result<Step> {
        let before = self.pipeline.history.version();
        let counts = self.counts;
        let result = async {
            let files = self.writer.finish().await?;
            let mut progress = vec![Progress {
                app_id: offset_app(&self.partition),
                partition: Some(self.partition.clone()),
                expected: None,
                version: self.next.max(1),
                numbered_from: None,
            }];
            if let Some(token) = token {
                progress.push(Progress { app_id: token_app(token), partition: None, expected: None, version: 1, numbered_from: None });
            }
            let rejected = rejected_batch(&self.rejected, &self.partition, self.arrived)?;
            let info = self.pipeline.info(&counts);
            let Alone { guards, notes } = self.alone;
            let commit = Commit { files, rejected: non_empty(rejected), progress, guards, notes, info, ..Commit::default() };
            counts.check_stored(&commit)?;
            match self.pipeline.put_alone(commit).await? {
                Outcome::Committed { .. } => Ok(()),
                Outcome::Superseded { .. } => Err(Error::closed("another process has loaded the same data")),
            }
        }
        .await;
        if let Err(e) = result {
            if let Some(dedupe) = &mut self.pipeline.dedupe {
                self.judged.iter().rev().for_each(|j| dedupe.undo(j));
            }
            return Err(e);
        }
        self.pipeline.greatest = self.pipeline.greatest.max(self.greatest);
        // A conflict may hide rows that views hold: they read history anew.
        let changes = if counts.conflicts > 0 { Changes::Unknown } else { Changes::Since(before) };
        Ok(Step { counts, changes: Some(changes) })
    }

    /// Gives the load up; nothing of it is remembered.
    pub fn abandon(self) {
        if let Some(dedupe) = &mut self.pipeline.dedupe {
            self.judged.iter().rev().for_each(|j| dedupe.undo(j));
        }
    }
}

fn picks(rows: &[usize]) -> UInt32Array {
    rows.iter().map(|r| *r as u32).collect::<Vec<_>>().into()
}

fn non_empty(batch: RecordBatch) -> Vec<RecordBatch> {
    if batch.num_rows() == 0 { vec![] } else { vec![batch] }
}

fn concat_all(batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    Ok(match batches.first() {
        None => None,
        Some(first) => Some(arrow::compute::concat_batches(&first.schema(), batches)?),
    })
}

fn rejected_batch(rejected: &[Rejected], partition: &str, arrived: i64) -> Result<RecordBatch> {
    let n = rejected.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryViewArray::from_iter_values(rejected.iter().map(|r| r.raw.as_slice()))),
        Arc::new(StringViewArray::from_iter_values(rejected.iter().map(|r| r.reason.as_str()))),
        Arc::new(StringViewArray::from(vec![partition; n])),
        Arc::new(Int64Array::from(rejected.iter().map(|r| r.offset).collect::<Vec<_>>())),
        Arc::new(TimestampMicrosecondArray::from(vec![arrived; n]).with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(rejected_schema(), columns)?)
}

/// All rows of one of a stream's tables.
pub async fn read_table(context: &SessionContext, history: &StreamHistory, part: Part, options: TableOptions) -> Result<Vec<RecordBatch>> {
    let table = history.table(part, options).await?;
    Ok(context.read_table(table)?.collect().await?)
}

/// How records of a stream are decoded.
pub fn decode_options(stream: &Stream, record_bytes_max: usize, latest_us: Option<i64>) -> Options {
    let paths = stream.options.records.paths.clone();
    Options { time_unit: stream.options.time_unit, record_bytes_max, latest_us, paths, ..Options::default() }
}
