//! Retention: which recordings may go, and why.
//!
//! A recording that is being written never goes, nor one whose hook has not succeeded: it may be the only
//! copy there is. What goes is the oldest first, its manifest stays and says `deleted`.
//!
//! Ages are the wall clock's word, which may be wrong: a machine without a battery begins in 1970, a time
//! server moves it by years. So an age counts from the latest time that there is of a recording, and once
//! the clock was seen to move by itself nothing goes by age any more. A clock that ran ahead unseen
//! is known by the last time that there is a trace of in the folder: then ages wait until the clock has gone
//! steadily for hours, or an operator vouches for it.

use crate::base::stream_pattern::Pattern;
use crate::base::units;
use crate::catalog::RecordingError;
use crate::catalog::folder::manifests;
use crate::catalog::manifest::{HookState, Manifest, RecordingState};
use crate::record::Recordings;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How often a server looks: what comes in meanwhile is little beside any disk.
const EVERY: Duration = Duration::from_secs(60);
/// The wall clock was moved if it gained or lost more than this between two looks. Time servers correct
/// less than that a little at a time, and no rule by age is about minutes.
const MOVED: SignedDuration = SignedDuration::from_mins(5);
/// Further ahead of the last trace of time in the folder than this, a clock is doubted. A server that runs leaves
/// one each minute.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// So long a doubted clock has to go steadily: a time server that is there corrects it sooner, and a machine that
/// is on for a working day has it.
const STEADY: SignedDuration = SignedDuration::from_hours(4);
/// The hidden file whose modification is that trace.
const SEEN: &str = ".clock";
/// A clock that showed less (the beginning of 2024) had not been set: the age of that is unknown.
const NOT_SET: Timestamp = Timestamp::constant(1_704_067_200, 0);

/// Section `retention` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// An older recording is removed; 0 keeps all.
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
    /// While all recordings together are larger, the oldest is removed; 0 is no limit.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Whether one may go whose hook has failed for good, or that is in quarantine.
    pub unhooked: bool,
    /// What holds for streams of some names in place of `max_age`, and on top of `max_bytes`; the first
    /// that fits.
    pub streams: Vec<Rule>,
}

/// What holds for the streams of some names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whose recordings.
    pub name: Pattern,
    /// An older one is removed; 0 keeps all.
    #[serde(default, deserialize_with = "units::duration")]
    pub max_age: Duration,
    /// While those together are larger, the oldest is removed; 0 is no limit.
    #[serde(default, deserialize_with = "units::size")]
    pub max_bytes: u64,
}

impl Retention {
    /// Whether anything is ever removed.
    pub fn removes(&self) -> bool {
        let rule = |rule: &Rule| !rule.max_age.is_zero() || rule.max_bytes > 0;
        !self.max_age.is_zero() || self.max_bytes > 0 || self.streams.iter().any(rule)
    }

    /// Whether anything is ever removed by its age.
    fn counts_ages(&self) -> bool {
        !self.max_age.is_zero() || self.streams.iter().any(|rule| !rule.max_age.is_zero())
    }

    /// These rules without those by age.
    pub fn by_size_alone(&self) -> Self {
        let rule = |rule: &Rule| Rule { max_age: Duration::ZERO, ..rule.clone() };
        let streams = self.streams.iter().map(rule).collect();
        Self { max_age: Duration::ZERO, streams, ..self.clone() }
    }

    fn may_go(&self, manifest: &Manifest) -> bool {
        match (manifest.state, manifest.hook.state) {
            (RecordingState::Sealed, HookState::None | HookState::Done) => true,
            (RecordingState::Sealed, HookState::Failed) | (RecordingState::Quarantined, _) => self.unhooked,
            _ => false,
        }
    }

