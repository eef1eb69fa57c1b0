//! Entries of the catalog's log and what each changes. A change is checked in full before it is appended; replaying it cannot fail on a
//! log that this program wrote.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use asof_sql::Diagnostic;
use asof_sql::ast::{AlterAction, ColumnDef, CreateStream, ObjectKind, SqlType, Statement, StatementKind};
use asof_sql::bind::bind_feature_view;
use asof_sql::catalog::{StreamColumn, StreamInfo};
use asof_sql::codes;
use asof_sql::diagnostic::nearest;
use asof_sql::plan::FeaturePlan;
use serde::{Deserialize, Serialize};

use super::changes::with_changes;
use super::options::stream_options;
use super::shared::{check_kept, check_stream, check_view};
use super::{DefinedView, ExternalTable, Registry, Stream, StreamOptions};
use crate::error::{Error, Result};
use crate::history::folder_name;
use crate::op::window::View;
use crate::stream::decode::MessageFormat;
use crate::stream::schema::{StreamColumn as SchemaColumn, StreamSchema};

/// One entry of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The statement as written.
    pub sql: String,
    /// When it was made, microseconds since the Unix epoch.
    pub at_us: i64,
}

/// What a statement did to the definitions.
#[derive(Debug, Clone)]
pub enum Change {
    /// Nothing: `IF [NOT] EXISTS` found it done.
    Nothing,
    /// A stream was created.
    StreamCreated(String),
    /// A view was created.
    ViewCreated(String),
    /// A view got features or options.
    ViewReplaced(String),
    /// A table was created.
    TableCreated(String),
    /// An object is gone.
    Dropped(ObjectKind, String),
    /// A stream was altered; whether a column came.
    StreamAltered(String, bool),
}

