//! Features of entities from events: what both modes share. Events become rows of runs, runs answer aggregates at an instant, and
//! aggregates become features.
//!
//! `stream` keeps a run per entity, `batch` sweeps the spine's instants over one run at a time; values come from here in both. Not here:
//! how events come about (`op::relation`), what an aggregate is (`asof_udfs`).

pub mod batch;
pub mod logical;
pub mod stream;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof_sql::plan::{AS_OF, DeferredAggregate, FeaturePlan, FeatureValue, instant_type};
use asof_udfs::{Applied, ColumnsOut, Instant, Output, Program, Rows, Run};

use super::events::Events;
use super::relation::{mask, utc};
use crate::error::{Error, Result};
use crate::state::key::EntityKeys;

/// A view ready to run: the plan and what is derived from it once.
#[derive(Debug)]
pub struct View {
    /// The definition.
    pub plan: Arc<FeaturePlan>,
    finish_schema: SchemaRef,
    deferred_schemas: Vec<SchemaRef>,
    /// Whether every feature is an aggregate as it is.
    plain: bool,
}

/// The events of a batch as the runs of entities take them.
#[derive(Debug)]
pub struct EntityRows {
    /// Which entity each belongs to.
    pub keys: EntityKeys,
    /// What the runs keep.
    pub rows: Rows,
}

impl View {
    /// Derives what running needs.
    pub fn new(plan: Arc<FeaturePlan>) -> Self {
        let deferred_schemas = plan
            .deferred
            .iter()
            .map(|d| {
                let inputs = d
                    .inputs
                    .iter()
                    .enumerate()
                    .map(|(i, v)| Field::new(format!("__input_{i}"), plan.values[*v].expr.data_type.clone(), true));
                Arc::new(Schema::new(inputs.chain([Field::new(AS_OF, instant_type(), true)]).collect::<Vec<_>>()))
            })
            .collect();
        let plain = plan.features.iter().all(|f| matches!(f.value, FeatureValue::Aggregate(_)));
        Self { finish_schema: plan.finish_schema(), deferred_schemas, plain, plan }
    }

    /// The run program of the view.
    pub fn program(&self) -> &Program {
        &self.plan.program
    }

    /// Evaluates what is kept of each event: arguments, filters, entity.
    pub fn rows(&self, events: &Events) -> Result<EntityRows> {
        let plan = &self.plan;
        let values = plan.values.iter().map(|v| v.expr.evaluate(&events.rows)).collect::<Result<Vec<_>, _>>()?;
        let masks = plan.masks.iter().map(|m| mask(m, &events.rows)).collect::<Result<Vec<_>>>()?;
        let entity: Vec<ArrayRef> = plan.entity.iter().map(|e| events.rows.column(e.column).clone()).collect();
        let keys = EntityKeys::try_new(&entity, events.len())?;
        let rows = Rows::try_new(&plan.program, events.times.clone(), events.keys.clone(), values, masks)
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok(EntityRows { keys, rows })
    }

    /// How far before an instant events can matter, microseconds; `None`: however far.
    pub fn reach_us(&self) -> Option<i64> {
        let held = self.program().retention();
        let however_far = held.everything || held.folded || held.rows > 0 || held.session_gap_us.is_some();
        held.reach_us.filter(|_| !however_far)
    }

    /// Columns to collect one row of aggregates an evaluation.
    pub fn collector(&self, rows: usize) -> Collector {
        Collector {
            aggregates: ColumnsOut::new(&self.plan.program, rows),
            deferred: self.plan.deferred.iter().map(|d| ColumnsOut::new(&d.program, rows)).collect(),
        }
    }

    /// All aggregates of one entity at one instant, as one row of the collector; `None` is the empty set of events.
    pub fn evaluate(&self, run: Option<&Run>, at: Instant, out: &mut Collector) -> Result<()> {
        self.plan.program.evaluate(run, at, &mut out.aggregates);
        for (i, d) in self.plan.deferred.iter().enumerate() {
            self.evaluate_deferred(i, d, run, at, &mut out.deferred[i])?;
        }
        Ok(())
    }

