//! What a disk refused is tried again: a moment later, and then ever more seldom.

use crate::base::id::RecordingId;
use crate::record::Shared;
use std::fmt::Display;
use std::time::Duration;

/// The first pause. Each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(250);
/// The longest: once a disk works again, that shows soon.
const LONGEST: Duration = Duration::from_secs(60);

/// The attempts at one thing.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST }
    }
}

impl Backoff {
    /// The catalogue says what is wrong with this recording, until it is sealed. Resolves when it is time
    /// for another attempt; when the server stops, that is the last one. False if it was.
    pub async fn after(&mut self, shared: &Shared, id: &RecordingId, error: &impl Display) -> bool {
        shared.show_fault(id, error).await;
        self.pause(shared).await
    }

    /// Waits for the next attempt; false if there is none, since the server stops.
    pub async fn pause(&mut self, shared: &Shared) -> bool {
        if shared.leaving.is_cancelled() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LONGEST),
            () = shared.leaving.cancelled() => {}
        }
        true
    }
}
