//! Holes in the sound of other programs' files, filled on demand.

use super::{assert_seekable, ffmpeg, gstreamer_late, muxed, names, onrecord};
use crate::support::judge;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is filled in: silence of 20, 10, 5 and 2.5 ms, of one channel or two, and a frame of 10 ms without a byte.
fn fill() -> Vec<Vec<u8>> {
    let silence = |toc: u8| [toc, toc | 4].map(|toc| vec![toc, 0xff, 0xfe]);
    let silences = [0xf8, 0xf0, 0xe8, 0xe0].into_iter().flat_map(silence);
    silences.chain([vec![0xf0], vec![0xf4]]).collect()
}

fn filled(file: &Path) -> String {
    let output = onrecord(&["repair", "--fill-silence", file.to_str().unwrap()]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
    said.trim().to_owned()
}

/// How long its sound is for a speech recogniser.
fn heard(file: &Path) -> Duration {
    let pcm = ffmpeg(&["-i", file.to_str().unwrap(), "-vn", "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]);
    Duration::from_secs_f64(pcm.len() as f64 / 32_000.0)
}

/// Packets by track, time, size and hash, in their order, as ffprobe reads them. What is filled in is left out.
fn packets(file: &Path) -> Vec<String> {
    let entries =
        ["-show_entries", "packet=stream_index,pts_time,size,data_hash", "-show_data_hash", "sha256"];
    let args = [&["-v", "error"], &entries[..], &["-of", "csv=p=0"]].concat();
    let output = Command::new("ffprobe").args(args).arg(file).output().unwrap();
    let hash = |packet: &Vec<u8>| {
        let sum: String = Sha256::digest(packet).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SHA256:{sum}")
    };
    let fill: Vec<String> = fill().iter().map(hash).collect();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| line.trim_end_matches(',').to_owned());
    let mut kept: Vec<_> = lines.filter(|line| !fill.iter().any(|sum| line.ends_with(sum))).collect();
    // Those of a track stay in their order.
    kept.sort_by_key(|line| line.chars().next());
    kept
}

/// Five seconds with nothing of the sound from 1.5 to 3.5 s.
fn ffmpeg_with_a_hole(dir: &Path) -> Vec<u8> {
    let (whole, holed) = (dir.join("whole"), dir.join("holed.webm"));
    let codecs = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"];
    fs::write(&whole, muxed(&codecs, "webm", false)).unwrap();
    let drop = ["-c", "copy", "-bsf:a", r"noise=drop=between(pts\,1500\,3500)"];
    ffmpeg(&[&["-i", whole.to_str().unwrap()], &drop[..], &[holed.to_str().unwrap()]].concat());
    let bytes = fs::read(&holed).unwrap();
    fs::remove_file(whole).unwrap();
    fs::remove_file(holed).unwrap();
    bytes
}

#[test]
fn sound_with_holes_is_as_long_as_the_file_once_it_is_filled_and_no_packet_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let holed = ffmpeg_with_a_hole(dir.path());
    let late = gstreamer_late();
    let cut = holed.len() * 9 / 10;
    let kinds = [("ffmpeg", &holed[..], 2.0), ("GStreamer", &late[..], 2.0), ("cut", &holed[..cut], 2.0)];
    for (kind, bytes, silence) in kinds {
        let path = dir.path().join("file.webm");
        fs::write(&path, bytes).unwrap();
        let (before, heard_before) = (packets(&path), heard(&path));
        assert!(before.len() > 200, "{} packets", before.len());
        let said = filled(&path);
        let (duration, now) = (assert_seekable(&path), heard(&path));
        println!("{kind}: {heard_before:?} of sound, then {now:?} of {duration:?}; {said}");
        assert!(said.contains("s of silence filled in"), "{said}");
        assert!(now.abs_diff(duration) <= Duration::from_millis(40), "{kind}: {now:?} of {duration:?}");
        assert!(
            now.saturating_sub(heard_before) >= Duration::from_secs_f64(silence - 0.05),
            "{kind}: {said}"
        );
        assert!(packets(&path) == before, "{kind}: other packets than before");
        judge::decode(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let again = filled(&path);
        assert!(again.contains("nothing to do") && again.contains("no silence to fill in"), "{again}");
        assert!(fs::read(&path).unwrap() == whole, "a second time changed it");
    }
    assert_eq!(names(dir.path()), ["file.webm"], "something was left beside it");
}

#[test]
fn sound_whose_silence_nobody_knows_is_left_as_it_is_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, path) = (dir.path().join("whole.webm"), dir.path().join("vorbis.webm"));
    let codecs = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libvorbis"];
    fs::write(&whole, muxed(&codecs, "webm", false)).unwrap();
    ffmpeg(&["-i", whole.to_str().unwrap(), "-c", "copy", path.to_str().unwrap()]);
    let before = fs::read(&path).unwrap();
    let said = filled(&path);
    assert!(said.contains("its sound in A_VORBIS is left as it is"), "{said}");
    assert!(fs::read(&path).unwrap() == before, "it was touched");
}
