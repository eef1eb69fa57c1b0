//! Rows are independent of the rows beside them, and equal names are equal functions.

use super::*;

/// Every function that is let in, on extreme arguments: none panics, and each gives what it gives a row alone.
#[test]
fn every_function_survives_extremes() {
    let rows = 12;
    let cycle = |values: &[Option<i64>]| int64(&(0..rows).map(|i| values[i % values.len()]).collect::<Vec<_>>());
    let columns: [(&str, ArrayRef); 7] = [
        ("i", cycle(&[Some(0), Some(1), Some(-1), Some(i64::MAX), Some(i64::MIN), None, Some(64)])),
        ("j", cycle(&[Some(1), Some(i64::MIN), Some(0), Some(-1), Some(i64::MAX)])),
        (
            "x",
            double(
                &(0..rows)
                    .map(|i| [Some(0.0), Some(-0.0), Some(f64::NAN), Some(f64::INFINITY), None, Some(-1e308), Some(5e-324)][i % 7])
                    .collect::<Vec<_>>(),
            ),
        ),
        (
            "s",
            text(
                &(0..rows)
                    .map(|i| [Some(""), Some("a"), Some("äöü€𝄞"), None, Some("a,b,c"), Some("2024-01-01"), Some("%_\\")][i % 7])
                    .collect::<Vec<_>>(),
            ),
        ),
        ("t", timestamp(&(0..rows).map(|i| [Some(0), Some(i64::MAX), Some(i64::MIN), None, Some(-1)][i % 5]).collect::<Vec<_>>())),
        (
            "d",
            decimal(
                38,
                2,
                &(0..rows)
                    .map(|i| [Some(0), Some(10_i128.pow(38) - 1), Some(1 - 10_i128.pow(38)), None, Some(-150)][i % 5])
                    .collect::<Vec<_>>(),
            ),
        ),
        ("b", bytes(&(0..rows).map(|i| [Some(&b""[..]), Some(&[0xff_u8][..]), None, Some(&b"abc"[..])][i % 4]).collect::<Vec<_>>())),
    ];
    let arguments = ["i", "j", "x", "s", "t", "d", "b", "'hex'", "'a'", "-5", "CAST(i AS INT)"];
    let schema = schema_of(&columns);
    let mut called = std::collections::BTreeSet::new();
    let mut names: Vec<String> = super::super::functions().iter().map(|function| function.name().to_owned()).collect();
    names.retain(|name| super::super::allowed::is_allowed(name));
    names.extend(["+", "-", "*", "/", "%", "<<", ">>", "=", "<", "||", "LIKE"].map(str::to_owned));
    for name in &names {
        let call = |args: &[&str]| match name.chars().next() {
            Some(c) if c.is_lowercase() => format!("{name}({})", args.join(", ")),
            _ => args.join(&format!(" {name} ")),
        };
        let mut texts = vec![call(&["s", "'[a-z]'", "'<$0>'", "'g'"])];
        for a in arguments {
            texts.push(call(&[a]));
            for b in arguments {
                texts.push(call(&[a, b]));
                if ["i", "s"].contains(&b) {
                    for c in ["j", "'a'"] {
                        texts.push(call(&[a, b, c]));
                    }
                }
            }
        }
        for sql in texts {
            let Ok(expr) = CONTEXT.parse_sql_expr(&sql, &schema) else { continue };
            if compile(expr, &schema).is_ok() {
                called.insert(name.clone());
                evaluate_rows(&sql, &columns);
            }
        }
    }
    let missed: Vec<&String> = names.iter().filter(|name| !called.contains(*name)).collect();
    assert_eq!(
        missed,
        [&"date_bin".to_owned(), &"date_part".to_owned(), &"date_trunc".to_owned(), &"pi".to_owned()]
            .into_iter()
            .filter(|name| names.contains(name))
            .collect::<Vec<_>>()
    );
}

/// Whole columns against single rows.
fn evaluate_rows(sql: &str, columns: Columns<'_>) {
    let compiled = compiled(sql, columns).unwrap();
    let batch = batch_of(columns);
    let whole = compiled.evaluate(&batch).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(whole.data_type(), &compiled.data_type, "{sql}");
    assert!(compiled.nullable || whole.null_count() == 0, "{sql} is declared not null");
    let rows: Vec<ArrayRef> = (0..batch.num_rows()).map(|row| compiled.evaluate(&batch.slice(row, 1)).unwrap()).collect();
    same(sql, "row by row", &whole, &rows);
}

#[test]
fn the_text_of_an_expression_tells_meanings_apart() {
    let columns = [("a", int64(&[Some(1)])), ("s", text(&[Some("x")]))];
    let texts: Vec<String> = [
        "a + 1",
        "a + 1.0",
        "CAST(a AS INT)",
        "CAST(a AS SMALLINT)",
        "s ~ 'x'",
        "s ~ 'y'",
        "s ~* 'x'",
        "s LIKE 'x'",
        "TIMESTAMP '2024-01-01' + INTERVAL '1 month'",
        "TIMESTAMP '2024-01-01' + INTERVAL '2 months'",
        "date_trunc('day', TIMESTAMP '2024-01-01')",
        "concat(s, 'a', 'b')",
        "concat(s, 'a\"), VARCHAR:\"b')",
        "CAST(a AS DECIMAL(10, 2))",
        "CAST(a AS DECIMAL(10, 3))",
    ]
    .iter()
    .map(|sql| compiled(sql, &columns).unwrap().text())
    .collect();
    let distinct: std::collections::BTreeSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "{texts:#?}");
    assert_eq!(
        compiled("coalesce(a/nullif(a,0) , 0)", &columns).unwrap().text(),
        "coalesce_bigint(divide_bigint(a, null_where_bigint(a, equal_bigint_bigint(a, BIGINT:0))), BIGINT:0)"
    );
}

/// What one entity's finishing expression costs; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_one_row() {
    let columns = [("sum", double(&[Some(10.0)])), ("count", int64(&[Some(4)]))];
    let batch = batch_of(&columns);
    for sql in ["coalesce(sum / nullif(count, 0), 0)", "sum", "sum / 60", "sum * 2 > 5"] {
        let compiled = compiled(sql, &columns).unwrap();
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            std::hint::black_box(compiled.evaluate(&batch).unwrap());
        }
        println!("{sql}: {} ns", start.elapsed().as_nanos() / 100_000);
    }
}