    /// An aggregate over expressions of the instant: its window's raw events, evaluated and aggregated anew.
    fn evaluate_deferred(&self, i: usize, d: &DeferredAggregate, run: Option<&Run>, at: Instant, out: &mut impl Output) -> Result<()> {
        let program = &self.plan.program;
        let live = run.filter(|r| r.is_live(program, at));
        let Some(run) = live else {
            d.program.evaluate(None, at, out);
            return Ok(());
        };
        let range = run.range(program, &self.plan.frames[d.frame], at);
        let n = range.len();
        let mut columns: Vec<ArrayRef> = d.inputs.iter().map(|v| run.column(program, *v, range.clone())).collect();
        columns.push(utc(vec![at.at; n].into()));
        let rows = RecordBatch::try_new_with_options(
            self.deferred_schemas[i].clone(),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(n)),
        )?;
        let values = d.argument.iter().map(|a| a.evaluate(&rows)).collect::<Result<Vec<_>, _>>()?;
        let masks: Vec<BooleanArray> = d.filter.iter().map(|f| mask(f, &rows)).collect::<Result<_>>()?;
        // The events are in their order already; numbering them keeps it.
        let order = arrow::array::BinaryArray::from_iter_values((0..n as u64).map(u64::to_be_bytes));
        let rows = Rows::try_new(&d.program, ScalarBuffer::from(vec![at.at; n]), Some(order), values, masks)
            .map_err(|e| Error::internal(e.to_string()))?;
        let mut scratch = Run::new();
        for row in 0..n {
            let applied = scratch.insert(&d.program, &rows, row);
            debug_assert_eq!(applied, Applied::Done, "invariant: nothing is evicted from a scratch run");
        }
        d.program.evaluate(Some(&scratch), Instant { at: at.at, strict: false }, out);
        Ok(())
    }

    /// The features of rows: entity columns, instants and aggregates in, one column a feature out.
    pub fn finish(&self, entity: &[ArrayRef], instants: &ArrayRef, collected: Collector) -> Result<Vec<ArrayRef>> {
        let Collector { mut aggregates, deferred } = collected;
        let mut results = aggregates.finish();
        for mut columns in deferred {
            results.extend(columns.finish());
        }
        if self.plain {
            return Ok(self
                .plan
                .features
                .iter()
                .filter_map(|f| if let FeatureValue::Aggregate(i) = f.value { results.get(i).cloned() } else { None })
                .collect());
        }
        let columns: Vec<ArrayRef> = entity.iter().cloned().chain([instants.clone()]).chain(results.iter().cloned()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(instants.len()));
        let rows = RecordBatch::try_new_with_options(self.finish_schema.clone(), columns, &options)?;
        self.plan
            .features
            .iter()
            .map(|f| match &f.value {
                FeatureValue::Aggregate(i) => results.get(*i).cloned().ok_or_else(|| Error::internal("a feature names no aggregate")),
                FeatureValue::Computed(c) => Ok(c.evaluate(&rows)?),
            })
            .collect()
    }
}

/// Results of evaluations, a row each.
#[derive(Debug)]
pub struct Collector {
    aggregates: ColumnsOut,
    deferred: Vec<ColumnsOut>,
}

/// Keys given by a user, as the entity's own types, and which rows name an entity that cannot exist.
pub fn entity_columns(plan: &FeaturePlan, given: &[ArrayRef]) -> Result<(Vec<ArrayRef>, Vec<bool>)> {
    let mut unknown = vec![false; given.first().map_or(0, |c| c.len())];
    let mut columns = Vec::with_capacity(given.len());
    for (entity, column) in plan.entity.iter().zip(given) {
        let (column, lost) = entity_column(&entity.name, &entity.data_type, column)?;
        unknown.iter_mut().zip(lost).for_each(|(u, lost)| *u |= lost);
        columns.push(column);
    }
    Ok((columns, unknown))
}

/// Keys of one entity column as its own type: a value that does not survive the way there and back is that of no entity.
///
/// Returns the cast column, and which rows name an entity that cannot exist.
pub fn entity_column(name: &str, data_type: &DataType, given: &ArrayRef) -> Result<(ArrayRef, Vec<bool>)> {
    if given.data_type() == data_type {
        return Ok((given.clone(), vec![false; given.len()]));
    }
    check_key_types(name, data_type, given.data_type())?;
    if given.data_type() == &DataType::Null {
        return Ok((arrow::array::new_null_array(data_type, given.len()), vec![false; given.len()]));
    }
    let cast = arrow::compute::cast(given, data_type)?;
    let lost = if is_text(given.data_type()) {
        // A date or a timestamp may be written in several ways, so that its text need not come back.
        (0..given.len()).map(|row| cast.is_null(row) && given.is_valid(row)).collect()
    } else {
        let back = arrow::compute::cast(&cast, given.data_type())?;
        let same = arrow::compute::kernels::cmp::not_distinct(&back, given)?;
        same.values().iter().map(|same| !same).collect()
    };
    Ok((cast, lost))
}

/// Refuses a text among the keys of an entity column that cannot be read as its type; both as [`entity_column`] takes and gives them.
pub fn check_readable(name: &str, given: &ArrayRef, cast: &ArrayRef) -> Result<()> {
    if !is_text(given.data_type()) || given.null_count() == cast.null_count() {
        return Ok(());
    }
    let Some(row) = (0..given.len()).find(|row| given.is_valid(*row) && cast.is_null(*row)) else { return Ok(()) };
    let text = arrow::util::display::array_value_to_string(given, row)?;
    Err(Error::invalid(format!("{text} is no value of type {}, the type of entity column \"{name}\"", cast.data_type())))
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// Refuses a key of a kind that the entity's type cannot mean.
pub fn check_key_types(name: &str, entity: &DataType, given: &DataType) -> Result<()> {
    let kind = |t: &DataType| match t {
        t if is_text(t) => "a string",
        DataType::Boolean => "a boolean",
        DataType::Date32 | DataType::Date64 => "a date",
        DataType::Timestamp(_, _) => "a timestamp",
        t if t.is_numeric() => "a number",
        _ => "another type",
    };
    let (want, got) = (kind(entity), kind(given));
    let fits = want == got
        || given == &DataType::Null
        || (matches!(want, "a date" | "a timestamp") && matches!(got, "a string" | "a date" | "a timestamp"));
    if !fits {
        return Err(Error::invalid(format!("entity column \"{name}\" is {want}, found {got}")));
    }
    Ok(())
}
