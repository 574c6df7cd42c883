//! One run of one subject: so many publishers come, run for a while, and go.

use crate::latency::{self, Latency};
use crate::options::{Options, Subject};
use crate::perf::Perf;
use crate::process::{Process, Usage};
use crate::publishers::{Fleet, Sender};
use crate::subjects::Running;
use crate::support::media::Clip;
use serde::Serialize;
use std::ops::Range;
use std::time::{Duration, Instant};
use str0m::media::MediaKind;

/// From when on all of them are taken to run steadily: behind the first keyframes, and what ICE and the server
/// do at the start only.
const SETTLING: Duration = Duration::from_secs(1);
/// A frame that is sent so much later than it should be is late: browsers' pacers take as long.
const LATE: Duration = Duration::from_millis(20);

/// Processor time, in ms for each stream and second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    pub user_ms: f64,
    pub system_ms: f64,
}

/// What one run measured. Nothing of what children (hooks) take is in it but `hook_ms`.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// In the window while all streams run.
    pub steady: Cost,
    /// From before the first handshake until the last file is sealed and its hook has run.
    pub life: Cost,
    /// What a stream costs once, for its beginning and its end: the whole life less its seconds at the steady
    /// cost. In ms a stream.
    pub once_ms: f64,
    /// How long a stream lived, in s.
    pub lived_s: f64,
    /// What the hooks' own processes took, in ms a stream.
    pub hook_ms: f64,
    /// RTP packets a second of each stream, in the window.
    pub packet_rate: f64,
    /// How often a thread of the process was woken for each of them.
    pub wakeups: f64,
    /// Peak memory a stream, the idle process aside, in MB.
    pub memory_mb: f64,
    /// Datagrams that the process was too slow for.
    pub dropped: u64,
    /// Packets that publishers sent again.
    pub resent: usize,
    /// The share of the window's frames that publishers sent late, which says that the machine was too slow
    /// for them.
    pub late: f64,
    /// How many processors the publishers took, in the window.
    pub publishing: f64,
    /// Publishers that never connected.
    pub missing: usize,
    /// Files whose frames are as many as were sent; those that there are to be.
    pub whole: usize,
    pub files: usize,
    pub frames_found: usize,
    pub frames_sent: usize,
}

impl Cost {
    pub fn total(self) -> f64 {
        self.user_ms + self.system_ms
    }

    fn of(usage: &Usage, stream_seconds: f64) -> Self {
        let total = usage.cpu.as_secs_f64() * 1e3 / stream_seconds;
        let share = usage.user_share();
        Self { user_ms: total * share, system_ms: total * (1.0 - share) }
    }
}

/// What is looked at in a run. What looks at more than the costs adds to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Costs,
    SystemCalls,
    Latency,
}

/// What one run gave.
pub struct Measured {
    pub sample: Sample,
    /// A packet, if they were to be counted and could be.
    pub system_calls: Option<f64>,
    /// Of the process itself, a packet; likewise.
    pub instructions: Option<f64>,
    /// If it was looked at.
    pub latency: Option<Latency>,
}

/// Measures a subject with so many streams of these clips.
pub async fn measure(
    pass: Pass,
    subject: Subject,
    streams: usize,
    options: &Options,
    clips: &(Clip, Clip),
) -> Measured {
    let running = Running::start(subject, options);
    let process = &running.process;
    let (idle, start) = (process.memory_mb(), process.usage());
    let fleet = Fleet::start(&running.base, streams, clips).await;
    let port = fleet.port;
    let viewer = if pass == Pass::Latency { Some(latency::watch(&running.base).await) } else { None };

    tokio::time::sleep(SETTLING).await;
    let perf = (pass == Pass::SystemCalls).then(|| Perf::start(process.pid())).flatten();
    let own = Process::of(std::process::id());
    let (publishing, before) = (own.usage(), process.usage());
    let (began, packets) = (Instant::now(), fleet.packets());
    tokio::time::sleep(options.window()).await;
    let (window, packets) = (began..Instant::now(), fleet.packets() - packets);
    let (steady, publishing) = (process.usage() - before, own.usage() - publishing);
    let counts = perf.map(Perf::finish).unwrap_or_default();

    let sent = fleet.stop().await;
    let connected = sent.iter().filter(|sender| sender.lasted.is_some()).count();
    running.finished(connected).await;
    let life = process.usage() - start;
    let memory_mb = (process.peak_memory_mb() - idle) / streams as f64;
    let dropped = process.dropped_datagrams(port);
    let frames: Vec<_> =
        sent.iter().map(|of| (of.sent(MediaKind::Video), of.sent(MediaKind::Audio))).collect();
    let files = running.stop(&frames);
    let latency = match viewer {
        Some(viewer) => Some(latency::of(&sent[0], &window, &viewer.await.unwrap())),
        None => None,
    };

    let seconds = (window.end - window.start).as_secs_f64();
    let lived: f64 = sent.iter().filter_map(|sender| sender.lasted).map(|lasted| lasted.as_secs_f64()).sum();
    let steady_cost = Cost::of(&steady, seconds * streams as f64);
    let once = life.cpu.as_secs_f64() * 1e3 - steady_cost.total() * lived;
    let sample = Sample {
        steady: steady_cost,
        life: Cost::of(&life, lived),
        once_ms: once / streams as f64,
        lived_s: lived / streams as f64,
        hook_ms: life.children.as_secs_f64() * 1e3 / streams as f64,
        packet_rate: packets as f64 / seconds / streams as f64,
        wakeups: steady.wakeups() as f64 / packets as f64,
        memory_mb,
        dropped,
        resent: sent.iter().map(|sender| sender.publisher.resent()).sum(),
        late: late(&sent, &window),
        publishing: publishing.cpu.as_secs_f64() / seconds,
        missing: streams - connected,
        whole: files.whole,
        files: files.all,
        frames_found: files.frames_found,
        frames_sent: files.frames_sent,
    };
    let a_packet = |count: Option<u64>| count.map(|count| count as f64 / packets as f64);
    let (system_calls, instructions) = (a_packet(counts.system_calls), a_packet(counts.instructions));
    Measured { sample, system_calls, instructions, latency }
}

fn late(sent: &[Sender], window: &Range<Instant>) -> f64 {
    let frames = sent.iter().flat_map(|sender| &sender.frames).filter(|frame| window.contains(&frame.due));
    let (late, all) = frames
        .fold((0, 0), |(late, all), frame| (late + usize::from(frame.left > frame.due + LATE), all + 1));
    late as f64 / f64::max(all.into(), 1.0)
}
