//! What the attempts of a server that died left running: found in `/proc`, ended.
//!
//! A process counts as such a survivor if it was started with the recording's `ONRECORD_ID` and with the
//! number of an attempt that the manifest does not know to be over; or if it is in a process group that
//! is proven to be the attempt's: the noted one, if its leader still is the process that was noted
//! (process ids are given out again), or one in which such a process is and whose leader is no stranger.
//! Nothing else is signalled.
//!
//! The caller holds the folder's lock, which closes the gap of a script that the dying server had forked
//! but that had not begun to run yet. It still shows the server's own environment and nothing tells it
//! apart; but until it runs it also holds the server's open files, the lock among them, and the kernel
//! closes those in the same step that gives it its own environment. With the lock it can be seen.

use crate::base::id::RecordingId;
use crate::catalog::HookRunning;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, getpid, getuid, kill_process, kill_process_group};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks; nothing announces another process's end. The pause doubles up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(10);
/// The longest such pause: a look walks through `/proc`.
const LOOK_MAX: Duration = Duration::from_millis(200);
/// A process that is not seen twice, so far apart, is gone: a program that is just being loaded shows no
/// environment for some microseconds, a child that is just being forked may be passed by a look.
const AGAIN: Duration = Duration::from_millis(50);
/// One look may take so long; more only if the kernel is stuck with one of the processes.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How long they may take to vanish after KILL.
const KILL_TRAIL: Duration = Duration::from_secs(5);

/// What identifies the survivors of one recording's hook.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    pub(super) id: RecordingId,
    /// Attempts with this number and above are not over.
    pub(super) from: u32,
    /// What the manifest says of the one of them that ran.
    pub(super) noted: Option<HookRunning>,
}

