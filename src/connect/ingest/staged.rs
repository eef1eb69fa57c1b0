//! Records of a log: judged and visible at once, committed many together.
//!
//! What is staged is durable where it came from, so the online state may show it before history holds it. A commit takes all that is
//! staged, of all partitions, with the offset behind each partition's last record and the times that lateness is judged by; so a
//! process that dies goes on from the commit and judges the records behind it as they were judged before. While one commit is under way
//! records are staged for the next. A commit that fails stays as it is and is tried again; nothing else is committed to the stream before
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Changes, IngestCounts, Pipeline, Sorted, Step, offset_app};
use crate::error::{Error, Result};
use crate::history::{Commit, Outcome, Progress, StreamHistory};
use crate::stream::decode::Decoded;
use crate::stream::watermark::Granularity;

/// What was judged and is in no commit yet.
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
    /// Where the records begin that come next of each partition: what history then has to hold.
    heads: BTreeMap<String, i64>,
}

/// One partition: the offset that history holds before, and the one behind what is staged.
#[derive(Debug)]
struct Source {
    committed: Option<i64>,
    next: i64,
}

/// A commit of what was staged.
#[derive(Debug)]
pub(super) struct Pending {
    commit: Commit,
    sources: BTreeMap<String, Source>,
    changes: Vec<Changes>,
    /// `None` where the last one has failed.
    attempt: Option<JoinHandle<Result<Outcome>>>,
    /// One has failed, and may have come through all the same.
    failed: bool,
}

/// What was committed, until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Committed {
    offsets: BTreeMap<String, i64>,
    partitions: BTreeSet<String>,
    /// Told whenever an attempt has ended.
    ended: Arc<Notify>,
}

