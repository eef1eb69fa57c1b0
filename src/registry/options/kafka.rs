//! The options of a stream that is read from a Kafka topic.
//!
//! What is not Asof's own goes to the client library under its name, `'kafka.<property>'`; what decides exactness is not for the user to
//! set. A secret is named, never written: `env:NAME` or `file:PATH`. Not here: the client (`connect::kafka`).

use std::collections::BTreeMap;

use asof_sql::Diagnostic;
use asof_sql::ast::{OptionEntry, OptionValue};
use asof_sql::bind::duration_of;
use asof_sql::codes;

use super::setting::Setting;
use crate::stream::decode::{MessageFormat, parse_time};

/// How a stream reads a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The consumer group, whose offsets are advice to other tools.
    pub group: Option<String>,
    /// Where a partition begins of which nothing was committed.
    pub start: Start,
    /// How messages are encoded.
    pub format: MessageFormat,
    /// Records after which a commit is made.
    pub commit_rows: usize,
    /// The time after which a commit is made, microseconds.
    pub commit_interval_us: i64,
    /// Properties of the client library.
    pub properties: BTreeMap<String, Setting>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the broker still has.
    Earliest,
    /// Behind the last record of the moment.
    Latest,
    /// At the first record with a broker timestamp from this one on, microseconds since the Unix epoch.
    At(i64),
}

/// Records after which a commit is made where nothing else is said.
const COMMIT_ROWS: usize = 50_000;
/// As long a commit waits where nothing else is said, microseconds.
const COMMIT_INTERVAL_US: i64 = 1_000_000;
/// The most records between two commits: they are held in memory.
const COMMIT_ROWS_MAX: usize = 5_000_000;

/// The options that belong to this connector, beside `kafka.*`.
pub const KNOWN: &[&str] = &["brokers", "topic", "group", "start", "commit_rows", "commit_interval"];

/// What the exactness of ingestion decides.
const OURS: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "enable.partition.eof",
    "statistics.interval.ms",
    "check.crcs",
    "partition.assignment.strategy",
    "group.protocol",
];

/// Properties that hold a secret.
const SECRETS: &[&str] = &["password", "secret", "ssl.key.pem", "sasl.oauthbearer.config"];

/// What was given of the options so far.
#[derive(Debug, Default)]
pub(super) struct Given {
    brokers: Option<String>,
    topic: Option<String>,
    group: Option<String>,
    start: Option<Start>,
    commit_rows: Option<usize>,
    commit_interval_us: Option<i64>,
    properties: BTreeMap<String, Setting>,
}

impl Given {
    /// What a stream has already.
    pub(super) fn of(options: &KafkaOptions) -> Self {
        Self {
            brokers: Some(options.brokers.clone()),
            topic: Some(options.topic.clone()),
            group: options.group.clone(),
            start: Some(options.start),
            commit_rows: Some(options.commit_rows),
            commit_interval_us: Some(options.commit_interval_us),
            properties: options.properties.clone(),
        }
    }

    /// Whether an option is of this connector.
    pub(super) fn owns(key: &str) -> bool {
        KNOWN.contains(&key) || key.starts_with("kafka.")
    }

    /// Takes one option of this connector.
    pub(super) fn take(&mut self, entry: &OptionEntry) -> Result<(), Diagnostic> {
        let key = entry.key.as_str();
        let text = match &entry.value {
            OptionValue::String(s) => Some(s.as_str()),
            _ => None,
        };
        let must = |what: &str| Diagnostic::error(codes::E0602, entry.value_span, format!("option \"{key}\" must be {what}"));
        let filled = || text.filter(|t| !t.trim().is_empty()).map(str::to_owned);
        match key {
            "brokers" => self.brokers = Some(filled().ok_or_else(|| must("a string, as 'host:9092, host:9092'"))?),
            "topic" => self.topic = Some(filled().ok_or_else(|| must("the name of a topic"))?),
            "group" => self.group = Some(filled().ok_or_else(|| must("the name of a consumer group"))?),
            "start" => {
                let start = match text {
                    Some("earliest") => Some(Start::Earliest),
                    Some("latest") => Some(Start::Latest),
                    Some(time) => parse_time(time).map(Start::At),
                    None => None,
                };
                self.start = Some(start.ok_or_else(|| must("'earliest', 'latest' or a timestamp"))?);
            }
            "commit_rows" => {
                let number = match &entry.value {
                    OptionValue::String(s) => s.parse().ok(),
                    OptionValue::Number(n) => n.parse().ok(),
                    _ => None,
                };
                let range = format!("a number from 1 to {COMMIT_ROWS_MAX}");
                self.commit_rows = Some(number.filter(|n| (1..=COMMIT_ROWS_MAX).contains(n)).ok_or_else(|| must(&range))?);
            }
            "commit_interval" => {
                let interval = duration_of(&entry.value).filter(|d| *d > 0);
                self.commit_interval_us = Some(interval.ok_or_else(|| must("a duration, as '1 second'"))?);
            }
            _ => {
                let property = key.strip_prefix("kafka.").unwrap_or(key);
                if OURS.contains(&property) {
                    return Err(Diagnostic::error(codes::E0602, entry.key_span, format!("\"{property}\" is not for a stream to set"))
                        .help("The engine keeps offsets itself; use the options brokers, topic, group and start."));
                }
                let value = Setting::parse(text.ok_or_else(|| must("a string"))?);
                if SECRETS.iter().any(|s| property.contains(s)) && matches!(value, Setting::Plain(_)) {
                    return Err(Diagnostic::error(codes::E0604, entry.value_span, format!("option \"{key}\" holds a secret in the open"))
                        .help("Write 'env:NAME' or 'file:PATH'."));
                }
                self.properties.insert(property.to_owned(), value);
            }
        }
        Ok(())
    }

    /// The options, or what is missing.
    pub(super) fn finish(self, format: Option<MessageFormat>) -> Result<KafkaOptions, &'static str> {
        Ok(KafkaOptions {
            brokers: self.brokers.ok_or("brokers")?,
            topic: self.topic.ok_or("topic")?,
            group: self.group,
            start: self.start.unwrap_or(Start::Earliest),
            format: format.unwrap_or(MessageFormat::Json),
            commit_rows: self.commit_rows.unwrap_or(COMMIT_ROWS),
            commit_interval_us: self.commit_interval_us.unwrap_or(COMMIT_INTERVAL_US),
            properties: self.properties,
        })
    }
}
