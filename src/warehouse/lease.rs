//! Who writes what: leases by files that are put only if absent, with epochs that fence a stale holder.
//!
//! `leases/<name>/<epoch>` holds one [`LeaseRecord`]. The greatest epoch is the lease. Its holder renews it; a process that finds it
//! released, expired, or held by a dead process of this very machine puts the next epoch, and of several one wins. A holder that
//! slept through its expiry finds a newer epoch at [`Lease::check`] and stops. A lease only keeps processes from disturbing one
//! another: that nothing is written twice is the work of the transactions inside each commit (`history`).

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::Warehouse;
use crate::error::{Error, Result};
use crate::time::Clock;

const FOLDER: &str = "leases";

/// How long a lease holds without being renewed.
pub const LEASE_US: i64 = 30_000_000;

/// Epochs older than the newest by at least this many are removed.
const KEPT_EPOCHS: u64 = 4;

/// The most old epochs that one acquisition removes.
const REMOVED_MAX: usize = 16;

/// How often an acquisition starts anew where another process was faster.
const ATTEMPTS: usize = 8;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number on its machine.
    pub process: u32,
    /// Its machine's name.
    pub host: String,
    /// What else tells it from a process of the same number and host: the boot, the space of process numbers, its start.
    pub identity: String,
    /// Where it serves, if it does: what `--connect` takes.
    pub connect: Option<String>,
}

impl Holder {
    /// This process.
    pub fn this_process(connect: Option<&str>) -> Self {
        let process = std::process::id();
        let host = read_line("/proc/sys/kernel/hostname").unwrap_or_else(|| "unknown".into());
        let started = process_state(process).map(|(_, started)| started).unwrap_or_default();
        let identity = format!("{}/{started}", machine());
        Self { process, host, identity, connect: connect.map(str::to_owned) }
    }

    /// Whether the process is known to have ended: it ran on this machine since its last boot, and is not there any more.
    pub fn is_dead(&self) -> bool {
        let here = read_line("/proc/sys/kernel/hostname").unwrap_or_default();
        let Some((machine_then, started_then)) = self.identity.rsplit_once('/') else { return false };
        if self.host != here || machine_then != machine() || started_then.is_empty() {
            return false;
        }
        match process_state(self.process) {
            // Where even the first process is hidden, nothing follows from what is not seen.
            None => process_state(1).is_some(),
            Some((state, started)) => started != started_then || matches!(state, 'Z' | 'X'),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on host \"{}\"", self.process, self.host)?;
        match &self.connect {
            Some(connect) => write!(f, ", which serves at \"{connect}\" (--connect {connect})"),
            None => Ok(()),
        }
    }
}

/// What the file of one epoch says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Who holds it.
    pub holder: Holder,
    /// When it was last renewed, by the holder's clock: microseconds since the Unix epoch.
    pub renewed_at_us: i64,
    /// When it ends unless renewed.
    pub expires_at_us: i64,
    /// Whether the holder gave it back.
    pub released: bool,
}

impl LeaseRecord {
    /// Whether somebody holds the lease at a time, microseconds.
    pub fn is_held(&self, now_us: i64) -> bool {
        !self.released && self.expires_at_us > now_us && !self.holder.is_dead()
    }
}

/// A lease that this process took.
///
/// Dropped without [`Lease::release`] it holds until it expires, or until this process has ended.
#[derive(Debug)]
pub struct Lease {
    warehouse: Warehouse,
    name: String,
    epoch: u64,
    holder: Holder,
    clock: Arc<dyn Clock>,
}

impl Warehouse {
    /// Takes the lease `name`, such as a stream's lineage.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] naming who holds it and how to connect to it.
    pub async fn acquire(&self, name: &str, connect: Option<&str>, clock: Arc<dyn Clock>) -> Result<Lease> {
        self.take(name, connect, clock, false).await
    }

    /// The same whoever holds it, where something else has said that it is this process's: a consumer group, of a partition.
    pub async fn take_over(&self, name: &str, connect: Option<&str>, clock: Arc<dyn Clock>) -> Result<Lease> {
        self.take(name, connect, clock, true).await
    }

    async fn take(&self, name: &str, connect: Option<&str>, clock: Arc<dyn Clock>, whoever_holds_it: bool) -> Result<Lease> {
        let holder = Holder::this_process(connect);
        for _ in 0..ATTEMPTS {
            let epochs = self.lease_epochs(name).await?;
            let last = epochs.last().copied();
            if let Some(epoch) = last.filter(|_| !whoever_holds_it) {
                let Some(record) = self.lease_record(name, epoch).await? else { continue };
                if record.is_held(clock.now().0) {
                    return Err(Error::unavailable(format!("\"{name}\" is written by {}", record.holder)));
                }
            }
            let epoch = last.map_or(Some(0), |e| e.checked_add(1));
            let epoch = epoch.ok_or_else(|| Error::data(format!("lease \"{name}\" has no further epoch")))?;
            let (warehouse, clock) = (self.clone(), Arc::clone(&clock));
            let lease = Lease { warehouse, name: name.to_owned(), epoch, holder: holder.clone(), clock };
            if self.put_if_absent(&path_of(name, epoch), lease.record(false)?).await? {
                lease.remove_old(&epochs).await;
                return Ok(lease);
            }
        }
        Err(Error::unavailable(format!("lease \"{name}\" is taken and given back all the time")))
    }

