//! One client's use of the engine: its temporary tables, rows of parameters, and answers whose rows are computed as they are read.

mod prepare;
mod temporary;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use asof_flight::ClientOptions;
use asof_sql::ast::{ForEntity, Statement, StatementKind};
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast;
use futures::stream::{BoxStream, StreamExt};

pub(super) use self::temporary::temporary_table;
use self::temporary::{TEMPORARY, TemporaryTables};
use super::statement::sql_errors;
use super::{Engine, IngestCounts, Inner, Output};
use crate::error::{Error, Result};
use crate::registry::Registry;
use crate::serve::lookup::{LookupPlan, Parameters, check_count, for_entity, planned, served_at};

pub use self::prepare::Prepared;
pub use self::temporary::Ingest;

/// Look-ups of more entities are evaluated when they are read, so that answers nobody reads take no memory.
const EAGER_ENTITIES: usize = 4096;
/// Texts whose statements are kept, and the longest of them, bytes.
const PARSED_MAX: usize = 1024;
const PARSED_BYTES_MAX: usize = 16 << 10;
/// What errors call the text of a client.
const SOURCE: &str = "<sql>";

/// The texts that were parsed before.
#[derive(Debug, Default)]
pub(super) struct ParsedTexts(Mutex<HashMap<String, Arc<ParsedText>>>);

/// The statements of a text.
#[derive(Debug)]
struct ParsedText {
    statements: Vec<Statement>,
    /// The last one's plan, where it is a look-up that was asked before.
    lookup: Mutex<Option<Arc<LookupPlan>>>,
}

impl ParsedText {
    /// The plan of the last statement, which is this look-up; made anew where definitions have changed.
    fn plan(&self, registry: &Arc<Registry>, f: &ForEntity) -> std::result::Result<Arc<LookupPlan>, Vec<asof_sql::Diagnostic>> {
        let lock = || self.lookup.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(plan) = lock().as_ref().filter(|plan| plan.is_of(registry)) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(LookupPlan::new(registry, f)?);
        *lock() = Some(plan.clone());
        Ok(plan)
    }
}

impl ParsedTexts {
    fn get(&self, sql: &str) -> Result<Arc<ParsedText>> {
        let lock = || self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = lock().get(sql) {
            return Ok(found.clone());
        }
        let statements = asof_sql::parse::parse(sql, SOURCE).map_err(|d| sql_errors(&d, SOURCE, sql))?;
        let parsed = Arc::new(ParsedText { statements, lookup: Mutex::default() });
        if sql.len() <= PARSED_BYTES_MAX {
            let mut texts = lock();
            if texts.len() >= PARSED_MAX {
                texts.clear();
            }
            texts.insert(sql.to_owned(), parsed.clone());
        }
        Ok(parsed)
    }
}

/// One client's use of the engine.
#[derive(Debug)]
pub struct Connection {
    inner: Arc<Inner>,
    temporary: Arc<TemporaryTables>,
}

/// What a script answers: its last statement's answer.
#[derive(Debug)]
pub enum Reply {
    /// Rows, not computed yet.
    Rows(PendingRows),
    /// Something was done.
    Done {
        /// What, in one line.
        message: String,
        /// What became of records, where some were written.
        counts: Option<IngestCounts>,
    },
}

/// Rows that are computed when they are read, from the snapshot of when the statement was planned.
pub struct PendingRows {
    /// Their columns; its metadata says where feature values come from.
    pub schema: SchemaRef,
    /// Whether the order of the rows means nothing.
    pub unordered: bool,
    /// What else is to be said.
    pub note: Option<String>,
    /// The address of the other process that has all entities that were asked for; `None` where there is no such.
    pub location: Option<String>,
    source: RowSource,
}

enum RowSource {
    Batches(Vec<RecordBatch>),
    Plan(Arc<dyn ExecutionPlan>, Arc<TaskContext>),
    Lookup { engine: Arc<Inner>, lookup: Box<ForEntity>, parameters: Option<RecordBatch>, sql: String },
}

impl std::fmt::Debug for PendingRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Something that a catalog shows.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its kind; `None` for a temporary table.
    pub kind: Option<asof_sql::ast::ObjectKind>,
    /// Its columns.
    pub schema: SchemaRef,
    /// A stream's primary key, a view's entity.
    pub key: Vec<String>,
}

