//! Dates, timestamps and intervals.

use super::*;

fn columns() -> [(&'static str, ArrayRef); 3] {
    [
        ("as_of", timestamp(&[at("2024-03-31 12:00:00"), at("2024-01-01 00:00:00"), Some(i64::MAX), None])),
        ("ts", timestamp(&[at("2024-03-31 11:29:59.5"), at("2023-12-30 00:00:00"), Some(-1), at("2024-01-01")])),
        ("d", date(&[Some(19_813), Some(19_723), Some(i32::MAX), None])),
    ]
}

#[test]
fn time_since() {
    check("extract(epoch FROM as_of - ts)", &columns(), "DOUBLE: 1800.5 172800.0 NULL NULL");
    check("extract(epoch FROM as_of - ts) / 3600", &columns(), "DOUBLE: 0.5001388888888889 48.0 NULL NULL");
    check("as_of - ts < INTERVAL '1 hour'", &columns(), "BOOLEAN: true false NULL NULL");
    check("as_of - ts >= INTERVAL '2 days'", &columns(), "BOOLEAN: false true NULL NULL");
    check("INTERVAL '1 hour' > as_of - ts", &columns(), "BOOLEAN: true false NULL NULL");
    check("extract(day FROM as_of - ts)", &columns(), "INTEGER: 0 2 NULL NULL");
    check("extract(hour FROM as_of - ts)", &columns(), "INTEGER: 0 48 NULL NULL");
    check("extract(minute FROM as_of - ts)", &columns(), "INTEGER: 30 2880 NULL NULL");
    check("extract(second FROM as_of - ts)", &columns(), "INTEGER: 1800 172800 NULL NULL");
    check("date_part('epoch', ts)", &columns(), "DOUBLE: 1711884599.5 1703894400.0 -1e-6 1704067200.0");
    assert_eq!(compiled("as_of - ts", &columns()).unwrap().data_type, types::DURATION);
    check("CAST(extract(epoch FROM as_of - ts) AS BIGINT)", &columns(), "BIGINT: 1800 172800 NULL NULL");
    check("(as_of - ts) / 2 = INTERVAL '1 day'", &columns(), "BOOLEAN: false true NULL NULL");
    check("extract(epoch FROM INTERVAL '1 day' * 2 - INTERVAL '1 hour')", &columns(), "DOUBLE: 169200.0 169200.0 169200.0 169200.0");
    check("coalesce(as_of - ts, INTERVAL '1 day') > INTERVAL '1 hour'", &columns(), "BOOLEAN: false true true true");
}

#[test]
fn moving_a_timestamp() {
    check(
        "ts + INTERVAL '1 day'",
        &columns(),
        "TIMESTAMP: 2024-04-01T11:29:59.500Z 2023-12-31T00:00:00Z 1970-01-01T23:59:59.999999Z 2024-01-02T00:00:00Z",
    );
    check("INTERVAL '1 day' + ts = ts + INTERVAL '24 hours'", &columns(), "BOOLEAN: true true true true");
    check(
        "ts - INTERVAL '1 month'",
        &columns(),
        "TIMESTAMP: 2024-02-29T11:29:59.500Z 2023-11-30T00:00:00Z 1969-11-30T23:59:59.999999Z 2023-12-01T00:00:00Z",
    );
    check(
        "ts + INTERVAL '1 month 1 day'",
        &columns(),
        "TIMESTAMP: 2024-05-01T11:29:59.500Z 2024-01-31T00:00:00Z 1970-02-01T23:59:59.999999Z 2024-02-02T00:00:00Z",
    );
    check("ts - (- INTERVAL '1 month') = ts + INTERVAL '1 month'", &columns(), "BOOLEAN: true true true true");
    check("as_of + INTERVAL '1 second'", &columns(), "TIMESTAMP: 2024-03-31T12:00:01Z 2024-01-01T00:00:01Z NULL NULL");
    check("as_of + INTERVAL '1 year' IS NULL", &columns(), "BOOLEAN: false false true true");
    check("ts - INTERVAL '1 microsecond' < ts", &columns(), "BOOLEAN: true true true true");
}

#[test]
fn null_beside_a_time() {
    check("ts + NULL", &columns(), "TIMESTAMP: NULL NULL NULL NULL");
    check("extract(epoch FROM NULL - ts)", &columns(), "DOUBLE: NULL NULL NULL NULL");
    check("d - NULL", &columns(), "BIGINT: NULL NULL NULL NULL");
    check("ts > NULL", &columns(), "BOOLEAN: NULL NULL NULL NULL");
    check("(as_of - ts) IN (INTERVAL '2 days', INTERVAL '1 day')", &columns(), "BOOLEAN: false true NULL NULL");
    check("greatest(ts, as_of) = as_of", &columns(), "BOOLEAN: true true true NULL");
}

#[test]
fn dates() {
    check("d + 1", &columns(), "DATE: 2024-04-01 2024-01-02 NULL NULL");
    check("d - 1 < d", &columns(), "BOOLEAN: true true true NULL");
    check("d - DATE '2024-01-01'", &columns(), "BIGINT: 90 0 2147463924 NULL");
    check("d + INTERVAL '1 month'", &columns(), "DATE: 2024-04-30 2024-02-01 NULL NULL");
    check("d - INTERVAL '1 day' = d - 1", &columns(), "BOOLEAN: true true true NULL");
    check("d + INTERVAL '1 hour'", &columns(), "TIMESTAMP: 2024-03-31T01:00:00Z 2024-01-01T01:00:00Z NULL NULL");
    check("ts > d", &columns(), "BOOLEAN: true false NULL NULL");
    check("extract(epoch FROM ts - d)", &columns(), "DOUBLE: 41399.5 -172800.0 NULL NULL");
    check("d = '2024-01-01'", &columns(), "BOOLEAN: false true false NULL");
}

#[test]
fn literals_are_microseconds_utc() {
    check("ts > TIMESTAMP '2024-01-01 00:00:00'", &columns(), "BOOLEAN: true false false false");
    check("ts >= '2024-01-01'", &columns(), "BOOLEAN: true false false true");
    check("ts BETWEEN '2023-01-01' AND TIMESTAMP '2024-01-01'", &columns(), "BOOLEAN: false true false true");
    check("ts IN (TIMESTAMP '2024-01-01', '2023-12-30')", &columns(), "BOOLEAN: false true false true");
    constant("TIMESTAMP '2024-01-01 00:00:00.123456789'", "TIMESTAMP: 2024-01-01T00:00:00.123456Z");
    constant("TIMESTAMP '1969-12-31 23:59:59.9999999'", "TIMESTAMP: 1969-12-31T23:59:59.999999Z");
    constant("TIMESTAMP '2024-01-01 00:00:00+02'", "TIMESTAMP: 2023-12-31T22:00:00Z");
    constant("TIMESTAMP '9999-12-31 23:59:59'", "TIMESTAMP: 9999-12-31T23:59:59Z");
    constant("DATE '2024-02-29'", "DATE: 2024-02-29");
    constant("extract(epoch FROM INTERVAL '90 minutes')", "DOUBLE: 5400.0");
}

#[test]
fn parts_and_truncation() {
    for (part, expected) in [
        ("year", "2024 2023 1969 2024"),
        ("isoyear", "2024 2023 1970 2024"),
        ("quarter", "1 4 4 1"),
        ("month", "3 12 12 1"),
        ("week", "13 52 1 1"),
        ("day", "31 30 31 1"),
        ("hour", "11 0 23 0"),
        ("minute", "29 0 59 0"),
        ("second", "59 0 59 0"),
        ("millisecond", "59500 0 59999 0"),
        ("microsecond", "59500000 0 59999999 0"),
        ("dow", "0 6 3 1"),
        ("isodow", "7 6 3 1"),
        ("doy", "91 364 365 1"),
    ] {
        check(&format!("date_part('{part}', ts)"), &columns(), &format!("INTEGER: {expected}"));
    }
    check("extract(year FROM d)", &columns(), "INTEGER: 2024 2024 NULL NULL");
    for (unit, expected) in [
        ("second", "2024-03-31T11:29:59Z 2023-12-30T00:00:00Z 1969-12-31T23:59:59Z"),
        ("minute", "2024-03-31T11:29:00Z 2023-12-30T00:00:00Z 1969-12-31T23:59:00Z"),
        ("hour", "2024-03-31T11:00:00Z 2023-12-30T00:00:00Z 1969-12-31T23:00:00Z"),
        ("day", "2024-03-31T00:00:00Z 2023-12-30T00:00:00Z 1969-12-31T00:00:00Z"),
        ("week", "2024-03-25T00:00:00Z 2023-12-25T00:00:00Z 1969-12-29T00:00:00Z"),
        ("month", "2024-03-01T00:00:00Z 2023-12-01T00:00:00Z 1969-12-01T00:00:00Z"),
        ("quarter", "2024-01-01T00:00:00Z 2023-10-01T00:00:00Z 1969-10-01T00:00:00Z"),
        ("year", "2024-01-01T00:00:00Z 2023-01-01T00:00:00Z 1969-01-01T00:00:00Z"),
    ] {
        check(&format!("date_trunc('{unit}', ts)"), &columns(), &format!("TIMESTAMP: {expected} 2024-01-01T00:00:00Z"));
    }
    check(
        "date_bin(INTERVAL '15 minutes', ts)",
        &columns(),
        "TIMESTAMP: 2024-03-31T11:15:00Z 2023-12-30T00:00:00Z 1969-12-31T23:45:00Z 2024-01-01T00:00:00Z",
    );
    check(
        "date_bin(INTERVAL '7 days', ts, TIMESTAMP '2024-01-01')",
        &columns(),
        "TIMESTAMP: 2024-03-25T00:00:00Z 2023-12-25T00:00:00Z 1969-12-29T00:00:00Z 2024-01-01T00:00:00Z",
    );
    let least = [("ts", timestamp(&[Some(i64::MIN)]))];
    check("date_trunc('year', ts)", &least, "TIMESTAMP: NULL");
    check("date_trunc('second', ts)", &least, "TIMESTAMP: NULL");
    check("ts - INTERVAL '1 month'", &least, "TIMESTAMP: NULL");
    evaluate("date_part('year', ts) + date_part('week', ts) + date_part('doy', ts)", &least);
}

#[test]
fn making_times() {
    let columns = [
        ("i", int64(&[Some(1), Some(i64::MAX), None])),
        ("x", double(&[Some(1.5), Some(f64::NAN), Some(1e300)])),
        ("s", text(&[Some("2024-01-01"), Some("?"), None])),
    ];
    check("to_timestamp(i)", &columns, "TIMESTAMP: 1970-01-01T00:00:01Z NULL NULL");
    check("to_timestamp(x)", &columns, "TIMESTAMP: 1970-01-01T00:00:01.500Z NULL NULL");
    check("to_timestamp(s)", &columns, "TIMESTAMP: 2024-01-01T00:00:00Z NULL NULL");
    check("to_timestamp_millis(i)", &columns, "TIMESTAMP: 1970-01-01T00:00:00.001Z NULL NULL");
    check("to_timestamp_nanos(i * 1000)", &columns, "TIMESTAMP: 1970-01-01T00:00:00.000001Z NULL NULL");
    check("from_unixtime(i)", &columns, "TIMESTAMP: 1970-01-01T00:00:01Z NULL NULL");
    check("to_unixtime(s)", &columns, "BIGINT: 1704067200 NULL NULL");
    check("make_date(2024, 2, 28 + i)", &columns, "DATE: 2024-02-29 NULL NULL");
    check("to_date(s)", &columns, "DATE: 2024-01-01 NULL NULL");
}
