//! Ctrl-C while something runs: its future is dropped, and a second Ctrl-C ends the process where the first is not heard.

use std::time::Duration;

use tokio::signal::ctrl_c;

use super::exit::{Code, Failure, say};

/// Longer than this a dropped statement does not take to say so itself.
const HEARD: Duration = Duration::from_millis(500);

/// Runs work to its end or to Ctrl-C.
///
/// What was acknowledged before stays done; what was under way is as after a crash: done as a whole or not at all.
pub(super) async fn or_interrupt<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let _watch = Watch(tokio::spawn(insist()));
    tokio::select! {
        done = work => Ok(done),
        Ok(()) = ctrl_c() => Err(Failure::Interrupted),
    }
}

/// A statement that computes without a pause is not dropped before it pauses: the second Ctrl-C does not wait for that.
async fn insist() {
    if ctrl_c().await.is_err() {
        return;
    }
    let again = ctrl_c();
    tokio::pin!(again);
    tokio::select! {
        _ = &mut again => {}
        () = tokio::time::sleep(HEARD) => {
            say("cancelling; Ctrl-C again ends the process");
            let _ = again.await;
        }
    }
    std::process::exit(Code::Interrupted as i32);
}

struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
