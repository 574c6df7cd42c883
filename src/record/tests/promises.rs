//! What a recording promises.

use super::judge::judge;
use super::media::{OPUS, VP8, audio, mixed, run, video};
use super::{Bench, ended, eventually, push, sealed, until};
use crate::base::end_reason::EndReason;
use crate::catalog::{HookState, RecordingState};
use crate::media::{Event as MediaEvent, Frame, Gap, GapReason};
use crate::record::{Config, Event, Progress};
use std::fs;
use std::time::{Duration, Instant};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn a_recording_is_whole_and_seekable_in_other_peoples_eyes() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let (pictures, sound) = (video(0, (640, 360), 9.0, 60, ms(5_000)), audio(1, 8.5, ms(5_500)));
    let mut events = mixed(&[&pictures, &sound]);
    events.insert(100, MediaEvent::Lost { track: 0, packets: 3 });
    let gap = Gap { track: 1, from: ms(6_000), to: ms(6_100), reason: GapReason::Loss };
    events.insert(100, MediaEvent::Gap(gap));
    let manifest = bench.record("interview 7", &[VP8, OPUS], &events).await;

    let path = dir.path().join(&manifest.file);
    let seen = judge(&path);
    assert_eq!(seen.streams, ["vp8,640,360", "opus"]);
    seen.assert_holds(1, &pictures);
    seen.assert_holds(2, &sound);
    seen.assert_in_order();
    seen.assert_a_cue_for_each_keyframe_of(1);
    seen.assert_seek_head_is_right();
    assert_eq!(seen.packets[0].millis, 0, "time begins at 0");
    let truth = 9_000.0_f64.max(500.0 + sound.len() as f64 * 20.0);
    assert!((seen.duration - truth).abs() <= 1.0, "{} ms of {truth} ms", seen.duration);

    assert_eq!(manifest.duration_ms as f64, seen.duration.round());
    assert_eq!(manifest.bytes, fs::metadata(&path).unwrap().len());
    assert_eq!((manifest.state, manifest.end_reason), (RecordingState::Sealed, Some(EndReason::Stopped)));
    let tracks: Vec<_> = manifest.tracks.iter().map(|t| (t.frames, t.width, t.height, t.lost)).collect();
    assert_eq!(tracks, [(270, Some(640), Some(360), 3), (sound.len() as u64, None, None, 0)]);
    let gaps: Vec<_> = manifest.gaps.iter().map(|gap| (gap.track, gap.from_ms, gap.to_ms)).collect();
    assert_eq!(gaps, [(2, 1_000, 1_100)]);
    assert_eq!(manifest.hook.state, HookState::Queued, "the hook's job is durable before anyone is told");
    let on_disk = fs::read(path.with_extension("json")).unwrap();
    assert_eq!(serde_json::from_slice::<crate::catalog::Manifest>(&on_disk).unwrap(), manifest);
    let Some(Event::Sealed(told)) = bench.events.recv().await else { panic!("not told") };
    assert_eq!(*told, manifest);
    assert_eq!(bench.recordings.by_file(&manifest.file), Some((manifest.clone(), path)));
    assert_eq!(bench.recordings.list(), [manifest]);
    assert_eq!(bench.files().len(), 2, "{:?}", bench.files());
}

fn tags(path: &std::path::Path) -> serde_json::Value {
    let args = ["-v", "error", "-of", "json", "-show_entries", "format_tags:stream_tags"];
    serde_json::from_str(&run("ffprobe", &[&args[..], &[path.to_str().unwrap()]].concat())).unwrap()
}

