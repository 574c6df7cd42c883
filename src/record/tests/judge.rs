//! What other people's programs say of a file.

use super::media::run;
use crate::media::Frame;
use sha2::{Digest, Sha256};
use std::path::Path;

/// A file as ffprobe and mkvinfo see it.
#[derive(Debug)]
pub struct Seen {
    /// `codec,width,height` or `codec` of each track.
    pub streams: Vec<String>,
    /// In milliseconds.
    pub duration: f64,
    pub packets: Vec<Packet>,
    pub cues: Vec<Cue>,
    /// mkvinfo's whole account.
    pub account: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// TrackNumber.
    pub track: usize,
    pub millis: u64,
    pub keyframe: bool,
    /// It may be discarded: it is silence in a hole.
    pub filler: bool,
    pub sha256: String,
    /// Where its block element begins in the file.
    pub at: u64,
    /// Where its cluster begins, and the cluster's payload.
    pub cluster: (u64, u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    pub track: usize,
    pub millis: u64,
    pub cluster: u64,
    pub relative: u64,
}

/// Decodes a file whole, then asks what is in it.
pub fn judge(path: &Path) -> Seen {
    let file = path.to_str().unwrap();
    run("ffmpeg", &["-nostdin", "-v", "error", "-xerror", "-i", file, "-f", "null", "-"]);
    let probe = |args: &[&str]| run("ffprobe", &[&["-v", "error", "-of", "csv=p=0"], args, &[file]].concat());
    let streams = probe(&["-show_entries", "stream=codec_name,width,height"]);
    let duration = probe(&["-show_entries", "format=duration"]).trim().parse::<f64>();
    let hashes = probe(&["-show_packets", "-show_data_hash", "sha256", "-show_entries", "packet=data_hash"]);
    let account = run("mkvinfo", &["-a", "-p", file]);
    let mut packets = blocks(&account);
    assert_eq!(packets.len(), hashes.lines().count(), "packets seen by mkvinfo and by ffprobe");
    for (packet, hash) in packets.iter_mut().zip(hashes.lines()) {
        packet.sha256 = hash.trim_end_matches(',').trim_start_matches("SHA256:").to_owned();
    }
    Seen {
        streams: streams.lines().map(|line| line.trim_end_matches(',').to_owned()).collect(),
        duration: duration.map_or(f64::NAN, |seconds| seconds * 1000.0),
        packets,
        cues: cues(&account),
        account,
    }
}

/// What stands between `before` and the next blank, comma or end of line.
fn after<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let rest = line.split_once(before)?.1;
    rest.split([' ', ',']).next()
}

fn position(line: &str) -> u64 {
    u64::from_str_radix(line.rsplit_once("at 0x").unwrap().1, 16).unwrap()
}

/// `00:00:01.230000000` in milliseconds.
fn clock(text: &str) -> u64 {
    let parts: Vec<f64> = text.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]) * 1000.0).round() as u64
}

fn blocks(account: &str) -> Vec<Packet> {
    let (mut cluster, mut packets) = ((0, 0), Vec::new());
    for line in account.lines() {
        if line.starts_with("|+ Cluster at") {
            cluster.0 = position(line);
        } else if line.starts_with("| + Cluster timestamp:") {
            cluster.1 = position(line);
        } else if line.starts_with("| + Simple block:") {
            packets.push(Packet {
                track: after(line, "track number ").unwrap().parse().unwrap(),
                millis: clock(after(line, "timestamp ").unwrap()),
                keyframe: line.contains("Simple block: key"),
                filler: line.contains("discardable"),
                sha256: String::new(),
                at: position(line),
                cluster,
            });
        }
    }
    packets
}

