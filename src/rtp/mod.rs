//! L1: RTP packets in, frames out.
//!
//! ```text
//! packet ─▶ reorder (holes wait, are asked for) ─▶ red, vp8 (frames that can be decoded) ─▶ sync ─▶ Event
//! ```
//!
//! It counts what became of packets ([`Counts`]); whoever owns it adds that up.
//!
//! Pure: no tokio, no sockets, no clock; every call takes the time as an argument.

mod keyframe;
mod red;
mod reorder;
mod sequence;
mod sync;
#[cfg(test)]
mod tests;
mod vp8;

use crate::media::{self, Event, Frame, Gap, GapReason, Track};
use crate::rtp::keyframe::Keyframes;
pub use crate::rtp::keyframe::Reason as KeyframeReason;
use crate::rtp::reorder::{Item, Reorder};
use crate::rtp::sequence::Timestamps;
use crate::rtp::sync::Timeline;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Audio that can't be sent again waits this long at most: for a packet that was overtaken, or for
/// the copies in the next ones.
const UNREPEATABLE: Duration = Duration::from_millis(250);
/// What a packet that is kept counts for at least. However little of it is payload, it pins the whole
/// datagram, with header extensions and padding: up to 2 KiB, as the socket takes them. By payload alone
/// packets of one byte would take a thousand times of what a bound allows.
const PACKET: usize = 2048;
/// Without a packet for this long a track is silent, and nobody is asked for a keyframe.
const SILENT: Duration = Duration::from_secs(2);

/// One packet of a track's primary stream (retransmissions already unwrapped: RFC 4588).
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in the codec's clock.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Payload without padding.
    pub payload: Bytes,
    /// The payload is RED around Opus (RFC 2198).
    pub red: bool,
}

/// What the pipeline needs to know of a track.
#[derive(Clone, Debug)]
pub struct TrackSetup {
    /// Its codec.
    pub track: Track,
    /// Whether the publisher sends packets again when asked to.
    pub nack: bool,
}

/// What the publisher should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Send these again (RFC 4585 generic NACK).
    Nack {
        /// Index into the tracks.
        track: usize,
        /// Missing sequence numbers.
        sequences: Vec<u16>,
    },
    /// Send a keyframe (RFC 4585 PLI).
    KeyframeRequest {
        /// Index into the tracks.
        track: usize,
    },
}

/// Bounds of the pipeline.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a hole may wait for its packet.
    pub reorder_window: Duration,
    /// The age at which the newest keyframe asks for the next.
    pub keyframe_interval: Duration,
}

/// What became of one track's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came, repetitions too.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that were asked for and came.
    pub retransmitted: u64,
    /// Packets that came as a copy in another (RED) only.
    pub copied: u64,
    /// Packets that were overtaken, and not asked for.
    pub reordered: u64,
    /// Duplicates, and packets that came too late.
    pub late: u64,
    /// Packets asked for; each time counts.
    pub asked: u64,
    /// Pictures that came whole and could not be decoded.
    pub withheld: u64,
    /// Keyframes asked for, in the order of [`KeyframeReason`].
    pub keyframe_requests: [u64; 4],
}

/// One track on its way.
#[derive(Debug)]
struct Lane {
    reorder: Reorder,
    timestamps: Timestamps,
    /// The last frame's time, to tell where a gap begins.
    last: Option<Duration>,
    heard: Option<Instant>,
    /// It was not silent when it was looked at last.
    flows: bool,
    kind: LaneKind,
}

#[derive(Debug)]
enum LaneKind {
    Video {
        assembler: vp8::Assembler,
        keyframes: Keyframes,
    },
    /// Whether packets were lost since the last one.
    Audio {
        loss: bool,
    },
}

/// All tracks of one publisher: reorder, depacketize, align.
#[derive(Debug)]
pub struct Pipeline {
    origin: Instant,
    lanes: Vec<Lane>,
    timeline: Timeline,
    events: VecDeque<Event>,
    feedback: VecDeque<Feedback>,
}

