//! Runs the operator's script for every sealed recording.
//!
//! [`Queue`] holds jobs in memory and gives each its attempts, [`Update`] by [`Update`]; whoever owns
//! the manifests writes those down, so that a job outlives the process. `schedule` decides who runs
//! next (pure, time is an argument), `attempt` takes one attempt through its steps, `process` runs it,
//! `output` keeps what it printed, `orphans` ends what a server that died left running.
//!
//! Rules: first attempts keep their order per stream; a retry holds nobody up; one recording's
//! script never runs twice at the same time, also when the server died while it ran.

mod attempt;
mod orphans;
mod output;
mod process;
mod queue;
mod schedule;
mod script;
#[cfg(test)]
mod tests;

pub use attempt::run_once;
pub use queue::{Queue, QueueFull, Slot};
pub use script::Script;

use crate::base::id::{RecordingId, StreamName};
use crate::base::units;
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// Section `hooks` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The script; empty for none. A relative path begins at the configuration file's folder.
    pub on_record: String,
    /// After this long an attempt is ended (TERM, then KILL, to its process group).
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// What is left of the process group this long after TERM gets KILL.
    #[serde(deserialize_with = "units::duration")]
    pub kill_after: Duration,
    /// Attempts before a job is kept as `failed`.
    pub max_attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one.
    #[serde(deserialize_with = "units::duration")]
    pub backoff: Duration,
    /// Scripts that may run at the same time.
    pub concurrency: usize,
    /// What a script reads on its standard input.
    pub stdin: Stdin,
}

/// A script's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// Nothing: ffmpeg and others take what stands there for commands.
    #[default]
    None,
    /// The recording's manifest.
    Manifest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            on_record: "../hooks/on_record_hook.sh".to_owned(),
            timeout: Duration::from_secs(600),
            kill_after: Duration::from_secs(5),
            max_attempts: 10,
            backoff: Duration::from_secs(5),
            concurrency: 8,
            stdin: Stdin::None,
        }
    }
}

/// One sealed recording whose hook is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
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
    /// `ONRECORD_END_REASON`, the manifest's word.
    pub end_reason: String,
    /// Attempts the manifest knows of; the next one is this plus one.
    pub attempts_so_far: u32,
    /// Those of them that count: they failed, or a server died in them, since the job was last begun anew.
    pub failures: u32,
    /// Those that a server cut off which was told to stop, since the same moment.
    pub interruptions: u32,
    /// An attempt that a server died in; its survivors are ended before the next one.
    pub unfinished: Option<Running>,
    /// `ONRECORD_MANIFEST`: absolute. Standard input, if that is to be the manifest.
    pub manifest: PathBuf,
}

/// An attempt that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub n: u32,
    /// When it began.
    pub at: Timestamp,
    /// The script; `None` until it is started.
    pub process: Option<Process>,
}

/// The script's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, which is that of its process group.
    pub group: i32,
    /// When it began, as only it did: its id may be given out again.
    pub born: Option<String>,
}

/// The recordings that scripts of this user run for now, with the highest attempt of each. Asked before
/// anything is started, it tells what a server left that could not write its manifests any more.
/// Blocking, a walk through `/proc`.
pub fn scan() -> HashMap<RecordingId, u32> {
    orphans::scan()
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It will run (again).
    Queued,
    /// An attempt runs.
    Running,
    /// It exited with 0.
    Done,
    /// Its attempts are used up.
    Failed,
}

/// One attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `ONRECORD_ATTEMPT`, counted from 1.
    pub n: u32,
    /// When it began.
    pub at: Timestamp,
    /// The exit code; `None` if it could not start or was killed.
    pub exit: Option<i32>,
    /// Why there is no exit code, and what to do.
    pub error: Option<String>,
    /// A server that was told to stop cut it off.
    pub interrupted: bool,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The last 4 KiB of its output.
    pub tail: String,
}

/// What changed about a job; to be written into its manifest, in the order received.
#[derive(Debug)]
pub struct Update {
    /// Which recording.
    pub id: RecordingId,
    /// Where its hook stands now.
    pub state: State,
    /// The attempt that has just ended; `None` with [`State::Running`].
    pub attempt: Option<Attempt>,
    /// With [`State::Running`]: the attempt, so that the next start can end a survivor of a crash before
    /// it tries again.
    pub running: Option<Running>,
    /// To be told when it is written durably. Dropped, it says that it could not be.
    pub written: Written,
}

/// Tells whoever waits for it that an update is durable.
#[derive(Debug)]
pub struct Written(oneshot::Sender<()>);

impl Written {
    /// It is.
    pub fn done(self) {
        // Nobody waits for most updates.
        let _ = self.0.send(());
    }
}
