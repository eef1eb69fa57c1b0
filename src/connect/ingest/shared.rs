//! A stream that several processes share: each reads some partitions of the topic, all commit to one history.
//!
//! Copies of an event lie in one partition, so what one process reads is judged without a look at what the others read. What is not read
//! from the topic may touch any of it: INSERT, COPY, REPROCESS and the like. Such a step is committed only if no partition has gone on
//! since it was begun, and it moves a number on which every other commit builds: who reads then begins anew, behind it.
//!
//! What a process must know of a partition it finds in history under the partition's name, whoever has read it before: the offset, the
//! greatest event time. How many partitions the topic has is kept as well, since keys lie by it.

use super::{PUSH, Pipeline, offset_app};
use crate::error::{Error, Result};
use crate::history::{Commit, Guard, Outcome, Progress, StreamHistory};
use crate::registry::{Connector, Stream};
use crate::stream::watermark::PartitionTimes;

/// How many steps were not read from the topic.
const STEPS: &str = "asof/steps";
/// How many partitions the topic has.
const PARTITIONS: &str = "asof/partitions";
/// How often the stream was altered.
const ALTERED: &str = "asof/altered";

fn time_app(partition: &str) -> String {
    format!("asof/time/{partition}")
}

/// The name of a topic's partition in history.
pub fn partition_name(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// What a process knows of the others.
#[derive(Debug)]
pub(super) struct Shared {
    topic: String,
    /// The partitions that are read here.
    reads: Vec<i32>,
    /// The steps that are taken into account.
    steps: Option<i64>,
    /// How many partitions the topic has; `None` before the first was read.
    partitions: Option<i64>,
}

/// What a commit needs that no other may have come before.
#[derive(Debug, Default)]
pub(super) struct Alone {
    pub(super) guards: Vec<Guard>,
    pub(super) notes: Vec<(String, i64)>,
}

impl Shared {
    /// `None` for a stream that one process reads.
    pub(super) fn of(stream: &Stream, reads: &[i32]) -> Option<Self> {
        match &stream.options.connector {
            Connector::Kafka(kafka) if stream.options.key.is_some() => {
                Some(Self { topic: kafka.topic.clone(), reads: reads.to_vec(), steps: None, partitions: None })
            }
            _ => None,
        }
    }

    /// Finds in history what there is to know.
    pub(super) async fn recover(&mut self, history: &StreamHistory, times: &mut PartitionTimes) -> Result<()> {
        self.steps = history.transaction_version(STEPS).await?;
        self.partitions = history.transaction_version(PARTITIONS).await?;
        let names = self.reads.iter().map(|p| partition_name(&self.topic, *p)).chain([PUSH.to_owned()]);
        for name in names {
            let time = history.transaction_version(&time_app(&name)).await?;
            times.restore(&name, time.filter(|_| !asof_udfs::seeded_bug("restart-forgets-lateness")));
        }
        Ok(())
    }
}

impl Pipeline {
    /// Whether several processes share the stream.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The partitions of the topic that are read here, of a shared stream.
    pub fn reads(&self) -> &[i32] {
        self.shared.as_ref().map_or(&[], |shared| &shared.reads)
    }

    pub(super) fn keep_partition_count(&mut self, old: &Self) {
        if let (Some(new), Some(old)) = (&mut self.shared, &old.shared) {
            new.partitions = new.partitions.or(old.partitions);
        }
    }

    /// Whether a step came since that was not read from the topic, so that what is remembered is not all there is.
    pub async fn is_overtaken(&self) -> Result<bool> {
        Ok(match &self.shared {
            Some(shared) => self.history.transaction_version(STEPS).await? != shared.steps,
            None => false,
        })
    }

    /// How many partitions the topic of a shared stream has, as it was first read.
    pub async fn partition_count(history: &StreamHistory) -> Result<Option<i32>> {
        let found = history.transaction_version(PARTITIONS).await?;
        found.map(|n| i32::try_from(n).map_err(|_| Error::data("history names more partitions than there can be"))).transpose()
    }

    /// Says how many partitions the topic has; the next commit says it to all.
    pub fn set_partition_count(&mut self, partitions: i32) {
        if let Some(shared) = &mut self.shared {
            shared.partitions = Some(partitions.into());
        }
    }

    /// What a commit of records of the topic builds on and keeps beside their offsets.
    pub(super) fn among_others(&self) -> (Vec<Guard>, Vec<(String, i64)>) {
        let Some(shared) = &self.shared else { return (vec![], vec![]) };
        let guard = Guard { app_id: STEPS.into(), expected: shared.steps };
        // Of these partitions alone: others may be another process's by now.
        let times = self.staged.partitions().filter_map(|p| self.time_note(p));
        (vec![guard], times.chain(shared.partitions.map(|n| (PARTITIONS.to_owned(), n))).collect())
    }

    /// The greatest event time of a partition, as history keeps it.
    pub(super) fn time_note(&self, partition: &str) -> Option<(String, i64)> {
        self.shared.as_ref()?;
        self.times.greatest(partition).map(|time| (time_app(partition), time))
    }

    /// What a step builds on that is not read from the topic: all that history has now.
    pub(super) async fn alone(&self) -> Result<Alone> {
        let Some(shared) = &self.shared else { return Ok(Alone::default()) };
        let names = 0..i32::try_from(shared.partitions.unwrap_or(0)).unwrap_or(0);
        let offsets = names.map(|p| offset_app(&partition_name(&shared.topic, p)));
        let mut guards = Vec::new();
        for app_id in offsets.chain([PARTITIONS.to_owned()]) {
            let expected = self.history.transaction_version(&app_id).await?;
            guards.push(Guard { app_id, expected });
        }
        guards.push(Guard { app_id: STEPS.into(), expected: shared.steps });
        Ok(Alone { guards, notes: vec![(STEPS.into(), shared.steps.unwrap_or(0) + 1)] })
    }

    /// Makes every process begin anew, behind what is known now: a stream has another column.
    pub async fn announce(&mut self) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        let Alone { notes, .. } = self.alone().await?;
        let expected = self.history.transaction_version(ALTERED).await?;
        let progress =
            vec![Progress { app_id: ALTERED.into(), partition: None, expected, version: expected.unwrap_or(0) + 1, numbered_from: None }];
        // It builds on nothing that others do.
        match self.put_alone(Commit { progress, notes, ..Commit::default() }).await? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Superseded { .. } => Err(Error::unavailable("another process alters the stream; try again")),
        }
    }

    /// Commits a step that was begun with [`Self::alone`].
    pub(super) async fn put_alone(&mut self, commit: Commit) -> Result<Outcome> {
        let steps = commit.notes.iter().find(|(name, _)| name == STEPS).map(|(_, steps)| *steps);
        let outcome = self.put(commit).await?;
        match (&outcome, &mut self.shared) {
            (Outcome::Committed { .. }, Some(shared)) => shared.steps = steps,
            (Outcome::Superseded { .. }, Some(_)) => {
                return Err(Error::unavailable("another process has read on meanwhile; nothing was written: try again"));
            }
            _ => {}
        }
        Ok(outcome)
    }
}
