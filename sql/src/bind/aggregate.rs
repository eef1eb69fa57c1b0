//! Aggregate calls of a SELECT list: found, checked, and replaced by names that finishing expressions read.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use asof_udfs::scalar::{self, Compiled};
use asof_udfs::{Aggregate, Bound, Frame, Function, Program};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::sql::sqlparser::ast::{self, Spanned, Visit, VisitMut, Visitor, VisitorMut};

use super::Errors;
use super::expr::{ExprBinder, refused, span_of};
use super::frame::{Implied, NamedWindows};
use super::scope::Scope;
use crate::codes;
use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::{AS_OF, AggregateCall, DeferredAggregate, StoredValue, instant_type};
use crate::span::Span;

/// The arguments of a plain call, `f(a, b)`; `None` where it has clauses, names or wildcards.
pub(crate) fn plain_arguments(f: &ast::Function) -> Option<Vec<&ast::Expr>> {
    let ast::FunctionArguments::List(list) = &f.args else {
        return matches!(f.args, ast::FunctionArguments::None).then(Vec::new);
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    list.args.iter().map(|a| if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) = a { Some(e) } else { None }).collect()
}

/// The place of the first `as_of()` in an expression.
pub(crate) fn mentions_instant(expr: &ast::Expr) -> Option<Span> {
    struct Find(Option<Span>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, e: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Function(f) = e
                && is_as_of(f)
            {
                self.0 = Some(span_of(e));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(None);
    let _ = expr.visit(&mut find);
    find.0
}

fn name_of(f: &ast::Function) -> String {
    f.name.to_string().to_lowercase()
}

fn is_as_of(f: &ast::Function) -> bool {
    name_of(f) == "as_of"
}

const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "mean",
    "var_pop",
    "var_samp",
    "var",
    "variance",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "min",
    "max",
    "first_value",
    "last_value",
    "array_agg",
    "first_n",
    "last_n",
    "median",
    "percentile_cont",
    "approx_distinct",
    "approx_percentile_cont",
];

/// Window functions of SQL that no entity's feature is made of, with what to write instead.
const NOT_AGGREGATES: &[(&str, &str)] = &[
    ("lag", "Write last_value(x) OVER (ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING)."),
    ("lead", "A feature cannot read what follows the instant."),
    ("nth_value", "Write first_n(x, n) or last_n(x, n)."),
    ("row_number", "Write count(*) OVER (RANGE UNBOUNDED PRECEDING)."),
    ("rank", "Ranks compare entities; compute them around the training query."),
    ("dense_rank", "Ranks compare entities; compute them around the training query."),
    ("percent_rank", "Ranks compare entities; compute them around the training query."),
    ("cume_dist", "Ranks compare entities; compute them around the training query."),
    ("ntile", "Ranks compare entities; compute them around the training query."),
];

/// Whether a folded name is that of an aggregate, or of a window function that has its own refusal.
pub(crate) fn is_aggregate_name(name: &str) -> bool {
    AGGREGATES.contains(&name) || NOT_AGGREGATES.iter().any(|(n, _)| *n == name)
}

fn is_aggregate(f: &ast::Function) -> bool {
    let name = name_of(f);
    f.over.is_some() || AGGREGATES.contains(&name.as_str()) || NOT_AGGREGATES.iter().any(|(n, _)| *n == name)
}

fn is_window_bound(f: &ast::Function) -> bool {
    matches!(name_of(f).as_str(), "window_start" | "window_end")
}

/// Whether an expression holds an aggregate call.
pub(crate) fn has_aggregate(expr: &ast::Expr) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, e: &ast::Expr) -> ControlFlow<()> {
            match e {
                ast::Expr::Function(f) if is_aggregate(f) || is_window_bound(f) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Find).is_break()
}

/// An aggregate call as found, in the order of the text; its result is read under [`Call::name`].
pub(crate) struct Call {
    /// The name that stands for it in finishing expressions.
    pub name: String,
    /// What it computes.
    pub kind: CallKind,
    /// Two calls of one key are one call.
    key: String,
}

