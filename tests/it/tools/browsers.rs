//! Films that Chromium publishes, and what browsers make of films.

use super::films::{Film, LENGTH};
use super::verdict::Seen;
use super::{judges, scene};
use crate::support::browser::Browser;
use crate::support::chunks::VP8;
use crate::support::media;
use crate::support::server::Server;
use crate::support::user::{Api, eventually};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use url::Url;

const CAMERA: &str = include_str!("../../tools/camera.js");
const PLAYER: &str = include_str!("../../tools/player.js");
/// For what a page does, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many films are played at the same time.
const AT_ONCE: usize = 5;
/// For as many films as that.
const PLAYED: Duration = Duration::from_secs(120);
/// No whole number of seconds: sound that slips by one would fit its flashes again.
const HOLE: Duration = Duration::from_millis(5400);
/// Before the hole.
const START: Duration = Duration::from_secs(3);

/// What Chromium publishes by WebRTC and by chunks of each codec.
pub async fn by_chromium(server: &Server) -> Vec<Film> {
    let browser = Browser::start().await;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": CAMERA })).await;
    let mut films = vec![published(&browser, server, "camera page", 9, async || {}).await];
    let mute = format!(
        "const sender = connections.at(-1).getSenders().find(({{ track }}) => track?.kind === 'audio');
         const {{ track }} = sender;
         const mute = () => {{
           // Between two beeps, so that none is cut.
           if (Math.abs(moment() - 0.8) > 0.05) return void setTimeout(mute, 10);
           sender.replaceTrack(null);
           setTimeout(() => sender.replaceTrack(track), {});
         }};
         setTimeout(mute, {});",
        HOLE.as_millis(),
        START.as_millis()
    );
    films.push(published(&browser, server, "muted 5 s", 5, async || drop(browser.run(&mute).await)).await);
    let freeze = async || {
        on_air_for(&browser, START).await;
        browser.signal("STOP");
        // The fault itself lasts so long; nothing is waited for.
        tokio::time::sleep(HOLE).await;
        browser.signal("CONT");
    };
    films.push(published(&browser, server, "frozen 5 s", 5, freeze).await);
    films.extend(by_chunks(&browser, server).await);
    films
}

/// A film of the publish page, to which something happens.
async fn published(
    browser: &Browser,
    server: &Server,
    name: &'static str,
    pairs: usize,
    happens: impl AsyncFnOnce(),
) -> Film {
    browser.goto(&server.url(&format!("/publish?name={}", name.replace(' ', "%20")))).await;
    browser.click("#start").await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", PATIENCE).await;
    browser.run("window.began = performance.now();").await;
    happens().await;
    on_air_for(browser, LENGTH).await;
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", PATIENCE).await;
    Film::of(server, name, pairs, manifest_of(server, name).await)
}

async fn on_air_for(browser: &Browser, time: Duration) {
    browser.until(&format!("performance.now() - began >= {}", time.as_millis()), time + PATIENCE).await;
}

/// The manifest of a stream's only recording, once it is sealed.
pub async fn manifest_of(server: &Server, stream: &str) -> Value {
    eventually("a sealed recording", PATIENCE, async || {
        let of_stream = |manifest: &Value| manifest["stream"] == stream && manifest["state"] == "sealed";
        Api::of(server).recordings().await.into_iter().find(of_stream)
    })
    .await
}

/// One MediaRecorder for each codec, all at the same time.
async fn by_chunks(browser: &Browser, server: &Server) -> Vec<Film> {
    browser.goto(&server.url("/publish")).await;
    browser
        .run(
            "const publish = async () => {
               const { createSession } = await import('/js/onrecord.js');
               const mediaStream = await navigator.mediaDevices.getUserMedia();
               const session = createSession({ urlServer: location.origin.replace('http', 'ws') });
               window.streams = ['VP8', 'VP9', 'AV1', 'H.264'].map((name) => session.createStream({
                 name: `chunks ${name}`, codec: name.toLowerCase().replace('.', ''), mode: 'chunks', mediaStream,
               }));
               await Promise.all(streams.map((stream) => stream.publish()));
               window.began = performance.now();
             };
             publish().catch((error) => { document.body.innerText = error; });",
        )
        .await;
    browser.until("window.began && streams.every((one) => one.status() === 'PUBLISHING')", PATIENCE).await;
    on_air_for(browser, LENGTH).await;
    browser.run("for (const stream of streams) stream.stop();").await;
    browser.until("streams.every((stream) => stream.getRecordInfo())", PATIENCE).await;
    let mut films = Vec::new();
    for name in ["chunks VP8", "chunks VP9", "chunks AV1", "chunks H.264"] {
        films.push(Film::of(server, name, 9, manifest_of(server, name).await));
    }
    films
}

