//! Casts.

use super::*;

#[test]
fn floats_to_integers() {
    let columns =
        [("x", double(&[Some(1.9), Some(-1.9), Some(f64::NAN), Some(f64::INFINITY), Some(1e30), Some(127.9), Some(128.0), None]))];
    check("CAST(x AS TINYINT)", &columns, "TINYINT: 1 -1 NULL NULL NULL 127 NULL NULL");
    check("CAST(x AS BIGINT)", &columns, "BIGINT: 1 -1 NULL NULL NULL 127 128 NULL");
    check("x::INT", &columns, "INTEGER: 1 -1 NULL NULL NULL 127 128 NULL");
    check("TRY_CAST(x AS SMALLINT)", &columns, "SMALLINT: 1 -1 NULL NULL NULL 127 128 NULL");
    let edge = [("x", double(&[Some(9_223_372_036_854_775_807.0), Some(-9_223_372_036_854_775_808.0)]))];
    check("CAST(x AS BIGINT)", &edge, "BIGINT: NULL -9223372036854775808");
    check("CAST(x AS REAL)", &edge, "REAL: 9.223372e18 -9.223372e18");
}

#[test]
fn integers_and_decimals() {
    let columns = [
        ("i", int64(&[Some(300), Some(-1), Some(i64::MAX), None])),
        ("d", decimal(10, 2, &[Some(12_345), Some(-155), Some(99_999_999), None])),
    ];
    check("CAST(i AS TINYINT)", &columns, "TINYINT: NULL -1 NULL NULL");
    check("CAST(i AS DECIMAL(5, 2))", &columns, "DECIMAL(5, 2): 300.00 -1.00 NULL NULL");
    check("CAST(d AS DECIMAL(5, 1))", &columns, "DECIMAL(5, 1): 123.5 -1.6 NULL NULL");
    check("CAST(d AS INT)", &columns, "INTEGER: 123 -1 999999 NULL");
    check("CAST(d AS DOUBLE)", &columns, "DOUBLE: 123.45 -1.55 999999.99 NULL");
    check("CAST(d AS REAL)", &columns, "REAL: 123.45 -1.55 1000000.0 NULL");
    check("CAST(i AS DOUBLE)", &columns, "DOUBLE: 300.0 -1.0 9.223372036854776e18 NULL");
    check("CAST(1.005 AS DECIMAL(10, 2))", &columns[..1], "DECIMAL(10, 2): 1.00 1.00 1.00 1.00");
    check("CAST(1e300 AS DECIMAL(10, 2))", &columns[..1], "DECIMAL(10, 2): NULL NULL NULL NULL");
    check("CAST(i AS BOOLEAN)", &columns, "BOOLEAN: true true true NULL");
    let most = [("d", decimal(38, 10, &[Some(12_345_678_901_234_567_890_123_456_789_012_345_678)]))];
    check("CAST(d AS DOUBLE)", &most, "DOUBLE: 1.2345678901234569e27");
    check("CAST(d AS BIGINT)", &most, "BIGINT: NULL");
}

#[test]
fn strings() {
    let columns = [("s", text(&[Some("12"), Some("1.5"), Some("x"), Some(""), Some("-300"), None]))];
    check("CAST(s AS INT)", &columns, "INTEGER: 12 NULL NULL NULL -300 NULL");
    check("CAST(s AS TINYINT)", &columns, "TINYINT: 12 NULL NULL NULL NULL NULL");
    check("CAST(s AS DOUBLE)", &columns, "DOUBLE: 12.0 1.5 NULL NULL -300.0 NULL");
    check("CAST(s AS DECIMAL(4, 1))", &columns, "DECIMAL(4, 1): 12.0 1.5 NULL NULL -300.0 NULL");
    check("CAST(s AS BOOLEAN)", &columns, "BOOLEAN: NULL NULL NULL NULL NULL NULL");
    check("CAST(s AS DATE)", &columns, "DATE: NULL NULL NULL NULL NULL NULL");
    check("CAST(s AS TIMESTAMP)", &columns, "TIMESTAMP: NULL NULL NULL NULL NULL NULL");
    check("CAST(CAST(s AS INT) AS VARCHAR)", &columns, "VARCHAR: 12 NULL NULL NULL -300 NULL");
    let odd = [(
        "s",
        text(&[Some("1e999999999999"), Some("99999999999999999999999999999999999999999999"), Some("true"), Some("2024-02-30"), Some("-0")]),
    )];
    for to in ["INT", "BIGINT", "DECIMAL(38, 10)", "DATE", "TIMESTAMP", "BOOLEAN", "BYTEA", "REAL"] {
        evaluate(&format!("CAST(s AS {to})"), &odd);
    }
    check("CAST(s AS DOUBLE)", &odd, "DOUBLE: inf 1e44 NULL NULL -0.0");
    let raw = [("b", bytes(&[Some(b"ok"), Some(&[0xff, 0xfe]), None]))];
    check("CAST(b AS VARCHAR)", &raw, "VARCHAR: ok NULL NULL");
}

#[test]
fn times() {
    let columns = [
        (
            "s",
            text(&[Some("2024-01-02"), Some("2024-01-02 03:04:05.1234567"), Some("2024-01-02T03:04:05+02:00"), Some("2024-13-01"), None]),
        ),
        ("i", int64(&[Some(0), Some(86_399_999_999), Some(-1), Some(946_684_799_999_999), None])),
        ("d", date(&[Some(0), Some(-1), Some(i32::MAX), Some(19_000), None])),
    ];
    check("CAST(s AS TIMESTAMP)", &columns, "TIMESTAMP: 2024-01-02T00:00:00Z 2024-01-02T03:04:05.123456Z 2024-01-02T01:04:05Z NULL NULL");
    check("CAST(s AS TIMESTAMP(0))", &columns, "TIMESTAMP: 2024-01-02T00:00:00Z 2024-01-02T03:04:05Z 2024-01-02T01:04:05Z NULL NULL");
    check("CAST(i AS TIMESTAMP)", &columns, "TIMESTAMP: 1970-01-01T00:00:00Z 4707-11-28T23:59:59Z 1969-12-31T23:59:59Z NULL NULL");
    check("CAST(d AS TIMESTAMP)", &columns, "TIMESTAMP: 1970-01-01T00:00:00Z 1969-12-31T00:00:00Z NULL 2022-01-08T00:00:00Z NULL");
    check("CAST(CAST(i AS TIMESTAMP(6)) AS BIGINT)", &columns, "BIGINT: 0 86399999999 -1 946684799999999 NULL");
    check("CAST(CAST(i AS TIMESTAMP(6)) AS DATE)", &columns, "DATE: 1970-01-01 1970-01-01 1969-12-31 1999-12-31 NULL");
    refuse("CAST(1.5 AS TIMESTAMP)", &columns, "DOUBLE cannot be cast to TIMESTAMP in a feature view");
    refuse("CAST(i AS TIME)", &columns, "BIGINT cannot be cast to Time64(ns) in a feature view");
}
