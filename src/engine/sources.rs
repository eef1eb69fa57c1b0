//! Streams that are read from a log, by a process that serves: one task per stream feeds the stream's pipeline and the views.
//!
//! What was read is in the online state at once and in history with the next commit, by rows or by time, whichever comes first; a read of
//! history commits first, so that nobody sees less there than was served. What fails for a while is tried again with the same records,
//! since the log keeps them. A gap in the log, or an error that waiting does not mend, stops the stream until somebody decides. A process
//! that lost the lease never commits, forgets what it staged, and waits. Not here: polling and decoding (`connect::kafka`), what a commit
//! holds (`connect::ingest::staged`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use super::group::check_partitions;
use super::{Inner, OpenStream, Output};
use crate::connect::ingest::shared::partition_name;
use crate::connect::ingest::{IngestCounts, Pipeline, decode_options};
use crate::connect::kafka::{Client, Decoding, Event, Gap, Reader};
use crate::connect::status::SourceState;
use crate::crash::crash_point;
use crate::error::{Error, Kind, Result};
use crate::registry::options::kafka::{KafkaOptions, Start};
use crate::registry::{Connector, Stream};
use crate::stream::decode::{RegistryClient, Schemas};
use crate::stream::placement::Placement;
use crate::warehouse::Lease;

/// How long what failed waits before it is tried again, at first and at most.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often the memory of the online state is compared with its bound.
const LOOK_AT_STATE: Duration = Duration::from_millis(100);

/// The streams that are read, and how each is.
#[derive(Debug, Default)]
pub(super) struct Sources {
    enabled: AtomicBool,
    running: Mutex<BTreeMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    halt: Arc<Halt>,
}

/// What stopped a stream, and how it is told to go on.
#[derive(Debug, Default)]
struct Halt {
    gaps: StdMutex<Vec<Gap>>,
    resume: Notify,
}

impl Halt {
    fn gaps(&self) -> MutexGuard<'_, Vec<Gap>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the reading of a stream ended.
enum End {
    /// It was asked to.
    Asked,
    /// The engine is gone.
    Gone,
}

/// A wait that grows with every failure.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(WAIT_FIRST)
    }

    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (2 * wait).min(WAIT_MAX);
        wait
    }
}

fn kafka_of(definition: &Stream) -> Result<&KafkaOptions> {
    match &definition.options.connector {
        Connector::Kafka(options) => Ok(options),
        _ => Err(Error::invalid("the stream is not read from Kafka")),
    }
}

/// Asks the broker something, off the threads that compute.
async fn ask<T: Send + 'static>(client: &Arc<Client>, question: impl FnOnce(&Client) -> Result<T> + Send + 'static) -> Result<T> {
    let client = client.clone();
    let asked = tokio::task::spawn_blocking(move || question(&client)).await;
    asked.map_err(|e| Error::internal(format!("asking the broker stopped: {e}")))?
}

impl Inner {
    /// Reads every stream that has a log, from now on; to be called again and again, for streams that came since.
    pub(super) async fn keep_sources(self: &Arc<Self>) {
        self.sources.enabled.store(true, Ordering::Release);
        let registry = self.registry();
        let logs = registry.streams.iter().filter(|(_, s)| matches!(s.options.connector, Connector::Kafka(_)));
        let mut running = self.sources.running.lock().await;
        for (name, _) in logs {
            if running.contains_key(name) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let halt = Arc::new(Halt::default());
            let task = tokio::spawn(read(Arc::downgrade(self), name.clone(), halt.clone(), stopped));
            running.insert(name.clone(), Running { stop, task, halt });
        }
    }

    /// Whether this process reads logs.
    pub(super) fn reads_logs(&self) -> bool {
        self.sources.enabled.load(Ordering::Acquire)
    }

