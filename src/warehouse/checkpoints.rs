//! Checkpoints of the online state: immutable chunks, and one manifest that makes them a checkpoint.
//!
//! ```text
//! checkpoints/<view's folder>/<epoch>/chunk-<n>     bytes of state
//! checkpoints/<view's folder>/<epoch>.json          what it is a state of, and its chunks with sizes and checksums
//! ```
//! Everything is put only if absent. An epoch is one more than any that has left a trace, so whoever puts its first chunk has it; another
//! process that chose the same one learns so and stops. Of an epoch without a manifest nothing counts. A writer removes only what is
//! older than the checkpoint before its own, so that a stale one takes nothing from a newer one; what it puts itself is older and harmless.
//! Checkpoints make a start fast and are never needed: one that is damaged, or of a newer program, is refused by name. Not here: what
//! the chunks hold (`op::window::stream::checkpoint`), when one is taken (`engine`).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::{SEMANTICS_VERSION, Warehouse};
use crate::crash::crash_point;
use crate::error::{Error, Result};

const FOLDER: &str = "checkpoints";

/// The version of the layout of manifests that this program writes, and the newest it reads.
pub const CHECKPOINT_VERSION: u32 = 1;

/// How many chunks are put at once.
const PUTS: usize = 4;

/// The most traces of old checkpoints that are removed at once.
const REMOVED_MAX: usize = 1024;

/// What a checkpoint is a state of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this layout.
    pub format: u32,
    /// The version of the semantics.
    pub semantics: u32,
    /// The version of the chunks' layout.
    pub state: u32,
    /// The view's name, for people; its folder says which view of that name.
    pub view: String,
    /// What decides the bytes of the state beside history.
    pub definition: String,
    /// The histories whose events it holds, exactly those.
    pub streams: Vec<HeldStream>,
    /// The earliest instant that it answers.
    pub horizon_us: i64,
    /// The greatest accepted event time.
    pub greatest_us: Option<i64>,
    /// When it was taken.
    pub taken_at_us: i64,
    /// The chunks by number.
    pub chunks: Vec<Chunk>,
}

/// A stream's history at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStream {
    /// Its name.
    pub stream: String,
    /// Its folder: the lineage.
    pub folder: String,
    /// The version.
    pub version: i64,
    /// The mark that the version's commit carries: another history may have a version of the same number.
    pub mark: Option<String>,
}

/// A chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its size, bytes.
    pub bytes: u64,
    /// XXH3 of its bytes, 16 hexadecimal digits.
    pub xxh3: String,
}

/// A manifest with its own checksum.
#[derive(Serialize, Deserialize)]
struct Sealed {
    xxh3: String,
    checkpoint: Box<RawValue>,
}

/// What every version of a manifest says.
#[derive(Deserialize)]
struct Versions {
    format: u32,
    semantics: u32,
}

/// The checkpoints of one view.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    warehouse: Warehouse,
    folder: String,
}

/// A checkpoint on its way into the warehouse.
#[derive(Debug)]
pub struct CheckpointWriter {
    checkpoints: Checkpoints,
    epoch: u64,
    chunks: Vec<Chunk>,
}

/// The checksum of bytes as it is written down.
fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

impl Warehouse {
    /// The checkpoints of the view with this folder.
    pub fn checkpoints(&self, folder: &str) -> Checkpoints {
        Checkpoints { warehouse: self.clone(), folder: folder.to_owned() }
    }
}

impl Checkpoints {
    fn path(&self) -> Path {
        Path::from_iter([FOLDER, &self.folder])
    }

    fn manifest_path(&self, epoch: u64) -> Path {
        Path::from_iter([FOLDER, &self.folder, &format!("{epoch:020}.json")])
    }

    fn chunk_path(&self, epoch: u64, chunk: usize) -> Path {
        Path::from_iter([FOLDER, &self.folder, &format!("{epoch:020}"), &format!("chunk-{chunk}")])
    }

    /// How a checkpoint is named in messages.
    pub fn name(&self, epoch: u64) -> String {
        self.warehouse.name_of(&self.manifest_path(epoch))
    }

