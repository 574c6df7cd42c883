//! What happens when the disk says no: real errors of a real kernel, in processes of their own, for
//! limits hold for a whole process.

use super::judge::judge;
use super::media::{OPUS, VP8, audio, mixed, video};
use super::{Bench, ended, push, sealed};
use crate::base::reason::EndReason;
use crate::media::Frame;
use crate::record::{Config, Error, Progress};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs an ignored test of this file in a process of its own, behind a line of shell.
fn alone(test: &str, prepare: &str, isolate: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let itself = std::env::current_exe().unwrap();
    let script = format!("{prepare} exec \"$1\" --ignored --exact --nocapture \"$2\"");
    let test = format!("record::tests::disk_errors::{test}");
    let words = [isolate, &["sh", "-c", &script, "sh", itself.to_str().unwrap(), &test]].concat();
    let output = Command::new(words[0]).args(&words[1..]).env("RECORDS", dir.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{test}: {out} {err}");
}

/// In a mount namespace of its own, with a small file system under `$RECORDS`.
const SMALL_DISK: [&str; 2] = ["unshare", "-Urm"];
const MOUNT: &str = "mount -t tmpfs -o size=1m none \"$RECORDS\" &&";

fn bench(min_free: u64) -> Bench {
    let dir = std::env::var("RECORDS").unwrap();
    Bench::new(dir.as_ref(), Config { min_free, ..Config::default() })
}

/// About `copies` times 130 kB of pictures.
fn pictures(copies: u64) -> Vec<Frame> {
    let once = video(0, (320, 180), 3.0, 30, Duration::ZERO);
    let shift = |copy: u64| {
        let later = Duration::from_secs(3 * copy);
        once.iter().map(move |frame| Frame { time: frame.time + later, ..frame.clone() })
    };
    (0..copies).flat_map(shift).collect()
}

#[test]
fn a_write_error_ends_one_recording_whole_and_no_other() {
    alone("inner_write_error", "trap '' XFSZ; ulimit -f 2048;", &[]);
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose files end at 1 MiB"]
async fn inner_write_error() {
    let bench = bench(0);
    let (pictures, sound) = (pictures(20), audio(0, 4.0, Duration::ZERO));
    let (big, big_recording) = bench.start("big", &[VP8]);
    let (small, small_recording) = bench.start("small", &[OPUS]);
    push(&small, &mixed(&[&sound[..100]]));
    push(&big, &mixed(&[&pictures]));
    let manifest = sealed(big_recording).await;
    assert_eq!(manifest.end_reason, Some(EndReason::WriteError));
    let seen = judge(&bench.dir.join(&manifest.file));
    let kept = seen.assert_holds_the_first(1, &pictures);
    println!("{kept} frames of {} are in {} bytes", pictures.len(), manifest.bytes);
    assert!(manifest.bytes > 900_000, "{} bytes are far from the limit", manifest.bytes);
    seen.assert_a_cue_for_each_keyframe_of(1);
    push(&small, &mixed(&[&sound[100..]]));
    small.end(EndReason::Stopped, Instant::now());
    let manifest = sealed(small_recording).await;
    judge(&bench.dir.join(&manifest.file)).assert_holds(1, &sound);
    push(&big, &mixed(&[&pictures[..1]]));
}

#[test]
fn a_full_disk_ends_a_recording_whole_and_the_next_one_works_when_there_is_space() {
    alone("inner_full_disk", MOUNT, &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 1 MiB"]
async fn inner_full_disk() {
    let mut bench = bench(0);
    let pictures = pictures(20);
    let (stream, recording) = bench.start("full", &[VP8]);
    push(&stream, &mixed(&[&pictures]));
    let manifest = sealed(recording).await;
    assert_eq!(manifest.end_reason, Some(EndReason::DiskFull));
    let kept = judge(&bench.dir.join(&manifest.file)).assert_holds_the_first(1, &pictures);
    println!("{kept} frames of {} are in {} bytes", pictures.len(), manifest.bytes);
    bench.recordings.delete(&manifest.id).await.unwrap();
    let manifest = bench.record("again", &[VP8], &mixed(&[&pictures[..90]])).await;
    judge(&bench.dir.join(&manifest.file)).assert_holds(1, &pictures[..90]);
}

#[test]
fn less_space_than_is_to_stay_free_ends_recordings_and_refuses_new_ones() {
    alone("inner_min_free", MOUNT, &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 1 MiB"]
async fn inner_min_free() {
    let bench = bench(500 << 10);
    let pictures = pictures(5);
    let (stream, recording) = bench.start("guarded", &[VP8]);
    let mut pushed = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let end = ended(recording.clone());
    tokio::pin!(end);
    let end = loop {
        tokio::select! {
            end = &mut end => break end,
            _ = pace.tick() => {
                // Five frames in 20 ms: 0.5 MB are gone in some seconds.
                let next = pictures.len().min(pushed + 5);
                push(&stream, &mixed(&[&pictures[pushed..next]]));
                pushed = next;
            }
        }
    };
    let Progress::Sealed(manifest) = end else { panic!("{end:?}") };
    assert_eq!(manifest.end_reason, Some(EndReason::DiskFull));
    judge(&bench.dir.join(&manifest.file)).assert_holds_the_first(1, &pictures);
    assert!(matches!(bench.recordings.start(&stream), Err(Error::DiskFull)), "taken without space");
    bench.recordings.delete(&manifest.id).await.unwrap();
    assert!(bench.recordings.start(&stream).is_ok(), "refused with space");
}