#[tokio::test]
async fn a_file_says_whose_it_is_and_how_much_of_each_track_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let (pictures, sound) = (video(0, (320, 180), 4.0, 60, ms(0)), audio(1, 4.0, ms(0)));
    let name = "entretien n° 7";
    let manifest = bench.record(name, &[VP8, OPUS], &mixed(&[&pictures, &sound])).await;
    let path = dir.path().join(&manifest.file);
    let told = tags(&path);
    assert_eq!(told["format"]["tags"]["title"], name);
    for (index, frames) in [&pictures, &sound].into_iter().enumerate() {
        let bytes: usize = frames.iter().map(|frame| frame.data.len()).sum();
        let track = &told["streams"][index]["tags"];
        assert_eq!(track["NUMBER_OF_FRAMES"], frames.len().to_string(), "{told}");
        assert_eq!(track["NUMBER_OF_BYTES"], bytes.to_string());
        let rate: f64 = track["BPS"].as_str().unwrap().parse().unwrap();
        assert!((rate / (bytes as f64 * 2.0) - 1.0).abs() < 0.02, "{rate} bits a second of {bytes} bytes");
        assert!(track["DURATION"].as_str().unwrap().starts_with("00:00:04.0"), "{track}");
    }
    // MediaInfo believes them: a rate that it had to work out for itself would be the file's alone.
    let args = ["--Inform=Audio;%BitRate% %FrameCount%", path.to_str().unwrap()];
    let expected = format!("{} {}", told["streams"][1]["tags"]["BPS"].as_str().unwrap(), sound.len());
    assert_eq!(run("mediainfo", &args).trim(), expected);
    // What a copy keeps, and what is found again after a crash.
    let copy = dir.path().join("copy.webm");
    crate::record::repair(&path, Some(&copy), &mut |_, _| true).unwrap();
    assert_eq!(tags(&copy), told);
    let whole = fs::read(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 - 100).unwrap();
    crate::record::repair(&path, None, &mut |_, _| true).unwrap();
    assert!(fs::read(&path).unwrap() == whole, "sealed again, it is another file");
}

#[tokio::test]
async fn a_copy_of_a_part_of_a_file_has_no_statistics_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let (pictures, sound) = (video(0, (320, 180), 4.0, 60, ms(0)), audio(1, 4.0, ms(0)));
    let manifest = bench.record("a", &[VP8, OPUS], &mixed(&[&pictures, &sound])).await;
    let (path, merged) = (dir.path().join(&manifest.file), dir.path().join("merged.mkv"));
    run("mkvmerge", &["-q", "-o", merged.to_str().unwrap(), path.to_str().unwrap()]);
    let words = tags(&merged);
    assert_eq!(words["streams"][1]["tags"]["NUMBER_OF_FRAMES"], sound.len().to_string(), "{words}");
    // Its own statistics are behind the part that is cut off, or in front of the clusters.
    let bytes = fs::read(&merged).unwrap();
    for end in [bytes.len() / 2, bytes.len() - 10] {
        fs::write(&merged, &bytes[..end]).unwrap();
        let repaired = crate::record::repair(&merged, None, &mut |_, _| true).unwrap();
        let words = tags(&merged);
        for (track, stream) in repaired.tracks.iter().zip(words["streams"].as_array().unwrap()) {
            assert_eq!(stream["tags"]["NUMBER_OF_FRAMES"], track.frames.to_string(), "{words}");
        }
        let account = run("mkvinfo", &["-a", merged.to_str().unwrap()]);
        assert_eq!(account.matches("Name: BPS").count(), 2, "{account}");
    }
}

