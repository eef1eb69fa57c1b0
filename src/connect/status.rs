//! How far each stream is: what `SHOW STREAM STATUS` and the metrics read, and whoever feeds a stream keeps up.
//!
//! Plain numbers behind one lock that is held for a few stores at a time, never across I/O or a pipeline's own lock: watching a stream
//! that hangs must not hang. Not here: where the numbers are kept for good (the commits of history), what they are shown as (`engine`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::ingest::IngestCounts;

/// What the source of a stream is doing in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceState {
    /// Nothing by itself: a push stream, files that were read once, or a source that this process has not taken on.
    #[default]
    Idle,
    /// Connecting, seeking, or building state; nothing is read yet.
    Starting,
    /// Reading.
    Running,
    /// Waiting for room, for storage or for the source; it goes on by itself.
    Paused,
    /// Ended; it goes on only when somebody does what the message says.
    Stopped,
    /// Another process reads or writes it.
    Elsewhere,
}

impl SourceState {
    /// Every state.
    pub const ALL: [SourceState; 6] =
        [SourceState::Idle, SourceState::Starting, SourceState::Running, SourceState::Paused, SourceState::Stopped, SourceState::Elsewhere];

    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceState::Idle => "idle",
            SourceState::Starting => "starting",
            SourceState::Running => "running",
            SourceState::Paused => "paused",
            SourceState::Stopped => "stopped",
            SourceState::Elsewhere => "elsewhere",
        }
    }
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far one partition of a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionStatus {
    /// Its name: the `_partition` of its rows.
    pub partition: String,
    /// The next offset to be read: what lies before it is in the online state, and in history with the next commit.
    pub offset: i64,
    /// The offset behind the last record of the source; `None` where the source does not say, as for pushes and files.
    pub end_offset: Option<i64>,
    /// The greatest event time minus the disorder, microseconds; `None` before the first valid record.
    pub watermark: Option<i64>,
    /// Events accepted since this process opened the stream.
    pub accepted: u64,
    /// Copies since then.
    pub duplicate: u64,
    /// Late records since then.
    pub late: u64,
    /// Rejected records since then.
    pub rejected: u64,
    /// When this process last committed records of it, microseconds.
    pub last_commit: Option<i64>,
}

impl PartitionStatus {
    /// The records of the source that are not read yet.
    pub fn lag(&self) -> Option<i64> {
        self.end_offset.map(|end| end.saturating_sub(self.offset).max(0))
    }

    /// Takes note of a commit that holds records of this partition.
    ///
    /// - `next` is the offset behind them, `watermark` what then holds, `at` the time of the commit, microseconds.
    /// - `end_offset` moves along where it was behind: what was read was there.
    pub fn committed(&mut self, next: i64, watermark: Option<i64>, counts: &IngestCounts, at: i64) {
        self.offset = next;
        self.end_offset = self.end_offset.map(|end| end.max(next));
        self.watermark = watermark;
        self.accepted += counts.accepted;
        self.duplicate += counts.duplicate;
        self.late += counts.late;
        self.rejected += counts.rejected;
        self.last_commit = Some(at);
    }
}

/// How far one stream is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamStatus {
    /// Its name.
    pub stream: String,
    /// What its source is doing.
    pub state: SourceState,
    /// Why, and what to do about it.
    pub message: Option<String>,
    /// Its partitions, in the order of names with numbers by value.
    pub partitions: Vec<PartitionStatus>,
}

impl StreamStatus {
    /// A partition by name; made where it is not known yet.
    pub fn partition(&mut self, name: &str) -> &mut PartitionStatus {
        let at = match self.partitions.binary_search_by(|p| natural(&p.partition).cmp(&natural(name))) {
            Ok(at) => at,
            Err(at) => {
                self.partitions.insert(at, PartitionStatus { partition: name.to_owned(), ..PartitionStatus::default() });
                at
            }
        };
        &mut self.partitions[at]
    }

