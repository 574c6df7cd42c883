//! What a server that was killed leaves is sealed at the next start.

use super::{PATIENCE, TRACKS, assert_seekable, ffmpeg, in_pairs, names};
use crate::support::judge;
use crate::support::media;
use crate::support::server::Server;
use onrecord::base::end_reason::EndReason;
use onrecord::base::tasks::Tasks;
use onrecord::catalog::{HookState, Manifest, RecordingState};
use onrecord::live::Stream;
use onrecord::media::{Event as MediaEvent, Frame, vp8};
use onrecord::record::{self, Config, Done, Event, Recordings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Cuts of a `.part`, and files with flipped bytes.
const CUTS: usize = 500;
const FLIPPED: usize = 200;
/// Of so many files ffmpeg judges one; our own reader judges each.
const JUDGED: usize = 4;

/// What a server that was killed leaves of a recording.
pub(super) struct ReassemblyBudget {
    pub part: Vec<u8>,
    manifest: serde_json::Value,
}

/// Eight seconds, in clusters of a second.
fn frames() -> Vec<Frame> {
    let (pictures, sound) = media::flash_and_beep(8);
    let frame = |track: usize| {
        move |encoded: &media::Encoded| Frame {
            time: encoded.time,
            keyframe: encoded.keyframe,
            size: vp8::size(&encoded.data).filter(|_| track == 0),
            ..Frame::of(track, encoded.data.to_vec().into())
        }
    };
    let mut frames: Vec<_> =
        pictures.frames.iter().map(frame(0)).chain(sound.frames.iter().map(frame(1))).collect();
    frames.sort_by_key(|frame| frame.time);
    frames
}

/// Records until all is in the `.part`, and takes a copy of that and of the manifest.
pub(super) async fn unfinished() -> ReassemblyBudget {
    let dir = tempfile::tempdir().unwrap();
    let (recordings, _events) = open(dir.path());
    let stream = Stream::new("crash".parse().unwrap(), TRACKS.to_vec());
    let recording = recordings.start(&stream).unwrap();
    let frames = frames();
    let payload: usize = frames.iter().map(|frame| frame.data.len()).sum();
    for frame in frames {
        stream.push(MediaEvent::Frame(frame), Instant::now());
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
    ReassemblyBudget { part, manifest: serde_json::from_slice(&manifest).unwrap() }
}

impl ReassemblyBudget {
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

fn by_file(recordings: &Recordings) -> HashMap<String, Manifest> {
    recordings.list().into_iter().map(|manifest| (manifest.file.clone(), manifest)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_cut_anywhere_is_sealed_at_the_next_start_and_its_hook_is_queued() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let mut random = StdRng::seed_from_u64(20);
    let cuts: Vec<_> = (0..CUTS).map(|_| random.random_range(0..=unfinished.part.len())).collect();
    let leave = |(n, cut): (usize, &usize)| unfinished.leave(dir.path(), n, &unfinished.part[..*cut]);
    let files: Vec<_> = cuts.iter().enumerate().map(leave).collect();
    let begun = Instant::now();
    let (recordings, told) = restart(dir.path()).await;
    let took = begun.elapsed();
    let by_file = by_file(&recordings);
    let (mut sealed, mut away) = (Vec::new(), 0);
    for (cut, file) in cuts.iter().zip(&files) {
        let manifest = &by_file[file];
        let path = recordings.path(manifest);
        if manifest.state == RecordingState::Quarantined {
            // Less than the first cluster is there.
            assert!(*cut < unfinished.part.len() / 6, "cut at {cut}: {:?}", manifest.reason);
            assert!(manifest.reason.is_some() && fs::read(&path).unwrap() == unfinished.part[..*cut]);
            away += 1;
            continue;
        }
        assert_eq!(manifest.end_reason, Some(EndReason::ServerCrashed));
        assert_eq!(manifest.hook.state, HookState::Queued);
        assert_eq!(manifest.bytes, fs::metadata(&path).unwrap().len());
        assert!(told.contains(manifest), "{file} was not announced");
        let again = record::repair(&path, None, &mut |_, _| true).unwrap();
        assert_eq!(again.done, Done::Nothing, "cut at {cut}");
        sealed.push((*cut, manifest, path));
    }
    let judged: Vec<_> = sealed.iter().step_by(JUDGED).collect();
    // The others hold the same frames as this one, as far as they go.
    judge::decode(&sealed.iter().max_by_key(|(cut, ..)| cut).unwrap().2).unwrap();
    let longest = judge::packets(&sealed.iter().max_by_key(|(cut, ..)| cut).unwrap().2);
    in_pairs(&judged, |(cut, manifest, path)| {
        let seen = assert_seekable(path);
        // The manifest has whole milliseconds.
        let apart = seen.as_secs_f64() * 1000.0 - manifest.duration_ms as f64;
        assert!(apart.abs() <= 0.51, "cut at {cut}: {seen:?} of {} ms", manifest.duration_ms);
        let packets = judge::packets(path);
        assert_eq!(packets.len() as u64, manifest.tracks.iter().map(|track| track.frames).sum::<u64>());
        let same = packets.iter().zip(&longest).all(|(one, other)| one.sha256 == other.sha256);
        assert!(same, "cut at {cut}: other frames than were recorded");
    });
    println!(
        "{CUTS} cuts: {} sealed and announced, {away} without a whole cluster in quarantine, in {took:?}; \
         ffmpeg judged {}; {:?} with that",
        sealed.len(),
        judged.len(),
        begun.elapsed()
    );
    assert!(judged.len() >= 100);
    let sealed = sealed.len();
    assert_eq!(told.len(), sealed);

    // Another start finds nothing to do, and owes the same hooks.
    drop(recordings);
    let before = names(dir.path());
    let (recordings, _events) = open(dir.path());
    assert_eq!(recordings.catalog().hooks_due().len(), sealed);
    recordings.recover();
    assert_eq!(names(dir.path()).len(), before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_never_make_an_unplayable_file_under_a_final_name() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let mut random = StdRng::seed_from_u64(21);
    let mut originals = Vec::new();
    // Up to the first Cluster (RFC 9559 section 5.1.3).
    let head = unfinished.part.windows(4).position(|id| id == [0x1f, 0x43, 0xb6, 0x75]).unwrap();
    for number in 0..FLIPPED {
        let mut part = unfinished.part.clone();
        let mut in_head = false;
        for _ in 0..random.random_range(1..4) {
            // Every fifth file in its head, where each byte counts.
            let at = random.random_range(0..if number % 5 == 0 { head } else { part.len() });
            part[at] ^= random.random_range(1..=255);
            in_head |= at < head;
        }
        originals.push((unfinished.leave(dir.path(), number, &part), part, in_head));
    }
    let begun = Instant::now();
    let (recordings, _) = restart(dir.path()).await;
    let took = begun.elapsed();
    let by_file = by_file(&recordings);
    let (mut whole, mut judged) = (0, Vec::new());
    for (number, (file, part, in_head)) in originals.iter().enumerate() {
        let manifest = &by_file[file];
        let path = recordings.path(manifest);
        if manifest.state == RecordingState::Quarantined {
            assert!(fs::read(&path).unwrap() == *part, "not byte for byte");
            assert!(*in_head, "{file}: {:?}", manifest.reason);
            continue;
        }
        let again = record::repair(&path, None, &mut |_, _| true).unwrap();
        assert_eq!(again.done, Done::Nothing, "{file}");
        // In the head each byte counts.
        whole += 1;
        if number % 5 == 0 || number % 3 == 0 {
            judged.push(path);
        }
    }
    in_pairs(&judged, |path| {
        assert_seekable(path);
        let packets = judge::packets(path).len();
        // Each of three bytes may cost a cluster of a second, and the pictures up to the next keyframe.
        assert!(packets >= 640 - 3 * 110, "{}: {packets} of about 640 frames are left", path.display());
    });
    println!(
        "{FLIPPED} files with flipped bytes: {whole} whole in {took:?}, {} in quarantine; ffmpeg judged {}; {:?} with that",
        FLIPPED - whole,
        judged.len(),
        begun.elapsed()
    );
    assert!(whole >= FLIPPED * 4 / 5, "{whole} of {FLIPPED}");
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
    // Two files of one stem can't share a manifest, so one of them has a new name: that of its stream, which
    // a recording of ours says itself.
    let known = [&orphan, &torn, &renamed, &foreign.file];
    let is_other =
        |manifest: &Manifest| manifest.state == RecordingState::Sealed && !known.contains(&&manifest.file);
    let others: Vec<_> = recordings.list().into_iter().filter(is_other).collect();
    let mut streams: Vec<_> = others.iter().map(|manifest| manifest.stream.as_str()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["crash", "holiday"], "{others:?}");
    for manifest in others.iter().chain([&foreign]) {
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