    /// What is to go at `now`, oldest first. `all` is in the order of age.
    fn due<'a>(&self, all: &'a [Manifest], now: Timestamp) -> Vec<(&'a Manifest, Why)> {
        let rule =
            |manifest: &Manifest| self.streams.iter().position(|rule| rule.name.matches(&manifest.stream));
        let mut due = Vec::new();
        let mut going = BTreeSet::new();
        for manifest in all.iter().filter(|manifest| self.may_go(manifest)) {
            let max_age = rule(manifest).map_or(self.max_age, |rule| self.streams[rule].max_age);
            let age = age(manifest, now);
            if !max_age.is_zero() && age > max_age {
                going.insert(&manifest.id);
                due.push((manifest, Why::Age { age, max_age }));
            }
        }
        let rules = self.streams.iter().enumerate().map(|(rule, found)| (Some(rule), found.max_bytes));
        for (group, max_bytes) in
            rules.chain([(None, self.max_bytes)]).filter(|(_, max_bytes)| *max_bytes > 0)
        {
            let held = |manifest: &&Manifest| {
                manifest.file_present
                    && !going.contains(&manifest.id)
                    && group.is_none_or(|group| rule(manifest) == Some(group))
            };
            let held: Vec<_> = all.iter().filter(held).collect();
            let mut bytes: u64 = held.iter().map(|manifest| manifest.bytes).sum();
            for manifest in held.into_iter().filter(|manifest| self.may_go(manifest)) {
                if bytes <= max_bytes {
                    break;
                }
                going.insert(&manifest.id);
                due.push((manifest, Why::Bytes { bytes, max_bytes }));
                bytes -= manifest.bytes;
            }
        }
        due
    }
}

/// How long ago it ended, or began by its id, which is never earlier than those before it; zero if that is
/// unknown. An id that is ahead of the clock is left from a time when the clock was.
fn age(manifest: &Manifest, now: Timestamp) -> Duration {
    let ended = manifest.ended_at.unwrap_or(manifest.started_at);
    let began = manifest.id.time().filter(|began| *began <= now);
    let ended = began.map_or(ended, |began| ended.max(began));
    if ended < NOT_SET {
        return Duration::ZERO;
    }
    Duration::try_from(now.duration_since(ended).max(SignedDuration::ZERO)).unwrap_or_default()
}

/// The wall clock beside one that is never set.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    wall: Timestamp,
    /// Since the machine was started, its sleep included.
    machine: SignedDuration,
}

impl Clocks {
    fn read() -> Self {
        let machine = clock_gettime(ClockId::Boottime);
        Self {
            wall: Timestamp::now(),
            machine: SignedDuration::from_secs(machine.tv_sec) + SignedDuration::from_nanos(machine.tv_nsec),
        }
    }

    /// By how much the wall clock was moved since, if it was.
    fn moved_since(&self, before: &Self) -> Option<SignedDuration> {
        let moved = self.wall.duration_since(before.wall) - (self.machine - before.machine);
        (moved.abs() > MOVED).then_some(moved)
    }
}

/// Why ages can't be believed now, and what to do about it; `None` if they can. Blocking.
pub fn doubt(dir: &Path) -> io::Result<Option<String>> {
    let known = fs::metadata(dir.join(SEEN)).and_then(|meta| meta.modified()).ok();
    let seen = match known.and_then(|at| Timestamp::try_from(at).ok()) {
        Some(seen) => Some(seen),
        None => manifests(dir)?.iter().map(newest).max(),
    };
    let ahead = seen.map(|seen| Timestamp::now().duration_since(seen)).filter(|ahead| *ahead > AHEAD);
    Ok(ahead.map(|ahead| {
        format!(
            "the wall clock is {} h ahead of the last time that record.dir has a trace of: nothing is removed by \
             retention.max_age until it has gone steadily for {} h. See that it is right (timedatectl), then \
             `touch {}` to go on at once",
            ahead.as_hours(),
            STEADY.as_hours(),
            dir.join(SEEN).display()
        )
    }))
}

/// The latest time that a recording tells.
fn newest(manifest: &Manifest) -> Timestamp {
    let ended = manifest.ended_at.unwrap_or(manifest.started_at);
    manifest.id.time().map_or(ended, |began| ended.max(began))
}

