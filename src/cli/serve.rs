//! `asof serve`: a warehouse behind a port, until SIGTERM.
//!
//! Two runtimes: one answers requests, one computes and writes. Beside the port of Arrow Flight there may be one for operators (`http`). The server says that it is ready once every view has its online state.

mod http;

use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use asof_flight::{ClientOptions, Limits, ServerOptions};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::STACK_BYTES;
use super::args;
use super::exit::{Code, Failure};
use super::sql::close;
use crate::engine::Engine;
use crate::error::Error;
use crate::settings::{ReadPath, Settings};
use crate::warehouse::Holder;
use crate::wire::Served;

/// How often leases are renewed, and views built that have no state.
const KEEP_EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether a checkpoint is due.
const CHECKPOINTS_EVERY: Duration = Duration::from_secs(1);

/// How long the partitions, the leases and the last checkpoints may take once the server has stopped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Of 100; half is the usual priority, and this is nice 9 where there is nice.
const WORK_PRIORITY: u8 = 25;

/// A certificate and its key, PEM.
type Identity = (Vec<u8>, Vec<u8>);

/// Runs `asof serve`.
pub(super) fn run(warehouse: &str, options: &args::ServeOptions) -> Result<Code, Failure> {
    let tls = tls(options)?;
    let token = options.token_file.as_deref().map(token).transpose()?;
    if let Some((certificate, key)) = &tls {
        let names = [&options.tls_cert, &options.tls_key].map(|f| f.as_deref().unwrap_or(Path::new("")).display().to_string());
        let unusable = |e: asof_flight::Failure| Failure::usage(format!("\"{}\" and \"{}\": {e}", names[0], names[1]));
        asof_flight::check_identity(certificate.clone(), key.clone()).map_err(unusable)?;
    }
    check_reach(
        &options.listen,
        options.insecure || (tls.is_some() && token.is_some()),
        "--tls-cert, --tls-key and --token-file, or --insecure",
    )?;
    if let Some(http) = &options.http {
        check_reach(http, options.insecure, "--insecure; plain HTTP has neither TLS nor a token")?;
    }
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let work = runtime(Builder::new_multi_thread().on_thread_start(stand_back), "work", cores)?;
    let serving = runtime(&mut Builder::new_multi_thread(), "serve", options.serving_threads.map_or(cores.div_ceil(2), |n| n as usize))?;
    let read_path = if options.online_only { ReadPath::Online } else { ReadPath::Auto };
    let checkpoint_interval_us = i64::from(options.checkpoint_seconds).saturating_mul(1_000_000);
    let settings = Settings { read_path, checkpoint_interval_us, state_limit_bytes: options.state_limit_bytes, ..Settings::default() };
    let engine = work.block_on(Engine::builder().warehouse(warehouse).settings(settings).build())?;
    let served = serving.block_on(serve(&engine, &work, options, tls, token));
    // What the server took on is finished and flushed before the leases go back.
    let closed = work.block_on(close(engine, CLOSE_TIMEOUT));
    // The process ends here. Tasks that are cancelled on the way would only make what waits for them fail.
    std::mem::forget((serving, work));
    served.and(closed)?;
    tracing::info!("stopped");
    Ok(Code::Done)
}

/// Lets the threads that answer requests go first, where both want the same core.
fn stand_back() {
    let changed = ThreadPriorityValue::try_from(WORK_PRIORITY).map(|p| set_current_thread_priority(ThreadPriority::Crossplatform(p)));
    if !matches!(changed, Ok(Ok(()))) {
        tracing::debug!("the priority of a thread stays as it is");
    }
}

fn runtime(builder: &mut Builder, name: &str, threads: usize) -> Result<Runtime, Failure> {
    let runtime = builder.worker_threads(threads).thread_name(name).thread_stack_size(STACK_BYTES).enable_all().build();
    Ok(runtime.map_err(Error::from)?)
}

async fn serve(
    engine: &Engine,
    work: &Runtime,
    options: &args::ServeOptions,
    tls: Option<Identity>,
    token: Option<String>,
) -> Result<(), Failure> {
    // Before the address is told: whoever reads it may stop the server at once.
    let stopped = stopped()?;
    let (listener, address) = listen(&options.listen).await?;
    let http = match &options.http {
        Some(at) => Some(listen(at).await?),
        None => None,
    };
    // The processes of one group are set up alike.
    let certificate = match &options.peer_ca {
        Some(path) => Some(std::fs::read(path).map_err(|e| Failure::usage(format!("reading \"{}\": {e}", path.display())))?),
        None => tls.as_ref().map(|(certificate, _)| certificate.clone()),
    };
    let peers = ClientOptions { token: token.clone(), certificate, server_name: None };
    let told = options.advertise.clone().unwrap_or_else(|| reachable(&address));
    engine.serve_at(&format!("{}://{told}", if tls.is_some() { "grpc+tls" } else { "grpc" }), peers);
    let (ready, is_ready) = watch::channel(false);
    let (stop, stopping) = watch::channel(false);
    let stopped = async move {
        stopped.await;
        stop.send_replace(true);
    };
    let keeping = [work.spawn(keep(engine.clone(), ready)), work.spawn(keep_leases(engine.clone()))];
    let behind = [work.spawn(keep_checkpoints(engine.clone())), work.spawn(keep_compact(engine.clone(), options.compact_seconds))];
    let idle = |i: usize| options.idle_seconds.get(i).map(|s| Duration::from_secs((*s).into()));
    let mut limits = Limits {
        endpoints: options.endpoints.into(),
        result_wait: Duration::from_secs(options.result_seconds.into()),
        keys: engine.inner.settings.entities_max,
        ..Limits::default()
    };
    limits.first_word = idle(0).unwrap_or(limits.first_word);
    limits.idle = idle(1).unwrap_or(limits.idle);
    let answering = match http {
        Some((listener, address)) => {
            if let Some(file) = &options.port_file {
                write_address(&with_ending(file, ".http"), &address)?;
            }
            tracing::info!(address, "metrics");
            let watched = http::Watched { engine: engine.clone(), ready: is_ready.clone(), stopping };
            Some(tokio::spawn(http::serve(listener, watched)))
        }
        None => None,
    };
    // Last: whoever waits for it finds everything there.
    if let Some(file) = &options.port_file {
        write_address(file, &address)?;
    }
    tracing::info!(address, "listening");
    let backend = Arc::new(Served::new(engine.clone(), work.handle().clone()));
    let served = asof_flight::serve(backend, listener, ServerOptions { limits, tls, token, ready: is_ready }, stopped).await;
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
    // A checkpoint that is under way leaves no manifest, a rewrite no commit: what they put is of no use to anybody.
    behind.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(answering) = answering {
        answering.abort();
    }
    Ok(served.map_err(Error::from)?)
}

