//! Checkpoints of online states: when one is taken, and how a view begins from one.
//!
//! A checkpoint is taken while the pipelines of the view's streams are held, so the state is that of exactly the versions of history
//! which the manifest names. Ingestion waits while the state is encoded, on all threads; reads go on. Chunks are put behind the hold as long
//! as they fit `checkpoint_memory_bytes`. The next one is due after `checkpoint_interval_us`, and not before ingestion has run a
//! hundred times as long as it waited.
//!
//! A view begins from the newest checkpoint that is whole, of its definition and of these histories; then it follows the commits that
//! came since. What cannot be used is told by name, and with none the state is made from history, as if there were no checkpoints.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use asof_sql::plan::Fingerprint;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::OwnedMutexGuard;

use super::views::{Only, Slot, part_folder, sorted_streams};
use super::{Engine, Inner, OpenStream};
use crate::error::{Error, Result};
use crate::history::StreamHistory;
use crate::op::relation::stream::Change;
use crate::op::window::stream::OnlineView;
use crate::op::window::stream::checkpoint::{STATE_VERSION, definition};
use crate::registry::DefinedView;
use crate::warehouse::SEMANTICS_VERSION;
use crate::warehouse::checkpoints::{CHECKPOINT_VERSION, Checkpoints, HeldStream, Manifest};

/// The part of the time for which ingestion may wait: one in so many.
const HELD_AT_MOST_ONE_IN: i64 = 100;

/// A view's newest checkpoint: taken by this process, or begun from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpointed {
    /// Its epoch.
    pub epoch: u64,
    /// When it was taken, microseconds since the Unix epoch.
    pub taken_at_us: i64,
    /// Its size, bytes.
    pub bytes: u64,
    /// For how long ingestion waited, microseconds; 0 for one that was begun from.
    pub held_us: i64,
    /// How long it took in all, microseconds; 0 for one that was begun from.
    pub took_us: i64,
    folder: String,
    definition: Fingerprint,
    versions: BTreeMap<String, i64>,
}

/// How a view came by its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The epoch of the checkpoint; `None`: from history.
    pub checkpoint: Option<u64>,
    /// How long it took, microseconds.
    pub took_us: i64,
}

/// What is known of checkpoints, by view.
#[derive(Debug, Default)]
pub(crate) struct Known {
    newest: RwLock<BTreeMap<Slot, Checkpointed>>,
    begun: RwLock<BTreeMap<Slot, Begun>>,
    /// When one was last tried for, whatever came of it.
    tried: RwLock<BTreeMap<Slot, i64>>,
    /// Held while one is taken.
    taking: tokio::sync::Mutex<()>,
}

fn get<T: Clone>(of: &RwLock<BTreeMap<Slot, T>>, slot: &Slot) -> Option<T> {
    of.read().unwrap_or_else(PoisonError::into_inner).get(slot).cloned()
}

fn put<T>(of: &RwLock<BTreeMap<Slot, T>>, slot: &Slot, value: T) {
    of.write().unwrap_or_else(PoisonError::into_inner).insert(slot.clone(), value);
}

impl Known {
    /// A state's newest checkpoint.
    pub(super) fn newest(&self, slot: &Slot) -> Option<Checkpointed> {
        get(&self.newest, slot)
    }

    /// Takes note of how a state was made.
    pub(super) fn begun(&self, slot: &Slot, checkpoint: Option<u64>, since: Instant) {
        put(&self.begun, slot, Begun { checkpoint, took_us: micros(since) });
    }

    /// Forgets states that are of no more use.
    pub(super) fn forget(&self, gone: impl Fn(&Slot) -> bool) {
        self.newest.write().unwrap_or_else(PoisonError::into_inner).retain(|slot, _| !gone(slot));
        self.begun.write().unwrap_or_else(PoisonError::into_inner).retain(|slot, _| !gone(slot));
        self.tried.write().unwrap_or_else(PoisonError::into_inner).retain(|slot, _| !gone(slot));
    }
}

fn micros(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)
}

impl Engine {
    /// Takes checkpoints of all views whose time has come; to be called every few seconds by a process that serves.
    pub async fn keep_checkpoints(&self) {
        self.inner.keep_checkpoints().await;
    }

    /// Takes a checkpoint of a view now, unless nothing has changed since the last; whether it did.
    pub async fn checkpoint(&self, view: &str) -> Result<bool> {
        self.inner.checkpoint(&Slot::whole(view)).await
    }

    /// A view's newest checkpoint, as far as this process knows.
    pub fn checkpointed(&self, view: &str) -> Option<Checkpointed> {
        self.inner.views.known.newest(&Slot::whole(view))
    }