/// A type of a declaration as its canonical Arrow type.
pub fn arrow_type(t: &SqlType) -> DataType {
    match t {
        SqlType::Boolean => DataType::Boolean,
        SqlType::TinyInt => DataType::Int8,
        SqlType::SmallInt => DataType::Int16,
        SqlType::Int => DataType::Int32,
        SqlType::BigInt => DataType::Int64,
        SqlType::Real => DataType::Float32,
        SqlType::Double => DataType::Float64,
        SqlType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
        SqlType::Varchar => DataType::Utf8View,
        SqlType::Varbinary => DataType::BinaryView,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

type Checked<T> = std::result::Result<T, Vec<Diagnostic>>;

fn one<T>(d: Diagnostic) -> Checked<T> {
    Err(vec![d])
}

impl Registry {
    /// Replays a log.
    pub fn replay(entries: &[(u64, bytes::Bytes)]) -> Result<Registry> {
        let mut registry = Registry::default();
        for (sequence, bytes) in entries {
            registry.apply_entry(*sequence, bytes)?;
        }
        Ok(registry)
    }

    /// Replays one entry.
    pub fn apply_entry(&mut self, sequence: u64, bytes: &[u8]) -> Result<Change> {
        let damaged = |why: String| Error::data(format!("catalog entry {sequence} cannot be replayed: {why}"));
        let entry: Entry = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        let say = |d: Vec<Diagnostic>| damaged(d.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("; "));
        let statements = asof_sql::parse::parse(&entry.sql, "catalog").map_err(say)?;
        let [statement] = statements.as_slice() else { return Err(damaged("it is not one statement".into())) };
        let change = self.apply(statement).map_err(say)?;
        self.next = sequence + 1;
        Ok(change)
    }

    /// Checks a definition statement against what is defined, and defines it. On an error nothing is changed.
    pub fn apply(&mut self, statement: &Statement) -> Checked<Change> {
        match &statement.kind {
            StatementKind::CreateStream(c) => self.create_stream(c, &statement.text),
            StatementKind::CreateFeatureView(c) => {
                if let Some(kind) = self.kind(&c.name.value) {
                    if c.if_not_exists && kind == ObjectKind::FeatureView {
                        return Ok(Change::Nothing);
                    }
                    if !(c.or_replace && kind == ObjectKind::FeatureView) {
                        return one(taken(&c.name.value, kind, c.name.span));
                    }
                }
                let plan = bind_feature_view(c, self)?;
                check_view(self, &plan, c.name.span)?;
                let old = self.views.get(&c.name.value);
                if let Some(old) = old {
                    check_replaceable(&old.view.plan, &plan, c.name.span)?;
                }
                let replaced = old.is_some();
                let folder = old.map_or_else(|| folder_name(&c.name.value, self.next), |old| old.folder.clone());
                let view = DefinedView { view: Arc::new(View::new(Arc::new(plan))), sql: statement.text.clone(), folder };
                self.views.insert(c.name.value.clone(), view);
                Ok(if replaced { Change::ViewReplaced(c.name.value.clone()) } else { Change::ViewCreated(c.name.value.clone()) })
            }
            StatementKind::CreateExternalTable(c) => {
                if let Some(kind) = self.kind(&c.name.value) {
                    return if c.if_not_exists && kind == ObjectKind::Table {
                        Ok(Change::Nothing)
                    } else {
                        one(taken(&c.name.value, kind, c.name.span))
                    };
                }
                self.tables.insert(c.name.value.clone(), ExternalTable { definition: c.clone(), sql: statement.text.clone() });
                Ok(Change::TableCreated(c.name.value.clone()))
            }
            StatementKind::Drop(d) => {
                let name = &d.name.value;
                match self.kind(name) {
                    Some(kind) if kind == d.kind => {}
                    None if d.if_exists => return Ok(Change::Nothing),
                    Some(kind) => {
                        return one(Diagnostic::error(
                            codes::E0206,
                            d.name.span,
                            format!("\"{name}\" is a {}, not a {}", kind.noun(), d.kind.noun()),
                        ));
                    }
                    None => return one(self.unknown(name, d.kind.noun(), d.name.span)),
                }
                if d.kind == ObjectKind::Stream {
                    let views = self.dependents(name);
                    if !views.is_empty() {
                        let message = format!("stream \"{name}\" is read by {}", views.join(", "));
                        return one(Diagnostic::error(codes::E0205, d.name.span, message).help("Drop what depends on it first."));
                    }
                }
                match d.kind {
                    ObjectKind::Stream => drop(self.streams.remove(name)),
                    ObjectKind::FeatureView => drop(self.views.remove(name)),
                    ObjectKind::Table => drop(self.tables.remove(name)),
                }
                Ok(Change::Dropped(d.kind, name.clone()))
            }
            StatementKind::AlterStream(a) => {
                let Some(stream) = self.streams.get(&a.name.value) else { return one(self.unknown(&a.name.value, "stream", a.name.span)) };
                let mut stream = stream.clone();
                let column = match &a.action {
                    AlterAction::SetOptions(entries) => {
                        let before = changes(&stream.options);
                        check_kept(entries)?;
                        stream.options = stream_options(stream.options, entries)?;
                        checked(&stream.options, &stream.schema, a.name.span)?;
                        check_stream(&stream.options, &stream.info, entries, a.name.span)?;
                        if changes(&stream.options) != before {
                            // The columns and the identity would be others.
                            let what = format!("stream \"{}\" cannot change to or from format \"debezium\"", a.name.value);
                            return one(Diagnostic::error(codes::E0602, a.name.span, what).help("Create another stream."));
                        }
                        false
                    }
                    AlterAction::AddColumn(c) => {
                        add_column(&mut stream, c)?;
                        true
                    }
                };
                stream.sql.push(statement.text.clone());
                self.streams.insert(a.name.value.clone(), stream);
                Ok(Change::StreamAltered(a.name.value.clone(), column))
            }
            _ => one(Diagnostic::error(codes::E0104, statement.span, "the statement defines nothing")),
        }
    }

    /// An unknown name, with the nearest known one.
    pub fn unknown(&self, name: &str, noun: &str, span: asof_sql::Span) -> Diagnostic {
        let d = Diagnostic::error(codes::E0201, span, format!("unknown {noun} \"{name}\""));
        match nearest(name, self.names()) {
            Some(near) => d.help(format!("The nearest known name is \"{near}\".")),
            None => d,
        }
    }

    fn create_stream(&mut self, c: &CreateStream, text: &str) -> Checked<Change> {
        if let Some(kind) = self.kind(&c.name.value) {
            return if c.if_not_exists && kind == ObjectKind::Stream {
                Ok(Change::Nothing)
            } else {
                one(taken(&c.name.value, kind, c.name.span))
            };
        }
        let mut errors = Vec::new();
        if c.name.value.contains('$') || c.name.value.contains('/') || c.name.value.starts_with('.') {
            errors.push(Diagnostic::error(codes::E0204, c.name.span, "a stream's name cannot hold \"$\" or \"/\", or begin with a dot"));
        }
        let mut columns: Vec<StreamColumn> = Vec::new();
        for column in &c.columns {
            if columns.iter().any(|x| x.name == column.name.value) {
                errors.push(Diagnostic::error(
                    codes::E0202,
                    column.name.span,
                    format!("column \"{}\" is declared twice", column.name.value),
                ));
            }
            if column.name.value.starts_with('_') {
                errors.push(Diagnostic::error(
                    codes::E0204,
                    column.name.span,
                    "a column's name cannot begin with an underscore; these are history's own",
                ));
            }
            columns.push(StreamColumn {
                name: column.name.value.clone(),
                data_type: arrow_type(&column.data_type),
                nullable: !column.not_null,
            });
        }
        let find = |name: &asof_sql::ast::Name, errors: &mut Vec<Diagnostic>| {
            let found = columns.iter().position(|x| x.name == name.value);
            if found.is_none() {
                let d = Diagnostic::error(codes::E0201, name.span, format!("unknown column \"{}\"", name.value));
                errors.push(d.help_nearest(&name.value, columns.iter().map(|x| x.name.as_str())));
            }
            found
        };
        let event_time = find(&c.watermark.column, &mut errors);
        if let Some(i) = event_time.filter(|i| !matches!(columns[*i].data_type, DataType::Timestamp(_, _))) {
            errors.push(Diagnostic::error(
                codes::E0402,
                c.watermark.column.span,
                format!("event time \"{}\" is not a TIMESTAMP", columns[i].name),
            ));
        }
        let mut primary_key = Vec::new();
        for name in c.primary_key.iter().flat_map(|k| &k.names) {
            if let Some(i) = find(name, &mut errors) {
                if columns[i].data_type.is_floating() {
                    errors.push(Diagnostic::error(codes::E0402, name.span, format!("primary key column \"{}\" is a float", name.value)));
                }
                if primary_key.contains(&i) {
                    errors.push(Diagnostic::error(codes::E0202, name.span, format!("primary key names \"{}\" twice", name.value)));
                }
                primary_key.push(i);
            }
        }
        let options = match stream_options(StreamOptions::default(), &c.options) {
            Ok(options) => options,
            Err(mut more) => {
                errors.append(&mut more);
                StreamOptions::default()
            }
        };
        if let (Some(MessageFormat::Debezium), Some(event_time)) = (options.message_format(), event_time) {
            with_changes(c, &mut columns, &mut primary_key, event_time, &mut errors);
        }
        let Some(event_time) = event_time.filter(|_| errors.is_empty()) else { return Err(errors) };
        for i in primary_key.iter().chain([&event_time]) {
            columns[*i].nullable = false;
        }
        let info = StreamInfo { name: c.name.value.clone(), columns, primary_key, event_time, disorder: c.watermark.disorder_us };
        let schema = schema_of(&info).map_err(|e| vec![Diagnostic::error(codes::E0402, c.name.span, e.to_string())])?;
        checked(&options, &schema, c.name.span)?;
        check_stream(&options, &info, &c.options, c.name.span)?;
        // A name that is used again is a new lineage, in a new folder.
        let mut lineage = 0;
        let mut folder = folder_name(&c.name.value, lineage);
        while !self.folders.insert(folder.clone()) {
            lineage += 1;
            folder = folder_name(&c.name.value, lineage);
        }
        let stream = Stream { info: Arc::new(info), schema: Arc::new(schema), options, folder, sql: vec![text.to_owned()] };
        self.streams.insert(c.name.value.clone(), stream);
        Ok(Change::StreamCreated(c.name.value.clone()))
    }
}

/// Options that fit the stream's columns and format.
fn checked(options: &StreamOptions, schema: &StreamSchema, span: asof_sql::Span) -> Checked<()> {
    options.records.check(schema, options.format_name()).map_err(|e| vec![Diagnostic::error(codes::E0602, span, e.message())])
}

/// Whether a stream holds changes of rows.
fn changes(options: &StreamOptions) -> bool {
    options.message_format() == Some(MessageFormat::Debezium)
}

fn schema_of(info: &StreamInfo) -> Result<StreamSchema> {
    let columns = info.columns.iter().map(|c| SchemaColumn { name: c.name.clone(), data_type: c.data_type.clone(), nullable: c.nullable });
    StreamSchema::try_new(columns.collect(), info.primary_key.clone(), info.event_time, info.disorder)
}

fn add_column(stream: &mut Stream, c: &ColumnDef) -> Checked<()> {
    let mut info = stream.info.as_ref().clone();
    if info.columns.iter().any(|x| x.name == c.name.value) {
        return one(Diagnostic::error(codes::E0202, c.name.span, format!("column \"{}\" is declared already", c.name.value)));
    }
    if c.name.value.starts_with('_') {
        return one(Diagnostic::error(
            codes::E0204,
            c.name.span,
            "a column's name cannot begin with an underscore; these are history's own",
        ));
    }
    if c.not_null {
        return one(
            Diagnostic::error(codes::E0105, c.span, "an added column is nullable").help("Leave NOT NULL out; older events have NULL.")
        );
    }
    info.columns.push(StreamColumn { name: c.name.value.clone(), data_type: arrow_type(&c.data_type), nullable: true });
    stream.schema = Arc::new(schema_of(&info).map_err(|e| vec![Diagnostic::error(codes::E0402, c.span, e.to_string())])?);
    stream.info = Arc::new(info);
    Ok(())
}

fn taken(name: &str, kind: ObjectKind, span: asof_sql::Span) -> Diagnostic {
    Diagnostic::error(codes::E0202, span, format!("a {} \"{name}\" exists already", kind.noun()))
        .help("Use another name, or IF NOT EXISTS.")
}

/// OR REPLACE may add features and change what changes no value; anything else would change what a name means.
fn check_replaceable(old: &FeaturePlan, new: &FeaturePlan, span: asof_sql::Span) -> Checked<()> {
    let mut errors = Vec::new();
    for feature in &old.features {
        let help = format!("Give the new meaning a new name, as {}_v2, in this view or another.", feature.name);
        match new.feature(&feature.name).map(|i| &new.features[i]) {
            None => errors.push(
                Diagnostic::error(codes::E0207, span, format!("feature \"{}\" would be dropped", feature.name))
                    .help("Keep it, or create a view of another name."),
            ),
            Some(n) if n.fingerprint != feature.fingerprint => {
                errors.push(
                    Diagnostic::error(codes::E0207, span, format!("feature \"{}\" would change its meaning", feature.name)).help(help),
                );
            }
            Some(_) => {}
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
