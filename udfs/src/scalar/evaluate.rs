//! Evaluation without DataFusion's frame around each node: the same kernels, called directly.
//!
//! For one entity's row the frame costs more than the work. Constants become columns of one value once, at compilation.
//! What is no operation of ours (CASE, IN, IS) is evaluated by its `PhysicalExpr`, which calls the same kernels.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{and_kleene, is_not_null, is_null, not, or_kleene};
use arrow::record_batch::RecordBatch;
use datafusion::common::{DFSchema, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ColumnarValue, Expr, Operator};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::kernel::{Kernel, Operand, kernel_of, pair, single};

/// A lowered expression, ready to evaluate.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Column(usize),
    Constant(Operand),
    Call { kernel: Arc<dyn Kernel>, operands: Vec<Node> },
    Other(Arc<dyn PhysicalExpr>),
}

impl Node {
    pub(super) fn of(expr: &Expr, schema: &DFSchema) -> Result<Node> {
        let call = |kernel: Arc<dyn Kernel>, operands: &[&Expr]| {
            let operands = operands.iter().map(|operand| Node::of(operand, schema)).collect::<Result<_>>()?;
            Ok(Node::Call { kernel, operands })
        };
        match expr {
            Expr::Column(column) => schema.index_of_column(column).map(Node::Column),
            Expr::Literal(value, _) => Operand::new(ColumnarValue::Scalar(value.clone())).map(Node::Constant),
            Expr::ScalarFunction(function) => match kernel_of(&function.func) {
                Some(kernel) if !function.args.is_empty() => call(kernel, &function.args.iter().collect::<Vec<_>>()),
                _ => other(expr, schema),
            },
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::And | Operator::Or) => {
                call(Arc::new(Logic::of(binary.op)), &[&binary.left, &binary.right])
            }
            Expr::Not(operand) => call(Arc::new(Logic::Not), &[operand]),
            Expr::IsNull(operand) => call(Arc::new(Logic::IsNull), &[operand]),
            Expr::IsNotNull(operand) => call(Arc::new(Logic::IsNotNull), &[operand]),
            _ => other(expr, schema),
        }
    }

    /// The values for the rows of `batch`: a column, or one value for them all.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Operand> {
        match self {
            Node::Column(index) => match batch.columns().get(*index) {
                Some(column) => Ok(Operand::column_of(Arc::clone(column))),
                None => Err(internal_datafusion_err!("batch has {} columns, none at {index}", batch.num_columns())),
            },
            Node::Constant(operand) => Ok(operand.clone()),
            Node::Call { kernel, operands } => {
                let operands = operands.iter().map(|operand| operand.evaluate(batch)).collect::<Result<Vec<_>>>()?;
                let constant = operands.iter().all(Operand::is_constant);
                let result = kernel.evaluate(&operands, if constant { 1 } else { batch.num_rows() })?;
                Ok(if constant { Operand::constant_of(result) } else { Operand::column_of(result) })
            }
            Node::Other(expr) => Operand::new(expr.evaluate(batch)?),
        }
    }
}

fn other(expr: &Expr, schema: &DFSchema) -> Result<Node> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default()).map(Node::Other)
}

/// SQL's logic of three values.
#[derive(Debug)]
enum Logic {
    And,
    Or,
    Not,
    IsNull,
    IsNotNull,
}

impl Logic {
    fn of(operator: Operator) -> Logic {
        if operator == Operator::And { Logic::And } else { Logic::Or }
    }
}

impl Kernel for Logic {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        Ok(Arc::new(match self {
            Logic::And | Logic::Or => {
                let [left, right] = pair(operands)?;
                let (left, right) = (left.column(rows)?, right.column(rows)?);
                let kernel = if matches!(self, Logic::And) { and_kleene } else { or_kleene };
                kernel(left.as_boolean(), right.as_boolean())?
            }
            Logic::Not => not(single(operands)?.array().as_boolean())?,
            Logic::IsNull => is_null(single(operands)?.array())?,
            Logic::IsNotNull => is_not_null(single(operands)?.array())?,
        }))
    }
}
