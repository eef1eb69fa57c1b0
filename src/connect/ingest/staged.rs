//! Records of a log: judged and visible at once, committed many together.
//!
//! What is staged is durable where it came from, so the online state may show it before history holds it. A commit takes all that is
//! staged, of all partitions, with the offset behind each partition's last record and the times that lateness is judged by; so a
//! process that dies goes on from the commit and judges the records behind it as they were judged before. Where a commit fails, what is
//! staged stays, and the next flush tries again. Nothing else is committed to the stream before it.

use std::collections::BTreeMap;
use std::time::Instant;

use arrow::array::RecordBatch;
use serde_json::{Value, json};

use super::{Changes, IngestCounts, Pipeline, Sorted, Step, offset_app};
use crate::error::{Error, Result};
use crate::history::{Commit, Outcome, Progress};
use crate::stream::decode::Decoded;
use crate::stream::watermark::Granularity;

/// What was judged and is not committed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    accepted: Vec<RecordBatch>,
    late: Vec<RecordBatch>,
    rejected: Vec<RecordBatch>,
    sources: BTreeMap<String, Source>,
    gaps: Vec<Value>,
    counts: IngestCounts,
    changes: Vec<Changes>,
    since: Option<Instant>,
    /// A commit of these sources was begun and may be in history, whatever became of it.
    tried: bool,
    /// The offsets that history holds since somebody asked.
    flushed: BTreeMap<String, i64>,
    /// Where the records begin that come next of each partition: what history then has to hold.
    heads: BTreeMap<String, i64>,
}

/// One partition: the offset that history holds, and the one behind what is staged.
#[derive(Debug)]
struct Source {
    committed: Option<i64>,
    next: i64,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The partitions that something is staged of.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }
}

impl Pipeline {
    /// Takes decoded records of one partition in; `next` is the offset behind them. What they change is visible from now on.
    ///
    /// On an error nothing was taken, and the same records may come again.
    pub async fn stage(&mut self, partition: &str, decoded: &Decoded, next: i64, now: i64) -> Result<Step> {
        if self.staged.tried {
            // What may be in history is not added to, so that it can be told whether it is.
            self.flush().await?;
        }
        // Where the records begin, and what history has: it may have gone on since by another process's hand.
        let known = self.committed_offset(partition).await?;
        let committed = self.staged.heads.get(partition).copied().or(known);
        let first = decoded.offsets.iter().copied().chain(decoded.rejected.iter().map(|r| r.offset)).min();
        let is_behind = first.zip(committed).is_some_and(|(first, committed)| first < committed);
        if is_behind || (committed != known && !self.staged.sources.contains_key(partition)) {
            return Err(Error::closed(format!("another process has gone on reading partition \"{partition}\"")));
        }
        let Sorted { counts, stored, late, rejected, accepted } = self.sort_out(partition, decoded, Granularity::Record, now).await?;
        self.noted(&accepted.come)?;
        self.forget();
        let staged = &mut self.staged;
        // What was staged before may have been committed meanwhile, so that history could decide.
        let committed = staged.heads.get(partition).copied().or(committed);
        staged.sources.entry(partition.to_owned()).or_insert(Source { committed, next }).next = next;
        for (rows, into) in [(stored, &mut staged.accepted), (late, &mut staged.late), (rejected, &mut staged.rejected)] {
            if rows.num_rows() > 0 {
                into.push(rows);
            }
        }
        staged.counts += counts;
        staged.since.get_or_insert_with(Instant::now);
        let changes = Changes::Rows { gone: accepted.gone, come: accepted.come };
        staged.changes.push(changes.clone());
        Ok(Step { counts, changes: Some(changes) })
    }

