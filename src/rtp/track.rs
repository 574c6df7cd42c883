//! One track on its way: packets in order become frames, which may wait until their time is known.

use crate::media::{self, Size};
use crate::rtp::codec::vp8;
use crate::rtp::keyframe::Keyframes;
use crate::rtp::reorder::{Begins, Item, Reorder};
use crate::rtp::sequence::Timestamps;
use crate::rtp::{Config, PACKET, Packet, TrackSetup};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Audio that can't be sent again waits this long at most: for a packet that was overtaken, or for
/// the copies in the next ones.
const UNREPEATABLE: Duration = Duration::from_millis(250);
/// What frames may hold in memory that wait for their time: 600 ms of 50 Mbit/s. With more of them their
/// time is what it seems to be then.
const MAX_WAITING: usize = 4 << 20;

/// A whole frame, by its publisher's clock.
#[derive(Debug)]
pub(super) struct Untimed {
    /// Microseconds of the media clock.
    pub media: i64,
    pub keyframe: bool,
    pub size: Option<Size>,
    pub data: Bytes,
    /// There is a hole in the track right before it.
    pub after_gap: bool,
    /// Packets before it that never came.
    pub lost: u32,
}

#[derive(Debug)]
pub(super) struct TrackState {
    pub reorder: Reorder,
    pub timestamps: Timestamps,
    /// The last frame's time, to tell where a gap begins.
    pub last: Option<Duration>,
    /// When media came last.
    pub heard: Option<Instant>,
    /// It was not silent when it was looked at last.
    pub flows: bool,
    pub kind: Kind,
    waiting: VecDeque<Untimed>,
    waiting_bytes: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Video { assembler: vp8::Assembler, keyframes: Keyframes },
    Audio(Sound),
}

/// What came of a track of sound.
#[derive(Debug, Default)]
pub(super) struct Sound {
    /// Packets that were lost since the last one.
    pub lost: u32,
    /// Timestamps at which that one begins and ends.
    written: Option<(u32, u32)>,
    /// The next one is another source's, and what lay between is missing.
    hole: bool,
}

impl Sound {
    /// Takes the next packet; what of it is a frame: whether there is a hole before it, and how many
    /// packets are missing there.
    fn take(&mut self, packet: &Packet, copy: bool) -> Option<(bool, u32)> {
        // Only what is a packet of sound gets into the file; padding is empty.
        let length = media::opus::duration(&packet.payload)?;
        let newer = |than: u32| packet.timestamp.wrapping_sub(than).cast_signed() > 0;
        if copy && self.written.is_some_and(|(begins, _)| !newer(begins)) {
            return None;
        }
        let ticks = (length.as_micros() * 48 / 1000) as u32;
        let before = self.written.replace((packet.timestamp, packet.timestamp.wrapping_add(ticks)));
        let lost = std::mem::take(&mut self.lost);
        // Sound that goes right on, or begins, lacks nothing: what never came was padding.
        let goes_on = before.is_none_or(|(_, ends)| ends == packet.timestamp);
        let hole = std::mem::take(&mut self.hole);
        Some(if goes_on { (hole, 0) } else { (lost > 0, lost) })
    }

    /// What comes next is another source's, whose timestamps say nothing of this one's.
    pub fn restart(&mut self, hole: bool) {
        *self = Self { hole, ..Self::default() };
    }
}

impl TrackState {
    pub fn new(setup: &TrackSetup, config: &Config) -> Self {
        // Offers are answered with VP8 and Opus only: the one payload format of each kind.
        let (kind, begins): (_, Option<Begins>) = match setup.track.codec.kind() {
            media::Kind::Video => {
                let keyframes = Keyframes::new(config.keyframe_interval);
                (Kind::Video { assembler: vp8::Assembler::default(), keyframes }, Some(vp8::begins))
            }
            media::Kind::Audio => (Kind::Audio(Sound::default()), None),
        };
        let window = if setup.nack { config.reorder_window } else { config.reorder_window.min(UNREPEATABLE) };
        Self {
            reorder: Reorder::new(window, setup.nack, begins),
            timestamps: Timestamps::new(setup.track.codec.clock_rate()),
            last: None,
            heard: None,
            flows: false,
            kind,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// The next in order; these many packets were lost where it is an error.
    pub fn pop(&mut self) -> Option<Result<(Packet, bool), u32>> {
        Some(match self.reorder.pop()? {
            Item::Packet(packet) => Ok((packet, false)),
            Item::Copy(packet) => Ok((packet, true)),
            Item::Lost(packets) => Err(packets),
        })
    }

    /// A packet in order may complete a frame.
    pub fn frame(&mut self, packet: &Packet, copy: bool, now: Instant) -> Option<Untimed> {
        let (timestamp, keyframe, data, after_gap, lost) = match &mut self.kind {
            Kind::Video { assembler, keyframes } => {
                let frame = assembler.push(packet)?;
                if frame.keyframe {
                    keyframes.arrived(now);
                }
                (frame.timestamp, frame.keyframe, frame.data, frame.after_gap, 0)
            }
            Kind::Audio(sound) => {
                let (after_gap, lost) = sound.take(packet, copy)?;
                (packet.timestamp, true, packet.payload.clone(), after_gap, lost)
            }
        };
        let is_video = matches!(self.kind, Kind::Video { .. });
        let size = if is_video && keyframe { media::vp8::size(&data) } else { None };
        let media = self.timestamps.micros_near(timestamp);
        Some(Untimed { media, keyframe, size, data, after_gap, lost })
    }

    /// Lets a frame wait until its time is known; whether there is room for more.
    pub fn wait(&mut self, frame: Untimed) -> bool {
        self.waiting_bytes += frame.data.len().max(PACKET);
        self.waiting.push_back(frame);
        self.waiting_bytes <= MAX_WAITING
    }

    /// The oldest frame that waits.
    pub fn waited(&mut self) -> Option<Untimed> {
        let frame = self.waiting.pop_front()?;
        self.waiting_bytes -= frame.data.len().max(PACKET);
        Some(frame)
    }

    /// The media time of the oldest frame that waits.
    pub fn waits(&self) -> Option<i64> {
        self.waiting.front().map(|frame| frame.media)
    }
}
