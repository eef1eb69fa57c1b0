//! Functions of DataFusion inside a feature view: the same function, which gives NULL for a row on which it fails.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};

use super::cast;
use super::compile::CompileError;
use super::kernel::{Kernel, Nulls, Operand, canonical_nan, null_where_it_fails, operation};
use super::lower::{Lower, Typed};
use super::types::{self, sql_name, suffix};

/// A call of `function`, with its arguments cast as its signature asks for.
pub(super) fn lower(lower: &Lower<'_>, function: &Arc<ScalarUDF>, args: Vec<Typed>) -> std::result::Result<Typed, CompileError> {
    let found: Vec<FieldRef> = args.iter().map(|arg| Arc::new(Field::new("arg", arg.data_type.clone(), arg.nullable))).collect();
    let names = || args.iter().map(|arg| sql_name(&arg.data_type)).collect::<Vec<_>>().join(", ");
    let wanted = fields_with_udf(&found, function.as_ref())
        .map_err(|_| CompileError::new(format!("function \"{}\" does not take ({})", function.name(), names())))?;
    let args =
        args.into_iter().zip(&wanted).map(|(arg, field)| lower.cast(arg, field.data_type())).collect::<std::result::Result<Vec<_>, _>>()?;
    let arg_fields: Vec<FieldRef> = args.iter().map(|arg| Arc::new(Field::new("arg", arg.data_type.clone(), arg.nullable))).collect();
    let scalars: Vec<_> = args
        .iter()
        .map(|arg| match &arg.expr {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        })
        .collect();
    let return_field = function.return_field_from_args(ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &scalars })?;
    let output = types::canonical_type(return_field.data_type()).ok_or_else(|| {
        CompileError::new(format!("function \"{}\" gives {}, which no feature can be", function.name(), return_field.data_type()))
    })?;
    let suffixes: Vec<_> = args.iter().map(|arg| suffix(&arg.data_type)).collect();
    let name = format!("{}_{}", function.name(), suffixes.join("_"));
    let kernel = NullOnError {
        function: Arc::clone(function),
        arg_fields,
        return_field,
        output: output.clone(),
        config: Arc::new(ConfigOptions::default()),
    };
    Ok(operation(name, kernel, output, Nulls::Any, args))
}

#[derive(Debug)]
struct NullOnError {
    function: Arc<ScalarUDF>,
    arg_fields: Vec<FieldRef>,
    return_field: FieldRef,
    output: DataType,
    config: Arc<ConfigOptions>,
}

impl Kernel for NullOnError {
    fn evaluate(&self, operands: &[Operand], rows: usize) -> Result<ArrayRef> {
        null_where_it_fails(0..rows, &self.output, &|rows| self.call(operands, rows))
    }
}

impl NullOnError {
    fn call(&self, operands: &[Operand], range: Range<usize>) -> Result<ArrayRef> {
        let rows = range.len();
        let args = operands.iter().map(|operand| operand.columnar(range.clone())).collect::<Result<Vec<_>>>()?;
        let result = self.function.invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields: self.arg_fields.clone(),
            number_rows: rows,
            return_field: Arc::clone(&self.return_field),
            config_options: Arc::clone(&self.config),
        })?;
        let result = result.into_array(rows)?;
        let result = cast::column(&result, &self.output)?;
        if result.len() != rows {
            return datafusion::common::internal_err!("{} gave {} rows for {rows}", self.function.name(), result.len());
        }
        Ok(canonical_nan(result))
    }
}