/// Leaves a trace of the time. Blocking. Without one the clock is doubted once too often.
fn trace(dir: &Path) {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(SEEN));
    if let Err(error) = file.and_then(|file| file.set_modified(SystemTime::now())) {
        tracing::debug!(%error, "no trace of the time is left");
    }
}

/// Whether ages count.
#[derive(Clone, Copy, Debug)]
enum Ages {
    Count,
    /// The clock is doubted since then.
    Wait(Clocks),
    /// It was moved.
    Never,
}

impl Ages {
    /// What holds from now on.
    fn look(self, dir: &Path, now: Clocks) -> Self {
        match self {
            Self::Count => return self,
            Self::Wait(since) if now.machine - since.machine < STEADY => match doubt(dir) {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return self,
            },
            Self::Wait(_) => {}
            Self::Never => return self,
        }
        tracing::info!("the wall clock is believed again: recordings are removed by their age");
        Self::Count
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Age { age: Duration, max_age: Duration },
    Bytes { bytes: u64, max_bytes: u64 },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age { age, max_age } => {
                write!(f, "it ended {} h ago, kept are {} h", age.as_secs() / 3600, max_age.as_secs() / 3600)
            }
            Self::Bytes { bytes, max_bytes } => {
                write!(f, "{} MiB are held, kept are {} MiB", bytes >> 20, max_bytes >> 20)
            }
        }
    }
}

/// One recording that retention would remove, or has.
#[derive(Clone, Debug)]
pub struct Removal {
    /// What the recording was when that was decided.
    pub manifest: Manifest,
    /// Why, in words.
    pub why: String,
}

impl Removal {
    fn new((manifest, why): (&Manifest, Why)) -> Self {
        Self { manifest: manifest.clone(), why: why.to_string() }
    }
}

/// What would be removed from a folder now. Changes nothing, so it may run beside a server. Blocking.
pub fn would_remove(dir: &Path, retention: &Retention) -> io::Result<Vec<Removal>> {
    let mut manifests: Vec<_> =
        manifests(dir)?.into_iter().filter(|manifest| manifest.state != RecordingState::Deleted).collect();
    manifests.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(retention.due(&manifests, Timestamp::now()).into_iter().map(Removal::new).collect())
}

