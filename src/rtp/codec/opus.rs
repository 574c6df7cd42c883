//! Opus (RFC 7587): a packet is a frame.

use super::Assembled;
use super::arena::Arena;
use crate::media::opus;
use crate::rtp::Packet;
use bytes::Bytes;

/// A second of sound at 64 kbit/s.
const PIECE: usize = 4 << 10;

/// Sound in order.
#[derive(Debug)]
pub(in crate::rtp) struct Depacketizer {
    frames: Arena,
    /// Packets that never came since the last one.
    lost: u32,
    /// Timestamps at which that one begins and ends.
    written: Option<(u32, u32)>,
    /// The next one is another source's, and what lay between is missing.
    hole: bool,
}

impl Default for Depacketizer {
    fn default() -> Self {
        Self { frames: Arena::new(PIECE), lost: 0, written: None, hole: false }
    }
}

impl Depacketizer {
    /// Packets are missing here. Sound that goes right on behind them lacks nothing: they were padding.
    pub fn lost(&mut self, packets: u32) {
        self.lost = self.lost.saturating_add(packets);
    }

    /// What comes next is another source's, whose timestamps say nothing of this one's.
    pub fn restart(&mut self, hole: bool) {
        (self.lost, self.written, self.hole) = (0, None, hole);
    }

    pub fn push(&mut self, packet: &Packet<&[u8]>, copy: bool) -> Option<Assembled> {
        // Only what is a packet of sound gets into the file; padding is empty.
        let length = opus::duration(packet.payload)?;
        let newer = |than: u32| packet.timestamp.wrapping_sub(than).cast_signed() > 0;
        if copy && self.written.is_some_and(|(begins, _)| !newer(begins)) {
            return None;
        }
        let ticks = (length.as_micros() * 48 / 1000) as u32;
        let before = self.written.replace((packet.timestamp, packet.timestamp.wrapping_add(ticks)));
        let lost = std::mem::take(&mut self.lost);
        let goes_on = before.is_none_or(|(_, ends)| ends == packet.timestamp);
        let hole = std::mem::take(&mut self.hole);
        let (after_gap, lost) = if goes_on { (hole, 0) } else { (lost > 0, lost) };
        self.frames.push(packet.payload);
        Some(Assembled {
            timestamp: packet.timestamp,
            keyframe: true,
            size: None,
            private: Bytes::new(),
            data: self.frames.finish(),
            after_gap,
            lost,
        })
    }
}
