//! What a received packet costs in instructions, where neither a clock nor the kernel has a part in it: through
//! the RTP pipeline, and on through the stream into the clusters of a file. Time depends on the machine and on
//! what else it does; instructions depend on the code and the compiler, so that they can have a ceiling.
//!
//! `valgrind --tool=callgrind` counts those of this program's own other test, for a short and a long stretch of
//! media; the difference leaves out what starting takes. `cargo test --test instructions -- --nocapture` shows
//! the figures.

use bytes::Bytes;
use onrecord::container::{Container, Head, Muxer};
use onrecord::live::{Item, Stream, Tap};
use onrecord::media::{Event, Track};
use onrecord::rtp::{Config, Packet, PayloadFormat, Pipeline, TrackSetup};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How many seconds of media the counted test takes, and whether it goes on to clusters.
const SECONDS: &str = "ONRECORD_TEST_SECONDS";
const CLUSTERS: &str = "ONRECORD_TEST_CLUSTERS";

const VIDEO: usize = 0;
const AUDIO: usize = 1;
/// 720p30 at about 1.5 Mbit/s, and Opus.
const PICTURES: u32 = 30;
const PACKETS_A_PICTURE: u16 = 6;
const SOUNDS: u32 = 50;
/// A keyframe each so many pictures.
const GROUP: u32 = 90;
const PACKETS_A_SECOND: u32 = PICTURES * PACKETS_A_PICTURE as u32 + SOUNDS;

/// Instructions a packet may take, a tenth more than it took when this was written: on to the pipeline's
/// events, and all the way. By what the compiler was told to do, which the name of the profile says.
const CEILINGS: [(&str, u64, u64); 3] =
    [("debug", 8_900, 12_100), ("ci", 2_680, 3_850), ("release", 2_360, 3_360)];

/// A publisher whose packets come in time and in order.
struct Publisher {
    start: Instant,
    first: [Bytes; 2],
    rest: Bytes,
    sound: Bytes,
    sequences: [u16; 2],
}

impl Publisher {
    fn new(start: Instant) -> Self {
        // RFC 7741 section 4.2: extended, with a picture id of 15 bits; it begins a partition, or doesn't.
        let payload = |descriptor: u8, frame: &[u8]| {
            let mut payload = [&[descriptor, 0x80, 0x80, 0x01], frame].concat();
            payload.resize(1050, 7);
            Bytes::from(payload)
        };
        // RFC 6386 section 9.1: a keyframe says its size.
        let keyframe = [0x10, 1, 0, 0x9d, 1, 0x2a, 0x00, 0x05, 0xd0, 0x02];
        let first = [payload(0x90, &[0x11, 1, 0]), payload(0x90, &keyframe)];
        // RFC 6716 section 3.1: fullband, mono, one frame of 20 ms.
        let sound = Bytes::from([&[0xf8][..], &[7; 159]].concat());
        Self { start, first, rest: payload(0x80, &[]), sound, sequences: [65_000, 65_000] }
    }

    /// One second of both tracks.
    fn second(&mut self, second: u32, pipeline: &mut Pipeline) {
        let began = self.start + Duration::from_secs(second.into());
        for track in [VIDEO, AUDIO] {
            let rate = [90_000, 48_000][track];
            pipeline.sender_report(track, u64::from(second + 1_000) << 32, second * rate, began);
        }
        let mut sounds = 0;
        for picture in 0..PICTURES {
            let at = began + Duration::from_secs(1) * picture / PICTURES;
            while sounds * PICTURES < (picture + 1) * SOUNDS {
                let timestamp = (second * SOUNDS + sounds) * (48_000 / SOUNDS);
                self.send(AUDIO, timestamp, false, self.sound.clone(), at, pipeline);
                sounds += 1;
            }
            let number = second * PICTURES + picture;
            for n in 0..PACKETS_A_PICTURE {
                let first = &self.first[usize::from(number.is_multiple_of(GROUP))];
                let payload = if n == 0 { first } else { &self.rest }.clone();
                let timestamp = number * (90_000 / PICTURES);
                self.send(VIDEO, timestamp, n + 1 == PACKETS_A_PICTURE, payload, at, pipeline);
            }
        }
    }

    fn send(
        &mut self,
        track: usize,
        timestamp: u32,
        marker: bool,
        payload: Bytes,
        at: Instant,
        pipeline: &mut Pipeline,
    ) {
        let sequence = self.sequences[track];
        self.sequences[track] = sequence.wrapping_add(1);
        pipeline.packet(track, Packet { sequence, timestamp, marker, payload, red: false }, at);
    }
}

