//! What happens when the disk says no: real errors of a real kernel, in processes of their own, for
//! limits hold for a whole process.

use super::judge::judge;
use super::media::{OPUS, VP8, audio, mixed, video};
use super::{Bench, ended, eventually, push, sealed};
use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::catalog::RecordingError;
use crate::catalog::{HookAttempt, HookRecord, HookState, Manifest};
use crate::media::Frame;
use crate::record::{Config, Progress};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs an ignored test of this file in a process of its own, behind a line of shell.
fn alone(test: &str, prepare: &str, isolate: &[&str]) {
    alone_with("disk_errors", test, prepare, isolate);
}

/// The same for one of another file.
pub(super) fn alone_with(module: &str, test: &str, prepare: &str, isolate: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let itself = std::env::current_exe().unwrap();
    let script = format!("{prepare} exec \"$1\" --ignored --exact --nocapture \"$2\"");
    let test = format!("record::tests::{module}::{test}");
    let words = [isolate, &["sh", "-c", &script, "sh", itself.to_str().unwrap(), &test]].concat();
    let output = Command::new(words[0]).args(&words[1..]).env("RECORDS", dir.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{test}: {out} {err}");
}

/// The same without a limit, where blocks can't be taken beforehand.
const WITHOUT_FALLOCATE: &str = "mount -t ramfs none \"$RECORDS\" &&";
/// In a mount namespace of its own, with a small file system under `$RECORDS`.
const SMALL_DISK: [&str; 2] = ["unshare", "-Urm"];
const MOUNT: &str = "mount -t tmpfs -o size=3m none \"$RECORDS\" &&";

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
fn a_file_that_cannot_grow_goes_on_in_another_a_second_one_ends_the_recording_and_no_other() {
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
    let second = sealed(big_recording).await;
    let first = eventually("the first file is sealed", || {
        let first = bench.recordings.get(second.continues.as_ref()?)?;
        first.end_reason.is_some().then_some(first)
    })
    .await;
    let mut from = 0;
    for manifest in [first, second] {
        assert_eq!(manifest.end_reason, Some(EndReason::WriteError));
        let seen = judge(&bench.dir.join(&manifest.file));
        let kept = seen.assert_holds_the_first(1, &pictures[from..]);
        println!("{kept} frames from {from} of {} are in {} bytes", pictures.len(), manifest.bytes);
        assert!(manifest.bytes > 900_000, "{} bytes are far from the limit", manifest.bytes);
        seen.assert_a_cue_for_each_keyframe_of(1);
        from += kept;
    }
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
#[ignore = "run by the test before it, on a file system of 3 MiB"]
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
fn bytes_that_filled_the_disk_begin_no_further_recordings_in_what_their_end_gave_back() {
    alone("inner_full_of_bytes", MOUNT, &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 3 MiB"]
async fn inner_full_of_bytes() {
    let bench = bench(0);
    let name = "bytes".parse().unwrap();
    let (recording, sink) = bench.recordings.start_bytes(&name).unwrap();
    let mut pieces = 0;
    while sink.write(vec![0; 64 << 10].into()).await {
        pieces += 1;
        assert!(pieces < 100, "more than there is");
    }
    let end = ended(recording).await;
    let free = crate::disk::space::free_space(&bench.dir).unwrap();
    println!("{pieces} pieces of 64 KiB; {free} bytes are free behind them");
    assert!(matches!(end, Progress::Failed { code: ErrorCode::DiskFull, .. }), "{end:?}");
    assert!(free >= 1 << 20, "{free} bytes are not enough to begin by themselves");
    assert!(
        matches!(bench.recordings.start_bytes(&name), Err(RecordingError::DiskFull)),
        "it goes on in a loop"
    );
}

#[test]
fn less_space_than_is_to_stay_free_ends_recordings_and_refuses_new_ones() {
    alone("inner_min_free", &MOUNT.replace("3m", "4m"), &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 4 MiB"]
async fn inner_min_free() {
    let bench = bench(1200 << 10);
    let pictures = pictures(20);
    let (stream, recording) = bench.start("guarded", &[VP8]);
    let mut pushed = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let end = ended(recording.clone());
    tokio::pin!(end);
    let end = loop {
        tokio::select! {
            end = &mut end => break end,
            _ = pace.tick() => {
                // Five frames in 20 ms: 2 MB are gone in some seconds.
                let next = pictures.len().min(pushed + 5);
                push(&stream, &mixed(&[&pictures[pushed..next]]));
                pushed = next;
            }
        }
    };
    let Progress::Sealed(manifest) = end else { panic!("{end:?}") };
    assert_eq!(manifest.end_reason, Some(EndReason::DiskFull));
    judge(&bench.dir.join(&manifest.file)).assert_holds_the_first(1, &pictures);
    assert!(matches!(bench.recordings.start(&stream), Err(RecordingError::DiskFull)), "taken without space");
    bench.recordings.delete(&manifest.id).await.unwrap();
    assert!(bench.recordings.start(&stream).is_ok(), "refused with space");
}

#[test]
fn a_disk_without_inodes_takes_recordings_again_once_it_has_some() {
    alone("inner_no_inodes", &MOUNT.replace("size=3m", "size=4m,nr_inodes=40"), &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 4 MiB and 40 inodes"]
async fn inner_no_inodes() {
    let mut bench = bench(0);
    let pictures = pictures(2);
    let (stream, recording) = bench.start("none left", &[VP8]);
    let names = (0..100).map(|number| bench.dir.join(format!("name {number}")));
    let taken: Vec<_> = names.take_while(|name| File::create(name).is_ok()).collect();
    assert!(taken.len() < 40, "{} names were taken", taken.len());
    push(&stream, &mixed(&[&pictures]));
    let end = ended(recording).await;
    assert!(matches!(end, Progress::Failed { code: ErrorCode::DiskFull, .. }), "{end:?}");
    assert!(bench.recordings.has_space().is_err(), "taken without an inode");
    taken.iter().for_each(|name| fs::remove_file(name).unwrap());
    eventually("there is space again", || bench.recordings.has_space().ok()).await;
    let manifest = bench.record("again", &[VP8], &mixed(&[&pictures])).await;
    judge(&bench.dir.join(&manifest.file)).assert_holds(1, &pictures);
}

/// Takes every byte that is left; gives the file that has them.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filling");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    let free = crate::disk::space::free_space(dir).unwrap();
    assert_eq!(free, 0, "bytes are free");
    path
}

fn on_disk(dir: &Path, manifest: &Manifest) -> Manifest {
    let json = fs::read(dir.join(&manifest.file).with_extension("json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// So many attempts with as much to say as is kept.
fn hook(attempts: u32) -> HookRecord {
    let attempt = |n| HookAttempt {
        n,
        at: jiff::Timestamp::UNIX_EPOCH,
        exit: Some(1),
        error: None,
        interrupted: false,
        ms: 1,
        tail: "x".repeat(4096),
    };
    HookRecord { attempts: (1..=attempts).map(attempt).collect(), ..HookRecord::new(HookState::Running) }
}

#[test]
fn on_a_disk_without_a_free_byte_every_open_file_is_sealed_and_every_manifest_written() {
    alone("inner_not_a_byte", &MOUNT.replace("3m", "24m"), &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system of 24 MiB"]
async fn inner_not_a_byte() {
    let mut bench = bench(0);
    let pictures = pictures(20);
    let names: Vec<_> = (0..8).map(|number| format!("stream {number}")).collect();
    let open: Vec<_> = names.iter().map(|name| bench.start(name, &[VP8])).collect();
    for (stream, _) in &open {
        push(stream, &mixed(&[&pictures[..100]]));
    }
    eventually("all files are begun", || {
        let begun = |name: &String| {
            let len = fs::metadata(bench.dir.join(name)).map_or(0, |meta| meta.len());
            name.ends_with(".part") && len > 50_000
        };
        (bench.files().iter().filter(|name| begun(name)).count() == 8).then_some(())
    })
    .await;
    let filling = fill(&bench.dir);
    let full = Instant::now();
    for (stream, _) in &open {
        push(stream, &mixed(&[&pictures[100..]]));
    }
    let mut manifests = Vec::new();
    for (_, recording) in open {
        manifests.push(sealed(recording).await);
    }
    println!("all sealed {:?} after the last byte was taken", full.elapsed());
    for manifest in &manifests {
        assert_eq!(manifest.end_reason, Some(EndReason::DiskFull));
        assert_eq!(on_disk(&bench.dir, manifest), *manifest);
        let seen = judge(&bench.dir.join(&manifest.file));
        let kept = seen.assert_holds_the_first(1, &pictures);
        seen.assert_a_cue_for_each_keyframe_of(1);
        println!("{kept} frames of {} are in {} bytes", pictures.len(), manifest.bytes);
    }
    let refused = |bench: &Bench| bench.recordings.has_space().is_err();
    assert!(refused(&bench), "taken without space");

    // Whatever sealing gave back is taken, too.
    fs::rename(&filling, bench.dir.join("filling 1")).unwrap();
    let more = fill(&bench.dir);
    let reserve = || fs::metadata(bench.dir.join(".reserve")).map_or(0, |meta| meta.blocks() * 512);
    let before = reserve();
    for attempts in 1..=10 {
        for manifest in &manifests {
            let note = |manifest: &mut Manifest| {
                manifest.hook = hook(attempts);
                Ok(())
            };
            let noted = bench.recordings.catalog().update(&manifest.id, note).await.unwrap();
            assert_eq!(on_disk(&bench.dir, manifest), noted);
        }
    }
    println!("{} notes of hooks took {} bytes of {before} kept back", 80, before - reserve());
    assert!(before > reserve() && refused(&bench), "{} bytes are kept back", reserve());
    bench.recordings.delete(&manifests[0].id).await.unwrap();
    fs::remove_file(more).unwrap();
    fs::remove_file(bench.dir.join("filling 1")).unwrap();
    eventually("there is space again", || bench.recordings.has_space().ok()).await;
    assert!(reserve() >= 1 << 20, "{} bytes are kept back again", reserve());
    let manifest = bench.record("again", &[VP8], &mixed(&[&pictures[..90]])).await;
    judge(&bench.dir.join(&manifest.file)).assert_holds(1, &pictures[..90]);
}

#[test]
fn where_blocks_cannot_be_taken_beforehand_recording_goes_on_without() {
    alone("inner_without_fallocate", WITHOUT_FALLOCATE, &SMALL_DISK);
}

#[tokio::test]
#[ignore = "run by the test before it, on a file system without fallocate"]
async fn inner_without_fallocate() {
    let mut bench = bench(0);
    let file = File::create(bench.dir.join("probe")).unwrap();
    let refused = crate::disk::space::allocate_ahead(&file, 0, 4096).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported, "{refused}");
    let pictures = pictures(4);
    let manifest = bench.record("bare", &[VP8], &mixed(&[&pictures])).await;
    let seen = judge(&bench.dir.join(&manifest.file));
    seen.assert_holds(1, &pictures);
    seen.assert_a_cue_for_each_keyframe_of(1);
    let reserve = fs::metadata(bench.dir.join(".reserve")).unwrap();
    assert!(reserve.len() == 1 << 20, "{} bytes are kept back", reserve.len());
}
