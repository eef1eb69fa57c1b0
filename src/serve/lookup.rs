//! `FOR ENTITY`: features of given entities at one instant, from the online state or, for earlier instants, from history.

mod elsewhere;
mod plan;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions, StringViewArray};
use arrow::compute::{concat, interleave, nullif};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof_sql::Diagnostic;
use asof_sql::Span;
use asof_sql::ast::{ForEntity, Instant as AstInstant, KeyLiteral, KeyValue};
use asof_sql::codes;
use asof_sql::plan::instant_type;
use asof_udfs::Instant;
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::collect;

pub(crate) use self::elsewhere::Peers;
use self::plan::Item;
pub(crate) use self::plan::LookupPlan;
use crate::engine::Inner;
use crate::engine::views::Slot;
use crate::error::{Error, Result};
use crate::op::window::batch::{FeatureJoinExec, ViewJoin};
use crate::op::window::{View, check_readable, entity_column};
use crate::settings::ReadPath;

type Checked<T> = std::result::Result<T, Vec<Diagnostic>>;

fn one<T>(d: Diagnostic) -> Checked<T> {
    Err(vec![d])
}

/// What `$1` and so on stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parameters<'a> {
    /// A value each.
    Values(&'a [ScalarValue]),
    /// A column each: for each of their rows in turn the keys of the statement are asked for. They stand among its keys and nowhere else.
    Columns(&'a RecordBatch),
}

impl Parameters<'_> {
    /// How often the keys of the statement are asked for.
    fn times(self) -> usize {
        match self {
            Self::Values(_) => 1,
            Self::Columns(batch) => batch.num_rows(),
        }
    }
}

/// Answers the statement: one row per entity asked for, in the order asked.
pub(crate) async fn for_entity(
    engine: &Inner,
    f: &ForEntity,
    params: Parameters<'_>,
) -> Result<Checked<(SchemaRef, Vec<RecordBatch>, Option<String>)>> {
    match LookupPlan::new(&engine.registry(), f) {
        Ok(plan) => planned(engine, &plan, f, params).await,
        Err(d) => Ok(Err(d)),
    }
}

/// Answers a statement whose names are resolved.
pub(crate) async fn planned(
    engine: &Inner,
    plan: &LookupPlan,
    f: &ForEntity,
    params: Parameters<'_>,
) -> Result<Checked<(SchemaRef, Vec<RecordBatch>, Option<String>)>> {
    let rows = match check_count(engine, f, params) {
        Ok(rows) => rows,
        Err(d) => return Ok(Err(d)),
    };
    let given = match key_columns(f, plan, params) {
        Ok(given) => given,
        Err(d) => return Ok(Err(d)),
    };
    let values = if let Parameters::Values(values) = params { values } else { &[] };
    let at = match instant(engine, &f.at, values).await? {
        Ok(at) => at,
        Err(d) => return Ok(Err(d)),
    };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(plan.columns.len());
    let mut notes = Vec::new();
    for asked in &plan.asked {
        let keys: Vec<ArrayRef> = asked.entity.iter().map(|i| given.arrays[*i].clone()).collect();
        let mut unknown = vec![false; rows];
        for i in &asked.entity {
            unknown.iter_mut().zip(&given.unknown[*i]).for_each(|(u, x)| *u |= *x);
        }
        let (features, note) = features(engine, &asked.name, &asked.view, &keys, &unknown, at, false).await?;
        notes.extend(note);
        columns.extend(keys.into_iter().chain(features));
        columns.push(crate::op::relation::utc(vec![at.at; rows].into()));
    }
    let (mut fields, mut arrays) = (vec![], vec![]);
    for item in &plan.items {
        let (name, array) = match item {
            Item::Column(i, name) => (name, columns[*i].clone()),
            Item::Computed { expr, span, name } => match computed(engine, plan, &columns, rows, expr).await {
                Ok(array) => (name, array),
                Err(e) => return Ok(one(Diagnostic::error(codes::E0405, *span, e.strip_backtrace()))),
            },
        };
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
    Ok(Ok((schema, vec![batch], (!notes.is_empty()).then(|| notes.join("; ")))))
}

/// A value computed from features, by DataFusion's rules.
async fn computed(
    engine: &Inner,
    plan: &LookupPlan,
    columns: &[ArrayRef],
    rows: usize,
    expr: &str,
) -> std::result::Result<ArrayRef, DataFusionError> {
    let fields: Vec<Field> = plan.columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type.clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns.to_vec(), &options)?;
    let frame = engine.context.read_batch(batch)?;
    let value = frame.parse_sql_expr(expr)?;
    let batches = frame.select(vec![value.alias("value")])?.collect().await?;
    let columns: Vec<&dyn Array> = batches.iter().map(|b| b.column(0).as_ref()).collect();
    Ok(concat(&columns)?)
}

