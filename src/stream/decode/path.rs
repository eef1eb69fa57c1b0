//! Where in a record a column is read from: `$.customer['home address'].lines[0]`.
//!
//! A path begins with `$`, the record, and goes down by names (`.name`, `['any name']`, `["any name"]`, a backslash before a quote or a
//! backslash in quotes) and by places of arrays (`[0]`, from 0). It names one value: no wildcards, filters, slices or `..`. A column
//! without a path is read from the field of its own name.
//!
//! What is not there is absent, as SQL/JSON's `JSON_VALUE` has it in Flink, and `EXTRACTJSONFIELD` in ksqlDB: a field that is missing, a
//! place behind an array's end, and also a step into what is no object or array. Absent is NULL, or rejects the record where the
//! column is NOT NULL.

use std::fmt;

use super::Options;
use crate::error::{Error, Result};
use crate::stream::schema::StreamSchema;

/// As many steps as any record of sense has; reading goes one level down the stack for each.
const STEPS_MAX: usize = 32;

/// The way from a record to one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(Box<str>),
    Item(usize),
}

impl FieldPath {
    /// The path that a text spells.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] with the place of the fault in characters, from 1.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        parser.path().map_err(|what| {
            let place = text.get(..parser.at).unwrap_or(text).chars().count() + 1;
            Error::invalid(format!("path '{text}' at character {place}: {what}"))
        })
    }

    /// The path of a field of the record itself.
    pub fn of_field(name: &str) -> Self {
        Self { steps: vec![Step::Field(name.into())] }
    }
}

/// Without the `$`: `customer['home address'].lines[0]`.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                // A field of the record itself is called as the column is, whatever its name.
                Step::Field(name) if self.steps.len() == 1 || (!name.is_empty() && name.chars().all(is_bare)) => {
                    f.write_str(if i == 0 { "" } else { "." })?;
                    f.write_str(name)?;
                }
                Step::Field(name) => write!(f, "['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))?,
            }
        }
        Ok(())
    }
}

/// Whether a character may stand in a name without quotes.
fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@' | ':')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wanted(&self, what: &str) -> String {
        match self.peek() {
            Some(c) => format!("{what} wanted, found {c:?}"),
            None => format!("{what} wanted, found the end"),
        }
    }

    fn path(&mut self) -> Result<FieldPath, String> {
        if self.peek() != Some('$') {
            return Err(self.wanted("$"));
        }
        self.at += 1;
        let mut steps = Vec::new();
        while let Some(c) = self.peek() {
            if steps.len() == STEPS_MAX {
                return Err(format!("a path has at most {STEPS_MAX} steps"));
            }
            let step = match c {
                '.' => {
                    self.at += 1;
                    Step::Field(self.bare()?.into())
                }
                '[' => self.bracket()?,
                _ => return Err(self.wanted("a dot or a bracket")),
            };
            if steps.is_empty() && matches!(step, Step::Item(_)) {
                return Err("a record is an object, and its fields are found by name".to_owned());
            }
            steps.push(step);
        }
        if steps.is_empty() {
            return Err(self.wanted("a field's name, as in $.name,"));
        }
        Ok(FieldPath { steps })
    }

    fn bare(&mut self) -> Result<&'a str, String> {
        let rest = self.rest();
        let end = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.wanted("a field's name"));
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.at += 1;
        let step = match self.peek() {
            Some(quote @ ('\'' | '"')) => Step::Field(self.quoted(quote)?.into()),
            Some('0'..='9') => {
                let rest = self.rest();
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let index: u32 = rest[..end].parse().map_err(|_| "the place in an array is too great".to_owned())?;
                self.at += end;
                Step::Item(index as usize)
            }
            _ => return Err(self.wanted("a name in quotes or a place in an array, from 0,")),
        };
        if self.peek() != Some(']') {
            return Err(self.wanted("a closing bracket"));
        }
        self.at += 1;
        Ok(step)
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.at += 1;
        let mut name = String::new();
        loop {
            let Some(mut c) = self.peek() else { return Err(self.wanted("a closing quote")) };
            self.at += c.len_utf8();
            if c == quote {
                return Ok(name);
            }
            if c == '\\' {
                c = self.peek().filter(|c| matches!(c, '\'' | '"' | '\\')).ok_or_else(|| self.wanted("a quote or a backslash"))?;
                self.at += 1;
            }
            name.push(c);
        }
    }
}

