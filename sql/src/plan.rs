//! The one plan of a feature view: what both lowerings are made from.
//!
//! A view is a *relation* (operators from streams to the view's events), *aggregates* over frames of one entity's events, and *features*
//! computed from those. Scalar expressions are compiled here, once; both paths evaluate the same compiled form. The operators are matched
//! exhaustively by each lowering, so that one without both does not compile.
//!
//! Not here: how a plan is made from SQL (`bind`), how it runs (`op` in the root package).

pub mod display;
mod fingerprint;
mod relation;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use asof_udfs::scalar::Compiled;
use asof_udfs::{Frame, Function, Program};

pub use fingerprint::Fingerprint;
pub(crate) use fingerprint::{feature_text, relation_text};
pub use relation::{AsofJoin, Filter, OrderColumns, Project, Relation, Scan, Union};

/// The name of the instant among the inputs of an expression.
pub const AS_OF: &str = "__as_of";

/// Which of the three forms a view has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Aggregates with OVER.
    Windowed,
    /// Aggregates with GROUP BY.
    Grouped,
    /// No aggregate: the newest event at the instant.
    LatestRow,
}

/// One column of the entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityColumn {
    /// The column's name in the view.
    pub name: String,
    /// Its type, one that is allowed as a key.
    pub data_type: DataType,
    /// Its place in the relation's rows.
    pub column: usize,
}

/// A column of the relation, or an expression over its columns, that is kept with each event.
#[derive(Debug, Clone)]
pub struct StoredValue {
    /// The expression over the relation's rows.
    pub expr: Compiled,
}

/// An aggregate that the run computes itself.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// The name under which finishing expressions read it.
    pub name: String,
    /// What is computed.
    pub function: Function,
    /// The argument, an index into [`FeaturePlan::values`].
    pub value: Option<usize>,
    /// The FILTER, an index into [`FeaturePlan::masks`].
    pub mask: Option<usize>,
    /// The frame, an index into [`FeaturePlan::frames`].
    pub frame: usize,
    /// The type of its result.
    pub data_type: DataType,
    /// As the analyst wrote it, for EXPLAIN.
    pub text: String,
}

/// An aggregate whose argument or filter depends on the instant: evaluated over the raw events of its window at each read.
#[derive(Debug, Clone)]
pub struct DeferredAggregate {
    /// The name under which finishing expressions read it.
    pub name: String,
    /// What is computed.
    pub function: Function,
    /// The stored columns that the expressions read, indexes into [`FeaturePlan::values`]; the expressions see these, then the instant.
    pub inputs: Vec<usize>,
    /// The argument over the inputs.
    pub argument: Option<Compiled>,
    /// The filter over the inputs.
    pub filter: Option<Compiled>,
    /// The frame, an index into [`FeaturePlan::frames`].
    pub frame: usize,
    /// The type of its result.
    pub data_type: DataType,
    /// The run program that aggregates the evaluated argument over all of its rows.
    pub program: Arc<Program>,
    /// As the analyst wrote it, for EXPLAIN.
    pub text: String,
}

/// How a feature comes from the aggregates.
#[derive(Debug, Clone)]
pub enum FeatureValue {
    /// It is an aggregate's result: an index into the aggregates, the deferred ones counted after the others.
    Aggregate(usize),
    /// It is computed from the finishing inputs, see [`FeaturePlan::finish_schema`].
    Computed(Compiled),
}

/// One feature.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Where its value comes from.
    pub value: FeatureValue,
    /// As the analyst wrote it.
    pub text: String,
    /// What it means, stable over processes and versions that mean the same.
    pub fingerprint: Fingerprint,
}

/// Options of a view that change no value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewOptions {
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The promised age of what is queryable, microseconds.
    pub freshness: Option<i64>,
    /// How far behind the greatest event time the online state answers, microseconds beyond disorder and skew.
    pub look_back: Option<i64>,
}

/// A feature view, compiled.
#[derive(Debug, Clone)]
pub struct FeaturePlan {
    /// The view's name.
    pub name: String,
    /// Its form.
    pub shape: Shape,
    /// The entity's columns.
    pub entity: Vec<EntityColumn>,
    /// The name of the event-time column.
    pub time_column: String,
    /// From streams to the view's events, WHERE included.
    pub relation: Relation,
    /// What is kept with each event.
    pub values: Vec<StoredValue>,
    /// The FILTER masks over the relation's rows.
    pub masks: Vec<Compiled>,
    /// The frames that aggregates name.
    pub frames: Vec<Frame>,
    /// The aggregates that the run computes.
    pub aggregates: Vec<AggregateCall>,
    /// The aggregates that are evaluated at each read.
    pub deferred: Vec<DeferredAggregate>,
    /// The features, in the order of the SELECT list.
    pub features: Vec<Feature>,
    /// After how long without an event an entity has the value of the empty set, microseconds.
    pub ttl: Option<i64>,
    /// What changes no value.
    pub options: ViewOptions,
    /// The run's layout and aggregates, shared by both paths.
    pub program: Arc<Program>,
    /// Whether equal event times are told apart by the order of DESIGN 4.
    pub ordered: bool,
    /// What the view means.
    pub fingerprint: Fingerprint,
}

impl FeaturePlan {
    /// The columns that finishing expressions see: the entity's, the instant, the aggregates, the deferred ones last.
    pub fn finish_schema(&self) -> SchemaRef {
        let entity = self.entity.iter().map(|e| Field::new(&e.name, e.data_type.clone(), true));
        let instant = std::iter::once(Field::new(AS_OF, instant_type(), true));
        let aggregates =
            self.aggregates.iter().map(|a| (&a.name, &a.data_type)).chain(self.deferred.iter().map(|d| (&d.name, &d.data_type)));
        let aggregates = aggregates.map(|(name, t)| Field::new(name, t.clone(), true));
        Arc::new(Schema::new(entity.chain(instant).chain(aggregates).collect::<Vec<_>>()))
    }

    /// The columns of `*`: the entity's, then the features.
    pub fn output_schema(&self) -> SchemaRef {
        let entity = self.entity.iter().map(|e| Field::new(&e.name, e.data_type.clone(), true));
        let features = self.features.iter().map(|f| Field::new(&f.name, f.data_type.clone(), true));
        Arc::new(Schema::new(entity.chain(features).collect::<Vec<_>>()))
    }

    /// The index of a feature by name.
    pub fn feature(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|f| f.name == name)
    }

    /// Every stream that is read, each once, the leftmost first.
    pub fn streams(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.relation.visit_scans(&mut |scan| {
            if !names.contains(&scan.stream.as_str()) {
                names.push(scan.stream.as_str());
            }
        });
        names
    }
}

/// The type of every instant and event time.
pub fn instant_type() -> DataType {
    DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))
}
