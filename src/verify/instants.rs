//! Instants worth asking: random ones, and those at which a row enters or leaves a window.

use asof_udfs::{Bound, Frame};

/// Event times that are remembered for edges.
const REMEMBERED: usize = 4096;

/// Draws instants between a horizon and a little after the newest event.
#[derive(Debug)]
pub(super) struct Instants {
    state: u64,
    frames: Vec<Frame>,
    times: Vec<i64>,
    next: usize,
}

impl Instants {
    pub(super) fn new(seed: u64, frames: Vec<Frame>) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, frames, times: Vec::new(), next: 0 }
    }

    /// Remembers event times; the oldest are replaced.
    pub(super) fn saw(&mut self, times: &[i64]) {
        for time in times {
            if self.times.len() < REMEMBERED {
                self.times.push(*time);
            } else {
                self.times[self.next] = *time;
            }
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // xorshift64*: reproducible from the seed, and good enough to spread instants.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let high = (u128::from(self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(below.max(1))) >> 64;
        high as u64
    }

    /// The next instant, never before `horizon`.
    pub(super) fn next(&mut self, horizon: i64, greatest: i64) -> i64 {
        let from = horizon.max(self.times.iter().copied().min().unwrap_or(greatest).saturating_sub(86_400_000_000));
        let span = greatest.saturating_sub(from).max(1) as u64;
        let instant = match self.draw(8) {
            0 => from,
            1 => greatest.saturating_add(self.draw(86_400_000_000) as i64),
            2..=4 if !self.times.is_empty() => {
                let (at, frame) = (self.draw(self.times.len() as u64) as usize, self.draw(self.frames.len() as u64 + 1) as usize);
                let time = self.times[at];
                let width = match self.frames.get(frame) {
                    Some(Frame::Range { start: Bound::Back { micros, .. }, .. }) => *micros,
                    Some(Frame::Tumble { slide, .. }) => *slide,
                    Some(Frame::Session { gap }) => *gap,
                    _ => 0,
                };
                time.saturating_add(width).saturating_add(self.draw(3) as i64 - 1)
            }
            _ => from.saturating_add(self.draw(span) as i64),
        };
        instant.max(horizon)
    }
}
