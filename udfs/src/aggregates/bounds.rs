//! `window_start()` and `window_end()`.

use crate::program::Function;
use crate::run::{Located, Run};
use crate::window::{Frame, Instant};

/// The bound of a TUMBLE or HOP window, which does not depend on events.
pub(super) fn fixed(frame: &Frame, function: Function, at: Instant) -> Option<i64> {
    let Frame::Tumble { size, slide } = *frame else { return None };
    let (start, end) = Frame::tumble_bounds(size, slide, at.at);
    Some(if function == Function::WindowStart { start } else { end })
}

/// The bound of any window; of a session its first and last event, `None` where it is empty.
pub(super) fn of(run: &Run, frame: &Frame, function: Function, at: Instant, place: &Located<'_>) -> Option<i64> {
    if let Frame::Tumble { .. } = frame {
        return fixed(frame, function, at);
    }
    let time = |row: usize| run.store().word(0, row) as i64;
    let held = place.low < place.high;
    match (function, place.folded) {
        (Function::WindowStart, Some(folded)) => Some(folded.first_time),
        (Function::WindowStart, None) => held.then(|| time(place.low)),
        (_, folded) if !held => folded.and(run.boundary()),
        _ => Some(time(place.high - 1)),
    }
}
