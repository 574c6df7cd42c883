//! Work on files, away from the threads that serve the network.

use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Writes under way at the same time. Further ones wait: a disk that stalls then costs this many
/// threads, not all that the process shares with downloads.
const WRITES: usize = 64;
/// Syncs under way at the same time. They have places of their own, since each may last seconds
/// while writes only fill memory.
const SYNCS: usize = 32;

/// Where blocking work goes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    writes: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
}

impl Disk {
    pub fn new() -> Self {
        Self { writes: Arc::new(Semaphore::new(WRITES)), syncs: Arc::new(Semaphore::new(SYNCS)) }
    }

    /// Runs work that ends in the page cache.
    pub async fn write<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        run(&self.writes, work).await
    }

    /// Runs work that waits for the disk itself.
    pub async fn sync<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        run(&self.syncs, work).await
    }

    /// Starts work that waits for the disk itself; `None` if all places are taken.
    pub fn try_sync<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let place = self.syncs.clone().try_acquire_owned().ok()?;
        Some(tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        }))
    }
}

async fn run<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    // The place goes with the work: who asked may give up, the thread stays taken until it is done.
    let work = move || {
        let _place = place;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