impl Pipeline {
    /// A pipeline whose time 0 is `origin`.
    pub fn new(config: Config, tracks: &[TrackSetup], origin: Instant) -> Self {
        let lane = |setup: &TrackSetup| Lane {
            reorder: Reorder::new(
                if setup.nack { config.reorder_window } else { config.reorder_window.min(UNREPEATABLE) },
                setup.nack,
            ),
            timestamps: Timestamps::new(setup.track.codec.clock_rate()),
            last: None,
            heard: None,
            flows: false,
            // Offers are answered with VP8 and Opus only: the one payload format of each kind.
            kind: match setup.track.codec.kind() {
                media::Kind::Video => LaneKind::Video {
                    assembler: vp8::Assembler::default(),
                    keyframes: Keyframes::new(config.keyframe_interval),
                },
                media::Kind::Audio => LaneKind::Audio { loss: false },
            },
        };
        let is_video = |setup: &TrackSetup| setup.track.codec.kind() == media::Kind::Video;
        let leader = tracks.iter().position(is_video).unwrap_or(0);
        Self {
            origin,
            lanes: tracks.iter().map(lane).collect(),
            timeline: Timeline::new(tracks.len(), leader),
            events: VecDeque::new(),
            feedback: VecDeque::new(),
        }
    }

    /// Takes one packet.
    pub fn packet(&mut self, track: usize, packet: Packet, arrived: Instant) {
        let at = self.micros(arrived);
        let lane = &mut self.lanes[track];
        lane.heard = Some(arrived);
        lane.reorder.counts.received += 1;
        if packet.red {
            let Some((payload, copies)) = red::unpack(&packet.payload) else { return };
            for copy in copies {
                let sequence = packet.sequence.wrapping_sub(copy.ago);
                let timestamp = packet.timestamp.wrapping_sub(copy.offset);
                // The hole may be known only with this packet: it is the newest.
                if lane.reorder.wants(sequence) {
                    let copy =
                        Packet { sequence, timestamp, marker: false, payload: copy.payload, red: false };
                    lane.reorder.push_copy(copy, arrived);
                }
            }
            let media = lane.timestamps.micros(packet.timestamp);
            self.timeline.arrived(track, media, at);
            lane.reorder.push(Packet { payload, ..packet }, arrived);
        } else {
            // A packet that was asked for again says nothing of how long packets take.
            if !lane.reorder.lacks(packet.sequence) {
                let media = lane.timestamps.micros(packet.timestamp);
                self.timeline.arrived(track, media, at);
            }
            lane.reorder.push(packet, arrived);
        }
        self.take(track, arrived);
    }

