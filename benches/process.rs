//! A process that is measured: processor time, wake-ups and memory as the kernel counts them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Sub;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub struct Process {
    pid: u32,
    own: Option<Own>,
}

/// One that was started here.
struct Own {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What a process has used since it began; as a difference, between two moments.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Of all its threads, to the nanosecond; of those that have ended in between, to the tick of 10 ms.
    pub cpu: Duration,
    /// The same, as the clock's ticks found it: for how the two relate, in the long run.
    user: Duration,
    system: Duration,
    /// What children took that have ended.
    pub children: Duration,
    /// How often its threads waited for something, by their ids.
    waits: HashMap<String, u64>,
}

impl Usage {
    /// Of the processor time, what was spent in the process itself; the rest in the kernel.
    pub fn user_share(&self) -> f64 {
        let (user, system) = (self.user.as_secs_f64(), self.system.as_secs_f64());
        if user + system > 0.0 { user / (user + system) } else { 1.0 }
    }

    /// How often its threads were woken.
    pub fn wakeups(&self) -> u64 {
        self.waits.values().sum()
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let waited = |(id, count): (String, u64)| {
            let before = earlier.waits.get(&id).copied().unwrap_or(0);
            (id, count.saturating_sub(before))
        };
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            children: self.children.saturating_sub(earlier.children),
            waits: self.waits.into_iter().map(waited).collect(),
        }
    }
}

impl Process {
    /// One that somebody else has started.
    pub fn of(pid: u32) -> Self {
        Self { pid, own: None }
    }

    /// This program again, with arguments, in a folder; killed when dropped.
    pub fn start(arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { pid: child.id(), own: Some(Own { child, input, output }) }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What stands from this on in the next line that it writes with it.
    pub fn says(&mut self, start: &str) -> String {
        let output = &mut self.own.as_mut().unwrap().output;
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(at) = line.find(start) {
                return line[at..].trim_end().to_owned();
            }
            line.clear();
        }
        panic!("it ended without {start:?}");
    }

    /// Asks it for a line.
    pub fn ask(&mut self) {
        self.own.as_mut().unwrap().input.write_all(b"\n").unwrap();
    }

    pub fn usage(&self) -> Usage {
        let stat = self.read("stat");
        // Behind the name, which may hold anything: fields 14 to 17 of proc_pid_stat(5), in ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| Duration::from_millis(10 * fields[field - 3].parse::<u64>().unwrap());
        let (user, system) = (ticks(14), ticks(15));
        let (mut living, mut waits) = (Duration::ZERO, HashMap::new());
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap().flatten() {
            // A thread may end in between.
            let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let ran = read("schedstat").split_whitespace().next().and_then(|nanos| nanos.parse().ok());
            living += Duration::from_nanos(ran.unwrap_or(0));
            let count = value(&read("status"), "voluntary_ctxt_switches:").unwrap_or(0);
            waits.insert(thread.file_name().to_string_lossy().into_owned(), count);
        }
        // The ticks know of threads that have ended, and are rounded down.
        let cpu = living.max(user + system);
        Usage { cpu, user, system, children: ticks(16) + ticks(17), waits }
    }

    pub fn memory_mb(&self) -> f64 {
        value(&self.read("status"), "VmRSS:").unwrap() as f64 / 1024.0
    }

    pub fn peak_memory_mb(&self) -> f64 {
        value(&self.read("status"), "VmHWM:").unwrap() as f64 / 1024.0
    }

    /// Datagrams that came to UDP sockets on this port and were dropped, because their buffers were full.
    pub fn dropped_datagrams(&self, port: u16) -> u64 {
        let local = format!(":{port:04X}");
        let table = self.read("net/udp");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = rows.filter(|row| row.get(1).is_some_and(|address| address.ends_with(&local)));
        own.filter_map(|row| row.last()?.parse::<u64>().ok()).sum()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap()
    }
}

/// What stands behind a key.
fn value(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(Own { child, .. }) = &mut self.own {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
