//! What the streaming path remembers: keys and the sharded index of runs. It knows neither SQL nor streams.

pub mod index;
pub mod key;
