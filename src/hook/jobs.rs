//! Jobs, and what is asked of the queue where they wait for a worker.
//!
//! A job is durable in its recording's manifest, which says `queued` before the job is pushed (S5). So a queue may be
//! in memory, as [`Queue`](super::queue::Queue) is: what it loses is due at the next start.

use crate::base::id::{RecordingId, StreamName};
use crate::catalog::{Folder, HookRunning, HookState, Manifest};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One sealed recording whose hook is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// `ONRECORD_ID`: the same for every attempt, so that a script can tell a repetition.
    pub id: RecordingId,
    /// `$1` and `ONRECORD_STREAM`.
    pub stream: StreamName,
    /// `$2` and `ONRECORD_FILE`: absolute.
    pub file: PathBuf,
    /// `ONRECORD_BYTES`.
    pub bytes: u64,
    /// `ONRECORD_DURATION_MS`.
    pub duration_ms: u64,
    /// `ONRECORD_MIME`.
    pub mime: String,
    /// `ONRECORD_WIDTH` and `ONRECORD_HEIGHT`: the largest picture, in pixels; `None` without one.
    pub size: Option<(u32, u32)>,
    /// `ONRECORD_STARTED_AT`.
    pub started_at: Timestamp,
    /// `ONRECORD_ENDED_AT`.
    pub ended_at: Timestamp,
    /// `ONRECORD_END_REASON`, as in the manifest.
    pub end_reason: String,
    /// `ONRECORD_MANIFEST`: absolute. Standard input, if that is to be the manifest.
    pub manifest: PathBuf,
    /// Attempts the manifest knows of; the next one is this plus one.
    pub attempts_so_far: u32,
    /// Those of them that count: they failed, or a server died in them, since the job was last begun anew.
    pub failures: u32,
    /// Those that a server cut off which was told to stop, since the same moment.
    pub interruptions: u32,
    /// An attempt that a server died in; its survivors are ended before the next one.
    pub unfinished: Option<HookRunning>,
    /// It has run before, and has all of its attempts anew.
    pub replayed: bool,
}

impl Job {
    pub fn new(manifest: &Manifest, folder: &Folder) -> Self {
        let (failures, interruptions) = manifest.hook.counts();
        Self {
            id: manifest.id.clone(),
            stream: manifest.stream.clone(),
            file: folder.path(manifest),
            bytes: manifest.bytes,
            duration_ms: manifest.duration_ms,
            mime: manifest.mime.clone(),
            size: manifest.size(),
            started_at: manifest.started_at,
            ended_at: manifest.ended_at.unwrap_or(manifest.started_at),
            end_reason: manifest.end_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            manifest: folder.manifest_path(manifest),
            attempts_so_far: manifest.hook.last_attempt(),
            failures,
            interruptions,
            unfinished: None,
            replayed: false,
        }
    }

    /// The same after a restart. The attempt that the last server died in is the one that the manifest says is
    /// running, or, if the manifest could not be written any more, the one of a process that still runs.
    pub fn left(manifest: &Manifest, folder: &Folder, processes: &HashMap<RecordingId, u32>) -> Self {
        let hook = &manifest.hook;
        let over = hook.last_attempt();
        let seen = processes.get(&manifest.id).copied().filter(|n| *n > over);
        let is_running = hook.state == HookState::Running;
        let unfinished = match (hook.running.clone().filter(|_| is_running), seen) {
            (Some(noted), seen) => Some(HookRunning { n: seen.unwrap_or(0).max(noted.n), ..noted }),
            (None, None) if !is_running => None,
            (None, seen) => Some(HookRunning::new(seen.unwrap_or(over + 1), Timestamp::now())),
        };
        Self { unfinished, ..Self::new(manifest, folder) }
    }
}

/// A job with where it is in its attempts.
#[derive(Debug)]
pub(super) struct Entry {
    pub job: Arc<Job>,
    /// The number of the next attempt.
    pub n: u32,
    /// The number of the last one.
    pub last: u32,
    /// Failures in a row, for the pause.
    pub failures: u32,
    /// Whether it takes part in its stream's order.
    pub first: bool,
    /// An attempt that a server died in, until it is seen to.
    pub unfinished: Option<HookRunning>,
    /// That one was the last there is.
    pub gives_up: bool,
    /// One that a stop of the server cuts off counts by now, too.
    pub stops_count: bool,
}

impl Entry {
    /// A job that goes on with the attempts that are left of `max_attempts`; at least one, unless a server
    /// died in the last of them. One in which a server died counts: its hook may have taken it along, and
    /// would at every start. One cut off by a server that was told to stop doesn't, but of those too there
    /// are no more than `max_attempts`: a hook may tell it to.
    pub fn new(job: Job, max_attempts: u32) -> Self {
        let unfinished = job.unfinished.clone();
        let died = unfinished.as_ref().map_or(job.attempts_so_far, |running| running.n);
        let n = died.max(job.attempts_so_far).saturating_add(1);
        if job.replayed {
            let (last, job) = (n.saturating_add(max_attempts - 1), Arc::new(job));
            let (failures, first, gives_up, stops_count) = (0, false, false, false);
            return Self { job, n, last, failures, first, unfinished, gives_up, stops_count };
        }
        let failures = job.failures.saturating_add(u32::from(unfinished.is_some()));
        let left = max_attempts
            .saturating_sub(failures)
            .saturating_sub(job.interruptions.saturating_sub(max_attempts));
        Self {
            n,
            last: n.saturating_add(left.max(1) - 1),
            failures,
            first: job.attempts_so_far == 0,
            gives_up: unfinished.is_some() && left == 0,
            stops_count: job.interruptions >= max_attempts,
            unfinished,
            job: Arc::new(job),
        }
    }
}

/// What becomes of a job after an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// Nothing more: its manifest says how it ended, or that it is due at the next start.
    Over,
    /// Another attempt, this much later.
    Retry(Duration),
    /// The same attempt, which could not begin yet.
    Later(Duration),
}

/// How many jobs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depths {
    /// First attempts that wait for a slot or for their stream's turn.
    pub waiting: usize,
    pub running: usize,
    /// Attempts that wait for their time.
    pub retrying: usize,
    /// When the first attempt came that waits the longest.
    pub oldest: Option<Instant>,
}

/// A queue of jobs.
///
/// What is claimed belongs to one worker until it is settled; a form whose claims run out renews them until then.
pub(super) trait Jobs: Send + Sync {
    /// Takes a job, whose manifest says `queued` durably. One of the same recording that is here already stays as it
    /// is; a replay then follows it. Waits while there are too many, but for a replay. After [`Self::drain`] the
    /// job stays in its manifest.
    fn push(&self, job: Job) -> BoxFuture<'_, ()>;

    /// Claims the next attempt, when there is one to make; `None` once nothing is left after [`Self::drain`].
    /// Dropped before it is ready, it has claimed nothing.
    fn claim(&self) -> BoxFuture<'_, Option<Entry>>;

    /// Says what becomes of what was claimed.
    fn settle(&self, entry: Entry, next: Next) -> BoxFuture<'_, ()>;

    /// A job that waits for a retry is due now; one that is claimed, or waits for its first attempt, stays as it is.
    fn retry_now<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, ()>;

    /// Withdraws a job: one that is claimed runs on, and is not tried again.
    fn withdraw<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, ()>;

    /// From now on only first attempts that wait are given out.
    fn drain(&self);

    /// From now on nothing is given out.
    fn halt(&self);

    /// Whether it takes no more at present.
    fn is_full(&self) -> bool;

    fn depths(&self) -> Depths;
}