/// Does something again and again, `period` after the time before where that took longer.
async fn every<F: Future<Output = ()>>(period: Duration, mut work: impl FnMut() -> F) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work().await;
    }
}

/// Keeps the leases of all streams, whatever else takes its time.
async fn keep_leases(engine: Engine) {
    every(KEEP_EVERY, || engine.keep_leases()).await;
}

/// Keeps the states of all views and the reading of logs; `ready` once all views have one.
async fn keep(engine: Engine, ready: watch::Sender<bool>) {
    engine.keep_leases().await;
    let mut ticks = tokio::time::interval(KEEP_EVERY);
    loop {
        ticks.tick().await;
        if let Err(e) = engine.follow_catalog().await {
            tracing::warn!(error = %e, "what other processes have defined is not known");
        }
        match engine.warm().await {
            Ok(()) if !*ready.borrow() => {
                tracing::info!("ready");
                ready.send_replace(true);
            }
            Ok(()) => {}
            Err(e) => tracing::warn!(error = %e, "a view has no online state yet"),
        }
        engine.keep_sources().await;
    }
}

/// Takes checkpoints of views whenever they are due.
async fn keep_checkpoints(engine: Engine) {
    every(CHECKPOINTS_EVERY, || engine.keep_checkpoints()).await;
}

/// Rewrites small files of history; never, where that is each 0 seconds.
async fn keep_compact(engine: Engine, seconds: u32) {
    if seconds > 0 {
        every(Duration::from_secs(seconds.into()), || engine.keep_compact()).await;
    }
}

/// Ends with SIGTERM or Ctrl-C.
fn stopped() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::from)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// The address under which others find this process: one that stands for all of the machine's becomes the machine's name.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() => format!("{}:{}", Holder::this_process(None).host, at.port()),
        _ => address.to_owned(),
    }
}

/// The file appears whole: its reader never sees half of an address.
fn write_address(file: &Path, address: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("writing \"{}\": {e}", file.display()));
    let part = with_ending(file, ".part");
    let mut out = std::fs::File::create(&part).map_err(failed)?;
    writeln!(out, "{address}").map_err(failed)?;
    std::fs::rename(part, file).map_err(failed)
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A listener, and the address that it got.
async fn listen(at: &str) -> Result<(TcpListener, String), Failure> {
    let unusable = |e: std::io::Error| Error::unavailable(format!("cannot listen at \"{at}\": {e}"));
    let listener = TcpListener::bind(at).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?.to_string();
    Ok((listener, address))
}

fn tls(options: &args::ServeOptions) -> Result<Option<Identity>, Failure> {
    let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
    let read = |path: &Path| std::fs::read(path).map_err(|e| Failure::usage(format!("reading \"{}\": {e}", path.display())));
    Ok(Some((read(certificate)?, read(key)?)))
}

/// The token in a file, without the white space around it.
pub(super) fn token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("reading \"{}\": {e}", file.display())))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("\"{}\" holds no token", file.display()))),
        token => Ok(token.to_owned()),
    }
}

/// Refuses an address that others can reach, unless that is safe or wanted, which `remedy` makes it.
fn check_reach(listen: &str, allowed: bool, remedy: &str) -> Result<(), Failure> {
    let addresses = listen.to_socket_addrs().map_err(|e| Failure::usage(format!("\"{listen}\" is no address to listen at: {e}")))?;
    if allowed || addresses.into_iter().all(|a| a.ip().is_loopback()) {
        return Ok(());
    }
    Err(Failure::usage(format!("\"{listen}\" is reached from outside this machine: give {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_that_leads_here() {
        assert_eq!(reachable("127.0.0.1:5"), "127.0.0.1:5");
        let told = reachable("0.0.0.0:5");
        assert!(told.ends_with(":5") && !told.starts_with("0.0.0.0"), "{told}");
    }

    #[test]
    fn only_loopback_needs_no_protection() {
        assert!(check_reach("127.0.0.1:0", false, "a key").is_ok());
        assert!(check_reach("[::1]:0", false, "a key").is_ok());
        assert!(check_reach("0.0.0.0:0", false, "a key").is_err());
        assert!(check_reach("0.0.0.0:0", true, "a key").is_ok());
        assert!(check_reach("nowhere", true, "a key").is_err());
    }
}
