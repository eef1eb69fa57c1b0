//! The proof on one's own data: history replayed through the stream operators, compared with the batch plan bit for bit.
//!
//! Events go into a fresh online state in their order of arrival. At checkpoints on the way entities are asked at random and at edge
//! instants that the state answers, and the batch plan computes the same pairs from just what had arrived by then. A stream that holds
//! conflicts is compared at its end only, since what a later row hides was visible before. Not here: the two paths themselves.

mod instants;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use asof_sql::plan::instant_type;
use asof_udfs::Instant;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::col;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlan, collect};
use futures::StreamExt;

use self::instants::Instants;
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};
use crate::history::{ARRIVED_AT, OFFSET, PARTITION, Part, TableOptions};
use crate::op::events::Events;
use crate::op::relation::batch::RelationSource;
use crate::op::relation::stream::Change;
use crate::op::window::View;
use crate::op::window::batch::{EventSource, FeatureJoinExec, ViewJoin};
use crate::op::window::stream::OnlineView;
use crate::serve::scans::{Arrival, HistoryScans};
use crate::state::key::EntityKeys;
use crate::stream::order::OrderKeys;

/// What is verified, and how much of it.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The view; `None`: all.
    pub view: Option<String>,
    /// The share of entities, 0 to 1.
    pub sample: f64,
    /// Decides the entities and instants.
    pub seed: u64,
    /// How often along the replay pairs are compared.
    pub checkpoints: usize,
    /// Instants of each entity at each checkpoint.
    pub instants_per_entity: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { view: None, sample: 1.0, seed: 1, checkpoints: 8, instants_per_entity: 4 }
    }
}

/// What was compared and what differed.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Views compared.
    pub views: usize,
    /// Entities compared, over all views.
    pub entities: u64,
    /// (entity, instant) pairs compared.
    pub pairs: u64,
    /// Pairs that the online state itself answered: all that are counted.
    pub online_pairs: u64,
    /// Feature values compared.
    pub values: u64,
    /// Bits that differed.
    pub differing_bits: u64,
    /// The first differences, each with the events that show it.
    pub differences: Vec<String>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        writeln!(
            f,
            "{} views, {} entities, {} (entity, instant) pairs, {} of them answered by the online state, {} values",
            self.views, self.entities, self.pairs, self.online_pairs, self.values
        )?;
        write!(f, "{} differing bits", self.differing_bits)
    }
}

/// Differences that are shown in full.
const SHOWN: usize = 5;
/// Pairs of one batch plan.
const PAIRS_AT_ONCE: usize = 200_000;

impl Engine {
    /// Replays history through the stream operators and compares with the batch plan, bit for bit.
    pub async fn verify(&self, options: VerifyOptions) -> Result<VerifyReport> {
        verify(&self.inner, options).await
    }
}

async fn verify(engine: &Inner, options: VerifyOptions) -> Result<VerifyReport> {
    let registry = engine.registry();
    let names: Vec<String> = match &options.view {
        Some(name) if registry.views.contains_key(name) => vec![name.clone()],
        Some(name) => {
            let near = asof_sql::diagnostic::nearest(name, registry.views.keys().map(String::as_str));
            let help = near.map_or(String::new(), |n| format!("; the nearest known feature view is \"{n}\""));
            return Err(Error::invalid(format!("unknown feature view \"{name}\"{help}")));
        }
        None => registry.views.keys().cloned().collect(),
    };
    let mut report = VerifyReport::default();
    for name in names {
        let view = registry.views[&name].view.clone();
        let scans = engine.pinned(&view).await?.as_ref().clone();
        let mut replay = Replay::open(engine, view, scans, &options).await?;
        replay.run(&mut report).await.map_err(|e| e.context(format!("verifying \"{name}\"")))?;
        report.views += 1;
    }
    Ok(report)
}

/// One stream's events on their way through the replay.
struct Source {
    name: String,
    arrivals: datafusion::physical_plan::SendableRecordBatchStream,
    rows: u64,
    columns: usize,
    event_time: usize,
    last: Option<Arrival>,
    /// Identities that several rows share; only the greatest that has come is visible.
    conflicts: Option<Conflicts>,
}

struct Conflicts {
    identity: RowConverter,
    key: Vec<usize>,
    order: OrderKeys,
    contested: HashSet<Vec<u8>>,
    visible: HashMap<Vec<u8>, RecordBatch>,
}