/// What the columns of a stream want of one place of a record: the tree of all their paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The columns read from here.
    pub(super) columns: Vec<usize>,
    /// What is wanted below, where here is an object.
    pub(super) fields: Vec<(Box<str>, Wanted)>,
    /// What is wanted below, where here is an array.
    pub(super) items: Vec<(usize, Wanted)>,
}

impl Wanted {
    /// What a stream wants of its records.
    ///
    /// - Errors: [`crate::error::Kind::Invalid`] for the path of a column that is not there.
    pub(super) fn of_stream(schema: &StreamSchema, options: &Options) -> Result<Self> {
        let mut root = Self::default();
        for (column, path) in paths(schema, options)?.into_iter().enumerate() {
            let mut place = &mut root;
            for step in path.steps {
                place = match step {
                    Step::Field(name) => below(&mut place.fields, name),
                    Step::Item(index) => below(&mut place.items, index),
                };
            }
            place.columns.push(column);
        }
        Ok(root)
    }

    /// The column read from here, where nothing else is wanted of this place.
    pub(super) fn only_column(&self) -> Option<usize> {
        match self.columns[..] {
            [column] if self.fields.is_empty() && self.items.is_empty() => Some(column),
            _ => None,
        }
    }
}

fn below<K: PartialEq>(places: &mut Vec<(K, Wanted)>, key: K) -> &mut Wanted {
    let index = places.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
        places.push((key, Wanted::default()));
        places.len() - 1
    });
    &mut places[index].1
}

/// Each column's path.
fn paths(schema: &StreamSchema, options: &Options) -> Result<Vec<FieldPath>> {
    let mut paths: Vec<_> = schema.columns().iter().map(|c| FieldPath::of_field(&c.name)).collect();
    for (name, path) in &options.paths {
        let column = schema.columns().iter().position(|c| c.name == *name);
        let column = column.ok_or_else(|| Error::invalid(format!("option \"json_path.{name}\": the stream has no column \"{name}\"")))?;
        paths[column] = path.clone();
    }
    Ok(paths)
}

/// What each column is called in a reason: its path.
pub(super) fn labels(schema: &StreamSchema, options: &Options) -> Result<Vec<Box<str>>> {
    Ok(paths(schema, options)?.iter().map(|path| path.to_string().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_or_say_where_they_are_wrong() {
        let cases = [
            ("$.a", "a"),
            ("$.a.b-c.d_1", "a.b-c.d_1"),
            ("$['a b']", "a b"),
            ("$['a b'].c", "['a b'].c"),
            (r#"$["a"]["it's"]"#, r"a['it\'s']"),
            (r"$.a['\'\\\'']", r"a['\'\\\'']"),
            ("$.a['']", "a['']"),
            ("$.a[0][12].b", "a[0][12].b"),
            ("$.größe.日本", "größe.日本"),
            ("", "!1: $ wanted, found the end"),
            ("a.b", "!1: $ wanted, found 'a'"),
            ("$", "!2: a field's name, as in $.name, wanted, found the end"),
            ("$a", "!2: a dot or a bracket wanted, found 'a'"),
            ("$.a b", "!4: a dot or a bracket wanted, found ' '"),
            ("$.", "!3: a field's name wanted, found the end"),
            ("$..a", "!3: a field's name wanted, found '.'"),
            ("$.*", "!3: a field's name wanted, found '*'"),
            ("$.é..a", "!5: a field's name wanted, found '.'"),
            ("$[0]", "!5: a record is an object, and its fields are found by name"),
            ("$.a[*]", "!5: a name in quotes or a place in an array, from 0, wanted, found '*'"),
            ("$.a[-1]", "!5: a name in quotes or a place in an array, from 0, wanted, found '-'"),
            ("$.a[1", "!6: a closing bracket wanted, found the end"),
            ("$.a[1:2]", "!6: a closing bracket wanted, found ':'"),
            ("$.a[99999999999]", "!5: the place in an array is too great"),
            ("$['a", "!5: a closing quote wanted, found the end"),
            (r"$['a\n']", "!6: a quote or a backslash wanted, found 'n'"),
        ];
        for (text, expected) in cases {
            let got = match FieldPath::parse(text) {
                Ok(path) => path.to_string(),
                Err(e) => format!("!{}", e.message().strip_prefix(&format!("path '{text}' at character ")).unwrap()),
            };
            assert_eq!(got, expected, "{text}");
        }
        let deep = |steps: usize| FieldPath::parse(&format!("${}", ".a".repeat(steps)));
        assert!(deep(STEPS_MAX).is_ok() && deep(STEPS_MAX + 1).is_err());
    }
}
