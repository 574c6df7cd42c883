//! The page that sends JPEG pictures, and the viewer of such streams.

use super::pages::{look, pictures};
use super::{CONNECT, SOON, Studio};
use crate::support::browser::Browser;
use crate::support::judge::{self, Probe};
use crate::support::user::eventually;
use crate::support::web::Proxy;
use reqwest::{Client, header};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TEN: Duration = Duration::from_secs(10);

/// Opens the page and begins; the time of the first picture is kept in the page.
async fn start_sending(browser: &Browser, base: &str, query: &str) {
    browser.goto(&format!("{base}/camera?{query}")).await;
    browser.click("#start").await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", CONNECT).await;
    browser.run("window.began = performance.now();").await;
}

async fn stop_sending(browser: &Browser) {
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", SOON).await;
    assert_eq!(browser.text("#status").await, "UNPUBLISHED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_of_pictures_become_a_file_that_seeks_and_the_hook_runs() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_sending(&browser, &studio.server.base, "name=front%20door").await;
    browser.until("performance.now() - began >= 10000", TEN + SOON).await;
    look(&browser, &pictures(), "camera").await;
    stop_sending(&browser).await;
    look(&browser, &pictures(), "camera-stopped").await;

    let counts = browser.run("return { ...document.querySelector('#traffic').dataset };").await;
    let sent: usize = counts["sent"].as_str().unwrap().parse().unwrap();
    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["stream"], "front door");
    let file = studio.path(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    let duration = Probe::of(&file).duration().expect("the header has a duration");
    let kept = judge::packets_of(&file, "video").len();
    let cues = judge::cue_times(&file).len();
    let rate = (kept as f64 - 1.0) / duration.as_secs_f64();
    println!("{counts}: {kept} pictures and {cues} cues in {duration:?} of file, {rate:.2} a second");
    assert_eq!(kept, sent, "what the page says it sent is in the file");
    assert!((5.0..10.6).contains(&rate), "{rate} pictures a second");
    assert!(duration >= Duration::from_millis(9_500) && cues > 0);
    let link = browser.run("return document.querySelector('#download').href;").await;
    let bytes = reqwest::get(link.as_str().unwrap()).await.unwrap().bytes().await.unwrap();
    assert!(bytes == std::fs::read(&file).unwrap(), "the link gives another file");
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_out_of_bounds_are_said_and_a_cut_connection_loses_no_recording() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let proxy = Proxy::start(&studio.server.base);
    start_sending(&browser, &proxy.base, "name=cut&fps=1000&quality=7").await;
    let settings = browser.text("#settings").await;
    assert!(settings.contains("30 is used") && settings.contains("1 is used"), "{settings}");
    let sent = "+document.querySelector('#traffic').dataset.sent";
    for _ in 0..3 {
        let before = browser.run(&format!("return {sent};")).await;
        proxy.cut();
        browser.until(&format!("{sent} > {before} + 5"), SOON).await;
    }
    stop_sending(&browser).await;
    let manifest = studio.the_one_recording(SOON).await;
    judge::decode(&studio.path(manifest["file"].as_str().unwrap())).unwrap();
}

/// Defines `shows(image, channel)`: whether an image is of that colour alone.
const SHOWS: &str = r#"
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    window.shows = (image, channel) => {
      if (!image.naturalWidth) return false;
      context.drawImage(image, 0, 0, 1, 1);
      const pixel = context.getImageData(0, 0, 1, 1).data;
      return pixel[channel] > 200 && pixel[(channel + 1) % 3] < 60 && pixel[(channel + 2) % 3] < 60;
    };"#;
const COLOURS: [&str; 3] = ["red", "lime", "blue"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_pictures_plays_and_seeks_on_the_page_of_recordings() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let (client, url) = (Client::new(), studio.server.url("/upload"));
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    for colour in COLOURS {
        let image = plain(colour);
        for _ in 0..12 {
            pace.tick().await;
            let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(image.clone());
            assert_eq!(request.send().await.unwrap().status(), 204);
        }
    }
    assert_eq!(client.delete(&url).send().await.unwrap().status(), 200);
    let manifest = studio.the_one_recording(SOON).await;
    browser.goto(&studio.server.url("/recordings")).await;
    browser.run(SHOWS).await;
    browser.until("document.querySelector('[data-action=play]')", SOON).await;
    browser.click("[data-action=play]").await;
    browser.run("window.image = document.querySelector('#picture');").await;
    for channel in 0..3 {
        browser.until(&format!("shows(image, {channel})"), SOON).await;
    }
    look(&browser, &pictures(), "recording-of-pictures").await;
    browser.until("document.querySelector('#picture-play').textContent === 'Play'", SOON).await;
    let seek = "const slider = document.querySelector('#picture-time');
        slider.value = Math.round(slider.max * 0.4);
        slider.dispatchEvent(new Event('input'));
        slider.dispatchEvent(new Event('change'));";
    browser.run(seek).await;
    browser.until("shows(image, 1)", SOON).await;
    // Somebody cuts the file.
    let file = studio.path(manifest["file"].as_str().unwrap());
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len * 3 / 4).unwrap();
    browser.click("#picture-play").await;
    browser.until("document.querySelector('#picture-play').textContent === 'Play'", SOON).await;
    browser.click("#picture-play").await;
    let told = "!document.querySelector('#video-problem').hidden";
    browser.until(told, SOON).await;
    let problem = browser.text("#video-problem").await;
    assert!(problem.contains("can't be read from"), "{problem}");
    look(&browser, &pictures(), "recording-of-pictures-damaged").await;
    browser.click("#player .quiet").await;
    browser.until("!document.querySelector('#player').open", SOON).await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_element_that_is_early_shows_its_camera_once_it_is_there() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/recordings")).await;
    browser.run(SHOWS).await;
    browser.run("window.image = new Image(); image.src = '/stream'; document.body.append(image);").await;
    let waits = async || {
        let now = crate::metrics::scrape(&studio.server).await;
        (now.value("onrecord_viewers", &[("kind", "mjpeg")]) > 0.0).then_some(())
    };
    eventually("it waits", SOON, waits).await;
    let (client, url) = (Client::new(), studio.server.url("/upload"));
    for (channel, colour) in COLOURS.into_iter().enumerate() {
        let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(plain(colour));
        assert_eq!(request.send().await.unwrap().status(), 204);
        browser.until(&format!("shows(image, {channel})"), SOON).await;
    }
}

