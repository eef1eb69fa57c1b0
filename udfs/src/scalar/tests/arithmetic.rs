//! Arithmetic on numbers.

use super::*;

#[test]
fn integers_give_null_where_they_do_not_fit() {
    let columns: [(&str, ArrayRef, ArrayRef, &str, String); 4] = [
        (
            "TINYINT",
            int8(&[Some(i8::MAX), Some(i8::MIN), Some(7), None]),
            int8(&[Some(1), Some(-1), Some(-2), Some(1)]),
            "5",
            "-128".into(),
        ),
        (
            "SMALLINT",
            int16(&[Some(i16::MAX), Some(i16::MIN), Some(7), None]),
            int16(&[Some(1), Some(-1), Some(-2), Some(1)]),
            "5",
            i16::MIN.to_string(),
        ),
        (
            "INTEGER",
            int32(&[Some(i32::MAX), Some(i32::MIN), Some(7), None]),
            int32(&[Some(1), Some(-1), Some(-2), Some(1)]),
            "5",
            i32::MIN.to_string(),
        ),
        (
            "BIGINT",
            int64(&[Some(i64::MAX), Some(i64::MIN), Some(7), None]),
            int64(&[Some(1), Some(-1), Some(-2), Some(1)]),
            "5",
            i64::MIN.to_string(),
        ),
    ];
    for (name, a, b, five, least) in columns {
        let columns = [("a", a), ("b", b)];
        let most = least.trim_start_matches('-').parse::<u128>().unwrap() - 1;
        check("a + b", &columns, &format!("{name}: NULL NULL {five} NULL"));
        check("a - b", &columns, &format!("{name}: {} -{most} 9 NULL", most - 1));
        check("a * b", &columns, &format!("{name}: {most} NULL -14 NULL"));
        check("a / b", &columns, &format!("{name}: {most} NULL -3 NULL"));
        check("a % b", &columns, &format!("{name}: 0 0 1 NULL"));
        check("-a", &columns, &format!("{name}: -{most} NULL -7 NULL"));
        check("a / (b - b)", &columns, &format!("{name}: NULL NULL NULL NULL"));
        check("a % (b - b)", &columns, &format!("{name}: NULL NULL NULL NULL"));
        check(
            "a - 1 - a",
            &columns,
            &if name == "BIGINT" { "BIGINT: -1 NULL -1 NULL".to_owned() } else { "BIGINT: -1 -1 -1 NULL".to_owned() },
        );
    }
}

#[test]
fn floats_follow_ieee() {
    let columns = [
        ("a", double(&[Some(1.0), Some(-1.0), Some(0.0), Some(f64::MAX), None])),
        ("b", double(&[Some(0.0), Some(0.0), Some(0.0), Some(f64::MAX), Some(1.0)])),
    ];
    check("a / b", &columns, "DOUBLE: inf -inf NaN 1.0 NULL");
    check("a + b", &columns, "DOUBLE: 1.0 -1.0 0.0 inf NULL");
    check("a % b", &columns, "DOUBLE: NaN NaN NaN 0.0 NULL");
    check("-(a * b)", &columns, "DOUBLE: -0.0 0.0 -0.0 -inf NULL");
    check("5.5 % -2", &columns, "DOUBLE: 1.5 1.5 1.5 1.5 1.5");
    let real = [("r", real(&[Some(0.1), Some(f32::MAX), Some(f32::NAN)])), ("i", int64(&[Some(2), Some(2), Some(2)]))];
    check("r * i", &real, "REAL: 0.2 inf NaN");
    check("r + 0.1", &real, "DOUBLE: 0.20000000149011612 3.4028234663852886e38 NaN");
}