#[tokio::test]
async fn the_frame_rate_that_tools_read_is_that_of_an_uneven_camera() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    // Some pictures come right behind the one before them; after four seconds nothing comes for two.
    let mut frames = video(0, (320, 180), 8.0, 60, ms(0));
    for (index, frame) in (0..).zip(&mut frames) {
        let late = if index % 10 == 4 { ms(31) } else { ms(index * 7 % 5) };
        frame.time += late + if index >= 120 { ms(2_000) } else { ms(0) };
    }
    let manifest = bench.record("uneven", &[VP8], &mixed(&[&frames])).await;
    let path = dir.path().join(&manifest.file);
    let file = path.to_str().unwrap();
    let rate = |file: &str| {
        let args = ["-v", "error", "-of", "csv=p=0", "-show_entries", "stream=r_frame_rate,avg_frame_rate"];
        let told = run("ffprobe", &[&args[..], &[file]].concat());
        let rates = told.trim().trim_end_matches(',').split(',').map(|rate| {
            let (count, seconds) = rate.split_once('/').unwrap();
            count.parse::<f64>().unwrap() / seconds.parse::<f64>().unwrap()
        });
        rates.collect::<Vec<_>>()
    };
    let rates = rate(file);
    println!("{rates:?} frames a second");
    assert!(rates.iter().all(|rate| (rate / 30.0 - 1.0).abs() < 0.01), "{rates:?} frames a second");
    // A copy by the other road says the same.
    let copy = dir.path().join("copy.webm");
    crate::record::repair(&path, Some(&copy), &mut |_, _| true).unwrap();
    assert_eq!(rate(copy.to_str().unwrap()), rates);
    let mp4 = dir.path().join("constant.mp4");
    run(
        "ffmpeg",
        &[
            "-nostdin",
            "-v",
            "error",
            "-i",
            file,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            mp4.to_str().unwrap(),
        ],
    );
    let args = ["-v", "error", "-count_packets", "-of", "csv=p=0", "-show_entries", "stream=nb_read_packets"];
    let count: f64 = run("ffprobe", &[&args[..], &[mp4.to_str().unwrap()]].concat()).trim().parse().unwrap();
    // At a constant rate the pause of 2 s is filled with its last picture.
    assert!((count - 300.0).abs() <= 3.0, "{count} pictures of 240 and 60 for the pause");

    let single = bench.record("single", &[VP8], &mixed(&[&frames[..1]])).await;
    let seen = judge(&dir.path().join(&single.file));
    assert!(!seen.account.contains("Default duration"), "{}", seen.account);
}

#[tokio::test]
async fn a_change_of_picture_size_goes_on_in_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let frames = [
        video(0, (640, 360), 1.0, 30, ms(0)),
        video(0, (1280, 720), 1.0, 30, ms(1_000)),
        video(0, (320, 180), 1.0, 30, ms(2_000)),
    ]
    .concat();
    let manifest = bench.record("sizes", &[VP8], &mixed(&[&frames])).await;
    let path = dir.path().join(&manifest.file);
    let seen = judge(&path);
    assert_eq!(seen.streams, ["vp8,1280,720"], "the largest seen");
    assert_eq!((manifest.tracks[0].width, manifest.tracks[0].height), (Some(1280), Some(720)));
    seen.assert_holds(1, &frames);
    seen.assert_a_cue_for_each_keyframe_of(1);
    let args = ["-v", "error", "-of", "csv=p=0", "-show_frames", "-show_entries", "frame=width,height"];
    let sizes = run("ffprobe", &[&args[..], &[path.to_str().unwrap()]].concat());
    let count = |size: &str| sizes.lines().filter(|line| line.starts_with(size)).count();
    assert_eq!([count("640,360"), count("1280,720"), count("320,180")], [30, 30, 30], "frames of each size");
}

#[tokio::test]
async fn sound_alone_and_pictures_alone_are_seekable_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let sound = audio(0, 17.0, ms(0));
    let manifest = bench.record("sound", &[OPUS], &mixed(&[&sound])).await;
    assert_eq!(manifest.mime, "audio/webm");
    let seen = judge(&dir.path().join(&manifest.file));
    assert_eq!(seen.streams, ["opus"]);
    seen.assert_holds(1, &sound);
    seen.assert_cues_point_at_blocks();
    seen.assert_seek_head_is_right();
    let times: Vec<_> = seen.cues.iter().map(|cue| cue.millis / 1000).collect();
    assert!(times.len() >= 3 && times.windows(2).all(|pair| pair[1] - pair[0] <= 7), "cues at {times:?} s");
    assert!((seen.duration - sound.len() as f64 * 20.0).abs() < 1.0, "{} ms", seen.duration);

    let pictures = video(0, (320, 180), 2.0, 30, ms(0));
    let manifest = bench.record("pictures", &[VP8], &mixed(&[&pictures])).await;
    let seen = judge(&dir.path().join(&manifest.file));
    seen.assert_holds(1, &pictures);
    assert!((seen.duration - 2_000.0).abs() <= 1.0, "{} ms", seen.duration);
}

