//! What only `perf stat` (Debian: linux-perf) can count, if it can here: system calls want tracefs and rights,
//! instructions a processor that counts them, which many virtual machines' don't.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::process::{Child, Command, Stdio};

const SYSTEM_CALLS: &str = "raw_syscalls:sys_enter";
const INSTRUCTIONS: &str = "instructions:u";

/// Counts for a process that runs.
pub struct Perf {
    child: Child,
}

/// None where it can't be counted here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub system_calls: Option<u64>,
    /// Of the process itself, without the kernel's.
    pub instructions: Option<u64>,
}

impl Perf {
    /// Begins to count; nothing if there is no `perf`.
    pub fn start(pid: u32) -> Option<Self> {
        let events = format!("{SYSTEM_CALLS},{INSTRUCTIONS}");
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", &events, "-p", &pid.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        child.ok().map(|child| Self { child })
    }

    pub fn finish(mut self) -> Counts {
        // It may have ended by itself, because of an event that isn't there.
        let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT);
        let mut report = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut report).unwrap();
        self.child.wait().unwrap();
        // A line an event: its count, a unit, its name, and more.
        let count = |event: &str| {
            let lines = report.lines().map(|line| line.split(',').collect::<Vec<_>>());
            let mut own = lines.filter(|fields| fields.get(2) == Some(&event));
            own.next()?[0].parse().ok()
        };
        Counts { system_calls: count(SYSTEM_CALLS), instructions: count(INSTRUCTIONS) }
    }
}
