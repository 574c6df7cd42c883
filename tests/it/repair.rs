//! Files that were cut, damaged or never finished become whole; what can't be is kept as it is.

use crate::support::judge::{self, Probe};
use crate::support::media;
use crate::support::server::Server;
use onrecord::base::reason::EndReason;
use onrecord::base::tasks::Tasks;
use onrecord::live::Stream;
use onrecord::media::{Codec, Event as MediaEvent, Frame, Track, vp8};
use onrecord::record::{self, Config, Done, Event, HookState, Manifest, RecordingState, Recordings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

/// What a server that was killed leaves of a recording.
struct Unfinished {
    part: Vec<u8>,
    manifest: serde_json::Value,
}

/// Eight seconds, in clusters of a second.
fn frames() -> Vec<Frame> {
    let (pictures, sound) = media::flash_and_beep(8);
    let frame = |track: usize| {
        move |encoded: &media::Encoded| Frame {
            track,
            time: encoded.time,
            keyframe: encoded.keyframe,
            size: vp8::size(&encoded.data).filter(|_| track == 0),
            data: encoded.data.to_vec().into(),
        }
    };
    let mut frames: Vec<_> =
        pictures.frames.iter().map(frame(0)).chain(sound.frames.iter().map(frame(1))).collect();
    frames.sort_by_key(|frame| frame.time);
    frames
}

/// Records until all is in the `.part`, and takes a copy of that and of the manifest.
async fn unfinished() -> Unfinished {
    let dir = tempfile::tempdir().unwrap();
    let (recordings, _events) = open(dir.path());
    let stream = Stream::new("crash".parse().unwrap(), TRACKS.to_vec());
    let recording = recordings.start(&stream).unwrap();
    let frames = frames();
    let payload: usize = frames.iter().map(|frame| frame.data.len()).sum();
    for frame in frames {
        stream.push(&MediaEvent::Frame(frame), Instant::now());
    }
    let begun = Instant::now();
    let part = loop {
        let manifest = recordings.get(&recording.id);
        let part =
            manifest.and_then(|manifest| fs::read(recordings.path(&manifest)).ok()).unwrap_or_default();
        if part.len() > payload {
            break part;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {payload} bytes in the .part", part.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let path = recordings.path(&recordings.get(&recording.id).unwrap());
    let manifest = fs::read(path.with_extension("").with_extension("json")).unwrap();
    let busy = record::repair(&path, None, &mut |_, _| true);
    assert!(matches!(busy, Err(record::RepairError::Busy)), "a file that is being written: {busy:?}");
    stream.end(EndReason::Stopped, Instant::now());
    recordings.drained().await;
    Unfinished { part, manifest: serde_json::from_slice(&manifest).unwrap() }
}

impl Unfinished {
    /// Puts a copy of it with another id into a folder; returns the file's name.
    fn leave(&self, dir: &Path, number: usize, part: &[u8]) -> String {
        let old = self.manifest["id"].as_str().unwrap();
        let id = format!("{}{number:04}", &old[..22]);
        let file = self.manifest["file"].as_str().unwrap().replace(old, &id);
        let mut manifest = self.manifest.clone();
        manifest["id"] = json!(id);
        manifest["file"] = json!(file);
        fs::write(dir.join(&file).with_extension("json"), manifest.to_string()).unwrap();
        fs::write(dir.join(format!("{file}.part")), part).unwrap();
        file
    }
}

fn open(dir: &Path) -> (Recordings, mpsc::Receiver<Event>) {
    let config = Config { dir: dir.to_owned(), min_free: 0, ..Config::default() };
    Recordings::open(config, true, Tasks::new()).unwrap()
}

/// Opens a folder, repairs what is in it, and waits until nothing is listed as `recording`.
async fn restart(dir: &Path) -> (Recordings, Vec<Manifest>) {
    let (recordings, mut events) = open(dir);
    recordings.recover();
    let (begun, mut told) = (Instant::now(), Vec::new());
    loop {
        while let Ok(Event::Sealed(manifest)) = events.try_recv() {
            told.push(*manifest);
        }
        let list = recordings.list();
        let count = |state| list.iter().filter(|manifest| manifest.state == state).count();
        let (left, sealed) = (count(RecordingState::Recording), count(RecordingState::Sealed));
        let parts = names(dir).iter().filter(|name| name.ends_with(".part")).count();
        if (left, parts, sealed) == (0, 0, told.len()) {
            return (recordings, told);
        }
        let about = format!("{left} left, {parts} parts, {sealed} sealed, {} announced", told.len());
        assert!(begun.elapsed() < PATIENCE, "{about}: {:?}", names(dir));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn onrecord(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_onrecord")).args(args).stdin(Stdio::null()).output();
    output.expect("the binary starts")
}

/// Repairs a file by command; returns the line it said.
fn repaired(file: &Path) -> String {
    let output = onrecord(&["repair", file.to_str().unwrap()]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{said}{errors}");
    said.trim().to_owned()
}

fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg").args(["-nostdin", "-v", "error"]).args(args).output().unwrap();
    assert!(output.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every frame's track, time, size and hash, as ffmpeg reads them.
fn framemd5(file: &Path) -> String {
    let text = ffmpeg(&["-i", file.to_str().unwrap(), "-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
    let text = String::from_utf8(text).unwrap();
    // A last frame's duration is only known of a whole file.
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    let kept = frames.map(|line| {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        [fields[0], fields[2], fields[4], fields[5]].join(" ")
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn assert_seekable(file: &Path) -> Duration {
    let duration = Probe::of(file).duration().expect("a duration");
    assert!(!duration.is_zero() && !judge::cue_times(file).is_empty(), "{duration:?}, or no cues");
    duration
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_cut_anywhere_is_sealed_at_the_next_start_and_its_hook_is_queued() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let mut random = StdRng::seed_from_u64(20);
    let cuts: Vec<_> = (0..100).map(|_| random.random_range(0..=unfinished.part.len())).collect();
    let files: Vec<_> = cuts
        .iter()
        .enumerate()
        .map(|(n, cut)| unfinished.leave(dir.path(), n, &unfinished.part[..*cut]))
        .collect();
    let (recordings, told) = restart(dir.path()).await;
    let (mut sealed, mut away) = (0, 0);
    for (number, (cut, file)) in cuts.iter().zip(&files).enumerate() {
        let manifest = recordings.list().into_iter().find(|manifest| manifest.file == *file).unwrap();
        let path = recordings.path(&manifest);
        if manifest.state == RecordingState::Quarantined {
            // Less than the first cluster is there.
            assert!(*cut < unfinished.part.len() / 6, "cut at {cut}: {:?}", manifest.reason);
            assert!(manifest.reason.is_some() && fs::read(&path).unwrap() == unfinished.part[..*cut]);
            away += 1;
            continue;
        }
        sealed += 1;
        assert_eq!(manifest.end_reason, Some(EndReason::ServerCrashed));
        assert_eq!(manifest.hook.state, HookState::Queued);
        assert_eq!(manifest.bytes, fs::metadata(&path).unwrap().len());
        assert!(told.contains(&manifest), "{file} was not announced");
        let again = record::repair(&path, None, &mut |_, _| true).unwrap();
        assert_eq!(again.done, Done::Nothing, "cut at {cut}");
        if number % 10 == 0 {
            judge::decode(&path).unwrap();
            let seen = assert_seekable(&path);
            // The manifest has whole milliseconds.
            let apart = seen.as_secs_f64() * 1000.0 - manifest.duration_ms as f64;
            assert!(apart.abs() <= 0.51, "cut at {cut}: {seen:?} of {} ms", manifest.duration_ms);
            let packets = judge::packets(&path).len() as u64;
            assert_eq!(packets, manifest.tracks.iter().map(|track| track.frames).sum::<u64>());
        }
    }
    println!("100 cuts: {sealed} sealed and announced, {away} without a whole cluster in quarantine");
    assert_eq!(told.len(), sealed);

    // Another start finds nothing to do, and owes the same hooks.
    drop(recordings);
    let before = names(dir.path());
    let (recordings, _events) = open(dir.path());
    assert_eq!(recordings.hooks_due().len(), sealed);
    recordings.recover();
    assert_eq!(names(dir.path()).len(), before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_never_make_an_unplayable_file_under_a_final_name() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let mut random = StdRng::seed_from_u64(21);
    let mut whole = 0;
    let mut originals = Vec::new();
    for number in 0..50 {
        let mut part = unfinished.part.clone();
        for _ in 0..random.random_range(1..4) {
            // Every fifth file in its head, where each byte counts.
            let end = if number % 5 == 0 { 500 } else { part.len() };
            part[random.random_range(0..end)] ^= random.random_range(1..=255);
        }
        originals.push((unfinished.leave(dir.path(), number, &part), part));
    }
    let (recordings, _) = restart(dir.path()).await;
    for (number, (file, part)) in originals.iter().enumerate() {
        let manifest = recordings.list().into_iter().find(|manifest| manifest.file == *file).unwrap();
        let path = recordings.path(&manifest);
        if manifest.state == RecordingState::Quarantined {
            assert!(fs::read(&path).unwrap() == *part, "not byte for byte");
            assert_eq!(number % 5, 0, "{file}: {:?}", manifest.reason);
            continue;
        }
        whole += 1;
        let again = record::repair(&path, None, &mut |_, _| true).unwrap();
        assert_eq!(again.done, Done::Nothing, "{file}");
        if number % 5 == 0 || number % 7 == 0 {
            assert_seekable(&path);
            let packets = judge::packets(&path).len();
            assert!(packets > 400, "{file}: {packets} of about 640 frames are left");
        }
    }
    println!("50 files with flipped bytes: {whole} whole, {} in quarantine", 50 - whole);
    assert!(whole >= 40, "{whole} of 50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_without_a_manifest_or_with_a_torn_one_are_not_lost() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let at = |name: &str| dir.path().join(name);
    let orphan = unfinished.leave(dir.path(), 1, &unfinished.part);
    fs::remove_file(at(&orphan).with_extension("json")).unwrap();
    let torn = unfinished.leave(dir.path(), 2, &unfinished.part);
    fs::write(at(&torn).with_extension("json"), "{\"id\": \"0").unwrap();
    let empty = unfinished.leave(dir.path(), 3, b"");
    let noise = unfinished.leave(dir.path(), 4, b"this is no recording");
    let renamed = unfinished.leave(dir.path(), 5, &unfinished.part);
    fs::rename(at(&format!("{renamed}.part")), at(&renamed)).unwrap();
    fs::write(at("holiday.webm.part"), &unfinished.part).unwrap();
    let clip = ["-f", "lavfi", "-i", "testsrc2=s=64x64", "-t", "1", "-c:v", "libvpx-vp9", "-f", "webm"];
    fs::write(at("foreign.webm"), ffmpeg(&[&clip[..], &["-live", "1", "-"]].concat())).unwrap();
    fs::write(at("holiday.mkv"), ffmpeg(&[&clip[..7], &["libvpx", "-f", "matroska", "-"]].concat())).unwrap();
    fs::write(at(".x.json.tmp"), "{").unwrap();
    let nothing = unfinished.leave(dir.path(), 6, b"");
    fs::remove_file(at(&format!("{nothing}.part"))).unwrap();

    let (recordings, told) = restart(dir.path()).await;
    let of = |file: &str| recordings.list().into_iter().find(|manifest| manifest.file == file).unwrap();
    for (file, stream) in [(&orphan, "crash"), (&torn, "crash"), (&renamed, "crash")] {
        let manifest = of(file);
        assert_eq!(manifest.state, RecordingState::Sealed, "{file}");
        assert_eq!((manifest.stream.as_str(), manifest.tracks.len()), (stream, 2));
        assert!(file.contains(manifest.id.as_str()), "the id of its name is kept: {} {file}", manifest.id);
        assert!(told.contains(&manifest));
        judge::decode(&recordings.path(&manifest)).unwrap();
    }
    let foreign = of("foreign.webm");
    assert!(recordings.by_file("foreign.webm").is_some(), "it can be downloaded");
    // Two files of one stem can't share a manifest, so one of them has a new name.
    let holidays: Vec<_> =
        recordings.list().into_iter().filter(|manifest| manifest.stream.as_str() == "holiday").collect();
    assert_eq!(holidays.len(), 2, "{holidays:?}");
    for manifest in holidays.iter().chain([&foreign]) {
        assert_eq!(manifest.state, RecordingState::Sealed, "{manifest:?}");
        judge::decode(&recordings.path(manifest)).unwrap();
        assert_seekable(&recordings.path(manifest));
    }
    for (file, bytes) in [(&empty, &b""[..]), (&noise, b"this is no recording")] {
        let manifest = of(file);
        assert_eq!(manifest.state, RecordingState::Quarantined);
        println!("{:?}", manifest.reason);
        assert_eq!(fs::read(at("quarantine").join(file)).unwrap(), bytes);
    }
    assert_eq!((of(&nothing).state, of(&nothing).file_present), (RecordingState::Quarantined, false));
    let kept = Path::new(&torn).with_extension("json");
    assert_eq!(fs::read(at("quarantine").join(kept)).unwrap(), b"{\"id\": \"0");
    assert!(!at(".x.json.tmp").exists());
}

#[tokio::test]
async fn a_server_that_starts_runs_the_hook_of_what_it_repaired() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let records = dir.path().join("records");
    fs::create_dir(&records).unwrap();
    let file = unfinished.leave(&records, 1, &unfinished.part);
    let (script, log) = (dir.path().join("hook.sh"), dir.path().join("log"));
    let line = "$ONRECORD_STREAM $ONRECORD_END_REASON $ONRECORD_ATTEMPT $ONRECORD_ID $2";
    fs::write(
        &script,
        format!("#!/bin/sh\nffprobe -v error \"$2\" && echo \"{line}\" >> {}\n", log.display()),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (at, hook) =
        (format!("record.dir={}", records.display()), format!("hooks.on_record={}", script.display()));
    let server = Server::start(&[&at, &hook]);
    let begun = Instant::now();
    while !log.exists() || fs::read_to_string(&log).unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no hook ran");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = fs::read_to_string(&log).unwrap();
    let path = records.join(&file);
    let id = file.rsplit_once('_').unwrap().1.trim_end_matches(".webm");
    assert_eq!(said, format!("crash server_crashed 1 {id} {}\n", path.display()));
    judge::decode(&path).unwrap();
    drop(server);
}

#[test]
fn what_ffmpeg_streams_becomes_seekable_with_the_same_frames_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let encode = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-f", "lavfi", "-i", "sine=r=48000"];
    let codecs =
        ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-c:a", "libopus"];
    let live = ffmpeg(&[&encode[..], &["-t", "5"], &codecs, &["-f", "webm", "-live", "1", "-"]].concat());
    let plain = ffmpeg(&[&encode[..], &["-t", "5"], &codecs, &["-f", "webm", "-"]].concat());
    let whole_at = dir.path().join("whole.webm");
    ffmpeg(&[&encode[..], &["-t", "5"], &codecs, &[whole_at.to_str().unwrap()]].concat());
    let mkv_at = dir.path().join("x.mkv");
    let copy = ["-i", whole_at.to_str().unwrap(), "-c", "copy", mkv_at.to_str().unwrap()];
    ffmpeg(&copy);
    let (whole, mkv) = (fs::read(&whole_at).unwrap(), fs::read(&mkv_at).unwrap());
    assert!(repaired(&whole_at).contains("nothing to do"));
    assert!(fs::read(&whole_at).unwrap() == whole, "a whole file was touched");

    let mut random = StdRng::seed_from_u64(22);
    for (kind, bytes) in [("live", &live), ("piped", &plain), ("whole", &whole), ("matroska", &mkv)] {
        for round in 0..4 {
            let end =
                if round == 0 { bytes.len() } else { random.random_range(bytes.len() / 8..bytes.len()) };
            let path = dir.path().join(format!("{kind}{round}.webm"));
            fs::write(&path, &bytes[..end]).unwrap();
            let before = framemd5(&path);
            let said = repaired(&path);
            let duration = assert_seekable(&path);
            println!("{kind} cut at {end}: {duration:?}; {said}");
            assert!(framemd5(&path) == before, "{kind} cut at {end}: other frames than before");
            assert!(
                repaired(&path).contains("nothing to do"),
                "{kind} cut at {end}: not whole the first time"
            );
        }
    }
}

#[test]
fn what_is_not_understood_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mp4, text) = (dir.path().join("a.mp4"), dir.path().join("b.webm"));
    ffmpeg(&["-f", "lavfi", "-i", "testsrc2=s=64x64", "-t", "1", "-c:v", "mpeg4", mp4.to_str().unwrap()]);
    fs::write(&text, "not a film").unwrap();
    for file in [&mp4, &text] {
        let before = fs::read(file).unwrap();
        let output = onrecord(&["repair", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("neither WebM nor Matroska"), "{said}");
        assert!(fs::read(file).unwrap() == before);
    }
    assert_eq!(names(dir.path()).len(), 2, "something was left beside them");
    let two = onrecord(&["repair", "a", "b", "--output", "c"]);
    assert_eq!(two.status.code(), Some(2));
}

#[tokio::test]
async fn our_own_file_is_repaired_in_place_or_as_another() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let (path, output) = (dir.path().join("own.webm.part"), dir.path().join("out.webm"));
    let cut = unfinished.part.len() - 100;
    fs::write(&path, &unfinished.part[..cut]).unwrap();
    let run = onrecord(&["repair", path.to_str().unwrap(), "-o", output.to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(fs::read(&path).unwrap() == unfinished.part[..cut], "the original was touched");
    assert_seekable(&output);
    judge::decode(&output).unwrap();
    let said = repaired(&path);
    assert!(said.contains("repaired in place"), "{said}");
    assert_seekable(&path);
    judge::decode(&path).unwrap();
}

/// A recording of ours of more than 4 GiB, mostly holes: a second of sound and a huge picture each.
fn giant(path: &Path) -> u64 {
    use onrecord::webm::{Block, Clusters, Head, head};
    let file = fs::File::create(path).unwrap();
    let (start, _) = head(&Head { tracks: &TRACKS, sizes: &[], uid: 5, unix_nanos: 0 });
    file.write_all_at(&start, 0).unwrap();
    let mut at = start.len() as u64;
    let key = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01][..], &vec![0; 4 << 20]].concat();
    let mut clusters = Clusters::new(&TRACKS, Duration::from_secs(1));
    for second in 0..1100 {
        let time = Duration::from_secs(second);
        clusters.push(&Block { track: 0, time, keyframe: true, size: None, data: &key });
        clusters.push(&Block { track: 1, time, keyframe: true, size: None, data: &[0xfc, 1] });
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

#[test]
fn more_than_four_gibibytes_are_repaired_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("giant.webm");
    let bytes = giant(&path);
    assert!(bytes > 4 << 30, "{bytes}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_onrecord"))
        .args(["repair", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (begun, mut peak) = (Instant::now(), 0);
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
        let kib = high.and_then(|high| high.strip_suffix(" kB")).map_or(0, |kib| kib.parse().unwrap());
        peak = peak.max(kib);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE * 3);
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    println!("{bytes} bytes in {:?}, {peak} KiB at most: {said}", begun.elapsed());
    assert!(status.success(), "{said}");
    assert!(peak > 0 && peak < 64 << 10, "{peak} KiB");
    assert_eq!(assert_seekable(&path).as_secs(), 1099, "the last cluster was cut");
    assert_eq!(judge::cue_times(&path).len(), 1099);
}

/// Records three seconds of a canvas, has the file repaired, and says what a `<video>` makes of both.
const PAGE: &str = r#"<!doctype html><canvas id=c width=320 height=240></canvas><script>
const until = (target, event) => new Promise(done => target.addEventListener(event, done, {once: true}));
async function look(blob) {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(blob);
  await until(video, "loadedmetadata");
  const duration = video.duration, middle = Number.isFinite(duration) ? duration / 2 : 0;
  video.currentTime = middle;
  await until(video, "seeked");
  return {duration: String(duration), middle, at: video.currentTime, end: video.seekable.end(0)};
}
async function run() {
  const context = document.getElementById("c").getContext("2d");
  const timer = setInterval(() => {
    context.fillStyle = `hsl(${performance.now() / 10 % 360} 90% 50%)`;
    context.fillRect(Math.random() * 300, Math.random() * 220, 40, 40);
  }, 30);
  const stream = document.getElementById("c").captureStream(30);
  const audio = new AudioContext(), tone = audio.createOscillator();
  const sink = audio.createMediaStreamDestination();
  tone.connect(sink);
  tone.start();
  stream.addTrack(sink.stream.getAudioTracks()[0]);
  const recorder = new MediaRecorder(stream, {mimeType: "video/webm;codecs=vp8,opus"}), parts = [];
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.start(200);
  await new Promise(done => setTimeout(done, 3000));
  recorder.stop();
  await until(recorder, "stop");
  clearInterval(timer);
  const before = new Blob(parts, {type: "video/webm"});
  const after = await (await fetch("/repair", {method: "POST", body: before})).blob();
  return {before: await look(before), after: await look(after.slice(0, after.size, "video/webm"))};
}
run().catch(error => ({error: String(error)}))
  .then(report => fetch("/report", {method: "POST", body: JSON.stringify(report)}));
</script>"#;

/// Serves [`PAGE`] until the report is there.
fn serve_page(listener: &TcpListener, file: &Path) -> serde_json::Value {
    let begun = Instant::now();
    listener.set_nonblocking(true).unwrap();
    loop {
        assert!(begun.elapsed() < PATIENCE, "the browser sent no report");
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let Some((target, body)) = request(&stream) else { continue };
        match target.as_str() {
            "/" => respond(&stream, "text/html", PAGE.as_bytes()),
            "/repair" => {
                fs::write(file, &body).unwrap();
                fs::write(file.with_extension("before.webm"), &body).unwrap();
                println!("{}", repaired(file));
                respond(&stream, "video/webm", &fs::read(file).unwrap());
            }
            "/report" => {
                respond(&stream, "text/plain", b"");
                return serde_json::from_slice(&body).unwrap();
            }
            _ => respond(&stream, "text/plain", b""),
        }
    }
}

fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((target, body))
}

fn respond(mut stream: &TcpStream, mime: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {mime}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A browser that went away is noticed by its missing report.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[test]
fn what_chromiums_mediarecorder_wrote_is_finite_and_seekable_in_the_browser() {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("recorded.webm");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", &profile])
        .arg("--autoplay-policy=no-user-gesture-required")
        .arg(format!("http://{}/", listener.local_addr().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium is installed");
    let report = serve_page(&listener, &file);
    let _ = browser.kill();
    let _ = browser.wait();
    println!("{report}");
    assert_eq!(report["before"]["duration"], "Infinity", "{report}");
    let duration: f64 = report["after"]["duration"].as_str().unwrap().parse().unwrap();
    assert!((1.0..10.0).contains(&duration), "{report}");
    let (at, middle) = (report["after"]["at"].as_f64().unwrap(), report["after"]["middle"].as_f64().unwrap());
    assert!((at - middle).abs() < 0.1 && report["after"]["end"].as_f64() == Some(duration), "{report}");
    let before = file.with_extension("before.webm");
    assert!(framemd5(&file) == framemd5(&before), "other frames than before");
    judge::decode(&file).unwrap();
    assert_seekable(&file);
}
