//! Pages that send their camera in several sizes at once: the largest is recorded.

use super::{CONNECT, SOON, Studio};
use crate::support::browser::Browser;
use crate::support::judge;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Publishes by WHIP for so long after the largest encoding is sent, then ends it. `ENCODINGS` and
/// `MUNGE` are put in front.
const PUBLISH: &str = r#"
window.seen = {};
(async () => {
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: WIDTH, height: HEIGHT, frameRate: 20 } });
  const pc = new RTCPeerConnection();
  pc.addTransceiver(media.getAudioTracks()[0], { direction: "sendonly" });
  const init = { direction: "sendonly", ...(ENCODINGS && { sendEncodings: ENCODINGS }) };
  pc.addTransceiver(media.getVideoTracks()[0], init);
  const offer = await pc.createOffer();
  await pc.setLocalDescription({ type: "offer", sdp: MUNGE(offer.sdp) });
  const gathered = new Promise((done) => { pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && done(); });
  if (pc.iceGatheringState !== "complete") await Promise.race([gathered, new Promise((done) => setTimeout(done, 2000))]);
  const answer = await fetch("/whip/NAME", { method: "POST", headers: { "content-type": "application/sdp" }, body: pc.localDescription.sdp });
  seen.sdp = await answer.text();
  if (answer.status !== 201) throw new Error(seen.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: seen.sdp });
  const sent = async () => [...(await pc.getStats()).values()].filter((one) => one.type === "outbound-rtp" && one.kind === "video");
  // Bitrate is found first: the largest is sent some seconds later, and its encoding in smaller pictures until then.
  let before;
  const full = async () => {
    const one = (await sent()).find(({ frameWidth }) => frameWidth === WIDTH);
    if (one) before ??= one.framesSent;
    return one && one.framesSent >= before + 60;
  };
  while (!(await full())) await new Promise((done) => setTimeout(done, 100));
  seen.sent = (await sent()).map(({ rid, frameWidth, framesSent }) => ({ rid: rid ?? null, frameWidth, framesSent }));
  await fetch(answer.headers.get("location"), { method: "DELETE" });
  pc.close();
  media.getTracks().forEach((track) => track.stop());
  seen.done = true;
})().catch((error) => { seen.error = String(error); });
"#;

/// Width of each picture of a file, in order.
fn widths(file: &Path) -> Vec<u32> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "frame=width", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect()
}