    /// All traces by epoch, each with whether there is a manifest. A file that is no trace belongs to nobody and stays.
    async fn traces(&self) -> Result<BTreeMap<u64, (bool, Vec<Path>)>> {
        let files = self.warehouse.store().list(Some(&self.path()));
        let mut files = files.map_err(|e| Error::unavailable(format!("cannot list the checkpoints in \"{}\": {e}", self.path())));
        let mut traces: BTreeMap<u64, (bool, Vec<Path>)> = BTreeMap::new();
        while let Some(file) = files.try_next().await? {
            let Some((epoch, is_manifest)) = self.epoch_of(&file.location) else { continue };
            let trace = traces.entry(epoch).or_default();
            trace.0 |= is_manifest;
            trace.1.push(file.location);
        }
        Ok(traces)
    }

    /// The epoch that a file belongs to, and whether it is its manifest.
    fn epoch_of(&self, path: &Path) -> Option<(u64, bool)> {
        let parts: Vec<_> = path.prefix_match(&self.path())?.collect();
        let (epoch, is_manifest) = match parts.as_slice() {
            [manifest] => (manifest.as_ref().strip_suffix(".json")?, true),
            [epoch, _] => (epoch.as_ref(), false),
            _ => return None,
        };
        (epoch.len() == 20).then(|| epoch.parse().ok())?.map(|epoch| (epoch, is_manifest))
    }

    /// The epochs that have a manifest, the newest first.
    pub async fn epochs(&self) -> Result<Vec<u64>> {
        Ok(self.traces().await?.into_iter().rev().filter(|(_, (is_manifest, _))| *is_manifest).map(|(epoch, _)| epoch).collect())
    }

    /// A manifest.
    ///
    /// - Errors: [`crate::error::Kind::Data`] where it is damaged, missing or of a newer program.
    pub async fn manifest(&self, epoch: u64) -> Result<Manifest> {
        let bytes = self.warehouse.get(&self.manifest_path(epoch)).await?.ok_or_else(|| Error::data("its manifest is gone"))?;
        let damaged = |e: serde_json::Error| Error::data(format!("its manifest is damaged: {e}"));
        let sealed: Sealed = serde_json::from_slice(&bytes).map_err(damaged)?;
        let text = sealed.checkpoint.get();
        let versions: Versions = serde_json::from_str(text).map_err(damaged)?;
        if versions.format > CHECKPOINT_VERSION || versions.semantics > SEMANTICS_VERSION {
            return Err(Error::data(format!(
                "it was written by a newer program: format {} and semantics {}, where this program knows format {CHECKPOINT_VERSION} and \
                 semantics {SEMANTICS_VERSION}",
                versions.format, versions.semantics
            )));
        }
        if checksum(text.as_bytes()) != sealed.xxh3 {
            return Err(Error::data("its manifest is damaged: the checksum differs"));
        }
        serde_json::from_str(text).map_err(damaged)
    }

    /// The bytes of a chunk, which are those that were written.
    ///
    /// - Errors: [`crate::error::Kind::Data`] naming the chunk that is missing, cut or damaged.
    pub async fn chunk(&self, epoch: u64, number: usize, chunk: &Chunk) -> Result<Bytes> {
        let bytes = self.warehouse.get(&self.chunk_path(epoch, number)).await?;
        let bytes = bytes.ok_or_else(|| Error::data(format!("chunk {number} is missing")))?;
        if bytes.len() as u64 != chunk.bytes {
            return Err(Error::data(format!("chunk {number} has {} bytes instead of {}", bytes.len(), chunk.bytes)));
        }
        if checksum(&bytes) != chunk.xxh3 {
            return Err(Error::data(format!("chunk {number} is damaged: the checksum differs")));
        }
        Ok(bytes)
    }

    /// Begins a checkpoint under the next epoch.
    pub async fn begin(&self) -> Result<CheckpointWriter> {
        let last = self.traces().await?.keys().next_back().copied();
        let epoch = last.map_or(Some(1), |last| last.checked_add(1));
        let epoch = epoch.ok_or_else(|| Error::data(format!("checkpoints in \"{}\" have no further epoch", self.path())))?;
        Ok(CheckpointWriter { checkpoints: self.clone(), epoch, chunks: vec![] })
    }

