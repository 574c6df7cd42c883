//! Real browsers against the real binary: the pages, the library in pages of others, and what
//! happens when a page is left, crashes, or loses its socket.

mod camera;
mod embedded;
mod encrypted;
mod firefox;
mod home;
mod ladder;
mod login;
mod networks;
mod offers;
mod pages;
mod policy;
mod proxied;
mod publish;
mod record;
mod simulcast;
mod sound;
mod trouble;
mod watch;

use crate::support::browser::Browser;
use crate::support::judge::{self, Packet, Probe};
use crate::support::server::Server;
use crate::support::user::SOON;
use crate::support::web::HookLog;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// From Start to PUBLISHING: opening the fake camera takes seconds there.
const CONNECT: Duration = Duration::from_secs(30);

/// A server with a hook that keeps a log.
struct Studio {
    server: Server,
    hook: HookLog,
}

/// A recording as the publish page saw it.
struct FileWriter {
    /// From PUBLISHING to the press on Stop, by the page's clock.
    on_page: Duration,
    file: String,
    url: String,
    bytes: u64,
}

impl Studio {
    fn open(settings: &[&str]) -> Self {
        let hook = HookLog::new();
        let setting = hook.setting();
        let settings: Vec<&str> = [setting.as_str()].into_iter().chain(settings.iter().copied()).collect();
        Self { server: Server::start(&settings), hook }
    }

    /// Where the server keeps a file, links resolved as the hook sees it.
    fn path(&self, file: &str) -> PathBuf {
        self.server.records().canonicalize().unwrap().join(file)
    }

    async fn recordings(&self) -> Vec<Value> {
        json(&self.server.url("/api/recordings")).await.as_array().unwrap().clone()
    }

    /// The only recording, once its hook has run.
    async fn the_one_recording(&self, patience: Duration) -> Value {
        let runs = self.hook.ran(1, patience).await;
        let mut recordings = self.recordings().await;
        assert_eq!(recordings.len(), 1, "{recordings:#?}");
        let manifest = recordings.remove(0);
        assert_eq!(manifest["state"], "sealed", "{manifest:#}");
        let path = self.path(manifest["file"].as_str().unwrap());
        assert_eq!(runs, [(manifest["stream"].as_str().unwrap().to_owned(), path, 1)]);
        manifest
    }
}

async fn json(url: &str) -> Value {
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// Opens the publish page of a server, or of a proxy before it, and begins a recording.
async fn start_publishing(browser: &Browser, base: &str, name: &str) {
    browser.goto(&format!("{base}/publish?name={name}")).await;
    press_start(browser).await;
}

/// The same on the publish page that is open.
async fn press_start(browser: &Browser) {
    // The words' instants, by the page's own clock.
    browser
        .run(
            r##"const status = document.querySelector("#status");
            window.marks = {};
            const mark = () => { marks[status.dataset.status] ??= performance.now(); };
            new MutationObserver(mark).observe(status, { attributes: true });
            const stop = () => { marks.stop ??= performance.now(); };
            document.querySelector("#stop").addEventListener("click", stop, { capture: true });"##,
        )
        .await;
    browser.click("#start").await;
    browser.until("marks.PUBLISHING", CONNECT).await;
}

/// Waits until it has been published for so long on the page's clock.
async fn publish_for(browser: &Browser, time: Duration) {
    let expression = format!("performance.now() - marks.PUBLISHING >= {}", time.as_millis());
    browser.until(&expression, time + SOON).await;
}

/// Presses Stop and waits for the link.
async fn stop_publishing(browser: &Browser) -> FileWriter {
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", SOON).await;
    let take = browser
        .run(
            "const link = document.querySelector('#download');
            return { on_page: marks.stop - marks.PUBLISHING, url: link.href, file: link.download, bytes: +link.dataset.bytes };",
        )
        .await;
    assert_eq!(browser.text("#status").await, "UNPUBLISHED");
    let text = |key: &str| take[key].as_str().unwrap().to_owned();
    FileWriter {
        on_page: Duration::from_secs_f64(take["on_page"].as_f64().unwrap() / 1e3),
        url: text("url"),
        file: text("file"),
        bytes: take["bytes"].as_u64().unwrap(),
    }
}

/// A whole recording of this length.
async fn record(browser: &Browser, base: &str, name: &str, time: Duration) -> FileWriter {
    start_publishing(browser, base, name).await;
    publish_for(browser, time).await;
    stop_publishing(browser).await
}

/// The same of what WebRTC brought.
fn assert_seekable(file: &Path) -> (Duration, Vec<Packet>) {
    assert_seekable_with("vp8", file)
}

/// That a file is whole and can be entered everywhere; gives its duration and its pictures.
fn assert_seekable_with(codec: &str, file: &Path) -> (Duration, Vec<Packet>) {
    let probe = Probe::of(file);
    assert_eq!(probe.stream("video").map(|stream| stream.codec_name.as_str()), Some(codec));
    assert_eq!(probe.stream("audio").map(|stream| stream.codec_name.as_str()), Some("opus"));
    judge::decode(file).unwrap();
    let duration = probe.duration().expect("the header has a duration");
    let video = judge::packets_of(file, "video");
    let mut keyframes: Vec<_> = video.iter().filter(|frame| frame.keyframe).map(|frame| frame.time).collect();
    let mut cues = judge::cue_times(file);
    keyframes.sort();
    cues.sort();
    assert_eq!(cues, keyframes, "a cue for every keyframe");
    let gap = judge::longest_keyframe_gap(&video, duration);
    assert!(gap <= Duration::from_secs(5), "{gap:?} without a keyframe");
    (duration, video)
}

/// The longest time without a frame of a kind.
fn longest_silence(packets: &[Packet]) -> Duration {
    packets.windows(2).map(|pair| pair[1].time.saturating_sub(pair[0].time)).max().unwrap()
}

fn duration_of(manifest: &Value) -> Duration {
    Duration::from_millis(manifest["duration_ms"].as_u64().unwrap())
}
