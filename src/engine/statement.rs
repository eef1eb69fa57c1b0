//! One statement after the other: which part of the engine answers it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use asof_sql::Diagnostic;
use asof_sql::ast::{AlterAction, CopyTo, CreateExternalTable, FileFormat, ObjectKind, OptionValue, Statement, StatementKind};
use asof_sql::codes;
use asof_sql::span::{Position, Span};

use datafusion::catalog::TableProvider;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::file_format::FileFormat as DfFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::VisitMut;
use futures::TryStreamExt;

use super::{Inner, Output};
use crate::error::{Error, Kind, Result, SqlError};
use crate::op::asof_join::rewrite_asof;
use crate::op::window::logical::FeatureJoinNode;
use crate::registry::{Change, Connector, Entry, ExternalTable, Registry};
use crate::serve::lookup::{Parameters, for_entity};
use crate::warehouse::{Append, SEMANTICS_VERSION};

/// Diagnostics as an error, rendered against their text.
pub(crate) fn sql_errors(diagnostics: &[Diagnostic], source: &str, sql: &str) -> Error {
    let one = |d: &Diagnostic| SqlError {
        code: d.code.to_string(),
        line: d.span.start.line as usize,
        column: d.span.start.column as usize,
        rendered: d.render(source, sql),
    };
    Error::sql(diagnostics.iter().map(one).collect())
}

/// How long a new view waits until the group has shared out the partitions of its stream.
const GROUP_WAIT: Duration = Duration::from_secs(30);

/// How often it is tried to tell the processes that share a stream of a new column.
const ANNOUNCED_MAX: usize = 8;

impl Inner {
    fn is_shared_view(&self, name: &str) -> bool {
        let registry = self.registry();
        registry.views.get(name).is_some_and(|v| registry.shared(&v.view.plan).is_some())
    }

    /// Runs one statement of a text.
    pub(super) async fn run(self: &Arc<Self>, statement: &Statement, source: &str, sql: &str, params: &[ScalarValue]) -> Result<Output> {
        if statement.parameters > params.len() {
            return Err(Error::invalid(format!("the statement has {} parameters, {} are given", statement.parameters, params.len())));
        }
        let say = |d: Vec<Diagnostic>| sql_errors(&d, source, sql);
        match &statement.kind {
            StatementKind::CreateStream(_)
            | StatementKind::CreateFeatureView(_)
            | StatementKind::CreateExternalTable(_)
            | StatementKind::Drop(_)
            | StatementKind::AlterStream(_) => self.define(statement).await?.map_err(say),
            StatementKind::Query(query) => {
                self.check_query(query).map_err(say)?;
                let plan = self.plan(query, params).await.map_err(|e| e.at(&self.registry(), statement, source, sql))?;
                let (schema, batches) = self.collect(plan.clone()).await?;
                let (schema, batches) = self.with_lineage(&plan, schema, batches)?;
                Ok(Output::Rows { schema, batches, note: None })
            }
            StatementKind::ForEntity(f) => {
                let rows = for_entity(self, f, Parameters::Values(params)).await?;
                let (schema, batches, note) = rows.map_err(say)?;
                Ok(Output::Rows { schema, batches, note })
            }
            StatementKind::Insert(insert) => {
                self.writable(&insert.stream).map_err(say)?;
                self.check_query(&insert.source).map_err(say)?;
                self.insert(insert, params).await.map_err(|e| e.at(&self.registry(), statement, source, sql))
            }
            StatementKind::CopyFrom(copy) => {
                self.writable(&copy.stream).map_err(say)?;
                self.copy_from(copy).await
            }
            StatementKind::CopyTo(copy) => {
                self.check_query(&copy.query).map_err(say)?;
                self.copy_to(copy, params).await.map_err(|e| e.at(&self.registry(), statement, source, sql))
            }
            StatementKind::Reprocess { stream } => {
                self.writable(stream).map_err(say)?;
                self.reprocess(&stream.value).await
            }
            StatementKind::ResumeStream { stream } => {
                self.writable(stream).map_err(say)?;
                self.resume_stream(&stream.value).await
            }
            StatementKind::ShowStreamStatus { stream } => self.show_stream_status(stream.as_ref()).await?.map_err(say),
            StatementKind::Show(what) => self.show(*what),
            StatementKind::Describe { name } => self.describe(name).await?.map_err(say),
            StatementKind::ShowCreate { name, kind } => self.show_create(name, *kind).map_err(say),
            StatementKind::Explain(explain) => self.explain(explain, params).await?.map_err(say),
        }
    }

