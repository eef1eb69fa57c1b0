//! A table of history as DataFusion sees it: files pruned by event time, read by the stock Parquet source.
//!
//! Files that no row of the wanted times can be in are not opened; in the others, row groups and pages are passed over by their
//! statistics. Where no two rows conflict, which is the usual case, a scan is a plain Parquet scan. Columns that a file lacks, since they
//! came later, read as NULL. Not here: which of two conflicting rows is seen (`visible`).

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, Literal};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, execute_stream};

use super::files::DataFile;
use super::table::{Snapshot, Table};
use super::visible::{Losers, VisibleExec};
use super::{OFFSET, PARTITION, Part, REVISION, StreamHistory};
use crate::error::{Error, Result};

/// How much of a file's end is read at once, to find its metadata without a second look.
const METADATA_HINT: usize = 128 * 1024;

/// Ranges of files that are read in parallel are at least this large, in bytes.
const RANGE_BYTES_MIN: usize = 256 * 1024;

/// What a [`HistoryTable`] shows.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// The version to read; `None` is the newest that this process knows.
    pub version: Option<i64>,
    /// Only rows that came after this version.
    pub since: Option<i64>,
    /// Only rows whose event time, in microseconds, lies between these, both included. (Of rejected records: when they arrived.)
    pub time_range: Option<(i64, i64)>,
    /// Whether the hidden columns are shown, behind the others.
    pub hidden: bool,
    /// Whether rows that a greater row of their identity hides are shown, too.
    pub all_rows: bool,
}

/// One table of a stream at one version, to be read by DataFusion.
#[derive(Debug)]
pub struct HistoryTable {
    history: StreamHistory,
    part: Part,
    snapshot: Arc<Snapshot>,
    pub(super) files: Vec<Arc<DataFile>>,
    options: TableOptions,
    schema: SchemaRef,
    shown: Vec<usize>,
}

impl HistoryTable {
    pub(super) async fn open(history: &StreamHistory, part: Part, options: TableOptions) -> Result<Self> {
        let table = history.part(part);
        let snapshot = table.at(options.version).await?;
        let all = snapshot.files(table).await?;
        let files = match options.since {
            None => all.iter().cloned().collect(),
            Some(since) => table.files_since(&snapshot, since).await?,
        };
        let stored = &table.layout().schema;
        let columns = history.schema().columns().fields().len();
        let shown: Vec<usize> = match part {
            Part::History if !options.hidden => (0..columns).collect(),
            // Where a late event came from is what one asks of it.
            Part::Late if !options.hidden => (0..columns + 3).collect(),
            _ => (0..stored.fields().len()).collect(),
        };
        let schema = Arc::new(stored.project(&shown)?);
        Ok(Self { history: history.clone(), part, snapshot, files, options, schema, shown })
    }

    /// The version that is read.
    pub fn version(&self) -> i64 {
        self.snapshot.version()
    }

    /// How many files a scan of a time range opens, of how many there are: what pruning is worth.
    pub fn files_in(&self, time_range: Option<(i64, i64)>) -> (usize, usize) {
        let range = intersect(self.options.time_range, time_range);
        (self.files.iter().filter(|f| range.is_none_or(|r| f.overlaps(r))).count(), self.files.len())
    }

