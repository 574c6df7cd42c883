//! What the kernel reports of this process, under the names every Prometheus client gives it.

use crate::base::metrics::Scrape;
use std::fs;

/// Ticks of `/proc/self/stat` in a second: part of Linux' interface to programs, whatever the kernel's
/// own clock.
const TICKS: f64 = 100.0;

/// Adds what there is; where there is no `/proc`, nothing.
pub fn gauges(scrape: &mut Scrape) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold anything, `)` too; the state, field 3, is what comes behind it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
        scrape.process_counter("process_cpu_seconds", "CPU time of all threads", user + system);
    }
    if let (Some(boot), Some(after)) = (value_in("/proc/stat", "btime "), ticks(22)) {
        scrape.process("process_start_time_seconds", "When the process began, in Unix time", boot + after);
    }
    for (name, help, line) in [
        ("process_resident_memory_bytes", "Memory in use", "VmRSS:"),
        ("process_virtual_memory_bytes", "Addresses in use", "VmSize:"),
    ] {
        if let Some(kib) = value_in("/proc/self/status", line) {
            scrape.process(name, help, kib * 1024.0);
        }
    }
    if let Some(threads) = value_in("/proc/self/status", "Threads:") {
        scrape.process("process_threads", "Threads", threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        scrape.process("process_open_fds", "Files and sockets that are open", open.count() as f64);
    }
    if let Some(most) = value_in("/proc/self/limits", "Max open files") {
        scrape.process("process_max_fds", "Files and sockets that may be open", most);
    }
}

/// The first number behind the beginning of a line.
fn value_in(file: &str, begins: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(begins))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::metrics::{Format, Metrics};

    #[test]
    fn the_process_tells_its_age_memory_files_and_time() {
        let mut scrape = Scrape::new(&Metrics::default());
        gauges(&mut scrape);
        let text = scrape.text(Format::Classic).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse::<f64>().unwrap()
        };
        let now = jiff::Timestamp::now().as_second() as f64;
        let age = now - value("process_start_time_seconds");
        println!("{age:.1} s old, {:.1} MiB", value("process_resident_memory_bytes") / 1048576.0);
        assert!((-2.0..3600.0).contains(&age), "{age} s old");
        assert!((1e6..1e11).contains(&value("process_resident_memory_bytes")));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > value("process_open_fds"));
        assert!((0.0..1e5).contains(&value("process_cpu_seconds_total")));
    }
}
