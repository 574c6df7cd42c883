//! Work on files, away from the threads that serve the network.

use crate::base::metrics::{Scrape, metrics};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Threads that write at the same time. Further work waits: a disk that stalls then costs this many
/// threads, not all that the process shares with downloads.
const WRITERS: usize = 64;
/// Work that has not come to its end after so long may be behind work that hangs: another thread takes what waits.
/// Each time after that it is given twice as long,
const PATIENCE: Duration = Duration::from_millis(20);
/// up to this.
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// Syncs under way at the same time. They have threads of their own, since each may last seconds
/// while writes only fill memory.
const SYNCS: usize = 32;

/// Where blocking work goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    writes: Arc<Writes>,
    syncs: Pool,
}

type Work = Box<dyn FnOnce() + Send>;

/// What is written: what many recordings have to write at the same time is done by one thread, which is woken once.
/// A thread for each would cost more than the writing.
#[derive(Default)]
struct Writes {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// Threads that take from it until it is empty.
    writers: usize,
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").finish_non_exhaustive()
    }
}

impl Writes {
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        // The caller may have given up.
        self.state.lock().waiting.push_back(Box::new(move || drop(done.send(timed("write", work)))));
        self.help(1);
        let (mut result, mut patience) = (pin!(result), PATIENCE);
        loop {
            match timeout(patience, &mut result).await {
                // Without a result it has panicked.
                Ok(result) => return result.map_err(io::Error::other),
                Err(_) => self.help(WRITERS),
            }
            patience = (patience * 2).min(MAX_PATIENCE);
        }
    }

    /// Has another thread take what waits, unless there are so many.
    fn help(self: &Arc<Self>, most: usize) {
        let mut state = self.state.lock();
        if state.writers >= most || state.waiting.is_empty() {
            return;
        }
        state.writers += 1;
        drop(state);
        let writes = self.clone();
        spawn_blocking(move || {
            while let Some(work) = writes.next() {
                // It was told to whoever waits for it, whose business it is.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        });
    }

    /// The next work; with `None` a thread has ended.
    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        state.writers -= usize::from(next.is_none());
        next
    }
}

/// Where one sort of work is done by a thread each.
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
        spawn_blocking(work).await.map_err(io::Error::other)
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
        Self { writes: Arc::default(), syncs: Pool::new("sync", SYNCS) }
    }
}

impl Disk {
    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let syncs = &self.syncs;
        let (waiting, running) = {
            let writes = self.writes.state.lock();
            (writes.waiting.len() as u64, writes.writers as u64)
        };
        let help = "Work on files that waits for a thread";
        let syncs_waiting = syncs.waiting.load(Ordering::Relaxed);
        scrape.gauges("disk_work_waiting", help, "work", [("write", waiting), (syncs.name, syncs_waiting)]);
        let help = "Work on files that is being done";
        scrape.gauges("disk_work_running", help, "work", [("write", running), (syncs.name, syncs.running())]);
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
        Some(spawn_blocking(move || {
            let _permit = permit;
            timed(name, work)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn what_is_written_at_the_same_time_is_written_by_one_thread() {
        let (disk, mut tasks) = (Disk::default(), JoinSet::new());
        for n in 0..100 {
            let disk = disk.clone();
            tasks.spawn(async move { disk.write(move || (n, thread::current().id())).await.unwrap() });
        }
        let mut done = tasks.join_all().await;
        done.sort_by_key(|(n, _)| *n);
        assert!(done.iter().map(|(n, _)| *n).eq(0..100));
        assert!(done.iter().all(|(_, thread)| *thread == done[0].1));
    }

    #[tokio::test]
    async fn work_that_hangs_holds_up_none_of_the_rest_and_takes_so_many_threads_at_most() {
        let (disk, mut stuck) = (Disk::default(), JoinSet::new());
        let release = Arc::new(Barrier::new(WRITERS));
        let hang = |stuck: &mut JoinSet<()>| {
            let (disk, release) = (disk.clone(), release.clone());
            let hangs = move || {
                release.wait();
            };
            stuck.spawn(async move { disk.write(hangs).await.unwrap() });
        };
        for _ in 1..WRITERS {
            hang(&mut stuck);
        }
        assert_eq!(disk.write(|| 1).await.unwrap(), 1, "behind {} that hang", WRITERS - 1);
        hang(&mut stuck);
        stuck.join_all().await;
        assert_eq!(disk.write(|| 2).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_of_its_own() {
        let disk = Disk::default();
        let (panicked, done) = tokio::join!(disk.write(|| panic!("on purpose")), disk.write(|| 1));
        assert!(panicked.is_err());
        assert_eq!(done.unwrap(), 1);
        assert_eq!(disk.write(|| 2).await.unwrap(), 2);
    }
}
