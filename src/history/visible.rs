//! Which of two conflicting rows is seen: with a primary key, of the rows of one (event time, primary key), the greatest by the
//! columns that remain, in declaration order.
//!
//! A row that conflicts with an earlier one carries a `_revision` above 0, unique within its identity together with its source
//! coordinates, and the statistics of its file say so. So the rows that lose are found from those files alone: their identities, then
//! all rows of these identities, wherever such times may be. What was found holds for every version with the same such files, since a
//! row that came later without a revision conflicts with none. Not here: the decision that a row conflicts (`stream::dedupe`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use super::files::DataFile;
use super::scan::{Scan, columns_named};
use super::table::Snapshot;
use super::{HistorySchema, OFFSET, PARTITION, REVISION, StreamHistory};
use crate::error::{Error, Result};

/// How many sets of losing rows stay known, of different versions.
const KNOWN: usize = 4;

/// The rows that are not seen, by their coordinates.
#[derive(Debug, Default)]
pub struct Losers {
    /// By offset, which alone tells most rows apart.
    rows: HashMap<i64, Vec<(Arc<str>, i32)>>,
    /// Their event times, ascending.
    times: Vec<i64>,
}

impl Losers {
    /// The event times of these rows, ascending.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    pub(super) fn contains(&self, partition: &str, offset: i64, revision: i32) -> bool {
        self.rows.get(&offset).is_some_and(|at| at.iter().any(|(p, r)| *r == revision && **p == *partition))
    }

    fn insert(&mut self, row: &Coordinates) {
        let at = self.rows.entry(row.offset).or_default();
        if !at.iter().any(|(p, r)| *r == row.revision && *p == row.partition) {
            at.push((Arc::clone(&row.partition), row.revision));
        }
    }
}

/// What was found of the files that have revisions.
#[derive(Debug, Clone, Default)]
struct Found {
    files: BTreeSet<String>,
    losers: Arc<Losers>,
}

/// What was found of the newest versions.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: Mutex<Vec<Found>>,
    /// Of several that need the same, one computes it.
    computing: tokio::sync::Mutex<()>,
}

impl Cache {
    /// The most that is known of a set of files with revisions: all of it, or a part.
    fn find(&self, files: &BTreeSet<String>) -> Found {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let part = known.iter().filter(|found| found.files.is_subset(files)).max_by_key(|found| found.files.len());
        part.cloned().unwrap_or_default()
    }

    fn insert(&self, found: Found) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.remove(0);
        }
        known.push(found);
    }
}

/// The greatest row of an identity so far.
struct Winner {
    payload: Box<[u8]>,
    row: Coordinates,
    time: i64,
}

/// A row's place in its source; unique in history.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Coordinates {
    partition: Arc<str>,
    offset: i64,
    revision: i32,
}

impl StreamHistory {
    /// The rows of a version of history that are not seen.
    pub(super) async fn losers(&self, snapshot: &Snapshot) -> Result<Arc<Losers>> {
        snapshot.losers().get_or_try_init(async || self.find_losers(snapshot).await).await.cloned()
    }

    async fn find_losers(&self, snapshot: &Snapshot) -> Result<Arc<Losers>> {
        if self.schema().primary_key().is_empty() {
            return Ok(Arc::default());
        }
        let table = &self.inner.history;
        let all = snapshot.files(table).await?;
        let revised = all.iter().filter(|f| f.revision_max > 0).map(|f| f.path.clone()).collect::<BTreeSet<_>>();
        if revised.is_empty() {
            return Ok(Arc::default());
        }
        let cache = &self.inner.visible;
        let known = cache.find(&revised);
        if known.files == revised {
            return Ok(known.losers);
        }
        let _computing = cache.computing.lock().await;
        let known = cache.find(&revised);
        if known.files == revised {
            return Ok(known.losers);
        }
        let new = revised.iter().filter(|path| !known.files.contains(*path)).filter_map(|path| all.get(path).cloned());
        let new = new.collect::<Vec<_>>();
        let files = all.iter().cloned().collect::<Vec<_>>();
        let found = self.resolve(&new, &files).await;
        let found = found.map_err(|e| e.context(format!("reading the conflicts in {}", snapshot.name())))?;
        let mut losers = Losers { rows: known.losers.rows.clone(), times: known.losers.times.clone() };
        for (row, time) in &found {
            losers.insert(row);
            losers.times.push(*time);
        }
        losers.times.sort_unstable();
        losers.times.dedup();
        let losers = Arc::new(losers);
        cache.insert(Found { files: revised, losers: Arc::clone(&losers) });
        Ok(losers)
    }

