//! What a feature view may not say, and in which words.

use super::*;

#[test]
fn functions_that_are_not_of_the_row() {
    let columns = [("a", int64(&[Some(1)]))];
    for (sql, expected) in [
        ("now()", "function \"now\" is not immutable"),
        ("random() + a", "function \"random\" is not immutable"),
        ("current_date", "function \"current_date\" is not immutable"),
        ("uuid()", "function \"uuid\" is not immutable"),
        ("arrow_typeof(a)", "function \"arrow_typeof\" is not supported in a feature view"),
        ("levenshtein('a', 'b')", "function \"levenshtein\" is not supported in a feature view"),
        ("a + INTERVAL '1 day'", "operator + does not take BIGINT and INTERVAL"),
        ("a AND true", "AND takes BOOLEAN, found BIGINT"),
        ("a = INTERVAL '1 day'", "BIGINT and INTERVAL cannot be compared by ="),
        ("CASE WHEN a THEN 1 END", "WHEN takes BOOLEAN, found BIGINT"),
        ("NULL", "expression is NULL without a type"),
        ("INTERVAL '1 month'", "expression is an interval of months, which has no length of its own"),
        ("INTERVAL '1 month' > INTERVAL '1 day'", "INTERVAL and INTERVAL cannot be compared by >"),
        ("coalesce(a, true)", "coalesce has no type that both BIGINT and BOOLEAN can become"),
        ("upper(a, a)", "function \"upper\" does not take (BIGINT, BIGINT)"),
        ("sqrt('x')", "function \"sqrt\" does not take VARCHAR"),
        ("date_trunc('fortnight', TIMESTAMP '2024-01-01')", "unknown unit \"fortnight\" of date_trunc"),
        ("extract(century FROM TIMESTAMP '2024-01-01')", "unknown part of a date \"century\""),
        ("sum(a)", "aggregate \"sum\" stands inside a scalar expression"),
        ("row_number() OVER ()", "window function \"row_number\" stands inside a scalar expression"),
    ] {
        refuse(sql, &columns, expected);
    }
}

/// On a stack of two megabytes, as worker threads have.
#[test]
fn depth_is_bounded_and_chains_are_not_deep() {
    let columns = [("a", int64(&[Some(1)]))];
    let long = (0..1000).map(|i| format!("a = {i}")).collect::<Vec<_>>().join(" OR ");
    check(&long, &columns, "BOOLEAN: true");
    let sum = vec!["a"; 100].join(" + ");
    check(&sum, &columns, "BIGINT: 100");
    let deep = vec!["a"; 500].join(" + ");
    refuse(&deep, &columns, "expression is nested more than 128 deep");
}