    /// How a view came by its state; `None` where it has none.
    pub fn begun(&self, view: &str) -> Option<Begun> {
        get(&self.inner.views.known.begun, &Slot::whole(view))
    }
}

/// A view's histories, held still.
pub(super) type Held = Vec<(String, OwnedMutexGuard<OpenStream>)>;

/// The versions that the views have taken in: what is behind them is compactions of this process, or not seen.
fn versions(held: &Held) -> BTreeMap<String, i64> {
    held.iter().map(|(name, open)| (name.clone(), open.pipeline.seen())).collect()
}

impl Inner {
    async fn keep_checkpoints(&self) {
        let interval = self.settings.checkpoint_interval_us;
        for (slot, online) in self.views.named().into_iter().filter(|_| interval > 0) {
            // Of a stream that another process writes, that process keeps the views.
            if !online.view.plan.streams().into_iter().all(|s| self.is_written(s)) {
                continue;
            }
            let newest = self.views.known.newest(&slot);
            let rest = newest.as_ref().map_or(0, |n| n.held_us.saturating_mul(HELD_AT_MOST_ONE_IN)).max(interval);
            let last = newest.map(|n| n.taken_at_us).max(get(&self.views.known.tried, &slot));
            if last.is_none_or(|last| self.now() >= last.saturating_add(rest)) {
                put(&self.views.known.tried, &slot, self.now());
                self.try_checkpoint(&slot).await;
            }
        }
    }

    /// When the oldest was taken of the checkpoints that the views of a stream would begin from; `None` where one has none.
    pub(super) fn checkpointed_at(&self, stream: &str) -> Option<i64> {
        let taken: Option<Vec<i64>> =
            self.views.reading(stream).iter().map(|(slot, _)| Some(self.views.known.newest(slot)?.taken_at_us)).collect();
        taken?.into_iter().min()
    }

    /// Takes the last checkpoints of a process that has written.
    pub(super) async fn last_checkpoints(&self, of_partitions: bool) {
        // What is in memory ends with the process.
        if self.settings.checkpoint_interval_us <= 0 || self.warehouse.url().scheme() == "memory" {
            return;
        }
        for (slot, online) in self.views.named().into_iter().filter(|(slot, _)| slot.part.is_some() == of_partitions) {
            if online.view.plan.streams().into_iter().any(|s| self.is_written(s)) {
                self.try_checkpoint(&slot).await;
            }
        }
    }

    /// A checkpoint that fails costs time at the next start and nothing else.
    async fn try_checkpoint(&self, slot: &Slot) {
        if let Err(e) = self.checkpoint(slot).await {
            tracing::warn!(view = %slot, error = %e, "no checkpoint was taken");
        }
    }

    /// Holds streams still, in the order of their names.
    pub(super) async fn hold(&self, names: &[String]) -> Result<Held> {
        let mut open = Vec::new();
        for name in names {
            open.push((name.clone(), self.stream(name).await?));
        }
        let mut held = Vec::new();
        for (name, stream) in open {
            held.push((name, stream.lock_owned().await));
        }
        Ok(held)
    }

    /// The same with nothing staged: a state is that of a version of history only where all that it holds is there.
    async fn hold_committed(&self, names: &[String]) -> Result<Held> {
        let mut held = self.hold(names).await?;
        for (name, open) in &mut held {
            self.commit_staged(name, open).await?;
        }
        Ok(held)
    }

