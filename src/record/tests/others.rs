//! What others do in the folder: files renamed, copied, and without their manifests (S3).

use super::judge::judge;
use super::media::{OPUS, audio, mixed, run};
use super::{Bench, PATIENCE};
use crate::base::end_reason::EndReason;
use crate::catalog::{HookState, Manifest};
use crate::record::{Config, Event};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The folder at the next start, and what was repaired.
async fn next_start(dir: &Path, repaired: usize) -> (Bench, Vec<Manifest>) {
    let mut bench = Bench::new(dir, Config::default());
    bench.recordings.recover();
    let mut told = Vec::new();
    while told.len() < repaired {
        match tokio::time::timeout(PATIENCE, bench.events.recv()).await {
            Ok(Some(Event::Sealed(manifest))) => told.push(*manifest),
            other => panic!("{other:?} after {told:?}"),
        }
    }
    (bench, told)
}

#[tokio::test]
async fn a_renamed_file_stays_the_recording_it_was_and_its_copy_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Bench::new(dir.path(), Config::default());
    let sound = audio(0, 1.0, Duration::ZERO);
    let one = before.record("ann", &[OPUS], &mixed(&[&sound])).await;
    let two = before.record("bob", &[OPUS], &mixed(&[&sound])).await;
    let done = |manifest: &mut Manifest| {
        manifest.hook.state = HookState::Done;
        Ok(())
    };
    let done = before.recordings.catalog().update(&one.id, done).await.unwrap();
    drop(before);
    let copy = format!("copy of {}", two.file);
    fs::rename(dir.path().join(&one.file), dir.path().join("bob.webm")).unwrap();
    fs::copy(dir.path().join(&two.file), dir.path().join(&copy)).unwrap();

    let (after, told) = next_start(dir.path(), 1).await;
    let (renamed, path) = after.recordings.by_file("bob.webm").expect("the link works");
    assert_eq!(renamed, Manifest { file: "bob.webm".to_owned(), ..done });
    assert!(path.exists() && after.recordings.by_file(&one.file).is_none());
    let (copied, path) = after.recordings.by_file(&copy).expect("the copy's link works");
    assert_eq!((copied.stream.as_str(), &copied), ("bob", &told[0]));
    assert!(copied.id != two.id && path.exists());
    assert_eq!(after.recordings.by_file(&two.file).unwrap().0.id, two.id);
    drop(after);
    let (again, _) = next_start(dir.path(), 0).await;
    let mut files: Vec<_> = again.recordings.list().into_iter().map(|manifest| manifest.file).collect();
    files.sort();
    let mut expected = [two.file, copy, "bob.webm".to_owned()];
    expected.sort();
    assert_eq!(files, expected);
}

#[tokio::test]
async fn what_a_hook_made_of_a_recording_beside_it_is_no_recording() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Bench::new(dir.path(), Config::default());
    let sound = audio(0, 1.0, Duration::ZERO);
    let recording = before.record("ann", &[OPUS], &mixed(&[&sound])).await;
    drop(before);
    let made = dir.path().join(&recording.file).with_extension("mp4");
    fs::write(&made, "made by a hook").unwrap();
    let (after, _) = next_start(dir.path(), 0).await;
    after.recordings.drained().await;
    assert_eq!(after.recordings.list(), [recording]);
    assert_eq!(fs::read(&made).unwrap(), b"made by a hook");
}

#[tokio::test]
async fn a_lost_manifest_gives_nobody_else_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let long = "ж".repeat(64);
    let names = ["cafe\u{301}", "a\u{202e}b", &long, "plain"];
    let mut before = Bench::new(dir.path(), Config::default());
    let sound = audio(0, 1.0, Duration::ZERO);
    let mut ids = Vec::new();
    for name in names {
        ids.push(before.record(name, &[OPUS], &mixed(&[&sound])).await.id);
    }
    drop(before);
    for file in fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|suffix| suffix == "json") {
            fs::remove_file(file).unwrap();
        } else if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("plain")) {
            // One that is not sealed yet.
            fs::rename(&file, format!("{}.part", file.display())).unwrap();
        }
    }
    let (after, told) = next_start(dir.path(), names.len()).await;
    let found: Vec<_> = told.iter().map(|manifest| (manifest.stream.as_str(), &manifest.id)).collect();
    assert_eq!(found, names.into_iter().zip(&ids).collect::<Vec<_>>());
    for manifest in &told {
        assert_eq!(manifest.end_reason, Some(EndReason::ServerCrashed));
        judge(&after.recordings.by_file(&manifest.file).unwrap().1).assert_holds(1, &sound);
    }
}

#[tokio::test]
async fn a_whole_mp4_that_another_program_holds_is_taken_up_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ann.mp4");
    let sound = ["-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine", "-t", "1", "-c:a", "aac"];
    let fragments = ["-movflags", "frag_keyframe+empty_moov", file.to_str().unwrap()];
    run("ffmpeg", &[&sound[..], &fragments].concat());
    let before = fs::read(&file).unwrap();
    let held = fs::File::open(&file).unwrap();
    held.lock().unwrap();
    let (_, told) = next_start(dir.path(), 1).await;
    assert_eq!((told[0].file.as_str(), told[0].bytes), ("ann.mp4", before.len() as u64));
    assert_eq!(fs::read(&file).unwrap(), before);
}