    pub(super) fn writable(&self, name: &asof_sql::ast::Name) -> std::result::Result<(), Vec<Diagnostic>> {
        let registry = self.registry();
        match registry.kind(&name.value) {
            Some(ObjectKind::Stream) => Ok(()),
            Some(kind) => Err(vec![Diagnostic::error(
                codes::E0206,
                name.span,
                format!("\"{}\" is a {}; only streams are written", name.value, kind.noun()),
            )]),
            None => Err(vec![registry.unknown(&name.value, "stream", name.span)]),
        }
    }

    /// Definitions: checked, made durable, then known.
    async fn define(self: &Arc<Self>, statement: &Statement) -> Result<std::result::Result<Output, Vec<Diagnostic>>> {
        let _changing = self.catalog.lock().await;
        loop {
            let mut registry = self.registry().as_ref().clone();
            let before = registry.clone();
            let change = match registry.apply(statement) {
                Ok(change) => change,
                Err(d) => return Ok(Err(d)),
            };
            if matches!(change, Change::Nothing) {
                return Ok(Ok(Output::Done { message: "nothing to do".into(), counts: None }));
            }
            // What is read goes by one definition from its first record to its last.
            if let Change::StreamAltered(name, _) | Change::Dropped(ObjectKind::Stream, name) = &change {
                self.stop_sources(Some(name)).await;
            }
            // Tables come before the definition: tables without one are harmless, the reverse is not.
            match &change {
                Change::StreamCreated(name) => {
                    let stream = &registry.streams[name];
                    crate::connect::ingest::Pipeline::open(&self.warehouse, name, stream, self.settings.dedupe_limit_bytes, true, &[])
                        .await?;
                }
                Change::StreamAltered(name, true) => {
                    let open = self.stream(name).await?;
                    open.lock().await.pipeline.add_columns(registry.streams[name].schema.clone()).await?;
                }
                Change::TableCreated(name) => {
                    self.external_table(&registry.tables[name]).await?;
                }
                _ => {}
            }
            let entry = Entry { sql: statement.text.clone(), at_us: self.now() };
            let json = serde_json::to_vec(&entry).map_err(|e| Error::internal(e.to_string()))?;
            let appended = self.warehouse.catalog().append(before.next, &json).await;
            if let (Err(_), Change::StreamAltered(name, true)) = (&appended, &change) {
                // Its pipeline has the column that the catalog does not say.
                self.give_up(name).await;
            }
            match appended? {
                Append::Done => {
                    registry.next += 1;
                    self.set_registry(registry);
                    if let Change::Dropped(ObjectKind::FeatureView, name) = &change
                        && let Some(dropped) = before.views.get(name)
                    {
                        let partitions = match before.shared(&dropped.view.plan) {
                            Some((stream, ..)) => self.partitions_of(stream).await,
                            None => 0,
                        };
                        self.remove_checkpoints(name, &dropped.folder, partitions).await;
                    }
                    return self.defined(change, statement).await.map(Ok);
                }
                Append::Conflict => self.take_in_definitions().await?,
            }
        }
    }

    /// Takes in what other processes have defined.
    pub(super) async fn follow_catalog(&self) -> Result<()> {
        if !self.warehouse.catalog().has(self.registry().next).await? {
            return Ok(());
        }
        let _changing = self.catalog.lock().await;
        self.take_in_definitions().await
    }

    /// Whether this process knows all definitions; an error that passes where it does not.
    pub(super) async fn check_definitions(&self) -> Result<()> {
        match self.warehouse.catalog().has(self.registry().next).await? {
            true => Err(Error::unavailable("another process has just defined something; the stream is read once that is known here")),
            false => Ok(()),
        }
    }

