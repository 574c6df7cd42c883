//! Gibibytes in little memory.

use super::{PATIENCE, TRACKS, assert_seekable, peak_memory};
use crate::support::judge;
use crate::support::server::Server;
use crate::support::user::Api;
use onrecord::container::Head;
use onrecord::container::webm::{Block, Clusters, head};
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What repair may have in memory, however large the file is.
const BOUND_KIB: u64 = 64 << 10;

/// An unfinished recording of ours, mostly holes: each second a bit of sound and a picture of 4 MiB.
fn unfinished(path: &Path, seconds: u64) -> u64 {
    let file = fs::File::create(path).unwrap();
    let (start, _) = head(&Head { tracks: &TRACKS, sizes: &[], uid: 5, unix_nanos: 0, title: "" });
    file.write_all_at(&start, 0).unwrap();
    let mut at = start.len() as u64;
    let key = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01][..], &vec![0; 4 << 20]].concat();
    let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
    for second in 0..seconds {
        let time = Duration::from_secs(second);
        clusters.push(&Block { time, keyframe: true, ..Block::of(0, &key) });
        clusters.push(&Block { time, keyframe: true, ..Block::of(1, &[0xfc, 1]) });
        clusters.finish();
        let bytes = clusters.bytes();
        let hole = bytes.len() - 64;
        file.write_all_at(&bytes[..64], at).unwrap();
        file.write_all_at(&bytes[hole..], at + hole as u64).unwrap();
        at += bytes.len() as u64;
        clusters.clear();
    }
    file.set_len(at - 1).unwrap();
    at
}

/// Runs `onrecord repair`; gives what it said, its time, and its peak memory in KiB.
fn measured(path: &Path) -> (String, Duration, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_onrecord"))
        .args(["repair", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (begun, mut peak) = (Instant::now(), 0);
    let status = loop {
        peak = peak.max(peak_memory(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE * 3);
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{said}");
    assert!(peak > 0 && peak < BOUND_KIB, "{peak} KiB");
    (said, begun.elapsed(), peak)
}

/// The time of the picture that a player comes to which seeks there by the index.
fn seek(path: &Path, seconds: u64) -> f64 {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .args(["-read_intervals", &format!("{seconds}%+#1")])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    let said = String::from_utf8(output.stdout).unwrap();
    said.trim().trim_end_matches(',').parse().unwrap_or_else(|_| panic!("ffprobe said {said:?}"))
}

#[test]
fn more_than_four_gibibytes_are_repaired_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("giant.webm");
    let bytes = unfinished(&path, 1100);
    assert!(bytes > 4 << 30, "{bytes}");
    let (said, took, peak) = measured(&path);
    println!("{bytes} bytes in {took:?}, {peak} KiB at most: {said}");
    assert_eq!(assert_seekable(&path).as_secs(), 1099, "the last cluster was cut");
    assert_eq!(judge::cue_times(&path).len(), 1099);
    // The last of these begin behind the fourth gibibyte.
    for second in [1, 500, 1050, 1098] {
        assert_eq!(seek(&path, second), second as f64);
    }
}

#[tokio::test]
async fn a_starting_server_repairs_two_gibibytes_in_little_memory_and_is_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let id = "01k0x7".to_owned() + &"0".repeat(20);
    let path = dir.path().join(format!("long_20261121T101500Z_{id}.webm.part"));
    let bytes = unfinished(&path, 512);
    assert!(bytes > 2 << 30, "{bytes}");
    let begun = Instant::now();
    let server = Server::start(&[&format!("record.dir={}", dir.path().display()), "hooks.on_record="]);
    let up = begun.elapsed();
    let before = peak_memory(server.pid()).unwrap();
    let recording = Api::of(&server).sealed(PATIENCE).await;
    let (took, peak) = (begun.elapsed(), peak_memory(server.pid()).unwrap());
    println!(
        "{bytes} bytes: up after {up:?} with {before} KiB, sealed after {took:?} with {peak} KiB at most"
    );
    assert!(peak < BOUND_KIB, "{peak} KiB");
    let file = dir.path().join(recording["file"].as_str().unwrap());
    assert_eq!(assert_seekable(&file).as_secs(), 511);
    assert_eq!(seek(&file, 509), 509.0);
}
