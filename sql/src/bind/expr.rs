//! Scalar expressions: from SQL text to a compiled form, with errors that point at their place.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use asof_udfs::scalar::{self, Compiled};
use datafusion::common::{DFSchema, DataFusionError, SchemaError, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{self, Spanned, Visit, Visitor};

use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, nearest};
use crate::span::Span;

/// Turns SQL expressions into logical ones, knowing only the scalar functions of feature views.
#[derive(Debug)]
pub struct ExprBinder {
    functions: HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

static BINDER: LazyLock<ExprBinder> = LazyLock::new(ExprBinder::new);

impl ExprBinder {
    fn new() -> Self {
        let mut functions = HashMap::new();
        for f in scalar::functions() {
            for alias in f.aliases() {
                functions.insert(alias.clone(), f.clone());
            }
            functions.insert(f.name().to_owned(), f);
        }
        Self { functions, planners: scalar::expr_planners(), options: ConfigOptions::default() }
    }

    /// The one binder of the process.
    pub fn shared() -> &'static ExprBinder {
        &BINDER
    }

    /// A logical expression over the columns of a schema; not yet coerced.
    pub fn logical(&self, sql: &ast::Expr, schema: &DFSchema) -> Result<Expr, Diagnostic> {
        let planner = SqlToRel::new_with_options(self, ParserOptions::new().with_collect_spans(false));
        let expr = planner.sql_to_expr(sql.clone(), schema, &mut PlannerContext::new());
        expr.map_err(|e| diagnostic_of(&e, sql, schema))
    }

    /// A compiled expression over the columns of a schema.
    pub fn compile(&self, sql: &ast::Expr, schema: &DFSchema) -> Result<Compiled, Diagnostic> {
        let expr = self.logical(sql, schema)?;
        scalar::compile(expr, schema).map_err(|e| refused(&e, span_of(sql)))
    }

    /// Whether a folded name is that of a scalar function.
    pub fn is_scalar(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// A compiled predicate: BOOLEAN.
    pub fn predicate(&self, sql: &ast::Expr, schema: &DFSchema) -> Result<Compiled, Diagnostic> {
        let compiled = self.compile(sql, schema)?;
        if !matches!(compiled.data_type, DataType::Boolean | DataType::Null) {
            let message = format!("a condition must be BOOLEAN, found {}", scalar::sql_name(&compiled.data_type));
            return Err(Diagnostic::error(codes::E0402, span_of(sql), message));
        }
        Ok(compiled)
    }
}

impl ContextProvider for ExprBinder {
    fn get_table_source(&self, name: TableReference) -> datafusion::common::Result<Arc<dyn TableSource>> {
        plan_err!("a subquery is not supported in an expression of a feature view: \"{name}\"")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).cloned()
    }
    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An identifier as it is looked up.
pub(crate) fn fold(identifier: &ast::Ident) -> String {
    crate::ast::fold(&identifier.value, identifier.quote_style.is_some())
}

/// The place of a node in the text.
pub(crate) fn span_of(node: &impl Spanned) -> Span {
    node.span().into()
}

/// Why an expression cannot stand in a feature view, at its place.
pub(crate) fn refused(error: &scalar::CompileError, span: Span) -> Diagnostic {
    if let Some((_, name)) = error.message.split_once("Ambiguous reference to unqualified field ") {
        return Diagnostic::error(codes::E0203, span, format!("column \"{}\" is ambiguous", name.trim_matches('"')))
            .help("Qualify it with the table's name or alias.");
    }
    let code = if error.message.contains("not immutable") { codes::E0404 } else { codes::E0405 };
    let d = Diagnostic::error(code, span, error.message.clone());
    match &error.help {
        Some(help) => d.help(help.clone()),
        None => d,
    }
}

/// The error below what only adds words to it.
fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(inner),
        other => other.find_root(),
    }
}

/// A planner's error as a diagnostic at the expression, or at the name inside it that is to blame.
pub fn diagnostic_of(error: &DataFusionError, sql: &ast::Expr, schema: &DFSchema) -> Diagnostic {
    match root(error) {
        DataFusionError::SchemaError(schema_error, _) => match schema_error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => unknown_column(&field.name, sql, schema),
            SchemaError::AmbiguousReference { field } => {
                let span = name_span(sql, &field.name).unwrap_or_else(|| span_of(sql));
                Diagnostic::error(codes::E0203, span, format!("column \"{}\" is ambiguous", field.name))
                    .help("Qualify it with the table's name or alias.")
            }
            other => at(codes::E0405, sql, other.to_string()),
        },
        DataFusionError::Plan(message) if message.contains("Invalid function") => {
            let name = message.split('\'').nth(1).unwrap_or_default().to_owned();
            let d = Diagnostic::error(
                codes::E0201,
                function_span(sql, &name).unwrap_or_else(|| span_of(sql)),
                format!("unknown function \"{name}\""),
            );
            let known = ExprBinder::shared().udf_names();
            match nearest(&name, known.iter().map(String::as_str)) {
                Some(near) => d.help(format!("The nearest known function is \"{near}\".")),
                None => d,
            }
        }
        other => {
            let message = other.strip_backtrace();
            let message = message.strip_prefix("Error during planning: ").unwrap_or(&message);
            at(codes::E0405, sql, message.lines().next().unwrap_or_default().to_owned())
        }
    }
}

fn at(code: Code, sql: &ast::Expr, message: String) -> Diagnostic {
    Diagnostic::error(code, span_of(sql), message)
}

fn unknown_column(name: &str, sql: &ast::Expr, schema: &DFSchema) -> Diagnostic {
    let span = name_span(sql, name).unwrap_or_else(|| span_of(sql));
    let d = Diagnostic::error(codes::E0201, span, format!("unknown column \"{name}\""));
    let known = schema.fields().iter().map(|f| f.name().as_str()).filter(|n| !n.starts_with("__"));
    match nearest(name, known) {
        Some(near) => d.help(format!("The nearest known column is \"{near}\".")),
        None => d,
    }
}

/// The place of the first identifier of a name inside an expression.
pub(crate) fn name_span(sql: &ast::Expr, name: &str) -> Option<Span> {
    struct Find<'a>(&'a str, Option<Span>);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            let found = match expr {
                ast::Expr::Identifier(i) => Some(i),
                ast::Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            if let Some(i) = found.filter(|i| i.value.eq_ignore_ascii_case(self.0)) {
                self.1 = Some(Span::from(i.span));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(name, None);
    let _ = sql.visit(&mut find);
    find.1
}

fn function_span(sql: &ast::Expr, name: &str) -> Option<Span> {
    struct Find<'a>(&'a str, Option<Span>);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Function(f) = expr
                && f.name.to_string().eq_ignore_ascii_case(self.0)
            {
                self.1 = Some(f.name.span().into());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(name, None);
    let _ = sql.visit(&mut find);
    find.1
}