    /// Ends the reading of a stream, or of all; what was staged is committed.
    pub(super) async fn stop_sources(&self, stream: Option<&str>) {
        let mut running = self.sources.running.lock().await;
        let names: Vec<String> = running.keys().filter(|n| stream.is_none_or(|s| s == *n)).cloned().collect();
        for name in names {
            let Some(source) = running.remove(&name) else { continue };
            source.stop.send_replace(true);
            if let Err(e) = source.task.await {
                tracing::warn!(stream = name, error = %e, "the reading of a stream ended badly");
            }
        }
    }

    /// `RESUME STREAM ... PAST GAP`: goes on behind records that the broker deleted before they were read; the commit records the gap.
    pub(super) async fn resume_stream(&self, stream: &str) -> Result<Output> {
        let halt = self.sources.running.lock().await.get(stream).map(|r| r.halt.clone());
        let gaps = halt.as_ref().map(|h| h.gaps().clone()).unwrap_or_default();
        let Some(halt) = halt.filter(|_| !gaps.is_empty()) else {
            return Err(Error::invalid(format!("stream \"{stream}\" is not stopped at a gap")));
        };
        if let Some(gap) = gaps.iter().find(|gap| gap.is_behind()) {
            return Err(Error::invalid(format!(
                "stream \"{stream}\" cannot go on: {gap}, so its offsets are those of other records now; create another stream of the topic"
            )));
        }
        let definition = self.definition(stream)?;
        let options = kafka_of(&definition)?;
        let mut open = self.holding(stream).await?;
        for gap in &gaps {
            let name = partition_name(&options.topic, gap.partition);
            // Another process may have gone on meanwhile: what it has read must not be read again.
            if open.pipeline.committed_offset(&name).await? == Some(gap.wanted) {
                open.pipeline.skip_to(&[(name, gap.first)], true).await?;
            }
        }
        halt.gaps().clear();
        halt.resume.notify_one();
        let told: Vec<String> = gaps.iter().map(|g| format!("partition {} from {} to {}", g.partition, g.wanted, g.first)).collect();
        let message = format!("stream \"{stream}\" goes on; passed over: {}", told.join(", "));
        Ok(Output::Done { message, counts: None })
    }

    /// Commits what is staged, as the process that writes the stream.
    pub(super) async fn commit_staged(&self, stream: &str, open: &mut OpenStream) -> Result<()> {
        if !open.pipeline.has_uncommitted() {
            return Ok(());
        }
        self.check_writer(stream, open).await?;
        open.pipeline.flush().await?;
        self.note_commit(stream, open);
        Ok(())
    }

    /// Begins to commit what is staged, once the commit before has ended.
    async fn begin_commit(&self, stream: &str, open: &mut OpenStream) -> Result<()> {
        if !open.pipeline.has_uncommitted() {
            return Ok(());
        }
        self.check_writer(stream, open).await?;
        open.pipeline.finish_commit().await?;
        self.note_commit(stream, open);
        open.pipeline.begin_commit()
    }

    async fn check_writer(&self, stream: &str, open: &OpenStream) -> Result<()> {
        if open.lease.is_none() && open.share.is_none() {
            return Err(Error::closed(format!("the lease of stream \"{stream}\" is lost")));
        }
        open.check_leases().await
    }

    fn note_commit(&self, stream: &str, open: &mut OpenStream) {
        let committed = open.pipeline.take_committed();
        if committed.is_empty() {
            return;
        }
        let now = self.now();
        self.statuses.update(stream, |status| {
            status.partitions.iter_mut().filter(|p| committed.contains(&p.partition)).for_each(|p| p.last_commit = Some(now));
        });
        if let Some(took) = open.pipeline.history().commit_took() {
            self.metrics.step(stream, &IngestCounts::default(), Some(took));
        }
    }

