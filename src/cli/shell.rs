//! `asof shell`: statements typed or piped in, answered one by one; an error keeps the shell going.
//!
//! A statement ends with `;` and may span lines; Ctrl-C drops the line being typed or the statement that runs. Where standard input is
//! not a terminal its lines are read as typed, without prompt, history and timing, and the exit code is that of the first error.

mod input;
mod names;

use std::io::{self, BufRead, BufWriter, IsTerminal, Stdout};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use self::input::{Input, read};
use self::names::Names;
use super::args::{Format, Remote};
use super::exit::{Code, Failure, say};
use super::format::Printer;
use super::interrupt::or_interrupt;
use super::progress::Progress;
use super::remote::Target;
use super::sql::output;

const PROMPT: &str = "asof> ";
const HISTORY_ENTRIES_MAX: usize = 10_000;
const HELP: &str = "\
A statement ends with ; and may span lines. Tab completes names and keywords, Ctrl-C cancels.
  \\h       this help
  \\timing  shows or hides how long each statement took
  \\q       quits, as do Ctrl-D, quit and exit
Statements: CREATE STREAM, CREATE FEATURE VIEW, INSERT INTO, COPY, SELECT ... FOR ENTITY, SELECT ... ASOF JOIN,
  EXPLAIN, SHOW STREAMS | FEATURE VIEWS | FEATURES, SHOW STREAM STATUS, DESCRIBE, SHOW CREATE, ALTER STREAM, DROP,
  REPROCESS LATE EVENTS FOR, RESUME STREAM ... PAST GAP";

/// Runs `asof shell`.
pub(super) fn run(runtime: &Runtime, warehouse: &str, remote: &Remote) -> Result<Code, Failure> {
    let progress = Progress::new();
    let engine = runtime.block_on(super::target(warehouse, remote, &progress))?;
    let of = remote.connect.as_deref().map_or_else(|| format!("warehouse {warehouse}"), |uri| format!("server {uri}"));
    let typed = io::stdin().is_terminal();
    let mut session = Session {
        runtime,
        engine: engine.clone(),
        printer: Printer::new(Format::Table, output()),
        progress,
        timing: typed,
        first_error: None,
    };
    let done = if typed { session.typed(&of) } else { session.piped() };
    session.progress.end();
    let code = session.first_error.filter(|_| !typed).unwrap_or(Code::Done);
    drop(session);
    let closed = runtime.block_on(engine.close());
    done.and(closed).map(|()| code)
}

struct Session<'a> {
    runtime: &'a Runtime,
    engine: Target,
    printer: Printer<BufWriter<Stdout>>,
    progress: Progress,
    timing: bool,
    first_error: Option<Code>,
}

impl Session<'_> {
    /// Lines from a terminal.
    fn typed(&mut self, of: &str) -> Result<(), Failure> {
        let config = Config::builder().completion_type(CompletionType::List).history_ignore_space(true);
        let config = config.max_history_size(HISTORY_ENTRIES_MAX).map_err(editor_failure)?.build();
        let mut editor = Editor::<Names, FileHistory>::with_config(config).map_err(editor_failure)?;
        let history = history_file();
        if let Some(file) = &history {
            // The first start has no file.
            let _ = editor.load_history(file);
        }
        self.print(format_args!("asof {}, {of}; \\h for help", env!("CARGO_PKG_VERSION")))?;
        loop {
            // Anew each time: the statement before may have made a name, as may another process.
            editor.set_helper(Some(Names::new(self.runtime.block_on(self.engine.names()))));
            match editor.readline(PROMPT) {
                Ok(text) => {
                    if !text.trim().is_empty() {
                        let _ = editor.add_history_entry(text.trim_end());
                    }
                    if let Some(Err(e)) = history.as_ref().map(|file| editor.append_history(file)) {
                        tracing::warn!("the shell's history is not written: {e}");
                    }
                    if self.answer(&text)?.is_break() {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(editor_failure(e)),
            }
        }
    }

    /// Lines from a pipe or a file.
    fn piped(&mut self) -> Result<(), Failure> {
        let mut text = String::new();
        let mut lines = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let ended = lines.read_until(b'\n', &mut line).map_err(crate::error::Error::from)? == 0;
            match String::from_utf8(line) {
                Ok(line) => text.push_str(&line),
                Err(_) => return Err(crate::error::Error::invalid("standard input is not UTF-8").into()),
            }
            let complete = !text.trim().is_empty() && !matches!(read(&text), Input::Unfinished);
            let quit = (complete || ended) && self.answer(&std::mem::take(&mut text))?.is_break();
            if quit || ended {
                return Ok(());
            }
        }
    }

    /// Answers one input. Fails only where the answer cannot be written.
    fn answer(&mut self, text: &str) -> Result<ControlFlow<()>, Failure> {
        match read(text) {
            Input::Nothing => {}
            Input::Quit => return Ok(ControlFlow::Break(())),
            Input::Help => self.print(HELP)?,
            Input::Timing => {
                self.timing = !self.timing;
                self.print(format_args!("timing is {}", if self.timing { "on" } else { "off" }))?;
            }
            Input::Unknown(command) => {
                self.first_error.get_or_insert(Code::Invalid);
                say(format_args!("error: unknown command \"{command}\"; \\h lists the commands"));
            }
            // What a pipe leaves unfinished runs as it is.
            Input::Unfinished | Input::Statements => match self.statements(text) {
                Ok(()) => {}
                Err(failure @ Failure::Output(_)) => return Err(failure),
                Err(failure) => {
                    self.first_error.get_or_insert(failure.code());
                    match failure {
                        Failure::Interrupted => say("cancelled"),
                        failure => failure.report(),
                    }
                }
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    fn statements(&mut self, text: &str) -> Result<(), Failure> {
        let Self { runtime, engine, printer, progress, timing, .. } = self;
        let mut failed = None;
        let mut started = Instant::now();
        let mut each = |answer| {
            progress.end();
            let shown = printer.print(&answer).and_then(|()| {
                if *timing {
                    printer.line(format_args!("time: {}", duration(started.elapsed())))?;
                }
                Ok(())
            });
            if let Err(failure) = shown {
                failed = Some(failure);
                return ControlFlow::Break(());
            }
            started = Instant::now();
            progress.begin("running");
            ControlFlow::Continue(())
        };
        progress.begin("running");
        let done = runtime.block_on(or_interrupt(engine.execute_each(text, "<shell>", &[], &mut each)));
        progress.end();
        failed.map_or(Ok(()), Err)?;
        Ok(done??)
    }

    fn print(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        self.printer.line(line)
    }
}

fn editor_failure(e: ReadlineError) -> Failure {
    match e {
        ReadlineError::Io(e) => Failure::Output(e),
        other => crate::error::Error::unavailable(format!("the terminal: {other}")).into(),
    }
}

/// `ASOF_HISTORY`, else `~/.asof_history`; empty is none.
fn history_file() -> Option<PathBuf> {
    match std::env::var_os("ASOF_HISTORY") {
        Some(file) if file.is_empty() => None,
        Some(file) => Some(file.into()),
        None => std::env::home_dir().map(|home| home.join(".asof_history")),
    }
}

fn duration(took: Duration) -> String {
    match took.as_secs_f64() {
        s if s < 1.0 => format!("{:.3} ms", s * 1e3),
        s => format!("{s:.3} s"),
    }
}