    /// Says that a partition is read from `next` on, without a record: where reading begins, or behind a gap, which the commit records.
    pub async fn skip_to(&mut self, partition: &str, next: i64, gap: bool) -> Result<()> {
        self.flush().await?;
        let committed = self.committed_offset(partition).await?;
        self.staged.sources.entry(partition.to_owned()).or_insert(Source { committed, next }).next = next;
        if gap {
            self.staged.gaps.push(json!({ "partition": partition, "from": committed, "to": next }));
        }
        self.staged.since.get_or_insert_with(Instant::now);
        self.flush().await
    }

    /// Says that the records of a partition are read from `next` on: if history goes on from elsewhere when they are committed, another
    /// process has read them.
    pub fn reads_from(&mut self, partition: &str, next: i64) {
        self.staged.heads.insert(partition.to_owned(), next);
    }

    /// Takes the place of a pipeline of the same stream: what is read goes on where it was.
    pub fn take_place_of(mut self, old: &mut Self) {
        self.staged.heads = std::mem::take(&mut old.staged.heads);
        self.keep_partition_count(old);
        *old = self;
    }

    /// Whether what is staged may be in history already.
    pub fn is_in_doubt(&self) -> bool {
        self.staged.tried || self.doubtful
    }

    /// How many records are staged.
    pub fn staged_rows(&self) -> usize {
        usize::try_from(self.staged.counts.read).unwrap_or(usize::MAX)
    }

    /// When the first of the staged records was taken in.
    pub fn staged_since(&self) -> Option<Instant> {
        self.staged.since
    }

    /// What the staged records changed, in their order.
    pub fn staged_changes(&self) -> &[Changes] {
        &self.staged.changes
    }

    /// Commits what is staged, if anything is.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where the storage fails: what is staged stays;
    ///   [`crate::error::Kind::Closed`] where another process has gone on writing the stream: what is staged is that process's to read.
    pub async fn flush(&mut self) -> Result<()> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.staged.counts.check()?;
        let progress = self.staged.sources.iter().map(|(partition, source)| Progress {
            app_id: offset_app(partition),
            partition: Some(partition.clone()),
            expected: source.committed,
            version: source.next,
        });
        let mut info = self.info(&self.staged.counts);
        if !self.staged.gaps.is_empty() {
            info.insert("gaps".into(), Value::Array(self.staged.gaps.clone()));
        }
        let (guards, notes) = self.among_others();
        let commit = Commit {
            guards,
            notes,
            accepted: self.staged.accepted.clone(),
            late: self.staged.late.clone(),
            rejected: self.staged.rejected.clone(),
            progress: progress.collect(),
            info,
            ..Commit::default()
        };
        let tried = std::mem::replace(&mut self.staged.tried, true);
        match self.history.commit(commit).await? {
            Outcome::Committed { version } => self.committed_as(version),
            // What failed before, or was given up on the way, may have come through; only this process reads these very offsets.
            Outcome::Superseded { .. } if tried && self.is_committed().await? => self.committed_as(self.history.version()),
            Outcome::Superseded { app_id, .. } => {
                return Err(Error::closed(format!("another process has gone on writing the stream (\"{app_id}\")")));
            }
        }
        let Staged { sources, mut flushed, mut heads, .. } = std::mem::take(&mut self.staged);
        heads.extend(sources.iter().map(|(partition, source)| (partition.clone(), source.next)));
        flushed.extend(sources.into_iter().map(|(partition, source)| (partition, source.next)));
        (self.staged.flushed, self.staged.heads) = (flushed, heads);
        Ok(())
    }

    /// The offset behind what history holds, of each partition that was committed since this was asked last.
    pub fn take_flushed(&mut self) -> BTreeMap<String, i64> {
        std::mem::take(&mut self.staged.flushed)
    }

    /// Whether history holds all that is staged, and nothing behind it.
    async fn is_committed(&self) -> Result<bool> {
        self.history.refresh().await?;
        for (partition, source) in &self.staged.sources {
            if self.committed_offset(partition).await? != Some(source.next) {
                return Ok(false);
            }
        }
        // What else came since, no view was given.
        Ok(!self.is_overtaken().await?)
    }
}
