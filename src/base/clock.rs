//! Wall time that never runs backwards within one recording.

use jiff::Timestamp;
use std::time::Instant;

/// One instant on both clocks; later wall times are derived from the monotonic one, so that a wall
/// clock set back during a recording changes neither durations nor order.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// Monotonic time.
    pub instant: Instant,
    /// Wall time at `instant`.
    pub wall: Timestamp,
}

impl Anchor {
    /// Both clocks, read now.
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now() }
    }

    /// Wall time of a later instant (of the anchor itself if `at` is earlier).
    pub fn wall_at(&self, at: Instant) -> Timestamp {
        self.wall.checked_add(at.saturating_duration_since(self.instant)).unwrap_or(self.wall)
    }
}
