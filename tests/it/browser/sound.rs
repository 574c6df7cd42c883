//! Sound of real Chromium, by a page of our own over WHIP: nothing is missing.

use super::{CONNECT, SOON, Studio};
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