    /// Takes in what other processes have defined. The caller holds the catalog.
    async fn take_in_definitions(&self) -> Result<()> {
        for change in self.newer_definitions().await? {
            match change {
                // It is read by its new definition from here on.
                Change::StreamAltered(name, _) => {
                    self.stop_sources(Some(&name)).await;
                    self.give_up(&name).await;
                }
                Change::Dropped(ObjectKind::Stream, name) => {
                    self.stop_sources(Some(&name)).await;
                    self.forget_stream(&name).await;
                }
                Change::Dropped(ObjectKind::FeatureView, name) | Change::ViewReplaced(name) => {
                    self.views.remove(&name);
                    self.views.known.forget(|slot| slot.view == name);
                    self.metrics.forget_view(&name);
                }
                Change::Nothing | Change::StreamCreated(_) | Change::ViewCreated(_) | Change::TableCreated(_) | Change::Dropped(..) => {}
            }
        }
        Ok(())
    }

    /// Applies the entries of the catalog that this process does not know; what has not changed stays the very same.
    async fn newer_definitions(&self) -> Result<Vec<Change>> {
        let mut registry = self.registry().as_ref().clone();
        let mut changes = Vec::new();
        for (sequence, entry) in self.warehouse.catalog().load().await? {
            if sequence >= registry.next {
                changes.push(registry.apply_entry(sequence, &entry)?);
            }
        }
        self.set_registry(registry);
        Ok(changes)
    }

    /// Forgets a stream that was dropped.
    async fn forget_stream(&self, name: &str) {
        self.positions_known.lock().unwrap_or_else(|e| e.into_inner()).remove(name);
        self.give_up(name).await;
        self.statuses.remove(name);
        self.metrics.forget_stream(name);
    }

    /// What follows a definition: state is built, files are read.
    async fn defined(self: &Arc<Self>, change: Change, statement: &Statement) -> Result<Output> {
        let done = |message: String| Output::Done { message, counts: None };
        Ok(match change {
            Change::Nothing => done("nothing to do".into()),
            Change::StreamCreated(name) => {
                // A look at one of this name that was just dropped may have left its status.
                self.statuses.remove(&name);
                let connector = self.registry().streams[&name].options.connector.clone();
                match connector {
                    Connector::Push => done(format!("stream \"{name}\" created")),
                    Connector::Kafka(_) if self.reads_logs() => {
                        self.keep_sources().await;
                        done(format!("stream \"{name}\" created; its topic is read from now on"))
                    }
                    Connector::Kafka(_) => done(format!("stream \"{name}\" created; a process that serves (asof serve) reads its topic")),
                    Connector::File { follow, .. } => {
                        let counts = self.read_files(&name).await?;
                        if follow {
                            self.follow(name.clone());
                        }
                        Output::Done { message: format!("stream \"{name}\" created; read {} records", counts.read), counts: Some(counts) }
                    }
                }
            }
            Change::ViewCreated(name) | Change::ViewReplaced(name) => {
                self.views.remove(&name);
                let until = Instant::now() + GROUP_WAIT;
                loop {
                    match self.ready(&name).await {
                        // A stream that was created a moment ago has just joined its group.
                        Err(e) if e.kind() == Kind::Unavailable && self.is_shared_view(&name) && Instant::now() < until => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        ready => break ready?,
                    }
                }
                done(format!("feature view \"{name}\" is ready"))
            }
            Change::TableCreated(name) => done(format!("table \"{name}\" created")),
            Change::Dropped(kind, name) => {
                match kind {
                    ObjectKind::Stream => {
                        self.forget_stream(&name).await;
                    }
                    ObjectKind::FeatureView => {
                        self.views.remove(&name);
                        self.metrics.forget_view(&name);
                    }
                    ObjectKind::Table => {}
                }
                done(format!("{} \"{name}\" dropped", kind.noun()))
            }
            Change::StreamAltered(name, column) => {
                if column {
                    let open = self.stream(&name).await?;
                    let mut open = open.lock().await;
                    let mut tries = 1;
                    loop {
                        match open.pipeline.announce().await {
                            Err(e) if e.kind() == Kind::Unavailable && tries < ANNOUNCED_MAX => tries += 1,
                            announced => break announced?,
                        }
                        open.pipeline.history().refresh().await?;
                    }
                    // Their scans name columns by place, which stay; the state stays right too.
                    tracing::debug!(stream = %name, "column added");
                } else if let StatementKind::AlterStream(a) = &statement.kind
                    && let AlterAction::SetOptions(_) = &a.action
                {
                    self.read_files(&name).await?;
                }
                if self.reads_logs() {
                    self.keep_sources().await;
                }
                done(format!("stream \"{name}\" altered"))
            }
        })
    }

