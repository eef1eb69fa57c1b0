//! Load on a running server and on its peers: open loop with latency from the intended send time, and closed loop. Every answer is checked.
//!
//! Nothing is started here: `tests/bench/run` and `benches/peers/serving/run` start the processes. Generator and server share the machine.
//!
//! | work | estimate on two cores | target |
//! | --- | --- | --- |
//! | exchange, 1 entity, 20 features, 10,000/s | a message each way: two wake-ups of 10 to 20 µs, look-up 5, encoding 10: p50 60 µs | p99 1 ms |
//! | ticket by DoGet, 1 entity, 5,000/s | an HTTP/2 stream, headers both ways, JSON, four messages: p50 150 µs | p99 2 ms |
//! | exchange, batches of 100 | an entity: look-up 3.5 µs, column building 0.5: 250,000/s a core | 300,000 vectors/s |
//! | exchange, 1 entity, under a training query | one core left: a wait for it of up to a time slice | p99 5 ms |
//!
//! Keys follow Zipf's law with exponent 0.99, events one entity once and then the same law, 1 % of them a second time, none late; the seed is 7.
//!
//! ```text
//! load fill DIR --asof ADDRESS [--entities N] [--events N]     streams, views, events; writes what must be answered into DIR
//! load run DIR [--asof A] [--echo A] [--redis A] [--feast A]   the table of all cases for the peers that are named
//! load echo DIR --port-file FILE                               a bare tonic server that gives the bytes of one real answer
//! load redis DIR --redis ADDRESS                               the same values as hashes of a Redis server
//! ```

mod drive;
mod echo;
mod fill;
mod flight;
mod http;
mod redis;
mod report;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use drive::{Load, Pace};
use world::World;

/// What a benchmark fails with: it has nobody to recover.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What `cargo bench` adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Creates and fills what the other commands read.
    Fill {
        dir: PathBuf,
        #[arg(long)]
        asof: String,
        #[arg(long, default_value_t = 100_000)]
        entities: usize,
        #[arg(long, default_value_t = 1_000_000)]
        events: usize,
    },
    /// Measures.
    Run(Run),
    /// Serves the bytes of a real answer, with no work done.
    Echo {
        dir: PathBuf,
        #[arg(long)]
        port_file: PathBuf,
    },
    /// Fills a Redis server with the values.
    Redis {
        dir: PathBuf,
        #[arg(long)]
        redis: String,
    },
}

#[derive(clap::Args)]
struct Run {
    dir: PathBuf,
    /// The server's address, HOST:PORT; so for the others.
    #[arg(long)]
    asof: Option<String>,
    #[arg(long)]
    echo: Option<String>,
    #[arg(long)]
    redis: Option<String>,
    #[arg(long)]
    feast: Option<String>,
    /// Seconds that count, after `--warm` that do not.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, default_value_t = 2.0)]
    warm: f64,
    /// Rounds over all cases, so that drift of the machine falls on all of them alike.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only cases whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Requests a second of the open loops, instead of each case's own.
    #[arg(long)]
    rate: Option<f64>,
    /// Fails when a case misses its target.
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread for all input and output: the server needs the other core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|r| r.block_on(command(cli.command)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it should be.
async fn command(command: Command) -> Result<bool> {
    match command {
        Command::Fill { dir, asof, entities, events } => fill::run(&dir, &asof, entities, events).await.map(|()| true),
        Command::Run(run) => measure(&run).await,
        Command::Echo { dir, port_file } => echo::serve(&dir, &port_file).await.map(|()| true),
        Command::Redis { dir, redis } => redis::fill(&dir, &redis).await.map(|()| true),
    }
}

/// Who is asked, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Exchange,
    Ticket,
    EchoExchange,
    EchoTicket,
    Redis,
    Feast,
}

/// One line of the table.
struct Case {
    name: &'static str,
    way: Way,
    features: usize,
    batch: usize,
    /// Requests a second; closed loop where there is none.
    rate: Option<f64>,
    connections: usize,
    /// Requests under way on each connection, in a closed loop.
    depth: usize,
    training: bool,
    /// The greatest p99, ms, and the least entity vectors a second.
    target: (Option<f64>, Option<f64>),
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "exchange", way: Way::Exchange, features: 20, batch: 1, rate: Some(10_000.0), connections: 4, depth: 1, training: false, target: (Some(1.0), None) },
    Case { name: "ticket", way: Way::Ticket, features: 20, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (Some(2.0), None) },
    Case { name: "exchange of 100", way: Way::Exchange, features: 20, batch: 100, rate: None, connections: 2, depth: 8, training: false, target: (None, Some(300_000.0)) },
    Case { name: "exchange of 100", way: Way::Exchange, features: 20, batch: 100, rate: Some(1_000.0), connections: 2, depth: 1, training: false, target: (None, None) },
    Case { name: "exchange under training", way: Way::Exchange, features: 20, batch: 1, rate: Some(2_000.0), connections: 4, depth: 1, training: true, target: (Some(5.0), None) },
    Case { name: "exchange", way: Way::Exchange, features: 20, batch: 1, rate: None, connections: 1, depth: 1, training: false, target: (None, None) },
    Case { name: "ticket", way: Way::Ticket, features: 20, batch: 1, rate: None, connections: 1, depth: 1, training: false, target: (None, None) },