    async fn checkpoint(&self, slot: &Slot) -> Result<bool> {
        let _taking = self.views.known.taking.lock().await;
        let begun = Instant::now();
        let name = slot.view.as_str();
        let Some(online) = self.views.get(slot).filter(|o| !o.is_stale()) else { return Ok(false) };
        let Some(folder) = self.registry().views.get(name).map(|v| slot.folder(&v.folder)) else { return Ok(false) };
        let definition = definition(&online.view);
        let streams = sorted_streams(&online.view);
        let newest = self.views.known.newest(slot).filter(|n| n.folder == folder && n.definition == definition);
        if newest.is_some() {
            let now = versions(&self.hold_committed(&streams).await?);
            if newest.is_some_and(|n| n.versions == now) {
                return Ok(false);
            }
        }
        let checkpoints = self.warehouse.checkpoints(&folder);
        let mut writer = checkpoints.begin().await?;

        // From here on until the state is encoded nothing comes in.
        let mut held = self.hold_committed(&streams).await?;
        let holding = Instant::now();
        let same = self.views.get(slot).is_some_and(|now| Arc::ptr_eq(&now, &online));
        if !same || online.is_stale() || online.is_loading() {
            return Ok(false);
        }
        for (_, open) in &mut held {
            open.check_leases().await?;
            if open.pipeline.is_overtaken().await? {
                return Ok(false);
            }
        }
        let (horizon_us, greatest_us, taken_at_us) = (online.horizon(), online.greatest(), self.now());
        let versions = versions(&held);
        let histories: Vec<(String, StreamHistory)> =
            held.iter().map(|(name, open)| (name.clone(), open.pipeline.history().clone())).collect();
        let mut encoded = futures::stream::iter(online.pieces())
            .map(|piece| {
                let online = online.clone();
                async move {
                    let encoded = tokio::task::spawn_blocking(move || online.encode(&piece)).await;
                    encoded.map_err(|e| Error::internal(format!("encoding a state stopped: {e}")))?
                }
            })
            .buffered(self.settings.threads.max(1));
        let mut waiting: Vec<Bytes> = Vec::new();
        while let Some(chunks) = encoded.next().await {
            waiting.extend(chunks?.into_iter().map(Bytes::from));
            if waiting.iter().map(Bytes::len).sum::<usize>() > self.settings.checkpoint_memory_bytes {
                tracing::info!(view = %slot, "ingestion waits while chunks of a checkpoint are put");
                writer.put(std::mem::take(&mut waiting)).await?;
            }
        }
        drop(encoded);
        drop(held);
        let held_us = micros(holding);

        writer.put(waiting).await?;
        let mut streams = Vec::new();
        for (stream, history) in histories {
            let version = versions.get(&stream).copied().unwrap_or_default();
            let mark = history.commit_mark(version).await?;
            streams.push(HeldStream { folder: history.folder().to_owned(), stream, version, mark });
        }
        let (epoch, bytes) = (writer.epoch(), writer.bytes());
        let manifest = Manifest {
            format: CHECKPOINT_VERSION,
            semantics: SEMANTICS_VERSION,
            state: STATE_VERSION,
            view: name.to_owned(),
            definition: definition.to_string(),
            streams,
            horizon_us,
            greatest_us,
            taken_at_us,
            chunks: vec![],
        };
        writer.finish(manifest).await?;
        let took_us = micros(begun);
        self.metrics.checkpointed(name, begun.elapsed());
        tracing::debug!(view = %slot, epoch, bytes, held_us, took_us, "checkpoint taken");
        if self.registry().views.get(name).is_none_or(|v| slot.folder(&v.folder) != folder) {
            // The view was dropped meanwhile.
            checkpoints.remove_all().await?;
            return Ok(false);
        }
        put(&self.views.known.newest, slot, Checkpointed { epoch, taken_at_us, bytes, held_us, took_us, folder, definition, versions });
        Ok(true)
    }

    /// The state of a view from its newest checkpoint that is of use, brought up to date, and the versions that it is of; `None` where
    /// there is none.
    pub(super) async fn recovered(
        &self,
        slot: &Slot,
        defined: &DefinedView,
        histories: &[(String, StreamHistory)],
        greatest: Option<i64>,
        only: Option<&Only>,
    ) -> Option<(Arc<OnlineView>, BTreeMap<String, i64>)> {
        let folder = slot.folder(&defined.folder);
        let checkpoints = self.warehouse.checkpoints(&folder);
        let epochs = match checkpoints.epochs().await {
            Ok(epochs) => epochs,
            Err(e) => {
                tracing::warn!(view = %slot, error = %e, "checkpoints are not used");
                return None;
            }
        };
        for epoch in epochs {
            let checkpoint = checkpoints.name(epoch);
            let (online, manifest) = match self.load(&checkpoints, epoch, defined, histories, greatest).await {
                Ok(loaded) => loaded,
                Err(e) => {
                    tracing::warn!(view = %slot, checkpoint, error = %e, "a checkpoint is not used");
                    continue;
                }
            };
            let held: BTreeMap<String, i64> = manifest.streams.iter().map(|s| (s.stream.clone(), s.version)).collect();
            let followed = self.follow_history(&online, &held, histories, only).await;
            let versions = match followed.and_then(|versions| if online.is_stale() { Err(unfollowed()) } else { Ok(versions) }) {
                Ok(versions) => versions,
                Err(e) => {
                    // An older one would meet the same commits.
                    tracing::warn!(view = %slot, checkpoint, error = %e, "the state is made from history");
                    return None;
                }
            };
            tracing::debug!(view = %slot, checkpoint, "the state begins from a checkpoint");
            let newest = Checkpointed {
                epoch,
                taken_at_us: manifest.taken_at_us,
                bytes: manifest.chunks.iter().map(|c| c.bytes).sum(),
                held_us: 0,
                took_us: 0,
                folder,
                definition: definition(&defined.view),
                versions: held,
            };
            put(&self.views.known.newest, slot, newest);
            return Some((Arc::new(online), versions));
        }
        None
    }