    /// Follows the files of a stream until the engine is gone.
    fn follow(self: &Arc<Self>, stream: String) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
            loop {
                ticks.tick().await;
                let Some(engine) = engine.upgrade() else { return };
                if !engine.registry().streams.contains_key(&stream) {
                    return;
                }
                let read = engine.read_files(&stream).await;
                engine.note_files(&stream, read.as_ref().err());
                if let Err(e) = read {
                    tracing::warn!(%stream, error = %e, "files cannot be read now");
                }
            }
        });
    }

    /// The plan of a query.
    pub(super) async fn plan(&self, query: &ast::Query, params: &[ScalarValue]) -> Result<LogicalPlan> {
        let mut query = query.clone();
        self.expand_views(&mut query);
        rewrite_asof(&mut query);
        let _ = query.visit(&mut Microseconds);
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let plan = self.context.state().statement_to_plan(statement).await?;
        if params.is_empty() { Ok(plan) } else { Ok(plan.with_param_values(ParamValues::from(params.to_vec()))?) }
    }

    /// The value of an expression without columns.
    pub(crate) async fn constant(&self, expr: &ast::Expr, params: &[ScalarValue]) -> Result<ScalarValue> {
        let statements =
            asof_sql::parse::parse(&format!("SELECT {expr}"), "instant").map_err(|_| Error::invalid("not a constant expression"))?;
        let Some(StatementKind::Query(query)) = statements.first().map(|s| &s.kind) else {
            return Err(Error::invalid("not a constant expression"));
        };
        let (_, batches) = self.collect(self.plan(query, params).await?).await?;
        match batches.iter().find(|b| b.num_rows() == 1 && b.num_columns() == 1) {
            Some(batch) => Ok(ScalarValue::try_from_array(batch.column(0), 0)?),
            None => Err(Error::invalid("not one value")),
        }
    }

    /// Runs a plan to its end.
    pub(super) async fn collect(&self, plan: LogicalPlan) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let physical = self.context.state().create_physical_plan(&plan).await?;
        let schema = physical.schema();
        let stream = execute_stream(physical, self.context.task_ctx())?;
        Ok((schema, stream.try_collect().await?))
    }

    /// The result with metadata that says where its feature values come from.
    fn with_lineage(&self, plan: &LogicalPlan, schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let metadata = self.lineage(plan);
        if metadata.is_empty() {
            return Ok((schema, batches));
        }
        let mut all = schema.metadata().clone();
        all.extend(metadata);
        let schema: SchemaRef = Arc::new(Schema::new_with_metadata(schema.fields().clone(), all));
        let batches = batches.into_iter().map(|b| {
            Ok(RecordBatch::try_new_with_options(
                schema.clone(),
                b.columns().to_vec(),
                &arrow::array::RecordBatchOptions::new().with_row_count(Some(b.num_rows())),
            )?)
        });
        Ok((schema.clone(), batches.collect::<Result<_>>()?))
    }

    /// Fingerprints of views, versions of histories and of the semantics that a plan reads.
    pub(super) fn lineage(&self, plan: &LogicalPlan) -> HashMap<String, String> {
        use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
        let (mut views, mut streams) = (BTreeMap::new(), BTreeMap::new());
        let _ = plan.apply(|node| {
            if let LogicalPlan::Extension(e) = node
                && let Some(join) = e.node.as_any().downcast_ref::<FeatureJoinNode>()
            {
                views.extend(join.fingerprints());
                streams.extend(join.versions());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        let mut metadata = HashMap::new();
        if !views.is_empty() {
            metadata.insert("asof.semantics".to_owned(), SEMANTICS_VERSION.to_string());
        }
        metadata.extend(views.into_iter().map(|(name, f)| (format!("asof.view.{name}"), f)));
        metadata.extend(streams.into_iter().map(|(name, v)| (format!("asof.history.{name}"), v)));
        metadata
    }

    /// Refuses a view that is read otherwise than joined AS OF; its places are known only here.
    pub(super) fn check_query(&self, query: &ast::Query) -> std::result::Result<(), Vec<Diagnostic>> {
        let registry = self.registry();
        let mut check = ViewReads { registry: &registry, ctes: vec![], errors: vec![] };
        let _ = ast::Visit::visit(query, &mut check);
        let state = self.context.state();
        check.errors.extend(asof_sql::parse::check_scalar_calls(query, |name| state.scalar_functions().contains_key(name)));
        if check.errors.is_empty() { Ok(()) } else { Err(check.errors) }
    }

    /// Writes `view.*` as the view's columns without its instant, which is not part of `*`.
    fn expand_views(&self, query: &mut ast::Query) {
        let registry = self.registry();
        let _ = query.visit(&mut ExpandViews { registry: &registry });
    }

    /// An external table's provider.
    pub(super) async fn external_table(&self, table: &ExternalTable) -> Result<Arc<dyn TableProvider>> {
        let definition = &table.definition;
        let path = &definition.location;
        if definition.format == FileFormat::Delta {
            let url = deltalake_core::ensure_table_uri(path)?;
            let delta = deltalake_core::open_table(url).await?;
            return Ok(delta.table_provider().await?);
        }
        let url = ListingTableUrl::parse(path).map_err(|e| Error::invalid(format!("\"{path}\" is not a usable path: {e}")))?;
        let (format, ending) = listing_format(definition)?;
        let options = ListingOptions::new(format).with_file_extension(ending);
        let state = self.context.state();
        let mut config = ListingTableConfig::new(url).with_listing_options(options);
        config = if definition.columns.is_empty() {
            config.infer_schema(&state).await?
        } else {
            let fields = definition
                .columns
                .iter()
                .map(|c| arrow::datatypes::Field::new(&c.name.value, crate::registry::arrow_type(&c.data_type), !c.not_null));
            config.with_schema(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        };
        if config.file_schema.as_ref().is_none_or(|s| s.fields().is_empty()) {
            return Err(Error::invalid(format!("no readable {} file at \"{path}\"", definition.format)));
        }
        Ok(Arc::new(ListingTable::try_new(config)?))
    }

    async fn copy_to(&self, copy: &CopyTo, params: &[ScalarValue]) -> Result<Output> {
        let ending = copy.path.rsplit('.').next().unwrap_or_default();
        let format = copy.format.map(|(f, _)| f).or_else(|| FileFormat::find(if ending == "jsonl" { "json" } else { ending }));
        let format = format
            .ok_or_else(|| Error::invalid(format!("the format of \"{}\" is not known; give FORMAT parquet, csv or json", copy.path)))?;
        let plan = self.plan(&copy.query, params).await?;
        let lineage = self.lineage(&plan);
        let physical = self.context.state().create_physical_plan(&plan).await?;
        let rows = crate::serve::files::write(&self.context, physical, &copy.path, format, lineage).await?;
        Ok(Output::Done { message: format!("COPY: {rows} rows written to \"{}\"", copy.path), counts: None })
    }
}

fn listing_format(definition: &CreateExternalTable) -> Result<(Arc<dyn DfFormat>, String)> {
    let mut csv = CsvFormat::default().with_has_header(true);
    for option in &definition.options {
        let key = option.key.to_lowercase();
        match (definition.format, key.strip_prefix("format.").unwrap_or(&key), &option.value) {
            (FileFormat::Csv, "has_header", OptionValue::Boolean(b)) => csv = csv.with_has_header(*b),
            (FileFormat::Csv, "has_header", OptionValue::String(s)) if s == "true" || s == "false" => {
                csv = csv.with_has_header(s == "true")
            }
            (FileFormat::Csv, "delimiter", OptionValue::String(s)) if s.len() == 1 => csv = csv.with_delimiter(s.as_bytes()[0]),
            _ => {
                return Err(Error::invalid(format!("table option \"{}\" is not known or not valid for {}", option.key, definition.format)));
            }
        }
    }
    // A path that names a file is read whatever its ending; a folder's files must have the format's.
    let ending = |usual: &str| if definition.location.ends_with('/') { usual.to_owned() } else { String::new() };
    Ok(match definition.format {
        FileFormat::Parquet => (Arc::new(ParquetFormat::default()), ending(".parquet")),
        FileFormat::Csv => (Arc::new(csv), ending(".csv")),
        FileFormat::Json => (Arc::new(JsonFormat::default()), String::new()),
        FileFormat::Delta => return Err(Error::internal("a Delta table is not listed")),
    })
}

fn table_name(name: &ast::ObjectName) -> Option<String> {
    let parts: Option<Vec<String>> =
        name.0.iter().map(|p| p.as_ident().map(|i| asof_sql::ast::fold(&i.value, i.quote_style.is_some()))).collect();
    let parts = parts?;
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [table] | ["public", table] | ["asof", "public", table] => Some((*table).to_owned()),
        _ => None,
    }
}

struct ViewReads<'a> {
    registry: &'a crate::registry::Registry,
    ctes: Vec<String>,
    errors: Vec<Diagnostic>,
}

impl ViewReads<'_> {
    fn check(&mut self, factor: &ast::TableFactor) {
        if let ast::TableFactor::Table { name, .. } = factor
            && let Some(table) = table_name(name)
            && self.registry.views.contains_key(&table)
            && !(name.0.len() == 1 && self.ctes.contains(&table))
        {
            let plan = &self.registry.views[&table].view.plan;
            let entity = plan.entity.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
            self.errors.push(
                Diagnostic::error(codes::E0502, ast::Spanned::span(name), format!("feature view \"{table}\" has a value at every instant; it is read for entities or joined AS OF"))
                    .help(format!(
                        "Write SELECT * FROM {table} FOR ENTITY ... , or ... ASOF JOIN {table} MATCH_CONDITION (left.time >= {table}.{}) USING ({entity}).",
                        plan.time_column
                    )),
            );
        }
    }
}