/// What a browser sees and hears of films that the server has.
pub async fn look(
    browser: &Browser,
    server: &Server,
    venv: &Path,
    films: &[Film],
) -> Vec<Result<Seen, String>> {
    browser.goto(&server.url("/healthz")).await;
    browser.run(PLAYER).await;
    let lag = lag(browser, venv).await;
    let mut seen = Vec::new();
    for some in films.chunks(AT_ONCE) {
        let looks = some.iter().map(|film| {
            let mut url = Url::parse(&server.url("/recordings/")).unwrap();
            let name = film.file.file_name().unwrap().to_str().unwrap();
            url.path_segments_mut().unwrap().pop_if_empty().push(name);
            (format!("{url}?inline=1"), film.targets(), film.sampled)
        });
        seen.extend(look_at(browser, &looks.collect::<Vec<_>>()).await);
    }
    for seen in seen.iter_mut().flatten() {
        seen.beeps.iter_mut().for_each(|beep| *beep -= lag);
    }
    seen
}

/// Plays all at the same time.
async fn look_at(browser: &Browser, looks: &[(String, Vec<f64>, bool)]) -> Vec<Result<Seen, String>> {
    let looks = json!(looks);
    let script = format!(
        "window.result = null;
         Promise.all({looks}.map((one) => look(...one))).then((all) => {{ window.result = all; }});"
    );
    browser.run(&script).await;
    let result = browser.until("window.result", PLAYED).await;
    let one = |seen: &Value| serde_json::from_value(seen.clone()).map_err(|error| format!("{error}: {seen}"));
    result.as_array().unwrap().iter().map(one).collect()
}

/// By how many seconds WebAudio hears what a `<video>` plays later than it is shown: what a film of ffmpeg's
/// own is out of step there, where its flashes and beeps are known.
async fn lag(browser: &Browser, venv: &Path) -> f64 {
    let (picture, sound) = (scene::picture(320, 180, 30, 0), scene::sound(0.0));
    let input = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound, "-t", "8"];
    let output = ["-g", "30", "-b:v", "200k", "-pix_fmt", "yuv420p", "-c:a", "libopus"];
    let film = media::encode("webm", &[&input[..], VP8, &output].concat());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&film).unwrap();
    let truth = judges::observe(venv, "reference", file.path(), &[]).unwrap();
    let bytes = json!(film);
    browser.run(&format!("window.source = URL.createObjectURL(new Blob([new Uint8Array({bytes})], {{ type: 'video/webm' }}));")).await;
    let source = browser.run("return source;").await.as_str().unwrap().to_owned();
    let seen = look_at(browser, &[(source, Vec::new(), false)]).await.remove(0).unwrap();
    let (shown, there) = (apart(&truth.flashes, &seen.beeps), apart(&truth.flashes, &truth.beeps));
    println!("its own film is out of step by {:+.0} ms, where {:+.0} is right", shown * 1e3, there * 1e3);
    shown - there
}

/// By how many seconds most beeps are behind their flash.
fn apart(flashes: &[f64], beeps: &[f64]) -> f64 {
    let nearest = |beep: &f64| {
        let apart = flashes.iter().map(|flash| beep - flash);
        apart.min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap()
    };
    let mut apart: Vec<f64> = beeps.iter().map(nearest).collect();
    apart.sort_by(f64::total_cmp);
    assert!(apart.len() > 5, "{flashes:?}, {beeps:?}");
    apart[apart.len() / 2]
}
