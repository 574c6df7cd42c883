//! What is over is remembered for a while, so that a client that comes late learns what became of it.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Bounds how much that is over is remembered: of more in a minute, which only happens to fill our memory, the
/// next ones are to be forgotten at once.
#[derive(Clone, Debug)]
pub struct Tombstones(Arc<Semaphore>);

/// Stands for one that is remembered.
#[derive(Debug)]
pub struct Tombstone(OwnedSemaphorePermit);

impl Tombstones {
    /// At most so many at a time.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// One more is over; `None` if it is not to be remembered.
    pub fn add(&self) -> Option<Tombstone> {
        self.0.clone().try_acquire_owned().ok().map(Tombstone)
    }
}

impl Tombstone {
    /// Resolves when it may be forgotten.
    pub async fn expires(self) {
        tokio::time::sleep(REMEMBERED).await;
        drop(self.0);
    }
}
