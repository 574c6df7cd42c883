//! Runs the operator's script for every sealed recording.
//!
//! [`Hooks`] is all of it. `jobs` is a job and what is asked of a queue of them, `queue` the one in memory, in the order that `schedule` decides (pure, time is an argument); `worker` claims them, `attempt` takes one attempt
//! through its steps, which `notes` writes into the manifest; `process` runs the script, `output` keeps what it
//! printed, `orphans` ends what a server that died left running.
//!
//! Rules: a job is `queued` in its manifest before it is announced, and every step is written there before the next
//! (S5). First attempts keep their order per stream; a retry holds up no other; one recording's script never runs
//! twice at the same time, also when the server died while it ran.

mod attempt;
#[cfg(test)]
mod contract;
mod hooks;
mod jobs;
mod notes;
mod orphans;
mod output;
mod process;
mod queue;
mod schedule;
mod script;
#[cfg(test)]
mod tests;
mod worker;

pub use attempt::{Once, run_once};
pub use hooks::{Hooks, ReplayError};
pub use script::Script;

use crate::base::units;
use serde::Deserialize;
use std::time::Duration;

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