    /// Forgets the partitions that `keep` does not name: those that another process reads from here on.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.partitions.retain(|p| keep(&p.partition));
    }

    /// Says what the source is doing.
    pub fn say(&mut self, state: SourceState, message: Option<String>) {
        (self.state, self.message) = (state, message);
    }
}

/// A name before its last digits, then their value: `t/9` stands before `t/10`. The name itself tells apart what is left, as `t/09`.
fn natural(name: &str) -> (&str, u64, &str) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, number) = name.split_at(name.len() - digits);
    (head, number.parse().unwrap_or(0), name)
}

/// The status of every stream that this process has opened; cheap to clone, all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    streams: Arc<RwLock<BTreeMap<String, StreamStatus>>>,
}

impl Statuses {
    /// Changes the status of a stream, which is made where it is not known yet. Nobody reads meanwhile: `change` must not wait.
    pub fn update<T>(&self, stream: &str, change: impl FnOnce(&mut StreamStatus) -> T) -> T {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = streams.get_mut(stream) {
            return change(status);
        }
        let new = StreamStatus { stream: stream.to_owned(), ..StreamStatus::default() };
        change(streams.entry(stream.to_owned()).or_insert(new))
    }

    /// Says what the source of a stream is doing, and why.
    pub fn say(&self, stream: &str, state: SourceState, message: Option<String>) {
        self.update(stream, |status| status.say(state, message));
    }

    /// The status of a stream; `None` where this process has not opened it.
    pub fn get(&self, stream: &str) -> Option<StreamStatus> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    /// Every status, in the order of names.
    pub fn all(&self) -> Vec<StreamStatus> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets a stream that was dropped.
    pub fn remove(&self, stream: &str) {
        self.streams.write().unwrap_or_else(PoisonError::into_inner).remove(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(status: &StreamStatus) -> Vec<&str> {
        status.partitions.iter().map(|p| p.partition.as_str()).collect()
    }

    #[test]
    fn partitions_are_ordered_as_people_count() {
        let mut status = StreamStatus::default();
        for name in ["t/10", "t/9", "push", "t/0", "t/09", "12", "t/9", "t/99999999999999999999999", "t/"] {
            status.partition(name).accepted += 1;
        }
        assert_eq!(names(&status), ["12", "push", "t/", "t/0", "t/99999999999999999999999", "t/09", "t/9", "t/10"]);
        assert_eq!(status.partition("t/9").accepted, 2);
        status.retain(|name| name.starts_with("t/1"));
        assert_eq!(names(&status), ["t/10"]);
    }

    #[test]
    fn commits_add_up() {
        let statuses = Statuses::default();
        let counts = IngestCounts { read: 10, accepted: 4, duplicate: 3, late: 2, rejected: 1, conflicts: 1 };
        let other = statuses.clone();
        statuses.update("s", |s| s.partition("0").committed(10, Some(5), &counts, 70));
        other.update("s", |s| {
            s.partition("0").end_offset = Some(15);
            s.partition("0").committed(20, Some(6), &counts, 71);
            s.partition("1").end_offset = Some(9);
        });
        statuses.say("s", SourceState::Paused, Some("the disk is full".into()));
        let status = statuses.get("s").expect("opened");
        assert_eq!((status.state.to_string(), status.message.as_deref()), ("paused".into(), Some("the disk is full")));
        let zero = PartitionStatus {
            partition: "0".into(),
            offset: 20,
            end_offset: Some(20),
            watermark: Some(6),
            accepted: 8,
            duplicate: 6,
            late: 4,
            rejected: 2,
            last_commit: Some(71),
        };
        assert_eq!(status.partitions[0], zero);
        assert_eq!(status.partitions.iter().map(PartitionStatus::lag).collect::<Vec<_>>(), [Some(0), Some(9)]);
        statuses.remove("s");
        assert!(other.get("s").is_none() && other.all().is_empty());
    }
}
