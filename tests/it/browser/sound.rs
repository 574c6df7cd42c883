//! Sound of real Chromium, by a page of our own over WHIP: nothing is missing, and behind a silence it is
//! where the pictures are.

use super::{CONNECT, SOON, Studio, longest_silence};
use crate::support::browser::Browser;
use crate::support::judge::{self, Packet};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What publishes the page's `stream` under this name until `over`.
const PUBLISH: &str = r#"
    window.pc = new RTCPeerConnection();
    window.senders = stream.getTracks().map((track) => pc.addTrack(track, stream));
    await pc.setLocalDescription(await pc.createOffer());
    const headers = { "Content-Type": "application/sdp" };
    const reply = await fetch("/whip/sound", { method: "POST", headers, body: pc.localDescription.sdp });
    await pc.setRemoteDescription({ type: "answer", sdp: await reply.text() });
    const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
    const stop = async () => {
      const all = [...(await pc.getStats()).values()].filter(({ type }) => type === "outbound-rtp");
      window.sent = all.map(({ kind, packetsSent }) => `${kind} ${packetsSent}`);
      await fetch(reply.headers.get("Location"), { method: "DELETE" });
      pc.close();
      window.over = true;
    };
"#;

/// Camera and microphone that flash and beep each second, by one clock.
const CAMERA: &str = include_str!("../../tools/camera.js");

/// For how long a track is taken away.
const AWAY: Duration = Duration::from_millis(5400);