#[tokio::test]
async fn a_track_that_never_had_a_frame_is_not_in_the_sealed_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let sound = audio(1, 2.0, ms(0));
    let manifest = bench.record("camera off", &[VP8, OPUS], &mixed(&[&sound])).await;
    let seen = judge(&dir.path().join(&manifest.file));
    assert_eq!(seen.streams, ["opus"]);
    seen.assert_holds(2, &sound);
    seen.assert_cues_point_at_blocks();
    assert_eq!(manifest.tracks[0].frames, 0);
}

#[tokio::test]
async fn any_name_makes_a_file_that_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let sound = audio(0, 0.1, ms(0));
    let long = "ж".repeat(64);
    for name in ["$HOME \"quoted\" 'name'", "собеседование", "*?;|&<>%00%2f", &long, " ", "a\u{301}"]
    {
        let manifest = bench.record(name, &[OPUS], &mixed(&[&sound])).await;
        assert_eq!(manifest.stream.as_str(), name, "the manifest keeps the name as it was given");
        let (found, path) = bench.recordings.by_file(&manifest.file).unwrap();
        assert_eq!((found, path.parent()), (manifest, Some(dir.path())));
        judge(&path);
    }
}

#[tokio::test]
async fn a_frame_is_in_the_file_within_the_flush_interval_in_whole_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let flush_interval = ms(400);
    let bench = Bench::new(dir.path(), Config { flush_interval, ..Config::default() });
    let (stream, mut recording) = bench.start("live", &[VP8, OPUS]);
    let (pictures, sound) = (video(0, (320, 180), 3.0, 30, ms(0)), audio(1, 3.0, ms(0)));
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(ms(10));
    let (mut written_at, mut waiting) = (Vec::new(), Vec::<(Instant, u64)>::new());
    // Sound takes 100 ms longer to arrive: clusters must be in order all the same.
    let arrival = |frame: &Frame| frame.time + ms(100) * frame.track as u32;
    let mut frames = [&pictures[..], &sound[..]].concat();
    frames.sort_by_key(arrival);
    for frame in frames {
        while begun.elapsed() < arrival(&frame) {
            ticks.tick().await;
            let len = part_len(&bench);
            waiting.retain(|(pushed, bytes)| {
                *bytes > len || {
                    written_at.push(pushed.elapsed());
                    false
                }
            });
        }
        let bytes = waiting.last().map_or(0, |(_, bytes)| *bytes) + frame.data.len() as u64;
        stream.push(MediaEvent::Frame(frame), Instant::now());
        waiting.push((Instant::now(), bytes));
    }
    let worst = written_at.iter().max().unwrap();
    println!(
        "a frame reached the file after {worst:?} at the latest, with flush_interval {flush_interval:?}"
    );
    // The file also holds headers, so that this measures a little too early, by less than a frame or
    // two; the allowance is for a busy machine.
    assert!(*worst <= flush_interval + ms(150), "a frame waited {worst:?}");

    until(&mut recording, |progress| matches!(progress, Progress::Writing).then_some(())).await;
    let part = bench.files().into_iter().find(|name| name.ends_with(".part")).unwrap();
    let copy = dir.path().join("copy.webm");
    fs::copy(dir.path().join(&part), &copy).unwrap();
    let seen = judge(&copy);
    assert!(seen.packets.len() > 100, "{} packets in what a crash would leave", seen.packets.len());
    seen.assert_in_order();
    let manifest = dir.path().join(part.replace(".webm.part", ".json"));
    let manifest: crate::catalog::Manifest = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!((manifest.state, manifest.id), (RecordingState::Recording, recording.id.clone()));
    stream.end(EndReason::Stopped, Instant::now());
    let manifest = sealed(recording).await;
    let seen = judge(&dir.path().join(&manifest.file));
    seen.assert_holds(1, &pictures);
    seen.assert_holds(2, &sound);
    seen.assert_in_order();
    seen.assert_a_cue_for_each_keyframe_of(1);
}

