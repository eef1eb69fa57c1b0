//! What the streaming path remembers: keys, the sharded index of runs, and the bytes of both. It knows neither SQL nor streams.

pub mod columns;
pub mod index;
pub mod key;
