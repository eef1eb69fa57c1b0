//! Comparisons and what is built on them.

use super::*;

fn floats() -> [(&'static str, ArrayRef); 2] {
    let nan = Some(f64::NAN);
    [
        ("a", double(&[Some(-0.0), nan, nan, Some(f64::INFINITY), Some(1.0), None, None])),
        ("b", double(&[Some(0.0), nan, Some(f64::INFINITY), nan, Some(2.0), nan, None])),
    ]
}

#[test]
fn floats_have_the_order_of_min() {
    for (sql, expected) in [
        ("a = b", "true true false false false NULL NULL"),
        ("a <> b", "false false true true true NULL NULL"),
        ("a < b", "false false false true true NULL NULL"),
        ("a <= b", "true true false true true NULL NULL"),
        ("a > b", "false false true false false NULL NULL"),
        ("a >= b", "true true true false false NULL NULL"),
        ("a IS DISTINCT FROM b", "false false true true true true false"),
        ("a IS NOT DISTINCT FROM b", "true true false false false false true"),
        ("a IN (b, 7)", "true true false false false NULL NULL"),
        ("a NOT IN (b, 7)", "false false true true true NULL NULL"),
        ("a BETWEEN b AND b", "true true false false false NULL NULL"),
        ("a NOT BETWEEN 0 AND 1", "false true true true false NULL NULL"),
        ("CASE a WHEN b THEN true ELSE false END", "true true false false false false false"),
    ] {
        check(sql, &floats(), &format!("BOOLEAN: {expected}"));
    }
    check("nullif(a, b)", &floats(), "DOUBLE: NULL NULL NaN inf 1.0 NULL NULL");
    check("greatest(a, b)", &floats(), "DOUBLE: 0.0 NaN NaN NaN 2.0 NaN NULL");
    check("least(a, b)", &floats(), "DOUBLE: 0.0 NaN inf inf 1.0 NaN NULL");
    check("least(a, -0.0)", &floats(), "DOUBLE: 0.0 0.0 0.0 0.0 0.0 0.0 0.0");
}

#[test]
fn real_meets_double_in_double() {
    let columns = [
        ("r", real(&[Some(0.1), Some(0.5), Some(-0.0), Some(f32::NAN)])),
        ("d", double(&[Some(0.1), Some(0.5), Some(0.0), Some(f64::NAN)])),
    ];
    check("r = d", &columns, "BOOLEAN: false true true true");
    check("r = r", &columns, "BOOLEAN: true true true true");
    check("r > 0", &columns, "BOOLEAN: true true false true");
}

#[test]
fn decimals_of_any_scale_compare_exactly() {
    let columns = [
        ("a", decimal(38, 37, &[Some(10_i128.pow(37)), Some(1), None])),
        ("b", decimal(38, 0, &[Some(1), Some(10_i128.pow(37)), Some(1)])),
        ("i", int64(&[Some(i64::MAX), Some(0), Some(1)])),
    ];
    check("a = b", &columns, "BOOLEAN: true false NULL");
    check("a < b", &columns, "BOOLEAN: false true NULL");
    check("a < i", &columns, "BOOLEAN: true false NULL");
    check("b IN (1, 2)", &columns, "BOOLEAN: true false true");
    // As in DataFusion, a string beside a number takes its type: here it rounds to 1.
    check("b > '0.5'", &columns, "BOOLEAN: false true false");
}

#[test]
fn other_types_compare_as_usual() {
    let columns = [
        ("s", text(&[Some("a"), Some("b"), None])),
        ("n", int32(&[Some(1), Some(2), Some(3)])),
        ("k", boolean(&[Some(true), Some(false), None])),
    ];
    check("s = 'a'", &columns, "BOOLEAN: true false NULL");
    check("s < 'b'", &columns, "BOOLEAN: true false NULL");
    check("s IN ('b', 'c')", &columns, "BOOLEAN: false true NULL");
    check("s NOT IN ('b', NULL)", &columns, "BOOLEAN: NULL false NULL");
    check("n = '2'", &columns, "BOOLEAN: false true false");
    check("n = 'two'", &columns, "BOOLEAN: NULL NULL NULL");
    check("n IN (1, 2.5)", &columns, "BOOLEAN: true false false");
    check("n BETWEEN 2 AND 3", &columns, "BOOLEAN: false true true");
    check("k = true", &columns, "BOOLEAN: true false NULL");
    check("k IS TRUE", &columns, "BOOLEAN: true false false");
    check("k IS NOT TRUE", &columns, "BOOLEAN: false true true");
    check("k IS FALSE", &columns, "BOOLEAN: false true false");
    check("k IS NOT FALSE", &columns, "BOOLEAN: true false true");
    check("k IS UNKNOWN", &columns, "BOOLEAN: false false true");
    check("k IS NOT UNKNOWN", &columns, "BOOLEAN: true true false");
    check("k IS NULL", &columns, "BOOLEAN: false false true");
    check("k IS NOT NULL", &columns, "BOOLEAN: true true false");
    check("NOT k OR s = 'a'", &columns, "BOOLEAN: true true NULL");
    check("k AND s = 'a' AND n = 1", &columns, "BOOLEAN: true false false");
    check("NULL = NULL", &columns, "BOOLEAN: NULL NULL NULL");
    check("NULL AND k", &columns, "BOOLEAN: NULL false NULL");
    check("s IS DISTINCT FROM NULL", &columns, "BOOLEAN: true true false");
}

#[test]
fn conditionals() {
    let columns = [("a", int64(&[Some(1), Some(2), None])), ("b", int32(&[Some(5), None, None])), ("s", text(&[Some("x"), None, None]))];
    check("coalesce(a, b, 0)", &columns, "BIGINT: 1 2 0");
    check("coalesce(b, a)", &columns, "BIGINT: 5 2 NULL");
    check("coalesce(s, 'none')", &columns, "VARCHAR: x none none");
    check("coalesce(b, 1.5)", &columns, "DOUBLE: 5.0 1.5 1.5");
    check("nvl(b, 9)", &columns, "BIGINT: 5 9 9");
    check("nvl2(b, 'yes', 'no')", &columns, "VARCHAR: yes no no");
    check("nullif(a, 2)", &columns, "BIGINT: 1 NULL NULL");
    check("nullif(s, 'x')", &columns, "VARCHAR: NULL NULL NULL");
    check("greatest(a, b, 3)", &columns, "BIGINT: 5 3 3");
    check("least(a, b)", &columns, "BIGINT: 1 2 NULL");
    check("greatest(s, 'm')", &columns, "VARCHAR: x m m");
    check("CASE WHEN a > 1 THEN 'big' WHEN a = 1 THEN s END", &columns, "VARCHAR: x big NULL");
    check("CASE a WHEN 1 THEN 1 WHEN 2 THEN 2.5 ELSE b END", &columns, "DOUBLE: 1.0 2.5 NULL");
    check("CASE WHEN NULL THEN 1 ELSE 2 END", &columns, "BIGINT: 2 2 2");
    check("CASE WHEN a / 0 > 1 THEN 1 ELSE 2 END", &columns, "BIGINT: 2 2 2");
}

#[test]
fn patterns() {
    let columns =
        [("s", text(&[Some("abc"), Some("a%c"), Some(""), None])), ("p", text(&[Some("a%"), Some("a\\%c"), Some("_"), Some("%")]))];
    check("s LIKE 'a%'", &columns, "BOOLEAN: true true false NULL");
    check("s LIKE p", &columns, "BOOLEAN: true true false NULL");
    check("s NOT LIKE p", &columns, "BOOLEAN: false false true NULL");
    check("s ILIKE 'A_C'", &columns, "BOOLEAN: true true false NULL");
    check("s ~ '^a.c$'", &columns, "BOOLEAN: true true false NULL");
    check("s !~ '^a.c$'", &columns, "BOOLEAN: false false true NULL");
    check("s ~* 'B'", &columns, "BOOLEAN: true false false NULL");
    check("regexp_like(s, 'B', 'i')", &columns, "BOOLEAN: true false false NULL");
    check("regexp_replace(s, '[bc]', 'x')", &columns, "VARCHAR: axc a%x  NULL");
    check("s LIKE NULL", &columns, "BOOLEAN: NULL NULL NULL NULL");
    refuse("s ~ p", &columns, "pattern of a regular expression is not a constant");
    assert!(compiled("s ~ '('", &columns).unwrap_err().message.starts_with("regular expression \"(\" is not valid"));
    refuse("s LIKE 'a' ESCAPE 'x'", &columns, "LIKE has an ESCAPE other than '\\'");
}
