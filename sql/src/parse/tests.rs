//! What every form of the dialect parses to, and what every mistake is told.

mod forms;
mod fuzz;
mod limits;
mod mistakes;

use super::parse;
use crate::ast::Statement;
use crate::diagnostic::render_all;

/// The statements of a script that has no errors.
fn parsed(text: &str) -> Vec<Statement> {
    parse(text, "test.sql").unwrap_or_else(|found| panic!("{text}\n{}", render_all(&found, "test.sql", text)))
}

/// The errors of a script as a user reads them.
fn rendered(text: &str) -> String {
    match parse(text, "test.sql") {
        Ok(statements) => panic!("{text}\nhas no errors: {statements:?}"),
        Err(found) => render_all(&found, "test.sql", text),
    }
}
