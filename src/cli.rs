//! The `asof` command: a table of contents and the way from arguments to an exit code.
//!
//! `args` → one of `sql`, `shell`, `verify` → `exit`. The arguments are parsed before anything else is made, so that `--help` answers
//! at once. Standard output carries data, standard error what is said about it.
//!
//! | code | when | name |
//! |---|---|---|
//! | 0 | done | [`exit::Code::Done`] |
//! | 1 | `verify` found a difference | [`exit::Code::Difference`] |
//! | 2 | the command line is wrong | [`exit::Code::Usage`] |
//! | 3 | the request is wrong: SQL, a parameter, a file that cannot be read | [`exit::Code::Invalid`] |
//! | 4 | not now: try again later | [`exit::Code::Unavailable`] |
//! | 5 | data that is stored or was read is damaged or does not fit | [`exit::Code::Data`] |
//! | 6 | what was used is closed or was taken over | [`exit::Code::Closed`] |
//! | 70 | a defect of this program | [`exit::Code::Internal`] |
//! | 130 | interrupted by Ctrl-C | [`exit::Code::Interrupted`] |
//! | 141 | whoever read the output went away | [`exit::Code::BrokenPipe`] |

mod args;
pub mod exit;
mod format;
mod interrupt;
mod params;
mod progress;
mod shell;
mod sql;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::args::{Cli, Command};
use self::exit::{Code, Failure};
use self::interrupt::or_interrupt;
use self::progress::Progress;
use crate::engine::Engine;
use crate::error::Error;

/// Plans of any SQL text recurse, and the debug build's frames are large: no limit of the shell's decides how deep.
const STACK_BYTES: usize = 32 << 20;

/// Runs the process' command line and says how it went.
pub fn main() -> ExitCode {
    let cli = args::parse();
    let work = std::thread::Builder::new().name("asof".into()).stack_size(STACK_BYTES).spawn(move || log().and_then(|()| run(cli)));
    let done = match work {
        // A panic has said on standard error where it was.
        Ok(thread) => thread.join().unwrap_or(Ok(Code::Internal)),
        Err(e) => Err(Error::from(e).into()),
    };
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.report();
            failure.code().into()
        }
    }
}

fn run(cli: Cli) -> Result<Code, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build().map_err(Error::from)?;
    let warehouse = cli.warehouse;
    let done = match cli.command {
        Command::Sql(options) => runtime.block_on(sql::run(&warehouse, options)),
        Command::Shell => shell::run(&runtime, &warehouse),
        Command::Verify(options) => runtime.block_on(verify::run(&warehouse, options)),
    };
    // What an interrupted statement left on blocking threads is not waited for: a crash at any point loses nothing acknowledged.
    runtime.shutdown_background();
    done
}

async fn open(warehouse: &str, progress: &Progress) -> Result<Engine, Failure> {
    progress.begin("opening the warehouse");
    let opened = or_interrupt(Engine::builder().warehouse(warehouse).build()).await;
    progress.end();
    Ok(opened??)
}

/// Logs go to standard error at the level of `ASOF_LOG`.
fn log() -> Result<(), Failure> {
    let filter = std::env::var("ASOF_LOG").unwrap_or_else(|_| "warn".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).map_err(|e| Failure::usage(format!("ASOF_LOG=\"{filter}\": {e}")))?;
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}