struct Replay<'a> {
    engine: &'a Inner,
    view: Arc<View>,
    scans: HistoryScans,
    sources: Vec<Source>,
    online: OnlineView,
    instants: Instants,
    entities: Entities,
    options: &'a VerifyOptions,
}

impl<'a> Replay<'a> {
    async fn open(engine: &'a Inner, view: Arc<View>, scans: HistoryScans, options: &'a VerifyOptions) -> Result<Self> {
        let registry = engine.registry();
        let mut sources = Vec::new();
        for (name, pinned) in &scans.streams {
            let all = TableOptions { version: Some(pinned.version), hidden: true, all_rows: true, ..TableOptions::default() };
            let table = pinned.history.table(Part::History, all).await?;
            let rows = table.rows_stored().unwrap_or(0);
            let sorted = engine.context.read_table(table)?.sort(vec![
                col(ARRIVED_AT).sort(true, true),
                col(PARTITION).sort(true, true),
                col(OFFSET).sort(true, true),
            ])?;
            let schema = registry.streams[name].schema.clone();
            let contested = contested(engine, pinned, &schema).await?;
            sources.push(Source {
                name: name.clone(),
                arrivals: sorted.execute_stream().await?,
                rows,
                columns: pinned.history.schema().columns().fields().len(),
                event_time: schema.event_time(),
                last: None,
                conflicts: contested,
            });
        }
        let online = OnlineView::try_new(view.clone())?;
        let widths = view.plan.frames.clone();
        Ok(Self {
            engine,
            instants: Instants::new(options.seed, widths),
            entities: Entities::new(&view, options),
            view,
            scans,
            sources,
            online,
            options,
        })
    }

    async fn run(&mut self, report: &mut VerifyReport) -> Result<()> {
        let total: u64 = self.sources.iter().map(|s| s.rows).sum();
        let contested = self.sources.iter().any(|s| s.conflicts.is_some());
        let checkpoints = if contested { 1 } else { self.options.checkpoints.max(1) as u64 };
        let (mut done, mut checkpoint) = (0, 1);
        let mut heads: Vec<Option<RecordBatch>> = Vec::new();
        for source in &mut self.sources {
            heads.push(source.next().await?);
        }
        // Which stream goes first among those that arrived at the same time does not matter: what had arrived is named stream by stream.
        while let Some(next) = (0..heads.len()).filter(|i| heads[*i].is_some()).min_by_key(|i| heads[*i].as_ref().map(arrived)) {
            let Some(batch) = heads[next].take() else { break };
            let upto = (total * checkpoint / checkpoints).saturating_sub(done).max(1) as usize;
            let (now, later) = batch_split(&batch, upto.min(1024));
            self.apply(next, &now)?;
            done += now.num_rows() as u64;
            heads[next] = match later {
                Some(later) => Some(later),
                None => self.sources[next].next().await?,
            };
            while checkpoint < checkpoints && done >= total * checkpoint / checkpoints {
                self.compare(report).await?;
                checkpoint += 1;
            }
        }
        self.compare(report).await?;
        report.entities += self.entities.known.len() as u64;
        Ok(())
    }

    /// Feeds arrivals of a stream to the state.
    fn apply(&mut self, source: usize, batch: &RecordBatch) -> Result<()> {
        let source = &mut self.sources[source];
        let Some(last) = batch.num_rows().checked_sub(1) else { return Ok(()) };
        source.last = Some(arrival(batch, last, source.columns)?);
        let schema = Arc::new(batch.schema().project(&(0..source.columns).collect::<Vec<_>>())?);
        let rows = RecordBatch::try_new(schema, batch.columns()[..source.columns].to_vec())?;
        let times = rows.column(source.event_time).as_primitive::<TimestampMicrosecondType>().clone();
        self.online.saw(arrow::compute::max(&times));
        self.instants.saw(times.values());
        let changes = match &mut source.conflicts {
            None => vec![(rows, false)],
            Some(conflicts) => conflicts.changes(&rows)?,
        };
        let changes: Vec<Change> = changes.iter().map(|(rows, gone)| Change { stream: &source.name, rows, gone: *gone }).collect();
        self.online.apply(&changes)?;
        self.online.advance(self.engine.horizon(&self.view, self.online.greatest()));
        Ok(())
    }

