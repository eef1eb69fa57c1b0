//! A Kafka topic as a source: a thread that polls the client library and decodes, and what it hands on.
//!
//! The offsets that count are those of history: the thread is told where each partition begins and reports what it read with the offset
//! behind it. Of a stream that one process writes it takes all partitions itself; of one that several share it takes those that the group
//! assigns, once somebody has said where they begin, and gives them up once somebody has said that they are done with. The group's offsets
//! are only advice to other tools, committed after history. What the broker has deleted before it was read is a gap: it is reported, never
//! skipped. Chunks wait in a bounded channel, then the thread waits, then the library's own bounded queues, then the broker. Not here:
//! what becomes of the records (`ingest`), when they are committed (`engine`).

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc as commands;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use self::client::Turn;
pub use self::client::{Client, Progress};
use crate::error::{Error, Kind, Result};
use crate::stream::decode::{Decoded, MessageDecoder, MessageFormat, Options, Schemas};
use crate::stream::placement::Placement;
use crate::stream::schema::StreamSchema;

/// Records of one chunk at most.
const CHUNK_ROWS: usize = 16_384;
/// Bytes of the messages of one chunk, about.
const CHUNK_BYTES: usize = 8 << 20;
/// How long a record waits for others to share a chunk with.
const CHUNK_WAIT: Duration = Duration::from_millis(5);
/// Chunks that wait for the pipeline.
const CHUNKS_WAITING: usize = 4;
/// How long the thread waits for a message before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(20);
/// How long it is waited until the group is left.
const CLOSING: Duration = Duration::from_secs(2);
/// How long a message waits that cannot be decoded now.
const AGAIN: Duration = Duration::from_millis(200);
/// How often the thread asks whether the topic has new partitions.
const LOOK_FOR_PARTITIONS: Duration = Duration::from_secs(30);

/// What the thread reports.
#[derive(Debug)]
pub enum Event {
    /// Records of one partition.
    Records {
        /// The partition.
        partition: i32,
        /// What was decoded.
        decoded: Decoded,
        /// The offset behind the last record.
        next: i64,
    },
    /// The topic has partitions that are not read yet.
    NewPartitions(Vec<i32>),
    /// The group has made these partitions this process's. Nothing is read before it is said where each begins.
    Assigned {
        /// The partitions.
        partitions: Vec<i32>,
        /// Where each begins.
        begin: commands::SyncSender<Vec<(i32, i64)>>,
    },
    /// The group gives the partitions to others once this is answered; no record of them comes any more.
    Revoked {
        /// Another process may have them already: nothing is to be committed.
        lost: bool,
        /// To be dropped when nothing more will be done with them.
        done: commands::SyncSender<()>,
    },
    /// Records were deleted before they were read, or the topic is not the one that was read. Nothing more comes.
    Gap(Vec<Gap>),
    /// The topic cannot be read. Nothing more comes.
    Failed(Error),
}

/// What is between where reading should go on and what the broker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: i32,
    /// Where reading should go on.
    pub wanted: i64,
    /// The first offset that the broker has.
    pub first: i64,
    /// The offset behind the last that the broker has.
    pub end: i64,
}

impl Gap {
    /// Whether the log goes on before what was read of it, so that it is not the same log.
    pub fn is_behind(&self) -> bool {
        self.wanted > self.end
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} should go on at offset {}, the broker has {} to {}", self.partition, self.wanted, self.first, self.end)
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// Offsets that history holds.
    Committed(Vec<(i32, i64)>),
    /// Partitions to be read as well.
    Assign(Vec<(i32, i64)>),
}

/// A topic that is being read; dropped, the reading ends.
#[derive(Debug)]
pub struct Reader {
    events: mpsc::Receiver<Event>,
    commands: commands::Sender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    /// Begins reading partitions at given offsets.
    pub fn start(client: Arc<Client>, from: &[(i32, i64)], decoding: Decoding) -> Result<Self> {
        Self::spawn(client, decoding, from)
    }

    /// Joins the group and reads what it assigns.
    pub fn join(client: Arc<Client>, decoding: Decoding) -> Result<Self> {
        client.join()?;
        Self::spawn(client, decoding, &[])
    }

    fn spawn(client: Arc<Client>, decoding: Decoding, from: &[(i32, i64)]) -> Result<Self> {
        let (events, received) = mpsc::channel(CHUNKS_WAITING);
        let (commands, orders) = commands::channel();
        let mut thread =
            Thread { client, decoding, events, orders, partitions: BTreeMap::new(), since: None, waiting_rows: 0, waiting_bytes: 0 };
        if !from.is_empty() {
            thread.assign(from)?;
        }
        let spawned = std::thread::Builder::new().name("kafka".into()).spawn(move || thread.run());
        let thread = spawned.map_err(|e| Error::unavailable(format!("no thread for the topic: {e}")))?;
        Ok(Self { events: received, commands, thread })
    }

