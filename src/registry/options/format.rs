//! The options that say how a stream's records are written: where columns are read from, and where Avro's schemas are.
//!
//! - `'json_path.<column>' = '$.a.b'`: the column is read from there, in JSON and in Avro; an empty text takes the path back.
//! - `schema_registry = 'http://host:8081'`, of format `avro`; with `'schema_registry.user'` and `'schema_registry.password'` for basic
//!   authentication, and `'schema_registry.ca' = 'PATH'`, a file of certificates that are trusted in place of the usual ones.
//!
//! A secret is named, never written: `env:NAME` or `file:PATH`; so may be the user. Not here: the format itself, which is its connector's.

use asof_sql::Diagnostic;
use asof_sql::ast::{OptionEntry, OptionValue};
use asof_sql::bind::unknown_option;
use asof_sql::codes;

use super::setting::{Setting, read};
use crate::error::{Error, Result};
use crate::stream::decode::{FieldPath, MessageFormat, RegistrySettings};
use crate::stream::schema::StreamSchema;

/// How a stream's records are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormatOptions {
    /// Columns that are read from another place than the field of their name.
    pub paths: Vec<(String, FieldPath)>,
    /// Where the schema registry is.
    pub registry: Option<String>,
    /// Who asks it.
    pub registry_user: Option<Setting>,
    /// The password.
    pub registry_password: Option<Setting>,
    /// A file of certificates.
    pub registry_ca: Option<String>,
}

/// The options of this file that have no column in their name.
pub const KNOWN: &[&str] = &["schema_registry", "schema_registry.user", "schema_registry.password", "schema_registry.ca"];

const PATH: &str = "json_path.";
const REGISTRY: &str = "schema_registry";

/// Reads the options of this file over what is set already, and returns those of others.
pub fn format_options<'a>(options: &mut FormatOptions, entries: &'a [OptionEntry], errors: &mut Vec<Diagnostic>) -> Vec<&'a OptionEntry> {
    let mut others = Vec::new();
    for entry in entries {
        if entry.key.starts_with(PATH) || entry.key.split('.').next() == Some(REGISTRY) {
            errors.extend(options.take(entry).err());
        } else {
            others.push(entry);
        }
    }
    others
}

impl FormatOptions {
    fn take(&mut self, entry: &OptionEntry) -> Result<(), Diagnostic> {
        let key = entry.key.as_str();
        let OptionValue::String(text) = &entry.value else {
            return Err(Diagnostic::error(codes::E0602, entry.value_span, format!("option \"{key}\" must be a string")));
        };
        let invalid = |what: String| Diagnostic::error(codes::E0602, entry.value_span, format!("option \"{key}\": {what}"));
        // An empty text takes back what was set.
        let set = (!text.is_empty()).then_some(text);
        match (key, key.strip_prefix(PATH)) {
            (_, Some(column)) => {
                let path = set.map(|text| FieldPath::parse(text)).transpose().map_err(|e| {
                    let help = "A path names one value: $.name, $['any name'] and $.items[0], one behind the other.";
                    invalid(e.message().to_owned()).help(help)
                })?;
                self.paths.retain(|(name, _)| name != column);
                self.paths.extend(path.map(|path| (column.to_owned(), path)));
            }
            (REGISTRY, _) => {
                if let Some(text) = set {
                    check_url(text).map_err(invalid)?;
                }
                self.registry = set.cloned();
            }
            ("schema_registry.user", _) => self.registry_user = set.map(|text| Setting::parse(text)),
            ("schema_registry.password", _) => {
                let setting = set.map(|text| Setting::parse(text));
                if let Some(Setting::Plain(_)) = setting {
                    let error = Diagnostic::error(codes::E0604, entry.value_span, format!("option \"{key}\" holds a secret in the open"));
                    return Err(error.help("Write 'env:NAME' or 'file:PATH'."));
                }
                self.registry_password = setting;
            }
            ("schema_registry.ca", _) => self.registry_ca = set.cloned(),
            _ => return Err(unknown_option(key, entry.key_span, KNOWN)),
        }
        Ok(())
    }

    /// Checks what only the whole stream shows; `format` is the name of its records' format, where the stream says it.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] naming the option that does not fit.
    pub fn check(&self, schema: &StreamSchema, format: Option<&str>) -> Result<()> {
        let avro = format == Some(MessageFormat::Avro.name());
        for (name, _) in &self.paths {
            let option = format!("option \"{PATH}{name}\"");
            if !schema.columns().iter().any(|c| c.name == *name && !c.name.starts_with('_')) {
                return Err(Error::invalid(format!("{option}: the stream declares no column \"{name}\"")));
            }
            if let Some(flat @ ("csv" | "parquet")) = format {
                return Err(Error::invalid(format!("{option}: the records of format '{flat}' have no paths")));
            }
        }
        let given = [
            (KNOWN[0], self.registry.is_some()),
            (KNOWN[1], self.registry_user.is_some()),
            (KNOWN[2], self.registry_password.is_some()),
            (KNOWN[3], self.registry_ca.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) if !avro => Err(Error::invalid(format!("option \"{name}\" belongs to format 'avro'"))),
            _ if avro && self.registry.is_none() => Err(Error::invalid("format 'avro' needs the option \"schema_registry\"")),
            _ if self.registry_user.is_some() != self.registry_password.is_some() => {
                Err(Error::invalid("options \"schema_registry.user\" and \"schema_registry.password\" belong together"))
            }
            _ => Ok(()),
        }
    }