    fn prefix(&self) -> HistoryScans {
        let mut scans = self.scans.clone();
        let contested = self.sources.iter().any(|s| s.conflicts.is_some());
        for source in &self.sources {
            if let Some(pinned) = scans.streams.get_mut(&source.name).filter(|_| !contested) {
                pinned.upto = Some(source.last.clone());
            }
        }
        scans
    }

    /// Asks both paths the same and compares.
    async fn compare(&mut self, report: &mut VerifyReport) -> Result<()> {
        let source = Arc::new(RelationSource {
            relation: self.view.plan.relation.clone(),
            ordered: self.view.plan.ordered,
            streams: Arc::new(self.prefix()),
        });
        if self.online.is_stale() {
            // As the engine does: what cannot be applied exactly is built anew from history.
            let online = OnlineView::try_new(self.view.clone())?;
            online.saw(self.online.greatest());
            online.advance(self.online.horizon());
            crate::engine::views::bootstrap(&online, &self.prefix(), self.engine.context.task_ctx(), None).await?;
            self.online = online;
        }
        self.online.sweep();
        self.entities.find(&source, self.engine).await?;
        let Some(greatest) = self.online.greatest() else { return Ok(()) };
        let horizon = self.online.horizon();
        for strict in [false, true] {
            let per_entity = self.options.instants_per_entity.div_ceil(2).max(1);
            let per_chunk = (PAIRS_AT_ONCE / per_entity).max(1);
            for chunk in self.entities.chunks(per_chunk)? {
                let n = chunk.first().map_or(0, |c| c.len());
                let repeat: Vec<u32> = (0..n as u32).flat_map(|e| std::iter::repeat_n(e, per_entity)).collect();
                let picks = arrow::array::UInt32Array::from(repeat);
                let entity = chunk.iter().map(|c| take(c, &picks, None)).collect::<std::result::Result<Vec<_>, _>>()?;
                let at: Vec<Instant> = (0..picks.len()).map(|_| Instant { at: self.instants.next(horizon, greatest), strict }).collect();
                let online = self.online.features(&entity, &vec![false; at.len()], &at)?;
                let batch = self.batch(&source, &entity, &at, strict).await?;
                report.pairs += at.len() as u64;
                report.online_pairs += at.len() as u64;
                for (f, (a, b)) in online.iter().zip(&batch).enumerate() {
                    report.values += a.len() as u64;
                    self.differences(f, a, b, &entity, &at, &source, report).await?;
                }
            }
        }
        Ok(())
    }

    async fn batch(&self, source: &Arc<RelationSource>, entity: &[ArrayRef], at: &[Instant], strict: bool) -> Result<Vec<ArrayRef>> {
        let mut fields: Vec<Field> =
            entity.iter().enumerate().map(|(i, k)| Field::new(format!("key_{i}"), k.data_type().clone(), true)).collect();
        fields.push(Field::new("instant", instant_type(), true));
        let schema = Arc::new(Schema::new(fields));
        let mut columns = entity.to_vec();
        columns.push(crate::op::relation::utc(at.iter().map(|i| i.at).collect::<Vec<_>>().into()));
        let spine = MemorySourceConfig::try_new_exec(&[vec![RecordBatch::try_new(schema.clone(), columns)?]], schema.clone(), None)?;
        let column = |i: usize| Arc::new(Column::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>;
        let join = ViewJoin {
            view: self.view.clone(),
            source: source.clone(),
            keys: (0..entity.len()).map(column).collect(),
            instant: column(entity.len()),
            strict,
        };
        let out = FeatureJoinExec::output_schema(&schema, std::slice::from_ref(&join));
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(FeatureJoinExec::new(spine, vec![join], out.clone(), self.engine.settings.spine_rows_max));
        let all = concat_batches(&out, &collect(plan, self.engine.context.task_ctx()).await?)?;
        let first = 2 * entity.len() + 1;
        Ok((0..self.view.plan.features.len()).map(|i| all.column(first + i).clone()).collect())
    }

    #[allow(clippy::too_many_arguments)]
    async fn differences(
        &self,
        feature: usize,
        online: &ArrayRef,
        batch: &ArrayRef,
        entity: &[ArrayRef],
        at: &[Instant],
        source: &Arc<RelationSource>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        if online.to_data() == batch.to_data() && online.data_type() == batch.data_type() {
            return Ok(());
        }
        let converter = RowConverter::new(vec![SortField::new(online.data_type().clone())])?;
        let (a, b) = (converter.convert_columns(std::slice::from_ref(online))?, converter.convert_columns(std::slice::from_ref(batch))?);
        for row in (0..at.len()).filter(|r| a.row(*r) != b.row(*r)) {
            let bits = differing_bits(a.row(row).data(), b.row(row).data());
            report.differing_bits += bits;
            if report.differences.len() >= SHOWN {
                continue;
            }
            let show = |array: &ArrayRef, row: usize| -> Result<String> {
                Ok(ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default().with_null("NULL"))?.value(row).to_string())
            };
            let key = entity.iter().map(|e| show(e, row)).collect::<Result<Vec<_>>>()?.join(", ");
            let instant = chrono::DateTime::from_timestamp_micros(at[row].at).map_or_else(|| at[row].at.to_string(), |t| t.to_rfc3339());
            let f = &self.view.plan.features[feature];
            let events = self.events_of(source, entity, row, at[row]).await?;
            report.differences.push(format!(
                "\"{}\".\"{}\" of ({key}) at {instant}{}: online {}, batch {}\nevents up to then, the newest last:\n{events}",
                self.view.plan.name,
                f.name,
                if at[row].strict { " (strict)" } else { "" },
                show(online, row)?,
                show(batch, row)?
            ));
        }
        Ok(())
    }

