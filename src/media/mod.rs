//! Facts about media. The vocabulary that every way in and every way out shares.
//!
//! Pure: no tokio, no files, no sockets, no clock of its own.

mod codec;
pub mod h264;
pub mod jpeg;
pub mod opus;
pub mod vp8;
pub mod vp9;

pub use codec::Codec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::BitOrAssign;
use std::time::Duration;
use utoipa::ToSchema;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Kind {
    /// Its name in manifests and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// Picture size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// One track of a stream; a frame names it by its index in the stream's list of tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its codec.
    pub codec: Codec,
    /// Audio channels (0 for video).
    pub channels: u8,
    /// What a decoder needs before the first frame, where the frames don't bring it: H.264's and
    /// AV1's configuration record (avcC, av1C), Opus' identification header (RFC 7845). The same
    /// bytes are Matroska's CodecPrivate. Empty if there is nothing to know.
    pub private: Bytes,
    /// What else a publisher's container says of it, such as which way up it is and what colours mean:
    /// children of Matroska's TrackEntry (RFC 9559 section 5.1.4.1) as they are, but for those that each
    /// file has of its own. Empty where it comes without a container.
    pub entry: Bytes,
}

impl Track {
    /// Pictures of a codec that brings all it needs in its frames.
    pub const fn video(codec: Codec) -> Self {
        Self { codec, channels: 0, private: Bytes::new(), entry: Bytes::new() }
    }

    /// Opus, from the middle of a running encoder.
    pub const fn opus(channels: u8) -> Self {
        Self { codec: Codec::Opus, channels, private: Bytes::new(), entry: Bytes::new() }
    }
}

/// One encoded picture or one packet of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Index into the stream's tracks.
    pub track: usize,
    /// Time since the stream's start; strictly increases within a track. It is when the frame is shown,
    /// but for pictures that are shown before others that were sent before them.
    pub time: Duration,
    /// How long before `time` it is shown: 0 but for such pictures (H.264's B-frames).
    pub early: Duration,
    /// Can be decoded without any other frame (always true for audio).
    pub keyframe: bool,
    /// Picture size, on video keyframes.
    pub size: Option<Size>,
    /// On a keyframe of a codec that brings it in band (H.264's parameter sets): what a decoder needs from
    /// here on, in the form of [`Track::private`]. Else empty: the track's holds.
    pub private: Bytes,
    /// The codec's bitstream, without any transport's framing.
    pub data: Bytes,
    /// What a container says beside it: Matroska's BlockAdditions (an alpha channel) and DiscardPadding
    /// (what to cut off sound) as they are (RFC 9559 section 5.1.3.5). Nearly always empty.
    pub side_data: Bytes,
}

/// What those who read a stream want of its publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// One of them needs a keyframe to begin, or to go on.
    pub keyframe: bool,
    /// Somebody watches: what comes is wanted within a millisecond or two.
    pub watched: bool,
}

impl BitOrAssign for Demand {
    fn bitor_assign(&mut self, other: Self) {
        self.keyframe |= other.keyframe;
        self.watched |= other.watched;
    }
}

impl Frame {
    /// Bytes of memory that a frame takes beside its data, rounded up: itself, its slot in a queue that
    /// grows by doubling, what `Bytes` allocates beside the data to count its readers, and what the
    /// allocator adds. A bound that left it out would hold a hundred times as much of frames of one byte.
    pub const OVERHEAD: usize = 256;

    /// A frame of a track at time 0, which is no keyframe.
    pub const fn of(track: usize, data: Bytes) -> Self {
        let (time, early) = (Duration::ZERO, Duration::ZERO);
        const NONE: Bytes = Bytes::new();
        Self { track, time, early, keyframe: false, size: None, private: NONE, data, side_data: NONE }
    }

    /// Bytes of memory that it takes while it waits.
    pub fn footprint(&self) -> usize {
        self.data.len() + self.side_data.len() + self.private.len() + Self::OVERHEAD
    }
}

/// Why a part of a track is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Packets were lost and not repaired in time.
    Loss,
    /// The publisher was away and came back.
    Reconnect,
    /// Connected, but nothing was sent.
    Silence,
    /// The disk did not keep up.
    Overrun,
    /// The file was damaged there.
    Damage,
    /// The publisher paused.
    Pause,
    /// The publisher's clock was set: how long the hole was is told by when frames arrived.
    Clock,
    /// Packets came that no frame came of.
    Undecodable,
}

impl GapReason {
    /// Its name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Reconnect => "reconnect",
            Self::Silence => "silence",
            Self::Overrun => "overrun",
            Self::Damage => "damage",
            Self::Pause => "pause",
            Self::Clock => "clock",
            Self::Undecodable => "undecodable",
        }
    }
}

/// A hole in a track: nothing was received, or nothing decodable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Index into the stream's tracks.
    pub track: usize,
    /// Time of the last frame before it.
    pub from: Duration,
    /// Time of the first frame after it.
    pub to: Duration,
    /// Why.
    pub reason: GapReason,
}

/// What travels on a stream, in the order it left the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame.
    Frame(Frame),
    /// A hole that has just ended (sent right before the frame that ends it).
    Gap(Gap),
    /// Packets of a track that never came.
    Lost {
        /// Index into the stream's tracks.
        track: usize,
        /// How many.
        packets: u32,
    },
}
