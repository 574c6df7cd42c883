//! Files begun, cut and ended at a word from outside.

use super::judge::judge;
use super::media::{OPUS, VP8, audio, mixed, video};
use super::{Bench, ended, push, sealed, until};
use crate::base::end_reason::EndReason;
use crate::catalog::What;
use crate::media::Frame;
use crate::record::{Begun, Config, Event, Progress};
use std::time::{Duration, Instant};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn between(frames: &[Frame], from: u64, to: u64) -> Vec<Frame> {
    frames.iter().filter(|frame| frame.time >= ms(from) && frame.time < ms(to)).cloned().collect()
}

#[tokio::test]
async fn a_cut_goes_on_in_a_new_file_at_the_next_keyframe_and_no_frame_falls_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let mut changes = bench.recordings.changes();
    let (pictures, sound) = (video(0, (320, 180), 5.0, 30, ms(0)), audio(1, 5.0, ms(0)));
    let (stream, mut recording) = bench.start("cut", &[VP8, OPUS]);
    let first = Begun { recording: recording.id.clone(), continues: None, waits: true };
    assert_eq!(recording.cut(Instant::now()), Some(first), "without a frame there is nothing to cut");
    // Both cuts come between keyframes; the second is asked for twice.
    let pushed = |from, to| mixed(&[&between(&pictures, from, to), &between(&sound, from, to)]);
    push(&stream, &pushed(0, 1_500));
    until(&mut recording, |progress| matches!(progress, Progress::Writing).then_some(())).await;
    let second = recording.cut(Instant::now()).unwrap();
    assert_eq!((second.continues.as_ref(), second.waits), (Some(&recording.id), true));
    assert_eq!(recording.cut(Instant::now()), Some(second.clone()), "one wish, however often it is said");
    push(&stream, &pushed(1_500, 3_200));
    super::eventually("it goes on in the second file", || {
        (recording.current() == second.recording).then_some(())
    })
    .await;
    let third = recording.cut(Instant::now()).unwrap();
    assert_eq!(third.continues.as_ref(), Some(&second.recording));
    push(&stream, &pushed(3_200, 9_000));
    recording.stop(EndReason::Stopped, Instant::now());
    push(&stream, &mixed(&[&[Frame { time: ms(9_000), ..sound[0].clone() }]]));
    let id = recording.id.clone();
    let last = sealed(recording).await;
    bench.recordings.drained().await;

    let mut told = Vec::new();
    while let Ok(Event::Sealed(manifest)) = bench.events.try_recv() {
        told.push(*manifest);
    }
    let ids: Vec<_> = told.iter().map(|manifest| manifest.id.clone()).collect();
    assert_eq!(ids, [id.clone(), second.recording.clone(), third.recording]);
    assert!(ids.is_sorted() && last == told[2]);
    let ends: Vec<_> = told.iter().map(|manifest| manifest.end_reason.unwrap()).collect();
    assert_eq!(ends, [EndReason::Rotated, EndReason::Rotated, EndReason::Stopped]);
    assert_eq!((&told[1].continues, &told[2].continues), (&Some(id.clone()), &Some(second.recording)));
    for (manifest, (from, to)) in told.iter().zip([(0, 2_000), (2_000, 4_000), (4_000, 9_000)]) {
        let seen = judge(&dir.path().join(&manifest.file));
        seen.assert_holds(1, &between(&pictures, from, to));
        seen.assert_holds(2, &between(&sound, from, to));
        assert!(manifest.gaps.is_empty(), "{:?}", manifest.gaps);
    }
    let mut seen = Vec::new();
    while let Ok(change) = changes.try_recv() {
        if change.manifest.id == id {
            seen.push(change.what);
        }
    }
    assert_eq!(seen, [What::Started, What::Sealed], "what onlookers hear of the first file");
}

#[tokio::test]
async fn a_recording_of_a_stream_under_way_begins_with_a_picture_and_lacks_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path(), Config::default());
    let (pictures, sound) = (video(0, (320, 180), 3.0, 30, ms(0)), audio(1, 3.0, ms(0)));
    let stream = crate::live::Stream::new("late".parse().unwrap(), vec![VP8, OPUS]);
    push(&stream, &mixed(&[&between(&pictures, 0, 500), &between(&sound, 0, 500)]));
    let recording = bench.recordings.join(&stream).unwrap();
    push(&stream, &mixed(&[&between(&pictures, 500, 3_000), &between(&sound, 500, 3_000)]));
    stream.end(EndReason::Stopped, Instant::now());
    let manifest = sealed(recording).await;
    let seen = judge(&dir.path().join(&manifest.file));
    seen.assert_holds(1, &between(&pictures, 1_000, 3_000));
    seen.assert_holds(2, &between(&sound, 1_000, 3_000));
    assert!(manifest.gaps.is_empty(), "what came before it is no hole: {:?}", manifest.gaps);

    let stream = crate::live::Stream::new("sound".parse().unwrap(), vec![OPUS]);
    let recording = bench.recordings.join(&stream).unwrap();
    let alone: Vec<_> = sound.iter().cloned().map(|frame| Frame { track: 0, ..frame }).collect();
    push(&stream, &mixed(&[&alone]));
    stream.end(EndReason::Stopped, Instant::now());
    assert_eq!(sealed(recording).await.tracks[0].frames, sound.len() as u64, "sound alone begins at once");

    let stream = crate::live::Stream::new("no keyframe".parse().unwrap(), vec![VP8, OPUS]);
    let recording = bench.recordings.join(&stream).unwrap();
    push(&stream, &mixed(&[&pictures[1..20], &sound[..20]]));
    recording.stop(EndReason::Stopped, Instant::now());
    assert!(matches!(ended(recording).await, Progress::Empty(EndReason::Stopped)));
}
