//! Real frames: made by ffmpeg, taken out of its containers by the few lines that takes.

use crate::media::{Codec, Event, Frame, Track, vp8};
use bytes::Bytes;
use std::process::Command;
use std::time::Duration;

pub const VP8: Track = Track::video(Codec::Vp8);
pub const OPUS: Track = Track::opus(2);

/// Runs a program that must succeed in silence; returns what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program} {args:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// VP8 frames of `seconds` of a moving picture at 30 a second, a keyframe every `gop` frames, with
/// times from `start`.
pub fn video(track: usize, size: (u32, u32), seconds: f64, gop: u32, start: Duration) -> Vec<Frame> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.ivf");
    let source = format!("testsrc2=size={}x{}:rate=30", size.0, size.1);
    let (seconds, gop) = (seconds.to_string(), gop.to_string());
    let args = ["-nostdin", "-v", "error", "-f", "lavfi", "-i", &source, "-t", &seconds, "-c:v", "libvpx"];
    let more = ["-b:v", "400k", "-g", &gop, "-keyint_min", &gop, "-deadline", "realtime", "-cpu-used", "8"];
    run(
        "ffmpeg",
        &[&args[..], &more[..], &["-lag-in-frames", "0", "-auto-alt-ref", "0"], &[path.to_str().unwrap()]]
            .concat(),
    );
    let ivf = std::fs::read(path).unwrap();
    let (mut frames, mut at) = (Vec::new(), 32);
    while at < ivf.len() {
        let len = u32::from_le_bytes(ivf[at..at + 4].try_into().unwrap()) as usize;
        let data = Bytes::copy_from_slice(&ivf[at + 12..at + 12 + len]);
        let time = start + Duration::from_nanos(frames.len() as u64 * 1_000_000_000 / 30);
        frames.push(Frame {
            time,
            keyframe: vp8::is_keyframe(&data),
            size: vp8::size(&data),
            ..Frame::of(track, data)
        });
        at += 12 + len;
    }
    frames
}

/// Opus packets of 20 ms of `seconds` of a tone, with times from `start`.
pub fn audio(track: usize, seconds: f64, start: Duration) -> Vec<Frame> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ogg");
    let seconds = seconds.to_string();
    let args = ["-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine=frequency=440", "-ac", "2"];
    run("ffmpeg", &[&args[..], &["-t", &seconds, "-c:a", "libopus", path.to_str().unwrap()]].concat());
    let packets = ogg_packets(&std::fs::read(path).unwrap());
    // The first two are OpusHead and OpusTags.
    let frame = |(index, data): (usize, Vec<u8>)| Frame {
        time: start + Duration::from_millis(20 * index as u64),
        keyframe: true,
        ..Frame::of(track, data.into())
    };
    packets.into_iter().skip(2).enumerate().map(frame).collect()
}

/// The packets of an Ogg file (RFC 3533 section 6).
fn ogg_packets(ogg: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut packet, mut at) = (Vec::new(), Vec::new(), 0);
    while at < ogg.len() {
        let segments = usize::from(ogg[at + 26]);
        let table = &ogg[at + 27..at + 27 + segments];
        at += 27 + segments;
        for len in table {
            packet.extend_from_slice(&ogg[at..at + usize::from(*len)]);
            at += usize::from(*len);
            if *len < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
    }
    packets
}

/// Frames of several tracks as they would arrive: in order of time.
pub fn mixed(tracks: &[&[Frame]]) -> Vec<Event> {
    let mut frames: Vec<_> = tracks.concat();
    frames.sort_by_key(|frame| frame.time);
    frames.into_iter().map(Event::Frame).collect()
}