/// Who computes a call.
pub(crate) enum CallKind {
    /// The run, from its partial results.
    Run(AggregateCall),
    /// The read, from the raw events of the window.
    Deferred(Box<DeferredAggregate>),
}

/// Collects the aggregate calls of one view.
pub(crate) struct Aggregates<'a> {
    scope: &'a Scope,
    rows: DFSchema,
    rows_at_instant: DFSchema,
    named: NamedWindows<'a>,
    implied: Implied<'a>,
    /// The frame of a grouped view: its aggregates are written without OVER.
    grouped: Option<Frame>,
    /// The mask of the newest row in a latest-row view.
    shown: Option<usize>,
    pub(crate) values: Vec<StoredValue>,
    pub(crate) masks: Vec<Compiled>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) calls: Vec<Call>,
    pub(crate) errors: Errors,
}

impl<'a> Aggregates<'a> {
    pub(crate) fn new(scope: &'a Scope, named: NamedWindows<'a>, implied: Implied<'a>, grouped: Option<Frame>) -> Self {
        Self {
            scope,
            rows: scope.df_schema(),
            rows_at_instant: scope.df_schema_at_instant(),
            named,
            implied,
            grouped,
            shown: None,
            values: vec![],
            masks: vec![],
            frames: vec![],
            calls: vec![],
            errors: vec![],
        }
    }

    /// Replaces every aggregate call and `as_of()` of a SELECT item by a name.
    pub(crate) fn extract(&mut self, expr: &mut ast::Expr) {
        let _ = VisitMut::visit(expr, &mut Extract(self));
    }

    /// Has the newest row of a latest-row view show only where a condition over the relation holds; else it is as if there were none.
    pub(crate) fn show_only(&mut self, condition: &ast::Expr) {
        if let Some(condition) = self.ok(ExprBinder::shared().compile(condition, &self.rows)) {
            self.shown = Some(self.mask(condition));
        }
    }

    /// The name that stands for the newest row's value of an expression over the relation: for latest-row views.
    pub(crate) fn latest(&mut self, sql: &ast::Expr) -> Option<String> {
        let compiled = self.ok(ExprBinder::shared().compile(sql, &self.rows))?;
        let data_type = compiled.data_type.clone();
        let value = Some(self.value(compiled));
        let frame = self.frame(Frame::Rows { start: Some(0), end: 0 });
        let call = AggregateCall {
            name: String::new(),
            function: Function::LastValue,
            value,
            mask: self.shown,
            frame,
            data_type,
            text: sql.to_string(),
        };
        self.ok(self.checked(&call, span_of(sql)))?;
        Some(self.add(CallKind::Run(call)))
    }