    /// Takes a sender report's pair of times (RFC 3550 section 6.4.1): `ntp` in 32.32 fixed point.
    pub fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32, arrived: Instant) {
        let at = self.micros(arrived);
        let lane = &mut self.lanes[track];
        // Before any packet there is no media time to relate it to.
        if let (Some(wall), Some(_)) = (sync::ntp_micros(ntp), lane.heard) {
            let media = lane.timestamps.micros_near(rtp);
            self.timeline.reported(track, media, wall, at);
        }
    }

    /// The round trip, as somebody else measured it; NACKs are paced by it.
    pub fn round_trip(&mut self, round_trip: Duration) {
        for lane in &mut self.lanes {
            lane.reorder.set_round_trip(round_trip);
        }
    }

    /// Lets time pass: closes windows, repeats NACKs, asks for keyframes.
    pub fn handle_timeout(&mut self, now: Instant) {
        for track in 0..self.lanes.len() {
            self.take(track, now);
        }
    }

    /// When `handle_timeout` is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |lane: &Lane| {
            let keyframe = match &lane.kind {
                // One that passed while the track fell silent waits for its next packet.
                LaneKind::Video { keyframes, .. } => keyframes
                    .deadline()
                    .filter(|at| lane.flows && lane.heard.is_some_and(|heard| *at < heard + SILENT)),
                LaneKind::Audio { .. } => None,
            };
            lane.reorder.deadline().into_iter().chain(keyframe).min()
        };
        self.lanes.iter().filter_map(of).min()
    }

    /// Whether packets wait behind a hole: what came of the publisher last is not all out yet.
    pub fn has_hole(&self) -> bool {
        self.lanes.iter().any(|lane| lane.reorder.holds())
    }

    /// The next event, in the order it left the reorder window.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What became of each track's packets since it was last asked.
    pub fn take_counts(&mut self) -> impl Iterator<Item = (media::Kind, Counts)> {
        self.lanes.iter_mut().map(|lane| {
            let mut counts = std::mem::take(&mut lane.reorder.counts);
            match &mut lane.kind {
                LaneKind::Video { assembler, .. } => {
                    counts.withheld = std::mem::take(&mut assembler.withheld);
                    (media::Kind::Video, counts)
                }
                LaneKind::Audio { .. } => (media::Kind::Audio, counts),
            }
        })
    }

    /// The next thing to tell the publisher.
    pub fn poll_feedback(&mut self) -> Option<Feedback> {
        self.feedback.pop_front()
    }

    /// Asks for a keyframe of every video track as soon as allowed (a viewer joined).
    pub fn want_keyframe(&mut self, now: Instant) {
        for track in 0..self.lanes.len() {
            if let LaneKind::Video { keyframes, .. } = &mut self.lanes[track].kind {
                keyframes.wanted(now);
            }
            self.take(track, now);
        }
    }

    /// The publisher is gone: releases all that is whole, without waiting any longer.
    pub fn finish(&mut self, now: Instant) {
        for track in 0..self.lanes.len() {
            self.lanes[track].reorder.finish();
            self.take(track, now);
        }
        self.feedback.clear();
    }

    fn micros(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
    }

    /// Moves one track on as far as it goes.
    fn take(&mut self, track: usize, now: Instant) {
        let lane = &mut self.lanes[track];
        lane.reorder.handle_timeout(now);
        while let Some(item) = self.lanes[track].reorder.pop() {
            match item {
                Item::Lost(packets) => {
                    self.events.push_back(Event::Lost { track, packets });
                    match &mut self.lanes[track].kind {
                        LaneKind::Video { assembler, .. } => assembler.lost(),
                        LaneKind::Audio { loss } => *loss = true,
                    }
                }
                Item::Packet(packet) => self.frame(track, packet, now),
            }
        }
        let lane = &mut self.lanes[track];
        let sequences = lane.reorder.nacks(now);
        if !sequences.is_empty() {
            self.feedback.push_back(Feedback::Nack { track, sequences });
        }
        lane.flows = lane.heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENT);
        if let LaneKind::Video { assembler, keyframes } = &mut lane.kind
            && lane.flows
        {
            if assembler.needs_keyframe() {
                keyframes.lost(now);
            }
            if let Some(reason) = keyframes.ask(now) {
                lane.reorder.counts.keyframe_requests[reason as usize] += 1;
                self.feedback.push_back(Feedback::KeyframeRequest { track });
            }
        }
    }

    /// A packet in order may complete a frame.
    fn frame(&mut self, track: usize, packet: Packet, now: Instant) {
        let lane = &mut self.lanes[track];
        let (timestamp, keyframe, data, after_gap) = match &mut lane.kind {
            LaneKind::Video { assembler, keyframes } => {
                let Some(frame) = assembler.push(&packet) else { return };
                if frame.keyframe {
                    keyframes.arrived(now);
                }
                (frame.timestamp, frame.keyframe, frame.data, frame.after_gap)
            }
            LaneKind::Audio { loss } => {
                // Only what is a packet of sound gets into the file.
                if media::opus::duration(&packet.payload).is_none() {
                    return;
                }
                (packet.timestamp, true, packet.payload, std::mem::take(loss))
            }
        };
        let media_time = lane.timestamps.micros_near(timestamp);
        let now = i64::try_from(now.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX);
        let time = self.timeline.place(track, media_time, now);
        if let (true, Some(from)) = (after_gap, lane.last) {
            self.events.push_back(Event::Gap(Gap { track, from, to: time, reason: GapReason::Loss }));
        }
        lane.last = Some(time);
        let is_video = matches!(lane.kind, LaneKind::Video { .. });
        let size = if is_video && keyframe { media::vp8::size(&data) } else { None };
        self.events.push_back(Event::Frame(Frame { time, keyframe, size, ..Frame::of(track, data) }));
    }
}
