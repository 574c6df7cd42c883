//! A disk that is full (S6): a real one, small, filled by real publishers.

use crate::support::judge::{Probe, cue_times, decode, packets_of};
use crate::support::live::Live;
use crate::support::media::heavy;
use crate::support::publisher::Config;
use crate::support::server::Server;
use crate::support::signalling::{Signal, Whip};
use crate::support::user::{Api, SOON, Script, eventually, fake, record};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Two heavy publishers fill the disk in some seconds; on a busy machine it may take longer.
const FILLED: Duration = Duration::from_secs(90);

/// A file system of its own, in memory; needs root, as CI has.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success(), "a file system of {size} can't be mounted: run this as root");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes that are free.
    fn free(&self) -> u64 {
        let output = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).product()
    }

    /// Takes every byte that is left, and gives it back when the file is removed.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.path().join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failed test left may still have files open in it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn settings(disk: &SmallDisk, script: &Script, min_free: &str) -> Vec<String> {
    vec![
        format!("record.dir={}", disk.path().display()),
        format!("record.min_free={min_free}"),
        script.setting(),
    ]
}

fn start(settings: &[String]) -> Server {
    Server::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn publish(server: &Server, name: &str, config: impl FnOnce(std::net::SocketAddr) -> Config) -> OnAir {
    let (live, offer) = Live::start(config).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish(name, &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    OnAir { live, signal }
}

struct OnAir {
    live: Live,
    signal: Signal,
}

/// What both ways in say to a new publisher while there is no space.
async fn assert_refused(server: &Server) {
    let (_live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let refused = signal.publish("third", &offer).await.unwrap_err();
    assert_eq!(refused["code"], "disk_full", "{refused}");
    let refused = Whip::publish(&server.url("/whip/third"), &offer).await.map(drop).unwrap_err();
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{}", refused.body);
    assert!(refused.body.contains("disk_full"), "{}", refused.body);
}

/// From the moment a recording could not go on until it was sealed, as the server's log has it.
fn full_to_sealed(server: &Server, name: &str) -> Duration {
    let output = server.output();
    let told = |what: &str| {
        let mut lines = output.lines().filter(|line| line.contains(&format!("stream={name} ")));
        let line = lines.find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what:?}: {output}"));
        line.split_whitespace().next().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    told(": sealed ").duration_since(told("recording ends early")).try_into().unwrap()
}

/// The file plays, seeks, and its manifest says so.
fn assert_whole(disk: &SmallDisk, manifest: &Value) {
    let path = disk.path().join(manifest["file"].as_str().unwrap());
    let meta = std::fs::metadata(&path).unwrap();
    decode(&path).unwrap_or_else(|complaint| panic!("{}: {complaint}", path.display()));
    let duration = Probe::of(&path).duration().expect("a Duration");
    let cues = cue_times(&path);
    let (pictures, sound) = (packets_of(&path, "video").len(), packets_of(&path, "audio").len());
    println!(
        "{}: {} bytes in {} blocks of 512, {duration:?}, {} cues, {pictures} pictures, {sound} packets of sound",
        manifest["stream"],
        meta.len(),
        meta.blocks(),
        cues.len()
    );
    assert_eq!(
        (manifest["state"].as_str(), manifest["end_reason"].as_str()),
        (Some("sealed"), Some("disk_full"))
    );
    assert_eq!(manifest["bytes"], meta.len());
    assert_eq!(manifest["duration_ms"], (duration.as_secs_f64() * 1000.0).round() as u64);
    assert_eq!(
        manifest["tracks"][0]["frames"].as_u64().unwrap() + manifest["tracks"][1]["frames"].as_u64().unwrap(),
        (pictures + sound) as u64
    );
    assert!(cues.len() as f64 >= duration.as_secs_f64().floor(), "{} cues for {duration:?}", cues.len());
    assert!(
        meta.blocks() * 512 <= meta.len() + 8192,
        "{} blocks are kept for {} bytes",
        meta.blocks(),
        meta.len()
    );
}

/// Somebody takes the last byte: hooks are still noted, recordings deleted.
async fn the_catalogue_can_be_changed_without_a_free_byte(disk: &SmallDisk, server: &Server, api: &Api) {
    let filling = disk.fill();
    println!("filled up: {} bytes are free", disk.free());
    assert_eq!(disk.free(), 0);
    assert_refused(server).await;
    let all = api.recordings().await;
    let (one, other) = (all[0]["id"].as_str().unwrap(), all[1]["id"].as_str().unwrap());
    let (status, body) = api.call(Method::POST, &format!("/api/recordings/{one}/hook")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let replayed = eventually("the second attempt is noted", SOON, async || {
        let manifest = api.recording(one).await;
        (manifest["hook"]["attempts"].as_array().unwrap().len() == 2 && manifest["hook"]["state"] == "done")
            .then_some(manifest)
    })
    .await;
    assert_whole(disk, &replayed);
    let (status, body) = api.call(Method::DELETE, &format!("/api/recordings/{other}")).await;
    assert!(status.is_success(), "{status} {body}");
    std::fs::remove_file(filling).unwrap();
}

/// Two publishers fill the disk; everything that was promised for that, with this `record.min_free`.
async fn two_publishers_fill_it(min_free: &str) {
    let disk = SmallDisk::new("20m");
    let script =
        Script::new("echo \"$1 $ONRECORD_END_REASON $(stat -c %s \"$2\") $ONRECORD_BYTES\" >> \"$here/log\"");
    let settings = settings(&disk, &script, min_free);
    let server = start(&settings);
    let api = Api::of(&server);
    let clips = heavy(4);
    let began = Instant::now();
    let mut left = publish(&server, "left", |local| Config::playing(local, clips.clone())).await;
    let mut right = publish(&server, "right", |local| Config::playing(local, clips.clone())).await;
    let ended = |count: usize| {
        let api = &api;
        async move || {
            let sealed = api.recordings().await.into_iter().filter(|one| one["state"] == "sealed").count();
            (sealed >= count).then(Instant::now)
        }
    };
    let first = eventually("the first recording ends", FILLED, ended(1)).await;
    let second = eventually("the second recording ends", FILLED, ended(2)).await;
    println!(
        "min_free {min_free}: the first ended after {:?}, the second {:?} later; {} bytes are free",
        first - began,
        second - first,
        disk.free()
    );
    for (name, one) in [("left", &mut left), ("right", &mut right)] {
        let told = one.signal.status("UNPUBLISHED").await;
        assert_eq!((&told["stream"], &told["reason"]), (&name.into(), &"disk_full".into()), "{told}");
        let id = told["recording"]["id"].as_str().unwrap();
        let manifest = api.hook(id, "done", SOON).await;
        assert_eq!(manifest["hook"]["attempts"].as_array().unwrap().len(), 1, "{manifest}");
        assert_whole(&disk, &manifest);
        println!("{name} was sealed {:?} after it could not go on", full_to_sealed(&server, name));
        let written =
            std::fs::read(disk.path().join(manifest["file"].as_str().unwrap()).with_extension("json"));
        let written: Value = serde_json::from_slice(&written.unwrap()).unwrap();
        assert_eq!(written["hook"], manifest["hook"], "not durable");
        let line = format!("{name} disk_full {0} {0}", manifest["bytes"]);
        assert!(script.left("log").lines().any(|said| said == line), "{line}: {}", script.left("log"));
    }
    api.nobody_is_on_air().await;
    // The sessions are over, not just their recordings.
    for one in [&left, &right] {
        eventually("the peer connection ends", SOON, async || {
            one.live.with(|publisher| !publisher.is_alive()).await.then_some(())
        })
        .await;
    }
    assert_refused(&server).await;

    the_catalogue_can_be_changed_without_a_free_byte(&disk, &server, &api).await;

    let again = eventually("it records again", SOON, async || {
        let (_live, offer) = Live::start(fake).await;
        Signal::connect(&server.ws_url("/signal")).await.publish("probe", &offer).await.ok()
    })
    .await;
    assert_eq!(again["type"], "answer");
    let recording = record(&server, "third", 60).await;
    assert_eq!(api.hook(recording["id"].as_str().unwrap(), "done", SOON).await["end_reason"], "stopped");
    let reserve = std::fs::metadata(disk.path().join(".reserve")).unwrap();
    assert!(reserve.blocks() * 512 >= 1 << 20, "{} blocks are kept back again", reserve.blocks());
}

#[tokio::test]
async fn a_disk_that_two_publishers_fill_keeps_both_files_every_hook_and_the_server() {
    two_publishers_fill_it("0").await;
}

#[tokio::test]
async fn less_space_than_is_to_stay_free_ends_both_the_same_way() {
    two_publishers_fill_it("4MiB").await;
}