    /// The number of rows that are stored, where the log says it; conflicting rows all count.
    pub fn rows_stored(&self) -> Option<u64> {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// The least and the greatest time that a row may have; `None` where there are no rows.
    pub fn time_bounds(&self) -> Option<(i64, i64)> {
        let least = self.files.iter().map(|f| f.time_min).min();
        least.zip(self.files.iter().map(|f| f.time_max).max())
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let table = self.history.part(self.part);
        table.warehouse().register(state.runtime_env());
        let layout = table.layout();
        let columns: Vec<usize> = match projection {
            Some(projection) => projection.iter().filter_map(|i| self.shown.get(*i).copied()).collect(),
            None => self.shown.clone(),
        };
        let time_name = layout.schema.field(layout.time).name();
        let mut range = self.options.time_range;
        let mut pruning: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        let df_schema = DFSchema::try_from(Arc::clone(&layout.schema))?;
        for filter in filters {
            range = intersect(range, range_of(filter, time_name));
            // A filter only prunes here; who asked for it applies it. One that cannot be compiled prunes nothing.
            if let Ok(filter) = state.create_physical_expr(filter.clone(), &df_schema) {
                pruning.push(filter);
            }
        }
        let files = self.files.iter().filter(|f| range.is_none_or(|r| f.overlaps(r))).cloned().collect::<Vec<_>>();
        let conflicts = self.part == Part::History && !self.options.all_rows;
        let losers = match conflicts {
            true => self.history.losers(&self.snapshot).await?,
            false => Arc::new(Losers::default()),
        };
        let (conflicting, usual): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| f.has_any(losers.times()));
        let scan = Scan {
            table: Arc::clone(table),
            columns,
            exact_range: self.options.time_range,
            pruning_range: range,
            pruning,
            partitions: state.config().target_partitions(),
            limit: limit.filter(|_| filters.is_empty()),
        };
        let usual_plan = || scan.plan(&usual, None);
        if conflicting.is_empty() {
            return usual_plan();
        }
        let conflicting = scan.plan(&conflicting, Some(losers))?;
        if usual.is_empty() { Ok(conflicting) } else { UnionExec::try_new(vec![usual_plan()?, conflicting]) }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// How files of one table are read.
pub(super) struct Scan {
    pub(super) table: Arc<Table>,
    /// Of the stored schema, in the order wanted.
    pub(super) columns: Vec<usize>,
    /// Rows outside are dropped.
    pub(super) exact_range: Option<(i64, i64)>,
    /// Rows outside need not be read.
    pub(super) pruning_range: Option<(i64, i64)>,
    /// Rows for which one of these is not true need not be read.
    pub(super) pruning: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) partitions: usize,
    pub(super) limit: Option<usize>,
}

impl Scan {
    /// The plan over some files; with `losers`, these rows are dropped.
    pub(super) fn plan(&self, files: &[Arc<DataFile>], losers: Option<Arc<Losers>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let layout = self.table.layout();
        let stored = &layout.schema;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(stored.project(&self.columns)?))));
        }
        let exact = self.exact_range.filter(|range| files.iter().any(|f| !f.is_within(*range)));
        let mut read = self.columns.clone();
        let mut place = |column: usize| match read.iter().position(|c| *c == column) {
            Some(place) => place,
            None => {
                read.push(column);
                read.len() - 1
            }
        };
        let exact = exact.map(|range| (range, place(layout.time)));
        let losers = match losers {
            None => None,
            Some(losers) => {
                let [partition, offset, revision] = [PARTITION, OFFSET, REVISION].map(|name| stored.index_of(name));
                Some((losers, [place(partition?), place(offset?), place(revision?)]))
            }
        };
        let limit = self.limit.filter(|_| exact.is_none() && losers.is_none());
        let mut plan = self.source(files, read.clone(), limit)?;
        if let Some((range, place)) = exact {
            let predicate = in_range(stored.field(layout.time).name(), place, range);
            plan = Arc::new(FilterExec::try_new(predicate, plan)?);
        }
        if let Some((losers, places)) = losers {
            plan = Arc::new(VisibleExec::new(plan, losers, places));
        }
        if read.len() > self.columns.len() {
            let keep = self.columns.iter().enumerate().map(|(i, column)| {
                let name = stored.field(*column).name();
                ProjectionExpr::new(Arc::new(Column::new(name, i)), name.clone())
            });
            plan = Arc::new(ProjectionExec::try_new(keep.collect::<Vec<_>>(), plan)?);
        }
        Ok(plan)
    }

    /// Runs the plan over some files, all partitions into one stream.
    pub(super) fn read(&self, history: &StreamHistory, files: &[Arc<DataFile>]) -> Result<SendableRecordBatchStream> {
        Ok(execute_stream(self.plan(files, None)?, Arc::clone(&history.inner.context))?)
    }

    fn source(&self, files: &[Arc<DataFile>], read: Vec<usize>, limit: Option<usize>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let layout = self.table.layout();
        let stored = &layout.schema;
        let mut pruning = self.pruning.clone();
        if let Some(range) = self.pruning_range.filter(|range| files.iter().any(|f| !f.is_within(*range))) {
            pruning.push(in_range(stored.field(layout.time).name(), layout.time, range));
        }
        let table_schema = TableSchema::builder(Arc::clone(stored)).build();
        let mut source = ParquetSource::new(table_schema).with_metadata_size_hint(METADATA_HINT);
        if let Some(predicate) = pruning.into_iter().reduce(and) {
            source = source.with_predicate(predicate);
        }
        let rows = files.iter().map(|f| f.rows).sum::<Option<u64>>().and_then(|rows| usize::try_from(rows).ok());
        let bytes = files.iter().map(|f| usize::try_from(f.bytes).unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
        let mut statistics = Statistics::new_unknown(stored);
        statistics.num_rows = rows.map_or(Precision::Absent, Precision::Exact);
        statistics.total_byte_size = Precision::Inexact(bytes);
        // Oldest first: whoever keeps rows in order of time finds them nearly so.
        let mut in_order: Vec<&Arc<DataFile>> = files.iter().collect();
        in_order.sort_by_key(|f| f.time_min);
        let files = in_order.into_iter().map(|f| {
            let mut file = PartitionedFile::new("", f.bytes);
            file.object_meta.location = f.location.clone();
            file
        });
        let files = files.collect();
        let group = vec![FileGroup::new(files)];
        let groups = FileGroupPartitioner::new()
            .with_target_partitions(self.partitions.max(1))
            .with_repartition_file_min_size(RANGE_BYTES_MIN)
            .repartition_file_groups(&group)
            .unwrap_or(group);
        let config = FileScanConfigBuilder::new(self.table.warehouse().scan_url().clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(Some(read))?
            .with_statistics(statistics)
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The smallest range within both; `None` is all of time.
fn intersect(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some((a_from, a_to)), Some((b_from, b_to))) => Some((a_from.max(b_from), a_to.min(b_to))),
        (a, b) => a.or(b),
    }
}

/// `from <= time AND time <= to`, over the column of this name and place.
pub(super) fn in_range(name: &str, place: usize, (from, to): (i64, i64)) -> Arc<dyn PhysicalExpr> {
    let bound = |operator, value| -> Arc<dyn PhysicalExpr> {
        let literal = Literal::new(ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into())));
        Arc::new(PhysicalBinary::new(Arc::new(Column::new(name, place)), operator, Arc::new(literal)))
    };
    and(bound(Operator::GtEq, from), bound(Operator::LtEq, to))
}

