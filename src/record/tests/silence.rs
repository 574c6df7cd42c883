//! Holes of sound, as programs hear them that put one packet behind the other.

use super::judge::{Seen, judge};
use super::media::{OPUS, VP8, audio, mixed, run, video};
use super::{Bench, push};
use crate::base::end_reason::EndReason;
use crate::catalog::Manifest;
use crate::media::{Frame, GapReason, opus};
use crate::record::{Config, Event};
use std::path::Path;
use std::time::{Duration, Instant};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Those of the frames whose times `keep` takes.
fn only(frames: &[Frame], keep: impl Fn(u64) -> bool) -> Vec<Frame> {
    frames.iter().filter(|frame| keep(frame.time.as_millis() as u64)).cloned().collect()
}

/// How long a file's sound is for a speech recogniser, in milliseconds.
fn heard_by_ffmpeg(path: &Path) -> f64 {
    let wav = path.with_extension("wav");
    let (from, to) = (path.to_str().unwrap(), wav.to_str().unwrap());
    run("ffmpeg", &["-nostdin", "-v", "error", "-y", "-i", from, "-ac", "1", "-ar", "16000", to]);
    (std::fs::metadata(wav).unwrap().len() - 44) as f64 / 32.0
}

/// The same for GStreamer.
fn heard_by_gstreamer(path: &Path) -> f64 {
    let raw = path.with_extension("raw");
    let (from, to) = (format!("location={}", path.display()), format!("location={}", raw.display()));
    let decode = ["!", "matroskademux", "!", "audio/x-opus", "!", "opusdec", "!", "audioconvert", "!"];
    let sink = ["audioresample", "!", "audio/x-raw,format=S16LE,rate=16000,channels=1", "!", "filesink", &to];
    run("gst-launch-1.0", &[&["-q", "filesrc", &from], &decode[..], &sink].concat());
    std::fs::metadata(raw).unwrap().len() as f64 / 32.0
}

/// Every player plays a sound track as long as the file, with every packet that was sent at its time.
fn assert_filled(dir: &Path, manifest: &Manifest, sent: &[Frame], base: Duration) -> Seen {
    let path = dir.join(&manifest.file);
    let seen = judge(&path);
    seen.assert_holds(2, sent);
    let times = |filler: bool| {
        let of_kind = move |packet: &&super::judge::Packet| packet.track == 2 && packet.filler == filler;
        seen.packets.iter().filter(of_kind).map(|packet| packet.millis).collect::<Vec<_>>()
    };
    let meant: Vec<_> = sent.iter().map(|frame| (frame.time - base).as_millis() as u64).collect();
    assert_eq!(times(false), meant, "the times of what was sent");
    let mut all = [times(true), times(false)].concat();
    all.sort_unstable();
    let steps: Vec<_> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step <= 30), "packets of 20 ms: {steps:?}");
    assert_eq!(manifest.tracks[1].frames, sent.len() as u64, "the manifest counts what came");
    let duration = manifest.duration_ms as f64;
    let (ffmpeg, gstreamer) = (heard_by_ffmpeg(&path), heard_by_gstreamer(&path));
    println!("{}: {duration} ms, ffmpeg hears {ffmpeg}, GStreamer {gstreamer}", manifest.stream.as_str());
    assert!((ffmpeg - duration).abs() <= 25.0, "{ffmpeg} of {duration} ms for ffmpeg");
    assert!((gstreamer - duration).abs() <= 25.0, "{gstreamer} of {duration} ms for GStreamer");
    seen
}

#[tokio::test]
async fn a_file_has_no_hole_in_its_sound_whatever_was_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let base = ms(2_000);
    let (pictures, sound) = (video(0, (320, 180), 8.0, 60, base), audio(1, 7.9, base));
    let whole = |_| true;
    let cases: [(&str, &dyn Fn(u64) -> bool); 6] = [
        ("whole", &whole),
        ("muted for 5 s", &|at| !(3_000..8_000).contains(&at)),
        ("3 s late", &|at| at >= 5_000),
        ("pauses in speech", &|at| !(3_000..8_000).contains(&at) || at % 400 == 0),
        ("ends 3 s early", &|at| at < 7_000),
        ("a packet lost", &|at| at != 4_000),
    ];
    for (name, keep) in cases {
        let sent = only(&sound, keep);
        let manifest = bench.record(name, &[VP8, OPUS], &mixed(&[&pictures, &sent])).await;
        let seen = assert_filled(dir.path(), &manifest, &sent, base);
        seen.assert_in_order();
        seen.assert_a_cue_for_each_keyframe_of(1);
        assert_eq!(manifest.gaps.len(), 0, "a hole is told by what saw it");
    }
}

#[tokio::test]
async fn sound_that_was_declared_and_never_came_is_silence_and_the_manifest_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config::default());
    let pictures = video(0, (320, 180), 3.0, 60, ms(0));
    let manifest = bench.record("never", &[VP8, OPUS], &mixed(&[&pictures])).await;
    assert_filled(dir.path(), &manifest, &[], ms(0));
    let gaps: Vec<_> = manifest.gaps.iter().map(|g| (g.track, g.from_ms, g.to_ms, g.reason)).collect();
    assert_eq!(gaps, [(2, 0, manifest.duration_ms, GapReason::Silence)]);
}

#[tokio::test]
async fn holes_stay_where_nobody_wants_them_filled() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config { fill_silence: false, ..Config::default() });
    let (pictures, sound) = (video(0, (320, 180), 2.0, 60, ms(0)), audio(1, 1.0, ms(1_000)));
    let manifest = bench.record("holes", &[VP8, OPUS], &mixed(&[&pictures, &sound])).await;
    let seen = judge(&dir.path().join(&manifest.file));
    assert!(seen.packets.iter().all(|packet| !packet.filler));
    seen.assert_holds(2, &sound);
}

