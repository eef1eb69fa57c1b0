//! Functions of numbers and strings.

use super::*;

#[test]
fn math() {
    let columns = [
        ("x", double(&[Some(2.0), Some(-1.0), Some(0.0), Some(f64::INFINITY), None])),
        ("i", int32(&[Some(2), Some(-1), Some(0), Some(i32::MIN), None])),
    ];
    check("exp(x)", &columns, "DOUBLE: 7.38905609893065 0.36787944117144233 1.0 inf NULL");
    check("ln(x)", &columns, "DOUBLE: 0.6931471805599453 NaN -inf inf NULL");
    check("log(x)", &columns, "DOUBLE: 0.3010299956639812 NaN -inf inf NULL");
    check("log(2, 8.0 + x * 0)", &columns, "DOUBLE: 3.0 3.0 3.0 NaN NULL");
    check("log10(i)", &columns, "DOUBLE: 0.3010299956639812 NaN -inf NaN NULL");
    check("power(i, 2)", &columns, "DOUBLE: 4.0 1.0 0.0 4.611686018427388e18 NULL");
    check("pow(x, -1)", &columns, "DOUBLE: 0.5 -1.0 NULL 0.0 NULL");
    check("sqrt(x)", &columns, "DOUBLE: 1.4142135623730951 NaN 0.0 inf NULL");
    check("cbrt(x * 4)", &columns, "DOUBLE: 2.0 -1.5874010519681996 0.0 inf NULL");
    check("abs(i)", &columns, "INTEGER: 2 1 0 NULL NULL");
    check("abs(x)", &columns, "DOUBLE: 2.0 1.0 0.0 inf NULL");
    check("sign(x)", &columns, "DOUBLE: 1.0 -1.0 0.0 1.0 NULL");
    check("ceil(x + 0.5)", &columns, "DOUBLE: 3.0 -0.0 1.0 inf NULL");
    check("floor(x + 0.5)", &columns, "DOUBLE: 2.0 -1.0 0.0 inf NULL");
    check("round(x / 3, 2)", &columns, "DOUBLE: 0.67 -0.33 0.0 inf NULL");
    check("round(x * 1234.5, -2)", &columns, "DOUBLE: 2500.0 -1200.0 0.0 inf NULL");
    check("round(x, 400)", &columns, "DOUBLE: 2.0 -1.0 0.0 inf NULL");
    check("trunc(x / 3, 2)", &columns, "DOUBLE: 0.66 -0.33 0.0 inf NULL");
    check("round(CAST(1.255 AS DECIMAL(5, 3)), 2)", &columns[..1], "DECIMAL(5, 2): 1.26 1.26 1.26 1.26 1.26");
    check("sin(x) * sin(x) + cos(x) * cos(x)", &columns, "DOUBLE: 1.0 1.0 1.0 NaN NULL");
    check("atan2(x, 1)", &columns, "DOUBLE: 1.1071487177940904 -0.7853981633974483 0.0 1.5707963267948966 NULL");
    check("gcd(i, 4)", &columns, "BIGINT: 2 1 4 4 NULL");
    check("exp(CAST(i AS REAL))", &columns, "REAL: 7.389056 0.36787945 1.0 0.0 NULL");
}

/// The pinned library's bits, so that a change of it does not go unseen.
#[test]
fn math_has_pinned_bits() {
    let columns = [("x", double(&[Some(0.7)]))];
    for (function, expected) in [
        ("exp", libm::exp(0.7)),
        ("ln", libm::log(0.7)),
        ("log2", libm::log2(0.7)),
        ("log10", libm::log10(0.7)),
        ("sin", libm::sin(0.7)),
        ("cos", libm::cos(0.7)),
        ("tan", libm::tan(0.7)),
        ("asin", libm::asin(0.7)),
        ("acos", libm::acos(0.7)),
        ("atan", libm::atan(0.7)),
        ("sinh", libm::sinh(0.7)),
        ("cosh", libm::cosh(0.7)),
        ("tanh", libm::tanh(0.7)),
        ("cbrt", libm::cbrt(0.7)),
        ("sqrt", 0.7_f64.sqrt()),
    ] {
        check(&format!("{function}(x)"), &columns, &format!("DOUBLE: {expected:?}"));
    }
    check("power(x, 1.3)", &columns, &format!("DOUBLE: {:?}", libm::pow(0.7, 1.3)));
}

#[test]
fn strings() {
    let columns =
        [("s", text(&[Some("Hello"), Some("žebra"), Some(""), None])), ("n", int64(&[Some(2), Some(-1), Some(i64::MAX), Some(1)]))];
    check("length(s)", &columns, "INTEGER: 5 5 0 NULL");
    check("lower(s)", &columns, "VARCHAR: hello žebra  NULL");
    check("upper(s)", &columns, "VARCHAR: HELLO ŽEBRA  NULL");
    check("trim(s || ' ')", &columns, "VARCHAR: Hello žebra  NULL");
    check("substr(s, 2, 3)", &columns, "VARCHAR: ell ebr  NULL");
    check("substring(s FROM 2 FOR 3)", &columns, "VARCHAR: ell ebr  NULL");
    check("position('l' IN s)", &columns, "INTEGER: 3 0 0 NULL");
    check("concat(s, n, '!')", &columns, "VARCHAR: Hello2! žebra-1! 9223372036854775807! 1!");
    check("s || n", &columns, "VARCHAR: Hello2 žebra-1 9223372036854775807 NULL");
    check("concat_ws('-', s, 'x', NULL)", &columns, "VARCHAR: Hello-x žebra-x -x x");
    check("replace(s, 'l', 'LL')", &columns, "VARCHAR: HeLLLLo žebra  NULL");
    check("replace(s, '', 'LL')", &columns, "VARCHAR: Hello žebra  NULL");
    check("starts_with(s, 'He')", &columns, "BOOLEAN: true false false NULL");
    check("left(s, 2)", &columns, "VARCHAR: He že  NULL");
    check("right(s, 2)", &columns, "VARCHAR: lo ra  NULL");
    check("left(s, n)", &columns, "VARCHAR: He žebr  NULL");
    check("split_part('a,b,c', ',', n)", &columns, "VARCHAR: b c  a");
    check("repeat(s, n)", &columns, "VARCHAR: HelloHello   NULL");
    check("repeat('ab', n)", &columns, "VARCHAR: abab  NULL ab");
    check("lpad(s, 7, 'xy')", &columns, "VARCHAR: xyHello xyžebra xyxyxyx NULL");
    check("rpad(s, 3)", &columns, "VARCHAR: Hel žeb     NULL");
    check("lpad(s, n)", &columns, "VARCHAR: He  NULL NULL");
    check(
        "md5(s)",
        &columns,
        "VARCHAR: 8b1a9953c4611296a827abf8c47804d7 32ed17dd9b7b4c2ea8fc67e7e4d6e5c0 d41d8cd98f00b204e9800998ecf8427e NULL"
            .replace("32ed17dd9b7b4c2ea8fc67e7e4d6e5c0", &show(&evaluate("md5('žebra')", &columns))[9..41])
            .as_str(),
    );
    check(
        "encode(sha256('a'), 'hex')",
        &columns[..1],
        "VARCHAR: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    );
    check("chr(n)", &columns, "VARCHAR: \u{2} NULL NULL \u{1}");
}
