//! What a user may tune: plain data with defaults. Components that do work (warehouse, clock) go through the engine's builder.

/// How `FOR ENTITY` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadPath {
    /// From the online state where it answers the instant, else from history.
    #[default]
    Auto,
    /// From the online state only; earlier instants are refused with the earliest one that is answered.
    Online,
    /// From history only, by the batch path.
    History,
}

/// The settings of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How `FOR ENTITY` is answered.
    pub read_path: ReadPath,
    /// The `look_back` of views that give none, microseconds.
    pub look_back_default_us: i64,
    /// The `max_future_skew` of streams that give none, microseconds.
    pub max_future_skew_default_us: i64,
    /// The memory that queries and training may use before they spill, bytes.
    pub memory_limit_bytes: usize,
    /// The memory that the online state may take, bytes; at the bound ingestion stops with an error that says so.
    pub state_limit_bytes: usize,
    /// The memory of one stream's table of recent identities, bytes; older identities are looked up in history.
    pub dedupe_limit_bytes: usize,
    /// The threads of batch work.
    pub threads: usize,
    /// The longest record of a text format, bytes.
    pub record_bytes_max: usize,
    /// The rows of a spine that are processed at once.
    pub spine_rows_max: usize,
    /// The rows of one commit of a file connector.
    pub commit_rows: usize,
    /// The entities of one `FOR ENTITY`.
    pub entities_max: usize,
    /// How long a process that serves waits between two checkpoints of a view, microseconds; 0: none is written, at the end neither.
    pub checkpoint_interval_us: i64,
    /// The memory for chunks of a checkpoint that wait to be put, bytes; what goes beyond is put while ingestion waits.
    pub checkpoint_memory_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            read_path: ReadPath::Auto,
            look_back_default_us: 0,
            max_future_skew_default_us: 600_000_000,
            memory_limit_bytes: 4 << 30,
            state_limit_bytes: 8 << 30,
            dedupe_limit_bytes: 1 << 30,
            threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            record_bytes_max: 16 << 20,
            spine_rows_max: 4_000_000,
            commit_rows: 250_000,
            entities_max: 100_000,
            checkpoint_interval_us: 60_000_000,
            checkpoint_memory_bytes: 1 << 30,
        }
    }
}