impl Staged {
    fn is_empty(&self) -> bool {
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
        if self.is_commit_over() {
            // One that has failed is tried again before more is taken in: what is staged is bounded by that.
            self.finish_commit().await?;
        }
        // Where the records begin, and what history has: it may have gone on since by another process's hand.
        let known = self.committed_offset(partition).await?;
        let committed = self.staged.heads.get(partition).copied().or(known);
        let first = decoded.offsets.iter().copied().chain(decoded.rejected.iter().map(|r| r.offset)).min();
        let is_behind = first.zip(committed).is_some_and(|(first, committed)| first < committed);
        // Of those history is behind, or was a moment ago.
        let is_under_way =
            self.staged.sources.contains_key(partition) || self.pending.as_ref().is_some_and(|p| p.sources.contains_key(partition));
        if is_behind || (committed != known && !is_under_way) {
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

    /// Says in one commit where partitions are read from, without a record: where reading begins, or behind a gap, which the commit records.
    pub async fn skip_to(&mut self, next: &[(String, i64)], gap: bool) -> Result<()> {
        self.flush().await?;
        for (partition, next) in next {
            let committed = self.committed_offset(partition).await?;
            self.staged.sources.insert(partition.clone(), Source { committed, next: *next });
            if gap {
                self.staged.gaps.push(json!({ "partition": partition, "from": committed, "to": next }));
            }
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
        self.committed = std::mem::take(&mut old.committed);
        self.keep_partition_count(old);
        *old = self;
    }

    /// Whether history may have more than this pipeline knows of: a commit is under way, or has failed.
    pub fn is_in_doubt(&self) -> bool {
        self.pending.is_some() || self.doubtful
    }

    /// Whether something was judged that is not known to be in history.
    pub fn has_uncommitted(&self) -> bool {
        self.pending.is_some() || !self.staged.is_empty()
    }

    /// Whether a commit was begun and has ended, one way or the other.
    pub fn is_commit_over(&self) -> bool {
        self.pending.as_ref().is_some_and(Pending::is_over)
    }

    /// Whether the last attempt of a commit has failed.
    pub fn has_failed(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| p.attempt.is_none())
    }

    /// Told whenever a commit that was begun has ended, one way or the other: [`Self::finish_commit`] then waits for nothing.
    pub fn commit_ended(&self) -> Arc<Notify> {
        self.committed.ended.clone()
    }

    /// How many records are staged.
    pub fn staged_rows(&self) -> usize {
        usize::try_from(self.staged.counts.read).unwrap_or(usize::MAX)
    }

    /// When the first of the staged records was taken in; what is being committed is staged no more.
    pub fn staged_since(&self) -> Option<Instant> {
        self.staged.since
    }

    /// What the records changed that are not known to be in history, in their order.
    pub fn uncommitted_changes(&self) -> impl Iterator<Item = &Changes> {
        self.pending.iter().flat_map(|p| &p.changes).chain(&self.staged.changes)
    }

    /// Commits what is staged, if anything is.
    ///
    /// - Errors: those of [`Self::finish_commit`].
    pub async fn flush(&mut self) -> Result<()> {
        self.finish_commit().await?;
        self.begin_commit()?;
        self.finish_commit().await
    }

    /// Begins to commit what is staged, unless another commit is under way. What is staged from here on belongs to the next one.
    pub fn begin_commit(&mut self) -> Result<()> {
        if self.staged.is_empty() || self.pending.is_some() {
            return Ok(());
        }
        let progress = self.staged.sources.iter().map(|(partition, source)| Progress {
            app_id: offset_app(partition),
            partition: Some(partition.clone()),
            expected: source.committed,
            version: source.next,
            numbered_from: None,
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
        self.staged.counts.check_stored(&commit)?;
        let Staged { sources, changes, mut heads, .. } = std::mem::take(&mut self.staged);
        heads.extend(sources.iter().map(|(partition, source)| (partition.clone(), source.next)));
        self.staged.heads = heads;
        let attempt = Some(attempt(self.history.clone(), self.commit_ended(), commit.clone()));
        self.pending = Some(Pending { commit, sources, changes, attempt, failed: false });
        Ok(())
    }

    /// Waits for the commit that is under way, if one is; one that has failed is tried again first.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where the storage fails: the commit is kept, and the next call tries again;
    ///   [`crate::error::Kind::Closed`] where another process has gone on writing the stream: what is staged is that process's to read.
    pub async fn finish_commit(&mut self) -> Result<()> {
        let ended = self.commit_ended();
        let Some(Pending { commit, attempt: running, failed, .. }) = &mut self.pending else { return Ok(()) };
        // Whoever waits may give up: the attempt goes on, and the next one waits for it.
        let outcome = running.get_or_insert_with(|| attempt(self.history.clone(), ended, commit.clone())).await;
        *running = None;
        let failed = std::mem::replace(failed, true);
        match outcome.map_err(|e| Error::internal(format!("a commit stopped: {e}")))?? {
            Outcome::Committed { version } => self.committed_as(version),
            // What failed before may have come through; only this process reads these very offsets.
            Outcome::Superseded { .. } if failed && self.is_committed().await? => self.committed_as(self.history.version()),
            Outcome::Superseded { app_id, .. } => {
                return Err(Error::closed(format!("another process has gone on writing the stream (\"{app_id}\")")));
            }
        }
        if let Some(Pending { sources, .. }) = self.pending.take() {
            self.committed.partitions.extend(sources.keys().cloned());
            self.committed.offsets.extend(sources.into_iter().map(|(partition, source)| (partition, source.next)));
        }
        Ok(())
    }

    /// The offset behind what history holds, of each partition that was committed since this was asked last.
    pub fn take_flushed(&mut self) -> BTreeMap<String, i64> {
        std::mem::take(&mut self.committed.offsets)
    }

    /// The partitions that were committed since this was asked last.
    pub fn take_committed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.committed.partitions)
    }

    /// Whether history holds the commit that is under way, and nothing behind it.
    async fn is_committed(&self) -> Result<bool> {
        self.history.refresh().await?;
        for (partition, source) in self.pending.iter().flat_map(|p| &p.sources) {
            if self.committed_offset(partition).await? != Some(source.next) {
                return Ok(false);
            }
        }
        // What else came since, no view was given.
        Ok(!self.is_overtaken().await?)
    }
}

/// On a thread of its own: encoding a file takes long, and records that come meanwhile would wait for the thread.
fn attempt(history: StreamHistory, ended: Arc<Notify>, commit: Commit) -> JoinHandle<Result<Outcome>> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let outcome = runtime.block_on(history.commit(commit));
        ended.notify_one();
        outcome
    })
}

impl Pending {
    /// Whether nothing is waited for.
    fn is_over(&self) -> bool {
        self.attempt.as_ref().is_none_or(JoinHandle::is_finished)
    }
}
