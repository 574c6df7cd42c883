//! Which attempt is next. No tasks, no clock: time is an argument.
//!
//! First attempts wait in a queue of their stream and start in order, one at a time; streams take turns. Retries wait
//! for their time outside of those. A free slot goes to a first attempt before a retry, and retries take at most half
//! of the slots, so a stream whose hook keeps failing holds up neither itself nor others. (Under a load of first
//! attempts that never ends, retries wait.)

use super::jobs::{Depths, Entry};
use crate::base::id::{RecordingId, StreamName};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

#[derive(Debug, Default)]
struct StreamQueue {
    busy: bool,
    /// Each with when it came.
    entries: VecDeque<(Instant, Entry)>,
}

/// The order of everything that waits.
#[derive(Debug)]
pub(super) struct Schedule {
    slots: usize,
    running: usize,
    retries_running: usize,
    streams: HashMap<StreamName, StreamQueue>,
    /// Streams with a first attempt to start, in turn.
    ready: VecDeque<StreamName>,
    /// Retries by when they are due; the counter tells equal instants apart.
    waiting: BTreeMap<(Instant, u64), Entry>,
    counter: u64,
    /// Everything here or running, so that no recording runs twice at once.
    known: HashSet<RecordingId>,
    /// Replays of jobs whose last attempt is not forgotten yet; they are known.
    replays: HashMap<RecordingId, Entry>,
    /// What runs and is not to be tried again.
    withdrawn: HashSet<RecordingId>,
    /// No retry starts any more.
    draining: bool,
}