/// Runs a page that publishes and stops by itself; gives the manifest, what the page tells, and the file.
async fn publish(script: &str, patience: Duration) -> (Value, Value, PathBuf) {
    let studio = Studio::open(&["auth.mode=open"]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/healthz")).await;
    browser
        .run(&format!("(async () => {{ {script} }})().catch((error) => {{ window.over = `${{error}}`; }});"))
        .await;
    let over = browser.until("window.over", CONNECT + patience + SOON).await;
    assert_eq!(over, true, "the page failed");
    println!("sent: {}", browser.run("return window.sent;").await);
    let told = browser.run("return window.told ?? null;").await;
    let manifest = studio.the_one_recording(SOON).await;
    let kept = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    std::fs::copy(studio.path(manifest["file"].as_str().unwrap()), &kept).unwrap();
    (manifest, told, kept)
}

fn steps(packets: &[Packet]) -> Vec<u128> {
    packets.windows(2).map(|pair| (pair[1].time - pair[0].time).as_millis()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sound_alone_nothing_is_lost_nothing_doubled_and_no_gap_is_named() {
    let script = format!(
        "const stream = await navigator.mediaDevices.getUserMedia({{ audio: true }}); {PUBLISH} await pause(20); await stop();"
    );
    let (manifest, _, file) = publish(&script, Duration::from_secs(20)).await;
    let sound = judge::packets_of(&file, "audio");
    println!("{} packets of sound, {}", sound.len(), manifest["tracks"]);
    assert_eq!(manifest["tracks"][0]["lost"], 0, "{manifest:#}");
    assert_eq!(manifest["gaps"].as_array().map(Vec::len), Some(0), "{manifest:#}");
    assert!(sound.len() > 900, "{} packets", sound.len());
    let odd: Vec<u128> = steps(&sound).into_iter().filter(|step| !(19..=21).contains(step)).collect();
    assert!(odd.is_empty(), "{odd:?} ms between packets of 20 ms");
    std::fs::remove_file(file).unwrap();
}

/// Waits until the microphone has kept pace with the page's clock for eight seconds. One of a busy browser doesn't
/// always; behind such a slip it takes 20 s, four sender reports, until they have told of all of it. Gives how many
/// of the last seconds must be in step.
const STEADY: &str = r#"
    const steady = async () => {
      const ahead = () => performance.now() / 1000 - moment();
      let [since, from, waits, told] = [performance.now(), ahead(), 8, 8];
      while (performance.now() - since < 1000 * waits) {
        await pause(0.02);
        const slip = ((ahead() - from + 10.5) % 1) - 0.5;
        if (Math.abs(slip) > 0.04) [since, from, waits, told] = [performance.now(), ahead(), 20, 3];
      }
      return told;
    };
"#;

/// Takes a track away for 5.4 s and gives it back, both between two beeps. Gives the file, and by how many
/// milliseconds its beeps come behind their flashes, before the hole and behind it: by their times, and, if the
/// microphone has never slipped, for who puts one packet behind the other. What reports of a slip first overstate
/// can be taken back by times alone.
async fn taken_away(kind: &str) -> (PathBuf, Vec<Vec<f64>>) {
    let script = format!(
        r#"{CAMERA}
        const stream = await navigator.mediaDevices.getUserMedia();
        {PUBLISH} {STEADY}
        const sender = senders.find(({{ track }}) => track.kind === "{kind}");
        const track = sender.track;
        window.told = [await steady()];
        while (Math.abs(moment() - 0.8) > 0.05) await pause(0.01);
        await sender.replaceTrack(null);
        await pause(5.4);
        await sender.replaceTrack(track);
        told.push(await steady());
        await stop();"#
    );
    let (manifest, told, file) = publish(&script, Duration::from_secs(150)).await;
    judge::decode(&file).unwrap();
    let of_hole = |gap: &&Value| gap["to_ms"].as_u64() >= gap["from_ms"].as_u64().map(|from| from + 4_000);
    let gap = manifest["gaps"].as_array().unwrap().iter().find(of_hole).expect("a hole is named");
    let seconds = |value: &Value| value.as_f64().unwrap();
    let ends = [seconds(&gap["from_ms"]) / 1e3, seconds(&manifest["duration_ms"]) / 1e3];
    println!("{kind}: {}, steady for {told}", manifest["gaps"]);
    let flashes = judge::flashes(&file);
    let offsets = [judge::beeps(&file), judge::beeps_laid_end_to_end(&file)].into_iter().flat_map(|beeps| {
        println!("beeps at {beeps:.3?} s");
        let within = |n: usize| ends[n] - seconds(&told[n])..ends[n];
        [0, 1].map(|n| behind(&beeps, &flashes, within(n)))
    });
    let mut offsets: Vec<_> = offsets.collect();
    println!("flashes at {flashes:.3?} s, beeps behind them by {offsets:.0?} ms");
    offsets.truncate(if told == json!([8, 8]) { 4 } else { 2 });
    (file, offsets)
}

/// By how many milliseconds beeps come behind their flashes. Both come each second, and pictures keep the
/// distances that the camera gave them: where most flashes are, all are, also those that a busy browser has
/// drawn late.
fn behind(beeps: &[f64], flashes: &[f64], within: Range<f64>) -> Vec<f64> {
    let one = |beep: &f64| {
        let near = flashes.iter().filter(|flash| (beep - *flash).abs() < 3.0);
        let mut late: Vec<f64> = near.map(|flash| (beep - flash + 0.5).rem_euclid(1.0) - 0.5).collect();
        late.sort_by(f64::total_cmp);
        late.get(late.len() / 2).map(|late| late * 1e3)
    };
    // One that is torn begins once.
    let begins = |at: &usize| *at == 0 || beeps[*at] > beeps[at - 1] + 0.25;
    let all = (0..beeps.len()).filter(begins).map(|at| beeps[at]);
    all.filter(|beep| within.contains(beep)).filter_map(|beep| one(&beep)).collect()
}

fn assert_in_step(offsets: &[Vec<f64>]) {
    for offsets in offsets {
        assert!(offsets.len() >= 2, "{offsets:?} ms");
        assert!(offsets.iter().all(|offset| offset.abs() <= 40.0), "{offsets:?} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microphone_taken_away_for_five_seconds_is_in_step_from_its_first_packet() {
    let (file, offsets) = taken_away("audio").await;
    let silence = longest_silence(&judge::packets_of(&file, "audio"));
    assert!(silence.abs_diff(AWAY) < Duration::from_millis(300), "{silence:?}");
    assert_in_step(&offsets);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_taken_away_for_five_seconds_is_in_step_from_its_first_picture() {
    let (file, offsets) = taken_away("video").await;
    let silence = longest_silence(&judge::packets_of(&file, "video"));
    assert!(silence.abs_diff(AWAY) < Duration::from_millis(500), "{silence:?}");
    assert_in_step(&offsets);
    std::fs::remove_file(file).unwrap();
}
