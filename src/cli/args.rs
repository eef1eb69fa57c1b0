//! The command line: what may be given, and what it means.
//!
//! Not here: the types of `--param` values (`params`), exit codes (`exit`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::exit;
use super::params;
use crate::settings::Settings;
use datafusion::common::ScalarValue;

/// A SQL feature engine: one definition, streaming and batch, the same bits.
#[derive(Debug, Parser)]
#[command(name = "asof", version, after_help = exit::HELP)]
pub(super) struct Cli {
    /// Where everything durable lives: a path or a URL.
    #[arg(long, global = true, env = "ASOF_WAREHOUSE", default_value = "./warehouse", value_name = "URL")]
    pub(super) warehouse: String,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run SQL statements from the command line, files or standard input.
    ///
    /// Scripts run in the order given; the first error stops the run, and what ran before stays done. Rows go to standard output. What a
    /// statement without rows has to say goes there too with --format table, else to standard error, as do notes and errors.
    #[command(after_help = exit::HELP, override_usage = "asof sql [OPTIONS] {-c <SQL> | -f <FILE>}...")]
    Sql(SqlOptions),
    /// Type SQL statements and see their answers.
    #[command(after_help = exit::HELP)]
    Shell(Remote),
    /// Serve the warehouse over Arrow Flight: Flight SQL, features in one round trip, and writing into streams.
    ///
    /// Runs until SIGTERM or Ctrl-C, then finishes what is under way. Logs go to standard error as JSON, one object a line.
    #[command(after_help = exit::HELP)]
    Serve(ServeOptions),
    /// Compare the online state with the batch plan, bit for bit.
    ///
    /// Replays history through the stream operators and compares with the batch plan at random instants and at the edges of windows. Only
    /// pairs of entity and instant that the online state itself answered count. Exits with 1 when a bit differs and prints the events that
    /// show it.
    #[command(after_help = exit::HELP)]
    Verify(VerifyOptions),
}

#[derive(Debug, Args)]
pub(super) struct SqlOptions {
    /// Statements to run; may be repeated and mixed with --file.
    #[arg(short, long, value_name = "SQL", allow_hyphen_values = true, required_unless_present = "file")]
    command: Vec<String>,
    /// A file of statements to run, `-` for standard input; may be repeated.
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    file: Vec<PathBuf>,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    /// The value of $1, then $2 and so on, in every script.
    ///
    /// A value types itself: true, false and null, an integer (42), a number (4.2, 1e-3), else a string. What stands in single quotes is a
    /// string ('42', 'it''s'), as is a number with a leading zero.
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true, value_parser = params::parse)]
    pub(super) params: Vec<ScalarValue>,
    #[command(flatten)]
    pub(super) remote: Remote,
    /// `command` and `file` in the order given.
    #[arg(skip)]
    pub(super) scripts: Vec<Script>,
}

/// A server to ask instead of a warehouse.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Ask the server at grpc://host:port, or with TLS at grpc+tls://host:port, instead of opening the warehouse.
    #[arg(long, value_name = "URL")]
    pub(super) connect: Option<String>,
    /// A file with the server's token.
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with the certificate to trust, PEM.
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub(super) tls_ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ServeOptions {
    /// Where to listen; port 0 takes any that is free.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8815")]
    pub(super) listen: String,
    /// Where to answer GET /metrics (OpenMetrics), /health and /ready over plain HTTP; port 0 takes any that is free.
    ///
    /// It has neither TLS nor a token: outside of loopback it wants --insecure.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) http: Option<String>,
    /// A file that gets the address once the server listens; the address of --http goes to the file of this name with .http behind it.
    #[arg(long, value_name = "FILE")]
    pub(super) port_file: Option<PathBuf>,
    /// Where other processes and clients reach this one, where that is not the address that it listens at, which it then should not be:
    /// processes that share a stream are asked for their entities there.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,
    /// The certificates to trust of the processes that share streams with this one, PEM; its own, where they all have the same.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) peer_ca: Option<PathBuf>,
    /// The server's certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// A file with the token that clients must show.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Listen outside of loopback even without TLS and a token.
    #[arg(long)]
    pub(super) insecure: bool,
    /// Refuse an instant that the online state does not answer, instead of computing it from history.
    #[arg(long)]
    pub(super) online_only: bool,
    /// The threads that answer requests, half as many as the machine's unless it is said; queries and writes have their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) serving_threads: Option<u32>,
    /// The endpoints of a result whose rows have no order.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) endpoints: u8,
    /// How long a result waits to be pulled, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) result_seconds: u32,
    /// How long until the next checkpoint of a view's online state, seconds; 0: none is written, at the end neither.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) checkpoint_seconds: u32,
    /// The memory that the online state may take, bytes; at the bound ingestion waits, and says so.
    #[arg(long, value_name = "BYTES", default_value_t = Settings::default().state_limit_bytes)]
    pub(super) state_limit_bytes: usize,
    /// How often it is looked whether history has many small files, to be made one, seconds; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(super) compact_seconds: u32,
    /// How long a client may say nothing: at first, and then within a put or an exchange; seconds.
    #[arg(long, value_name = "SECONDS", num_args = 2, value_names = ["FIRST", "THEN"], default_values_t = [10, 600])]
    pub(super) idle_seconds: Vec<u32>,
}

