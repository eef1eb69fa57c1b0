//! Compaction of the streams that this process writes, behind their commits. Not here: which files, and how (`history::compact`).

use super::{Engine, Inner};
use crate::error::Result;
use crate::history::Part;

/// How many files of about one size a day has before they are rewritten.
const FILES_MIN: usize = 16;

impl Engine {
    /// Rewrites the small files of the streams that this process writes; to be called now and then by a process that serves.
    pub async fn keep_compact(&self) {
        let streams: Vec<String> = self.inner.registry().streams.keys().cloned().collect();
        // Of a stream that several processes share, one does.
        let mine = |stream: &str| self.inner.is_written(stream) && self.inner.share(stream).is_none_or(|share| share.part(0).is_some());
        for stream in streams.iter().filter(|stream| mine(stream)) {
            // What fails costs readers some time, and the next attempt does it.
            if let Err(e) = self.inner.compact(stream, FILES_MIN).await {
                tracing::warn!(stream, error = %e, "history is not compacted");
            }
        }
    }

    /// Rewrites the small files of a stream's tables, of days that have at least `files_min` of about one size; how many were rewritten.
    pub async fn compact(&self, stream: &str, files_min: usize) -> Result<usize> {
        self.inner.compact(stream, files_min).await
    }
}

impl Inner {
    async fn compact(&self, stream: &str, files_min: usize) -> Result<usize> {
        let open = self.stream(stream).await?;
        // Commits go on meanwhile.
        let history = open.lock().await.pipeline.history().clone();
        let (mut files, mut failed) = (0, Ok(()));
        for part in [Part::History, Part::Late, Part::Rejected] {
            loop {
                match history.compact(part, files_min).await {
                    Ok(Some(done)) => {
                        tracing::debug!(stream, ?part, ?done, "compacted");
                        files += done.files;
                    }
                    Ok(None) => break,
                    Err(e) => {
                        // The other tables have nothing to do with it.
                        failed = failed.and(Err(e));
                        break;
                    }
                }
            }
        }
        failed.map(|()| files)
    }
}