    /// What a client of the registry needs, secrets read where they are kept; None without a registry.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] naming the variable or the file, never a value.
    pub fn registry_settings(&self) -> Result<Option<RegistrySettings>> {
        let Some(url) = self.registry.clone() else { return Ok(None) };
        let login = match (&self.registry_user, &self.registry_password) {
            (Some(user), Some(password)) => Some((user.value()?, password.value()?)),
            _ => None,
        };
        let authorities = self.registry_ca.as_deref().map(read).transpose()?;
        Ok(Some(RegistrySettings { url, login, authorities }))
    }
}

fn check_url(text: &str) -> Result<(), String> {
    let url = url::Url::parse(text).map_err(|e| format!("'{text}' is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it may hold a password.
        return Err("the URL holds a user; use the options schema_registry.user and schema_registry.password".to_owned());
    }
    match url.scheme() {
        "http" | "https" if url.has_host() && url.query().is_none() && url.fragment().is_none() => Ok(()),
        _ => Err(format!("'{text}' is not 'http://host:port' or 'https://host:port', with a path perhaps")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};
    use asof_sql::Span;

    use super::*;
    use crate::stream::schema::StreamColumn;

    fn given(options: &mut FormatOptions, entries: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| OptionEntry {
                key: (*key).into(),
                key_span: Span::default(),
                value: OptionValue::String((*value).into()),
                value_span: Span::default(),
            })
            .collect();
        let mut errors = Vec::new();
        let others = format_options(options, &entries, &mut errors);
        let others = others.iter().map(|entry| entry.key.clone()).collect();
        (others, errors.iter().map(|e| format!("{} {}", e.code.as_str(), e.message)).collect())
    }

    #[test]
    fn options_are_taken_or_said_to_be_wrong() {
        let mut options = FormatOptions::default();
        let entries = [
            ("json_path.amount", "$.order.amount"),
            ("topic", "orders"),
            ("schema_registry", "https://registry:8081/base"),
            ("schema_registry.user", "asof"),
            ("schema_registry.password", "env:ASOF_TEST_UNSET"),
        ];
        assert_eq!(given(&mut options, &entries), (vec!["topic".to_owned()], vec![]));
        assert_eq!(options.paths, [("amount".to_owned(), FieldPath::parse("$.order.amount").unwrap())]);
        assert_eq!(options.registry_settings().unwrap_err().message(), "the environment variable \"ASOF_TEST_UNSET\" is not set");
        assert_eq!(given(&mut options, &[("json_path.amount", "$.total")]).1, [""; 0]);
        assert_eq!(options.paths[0].1.to_string(), "total");
        assert_eq!(given(&mut options, &[("json_path.amount", ""), ("schema_registry.password", "")]).1, [""; 0]);
        assert_eq!((options.paths.len(), options.registry_password.clone()), (0, None));
        for (key, value, expected) in [
            ("json_path.a", "$.b..c", "E0602 option \"json_path.a\": path '$.b..c' at character 5: a field's name wanted, found '.'"),
            ("schema_registry.password", "hunter2", "E0604 option \"schema_registry.password\" holds a secret in the open"),
            ("schema_registry.pasword", "env:X", "E0601 unknown option \"schema_registry.pasword\""),
            (
                "schema_registry",
                "registry:8081",
                "E0602 option \"schema_registry\": 'registry:8081' is not 'http://host:port' or 'https://host:port', with a path perhaps",
            ),
            (
                "schema_registry",
                "http://me:hunter2@registry",
                "E0602 option \"schema_registry\": the URL holds a user; use the options schema_registry.user and schema_registry.password",
            ),
        ] {
            assert_eq!(given(&mut options, &[(key, value)]).1, [expected]);
        }
    }

    #[test]
    fn options_fit_the_stream_and_its_format() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema =
            StreamSchema::try_new(vec![StreamColumn { name: "ts".into(), data_type: utc, nullable: false }], vec![], 0, 0).unwrap();
        let check = |entries: &[(&str, &str)], format: Option<&str>| {
            let mut options = FormatOptions::default();
            assert_eq!(given(&mut options, entries).1, [""; 0]);
            options.check(&schema, format).map_err(|e| e.message().to_owned())
        };
        assert_eq!(
            check(&[("json_path.ts", "$.a")], Some("csv")),
            Err("option \"json_path.ts\": the records of format 'csv' have no paths".into())
        );
        let url = ("schema_registry", "http://registry:8081");
        assert_eq!(check(&[("json_path.ts", "$.a")], None), Ok(()));
        assert_eq!(check(&[("json_path.a", "$.a")], None), Err("option \"json_path.a\": the stream declares no column \"a\"".into()));
        assert_eq!(check(&[url], Some("avro")), Ok(()));
        assert_eq!(check(&[], Some("avro")), Err("format 'avro' needs the option \"schema_registry\"".into()));
        assert_eq!(check(&[url], Some("json")), Err("option \"schema_registry\" belongs to format 'avro'".into()));
        assert_eq!(
            check(&[url, ("schema_registry.user", "me")], Some("avro")),
            Err("options \"schema_registry.user\" and \"schema_registry.password\" belong together".into())
        );
    }
}
