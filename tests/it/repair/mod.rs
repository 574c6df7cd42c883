//! Files that were cut, damaged or never finished become whole; what can't be is kept as it is.

mod browser;
mod command;
mod holes;
mod large;
mod muxers;
mod parts;

use crate::support::judge::{self, Probe};
use onrecord::media::{Codec, Track};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

fn onrecord(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_onrecord")).args(args).stdin(Stdio::null()).output();
    output.expect("the binary starts")
}

/// Repairs a file by command; returns the line it said.
fn repaired(file: &Path) -> String {
    let output = onrecord(&["repair", file.to_str().unwrap()]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
    said.trim().to_owned()
}

fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg").args(["-nostdin", "-v", "error"]).args(args).output().unwrap();
    assert!(output.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every frame's track, time, size and hash, as ffmpeg reads them.
fn framemd5(file: &Path) -> String {
    let text = ffmpeg(&["-i", file.to_str().unwrap(), "-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
    let text = String::from_utf8(text).unwrap();
    // A last frame's duration is only known of a whole file.
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    let kept = frames.map(|line| {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        [fields[0], fields[2], fields[4], fields[5]].join(" ")
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn assert_seekable(file: &Path) -> Duration {
    let duration = Probe::of(file).duration().expect("a duration");
    assert!(!duration.is_zero() && !judge::cue_times(file).is_empty(), "{duration:?}, or no cues");
    duration
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs checks two at a time: most of them wait for a judge.
fn in_pairs<T: Sync>(items: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            check(item);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// Five seconds as ffmpeg muxes them for viewers who may not wait for the end.
fn ffmpeg_live() -> Vec<u8> {
    muxed(&["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"], "webm", true)
}

/// Five seconds of picture and sound by these encoders.
fn muxed(codecs: &[&str], format: &str, live: bool) -> Vec<u8> {
    let source = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-f", "lavfi", "-i", "sine=r=48000"];
    let end: &[&str] = if live { &["-live", "1", "-"] } else { &["-"] };
    ffmpeg(&[&source[..], &["-t", "5", "-g", "30"], codecs, &["-f", format], end].concat())
}

/// Five seconds of picture and sound from a pipeline of GStreamer.
fn gstreamer(video: &str, mux: &str) -> Vec<u8> {
    gstreamer_with(video, mux, "num-buffers=250")
}

/// Five seconds of picture, and of sound those from 1 to 4 s.
fn gstreamer_late() -> Vec<u8> {
    gstreamer_with(
        "vp8enc deadline=1 keyframe-max-dist=30",
        "webmmux",
        "num-buffers=150 timestamp-offset=1000000000",
    )
}

fn gstreamer_with(video: &str, mux: &str, sound: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out");
    let pipeline = format!(
        "{mux} name=mux ! filesink location={} \
         videotestsrc num-buffers=150 ! video/x-raw,width=320,height=180,framerate=30/1 ! {video} ! queue ! mux. \
         audiotestsrc samplesperbuffer=960 {sound} ! audio/x-raw,rate=48000,channels=2 ! opusenc ! queue ! mux.",
        file.display()
    );
    let output = Command::new("gst-launch-1.0").arg("-q").args(pipeline.split_whitespace()).output();
    let output = output.expect("gstreamer is installed");
    assert!(output.status.success(), "{pipeline}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).unwrap()
}

/// The most memory a process has had so far, in KiB; nothing once it has ended.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
