//! The statements of the dialect, as parsed: names are folded, every node that can be wrong carries its [`Span`].
//!
//! Queries and expressions inside a statement are sqlparser's own nodes, with the spans of the whole text. What DataFusion's planner
//! would drop without a word has been refused by the parser. Names are resolved and types checked by the binder, not here.

use std::fmt;

use datafusion::sql::sqlparser::ast::{Expr, Query};

use crate::span::Span;

/// One statement of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it says.
    pub kind: StatementKind,
    /// Where it stands, from its first token to its last.
    pub span: Span,
    /// The slice of the text that it was read from, without the semicolon: what the catalog keeps and `SHOW CREATE` prints.
    pub text: String,
    /// How many parameters it takes: the greatest `n` of its `$n`. A `?` is numbered from left to right.
    pub parameters: usize,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq)]
pub enum StatementKind {
    /// `CREATE STREAM`.
    CreateStream(CreateStream),
    /// `CREATE FEATURE [VIEW]`.
    CreateFeatureView(CreateFeatureView),
    /// `CREATE EXTERNAL TABLE`.
    CreateExternalTable(CreateExternalTable),
    /// Any query: `SELECT`, `WITH`, `VALUES`, AS OF joins included.
    Query(Box<Query>),
    /// A query with `FOR ENTITY`.
    ForEntity(ForEntity),
    /// `INSERT INTO`.
    Insert(Insert),
    /// `COPY stream FROM 'path'`.
    CopyFrom(CopyFrom),
    /// `COPY (query) TO 'path'`.
    CopyTo(CopyTo),
    /// `REPROCESS LATE EVENTS FOR stream`.
    Reprocess {
        /// The stream.
        stream: Name,
    },
    /// `RESUME STREAM stream PAST GAP`.
    ResumeStream {
        /// The stream.
        stream: Name,
    },
    /// `SHOW STREAMS | FEATURE VIEWS | FEATURES`.
    Show(Show),
    /// `SHOW STREAM STATUS [FOR stream]`.
    ShowStreamStatus {
        /// The stream; all of them where none is named.
        stream: Option<Name>,
    },
    /// `DESCRIBE name`.
    Describe {
        /// A stream, view or table.
        name: Name,
    },
    /// `SHOW CREATE name`.
    ShowCreate {
        /// A stream, view or table.
        name: Name,
        /// The kind, where it was written: the object must be of it.
        kind: Option<ObjectKind>,
    },
    /// `DROP STREAM | FEATURE [VIEW] | TABLE`.
    Drop(Drop),
    /// `ALTER STREAM`.
    AlterStream(AlterStream),
    /// `EXPLAIN`.
    Explain(Explain),
}

/// A name as it is looked up: lower case unless it was quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The folded name.
    pub value: String,
    /// Where it was written, quotes included.
    pub span: Span,
}

/// A list of names with the place of the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The names, in the order written.
    pub names: Vec<Name>,
    /// The list, parentheses included.
    pub span: Span,
}

/// `CREATE STREAM`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateStream {
    /// Whether `IF NOT EXISTS` was written.
    pub if_not_exists: bool,
    /// The stream's name.
    pub name: Name,
    /// The columns, in the order written.
    pub columns: Vec<ColumnDef>,
    /// `PRIMARY KEY (...)`, also when written behind a column.
    pub primary_key: Option<Names>,
    /// `WATERMARK FOR`: exactly one, checked by the parser.
    pub watermark: Watermark,
    /// `WITH (...)`, in the order written, every key once.
    pub options: Vec<OptionEntry>,
}

/// A column of a stream or of an external table.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub data_type: SqlType,
    /// Where the type was written.
    pub type_span: Span,
    /// Whether `NOT NULL` was written.
    pub not_null: bool,
    /// The whole definition.
    pub span: Span,
}

/// `WATERMARK FOR column AS column - INTERVAL '...'`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    /// The event-time column.
    pub column: Name,
    /// The allowed disorder in microseconds, 0 or more.
    pub disorder_us: i64,
    /// The whole clause.
    pub span: Span,
}

/// The types a column can be declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `BOOLEAN`, `BOOL`.
    Boolean,
    /// `TINYINT`: 8 bits.
    TinyInt,
    /// `SMALLINT`: 16 bits.
    SmallInt,
    /// `INT`, `INTEGER`: 32 bits.
    Int,
    /// `BIGINT`: 64 bits.
    BigInt,
    /// `REAL`, `FLOAT4`: 32 bits.
    Real,
    /// `DOUBLE`, `DOUBLE PRECISION`, `FLOAT`, `FLOAT8`: 64 bits.
    Double,
    /// `DECIMAL(precision, scale)`, `NUMERIC(...)`.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, 0 to the precision.
        scale: i8,
    },
    /// `VARCHAR`, `TEXT`, `STRING`.
    Varchar,
    /// `VARBINARY`, `BYTEA`.
    Varbinary,
    /// `DATE`.
    Date,
    /// `TIMESTAMP`: microseconds, UTC.
    Timestamp,
}