    /// Where partitions are read from: behind what history holds, or where the stream begins.
    async fn positions(&self, stream: &str, client: &Arc<Client>, partitions: Vec<i32>, start: Start) -> Result<Vec<(i32, i64)>> {
        let definition = self.definition(stream)?;
        let options = kafka_of(&definition)?;
        let mut open = self.holding(stream).await?;
        // What is staged is not read again.
        self.commit_staged(stream, &mut open).await?;
        // A partition that came while nobody read is read from its first record, as one that comes while somebody does.
        let mut is_first = true;
        for partition in &partitions {
            is_first &= open.pipeline.committed_offset(&partition_name(&options.topic, *partition)).await?.is_none();
        }
        begin(&mut open.pipeline, client, options, partitions, if is_first { start } else { Start::Earliest }).await
    }

    /// Takes note of where each partition is read from that this process reads.
    async fn note_positions(&self, stream: &str, options: &KafkaOptions, client: &Client, from: &[(i32, i64)]) -> Result<()> {
        let open = self.stream(stream).await?;
        let watermarks: Vec<Option<i64>> = {
            let pipeline = &open.lock().await.pipeline;
            from.iter().map(|(partition, _)| pipeline.watermark(&partition_name(&options.topic, *partition))).collect()
        };
        self.statuses.update(stream, |status| {
            status.retain(|name| from.iter().any(|(p, _)| partition_name(&options.topic, *p) == name));
            for ((partition, next), watermark) in from.iter().zip(watermarks) {
                let p = status.partition(&partition_name(&options.topic, *partition));
                (p.offset, p.end_offset, p.watermark) = (*next, client.progress.end(*partition), watermark);
            }
            let none = "the group has assigned no partition to this process: it has more members than the topic has partitions";
            status.say(SourceState::Running, from.is_empty().then(|| none.to_owned()));
        });
        Ok(())
    }
}

/// Where partitions are read from: behind what history holds, or where the stream begins.
pub(super) async fn begin(
    pipeline: &mut Pipeline,
    client: &Arc<Client>,
    options: &KafkaOptions,
    partitions: Vec<i32>,
    start: Start,
) -> Result<Vec<(i32, i64)>> {
    let (mut from, mut new) = (Vec::new(), Vec::new());
    for partition in partitions {
        match pipeline.committed_offset(&partition_name(&options.topic, partition)).await? {
            Some(next) => from.push((partition, next)),
            None => new.push(partition),
        }
    }
    if !new.is_empty() {
        // All in one commit: a process that dies now begins at the same places.
        let new = ask(client, move |c| c.first_offsets(start, &new)).await?;
        let named: Vec<(String, i64)> = new.iter().map(|(p, next)| (partition_name(&options.topic, *p), *next)).collect();
        pipeline.skip_to(&named, false).await?;
        from.extend(new);
        from.sort_unstable();
    }
    for (partition, next) in &from {
        pipeline.reads_from(&partition_name(&options.topic, *partition), *next);
    }
    Ok(from)
}

/// Waits until the reading is to end.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // Whoever could ask being gone is as good as being asked.
    let _ = stop.wait_for(|s| *s).await;
}

/// Reads a stream until it is asked to end.
async fn read(engine: Weak<Inner>, stream: String, halt: Arc<Halt>, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new();
    loop {
        let began = Instant::now();
        let error = match read_once(&engine, &stream, &halt, &mut stop).await {
            Ok(End::Asked | End::Gone) => return,
            Err(e) => e,
        };
        let Some(inner) = engine.upgrade() else { return };
        if began.elapsed() > WAIT_MAX {
            backoff = Backoff::new();
        }
        let shared = inner.definition(&stream).is_ok_and(|d| d.key().is_some());
        if error.kind() == Kind::Closed || shared {
            inner.give_up(&stream).await;
        }
        let passes = matches!(error.kind(), Kind::Unavailable | Kind::Closed);
        let elsewhere = match inner.definition(&stream) {
            Ok(definition) if !shared && !inner.is_written(&stream) => inner.holder_of(&definition).await.unwrap_or(None),
            _ => None,
        };
        match elsewhere {
            Some(holder) => inner.statuses.say(&stream, SourceState::Elsewhere, Some(holder)),
            None => {
                tracing::warn!(stream, error = %error, passes, "the stream is not read");
                let state = if passes { SourceState::Paused } else { SourceState::Stopped };
                inner.statuses.say(&stream, state, Some(error.message().to_owned()));
            }
        }
        drop(inner);
        let again = async { if passes { tokio::time::sleep(backoff.next()).await } else { halt.resume.notified().await } };
        tokio::select! {
            () = asked(&mut stop) => return,
            () = again => {}
            () = passed_elsewhere(&engine, &stream, &halt), if shared && !passes => {}
        }
    }
}

