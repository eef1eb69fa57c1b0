//! Sketches whose state depends only on the set or multiset of values, with pinned hashes and documented errors.

pub mod ddsketch;
pub mod hll;
