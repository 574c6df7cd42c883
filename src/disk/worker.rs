//! Work on files, away from the threads that serve the network.

use crate::base::metrics::{Scrape, metrics};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Writes under way at the same time. Further ones wait: a disk that stalls then costs this many
/// threads, not all that the process shares with downloads.
const WRITES: usize = 64;
/// Syncs under way at the same time. They have threads of their own, since each may last seconds
/// while writes only fill memory.
const SYNCS: usize = 32;

/// Where blocking work goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    writes: Pool,
    syncs: Pool,
}

/// Where one sort of work is done.
#[derive(Clone, Debug)]
struct Pool {
    name: &'static str,
    all: usize,
    free: Arc<Semaphore>,
    /// Work that has none yet.
    waiting: Arc<AtomicU64>,
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    fn new(name: &'static str, all: usize) -> Self {
        Self { name, all, free: Arc::new(Semaphore::new(all)), waiting: Arc::default() }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        let permit = self.free.clone().acquire_owned().await.map_err(io::Error::other)?;
        drop(waiting);
        // The permit goes with the work: the caller may give up, the thread stays taken until it is done.
        let name = self.name;
        let work = move || {
            let _permit = permit;
            timed(name, work)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }

    fn running(&self) -> u64 {
        (self.all - self.free.available_permits()) as u64
    }
}

fn timed<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    metrics().recordings.disk.note(name, began.elapsed());
    done
}

impl Default for Disk {
    fn default() -> Self {
        Self { writes: Pool::new("write", WRITES), syncs: Pool::new("sync", SYNCS) }
    }
}

impl Disk {
    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let Self { writes, syncs } = self;
        let waiting = |pool: &Pool| (pool.name, pool.waiting.load(Ordering::Relaxed));
        let help = "Work on files that waits for a thread";
        scrape.gauges("disk_work_waiting", help, "work", [waiting(writes), waiting(syncs)]);
        let running = |pool: &Pool| (pool.name, pool.running());
        let help = "Work on files that is being done";
        scrape.gauges("disk_work_running", help, "work", [running(writes), running(syncs)]);
    }

    /// Runs work that ends in the page cache.
    pub async fn write<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.writes.run(work).await
    }

    /// Runs work that waits for the disk itself.
    pub async fn sync<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.syncs.run(work).await
    }

    /// Starts work that waits for the disk itself; `None` if all threads for that are taken.
    pub fn try_sync<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let permit = self.syncs.free.clone().try_acquire_owned().ok()?;
        let name = self.syncs.name;
        Some(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            timed(name, work)
        }))
    }
}
