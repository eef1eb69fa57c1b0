//! Progress of long work: one line on standard error, only on a terminal, gone when the work is done.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Work that is done sooner shows nothing.
const QUIET: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(100);
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
/// What a terminal is told before something else is written to the line of progress.
pub(super) const CLEAR_LINE: &str = "\r\x1b[2K";

/// Shows how long the present work has taken. A thread of its own draws, so that busy workers do not stop it.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    work: Option<(Instant, String)>,
    drawn: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Progress {
    /// Progress on standard error, where that is a terminal.
    pub(super) fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self { shared: None };
        }
        let shared = Arc::new(Shared::default());
        let drawing = shared.clone();
        let spawned = thread::Builder::new().name("progress".into()).spawn(move || draw(&drawing));
        Self { shared: spawned.is_ok().then_some(shared) }
    }

    /// Work begins, or its next part does.
    pub(super) fn begin(&self, what: impl Into<String>) {
        self.set(Some((Instant::now(), what.into())));
    }

    /// Work has ended: the line is free for output.
    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, work: Option<(Instant, String)>) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        clear(&mut state);
        state.work = work;
        shared.changed.notify_one();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
        if let Some(shared) = &self.shared {
            shared.lock().closed = true;
            shared.changed.notify_one();
        }
    }
}

fn clear(state: &mut State) {
    if std::mem::take(&mut state.drawn) {
        let _ = io::stderr().write_all(CLEAR_LINE.as_bytes());
    }
}

fn draw(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closed {
        // Drawn under the lock: nothing else writes to the line between `begin` and `end`.
        state = match state.work.as_ref().map(|(since, what)| (since.elapsed(), what)) {
            None => shared.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
            Some((elapsed, what)) => {
                let wait = if elapsed < QUIET {
                    QUIET - elapsed
                } else {
                    let _ = io::stderr().write_all(format!("{CLEAR_LINE}{}", frame(elapsed, what)).as_bytes());
                    state.drawn = true;
                    STEP
                };
                shared.changed.wait_timeout(state, wait).unwrap_or_else(|e| e.into_inner()).0
            }
        };
    }
}

fn frame(elapsed: Duration, what: &str) -> String {
    let turn = (elapsed.as_millis() / STEP.as_millis()) as usize % FRAMES.len();
    format!("{} {what}, {:.1} s", FRAMES[turn], elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_and_how_long() {
        assert_eq!(frame(Duration::from_millis(1200), "statement 3"), "| statement 3, 1.2 s");
        assert_eq!(frame(Duration::from_millis(61_300), "verify"), "/ verify, 61.3 s");
    }
}
