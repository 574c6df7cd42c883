//! Offers that only a browser makes: whatever its first section is, and what its video begins with.

use super::{SOON, Studio, record};
use crate::support::browser::Browser;
use crate::support::judge;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Publishes by WHIP for a second with a section in front that is not recorded.
const PUBLISH: &str = r#"
window.publish = async (name, first, bundlePolicy) => {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 180 } });
  const [[audio], [video]] = [media.getAudioTracks(), media.getVideoTracks()];
  const peer = new RTCPeerConnection({ bundlePolicy });
  const only = (track, codec) => {
    const { codecs } = RTCRtpSender.getCapabilities(track.kind);
    peer.addTransceiver(track.clone(), { direction: "sendonly" })
      .setCodecPreferences(codecs.filter(({ mimeType }) => mimeType === codec));
  };
  const begin = {
    "audio inactive": () => peer.addTransceiver("audio", { direction: "inactive" }),
    "audio recvonly": () => peer.addTransceiver("audio", { direction: "recvonly" }),
    "video recvonly": () => peer.addTransceiver("video", { direction: "recvonly" }),
    "H.264 alone": () => only(video, "video/H264"),
    "PCMU alone": () => only(audio, "audio/PCMU"),
    "data channel": () => peer.createDataChannel("x"),
  };
  begin[first]();
  if (first !== "audio inactive" && first !== "audio recvonly") peer.addTransceiver(audio, { direction: "sendonly" });
  const { sender } = peer.addTransceiver(video, { direction: "sendonly" });
  await peer.setLocalDescription();
  const gathered = () => peer.iceGatheringState === "complete";
  if (!gathered()) await new Promise((done) => { peer.onicegatheringstatechange = () => gathered() && done(); });
  const headers = { "content-type": "application/sdp" };
  const answer = await fetch("/whip/" + name, { method: "POST", headers, body: peer.localDescription.sdp });
  const sdp = await answer.text();
  if (answer.status !== 201) return { status: answer.status, sdp };
  try {
    await peer.setRemoteDescription({ type: "answer", sdp });
  } catch (error) {
    return { error: String(error), sdp };
  }
  const sent = async () => {
    for (const report of (await sender.getStats()).values()) if (report.type === "outbound-rtp") return report.framesSent;
  };
  const deadline = performance.now() + 20000;
  while (!((await sent()) >= 20) && performance.now() < deadline) await new Promise((done) => setTimeout(done, 50));
  const end = { state: peer.connectionState, sent: await sent(), sdp };
  await fetch(answer.headers.get("location"), { method: "DELETE" });
  peer.close();
  for (const track of media.getTracks()) track.stop();
  return end;
};"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_connects_whatever_its_first_section_is_and_however_it_bundles() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/healthz")).await;
    browser.run(PUBLISH).await;
    let firsts =
        ["audio inactive", "audio recvonly", "video recvonly", "H.264 alone", "PCMU alone", "data channel"];
    let mut names = Vec::new();
    for policy in ["max-bundle", "balanced", "max-compat"] {
        for (number, first) in firsts.into_iter().enumerate() {
            let name = format!("{policy}-{number}");
            let end = browser.run(&format!("return publish({name:?}, {first:?}, {policy:?});")).await;
            println!("{first}, {policy}: {} {}", end["state"], end["sent"]);
            assert_eq!(end["state"], "connected", "{first}, {policy}: {end:#}");
            assert!(end["sent"].as_u64() >= Some(20), "{first}, {policy}: {end:#}");
            names.push(name);
        }
    }
    studio.hook.ran(names.len(), SOON).await;
    let recordings = studio.recordings().await;
    for name in names {
        let of_name = |recording: &&Value| recording["stream"] == name.as_str();
        let recording = recordings.iter().find(of_name).unwrap_or_else(|| panic!("no {name}"));
        let tracks = recording["tracks"].as_array().unwrap();
        let video = tracks.iter().find(|track| track["kind"] == "video").unwrap();
        assert!(video["frames"].as_u64() >= Some(10), "{name}: {recording:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_720p_camera_begins_with_at_least_half_its_width() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let began = Instant::now();
    let take = record(&browser, &studio.server.base, "large", Duration::from_secs(4)).await;
    let file = studio.path(&take.file);
    let (width, height) = judge::first_picture(&file);
    let sizes = judge::picture_sizes(&file);
    println!("the first picture is {width}x{height}; all of them: {sizes:?}; {:?}", began.elapsed());
    assert!(width >= 640, "{width}x{height} of a camera of 1280x720");
}