/// One entry of `WITH (...)` or of `OPTIONS (...)`.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionEntry {
    /// The key, folded unless quoted; dotted keys keep their dots.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: OptionValue,
    /// Where the value stands.
    pub value_span: Span,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// `'text'`.
    String(String),
    /// A number as written, its sign in front.
    Number(String),
    /// `true` or `false`.
    Boolean(bool),
    /// `INTERVAL '...'`.
    Interval(Interval),
}

/// An interval: calendar months and a fixed part. A day is 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    /// Calendar months.
    pub months: i32,
    /// The fixed part in microseconds.
    pub micros: i64,
}

/// `CREATE FEATURE [VIEW]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFeatureView {
    /// Whether `OR REPLACE` was written.
    pub or_replace: bool,
    /// Whether `IF NOT EXISTS` was written; never with `OR REPLACE`.
    pub if_not_exists: bool,
    /// The view's name.
    pub name: Name,
    /// `ENTITY (...)`: at least one column, every one once.
    pub entity: Names,
    /// `WITH (...)`, in the order written, every key once.
    pub options: Vec<OptionEntry>,
    /// The query behind `AS`.
    pub query: Box<Query>,
    /// Where the query stands.
    pub query_span: Span,
}

/// `CREATE EXTERNAL TABLE`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateExternalTable {
    /// Whether `IF NOT EXISTS` was written.
    pub if_not_exists: bool,
    /// The table's name.
    pub name: Name,
    /// The declared columns; empty where the file says.
    pub columns: Vec<ColumnDef>,
    /// `STORED AS`.
    pub format: FileFormat,
    /// Where the format stands.
    pub format_span: Span,
    /// `LOCATION`.
    pub location: String,
    /// Where the location stands.
    pub location_span: Span,
    /// `OPTIONS (...)`.
    pub options: Vec<OptionEntry>,
}

/// The format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// Parquet.
    Parquet,
    /// Comma separated.
    Csv,
    /// JSON lines.
    Json,
    /// A Delta table; only of `CREATE EXTERNAL TABLE`.
    Delta,
}

/// A query with `FOR ENTITY`: features of given entities at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEntity {
    /// What stands before `FOR ENTITY`: `SELECT items FROM views` and no other clause. Each `FROM` item is one plain name, with or
    /// without an alias, and no joins.
    pub query: Box<Query>,
    /// The entities asked for.
    pub keys: EntityKeys,
    /// The instant asked for.
    pub at: Instant,
    /// From `FOR` to the end of the clause.
    pub span: Span,
}

/// The entities of `FOR ENTITY`, every form as rows of values.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityKeys {
    /// The key columns in the order of the values, where they were named. A bare value or tuple names none: its values are the
    /// entity columns in their order.
    pub columns: Option<Vec<Name>>,
    /// One row for each entity asked for, in order, duplicates kept; at least one. With columns, each row has as many values.
    pub rows: Vec<KeyRow>,
    /// The keys, from the first token behind `FOR ENTITY`.
    pub span: Span,
}

/// One entity.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    /// Its key values.
    pub values: Vec<KeyValue>,
    /// Where the row stands.
    pub span: Span,
}

/// One value of an entity's key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValue {
    /// The value.
    pub literal: KeyLiteral,
    /// Where it stands.
    pub span: Span,
}

/// A value of an entity's key as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLiteral {
    /// `'text'`.
    String(String),
    /// A number as written, its sign in front.
    Number(String),
    /// `true` or `false`.
    Boolean(bool),
    /// `NULL`.
    Null,
    /// `DATE '...'`.
    Date(String),
    /// `TIMESTAMP '...'`.
    Timestamp(String),
    /// `$n`, from 1.
    Parameter(usize),
}

/// The instant of `FOR ENTITY`.
#[derive(Debug, Clone, PartialEq)]
pub enum Instant {
    /// Nothing was written: the moment of the statement.
    Now,
    /// `AS OF`: events at the instant count.
    AsOf {
        /// A constant expression, most often `TIMESTAMP '...'` or a parameter.
        expr: Box<Expr>,
        /// Where the expression stands.
        span: Span,
    },
    /// `BEFORE`: events at the instant do not count.
    Before {
        /// A constant expression, most often `TIMESTAMP '...'` or a parameter.
        expr: Box<Expr>,
        /// Where the expression stands.
        span: Span,
    },
}