/// How many entities are asked for; refused above the limit.
pub(crate) fn check_count(engine: &Inner, f: &ForEntity, params: Parameters<'_>) -> Checked<usize> {
    let (entities, limit) = (f.keys.rows.len().saturating_mul(params.times()), engine.settings.entities_max);
    if entities > limit {
        let message = format!("{entities} entities are asked for, the limit is {limit}");
        return one(Diagnostic::error(codes::E0501, f.keys.span, message).help("Ask in several statements."));
    }
    Ok(entities)
}

/// What a look-up does, for EXPLAIN.
pub(crate) fn describe(engine: &Inner, f: &ForEntity) -> Checked<String> {
    let plan = LookupPlan::new(&engine.registry(), f)?;
    let names: Vec<_> = plan.views().collect();
    Ok(format!(
        "OnlineLookup [{}], {} entities; instants before the state's horizon are computed from history by FeatureJoinExec",
        names.join(", "),
        f.keys.rows.len()
    ))
}

/// The keys asked for, a column an entity column, with the rows that name an entity that cannot exist.
struct Given {
    arrays: Vec<ArrayRef>,
    unknown: Vec<Vec<bool>>,
}

fn key_columns(f: &ForEntity, plan: &LookupPlan, params: Parameters<'_>) -> Checked<Given> {
    let (mut arrays, mut unknown, mut errors) = (vec![], vec![], vec![]);
    for ((name, data_type), place) in plan.entity.iter().zip(&plan.places) {
        let values: Vec<&KeyValue> = f.keys.rows.iter().filter_map(|r| r.values.get(*place)).collect();
        match column(name, data_type, &values, params) {
            Ok((array, lost)) => {
                arrays.push(array);
                unknown.push(lost);
            }
            Err(d) => errors.push(d),
        }
    }
    if errors.is_empty() { Ok(Given { arrays, unknown }) } else { Err(errors) }
}

/// The keys of one entity column, and which of them no entity can have.
fn column(
    name: &str,
    data_type: &DataType,
    values: &[&KeyValue],
    params: Parameters<'_>,
) -> std::result::Result<(ArrayRef, Vec<bool>), Diagnostic> {
    // The usual case: strings for a string column.
    if data_type == &DataType::Utf8View && params.times() == 1 && values.iter().all(|v| matches!(v.literal, KeyLiteral::String(_))) {
        let texts = values.iter().map(|v| if let KeyLiteral::String(s) = &v.literal { s.as_str() } else { "" });
        return Ok((Arc::new(StringViewArray::from_iter_values(texts)), vec![false; values.len()]));
    }
    let times = params.times();
    let (mut parts, mut lost): (Vec<ArrayRef>, Vec<Vec<bool>>) = (vec![], vec![]);
    for value in values {
        let bad = |message: String| Diagnostic::error(codes::E0501, value.span, message);
        let given = given(&value.literal, params).map_err(&bad)?;
        let (cast, unknown) = entity_column(name, data_type, &given).map_err(|e| bad(e.message().to_owned()))?;
        check_readable(name, &given, &cast).map_err(|e| bad(e.message().to_owned()))?;
        // No entity has such a key, so that none is named beside its values.
        parts.push(match unknown.contains(&true) {
            true => nullif(&cast, &BooleanArray::from(unknown.clone())).map_err(|e| bad(e.to_string()))?,
            false => cast,
        });
        lost.push(unknown);
    }
    // All keys of the statement for the first row of parameters, then for the second.
    let lost: Vec<bool> = (0..times).flat_map(|row| lost.iter().map(move |of| of[row])).collect();
    let all: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let keys = match (all.as_slice(), times) {
        ([], _) => Ok(arrow::array::new_empty_array(data_type)),
        ([_], _) => Ok(parts[0].clone()),
        (_, 1) => concat(&all),
        _ => {
            let places: Vec<(usize, usize)> = (0..times).flat_map(|row| (0..parts.len()).map(move |part| (part, row))).collect();
            interleave(&all, &places)
        }
    };
    Ok((keys.map_err(|e| Diagnostic::error(codes::E0501, Span::NONE, e.to_string()))?, lost))
}

/// One key of the statement for each row of parameters.
fn given(literal: &KeyLiteral, params: Parameters<'_>) -> std::result::Result<ArrayRef, String> {
    let column = match (literal, params) {
        (KeyLiteral::Parameter(n), Parameters::Columns(batch)) => {
            let column = n.checked_sub(1).and_then(|i| batch.columns().get(i));
            column.cloned().ok_or_else(|| format!("parameter ${n} is not given"))?
        }
        (_, Parameters::Values(values)) => scalar(literal, values)?.to_array().map_err(|e| e.strip_backtrace())?,
        (_, Parameters::Columns(batch)) => scalar(literal, &[])?.to_array_of_size(batch.num_rows()).map_err(|e| e.strip_backtrace())?,
    };
    // NULL has no type, whichever the client sends it with.
    let is_null = !column.is_empty() && column.null_count() == column.len();
    Ok(if is_null { Arc::new(NullArray::new(column.len())) } else { column })
}