    /// The next report; `None` where the thread has ended without a word.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Ends the reading and waits, for a while, until the group is left. `client` is the last but the thread's own.
    pub async fn close(self, client: Arc<Client>) {
        let Self { events, thread, .. } = self;
        drop(events);
        let left = tokio::task::spawn_blocking(move || {
            let ended = thread.join().is_ok();
            drop(client);
            ended
        });
        if !matches!(tokio::time::timeout(CLOSING, left).await, Ok(Ok(true))) {
            tracing::debug!("the group is not left yet");
        }
    }

    /// Lets the group know what history holds.
    pub fn committed(&self, offsets: Vec<(i32, i64)>) {
        // A thread that has ended has no group to tell.
        let _ = self.commands.send(Command::Committed(offsets));
    }

    /// Reads further partitions.
    pub fn assign(&self, from: Vec<(i32, i64)>) {
        let _ = self.commands.send(Command::Assign(from));
    }
}

/// How messages become records.
#[derive(Debug, Clone)]
pub struct Decoding {
    /// The stream's columns.
    pub schema: Arc<StreamSchema>,
    /// How messages are written.
    pub format: MessageFormat,
    /// Where Avro finds its writers' schemas.
    pub schemas: Option<Arc<dyn Schemas>>,
    /// How values are read.
    pub options: Options,
    /// How far past a message's broker timestamp an event may lie, microseconds.
    pub max_future_skew_us: i64,
    /// Where records lie, where several processes share the topic.
    pub placement: Option<Placement>,
}

/// One partition as the thread has it.
struct Partition {
    decoder: MessageDecoder,
    next: i64,
}

struct Thread {
    client: Arc<Client>,
    decoding: Decoding,
    events: mpsc::Sender<Event>,
    orders: commands::Receiver<Command>,
    partitions: BTreeMap<i32, Partition>,
    /// When the first of the records that wait was read.
    since: Option<Instant>,
    waiting_rows: usize,
    waiting_bytes: usize,
}

/// Nobody waits for what the thread reads.
struct Gone;

impl Thread {
    fn run(mut self) {
        let mut looked = Instant::now();
        while !self.events.is_closed() {
            if self.step(&mut looked).is_err() {
                break;
            }
        }
        self.client.leave();
    }