    /// The losing rows, with their event times, of the identities that have a revision in `revised`.
    async fn resolve(&self, revised: &[Arc<DataFile>], all: &[Arc<DataFile>]) -> Result<Vec<(Coordinates, i64)>> {
        let table = &self.inner.history;
        let stored = &table.layout().schema;
        let keys = Keys::try_new(self.schema())?;
        let [revision] = columns_named(stored, &[REVISION])?[..] else { return Err(Error::internal("no revision")) };
        let scan = |columns: Vec<usize>, pruning_range, pruning| Scan {
            table: Arc::clone(table),
            columns,
            exact_range: None,
            pruning_range,
            pruning,
            partitions: 2,
            limit: None,
        };

        // The identities in conflict, with the best row of each, once it is known.
        let mut best: HashMap<Box<[u8]>, Option<Winner>> = HashMap::new();
        let mut times = Vec::new();
        let above_zero: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(
            Arc::new(Column::new(REVISION, revision)),
            Operator::Gt,
            Arc::new(Literal::new(ScalarValue::Int32(Some(0)))),
        ));
        let mut columns = keys.identity.clone();
        columns.push(revision);
        let mut rows = scan(columns, None, vec![above_zero]).read(self, revised)?;
        while let Some(batch) = rows.try_next().await? {
            let revisions = batch.column(keys.identity.len()).as_primitive_opt::<Int32Type>().ok_or_else(no_column)?;
            let conflicting = BooleanArray::from_unary(revisions, |r| r > 0);
            let batch = filter_record_batch(&batch, &conflicting)?;
            let time = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(no_column)?;
            times.extend_from_slice(time.values());
            for identity in keys.identities(&batch)?.iter() {
                best.entry(identity.as_ref().into()).or_default();
            }
        }
        times.sort_unstable();
        times.dedup();
        let Some(range) = times.first().copied().zip(times.last().copied()) else { return Ok(Vec::new()) };

        let files = all.iter().filter(|f| f.has_any(&times)).cloned().collect::<Vec<_>>();
        let coordinates = columns_named(stored, &[PARTITION, OFFSET, REVISION])?;
        let columns = keys.identity.iter().chain(&keys.payload).chain(&coordinates).copied().collect::<Vec<_>>();
        let mut rows = scan(columns, Some(range), Vec::new()).read(self, &files)?;
        let mut losers = Vec::new();
        let mut interned: HashSet<Arc<str>> = HashSet::new();
        while let Some(batch) = rows.try_next().await? {
            let identities = keys.identities(&batch)?;
            let conflicting = identities.iter().map(|id| Some(best.contains_key(id.as_ref()))).collect::<BooleanArray>();
            if conflicting.true_count() == 0 {
                continue;
            }
            let batch = filter_record_batch(&batch, &conflicting)?;
            let (identities, payloads) = (keys.identities(&batch)?, keys.payloads(&batch, keys.identity.len())?);
            let first = keys.identity.len() + keys.payload.len();
            let time = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(no_column)?;
            let partitions = batch.column(first).as_string_view_opt().ok_or_else(no_column)?;
            let offsets = batch.column(first + 1).as_primitive_opt::<Int64Type>().ok_or_else(no_column)?;
            let revisions = batch.column(first + 2).as_primitive_opt::<Int32Type>().ok_or_else(no_column)?;
            for row in 0..batch.num_rows() {
                let name = partitions.value(row);
                let partition = match interned.get(name) {
                    Some(partition) => Arc::clone(partition),
                    None => {
                        interned.insert(name.into());
                        name.into()
                    }
                };
                let here = Coordinates { partition, offset: offsets.value(row), revision: revisions.value(row) };
                let (payload, time) = (payloads.row(row), time.value(row));
                let Some(slot) = best.get_mut(identities.row(row).as_ref()) else { continue };
                match slot {
                    Some(winner) if payload.as_ref() <= winner.payload.as_ref() => losers.push((here, time)),
                    _ => {
                        let loser = slot.replace(Winner { payload: payload.as_ref().into(), row: here, time });
                        losers.extend(loser.map(|loser| (loser.row, loser.time)));
                    }
                }
            }
        }
        // Should two rows share their coordinates, both are seen rather than none.
        let winners = best.into_values().flatten().map(|winner| winner.row).collect::<HashSet<_>>();
        losers.retain(|(row, _)| !winners.contains(row));
        Ok(losers)
    }
}

