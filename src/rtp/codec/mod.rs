//! RTP payload formats: what is particular to a codec on the way from packets to frames, a file for each.

mod arena;
pub(super) mod opus;
pub(super) mod vp8;

use crate::media::{Codec, Size, Track};
use crate::rtp::Packet;
use crate::rtp::reorder::Begins;
use bytes::Bytes;

/// An RTP payload format that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadFormat {
    /// RFC 7741.
    Vp8,
    /// RFC 7587.
    Opus,
}

impl PayloadFormat {
    /// All of them; those of one kind in the order in which they are looked for in an offer.
    pub const ALL: [Self; 2] = [Self::Vp8, Self::Opus];

    /// The codec that it carries.
    pub const fn codec(self) -> Codec {
        match self {
            Self::Vp8 => Codec::Vp8,
            Self::Opus => Codec::Opus,
        }
    }

    /// The track that comes of it.
    pub const fn track(self) -> Track {
        match self {
            Self::Vp8 => Track::video(Codec::Vp8),
            // RFC 7587 section 7: the channels of `a=rtpmap` are always 2.
            Self::Opus => Track::opus(2),
        }
    }

    /// The picture size, if this payload begins a keyframe and says it.
    pub fn keyframe_size(self, payload: &[u8]) -> Option<Size> {
        match self {
            Self::Vp8 => vp8::keyframe_size(payload),
            Self::Opus => None,
        }
    }

    /// Tells the packets with which a decoder can begin; `None` where it can with any.
    pub(super) fn begins(self) -> Option<Begins> {
        match self {
            Self::Vp8 => Some(vp8::begins),
            Self::Opus => None,
        }
    }
}

/// A whole frame, by its publisher's clock.
#[derive(Debug)]
pub(super) struct Assembled {
    pub timestamp: u32,
    pub keyframe: bool,
    pub size: Option<Size>,
    /// See [`crate::media::Frame::private`].
    pub private: Bytes,
    pub data: Bytes,
    /// There is a hole in the track right before it.
    pub after_gap: bool,
    /// Packets before it that never came, where that is known only now.
    pub lost: u32,
}

/// Packets in order become frames that can be decoded (T2).
#[derive(Debug)]
pub(super) enum Depacketizer {
    Vp8(vp8::Depacketizer),
    Opus(opus::Depacketizer),
}

impl Depacketizer {
    pub fn new(format: PayloadFormat) -> Self {
        match format {
            PayloadFormat::Vp8 => Self::Vp8(vp8::Depacketizer::default()),
            PayloadFormat::Opus => Self::Opus(opus::Depacketizer::default()),
        }
    }

    /// Takes the next packet, which is a `copy` if it came in another one only. A frame may come out: the
    /// one that it ends, or the one before.
    pub fn push(&mut self, packet: &Packet<&[u8]>, copy: bool) -> Option<Assembled> {
        match self {
            Self::Vp8(vp8) => vp8.push(packet),
            Self::Opus(opus) => opus.push(packet, copy),
        }
    }

    /// Packets are missing here; gives how many of them are lost for certain.
    pub fn lost(&mut self, packets: u32) -> u32 {
        match self {
            Self::Vp8(vp8) => {
                vp8.lost();
                packets
            }
            Self::Opus(opus) => {
                opus.lost(packets);
                0
            }
        }
    }

    /// Another source goes on; with a `hole` if something is missing in between.
    pub fn restart(&mut self, hole: bool) {
        match self {
            Self::Vp8(vp8) => vp8.restart(hole),
            Self::Opus(opus) => opus.restart(hole),
        }
    }

    /// Whether only a keyframe helps.
    pub fn needs_keyframe(&self) -> bool {
        match self {
            Self::Vp8(vp8) => vp8.needs_keyframe(),
            Self::Opus(_) => false,
        }
    }

    /// Takes the count of frames that came whole and were not released.
    pub fn take_withheld(&mut self) -> u64 {
        match self {
            Self::Vp8(vp8) => std::mem::take(&mut vp8.withheld),
            Self::Opus(_) => 0,
        }
    }
}
