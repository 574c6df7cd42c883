//! Judges of a recorded file, none of them ours: ffprobe, ffmpeg, mkvinfo.

use super::media::FPS;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What ffprobe says of a file.
#[derive(Debug, Deserialize)]
pub struct Probe {
    pub streams: Vec<Stream>,
    pub format: Format,
}

#[derive(Debug, Deserialize)]
pub struct Stream {
    pub index: usize,
    pub codec_name: String,
    pub codec_type: String,
    pub width: Option<u32>,
    pub height: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub struct Format {
    pub format_name: String,
    /// In seconds; none if the header has none.
    pub duration: Option<String>,
}

impl Probe {
    pub fn of(file: &Path) -> Self {
        json("ffprobe", &["-v", "error", "-show_streams", "-show_format", "-of", "json"], file)
    }

    pub fn stream(&self, codec_type: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.codec_type == codec_type)
    }

    pub fn duration(&self) -> Option<Duration> {
        self.format.duration.as_ref().map(|seconds| Duration::from_secs_f64(seconds.parse().unwrap()))
    }
}

/// One block of the file.
#[derive(Clone, Debug)]
pub struct Packet {
    /// `video` or `audio`.
    pub kind: String,
    pub time: Duration,
    pub keyframe: bool,
    /// In hexadecimal.
    pub sha256: String,
}

/// All blocks in the order of the file, but for the silence that the recorder put into holes.
pub fn packets(file: &Path) -> Vec<Packet> {
    #[derive(Deserialize)]
    struct Listing {
        packets: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        codec_type: String,
        pts_time: String,
        flags: String,
        #[serde(default)]
        pos: String,
        data_hash: String,
    }
    let bytes = std::fs::read(file).expect("the file is there");
    // A block begins with a track number of a byte, a time of two, and flags (RFC 9559 section 10.2).
    let discardable = |entry: &Entry| {
        let flags = entry.pos.parse().ok().and_then(|at: usize| bytes.get(at + 3));
        bytes.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) && flags.is_some_and(|flags| flags & 1 == 1)
    };
    let args = ["-v", "error", "-show_packets", "-show_data_hash", "sha256", "-of", "json"];
    let listing: Listing = json("ffprobe", &args, file);
    let packet = |entry: Entry| Packet {
        kind: entry.codec_type,
        time: Duration::from_secs_f64(entry.pts_time.parse::<f64>().unwrap().max(0.0)),
        keyframe: entry.flags.contains('K'),
        sha256: entry.data_hash.trim_start_matches("SHA256:").to_owned(),
    };
    listing.packets.into_iter().filter(|entry| !discardable(entry)).map(packet).collect()
}

pub fn packets_of(file: &Path, kind: &str) -> Vec<Packet> {
    packets(file).into_iter().filter(|packet| packet.kind == kind).collect()
}

