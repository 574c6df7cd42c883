//! The home page: who is live, how it goes, and what an operator does about it.

use super::pages::{look, pictures};
use super::{SOON, Studio, json, start_publishing};
use crate::support::browser::Browser;
use crate::support::media;
use crate::support::user::on_air;
use reqwest::{Client, header};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sends JPEG pictures until it is told to stop.
struct Camera {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Camera {
    fn start(url: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (images, told) = (media::jpegs(10, "640x360"), stop.clone());
        let task = tokio::spawn(async move {
            let client = Client::new();
            let mut pace = tokio::time::interval(Duration::from_millis(200));
            for image in images.iter().cycle() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                pace.tick().await;
                let request =
                    client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(image.clone());
                let _ = request.send().await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// Whether a card's thumbnail shows more than black.
fn shows(name: &str) -> String {
    format!(
        "(() => {{
            const canvas = document.querySelector('[data-stream=\"{name}\"] canvas[data-taken]');
            if (!canvas) return false;
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let bright = 0;
            for (let i = 0; i < pixels.length; i += 4) bright += pixels[i] + pixels[i + 1] + pixels[i + 2] > 90;
            return bright > pixels.length / 4 / 10;
        }})()"
    )
}

fn button(name: &str, action: &str) -> String {
    format!("[data-stream=\"{name}\"] [data-action=\"{action}\"]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_streams_live_stops_a_recording_and_ends_a_stream() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let sound_and_picture = on_air(&studio.server, "talk").await;
    let camera = Camera::start(studio.server.url("/upload"));
    start_publishing(&browser, &studio.server.base, "interview").await;
    let _publisher = browser.new_window().await;
    browser.goto(&studio.server.url("/")).await;
    for name in ["interview", "default"] {
        browser.until(&shows(name), SOON + SOON).await;
    }
    for name in ["interview", "default", "talk"] {
        let rate = format!("+document.querySelector('[data-stream=\"{name}\"]').dataset.rate");
        let rate = browser.until(&format!("{rate} > 1000 && {rate}"), SOON).await;
        println!("{name}: {rate} bit/s");
    }
    assert_eq!(browser.run("return document.querySelectorAll('#live > li').length;").await, 3);
    browser.until("document.querySelector('#chart path.line').getAttribute('d').includes('L')", SOON).await;
    look(&browser, &pictures(), "home-live").await;

    browser.click(&button("talk", "cut")).await;
    browser.until("document.querySelector('#announcement').textContent.includes('new file')", SOON).await;
    let pressed = Instant::now();
    browser.click(&button("talk", "stop-recording")).await;
    let newest =
        "[...document.querySelectorAll('#newest .name')].some((name) => name.textContent === 'talk')";
    browser.until(newest, SOON).await;
    println!("a sealed recording is listed {:?} after Stop recording", pressed.elapsed());
    browser.until(&format!("document.querySelector('{}')", button("talk", "start-recording")), SOON).await;
    let stream = stream_of(&studio, "talk").await.expect("it goes on");
    assert_eq!((&stream["status"], &stream["recording"]), (&"PUBLISHING".into(), &Value::Null));

    browser.click(&button("talk", "end")).await;
    browser.click("#confirm button[value=keep]").await;
    assert!(stream_of(&studio, "talk").await.is_some(), "it was asked first");
    browser.click(&button("talk", "end")).await;
    browser.click("#confirm button[value=end]").await;
    browser.until("!document.querySelector('[data-stream=talk]')", SOON).await;
    drop(sound_and_picture);
    camera.stop().await;
    // A stream may end while its picture is asked for.
    let console = browser.console().await;
    let errors: Vec<_> = console.iter().filter(|line| !line.contains("Failed to load resource")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_recording_is_listed_without_a_reload_as_soon_as_it_is_sealed() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/")).await;
    browser.until("document.querySelector('#newest-empty').textContent.startsWith('Nothing')", SOON).await;
    // When each row appears, by the page's clock.
    browser
        .run(
            "window.seen = {};
            const note = () => document.querySelectorAll('#newest li').forEach(({ dataset }) => { seen[dataset.id] ??= Date.now(); });
            new MutationObserver(note).observe(document.querySelector('#newest'), { childList: true });
            window.sealed = {};
            const source = new EventSource('/api/events');
            source.addEventListener('recording', ({ data }) => {
              const { change, id } = JSON.parse(data);
              if (change === 'sealed') sealed[id] = Date.now();
            });
            await new Promise((open) => source.addEventListener('open', open));",
        )
        .await;
    let on_air = on_air(&studio.server, "quick").await;
    on_air.sends(60).await;
    let id = on_air.stop().await["id"].as_str().unwrap().to_owned();
    let shown = browser
        .until(&format!("seen['{id}'] && sealed['{id}'] && seen['{id}'] - sealed['{id}']"), SOON)
        .await;
    println!("listed {shown} ms after the word that it is sealed");
    assert!(shown.as_f64().unwrap() < 2000.0, "{shown} ms");
}

async fn stream_of(studio: &Studio, name: &str) -> Option<Value> {
    let streams = json(&studio.server.url("/api/streams")).await;
    streams.as_array().unwrap().iter().find(|stream| stream["stream"] == name).cloned()
}
