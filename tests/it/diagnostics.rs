//! The texts of errors: each file under `tests/diagnostics` holds SQL, a line `----`, and the error as it is shown to people.
//!
//! Lines that begin with `#` open a file and say what is wrong; the first two of them in `poor/` say what the message should say
//! instead. Every statement runs over the objects of `prelude.sql` and must be refused, so none changes what the next one meets.
//! `ASOF_DIAGNOSTICS_BLESS=1` rewrites the expected texts.

use std::path::Path;
use std::sync::Arc;

use asof::{Engine, Kind, Settings};

use crate::slt::{StillClock, USUAL_NOW, files_under, on_deep_stack, runtime};

/// A file's comment, SQL and expected text.
fn split(text: &str) -> Option<(String, String, String)> {
    let comment: String = text.lines().take_while(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    let (sql, expected) = text[comment.len()..].split_once("\n----\n")?;
    Some((comment, sql.to_owned(), expected.trim_end().to_owned()))
}

async fn check(root: &Path) -> Vec<String> {
    let blessing = std::env::var("ASOF_DIAGNOSTICS_BLESS").is_ok_and(|v| v == "1");
    let clock = Arc::new(StillClock(USUAL_NOW));
    let engine =
        Engine::builder().warehouse("memory://").settings(Settings::default()).clock(clock).build().await.expect("an empty warehouse");
    let prelude = std::fs::read_to_string(root.join("prelude.sql")).expect("prelude.sql");
    engine.execute_named(&prelude, "prelude.sql", &[]).await.expect("the prelude is right");
    let mut failures = Vec::new();
    let files = files_under(root, "txt");
    assert!(files.len() >= 40, "{} files are fewer than there must be", files.len());
    for path in files {
        let name = path.strip_prefix(root).expect("below the root").display().to_string();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let Some((comment, sql, expected)) = split(&text) else {
            failures.push(format!("{name}: SQL, a line ---- and a text are wanted"));
            continue;
        };
        if name.starts_with("poor/") && comment.is_empty() {
            failures.push(format!("{name}: a poor message says in a comment what is poor"));
        }
        let error = match engine.execute_named(&sql, "features.sql", &[]).await {
            Ok(_) => {
                failures.push(format!("{name}: the statement is not refused\n{sql}"));
                continue;
            }
            Err(e) => e,
        };
        let actual = error.to_string().trim_end().to_owned();
        if error.kind() != Kind::Invalid || error.sql_errors().is_empty() {
            failures.push(format!("{name}: the error is {:?} and points at no text\n{actual}", error.kind()));
        }
        if blessing {
            std::fs::write(&path, format!("{comment}{sql}\n----\n{actual}\n")).expect("a writable file");
        } else if actual != expected {
            failures.push(format!("{name}:\n--- wanted\n{expected}\n--- found\n{actual}"));
        }
    }
    failures
}

#[test]
fn errors_are_shown_as_agreed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let failures = on_deep_stack(|| runtime().block_on(check(&root)));
    assert!(failures.is_empty(), "{} failures\n\n{}\n", failures.len(), failures.join("\n\n"));
}
