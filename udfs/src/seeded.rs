//! Deliberate defects, one line each, that the tests must catch (`tests/bugs`).
//!
//! They exist only in a build with `--cfg asof_bugs`, and one at a time is on there: the one that the environment variable `ASOF_BUG`
//! names. Any other build has [`seeded_bug`] as a constant `false`, and the line it stands in as if it were not there.

/// Whether the defect of this name is on.
#[cfg(not(asof_bugs))]
#[inline(always)]
pub const fn seeded_bug(_name: &str) -> bool {
    false
}

/// Whether the defect of this name is on.
#[cfg(asof_bugs)]
pub fn seeded_bug(name: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("ASOF_BUG").ok());
    CHOSEN.as_deref() == Some(name)
}