fn scalar(literal: &KeyLiteral, params: &[ScalarValue]) -> std::result::Result<ScalarValue, String> {
    Ok(match literal {
        KeyLiteral::String(s) => ScalarValue::Utf8(Some(s.clone())),
        KeyLiteral::Boolean(b) => ScalarValue::Boolean(Some(*b)),
        KeyLiteral::Null => ScalarValue::Null,
        KeyLiteral::Number(n) => match (n.parse::<i64>(), n.parse::<i128>(), n.parse::<f64>()) {
            (Ok(i), _, _) => ScalarValue::Int64(Some(i)),
            (_, Ok(i), _) if i.unsigned_abs() < 10u128.pow(38) => ScalarValue::Decimal128(Some(i), 38, 0),
            (_, _, Ok(x)) => match decimal(n) {
                Some((unscaled, scale)) => ScalarValue::Decimal128(Some(unscaled), 38, scale),
                None => ScalarValue::Float64(Some(x)),
            },
            _ => return Err(format!("\"{n}\" is not a number")),
        },
        KeyLiteral::Date(s) => ScalarValue::try_from_string(s.clone(), &DataType::Date32).map_err(|e| e.strip_backtrace())?,
        KeyLiteral::Timestamp(s) => ScalarValue::try_from_string(s.clone(), &instant_type()).map_err(|e| e.strip_backtrace())?,
        KeyLiteral::Parameter(n) => match n.checked_sub(1).and_then(|i| params.get(i)) {
            Some(value) => value.clone(),
            None => return Err(format!("parameter ${n} is not given")),
        },
    })
}

/// A plain decimal number, `-12.50`, as its unscaled integer and scale.
fn decimal(text: &str) -> Option<(i128, i8)> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = format!("{whole}{fraction}");
    let unscaled = digits.parse::<i128>().ok().filter(|u| u.unsigned_abs() < 10u128.pow(38))?;
    Some((unscaled, i8::try_from(fraction.len()).ok().filter(|s| *s <= 37)?))
}

async fn instant(engine: &Inner, at: &AstInstant, params: &[ScalarValue]) -> Result<Checked<Instant>> {
    let (expr, span, strict) = match at {
        AstInstant::Now => return Ok(Ok(Instant { at: engine.now(), strict: false })),
        AstInstant::AsOf { expr, span } => (expr, *span, false),
        AstInstant::Before { expr, span } => (expr, *span, true),
    };
    let evaluated = engine.constant(expr, params).await;
    let timestamp = |v: ScalarValue| match v.data_type() {
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => {
            Ok(v.cast_to(&instant_type())?)
        }
        other => Err(Error::invalid(format!("found {other}"))),
    };
    let value = match evaluated.and_then(timestamp) {
        Ok(ScalarValue::TimestampMicrosecond(Some(at), _)) => at,
        Ok(_) => return Ok(one(Diagnostic::error(codes::E0504, span, "the instant is NULL"))),
        Err(e) => return Ok(one(Diagnostic::error(codes::E0504, span, format!("the instant is not a timestamp: {}", e.message())))),
    };
    Ok(Ok(Instant { at: value, strict }))
}

/// How often the online state is read anew, where writes came in between, before history answers.
const READS_MAX: usize = 4;

/// The features of one view for all entities, and what is to be said of where they come from. `here`: an entity that another process has is
/// an error that says which.
pub(crate) async fn features(
    engine: &Inner,
    name: &str,
    view: &Arc<View>,
    keys: &[ArrayRef],
    unknown: &[bool],
    at: Instant,
    here: bool,
) -> Result<(Vec<ArrayRef>, Option<String>)> {
    match elsewhere::shared(engine, view) {
        Some(shared) => shared.features(engine, view, keys, unknown, at, here).await,
        None => of_slot(engine, &Slot::whole(name), view, keys, unknown, at).await,
    }
}

/// The address of the one other process that has all entities of a look-up; `None` where there is no such, or where they are here.
pub(crate) async fn served_at(engine: &Inner, plan: &LookupPlan, f: &ForEntity, params: Parameters<'_>) -> Option<String> {
    let shared: Vec<_> = plan.asked.iter().map(|asked| elsewhere::shared(engine, &asked.view)).collect::<Option<_>>()?;
    let given = key_columns(f, plan, params).ok()?;
    let mut found = None;
    for (asked, shared) in plan.asked.iter().zip(shared) {
        let keys: Vec<ArrayRef> = asked.entity.iter().map(|i| given.arrays[*i].clone()).collect();
        let unknown = vec![false; keys.first().map_or(0, |k| k.len())];
        let address = shared.served_at(engine, &keys, &unknown).await?;
        if found.replace(address.clone()).is_some_and(|before| before != address) {
            return None;
        }
    }
    found
}

