//! The page that watches. What it watches it publishes itself, so that both ends have one clock: a
//! picture whose upper third says in bars when it was painted.

use super::camera::plain;
use super::pages::{look, pictures};
use super::{CONNECT, SOON, Studio};
use crate::support::browser::Browser;
use crate::support::chunks::{self, Chunks};
use crate::support::live::Live;
use crate::support::media;
use crate::support::publisher::{Config, TrackConfig};
use crate::support::signalling::Signal;
use crate::support::source::Looped;
use crate::support::user::Api;
use reqwest::{Client, header};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Live, and a picture is there.
const LIVE: &str = "document.querySelector('#state').dataset.state === 'live' && document.querySelector('#video').readyState > 2";

/// Paints the time, in bars.
const PAINTER: &str = r##"
    const board = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
    const paint = board.getContext("2d");
    setInterval(() => {
      const now = Date.now();
      paint.fillStyle = "#2a4";
      paint.fillRect(0, 0, 640, 360);
      for (let bit = 0; bit < 16; bit++) {
        paint.fillStyle = (now >> bit) & 1 ? "#fff" : "#000";
        paint.fillRect(bit * 40, 0, 40, 120);
      }
    }, 33);
    const sound = new AudioContext();
    const tone = sound.createOscillator();
    const sink = sound.createMediaStreamDestination();
    tone.connect(sink);
    tone.start();
    window.media = new MediaStream([...board.captureStream(30).getTracks(), ...sink.stream.getTracks()]);"##;

