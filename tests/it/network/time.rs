//! Sound and picture stay together, and what was captured at a time is at that time in the file.

use super::*;
use crate::support::judge::{self, Probe};
use crate::support::media;
use crate::support::publisher::Reports;
use onrecord::base::end_reason::EndReason;
use onrecord::base::tasks::Tasks;
use onrecord::live::Stream;
use onrecord::record::{self, Recordings};
use std::path::{Path, PathBuf};

/// Sound that starts half a second after the picture.
const LATE_SOUND: Duration = Duration::from_millis(500);
const JITTER: Duration = Duration::from_millis(80);
const HOLD: Duration = Duration::from_secs(3);

fn late_sound(reports: Reports) -> Config {
    let mut config = Config { reports, ..Config::playing(inside(), media::flash_and_beep(10)) };
    config.audio.as_mut().unwrap().starts_after = LATE_SOUND;
    config
}

/// The largest distance between sound and picture, in milliseconds, captured in this time.
fn worst(offsets: &[(Duration, f64)], from: Duration, to: Duration) -> f64 {
    let within = offsets.iter().filter(|(at, _)| (from..to).contains(at));
    within.map(|(_, offset)| offset.abs()).fold(0.0, f64::max)
}

fn offsets(network: &Net) -> Vec<(Duration, f64)> {
    let (video, audio) = (matched(network, Video), matched(network, Audio));
    let mut offsets = proof::offsets(&video, &audio);
    offsets.retain(|(at, _)| *at >= audio[0].captured);
    offsets
}

/// What the recorder makes of everything that came out.
fn record(network: &Net, folder: &Path) -> PathBuf {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = record::Config { dir: folder.into(), min_free: 0, ..record::Config::default() };
        let (recordings, mut events) = Recordings::open(config, false, Tasks::new()).unwrap();
        let stream = Stream::new("net".parse().unwrap(), network.server.session.tracks());
        let _recording = recordings.start(&stream).unwrap();
        for (at, event) in &network.server.media {
            stream.push(event.clone(), *at);
        }
        stream.end(EndReason::Stopped, network.now());
        let Some(record::Event::Sealed(manifest)) = events.recv().await else { panic!("nothing was sealed") };
        recordings.path(&manifest)
    })
}

/// That the last picture is as far from the first as it was captured.
fn assert_length(network: &Net) {
    let video = matched(network, Video);
    let (first, last) = (video[0], video[video.len() - 1]);
    let (kept, captured) = (last.time - first.time, last.captured - first.captured);
    println!("length {kept:?}, captured {captured:?}");
    assert!(kept.abs_diff(captured) <= Duration::from_millis(34), "{kept:?} instead of {captured:?}");
}

#[test]
fn reports_held_back_put_sound_and_picture_within_20_ms_in_the_file_too() {
    for seed in 0..3 {
        let mut network = connect(200 + seed, late_sound(Reports::After(HOLD)));
        network.up.jitter = JITTER;
        network.run_for(Duration::from_secs(20));
        finish(&mut network);
        let offsets = offsets(&network);
        // Reports go out each second, so the first of both tracks is here a second after the hold at
        // the latest.
        let settled = HOLD + Duration::from_secs(1) + Duration::from_millis(110) + Duration::from_secs(2);
        let (before, after) =
            (worst(&offsets, Duration::ZERO, settled), worst(&offsets, settled, Duration::MAX));
        println!("seed {seed}: up to {before:.1} ms before, {after:.1} ms from 2 s after the first reports");
        assert!(before <= 80.0, "{before} ms before the reports have settled");
        assert!(after <= 20.0, "{after} ms after the reports have settled");
        assert_length(&network);
        judge_file(&network, settled);
    }
}

fn judge_file(network: &Net, settled: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let file = record(network, folder.path());
    judge::decode(&file).unwrap();
    let offsets = judge::av_offsets(&file);
    println!("in the file, by ffmpeg: {offsets:.0?} ms");
    let (early, late) = offsets.split_at(settled.as_secs() as usize + 1);
    assert!(early.len() > 3 && late.len() > 10, "{} flashes", offsets.len());
    assert!(early.iter().all(|offset| offset.abs() <= 80.0), "{early:?}");
    assert!(late.iter().all(|offset| offset.abs() <= 20.0), "{late:?}");
    let video = judge::packets_of(&file, "video");
    let sent = network.publisher.sent_of(Video);
    let expected = sent[sent.len() - 1].captured - sent[0].captured + Duration::from_nanos(33_333_333);
    let (first, whole) = (video[0].time, Probe::of(&file).duration().unwrap());
    println!("the file lasts {whole:?}, its pictures from {first:?}; sent {expected:?}");
    assert!((whole - first).abs_diff(expected) <= Duration::from_millis(34), "{whole:?} - {first:?}");
}

#[test]
fn without_any_report_sound_and_picture_stay_within_40_ms() {
    for seed in 0..3 {
        let mut network = connect(210 + seed, late_sound(Reports::Never));
        network.up.jitter = JITTER;
        network.run_for(Duration::from_secs(30));
        finish(&mut network);
        let offsets = offsets(&network);
        let second = Duration::from_secs(2);
        let (start, rest) = (worst(&offsets, Duration::ZERO, second), worst(&offsets, second, Duration::MAX));
        println!("seed {seed}: up to {start:.1} ms in the first 2 s, {rest:.1} ms later");
        assert!(start <= 80.0 && rest <= 40.0, "{start} ms at the start, {rest} ms later");
        assert_length(&network);
    }
}

