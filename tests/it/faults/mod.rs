//! The fault matrix: whatever happens to the server, the publisher or the clock, what was sent is in a
//! file that plays and seeks, and its hook has run.
//!
//! Each row ends a real server, or what it stands on, at a chosen moment, starts it again, and holds
//! what it finds to the same promises ([`aftermath`]).

mod aftermath;
mod clock;
mod kill;
mod scene;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

/// What the servers of these tests may lose: little, so that a test sees when it is more.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
const REORDER_WINDOW: Duration = Duration::from_millis(250);
/// What a killed server may lose of a stream's end.
const MAY_LOSE: Duration =
    FLUSH_INTERVAL.saturating_add(REORDER_WINDOW).saturating_add(Duration::from_millis(300));
const SETTINGS: [&str; 4] = [
    "record.flush_interval=250ms",
    "record.sync_interval=500ms",
    "webrtc.reorder_window=250ms",
    "hooks.backoff=50ms",
];

/// Does a job for each item, so many at a time, each on a thread of its own: a job may wait for
/// processes without holding up another's publishers. Gives the results in the order of the items; a
/// panic is a failure of its item alone.
fn side_by_side<T: Send, R: Send>(
    width: usize,
    items: Vec<T>,
    job: impl Fn(T) -> Result<R, String> + Sync,
) -> Vec<Result<R, String>> {
    let results: Vec<_> = items.iter().map(|_| Mutex::new(None)).collect();
    let queue = Mutex::new(items.into_iter().zip(&results));
    let next = || queue.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some((item, result)) = next() {
                    let done = catch_unwind(AssertUnwindSafe(|| job(item)));
                    *result.lock().unwrap() =
                        Some(done.unwrap_or_else(|_| Err("it panicked, see above".to_owned())));
                }
            });
        }
    });
    results.into_iter().filter_map(|result| result.into_inner().unwrap()).collect()
}

/// Runs a job's asynchronous part on its own thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
