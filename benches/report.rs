//! What was measured, as a table and as JSON.

use crate::latency::Latency;
use crate::measure::{Cost, Sample};
use crate::options::{Options, Subject};
use crate::subjects::Files;
use serde::Serialize;
use std::path::Path;

/// All runs of one subject with the same streams.
#[derive(Debug, Serialize)]
pub struct Row {
    pub bitrate: u32,
    pub streams: usize,
    pub subject: Subject,
    pub rounds: Vec<Sample>,
    /// A packet, by `--syscalls`.
    pub system_calls: Option<f64>,
    pub instructions: Option<f64>,
    /// By `--latency`.
    pub latency: Option<Latency>,
}

#[derive(Serialize)]
struct Report<'a> {
    cores: usize,
    options: &'a Options,
    rows: Vec<Summed<'a>>,
}

#[derive(Serialize)]
struct Summed<'a> {
    #[serde(flatten)]
    row: &'a Row,
    median: Sample,
}

/// The share of late frames from which on the publishers are said to have been too slow.
const BEHIND: f64 = 0.02;

/// The value that so much of all is below; 0 of nothing.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

impl Row {
    pub fn new(bitrate: u32, streams: usize, subject: Subject) -> Self {
        let rounds = Vec::new();
        Self { bitrate, streams, subject, rounds, system_calls: None, instructions: None, latency: None }
    }

    /// Each figure's median; of what goes wrong, the sum.
    fn median(&self) -> Sample {
        let of = |figure: &dyn Fn(&Sample) -> f64| median(self.rounds.iter().map(figure));
        let sum = |figure: &dyn Fn(&Sample) -> usize| self.rounds.iter().map(figure).sum();
        let cost = |figure: &dyn Fn(&Sample) -> Cost| Cost {
            user_ms: of(&|sample| figure(sample).user_ms),
            system_ms: of(&|sample| figure(sample).system_ms),
        };
        Sample {
            steady: cost(&|sample| sample.steady),
            life: cost(&|sample| sample.life),
            once_ms: of(&|sample| sample.once_ms),
            lived_s: of(&|sample| sample.lived_s),
            hook_ms: of(&|sample| sample.hook_ms),
            packet_rate: of(&|sample| sample.packet_rate),
            wakeups: of(&|sample| sample.wakeups),
            memory_mb: of(&|sample| sample.memory_mb),
            dropped: self.rounds.iter().map(|sample| sample.dropped).sum(),
            resent: sum(&|sample| sample.resent),
            late: of(&|sample| sample.late),
            publishing: of(&|sample| sample.publishing),
            missing: sum(&|sample| sample.missing),
            files: self.rounds.iter().fold(Files::default(), |mut all, sample| {
                all.add(sample.files);
                all
            }),
        }
    }
}

const HEAD: &str = "
kbit/s streams subject | steady: user  system   total  | life:   user  system   total  | once ms | wake-ups | MB a  |
                       | ms a stream-second     ratio  | ms a stream-second     ratio  | a stream| a packet | stream|";

pub fn print(rows: &[Row]) {
    println!("{HEAD}");
    for row in rows {
        let sample = row.median();
        let same = |other: &&Row| (other.bitrate, other.streams) == (row.bitrate, row.streams);
        let server = rows.iter().filter(same).find(|other| other.subject == Subject::Server);
        let server = server.filter(|_| row.subject != Subject::Server).map(Row::median);
        let cost = |figure: &dyn Fn(&Sample) -> Cost| {
            let Cost { user_ms, system_ms } = figure(&sample);
            let total = figure(&sample).total();
            // How many of this the server costs.
            let ratio = server.as_ref().map(|server| figure(server).total() / total);
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            format!("{user_ms:7.2} {system_ms:7.2} {total:7.2} {ratio:>5}")
        };
        println!(
            "{:6} {:7} {:7} |{:>30} |{:>30} | {:7.1} | {:8.3} | {:5.2} |{}",
            row.bitrate,
            row.streams,
            row.subject.name(),
            cost(&|sample| sample.steady),
            cost(&|sample| sample.life),
            sample.once_ms,
            sample.wakeups,
            sample.memory_mb,
            remarks(&sample),
        );
    }
    print_passes(rows);
    println!(
        "ratio: what the server costs, as so many times this. life: streams of so many seconds as `lived_s` \
         in the JSON says, from before the first handshake until the last hook has run."
    );
}

fn print_passes(rows: &[Row]) {
    for row in rows {
        let head = format!("{} kbit/s, {} streams, {}", row.bitrate, row.streams, row.subject.name());
        if let Some(calls) = row.system_calls {
            let instructions = row.instructions.map_or("not counted here".to_owned(), |n| format!("{n:.0}"));
            println!("{head}: {calls:.3} system calls a packet; instructions a packet: {instructions}");
        }
        if let Some(Latency { p50, p99, newest_p50, newest_p99, pictures, missing }) = row.latency {
            println!(
                "{head}: last packet to viewer p50 {p50:.1} ms, p99 {p99:.1}; of each message's newest picture \
                 {newest_p50:.1} and {newest_p99:.1} ({pictures} pictures, {missing} missing)"
            );
        }
    }
}

fn remarks(sample: &Sample) -> String {
    let mut remarks = vec![format!(" publishers took {:.2} processors", sample.publishing)];
    let Files { whole, files, frames_found, frames_sent } = sample.files;
    if files > 0 {
        remarks.push(format!("hooks {:.1} ms each; {whole} of {files} files whole", sample.hook_ms));
        if frames_found != frames_sent {
            remarks.push(format!("{frames_found} of {frames_sent} frames"));
        }
    }
    if sample.dropped + sample.resent as u64 > 0 {
        remarks.push(format!("{} DATAGRAMS DROPPED, {} packets resent", sample.dropped, sample.resent));
    }
    if sample.missing > 0 {
        remarks.push(format!("{} PUBLISHERS NEVER CONNECTED", sample.missing));
    }
    if sample.late > BEHIND {
        remarks.push(format!("PUBLISHERS FELL BEHIND: {:.0} % of frames late", sample.late * 100.0));
    }
    remarks.join("; ")
}

pub fn save(file: &Path, options: &Options, rows: &[Row]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rows = rows.iter().map(|row| Summed { row, median: row.median() }).collect();
    let report = Report { cores, options, rows };
    std::fs::write(file, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
}