impl Recordings {
    /// Keeps to these rules from now on, beside everything else.
    pub fn keep_to(&self, retention: Retention) {
        if !retention.removes() {
            return;
        }
        let (recordings, stop) = (self.clone(), self.shared.tasks.stop_token());
        let sizes = retention.by_size_alone();
        let mut before = Clocks::read();
        self.shared.tasks.spawn("retention", async move {
            let mut ages = recordings.ages_at_start().await;
            loop {
                let now = Clocks::read();
                if let Some(moved) = now.moved_since(&before) {
                    tracing::error!(
                        seconds = moved.as_secs(),
                        "the wall clock was moved: until the server is started again, nothing is removed by \
                         retention.max_age. See that the clock is right (timedatectl), then restart"
                    );
                    ages = Ages::Never;
                }
                before = now;
                ages = recordings.look_at_ages(ages, now).await;
                let rules = if matches!(ages, Ages::Count) { &retention } else { &sizes };
                recordings.remove(rules, now.wall).await;
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }

    async fn ages_at_start(&self) -> Ages {
        let dir = self.shared.config.dir.clone();
        match self.shared.disk.write(move || doubt(&dir)).await {
            Ok(Ok(None)) => Ages::Count,
            Ok(Ok(Some(doubt))) => {
                tracing::error!("{doubt}");
                Ages::Wait(Clocks::read())
            }
            Ok(Err(_)) | Err(_) => Ages::Wait(Clocks::read()),
        }
    }

    /// What holds from now on; leaves a trace of a time that is believed.
    async fn look_at_ages(&self, ages: Ages, now: Clocks) -> Ages {
        let dir = self.shared.config.dir.clone();
        let look = move || {
            let ages = ages.look(&dir, now);
            if matches!(ages, Ages::Count) {
                trace(&dir);
            }
            ages
        };
        self.shared.disk.write(look).await.unwrap_or(ages)
    }

    /// Removes what is due now, and says so in the log; returns what went. A clock whose ages are to be believed
    /// leaves its trace.
    pub async fn remove_due(&self, retention: &Retention) -> Vec<Removal> {
        if retention.counts_ages() {
            self.look_at_ages(Ages::Count, Clocks::read()).await;
        }
        self.remove(retention, Timestamp::now()).await
    }

    async fn remove(&self, retention: &Retention, now: Timestamp) -> Vec<Removal> {
        let recordings = self.clone();
        // Looking whether thousands of files are still there is no work for a thread of the network.
        let listed = self.shared.disk.write(move || recordings.list()).await;
        let mut manifests = listed.unwrap_or_default();
        manifests.reverse();
        let mut removed = Vec::new();
        for due in retention.due(&manifests, now) {
            let removal = Removal::new(due);
            // Its hook may have been told to run again since.
            let still = |manifest: &Manifest| retention.may_go(manifest);
            let Manifest { id, stream, file, bytes, .. } = &removal.manifest;
            match self.shared.catalog.delete(id, still).await {
                Ok(_) => {
                    tracing::info!(%id, %stream, file, bytes, why = removal.why, "removed by retention");
                    removed.push(removal);
                }
                Err(RecordingError::Busy(_) | RecordingError::NotFound(_)) => {}
                Err(error) => tracing::error!(%id, file, %error, "retention can't remove a recording"),
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::manifest::HookRecord;
    use crate::catalog::names;

    const HOUR: i64 = 3_600_000;
    /// A time that a clock can show.
    const BEGIN: i64 = 500_000 * HOUR;
    const MIB: u64 = 1 << 20;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millisecond(BEGIN + hour * HOUR).unwrap()
    }

    /// One that ended at this hour.
    fn ended(hour: i64, stream: &str, hook: HookState) -> Manifest {
        let started_at = at(hour) - SignedDuration::from_secs(1);
        let id = crate::base::id::RecordingId::new(started_at);
        let stream = stream.parse().unwrap();
        Manifest {
            file: format!("{}.webm", names::stem(&stream, started_at, &id)),
            id,
            stream,
            mime: "video/webm".to_owned(),
            state: RecordingState::Sealed,
            started_at,
            ended_at: Some(at(hour)),
            bytes: 10 * MIB,
            duration_ms: 1000,
            file_present: true,
            continues: None,
            tracks: Vec::new(),
            gaps: Vec::new(),
            end_reason: None,
            reason: None,
            error: None,
            hook: HookRecord::new(hook),
        }
    }

    fn rule(name: &str, hours: u64, mib: u64) -> Rule {
        let max_age = Duration::from_secs(hours * 3600);
        Rule { name: name.parse().unwrap(), max_age, max_bytes: mib * MIB }
    }

    /// The hours of those that go, at hour 100.
    fn goes(retention: &Retention, all: &[Manifest]) -> Vec<i64> {
        let hour = |manifest: &Manifest| (manifest.ended_at.unwrap().as_millisecond() - BEGIN) / HOUR;
        retention.due(all, at(100)).into_iter().map(|(manifest, _)| hour(manifest)).collect()
    }

    #[test]
    fn the_oldest_go_by_age_and_by_size_and_rules_of_streams_go_before() {
        let done = HookState::Done;
        let all =
            [ended(10, "a-1", done), ended(20, "b-1", done), ended(70, "a-2", done), ended(90, "b-2", done)];
        let with = |hours: u64, mib, streams: &[Rule]| Retention {
            max_age: Duration::from_secs(hours * 3600),
            max_bytes: mib * MIB,
            unhooked: false,
            streams: streams.to_vec(),
        };
        let table: [(Retention, &[i64]); 10] = [
            (with(0, 0, &[]), &[]),
            (with(80, 0, &[]), &[10]),
            (with(79, 0, &[]), &[10, 20]),
            (with(0, 40, &[]), &[]),
            (with(0, 39, &[]), &[10]),
            (with(80, 20, &[]), &[10, 20]),
            (with(20, 0, &[rule("a-*", 0, 0)]), &[20]),
            (with(0, 0, &[rule("b-*", 50, 0)]), &[20]),
            (with(0, 0, &[rule("b-*", 0, 10)]), &[20]),
            (with(0, 25, &[rule("a-*", 0, 10), rule("*", 1, 0)]), &[20, 90, 10]),
        ];
        for (retention, expected) in table {
            assert_eq!(goes(&retention, &all), expected, "{retention:?}");
        }
    }

    #[test]
    fn what_is_written_or_has_a_hook_before_it_stays() {
        let states =
            [HookState::Queued, HookState::Running, HookState::Failed, HookState::Done, HookState::None];
        let mut all: Vec<_> = (1..).zip(states).map(|(hour, hook)| ended(hour, "s", hook)).collect();
        let mut open = ended(6, "s", HookState::None);
        open.state = RecordingState::Recording;
        let mut broken = ended(7, "s", HookState::None);
        broken.state = RecordingState::Quarantined;
        all.extend([open, broken]);
        let mut retention = Retention { max_age: Duration::from_secs(1), ..Default::default() };
        assert_eq!(goes(&retention, &all), [4, 5]);
        retention.unhooked = true;
        assert_eq!(goes(&retention, &all), [3, 4, 5, 7], "told to");
        // What may not go is counted, and the others pay for it.
        retention = Retention { max_bytes: 51 * MIB, ..Default::default() };
        assert_eq!(goes(&retention, &all), [4, 5]);
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing() {
        let retention = Retention { max_age: Duration::from_secs(1), ..Default::default() };
        assert!(goes(&retention, &[ended(200, "s", HookState::Done)]).is_empty());
    }

    #[test]
    fn a_recording_of_a_time_when_the_clock_was_wrong_is_no_older_than_its_id() {
        let begun = |id_hour: i64, ended_at: Timestamp| {
            let id = crate::base::id::RecordingId::new(at(id_hour));
            Manifest { id, started_at: ended_at, ended_at: Some(ended_at), ..ended(0, "s", HookState::Done) }
        };
        let epoch = Timestamp::UNIX_EPOCH;
        let first_ever = Manifest { id: crate::base::id::RecordingId::new(epoch), ..begun(0, epoch) };
        for (what, manifest, hours) in [
            ("the clock was right", begun(40, at(41)), 59),
            ("it began in 1970, behind another recording", begun(95, epoch), 5),
            ("it began in 1970, and it was the first", first_ever, 0),
            ("it was ahead when its predecessor began", begun(9_000, at(70)), 30),
            ("it was ahead", begun(9_000, at(9_000)), 0),
        ] {
            assert_eq!(age(&manifest, at(100)).as_secs() / 3600, hours, "{what}");
        }
    }

    #[test]
    fn once_the_clock_was_moved_the_rules_by_size_are_left() {
        let clocks = |hours, minutes| Clocks {
            wall: at(hours),
            machine: SignedDuration::from_hours(1000) + SignedDuration::from_mins(minutes),
        };
        let moved = |now: Clocks| now.moved_since(&clocks(0, 0)).map(|moved| moved.as_mins());
        assert_eq!(moved(clocks(1, 60)), None);
        assert_eq!(moved(clocks(8, 8 * 60 - 4)), None, "it was only corrected");
        assert_eq!(moved(clocks(500_000, 1)), Some(500_000 * 60 - 1), "from 1970");
        assert_eq!(moved(clocks(-3, 1)), Some(-181));
        let (before, now) = (Clocks::read(), Clocks::read());
        assert!(now.moved_since(&before).is_none() && now.machine >= before.machine, "{before:?} {now:?}");

        let all = [ended(10, "a", HookState::Done), ended(20, "b", HookState::Done)];
        let max_age = Duration::from_secs(1);
        let rules =
            Retention { max_age, max_bytes: 15 * MIB, streams: vec![rule("b", 1, 0)], unhooked: true };
        assert_eq!(goes(&rules, &all), [10, 20]);
        assert_eq!(goes(&rules.by_size_alone(), &all), [10]);
    }
}
