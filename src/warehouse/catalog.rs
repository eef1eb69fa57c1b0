//! The log of definitions: numbered JSON files, each put only if absent, never changed.
//!
//! Whoever changes the catalog loads the log, checks the change against it and appends under the next number; where another
//! process was faster the append says so and the change is checked again. Not here: what an entry means (`registry`).

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use serde::de::IgnoredAny;

use super::Warehouse;
use crate::error::{Error, Result};

const FOLDER: &str = "catalog";

/// How many entries are read at once.
const READS: usize = 16;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// It is in the log, for good.
    Done,
    /// Another entry has this number: load the log and check again.
    Conflict,
}

/// The append-only log of a warehouse's definitions.
#[derive(Debug, Clone)]
pub struct CatalogLog {
    warehouse: Warehouse,
}

impl CatalogLog {
    pub(super) fn new(warehouse: Warehouse) -> Self {
        Self { warehouse }
    }

    /// Puts the entry `sequence`, which is one more than that of the last entry, or 0.
    ///
    /// - Errors: [`crate::error::Kind::Internal`] for bytes that are no JSON; [`crate::error::Kind::Unavailable`] where the outcome is
    ///   unknown: the log says what it was.
    pub async fn append(&self, sequence: u64, json: &[u8]) -> Result<Append> {
        serde_json::from_slice::<IgnoredAny>(json).map_err(|e| Error::internal(format!("a catalog entry is no JSON: {e}")))?;
        let put = self.warehouse.put_if_absent(&path_of(sequence), json.to_vec()).await?;
        self.warehouse.sync(vec![path_of(sequence)]).await?;
        Ok(if put { Append::Done } else { Append::Conflict })
    }

    /// Whether there is an entry of this number. Cost: one small request.
    pub async fn has(&self, sequence: u64) -> Result<bool> {
        Ok(self.warehouse.get(&path_of(sequence)).await?.is_some())
    }

    /// All entries in order.
    ///
    /// - Errors: [`crate::error::Kind::Data`] naming the file, for a number that is missing, a file that does not belong there or one
    ///   that is no JSON.
    pub async fn load(&self) -> Result<Vec<(u64, Bytes)>> {
        let store = self.warehouse.store();
        let files: Vec<_> = store
            .list(Some(&Path::from(FOLDER)))
            .try_collect()
            .await
            .map_err(|e| Error::unavailable(format!("cannot list the catalog: {e}")))?;
        let mut sequences = Vec::with_capacity(files.len());
        for file in &files {
            let path = &file.location;
            let sequence = sequence_of(path)
                .ok_or_else(|| Error::data(format!("catalog has a file that is no entry: \"{}\"", self.warehouse.name_of(path))))?;
            sequences.push(sequence);
        }
        sequences.sort_unstable();
        if let Some((missing, _)) = (0..).zip(&sequences).find(|(expected, found)| expected != *found) {
            let path = path_of(missing);
            return Err(Error::data(format!("catalog entry is missing: \"{}\"", self.warehouse.name_of(&path))));
        }
        stream::iter(sequences).map(|sequence| self.entry(sequence)).buffered(READS).try_collect().await
    }

    async fn entry(&self, sequence: u64) -> Result<(u64, Bytes)> {
        let path = path_of(sequence);
        let name = || self.warehouse.name_of(&path);
        let bytes = self.warehouse.get(&path).await?;
        let bytes = bytes.ok_or_else(|| Error::data(format!("catalog entry is missing: \"{}\"", name())))?;
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|e| Error::data(format!("catalog entry \"{}\" is damaged: {e}", name())))?;
        Ok((sequence, bytes))
    }
}

fn path_of(sequence: u64) -> Path {
    Path::from(format!("{FOLDER}/{sequence:020}.json"))
}

fn sequence_of(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    let sequence = (digits.len() == 20).then(|| digits.parse().ok())??;
    (path_of(sequence) == *path).then_some(sequence)
}
