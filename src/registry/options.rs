//! The options of a stream: how it is fed and how its records are judged.

pub mod format;
pub mod kafka;
pub mod setting;

use asof_sql::Diagnostic;
use asof_sql::ast::{OptionEntry, OptionValue};
use asof_sql::bind::{duration_of, unknown_option};
use asof_sql::codes;

use self::format::{FormatOptions, format_options};
use self::kafka::{Given, KafkaOptions};
use crate::stream::decode::{MessageFormat, TimeUnit};
use crate::stream::placement::Partitioner;

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
    /// From a Kafka topic.
    Kafka(Box<KafkaOptions>),
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
    /// The column that producers partition by, where several processes share the stream.
    pub key: Option<String>,
    /// How they do.
    pub partitioner: Option<Partitioner>,
    /// How its records are written.
    pub records: FormatOptions,
}

impl StreamOptions {
    /// How the messages are written that feed the stream; None where it is not fed with messages.
    pub fn message_format(&self) -> Option<MessageFormat> {
        match &self.connector {
            Connector::Push | Connector::File { .. } => None,
            Connector::Kafka(kafka) => Some(kafka.format),
        }
    }

    /// The name of the format that records come in, where the stream says it.
    pub fn format_name(&self) -> Option<&str> {
        match &self.connector {
            Connector::Push => None,
            Connector::File { format, .. } => format.as_deref(),
            Connector::Kafka(kafka) => Some(kafka.format.name()),
        }
    }
}

const KNOWN: &[&str] = &["connector", "path", "format", "mode", "time_unit", "max_future_skew", "key", "partitioner"];

/// What each connector reads.
const FILE_FORMATS: &[&str] = &["json", "csv", "parquet"];

/// Whether an option is only for a stream that is read from Kafka.
fn of_kafka(key: &str) -> bool {
    Given::owns(key) || ["key", "partitioner"].contains(&key)
}

/// Reads the options of `CREATE STREAM` or `ALTER STREAM ... SET` over what is set already.
pub fn stream_options(mut options: StreamOptions, entries: &[OptionEntry]) -> Result<StreamOptions, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let (mut connector, mut path, mut format, mut follow) = ("push".to_owned(), None, None, None);
    let mut given = Given::default();
    match &options.connector {
        Connector::Push => {}
        Connector::File { path: p, format: f, follow: followed } => {
            (connector, path, format, follow) = ("file".into(), Some(p.clone()), f.clone(), Some(*followed));
        }
        Connector::Kafka(kafka) => {
            (connector, format, given) = ("kafka".into(), Some(kafka.format.name().to_owned()), Given::of(kafka));
        }
    }
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
            ("connector", Some(c @ ("file" | "push" | "kafka"))) => connector = c.to_owned(),
            ("connector", _) => invalid("'kafka', 'file' or 'push'"),
            ("path", Some(p)) => path = Some(p.to_owned()),
            ("path", None) => invalid("a string"),
            ("format", Some(f)) => format = Some(f.to_owned()),
            ("format", None) => invalid("a string"),
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
            ("key", Some(k)) => options.key = Some(k.trim().to_owned()),
            ("key", None) => invalid("the name of a column"),
            ("partitioner", name) => match name.and_then(Partitioner::find) {
                Some(partitioner) => options.partitioner = Some(partitioner),
                None => invalid("'murmur2', 'crc32' or 'fnv1a'"),
            },
            _ if Given::owns(key) => errors.extend(given.take(entry).err()),
            _ => errors.push(unknown_option(key, entry.key_span, &[KNOWN, kafka::KNOWN].concat())),
        }
    }
    let at = |wanted: &dyn Fn(&str) -> bool| entries.iter().find(|e| wanted(&e.key));
    // An option that the connector would pass over is refused.
    let (formats, foreign): (_, &dyn Fn(&str) -> bool) = match connector.as_str() {
        "file" => (FILE_FORMATS, &of_kafka),
        "kafka" => (MessageFormat::NAMES, &|key| ["path", "mode"].contains(&key)),
        _ => (&[][..], &|key| ["path", "mode", "format"].contains(&key) || of_kafka(key)),
    };
    if let Some(entry) = at(foreign) {
        let owner = if of_kafka(&entry.key) { "kafka" } else { "file" };
        let message = match entry.key.as_str() {
            "format" => "option \"format\" belongs to a connector".to_owned(),
            key => format!("option \"{key}\" belongs to connector \"{owner}\""),
        };
        let error = Diagnostic::error(codes::E0602, entry.key_span, message);
        errors.push(error.help(format!("Add connector = '{owner}', or leave the option out.")));
    } else if let (Some(f), Some(entry)) = (&format, at(&|key| key == "format"))
        && !formats.contains(&f.as_str())
    {
        let list = formats.iter().map(|f| format!("'{f}'")).collect::<Vec<_>>().join(", ");
        errors.push(Diagnostic::error(
            codes::E0602,
            entry.value_span,
            format!("option \"format\" of connector \"{connector}\" is one of {list}"),
        ));
    }
    // The format of another connector does not carry over.
    let format = format.filter(|f| formats.contains(&f.as_str()));
    let made = match (connector.as_str(), path) {
        ("file", Some(path)) => Ok(Connector::File { path, format, follow: follow.unwrap_or(false) }),
        ("file", None) => Err("path"),
        ("kafka", _) => given.finish(format.as_deref().and_then(MessageFormat::find)).map(|kafka| Connector::Kafka(Box::new(kafka))),
        _ => Ok(Connector::Push),
    };
    match made {
        Ok(made) => options.connector = made,
        // What was given wrongly has been said.
        Err(missing) if errors.is_empty() => {
            let span = at(&|key| key == "connector").or(entries.first()).map(|e| e.key_span).unwrap_or_default();
            errors.push(Diagnostic::error(codes::E0603, span, format!("connector \"{connector}\" needs the option \"{missing}\"")));
        }
        Err(_) => {}
    }
    if errors.is_empty() { Ok(options) } else { Err(errors) }
}