/// Waits until another process that shares a stream has gone past the gaps that stopped it here.
async fn passed_elsewhere(engine: &Weak<Inner>, stream: &str, halt: &Halt) {
    loop {
        tokio::time::sleep(WAIT_MAX).await;
        let Some(inner) = engine.upgrade() else { return };
        let passed = async {
            let definition = inner.definition(stream)?;
            let options = kafka_of(&definition)?;
            let history = inner.read_history(stream).await?;
            let gaps = halt.gaps().clone();
            for gap in &gaps {
                let committed = Pipeline::committed_in(&history, &partition_name(&options.topic, gap.partition)).await?;
                if committed == Some(gap.wanted) {
                    return Ok(false);
                }
            }
            Ok::<bool, Error>(!gaps.is_empty())
        };
        if passed.await.unwrap_or(false) {
            halt.gaps().clear();
            return;
        }
    }
}

/// Reads a stream until something fails.
async fn read_once(engine: &Weak<Inner>, stream: &str, halt: &Halt, stop: &mut watch::Receiver<bool>) -> Result<End> {
    let Some(inner) = engine.upgrade() else { return Ok(End::Gone) };
    if inner.definition(stream)?.key().is_some() {
        // Another process may have altered it, which is why this one begins anew.
        inner.check_definitions().await?;
    }
    let definition = inner.definition(stream)?;
    let options = kafka_of(&definition)?.clone();
    let key = definition.key();
    if key.is_none() {
        drop(inner.holding(stream).await?);
    }
    // A try that may fail as the one before does not take back what that one said.
    inner.statuses.update(stream, |status| {
        let told = status.message.take().filter(|_| status.state == SourceState::Paused);
        status.say(SourceState::Starting, told);
    });
    let opening = options.clone();
    let opened = tokio::task::spawn_blocking(move || Client::open(&opening)).await;
    let client = Arc::new(opened.map_err(|e| Error::internal(format!("the client did not start: {e}")))??);
    let partitions = ask(&client, Client::partitions).await?;
    let count = i32::try_from(partitions.len()).map_err(|_| Error::internal("more partitions than there can be"))?;
    let placement = key.map(|(column, partitioner)| Placement { column, partitioner, partitions: count });
    let from = match placement {
        None => inner.positions(stream, &client, partitions, options.start).await?,
        Some(_) => {
            check_partitions(&options.topic, count, Pipeline::partition_count(&inner.read_history(stream).await?).await?)?;
            vec![]
        }
    };
    let wanted = from.clone();
    stopped_at(halt, ask(&client, move |c| c.gaps(&wanted)).await?)?;
    let skew = definition.options.max_future_skew.unwrap_or(inner.settings.max_future_skew_default_us);
    let registry = definition.options.records.registry_settings()?;
    let schemas = registry.map(|settings| RegistryClient::try_new(settings).map(|client| Arc::new(client) as Arc<dyn Schemas>));
    let decoding = Decoding {
        schema: definition.schema.clone(),
        format: options.format,
        schemas: schemas.transpose()?,
        options: decode_options(&definition, inner.settings.record_bytes_max, None),
        max_future_skew_us: skew,
        placement,
    };
    let mut feed =
        Feed { engine: engine.clone(), stream: stream.to_owned(), options, client: client.clone(), looked: Instant::now(), placement };
    let options = &feed.options;
    let mut reader = match placement {
        Some(_) => {
            inner.statuses.update(stream, |status| status.retain(|_| false));
            tracing::info!(stream, topic = options.topic, "joining the group");
            Reader::join(client.clone(), decoding)?
        }
        None => {
            inner.note_positions(stream, options, &client, &from).await?;
            tracing::info!(stream, topic = options.topic, partitions = from.len(), "reading");
            Reader::start(client.clone(), &from, decoding)?
        }
    };
    drop(inner);
    loop {
        let Some((due, ended)) = feed.due().await else { return Ok(End::Gone) };
        let event = tokio::select! {
            biased;
            () = asked(stop) => {
                feed.flush(&reader).await?;
                feed.give_up().await;
                if placement.is_some() {
                    // The others need not wait until this member's session is over.
                    drop(feed);
                    reader.close(client).await;
                }
                return Ok(End::Asked);
            }
            () = ended => {
                feed.commit_or_wait(&reader, false).await?;
                continue;
            }
            () = tokio::time::sleep_until(due.into()) => {
                feed.commit_or_wait(&reader, true).await?;
                continue;
            }
            event = reader.next() => event,
        };
        match event {
            Some(Event::Records { partition, decoded, next }) => {
                let (mut backoff, since) = (Backoff::new(), Instant::now());
                loop {
                    let Err(e) = feed.take(partition, &decoded, next).await else { break };
                    if e.kind() != Kind::Unavailable || (placement.is_some() && since.elapsed() > WAIT_MAX) {
                        // Who waits for long keeps the group from sharing out the partitions anew.
                        return Err(e);
                    }
                    feed.say(SourceState::Paused, Some(&e));
                    tokio::select! {
                        () = asked(stop) => {
                            feed.give_up().await;
                            return Ok(End::Asked);
                        }
                        () = tokio::time::sleep(backoff.next()) => {}
                    }
                    feed.check().await?;
                }
                if feed.is_full().await {
                    feed.commit_or_wait(&reader, true).await?;
                }
            }
            Some(Event::NewPartitions(new)) => {
                let Some(inner) = engine.upgrade() else { return Ok(End::Gone) };
                // A partition that came while the topic was read is read from its first record.
                let from = inner.positions(stream, &client, new, Start::Earliest).await?;
                reader.assign(from);
            }
            Some(Event::Assigned { partitions, begin }) => {
                let from = feed.take_partitions(halt, &partitions).await?;
                // A thread that has ended says so itself.
                let _ = begin.send(from);
            }
            Some(Event::Revoked { lost, done }) => {
                if !lost && let Err(e) = feed.flush(&reader).await {
                    tracing::warn!(stream, error = %e, "what was read of partitions that go to other processes is read again there");
                }
                feed.give_up().await;
                drop(done);
            }
            Some(Event::Gap(gaps)) => {
                feed.flush(&reader).await?;
                stopped_at(halt, gaps)?;
            }
            Some(Event::Failed(e)) => {
                feed.flush(&reader).await?;
                return Err(e);
            }
            None => return Err(Error::unavailable("the thread that reads the topic has ended")),
        }
    }
}

