//! The codes of diagnostics: one line each, never reused for another meaning.
//!
//! E01xx text and syntax, E02xx names and objects, E03xx windows and aggregates, E04xx types and expressions, E05xx serving and
//! AS OF joins, E06xx options, E07xx data in and out.

use std::fmt;

/// The code of a diagnostic, such as `E0304`. Its [`title`](Code::title) names the kind of error in general words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(&'static str);

impl Code {
    /// The code as written, `E0304`.
    pub fn as_str(&self) -> &'static str {
        self.0
    }

    /// What the code means in general.
    pub fn title(&self) -> &'static str {
        TABLE.iter().find(|(code, _)| code == self).map_or("", |(_, title)| title)
    }

    /// The code of this name, if there is one.
    pub fn find(name: &str) -> Option<Code> {
        TABLE.iter().map(|(code, _)| *code).find(|code| code.0 == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! codes {
    ($($name:ident $title:literal,)*) => {
        $(#[doc = $title] pub const $name: Code = Code(stringify!($name));)*

        /// Every code with its title, in order.
        pub const TABLE: &[(Code, &str)] = &[$(($name, $title),)*];
    };
}

codes! {
    E0101 "the text cannot be read as SQL tokens",
    E0102 "the syntax is not that of the statement",
    E0103 "the text is larger or nested deeper than is read",
    E0104 "the statement is not part of the dialect",
    E0105 "the clause is not supported where it stands",
    E0106 "a clause is written twice",
    E0107 "a clause is missing",
    E0108 "parameters are written in a way that cannot be bound",
    E0109 "clauses that exclude each other stand together",

    E0201 "the name is not known",
    E0202 "the name is taken",
    E0203 "the name is ambiguous",
    E0204 "the name cannot be used",
    E0205 "another object depends on it",
    E0206 "the object is of another kind",
    E0207 "the definition would change what exists",

    E0301 "the window's frame is missing or not supported",
    E0302 "the window's bounds are not valid",
    E0303 "the function is not an aggregate of feature views",
    E0304 "window has no event time to order by",
    E0305 "the aggregate's clause is not supported",
    E0306 "the grouping is not supported",
    E0307 "a plain column stands beside aggregates",
    E0308 "the window's partition or order is not the implied one",
    E0309 "state would not be bounded",

    E0401 "the type is not known or not supported",
    E0402 "the type does not fit",
    E0403 "the literal is not valid",
    E0404 "the expression is not immutable",
    E0405 "the expression is not supported in a feature view",
    E0406 "as_of() is not allowed here",

    E0501 "the entity is not given as the view needs it",
    E0502 "a view is read without an entity or an instant",
    E0503 "the clause does not stand beside FOR ENTITY",
    E0504 "the instant is not valid",
    E0505 "the match condition is not valid",
    E0506 "the join keys are not valid",
    E0507 "the shape of the view is not supported",

    E0601 "the option is not known",
    E0602 "the option's value is not valid",
    E0603 "the option is missing",
    E0604 "the option holds a secret in the open",
    E0605 "the view cannot be kept by several processes",

    E0701 "the watermark is not valid",
    E0702 "the primary key is not valid",
    E0703 "the file or its format is not valid",
    E0704 "rows cannot be written to the object",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_well_formed() {
        let names: Vec<&str> = TABLE.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.is_sorted());
        assert!(names.iter().all(|name| name.len() == 5 && name.starts_with('E')));
        assert!(TABLE.iter().all(|(code, title)| code.title() == *title && !title.ends_with('.')));
        assert_eq!(Code::find("E0304"), Some(E0304));
        assert_eq!(Code::find("E9999"), None);
    }
}
