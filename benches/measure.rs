//! One run of one subject: so many publishers come, run for a while, and go.

use crate::latency::{self, Latency};
use crate::options::{Options, Subject};
use crate::perf::{Counts, Perf};
use crate::process::{Process, Usage};
use crate::publishers::{Fleet, Sender};
use crate::subjects::{Files, Running};
use crate::support::media::Clip;
use serde::Serialize;
use std::ops::Range;
use std::time::{Duration, Instant};

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
    /// Of the server.
    #[serde(flatten)]
    pub files: Files,
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

/// What was seen while all streams ran.
struct Steady {
    window: Range<Instant>,
    usage: Usage,
    /// Of the publishers.
    publishing: Usage,
    /// That were sent.
    packets: f64,
    counts: Counts,
}

impl Steady {
    async fn watch(pass: Pass, process: &Process, fleet: &Fleet, length: Duration) -> Self {
        tokio::time::sleep(SETTLING).await;
        let perf = (pass == Pass::SystemCalls).then(|| Perf::start(process.pid())).flatten();
        let own = Process::of(std::process::id());
        let (publishing, usage) = (own.usage(), process.usage());
        let (began, packets) = (Instant::now(), fleet.packets());
        tokio::time::sleep(length).await;
        Self {
            window: began..Instant::now(),
            packets: (fleet.packets() - packets) as f64,
            usage: process.usage() - usage,
            publishing: own.usage() - publishing,
            counts: perf.map(Perf::finish).unwrap_or_default(),
        }
    }

    fn seconds(&self) -> f64 {
        (self.window.end - self.window.start).as_secs_f64()
    }
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
    let steady = Steady::watch(pass, process, &fleet, options.window()).await;

    let sent = fleet.stop().await;
    let connected = sent.iter().filter(|sender| sender.lasted.is_some()).count();
    running.finished(connected).await;
    let life = process.usage() - start;
    let memory_mb = (process.peak_memory_mb() - idle) / streams as f64;
    let dropped = process.dropped_datagrams(port);
    let files = running.stop(&sent.iter().map(Sender::counts).collect::<Vec<_>>());
    let latency = match viewer {
        Some(viewer) => Some(latency::of(&sent[0], &steady.window, &viewer.await.unwrap())),
        None => None,
    };

    let all = streams as f64;
    let lived: f64 = sent.iter().filter_map(|sender| sender.lasted).map(|lasted| lasted.as_secs_f64()).sum();
    let steady_cost = Cost::of(&steady.usage, steady.seconds() * all);
    let sample = Sample {
        steady: steady_cost,
        life: Cost::of(&life, lived),
        once_ms: (life.cpu.as_secs_f64() * 1e3 - steady_cost.total() * lived) / all,
        lived_s: lived / all,
        hook_ms: life.children.as_secs_f64() * 1e3 / all,
        packet_rate: steady.packets / steady.seconds() / all,
        wakeups: steady.usage.wakeups() as f64 / steady.packets,
        memory_mb,
        dropped,
        resent: sent.iter().map(|sender| sender.publisher.resent()).sum(),
        late: late(&sent, &steady.window),
        publishing: steady.publishing.cpu.as_secs_f64() / steady.seconds(),
        missing: streams - connected,
        files,
    };
    let a_packet = |count: Option<u64>| count.map(|count| count as f64 / steady.packets);
    let Counts { system_calls, instructions } = steady.counts;
    let (system_calls, instructions) = (a_packet(system_calls), a_packet(instructions));
    Measured { sample, system_calls, instructions, latency }
}

fn late(sent: &[Sender], window: &Range<Instant>) -> f64 {
    let frames = sent.iter().flat_map(|sender| &sender.frames).filter(|frame| window.contains(&frame.due));
    let (late, all) = frames
        .fold((0, 0), |(late, all), frame| (late + usize::from(frame.left > frame.due + LATE), all + 1));
    late as f64 / f64::max(all.into(), 1.0)
}
