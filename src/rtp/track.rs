//! One track on its way: packets in order become frames, which may wait until their time is known.

use crate::media::Kind;
use crate::rtp::codec::{Assembled, Depacketizer};
use crate::rtp::keyframe::Keyframes;
use crate::rtp::reorder::{Item, Reorder};
use crate::rtp::sequence::Timestamps;
use crate::rtp::{Config, PACKET, Packet, TrackSetup};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Audio that can't be sent again waits this long at most: for a packet that was overtaken, or for
/// the copies in the next ones.
const UNREPEATABLE: Duration = Duration::from_millis(250);
/// What frames may hold in memory that wait for their time: 600 ms of 50 Mbit/s. With more of them their
/// time is what it seems to be then.
const MAX_WAITING: usize = 4 << 20;

/// A frame at this many microseconds of its publisher's clock.
#[derive(Debug)]
pub(super) struct Untimed {
    pub media: i64,
    pub frame: Assembled,
}

#[derive(Debug)]
pub(super) struct TrackState {
    pub reorder: Reorder,
    pub timestamps: Timestamps,
    /// The last frame's time, to tell where a gap begins.
    pub last: Option<Duration>,
    pub heard: Option<Instant>,
    /// It was not silent when it was looked at last.
    pub flows: bool,
    pub depacketizer: Depacketizer,
    /// Of pictures: when keyframes are asked for.
    pub keyframes: Option<Keyframes>,
    waiting: VecDeque<Untimed>,
    waiting_bytes: usize,
}

impl TrackState {
    pub fn new(setup: &TrackSetup, config: &Config) -> Self {
        let codec = setup.format.codec();
        let window = if setup.nack { config.reorder_window } else { config.reorder_window.min(UNREPEATABLE) };
        Self {
            reorder: Reorder::new(window, setup.nack, setup.format.begins()),
            timestamps: Timestamps::new(codec.clock_rate()),
            last: None,
            heard: None,
            flows: false,
            depacketizer: Depacketizer::new(setup.format),
            keyframes: (codec.kind() == Kind::Video).then(|| Keyframes::new(config.keyframe_interval)),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Pictures have keyframes.
    pub fn kind(&self) -> Kind {
        if self.keyframes.is_some() { Kind::Video } else { Kind::Audio }
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
    pub fn frame(&mut self, packet: &Packet<&[u8]>, copy: bool, now: Instant) -> Option<Untimed> {
        let frame = self.depacketizer.push(packet, copy)?;
        if let (true, Some(keyframes)) = (frame.keyframe, &mut self.keyframes) {
            keyframes.arrived(now);
        }
        Some(Untimed { media: self.timestamps.micros_near(frame.timestamp), frame })
    }

    /// Lets a frame wait until its time is known; whether there is space for more.
    pub fn push_waiting(&mut self, frame: Untimed) -> bool {
        self.waiting_bytes += frame.frame.data.len().max(PACKET);
        self.waiting.push_back(frame);
        self.waiting_bytes <= MAX_WAITING
    }

    /// The oldest frame that waits.
    pub fn pop_waiting(&mut self) -> Option<Untimed> {
        let frame = self.waiting.pop_front()?;
        self.waiting_bytes -= frame.frame.data.len().max(PACKET);
        Some(frame)
    }

    /// The media time of the oldest frame that waits.
    pub fn oldest_waiting(&self) -> Option<i64> {
        self.waiting.front().map(|frame| frame.media)
    }
}
