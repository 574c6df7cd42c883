//! What a recorded stream costs the server, beside loops that only receive.
//!
//! ```text
//! cargo bench --bench ingest -- --streams 10,50 --bitrate 1500 --seconds 10 --rounds 5 --json figures.json
//! ```
//!
//! Publishes real-time 720p30 VP8 and Opus with str0m from this process to the server, and to a bare loop on
//! each of two WebRTC crates. They take turns in each round, so that a busy machine disturbs all of them;
//! medians of the rounds are printed. Processor time is that of the measured process alone, in a window while
//! all streams run, and over their whole lives; every file is compared with what was sent.
//!
//! Where others want the processor too, give all of it priority (`sudo nice -n -15`): a process that has to wait
//! for it finds more in its socket each time it reads, which is cheaper, until datagrams are dropped. The table
//! says so when they were, and when publishers fell behind; its figures are then no good.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a bench talks")]

mod bare;
mod bare_rtc;
mod bare_str0m;
mod latency;
mod measure;
mod options;
mod perf;
#[allow(dead_code, reason = "every bench uses its own part")]
mod process;
mod publishers;
mod report;
mod subjects;
#[path = "../tests/support/mod.rs"]
mod support;

use clap::Parser;
use measure::{Pass, measure};
use options::{Options, Subject};
use report::Row;
use support::media::{Clip, camera_at};

fn main() {
    let options = Options::parse();
    if let Some(subject) = options.serve {
        return subjects::serve(subject, &options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut rows = Vec::new();
    for &bitrate in &options.bitrate {
        let clips = camera_at(4, bitrate);
        for &streams in &options.streams {
            rows.extend(runtime.block_on(compare(bitrate, streams, &options, &clips)));
            // After each, so that one who stops it early has something.
            if let Some(file) = &options.json {
                report::save(file, &options, &rows);
            }
        }
    }
    report::print(&rows);
}

/// All subjects in turn with so many streams.
async fn compare(bitrate: u32, streams: usize, options: &Options, clips: &(Clip, Clip)) -> Vec<Row> {
    let mut rows: Vec<_> =
        options.subjects().into_iter().map(|subject| Row::new(bitrate, streams, subject)).collect();
    for round in 1..=options.rounds {
        for row in &mut rows {
            let sample = measure(Pass::Costs, row.subject, streams, options, clips).await.sample;
            println!(
                "{bitrate} kbit/s, {streams} streams, round {round}, {}: {:.2} ms a stream-second steady, {:.2} \
                 over the whole life",
                row.subject.name(),
                sample.steady.total(),
                sample.life.total()
            );
            row.rounds.push(sample);
        }
        // Another begins the next.
        rows.rotate_left(1);
    }
    rows.sort_by_key(|row| row.subject);
    for row in &mut rows {
        if options.syscalls {
            let measured = measure(Pass::SystemCalls, row.subject, streams, options, clips).await;
            (row.system_calls, row.instructions) = (measured.system_calls, measured.instructions);
            if row.system_calls.is_none() {
                println!("no system calls counted: `perf stat -e raw_syscalls:sys_enter` has to work");
            }
        }
        if options.latency && row.subject == Subject::Server {
            row.latency = measure(Pass::Latency, row.subject, streams, options, clips).await.latency;
        }
    }
    rows
}