    /// Who holds the lease `name`; `None` where nobody ever took it.
    pub async fn lease_holder(&self, name: &str) -> Result<Option<LeaseRecord>> {
        match self.lease_epochs(name).await?.last() {
            Some(epoch) => self.lease_record(name, *epoch).await,
            None => Ok(None),
        }
    }

    /// Ascending.
    pub(super) async fn lease_epochs(&self, name: &str) -> Result<Vec<u64>> {
        let folder = Path::from_iter([FOLDER, name]);
        let files: Vec<_> = self
            .store()
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| Error::unavailable(format!("cannot list the leases of \"{name}\": {e}")))?;
        let mut epochs = Vec::with_capacity(files.len());
        for file in &files {
            let epoch = file.location.filename().and_then(|f| f.parse::<u64>().ok());
            let epoch = epoch.filter(|epoch| path_of(name, *epoch) == file.location).ok_or_else(|| {
                Error::data(format!("lease \"{name}\" has a file that is no epoch: \"{}\"", self.name_of(&file.location)))
            })?;
            epochs.push(epoch);
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    async fn lease_record(&self, name: &str, epoch: u64) -> Result<Option<LeaseRecord>> {
        let path = path_of(name, epoch);
        let Some(bytes) = self.get(&path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::data(format!("lease file \"{}\" is damaged: {e}", self.name_of(&path))))
    }
}

impl Lease {
    /// The number that fences earlier holders.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this process may still write.
    ///
    /// - Errors: [`crate::error::Kind::Closed`] naming who took the lease over.
    pub async fn check(&self) -> Result<()> {
        let epochs = self.warehouse.lease_epochs(&self.name).await?;
        let Some(newer) = epochs.last().copied().filter(|last| *last != self.epoch) else { return Ok(()) };
        let record = self.warehouse.lease_record(&self.name, newer).await?;
        let holder = record.map_or_else(|| "another process".to_owned(), |r| r.holder.to_string());
        Err(Error::closed(format!("\"{}\" was taken over by {holder}", self.name)))
    }

    /// Holds the lease for another [`LEASE_US`]; to be called several times within that time.
    ///
    /// - Errors: [`crate::error::Kind::Closed`] naming who took the lease over.
    pub async fn renew(&self) -> Result<()> {
        self.check().await?;
        self.write(false).await
    }

    /// Gives the lease back, so that the next process need not wait.
    pub async fn release(&self) -> Result<()> {
        match self.check().await {
            Ok(()) => self.write(true).await,
            Err(e) if e.kind() == crate::error::Kind::Closed => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Only the holder writes its own epoch's file, so that it needs no condition; a newer epoch outweighs whatever it says.
    async fn write(&self, released: bool) -> Result<()> {
        let path = path_of(&self.name, self.epoch);
        let put = self.warehouse.store().put(&path, self.record(released)?.into()).await;
        put.map(|_| ()).map_err(|e| Error::unavailable(format!("cannot renew the lease \"{}\": {e}", self.name)))
    }

    fn record(&self, released: bool) -> Result<Vec<u8>> {
        let now = self.clock.now().0;
        let expires_at_us = now.saturating_add(LEASE_US);
        let record = LeaseRecord { holder: self.holder.clone(), renewed_at_us: now, expires_at_us, released };
        serde_json::to_vec(&record).map_err(|e| Error::internal(format!("a lease cannot be encoded: {e}")))
    }

    /// The files of old epochs say nothing any more; one that stays is removed another time.
    async fn remove_old(&self, epochs: &[u64]) {
        let old = epochs.iter().filter(|e| e.saturating_add(KEPT_EPOCHS) <= self.epoch).take(REMOVED_MAX);
        for epoch in old {
            if let Err(e) = self.warehouse.store().delete(&path_of(&self.name, *epoch)).await {
                tracing::debug!(name = self.name, epoch, error = %e, "old lease epoch stays");
            }
        }
    }
}

fn path_of(name: &str, epoch: u64) -> Path {
    Path::from_iter([FOLDER, name, &format!("{epoch:020}")])
}

/// The boot of this machine and the space of process numbers that this process lives in.
fn machine() -> String {
    let boot = read_line("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").map(|p| p.display().to_string()).unwrap_or_default();
    format!("{boot}/{space}")
}

/// The state of a process and when it started, in ticks since boot; `None` where there is none of this number.
fn process_state(process: u32) -> Option<(char, String)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command in parentheses, which may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.to_owned()))
}

fn read_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
}