fn part_len(bench: &Bench) -> u64 {
    let part = bench.files().into_iter().find(|name| name.ends_with(".part"));
    part.map_or(0, |name| fs::metadata(bench.dir.join(name)).map_or(0, |meta| meta.len()))
}

#[tokio::test]
async fn a_stream_without_a_frame_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path(), Config::default());
    let (stream, recording) = bench.start("silent", &[VP8]);
    let undecodable = video(0, (320, 180), 0.2, 30, ms(0)).split_off(1);
    push(&stream, &mixed(&[&undecodable]));
    stream.end(EndReason::PublisherLost, Instant::now());
    assert!(matches!(ended(recording).await, Progress::Empty(EndReason::PublisherLost)));
    bench.recordings.drained().await;
    assert_eq!(bench.files(), Vec::<String>::new());
    assert!(bench.recordings.list().is_empty());
}

#[tokio::test]
async fn the_servers_key_beside_the_recordings_is_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join(".key");
    fs::write(&key, [7; 32]).unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    bench.recordings.recover();
    bench.record("a", &[VP8], &mixed(&[&video(0, (320, 240), 1.0, 30, ms(0))])).await;
    assert_eq!((bench.recordings.list().len(), bench.recordings.by_file(".key")), (1, None));
    assert_eq!(fs::read(&key).unwrap(), [7; 32]);
    assert!(!dir.path().join("quarantine").exists());
}

#[tokio::test]
async fn a_stream_that_is_dropped_without_an_end_is_sealed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path(), Config::default());
    let (stream, recording) = bench.start("dropped", &[OPUS]);
    push(&stream, &mixed(&[&audio(0, 0.5, ms(0))]));
    drop(stream);
    assert_eq!(sealed(recording).await.end_reason, Some(EndReason::PublisherLost));
}

#[tokio::test]
async fn what_the_memory_did_not_take_before_the_end_is_a_hole_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let pictures = video(0, (320, 180), 1.0, 30, ms(0));
    // More than waits for the disk, all of it before the recorder looks for the first time.
    let large = |index: usize| {
        let data = [&pictures[index].data[..], &vec![0; 9 << 20]].concat().into();
        Frame { data, ..pictures[index].clone() }
    };
    let events = mixed(&[&[large(0), large(1), pictures[2].clone()]]);
    let manifest = bench.record("overrun", &[VP8], &events).await;
    let gaps: Vec<_> =
        manifest.gaps.iter().map(|gap| (gap.track, gap.from_ms, gap.to_ms, gap.reason)).collect();
    assert_eq!((manifest.tracks[0].frames, gaps), (1, vec![(1, 0, 66, GapReason::Overrun)]));

    // A stream that goes without a word of its end leaves the same behind.
    let (stream, recording) = bench.start("dropped", &[VP8]);
    push(&stream, &events);
    drop(stream);
    let manifest = sealed(recording).await;
    assert_eq!((manifest.gaps.len(), manifest.end_reason), (1, Some(EndReason::PublisherLost)));
}

