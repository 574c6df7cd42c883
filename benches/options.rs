//! What the command line says.

use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What the server is told beside its defaults: all publishers come from one address.
pub const SETTINGS: [&str; 3] =
    ["hooks.on_record=/bin/true", "log.level=warn", "limits.max_streams_per_address=500"];

/// What a recorded stream costs the server, beside loops that only receive.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "ingest", rename_all = "kebab-case")]
pub struct Options {
    /// How many publish at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50, 200])]
    pub streams: Vec<usize>,
    /// Of the pictures, in kbit/s
    #[arg(long, value_delimiter = ',', default_values_t = [600, 1500])]
    pub bitrate: Vec<u32>,
    /// Of the window in which all of them run
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Count system calls (and instructions) too, in a run more of each, if `perf stat` can do so here
    #[arg(long)]
    pub syscalls: bool,
    /// Measure how long pictures take to a viewer too, in a run more of the server
    #[arg(long)]
    pub latency: bool,
    /// Only these
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Subject>,
    /// How many ms a bare loop sleeps before it looks at its socket again, while something comes; by itself it
    /// is woken by what comes
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub rest: u64,
    /// Another build of the server, which takes turns with the rest
    #[arg(long, value_name = "PROGRAM")]
    pub other: Option<PathBuf>,
    /// A setting of the server
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A setting of that other build
    #[arg(long, value_name = "KEY=VALUE")]
    pub other_set: Vec<String>,
    /// Where all figures go, each round's too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Be the other side: what the bench starts itself with
    #[arg(long, value_enum, hide = true)]
    pub serve: Option<Subject>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The server, which records
    Server,
    /// Another build of it (`--other`)
    Other,
    /// A bare loop of `rtc` sessions
    Rtc,
    /// A bare loop of `str0m` sessions
    Str0m,
}

impl Subject {
    pub const ALL: [Self; 4] = [Self::Server, Self::Other, Self::Rtc, Self::Str0m];

    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Other => "other",
            Self::Rtc => "rtc",
            Self::Str0m => "str0m",
        }
    }
}

impl Options {
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub fn subjects(&self) -> Vec<Subject> {
        let wanted = |subject: &Subject| match subject {
            Subject::Other => self.other.is_some(),
            _ => self.only.is_empty() || self.only.contains(subject),
        };
        Subject::ALL.into_iter().filter(wanted).collect()
    }
}
