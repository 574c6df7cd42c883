//! What was kept of what was sent, by hash: decoders don't notice a missing reference, so this is how
//! "nothing undecodable is written" is proven.

use super::judge::{Packet, sha256};
use super::publisher::Sent;
use std::time::Duration;

/// A frame that came out at the other end.
#[derive(Clone, Debug)]
pub struct KeptFrame {
    pub time: Duration,
    pub sha256: String,
}

impl KeptFrame {
    pub fn new(time: Duration, payload: &[u8]) -> Self {
        Self { time, sha256: sha256(payload) }
    }
}

impl From<&Packet> for KeptFrame {
    fn from(packet: &Packet) -> Self {
        Self { time: packet.time, sha256: packet.sha256.clone() }
    }
}

/// A kept frame and the sent one it is.
#[derive(Clone, Copy, Debug)]
pub struct Matched {
    /// Place among what was sent.
    pub index: usize,
    pub keyframe: bool,
    pub captured: Duration,
    pub time: Duration,
}

/// Finds each kept frame among the sent ones of its track, in sending order. Fails on a frame that was
/// not sent, or not after the one before it. Frames that are alike (a clip's second round) are taken
/// for the earliest that fits.
pub fn matched(sent: &[Sent], kept: &[KeptFrame]) -> Result<Vec<Matched>, String> {
    let hashes: Vec<String> = sent.iter().map(|frame| sha256(&frame.data)).collect();
    let mut from = 0;
    let mut all = Vec::with_capacity(kept.len());
    for (n, frame) in kept.iter().enumerate() {
        let found = hashes[from..].iter().position(|hash| *hash == frame.sha256);
        let index =
            from + found.ok_or(format!("frame {n} at {:?} was not sent after its forerunner", frame.time))?;
        let Sent { keyframe, captured, .. } = sent[index];
        all.push(Matched { index, keyframe, captured, time: frame.time });
        from = index + 1;
    }
    Ok(all)
}

/// What is missing of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Holes {
    pub count: usize,
    /// Frames in all holes, those before the first kept one aside.
    pub frames: usize,
    pub longest: Duration,
}

/// The holes between kept frames.
pub fn holes(kept: &[Matched]) -> Holes {
    let mut holes = Holes::default();
    for pair in kept.windows(2) {
        let missing = pair[1].index - pair[0].index - 1;
        if missing > 0 {
            holes.count += 1;
            holes.frames += missing;
            holes.longest = holes.longest.max(pair[1].captured - pair[0].captured);
        }
    }
    holes
}

/// That every video frame is a keyframe or follows, in sending order, the one before it.
pub fn check_decodable(video: &[Matched]) -> Result<(), String> {
    let mut next = None;
    for frame in video {
        if !frame.keyframe && next != Some(frame.index) {
            return Err(format!("frame {} at {:?} lacks what it builds on", frame.index, frame.time));
        }
        next = Some(frame.index + 1);
    }
    Ok(())
}

/// By how many milliseconds audio is later than video where both were captured together: for each video
/// frame its capture time and the offset.
pub fn offsets(video: &[Matched], audio: &[Matched]) -> Vec<(Duration, f64)> {
    let shift = |frame: &Matched| (frame.time.as_secs_f64() - frame.captured.as_secs_f64()) * 1e3;
    let beside = |frame: &Matched| {
        let after = audio.partition_point(|sound| sound.captured < frame.captured);
        audio.get(after).or(audio.last()).map(|sound| (frame.captured, shift(sound) - shift(frame)))
    };
    video.iter().filter_map(beside).collect()
}