impl Schedule {
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            slots: concurrency.max(1),
            running: 0,
            retries_running: 0,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            counter: 0,
            known: HashSet::new(),
            replays: HashMap::new(),
            withdrawn: HashSet::new(),
            draining: false,
        }
    }

    /// Takes a new job. One that is here already stays as it is; a replay waits for its last attempt to be
    /// [`Self::forget`]ten.
    pub(super) fn add(&mut self, entry: Entry, now: Instant) {
        if self.draining {
            return;
        }
        if !self.known.insert(entry.job.id.clone()) {
            if entry.job.replayed {
                self.replays.insert(entry.job.id.clone(), entry);
            }
        } else if entry.first {
            let queue = self.streams.entry(entry.job.stream.clone()).or_default();
            if !queue.busy && queue.entries.is_empty() {
                self.ready.push_back(entry.job.stream.clone());
            }
            queue.entries.push_back((now, entry));
        } else {
            self.retry(entry, now);
        }
    }

    /// One that waits for its retry is due now.
    pub(super) fn retry_now(&mut self, id: &RecordingId, now: Instant) {
        let waits = self.waiting.iter().find(|(_, waiting)| waiting.job.id == *id);
        if let Some(key) = waits.map(|(key, _)| *key)
            && let Some(waiting) = self.waiting.remove(&key)
        {
            self.retry(waiting, now);
        }
    }

    /// One that waits runs no more, and one that runs is not tried again.
    pub(super) fn withdraw(&mut self, id: &RecordingId) {
        if !self.known.contains(id) {
            return;
        }
        self.replays.remove(id);
        let waiting = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.job.id != *id);
        let mut waits = self.waiting.len() < waiting;
        for queue in self.streams.values_mut() {
            let entries = queue.entries.len();
            queue.entries.retain(|(_, entry)| entry.job.id != *id);
            waits |= queue.entries.len() < entries;
        }
        self.streams.retain(|_, queue| queue.busy || !queue.entries.is_empty());
        self.ready.retain(|stream| self.streams.contains_key(stream));
        if waits {
            self.known.remove(id);
        } else {
            self.withdrawn.insert(id.clone());
        }
    }

    /// Puts an entry aside until `due`.
    pub(super) fn retry(&mut self, entry: Entry, due: Instant) {
        if self.draining || self.withdrawn.remove(&entry.job.id) {
            self.known.remove(&entry.job.id);
            return;
        }
        self.counter += 1;
        self.waiting.insert((due, self.counter), Entry { first: false, ..entry });
    }

    /// The next one to run now, if there is a slot for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Entry> {
        if self.running >= self.slots {
            return None;
        }
        let entry = self.next_first().or_else(|| self.next_retry(now))?;
        self.running += 1;
        self.retries_running += usize::from(!entry.first);
        Some(entry)
    }

    fn next_first(&mut self) -> Option<Entry> {
        let queue = self.streams.get_mut(&self.ready.pop_front()?)?;
        queue.busy = true;
        queue.entries.pop_front().map(|(_, entry)| entry)
    }

    fn next_retry(&mut self, now: Instant) -> Option<Entry> {
        let due = self.wake().is_some_and(|due| due <= now);
        if due { self.waiting.pop_first().map(|(_, entry)| entry) } else { None }
    }

    /// When [`Self::next`] has to be asked again, if nothing ends before.
    pub(super) fn wake(&self) -> Option<Instant> {
        let slots = (self.slots / 2).max(1);
        let free = self.running < self.slots && self.retries_running < slots;
        self.waiting.keys().next().filter(|_| free).map(|(due, _)| *due)
    }

    /// An attempt has ended: its slot is free, and its stream's next first attempt may start.
    pub(super) fn ended(&mut self, entry: &Entry) {
        self.running -= 1;
        if !entry.first {
            self.retries_running -= 1;
            return;
        }
        let stream = &entry.job.stream;
        if let Some(queue) = self.streams.get_mut(stream) {
            queue.busy = false;
            if queue.entries.is_empty() {
                self.streams.remove(stream);
            } else {
                self.ready.push_back(stream.clone());
            }
        }
    }

    /// A job is over and may be added anew; if it was, it is due now.
    pub(super) fn forget(&mut self, entry: &Entry, now: Instant) {
        self.withdrawn.remove(&entry.job.id);
        match self.replays.remove(&entry.job.id) {
            Some(replay) => self.retry(replay, now),
            None => drop(self.known.remove(&entry.job.id)),
        }
    }

    /// From now on only first attempts start.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
    }

    /// From now on nothing starts.
    pub(super) fn halt(&mut self) {
        self.drain();
        self.ready.clear();
        self.streams.clear();
    }

    pub(super) fn depths(&self) -> Depths {
        let queues = || self.streams.values().map(|queue| &queue.entries);
        Depths {
            waiting: queues().map(VecDeque::len).sum(),
            running: self.running,
            retrying: self.waiting.len(),
            oldest: queues().filter_map(|entries| entries.front()).map(|(came, _)| *came).min(),
        }
    }

    /// Jobs that wait or run.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Nothing runs or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.ready.is_empty() && self.waiting.is_empty()
    }

    /// Nothing new is taken.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::HookRunning;
    use crate::hook::jobs::Job;
    use crate::hook::tests::job;
    use std::time::Duration;

    fn entry(stream: &str, first: bool) -> Entry {
        Entry { first, ..Entry::new(job(stream), 3) }
    }

    fn names(schedule: &mut Schedule, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| schedule.next(now)).map(|entry| entry.job.stream.to_string()).collect()
    }

    #[test]
    fn a_stream_runs_one_first_attempt_at_a_time_and_in_order() {
        let (mut schedule, now) = (Schedule::new(8), Instant::now());
        let jobs: Vec<_> = (0..3).map(|_| entry("a", true)).collect();
        let order: Vec<_> = jobs.iter().map(|entry| entry.job.id.clone()).collect();
        jobs.into_iter().for_each(|entry| schedule.add(entry, now));
        let mut ran = Vec::new();
        while let Some(entry) = schedule.next(now) {
            assert!(schedule.next(now).is_none(), "two of one stream at once");
            ran.push(entry.job.id.clone());
            schedule.ended(&entry);
            schedule.forget(&entry, now);
        }
        assert_eq!(ran, order);
        assert!(
            schedule.is_idle() && schedule.streams.is_empty() && schedule.known.is_empty(),
            "{schedule:?}"
        );
    }

    #[test]
    fn streams_take_turns() {
        let (mut schedule, now) = (Schedule::new(1), Instant::now());
        for stream in ["busy", "busy", "busy", "b", "c"] {
            schedule.add(entry(stream, true), now);
        }
        let mut ran = Vec::new();
        while let Some(entry) = schedule.next(now) {
            ran.push(entry.job.stream.to_string());
            schedule.ended(&entry);
        }
        assert_eq!(ran, ["busy", "b", "c", "busy", "busy"]);
    }

    #[test]
    fn retries_leave_half_of_the_slots_and_every_turn_to_first_attempts() {
        let (mut schedule, now) = (Schedule::new(4), Instant::now());
        (0..9).for_each(|_| schedule.add(entry("failing", false), now));
        assert_eq!(names(&mut schedule, now), ["failing"; 2]);
        assert_eq!(schedule.wake(), None, "a retry without a slot must not wake the queue");
        ["a", "b", "c"].iter().for_each(|stream| schedule.add(entry(stream, true), now));
        assert_eq!(names(&mut schedule, now), ["a", "b"]);
    }

    #[test]
    fn a_retry_waits_for_its_time_while_its_stream_goes_on() {
        let (mut schedule, now) = (Schedule::new(1), Instant::now());
        schedule.add(entry("a", true), now);
        schedule.add(entry("a", true), now);
        let failed = schedule.next(now).unwrap();
        let depths = Depths { waiting: 1, running: 1, retrying: 0, oldest: Some(now) };
        assert_eq!(schedule.depths(), depths);
        schedule.ended(&failed);
        let (due, id) = (now + Duration::from_secs(5), failed.job.id.clone());
        schedule.retry(failed, due);
        assert_eq!(schedule.depths(), Depths { running: 0, retrying: 1, ..depths });
        let second = schedule.next(now).unwrap();
        assert_ne!(second.job.id, id);
        schedule.ended(&second);
        assert!(schedule.next(now).is_none());
        assert_eq!(schedule.wake(), Some(due));
        assert_eq!(schedule.next(due).unwrap().job.id, id);
    }

    #[test]
    fn one_recording_is_in_the_queue_once_and_can_be_hurried() {
        let (mut schedule, now) = (Schedule::new(4), Instant::now());
        let queued = entry("a", true);
        let (job, id) = (Job::clone(&queued.job), queued.job.id.clone());
        let same = || Entry::new(job.clone(), 3);
        schedule.add(queued, now);
        schedule.add(same(), now);
        let running = schedule.next(now).unwrap();
        schedule.add(same(), now);
        schedule.retry_now(&id, now);
        assert!(schedule.next(now).is_none(), "the same recording ran twice at once");
        schedule.ended(&running);
        schedule.retry(Entry { n: 2, ..running }, now + Duration::from_secs(60));
        schedule.add(same(), now);
        assert!(schedule.next(now).is_none());
        schedule.retry_now(&id, now);
        let hurried = schedule.next(now).unwrap();
        assert_eq!((hurried.n, hurried.last), (2, 3));
        assert!(schedule.next(now).is_none());
    }

    #[test]
    fn one_that_is_withdrawn_runs_no_more_wherever_it_is() {
        let (mut schedule, now) = (Schedule::new(1), Instant::now());
        let ids: Vec<_> = ["running", "a", "b", "b"]
            .map(|stream| {
                let entry = entry(stream, true);
                let id = entry.job.id.clone();
                schedule.add(entry, now);
                id
            })
            .into();
        let retry = entry("retry", false);
        schedule.withdraw(&retry.job.id);
        let retry_id = retry.job.id.clone();
        schedule.add(retry, now);
        let running = schedule.next(now).unwrap();
        for id in [&ids[0], &ids[1], &ids[2], &retry_id] {
            schedule.withdraw(id);
        }
        schedule.ended(&running);
        schedule.retry(running, now);
        let left = schedule.next(now).unwrap();
        assert_eq!(left.job.id, ids[3]);
        schedule.ended(&left);
        schedule.forget(&left, now);
        assert!(
            schedule.is_idle() && schedule.streams.is_empty() && schedule.known.is_empty(),
            "{schedule:?}"
        );
        assert!(schedule.withdrawn.is_empty(), "{schedule:?}");
    }

    #[test]
    fn a_replay_that_overtakes_the_end_of_the_last_attempt_runs_after_it() {
        let (mut schedule, now) = (Schedule::new(4), Instant::now());
        let job = |attempts_so_far| Job { attempts_so_far, ..Job::clone(&entry("a", true).job) };
        let first = Entry::new(job(0), 3);
        let again = Entry::new(Job { id: first.job.id.clone(), replayed: true, ..job(1) }, 3);
        schedule.add(first, now);
        let running = schedule.next(now).unwrap();
        schedule.add(again, now);
        assert!(schedule.next(now).is_none(), "the same recording ran twice at once");
        schedule.ended(&running);
        schedule.forget(&running, now);
        let again = schedule.next(now).unwrap();
        assert_eq!((again.n, again.last, again.failures), (2, 4, 0));
        schedule.ended(&again);
        schedule.forget(&again, now);
        assert!(
            schedule.is_idle() && schedule.known.is_empty() && schedule.replays.is_empty(),
            "{schedule:?}"
        );
    }

    /// Number of the next attempt, of the last, failures so far, whether it is given up.
    fn after(failures: u32, interruptions: u32, died: bool) -> (u32, u32, u32, bool) {
        let attempts_so_far = failures + interruptions;
        let running = HookRunning::new(attempts_so_far + 1, jiff::Timestamp::now());
        let unfinished = died.then_some(running);
        let job = Job { attempts_so_far, failures, interruptions, unfinished, ..job("a") };
        let entry = Entry::new(job, 3);
        (entry.n, entry.last, entry.failures, entry.gives_up)
    }

    #[test]
    fn an_attempt_that_a_server_died_in_counts_like_any_other() {
        assert_eq!(after(0, 0, true), (2, 3, 1, false));
        assert_eq!(after(1, 0, true), (3, 3, 2, false));
        assert!(after(2, 0, true).3, "it was the last");
        assert!(after(7, 0, true).3, "max_attempts was larger once");
        let unfinished = Some(HookRunning::new(1, jiff::Timestamp::now()));
        assert!(
            Entry::new(Job { unfinished, ..job("a") }, 3).first,
            "it keeps its place in its stream's order"
        );
        let unfinished = Some(HookRunning::new(3, jiff::Timestamp::now()));
        let job = Job { attempts_so_far: 2, failures: 2, unfinished, replayed: true, ..job("a") };
        assert!(!Entry::new(job, 3).gives_up, "an operator who asks for it gets it");
    }

    #[test]
    fn an_attempt_that_an_orderly_stop_cut_off_uses_up_none_but_not_for_ever() {
        assert_eq!(after(0, 2, false), (3, 5, 0, false), "all three are left");
        assert_eq!(after(1, 3, false), (5, 6, 1, false), "numbers rise, two are left");
        assert_eq!(after(2, 2, true), (6, 6, 3, true));
        assert_eq!(after(0, 4, false), (5, 6, 0, false), "it may be the hook itself that stops the server");
        assert_eq!(after(0, 5, false), (6, 6, 0, false));
        assert!(after(0, 5, true).3);
    }

    #[test]
    fn draining_keeps_first_attempts_and_drops_retries() {
        let (mut schedule, now) = (Schedule::new(4), Instant::now());
        schedule.add(entry("retry", false), now);
        schedule.add(entry("first", true), now);
        schedule.drain();
        let first = schedule.next(now).unwrap();
        assert_eq!(first.job.stream.as_str(), "first");
        schedule.ended(&first);
        schedule.retry(first, now);
        assert!(schedule.is_idle(), "{schedule:?}");
    }
}
