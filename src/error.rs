//! What a program gets when something fails: a kind that names the remedy, and a message for people.
//!
//! Errors in SQL carry the diagnostics they were made of, already rendered with their carets. Not here: how a diagnostic is
//! found or drawn (`asof_sql::diagnostic`), exit codes (`cli`).

use std::fmt;

use asof_sql::Diagnostic;

/// The remedy: what whoever called can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: change it.
    Invalid,
    /// Not now: try again later, as it is.
    Unavailable,
    /// What is stored or was read is damaged or does not fit: repair it.
    Data,
    /// What was used is closed or was taken over: open it again.
    Closed,
    /// A defect of this program: report it.
    Internal,
}

/// One error in SQL text, rendered with its place and caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// The stable code, `E0304`.
    pub code: String,
    /// The line of the text, from 1.
    pub line: usize,
    /// The column of the line in characters, from 1.
    pub column: usize,
    /// The whole diagnostic as it is shown to people.
    pub rendered: String,
}

/// A failed operation.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    sql: Vec<SqlError>,
    /// What was found in SQL whose text was not at hand.
    found: Option<Box<Diagnostic>>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind with a message: lower case, no full stop, the user's names quoted.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), sql: Vec::new(), found: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Try again later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Stored or read data is damaged or does not fit.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    /// The thing used is closed.
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(Kind::Closed, message)
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Errors found in SQL text, all of one statement; the message is their rendering.
    pub fn sql(errors: Vec<SqlError>) -> Self {
        let message = errors.iter().map(|e| e.rendered.trim_end()).collect::<Vec<_>>().join("\n\n");
        Self { kind: Kind::Invalid, message, sql: errors, found: None }
    }

    /// An error found at a place of SQL, by what has no text to show it in; whoever has the text renders [`Self::found`],
    /// anybody else shows the message.
    pub(crate) fn at_place(diagnostic: Diagnostic, message: String) -> Self {
        Self { kind: Kind::Invalid, message, sql: Vec::new(), found: Some(Box::new(diagnostic)) }
    }

    /// What was found in SQL but is not rendered yet.
    pub(crate) fn found(&self) -> Option<&Diagnostic> {
        self.found.as_deref()
    }

    /// The same error with what was being done in front of its message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The remedy.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message alone, as [`fmt::Display`] shows it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The errors in SQL text this is made of; empty for any other error.
    pub fn sql_errors(&self) -> &[SqlError] {
        &self.sql
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::unavailable(e.to_string())
    }
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        Self::unavailable(format!("storage: {e}"))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::data(e.to_string())
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        Self::data(e.to_string())
    }
}

impl From<deltalake_core::DeltaTableError> for Error {
    fn from(e: deltalake_core::DeltaTableError) -> Self {
        Self::data(format!("history: {e}"))
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e.find_root() {
            D::External(inner) if inner.downcast_ref::<Error>().is_some() => {
                inner.downcast_ref::<Error>().cloned().unwrap_or_else(|| Self::internal("unknown"))
            }
            D::ResourcesExhausted(_) => Self::unavailable(e.to_string()),
            D::Internal(_) => Self::internal(e.to_string()),
            D::Plan(_) | D::SchemaError(_, _) | D::SQL(_, _) | D::Configuration(_) | D::NotImplemented(_) => {
                Self::invalid(e.strip_backtrace())
            }
            _ => Self::data(e.strip_backtrace()),
        }
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        Self::External(Box::new(e))
    }
}
