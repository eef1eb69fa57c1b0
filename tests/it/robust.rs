//! Input of any kind.