#[tokio::test]
async fn a_long_recording_goes_on_in_new_files_at_keyframes() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config { max_duration: ms(1_500), ..Config::default() });
    let (pictures, sound) = (video(0, (320, 180), 5.0, 30, ms(0)), audio(1, 5.0, ms(0)));
    let last = bench.record("long", &[VP8, OPUS], &mixed(&[&pictures, &sound])).await;
    bench.recordings.drained().await;
    let mut told = Vec::new();
    while let Ok(Event::Sealed(manifest)) = bench.events.try_recv() {
        told.push(*manifest);
    }
    let ends: Vec<_> = told.iter().map(|manifest| manifest.end_reason.unwrap()).collect();
    assert_eq!(ends, [EndReason::Rotated, EndReason::Rotated, EndReason::Stopped]);
    assert_eq!(told[2], last);
    assert_eq!(told[0].continues, None);
    assert_eq!(told[1].continues.as_ref(), Some(&told[0].id));
    assert_eq!(told[2].continues.as_ref(), Some(&told[1].id));
    let in_file = |frames: &[Frame], from: u64, to: u64| {
        let inside = |frame: &&Frame| frame.time >= ms(from) && frame.time < ms(to);
        frames.iter().filter(inside).cloned().collect::<Vec<_>>()
    };
    for (manifest, (from, to)) in told.iter().zip([(0, 2_000), (2_000, 4_000), (4_000, 9_000)]) {
        let seen = judge(&dir.path().join(&manifest.file));
        seen.assert_holds(1, &in_file(&pictures, from, to));
        seen.assert_holds(2, &in_file(&sound, from, to));
        seen.assert_a_cue_for_each_keyframe_of(1);
        assert_eq!(seen.packets[0].millis, 0, "each file begins at 0");
    }
}

#[tokio::test]
async fn pictures_that_freeze_while_a_file_ends_go_on_in_the_next_one_with_a_keyframe() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path(), Config { max_duration: ms(1_000), ..Config::default() });
    let (pictures, sound) = (video(0, (320, 180), 3.0, 30, ms(0)), audio(1, 0.9, ms(1_100)));
    let (stream, recording) = bench.start("frozen", &[VP8, OPUS]);
    // The picture came more than 10 s ago, and less than that before the sound that waits the longest.
    let now = Instant::now();
    stream.push(MediaEvent::Frame(pictures[0].clone()), now - ms(10_300));
    for (index, frame) in (0..).zip(sound.iter().take(45)) {
        stream.push(MediaEvent::Frame(frame.clone()), now - ms(900 - 20 * index));
    }
    let first = recording.id.clone();
    eventually("it goes on in a second file", || (recording.current() != first).then_some(())).await;
    let (delta, keyframe) = (&pictures[58], &pictures[60]);
    assert!(!delta.keyframe && keyframe.keyframe);
    push(&stream, &mixed(&[&[delta.clone(), keyframe.clone()]]));
    stream.end(EndReason::Stopped, Instant::now());
    let manifest = sealed(recording).await;
    assert_eq!(manifest.continues, Some(first));
    let seen = judge(&dir.path().join(&manifest.file));
    seen.assert_holds(1, std::slice::from_ref(keyframe));
    let gaps: Vec<_> = manifest.gaps.iter().map(|gap| (gap.track, gap.from_ms, gap.to_ms)).collect();
    assert_eq!(gaps, [(1, 833, 900)], "what could not be decoded is told");
}

#[tokio::test]
async fn a_large_recording_of_sound_goes_on_in_new_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config { max_bytes: 20_000, ..Config::default() });
    let sound = audio(0, 6.0, ms(0));
    bench.record("large", &[OPUS], &mixed(&[&sound])).await;
    bench.recordings.drained().await;
    let files = bench.recordings.list();
    let frames: u64 = files.iter().map(|manifest| manifest.tracks[0].frames).sum();
    assert_eq!(frames, sound.len() as u64, "frames over all files");
    assert!(files.len() >= 2 && files.iter().all(|file| file.bytes < 22_000), "{files:#?}");
}

