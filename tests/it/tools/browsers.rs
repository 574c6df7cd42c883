//! Films that Chromium publishes, and what browsers make of films.

use super::films::{Film, LENGTH};
use super::verdict::{self, Seen};
use crate::support::browser::Browser;
use crate::support::server::Server;
use crate::support::user::{Api, eventually};
use crate::support::web::Site;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

const CAMERA: &str = include_str!("../../tools/camera.js");
const PLAYER: &str = include_str!("../../tools/player.js");
/// For what a page does, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many films are played at the same time.
const AT_ONCE: usize = 5;
/// How often a film is played that seems out of step.
const PLAYS: usize = 3;
/// Beeps of several plays that are so near, in seconds, are one.
const SAME: f64 = 0.4;
/// For as many films as that.
const PLAYED: Duration = Duration::from_secs(120);
/// No whole number of seconds: sound that slips by one would fit its flashes again.
const HOLE: Duration = Duration::from_millis(5400);
/// Before the hole.
const START: Duration = Duration::from_secs(3);
/// Of a film with a hole: as much is behind it as before it, and a bit.
const WITH_HOLE: Duration = Duration::from_secs(13);

/// What Chromium publishes by WebRTC and by chunks of each codec.
pub async fn by_chromium(server: &Server) -> Vec<Film> {
    let browser = Browser::start().await;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": CAMERA })).await;
    let mut films = vec![published(&browser, server, "camera page", 7, LENGTH, async || {}).await];
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
    let muted = async || drop(browser.run(&mute).await);
    films.push(published(&browser, server, "muted 5 s", 5, WITH_HOLE, muted).await);
    let freeze = async || {
        on_air_for(&browser, START).await;
        // Between two beeps: what a page draws when it has just woken is late.
        browser.until("Math.abs(moment() - 0.8) < 0.05", PATIENCE).await;
        browser.signal("STOP");
        // The fault itself lasts so long; nothing is waited for.
        tokio::time::sleep(HOLE).await;
        browser.signal("CONT");
    };
    films.push(published(&browser, server, "frozen 5 s", 5, WITH_HOLE, freeze).await);
    films.extend(by_chunks(&browser, server).await);
    films
}

/// A film of the publish page, to which something happens.
async fn published(
    browser: &Browser,
    server: &Server,
    name: &'static str,
    pairs: usize,
    length: Duration,
    happens: impl AsyncFnOnce(),
) -> Film {
    browser.goto(&server.url(&format!("/publish?name={}", name.replace(' ', "%20")))).await;
    browser.click("#start").await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", PATIENCE).await;
    browser.run("window.began = performance.now();").await;
    happens().await;
    on_air_for(browser, length).await;
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
            // MediaRecorder takes 20 ms of sound before it says when it came.
            "window.lag = 0.045;
             const publish = async () => {
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
        films.push(Film::of(server, name, 7, manifest_of(server, name).await));
    }
    films
}

/// What a browser sees and hears of films that the server has.
pub async fn look(
    browser: &Browser,
    site: &Site,
    server: &Server,
    films: &[Film],
    truths: &[Seen],
) -> Vec<Result<Seen, String>> {
    // Not a page of the server's own, whose policy forbids the player's scripts.
    browser.goto(&site.serve("player", format!("<!doctype html><script>{PLAYER}</script>"))).await;
    let player = Player { browser, server };
    let mut all = Vec::new();
    for (films, truths) in films.chunks(AT_ONCE).zip(truths.chunks(AT_ONCE)) {
        let mut looked = player.play(&films.iter().collect::<Vec<_>>(), Look::Whole).await;
        player.play_again(films, truths, &mut looked).await;
        all.extend(looked);
    }
    all
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Whole,
    /// Not how it seeks.
    Sound,
}

/// Films in the `<video>`s of a page.
struct Player<'a> {
    browser: &'a Browser,
    server: &'a Server,
}

impl Player<'_> {
    /// Plays films all at the same time.
    async fn play(&self, films: &[&Film], look: Look) -> Vec<Result<Seen, String>> {
        let one = |film: &&Film| (self.url(film), film.targets(), film.sampled, look == Look::Whole);
        let looks: Vec<_> = films.iter().map(one).collect();
        let script = format!(
            "window.result = null;
             Promise.all({}.map((one) => look(...one))).then((all) => {{ window.result = all; }});",
            json!(looks)
        );
        self.browser.run(&script).await;
        let result = self.browser.until("window.result", PLAYED).await;
        let one =
            |seen: &Value| serde_json::from_value(seen.clone()).map_err(|error| format!("{error}: {seen}"));
        result.as_array().unwrap().iter().map(one).collect()
    }

    fn url(&self, film: &Film) -> String {
        let mut url = Url::parse(&self.server.url("/recordings/")).unwrap();
        let name = film.file.file_name().unwrap().to_str().unwrap();
        url.path_segments_mut().unwrap().pop_if_empty().push(name);
        format!("{url}?inline=1")
    }

    /// Plays films again that seem out of step: a player on a busy machine may stumble where a film doesn't,
    /// though not in most of [`PLAYS`].
    async fn play_again(&self, films: &[Film], truths: &[Seen], looked: &mut [Result<Seen, String>]) {
        let mut doubted = Vec::new();
        for ((film, truth), seen) in films.iter().zip(truths).zip(looked) {
            if let Ok(seen) = seen
                && verdict::is_out_of_step(film, truth, seen)
            {
                doubted.push((film, &mut seen.beeps));
            }
        }
        let films: Vec<&Film> = doubted.iter().map(|(film, _)| *film).collect();
        for _ in 1..if films.is_empty() { 1 } else { PLAYS } {
            for ((_, beeps), again) in doubted.iter_mut().zip(self.play(&films, Look::Sound).await) {
                beeps.extend(again.map(|again| again.beeps).unwrap_or_default());
            }
        }
        for (_, beeps) in doubted {
            beeps.sort_by(f64::total_cmp);
            let same = beeps.chunk_by(|a, b| b - a < SAME);
            *beeps = same.filter(|same| same.len() > PLAYS / 2).map(|same| same[same.len() / 2]).collect();
        }
    }
}
