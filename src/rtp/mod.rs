//! L1: RTP packets in, frames out.
//!
//! Pure: no tokio, no sockets, no clock; every call takes the time as an argument.

use crate::media::{Event, Track};
use bytes::Bytes;
use std::time::{Duration, Instant};

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
#[derive(Clone, Copy, Debug)]
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

/// All tracks of one publisher: reorder, depacketize, align.
#[derive(Debug)]
pub struct Pipeline {}

impl Pipeline {
    /// A pipeline whose time 0 is `origin`.
    pub fn new(_config: Config, _tracks: &[TrackSetup], _origin: Instant) -> Self {
        Self {}
    }

    /// Takes one packet.
    pub fn packet(&mut self, _track: usize, _packet: Packet, _arrived: Instant) {}

    /// Takes a sender report's pair of times (RFC 3550 section 6.4.1): `ntp` in 32.32 fixed point.
    pub fn sender_report(&mut self, _track: usize, _ntp: u64, _rtp: u32, _arrived: Instant) {}

    /// The round trip, as far as known; NACKs are paced by it.
    pub fn round_trip(&mut self, _round_trip: Duration) {}

    /// Lets time pass: closes windows, repeats NACKs, asks for keyframes.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When `handle_timeout` is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The next event, in the order it left the reorder window.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// The next thing to tell the publisher.
    pub fn poll_feedback(&mut self) -> Option<Feedback> {
        None
    }

    /// Asks for a keyframe of every video track as soon as allowed (a viewer joined).
    pub fn want_keyframe(&mut self, _now: Instant) {}

    /// The publisher is gone: releases all that is whole, without waiting any longer.
    pub fn finish(&mut self, _now: Instant) {}
}