impl Engine {
    /// A client's use of the engine; what belongs to it ends with it.
    pub fn connect(&self) -> Connection {
        Connection { inner: self.inner.clone(), temporary: Arc::new(TemporaryTables::new(&self.inner)) }
    }

    /// Says where others reach this process, which takes its share of streams that several share, and how it reaches the others.
    pub fn serve_at(&self, address: &str, peers: ClientOptions) {
        self.inner.peers.set_options(peers);
        *self.inner.address.write().unwrap_or_else(|e| e.into_inner()) = Some(address.to_owned());
    }

    /// Takes and renews the leases of all streams; to be called every few seconds by a process that serves.
    pub async fn keep_leases(&self) {
        self.inner.keep_leases().await;
    }

    /// Takes in what other processes have defined; to be called every few seconds by a process that serves.
    pub async fn follow_catalog(&self) -> Result<()> {
        self.inner.follow_catalog().await
    }

    /// Reads the streams that have a log; to be called every few seconds by a process that serves.
    pub async fn keep_sources(&self) {
        // Who defines something has stopped what is read by it, and begins it again.
        let Ok(_same) = self.inner.catalog.try_lock() else { return };
        self.inner.keep_sources().await;
    }

    /// Builds the online state of every view that has none; the first error is told once all were tried.
    pub async fn warm(&self) -> Result<()> {
        let names: Vec<String> = self.inner.registry().views.keys().cloned().collect();
        let mut done = Ok(());
        for name in names {
            let built = self.inner.ready(&name).await;
            done = done.and(built.map_err(|e| e.context(format!("feature view \"{name}\""))));
        }
        done
    }
}

impl PendingRows {
    /// Begins the work; dropping the stream stops it.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        match self.source {
            RowSource::Batches(batches) => Ok(futures::stream::iter(batches.into_iter().map(Ok)).boxed()),
            RowSource::Plan(plan, context) => {
                let schema = self.schema;
                let rows = execute_stream(plan, context)?;
                Ok(rows.map(move |b| with_schema(&b?, &schema)).boxed())
            }
            RowSource::Lookup { engine, lookup, parameters, sql } => {
                let row = scalars(parameters.as_ref(), 0)?;
                let answer = for_entity(&engine, &lookup, of_lookup(parameters.as_ref(), &row)).await?;
                let (_, batches, _) = answer.map_err(|d| sql_errors(&d, SOURCE, &sql))?;
                Ok(futures::stream::iter(batches.into_iter().map(Ok)).boxed())
            }
        }
    }
}

fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}

/// The values of one row; none where there is no such row.
fn scalars(parameters: Option<&RecordBatch>, row: usize) -> Result<Vec<ScalarValue>> {
    let columns = parameters.filter(|b| row < b.num_rows()).map_or(&[][..], RecordBatch::columns);
    Ok(columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect::<std::result::Result<_, _>>()?)
}

/// The parameters of a look-up: of one row they may stand anywhere, of several among the keys.
fn of_lookup<'a>(parameters: Option<&'a RecordBatch>, row: &'a [ScalarValue]) -> Parameters<'a> {
    parameters.filter(|b| b.num_rows() != 1).map_or(Parameters::Values(row), Parameters::Columns)
}

/// Whether a look-up needs one set of parameters: they stand elsewhere than in its keys.
fn one_set_only(f: &ForEntity) -> bool {
    use asof_sql::ast::Instant;
    let instant = match &f.at {
        Instant::Now => false,
        Instant::AsOf { expr, .. } | Instant::Before { expr, .. } => expr.to_string().contains('$'),
    };
    instant || f.query.to_string().contains('$')
}

impl Connection {
    /// Whether a script only reads, so that it may be stopped at any point.
    pub fn only_reads(&self, sql: &str) -> Result<bool> {
        let reads = |s: &Statement| {
            matches!(
                s.kind,
                StatementKind::Query(_)
                    | StatementKind::ForEntity(_)
                    | StatementKind::Show(_)
                    | StatementKind::ShowStreamStatus { .. }
                    | StatementKind::Describe { .. }
                    | StatementKind::ShowCreate { .. }
                    | StatementKind::Explain(_)
            )
        };
        Ok(self.inner.parsed.get(sql)?.statements.iter().all(reads))
    }