impl ast::Visitor for ViewReads<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            self.ctes.push(asof_sql::ast::fold(&cte.alias.name.value, cte.alias.name.quote_style.is_some()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
        for from in &select.from {
            self.check(&from.relation);
            for join in &from.joins {
                if !matches!(join.join_operator, ast::JoinOperator::AsOf { .. }) {
                    self.check(&join.relation);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Makes TIMESTAMP mean microseconds in literals and casts, as it does everywhere else; DataFusion's nanoseconds end in 2262.
struct Microseconds;

impl ast::VisitorMut for Microseconds {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let data_type = match expr {
            ast::Expr::TypedString(t) => &mut t.data_type,
            ast::Expr::Cast { data_type, .. } => data_type,
            _ => return ControlFlow::Continue(()),
        };
        if let ast::DataType::Timestamp(precision @ None, _) = data_type {
            *precision = Some(6);
        }
        ControlFlow::Continue(())
    }
}

struct ExpandViews<'a> {
    registry: &'a crate::registry::Registry,
}

impl ast::VisitorMut for ExpandViews<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        // Each relation by the name that qualifies it, in order, with the event-time column of those that are views.
        let mut relations: Vec<(Option<ast::Ident>, Option<String>)> = Vec::new();
        let mut has_view = false;
        for from in &select.from {
            let joins = from.joins.iter().map(|j| (&j.relation, matches!(j.join_operator, ast::JoinOperator::AsOf { .. })));
            for (factor, asof) in std::iter::once((&from.relation, false)).chain(joins) {
                let (qualifier, view) = match factor {
                    ast::TableFactor::Table { name, alias, .. } => {
                        let own = name.0.last().and_then(|p| p.as_ident()).cloned();
                        let view = table_name(name).filter(|_| asof).and_then(|t| self.registry.views.get(&t));
                        (alias.as_ref().map(|a| a.name.clone()).or(own), view.map(|v| v.view.plan.time_column.clone()))
                    }
                    ast::TableFactor::Derived { alias, .. } => (alias.as_ref().map(|a| a.name.clone()), None),
                    _ => (None, None),
                };
                has_view |= view.is_some();
                relations.push((qualifier, view));
            }
        }
        if !has_view {
            return ControlFlow::Continue(());
        }
        let without = |time: &str| ast::WildcardAdditionalOptions {
            opt_exclude: Some(ast::ExcludeSelectItem::Single(ast::ObjectName::from(ast::Ident::with_quote('"', time)))),
            ..ast::WildcardAdditionalOptions::default()
        };
        let qualified = |qualifier: &ast::Ident, time: &Option<String>| {
            let kind = ast::SelectItemQualifiedWildcardKind::ObjectName(ast::ObjectName::from(qualifier.clone()));
            ast::SelectItem::QualifiedWildcard(kind, time.as_deref().map(without).unwrap_or_default())
        };
        let mut items = Vec::new();
        for item in std::mem::take(&mut select.projection) {
            match &item {
                ast::SelectItem::Wildcard(o) if o.to_string().is_empty() && relations.iter().all(|(q, _)| q.is_some()) => {
                    items.extend(relations.iter().filter_map(|(q, time)| q.as_ref().map(|q| qualified(q, time))));
                }
                ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(n), o) if o.to_string().is_empty() => {
                    let wanted = n.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
                    match relations.iter().find(|(q, _)| q.as_ref().map(|q| q.value.to_lowercase()) == wanted) {
                        Some((Some(q), time)) => items.push(qualified(q, time)),
                        _ => items.push(item),
                    }
                }
                _ => items.push(item),
            }
        }
        select.projection = items;
        ControlFlow::Continue(())
    }
}