    /// The state that a checkpoint holds.
    async fn load(
        &self,
        checkpoints: &Checkpoints,
        epoch: u64,
        defined: &DefinedView,
        histories: &[(String, StreamHistory)],
        greatest: Option<i64>,
    ) -> Result<(OnlineView, Manifest)> {
        let manifest = checkpoints.manifest(epoch).await?;
        if (manifest.state, manifest.semantics) != (STATE_VERSION, SEMANTICS_VERSION) {
            return Err(Error::data(format!(
                "its state is of version {} and semantics {}, where this program knows {STATE_VERSION} and {SEMANTICS_VERSION}",
                manifest.state, manifest.semantics
            )));
        }
        if manifest.definition != definition(&defined.view).to_string() {
            return Err(Error::data("it is of another definition of the view"));
        }
        if manifest.streams.len() != histories.len() {
            return Err(Error::data("it is of other streams"));
        }
        for (name, history) in histories {
            let held = manifest.streams.iter().find(|s| s.stream == *name && s.folder == history.folder());
            let held = held.ok_or_else(|| Error::data(format!("it is of another stream \"{name}\"")))?;
            if held.version > history.version() || history.commit_mark(held.version).await? != held.mark {
                return Err(Error::data(format!("history of stream \"{name}\" is not the one that it is of")));
            }
        }
        if manifest.horizon_us > self.horizon(&defined.view, greatest) {
            return Err(Error::data("the view is to answer earlier instants than it does"));
        }
        let online = Arc::new(OnlineView::from_horizon(defined.view.clone(), manifest.horizon_us, manifest.greatest_us)?);
        let mut chunks = futures::stream::iter(manifest.chunks.clone().into_iter().enumerate())
            .map(|(number, chunk)| {
                let (online, checkpoints) = (online.clone(), checkpoints.clone());
                async move {
                    let bytes = checkpoints.chunk(epoch, number, &chunk).await?;
                    let decoded = tokio::task::spawn_blocking(move || online.decode(&bytes)).await;
                    let decoded = decoded.map_err(|e| Error::internal(format!("decoding a state stopped: {e}")))?;
                    decoded.map_err(|e| e.context(format!("chunk {number}")))
                }
            })
            .buffer_unordered(self.settings.threads.max(1) + 1);
        while let Some(decoded) = chunks.next().await {
            decoded?;
        }
        drop(chunks);
        let online = Arc::into_inner(online).ok_or_else(|| Error::internal("a chunk is still being decoded"))?;
        Ok((online, manifest))
    }

    /// Applies what came into history after these versions; gives the versions that the state then is of.
    pub(super) async fn follow_history(
        &self,
        online: &OnlineView,
        versions: &BTreeMap<String, i64>,
        histories: &[(String, StreamHistory)],
        only: Option<&Only>,
    ) -> Result<BTreeMap<String, i64>> {
        let mut reached = versions.clone();
        for (name, history) in histories {
            let Some(version) = reached.get_mut(name) else { return Err(unfollowed()) };
            if *version >= history.version() || asof_udfs::seeded_bug("checkpoint-forgets-version") {
                continue;
            }
            let since = history.since(*version).await?;
            *version = since.come.version();
            for rows in since.gone {
                let rows = Only::of(only, name, rows)?;
                online.apply(&[Change { stream: name, rows: &rows, gone: true }])?;
            }
            self.apply_table(online, name, history, since.come, only).await?;
        }
        Ok(reached)
    }

    /// Removes the checkpoints of a view that was dropped; `partitions` are those of the stream that several processes share.
    pub(super) async fn remove_checkpoints(&self, name: &str, folder: &str, partitions: i32) {
        self.views.known.forget(|slot| slot.view == name);
        for folder in (0..partitions).map(|p| part_folder(folder, p)).chain([folder.to_owned()]) {
            if let Err(e) = self.warehouse.checkpoints(&folder).remove_all().await {
                tracing::warn!(view = name, error = %e, "checkpoints of a dropped view stay");
            }
        }
    }
}

fn unfollowed() -> Error {
    Error::unavailable("what came into history since cannot be applied to it exactly")
}
