//! `FOR ENTITY`: features of given entities at one instant, from the online state or, for earlier instants, from history.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions, StringViewArray};
use arrow::compute::{concat, interleave, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use asof_sql::Diagnostic;
use asof_sql::Span;
use asof_sql::ast::{ForEntity, Instant as AstInstant, KeyLiteral, KeyValue, fold};
use asof_sql::codes;
use asof_sql::diagnostic::nearest;
use asof_sql::plan::instant_type;
use asof_udfs::Instant;
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::Spanned;

use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::op::window::batch::{FeatureJoinExec, ViewJoin};
use crate::op::window::{View, check_readable, entity_column};
use crate::settings::ReadPath;

type Checked<T> = std::result::Result<T, Vec<Diagnostic>>;

/// A view that is asked, under its name in the statement.
#[derive(Debug, Clone)]
struct Asked {
    name: String,
    alias: String,
    view: Arc<View>,
}

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
    let (asked, items) = match views(engine, f) {
        Ok(found) => found,
        Err(d) => return Ok(Err(d)),
    };
    let entity = match entity_list(&asked, f.span) {
        Ok(entity) => entity,
        Err(d) => return Ok(Err(d)),
    };
    let rows = match check_count(engine, f, params) {
        Ok(rows) => rows,
        Err(d) => return Ok(Err(d)),
    };
    let given = match key_columns(f, &entity, params) {
        Ok(given) => given,
        Err(d) => return Ok(Err(d)),
    };
    let values = if let Parameters::Values(values) = params { values } else { &[] };
    let at = match instant(engine, &f.at, values).await? {
        Ok(at) => at,
        Err(d) => return Ok(Err(d)),
    };
    let mut answer = Answer { columns: vec![], arrays: vec![], rows, at };
    let mut notes = Vec::new();
    for asked in &asked {
        let keys: Vec<ArrayRef> = asked
            .view
            .plan
            .entity
            .iter()
            .filter_map(|e| entity.iter().position(|(n, _)| n == &e.name).map(|i| given.arrays[i].clone()))
            .collect();
        let mut unknown = vec![false; rows];
        for e in &asked.view.plan.entity {
            if let Some(i) = entity.iter().position(|(n, _)| n == &e.name) {
                unknown.iter_mut().zip(&given.unknown[i]).for_each(|(u, x)| *u |= *x);
            }
        }
        let (features, note) = features(engine, &asked.name, &asked.view, &keys, &unknown, at).await?;
        notes.extend(note);
        answer.add(asked, &keys, features);
    }
    let rows = match answer.select(engine, &items, &entity, &asked, f).await? {
        Ok(batch) => batch,
        Err(d) => return Ok(Err(d)),
    };
    Ok(Ok((rows.schema(), vec![rows], (!notes.is_empty()).then(|| notes.join("; ")))))
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
    let (asked, _) = views(engine, f)?;
    let names: Vec<_> = asked.iter().map(|a| a.name.as_str()).collect();
    Ok(format!(
        "OnlineLookup [{}], {} entities; instants before the state's horizon are computed from history by FeatureJoinExec",
        names.join(", "),
        f.keys.rows.len()
    ))
}

fn views(engine: &Inner, f: &ForEntity) -> Checked<(Vec<Asked>, Vec<ast::SelectItem>)> {
    let ast::SetExpr::Select(select) = f.query.body.as_ref() else {
        return one(Diagnostic::error(codes::E0503, f.span, "FOR ENTITY stands behind SELECT ... FROM views"));
    };
    let registry = engine.registry();
    let (mut asked, mut errors): (Vec<Asked>, Vec<Diagnostic>) = (vec![], vec![]);
    for from in &select.from {
        let ast::TableFactor::Table { name, alias, .. } = &from.relation else { continue };
        let Some(ident) = name.0.last().and_then(|p| p.as_ident()) else { continue };
        let table = fold(&ident.value, ident.quote_style.is_some());
        let span: Span = name.span().into();
        match registry.views.get(&table) {
            Some(v) => {
                let alias = alias.as_ref().map_or_else(|| table.clone(), |a| fold(&a.name.value, a.name.quote_style.is_some()));
                if asked.iter().any(|a| a.alias == alias) {
                    errors.push(Diagnostic::error(codes::E0202, span, format!("\"{alias}\" stands twice in FROM")));
                }
                asked.push(Asked { name: table, alias, view: v.view.clone() });
            }
            None if registry.kind(&table).is_some() => {
                errors.push(Diagnostic::error(
                    codes::E0206,
                    span,
                    format!("\"{table}\" is no feature view; FOR ENTITY asks feature views"),
                ));
            }
            None => {
                let d = Diagnostic::error(codes::E0201, span, format!("unknown feature view \"{table}\""));
                errors.push(match nearest(&table, registry.views.keys().map(String::as_str)) {
                    Some(near) => d.help(format!("The nearest known feature view is \"{near}\".")),
                    None => d,
                });
            }
        }
    }
    if errors.is_empty() { Ok((asked, select.projection.clone())) } else { Err(errors) }
}