/// A gap is an error that only somebody's decision mends.
fn stopped_at(halt: &Halt, gaps: Vec<Gap>) -> Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = gaps.iter().map(ToString::to_string).collect();
    let what = match gaps.iter().any(Gap::is_behind) {
        true => "the topic was made anew or cut at its end: create another stream of it",
        false => "RESUME STREAM ... PAST GAP goes on without them",
    };
    *halt.gaps() = gaps;
    Err(Error::data(format!("the log does not go on where history ends: {}; {what}", told.join("; "))))
}

/// From a reader to a stream's pipeline.
struct Feed {
    engine: Weak<Inner>,
    stream: String,
    options: KafkaOptions,
    client: Arc<Client>,
    looked: Instant,
    /// Where records lie, where several processes share the stream.
    placement: Option<Placement>,
}

impl Feed {
    fn engine(&self) -> Result<Arc<Inner>> {
        self.engine.upgrade().ok_or_else(|| Error::closed("the engine is gone"))
    }

    fn say(&self, state: SourceState, error: Option<&Error>) {
        if let Some(inner) = self.engine.upgrade() {
            inner.statuses.say(&self.stream, state, error.map(|e| e.message().to_owned()));
        }
    }

    /// The stream's pipeline; `None` where it is shared and this process has no partition of it.
    async fn open(&self, inner: &Inner) -> Result<Option<Arc<Mutex<OpenStream>>>> {
        match self.placement {
            None => inner.stream(&self.stream).await.map(Some),
            Some(_) if inner.share(&self.stream).is_none() => Ok(None),
            Some(_) => Ok(inner.streams.lock().await.get(&self.stream).cloned()),
        }
    }

