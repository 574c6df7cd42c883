//! Sound of real Chromium, by a page of our own over WHIP: nothing is missing, and behind a silence it is
//! where the pictures are.

use super::{CONNECT, SOON, Studio, longest_silence};
use crate::support::browser::Browser;
use crate::support::judge::{self, Packet};
use serde_json::Value;
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
      window.sent = [...(await pc.getStats()).values()].filter(({ type }) => type === "outbound-rtp");
      await fetch(reply.headers.get("Location"), { method: "DELETE" });
      pc.close();
      window.over = true;
    };
"#;

/// Camera and microphone that flash and beep each second, by one clock.
const CAMERA: &str = include_str!("../../tools/camera.js");

/// For how long a track is taken away.
const AWAY: Duration = Duration::from_millis(5400);

/// Runs a page that publishes and stops by itself; gives the manifest and the file.
async fn publish(script: &str, patience: Duration) -> (Value, PathBuf) {
    let studio = Studio::open(&["auth.mode=open"]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/healthz")).await;
    browser
        .run(&format!("(async () => {{ {script} }})().catch((error) => {{ window.over = `${{error}}`; }});"))
        .await;
    let over = browser.until("window.over", CONNECT + patience + SOON).await;
    assert_eq!(over, true, "the page failed");
    println!(
        "sent: {}",
        browser.run("return window.sent.map(({ kind, packetsSent }) => `${kind} ${packetsSent}`);").await
    );
    let manifest = studio.the_one_recording(SOON).await;
    let kept = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    std::fs::copy(studio.path(manifest["file"].as_str().unwrap()), &kept).unwrap();
    (manifest, kept)
}

fn steps(packets: &[Packet]) -> Vec<u128> {
    packets.windows(2).map(|pair| (pair[1].time - pair[0].time).as_millis()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sound_alone_nothing_is_lost_nothing_doubled_and_no_gap_is_named() {
    let script = format!(
        "const stream = await navigator.mediaDevices.getUserMedia({{ audio: true }}); {PUBLISH} await pause(20); await stop();"
    );
    let (manifest, file) = publish(&script, Duration::from_secs(20)).await;
    let sound = judge::packets_of(&file, "audio");
    println!("{} packets of sound, {}", sound.len(), manifest["tracks"]);
    assert_eq!(manifest["tracks"][0]["lost"], 0, "{manifest:#}");
    assert_eq!(manifest["gaps"].as_array().map(Vec::len), Some(0), "{manifest:#}");
    assert!(sound.len() > 900, "{} packets", sound.len());
    let odd: Vec<u128> = steps(&sound).into_iter().filter(|step| !(19..=21).contains(step)).collect();
    assert!(odd.is_empty(), "{odd:?} ms between packets of 20 ms");
    std::fs::remove_file(file).unwrap();
}

/// Takes a track away for 5.4 s and gives it back, both between two beeps; gives the file, and by how many
/// milliseconds its beeps come behind their flashes: by their times, and for who puts one packet behind the
/// other.
async fn taken_away(kind: &str) -> (PathBuf, [Vec<f64>; 2]) {
    let script = format!(
        r#"{CAMERA}
        const stream = await navigator.mediaDevices.getUserMedia();
        {PUBLISH}
        const sender = senders.find(({{ track }}) => track.kind === "{kind}");
        const track = sender.track;
        await pause(5);
        while (Math.abs(moment() - 0.8) > 0.05) await pause(0.01);
        await sender.replaceTrack(null);
        await pause(5.4);
        await sender.replaceTrack(track);
        await pause(6);
        await stop();"#
    );
    let (manifest, file) = publish(&script, Duration::from_secs(18)).await;
    judge::decode(&file).unwrap();
    println!("{kind}: {}", manifest["gaps"]);
    let moments = judge::moments(&file);
    let offsets = [judge::beeps(&file), judge::beeps_laid_end_to_end(&file)].map(|beeps| {
        println!("beeps at {beeps:.3?} s, behind flashes by {:.0?} ms", behind(&beeps, &moments));
        behind(&beeps, &moments)
    });
    (file, offsets)
}

/// By how many milliseconds beeps come behind their flashes. The bar says which moment pictures show: of those
/// of a second around a beep most are right, also where a busy browser draws some flash late. A flash is seen
/// with the next drawing of the page, and that with the next picture.
fn behind(beeps: &[f64], moments: &[(f64, f64)]) -> Vec<f64> {
    const SEEN: f64 = (1.0 / 60.0 + 1.0 / 30.0) / 2.0;
    let one = |beep: &f64| {
        let near = moments.iter().filter(|(_, time)| (time - beep).abs() < 1.0);
        // Each beep begins in the middle of a second.
        let late = near.map(|(moment, time)| (beep + moment - time).rem_euclid(1.0) - 0.5 - SEEN);
        let mut late: Vec<f64> = late.collect();
        late.sort_by(f64::total_cmp);
        late.get(late.len() / 2).map(|late| late * 1e3)
    };
    beeps.iter().filter_map(one).collect()
}

fn assert_in_step(offsets: &[Vec<f64>; 2], beeps: usize) {
    for offsets in offsets {
        assert!(offsets.len() >= beeps, "{offsets:?} ms");
        assert!(offsets.iter().all(|offset| offset.abs() <= 40.0), "{offsets:?} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microphone_taken_away_for_five_seconds_is_in_step_from_its_first_packet() {
    let (file, offsets) = taken_away("audio").await;
    let silence = longest_silence(&judge::packets_of(&file, "audio"));
    assert!(silence.abs_diff(AWAY) < Duration::from_millis(300), "{silence:?}");
    assert_in_step(&offsets, 10);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_taken_away_for_five_seconds_is_in_step_from_its_first_picture() {
    let (file, offsets) = taken_away("video").await;
    let silence = longest_silence(&judge::packets_of(&file, "video"));
    assert!(silence.abs_diff(AWAY) < Duration::from_millis(500), "{silence:?}");
    assert_in_step(&offsets, 10);
    std::fs::remove_file(file).unwrap();
}