/// Looks at what the page shows: when it was painted, and how green it is below.
const EYE: &str = r##"
    const [video, poster] = [document.querySelector("#video"), document.querySelector("#poster")];
    const eye = Object.assign(document.createElement("canvas"), { width: 64, height: 36 }).getContext("2d", { willReadFrequently: true });
    const pixel = (x, y) => eye.getImageData(x, y, 1, 1).data[1];
    window.latencies = [];
    const look = () => {
      const now = Date.now() & 0xffff;
      eye.drawImage(video, 0, 0, 64, 36);
      let code = 0;
      for (let bit = 0; bit < 16; bit++) if (pixel(bit * 4 + 2, 6) > 128) code |= 1 << bit;
      latencies.push((now - code + 65536) % 65536);
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
    // What a person sees: the video over the poster; a video without a picture is transparent.
    window.shades = [];
    setInterval(() => {
      eye.clearRect(0, 0, 64, 36);
      eye.drawImage(poster, 0, 0, 64, 36);
      if (video.readyState >= 2) eye.drawImage(video, 0, 0, 64, 36);
      shades.push(pixel(32, 30));
    }, 10);
    // The longest time that playback stood still, and all that somebody notices.
    window.stuck = 0;
    window.stalls = [];
    let [last, since] = [-1, performance.now()];
    setInterval(() => {
      const now = performance.now();
      stuck = Math.max(stuck, now - since);
      if (video.currentTime === last) return;
      if (last >= 0 && now - since > 150) stalls.push(Math.round(now - since));
      [last, since] = [video.currentTime, now];
    }, 20);"##;

/// Publishes what is painted.
const PUBLISHER: &str = r##"
    const Native = RTCPeerConnection;
    window.peers = [];
    window.RTCPeerConnection = class extends Native {
      constructor(...args) {
        super(...args);
        peers.push(this);
      }
    };
    window.sender = (kind) => peers.at(-1).getSenders().find(({ track }) => track?.kind === kind);
    const { createSession } = await import("/js/onrecord.js");
    window.publish = () => new Promise((done, failed) => {
      const session = createSession({ urlServer: location.origin.replace("http", "ws") + "/signal" });
      session.on("ESTABLISHED", () => {
        window.published = session.createStream({ name: "mirror", mediaStream: media });
        published.on("PUBLISHING", () => done(true)).on("FAILED", () => failed(new Error("not published")));
        published.publish();
      });
    });
    return publish();"##;

async fn mirror(studio: &Studio) -> Browser {
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/watch/mirror")).await;
    browser.until("document.querySelector('#state').dataset.state === 'waiting'", SOON).await;
    let script = format!("return (async () => {{ {PAINTER} {EYE} {PUBLISHER} }})();");
    assert_eq!(browser.run(&script).await, true);
    browser.until(LIVE, CONNECT).await;
    // Before the first picture there is none to keep.
    browser.run("shades.length = 0;").await;
    browser
}

/// Median and worst latency since the last look, in ms.
async fn latency(browser: &Browser, label: &str) -> (u64, u64) {
    let seen = browser.run("return latencies.splice(0);").await;
    let mut seen: Vec<u64> = seen.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    seen.sort_unstable();
    assert!(seen.len() > 20, "{label}: {} pictures", seen.len());
    let (median, worst) = (seen[seen.len() / 2], seen[seen.len() - 1]);
    println!("{label}: {} pictures, {median} ms from canvas to screen, {worst} ms at worst", seen.len());
    (median, worst)
}

/// Waits while the page plays so many seconds.
async fn plays(browser: &Browser, seconds: f64) {
    let from = browser.run("stuck = 0; return document.querySelector('#video').currentTime;").await;
    let goal = from.as_f64().unwrap() + seconds;
    browser.until(&format!("document.querySelector('#video').currentTime >= {goal}"), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_page_stays_live_whatever_is_muted() {
    let studio = Studio::open(&[]);
    let browser = mirror(&studio).await;
    plays(&browser, 2.0).await;
    browser.run("latencies.length = 0;").await;
    plays(&browser, 4.0).await;
    let (median, _) = latency(&browser, "steady").await;
    assert!(median < 1500, "{median} ms");

    for (what, act) in [
        ("sound muted", "media.getAudioTracks()[0].enabled = false;"),
        ("no sound sent", "window.muted = sender('audio'); return muted.replaceTrack(null);"),
    ] {
        browser.run(act).await;
        plays(&browser, 4.0).await;
        let stuck = browser.run("return stuck;").await.as_f64().unwrap();
        println!("{what}: playback stood still for {stuck:.0} ms at worst");
        latency(&browser, what).await;
        assert!(stuck < 1500.0, "{what}: {stuck} ms");
    }
    let sound =
        "media.getAudioTracks()[0].enabled = true; return muted.replaceTrack(media.getAudioTracks()[0]);";
    browser.run(sound).await;
    plays(&browser, 2.0).await;

    // Without pictures the sound goes on, over the last picture, and the pictures come back.
    browser.run("window.blind = sender('video'); return blind.replaceTrack(null);").await;
    let alone = "document.querySelector('#video').videoWidth === 0 && document.querySelector('#video').currentTime > 1.5";
    browser.until(alone, SOON).await;
    browser.run("return blind.replaceTrack(media.getVideoTracks()[0]);").await;
    browser.until("document.querySelector('#video').videoWidth > 0", SOON).await;
    browser.run("latencies.length = 0;").await;
    plays(&browser, 3.0).await;
    latency(&browser, "pictures are back").await;
    let darkest = browser.run("return Math.min(...shades);").await.as_f64().unwrap();
    assert!(darkest > 80.0, "a dark picture: {darkest}");
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_publisher_restarts_the_watch_page_goes_on_without_a_black_picture() {
    let studio = Studio::open(&[]);
    let browser = mirror(&studio).await;
    plays(&browser, 2.0).await;
    browser.run("shades.length = 0; published.stop();").await;
    browser.until("document.querySelector('#state').dataset.state === 'ended'", SOON).await;
    assert_eq!(browser.run("return publish();").await, true);
    let published = "window.again ??= performance.now(), ";
    browser.run(&format!("{published} 0;")).await;
    browser.until(LIVE, SOON).await;
    let waited = browser.run("return performance.now() - again;").await.as_f64().unwrap();
    plays(&browser, 2.0).await;
    let (darkest, looks) = (
        browser.run("return Math.min(...shades);").await.as_f64().unwrap(),
        browser.run("return shades.length;").await.as_f64().unwrap(),
    );
    println!("a picture {waited:.0} ms after PUBLISHING; the darkest of {looks} looks was {darkest}");
    assert!(darkest > 80.0, "a dark picture: {darkest}");
}

/// Also what an independent publisher sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_without_media_source_extensions_plays_the_file() {
    let studio = Studio::open(&[]);
    let (video, audio) = media::flash_and_beep(10);
    let (live, offer) = Live::start(|local| Config {
        video: Some(TrackConfig::new(Looped::new(video))),
        audio: Some(TrackConfig::new(Looped::new(audio))),
        ..Config::new(local)
    })
    .await;
    let mut signal = Signal::connect(&studio.server.ws_url("/signal")).await;
    let answer = signal.publish("flash", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let browser = Browser::start().await;
    for way in ["blob:", "http:"] {
        browser.goto(&studio.server.url("/watch/flash")).await;
        browser.until(LIVE, SOON).await;
        let playing = format!(
            "document.querySelector('#video').currentTime > 2 && document.querySelector('#video').src.startsWith('{way}')"
        );
        browser.until(&playing, SOON).await;
        let source = json!({ "source": "delete window.MediaSource; delete window.ManagedMediaSource;" });
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", source).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_in_chunks_is_watched_without_standing_still() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let camera = format!("{PAINTER} navigator.mediaDevices.getUserMedia = async () => media;");
    let source = json!({ "source": format!("(() => {{ {camera} }})();") });
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", source).await;
    browser.goto(&studio.server.url("/record?name_prefix=mirror")).await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", CONNECT).await;
    let streams = super::json(&studio.server.url("/api/streams")).await;
    assert_eq!(streams[0]["via"], "chunks", "{streams}");
    browser.new_window().await;
    let opened = Instant::now();
    let watch = format!("/watch/{}", streams[0]["stream"].as_str().unwrap());
    browser.goto(&studio.server.url(&watch)).await;
    browser.until(LIVE, CONNECT).await;
    println!("a picture {:?} after the page was asked for", opened.elapsed());
    browser.run(&format!("{{ {EYE} }}")).await;
    // The page learns how far apart the chunks come.
    plays(&browser, 6.0).await;
    println!("while it learns it stood still for {} ms", browser.run("return stalls.splice(0);").await);
    browser.run("latencies.length = 0;").await;
    plays(&browser, 10.0).await;
    let stalls = browser.run("return stalls;").await;
    let (median, _) = latency(&browser, "chunks of 1 s").await;
    println!("in 10 s it stood still for {stalls} ms");
    look(&browser, &pictures(), "watch-chunks").await;
    assert!(stalls.as_array().unwrap().len() <= 2, "it stood still for {stalls} ms");
    assert!(median < 4000, "{median} ms");
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

/// A pause of the camera around the end of a chunk, from keyframe to keyframe.
pub(super) async fn watches_a_camera_that_stutters(browser: &Browser) {
    let studio = Studio::open(&[]);
    let (mut publisher, _) = Chunks::start(&studio.server, "stutter").await;
    let performance = tokio::spawn(async move {
        let bytes = publisher.perform(&chunks::stuttering(20)).await;
        publisher.stop(Some(bytes)).await
    });
    Api::of(&studio.server).stream_is("stutter", "PUBLISHING").await;
    browser.goto(&studio.server.url("/watch/stutter")).await;
    let ranges = "const { buffered } = document.querySelector('#video');
        return [...Array(buffered.length).keys()].map((i) => [buffered.start(i), buffered.end(i)]);";
    browser.until("document.querySelector('#video').currentTime > 5", SOON).await;
    let ranges = browser.run(ranges).await;
    println!("{ranges}");
    assert_eq!(ranges.as_array().unwrap().len(), 1, "pictures are missing: {ranges}");
    performance.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_stutters_costs_a_viewer_no_other_picture() {
    watches_a_camera_that_stutters(&Browser::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jpeg_stream_is_watched_picture_by_picture_and_the_last_one_stays() {
    let studio = Studio::open(&["mjpeg.idle_timeout=60s"]);
    let browser = Browser::start().await;
    let (client, url) = (Client::new(), studio.server.url("/upload"));
    let post = async |image: Vec<u8>| {
        let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(image);
        assert_eq!(request.send().await.unwrap().status(), 204);
    };
    browser.goto(&studio.server.url("/watch/default")).await;
    browser.until("document.querySelector('#state').dataset.state === 'waiting'", SOON).await;
    browser
        .run(
            r##"const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            window.shows = (channel, selector) => {
              const shown = document.querySelector(selector);
              if (shown.hidden || shown.naturalWidth === 0) return false;
              context.drawImage(shown, 0, 0, 1, 1);
              const pixel = context.getImageData(0, 0, 1, 1).data;
              return pixel[channel] > 200 && pixel[(channel + 1) % 3] < 60 && pixel[(channel + 2) % 3] < 60;
            };"##,
        )
        .await;
    for round in 0..2 {
        for (channel, colour) in ["red", "lime", "blue"].into_iter().enumerate() {
            let posted = Instant::now();
            post(plain(colour)).await;
            browser.until(&format!("shows({channel}, '#picture')"), SOON).await;
            let seen = posted.elapsed();
            println!("round {round}: {colour} is seen {seen:?} after its POST");
            // The page looks for a stream every few seconds; then it waits for no other picture.
            assert!(channel == 0 || seen < Duration::from_millis(4_500), "{colour} was shown {seen:?} late");
        }
        assert_eq!(client.delete(&url).send().await.unwrap().status(), 200);
        browser.until("document.querySelector('#state').dataset.state === 'ended'", SOON).await;
        browser.until("shows(2, '#poster')", SOON).await;
    }
    post(media::jpegs(1, "640x360").remove(0)).await;
    browser.until("document.querySelector('#picture').naturalWidth === 640", SOON).await;
    look(&browser, &pictures(), "watch-pictures").await;
}
