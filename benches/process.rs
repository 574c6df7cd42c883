//! A process that is measured: processor time and memory as the kernel counts them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Process {
    pid: u32,
    child: Option<Child>,
}

impl Process {
    /// One that somebody else has started.
    pub fn of(pid: u32) -> Self {
        Self { pid, child: None }
    }

    /// This program again, with an argument; killed when dropped.
    pub fn start(argument: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let child = command.arg(argument).stdout(Stdio::piped()).spawn().unwrap();
        Self { pid: child.id(), child: Some(child) }
    }

    /// What it says first.
    pub fn first_line(&mut self) -> String {
        let output = self.child.as_mut().unwrap().stdout.take().unwrap();
        BufReader::new(output).lines().next().unwrap().unwrap()
    }

    /// Time its living threads have run. From `schedstat`, in nanoseconds: `stat` counts in ticks of
    /// 10 ms, a fifth of what one stream costs in the window.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let ran = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(ran.sum())
    }

    pub fn memory_mb(&self) -> f64 {
        self.status("VmRSS:")
    }

    pub fn peak_memory_mb(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