    Case { name: "peers: exchange", way: Way::Exchange, features: 50, batch: 1, rate: Some(200.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: ticket", way: Way::Ticket, features: 50, batch: 1, rate: Some(200.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, exchange", way: Way::EchoExchange, features: 50, batch: 1, rate: Some(200.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: Redis HMGET", way: Way::Redis, features: 50, batch: 1, rate: Some(200.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: Feast", way: Way::Feast, features: 50, batch: 1, rate: Some(200.0), connections: 8, depth: 1, training: false, target: (None, None) },

    Case { name: "peers: exchange", way: Way::Exchange, features: 50, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: ticket", way: Way::Ticket, features: 50, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, exchange", way: Way::EchoExchange, features: 50, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, ticket", way: Way::EchoTicket, features: 50, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: Redis HMGET", way: Way::Redis, features: 50, batch: 1, rate: Some(5_000.0), connections: 4, depth: 1, training: false, target: (None, None) },

    Case { name: "peers: exchange", way: Way::Exchange, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: ticket", way: Way::Ticket, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, exchange", way: Way::EchoExchange, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, ticket", way: Way::EchoTicket, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: Redis HMGET", way: Way::Redis, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
    Case { name: "peers: Feast", way: Way::Feast, features: 50, batch: 1, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },

    Case { name: "peers: exchange of 100", way: Way::Exchange, features: 50, batch: 100, rate: None, connections: 2, depth: 8, training: false, target: (None, None) },
    Case { name: "peers: tonic echo, exchange of 100", way: Way::EchoExchange, features: 50, batch: 100, rate: None, connections: 2, depth: 8, training: false, target: (None, None) },
    Case { name: "peers: Redis HMGET x 100", way: Way::Redis, features: 50, batch: 100, rate: None, connections: 2, depth: 8, training: false, target: (None, None) },
    Case { name: "peers: Feast of 100", way: Way::Feast, features: 50, batch: 100, rate: None, connections: 8, depth: 1, training: false, target: (None, None) },
];

async fn measure(run: &Run) -> Result<bool> {
    let (twenty, fifty) = (World::read(&run.dir, 20)?, World::read(&run.dir, 50)?);
    let mut met = true;
    let mut measured = 0;
    // Our own lines among the peers' stand beside a peer's.
    let alone = run.echo.is_none() && run.redis.is_none() && run.feast.is_none();
    report::head();
    for _ in 0..run.rounds {
        for case in CASES.iter().filter(|c| c.name.contains(&run.only) && !(alone && c.name.starts_with("peers:"))) {
            let address = match case.way {
                Way::Exchange | Way::Ticket => &run.asof,
                Way::EchoExchange | Way::EchoTicket => &run.echo,
                Way::Redis => &run.redis,
                Way::Feast => &run.feast,
            };
            let Some(address) = address else { continue };
            let world = if case.features == 20 { &twenty } else { &fifty };
            let pace = match case.rate {
                Some(rate) => Pace::Open { rate: run.rate.unwrap_or(rate) },
                None => Pace::Closed { depth: case.depth },
            };
            let load = Load { pace, warm: Duration::from_secs_f64(run.warm), counted: Duration::from_secs_f64(run.seconds) };
            let training = case.training.then(|| flight::train_until_stopped(address, world));
            let tally = match case.way {
                Way::Exchange => flight::exchange(address, world, case.batch, case.connections, load, false).await?,
                Way::EchoExchange => flight::exchange(address, world, case.batch, case.connections, load, true).await?,
                Way::Ticket => flight::ticket(address, world, case.batch, case.connections, load, false).await?,
                Way::EchoTicket => flight::ticket(address, world, case.batch, case.connections, load, true).await?,
                Way::Redis => redis::hmget(address, world, case.batch, case.connections, load).await?,
                Way::Feast => http::feast(address, world, case.batch, case.connections, load).await?,
            };
            let trained = training.map(flight::Training::stop).transpose()?;
            met &= report::line(case.name, case.features, case.batch, case.connections, load, &tally, trained, case.target);
            measured += 1;
        }
    }
    if measured == 0 {
        return Err("no case was measured: name a server by --asof, --echo, --redis or --feast".into());
    }
    Ok(met || !run.strict)
}
