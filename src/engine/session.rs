//! The DataFusion session of an engine: its names, planners and limits.
//!
//! A name is resolved when a statement is planned: a stream is its visible accepted events at the version of history that is newest
//! then, a view can only be joined AS OF. Not here: statements of the dialect (`statement`).

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, Session, TableProvider};
use datafusion::common::{Result as DfResult, TableReference};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::Inner;
use crate::error::Result;
use crate::op::asof_join::{AsofExtensionPlanner, AsofJoin, AsofRelationPlanner, PushLeftFilters, RightSides, TieOrder};
use crate::op::window::logical::{FeatureJoinPlanner, plan_feature_join};
use crate::settings::Settings;

/// Names of the engine's objects as tables.
struct Names {
    engine: Weak<Inner>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

#[async_trait]
impl SchemaProvider for Names {
    fn table_names(&self) -> Vec<String> {
        let Some(engine) = self.engine.upgrade() else { return vec![] };
        let registry = engine.registry();
        registry.names().map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.engine.upgrade() {
            Some(engine) => match engine.table(name).await? {
                Some(table) => Ok(Some(table)),
                None => Ok(super::connection::temporary_table(name)),
            },
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.engine.upgrade().is_some_and(|e| {
            let registry = e.registry();
            let base = name.strip_suffix("$late").or_else(|| name.strip_suffix("$rejected"));
            registry.kind(name).is_some()
                || base.is_some_and(|b| registry.streams.contains_key(b))
                || super::connection::temporary_table(name).is_some()
        })
    }
}

/// Feature views on the right side of an AS OF join, and the order of streams.
struct Sides {
    engine: Weak<Inner>,
}

impl fmt::Debug for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sides")
    }
}

impl RightSides for Sides {
    fn plan_resolved(&self, join: &AsofJoin) -> DfResult<Option<LogicalPlan>> {
        plan_feature_join(join)
    }

    fn tie_order(&self, table: &TableReference) -> Option<TieOrder> {
        self.engine.upgrade()?.tie_order(table.table())
    }
}

struct Planner {
    physical: DefaultPhysicalPlanner,
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Planner")
    }
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.physical.create_physical_plan(plan, session).await
    }
}

/// Makes the session of an engine.
pub(super) fn session(engine: &Weak<Inner>, settings: &Settings) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1))
        .with_default_catalog_and_schema("asof", "public")
        .with_create_default_catalog_and_schema(false);
    config.options_mut().sql_parser.collect_spans = true;
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_limit_bytes))).build_arc()?;
    let physical = DefaultPhysicalPlanner::with_extension_planners(vec![
        Arc::new(AsofExtensionPlanner),
        Arc::new(FeatureJoinPlanner { spine_rows_max: settings.spine_rows_max }),
    ]);
    let sides = Arc::new(Sides { engine: engine.clone() });
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(Planner { physical }))
        .with_relation_planners(vec![Arc::new(AsofRelationPlanner::new(sides))])
        .with_optimizer_rule(Arc::new(PushLeftFilters))
        .build();
    let context = SessionContext::new_with_state(state);
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("public", Arc::new(Names { engine: engine.clone() }))?;
    context.register_catalog("asof", Arc::new(catalog));
    Ok(context)
}
