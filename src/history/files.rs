//! The data files of one version of a table, with what readers prune by.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use deltalake_core::kernel::{Add, LogicalFileView};
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;

use super::stats::FileStats;
use super::table::Table;
use super::{DATE, write};
use crate::error::{Error, Result};

/// One Parquet file of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    /// In the table's folder.
    pub(super) path: String,
    /// In the warehouse's store.
    pub(super) location: Path,
    /// The day that it lies under, as its path has it.
    pub(super) date: Option<String>,
    pub(super) bytes: u64,
    pub(super) rows: Option<u64>,
    /// No row's time is less.
    pub(super) time_min: i64,
    /// No row's time is greater.
    pub(super) time_max: i64,
    /// No row's revision is greater.
    pub(super) revision_max: i32,
}

impl DataFile {
    /// A file as the log has it.
    fn logged(table: &Table, view: &LogicalFileView, path: String) -> Result<Self> {
        if view.deletion_vector_descriptor().is_some() {
            return Err(damaged(table, &path, "a deletion vector, which is not read,"));
        }
        let date = view.partition_values_map().remove(DATE).flatten();
        Self::of(table, path, view.size(), view.stats().as_deref(), date.as_deref())
    }

    /// A file as a commit of this process adds it.
    pub(super) fn added(table: &Table, add: &Add) -> Result<Self> {
        let date = add.partition_values.get(DATE).and_then(|d| d.as_deref());
        Self::of(table, add.path.clone(), add.size, add.stats.as_deref(), date)
    }

    fn of(table: &Table, path: String, bytes: i64, stats: Option<&str>, date: Option<&str>) -> Result<Self> {
        if path.contains("://") || path.split('/').any(|part| part == "..") {
            return Err(damaged(table, &path, "a place outside of the table"));
        }
        let bytes = u64::try_from(bytes).map_err(|_| damaged(table, &path, "a negative size"))?;
        let location = Path::parse(format!("{}/{path}", table.path()));
        let location = location.map_err(|_| damaged(table, &path, "no usable path"))?;
        let layout = table.layout();
        let time = layout.schema.field(layout.time).name();
        let stats = stats.map(|s| FileStats::parse(s, time)).unwrap_or_default();
        let date = date.filter(|_| layout.by_date);
        let day = date.and_then(write::parse_date);
        // A file without statistics, of another writer perhaps, may hold any time of its date.
        let any = || day.map_or((i64::MIN, i64::MAX), write::times_of_date);
        let (time_min, time_max) = stats.times.unwrap_or_else(any);
        let revision_max = stats.revision_max.unwrap_or(i32::MAX);
        let date = date.map(str::to_owned);
        Ok(Self { path, location, date, bytes, rows: stats.rows, time_min, time_max, revision_max })
    }

    /// Whether a row of the file may have a time in `[from, to]`.
    pub(super) fn overlaps(&self, (from, to): (i64, i64)) -> bool {
        self.time_min <= to && from <= self.time_max
    }

    /// Whether every row of the file has a time in `[from, to]`.
    pub(super) fn is_within(&self, (from, to): (i64, i64)) -> bool {
        from <= self.time_min && self.time_max <= to
    }

    /// Whether one of the ascending times may be that of a row.
    pub(super) fn has_any(&self, times: &[i64]) -> bool {
        let first = times.partition_point(|t| *t < self.time_min);
        times.get(first).is_some_and(|t| *t <= self.time_max)
    }
}

fn damaged(table: &Table, path: &str, what: &str) -> Error {
    Error::data(format!("the log of {} has {what} for file \"{path}\"", table.name()))
}

/// The files of one version, by time.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Vec<Arc<DataFile>>,
    by_path: OnceLock<HashMap<String, usize>>,
}

impl Files {
    /// Reads the file list of a loaded version; `seed` saves reading again what another version has.
    pub(super) fn read(table: &Table, state: &DeltaTableState, seed: Option<&Files>) -> Result<Self> {
        let log = state.log_data();
        let mut files = Vec::with_capacity(log.num_files());
        for view in log.iter() {
            let path = view.path();
            files.push(match seed.and_then(|seed| seed.get(&path)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(DataFile::logged(table, &view, path.to_string())?),
            });
        }
        Ok(Self::new(files))
    }

    /// These files and some more, without those that were rewritten.
    pub(super) fn with(self: &Arc<Self>, added: impl Iterator<Item = Arc<DataFile>>, removed: &HashSet<&str>) -> Arc<Self> {
        let added = added.collect::<Vec<_>>();
        if added.is_empty() {
            return Arc::clone(self);
        }
        let files = self.files.iter().cloned().chain(added);
        Arc::new(Self::new(files.filter(|file| !removed.contains(file.path.as_str())).collect()))
    }

    fn new(mut files: Vec<Arc<DataFile>>) -> Self {
        files.sort_by(|a, b| (a.time_min, a.time_max, &a.path).cmp(&(b.time_min, b.time_max, &b.path)));
        Self { files, by_path: OnceLock::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.files.iter()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Arc<DataFile>> {
        let index = || self.files.iter().enumerate().map(|(i, f)| (f.path.clone(), i)).collect();
        self.by_path.get_or_init(index).get(path).and_then(|i| self.files.get(*i))
    }
}
