//! Small files of one day become one: fewer files to open, the same rows, bit for bit.
//!
//! Commits by the second leave files of a few rows. A rewrite reads some of them, writes their rows with all hidden columns into larger
//! ones, and puts one commit that names the old as removed and says that no row changed. It takes no lock: a commit that comes between
//! moves it behind, and where one of its files is gone by then, nothing is done. The old files stay where they are, so that every
//! version can still be read, and what came since one can still be told (`Table::files_since`). Not here: when (`engine`).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Map, json};

use super::files::DataFile;
use super::scan::Scan;
use super::table::Table;
use super::write::{WriteOptions, Writer, WrittenFiles};
use super::{Part, StreamHistory};
use crate::crash::crash_point;
use crate::error::{Error, Result};

/// Files are of one size below this, bytes, and below so many times as much, and so on: an output is mostly of the next size.
const SMALL_BYTES: u64 = 64 << 10;
const SIZE_STEP: u64 = 8;

/// Files of at least this size stay as they are, bytes.
const LARGE_BYTES: u64 = 32 << 20;

/// The most files that are rewritten at once.
const FILES_MAX: usize = 1024;

/// How often a rewrite is put anew behind commits that came between.
const ATTEMPTS: usize = 32;

/// What a rewrite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The version that it made.
    pub version: i64,
    /// How many files it read.
    pub files: usize,
    /// How many it wrote.
    pub written: usize,
    /// How many rows are in them.
    pub rows: u64,
}

impl StreamHistory {
    /// Rewrites small files of one day of a table, where a day has at least `files_min` of about one size; `None` where none has.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] where the storage fails; nothing is lost then, and no row is twice.
    /// - Cost: these files are read and written once. In all a row is rewritten about once for each size that its file goes through.
    pub async fn compact(&self, part: Part, files_min: usize) -> Result<Option<Compacted>> {
        let table = self.part(part);
        let snapshot = table.current();
        if !snapshot.has_only(table.layout()) {
            tracing::debug!(table = table.name(), "not compacted: columns were added since it was opened");
            return Ok(None);
        }
        let Some(old) = worth(snapshot.files(table).await?.iter(), files_min.max(2)) else { return Ok(None) };
        let new = self.rewritten(table, &old).await?;
        crash_point("compact.written");
        let (rows, written) = (new.rows(), new.len());
        let mut info = Map::new();
        info.insert("compacted".into(), json!({ "files": old.len(), "rows": rows }));
        for _ in 0..ATTEMPTS {
            let snapshot = table.current();
            let now = snapshot.files(table).await?;
            if old.iter().any(|file| now.get(&file.path).is_none()) {
                // Another process has rewritten them; what was written here nobody reads.
                return Ok(None);
            }
            if let Some(version) = table.try_rewrite(&snapshot, &old, new.clone().into_actions(), info.clone()).await? {
                crash_point("compact.committed");
                return Ok(Some(Compacted { version, files: old.len(), written, rows }));
            }
        }
        Err(Error::unavailable(format!("{} is written by others all the time", table.name())))
    }

    /// The rows of some files in files of their own.
    async fn rewritten(&self, table: &Arc<Table>, old: &[Arc<DataFile>]) -> Result<WrittenFiles> {
        let scan = Scan {
            table: Arc::clone(table),
            columns: (0..table.layout().schema.fields().len()).collect(),
            exact_range: None,
            pruning_range: None,
            pruning: vec![],
            partitions: 1,
            limit: None,
        };
        let mut rows = scan.read(self, old)?;
        let mut writer = Writer::try_new(Arc::clone(table), WriteOptions::default())?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(batch).await?;
        }
        let new = writer.finish().await?;
        let known = old.iter().map(|file| file.rows).sum::<Option<u64>>();
        if known.is_some_and(|rows| rows != new.rows()) {
            return Err(Error::data(format!("{} has {} rows in files that have {known:?} by its log", table.name(), new.rows())));
        }
        Ok(new)
    }
}

/// Files of one day that are worth being one: enough of about one size, with those that are smaller.
fn worth<'a>(files: impl Iterator<Item = &'a Arc<DataFile>>, files_min: usize) -> Option<Vec<Arc<DataFile>>> {
    let mut days: BTreeMap<Option<&str>, Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in files.filter(|file| file.bytes < LARGE_BYTES) {
        days.entry(file.date.as_deref()).or_default().push(file);
    }
    let mut days: Vec<_> = days.into_values().filter(|of| of.len() >= files_min).collect();
    // What helps most comes first.
    days.sort_by_key(|of| std::cmp::Reverse(of.len()));
    for mut of in days {
        of.sort_by_key(|file| file.bytes);
        let mut start = 0;
        for limit in std::iter::successors(Some(SMALL_BYTES), |limit| Some(limit * SIZE_STEP)).take_while(|limit| *limit <= LARGE_BYTES) {
            let end = of.partition_point(|file| file.bytes < limit);
            if end - start >= files_min {
                return Some(of[..end.min(FILES_MAX)].iter().copied().cloned().collect());
            }
            start = end;
        }
    }
    None
}