    fn step(&mut self, looked: &mut Instant) -> std::result::Result<(), Gone> {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Command::Committed(offsets) => self.advise(&offsets),
                Command::Assign(from) => {
                    if let Err(e) = self.assign(&from) {
                        return self.last(Event::Failed(e));
                    }
                }
            }
        }
        for turn in self.client.consumer.context().decided() {
            self.act_on(turn)?;
        }
        if looked.elapsed() > LOOK_FOR_PARTITIONS {
            *looked = Instant::now();
            self.look_for_partitions()?;
        }
        let now = Instant::now();
        let client = self.client.clone();
        // While there are messages they are taken without a look at the clock for each.
        loop {
            let wait = if self.since.is_some() { Duration::ZERO } else { POLL };
            let outcome = match client.consumer.poll(wait) {
                None if self.since.is_some() => return self.hand_on(),
                None => return Ok(()),
                Some(Ok(message)) => {
                    self.take(&message)?;
                    self.since.get_or_insert(now);
                    None
                }
                Some(Err(e)) => Some(e),
            };
            if let Some(e) = outcome {
                return self.failed(&e);
            }
            let rows = self.waiting_rows;
            if rows >= CHUNK_ROWS || self.waiting_bytes >= CHUNK_BYTES || (rows.is_multiple_of(256) && now.elapsed() >= CHUNK_WAIT) {
                return self.hand_on();
            }
        }
    }

    /// Does what the group has decided.
    fn act_on(&mut self, turn: Turn) -> std::result::Result<(), Gone> {
        // What was decoded and not handed on is read again by whoever has the partition then.
        self.partitions.clear();
        (self.since, self.waiting_rows, self.waiting_bytes) = (None, 0, 0);
        let taken = match turn {
            Turn::Assigned(partitions) => {
                let (begin, begins) = commands::sync_channel(1);
                self.events.blocking_send(Event::Assigned { partitions, begin }).map_err(|_| Gone)?;
                let from = begins.recv().map_err(|_| Gone)?;
                self.assign(&from)
            }
            Turn::Revoked { lost } => {
                let (done, is_done) = commands::sync_channel(1);
                self.events.blocking_send(Event::Revoked { lost, done }).map_err(|_| Gone)?;
                // It ends, one way or the other, by being dropped.
                let _ = is_done.recv();
                self.client.consumer.unassign().map_err(|e| self.client.error(&e))
            }
        };
        match taken {
            Ok(()) => Ok(()),
            Err(e) => self.last(Event::Failed(e)),
        }
    }

    /// Decodes one message. Where that is not possible now, what was decoded before is handed on, and the message is tried again.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> std::result::Result<(), Gone> {
        let taken = message.timestamp().to_millis().map_or_else(now_us, |ms| ms.saturating_mul(1000));
        let latest = taken.saturating_add(self.decoding.max_future_skew_us);
        loop {
            let Some(partition) = self.partitions.get_mut(&message.partition()) else { return Ok(()) };
            // A partition that is assigned anew may give again what was in flight.
            if message.offset() < partition.next {
                return Ok(());
            }
            partition.decoder.set_latest_us(Some(latest));
            match partition.decoder.record(message.offset(), message.key(), message.payload()) {
                Ok(()) => {
                    partition.next = message.offset() + 1;
                    self.waiting_rows += 1;
                    self.waiting_bytes += message.payload_len();
                    return Ok(());
                }
                Err(e) if e.kind() == Kind::Unavailable => {
                    self.hand_on()?;
                    self.client.progress.fails(e.message());
                    std::thread::sleep(AGAIN);
                    if self.events.is_closed() {
                        return Err(Gone);
                    }
                }
                Err(e) => return self.last(Event::Failed(e)),
            }
        }
    }

    /// Hands on what was decoded, partition after partition.
    fn hand_on(&mut self) -> std::result::Result<(), Gone> {
        (self.since, self.waiting_rows, self.waiting_bytes) = (None, 0, 0);
        self.client.progress.reads();
        for (number, partition) in &mut self.partitions {
            if partition.decoder.pending() == 0 {
                continue;
            }
            let event = match partition.decoder.take() {
                Ok(decoded) => Event::Records { partition: *number, decoded, next: partition.next },
                Err(e) => Event::Failed(e),
            };
            let failed = matches!(event, Event::Failed(_));
            self.events.blocking_send(event).map_err(|_| Gone)?;
            if failed {
                return Err(Gone);
            }
        }
        Ok(())
    }

    fn last(&mut self, event: Event) -> std::result::Result<(), Gone> {
        // Whether somebody takes it or not, the thread ends.
        let _ = self.events.blocking_send(event);
        Err(Gone)
    }

    fn failed(&mut self, e: &KafkaError) -> std::result::Result<(), Gone> {
        match e {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.hand_on()?;
                let wanted: Vec<(i32, i64)> = self.partitions.iter().map(|(p, s)| (*p, s.next)).collect();
                match self.client.gaps(&wanted) {
                    Ok(gaps) if gaps.is_empty() => {
                        self.last(Event::Failed(Error::unavailable(format!("the topic \"{}\" gave no records: {e}", self.client.topic))))
                    }
                    Ok(gaps) => self.last(Event::Gap(gaps)),
                    Err(e) => self.last(Event::Failed(e)),
                }
            }
            KafkaError::MessageConsumptionFatal(_)
            | KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::Fatal,
            ) => {
                let error = Error::unavailable(format!("the topic \"{}\" cannot be read: {e}", self.client.topic));
                self.last(Event::Failed(error))
            }
            // What passes is tried again by the library itself.
            e => {
                tracing::debug!(topic = self.client.topic, error = %e, "the topic cannot be read now");
                Ok(())
            }
        }
    }

    fn assign(&mut self, from: &[(i32, i64)]) -> Result<()> {
        let mut list = TopicPartitionList::new();
        let Decoding { schema, format, schemas, options, placement, .. } = &self.decoding;
        for (number, next) in from {
            let options = Options { placed: placement.map(|placement| (placement, *number)), ..options.clone() };
            let decoder = MessageDecoder::try_new(schema.clone(), *format, &options, schemas.clone())?;
            self.partitions.insert(*number, Partition { decoder, next: *next });
            let added = list.add_partition_offset(&self.client.topic, *number, Offset::Offset(*next));
            added.map_err(|e| self.client.error(&e))?;
        }
        let assigned = match self.partitions.len() == from.len() {
            true => self.client.consumer.assign(&list),
            false => self.client.consumer.incremental_assign(&list),
        };
        assigned.map_err(|e| self.client.error(&e))
    }

    fn advise(&self, offsets: &[(i32, i64)]) {
        if !self.client.has_group {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (number, next) in offsets {
            if let Err(e) = list.add_partition_offset(&self.client.topic, *number, Offset::Offset(*next)) {
                tracing::debug!(error = %e, "an offset is not told to the group");
            }
        }
        if let Err(e) = self.client.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(error = %e, "offsets are not told to the group");
        }
        crate::crash::crash_point("offsets.committed");
    }

    fn look_for_partitions(&mut self) -> std::result::Result<(), Gone> {
        let there = match self.client.partitions() {
            Ok(there) => there,
            // The next look may find the broker again.
            Err(e) => {
                tracing::debug!(error = %e, "the topic's partitions are not known now");
                return Ok(());
            }
        };
        if let Some(placement) = &self.decoding.placement {
            // The group assigns what is new; what keys lie by is for somebody to decide.
            return match i32::try_from(there.len()) {
                Ok(count) if count == placement.partitions => Ok(()),
                _ => self.last(Event::Failed(Error::unavailable("the topic has other partitions than it had"))),
            };
        }
        let new: Vec<i32> = there.into_iter().filter(|p| !self.partitions.contains_key(p)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.events.blocking_send(Event::NewPartitions(new)).map_err(|_| Gone)
    }
}

fn now_us() -> i64 {
    use crate::time::{Clock, SystemClock};
    SystemClock.now().0
}
