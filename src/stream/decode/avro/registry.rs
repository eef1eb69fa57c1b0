//! The client of a schema registry: `GET {url}/schemas/ids/{id}`, as Confluent's, Karapace, Redpanda and Apicurio answer it.
//!
//! An answer says what a schema is, or that there is none: these are facts. Whatever else comes (no connection, a time-out, another
//! status, a page of something between) says nothing about the schema, and is [`crate::error::Kind::Unavailable`]: try again. Even a 404
//! is a fact only with the registry's own code in it, since a wrong URL answers 404 to everything.
//!
//! A schema never changes under its id, so it is held, within a bound. Calls block.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::Schemas;
use crate::error::{Error, Result};

/// The registry's code for an id that has no schema.
const NOT_FOUND: u64 = 40403;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// How many bytes of schemas are held; when there are more it begins anew.
const HELD_BYTES_MAX: usize = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// All of one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a registry is and who asks it. [`fmt::Debug`] shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// `http://host:port/perhaps/a/path`.
    pub url: String,
    /// The user and the password of basic authentication.
    pub login: Option<(String, String)>,
    /// Certificates in PEM that are trusted in place of the usual ones.
    pub authorities: Option<Vec<u8>>,
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A client of a schema registry, for any number of decoders.
pub struct RegistryClient {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    texts: HashMap<u32, Arc<str>>,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// A client; nothing is asked yet.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] for certificates that cannot be read.
    pub fn try_new(settings: RegistrySettings) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &settings.authorities {
            let invalid = |what: String| Error::invalid(format!("certificates of the schema registry: {what}"));
            let items = parse_pem(pem).collect::<Result<Vec<_>, _>>().map_err(|e| invalid(e.to_string()))?;
            let certificates = items.into_iter().filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(invalid("there is none in the file".to_owned()));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            .user_agent("asof");
        Ok(Self {
            agent: config.build().new_agent(),
            url: settings.url.trim_end_matches('/').to_owned(),
            authorization: settings.login.map(|(user, password)| format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))),
            held: Mutex::default(),
        })
    }

    fn ask(&self, id: u32) -> Result<Result<Arc<str>, String>> {
        let mut request = self.agent.get(format!("{}/schemas/ids/{id}", self.url));
        request = request.header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let failed = |what: &dyn fmt::Display| Error::unavailable(format!("schema registry {}: schema {id}: {what}", self.url));
        let mut answer = request.call().map_err(|e| failed(&e))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(|e| failed(&e))?;
        let json: Option<Json> = serde_json::from_str(&body).ok();
        let field = |name: &str| json.as_ref().and_then(|json| json.get(name));
        match status {
            200 => {
                let Some(text) = field("schema").and_then(Json::as_str) else {
                    return Err(failed(&"the answer holds no schema"));
                };
                // Absent for Avro, which was there first.
                let kind = field("schemaType").and_then(Json::as_str).unwrap_or("AVRO");
                if kind != "AVRO" {
                    return Ok(Err(format!("it is of type {kind}, not AVRO")));
                }
                if field("references").and_then(Json::as_array).is_some_and(|references| !references.is_empty()) {
                    return Ok(Err("it refers to other schemas, which is not supported".to_owned()));
                }
                Ok(Ok(text.into()))
            }
            404 if field("error_code").and_then(Json::as_u64) == Some(NOT_FOUND) => Ok(Err("the registry has none".to_owned())),
            401 | 403 => Err(failed(&format!("answered {status}, so the user or the password is wrong, or may not read it"))),
            404 => Err(failed(&"answered 404 without a registry's code, so the URL is probably wrong")),
            _ => Err(failed(&format!("answered {status}"))),
        }
    }
}

impl Schemas for RegistryClient {
    fn schema(&self, id: u32) -> Result<Result<Arc<str>, String>> {
        if let Some(text) = self.held.lock().unwrap_or_else(PoisonError::into_inner).texts.get(&id) {
            return Ok(Ok(Arc::clone(text)));
        }
        // Not under the lock: a registry that does not answer holds up nobody who needs nothing of it.
        let answer = self.ask(id)?;
        if let Ok(text) = &answer {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.bytes + text.len() > HELD_BYTES_MAX {
                *held = Held::default();
            }
            if held.texts.insert(id, Arc::clone(text)).is_none() {
                held.bytes += text.len();
            }
        }
        Ok(answer)
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([&0, &0]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_comes_back() {
        for text in ["", "f", "fo", "foo", "foob", "user:pass wörd"] {
            let mut bytes = Vec::new();
            super::super::super::base64::append_bytes(&super::base64(text.as_bytes()), &mut bytes).unwrap();
            assert_eq!(bytes, text.as_bytes());
        }
    }
}
