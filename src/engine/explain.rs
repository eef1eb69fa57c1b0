//! `EXPLAIN`: the plan of a view with its two lowerings, what is kept per key, and the plans of queries.

use asof_sql::Diagnostic;
use asof_sql::ast::{Explain, ExplainTarget, StatementKind};
use asof_sql::plan::FeaturePlan;
use asof_sql::plan::display::{duration_text, relation_tree};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::{collect, displayable};

use super::show::text_rows;
use super::{Inner, Output};
use crate::error::{Error, Result};
use crate::op::relation::batch::RelationSource;
use crate::op::window::batch::EventSource;

impl Inner {
    pub(super) async fn explain(&self, explain: &Explain, params: &[ScalarValue]) -> Result<std::result::Result<Output, Vec<Diagnostic>>> {
        match &explain.target {
            ExplainTarget::FeatureView(name) => {
                let registry = self.registry();
                let Some(defined) = registry.views.get(&name.value) else {
                    if let Some(kind) = registry.kind(&name.value) {
                        let message = format!("\"{}\" is a {}, not a feature view", name.value, kind.noun());
                        return Ok(Err(vec![Diagnostic::error(asof_sql::codes::E0206, name.span, message)]));
                    }
                    return Ok(Err(vec![registry.unknown(&name.value, "feature view", name.span)]));
                };
                let plan = &defined.view.plan;
                let source = self.source(&defined.view).await?;
                let rows = vec![
                    vec![Some("plan".into()), Some(plan.to_string())],
                    vec![Some("streaming".into()), Some(streaming_text(plan))],
                    vec![Some("batch".into()), Some(self.batch_text(plan, &source).await?)],
                    vec![Some("state".into()), Some(self.state_text(&name.value, plan).await?)],
                ];
                text_rows(&["part", "text"], rows).map(Ok)
            }
            ExplainTarget::Statement(statement) => match &statement.kind {
                StatementKind::Query(query) => {
                    let plan = self.plan(query, params).await?;
                    let optimized = self.context.state().optimize(&plan)?;
                    let physical = self.context.state().create_physical_plan(&plan).await?;
                    let mut rows = vec![vec![Some("logical plan".into()), Some(optimized.display_indent().to_string())]];
                    if explain.analyze {
                        collect(physical.clone(), self.context.task_ctx()).await?;
                        let text = datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(physical.as_ref())
                            .indent(explain.verbose)
                            .to_string();
                        rows.push(vec![Some("physical plan with metrics".into()), Some(text)]);
                    } else {
                        rows.push(vec![
                            Some("physical plan".into()),
                            Some(displayable(physical.as_ref()).indent(explain.verbose).to_string()),
                        ]);
                    }
                    text_rows(&["plan_type", "plan"], rows).map(Ok)
                }
                StatementKind::ForEntity(f) => {
                    let text = match crate::serve::lookup::describe(self, f) {
                        Ok(text) => text,
                        Err(d) => return Ok(Err(d)),
                    };
                    text_rows(&["plan_type", "plan"], vec![vec![Some("look-up".into()), Some(text)]]).map(Ok)
                }
                _ => Err(Error::invalid("EXPLAIN stands before a query or FEATURE VIEW name")),
            },
        }
    }

    async fn batch_text(&self, plan: &FeaturePlan, source: &RelationSource) -> Result<String> {
        let physical = source.events((i64::MIN, i64::MAX), self.context.task_ctx().as_ref()).await?;
        let entity: Vec<_> = plan.entity.iter().map(|e| e.name.as_str()).collect();
        Ok(format!(
            "FeatureJoinExec: pieces by hash of ({}), one sweep a piece\n{}",
            entity.join(", "),
            displayable(physical.as_ref()).indent(false)
        ))
    }

    async fn state_text(&self, name: &str, plan: &FeaturePlan) -> Result<String> {
        let mut text = format!("retention: {}\n", plan.program.retention());
        let (mut entities, mut events, mut bytes, mut horizon) = (0, 0, 0, i64::MIN);
        for slot in self.slots(name) {
            let online = self.online_of(&slot).await?;
            let size = online.size();
            (entities, events, bytes) = (entities + size.0, events + size.1, bytes + size.2);
            horizon = horizon.max(online.horizon());
        }
        text.push_str(&format!("entities {entities}, events {events}, bytes {bytes}\n"));
        if events > 0 {
            text.push_str(&format!("bytes per event {:.1}\n", bytes as f64 / events as f64));
        }
        if horizon > i64::MIN {
            let at = chrono::DateTime::from_timestamp_micros(horizon).map_or_else(|| horizon.to_string(), |t| t.to_rfc3339());
            text.push_str(&format!("answers every instant from {at}\n"));
        }
        Ok(text)
    }
}

fn streaming_text(plan: &FeaturePlan) -> String {
    let mut text =
        format!("KeyedIndex by ({}): a run per entity\n", plan.entity.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "));
    for (i, value) in plan.values.iter().enumerate() {
        text.push_str(&format!("  keeps value {i}: {} {}\n", value.expr.logical, value.expr.data_type));
    }
    for (i, mask) in plan.masks.iter().enumerate() {
        text.push_str(&format!("  keeps mask {i}: {}\n", mask.logical));
    }
    if plan.ordered {
        text.push_str("  keeps the order key of each event\n");
    }
    if plan.relation.has_join() {
        text.push_str("  AsofJoin keeps each left event once more, and the right rows since the oldest of them\n");
    }
    if let Some(ttl) = plan.ttl {
        text.push_str(&format!("  hides an entity {} after its last event\n", duration_text(ttl)));
    }
    for line in relation_tree(&plan.relation).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}
