//! Refuses what sqlparser reads and no planner would keep: no clause is accepted and ignored.
//!
//! DataFusion's planner takes what it knows from a node and drops the rest, mostly without a word. The nodes are taken apart here
//! field by field, so that a field that a later version adds does not compile until it is decided on. What the planner itself
//! refuses is left to it, unless a place in the text helps.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, DataType, Distinct, Expr, Function, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Join,
    JoinConstraint, JoinOperator, LimitClause, NamedWindowExpr, ObjectName, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectFlavor,
    SelectItem, SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins, Visit, Visitor, WildcardAdditionalOptions, WindowSpec,
    WindowType, With,
};

use crate::codes::{E0102, E0105};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// Refuses every clause in a query, its subqueries and CTEs included, that DataFusion's planner would drop silently.
pub fn check_query(query: &Query) -> Vec<Diagnostic> {
    run(query)
}

/// The same for an expression.
pub fn check_expression(expr: &Expr) -> Vec<Diagnostic> {
    run(expr)
}

/// Refuses clauses of a call (`OVER`, `FILTER`, `DISTINCT`, `ORDER BY`, `IGNORE NULLS`, `WITHIN GROUP`) where `is_scalar` says that
/// the function of this folded name is a scalar one: DataFusion's planner drops them silently.
pub fn check_scalar_calls(query: &Query, is_scalar: impl Fn(&str) -> bool) -> Vec<Diagnostic> {
    let mut calls = ScalarCalls { is_scalar, found: Vec::new() };
    let _ = query.visit(&mut calls);
    calls.found
}

/// Words that are never a column unquoted.
const NO_OPERAND: &str = "all and as asof between case create distinct else for from group having in into join limit on or order select \
    then union using when where with";

fn run(node: &impl Visit) -> Vec<Diagnostic> {
    let mut check = Check { found: Vec::new() };
    let _ = node.visit(&mut check);
    check.found
}

struct Check {
    found: Vec<Diagnostic>,
}

impl Visitor for Check {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.query(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.select(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.table_factor(factor);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.expr(expr);
        ControlFlow::Continue(())
    }
}

impl Check {
    fn refuse(&mut self, clause: &str, span: impl Into<Span>) {
        self.found.push(Diagnostic::error(E0105, span, format!("{clause} is not supported")));
    }

    fn refuse_if(&mut self, present: bool, clause: &str, span: impl Into<Span>) {
        if present {
            self.refuse(clause, span);
        }
    }

