//! The `asof` command: a table of contents and the way from arguments to an exit code.
//!
//! `args` → one of `sql`, `shell`, `serve`, `verify` → `exit`. The arguments are parsed before anything else is made, so that `--help` answers
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
mod remote;
mod serve;
mod shell;
mod sql;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::args::{Cli, Command};
use self::exit::{Code, Failure};
use self::interrupt::or_interrupt;
use self::progress::Progress;
use self::remote::Target;
use crate::engine::Engine;
use crate::error::Error;

/// Plans of any SQL text recurse, and the debug build's frames are large: no limit of the shell's decides how deep.
const STACK_BYTES: usize = 32 << 20;

/// Runs the process' command line and says how it went.
pub fn main() -> ExitCode {
    let cli = args::parse();
    let work =
        std::thread::Builder::new().name("asof".into()).stack_size(STACK_BYTES).spawn(move || log(&cli.command).and_then(|()| run(cli)));
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
    if let Command::Serve(options) = cli.command {
        return serve::run(&cli.warehouse, &options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build().map_err(Error::from)?;
    let warehouse = cli.warehouse;
    let done = match cli.command {
        Command::Sql(options) => runtime.block_on(sql::run(&warehouse, options)),
        Command::Shell(remote) => shell::run(&runtime, &warehouse, &remote),
        Command::Serve(_) => Err(Failure::usage("serve runs on runtimes of its own")),
        Command::Verify(options) => runtime.block_on(verify::run(&warehouse, options)),
    };
    // What an interrupted statement left on blocking threads is not waited for: a crash at any point loses nothing acknowledged.
    runtime.shutdown_background();
    done
}

/// The server that is named, else the warehouse.
async fn target(warehouse: &str, remote: &args::Remote, progress: &Progress) -> Result<Target, Failure> {
    match &remote.connect {
        Some(uri) => Target::connect(uri, remote, progress).await,
        None => Ok(Target::Local(open(warehouse, progress).await?)),
    }
}

async fn open(warehouse: &str, progress: &Progress) -> Result<Engine, Failure> {
    progress.begin("opening the warehouse");
    let opened = or_interrupt(Engine::builder().warehouse(warehouse).build()).await;
    progress.end();
    Ok(opened??)
}

/// Logs go to standard error at the level of `ASOF_LOG`; a server's are JSON.
fn log(command: &Command) -> Result<(), Failure> {
    let serves = matches!(command, Command::Serve(_));
    let filter = std::env::var("ASOF_LOG").unwrap_or_else(|_| if serves { "warn,asof=info,asof_flight=info" } else { "warn" }.into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).map_err(|e| Failure::usage(format!("ASOF_LOG=\"{filter}\": {e}")))?;
    let colours = std::io::stderr().is_terminal();
    if serves {
        tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
        return Ok(());
    }
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}