    /// Takes the partitions that the group has assigned; gives where each is read from.
    async fn take_partitions(&self, halt: &Halt, partitions: &[i32]) -> Result<Vec<(i32, i64)>> {
        let inner = self.engine()?;
        let Some(placement) = self.placement else {
            return Err(Error::internal("a group has assigned partitions of a stream that is not shared"));
        };
        if partitions.iter().any(|p| *p >= placement.partitions) {
            return Err(Error::unavailable(format!("the topic \"{}\" has more partitions than it had", self.options.topic)));
        }
        let from = inner.take_partitions(&self.stream, &self.options, &self.client, placement, partitions).await?;
        let wanted = from.clone();
        stopped_at(halt, ask(&self.client, move |c| c.gaps(&wanted)).await?)?;
        inner.note_positions(&self.stream, &self.options, &self.client, &from).await?;
        tracing::info!(stream = self.stream, ?partitions, "these partitions are read here");
        let stream = self.stream.clone();
        tokio::spawn(async move { inner.ready_views_of(&stream).await });
        Ok(from)
    }

    /// Gives up the partitions that the group had assigned.
    async fn give_up(&self) {
        if self.placement.is_none() {
            return;
        }
        let Some(inner) = self.engine.upgrade() else { return };
        inner.give_up(&self.stream).await;
        inner.statuses.update(&self.stream, |status| {
            status.retain(|_| false);
            status.say(SourceState::Starting, Some("the group is sharing out the partitions".into()));
        });
    }

