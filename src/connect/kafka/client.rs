//! The client library's consumer: how it is set up, what it is asked, and what it tells by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use super::Gap;
use crate::error::{Error, Result};
use crate::registry::options::kafka::{KafkaOptions, Start};
use crate::registry::options::setting::Setting;

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(10);

/// As many messages of the library are taken in to find out why a connection failed.
const TOLD_MAX: usize = 64;

/// How often a member of a group is heard in the time after which it is given up, and at least.
const HEARTBEATS: u32 = 3;
const HEARTBEAT_MAX_MS: u32 = 3000;

/// What holds unless the user says otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "asof"),
    ("socket.nagle.disable", "true"),
    // The library's own queue, before the thread that decodes.
    ("queued.max.messages.kbytes", "32768"),
    // A queue that was full is filled again at once, not after a second.
    ("fetch.queue.backoff.ms", "10"),
];

/// What holds whatever the user says.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // What is gone is told, not passed over.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("statistics.interval.ms", "1000"),
    ("check.crcs", "true"),
    // All of a member's partitions change hands at once: what is held for them is made anew.
    ("partition.assignment.strategy", "range,roundrobin"),
];

/// What the library tells of a topic by itself.
#[derive(Debug, Default)]
pub struct Progress {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    ends: BTreeMap<i32, i64>,
    error: Option<String>,
    /// Why the last connection failed, which an answer that stays away does not say.
    failure: Option<String>,
}

impl Progress {
    /// The offset behind the last record that can be read of a partition, as of the last second; `None` where it is not known.
    pub fn end(&self, partition: i32) -> Option<i64> {
        self.told().ends.get(&partition).copied()
    }

    /// What keeps the library from reading; `None` where it reads.
    pub fn error(&self) -> Option<String> {
        self.told().error.clone()
    }

    /// Something was read.
    pub fn reads(&self) {
        let mut told = self.told();
        (told.error, told.failure) = (None, None);
    }

    /// Something keeps it from being read.
    pub(super) fn fails(&self, why: &str) {
        self.told().error = Some(why.to_owned());
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the group has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// These partitions are this member's.
    Assigned(Vec<i32>),
    /// It has none from here on; whether that was decided without it.
    Revoked {
        /// Another member may have them already.
        lost: bool,
    },
}

/// Takes what the library tells by itself.
#[derive(Debug)]
pub(super) struct Watch {
    topic: String,
    progress: Arc<Progress>,
    /// What the group has decided and nobody has acted on; `None` where nobody will.
    turns: Mutex<Option<Vec<Turn>>>,
}

impl Watch {
    fn turns(&self) -> MutexGuard<'_, Option<Vec<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the group has decided since this was asked last.
    pub(super) fn decided(&self) -> Vec<Turn> {
        self.turns().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl ClientContext for Watch {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let mut told = self.progress.told();
        for (number, partition) in &topic.partitions {
            // Records of open transactions cannot be read yet.
            let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
            if *number >= 0 && end >= 0 {
                told.ends.insert(*number, end);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.progress.told().error.replace(reason.to_owned()).is_none() {
            tracing::warn!(topic = self.topic, %error, "{reason}");
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Each try of each connection: the last one is told when it is known that none came about.
        if facility == "FAIL" {
            self.progress.told().failure = Some(message.split_once("]: ").map_or(message, |(_, what)| what).to_owned());
            tracing::debug!(topic = self.topic, facility, "{message}");
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(topic = self.topic, facility, "{message}");
            }
            _ => tracing::debug!(topic = self.topic, facility, "{message}"),
        }
    }
}

impl ConsumerContext for Watch {
    /// The group goes on once this member has said that it has taken or given up its partitions: whoever polls does, right behind this.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let turn = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let mut numbers: Vec<i32> = partitions.elements().iter().map(|p| p.partition()).collect();
                numbers.sort_unstable();
                Turn::Assigned(numbers)
            }
            _ => Turn::Revoked { lost: consumer.assignment_lost() },
        };
        match self.turns().as_mut() {
            Some(turns) => turns.push(turn),
            None => {
                if let Err(e) = consumer.unassign() {
                    tracing::debug!(topic = self.topic, error = %e, "partitions are not given up");
                }
            }
        }
    }
}

/// A consumer of one topic.
pub struct Client {
    pub(super) consumer: BaseConsumer<Watch>,
    pub(super) topic: String,
    pub(super) has_group: bool,
    /// What the library tells by itself.
    pub progress: Arc<Progress>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Client {
    /// Sets a consumer up; nothing is asked of the broker yet.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] for a property that the library does not take; [`crate::error::Kind::Unavailable`] where
    ///   a secret is not where it should be.
    pub fn open(options: &KafkaOptions) -> Result<Self> {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(*key, *value);
        }
        for (key, setting) in &options.properties {
            config.set(key, setting.value()?);
        }
        // A member that is heard once a session only is out of the group as often as in it.
        if let (Some(session), None) = (options.properties.get("session.timeout.ms"), options.properties.get("heartbeat.interval.ms"))
            && let Ok(session) = session.value()?.parse::<u32>()
        {
            config.set("heartbeat.interval.ms", (session / HEARTBEATS).clamp(1, HEARTBEAT_MAX_MS).to_string());
        }
        for (key, value) in FIXED {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &options.brokers);
        // The library wants the name of a group, also where its offsets are of no use to anybody.
        config.set("group.id", options.group.as_deref().unwrap_or("asof"));
        config.set_log_level(RDKafkaLogLevel::Warning);
        let progress = Arc::new(Progress::default());
        let watch = Watch { topic: options.topic.clone(), progress: progress.clone(), turns: Mutex::new(None) };
        let consumer = config.create_with_context(watch).map_err(|e| match e {
            KafkaError::ClientConfig(_, why, key, _) => {
                let open = options.properties.get(&key).is_none_or(|s| matches!(s, Setting::Plain(_)));
                let why = if open { format!(": {why}") } else { String::new() };
                Error::invalid(format!("the Kafka client does not take the option \"kafka.{key}\"{why}"))
            }
            e => Error::invalid(format!("the Kafka client cannot be set up: {e}")),
        })?;
        Ok(Self { consumer, topic: options.topic.clone(), has_group: options.group.is_some(), progress })
    }