    /// Removes what is older than the checkpoint before `epoch`, manifests first, so that none is left without its chunks.
    async fn remove_old(&self, epoch: u64) -> Result<()> {
        let traces = self.traces().await?;
        let before = traces.range(..epoch).rev().find(|(_, (is_manifest, _))| *is_manifest).map(|(before, _)| *before);
        let old = traces.into_iter().filter(|(e, _)| *e < epoch && Some(*e) != before).take(REMOVED_MAX);
        for (old, (_, paths)) in old {
            self.remove(old, paths).await?;
        }
        Ok(())
    }

    /// Removes all of a view that is gone.
    pub async fn remove_all(&self) -> Result<()> {
        for (epoch, (_, paths)) in self.traces().await? {
            self.remove(epoch, paths).await?;
        }
        Ok(())
    }

    async fn remove(&self, epoch: u64, mut paths: Vec<Path>) -> Result<()> {
        let manifest = self.manifest_path(epoch);
        paths.sort_by_key(|path| *path != manifest);
        for path in &paths {
            match self.warehouse.store().delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(Error::unavailable(format!("cannot remove \"{}\": {e}", self.warehouse.name_of(path)))),
            }
        }
        self.warehouse.remove_empty_folder(&Path::from_iter([FOLDER, &self.folder, &format!("{epoch:020}")]));
        Ok(())
    }
}

impl CheckpointWriter {
    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many bytes were put.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    fn taken(&self) -> Error {
        Error::closed(format!("checkpoint \"{}\" is written by another process", self.checkpoints.name(self.epoch)))
    }

    /// Puts further chunks.
    ///
    /// - Errors: [`crate::error::Kind::Closed`] where another process has taken the epoch.
    pub async fn put(&mut self, chunks: Vec<Bytes>) -> Result<()> {
        let first = self.chunks.len();
        self.chunks.extend(chunks.iter().map(|bytes| Chunk { bytes: bytes.len() as u64, xxh3: checksum(bytes) }));
        // The first one alone: it says whose the epoch is.
        for (numbers, at_once) in [(0..chunks.len().min(1), 1), (chunks.len().min(1)..chunks.len(), PUTS)] {
            let puts = numbers.map(|i| {
                let (path, bytes) = (self.checkpoints.chunk_path(self.epoch, first + i), chunks[i].clone());
                let warehouse = self.checkpoints.warehouse.clone();
                async move {
                    let put = warehouse.put_if_absent(&path, bytes).await?;
                    crash_point("checkpoint.chunk");
                    Ok::<bool, Error>(put)
                }
            });
            let mut puts = futures::stream::iter(puts).buffer_unordered(at_once);
            while let Some(put) = puts.next().await {
                if !put? {
                    return Err(self.taken());
                }
            }
        }
        let paths = (first..first + chunks.len()).map(|number| self.checkpoints.chunk_path(self.epoch, number));
        self.checkpoints.warehouse.sync(paths.collect()).await
    }

    /// Makes the chunks a checkpoint. `manifest.chunks` is filled in here.
    ///
    /// - Errors: [`crate::error::Kind::Closed`] where another process has taken the epoch.
    pub async fn finish(self, manifest: Manifest) -> Result<()> {
        let internal = |e: serde_json::Error| Error::internal(format!("a manifest cannot be encoded: {e}"));
        let text = serde_json::to_string(&Manifest { chunks: self.chunks.clone(), ..manifest }).map_err(internal)?;
        let xxh3 = checksum(text.as_bytes());
        let sealed = Sealed { xxh3, checkpoint: RawValue::from_string(text).map_err(internal)? };
        let json = serde_json::to_vec(&sealed).map_err(internal)?;
        let Self { checkpoints, epoch, .. } = &self;
        let path = checkpoints.manifest_path(*epoch);
        if !checkpoints.warehouse.put_if_absent(&path, json).await? {
            return Err(self.taken());
        }
        checkpoints.warehouse.sync(vec![path]).await?;
        crash_point("checkpoint.manifest");
        // The checkpoint is there, whatever becomes of the old ones.
        if let Err(e) = checkpoints.remove_old(*epoch).await {
            tracing::warn!(error = %e, "old checkpoints stay");
        }
        Ok(())
    }
}
