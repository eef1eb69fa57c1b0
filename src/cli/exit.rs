//! How a run ends: the exit codes, and failures with what they print.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::progress::CLEAR_LINE;
use crate::error::{Error, Kind};

/// What the process tells whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done.
    Done = 0,
    /// `verify` found a difference.
    Difference = 1,
    /// The command line is wrong; clap uses the same number.
    Usage = 2,
    /// The request is wrong: change it.
    Invalid = 3,
    /// Not now: try again later.
    Unavailable = 4,
    /// Stored or read data is damaged or does not fit: repair it.
    Data = 5,
    /// What was used is closed or was taken over: open it again.
    Closed = 6,
    /// A defect of this program: report it.
    Internal = 70,
    /// Interrupted by Ctrl-C: 128 and the number of SIGINT.
    Interrupted = 130,
    /// Whoever read the output went away: 128 and the number of SIGPIPE.
    BrokenPipe = 141,
}

/// The codes as `--help` shows them.
pub(super) const HELP: &str = "\
Exit codes:
  0    done
  1    verify found a difference
  2    the command line is wrong
  3    the request is wrong: SQL, a parameter, a file that cannot be read
  4    not now: try again later
  5    data that is stored or was read is damaged or does not fit
  6    what was used is closed or was taken over
  70   a defect of this program
  130  interrupted by Ctrl-C
  141  whoever read the output went away

Environment:
  ASOF_WAREHOUSE  the warehouse, where --warehouse is not given
  ASOF_LOG        what is logged to standard error: error, warn (default), info, debug, or target=level
  ASOF_HISTORY    the file of the shell's history (default ~/.asof_history); empty for none";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Code::Invalid,
            Kind::Unavailable => Code::Unavailable,
            Kind::Data => Code::Data,
            Kind::Closed => Code::Closed,
            Kind::Internal => Code::Internal,
        }
    }
}

/// Why a run stopped.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line or the environment is wrong in a way that clap does not see.
    Usage(String),
    /// A statement, or opening the warehouse, failed.
    Engine(Error),
    /// Output could not be written.
    Output(io::Error),
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Failure::Usage(_) => Code::Usage,
            Failure::Engine(e) => e.kind().into(),
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Code::BrokenPipe,
            Failure::Output(_) => Code::Unavailable,
            Failure::Interrupted => Code::Interrupted,
        }
    }

    /// Says on standard error what went wrong; a reader that went away and Ctrl-C need no words.
    pub(super) fn report(&self) {
        match self {
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Failure::Interrupted => {}
            Failure::Usage(message) => say(format_args!("error: {message}")),
            Failure::Output(e) => say(format_args!("error: writing the output: {e}")),
            Failure::Engine(e) => say(Rendered(e)),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Engine(e)
    }
}

/// Writes a line to standard error, over a line of progress; a closed one is no reason to stop.
pub(super) fn say(line: impl Display) {
    let over = if io::stderr().is_terminal() { CLEAR_LINE } else { "" };
    // One write a line, so that lines of several threads do not mix.
    let _ = io::stderr().write_all(format!("{over}{line}\n").as_bytes());
}

/// An error as people read it: diagnostics already begin with `error[...]`, all else gets the word.
struct Rendered<'a>(&'a Error);

impl Display for Rendered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = self.0.message().trim_end();
        if self.0.sql_errors().is_empty() {
            f.write_str("error: ")?;
        }
        f.write_str(message)?;
        if self.0.kind() == Kind::Internal {
            f.write_str("\nThis is a defect of asof. Please report it with the statement.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_for_every_kind() {
        let kinds = [(Kind::Invalid, 3), (Kind::Unavailable, 4), (Kind::Data, 5), (Kind::Closed, 6), (Kind::Internal, 70)];
        for (kind, code) in kinds {
            assert_eq!(Failure::from(Error::new(kind, "x")).code() as u8, code);
        }
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).code() as u8, 141);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).code() as u8, 4);
        assert_eq!(Failure::Interrupted.code() as u8, 130);
    }

    #[test]
    fn help_names_every_code() {
        use Code::*;
        for code in [Done, Difference, Usage, Invalid, Unavailable, Data, Closed, Internal, Interrupted, BrokenPipe] {
            assert!(HELP.contains(&format!("\n  {:<5}", code as u8)), "{code:?}");
        }
    }

    #[test]
    fn errors_get_their_prefix_once() {
        assert_eq!(Rendered(&Error::invalid("unknown stream \"s\"")).to_string(), "error: unknown stream \"s\"");
        let sql = crate::error::SqlError { code: "E0304".into(), line: 1, column: 1, rendered: "error[E0304]: no\n".into() };
        assert_eq!(Rendered(&Error::sql(vec![sql])).to_string(), "error[E0304]: no");
    }
}