/// Where a script's text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Script {
    Text(String),
    File(PathBuf),
    StandardInput,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns for people
    #[default]
    Table,
    /// A header and a line a row; NULL is empty, an empty string is ""
    Csv,
    /// An object a line; NaN and infinities are strings, a repeated name gets _2
    Json,
    /// An Arrow IPC stream for every statement that returns rows, one after the other
    Arrow,
}

#[derive(Debug, Args)]
pub(super) struct VerifyOptions {
    /// The feature view to check; all of them where none is named.
    pub(super) view: Option<String>,
    /// The share of entities to check, above 0 and up to 1 [default: 1].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) sample: Option<f64>,
    /// The seed of the sample and of the random instants.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// How often in the replay the online state is asked.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) checkpoints: Option<u32>,
    /// The instants to ask each entity for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) instants: Option<u32>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("expected a number above 0 and up to 1".into()),
    }
}

/// The command line of this process; a wrong one ends it with clap's message.
pub(super) fn parse() -> Cli {
    parse_from(std::env::args_os()).unwrap_or_else(|e| e.exit())
}

fn parse_from(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let (Command::Sql(options), Some(("sql", matches))) = (&mut cli.command, matches.subcommand()) {
        options.scripts = in_order(options, matches);
    }
    Ok(cli)
}

/// `-c` and `-f` as they stand on the command line.
fn in_order(options: &SqlOptions, matches: &ArgMatches) -> Vec<Script> {
    let at = |id| matches.indices_of(id).into_iter().flatten();
    let commands = at("command").zip(options.command.iter().map(|text| Script::Text(text.clone())));
    let files = at("file").zip(options.file.iter().map(|path| match path.to_str() {
        Some("-") => Script::StandardInput,
        _ => Script::File(path.clone()),
    }));
    let mut scripts: Vec<(usize, Script)> = commands.chain(files).collect();
    scripts.sort_by_key(|(at, _)| *at);
    scripts.into_iter().map(|(_, script)| script).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(args: &[&str]) -> Result<SqlOptions, String> {
        match parse_from(["asof", "sql"].iter().chain(args)).map_err(|e| e.to_string())?.command {
            Command::Sql(options) => Ok(options),
            other => Err(format!("{other:?}")),
        }
    }

    fn verify(args: &[&str]) -> Result<VerifyOptions, String> {
        match parse_from(["asof", "verify"].iter().chain(args)).map_err(|e| e.to_string())?.command {
            Command::Verify(options) => Ok(options),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn scripts_keep_their_order() {
        let options = sql(&["-f", "a.sql", "-c", "SELECT 1", "-c", "-- nothing", "-f", "-", "--file=b.sql"]).unwrap();
        let text = |s: &str| Script::Text(s.into());
        let file = |s: &str| Script::File(s.into());
        assert_eq!(options.scripts, [file("a.sql"), text("SELECT 1"), text("-- nothing"), Script::StandardInput, file("b.sql")]);
        assert_eq!(options.format, Format::Table);
        assert!(sql(&[]).unwrap_err().contains("--command"));
    }

    #[test]
    fn the_warehouse_stands_before_or_behind_the_command() {
        for args in [["asof", "--warehouse", "w", "shell"], ["asof", "shell", "--warehouse", "w"]] {
            assert_eq!(parse_from(args).unwrap().warehouse, "w");
        }
    }

    #[test]
    fn params_are_typed_and_may_begin_with_a_dash() {
        let options = sql(&["-c", "SELECT $1, $2", "--param", "-5", "--param", "ann", "--format", "json"]).unwrap();
        assert_eq!(options.params, [ScalarValue::Int64(Some(-5)), ScalarValue::Utf8(Some("ann".into()))]);
        assert_eq!(options.format, Format::Json);
        assert!(sql(&["-c", "SELECT $1", "--param", "'open"]).is_err());
    }

    #[test]
    fn verify_options() {
        let options = verify(&["spend", "--sample", "0.5", "--seed", "7", "--checkpoints", "3"]).unwrap();
        assert_eq!(
            (options.view.as_deref(), options.sample, options.seed, options.checkpoints),
            (Some("spend"), Some(0.5), Some(7), Some(3))
        );
        for wrong in [["--sample", "0"], ["--sample", "1.1"], ["--sample", "NaN"], ["--checkpoints", "0"], ["--seed", "-1"]] {
            assert!(verify(&wrong).is_err(), "{wrong:?}");
        }
    }
}
