//! What every implementation of [`Jobs`] must do: run for each of them by [`jobs_contract`].

use super::jobs::{Entry, Job, Jobs, Next};
use super::tests::job;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// Far above what anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// Long enough to see that nothing comes.
const NOTHING: Duration = Duration::from_millis(50);

/// Tests of what `$open` makes: with three attempts a job, and two slots.
macro_rules! jobs_contract {
    ($open:expr) => {
        $crate::hook::contract::jobs_contract! { $open,
            a_job_is_claimed_once_however_often_it_is_pushed
            a_job_comes_back_after_its_pause_as_the_next_attempt
            an_attempt_that_could_not_begin_comes_back_as_the_same
            a_retry_can_be_hurried
            what_is_withdrawn_is_not_tried_again
            a_replay_follows_the_attempt_that_is_claimed
            a_claim_that_is_given_up_before_it_is_ready_takes_nothing
            a_drain_gives_out_first_attempts_and_then_ends
            a_halt_gives_out_nothing_more
        }
    };
    ($open:expr, $($promise:ident)+) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::hook::contract::$promise(&$open).await;
            }
        )+
    };
}
pub(super) use jobs_contract;

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("it takes too long")
}

async fn claimed(jobs: &dyn Jobs) -> Entry {
    within(jobs.claim()).await.expect("it has ended")
}

async fn assert_waits(jobs: &dyn Jobs) {
    if let Ok(claimed) = timeout(NOTHING, jobs.claim()).await {
        panic!("there is {claimed:?}");
    }
}

pub async fn a_job_is_claimed_once_however_often_it_is_pushed(jobs: &dyn Jobs) {
    let job = job("a");
    jobs.push(job.clone()).await;
    jobs.push(job.clone()).await;
    let entry = claimed(jobs).await;
    assert_eq!((&*entry.job, entry.n, entry.last), (&job, 1, 3));
    jobs.push(job.clone()).await;
    assert_waits(jobs).await;
    jobs.settle(entry, Next::Over).await;
    assert_waits(jobs).await;
    jobs.push(job).await;
    claimed(jobs).await;
}

pub async fn a_job_comes_back_after_its_pause_as_the_next_attempt(jobs: &dyn Jobs) {
    jobs.push(job("a")).await;
    let entry = claimed(jobs).await;
    let id = entry.job.id.clone();
    jobs.settle(entry, Next::Retry(4 * NOTHING)).await;
    assert_waits(jobs).await;
    let entry = claimed(jobs).await;
    assert_eq!((&entry.job.id, entry.n, entry.failures), (&id, 2, 1));
}

pub async fn an_attempt_that_could_not_begin_comes_back_as_the_same(jobs: &dyn Jobs) {
    jobs.push(job("a")).await;
    let entry = claimed(jobs).await;
    jobs.settle(entry, Next::Later(Duration::ZERO)).await;
    let entry = claimed(jobs).await;
    assert_eq!((entry.n, entry.failures), (1, 0));
}

pub async fn a_retry_can_be_hurried(jobs: &dyn Jobs) {
    jobs.push(job("a")).await;
    let entry = claimed(jobs).await;
    let id = entry.job.id.clone();
    jobs.retry_now(&id).await;
    assert_waits(jobs).await;
    jobs.settle(entry, Next::Retry(2 * DEADLINE)).await;
    jobs.retry_now(&id).await;
    assert_eq!(claimed(jobs).await.n, 2);
}

pub async fn what_is_withdrawn_is_not_tried_again(jobs: &dyn Jobs) {
    let waiting = job("waiting");
    jobs.push(waiting.clone()).await;
    jobs.withdraw(&waiting.id).await;
    assert_waits(jobs).await;
    jobs.push(job("claimed")).await;
    let entry = claimed(jobs).await;
    jobs.withdraw(&entry.job.id).await;
    jobs.settle(entry, Next::Retry(Duration::ZERO)).await;
    assert_waits(jobs).await;
}

pub async fn a_replay_follows_the_attempt_that_is_claimed(jobs: &dyn Jobs) {
    let first = job("a");
    jobs.push(first.clone()).await;
    let entry = claimed(jobs).await;
    jobs.push(Job { replayed: true, attempts_so_far: 1, failures: 1, ..first }).await;
    assert_waits(jobs).await;
    jobs.settle(entry, Next::Over).await;
    let replay = claimed(jobs).await;
    assert_eq!((replay.n, replay.last, replay.failures), (2, 4, 0));
}

pub async fn a_claim_that_is_given_up_before_it_is_ready_takes_nothing(jobs: &dyn Jobs) {
    assert_waits(jobs).await;
    jobs.push(job("a")).await;
    claimed(jobs).await;
}

pub async fn a_drain_gives_out_first_attempts_and_then_ends(jobs: &dyn Jobs) {
    jobs.push(job("retry")).await;
    let retry = claimed(jobs).await;
    jobs.settle(retry, Next::Retry(NOTHING)).await;
    jobs.push(job("claimed")).await;
    let running = claimed(jobs).await;
    jobs.push(job("first")).await;
    jobs.drain();
    jobs.push(job("late")).await;
    let first = claimed(jobs).await;
    assert_eq!(first.job.stream.as_str(), "first");
    jobs.settle(first, Next::Retry(Duration::ZERO)).await;
    assert_waits(jobs).await;
    jobs.settle(running, Next::Over).await;
    assert!(within(jobs.claim()).await.is_none());
}

pub async fn a_halt_gives_out_nothing_more(jobs: &dyn Jobs) {
    jobs.push(job("claimed")).await;
    let running = claimed(jobs).await;
    jobs.push(job("first")).await;
    jobs.halt();
    assert_waits(jobs).await;
    jobs.settle(running, Next::Over).await;
    assert!(within(jobs.claim()).await.is_none());
}
