//! The options of a stream: how it is fed and how its records are judged.

pub mod format;

use asof_sql::Diagnostic;
use asof_sql::ast::{OptionEntry, OptionValue};
use asof_sql::bind::{duration_of, unknown_option};
use asof_sql::codes;

use self::format::{FormatOptions, format_options};
use crate::stream::decode::{MessageFormat, TimeUnit};

/// How a stream is fed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Connector {
    /// By INSERT, COPY and DoPut only.
    #[default]
    Push,
    /// From files.
    File {
        /// A path or a glob.
        path: String,
        /// `json`, `csv` or `parquet`; by the file's ending where it is not given.
        format: Option<String>,
        /// Whether files that grow or appear are read on.
        follow: bool,
    },
}

/// The options of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamOptions {
    /// How it is fed.
    pub connector: Connector,
    /// What a number in a timestamp's place counts.
    pub time_unit: Option<TimeUnit>,
    /// How far past the moment it was taken an event may lie, microseconds.
    pub max_future_skew: Option<i64>,
    /// The columns that producers partition by.
    pub key: Vec<String>,
    /// How its records are written.
    pub records: FormatOptions,
}

impl StreamOptions {
    /// How the messages are written that feed the stream; None where it is not fed with messages.
    pub fn message_format(&self) -> Option<MessageFormat> {
        match &self.connector {
            Connector::Push | Connector::File { .. } => None,
        }
    }

    /// The name of the format that records come in, where the stream says it.
    pub fn format_name(&self) -> Option<&str> {
        match &self.connector {
            Connector::Push => None,
            Connector::File { format, .. } => format.as_deref(),
        }
    }
}

const KNOWN: &[&str] = &["connector", "path", "format", "mode", "time_unit", "max_future_skew", "key"];

/// Reads the options of `CREATE STREAM` or `ALTER STREAM ... SET` over what is set already.
pub fn stream_options(mut options: StreamOptions, entries: &[OptionEntry]) -> Result<StreamOptions, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let (mut connector, mut path, mut format, mut follow) = match &options.connector {
        Connector::Push => (None, None, None, None),
        Connector::File { path, format, follow } => (Some("file".to_owned()), Some(path.clone()), format.clone(), Some(*follow)),
    };
    for entry in format_options(&mut options.records, entries, &mut errors) {
        let key = entry.key.as_str();
        let text = match &entry.value {
            OptionValue::String(s) => Some(s.as_str()),
            _ => None,
        };
        let mut invalid = |what: &str| {
            errors.push(Diagnostic::error(codes::E0602, entry.value_span, format!("option \"{key}\" must be {what}")));
        };
        match (key, text) {
            ("connector", Some(c @ ("file" | "push"))) => connector = Some(c.to_owned()),
            ("connector", Some("kafka")) => errors.push(
                Diagnostic::error(codes::E0602, entry.value_span, "connector \"kafka\" is not part of this build")
                    .help("Use connector = 'file', or leave it out and write by INSERT or COPY."),
            ),
            ("connector", _) => invalid("'file' or 'push'"),
            ("path", Some(p)) => path = Some(p.to_owned()),
            ("path", None) => invalid("a string"),
            ("format", Some(f)) if ["json", "csv", "parquet"].contains(&f) => format = Some(f.to_owned()),
            ("format", _) => invalid("'json', 'csv' or 'parquet'"),
            ("mode", Some(m @ ("once" | "follow"))) => follow = Some(m == "follow"),
            ("mode", _) => invalid("'once' or 'follow'"),
            ("time_unit", Some(u)) => match TimeUnit::parse(u) {
                Ok(unit) => options.time_unit = Some(unit),
                Err(_) => invalid("'s', 'ms', 'us' or 'ns'"),
            },
            ("time_unit", None) => invalid("'s', 'ms', 'us' or 'ns'"),
            ("max_future_skew", _) => match duration_of(&entry.value) {
                Some(d) => options.max_future_skew = Some(d),
                None => invalid("a duration, as '10 minutes'"),
            },
            ("key", Some(k)) => options.key = k.split(',').map(|c| c.trim().to_owned()).collect(),
            ("key", None) => invalid("a string of column names"),
            _ => errors.push(unknown_option(key, entry.key_span, KNOWN)),
        }
    }
    options.connector = match (connector.as_deref(), path) {
        (Some("file"), Some(path)) => Connector::File { path, format, follow: follow.unwrap_or(false) },
        (Some("file"), None) => {
            let span = entries.first().map(|e| e.key_span).unwrap_or_default();
            errors.push(Diagnostic::error(codes::E0603, span, "connector \"file\" needs the option \"path\""));
            Connector::Push
        }
        (_, Some(_)) => {
            let span = entries.iter().find(|e| e.key == "path").map(|e| e.key_span).unwrap_or_default();
            errors.push(
                Diagnostic::error(codes::E0602, span, "option \"path\" belongs to connector \"file\"").help("Add connector = 'file'."),
            );
            Connector::Push
        }
        _ if format.is_some() || follow.is_some() => {
            let span = entries.iter().find(|e| e.key == "format" || e.key == "mode").map(|e| e.key_span).unwrap_or_default();
            errors.push(
                Diagnostic::error(codes::E0602, span, "options \"format\" and \"mode\" belong to connector \"file\"")
                    .help("Add connector = 'file'."),
            );
            Connector::Push
        }
        _ => Connector::Push,
    };
    if errors.is_empty() { Ok(options) } else { Err(errors) }
}
