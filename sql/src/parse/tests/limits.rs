//! No text overflows the stack or takes for ever: each of these runs on a stack of 2 MiB, and what passes is visited, cloned,
//! compared, printed and dropped there too.

use std::time::{Duration, Instant};

use super::super::{check_query, parse};
use crate::ast::StatementKind;
use crate::codes::E0103;

/// Parses on a small stack. Gives the first code, or nothing if it parsed.
fn outcome(text: String) -> Option<&'static str> {
    let run = move || {
        let start = Instant::now();
        let result = parse(&text, "test.sql");
        if let Ok(statements) = &result {
            assert_eq!(statements, &statements.clone());
            assert!(!format!("{statements:?}").is_empty());
            for statement in statements {
                if let StatementKind::Query(query) = &statement.kind {
                    assert!(check_query(query).is_empty());
                    assert!(!query.to_string().is_empty());
                }
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "parsing took {:?}", start.elapsed());
        result.err().and_then(|found| found.first().map(|error| error.code.as_str()))
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread starts");
    thread.join().expect("parsing does not panic")
}

fn accepted(name: &str, text: String) {
    assert_eq!(outcome(text), None, "{name}");
}

fn refused(name: &str, text: String) {
    assert_eq!(outcome(text), Some(E0103.as_str()), "{name}");
}

/// An error, of whichever kind: what matters is that it comes, and in time.
fn wrong(name: &str, text: String) {
    assert!(outcome(text).is_some(), "{name}");
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn ordinary_sizes_pass() {
    accepted("200 ANDs", format!("SELECT 1 FROM t WHERE a = 1{}", " AND a = 1".repeat(200)));
    accepted("200 ORs of NOTs", format!("SELECT 1 FROM t WHERE a{}", " OR NOT b < c + 1".repeat(200)));
    accepted("150 sums", format!("SELECT a{} FROM t", " + a".repeat(150)));
    accepted("30 parentheses", format!("SELECT {}", nested("(", "1", ")", 30)));
    accepted("20 functions", format!("SELECT {}", nested("coalesce(0, ", "1", ")", 20)));
    accepted("20 casts", format!("SELECT {}", nested("CAST(", "1", " AS INT)", 20)));
    accepted("20 subqueries", format!("SELECT * FROM {}", nested("(SELECT * FROM ", "t", ") AS x", 20)));
    accepted("20 CASEs", format!("SELECT {}", nested("CASE WHEN a THEN ", "1", " ELSE 2 END", 20)));
    accepted("a CASE of 300 arms", format!("SELECT CASE {} END", "WHEN a = 1 THEN b ".repeat(300)));
    accepted("100 columns of one CASE", format!("SELECT {} 1", "CASE WHEN a AND b THEN c END, ".repeat(100)));
    accepted("100 CASEs of columns named by keywords", format!("SELECT {} 1", "CASE WHEN type THEN date END, ".repeat(100)));
    accepted("300 arms of columns named by keywords", format!("SELECT CASE {} END", "WHEN status = 'a' THEN value ".repeat(300)));
    accepted("60 unions", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(60)));
    accepted("40 joins", format!("SELECT 1 FROM t{}", " JOIN t ON a = b AND c = d".repeat(40)));
    accepted("5000 values", format!("SELECT 1 FROM t WHERE a IN (0{})", ", 1".repeat(5000)));
    accepted("5000 rows", format!("INSERT INTO t VALUES (1, -2.5){}", ", (1, -2.5)".repeat(5000)));
    accepted("500 columns", format!("SELECT a{} FROM t", ", a + 1 AS b".repeat(500)));
    accepted(
        "types in types",
        "SELECT CAST(a AS STRUCT<a ARRAY<INT>, b ARRAY<ARRAY<INT>>>), a > b, c >> 2 FROM t WHERE array < 3".to_owned(),
    );
    accepted("10 NOTs", format!("SELECT {} a", "NOT ".repeat(10)));
}

/// The largest that passes is still safe to visit, clone, compare, print and drop.
#[test]
fn the_limits_themselves_are_safe() {
    accepted("sums", format!("SELECT a{} FROM t", " + a".repeat(255)));
    accepted("ANDs", format!("SELECT 1 FROM t WHERE a{}", " AND a".repeat(255)));
    accepted("casts", format!("SELECT a{}", "::int".repeat(255)));
    accepted("NOTs", format!("SELECT {} a", "NOT ".repeat(200)));
    accepted("parentheses", format!("SELECT {}", nested("(", "1", ")", 63)));
    accepted("functions", format!("SELECT {}", nested("abs(", "1", ")", 62)));
    accepted("CASEs", format!("SELECT {}", nested("CASE WHEN a THEN ", "1", " ELSE 2 END", 50)));
    accepted("subqueries", format!("SELECT * FROM {}", nested("(SELECT * FROM ", "t", ")", 28)));
    accepted("scalar subqueries", format!("SELECT {}", nested("(SELECT a + ", "1", ")", 25)));
    accepted("INs", format!("SELECT {}", nested("a IN (SELECT ", "1", ")", 25)));
    accepted("unions", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(63)));
    accepted("joins", format!("SELECT 1 FROM t{}", " JOIN t ON a = b".repeat(128)));
    accepted("sums in parentheses", format!("SELECT {}", nested("(", "1", "+ a + a)", 60)));
    outcome(format!("SELECT CAST(a AS {}INT{})", "ARRAY<".repeat(120), ">".repeat(120)));
    outcome(format!("SELECT CAST(a AS {}INT{})", "STRUCT<a ".repeat(120), ">".repeat(120)));
    outcome(format!("SELECT CAST(a AS {}", "ARRAY<".repeat(250)));
    outcome(format!("SELECT CAST(a AS {})", nested("Tuple(a ", "INT", ")", 60)));
    outcome(format!("SELECT a{}", " -> b".repeat(250)));
    outcome(format!("SELECT a{}", ":b".repeat(250)));
    outcome(format!("SELECT {}", "INTERVAL ".repeat(250)));
    outcome(format!("SELECT {}", "CASE ".repeat(60)));
    outcome(format!("SELECT * FROM {}", "LATERAL ".repeat(250)));
    outcome(format!("SELECT * FROM {}", nested("(", "a JOIN b", ") JOIN c", 63)));
    outcome(format!("SELECT * FROM t {}", "PIVOT (sum(a) FOR b IN (1)) ".repeat(60)));
}