#[tokio::test]
async fn a_stopping_server_seals_what_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = crate::base::tasks::Tasks::new();
    let config = Config { dir: dir.path().to_owned(), ..Config::default() };
    let (recordings, _events) = crate::record::Recordings::open(config, false, tasks.clone()).unwrap();
    let stream = crate::live::Stream::new("s".parse().unwrap(), vec![OPUS]);
    let recording = recordings.start(&stream).unwrap();
    push(&stream, &mixed(&[&audio(0, 0.5, ms(0))]));
    assert!(tasks.stop(super::PATIENCE).await, "a recorder did not stop");
    let manifest = sealed(recording).await;
    assert_eq!(manifest.end_reason, Some(EndReason::ServerStopped));
    assert_eq!(manifest.hook.state, HookState::None, "no hook is configured");
}

#[tokio::test]
async fn what_was_lost_before_a_crash_is_in_the_manifest_after_it() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = || Config { flush_interval: ms(100), sync_interval: ms(100), ..Config::default() };
    let bench = Bench::new(dir.path(), config());
    let sound = audio(0, 4.0, ms(0));
    let (stream, mut recording) = bench.start("crash", &[OPUS]);
    let gap =
        |from, to| MediaEvent::Gap(Gap { track: 0, from: ms(from), to: ms(to), reason: GapReason::Loss });
    push(&stream, &mixed(&[&sound[..50]]));
    push(&stream, &[MediaEvent::Lost { track: 0, packets: 7 }, gap(1_000, 1_200)]);
    push(&stream, &mixed(&[&sound[60..100]]));
    push(&stream, &[gap(2_000, 2_500)]);
    push(&stream, &mixed(&[&sound[125..126]]));
    until(&mut recording, |progress| matches!(progress, Progress::Writing).then_some(())).await;
    let noted = eventually("it is noted", || {
        let json = bench.files().into_iter().find(|name| name.ends_with(".json"))?;
        let text = fs::read(dir.path().join(json)).ok()?;
        let manifest: crate::catalog::Manifest = serde_json::from_slice(&text).unwrap();
        (manifest.gaps.len() == 2).then_some(manifest)
    })
    .await;
    assert_eq!((noted.state, noted.tracks[0].lost), (RecordingState::Recording, 7));
    // What is on the disk changes first.
    let catalogued = || (bench.recordings.get(&recording.id)? == noted).then_some(());
    eventually("the catalogue says the same", catalogued).await;

    // The folder as it is now is what a crash would leave; the last frames have not reached it.
    for name in bench.files() {
        fs::copy(dir.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let part = crashed.path().join(format!("{}.part", noted.file));
    let cut = fs::File::options().write(true).open(part).unwrap();
    cut.set_len(cut.metadata().unwrap().len() - 1).unwrap();
    let mut after = Bench::new(crashed.path(), config());
    after.recordings.recover();
    let Some(Event::Sealed(manifest)) = after.events.recv().await else { panic!("not told") };
    println!("{} ms are left, {:?}", manifest.duration_ms, manifest.gaps);
    let gaps = |of: &crate::catalog::Manifest| {
        of.gaps.iter().map(|gap| (gap.from_ms, gap.to_ms)).collect::<Vec<_>>()
    };
    // The frame that ends the second one was cut off, not the silence in it.
    assert_eq!(gaps(&manifest), [(1_000, 1_200), (2_000, manifest.duration_ms)]);
    assert!(manifest.duration_ms < 2_500, "{} ms", manifest.duration_ms);
    assert_eq!((manifest.end_reason, manifest.tracks[0].lost), (Some(EndReason::ServerCrashed), 7));
    stream.end(EndReason::Stopped, Instant::now());
    let whole = sealed(recording).await;
    assert_eq!((gaps(&whole), whole.tracks[0].lost), (vec![(1_000, 1_200), (2_000, 2_500)], 7));
}
