//! The definitions of a warehouse: streams, feature views and external tables by name, made from the catalog's log by replaying it.
//!
//! A definition is kept as the SQL that made it. Replay binds each against what was defined before it, so that a view means what it
//! meant on the day it was created. Not here: data, state, what a statement answers.

mod changes;
pub mod options;
mod replay;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use asof_sql::ast::{CreateExternalTable, ObjectKind};
use asof_sql::catalog::{Catalog, StreamInfo};
use asof_sql::plan::FeaturePlan;

pub use self::options::{Connector, StreamOptions};
pub use self::replay::{Change, Entry, arrow_type};
use crate::op::window::View;
use crate::stream::placement::Partitioner;
use crate::stream::schema::StreamSchema;

/// A stream as it is defined now.
#[derive(Debug, Clone)]
pub struct Stream {
    /// What the binder sees.
    pub info: Arc<StreamInfo>,
    /// What the pipeline sees.
    pub schema: Arc<StreamSchema>,
    /// How it is read and judged.
    pub options: StreamOptions,
    /// The folder of its tables: its name, and a number where the name was used before.
    pub folder: String,
    /// The statements that define it, as written.
    pub sql: Vec<String>,
}

impl Stream {
    /// The column that producers partition by, and how, where several processes may share the stream.
    pub fn key(&self) -> Option<(usize, Partitioner)> {
        let name = self.options.key.as_ref()?;
        let column = self.info.columns.iter().position(|c| c.name == *name)?;
        Some((column, self.options.partitioner.unwrap_or(Partitioner::Murmur2)))
    }
}

/// A feature view as it is defined now.
#[derive(Debug, Clone)]
pub struct DefinedView {
    /// The view, ready to run.
    pub view: Arc<View>,
    /// The statement that defines it, as written.
    pub sql: String,
    /// The folder of its checkpoints: its name and the number of the entry that created it, so that no other view of the name has it.
    pub folder: String,
}

/// An external table.
#[derive(Debug, Clone)]
pub struct ExternalTable {
    /// The statement's parts.
    pub definition: CreateExternalTable,
    /// The statement as written.
    pub sql: String,
}

/// All definitions at one point of the log.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The number of the next entry of the log.
    pub next: u64,
    /// Streams by name.
    pub streams: BTreeMap<String, Stream>,
    /// Views by name.
    pub views: BTreeMap<String, DefinedView>,
    /// Tables by name.
    pub tables: BTreeMap<String, ExternalTable>,
    /// Every folder ever given to a stream.
    folders: std::collections::BTreeSet<String>,
}

impl Registry {
    /// The kind of the object of a name.
    pub fn kind(&self, name: &str) -> Option<ObjectKind> {
        if self.streams.contains_key(name) {
            Some(ObjectKind::Stream)
        } else if self.views.contains_key(name) {
            Some(ObjectKind::FeatureView)
        } else if self.tables.contains_key(name) {
            Some(ObjectKind::Table)
        } else {
            None
        }
    }

    /// The stream of a view that several processes share: at most one (`shared`), with its key.
    pub fn shared(&self, plan: &FeaturePlan) -> Option<(&str, usize, Partitioner)> {
        let mut shared = plan.streams().into_iter().filter_map(|name| {
            let (name, stream) = self.streams.get_key_value(name)?;
            let (column, partitioner) = stream.key()?;
            Some((name.as_str(), column, partitioner))
        });
        shared.next()
    }

    /// Which of a view's entity columns is the key of the stream that several processes share, where it reads one.
    pub fn key_of(&self, plan: &FeaturePlan) -> Option<usize> {
        let (stream, key, _) = self.shared(plan)?;
        plan.entity.iter().position(|e| shared::is_key(&plan.relation, e.column, (stream, key)))
    }

    /// The views that read a stream.
    pub fn dependents(&self, stream: &str) -> Vec<&str> {
        self.views.iter().filter(|(_, v)| v.view.plan.streams().contains(&stream)).map(|(n, _)| n.as_str()).collect()
    }

    /// Every name, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().chain(self.views.keys()).chain(self.tables.keys()).map(String::as_str)
    }
}

impl Catalog for Registry {
    fn stream(&self, name: &str) -> Option<Arc<StreamInfo>> {
        self.streams.get(name).map(|s| s.info.clone())
    }

    fn view(&self, name: &str) -> Option<Arc<FeaturePlan>> {
        self.views.get(name).map(|v| v.view.plan.clone())
    }

    fn stream_names(&self) -> Vec<String> {
        self.streams.keys().cloned().collect()
    }

    fn view_names(&self) -> Vec<String> {
        self.views.keys().cloned().collect()
    }
}
