//! What sqlparser reads inside our statements: its generic dialect without what no planner here would keep.
//!
//! - It answers as [`GenericDialect`] wherever sqlparser asks for the dialect by type, so that all of that grammar holds.
//! - Clauses of other systems that DataFusion drops without a word (`SETTINGS`, `FORMAT`, `PREWHERE`, `WITH FILL`, ...) are off:
//!   they are syntax errors here. What cannot be switched off is refused by `check`.
//! - Comments are comments: hints in them (`/*! ... */`, `/*+ ... */`) are not read.
//! - `IS [NOT] DISTINCT FROM` binds like `IS NULL`; sqlparser on its own takes all that follows for the right operand.
//! - sqlparser tries alternatives one after another, which on hostile text takes time exponential in the nesting. The dialect is
//!   asked before every operand, so it can count: when the fuel is spent the parser stops.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{self, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The dialect of embedded SQL.
#[derive(Debug)]
pub(super) struct Dialect {
    fuel: Cell<usize>,
}

impl Dialect {
    /// A dialect for text of so many tokens.
    pub(super) fn for_tokens(count: usize) -> Dialect {
        Dialect { fuel: Cell::new(count.saturating_mul(ATTEMPTS_PER_TOKEN).saturating_add(ATTEMPTS_MIN)) }
    }

    /// Whether the parser was stopped for taking too many attempts.
    pub(super) fn is_spent(&self) -> bool {
        self.fuel.get() == 0
    }
}

/// Ordinary SQL takes less than two.
const ATTEMPTS_PER_TOKEN: usize = 32;
const ATTEMPTS_MIN: usize = 10_000;

macro_rules! supported {
    ($($name:ident)*) => {
        $(fn $name(&self) -> bool {
            true
        })*
    };
}

impl dialect::Dialect for Dialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        dialect::Dialect::is_delimited_identifier_start(&GenericDialect, ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        dialect::Dialect::is_identifier_start(&GenericDialect, ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        dialect::Dialect::is_identifier_part(&GenericDialect, ch)
    }

    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.fuel.get() {
            0 => Some(Err(ParserError::RecursionLimitExceeded)),
            left => {
                self.fuel.set(left - 1);
                None
            }
        }
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        let make = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        Some(parser.parse_subexpr(precedence).map(|right| make(Box::new(expr.clone()), Box::new(right))))
    }

    supported! {
        allow_extract_custom
        allow_extract_single_quotes
        support_map_literal_syntax
        supports_array_typedef_with_brackets
        supports_bitwise_shift_operators
        supports_comma_separated_trim
        supports_dictionary_syntax
        supports_dollar_placeholder
        supports_extract_comma_syntax
        supports_filter_during_aggregation
        supports_group_by_expr
        supports_interval_options
        supports_left_associative_joins_without_parens
        supports_limit_comma
        supports_named_fn_args_with_assignment_operator
        supports_nested_comments
        supports_parens_around_table_factor
        supports_partition_by_after_order_by
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_select_wildcard_replace
        supports_string_escape_constant
        supports_struct_literal
        supports_try_convert
        supports_unicode_string_literal
        supports_values_as_table_factor
        supports_window_clause_named_window_reference
        supports_window_function_null_treatment_arg
    }
}