/// The hash by which [`packets`] names a payload.
pub fn sha256(payload: &[u8]) -> String {
    Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes the whole file; what ffmpeg has to complain about.
pub fn decode(file: &Path) -> Result<(), String> {
    // The times of the file: by itself ffmpeg counts in the mean distance of pictures, and complains of two
    // that are closer.
    read_through(file, &["-xerror"], &["-enc_time_base:v", "1:1000"])
}

/// Reads the whole file without decoding it; what ffmpeg has to complain about.
pub fn demux(file: &Path) -> Result<(), String> {
    read_through(file, &[], &["-c", "copy"])
}

fn read_through(file: &Path, before: &[&str], after: &[&str]) -> Result<(), String> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(before)
        .arg("-i")
        .arg(file)
        .args(after)
        .args(["-f", "null", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && complaint.is_empty() { Ok(()) } else { Err(complaint) }
}

/// The longest time without a keyframe, the end of the file counted.
pub fn longest_keyframe_gap(video: &[Packet], duration: Duration) -> Duration {
    let keyframes = video.iter().filter(|packet| packet.keyframe).map(|packet| packet.time);
    let marks: Vec<_> = keyframes.chain([duration]).collect();
    marks.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(duration)
}

/// The times of the file's cue points, as mkvinfo reads them.
pub fn cue_times(file: &Path) -> Vec<Duration> {
    let output = Command::new("mkvinfo").arg("--all").arg(file).env("LC_ALL", "C").output();
    let text = String::from_utf8(output.expect("mkvinfo is installed").stdout).unwrap();
    text.lines().filter_map(|line| line.split_once("Cue time: ")).map(|(_, time)| clock_time(time)).collect()
}

/// `00:00:01.500000000`, perhaps followed by something else.
fn clock_time(text: &str) -> Duration {
    let text = text.split_whitespace().next().unwrap();
    let seconds =
        text.split(':').map(|part| part.parse::<f64>().unwrap()).fold(0.0, |sum, part| sum * 60.0 + part);
    Duration::from_secs_f64(seconds)
}

/// The picture sizes ffmpeg decodes.
pub fn picture_sizes(file: &Path) -> BTreeSet<(u32, u32)> {
    pictures(file, &[]).into_iter().collect()
}

/// The size of the first picture, which converters take for the whole.
pub fn first_picture(file: &Path) -> (u32, u32) {
    pictures(file, &["-read_intervals", "%+#1"])[0]
}

/// The sizes of the pictures ffmpeg decodes, in order.
fn pictures(file: &Path, options: &[&str]) -> Vec<(u32, u32)> {
    #[derive(Deserialize)]
    struct Listing {
        frames: Vec<Picture>,
    }
    #[derive(Deserialize)]
    struct Picture {
        width: u32,
        height: u32,
    }
    let args = ["-v", "error", "-select_streams", "v", "-show_entries", "frame=width,height", "-of", "json"];
    let args: Vec<&str> = args.iter().chain(options).copied().collect();
    let listing: Listing = json("ffprobe", &args, file);
    listing.frames.iter().map(|picture| (picture.width, picture.height)).collect()
}

/// By how many milliseconds each beep of `media::flash_and_beep` follows its flash in the file.
pub fn av_offsets(file: &Path) -> Vec<f64> {
    let beeps = beeps(file);
    let nearest =
        |flash: f64| beeps.iter().map(|beep| (beep - flash) * 1e3).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    flashes(file).into_iter().filter_map(nearest).filter(|offset| offset.abs() < 500.0).collect()
}

/// When pictures turn white, in seconds.
pub fn flashes(file: &Path) -> Vec<f64> {
    // One grey pixel a picture, and its time from `showinfo`.
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-i"])
        .arg(file)
        .args(["-map", "0:v", "-vf", "scale=1:1:flags=area,format=gray,showinfo", "-vsync", "passthrough"])
        .args(["-copyts", "-f", "rawvideo", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let report = String::from_utf8_lossy(&output.stderr);
    let times = report.lines().filter_map(|line| line.split_once("pts_time:"));
    let times = times.map(|(_, rest)| rest.split_whitespace().next().unwrap().parse::<f64>().unwrap());
    onsets(times.zip(output.stdout.iter().map(|luma| f64::from(*luma) / 255.0)), 1.5 / FPS as f64)
}

/// When sound begins, in seconds, to the millisecond.
pub fn beeps(file: &Path) -> Vec<f64> {
    // Holes become silence and the first sample is the file's time 0, so that a sample's place is
    // its time, to 10 ms at worst.
    beeps_through(file, &["-af", "aresample=async=1:min_hard_comp=0.01:first_pts=0"])
}

/// The same for who puts one packet behind the other, as most programs do.
pub fn beeps_laid_end_to_end(file: &Path) -> Vec<f64> {
    beeps_through(file, &[])
}

fn beeps_through(file: &Path, filter: &[&str]) -> Vec<f64> {
    const RATE: usize = 48_000;
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(file)
        .args(["-map", "0:a"])
        .args(filter)
        .args(["-ac", "1", "-f", "s16le", "-ar", "48000", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let samples: Vec<f64> = output
        .stdout
        .chunks_exact(2)
        .map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0)
        .collect();
    let loudness = |window: &[f64]| window.iter().map(|sample| sample.abs()).fold(0.0, f64::max);
    let windows = samples.chunks(RATE / 1000).enumerate();
    onsets(windows.map(|(ms, window)| (ms as f64 / 1e3, loudness(window))), 0.02)
}

/// Where a level rises over a half for the first time after at least `rest` seconds below it.
fn onsets(levels: impl Iterator<Item = (f64, f64)>, rest: f64) -> Vec<f64> {
    let mut last_high = f64::NEG_INFINITY;
    let mut onsets = Vec::new();
    for (time, level) in levels {
        if level > 0.4 {
            if time - last_high > rest {
                onsets.push(time);
            }
            last_high = time;
        }
    }
    onsets
}

fn json<T: serde::de::DeserializeOwned>(program: &str, args: &[&str], file: &Path) -> T {
    let output = Command::new(program).args(args).arg(file).output().expect("ffmpeg's tools are installed");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