    fn ok<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|d| self.errors.push(d)).ok()
    }

    fn value(&mut self, expr: Compiled) -> usize {
        let key = expr.text();
        match self.values.iter().position(|v| v.expr.text() == key) {
            Some(i) => i,
            None => {
                self.values.push(StoredValue { expr });
                self.values.len() - 1
            }
        }
    }

    fn mask(&mut self, expr: Compiled) -> usize {
        let key = expr.text();
        match self.masks.iter().position(|m| m.text() == key) {
            Some(i) => i,
            None => {
                self.masks.push(expr);
                self.masks.len() - 1
            }
        }
    }

    fn frame(&mut self, frame: Frame) -> usize {
        match self.frames.iter().position(|f| *f == frame) {
            Some(i) => i,
            None => {
                self.frames.push(frame);
                self.frames.len() - 1
            }
        }
    }

    fn add(&mut self, mut kind: CallKind) -> String {
        let key = match &kind {
            CallKind::Run(c) => format!("{:?} {:?} {:?} {}", c.function, c.value, c.mask, c.frame),
            CallKind::Deferred(d) => format!(
                "{:?} {:?} {:?} {:?} {}",
                d.function,
                d.argument.as_ref().map(|a| a.text()),
                d.filter.as_ref().map(|f| f.text()),
                d.inputs,
                d.frame
            ),
        };
        if let Some(call) = self.calls.iter().find(|c| c.key == key) {
            return call.name.clone();
        }
        let name = format!("__aggregate_{}", self.calls.len());
        match &mut kind {
            CallKind::Run(c) => c.name.clone_from(&name),
            CallKind::Deferred(d) => d.name.clone_from(&name),
        }
        self.calls.push(Call { name: name.clone(), kind, key });
        name
    }

    fn call(&mut self, f: &ast::Function) -> Result<String, Diagnostic> {
        let (at, name): (Span, String) = (f.span().into(), name_of(f));
        if let Some((_, help)) = NOT_AGGREGATES.iter().find(|(n, _)| *n == name) {
            return Err(Diagnostic::error(codes::E0303, at, format!("\"{name}\" is not an aggregate of feature views")).help(*help));
        }
        if is_window_bound(f) {
            return self.window_bound(f, &name, at);
        }
        if !AGGREGATES.contains(&name.as_str()) {
            let d = Diagnostic::error(codes::E0303, at, format!("\"{name}\" is not an aggregate of feature views"));
            return Err(match nearest(&name, AGGREGATES.iter().copied()) {
                Some(near) => d.help(format!("The nearest aggregate is \"{near}\".")),
                None => d.help(format!("Aggregates: {}.", AGGREGATES.join(", "))),
            });
        }
        if f.null_treatment.is_some() {
            return Err(Diagnostic::error(codes::E0305, at, "IGNORE NULLS and RESPECT NULLS are not supported")
                .help("NULLs are kept by first_value, last_value and arrays; add FILTER (WHERE x IS NOT NULL)."));
        }
        if !f.within_group.is_empty() {
            return Err(Diagnostic::error(codes::E0305, at, "WITHIN GROUP is not supported").help(format!("Write {name}(x, 0.5).")));
        }
        let frame = match (&f.over, self.grouped) {
            (Some(over), None) => self.named.frame(over, &self.implied, at)?,
            (None, Some(frame)) => frame,
            (Some(_), Some(_)) => {
                return Err(Diagnostic::error(codes::E0305, at, "an aggregate with OVER cannot stand in a grouped view")
                    .help("Leave OVER out, or leave GROUP BY out and give every aggregate a window."));
            }
            (None, None) => {
                return Err(Diagnostic::error(codes::E0301, at, format!("aggregate \"{name}\" has no window"))
                    .help("Add OVER (RANGE INTERVAL '1 hour' PRECEDING), or GROUP BY the entity for all events up to the instant."));
            }
        };
        let (function, argument) = function_of(f, &name, at)?;
        let deferred = argument.as_ref().is_some_and(mentions_as_of) || f.filter.as_ref().is_some_and(|e| mentions_as_of(e));
        let frame_index = match frame {
            // Its events are read one by one, so that none of them may be folded: a frame without aggregates keeps them all.
            Frame::Session { .. } if deferred => {
                self.frames.push(frame);
                self.frames.len() - 1
            }
            _ => self.frame(frame),
        };
        if deferred {
            return self.deferred(f, function, argument, frame, frame_index, at);
        }
        let value = match &argument {
            Some(sql) => {
                let compiled = ExprBinder::shared().compile(sql, &self.rows)?;
                Some(self.value(compiled))
            }
            None => None,
        };
        let mask = match &f.filter {
            Some(sql) => {
                let compiled = ExprBinder::shared().predicate(sql, &self.rows)?;
                Some(self.mask(compiled))
            }
            None => None,
        };
        let data_type = self.result_type(function, value.map(|v| &self.values[v].expr.data_type), at)?;
        let call = AggregateCall { name: String::new(), function, value, mask, frame: frame_index, data_type, text: f.to_string() };
        self.checked(&call, at)?;
        Ok(self.add(CallKind::Run(call)))
    }

    fn result_type(&self, function: Function, argument: Option<&DataType>, at: Span) -> Result<DataType, Diagnostic> {
        Program::result_type(function, argument).map_err(|e| {
            let error = Diagnostic::error(codes::E0402, at, e.to_string());
            match argument {
                Some(DataType::Boolean) => error.help("Count what is true: count(*) FILTER (WHERE column); or CAST it to INTEGER."),
                _ => error,
            }
        })
    }

    /// The run itself has the last word on what it can compute.
    fn checked(&self, call: &AggregateCall, at: Span) -> Result<(), Diagnostic> {
        let values = call.value.map(|v| self.values[v].expr.data_type.clone());
        let aggregate = Aggregate { function: call.function, value: values.as_ref().map(|_| 0), mask: None, frame: 0 };
        let program = Program::try_new(values.into_iter().collect(), 0, true, vec![self.frames[call.frame]], vec![aggregate], None);
        program.map(|_| ()).map_err(|e| Diagnostic::error(codes::E0402, at, e.to_string()))
    }

    fn window_bound(&mut self, f: &ast::Function, name: &str, at: Span) -> Result<String, Diagnostic> {
        let frame = match self.grouped {
            Some(frame @ (Frame::Tumble { .. } | Frame::Session { .. })) => frame,
            _ => {
                return Err(Diagnostic::error(codes::E0303, at, format!("{name}() needs a grouped window"))
                    .help("It stands in views with GROUP BY entity, TUMBLE(...), HOP(...) or SESSION(...)."));
            }
        };
        if plain_arguments(f).is_none_or(|a| !a.is_empty()) || f.over.is_some() || f.filter.is_some() {
            return Err(Diagnostic::error(codes::E0305, at, format!("{name}() takes no argument and no clause")));
        }
        let function = if name == "window_start" { Function::WindowStart } else { Function::WindowEnd };
        let frame = self.frame(frame);
        let call =
            AggregateCall { name: String::new(), function, value: None, mask: None, frame, data_type: instant_type(), text: f.to_string() };
        Ok(self.add(CallKind::Run(call)))
    }

    fn deferred(
        &mut self,
        f: &ast::Function,
        function: Function,
        argument: Option<ast::Expr>,
        frame: Frame,
        frame_index: usize,
        at: Span,
    ) -> Result<String, Diagnostic> {
        let unbounded = matches!(frame, Frame::Range { start: Bound::Unbounded, .. } | Frame::Rows { start: None, .. });
        if unbounded {
            return Err(Diagnostic::error(
                codes::E0309,
                at,
                "as_of() inside an aggregate over an unbounded window would read every event at each read",
            )
            .help("Give the window a bound, as RANGE INTERVAL '30 days' PRECEDING."));
        }
        let argument = argument.as_ref().map(with_instant);
        let filter_sql = f.filter.as_deref().map(with_instant);
        // The expressions are compiled against the relation to learn which columns they read, then against those columns alone.
        let binder = ExprBinder::shared();
        let logical = |sql: &ast::Expr| binder.logical(sql, &self.rows_at_instant);
        let argument_expr = argument.as_ref().map(logical).transpose()?;
        let filter_expr = filter_sql.as_ref().map(logical).transpose()?;
        let mut columns: Vec<usize> = Vec::new();
        for (expr, sql) in [(&argument_expr, argument.as_ref()), (&filter_expr, filter_sql.as_ref())] {
            let (Some(expr), Some(sql)) = (expr, sql) else { continue };
            let whole = self.compile_logical(expr.clone(), &self.rows_at_instant, sql)?;
            columns.extend(collect_columns(&whole.expr).iter().map(|c| c.index()).filter(|i| *i < self.scope.columns.len()));
        }
        columns.sort_unstable();
        columns.dedup();
        let mut inputs = Vec::new();
        for column in &columns {
            let (qualifier, field) = &self.scope.columns[*column];
            let expr = Expr::Column(datafusion::common::Column::new(qualifier.clone(), field.name()));
            let compiled = self.compile_logical(
                expr,
                &self.rows,
                argument.as_ref().or(filter_sql.as_ref()).unwrap_or(&ast::Expr::Identifier("as_of".into())),
            )?;
            inputs.push(self.value(compiled));
        }
        let mut fields: Vec<_> = columns.iter().map(|c| self.scope.columns[*c].clone()).collect();
        fields.push((None, Arc::new(arrow::datatypes::Field::new(AS_OF, instant_type(), true))));
        let narrow = Scope { columns: fields, ..self.scope.clone() }.df_schema();
        let compile = |expr: &Option<Expr>, sql: Option<&ast::Expr>| match (expr, sql) {
            (Some(expr), Some(sql)) => self.compile_logical(expr.clone(), &narrow, sql).map(Some),
            _ => Ok(None),
        };
        let argument = compile(&argument_expr, argument.as_ref())?;
        let filter = compile(&filter_expr, filter_sql.as_ref())?;
        if let Some(d) = filter.as_ref().filter(|c| !matches!(c.data_type, DataType::Boolean | DataType::Null)) {
            return Err(Diagnostic::error(
                codes::E0402,
                at,
                format!("a condition must be BOOLEAN, found {}", scalar::sql_name(&d.data_type)),
            ));
        }
        let data_type = self.result_type(function, argument.as_ref().map(|a| &a.data_type), at)?;
        let values: Vec<_> = argument.iter().map(|a| a.data_type.clone()).collect();
        let aggregate = Aggregate { function, value: argument.as_ref().map(|_| 0), mask: filter.as_ref().map(|_| 0), frame: 0 };
        let program = Program::try_new(values, usize::from(filter.is_some()), true, vec![Frame::UNBOUNDED], vec![aggregate], None)
            .map_err(|e| Diagnostic::error(codes::E0402, at, e.to_string()))?;
        Ok(self.add(CallKind::Deferred(Box::new(DeferredAggregate {
            name: String::new(),
            function,
            inputs,
            argument,
            filter,
            frame: frame_index,
            data_type,
            program: Arc::new(program),
            text: f.to_string(),
        }))))
    }

    fn compile_logical(&self, expr: Expr, schema: &DFSchema, sql: &ast::Expr) -> Result<Compiled, Diagnostic> {
        scalar::compile(expr, schema).map_err(|e| refused(&e, span_of(sql)))
    }
}