async fn records_the_largest(
    browser: &Browser,
    studio: &Studio,
    name: &str,
    width: u32,
    encodings: &str,
    munge: &str,
) {
    let before = studio.hook.runs().len();
    browser.goto(&studio.server.url("/healthz")).await;
    let (width_text, height) = (width.to_string(), (width * 9 / 16).to_string());
    let script = PUBLISH.replace("NAME", name).replace("WIDTH", &width_text).replace("HEIGHT", &height);
    browser.run(&format!("const ENCODINGS = {encodings}; const MUNGE = {munge}; {script}")).await;
    let seen = browser.until("(seen.done || seen.error) && seen", CONNECT).await;
    assert_eq!(seen["error"], Value::Null, "{name}: {seen:#}");
    println!("{name}: {}", seen["sent"]);
    studio.hook.ran(before + 1, SOON).await;
    let recordings = studio.recordings().await;
    let manifest = recordings.iter().find(|one| one["stream"] == name).unwrap();
    let file = studio.path(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    let widths = widths(&file);
    let full = widths.iter().filter(|one| **one == width).count();
    println!("{name}: {full} of {} pictures are {width} wide, gaps: {}", widths.len(), manifest["gaps"]);
    assert!(full >= 50, "{name}: {full} of {} pictures", widths.len());
    assert_eq!(widths.last(), Some(&width), "{name}: it ends with a smaller one");
    let lost: Vec<&Value> =
        manifest["tracks"].as_array().unwrap().iter().map(|track| &track["lost"]).collect();
    assert_eq!(lost, [0, 0], "{name}");
    let losses = manifest["gaps"].as_array().unwrap().iter().filter(|gap| gap["reason"] == "loss").count();
    assert_eq!(losses, 0, "{name}: {manifest:#}");
}

const QHF: &str =
    "[{ rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' }]";
const FHQ: &str =
    "[{ rid: 'f' }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'q', scaleResolutionDownBy: 4 }]";
/// Names that don't tell which is the largest.
const UP: &str =
    "[{ rid: 'a', scaleResolutionDownBy: 4 }, { rid: 'b', scaleResolutionDownBy: 2 }, { rid: 'c' }]";
const DOWN: &str =
    "[{ rid: 'c' }, { rid: 'b', scaleResolutionDownBy: 2 }, { rid: 'a', scaleResolutionDownBy: 4 }]";
const AS_IT_IS: &str = "(sdp) => sdp";

/// Three sources of one section in a SIM group, each with its retransmissions, as pages without rids do it.
const SIM: &str = r#"(sdp) => {
  const [, first, repair] = sdp.match(/a=ssrc-group:FID (\d+) (\d+)/);
  const cname = sdp.match(/a=ssrc:\d+ cname:(\S+)/)[1];
  const msid = sdp.match(new RegExp(`a=ssrc:${first} msid:(.*)`))?.[1].trim();
  const primaries = [first, 1111111, 2222222], repairs = [repair, 1111112, 2222223];
  const lines = [`a=ssrc-group:SIM ${primaries.join(" ")}`];
  for (const [at, primary] of primaries.entries()) lines.push(`a=ssrc-group:FID ${primary} ${repairs[at]}`);
  for (const source of [...primaries, ...repairs]) {
    lines.push(`a=ssrc:${source} cname:${cname}`);
    if (msid) lines.push(`a=ssrc:${source} msid:${msid}`);
  }
  const [head, ...sections] = sdp.split(/(?=^m=)/m);
  return head + sections.map((one) => one.startsWith("m=video")
    ? one.split("\r\n").filter((line) => line && !line.startsWith("a=ssrc")).concat(lines).join("\r\n") + "\r\n"
    : one).join("");
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_chromiums_encodings_the_largest_is_recorded_in_whatever_order_and_no_loss_is_named() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    records_the_largest(&browser, &studio, "qhf", 640, QHF, AS_IT_IS).await;
    records_the_largest(&browser, &studio, "fhq", 640, FHQ, AS_IT_IS).await;
    records_the_largest(&browser, &studio, "sim", 640, "null", SIM).await;
    records_the_largest(&browser, &studio, "up", 1280, UP, AS_IT_IS).await;
    records_the_largest(&browser, &studio, "down", 1280, DOWN, AS_IT_IS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_firefoxes_encodings_the_largest_is_recorded_in_whatever_order() {
    let studio = Studio::open(&[]);
    let browser = Browser::firefox().await;
    for (name, encodings) in [("qhf", QHF), ("fhq", FHQ)] {
        records_the_largest(&browser, &studio, name, 640, encodings, AS_IT_IS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_sends_nothing_is_told_on_the_page() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    // A canvas that nobody paints gives no picture.
    browser.goto(&studio.server.url("/publish?name=dark")).await;
    browser
        .run(
            "navigator.mediaDevices.getUserMedia = ((open) => async (wishes) => {
               const media = await open(wishes);
               const canvas = document.createElement('canvas');
               canvas.getContext('2d');
               for (const track of media.getVideoTracks()) { media.removeTrack(track); track.stop(); }
               media.addTrack(canvas.captureStream(0).getVideoTracks()[0]);
               return media;
             })(navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices));",
        )
        .await;
    browser.click("#start").await;
    browser.until("document.querySelector('#note').textContent.includes('No picture')", CONNECT).await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", SOON).await;
    let publisher = browser.new_window().await;
    browser.goto(&studio.server.url("/")).await;
    let says = "document.querySelector('[data-stream=dark] .warnings')?.textContent.includes('No picture')";
    browser.until(says, SOON).await;
    browser.switch(publisher).await;
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", Duration::from_secs(20)).await;
    let manifest = studio.the_one_recording(SOON).await;
    let gap = &manifest["gaps"][0];
    assert_eq!((&gap["track"], &gap["reason"]), (&Value::from(1), &Value::from("silence")), "{manifest:#}");
}