    fn query(&mut self, query: &Query) {
        let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } = query;
        let span = query.span();
        if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
            for Cte { alias, query: _, from, materialized, closing_paren_token: _ } in cte_tables {
                self.alias(alias);
                self.refuse_if(from.is_some(), "FROM behind a WITH query", alias.name.span);
                self.refuse_if(materialized.is_some(), "MATERIALIZED", alias.name.span);
            }
        }
        if let Some(OrderBy { kind, interpolate }) = order_by {
            self.refuse_if(interpolate.is_some(), "INTERPOLATE", span);
            match kind {
                OrderByKind::Expressions(exprs) => self.order_by(exprs),
                // Over a set operation the planner forgets it.
                OrderByKind::All(_) => {
                    self.refuse_if(!matches!(body.as_ref(), SetExpr::Select(_)), "ORDER BY ALL over a set operation", span);
                }
            }
        }
        match limit_clause {
            Some(LimitClause::LimitOffset { limit: _, offset: _, limit_by }) => {
                self.refuse_if(!limit_by.is_empty(), "LIMIT BY", limit_by.first().map_or(span, Spanned::span));
            }
            Some(LimitClause::OffsetCommaLimit { offset: _, limit: _ }) | None => {}
        }
        if let Some(fetch) = fetch {
            let span = fetch.quantity.as_ref().map_or(span, Spanned::span);
            self.found.push(Diagnostic::error(E0105, span, "FETCH is not supported").help("Write LIMIT n."));
        }
        for lock in locks {
            let place = lock.of.as_ref().map_or(span, Spanned::span);
            self.refuse(&format!("FOR {}", lock.lock_type), place);
        }
        self.refuse_if(for_clause.is_some(), "FOR XML, FOR JSON and FOR BROWSE", span);
        self.refuse_if(settings.is_some(), "SETTINGS", span);
        self.refuse_if(format_clause.is_some(), "FORMAT", span);
        self.refuse_if(!pipe_operators.is_empty(), "the pipe operator", span);
        self.set_expr(body);
    }

    fn set_expr(&mut self, body: &SetExpr) {
        let mut rest = vec![body];
        while let Some(body) = rest.pop() {
            match body {
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
                SetExpr::SetOperation { left, right, op: _, set_quantifier: _ } => rest.extend([left.as_ref(), right.as_ref()]),
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                    self.refuse("a statement that writes inside a query", body.span());
                }
                SetExpr::Table(_) => {
                    let error = Diagnostic::error(E0105, body.span(), "TABLE as a query is not supported");
                    self.found.push(error.help("Write SELECT * FROM the table."));
                }
            }
        }
    }

    fn select(&mut self, select: &Select) {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having: _,
            named_window,
            qualify: _,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let span = select.select_token.0.span;
        match distinct {
            Some(Distinct::All | Distinct::Distinct | Distinct::On(_)) | None => {}
        }
        self.refuse_if(!optimizer_hints.is_empty(), "a hint", span);
        self.refuse_if(select_modifiers.as_ref().is_some_and(|modifiers| modifiers.is_any_set()), "a modifier of SELECT", span);
        if top.is_some() {
            self.found.push(Diagnostic::error(E0105, span, "TOP is not supported").help("Write LIMIT n at the end."));
        }
        self.refuse_if(exclude.is_some(), "EXCLUDE behind the select list", span);
        if let Some(into) = into {
            self.refuse("SELECT INTO", into.name.span());
        }
        self.refuse_if(!lateral_views.is_empty(), "LATERAL VIEW", span);
        self.refuse_if(prewhere.is_some(), "PREWHERE", prewhere.as_ref().map_or(span, Spanned::span));
        self.refuse_if(!connect_by.is_empty(), "CONNECT BY", span);
        let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
        self.refuse_if(!modifiers.is_empty(), "a modifier of GROUP BY", group_by.span());
        for (clause, exprs) in [("CLUSTER BY", cluster_by), ("DISTRIBUTE BY", distribute_by)] {
            self.refuse_if(!exprs.is_empty(), clause, exprs.first().map_or(span, Spanned::span));
        }
        self.refuse_if(!sort_by.is_empty(), "SORT BY", sort_by.first().map_or(span, Spanned::span));
        self.refuse_if(value_table_mode.is_some(), "SELECT AS", span);
        if !matches!(flavor, SelectFlavor::Standard) {
            let error = Diagnostic::error(E0105, select.span(), "FROM before SELECT is not supported");
            self.found.push(error.help("Write SELECT ... FROM ...."));
        }
        for item in projection {
            self.select_item(item);
        }
        for window in named_window {
            match &window.1 {
                NamedWindowExpr::NamedWindow(_) => {}
                NamedWindowExpr::WindowSpec(spec) => self.window(spec),
            }
        }
        for TableWithJoins { relation: _, joins } in from {
            self.joins(joins);
        }
    }

    fn select_item(&mut self, item: &SelectItem) {
        match item {
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { expr: _, alias: _ } => {}
            SelectItem::ExprWithAliases { expr, aliases: _ } => self.refuse("a list of aliases", expr.span()),
            SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => {
                let WildcardAdditionalOptions {
                    wildcard_token,
                    opt_ilike: _,
                    opt_exclude: _,
                    opt_except: _,
                    opt_replace: _,
                    opt_rename,
                    opt_alias,
                } = options;
                self.refuse_if(opt_rename.is_some(), "RENAME behind *", wildcard_token.0.span);
                if let Some(alias) = opt_alias {
                    self.refuse("an alias of *", alias.span);
                }
            }
        }
    }

    fn joins(&mut self, joins: &[Join]) {
        for Join { relation, global, join_operator } in joins {
            self.refuse_if(*global, "GLOBAL", relation.span());
            match join_operator {
                JoinOperator::AsOf { match_condition, constraint: JoinConstraint::Natural } => {
                    self.refuse("NATURAL with ASOF JOIN", match_condition.span());
                }
                JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                    self.refuse("ARRAY JOIN", relation.span());
                }
                JoinOperator::CrossApply | JoinOperator::OuterApply => self.refuse("APPLY", relation.span()),
                JoinOperator::StraightJoin(_) => self.refuse("STRAIGHT_JOIN", relation.span()),
                JoinOperator::CrossJoin(constraint) => {
                    self.refuse_if(!matches!(constraint, JoinConstraint::None), "a condition of CROSS JOIN", relation.span());
                }
                // The planner plans these, or says that it does not.
                JoinOperator::AsOf { .. }
                | JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::FullOuter(_)
                | JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_)
                | JoinOperator::RightAnti(_) => {}
            }
        }
    }

    fn table_factor(&mut self, factor: &TableFactor) {
        let span = factor.span();
        match factor {
            TableFactor::Table { name, alias, args, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } => {
                let span = name.span();
                if version.is_some() {
                    let error = Diagnostic::error(E0105, span, "a version of a table is not supported");
                    self.found.push(error.help("AS OF stands behind FOR ENTITY; a training set joins a view with ASOF JOIN."));
                }
                let settings = args.as_ref().is_some_and(|args| args.settings.is_some());
                self.refuse_if(settings, "SETTINGS of a table function", span);
                self.refuse_if(!with_hints.is_empty() || !index_hints.is_empty(), "a hint on a table", span);
                self.refuse_if(*with_ordinality, "WITH ORDINALITY", span);
                self.refuse_if(!partitions.is_empty(), "PARTITION behind a table", span);
                self.refuse_if(json_path.is_some(), "a path into a table", span);
                self.refuse_if(sample.is_some(), "TABLESAMPLE", span);
                self.optional_alias(alias.as_ref());
            }
            TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
                self.refuse_if(sample.is_some(), "TABLESAMPLE", span);
                self.optional_alias(alias.as_ref());
            }
            TableFactor::Function { lateral: _, name, args: _, with_ordinality, alias } => {
                self.refuse_if(*with_ordinality, "WITH ORDINALITY", name.span());
                self.optional_alias(alias.as_ref());
            }
            TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias: _, with_ordinality } => {
                self.refuse_if(*with_offset, "WITH OFFSET", span);
                self.refuse_if(*with_ordinality, "WITH ORDINALITY", span);
                self.optional_alias(alias.as_ref());
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.joins(&table_with_joins.joins);
                self.optional_alias(alias.as_ref());
            }
            TableFactor::TableFunction { .. } => self.refuse("TABLE(...) in FROM", span),
            TableFactor::JsonTable { .. } => self.refuse("JSON_TABLE", span),
            TableFactor::OpenJsonTable { .. } => self.refuse("OPENJSON", span),
            TableFactor::Pivot { .. } => self.refuse("PIVOT", span),
            TableFactor::Unpivot { .. } => self.refuse("UNPIVOT", span),
            TableFactor::MatchRecognize { .. } => self.refuse("MATCH_RECOGNIZE", span),
            TableFactor::XmlTable { .. } => self.refuse("XMLTABLE", span),
            TableFactor::SemanticView { .. } => self.refuse("SEMANTIC_VIEW", span),
        }
    }

    fn optional_alias(&mut self, alias: Option<&TableAlias>) {
        if let Some(alias) = alias {
            self.alias(alias);
        }
    }

    fn alias(&mut self, alias: &TableAlias) {
        let TableAlias { explicit: _, name: _, columns, at } = alias;
        for column in columns {
            self.refuse_if(column.data_type.is_some(), "a type in an alias", column.name.span);
        }
        if let Some(at) = at {
            self.refuse("AT behind an alias", at.span);
        }
    }

    fn order_by(&mut self, exprs: &[OrderByExpr]) {
        for OrderByExpr { expr, options: _, with_fill } in exprs {
            self.refuse_if(with_fill.is_some(), "WITH FILL", expr.span());
        }
    }

    fn window(&mut self, window: &WindowSpec) {
        let WindowSpec { window_name, partition_by: _, order_by, window_frame: _ } = window;
        if let Some(name) = window_name {
            let error = Diagnostic::error(E0105, name.span, "a window inside the definition of a window is not supported");
            self.found.push(error.help(format!("Write OVER {name} without parentheses, or the whole window.")));
        }
        self.order_by(order_by);
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Function(function) => self.function(function),
            Expr::Cast { data_type, .. } => self.data_type(data_type, expr.span()),
            Expr::Trim { trim_characters: Some(characters), .. } => {
                self.refuse_if(characters.len() > 1, "TRIM with several strings", expr.span());
            }
            // sqlparser takes any word for a name where an operand is missing: `SELECT a + FROM t`.
            Expr::Identifier(Ident { value, quote_style: None, span })
                if NO_OPERAND.split_whitespace().any(|word| value.eq_ignore_ascii_case(word)) =>
            {
                let error = Diagnostic::error(E0102, *span, format!("expected an expression, found \"{value}\""));
                self.found.push(error.help("A column of this name needs double quotes."));
            }
            Expr::Collate { collation, .. } => self.refuse("COLLATE", collation.span()),
            _ => {}
        }
    }

    /// The planner reads over lengths and widths of types.
    fn data_type(&mut self, data_type: &DataType, span: impl Into<Span>) {
        let ignored = match data_type {
            DataType::Varchar(length) | DataType::Char(length) => length.is_some(),
            DataType::String(length)
            | DataType::TinyInt(length)
            | DataType::SmallInt(length)
            | DataType::Int2(length)
            | DataType::Int(length)
            | DataType::Integer(length)
            | DataType::Int4(length)
            | DataType::BigInt(length)
            | DataType::Int8(length)
            | DataType::TinyIntUnsigned(length)
            | DataType::SmallIntUnsigned(length)
            | DataType::Int2Unsigned(length)
            | DataType::IntUnsigned(length)
            | DataType::IntegerUnsigned(length)
            | DataType::Int4Unsigned(length)
            | DataType::BigIntUnsigned(length)
            | DataType::Int8Unsigned(length) => length.is_some(),
            DataType::Float(precision) => !matches!(precision, datafusion::sql::sqlparser::ast::ExactNumberInfo::None),
            _ => false,
        };
        if ignored {
            let error = Diagnostic::error(E0105, span, format!("the length of {data_type} is not supported"));
            self.found.push(error.help("Write the type without a length."));
        }
    }

    fn function(&mut self, function: &Function) {
        let Function { name, uses_odbc_syntax: _, parameters, args, filter: _, null_treatment: _, over, within_group } = function;
        let span = name.span();
        self.refuse_if(!matches!(parameters, FunctionArguments::None), "a second list of arguments", span);
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => self.refuse("a query in place of the arguments", query.span()),
            FunctionArguments::List(list) => {
                let order_by = list.clauses.iter().find_map(|clause| match clause {
                    FunctionArgumentClause::OrderBy(exprs) => Some(exprs),
                    _ => None,
                });
                if let Some(exprs) = order_by {
                    self.order_by(exprs);
                }
            }
        }
        if let Some(WindowType::WindowSpec(window)) = over {
            self.window(window);
        }
        self.order_by(within_group);
    }
}