fn cues(account: &str) -> Vec<Cue> {
    let mut cues = Vec::<Cue>::new();
    let mut millis = 0;
    for line in account.lines() {
        if let Some(time) = after(line, "Cue time: ") {
            millis = clock(time);
        } else if let Some(track) = after(line, "Cue track: ") {
            cues.push(Cue { track: track.parse().unwrap(), millis, cluster: 0, relative: 0 });
        } else if let Some(at) = after(line, "Cue cluster position: ") {
            cues.last_mut().unwrap().cluster = at.parse().unwrap();
        } else if let Some(at) = after(line, "Cue relative position: ") {
            cues.last_mut().unwrap().relative = at.parse().unwrap();
        }
    }
    cues
}

impl Seen {
    /// Where the Segment's payload begins.
    fn segment(&self) -> u64 {
        let line = self.account.lines().find(|line| line.starts_with("|+ Seek head at")).unwrap();
        position(line)
    }

    /// Every keyframe of a track has a cue that points exactly at its block, and there are no others.
    pub fn assert_a_cue_for_each_keyframe_of(&self, track: usize) {
        let keyframes = self.packets.iter().filter(|packet| packet.track == track && packet.keyframe);
        let expected: Vec<_> = keyframes
            .map(|packet| Cue {
                track,
                millis: packet.millis,
                cluster: packet.cluster.0 - self.segment(),
                relative: packet.at - packet.cluster.1,
            })
            .collect();
        assert!(!expected.is_empty(), "no keyframe");
        assert_eq!(self.cues, expected);
    }

    /// Every cue points exactly at a block of its track and time.
    pub fn assert_cues_point_at_blocks(&self) {
        for cue in &self.cues {
            let exact = |packet: &&Packet| {
                (packet.track, packet.millis) == (cue.track, cue.millis)
                    && packet.cluster.0 == cue.cluster + self.segment()
                    && packet.at == cue.relative + packet.cluster.1
            };
            assert_eq!(self.packets.iter().filter(exact).count(), 1, "{cue:?}");
        }
    }

    /// The SeekHead names Info, Tracks, Cues and Tags where they are.
    pub fn assert_seek_head_is_right(&self) {
        let at = |start: &str| self.account.lines().find(|line| line.starts_with(start)).map(position);
        let places: Vec<_> =
            ["|+ Segment information at", "|+ Tracks at", "|+ Cues at", "|+ Tags at"].map(at).to_vec();
        let seeks: Vec<_> = self
            .account
            .lines()
            .filter_map(|line| after(line, "Seek position: "))
            .map(|position| Some(position.parse::<u64>().unwrap() + self.segment()))
            .collect();
        assert_eq!(seeks, places, "{}", self.account.lines().take(40).collect::<Vec<_>>().join("\n"));
    }

    /// The blocks of a track are these frames, byte for byte and in this order, but for silence in holes.
    pub fn assert_holds(&self, track: usize, frames: &[Frame]) {
        let hash = |frame: &Frame| Sha256::digest(&frame.data).iter().map(|b| format!("{b:02x}")).collect();
        let sent: Vec<String> = frames.iter().map(hash).collect();
        let blocks = self.packets.iter().filter(|packet| packet.track == track && !packet.filler);
        let kept: Vec<String> = blocks.map(|packet| packet.sha256.clone()).collect();
        assert!(kept == sent, "track {track}: {} frames sent, {} kept, or others", sent.len(), kept.len());
    }

    /// The blocks of a track are the first of these frames; returns how many.
    pub fn assert_holds_the_first(&self, track: usize, frames: &[Frame]) -> usize {
        let kept = self.packets.iter().filter(|packet| packet.track == track && !packet.filler).count();
        assert!(kept <= frames.len(), "{kept} frames kept of {} sent", frames.len());
        self.assert_holds(track, &frames[..kept]);
        kept
    }

    /// Blocks come in order of time, over all clusters.
    pub fn assert_in_order(&self) {
        let back = self.packets.windows(2).find(|pair| pair[1].millis < pair[0].millis);
        assert_eq!(back, None, "time goes back");
    }
}
