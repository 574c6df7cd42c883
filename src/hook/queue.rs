//! The jobs of one server, in memory.

use super::jobs::{Depths, Entry, Job, Jobs, Next};
use super::schedule::Schedule;
use crate::base::id::RecordingId;
use futures_util::future::{BoxFuture, ready};
use parking_lot::{Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// Jobs held in memory. With so many, [`Jobs::push`] waits; the rest is in the manifests.
const CAPACITY: usize = 4096;

pub(super) struct Queue {
    max_attempts: u32,
    schedule: Mutex<Schedule>,
    /// Told whenever what waits may have become another.
    changed: Notify,
}

impl Queue {
    pub fn new(concurrency: usize, max_attempts: u32) -> Self {
        let schedule = Mutex::new(Schedule::new(concurrency));
        Self { max_attempts: max_attempts.max(1), schedule, changed: Notify::new() }
    }

    fn change(&self, change: impl FnOnce(&mut Schedule, Instant)) {
        change(&mut self.lock(), Instant::now());
        self.changed.notify_waiters();
    }

    /// Looks again at each change, and at the time that `look` names, until it finds something.
    async fn until<T>(&self, look: impl Fn(&mut Schedule) -> Result<T, Option<Instant>>) -> T {
        loop {
            // What changes behind the look is heard of.
            let changed = self.changed.notified();
            let wake = match look(&mut self.lock()) {
                Ok(found) => return found,
                Err(wake) => wake,
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock()
    }
}

impl Jobs for Queue {
    fn push(&self, job: Job) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !job.replayed {
                self.until(|schedule| {
                    let waits = schedule.len() >= CAPACITY && !schedule.is_draining();
                    if waits { Err(None) } else { Ok(()) }
                })
                .await;
            }
            self.change(|schedule, now| schedule.add(Entry::new(job, self.max_attempts), now));
        })
    }

    fn claim(&self) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(self.until(|schedule| match schedule.next(Instant::now()) {
            Some(entry) => Ok(Some(entry)),
            None if schedule.is_draining() && schedule.is_idle() => Ok(None),
            None => Err(schedule.wake()),
        }))
    }

    fn settle(&self, mut entry: Entry, next: Next) -> BoxFuture<'_, ()> {
        self.change(|schedule, now| {
            schedule.ended(&entry);
            match next {
                Next::Over => schedule.forget(&entry, now),
                Next::Later(pause) => schedule.retry(entry, now + pause),
                Next::Retry(pause) => {
                    entry.n = entry.n.saturating_add(1);
                    entry.failures = entry.failures.saturating_add(1);
                    schedule.retry(entry, now + pause);
                }
            }
        });
        Box::pin(ready(()))
    }

    fn retry_now<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, ()> {
        self.change(|schedule, now| schedule.retry_now(id, now));
        Box::pin(ready(()))
    }

    fn withdraw<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, ()> {
        self.change(|schedule, _| schedule.withdraw(id));
        Box::pin(ready(()))
    }

    fn drain(&self) {
        self.change(|schedule, _| schedule.drain());
    }

    fn halt(&self) {
        self.change(|schedule, _| schedule.halt());
    }

    fn is_full(&self) -> bool {
        self.lock().len() >= CAPACITY
    }

    fn depths(&self) -> Depths {
        self.lock().depths()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::contract::jobs_contract;
    use crate::hook::tests::job;
    use futures_util::FutureExt;

    jobs_contract!(Queue::new(2, 3));

    #[tokio::test]
    async fn a_full_queue_has_a_push_wait_for_a_place_but_not_a_replay() {
        let queue = Queue::new(1, 3);
        for _ in 0..CAPACITY {
            queue.push(job("a")).await;
        }
        let mut late = queue.push(job("b"));
        assert!(queue.is_full() && (&mut late).now_or_never().is_none());
        assert!(queue.push(Job { replayed: true, ..job("c") }).now_or_never().is_some());
        let entry = queue.claim().await.unwrap();
        queue.settle(entry, Next::Over).await;
        assert!((&mut late).now_or_never().is_none(), "the replay has taken it");
        let entry = queue.claim().await.unwrap();
        queue.settle(entry, Next::Over).await;
        late.await;
    }
}
