//! Where a publisher's frames come from: a clip in a loop, or made-up frames that are all different.

use super::media::{Clip, Encoded, OPUS_PACKET};
use std::sync::Arc;
use std::time::Duration;

/// An endless row of frames, their times rising from zero.
pub trait Source: Send {
    fn next(&mut self) -> Encoded;

    /// The next video frame should be a keyframe.
    fn request_keyframe(&mut self) {}
}

/// A clip played over and over.
pub struct Looped {
    clip: Clip,
    at: usize,
    time: Duration,
    jumps: bool,
}

impl Looped {
    /// Answers a keyframe request by going on at the clip's next keyframe, so that what is sent can
    /// always be decoded; the picture jumps, the clock doesn't.
    pub fn new(clip: Clip) -> Box<Self> {
        Box::new(Self { clip, at: 0, time: Duration::ZERO, jumps: true })
    }

    /// Shows what the clip shows at each instant, whoever asks for a keyframe: sound and picture stay
    /// together, the next keyframe comes when the clip has one.
    pub fn steady(clip: Clip) -> Box<Self> {
        Box::new(Self { clip, at: 0, time: Duration::ZERO, jumps: false })
    }
}

impl Source for Looped {
    fn next(&mut self) -> Encoded {
        let frames = &self.clip.frames;
        let frame = &frames[self.at];
        let end = frames.get(self.at + 1).map_or(self.clip.duration, |next| next.time);
        let time = self.time;
        self.time += end - frame.time;
        self.at = (self.at + 1) % frames.len();
        Encoded { time, ..frame.clone() }
    }

    fn request_keyframe(&mut self) {
        while self.jumps && !self.clip.frames[self.at].keyframe {
            self.at = (self.at + 1) % self.clip.frames.len();
        }
    }
}

/// Frames with a true VP8 header, a counter and filling: no two are alike, so a hash tells which one
/// arrived. They can't be decoded.
pub struct FakeVideo {
    count: u64,
    fps: u32,
    size: (u16, u16),
    keyframe: bool,
    keyframe_bytes: usize,
    bytes: usize,
}

impl FakeVideo {
    /// 720p30 at about 1.5 Mbit/s; a keyframe at the start and on request only.
    pub fn hd() -> Box<Self> {
        Box::new(Self {
            count: 0,
            fps: 30,
            size: (1280, 720),
            keyframe: true,
            keyframe_bytes: 40_000,
            bytes: 6_000,
        })
    }

    /// 4 Mbit/s: what fills a network's buffers soon.
    pub fn heavy() -> Box<Self> {
        Box::new(Self { bytes: 17_000, ..*Self::hd() })
    }

    /// An encoding of this size, its bitrate as its area.
    pub fn sized(width: u16, height: u16) -> Box<Self> {
        let area = usize::from(width) * usize::from(height);
        let (keyframe_bytes, bytes) = (4_000 + area / 25, 600 + area / 180);
        Box::new(Self { size: (width, height), keyframe_bytes, bytes, ..*Self::hd() })
    }

    /// One packet a frame, for runs of hours.
    pub fn small() -> Box<Self> {
        Box::new(Self { size: (320, 180), keyframe_bytes: 4_000, bytes: 600, ..*Self::hd() })
    }
}

impl Source for FakeVideo {
    fn next(&mut self) -> Encoded {
        let keyframe = std::mem::take(&mut self.keyframe);
        let (width, height) = self.size;
        // RFC 6386 section 9.1: inter frame bit, version 0, show_frame, size of the first partition.
        let mut data = vec![0x10 | u8::from(!keyframe), 0x01, 0x00];
        if keyframe {
            data.extend([0x9d, 0x01, 0x2a]);
            data.extend(width.to_le_bytes());
            data.extend(height.to_le_bytes());
        }
        data.extend(self.count.to_be_bytes());
        data.resize(if keyframe { self.keyframe_bytes } else { self.bytes }, self.count as u8);
        let time = Duration::from_secs(self.count) / self.fps;
        self.count += 1;
        Encoded { time, keyframe, data: data.into() }
    }

    fn request_keyframe(&mut self) {
        self.keyframe = true;
    }
}

/// Packets with a true Opus header (one 20 ms fullband frame), a counter and filling.
#[derive(Default)]
pub struct FakeAudio {
    count: u32,
}

impl Source for FakeAudio {
    fn next(&mut self) -> Encoded {
        let mut data = vec![0xf8]; // RFC 6716 section 3.1: configuration 31, mono, one frame
        data.extend(self.count.to_be_bytes());
        data.resize(120, self.count as u8);
        let time = OPUS_PACKET * self.count;
        self.count += 1;
        Encoded { time, keyframe: true, data: Arc::from(data) }
    }
}