#[test]
fn an_hour_of_clocks_that_disagree_leaves_no_drift() {
    for (seed, reports) in [(220, Reports::Always), (221, Reports::Never)] {
        let mut config = Config { reports, wall_ppm: 100.0, ..Config::new(inside()) };
        config.video = Some(TrackConfig::new(FakeVideo::small()));
        config.audio = Some(TrackConfig { ppm: 100.0, ..TrackConfig::new(Box::<FakeAudio>::default()) });
        let mut network = connect(seed, config);
        network.up.jitter = Duration::from_millis(30);
        let began = Instant::now();
        network.run_for(Duration::from_secs(3600));
        finish(&mut network);
        let speed = 3600.0 / began.elapsed().as_secs_f64();
        let offsets = offsets(&network);
        let most = worst(&offsets, Duration::from_secs(5), Duration::MAX);
        let end = offsets[offsets.len() - 1].1;
        println!("{reports:?}: up to {most:.1} ms, {end:.1} ms after an hour; {speed:.0} times real time");
        assert!(most <= 20.0, "{most} ms with reports {reports:?}");
        // The file's clock is that of the pictures, whatever the sound's clock does.
        let video = matched(&network, Video);
        let length = (video[video.len() - 1].time - video[0].time).as_secs_f64();
        println!("{length:.3} s kept of 3600 s");
        assert!((length - 3600.0).abs() < 0.068, "{length} s");
        assert_kept(&network, Video, 100.0);
        assert_kept(&network, Audio, 100.0);
    }
}

#[test]
fn a_size_change_goes_on_in_the_same_file() {
    let mut config = Config::new(inside());
    config.video = Some(TrackConfig::new(crate::support::source::Looped::steady(media::size_change(3))));
    let mut network = connect(230, config);
    network.run_for(Duration::from_secs(9));
    finish(&mut network);
    assert_kept(&network, Video, 99.0);
    let folder = tempfile::tempdir().unwrap();
    let file = record(&network, folder.path());
    judge::decode(&file).unwrap();
    let sizes = judge::picture_sizes(&file);
    println!("one file with pictures of {sizes:?}");
    for size in [(640, 360), (1280, 720), (320, 180)] {
        assert!(sizes.contains(&size), "{size:?} is not among {sizes:?}");
    }
    let files = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "webm")
    });
    assert_eq!(files.count(), 1);
    let stream = Probe::of(&file).stream("video").map(|video| (video.width, video.height));
    assert_eq!(stream, Some((Some(1280), Some(720))), "the largest size is the track's");
}

/// From 8 to 13 s.
const HOLE: std::ops::Range<Duration> = Duration::from_secs(8)..Duration::from_secs(13);

/// By how much a kind's frames are later in the file than they were captured, in milliseconds.
fn shifts(network: &Net, kind: MediaKind) -> Vec<f64> {
    let shift = |frame: &Matched| (frame.time.as_secs_f64() - frame.captured.as_secs_f64()) * 1e3;
    matched(network, kind).iter().map(shift).collect()
}

fn spread(of: &[f64]) -> f64 {
    of.iter().copied().fold(f64::MIN, f64::max) - of.iter().copied().fold(f64::MAX, f64::min)
}

#[test]
fn behind_a_silence_sound_and_picture_are_in_step_from_the_first_frame() {
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 6] = [
        ("a microphone that was taken away", |config| config.audio.as_mut().unwrap().stands = vec![HOLE]),
        ("a camera that was taken away", |config| config.video.as_mut().unwrap().pauses = vec![HOLE]),
        ("a frozen browser", |config| {
            config.audio.as_mut().unwrap().stands = vec![HOLE];
            config.video.as_mut().unwrap().pauses = vec![HOLE];
        }),
        ("a computer that was asleep", |config| {
            config.audio.as_mut().unwrap().stands = vec![HOLE];
            config.video.as_mut().unwrap().stands = vec![HOLE];
        }),
        ("sound that begins late", |config| {
            config.audio.as_mut().unwrap().starts_after = Duration::from_secs(3);
        }),
        ("sound alone", |config| {
            config.audio.as_mut().unwrap().stands = vec![HOLE];
            config.video = None;
        }),
    ];
    for (seed, (what, change)) in cases.into_iter().enumerate() {
        for reports in [Reports::Always, Reports::Never] {
            let mut config = Config { reports, ..fake_media() };
            change(&mut config);
            let mut network = connect(240 + seed as u64, config);
            network.up.jitter = Duration::from_millis(30);
            network.run_for(Duration::from_secs(20));
            finish(&mut network);
            let kinds =
                [Video, Audio].into_iter().filter(|kind| !network.publisher.sent_of(*kind).is_empty());
            let all: Vec<f64> = kinds.flat_map(|kind| shifts(&network, kind)).collect();
            println!("{what}, reports {reports:?}: all within {:.1} ms", spread(&all));
            assert!(spread(&all) <= 40.0, "{what}, reports {reports:?}: {} ms", spread(&all));
            assert_kept(&network, Audio, 100.0);
            assert_one_stream(&network);
        }
    }
}

#[test]
fn a_network_that_held_packets_up_moves_nothing() {
    let mut network = connect(260, fake_media());
    network.run_for(Duration::from_secs(8));
    // Nothing is lost; for two seconds nothing arrives, then all of it.
    network.up.latency = Duration::from_secs(2);
    network.run_for(Duration::from_millis(100));
    network.up.latency = Duration::from_millis(30);
    network.run_for(Duration::from_secs(8));
    finish(&mut network);
    let all: Vec<f64> = [Video, Audio].into_iter().flat_map(|kind| shifts(&network, kind)).collect();
    println!("all within {:.1} ms", spread(&all));
    assert!(spread(&all) <= 40.0, "{} ms", spread(&all));
    assert_kept(&network, Audio, 100.0);
}
