//! Streams that several processes share: which partitions this one has, and how it takes them and gives them up.
//!
//! The consumer group decides. Each partition that it assigns has a lease under the warehouse, which is taken whoever holds it: its epoch
//! keeps a process that lost the partition and does not know it from committing, and its record says where the partition is served. With
//! a partition come its offset and its time from history, and the states of the views, from checkpoints of their own or from history;
//! they are forgotten when it goes. Not here: reading and committing (`sources`), what a commit builds on (`connect::ingest::shared`),
//! how a look-up finds the process that has an entity (`serve::lookup`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::views::{Part, Slot, part_folder};
use super::{Inner, OpenStream, unknown_stream};
use crate::connect::ingest::Pipeline;
use crate::connect::kafka::Client;
use crate::error::{Error, Result};
use crate::registry::Stream;
use crate::registry::options::kafka::KafkaOptions;
use crate::stream::placement::Placement;
use crate::warehouse::{Holder, Lease};

/// For how long it is believed who has a partition.
const OWNER_KNOWN: Duration = Duration::from_secs(1);
/// Of how many partitions at once.
const OWNERS_MAX: usize = 65_536;

/// What this process has of the streams that several share.
#[derive(Debug, Default)]
pub(super) struct Groups {
    shares: RwLock<BTreeMap<String, Arc<Share>>>,
    assignments: AtomicU64,
    /// Who has the other partitions, by the name of the lease.
    owners: StdMutex<BTreeMap<String, (Instant, Option<Holder>)>>,
}

/// What this process has of one of them.
#[derive(Debug)]
pub(crate) struct Share {
    /// Where rows lie.
    pub(crate) placement: Placement,
    parts: BTreeMap<i32, Part>,
    leases: Vec<Lease>,
}

impl Share {
    /// A partition as it was assigned; `None` for one that this process does not have.
    pub(crate) fn part(&self, partition: i32) -> Option<Part> {
        self.parts.get(&partition).copied()
    }

    /// What says that the partitions are this process's.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter()
    }

    /// The partitions, ascending.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.values().copied()
    }

    /// The states of a view, one a partition.
    pub(super) fn slots(&self, view: &str) -> impl Iterator<Item = Slot> {
        self.parts.values().map(move |part| Slot { view: view.to_owned(), part: Some(*part) })
    }
}

