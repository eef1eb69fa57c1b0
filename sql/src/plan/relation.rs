//! The operators from streams to a view's events.
//!
//! Contract of every operator: its rows have the columns of [`Relation::schema`], and each row has an event time and, where the view is
//! ordered, an order key, which travel beside the columns. Filter and Project neither reorder nor change these two; AsofJoin keeps the
//! left row's; Union makes its order key from the projected columns.

use arrow::datatypes::SchemaRef;
use asof_udfs::scalar::Compiled;

/// What makes the order key of a scan's rows: the columns after the event time in the order of DESIGN 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderColumns(pub Vec<usize>);

/// The visible accepted events of one stream.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The stream's name.
    pub stream: String,
    /// The columns that are read, ascending indexes into the stream's schema.
    pub columns: Vec<usize>,
    /// The schema of those columns.
    pub schema: SchemaRef,
    /// The event-time column, an index into the stream's schema; always among `columns`.
    pub event_time: usize,
    /// Indexes into the stream's schema that order rows of one event time: the primary key where there is one (visible rows of equal
    /// time and key are unique), else every other column.
    pub order: OrderColumns,
    /// The allowed disorder of the stream, microseconds.
    pub disorder: i64,
}

/// Rows for which a predicate is true.
#[derive(Debug, Clone)]
pub struct Filter {
    /// What is filtered.
    pub input: Box<Relation>,
    /// The predicate over the input's columns; NULL keeps no row.
    pub predicate: Compiled,
}

/// New columns from the input's.
#[derive(Debug, Clone)]
pub struct Project {
    /// What is projected.
    pub input: Box<Relation>,
    /// One expression a column of `schema`, over the input's columns.
    pub exprs: Vec<Compiled>,
    /// The names and types of the result.
    pub schema: SchemaRef,
}

/// Each left row with the one right row that is newest at it; right columns NULL where there is none.
#[derive(Debug, Clone)]
pub struct AsofJoin {
    /// The events; each comes out once.
    pub left: Box<Relation>,
    /// What they are enriched with.
    pub right: Box<Relation>,
    /// Pairs of expressions that must be equal, over the left's and over the right's columns, of one type each; empty: one group.
    pub on: Vec<(Compiled, Compiled)>,
    /// Whether a right row at the same instant does not match (`>`).
    pub strict: bool,
    /// The left's columns, then the right's.
    pub schema: SchemaRef,
}

/// All rows of inputs of one shape; duplicates stay.
#[derive(Debug, Clone)]
pub struct Union {
    /// The branches.
    pub inputs: Vec<Relation>,
    /// The shape of all.
    pub schema: SchemaRef,
}

/// A relation of events.
#[derive(Debug, Clone)]
pub enum Relation {
    /// A stream.
    Scan(Scan),
    /// Some of the rows.
    Filter(Filter),
    /// Other columns.
    Project(Project),
    /// Enriched events.
    AsofJoin(AsofJoin),
    /// Several streams as one.
    Union(Union),
}

impl Relation {
    /// The columns of its rows.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Relation::Scan(s) => s.schema.clone(),
            Relation::Filter(f) => f.input.schema(),
            Relation::Project(p) => p.schema.clone(),
            Relation::AsofJoin(j) => j.schema.clone(),
            Relation::Union(u) => u.schema.clone(),
        }
    }

    /// Calls `f` for every scan, the leftmost first.
    pub fn visit_scans<'a>(&'a self, f: &mut impl FnMut(&'a Scan)) {
        match self {
            Relation::Scan(s) => f(s),
            Relation::Filter(x) => x.input.visit_scans(f),
            Relation::Project(x) => x.input.visit_scans(f),
            Relation::AsofJoin(j) => {
                j.left.visit_scans(f);
                j.right.visit_scans(f);
            }
            Relation::Union(u) => u.inputs.iter().for_each(|i| i.visit_scans(f)),
        }
    }

    /// The scan whose event time is the relation's: the leftmost.
    pub fn leftmost(&self) -> &Scan {
        match self {
            Relation::Scan(s) => s,
            Relation::Filter(x) => x.input.leftmost(),
            Relation::Project(x) => x.input.leftmost(),
            Relation::AsofJoin(j) => j.left.leftmost(),
            Relation::Union(u) => match u.inputs.first() {
                Some(first) => first.leftmost(),
                None => unreachable!("a union has at least two inputs"),
            },
        }
    }

    /// Whether any row is enriched by an AS OF join.
    pub fn has_join(&self) -> bool {
        match self {
            Relation::Scan(_) => false,
            Relation::Filter(x) => x.input.has_join(),
            Relation::Project(x) => x.input.has_join(),
            Relation::AsofJoin(_) => true,
            Relation::Union(u) => u.inputs.iter().any(Relation::has_join),
        }
    }

    /// The greatest disorder of its streams, microseconds.
    pub fn greatest_disorder(&self) -> i64 {
        let mut greatest = 0;
        self.visit_scans(&mut |s| greatest = greatest.max(s.disorder));
        greatest
    }
}
