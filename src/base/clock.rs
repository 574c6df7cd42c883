//! Wall time that never runs backwards within one recording.

use jiff::Timestamp;
use serde::Serializer;
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

/// Writes a wall time as manifests and the API have it: UTC, always with three decimals, so that
/// times sort as text.
pub fn as_millis<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{at:.3}"))
}

/// The same for a time that may not have come.
pub fn as_some_millis<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_millis(at, to),
        None => to.serialize_none(),
    }
}
