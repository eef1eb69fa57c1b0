//! From a logical expression to one that both paths evaluate.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::evaluate::Node;
use super::lower::{Lower, Typed};
use super::types;

/// Why an expression cannot stand in a feature view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// What was found: lower case, without a full stop.
    pub message: String,
    /// What to write instead, as a sentence.
    pub help: Option<String>,
}

impl CompileError {
    pub(super) fn new(message: impl Into<String>) -> CompileError {
        CompileError { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> CompileError {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompileError {}

impl From<DataFusionError> for CompileError {
    fn from(error: DataFusionError) -> CompileError {
        // The planner's own words without its prefix and back trace.
        let message = error.strip_backtrace();
        let message = message.strip_prefix("Error during planning: ").unwrap_or(&message);
        CompileError::new(message.trim_end_matches('.').to_owned())
    }
}

/// A scalar expression that cannot fail on a row.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The operations as DataFusion evaluates them, to the same bits as [`Compiled::evaluate`]; columns are bound by position
    /// in the schema given to [`compile`].
    pub expr: Arc<dyn PhysicalExpr>,
    /// Type of the result, one of the canonical types of a column ([`super::canonical_type`]).
    pub data_type: DataType,
    /// Whether a row may give NULL.
    pub nullable: bool,
    /// The expression after lowering: columns, constants and our operations.
    pub logical: Expr,
    node: Node,
}

impl Compiled {
    /// The value for each row of `batch`, whose columns are those of the schema given to [`compile`], in its order.
    ///
    /// - Shapes: always an array of `batch.num_rows()` rows of [`Compiled::data_type`].
    /// - Errors: none through values; an error means that the batch has other columns than the schema.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        self.node.evaluate(batch)?.column(batch.num_rows())
    }

    /// The expression as one line in which equal text means equal values: what a fingerprint is taken of.
    pub fn text(&self) -> String {
        spell(&self.logical)
    }
}

/// A boolean [`Compiled`], read as SQL reads a condition: NULL is false.
#[derive(Debug, Clone)]
pub struct Predicate(pub Compiled);

impl Predicate {
    /// One bit a row and no NULLs.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let values = self.0.evaluate(batch)?;
        let values = values.as_boolean();
        Ok(match values.nulls() {
            Some(nulls) => BooleanArray::new(values.values() & nulls.inner(), None),
            None => values.clone(),
        })
    }
}

/// Compiles an expression as `SqlToRel` gives it (not yet coerced) over the columns of `schema`.
///
/// - Types: columns must have a canonical type; so has the result.
/// - Errors: subqueries, aggregates, window functions, functions that are not immutable or not supported, each by name;
///   types that do not fit together.
pub fn compile(expr: Expr, schema: &DFSchema) -> std::result::Result<Compiled, CompileError> {
    finish(Lower::new(schema).lower(expr)?, schema)
}

/// [`compile`] for a condition: the result must be BOOLEAN (or NULL).
pub fn compile_predicate(expr: Expr, schema: &DFSchema) -> std::result::Result<Predicate, CompileError> {
    let lower = Lower::new(schema);
    let condition = lower.lower(expr)?;
    if !matches!(condition.data_type, DataType::Boolean | DataType::Null) {
        let found = types::sql_name(&condition.data_type);
        return Err(CompileError::new(format!("condition is {found}, not BOOLEAN")));
    }
    finish(lower.cast(condition, &DataType::Boolean)?, schema).map(Predicate)
}

fn finish(typed: Typed, schema: &DFSchema) -> std::result::Result<Compiled, CompileError> {
    let Typed { expr: logical, data_type, nullable } = typed;
    if data_type == DataType::Null {
        return Err(CompileError::new("expression is NULL without a type").help("Write CAST(NULL AS <type>)."));
    }
    if data_type == types::MONTHS {
        return Err(CompileError::new("expression is an interval of months, which has no length of its own")
            .help("Add it to a timestamp or a date."));
    }
    let expr = create_physical_expr(&logical, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let node = Node::of(&logical, schema)?;
    Ok(Compiled { expr, data_type, nullable, logical, node })
}

/// Spells a lowered expression. The name of an operation carries its types; strings are quoted so that none can end early.
fn spell(expr: &Expr) -> String {
    let list = |items: &[Expr]| items.iter().map(spell).collect::<Vec<_>>().join(", ");
    match expr {
        Expr::Column(column) => column.quoted_flat_name(),
        Expr::Literal(value, _) => match value.try_as_str() {
            Some(Some(text)) => format!("{}:{text:?}", types::sql_name(&value.data_type())),
            _ => format!("{}:{value}", types::sql_name(&value.data_type())),
        },
        Expr::ScalarFunction(call) => format!("{}({})", call.func.name(), list(&call.args)),
        Expr::BinaryExpr(binary) => format!("({} {} {})", spell(&binary.left), binary.op, spell(&binary.right)),
        Expr::InList(within) => {
            let not = if within.negated { "NOT " } else { "" };
            format!("({} {not}IN ({}))", spell(&within.expr), list(&within.list))
        }
        Expr::Case(case) => {
            let mut text = String::from("CASE");
            for (when, then) in &case.when_then_expr {
                text.push_str(&format!(" WHEN {} THEN {}", spell(when), spell(then)));
            }
            if let Some(otherwise) = &case.else_expr {
                text.push_str(&format!(" ELSE {}", spell(otherwise)));
            }
            text + " END"
        }
        Expr::Not(operand) => format!("(NOT {})", spell(operand)),
        Expr::IsNull(operand) => format!("({} IS NULL)", spell(operand)),
        Expr::IsNotNull(operand) => format!("({} IS NOT NULL)", spell(operand)),
        Expr::IsTrue(operand) => format!("({} IS TRUE)", spell(operand)),
        Expr::IsNotTrue(operand) => format!("({} IS NOT TRUE)", spell(operand)),
        Expr::IsFalse(operand) => format!("({} IS FALSE)", spell(operand)),
        Expr::IsNotFalse(operand) => format!("({} IS NOT FALSE)", spell(operand)),
        other => other.to_string(),
    }
}
