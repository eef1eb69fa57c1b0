//! Places where tests let the process die.
//!
//! In a debug build a process that runs with `ASOF_CRASH=name:n` aborts when it comes to the point `name` for the n-th time (the first,
//! where n is left out), as if the machine had lost its power there. A release build has no such points.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The point that was asked for, and how often it is still to be passed.
static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

/// Ends the process here, where that was asked for.
pub(crate) fn crash_point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var("ASOF_CRASH").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });
    if let Some((asked, left)) = asked
        && asked == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}