/// `INSERT INTO`.
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The stream.
    pub stream: Name,
    /// The columns given; `None` where the statement names none: all, in their order.
    pub columns: Option<Names>,
    /// `VALUES` or a query.
    pub source: Box<Query>,
    /// Where the source stands.
    pub source_span: Span,
}

/// `COPY stream FROM 'path'`.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyFrom {
    /// The stream.
    pub stream: Name,
    /// The path or URL.
    pub path: String,
    /// Where the path stands.
    pub path_span: Span,
    /// `FORMAT`, where it was written: parquet, json or csv.
    pub format: Option<(FileFormat, Span)>,
    /// `TOKEN`, where it was written: the same token again changes nothing.
    pub token: Option<(String, Span)>,
}

/// `COPY (query) TO 'path'`.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyTo {
    /// The query.
    pub query: Box<Query>,
    /// Where the query stands.
    pub query_span: Span,
    /// The path or URL.
    pub path: String,
    /// Where the path stands.
    pub path_span: Span,
    /// `FORMAT`, where it was written: parquet, csv or json.
    pub format: Option<(FileFormat, Span)>,
}

/// What `SHOW` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Show {
    /// `SHOW STREAMS`.
    Streams,
    /// `SHOW FEATURE VIEWS`.
    FeatureViews,
    /// `SHOW FEATURES`.
    Features,
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A stream.
    Stream,
    /// A feature view.
    FeatureView,
    /// An external table.
    Table,
}

/// `DROP`.
#[derive(Debug, Clone, PartialEq)]
pub struct Drop {
    /// The kind of object.
    pub kind: ObjectKind,
    /// Whether `IF EXISTS` was written.
    pub if_exists: bool,
    /// The object.
    pub name: Name,
}

/// `ALTER STREAM`.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterStream {
    /// The stream.
    pub name: Name,
    /// What is altered.
    pub action: AlterAction,
}

/// What `ALTER STREAM` alters.
#[derive(Debug, Clone, PartialEq)]
pub enum AlterAction {
    /// `SET (key = value, ...)`.
    SetOptions(Vec<OptionEntry>),
    /// `ADD COLUMN name type`: always nullable.
    AddColumn(ColumnDef),
}

/// `EXPLAIN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// Whether `ANALYZE` was written; never with a feature view.
    pub analyze: bool,
    /// Whether `VERBOSE` was written; never with a feature view.
    pub verbose: bool,
    /// What is explained.
    pub target: ExplainTarget,
}

/// What `EXPLAIN` explains.
#[derive(Debug, Clone, PartialEq)]
pub enum ExplainTarget {
    /// `EXPLAIN FEATURE VIEW name`.
    FeatureView(Name),
    /// `EXPLAIN SELECT ...`: a [`StatementKind::Query`] or a [`StatementKind::ForEntity`].
    Statement(Box<Statement>),
}

impl ObjectKind {
    /// The kind as a message names it: `feature view`.
    pub fn noun(&self) -> &'static str {
        match self {
            ObjectKind::Stream => "stream",
            ObjectKind::FeatureView => "feature view",
            ObjectKind::Table => "table",
        }
    }
}

impl FileFormat {
    /// The name as an option writes it: `parquet`.
    pub fn name(&self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Csv => "csv",
            FileFormat::Json => "json",
            FileFormat::Delta => "delta",
        }
    }

    /// The format of this name in any case.
    pub fn find(name: &str) -> Option<FileFormat> {
        use FileFormat::{Csv, Delta, Json, Parquet};
        [Parquet, Csv, Json, Delta].into_iter().find(|format| name.eq_ignore_ascii_case(format.name()))
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SqlType::Boolean => "BOOLEAN",
            SqlType::TinyInt => "TINYINT",
            SqlType::SmallInt => "SMALLINT",
            SqlType::Int => "INT",
            SqlType::BigInt => "BIGINT",
            SqlType::Real => "REAL",
            SqlType::Double => "DOUBLE",
            SqlType::Decimal { precision, scale } => {
                return write!(f, "DECIMAL({precision}, {scale})");
            }
            SqlType::Varchar => "VARCHAR",
            SqlType::Varbinary => "VARBINARY",
            SqlType::Date => "DATE",
            SqlType::Timestamp => "TIMESTAMP",
        })
    }
}

/// The type as it is declared: `DECIMAL(10, 2)`. Parsing it gives the same type.
pub fn render_sql_type(data_type: &SqlType) -> String {
    data_type.to_string()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

/// Folds an identifier as it is looked up: lower case (of ASCII letters, as DataFusion does) unless it was quoted.
pub fn fold(identifier: &str, quoted: bool) -> String {
    if quoted { identifier.to_owned() } else { identifier.to_ascii_lowercase() }
}

/// Writes a folded name so that parsing it gives the name again: quoted where it must be.
pub fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if plain && !crate::parse::is_reserved(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