    /// Whether a script is a look-up of a few entities that the online state answers at once.
    pub fn is_quick(&self, sql: &str) -> bool {
        let Ok(parsed) = self.inner.parsed.get(sql) else { return false };
        let [Statement { kind: StatementKind::ForEntity(f), .. }] = parsed.statements.as_slice() else { return false };
        let ast::SetExpr::Select(select) = f.query.body.as_ref() else { return false };
        let plain = select.projection.iter().all(|item| match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => {
                matches!(e, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))
            }
            _ => true,
        });
        let ready = |from: &ast::TableWithJoins| match &from.relation {
            ast::TableFactor::Table { name, .. } => name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| {
                self.inner.ready_view(&asof_sql::ast::fold(&i.value, i.quote_style.is_some())).is_some_and(|v| v.answers(self.inner.now()))
            }),
            _ => false,
        };
        matches!(f.at, asof_sql::ast::Instant::Now) && f.keys.rows.len() <= EAGER_ENTITIES && plain && select.from.iter().all(ready)
    }

    /// Runs a script. `$1` and so on are the columns of `parameters`: a look-up answers for each of its rows in turn, a statement that
    /// writes runs for each, a query takes one row.
    pub async fn run(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<Reply> {
        let parsed = self.inner.parsed.get(sql)?;
        let Some((last, before)) = parsed.statements.split_last() else {
            return Ok(Reply::Done { message: "nothing to do".into(), counts: None });
        };
        let width = parameters.as_ref().map_or(0, RecordBatch::num_columns);
        let wanted = parsed.statements.iter().map(|s| s.parameters).max().unwrap_or(0);
        if width != wanted {
            return Err(Error::invalid(format!("the statement has {wanted} parameters, {width} are given")));
        }
        TEMPORARY
            .scope(self.temporary.clone(), async {
                let row = scalars(parameters.as_ref(), 0)?;
                for statement in before {
                    self.inner.run(statement, SOURCE, sql, &row).await?;
                }
                self.one(&parsed, last, sql, parameters.as_ref(), &row).await
            })
            .await
    }

    /// Runs one statement; `row` is the first row of its parameters.
    async fn one(
        &self,
        parsed: &ParsedText,
        statement: &Statement,
        sql: &str,
        parameters: Option<&RecordBatch>,
        row: &[ScalarValue],
    ) -> Result<Reply> {
        match &statement.kind {
            StatementKind::Query(query) => {
                if let Some(rows) = parameters.map(RecordBatch::num_rows).filter(|n| *n != 1) {
                    return Err(Error::invalid(format!("a query takes one row of parameters, {rows} are given")));
                }
                self.inner.check_query(query).map_err(|d| sql_errors(&d, SOURCE, sql))?;
                let placed = |e: Error| e.at(&self.inner.registry(), statement, SOURCE, sql);
                let plan = self.inner.plan(query, row).await.map_err(placed)?;
                let physical = self.inner.context.state().create_physical_plan(&plan).await.map_err(|e| placed(e.into()))?;
                let mut metadata = physical.schema().metadata().clone();
                metadata.extend(self.inner.lineage(&plan));
                let schema = Arc::new(Schema::new_with_metadata(physical.schema().fields().clone(), metadata));
                let source = RowSource::Plan(physical, self.inner.context.task_ctx());
                Ok(Reply::Rows(PendingRows { schema, unordered: is_unordered(&plan), note: None, location: None, source }))
            }
            StatementKind::ForEntity(f) => self.lookup(parsed, f, sql, parameters, row).await,
            StatementKind::Insert(insert) if parameters.is_some() => {
                if let (Some(batch), Some(picks)) = (parameters, write::plain_values(insert)) {
                    return self.insert_rows(insert, batch, &picks, sql).await;
                }
                self.each_row(statement, sql, parameters).await
            }
            _ => self.each_row(statement, sql, parameters).await,
        }
    }

    /// Runs a statement for each row of parameters.
    async fn each_row(&self, statement: &Statement, sql: &str, parameters: Option<&RecordBatch>) -> Result<Reply> {
        let mut reply = Reply::Done { message: "nothing to do".into(), counts: None };
        let mut total: Option<IngestCounts> = None;
        for row in 0..parameters.map_or(1, RecordBatch::num_rows) {
            reply = match self.inner.run(statement, SOURCE, sql, &scalars(parameters, row)?).await? {
                Output::Rows { schema, batches, note } => {
                    Reply::Rows(PendingRows { schema, unordered: false, note, location: None, source: RowSource::Batches(batches) })
                }
                Output::Done { message, counts } => {
                    if let Some(counts) = counts {
                        *total.get_or_insert_default() += counts;
                    }
                    Reply::Done { message, counts: total }
                }
            };
        }
        Ok(reply)
    }

    async fn lookup(
        &self,
        parsed: &ParsedText,
        f: &ForEntity,
        sql: &str,
        parameters: Option<&RecordBatch>,
        row: &[ScalarValue],
    ) -> Result<Reply> {
        let said = |d: Vec<asof_sql::Diagnostic>| sql_errors(&d, SOURCE, sql);
        let params = of_lookup(parameters, row);
        if let Parameters::Columns(batch) = params
            && one_set_only(f)
        {
            let message = format!("parameters outside of the keys take one row of parameters, {} are given", batch.num_rows());
            return Err(Error::invalid(message));
        }
        let few = check_count(&self.inner, f, params).map_err(said)? <= EAGER_ENTITIES;
        let plan = parsed.plan(&self.inner.registry(), f).map_err(said)?;
        // What stands before it in a script is done once, here.
        let location = match parsed.statements.as_slice() {
            [_] => served_at(&self.inner, &plan, f, params).await,
            _ => None,
        };
        if few && location.is_none() {
            let (schema, batches, note) = planned(&self.inner, &plan, f, params).await?.map_err(said)?;
            let schema = with_note(&schema, note.as_deref());
            let batches = batches.iter().map(|b| with_schema(b, &schema)).collect::<Result<_>>()?;
            return Ok(Reply::Rows(PendingRows { schema, unordered: false, note, location: None, source: RowSource::Batches(batches) }));
        }
        let schema = self.columns_of_lookup(f, sql).await?;
        let (engine, lookup) = (self.inner.clone(), Box::new(f.clone()));
        let source = RowSource::Lookup { engine, lookup, parameters: parameters.cloned(), sql: sql.to_owned() };
        Ok(Reply::Rows(PendingRows { schema, unordered: false, note: None, location, source }))
    }

    /// Streams, views, tables, then the temporary tables.
    pub async fn objects(&self) -> Result<Vec<Object>> {
        use asof_sql::ast::ObjectKind;
        let registry = self.inner.registry();
        let mut objects = Vec::new();
        for (name, stream) in &registry.streams {
            let key = stream.info.primary_key.iter().map(|i| stream.info.columns[*i].name.clone()).collect();
            let schema = stream.schema.arrow_schema().clone();
            objects.push(Object { name: name.clone(), kind: Some(ObjectKind::Stream), schema, key });
        }
        for (name, view) in &registry.views {
            let plan = &view.view.plan;
            let key = plan.entity.iter().map(|e| e.name.clone()).collect();
            // The event time can be named, though `*` leaves it out.
            let time = Field::new(&plan.time_column, asof_sql::plan::instant_type(), true);
            let fields = plan.output_schema().fields().iter().map(|f| f.as_ref().clone()).chain([time]).collect::<Vec<_>>();
            objects.push(Object { name: name.clone(), kind: Some(ObjectKind::FeatureView), schema: Arc::new(Schema::new(fields)), key });
        }
        for (name, table) in &registry.tables {
            // One that cannot be read now is not shown rather than hiding the others.
            if let Ok(table) = self.inner.external_table(table).await {
                objects.push(Object { name: name.clone(), kind: Some(ObjectKind::Table), schema: table.schema(), key: vec![] });
            }
        }
        objects.extend(self.temporary.all().into_iter().map(|(name, schema)| Object { name, kind: None, schema, key: vec![] }));
        Ok(objects)
    }

    /// The kind of the object of a name; `Some(None)` for a temporary table.
    pub fn kind(&self, name: &str) -> Option<Option<asof_sql::ast::ObjectKind>> {
        self.inner.registry().kind(name).map(Some).or_else(|| self.temporary.get(name).map(|_| None))
    }
}

/// The schema with a note among its metadata, where there is one.
fn with_note(schema: &SchemaRef, note: Option<&str>) -> SchemaRef {
    let Some(note) = note else { return schema.clone() };
    let mut metadata = schema.metadata().clone();
    metadata.insert("asof.note".into(), note.into());
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// Whether the rows of a plan come in no order that means anything, and are read rather than written down.
fn is_unordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => false,
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => false,
        LogicalPlan::Projection(p) => is_unordered(&p.input),
        LogicalPlan::SubqueryAlias(s) => is_unordered(&s.input),
        _ => true,
    }
}