/// A picture of one colour.
pub(super) fn plain(colour: &str) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &format!("color=c={colour}:s=64x64")])
        .args(["-frames:v", "1", "-t", "1", "-c:v", "mjpeg", "-f", "image2pipe", "-"])
        .stdin(Stdio::null())
        .output();
    output.expect("ffmpeg is installed").stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_element_shows_each_picture_and_comes_back_with_the_stream() {
    let studio = Studio::open(&["mjpeg.idle_timeout=60s"]);
    let browser = Browser::start().await;
    let (client, url) = (Client::new(), studio.server.url("/upload"));
    let post = async |colour: &str| {
        let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(plain(colour));
        assert_eq!(request.send().await.unwrap().status(), 204);
    };
    browser.goto(&studio.server.url("/recordings")).await;
    browser
        .run(
            r#"const { viewJpeg } = await import("/js/pages/jpeg-view.js");
            window.image = document.body.appendChild(new Image());
            window.states = [];
            viewJpeg(image, "default", (state) => { if (states.at(-1) !== state) states.push(state); });
            const canvas = new OffscreenCanvas(1, 1);
            const context = canvas.getContext("2d", { willReadFrequently: true });
            window.shows = (channel) => {
              if (!image.naturalWidth) return false;
              context.drawImage(image, 0, 0, 1, 1);
              const pixel = context.getImageData(0, 0, 1, 1).data;
              return pixel[channel] > 200 && pixel[(channel + 1) % 3] < 60 && pixel[(channel + 2) % 3] < 60;
            };"#,
        )
        .await;
    browser.until("states.at(-1) === 'away'", SOON).await;
    for round in 0..2 {
        for (channel, colour) in ["red", "lime", "blue"].into_iter().enumerate() {
            let posted = Instant::now();
            post(colour).await;
            browser.until(&format!("shows({channel})"), SOON).await;
            let seen = posted.elapsed();
            println!("round {round}: {colour} is seen {seen:?} after its POST");
            // Less than the server's repeat: it waited for no other picture.
            assert!(seen < Duration::from_millis(4_500), "{colour} was shown {seen:?} late");
        }
        assert_eq!(client.delete(&url).send().await.unwrap().status(), 200);
        browser.until("states.at(-1) === 'away'", SOON).await;
    }
}