#[test]
fn a_computed_nan_is_the_canonical_one() {
    let odd = f64::from_bits(0xfff8_0000_0000_1234);
    let columns = [
        ("x", double(&[Some(odd), Some(0.0), Some(f64::INFINITY)])),
        ("r", real(&[Some(f32::from_bits(0xffc0_0001)), Some(0.0), Some(f32::INFINITY)])),
        ("s", text(&[Some("nan"), Some("-nan"), Some("NaN")])),
    ];
    for sql in [
        "-x",
        "x + 1",
        "x - x",
        "x * 0",
        "abs(x) * 0",
        "0 / x",
        "sqrt(-x - 1)",
        "ln(-x - 1)",
        "sin(x * 1e308 * 10)",
        "CAST(s AS DOUBLE)",
        "CAST(-r AS DOUBLE)",
        "CAST(r AS DOUBLE) * 2",
        "greatest(x, x)",
        "round(x, 2)",
        "power(-x - 1, 0.5)",
        "abs(x)",
        "ceil(-x)",
        "signum(x)",
        "nanvl(x, x)",
        "CAST(x AS REAL)",
        "-r",
        "floor(r)",
    ] {
        let result = evaluate(sql, &columns);
        let bits: Vec<u64> = match result.data_type() {
            DataType::Float64 => result
                .as_any()
                .downcast_ref::<Float64Array>()
                .unwrap()
                .values()
                .iter()
                .filter(|v| v.is_nan())
                .map(|v| v.to_bits())
                .collect(),
            _ => result
                .as_any()
                .downcast_ref::<Float32Array>()
                .unwrap()
                .values()
                .iter()
                .filter(|v| v.is_nan())
                .map(|v| u64::from(v.to_bits()) << 32)
                .collect(),
        };
        assert!(!bits.is_empty(), "{sql} gave {}", show(&result));
        for bits in bits {
            let expected: u64 = if result.data_type() == &DataType::Float64 { 0x7ff8_0000_0000_0000 } else { 0x7fc0_0000 << 32 };
            assert_eq!(bits, expected, "{sql}");
        }
    }
}

#[test]
fn decimals_are_exact_and_bounded() {
    let columns = [
        ("a", decimal(10, 2, &[Some(1050), Some(-1), Some(9_999_999_999), None])),
        ("b", decimal(5, 3, &[Some(2000), Some(0), Some(99_999), Some(1)])),
    ];
    check("a + b", &columns, "DECIMAL(12, 3): 12.500 -0.010 100000099.989 NULL");
    check("a - b", &columns, "DECIMAL(12, 3): 8.500 -0.010 99999899.991 NULL");
    check("a * b", &columns, "DECIMAL(16, 5): 21.00000 0.00000 9999899999.00001 NULL");
    check("a / b", &columns, "DECIMAL(17, 6): 5.250000 NULL 1000010.000000 NULL");
    check("a % b", &columns, "DECIMAL(5, 3): 0.500 NULL 0.000 NULL");
    check("-a", &columns, "DECIMAL(10, 2): -10.50 0.01 -99999999.99 NULL");
    check("a + 1", &columns, "DECIMAL(22, 2): 11.50 0.99 100000000.99 NULL");
    check("a * 0.5", &columns, "DOUBLE: 5.25 -0.005 49999999.995 NULL");
    let most = 10_i128.pow(38) - 1;
    let wide = [("d", decimal(38, 0, &[Some(most), Some(-most), Some(5)])), ("e", decimal(38, 0, &[Some(1), Some(-1), Some(2)]))];
    check("d + e", &wide, "DECIMAL(38, 0): NULL NULL 7");
    check("d * e", &wide, &format!("DECIMAL(38, 0): {most} {most} 10"));
    check("d * d", &wide, "DECIMAL(38, 0): NULL NULL 25");
    check("d / e", &wide, "DECIMAL(38, 4): NULL NULL 2.5000");
}

#[test]
fn bits_and_shifts() {
    let columns = [("a", int32(&[Some(6), Some(-1), None])), ("b", int32(&[Some(3), Some(31), Some(1)]))];
    check("a & b", &columns, "INTEGER: 2 31 NULL");
    check("a | b", &columns, "INTEGER: 7 -1 NULL");
    check("a << b", &columns, "INTEGER: 48 -2147483648 NULL");
    check("a >> b", &columns, "INTEGER: 0 -1 NULL");
    check("a << 64", &columns, "BIGINT: NULL NULL NULL");
    check("a >> -1", &columns, "BIGINT: NULL NULL NULL");
}

#[test]
fn nulls_and_precedence() {
    let columns = [("a", int64(&[Some(1), None]))];
    check("a + NULL", &columns, "BIGINT: NULL NULL");
    check("coalesce(a / nullif(a - a, 0), 0)", &columns, "BIGINT: 0 0");
    check("1 + 2 * 3 - a", &columns, "BIGINT: 6 NULL");
    check("9223372036854775807 + a", &columns, "BIGINT: NULL NULL");
    check("-9223372036854775808 - a", &columns, "BIGINT: NULL NULL");
}