impl Inner {
    /// Whether this process takes its share of streams that several share: it serves.
    pub(crate) fn is_member(&self) -> bool {
        self.address.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Where others reach this process.
    pub(crate) fn own_address(&self) -> Option<String> {
        self.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this process has of a stream; `None` before the group has assigned anything.
    pub(crate) fn share(&self, stream: &str) -> Option<Arc<Share>> {
        self.groups.shares.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    fn lease_of(definition: &Stream, partition: i32) -> String {
        part_folder(&definition.folder, partition)
    }

    /// Takes the partitions that the group has assigned; gives where each is read from.
    pub(super) async fn take_partitions(
        &self,
        stream: &str,
        options: &KafkaOptions,
        client: &Arc<Client>,
        placement: Placement,
        partitions: &[i32],
    ) -> Result<Vec<(i32, i64)>> {
        self.give_up(stream).await;
        let registry = self.registry();
        let definition = registry.streams.get(stream).ok_or_else(|| unknown_stream(&registry, stream))?;
        let address = self.own_address();
        let names: Vec<String> = partitions.iter().map(|p| Self::lease_of(definition, *p)).collect();
        let leases = names.iter().map(|name| self.warehouse.take_over(name, address.as_deref(), self.clock.clone()));
        let leases = futures::future::try_join_all(leases).await?;
        let limit = self.settings.dedupe_limit_bytes;
        let mut pipeline = Pipeline::open(&self.warehouse, stream, definition, limit, false, partitions).await?;
        pipeline.set_partition_count(placement.partitions);
        let from = super::sources::begin(&mut pipeline, client, options, partitions.to_vec(), options.start).await?;
        let assignment = self.groups.assignments.fetch_add(1, Ordering::Relaxed);
        let parts = partitions.iter().map(|p| (*p, Part { partition: *p, assignment })).collect();
        let share = Arc::new(Share { placement, parts, leases });
        let open = OpenStream { pipeline, lease: None, share: Some(share.clone()), renewed: 0 };
        self.streams.lock().await.insert(stream.to_owned(), Arc::new(Mutex::new(open)));
        self.readers.lock().await.remove(stream);
        self.groups.shares.write().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned(), share);
        self.written.write().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned());
        Ok(from)
    }

    /// Makes the states of the views that read a stream, for the partitions that this process has now.
    pub(super) async fn ready_views_of(&self, stream: &str) {
        let registry = self.registry();
        for view in registry.dependents(stream) {
            if let Err(e) = self.ready(view).await {
                tracing::debug!(view, error = %e, "a view has no online state yet");
            }
        }
    }

    /// Forgets what this process had of a stream: nothing of it is committed or answered from here on.
    pub(super) async fn give_up(&self, stream: &str) {
        let had = self.groups.shares.write().unwrap_or_else(PoisonError::into_inner).remove(stream);
        self.written.write().unwrap_or_else(PoisonError::into_inner).remove(stream);
        if let Some(had) = &had {
            let gone = |slot: &Slot| slot.part.is_some_and(|part| had.part(part.partition) == Some(part));
            self.views.forget(gone);
            self.views.known.forget(gone);
        }
        self.invalidate_views_of(stream);
        let open = self.streams.lock().await.remove(stream);
        // Of partitions without the pipeline's lock: a load may hold that for long, and is committed only if nobody has read on.
        let parts = had.iter().flat_map(|had| had.leases()).map(Lease::release);
        let mut released = futures::future::join_all(parts).await;
        if let Some(open) = open.filter(|_| had.is_none())
            && let Some(lease) = open.lock().await.lease.take()
        {
            released.push(lease.release().await);
        }
        for e in released.into_iter().filter_map(Result::err) {
            tracing::debug!(stream, error = %e, "a lease was not given back");
        }
    }

    /// Whether a pipeline of a stream that several share is the one that the states of now go with.
    pub(super) fn is_current(&self, stream: &str, open: &OpenStream) -> bool {
        match (self.share(stream), &open.share) {
            (Some(now), Some(then)) => Arc::ptr_eq(&now, then),
            (None, None) => true,
            _ => false,
        }
    }

    /// Who has a partition of a stream; `None` where nobody does.
    pub(crate) async fn owner(&self, stream: &str, partition: i32) -> Result<Option<Holder>> {
        let registry = self.registry();
        let definition = registry.streams.get(stream).ok_or_else(|| unknown_stream(&registry, stream))?;
        let name = Self::lease_of(definition, partition);
        let known = || self.groups.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, owner)) = known().get(&name).filter(|(at, _)| at.elapsed() < OWNER_KNOWN) {
            return Ok(owner.clone());
        }
        // A partition's lease is not renewed: it is the group that says when its holder is gone.
        let record = self.warehouse.lease_holder(&name).await?;
        let owner = record.filter(|r| !r.released && !r.holder.is_dead()).map(|r| r.holder);
        let mut known = known();
        if known.len() >= OWNERS_MAX {
            known.clear();
        }
        known.insert(name, (Instant::now(), owner.clone()));
        Ok(owner)
    }

    /// Looks anew who has the partitions of a stream, the next time that it is asked.
    pub(crate) fn forget_owners(&self) {
        self.groups.owners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many partitions the topic of a shared stream has, as far as history says; 0 for any other stream.
    pub(super) async fn partitions_of(&self, stream: &str) -> i32 {
        if self.registry().streams.get(stream).is_none_or(|s| s.key().is_none()) {
            return 0;
        }
        let count = async { Pipeline::partition_count(&self.read_history(stream).await?).await };
        count.await.ok().flatten().unwrap_or(0)
    }
}

/// A topic that has not the partitions any more that it had: keys lie elsewhere.
pub(super) fn check_partitions(topic: &str, now: i32, then: Option<i32>) -> Result<()> {
    match then {
        Some(then) if then != now => Err(Error::data(format!(
            "the topic \"{topic}\" has {now} partitions and had {then} when it was first read, so its keys lie elsewhere now; \
             create another stream and load what was read into it"
        ))),
        _ => Ok(()),
    }
}
