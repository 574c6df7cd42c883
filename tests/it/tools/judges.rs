//! Runs the tools that aren't browsers.

use super::films::Film;
use super::verdict::Seen;
use crate::support::chunks;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How the table calls them, and `tests/tools/observe.py`.
pub const TOOLS: [(&str, &str); 7] = [
    ("OpenCV", "opencv"),
    ("PyAV", "pyav"),
    ("decord", "decord"),
    ("ffmpeg MP4", "mp4"),
    ("ffmpeg WAV", "wav"),
    ("GStreamer", "gst"),
    ("mpv", "mpv"),
];
/// No tool needs longer for one film, in seconds.
const PATIENCE: &str = "200";

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

/// Makes the virtual environment if there is none; gives its folder.
pub fn install() -> PathBuf {
    let status = Command::new(here().join("install.sh")).stdin(Stdio::null()).status();
    assert!(status.expect("a shell").success(), "the Python tools can't be installed");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools-venv")
}

/// What a tool sees in a film, or `reference` itself.
pub fn look(venv: &Path, tool: &str, film: &Film) -> Result<Seen, String> {
    let mut words: Vec<String> = if film.sampled { vec!["--".to_owned()] } else { Vec::new() };
    words.extend(film.targets().iter().map(f64::to_string));
    observe(venv, tool, &film.file, &words)
}

/// What a tool sees in a file.
pub fn observe(venv: &Path, tool: &str, file: &Path, words: &[String]) -> Result<Seen, String> {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE);
    if tool == "gst" {
        // Its bindings are the system's, numpy is in the environment.
        command.arg("/usr/bin/python3").arg(here().join("gst.py"));
        command.env("PYTHONPATH", venv.join("lib/python3.11/site-packages"));
    } else {
        command.arg(venv.join("bin/python")).arg(here().join("observe.py")).arg(tool);
    }
    let output = command.arg(file).args(words).stdin(Stdio::null()).output().expect("timeout is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    // Some libraries speak on their own behalf before it.
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("{}: {}", output.status, complaint.lines().last().unwrap_or(last))
    })
}

/// Whether a tool lacks a codec in a file that isn't ours either.
pub fn lacks_everywhere(venv: &Path, tool: &str, codec: &str) -> bool {
    let (format, encoder) = match codec {
        "vp8" => ("webm", chunks::VP8),
        "vp9" => ("webm", chunks::VP9),
        "av1" => ("webm", chunks::AV1),
        _ => ("matroska", chunks::H264),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source.mkv");
    std::fs::write(&file, chunks::recording(format, encoder, 2, "320x180")).unwrap();
    observe(venv, tool, &file, &[]).is_ok_and(|seen| seen.lacks.is_some())
}

/// Whether a tool's seeks end at the same pictures when ffmpeg has written the file.
pub fn seeks_so_everywhere(venv: &Path, tool: &str, film: &Film, seen: &Seen) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copied.mkv");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(&film.file).args(["-c", "copy"]).arg(&file);
    assert!(command.status().expect("ffmpeg is installed").success());
    let words: Vec<String> = film.targets().iter().map(f64::to_string).collect();
    observe(venv, tool, &file, &words).is_ok_and(|copied| copied.seeks == seen.seeks)
}
