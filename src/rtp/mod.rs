//! RTP packets in, frames out.
//!
//! ```text
//! packet ─▶ red ─▶ reorder (holes wait, are asked for) ─▶ track, codec (frames that can be decoded) ─▶ sync ─▶ Event
//! ```
//!
//! Padding takes its sequence number and nothing else: it says nothing of sound, pictures and clocks.
//!
//! It counts what became of packets ([`Counts`]); its owner adds that up.
//!
//! Pure: no tokio, no sockets, no clock; every call takes the time as an argument.

mod codec;
mod keyframe;
mod red;
mod reorder;
mod resumption;
mod sequence;
mod sync;
#[cfg(test)]
mod tests;
mod track;

use crate::media::{Event, Frame, Gap, GapReason, Kind, opus};
use crate::rtp::codec::Assembled;
pub use crate::rtp::codec::PayloadFormat;
use crate::rtp::keyframe::Keyframes;
pub use crate::rtp::keyframe::Reason as KeyframeReason;
use crate::rtp::sync::Timeline;
use crate::rtp::track::TrackState;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a packet or a frame that is kept counts for at least, whatever its size: a small one may be all that
/// keeps a larger piece of memory.
const PACKET: usize = 2048;
/// Without a packet for this long a track is silent, and no keyframe is asked for.
const SILENT: Duration = Duration::from_secs(2);

/// One packet of a track's primary stream (retransmissions already unwrapped: RFC 4588).
#[derive(Clone, Copy, Debug)]
pub struct Packet<P = Bytes> {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in the codec's clock.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Payload without padding.
    pub payload: P,
    /// The payload is RED around Opus (RFC 2198).
    pub red: bool,
}

impl<P> Packet<P> {
    /// The same packet with another payload.
    pub fn with<Q>(&self, payload: Q) -> Packet<Q> {
        let Self { sequence, timestamp, marker, red, .. } = *self;
        Packet { sequence, timestamp, marker, payload, red }
    }
}

/// What the pipeline needs to know of a track.
#[derive(Clone, Debug)]
pub struct TrackSetup {
    /// What its packets carry.
    pub format: PayloadFormat,
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

/// All tracks of one publisher: reorder, depacketize, align.
#[derive(Debug)]
pub struct Pipeline {
    origin: Instant,
    tracks: Vec<TrackState>,
    timeline: Timeline,
    events: VecDeque<Event>,
    feedback: VecDeque<Feedback>,
}

impl Pipeline {
    /// A pipeline whose time 0 is `origin`.
    pub fn new(config: Config, tracks: &[TrackSetup], origin: Instant) -> Self {
        let is_video = |setup: &TrackSetup| setup.format.codec().kind() == Kind::Video;
        let leader = tracks.iter().position(is_video).unwrap_or(0);
        Self {
            origin,
            tracks: tracks.iter().map(|setup| TrackState::new(setup, &config)).collect(),
            timeline: Timeline::new(tracks.len(), leader),
            events: VecDeque::new(),
            feedback: VecDeque::new(),
        }
    }

    /// Takes one packet. In order, it is copied to where its frame is put together, and nowhere else.
    pub fn packet<P: AsRef<[u8]>>(&mut self, track: usize, packet: Packet<P>, arrived: Instant) {
        let at = self.micros(arrived);
        let state = &mut self.tracks[track];
        state.reorder.counts.received += 1;
        let Packet { sequence, timestamp, red, .. } = packet;
        let whole = packet.payload.as_ref();
        let payload = if red { red::own_payload(whole).unwrap_or_default() } else { whole };
        if !payload.is_empty() {
            state.heard = Some(arrived);
            // A packet that was asked for again says nothing of how long packets take.
            if !state.reorder.is_missing(sequence) {
                let media = state.timestamps.micros(timestamp);
                self.timeline.arrived(track, media, at);
            }
        }
        if state.reorder.passes(sequence) {
            self.in_order(track, &packet.with(payload), false, arrived);
        } else {
            state.reorder.push(packet.with(Bytes::copy_from_slice(payload)), arrived);
            // Copies are of packets that are missing, or of nothing.
            let copies = if red && state.reorder.holds() { red::copies(whole) } else { Vec::new() };
            for copy in copies {
                let timestamp = timestamp.wrapping_sub(copy.offset);
                let copy = Packet { sequence, timestamp, marker: false, payload: copy.payload, red };
                state.reorder.push_copy(sequence, copy, arrived);
            }
        }
        self.take(track, arrived);
    }

    /// Takes a sender report's pair of times (RFC 3550 section 6.4.1): `ntp` in 32.32 fixed point.
    pub fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32, arrived: Instant) {
        let at = self.micros(arrived);
        let state = &mut self.tracks[track];
        // Before any packet there is no media time to relate it to.
        if let (Some(wall), Some(_)) = (sync::ntp_micros(ntp), state.heard) {
            let media = state.timestamps.micros_near(rtp);
            self.timeline.reported(track, media, wall, at);
        }
    }

    /// The round trip, as measured by ICE; NACKs are paced by it.
    pub fn round_trip(&mut self, round_trip: Duration) {
        for state in &mut self.tracks {
            state.reorder.set_round_trip(round_trip);
        }
    }

    /// Lets time pass: closes windows, repeats NACKs, asks for keyframes.
    pub fn handle_timeout(&mut self, now: Instant) {
        for track in 0..self.tracks.len() {
            self.take(track, now);
        }
    }

