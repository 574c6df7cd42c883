//! What a browser makes of a file before and after.

use super::{PATIENCE, assert_seekable, ffmpeg_live, framemd5, gstreamer, repaired};
use crate::support::judge;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Records three seconds of a canvas, fetches what others muxed, has each file repaired, and says what a
/// `<video>` makes of it before and after.
const PAGE: &str = r#"<!doctype html><canvas id=c width=320 height=240></canvas><script>
const until = (target, event) => new Promise((done, failed) => {
  target.addEventListener(event, done, {once: true});
  const why = () => failed(new Error(`no ${event}: ${target.error?.message ?? ""}`));
  target.addEventListener("error", why, {once: true});
  setTimeout(why, 20000);
});
async function look(blob) {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(blob);
  await until(video, "loadedmetadata");
  const duration = video.duration, middle = Number.isFinite(duration) ? duration / 2 : 0;
  video.currentTime = middle;
  // Of some that have no index a browser can't even find the beginning.
  const trouble = await until(video, "seeked").then(() => null, String);
  return {duration: String(duration), middle, trouble, at: video.currentTime, end: video.seekable.end(0)};
}
async function record() {
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
  return new Blob(parts, {type: "video/webm"});
}
async function both(name, before) {
  const after = await (await fetch(`/repair/${name}`, {method: "POST", body: before})).blob();
  return [name, {before: await look(before), after: await look(after.slice(0, after.size, "video/webm"))}];
}
async function run() {
  const reports = [await both("mediarecorder", await record())];
  for (const name of ["ffmpeg", "gstreamer"]) {
    const blob = await (await fetch(`/file/${name}`)).blob();
    reports.push(await both(name, blob.slice(0, blob.size, "video/webm")));
  }
  return Object.fromEntries(reports);
}
run().catch(error => ({error: String(error)}))
  .then(report => fetch("/report", {method: "POST", body: JSON.stringify(report)}));
</script>"#;

/// Serves [`PAGE`] and the files until the report is there.
fn serve_page(listener: &TcpListener, dir: &Path, files: &HashMap<&str, Vec<u8>>) -> Value {
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
        let name = target.rsplit('/').next().unwrap_or_default();
        match target.as_str() {
            "/" => respond(&stream, "text/html", PAGE.as_bytes()),
            "/file/ffmpeg" | "/file/gstreamer" => respond(&stream, "video/webm", &files[name]),
            "/repair/mediarecorder" | "/repair/ffmpeg" | "/repair/gstreamer" => {
                let file = dir.join(format!("{name}.webm"));
                fs::write(&file, &body).unwrap();
                fs::write(file.with_extension("before.webm"), &body).unwrap();
                println!("{}", repaired(&file));
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

/// What ffmpeg complains of, without the addresses of its parts.
fn complaint(file: &Path) -> Result<(), String> {
    let without = |word: &&str| !word.starts_with("0x");
    judge::decode(file).map_err(|said| said.split_whitespace().filter(without).collect::<Vec<_>>().join(" "))
}

#[test]
fn what_had_no_end_in_the_browser_is_finite_and_seekable_there() {
    let dir = tempfile::tempdir().unwrap();
    let vp8 = "vp8enc deadline=1 keyframe-max-dist=30";
    let files = [("ffmpeg", ffmpeg_live()), ("gstreamer", gstreamer(vp8, "webmmux streamable=true"))];
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
    let report = serve_page(&listener, dir.path(), &HashMap::from(files));
    let _ = browser.kill();
    let _ = browser.wait();
    println!("{report:#}");
    for (name, least) in [("mediarecorder", 1.0), ("ffmpeg", 4.9), ("gstreamer", 4.9)] {
        let (before, after) = (&report[name]["before"], &report[name]["after"]);
        assert_eq!(before["duration"], "Infinity", "{report}");
        let duration: f64 = after["duration"].as_str().unwrap().parse().unwrap();
        assert!((least..10.0).contains(&duration), "{name}: {report}");
        assert_eq!(after["trouble"], Value::Null, "{name}: {report}");
        let (at, middle) = (after["at"].as_f64().unwrap(), after["middle"].as_f64().unwrap());
        assert!((at - middle).abs() < 0.1 && after["end"].as_f64() == Some(duration), "{name}: {report}");
        let file = dir.path().join(format!("{name}.webm"));
        let source = file.with_extension("before.webm");
        assert!(framemd5(&file) == framemd5(&source), "{name}: other frames");
        // A starved browser may record sound that overlaps: that stays as it is, and nothing else is wrong.
        assert_eq!(complaint(&file), complaint(&source), "{name}");
        assert_seekable(&file);
    }
}