impl Error {
    /// A planner's error with its place in the text, where it can be told.
    pub(super) fn at(self, registry: &Registry, statement: &Statement, source: &str, sql: &str) -> Error {
        if !self.sql_errors().is_empty() || self.kind() != crate::error::Kind::Invalid {
            return self;
        }
        if let Some(found) = self.found() {
            return sql_errors(std::slice::from_ref(found), source, sql);
        }
        let message = self.message().strip_prefix("Error during planning: ").unwrap_or(self.message()).to_owned();
        let first = message.lines().next().unwrap_or_default();
        let between = |from: &str, to: &str| {
            first.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(name, _)| name.trim_matches('"').to_owned())
        };
        let named = |name: &str| name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_owned();
        let d = if let Some(name) = between("table 'asof.public.", "' not found") {
            let span = place_of(statement, &name);
            Diagnostic::error(codes::E0201, span, format!("unknown table \"{name}\"")).help_nearest(&name, registry.names())
        } else if let Some(name) = between("No field named ", ".").or_else(|| between("No field named ", " ")) {
            let name = named(&name);
            let d = Diagnostic::error(codes::E0201, place_of(statement, &name), format!("unknown column \"{name}\""));
            match between("Did you mean '", "'") {
                Some(near) => d.help(format!("The nearest known column is \"{}\".", named(&near))),
                None => d,
            }
        } else if let Some(name) = between("Ambiguous reference to unqualified field ", "\u{0}")
            .or_else(|| first.split_once("Ambiguous reference to unqualified field ").map(|(_, n)| n.to_owned()))
        {
            let name = named(&name);
            Diagnostic::error(codes::E0203, place_of(statement, &name), format!("column \"{name}\" is ambiguous"))
                .help("Qualify it with the table's name or alias.")
        } else {
            Diagnostic::error(codes::E0405, statement.span, first.to_owned())
        };
        sql_errors(&[d], source, sql)
    }
}

/// The place of the first word of a statement that is this name; the whole statement where it is not found.
fn place_of(statement: &Statement, name: &str) -> Span {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    for (line, text) in statement.text.lines().enumerate() {
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|t| t.to_lowercase().find(&name.to_lowercase())).map(|at| from + at) {
            let (before, after) = (text.get(..at).unwrap_or(""), text.get(at + name.len()..).unwrap_or(""));
            if !before.chars().next_back().is_some_and(word) && !after.chars().next().is_some_and(word) {
                let column = before.chars().count() as u32 + if line == 0 { statement.span.start.column } else { 1 };
                let start = Position::new(statement.span.start.line + line as u32, column);
                return Span::new(start, Position::new(start.line, column + name.chars().count() as u32));
            }
            from = at + name.len().max(1);
        }
    }
    statement.span
}