    /// The newest events of one entity up to an instant, as a table.
    async fn events_of(&self, source: &Arc<RelationSource>, entity: &[ArrayRef], row: usize, at: Instant) -> Result<String> {
        let wanted = EntityKeys::try_new(entity, at_len(entity))?;
        let plan = source.events((i64::MIN, at.at), &self.engine.context.task_ctx()).await?;
        let schema = self.view.plan.relation.schema();
        let mut found: Vec<RecordBatch> = Vec::new();
        for batch in collect(plan, self.engine.context.task_ctx()).await? {
            let events = Events::from_batch(&batch, &schema, self.view.plan.ordered)?;
            let columns: Vec<ArrayRef> = self.view.plan.entity.iter().map(|e| events.rows.column(e.column).clone()).collect();
            let keys = EntityKeys::try_new(&columns, events.len())?;
            let mine: BooleanArray = (0..events.len()).map(|i| Some(keys.get(i).is_some() && keys.get(i) == wanted.get(row))).collect();
            found.push(events.filtered(&mine)?.rows);
        }
        let all = concat_batches(&schema, &found)?;
        let tail = all.slice(all.num_rows().saturating_sub(40), all.num_rows().min(40));
        Ok(arrow::util::pretty::pretty_format_batches(&[tail])?.to_string())
    }
}

fn at_len(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, |c| c.len())
}

fn differing_bits(a: &[u8], b: &[u8]) -> u64 {
    let longer = a.len().max(b.len());
    let byte = |x: &[u8], i: usize| x.get(i).copied().unwrap_or(0);
    let bits: u64 = (0..longer).map(|i| u64::from((byte(a, i) ^ byte(b, i)).count_ones())).sum();
    bits.max(1)
}

fn arrived(batch: &RecordBatch) -> i64 {
    let column = batch.column_by_name(ARRIVED_AT).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>().map(|t| t.value(0)));
    column.unwrap_or(i64::MIN)
}

fn arrival(batch: &RecordBatch, row: usize, first: usize) -> Result<Arrival> {
    let hidden = |i: usize| batch.columns().get(first + i).ok_or_else(|| Error::internal("arrivals lack their coordinates"));
    Ok(Arrival {
        partition: hidden(0)?.as_string_view().value(row).to_owned(),
        offset: hidden(1)?.as_primitive::<Int64Type>().value(row),
        at: hidden(2)?.as_primitive::<TimestampMicrosecondType>().value(row),
    })
}

/// The first rows of a batch and the rest.
fn batch_split(batch: &RecordBatch, first: usize) -> (RecordBatch, Option<RecordBatch>) {
    let n = batch.num_rows();
    let first = first.min(n);
    (batch.slice(0, first), (first < n).then(|| batch.slice(first, n - first)))
}

