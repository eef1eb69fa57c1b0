//! What every mistake is told: `mistakes.txt` has the statements with their errors written short, here are some in full.

use super::super::parse;
use super::rendered;
use crate::span::Source;

fn short(text: &str) -> String {
    let source = Source::new(text);
    let found = parse(text, "test.sql").err().unwrap_or_default();
    let lines = found.iter().map(|error| {
        let help = error.help.as_ref().map_or(String::new(), |help| format!(" // {help}"));
        let place = format!("{}:{}", error.span.start.line, error.span.start.column);
        format!("    {} {place} <{}> {}{help}\n", error.code, source.slice(error.span), error.message)
    });
    lines.collect()
}

#[test]
fn every_mistake_is_told_where_it_is() {
    let cases = include_str!("mistakes.txt").split("\n\n").skip(1);
    let mut count = 0;
    for case in cases {
        let (answer, text): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("    "));
        let text = text.join("\n");
        let expected: String = answer.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(short(&text), expected, "{text}");
        assert!(!expected.is_empty(), "{text}");
        count += 1;
    }
    assert!(count > 100, "{count} cases were read");
}

#[test]
fn mistakes_are_printed_with_carets_notes_and_help() {
    let check = |text: &str, expected: &str| assert_eq!(rendered(text), expected);
    check(
        "CREATE STREAM payments (\n\tid INT,\n\tts TIMESTMAP,\n\tWATERMARK FOR ts AS ts - INTERVAL '1 month'\n)",
        "error[E0401]: unknown type \"TIMESTMAP\"
 --> test.sql:3:5
  |
3 |     ts TIMESTMAP,
  |        ^^^^^^^^^
help: The nearest type is TIMESTAMP.

error[E0701]: disorder of a watermark cannot be in months or years
 --> test.sql:4:27
  |
4 |     WATERMARK FOR ts AS ts - INTERVAL '1 month'
  |                              ^^^^^^^^^^^^^^^^^^
help: A month has no fixed length: write days.
",
    );
    check(
        "CREATE STREAM s (a INT, a INT, ts TIMESTAMP, WATERMARK FOR ts AS ts)",
        "error[E0202]: column \"a\" is given twice
 --> test.sql:1:25
  |
1 | CREATE STREAM s (a INT, a INT, ts TIMESTAMP, WATERMARK FOR ts AS ts)
  |                         ^
note: It is given first here. (test.sql:1:18)
",
    );
    check(
        "SELECT 1;\r\nSELECT 'é', b +\r\nFROM t\r\n;SELECT\r\n  (1",
        "error[E0102]: expected an expression, found \"FROM\"
 --> test.sql:3:1
  |
3 | FROM t
  | ^^^^
help: A column of this name needs double quotes.

error[E0102]: expected \")\", found the end of the statement
 --> test.sql:5:5
  |
5 |   (1
  |     ^
",
    );
}

#[test]
fn text_that_is_too_large_is_named() {
    let text = " ".repeat((1 << 20) + 1);
    assert_eq!(
        rendered(&text),
        "error[E0103]: test.sql has 1048577 bytes; at most 1048576 are read\nhelp: Load rows with COPY, or split the script.\n"
    );
}