/// A recorder's part without its files: takes what a stream brings into clusters.
struct Clusters {
    stream: Stream,
    tap: Tap,
    muxer: Box<dyn Muxer>,
    frames: u64,
    /// Of the file so far.
    bytes: usize,
}

impl Clusters {
    fn new() -> Self {
        let tracks: Vec<Track> = [PayloadFormat::Vp8, PayloadFormat::Opus].map(PayloadFormat::track).to_vec();
        let head = Head { tracks: &tracks, sizes: &[None, None], uid: 1, unix_nanos: 0, title: "" };
        let muxer = Container::of(&tracks).muxer(&head, Duration::from_secs(1));
        let stream = Stream::new("instructions".parse().expect("a name"), tracks);
        let tap = stream.tap();
        let bytes = muxer.head().len();
        Self { stream, tap, muxer, frames: 0, bytes }
    }

    /// What is done once in a flush interval.
    fn flush(&mut self) {
        for (_, item) in self.tap.drain() {
            if let Item::Media(Event::Frame(frame)) = item {
                self.muxer.push(&frame, frame.time);
                self.frames += 1;
            }
        }
        self.tap.holds(0);
        self.muxer.finish();
        for (fragment, place) in self.muxer.fragments().into_iter().enumerate() {
            self.muxer.commit(fragment, (self.bytes + place.start) as u64);
        }
        self.bytes += self.muxer.bytes().len();
        self.muxer.clear();
    }
}

/// This many seconds of media; frames that came of it, with its last ones on their way.
fn work(seconds: u32, clusters: bool) -> u64 {
    let start = Instant::now();
    let config = Config { reorder_window: Duration::from_secs(1), keyframe_interval: Duration::from_secs(4) };
    let setups = [
        TrackSetup { format: PayloadFormat::Vp8, nack: true },
        TrackSetup { format: PayloadFormat::Opus, nack: false },
    ];
    let mut pipeline = Pipeline::new(config, &setups, start);
    let (mut publisher, mut clusters) = (Publisher::new(start), clusters.then(Clusters::new));
    let mut frames = 0;
    for second in 0..seconds {
        publisher.second(second, &mut pipeline);
        while let Some(event) = pipeline.poll_event() {
            frames += u64::from(matches!(event, Event::Frame(_)));
            if let Some(clusters) = &clusters {
                clusters.stream.push(event, start + Duration::from_secs(second.into()));
            }
        }
        if let Some(clusters) = &mut clusters {
            clusters.flush();
            assert_eq!(clusters.frames, frames);
        }
    }
    frames
}

#[test]
fn packets_in_order_become_frames() {
    let seconds = std::env::var(SECONDS).map_or(2, |seconds| seconds.parse().expect("a number"));
    let clusters = std::env::var(CLUSTERS).map_or(true, |clusters| clusters == "1");
    let frames = work(seconds, clusters);
    let all = u64::from(seconds * (PICTURES + SOUNDS));
    // The last picture is whole only when the next begins, and waits for its time.
    assert!((all - 5..=all).contains(&frames), "{frames} of {all} frames");
}

/// Of the test above, as callgrind counts them.
fn instructions(seconds: u32, clusters: bool) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "packets_in_order_become_frames", "--test-threads=1"])
        .env(SECONDS, seconds.to_string())
        .env(CLUSTERS, if clusters { "1" } else { "0" })
        .output()
        .expect("valgrind is installed");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stdout));
    let counted = report.lines().find_map(|line| line.split_once("Collected : ")).expect("a count");
    counted.1.trim().parse().expect("a number")
}

#[test]
fn a_packet_takes_no_more_instructions_than_it_did() {
    let a_packet = |clusters: bool| {
        let (short, long) = (4, 24);
        let more = instructions(long, clusters) - instructions(short, clusters);
        more / u64::from((long - short) * PACKETS_A_SECOND)
    };
    let (pipeline, all) = (a_packet(false), a_packet(true));
    println!("{pipeline} instructions a packet through the pipeline, {all} into clusters");
    // target/PROFILE/deps/PROGRAM
    let program = std::env::current_exe().expect("this program");
    let folder = program.ancestors().nth(2).and_then(Path::file_name).expect("a profile's folder");
    let ceiling = CEILINGS.into_iter().find(|(profile, ..)| folder == *profile);
    let (profile, of_pipeline, of_all) = ceiling.expect("a profile of Cargo.toml");
    assert!(
        pipeline <= of_pipeline && all <= of_all,
        "{pipeline} and {all} instructions, not at most {of_pipeline} and {of_all} as built by {profile}"
    );
}