impl Source {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(batch) = self.arrivals.next().await.transpose()? {
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// The identities that several rows of a stream share; `None` where there is none.
async fn contested(
    engine: &Inner,
    pinned: &crate::serve::scans::Pinned,
    schema: &crate::stream::schema::StreamSchema,
) -> Result<Option<Conflicts>> {
    if schema.primary_key().is_empty() {
        return Ok(None);
    }
    let key: Vec<usize> = std::iter::once(schema.event_time()).chain(schema.primary_key().iter().copied()).collect();
    let types = key.iter().map(|c| SortField::new(schema.columns()[*c].data_type.clone())).collect();
    let mut conflicts = Conflicts {
        identity: RowConverter::new(types)?,
        key,
        order: OrderKeys::for_stream(schema)?,
        contested: HashSet::new(),
        visible: HashMap::new(),
    };
    let all = TableOptions { version: Some(pinned.version), hidden: true, all_rows: true, ..TableOptions::default() };
    let table = pinned.history.table(Part::History, all).await?;
    let revised = engine.context.read_table(table)?.filter(col(crate::history::REVISION).gt(datafusion::logical_expr::lit(0i32)))?;
    for batch in revised.collect().await? {
        debug_assert!(batch.column_by_name(crate::history::REVISION).is_some_and(|c| c.as_primitive_opt::<Int32Type>().is_some()));
        let rows = conflicts.identities(&batch)?;
        conflicts.contested.extend(rows);
    }
    Ok((!conflicts.contested.is_empty()).then_some(conflicts))
}

impl Conflicts {
    fn identities(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns: Vec<ArrayRef> = self.key.iter().map(|c| rows.column(*c).clone()).collect();
        let ids = self.identity.convert_columns(&columns)?;
        Ok((0..rows.num_rows()).map(|i| ids.row(i).data().to_vec()).collect())
    }

    /// What rows, as they come, change in what is visible; in order.
    fn changes(&mut self, rows: &RecordBatch) -> Result<Vec<(RecordBatch, bool)>> {
        let ids = self.identities(rows)?;
        let usual: BooleanArray = ids.iter().map(|id| Some(!self.contested.contains(id))).collect();
        let mut changes = vec![(arrow::compute::filter_record_batch(rows, &usual)?, false)];
        for (row, id) in ids.into_iter().enumerate().filter(|(_, id)| self.contested.contains(id)) {
            let new = rows.slice(row, 1);
            match self.visible.get(&id) {
                Some(old) if self.order.compare(&new, 0, old, 0)?.is_le() => continue,
                Some(old) => changes.push((old.clone(), true)),
                None => {}
            }
            changes.push((new.clone(), false));
            self.visible.insert(id, new);
        }
        Ok(changes)
    }
}

/// The entities of a view, as they become known.
struct Entities {
    view: Arc<View>,
    sample: f64,
    seed: u64,
    known: BTreeMap<Vec<u8>, Vec<ArrayRef>>,
}

impl Entities {
    fn new(view: &Arc<View>, options: &VerifyOptions) -> Self {
        Self { view: view.clone(), sample: options.sample, seed: options.seed, known: BTreeMap::new() }
    }

    /// Adds the entities of the events that have arrived.
    async fn find(&mut self, source: &RelationSource, engine: &Inner) -> Result<()> {
        let plan = source.events((i64::MIN, i64::MAX), &engine.context.task_ctx()).await?;
        let schema = self.view.plan.relation.schema();
        let mut batches = datafusion::physical_plan::execute_stream(plan, engine.context.task_ctx())?;
        while let Some(batch) = batches.next().await {
            let events = Events::from_batch(&batch?, &schema, self.view.plan.ordered)?;
            let columns: Vec<ArrayRef> = self.view.plan.entity.iter().map(|e| events.rows.column(e.column).clone()).collect();
            let keys = EntityKeys::try_new(&columns, events.len())?;
            for row in 0..events.len() {
                let Some(key) = keys.get(row) else { continue };
                let draw = EntityKeys::hash(&[key, &self.seed.to_le_bytes()].concat()) as f64 / u64::MAX as f64;
                if draw < self.sample && !self.known.contains_key(key) {
                    self.known.insert(key.to_vec(), columns.iter().map(|c| c.slice(row, 1)).collect());
                }
            }
        }
        Ok(())
    }

    /// Columns of at most `rows` entities each.
    fn chunks(&self, rows: usize) -> Result<Vec<Vec<ArrayRef>>> {
        let all: Vec<&Vec<ArrayRef>> = self.known.values().collect();
        all.chunks(rows)
            .map(|chunk| {
                (0..self.view.plan.entity.len())
                    .map(|c| {
                        let parts: Vec<&dyn Array> = chunk.iter().map(|e| e[c].as_ref()).collect();
                        Ok(arrow::compute::concat(&parts)?)
                    })
                    .collect()
            })
            .collect()
    }
}
