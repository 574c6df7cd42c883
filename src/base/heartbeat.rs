//! Whether a loop still turns, and how late it is.

use crate::base::metrics::metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a loop shows that it turns, whether or not it has anything to do.
pub const BEAT: Duration = Duration::from_secs(1);
/// A loop that has not shown itself for this long hangs. Long, because a supervisor may restart the
/// server: a machine that was short of time for some seconds is no reason.
pub const STUCK: Duration = Duration::from_secs(15);

/// A loop's sign of life. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The loop's name.
    pub name: &'static str,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Heartbeat {
    /// Of a loop that begins now.
    pub fn new(name: &'static str) -> Self {
        Self::since(name, Instant::now())
    }

    /// Of one that has not turned since.
    pub fn since(name: &'static str, last: Instant) -> Self {
        Self { name, last: Arc::new(Mutex::new(Some(last))) }
    }

    /// Of a loop that may begin later, and isn't missed before.
    pub fn unborn(name: &'static str) -> Self {
        Self { name, last: Arc::default() }
    }

    /// It turns.
    pub fn beat(&self, now: Instant) {
        *self.last.lock() = Some(now);
    }

    /// Whether it has not turned for [`STUCK`].
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.last.lock().is_some_and(|last| now.saturating_duration_since(last) >= STUCK)
    }
}

/// Wakes every [`BEAT`] and notes how late it was woken: what any task here has to wait at present.
pub async fn probe(heartbeat: Heartbeat, stop: CancellationToken) {
    loop {
        let due = Instant::now() + BEAT;
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = stop.cancelled() => return,
        }
        let now = Instant::now();
        metrics().loops.runtime_lag.note(now.saturating_duration_since(due));
        heartbeat.beat(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_stuck_when_it_has_not_turned_for_long() {
        let start = Instant::now();
        let heartbeat = Heartbeat::since("a loop", start);
        assert!(!heartbeat.is_stuck(start + STUCK - BEAT));
        assert!(heartbeat.is_stuck(start + STUCK));
        heartbeat.beat(start + STUCK);
        assert!(!heartbeat.is_stuck(start + STUCK + BEAT));
        let later = Heartbeat::unborn("another");
        assert!(!later.is_stuck(start + STUCK));
        later.beat(start);
        assert!(later.is_stuck(start + STUCK));
    }
}
