//! What was typed: a command of the shell, whole statements, or the beginning of one.

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input<'a> {
    Nothing,
    Quit,
    Help,
    Timing,
    /// A backslash and a word that is no command.
    Unknown(&'a str),
    /// One or more statements, the last one ended by `;`.
    Statements,
    /// More lines belong to it.
    Unfinished,
}

/// What a text is.
pub(super) fn read(text: &str) -> Input<'_> {
    let line = text.trim();
    let word = line.trim_end_matches(';').trim_end();
    match word {
        "" => Input::Nothing,
        "\\q" | "quit" | "exit" => Input::Quit,
        "\\h" | "\\?" | "help" => Input::Help,
        "\\timing" => Input::Timing,
        command if command.starts_with('\\') => Input::Unknown(command),
        _ if is_complete(line) => Input::Statements,
        _ => Input::Unfinished,
    }
}

/// Whether the last statement of a text ends with `;`, quotes and comments regarded.
fn is_complete(text: &str) -> bool {
    let mut ended = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            // A doubled quote closes and opens again, which comes to the same.
            ('\'' | '"', _) => {
                ended = false;
                if !rest.by_ref().any(|inner| inner == c) {
                    return false;
                }
            }
            ('-', Some('-')) => {
                rest.by_ref().find(|inner| *inner == '\n');
            }
            ('/', Some('*')) => {
                rest.next();
                if !skip_comment(&mut rest) {
                    return false;
                }
            }
            (';', _) => ended = true,
            (c, _) if c.is_whitespace() => {}
            _ => ended = false,
        }
    }
    ended
}

/// Skips a comment behind its `/*`; comments nest. False where it does not end.
fn skip_comment(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    let mut depth = 1;
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('*', Some('/')) => {
                rest.next();
                depth -= 1;
                if depth == 0 {
                    return true;
                }
            }
            ('/', Some('*')) => {
                rest.next();
                depth += 1;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let cases = [
            ("", Input::Nothing),
            (" ;\n", Input::Nothing),
            ("\\q", Input::Quit),
            ("exit;", Input::Quit),
            (" \\h ", Input::Help),
            ("\\timing\n", Input::Timing),
            ("\\x", Input::Unknown("\\x")),
            ("SELECT 1;", Input::Statements),
            ("SELECT 1", Input::Unfinished),
        ];
        for (text, input) in cases {
            assert_eq!(read(text), input, "{text}");
        }
    }

    #[test]
    fn statements_end_outside_quotes_and_comments() {
        for text in ["a;", "a; ", "a;\n-- done", "a; /* b; /* c */ */", "SELECT ';';", "SELECT 'it''s;';", "\"a;b\";", "a;b;", "a -- x\n;"]
        {
            assert!(is_complete(text), "{text}");
        }
        for text in ["a", "a; b", "';", "SELECT 'it''s;", "\"a;", "a -- ;", "/* a;", "/* /* */ a;", "a; '", "a;-", "-- a"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