fn mentions_as_of(sql: &ast::Expr) -> bool {
    mentions_instant(sql).is_some()
}

struct Extract<'a, 'b>(&'a mut Aggregates<'b>);

impl VisitorMut for Extract<'_, '_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let ast::Expr::Function(f) = expr else { return ControlFlow::Continue(()) };
        let span = f.span();
        let name = if is_as_of(f) {
            if plain_arguments(f).is_none_or(|a| !a.is_empty()) || f.over.is_some() || f.filter.is_some() {
                self.0.errors.push(Diagnostic::error(codes::E0305, Span::from(span), "as_of() takes no argument and no clause"));
            }
            AS_OF.to_owned()
        } else if is_aggregate(f) || is_window_bound(f) {
            match self.0.call(f) {
                Ok(name) => name,
                Err(d) => {
                    self.0.errors.push(d);
                    return ControlFlow::Break(());
                }
            }
        } else {
            return ControlFlow::Continue(());
        };
        let mut ident = ast::Ident::new(name);
        ident.span = span;
        *expr = ast::Expr::Identifier(ident);
        ControlFlow::Continue(())
    }
}

/// Replaces `as_of()` by the instant's name inside an aggregate's own expressions.
fn with_instant(sql: &ast::Expr) -> ast::Expr {
    struct Replace;
    impl VisitorMut for Replace {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Function(f) = expr
                && is_as_of(f)
            {
                let mut ident = ast::Ident::new(AS_OF);
                ident.span = f.span();
                *expr = ast::Expr::Identifier(ident);
            }
            ControlFlow::Continue(())
        }
    }
    let mut sql = sql.clone();
    let _ = VisitMut::visit(&mut sql, &mut Replace);
    sql
}