    /// Joins the group, which shares out the topic's partitions among its members. Whoever calls it polls and acts on what is decided.
    pub(super) fn join(&self) -> Result<()> {
        *self.consumer.context().turns() = Some(vec![]);
        self.consumer.subscribe(&[&self.topic]).map_err(|e| self.error(&e))
    }

    /// Nobody acts any more on what the group decides.
    pub(super) fn leave(&self) {
        let joined = self.consumer.context().turns().take().is_some();
        // Also where nothing waits to be acted on: what was lost and not given up would keep the client from closing.
        if joined && let Err(e) = self.consumer.unassign() {
            tracing::debug!(topic = self.topic, error = %e, "partitions are not given up");
        }
    }

    /// The partitions of the topic, ascending.
    pub fn partitions(&self) -> Result<Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER).map_err(|e| self.error(&e))?;
        let found = metadata.topics().iter().find(|t| t.name() == self.topic);
        let mut partitions: Vec<i32> = found.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        if partitions.is_empty() {
            return Err(Error::unavailable(format!("there is no topic \"{}\"", self.topic)));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Where reading begins of partitions of which nothing was read.
    pub fn first_offsets(&self, start: Start, partitions: &[i32]) -> Result<Vec<(i32, i64)>> {
        let watermarks = |p: i32| self.consumer.fetch_watermarks(&self.topic, p, ANSWER).map_err(|e| self.error(&e));
        let Start::At(micros) = start else {
            let one = |p: &i32| watermarks(*p).map(|(first, end)| (*p, if start == Start::Earliest { first } else { end }));
            return partitions.iter().map(one).collect();
        };
        let mut list = TopicPartitionList::new();
        for p in partitions {
            // The least millisecond that is not before the time asked for.
            let millis = micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0);
            list.add_partition_offset(&self.topic, *p, Offset::Offset(millis)).map_err(|e| self.error(&e))?;
        }
        let found = self.consumer.offsets_for_times(list, ANSWER).map_err(|e| self.error(&e))?;
        let one = |p: &i32| match found.find_partition(&self.topic, *p).map(|e| e.offset()) {
            Some(Offset::Offset(offset)) => Ok((*p, offset)),
            _ => watermarks(*p).map(|(_, end)| (*p, end)),
        };
        partitions.iter().map(one).collect()
    }

    /// The partitions that do not have the record that is wanted next, nor end there.
    pub fn gaps(&self, wanted: &[(i32, i64)]) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        for (partition, wanted) in wanted.iter().copied() {
            let watermarks = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER);
            let (first, end) = watermarks.map_err(|e| self.error(&e))?;
            self.progress.told().ends.insert(partition, end);
            if wanted < first || wanted > end {
                gaps.push(Gap { partition, wanted, first, end });
            }
        }
        Ok(gaps)
    }

    /// Takes in what the library has told, before there is anything to read: a record that came with it would be lost.
    fn take_in(&self) {
        let joined = self.consumer.context().turns().is_some();
        if joined || self.consumer.assignment().is_ok_and(|a| a.count() > 0) {
            return;
        }
        for _ in 0..TOLD_MAX {
            // What is no record is handed to the context.
            let _ = self.consumer.poll(Duration::ZERO);
        }
    }

    pub(super) fn error(&self, e: &KafkaError) -> Error {
        use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
        let unreached = matches!(e.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut));
        if unreached {
            self.take_in();
        }
        let why = self.progress.told().failure.clone().filter(|_| unreached);
        Error::unavailable(format!("the topic \"{}\" cannot be read now: {}", self.topic, why.unwrap_or_else(|| e.to_string())))
    }
}
