//! Values of options that may be kept elsewhere: `env:NAME` and `file:PATH` name where.

use crate::error::{Error, Result};

/// The value of an option, or where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// As written.
    Plain(String),
    /// In an environment variable.
    Env(String),
    /// In a file, without the white space around it.
    File(String),
}

impl Setting {
    /// What an option's text says.
    pub(super) fn parse(text: &str) -> Self {
        match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(name), _) => Self::Env(name.to_owned()),
            (_, Some(path)) => Self::File(path.to_owned()),
            _ => Self::Plain(text.to_owned()),
        }
    }

    /// The value, read where it is kept.
    ///
    /// - Errors: [`crate::error::Kind::Unavailable`] naming the variable or the file, never a value.
    pub fn value(&self) -> Result<String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Env(name) => {
                std::env::var(name).map_err(|_| Error::unavailable(format!("the environment variable \"{name}\" is not set")))
            }
            Self::File(path) => Ok(String::from_utf8_lossy(&read(path)?).trim().to_owned()),
        }
    }
}

/// What a file of the options holds.
pub(super) fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::unavailable(format!("cannot read \"{path}\": {e}")))
}
