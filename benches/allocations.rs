//! How often the server allocates memory for a packet that it receives, beside loops that only receive.
//!
//! ```text
//! cargo bench --bench allocations -- --streams 10 --bitrate 1500 --seconds 10
//! ```
//!
//! Each subject runs in a process of its own of this program, whose allocator counts; the server is the whole
//! of it, as its binary starts it. The counters cost processor time, so that is measured elsewhere (`ingest`).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a bench talks")]

mod bare;
mod bare_rtc;
mod bare_str0m;
#[allow(dead_code, reason = "every bench uses its own part")]
mod options;
#[allow(dead_code, reason = "every bench uses its own part")]
mod process;
#[allow(dead_code, reason = "every bench uses its own part")]
mod publishers;
#[path = "../tests/support/mod.rs"]
mod support;

use bare_rtc::RtcSession;
use bare_str0m::Str0mSession;
use clap::Parser;
use onrecord::app;
use onrecord::config::{Config, Sources};
use options::{Options, SETTINGS, Subject};
use process::Process;
use publishers::Fleet;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::BufRead;
use std::time::Duration;
use support::media::{Clip, camera_at};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// From when on all streams are taken to run steadily.
const SETTLING: Duration = Duration::from_secs(1);
/// What a line of the counters begins with.
const COUNTED: &str = "allocated ";

/// What a subject has allocated.
#[derive(Clone, Copy, Debug)]
struct Allocated {
    times: u64,
    bytes: u64,
}

/// For each packet that was sent to it while all streams ran.
#[derive(Debug, Serialize)]
struct Row {
    bitrate: u32,
    streams: usize,
    subject: Subject,
    allocations: f64,
    bytes: f64,
}

fn main() {
    let options = Options::parse();
    if let Some(subject) = options.serve {
        return serve(subject);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut rows = Vec::new();
    for &bitrate in &options.bitrate {
        let clips = camera_at(4, bitrate);
        for &streams in &options.streams {
            for subject in options.subjects() {
                let (allocations, bytes) = runtime.block_on(measure(subject, streams, &options, &clips));
                println!(
                    "{bitrate} kbit/s, {streams} streams, {}: {allocations:.2} allocations a packet, \
                     {bytes:.0} bytes",
                    subject.name()
                );
                rows.push(Row { bitrate, streams, subject, allocations, bytes });
            }
        }
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
    }
}

async fn measure(subject: Subject, streams: usize, options: &Options, clips: &(Clip, Clip)) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&["--serve", subject.name()], folder.path());
    let base = process.says("http://");
    let base = base.split_whitespace().next().unwrap().trim_end_matches("/publish");
    let fleet = Fleet::start(base, streams, clips).await;
    tokio::time::sleep(SETTLING).await;
    let (before, packets) = (allocated(&mut process), fleet.packets());
    tokio::time::sleep(options.window()).await;
    let (after, packets) = (allocated(&mut process), (fleet.packets() - packets) as f64);
    fleet.stop().await;
    ((after.times - before.times) as f64 / packets, (after.bytes - before.bytes) as f64 / packets)
}

fn allocated(process: &mut Process) -> Allocated {
    process.ask();
    let line = process.says(COUNTED);
    let mut numbers = line.trim_start_matches(COUNTED).split(' ').map(|number| number.parse().unwrap());
    Allocated { times: numbers.next().unwrap(), bytes: numbers.next().unwrap() }
}

/// Is a subject until it is killed, and says what it has allocated whenever it is asked.
fn serve(subject: Subject) {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines() {
            let stats = ALLOCATOR.stats();
            let bytes = stats.bytes_allocated;
            println!("{COUNTED}{} {bytes}", stats.allocations + stats.reallocations);
        }
        // Nobody is there any more to end it.
        std::process::exit(0);
    });
    match subject {
        Subject::Rtc => bare::serve::<RtcSession>(Duration::ZERO),
        Subject::Str0m => bare::serve::<Str0mSession>(Duration::ZERO),
        Subject::Server | Subject::Other => record(),
    }
}

/// The server, as its binary runs it, in the working directory.
fn record() {
    let records = std::env::current_dir().unwrap().join("records");
    let own = ["server.bind=127.0.0.1:0".to_owned(), "webrtc.udp_bind=127.0.0.1:0".to_owned()];
    let all = own.into_iter().chain([format!("record.dir={}", records.display())]);
    let set = all.chain(SETTINGS.map(str::to_owned)).collect();
    let config = Config::load(&Sources::new(None, set)).unwrap();
    let _logging = config.log.start().unwrap();
    app::serve(config, false).unwrap();
}