/// The entity columns of all views, each once.
fn entity_list(asked: &[Asked], span: Span) -> Checked<Vec<(String, DataType)>> {
    let mut entity: Vec<(String, DataType)> = Vec::new();
    for e in asked.iter().flat_map(|a| &a.view.plan.entity) {
        match entity.iter().find(|(n, _)| n == &e.name) {
            None => entity.push((e.name.clone(), e.data_type.clone())),
            Some((_, t)) if t != &e.data_type => {
                return one(Diagnostic::error(
                    codes::E0501,
                    span,
                    format!("entity column \"{}\" has type {t} in one view and {} in another", e.name, e.data_type),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(entity)
}

/// The keys asked for, a column an entity column, with the rows that name an entity that cannot exist.
struct Given {
    arrays: Vec<ArrayRef>,
    unknown: Vec<Vec<bool>>,
}

fn key_columns(f: &ForEntity, entity: &[(String, DataType)], params: Parameters<'_>) -> Checked<Given> {
    let list = || entity.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
    // Which value of a row is which entity column's.
    let mut places: Vec<Option<usize>> = vec![None; entity.len()];
    match &f.keys.columns {
        Some(columns) => {
            for (at, name) in columns.iter().enumerate() {
                let Some(i) = entity.iter().position(|(n, _)| n == &name.value) else {
                    let d = Diagnostic::error(
                        codes::E0501,
                        name.span,
                        format!("\"{}\" is no entity column; the entity is ({})", name.value, list()),
                    );
                    return one(match nearest(&name.value, entity.iter().map(|(n, _)| n.as_str())) {
                        Some(near) => d.help(format!("The nearest entity column is \"{near}\".")),
                        None => d,
                    });
                };
                if places[i].replace(at).is_some() {
                    return one(Diagnostic::error(codes::E0501, name.span, format!("entity column \"{}\" is given twice", name.value)));
                }
            }
            if let Some(i) = places.iter().position(Option::is_none) {
                let message = format!("entity column \"{}\" is not given", entity[i].0);
                return one(Diagnostic::error(codes::E0501, f.keys.span, message).help(format!("Name all of ({}).", list())));
            }
        }
        None => places = (0..entity.len()).map(Some).collect(),
    }
    let (mut arrays, mut unknown, mut errors) = (vec![], vec![], vec![]);
    for row in &f.keys.rows {
        if f.keys.columns.is_none() && row.values.len() != entity.len() {
            let message = format!("the entity has {} columns ({}), found {} values", entity.len(), list(), row.values.len());
            return one(Diagnostic::error(codes::E0501, row.span, message)
                .help(format!("Write FOR ENTITY ({}) IN ((...)), or name each column.", list())));
        }
    }
    for (i, (name, data_type)) in entity.iter().enumerate() {
        let place = places[i].unwrap_or(i);
        let values: Vec<&KeyValue> = f.keys.rows.iter().filter_map(|r| r.values.get(place)).collect();
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

/// The features of one view for all entities, and what is to be said of where they come from.
pub(crate) async fn features(
    engine: &Inner,
    name: &str,
    view: &Arc<View>,
    keys: &[ArrayRef],
    unknown: &[bool],
    at: Instant,
) -> Result<(Vec<ArrayRef>, Option<String>)> {
    let path = engine.settings.read_path;
    if path != ReadPath::History {
        let mut online = engine.online(name).await?;
        for _ in 0..READS_MAX {
            if let Some(features) = online.read(keys, unknown, at) {
                return Ok((features?, None));
            }
            if !online.answers(at.at) && !online.is_stale() {
                break;
            }
            online = engine.online(name).await?;
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
    let online = engine.ready_view(name).filter(|o| Arc::ptr_eq(&o.view, view))?;
    if engine.settings.read_path == ReadPath::History { None } else { online.read(keys, unknown, at) }
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

/// The columns of an answer, each under the view that it comes from.
struct Answer {
    columns: Vec<(String, FieldRef)>,
    arrays: Vec<ArrayRef>,
    rows: usize,
    at: Instant,
}

impl Answer {
    fn add(&mut self, asked: &Asked, keys: &[ArrayRef], features: Vec<ArrayRef>) {
        let plan = &asked.view.plan;
        let mut put = |name: &str, array: ArrayRef| {
            self.columns.push((asked.alias.clone(), Arc::new(Field::new(name, array.data_type().clone(), true))));
            self.arrays.push(array);
        };
        for (e, key) in plan.entity.iter().zip(keys) {
            put(&e.name, key.clone());
        }
        for (f, values) in plan.features.iter().zip(features) {
            put(&f.name, values);
        }
        put(&plan.time_column, crate::op::relation::utc(vec![self.at.at; self.rows].into()));
    }

    fn find(&self, qualifier: Option<&str>, name: &str) -> Vec<usize> {
        (0..self.columns.len()).filter(|i| self.columns[*i].1.name() == name && qualifier.is_none_or(|q| q == self.columns[*i].0)).collect()
    }

    /// The place of a column that a statement names: an entity column is one and the same in all views.
    fn resolve(&self, parts: &[ast::Ident], entity: &[(String, DataType)]) -> std::result::Result<usize, Diagnostic> {
        let folded: Vec<String> = parts.iter().map(|i| fold(&i.value, i.quote_style.is_some())).collect();
        let (qualifier, name) = match folded.as_slice() {
            [name] => (None, name),
            [q, name] => (Some(q.as_str()), name),
            _ => (None, &folded[folded.len() - 1]),
        };
        let span =
            parts.first().map(|p| Span::from(p.span)).unwrap_or_default().to(parts.last().map(|p| Span::from(p.span)).unwrap_or_default());
        let found = self.find(qualifier, name);
        match found.as_slice() {
            [] => {
                let d = Diagnostic::error(codes::E0201, span, format!("unknown feature \"{}\"", folded.join(".")));
                Err(match nearest(name, self.columns.iter().map(|(_, f)| f.name().as_str())) {
                    Some(near) => d.help(format!("The nearest known feature is \"{near}\".")),
                    None => d,
                })
            }
            [first] => Ok(*first),
            [first, ..] if entity.iter().any(|(n, _)| n == name) => Ok(*first),
            _ => {
                let of: Vec<_> = found.iter().map(|i| format!("{}.{name}", self.columns[*i].0)).collect();
                Err(Diagnostic::error(codes::E0203, span, format!("feature \"{name}\" is ambiguous"))
                    .help(format!("Write one of {}.", of.join(", "))))
            }
        }
    }

    async fn select(
        &self,
        engine: &Inner,
        items: &[ast::SelectItem],
        entity: &[(String, DataType)],
        asked: &[Asked],
        f: &ForEntity,
    ) -> Result<Checked<RecordBatch>> {
        let (mut fields, mut arrays, mut errors): (Vec<Field>, Vec<ArrayRef>, Vec<Diagnostic>) = (vec![], vec![], vec![]);
        let mut put = |name: &str, array: ArrayRef| {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        };
        for item in items {
            let (expr, alias) = match item {
                ast::SelectItem::Wildcard(_) => {
                    for (name, _) in entity {
                        if let Some(i) = self.find(None, name).first() {
                            put(name, self.arrays[*i].clone());
                        }
                    }
                    for a in asked {
                        for feature in &a.view.plan.features {
                            if self.find(None, &feature.name).len() > 1 {
                                let d = Diagnostic::error(
                                    codes::E0203,
                                    f.query.span(),
                                    format!("feature \"{}\" is in two of the views, so * is ambiguous", feature.name),
                                );
                                errors.push(d.help("Name the features, qualified by their view."));
                            }
                            if let Some(i) = self.find(Some(&a.alias), &feature.name).first() {
                                put(&feature.name, self.arrays[*i].clone());
                            }
                        }
                    }
                    continue;
                }
                ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(n), _) => {
                    let alias = n.0.last().and_then(|p| p.as_ident()).map(|i| fold(&i.value, i.quote_style.is_some())).unwrap_or_default();
                    let Some(a) = asked.iter().find(|a| a.alias == alias) else {
                        errors.push(Diagnostic::error(codes::E0201, n.span(), format!("unknown view \"{alias}\"")));
                        continue;
                    };
                    for i in (0..self.columns.len())
                        .filter(|i| self.columns[*i].0 == alias && self.columns[*i].1.name() != &a.view.plan.time_column)
                    {
                        put(self.columns[i].1.name(), self.arrays[i].clone());
                    }
                    continue;
                }
                ast::SelectItem::UnnamedExpr(e) => (e, None),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(&alias.value, alias.quote_style.is_some()))),
                other => {
                    errors.push(Diagnostic::error(codes::E0503, other.span(), "the item is not supported beside FOR ENTITY"));
                    continue;
                }
            };
            let parts = match expr {
                ast::Expr::Identifier(i) => Some(std::slice::from_ref(i)),
                ast::Expr::CompoundIdentifier(parts) => Some(parts.as_slice()),
                _ => None,
            };
            match parts {
                Some(parts) => match self.resolve(parts, entity) {
                    Ok(i) => put(alias.as_deref().unwrap_or(self.columns[i].1.name()), self.arrays[i].clone()),
                    Err(d) => errors.push(d),
                },
                None => match self.computed(engine, expr, entity).await {
                    Ok(array) => put(&alias.unwrap_or_else(|| expr.to_string()), array),
                    Err(mut d) => errors.append(&mut d),
                },
            }
        }
        if !errors.is_empty() {
            return Ok(Err(errors));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?))
    }

    /// A value computed from features, by DataFusion's rules.
    async fn computed(&self, engine: &Inner, expr: &ast::Expr, entity: &[(String, DataType)]) -> Checked<ArrayRef> {
        use std::ops::ControlFlow;
        struct Qualify<'a>(&'a Answer, &'a [(String, DataType)], Vec<Diagnostic>);
        impl ast::VisitorMut for Qualify<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, e: &mut ast::Expr) -> ControlFlow<()> {
                let parts = match e {
                    ast::Expr::Identifier(i) => vec![i.clone()],
                    ast::Expr::CompoundIdentifier(parts) => parts.clone(),
                    _ => return ControlFlow::Continue(()),
                };
                match self.0.resolve(&parts, self.1) {
                    Ok(i) => {
                        *e = ast::Expr::Identifier(ast::Ident::new(format!("c{i}")));
                    }
                    Err(d) => self.2.push(d),
                }
                ControlFlow::Continue(())
            }
        }
        let mut sql = expr.clone();
        let mut qualify = Qualify(self, entity, vec![]);
        let _ = ast::VisitMut::visit(&mut sql, &mut qualify);
        if !qualify.2.is_empty() {
            return Err(qualify.2);
        }
        let refused = |e: datafusion::error::DataFusionError| vec![Diagnostic::error(codes::E0405, expr.span(), e.strip_backtrace())];
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let fields: Vec<Field> =
            self.arrays.iter().enumerate().map(|(i, a)| Field::new(format!("c{i}"), a.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), self.arrays.clone(), &options)
            .map_err(|e| refused(e.into()))?;
        let frame = engine.context.read_batch(batch).map_err(refused)?;
        let value = frame.parse_sql_expr(&sql.to_string()).map_err(refused)?;
        let batches = frame.select(vec![value.alias("value")]).map_err(refused)?.collect().await.map_err(refused)?;
        let columns: Vec<&dyn Array> = batches.iter().map(|b| b.column(0).as_ref()).collect();
        concat(&columns).map_err(|e| refused(e.into()))
    }
}
