//! What a recorded stream costs the server, beside a loop that only receives.
//!
//! ```text
//! cargo bench --bench ingest -- --streams 1,10,50 --seconds 20 --rounds 5
//! ```
//!
//! Publishes real-time 720p30 1.5 Mbit/s VP8 and Opus with str0m from this process, measures the
//! server's processor time over a steady window, checks every file. Server and bare loop take turns, so
//! that a busy machine disturbs both; medians are printed. `--only bare` or `--only server` runs one.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a bench talks")]

mod bare_loop;
mod process;
#[path = "../tests/support/mod.rs"]
mod support;

use process::Process;
use std::time::{Duration, Instant};
use str0m::media::MediaKind;
use support::judge;
use support::live::Live;
use support::media::{Clip, camera};
use support::publisher::{Config, Publisher};
use support::server::Server;
use support::signalling::Whip;

struct Options {
    streams: Vec<usize>,
    window: Duration,
    rounds: usize,
    only: Option<String>,
}

impl Options {
    fn from_arguments() -> Self {
        let value = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
        let number = |name: &str, usual: usize| value(name).map_or(usual, |text| text.parse().unwrap());
        let streams = value("--streams").unwrap_or_else(|| "1,10,50".to_owned());
        Self {
            streams: streams.split(',').map(|count| count.parse().unwrap()).collect(),
            window: Duration::from_secs(number("--seconds", 20) as u64),
            rounds: number("--rounds", 5),
            only: value("--only"),
        }
    }

    fn wants(&self, subject: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == subject)
    }
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Processor time per stream and second.
    cpu_ms: f64,
    /// Peak memory per stream, the idle process aside.
    memory_mb: f64,
    /// Files whose frames are as many as were sent, and files.
    files: (usize, usize),
}

fn main() {
    if std::env::args().any(|argument| argument == "bare-loop") {
        return bare_loop::serve();
    }
    let options = Options::from_arguments();
    let clips = camera(4);
    // Two threads send for everybody; what they take is not counted.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for &streams in &options.streams {
        let (mut recording, mut bare) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            if options.wants("server") {
                recording.push(runtime.block_on(measure_server(streams, &options, &clips)));
                println!("  round {round}: server {:?}", recording[round - 1]);
            }
            if options.wants("bare") {
                bare.push(runtime.block_on(measure_bare_loop(streams, &options, &clips)));
                println!("  round {round}: bare loop {:?}", bare[round - 1]);
            }
        }
        report(streams, &recording, &bare);
    }
}

fn report(streams: usize, recording: &[Sample], bare: &[Sample]) {
    let cpu = |samples: &[Sample]| median(samples.iter().map(|sample| sample.cpu_ms));
    let memory = |samples: &[Sample]| median(samples.iter().map(|sample| sample.memory_mb));
    for (name, samples) in [("recording", recording), ("bare loop", bare)] {
        if samples.is_empty() {
            continue;
        }
        let (cpu, memory) = (cpu(samples), memory(samples));
        print!("{streams:3} streams, {name}: {cpu:.2} ms per stream-second, {memory:.1} MB a stream");
        let (whole, all) =
            samples.iter().fold((0, 0), |(a, b), sample| (a + sample.files.0, b + sample.files.1));
        println!("{}", if all > 0 { format!(", {whole} of {all} files whole") } else { String::new() });
    }
    if !recording.is_empty() && !bare.is_empty() {
        let (with, without) = (cpu(recording), cpu(bare));
        println!("{streams:3} streams, ratio {:.2}, recording adds {:.2} ms", with / without, with - without);
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn measure_server(streams: usize, options: &Options, clips: &(Clip, Clip)) -> Sample {
    let mut server = Server::start(&["hooks.on_record=/bin/true", "log.level=warn"]);
    let process = Process::of(server.pid());
    let base = server.base.clone();
    let (mut sample, sent) = publish(streams, options, clips, &base, &process).await;
    let status = server.stop(Duration::from_secs(30));
    assert!(status.is_some_and(|status| status.success()), "the server did not end well: {status:?}");
    sample.files = check_files(&server, &sent);
    sample
}

async fn measure_bare_loop(streams: usize, options: &Options, clips: &(Clip, Clip)) -> Sample {
    let mut process = Process::start("bare-loop");
    let base = process.first_line();
    publish(streams, options, clips, base.trim_end_matches('/'), &process).await.0
}

/// Publishes so many streams, measures while all of them run, ends them in order.
async fn publish(
    streams: usize,
    options: &Options,
    clips: &(Clip, Clip),
    base: &str,
    process: &Process,
) -> (Sample, Vec<Publisher>) {
    let idle = process.memory_mb();
    let mut running = Vec::new();
    for n in 0..streams {
        let clips = clips.clone();
        let (live, offer) = Live::start(|local| Config { red: false, ..Config::playing(local, clips) }).await;
        let (whip, answer) = Whip::publish(&format!("{base}/whip/bench-{n}"), &offer).await.unwrap();
        live.accept(&answer).await;
        running.push((live, whip));
        // So that not all keyframes of all streams fall together.
        tokio::time::sleep(Duration::from_millis(2000 / streams as u64)).await;
    }
    for (live, _) in &running {
        while live.with(|publisher| publisher.connected_at().is_none()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, before) = (Instant::now(), process.cpu());
    tokio::time::sleep(options.window).await;
    let (cpu, took) = (process.cpu() - before, began.elapsed());

    let mut sent = Vec::new();
    for (live, whip) in running {
        live.with(Publisher::stop_sending).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        whip.delete().await.unwrap();
        sent.push(live.stop().await);
    }
    let cpu_ms = cpu.as_secs_f64() * 1e3 / took.as_secs_f64() / streams as f64;
    let memory_mb = (process.peak_memory_mb() - idle) / streams as f64;
    (Sample { cpu_ms, memory_mb, files: (0, 0) }, sent)
}

/// How many files have as many frames as were sent, and how many there are to be.
fn check_files(server: &Server, sent: &[Publisher]) -> (usize, usize) {
    let names = std::fs::read_dir(server.records()).unwrap();
    let paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    let is_whole = |(n, publisher): &(usize, &Publisher)| {
        let prefix = format!("bench-{n}_");
        let file = paths.iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".webm")
        });
        let Some(file) = file else {
            println!("    no file of bench-{n}");
            return false;
        };
        let packets = judge::packets(file);
        let counts = |kind: &str| packets.iter().filter(|packet| packet.kind == kind).count();
        let found = (counts("video"), counts("audio"));
        let expected = (publisher.sent_of(MediaKind::Video).len(), publisher.sent_of(MediaKind::Audio).len());
        if found != expected {
            println!("    bench-{n}: {found:?} frames in the file, {expected:?} sent (video, audio)");
        }
        found == expected
    };
    (sent.iter().enumerate().filter(is_whole).count(), sent.len())
}