/// TERM to all of them, KILL `kill_after` later; returns once they are gone, or with their ids if they
/// can't be ended. How many there were comes first.
pub(super) async fn end(traces: &Traces, kill_after: Duration) -> (usize, Vec<i32>) {
    let (mut proven, mut found) = (BTreeSet::new(), BTreeSet::new());
    let began = Instant::now();
    let (mut signalled, mut pause) = (None, LOOK);
    loop {
        let (seen, groups) = look_aside(traces, &proven).await;
        proven = groups;
        if seen.is_empty() {
            sleep(AGAIN).await;
            if look_aside(traces, &proven).await.0.is_empty() {
                return (found.len(), Vec::new());
            }
            continue;
        }
        found.extend(seen.iter().copied());
        let late = began.elapsed() >= kill_after;
        if began.elapsed() >= kill_after + KILL_TRAIL {
            return (found.len(), seen);
        }
        // KILL again and again: a child forked meanwhile is in the next look.
        if signalled.is_none() || late {
            let signal = if late { Signal::KILL } else { Signal::TERM };
            signalled = Some(signal);
            send(signal, &seen, &proven);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// The recordings that some process of this user runs for, with the highest attempt of each. Asked before anything is
/// started, it tells what a server left that could not write its manifests any more.
pub(super) async fn scan() -> HashMap<RecordingId, u32> {
    let scan = || {
        let mut found = HashMap::new();
        for (id, attempt) in processes().filter_map(|seen| seen.runs_for) {
            let highest = found.entry(id).or_insert(attempt);
            *highest = attempt.max(*highest);
        }
        found
    };
    // An error would mean that it panicked; the manifests still say what was running.
    tokio::task::spawn_blocking(scan).await.unwrap_or_default()
}

/// When a process began, in a form that no other process with its id ever has: clock ticks since the
/// start of the machine, and which start that was. `None` once it is gone, and without `/proc`.
pub(super) fn born(pid: i32) -> Option<String> {
    Stat::of(&Path::new("/proc").join(pid.to_string())).map(|stat| stat.born())
}

struct Stat {
    dead: bool,
    group: i32,
    start: String,
}

impl Stat {
    fn of(process: &Path) -> Option<Self> {
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        // `pid (name) state parent group … start …`; the name may hold anything, `)` too.
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let dead = matches!(fields.next()?, "Z" | "X");
        // Fields 5 and 22 of proc_pid_stat(5).
        let group = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(16)?.to_owned();
        Some(Self { dead, group, start })
    }

    fn born(&self) -> String {
        let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        format!("{}@{}", self.start, machine.trim())
    }
}

struct Seen {
    pid: i32,
    stat: Stat,
    /// The recording and the attempt in its environment.
    runs_for: Option<(RecordingId, u32)>,
}

/// All processes but this one. The environment is that of this user's only; others' can't be read.
fn processes() -> impl Iterator<Item = Seen> {
    let (own, user) = (getpid().as_raw_pid(), getuid().as_raw());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok().filter(|pid| *pid != own)?;
        let ours = entry.metadata().is_ok_and(|meta| meta.uid() == user);
        let environment = || std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let runs_for = if ours { marks(&environment()) } else { None };
        Some(Seen { pid, stat: Stat::of(&entry.path())?, runs_for })
    })
}

/// `ONRECORD_ID` and `ONRECORD_ATTEMPT` of an environment.
fn marks(environment: &[u8]) -> Option<(RecordingId, u32)> {
    let value = |name: &str| {
        let mut entries = environment.split(|byte| *byte == 0);
        std::str::from_utf8(entries.find_map(|entry| entry.strip_prefix(name.as_bytes()))?).ok()
    };
    Some((value("ONRECORD_ID=")?.parse().ok()?, value("ONRECORD_ATTEMPT=")?.parse().ok()?))
}

/// [`look`], on a thread that may wait: a process's environment is read from its memory.
async fn look_aside(traces: &Traces, proven: &BTreeSet<i32>) -> (Vec<i32>, BTreeSet<i32>) {
    let (traces, proven) = (traces.clone(), proven.clone());
    let look = tokio::task::spawn_blocking(move || look(&traces, &proven, &processes().collect::<Vec<_>>()));
    match timeout(LOOK_LIMIT, look).await {
        Ok(Ok(seen)) => seen,
        // Unknown is not gone: process 0 stands for one that can't be signalled.
        _ => (vec![0], BTreeSet::new()),
    }
}

/// The survivors, and the groups proven to be the attempt's. A group that was proven stays so while it
/// has members, since its id can't be given out again.
fn look(traces: &Traces, proven: &BTreeSet<i32>, all: &[Seen]) -> (Vec<i32>, BTreeSet<i32>) {
    let marked = |seen: &Seen| {
        seen.runs_for.as_ref().is_some_and(|(id, attempt)| *id == traces.id && *attempt >= traces.from)
    };
    let noted = |seen: &Seen| {
        traces.noted.as_ref().is_some_and(|noted| {
            noted.process_group == Some(seen.pid)
                && noted.process_born.as_deref().is_some_and(|born| born == seen.stat.born())
        })
    };
    let own = getpgrp().as_raw_pid();
    let is_proven = |group: i32| {
        let leader = all.iter().find(|seen| seen.pid == group);
        group > 1
            && group != own
            && (leader.is_some_and(&noted)
                || all.iter().any(|seen| seen.stat.group == group && !seen.stat.dead && marked(seen))
                    && leader.is_none_or(|leader| leader.stat.dead || marked(leader))
                || proven.contains(&group))
    };
    let groups: BTreeSet<_> = all.iter().map(|seen| seen.stat.group).collect();
    let groups: BTreeSet<_> = groups.into_iter().filter(|group| is_proven(*group)).collect();
    let survives = |seen: &&Seen| !seen.stat.dead && (marked(seen) || groups.contains(&seen.stat.group));
    (all.iter().filter(survives).map(|seen| seen.pid).collect(), groups)
}

fn send(signal: Signal, seen: &[i32], groups: &BTreeSet<i32>) {
    let tell = |id: i32, sent: rustix::io::Result<()>| match sent {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => tracing::warn!(process = id, %error, "what a hook left running can't be signalled"),
    };
    for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
        tell(group.as_raw_pid(), kill_process_group(group, signal));
    }
    // Those that went into a group of their own, too. Twice the same signal does no harm.
    for process in seen.iter().filter_map(|process| Pid::from_raw(*process)) {
        tell(process.as_raw_pid(), kill_process(process, signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    /// What it is about, the noted process and its start, all there are, those that survive.
    type Case = (&'static str, Option<(i32, u64)>, Vec<Seen>, Vec<i32>);

    const ID: &str = "01k0x700000000000000000000";

    fn seen(pid: i32, group: i32, start: u64, runs_for: Option<(&str, u32)>) -> Seen {
        let runs_for = runs_for.map(|(id, attempt)| (id.parse().unwrap(), attempt));
        Seen { pid, stat: Stat { dead: false, group, start: start.to_string() }, runs_for }
    }

    fn dead(seen: Seen) -> Seen {
        Seen { stat: Stat { dead: true, ..seen.stat }, runs_for: None, ..seen }
    }

    fn found(noted: Option<(i32, u64)>, all: &[Seen]) -> Vec<i32> {
        let noted = noted.map(|(group, start)| {
            let stat = Stat { dead: false, group, start: start.to_string() };
            HookRunning {
                process_group: Some(group),
                process_born: Some(stat.born()),
                ..HookRunning::new(2, Timestamp::now())
            }
        });
        look(&Traces { id: ID.parse().unwrap(), from: 2, noted }, &BTreeSet::new(), all).0
    }

    #[test]
    fn survivors_are_known_by_their_environment_or_by_the_noted_leader_and_no_others_are() {
        let other = "01k0x7zzzzzzzzzzzzzzzzzzzz";
        let script = || seen(100_000, 100_000, 7, Some((ID, 2)));
        let bare = || seen(100_001, 100_000, 8, None);
        let stranger = || seen(100_000, 100_000, 9, None);
        let none = Vec::<i32>::new();
        let cases: [Case; 11] = [
            (
                "the script and a child without environment",
                None,
                vec![script(), bare()],
                vec![100_000, 100_001],
            ),
            ("a later attempt than is known", None, vec![seen(5, 5, 1, Some((ID, 3)))], vec![5]),
            ("a daemon of an attempt that is over", None, vec![seen(5, 5, 1, Some((ID, 1)))], none.clone()),
            ("another recording's", None, vec![seen(5, 5, 1, Some((other, 2)))], none.clone()),
            (
                "only a child is left",
                None,
                vec![seen(5, 100_000, 1, Some((ID, 2))), bare()],
                vec![5, 100_001],
            ),
            ("the noted leader", Some((100_000, 9)), vec![stranger(), bare()], vec![100_000, 100_001]),
            ("its id given out again", Some((100_000, 7)), vec![stranger(), bare()], none.clone()),
            ("a zombie leads", Some((100_000, 9)), vec![dead(stranger()), bare()], vec![100_001]),
            ("another's zombie leads", Some((100_000, 7)), vec![dead(stranger()), bare()], none.clone()),
            (
                "in a stranger's group",
                None,
                vec![stranger(), bare(), seen(5, 100_000, 1, Some((ID, 2)))],
                vec![5],
            ),
            ("a leader that can't be proven", Some((100_000, 7)), vec![bare()], none),
        ];
        for (what, noted, all, expected) in cases {
            assert_eq!(found(noted, &all), expected, "{what}");
        }
    }

    #[test]
    fn a_group_stays_proven_while_it_has_members() {
        let traces = Traces { id: ID.parse().unwrap(), from: 1, noted: None };
        let all = [seen(100_000, 100_000, 7, Some((ID, 1))), seen(100_001, 100_000, 8, None)];
        let (_, proven) = look(&traces, &BTreeSet::new(), &all);
        let (left, proven) = look(&traces, &proven, &all[1..]);
        assert_eq!((left, proven.len()), (vec![100_001], 1));
        assert!(look(&traces, &proven, &[]).1.is_empty());
    }

    #[test]
    fn a_process_is_born_once() {
        let own = getpid().as_raw_pid();
        let born = born(own).unwrap();
        let (ticks, machine) = born.split_once('@').unwrap();
        assert!(ticks.parse::<u64>().unwrap() > 0 && machine.len() == 36, "{born}");
        assert_eq!(super::born(own), Some(born));
        assert_eq!(super::born(-1), None);
    }
}