#[test]
fn excess_is_refused_with_its_place() {
    refused("2,000 sums", format!("SELECT a{} FROM t", " + a".repeat(2000)));
    refused("100,000 sums", format!("SELECT a{} FROM t", " + a".repeat(100_000)));
    refused("2,000 ANDs", format!("SELECT 1 FROM t WHERE a{}", " AND a".repeat(2000)));
    refused("2,000 casts", format!("SELECT a{}", "::int".repeat(2000)));
    refused("2,000 subscripts", format!("SELECT a{}", "[1]".repeat(2000)));
    refused("2,000 array types", format!("SELECT a::int{}", "[]".repeat(2000)));
    refused("2,000 IS NULLs", format!("SELECT a{}", " IS NULL".repeat(2000)));
    refused("2,000 zones", format!("SELECT a{}", " AT TIME ZONE 'x'".repeat(2000)));
    refused("2,000 collations", format!("SELECT a{}", " COLLATE b".repeat(2000)));
    refused("5,000 NOTs", format!("SELECT {} a", "NOT ".repeat(5000)));
    refused("5,000 minuses", format!("SELECT {} a", "- ".repeat(5000)));
    refused("10,000 parentheses", format!("SELECT {}", nested("(", "1", ")", 10_000)));
    refused("500,000 open parentheses", format!("SELECT {}", "(".repeat(500_000)));
    refused("10,000 brackets", format!("SELECT {}", nested("[", "1", "]", 10_000)));
    refused("10,000 braces", format!("SELECT {}", nested("{'a': ", "1", "}", 10_000)));
    refused("10,000 functions", format!("SELECT {}", nested("abs(", "1", ")", 10_000)));
    refused("10,000 CASEs", format!("SELECT {}", nested("CASE WHEN a THEN ", "1", " END", 10_000)));
    refused("10,000 subqueries", format!("SELECT * FROM {}", nested("(SELECT * FROM ", "t", ")", 10_000)));
    refused("2,000 unions", format!("SELECT 1{}", " UNION ALL SELECT 1, 2".repeat(2000)));
    refused("2,000 joins", format!("SELECT 1 FROM t{}", " JOIN t ON a = b".repeat(2000)));
    refused("chains in nests", format!("SELECT {}", nested("(", "1", &format!("{} )", " + a".repeat(200)), 60)));
    refused("chains in CASEs that are names", format!("SELECT a{}", format!("{} + case", " + a".repeat(100)).repeat(60)));
    refused("chains around words that are names", format!("SELECT a{}", " + from + a".repeat(1000)));
    refused("intervals in nests", format!("SELECT {}", format!("{}(", "INTERVAL ".repeat(200)).repeat(60)));
    refused("types in types", format!("SELECT CAST(a AS {}", "STRUCT<a INT, b ".repeat(50_000)));
    refused("types in types in nests", format!("SELECT {}", format!("CAST(a AS {}", "STRUCT<a INT, b ".repeat(15)).repeat(60)));
    refused("a key", format!("SELECT * FROM v FOR ENTITY {}", nested("(", "1", ")", 10_000)));
    refused("columns", format!("CREATE STREAM s {}", "(".repeat(10_000)));
    refused("too much text", format!("SELECT '{}'", "x".repeat(2 << 20)));
    refused("too many tokens", format!("SELECT 1{}", ",1".repeat(300_000)));
}

#[test]
fn deep_and_wrong_text_ends_in_time() {
    wrong("casts with an error inside", format!("SELECT {}", nested("CAST(", "1 +", " AS INT)", 60)));
    wrong("NOTs with an error inside", format!("SELECT {}", nested("NOT (", "1 +", ")", 60)));
    wrong("CASEs with an error inside", format!("SELECT {}", nested("CASE (", "1 +", ") END", 30)));
    wrong("trims with an error inside", format!("SELECT {}", nested("TRIM(", "1 +", ")", 60)));
    wrong("doubled subqueries with an error inside", format!("SELECT * FROM {}", nested("((SELECT * FROM ", "1 +", "))", 30)));
    wrong("subqueries with an error inside", format!("SELECT * FROM {}", nested("(SELECT * FROM ", "1 +", ")", 60)));
    wrong("INs with an error inside", format!("SELECT {}", nested("a IN ((SELECT ", "1 +", "))", 30)));
    wrong("exists with an error inside", format!("SELECT {}", nested("EXISTS (SELECT ", "1 +", ")", 60)));
    wrong("many wrong subqueries", format!("SELECT (SELECT 1 +){}", ", (SELECT 1)".repeat(20_000)));
    wrong("comments in comments", format!("SELECT 1 {}", "/*".repeat(400_000)));
    wrong("hints in hints", format!("SELECT 1 {}", "/*! ".repeat(200_000)));
    wrong("types in types", format!("SELECT CAST(a AS {}", "ARRAY<".repeat(100_000)));
    wrong("quotes", "'".repeat((1 << 20) - 1));
    wrong("dollars", format!("SELECT ${}$", "a".repeat(1 << 19)));
    wrong("statements", "x;".repeat(20_000));
}
