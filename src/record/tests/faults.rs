//! What happens when the disk fails for a moment (S6): single calls that fail, in processes of their own
//! that a library is loaded into.

use super::disk_errors::alone_with;
use super::judge::judge;
use super::media::{OPUS, VP8, audio, mixed, video};
use super::{Bench, eventually, push, sealed};
use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::catalog::{Manifest, RecordingState};
use crate::media::Frame;
use crate::record::{Config, Event, Progress, Recording};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

fn alone(test: &str) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/faults.c");
    let prepare = format!(
        "cc -shared -fPIC -o \"$RECORDS/.faults.so\" {source} -ldl && \
         export FAULTS=\"$RECORDS/.faults\" LD_PRELOAD=\"$RECORDS/.faults.so\" &&"
    );
    alone_with("faults", test, &prepare, &[]);
}

fn bench() -> Bench {
    let dir = std::env::var("RECORDS").unwrap();
    let config = Config { flush_interval: ms(200), sync_interval: ms(400), ..Config::default() };
    Bench::new(dir.as_ref(), config)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn order_file() -> PathBuf {
    std::env::var("FAULTS").unwrap().into()
}

/// From now on calls of this name on what ends so fail, so many times.
fn order(call: &str, suffix: &str, error: i32, times: i32) {
    let aside = order_file().with_extension("new");
    fs::write(&aside, format!("{call} {suffix} {error} {times}\n")).unwrap();
    fs::rename(aside, order_file()).unwrap();
}

async fn obeyed() {
    eventually("the calls have failed", || (!order_file().exists()).then_some(())).await;
}

fn part(bench: &Bench) -> PathBuf {
    let name = bench.files().into_iter().find(|name| name.ends_with(".part"));
    bench.dir.join(name.expect("a .part"))
}

/// Pushes frames as they come, each at its time, while something else is done.
async fn live(stream: &crate::live::Stream, frames: &[Frame]) {
    let began = Instant::now();
    let first = frames[0].time;
    for frame in frames {
        tokio::time::sleep_until((began + (frame.time - first)).into()).await;
        push(stream, &mixed(&[std::slice::from_ref(frame)]));
    }
}

fn told(bench: &mut Bench) -> Vec<Manifest> {
    std::iter::from_fn(|| match bench.events.try_recv() {
        Ok(Event::Sealed(manifest)) => Some(*manifest),
        Err(_) => None,
    })
    .collect()
}

fn with_sound(pictures: &[Frame], sound: &[Frame]) -> Vec<Frame> {
    let mut all = [pictures, sound].concat();
    all.sort_by_key(|frame| frame.time);
    all
}

#[test]
fn a_write_that_fails_once_costs_no_frame_that_can_be_decoded() {
    alone("inner_one_write");
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose calls can be made to fail"]
async fn inner_one_write() {
    let mut bench = bench();
    let (pictures, sound) = (video(0, (320, 180), 6.0, 15, ms(0)), audio(1, 6.0, ms(0)));
    let all = with_sound(&pictures, &sound);
    let (stream, recording) = bench.start("camera", &[VP8, OPUS]);
    let half = all.partition_point(|frame| frame.time < ms(3_000));
    live(&stream, &all[..half]).await;
    order("write", ".part", EIO, 1);
    live(&stream, &all[half..]).await;
    assert!(!order_file().exists(), "no write failed");
    stream.end(EndReason::Stopped, Instant::now());
    let last = sealed(recording).await;
    bench.recordings.drained().await;
    let files = told(&mut bench);
    assert_eq!((files.len(), &files[1]), (2, &last));
    assert_eq!(files[1].continues.as_ref(), Some(&files[0].id));
    let ends: Vec<_> = files.iter().map(|file| file.end_reason.unwrap()).collect();
    assert_eq!(ends, [EndReason::WriteError, EndReason::Stopped]);
    let (mut shown, mut heard) = (0, 0);
    for file in &files {
        let seen = judge(&bench.dir.join(&file.file));
        seen.assert_in_order();
        shown += seen.packets.iter().filter(|packet| packet.track == 1).count();
        heard += seen.packets.iter().filter(|packet| packet.track == 2).count();
        println!("{} ms, {:?}, gaps {:?}", file.duration_ms, file.tracks, file.gaps);
    }
    assert_eq!(heard, sound.len(), "all sound is in one of both");
    // At most the pictures up to the next keyframe.
    assert!(shown + 15 >= pictures.len(), "{shown} of {} pictures", pictures.len());
    let missing = pictures.len() - shown;
    let named: u64 = files[1].gaps.iter().map(|gap| gap.to_ms - gap.from_ms).sum();
    assert!(named + 67 >= missing as u64 * 1000 / 30, "{missing} missing, {named} ms are named");
}

#[test]
fn a_disk_that_goes_on_failing_ends_the_publication_with_what_there_was() {
    alone("inner_every_write");
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose calls can be made to fail"]
async fn inner_every_write() {
    let bench = bench();
    let sound = audio(0, 4.0, ms(0));
    let (stream, recording) = bench.start("sound", &[OPUS]);
    live(&stream, &sound[..100]).await;
    order("write", ".part", EIO, -1);
    live(&stream, &sound[100..]).await;
    fs::remove_file(order_file()).unwrap();
    let manifest = sealed(recording).await;
    assert_eq!((manifest.end_reason, &manifest.continues), (Some(EndReason::WriteError), &None));
    let kept = judge(&bench.dir.join(&manifest.file)).assert_holds_the_first(1, &sound);
    assert!(kept >= 70, "{kept} of the 100 before the failure");
    assert_eq!(bench.recordings.list().len(), 1, "{:?}", bench.files());
}

#[test]
fn whatever_step_of_sealing_fails_is_tried_again_until_the_file_is_whole() {
    alone("inner_sealing");
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose calls can be made to fail"]
async fn inner_sealing() {
    let mut bench = bench();
    let pictures = video(0, (320, 180), 2.0, 30, ms(0));
    for (call, suffix, error, times) in [
        ("sync", ".part", EIO, 1),
        ("sync", ".part", EIO, 3),
        ("write", ".part", EIO, 2),
        ("rename", ".webm.part", EIO, 2),
        ("open", "-", EMFILE, 2),
        ("sync", "-", EIO, 1),
        ("create", ".json.tmp", ENOSPC, 4),
        ("write", ".json.tmp", ENOSPC, 4),
        ("sync", ".json.tmp", EIO, 2),
        ("rename", ".json.tmp", EIO, 2),
    ] {
        let fault = format!("{call} {suffix} {error} {times}");
        // What a full disk has taken of the reserve is kept back again before a recording begins.
        eventually("there is space", || bench.recordings.shared.space.has_space().unwrap().then_some(()))
            .await;
        let (stream, mut recording) = bench.start("take", &[VP8]);
        push(&stream, &mixed(&[&pictures]));
        eventually("all is written", || (recorded(&bench) > bytes_of(&pictures)).then_some(())).await;
        let mut changes = bench.recordings.changes();
        order(call, suffix, error, times);
        stream.end(EndReason::Stopped, Instant::now());
        let said = said_while_sealing(&bench, &mut recording).await;
        let manifest = sealed(recording).await;
        obeyed().await;
        println!("{fault}: {said:?}");
        assert_eq!(manifest.end_reason, Some(EndReason::Stopped), "{fault}");
        assert_eq!(manifest.error, None);
        let seen = judge(&bench.dir.join(&manifest.file));
        seen.assert_holds(1, &pictures);
        seen.assert_a_cue_for_each_keyframe_of(1);
        let json = fs::read(bench.dir.join(&manifest.file).with_extension("json")).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&json).unwrap(), manifest, "{fault}");
        assert!(std::iter::from_fn(|| changes.try_recv().ok()).any(|change| change.manifest.error.is_some()));
        assert!(matches!(bench.events.recv().await, Some(Event::Sealed(told)) if *told == manifest));
    }
    assert!(!bench.files().iter().any(|name| name.ends_with(".part")), "{:?}", bench.files());
}

fn bytes_of(frames: &[Frame]) -> u64 {
    frames.iter().map(|frame| frame.data.len() as u64).sum()
}

fn recorded(bench: &Bench) -> u64 {
    let part = bench.files().into_iter().find(|name| name.ends_with(".part"));
    part.map_or(0, |name| fs::metadata(bench.dir.join(name)).map_or(0, |meta| meta.len()))
}

/// What the catalogue says once a step has failed.
async fn said_while_sealing(bench: &Bench, recording: &mut Recording) -> String {
    let failing = |progress: &Progress| match progress {
        Progress::Sealing(error) => Some(error.clone()),
        _ => None,
    };
    let error = super::until(recording, failing).await;
    if let Some(shown) = bench.recordings.get(&recording.id)
        && shown.state != RecordingState::Sealed
    {
        assert_eq!((shown.state, shown.error.is_some()), (RecordingState::Sealing, true), "{shown:?}");
        assert!(bench.recordings.list().iter().any(|listed| listed.state == RecordingState::Sealing));
        assert!(bench.recordings.delete(&recording.id).await.is_err(), "it has yet to be sealed");
    }
    error
}

#[test]
fn a_stop_leaves_what_cannot_be_sealed_to_the_next_start() {
    alone("inner_stop");
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose calls can be made to fail"]
async fn inner_stop() {
    let mut before = bench();
    let sound = audio(0, 2.0, ms(0));
    let (stream, mut recording) = before.start("take", &[OPUS]);
    push(&stream, &mixed(&[&sound]));
    eventually("it is written", || (recorded(&before) > bytes_of(&sound)).then_some(())).await;
    order("rename", ".webm.part", EIO, -1);
    stream.end(EndReason::Stopped, Instant::now());
    said_while_sealing(&before, &mut recording).await;
    let began = Instant::now();
    before.recordings.drained().await;
    println!("it leaves after {:?}", began.elapsed());
    assert!(began.elapsed() < ms(5_000), "it waited for the disk");
    assert!(matches!(super::ended(recording).await, Progress::Failed { code: ErrorCode::WriteError, .. }));
    assert!(part(&before).exists() && told(&mut before).is_empty());
    drop(before);

    // The disk fails at the next start as well, for a while.
    let mut after = bench();
    after.recordings.recover();
    let sealing = || {
        let listed = after.recordings.list();
        listed.iter().any(|one| one.state == RecordingState::Sealing && one.error.is_some()).then_some(())
    };
    eventually("the repair fails, and the catalogue says so", sealing).await;
    fs::remove_file(order_file()).unwrap();
    let Some(Event::Sealed(manifest)) = after.events.recv().await else { panic!("not told") };
    assert_eq!(manifest.end_reason, Some(EndReason::ServerCrashed));
    judge(&after.dir.join(&manifest.file)).assert_holds(1, &sound);
    assert!(!after.dir.join("quarantine").exists());
}

#[test]
fn faults_of_a_repair_send_nothing_to_quarantine() {
    alone("inner_repair");
}

#[tokio::test]
#[ignore = "run by the test before it, in a process whose calls can be made to fail"]
async fn inner_repair() {
    let sound = audio(0, 2.0, ms(0));
    for (call, suffix, error, times) in [
        ("read", ".part", EIO, 2),
        ("open", ".part", EMFILE, 2),
        ("sync", ".part", EIO, 2),
        ("rename", ".part", EIO, 2),
        ("sync", "-", EIO, 2),
        ("create", ".json.tmp", EMFILE, 2),
    ] {
        let left = bench();
        let (stream, recording) = left.start("take", &[OPUS]);
        push(&stream, &mixed(&[&sound]));
        eventually("it is written", || (recorded(&left) > 1_000).then_some(())).await;
        // A crash: the file stays as it is.
        let (from, json) = (part(&left), part(&left).with_extension("").with_extension("json"));
        let (bytes, text) = (fs::read(&from).unwrap(), fs::read(&json).unwrap());
        stream.end(EndReason::Stopped, Instant::now());
        let manifest = sealed(recording).await;
        drop(left);
        fs::remove_file(Path::new(&std::env::var("RECORDS").unwrap()).join(&manifest.file)).unwrap();
        fs::write(&from, bytes).unwrap();
        fs::write(&json, text).unwrap();
        let mut after = bench();
        order(call, suffix, error, times);
        after.recordings.recover();
        let Some(Event::Sealed(repaired)) = after.events.recv().await else { panic!("not told") };
        obeyed().await;
        println!("{call} {suffix} {error}: sealed {:?}", repaired.file);
        let seen = judge(&after.dir.join(&repaired.file));
        assert!(seen.assert_holds_the_first(1, &sound) > 50);
        assert!(!after.dir.join("quarantine").exists());
    }
}