/// The same of the entities of one view.
pub(crate) async fn keys_served_at(engine: &Inner, view: &View, keys: &[ArrayRef]) -> Option<String> {
    let unknown = vec![false; keys.first().map_or(0, |k| k.len())];
    elsewhere::shared(engine, view)?.served_at(engine, keys, &unknown).await
}

/// The features of entities of one state.
async fn of_slot(
    engine: &Inner,
    slot: &Slot,
    view: &Arc<View>,
    keys: &[ArrayRef],
    unknown: &[bool],
    at: Instant,
) -> Result<(Vec<ArrayRef>, Option<String>)> {
    let (path, name) = (engine.settings.read_path, slot.view.as_str());
    if path != ReadPath::History {
        let mut online = engine.online_of(slot).await?;
        for _ in 0..READS_MAX {
            if !Arc::ptr_eq(&online.view, view) {
                return Err(Error::unavailable(format!("feature view \"{name}\" was defined anew; try again")));
            }
            if let Some(features) = online.read(keys, unknown, at) {
                return Ok((features?, None));
            }
            if !online.answers(at.at) && !online.is_stale() {
                break;
            }
            online = engine.online_of(slot).await?;
        }
        if path == ReadPath::Online {
            if at.at >= online.horizon() {
                return Err(Error::unavailable(format!("feature view \"{name}\" is taking in history; try again")));
            }
            let earliest =
                chrono::DateTime::from_timestamp_micros(online.horizon()).map_or_else(|| online.horizon().to_string(), |t| t.to_rfc3339());
            return Err(Error::invalid(format!(
                "feature view \"{name}\" answers online from {earliest} on; earlier instants are refused here"
            )));
        }
    }
    let features = from_history(engine, view, keys, unknown, at).await?;
    Ok((features, (path == ReadPath::Auto).then(|| format!("\"{name}\" computed from history"))))
}

/// The same from the online state alone, without waiting for anything; `None` where that takes more.
pub(crate) fn features_now(
    engine: &Inner,
    name: &str,
    view: &Arc<View>,
    keys: &[ArrayRef],
    unknown: &[bool],
    at: Instant,
) -> Option<Result<Vec<ArrayRef>>> {
    if engine.settings.read_path == ReadPath::History {
        return None;
    }
    match engine.ready_view(name).filter(|o| Arc::ptr_eq(&o.view, view)) {
        Some(online) => online.read(keys, unknown, at),
        None => elsewhere::shared(engine, view)?.features_now(engine, view, keys, unknown, at),
    }
}

/// The same features by the batch path.
async fn from_history(engine: &Inner, view: &Arc<View>, keys: &[ArrayRef], unknown: &[bool], at: Instant) -> Result<Vec<ArrayRef>> {
    let n = unknown.len();
    let mut fields: Vec<Field> =
        keys.iter().enumerate().map(|(i, k)| Field::new(format!("key_{i}"), k.data_type().clone(), true)).collect();
    fields.push(Field::new("instant", instant_type(), true));
    let schema = Arc::new(Schema::new(fields));
    // An entity that cannot exist has no events, as a NULL key has none.
    let known = BooleanArray::from(unknown.iter().map(|u| !*u).collect::<Vec<_>>());
    let nulled = |k: &ArrayRef| nullif(k, &arrow::compute::not(&known)?);
    let mut columns = keys.iter().map(nulled).collect::<std::result::Result<Vec<_>, _>>()?;
    columns.push(crate::op::relation::utc(vec![at.at; n].into()));
    let spine = MemorySourceConfig::try_new_exec(&[vec![RecordBatch::try_new(schema.clone(), columns)?]], schema.clone(), None)?;
    let column = |i: usize| Arc::new(Column::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>;
    let join = ViewJoin {
        view: view.clone(),
        source: engine.source(view).await?,
        keys: (0..keys.len()).map(column).collect(),
        instant: column(keys.len()),
        strict: at.strict,
    };
    let out = FeatureJoinExec::output_schema(&schema, std::slice::from_ref(&join));
    let plan = Arc::new(FeatureJoinExec::new(spine, vec![join], out, engine.settings.spine_rows_max));
    let batches = collect(plan.clone(), engine.context.task_ctx()).await?;
    let all = arrow::compute::concat_batches(&datafusion::physical_plan::ExecutionPlan::schema(plan.as_ref()), &batches)?;
    let first = keys.len() + 1 + view.plan.entity.len();
    Ok((0..view.plan.features.len()).map(|i| all.column(first + i).clone()).collect())
}