#[tokio::test]
async fn a_file_of_ours_with_holes_can_be_filled_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config { fill_silence: false, ..Config::default() });
    let (pictures, sound) = (video(0, (320, 180), 6.0, 60, ms(0)), audio(1, 5.9, ms(0)));
    let cases: [(&str, &dyn Fn(u64) -> bool); 3] = [
        ("late, muted and early", &|at| (500..2_000).contains(&at) || (3_000..5_000).contains(&at)),
        ("pauses in speech", &|at| at % 400 == 0),
        ("cut", &|at| !(1_000..4_000).contains(&at)),
    ];
    for (name, keep) in cases {
        let sent = only(&sound, keep);
        let manifest = bench.record(name, &[VP8, OPUS], &mixed(&[&pictures, &sent])).await;
        let path = dir.path().join(&manifest.file);
        if name == "cut" {
            // Sealed in its space first, then written anew.
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 100).unwrap();
        }
        let (repaired, filled) = crate::record::repair_and_fill(&path, None, &mut |_, _| true).unwrap();
        println!("{name}: {filled:?}");
        assert_eq!((repaired.tracks[1].frames, filled.left.len()), (sent.len() as u64, 0));
        let seen = assert_filled(dir.path(), &manifest, &sent, ms(0));
        seen.assert_cues_point_at_blocks();
        let whole = std::fs::read(&path).unwrap();
        let (_, again) = crate::record::repair_and_fill(&path, None, &mut |_, _| true).unwrap();
        assert!(again == crate::record::Filled::default() && std::fs::read(&path).unwrap() == whole);
    }
}

#[tokio::test]
async fn each_file_of_a_long_recording_has_sound_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), Config { max_duration: ms(1_500), ..Config::default() });
    let pictures = video(0, (320, 180), 6.0, 60, ms(0));
    let sound = only(&audio(1, 6.0, ms(0)), |at| !(1_000..5_000).contains(&at));
    bench.record("long", &[VP8, OPUS], &mixed(&[&pictures, &sound])).await;
    bench.recordings.drained().await;
    let mut files = 0;
    while let Ok(Event::Sealed(manifest)) = bench.events.try_recv() {
        let base = ms(files * 2_000);
        let inside = |at| (files * 2_000..files * 2_000 + 2_000).contains(&at) || files == 2 && at >= 4_000;
        assert_filled(dir.path(), &manifest, &only(&sound, inside), base);
        files += 1;
    }
    assert_eq!(files, 3);
}

#[tokio::test]
async fn silence_is_written_while_it_lasts_and_a_crash_counts_what_came() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = || Config { flush_interval: ms(100), reorder_window: ms(100), ..Config::default() };
    let bench = Bench::new(dir.path(), config());
    let (stream, _recording) = bench.start("crash", &[VP8, OPUS]);
    let (pictures, sound) = (video(0, (320, 180), 3.0, 15, ms(0)), audio(1, 0.5, ms(0)));
    push(&stream, &mixed(&[&pictures[..15], &sound]));
    // Pictures go on in their time; the sound doesn't.
    let begun = Instant::now();
    for frame in &pictures[15..] {
        tokio::time::sleep_until((begun + frame.time - ms(500)).into()).await;
        push(&stream, &mixed(&[std::slice::from_ref(frame)]));
    }
    for name in bench.files() {
        std::fs::copy(dir.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    stream.end(EndReason::Stopped, Instant::now());
    let mut after = Bench::new(crashed.path(), config());
    after.recordings.recover();
    let Some(Event::Sealed(manifest)) = after.events.recv().await else { panic!("not told") };
    let seen = judge(&crashed.path().join(&manifest.file));
    let last = |track| seen.packets.iter().rfind(|packet| packet.track == track).map_or(0, |p| p.millis);
    println!("pictures up to {} ms, sound up to {} ms", last(1), last(2));
    assert!(last(2) + 1_000 > last(1) && last(2) > 1_000, "{} ms of {}", last(2), last(1));
    assert_eq!(manifest.tracks[1].frames, sound.len() as u64, "a crash doesn't count silence either");
}

#[test]
fn decoders_hear_nothing_in_silence_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    for micros in [2_500, 5_000, 10_000, 20_000, 40_000, 60_000] {
        for channels in [1, 2] {
            let length = Duration::from_micros(micros);
            let track = crate::media::Track::opus(channels);
            let (mut file, layout) = crate::container::webm::head(&crate::container::Head {
                tracks: std::slice::from_ref(&track),
                sizes: &[None],
                uid: 1,
                unix_nanos: 0,
                title: "",
            });
            assert_eq!(layout.len, file.len() as u64);
            let mut clusters = crate::container::webm::Clusters::new(std::slice::from_ref(&track), ms(1_000));
            for step in 0..40 {
                clusters.push_filler(0, length * step, &opus::silence(length, channels > 1));
            }
            clusters.finish();
            file.extend_from_slice(clusters.bytes());
            let path = dir.path().join("silence.webm");
            std::fs::write(&path, file).unwrap();
            let args =
                ["-nostdin", "-v", "error", "-y", "-xerror", "-i", path.to_str().unwrap(), "-f", "s16le"];
            let raw = dir.path().join("silence.raw");
            run("ffmpeg", &[&args[..], &[raw.to_str().unwrap()]].concat());
            let samples = std::fs::read(raw).unwrap();
            let expected = micros as usize * 40 * 48 / 1000 * usize::from(channels) * 2;
            assert_eq!(samples.len(), expected, "{micros} us, {channels} channels");
            assert!(samples.iter().all(|byte| *byte == 0), "{micros} us, {channels} channels: noise");
        }
    }
}