/// Makes comparable bytes of a row's identity and of what remains of it.
pub(super) struct Keys {
    /// Event time, then the primary key, in the stored schema.
    pub(super) identity: Vec<usize>,
    /// The stream's other columns, in declaration order.
    pub(super) payload: Vec<usize>,
    identities: RowConverter,
    payloads: Option<RowConverter>,
}

impl Keys {
    pub(super) fn try_new(schema: &HistorySchema) -> Result<Self> {
        let identity = std::iter::once(schema.event_time()).chain(schema.primary_key().iter().copied());
        let identity = identity.collect::<Vec<_>>();
        let fields = schema.columns().fields();
        let payload = (0..fields.len()).filter(|c| !identity.contains(c)).collect::<Vec<_>>();
        let options = SortOptions { descending: false, nulls_first: true };
        let converter = |columns: &[usize]| {
            let sort = |c: &usize| SortField::new_with_options(fields[*c].data_type().clone(), options);
            RowConverter::new(columns.iter().map(sort).collect())
        };
        let identities = converter(&identity)?;
        let payloads = if payload.is_empty() { None } else { Some(converter(&payload)?) };
        Ok(Self { identity, payload, identities, payloads })
    }

    /// Of batches that begin with the identity's columns.
    pub(super) fn identities(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns = batch.columns().get(..self.identity.len()).ok_or_else(no_column)?;
        Ok(self.identities.convert_columns(columns)?)
    }

    /// Of batches that have the other columns from `first` on.
    pub(super) fn payloads(&self, batch: &RecordBatch, first: usize) -> Result<Rows> {
        let columns = batch.columns().get(first..first + self.payload.len()).ok_or_else(no_column)?;
        match &self.payloads {
            Some(converter) => Ok(converter.convert_columns(columns)?),
            // An event that is nothing but its identity has no conflicts; every such row is as great as any other.
            None => self.identities(batch),
        }
    }
}

pub(super) fn no_column() -> Error {
    Error::internal("a column of history is not there or of another type")
}

/// Drops the rows that are not seen from what a scan reads.
///
/// One input, whose partitioning and columns it keeps; the order of rows stays.
#[derive(Debug)]
pub struct VisibleExec {
    input: Arc<dyn ExecutionPlan>,
    losers: Arc<Losers>,
    /// Where the input has partition, offset and revision.
    places: [usize; 3],
}

impl VisibleExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, losers: Arc<Losers>, places: [usize; 3]) -> Self {
        Self { input, losers, places }
    }
}

impl DisplayAs for VisibleExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.losers.rows.values().map(Vec::len).sum();
        write!(f, "VisibleExec: hidden_rows={rows}")
    }
}

impl ExecutionPlan for VisibleExec {
    fn name(&self) -> &str {
        "VisibleExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| Error::internal("a plan node lost its input"))?;
        Ok(Arc::new(Self { input, losers: Arc::clone(&self.losers), places: self.places }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (losers, places) = (Arc::clone(&self.losers), self.places);
        let rows = input.map(move |batch| Ok(keep_visible(&batch?, &losers, places)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

fn keep_visible(batch: &RecordBatch, losers: &Losers, [partition, offset, revision]: [usize; 3]) -> Result<RecordBatch> {
    let partitions = batch.columns().get(partition).and_then(|c| c.as_string_view_opt()).ok_or_else(no_column)?;
    let offsets = batch.columns().get(offset).and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(no_column)?;
    let revisions = batch.columns().get(revision).and_then(|c| c.as_primitive_opt::<Int32Type>()).ok_or_else(no_column)?;
    let seen = |row: usize| !losers.contains(partitions.value(row), offsets.value(row), revisions.value(row));
    let seen = (0..batch.num_rows()).map(|row| Some(seen(row))).collect::<BooleanArray>();
    if seen.true_count() == seen.len() {
        return Ok(batch.clone());
    }
    Ok(filter_record_batch(batch, &seen)?)
}