struct ScalarCalls<F> {
    is_scalar: F,
    found: Vec<Diagnostic>,
}

impl<F: Fn(&str) -> bool> Visitor for ScalarCalls<F> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(name) = simple_name(&function.name)
            && (self.is_scalar)(&name)
        {
            for clause in call_clauses(function) {
                let message = format!("{clause} is not supported with the scalar function \"{name}\"");
                self.found.push(Diagnostic::error(E0105, function.name.span(), message));
            }
        }
        ControlFlow::Continue(())
    }
}

fn simple_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| crate::ast::fold(&ident.value, ident.quote_style.is_some())),
        _ => None,
    }
}

/// The clauses of a call that only aggregates and window functions heed.
fn call_clauses(function: &Function) -> Vec<&'static str> {
    let mut clauses = Vec::new();
    let mut add = |present: bool, clause| {
        if present {
            clauses.push(clause);
        }
    };
    if let FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args: _, clauses }) = &function.args {
        add(duplicate_treatment.is_some(), "DISTINCT or ALL");
        add(clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))), "ORDER BY");
        add(clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_))), "IGNORE or RESPECT NULLS");
    }
    add(function.null_treatment.is_some(), "IGNORE or RESPECT NULLS");
    add(function.filter.is_some(), "FILTER");
    add(function.over.is_some(), "OVER");
    add(!function.within_group.is_empty(), "WITHIN GROUP");
    clauses
}
