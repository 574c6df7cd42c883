//! The codecs that are recorded, and what RTP and files call them: one table for offers, depacketizers and
//! muxers.

use crate::media::{Kind, Size, jpeg, vp8, vp9};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A codec we record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// RFC 6386; RTP payload RFC 7741.
    Vp8,
    /// VP9 bitstream specification, version 0.6.
    Vp9,
    /// AV1 bitstream specification, version 1.0.0.
    Av1,
    /// ITU-T H.264; frames are length-prefixed NAL units (ISO/IEC 14496-15).
    H264,
    /// A JPEG image a frame (ITU-T T.81).
    Mjpeg,
    /// RFC 6716; RTP payload RFC 7587.
    Opus,
    /// ISO/IEC 14496-3. Kept in MP4 as it comes; never demuxed.
    Aac,
}

/// A row of the table.
struct Facts {
    kind: Kind,
    name: &'static str,
    /// The encoding of `a=rtpmap` (RFC 8866 section 6.6): name, clock rate, channels.
    rtpmap: &'static str,
    matroska: &'static str,
    webm: bool,
}

const fn video(name: &'static str, rtpmap: &'static str, matroska: &'static str, webm: bool) -> Facts {
    Facts { kind: Kind::Video, name, rtpmap, matroska, webm }
}

const fn audio(name: &'static str, rtpmap: &'static str, matroska: &'static str, webm: bool) -> Facts {
    Facts { kind: Kind::Audio, name, rtpmap, matroska, webm }
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Vp8, Self::Vp9, Self::Av1, Self::H264, Self::Mjpeg, Self::Opus, Self::Aac];

    const fn facts(self) -> Facts {
        match self {
            Self::Vp8 => video("vp8", "VP8/90000", "V_VP8", true),
            Self::Vp9 => video("vp9", "VP9/90000", "V_VP9", true),
            Self::Av1 => video("av1", "AV1/90000", "V_AV1", true),
            Self::H264 => video("h264", "H264/90000", "V_MPEG4/ISO/AVC", false),
            Self::Mjpeg => video("mjpeg", "JPEG/90000", "V_MJPEG", false),
            Self::Opus => audio("opus", "opus/48000/2", "A_OPUS", true),
            Self::Aac => audio("aac", "MPEG4-GENERIC/48000/2", "A_AAC", false),
        }
    }

    /// What it carries.
    pub const fn kind(self) -> Kind {
        self.facts().kind
    }

    /// Its name in manifests and the API.
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// What `a=rtpmap` calls it, with its clock rate and channels.
    pub const fn rtpmap(self) -> &'static str {
        self.facts().rtpmap
    }

    /// Ticks of its RTP clock in a second.
    pub const fn clock_rate(self) -> u32 {
        match self.kind() {
            Kind::Video => 90_000,
            Kind::Audio => 48_000,
        }
    }

    /// Matroska's CodecID.
    pub const fn matroska_id(self) -> &'static str {
        self.facts().matroska
    }

    /// The codec behind a CodecID of Matroska.
    pub fn of_matroska_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.matroska_id() == id)
    }

    /// Whether WebM may hold it, which is Matroska with a short list of codecs.
    pub const fn is_in_webm(self) -> bool {
        self.facts().webm
    }

    /// Whether every picture is a keyframe, so that none marks a position of its own.
    pub fn is_intra_only(self) -> bool {
        self == Self::Mjpeg
    }

    /// The picture size that a keyframe tells; `None` where only the container knows it.
    pub fn size_of(self, keyframe: &[u8]) -> Option<Size> {
        match self {
            Self::Vp8 => vp8::size(keyframe),
            Self::Vp9 => vp9::size(keyframe),
            Self::Mjpeg => jpeg::measure(keyframe).ok().map(|(_, size)| size),
            _ => None,
        }
    }
}