pub(super) fn and(left: Arc<dyn PhysicalExpr>, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(PhysicalBinary::new(left, Operator::And, right))
}

/// The range of times outside of which a filter is not true, as far as its form shows it.
fn range_of(filter: &Expr, time: &str) -> Option<(i64, i64)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => intersect(range_of(left, time), range_of(right, time)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) if column.name == time => (*op, value),
                (Expr::Literal(value, _), Expr::Column(column)) if column.name == time => (op.swap()?, value),
                _ => return None,
            };
            let (down, exact) = to_micros(value)?;
            let up = if exact { down } else { down.saturating_add(1) };
            match op {
                Operator::GtEq => Some((up, i64::MAX)),
                Operator::Gt => Some((down.saturating_add(1), i64::MAX)),
                Operator::LtEq => Some((i64::MIN, down)),
                Operator::Lt => Some((i64::MIN, up.saturating_sub(1))),
                Operator::Eq => Some((up, down)),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated => match (between.expr.as_ref(), &*between.low, &*between.high) {
            (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) if column.name == time => {
                let (low, exact) = to_micros(low)?;
                let (high, _) = to_micros(high)?;
                Some((if exact { low } else { low.saturating_add(1) }, high))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A timestamp in microseconds, rounded down, and whether that is exact.
fn to_micros(value: &ScalarValue) -> Option<(i64, bool)> {
    match value {
        ScalarValue::TimestampNanosecond(Some(t), _) => Some((t.div_euclid(1000), t.rem_euclid(1000) == 0)),
        ScalarValue::TimestampMicrosecond(Some(t), _) => Some((*t, true)),
        ScalarValue::TimestampMillisecond(Some(t), _) => t.checked_mul(1000).map(|t| (t, true)),
        ScalarValue::TimestampSecond(Some(t), _) => t.checked_mul(1_000_000).map(|t| (t, true)),
        _ => None,
    }
}

/// The stored columns of these names.
pub(super) fn columns_named(schema: &Schema, names: &[&str]) -> Result<Vec<usize>> {
    let find = |name: &&str| schema.index_of(name).map_err(|_| Error::internal(format!("history has no column {name}")));
    names.iter().map(find).collect()
}