    /// Whether the partitions of a shared stream are still this process's, while it waits.
    async fn check(&self) -> Result<()> {
        match (self.engine.upgrade().and_then(|inner| inner.share(&self.stream)), self.placement) {
            (Some(share), Some(_)) => match futures::future::try_join_all(share.leases().map(Lease::check)).await {
                Err(e) if e.kind() == Kind::Closed => Err(e),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// When the next commit is due, and what is over once the one that is under way has ended; `None` where the engine is gone.
    async fn due(&self) -> Option<(Instant, impl Future<Output = ()> + use<>)> {
        let inner = self.engine.upgrade()?;
        let (mut since, mut ended) = (None, None);
        let interval = Duration::from_micros(self.options.commit_interval_us.unsigned_abs());
        if let Ok(Some(open)) = self.open(&inner).await {
            let pipeline = &open.lock().await.pipeline;
            // One that has failed is tried again at once.
            since = if pipeline.has_failed() { Instant::now().checked_sub(interval) } else { pipeline.staged_since() };
            ended = Some(pipeline.commit_ended());
        }
        let ended = async move {
            match ended {
                Some(ended) => ended.notified().await,
                None => std::future::pending().await,
            }
        };
        Some((since.unwrap_or_else(Instant::now) + interval, ended))
    }

    async fn is_full(&self) -> bool {
        let Ok(inner) = self.engine() else { return false };
        match self.open(&inner).await {
            Ok(Some(open)) => open.lock().await.pipeline.staged_rows() >= self.options.commit_rows,
            _ => false,
        }
    }

    /// Takes records in: judged, staged, and seen by every view that reads the stream.
    async fn take(&mut self, partition: i32, decoded: &crate::stream::decode::Decoded, next: i64) -> Result<()> {
        let inner = self.engine()?;
        if self.looked.elapsed() > LOOK_AT_STATE {
            self.looked = Instant::now();
            inner.check_state()?;
        }
        let Some(open) = self.open(&inner).await? else { return Err(Error::closed("the partition is another process's by now")) };
        let mut open = open.lock().await;
        let now = inner.now();
        let name = partition_name(&self.options.topic, partition);
        inner.settle(&self.stream, &mut open).await?;
        let step = open.pipeline.stage(&name, decoded, next, now).await?;
        let counts = inner.applied(&self.stream, &open, step).await;
        crash_point("state.applied");
        let watermark = open.pipeline.watermark(&name);
        drop(open);
        inner.statuses.update(&self.stream, |status| {
            let end = self.client.progress.end(partition);
            let p = status.partition(&name);
            p.offset = next;
            p.end_offset = end.map(|end| end.max(next));
            p.watermark = watermark;
            p.accepted += counts.accepted;
            p.duplicate += counts.duplicate;
            p.late += counts.late;
            p.rejected += counts.rejected;
            status.say(SourceState::Running, None);
        });
        Ok(())
    }

    /// Commits, and tells the group.
    async fn flush(&self, reader: &Reader) -> Result<()> {
        let inner = self.engine()?;
        let Some(open) = self.open(&inner).await? else { return Ok(()) };
        let mut open = open.lock().await;
        inner.commit_staged(&self.stream, &mut open).await?;
        if self.placement.is_some() {
            inner.follow_others(&self.stream, &mut open).await?;
        }
        let committed = open.pipeline.take_flushed();
        drop(open);
        self.tell(&inner, &committed, reader);
        Ok(())
    }

    /// Ends the commit that is under way, begins one where it is due, and tells the group what history holds.
    async fn commit(&self, reader: &Reader, due: bool) -> Result<()> {
        if self.placement.is_some() {
            // What others commit is looked at while nothing is under way.
            return if due { self.flush(reader).await } else { Ok(()) };
        }
        let inner = self.engine()?;
        let Some(open) = self.open(&inner).await? else { return Ok(()) };
        let mut open = open.lock().await;
        if due {
            inner.begin_commit(&self.stream, &mut open).await?;
        } else if open.pipeline.is_commit_over() {
            open.pipeline.finish_commit().await?;
            inner.note_commit(&self.stream, &mut open);
        }
        let committed = open.pipeline.take_flushed();
        drop(open);
        self.tell(&inner, &committed, reader);
        Ok(())
    }

    /// Says how far the source is, here and to the group.
    fn tell(&self, inner: &Inner, committed: &BTreeMap<String, i64>, reader: &Reader) {
        let number = |name: &str| name.rsplit_once('/').and_then(|(_, p)| p.parse::<i32>().ok());
        let offsets: Vec<(i32, i64)> = committed.iter().filter_map(|(name, next)| Some((number(name)?, *next))).collect();
        inner.statuses.update(&self.stream, |status| {
            for p in &mut status.partitions {
                p.end_offset = number(&p.partition).and_then(|n| self.client.progress.end(n)).map(|end| end.max(p.offset));
            }
            // Where the brokers cannot be reached, the library goes on trying.
            match self.client.progress.error() {
                Some(e) => status.say(SourceState::Paused, Some(e)),
                None => status.say(SourceState::Running, None),
            }
        });
        if !offsets.is_empty() {
            reader.committed(offsets);
        }
    }

    /// As [`Self::commit`]; where the storage fails, what is to be committed stays for the next time.
    async fn commit_or_wait(&self, reader: &Reader, due: bool) -> Result<()> {
        match self.commit(reader, due).await {
            Err(e) if e.kind() == Kind::Unavailable => {
                tracing::warn!(stream = self.stream, error = %e, "a commit failed and is tried again");
                self.say(SourceState::Paused, Some(&e));
                tokio::time::sleep(WAIT_FIRST).await;
                Ok(())
            }
            done => done,
        }
    }
}