    /// When `handle_timeout` is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |state: &TrackState| {
            // One that passed while the track fell silent waits for its next packet.
            let expected =
                |at: &Instant| state.flows && state.heard.is_some_and(|heard| *at < heard + SILENT);
            let keyframe = state.keyframes.as_ref().and_then(Keyframes::deadline).filter(expected);
            state.reorder.deadline().into_iter().chain(keyframe).min()
        };
        let settles =
            self.timeline.deadline().map(|at| self.origin + Duration::from_micros(at.unsigned_abs()));
        self.tracks.iter().filter_map(of).chain(settles).min()
    }

    /// Whether packets wait behind a hole, or frames for their time: what came of the publisher last is
    /// not all out yet.
    pub fn has_hole(&self) -> bool {
        self.tracks.iter().any(|state| state.reorder.holds() || state.oldest_waiting().is_some())
    }

    /// The next event, in the order it left the reorder window.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What became of each track's packets since it was last asked.
    pub fn take_counts(&mut self) -> impl Iterator<Item = (Kind, Counts)> {
        self.tracks.iter_mut().map(|state| {
            let withheld = state.depacketizer.take_withheld();
            (state.kind(), Counts { withheld, ..std::mem::take(&mut state.reorder.counts) })
        })
    }

    /// The next thing to tell the publisher.
    pub fn poll_feedback(&mut self) -> Option<Feedback> {
        self.feedback.pop_front()
    }

    /// Asks for a keyframe of every video track as soon as allowed (a viewer joined).
    pub fn request_keyframe(&mut self, now: Instant) {
        for track in 0..self.tracks.len() {
            if let Some(keyframes) = &mut self.tracks[track].keyframes {
                keyframes.wanted(now);
            }
            self.take(track, now);
        }
    }

    /// The publisher is gone: releases all that is whole, without waiting any longer.
    pub fn finish(&mut self, now: Instant) {
        for track in 0..self.tracks.len() {
            self.tracks[track].reorder.finish();
            self.take(track, now);
            self.timeline.settle(track);
            self.release_timed(track, now);
        }
        self.feedback.clear();
    }

    /// A track goes on from another source (SSRC), with numbers, timestamps and pictures of its own; with a
    /// `hole` if what the old one would have sent in between is missing. What of that one still waited
    /// behind a hole comes out first, so that nothing of both is mixed.
    pub fn replace_source(&mut self, track: usize, hole: bool, now: Instant) {
        self.tracks[track].reorder.finish();
        self.take(track, now);
        self.timeline.settle(track);
        self.release_timed(track, now);
        let state = &mut self.tracks[track];
        state.reorder.restart();
        state.timestamps.restart();
        state.depacketizer.restart(hole);
        self.timeline.replaced(track);
    }

    fn micros(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
    }

    /// Moves one track on as far as it goes.
    fn take(&mut self, track: usize, now: Instant) {
        self.tracks[track].reorder.handle_timeout(now);
        while let Some(next) = self.tracks[track].pop() {
            match next {
                Ok((packet, copy)) => self.in_order(track, &packet.with(&packet.payload[..]), copy, now),
                Err(packets) => {
                    let lost = self.tracks[track].depacketizer.lost(packets);
                    self.lost(track, lost);
                }
            }
        }
        self.release_timed(track, now);
        self.ask(track, now);
    }

    /// The next packet of a track, which may complete a frame.
    fn in_order(&mut self, track: usize, packet: &Packet<&[u8]>, copy: bool, now: Instant) {
        let state = &mut self.tracks[track];
        let Some(frame) = state.frame(packet, copy, now) else { return };
        if !state.push_waiting(frame) {
            self.timeline.settle(track);
        }
        self.release_timed(track, now);
    }

    fn lost(&mut self, track: usize, packets: u32) {
        if packets > 0 {
            self.events.push_back(Event::Lost { track, packets });
        }
    }

    /// Asks for what a track lacks.
    fn ask(&mut self, track: usize, now: Instant) {
        let state = &mut self.tracks[track];
        let sequences = state.reorder.nacks(now);
        if !sequences.is_empty() {
            self.feedback.push_back(Feedback::Nack { track, sequences });
        }
        state.flows = state.heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENT);
        // Before the start is known, the first keyframe may just be overtaken.
        if let Some(keyframes) = &mut state.keyframes
            && state.flows
            && !state.reorder.opens()
        {
            if state.depacketizer.needs_keyframe() {
                keyframes.lost(now);
            }
            if let Some(reason) = keyframes.ask(now) {
                state.reorder.counts.keyframe_requests[reason as usize] += 1;
                self.feedback.push_back(Feedback::KeyframeRequest { track });
            }
        }
    }

    /// Gives the frames that wait their times, where these are known.
    fn release_timed(&mut self, track: usize, now: Instant) {
        let at = self.micros(now);
        self.timeline.handle_timeout(track, at);
        while let Some(media) = self.tracks[track].oldest_waiting()
            && !self.timeline.is_unsettled(track, media)
            && let Some(frame) = self.tracks[track].pop_waiting()
        {
            self.emit(track, media, frame.frame, at);
        }
    }

    fn emit(&mut self, track: usize, media: i64, frame: Assembled, now: i64) {
        let Assembled { keyframe, size, private, data, after_gap, lost, .. } = frame;
        let state = &mut self.tracks[track];
        if let (Kind::Audio, Some(length)) = (state.kind(), opus::duration(&data)) {
            self.timeline.lasts(track, i64::try_from(length.as_micros()).unwrap_or(0));
        }
        let time = self.timeline.time_of(track, media, now);
        let last = state.last.replace(time);
        self.lost(track, lost);
        if let (true, Some(from)) = (after_gap, last) {
            self.events.push_back(Event::Gap(Gap { track, from, to: time, reason: GapReason::Loss }));
        }
        let frame = Frame { time, keyframe, size, private, ..Frame::of(track, data) };
        self.events.push_back(Event::Frame(frame));
    }
}