/// The function of a call and its argument.
fn function_of(f: &ast::Function, name: &str, at: Span) -> Result<(Function, Option<ast::Expr>), Diagnostic> {
    let ast::FunctionArguments::List(list) = &f.args else {
        return Err(Diagnostic::error(codes::E0305, at, format!("aggregate \"{name}\" needs an argument")));
    };
    if let Some(clause) = list.clauses.first() {
        return Err(Diagnostic::error(codes::E0305, at, format!("\"{clause}\" is not supported inside an aggregate"))
            .help("Events have one order, that of event time; leave ORDER BY out."));
    }
    let distinct = matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
    let star = matches!(list.args.as_slice(), [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)]);
    if star {
        return match (name, distinct) {
            ("count", false) => Ok((Function::CountAll, None)),
            ("count", true) => {
                Err(Diagnostic::error(codes::E0305, at, "count(DISTINCT *) is not supported").help("Name the column to count."))
            }
            _ => Err(Diagnostic::error(codes::E0305, at, format!("{name}(*) is not supported"))),
        };
    }
    let args: Option<Vec<&ast::Expr>> =
        list.args.iter().map(|a| if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) = a { Some(e) } else { None }).collect();
    let args = args.ok_or_else(|| Diagnostic::error(codes::E0305, at, "an aggregate's argument must be a plain expression"))?;
    let two = matches!(name, "first_n" | "last_n" | "percentile_cont" | "approx_percentile_cont");
    if args.len() != 1 + usize::from(two) {
        let shape = if two { format!("{name}(x, n)") } else { format!("{name}(x)") };
        return Err(Diagnostic::error(codes::E0305, at, format!("aggregate \"{name}\" is written {shape}")));
    }
    if distinct && !matches!(name, "count" | "sum" | "avg" | "mean" | "min" | "max") {
        return Err(Diagnostic::error(codes::E0305, at, format!("DISTINCT does not stand in \"{name}\""))
            .help("DISTINCT stands in count, sum, avg, min and max."));
    }
    if args.iter().any(|a| has_aggregate(a)) {
        return Err(
            Diagnostic::error(codes::E0305, at, "aggregates do not nest").help("Compute the inner one as a feature of its own view.")
        );
    }
    let count = |e: &ast::Expr| match e.to_string().parse::<u32>() {
        Ok(n) if (1..=1_000_000).contains(&n) => Ok(n),
        _ => Err(Diagnostic::error(codes::E0403, span_of(e), "n must be a whole number from 1 to 1000000")),
    };
    let fraction = |e: &ast::Expr| match e.to_string().parse::<f64>() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err(Diagnostic::error(codes::E0403, span_of(e), "p must be a number from 0 to 1")),
    };
    let function = match (name, distinct) {
        ("count", false) => Function::Count,
        ("count", true) => Function::CountDistinct,
        ("sum", false) => Function::Sum,
        ("sum", true) => Function::SumDistinct,
        ("avg" | "mean", false) => Function::Avg,
        ("avg" | "mean", true) => Function::AvgDistinct,
        ("var_pop", _) => Function::VarPop,
        ("var_samp" | "var" | "variance", _) => Function::VarSamp,
        ("stddev_pop", _) => Function::StddevPop,
        ("stddev" | "stddev_samp", _) => Function::StddevSamp,
        ("min", _) => Function::Min,
        ("max", _) => Function::Max,
        ("first_value", _) => Function::FirstValue,
        ("last_value", _) => Function::LastValue,
        ("array_agg", _) => Function::ArrayAgg,
        ("first_n", _) => Function::FirstN(count(args[1])?),
        ("last_n", _) => Function::LastN(count(args[1])?),
        ("median", _) => Function::Median,
        ("percentile_cont", _) => Function::PercentileCont(fraction(args[1])?),
        ("approx_distinct", _) => Function::ApproxDistinct,
        _ => Function::ApproxPercentileCont(fraction(args[1])?),
    };
    Ok((function, Some(args[0].clone())))
}
