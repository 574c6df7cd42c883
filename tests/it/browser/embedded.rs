//! The library in pages of others, served from another origin.

use super::{CONNECT, SOON, Studio, assert_seekable};
use crate::support::browser::Browser;
use crate::support::web::Site;
use std::time::Duration;

const README: &str = include_str!("../../../README.md");
/// What the example calls its server.
const EXAMPLE_SERVER: &str = "localhost:8080";

/// The shape of the page that ends Flashphoner's article on recording, with our script and name space.
const FLASHPHONER_STYLE: &str = r#"<!doctype html>
<title>The streamer</title>
<script src="http://SERVER/js/onrecord.classic.js"></script>
<body onload="init()">
<div id="localVideo" style="width:320px;height:240px"></div>
<input id="start" type="button" value="start" onclick="start()">
<input id="stop" type="button" value="stop" onclick="stop()">
<p id="status"></p>
<script>
  var SESSION_STATUS = Onrecord.constants.SESSION_STATUS, STREAM_STATUS = Onrecord.constants.STREAM_STATUS;
  var localVideo, stream, words = [];

  function init() {
    Onrecord.init();
    localVideo = document.getElementById("localVideo");
  }

  function start() {
    Onrecord.createSession({ urlServer: "ws://SERVER" }).on(SESSION_STATUS.ESTABLISHED, function (session) {
      startStreaming(session);
    }).on(SESSION_STATUS.DISCONNECTED, function () {
      setStatus("DISCONNECTED");
    }).on(SESSION_STATUS.FAILED, function () {
      setStatus("FAILED");
    });
  }

  function startStreaming(session) {
    stream = session.createStream({
      name: "stream222",
      display: localVideo,
      cacheLocalResources: true,
      receiveVideo: false,
      receiveAudio: false,
      record: true
    });
    stream.on(STREAM_STATUS.PUBLISHING, function (publishStream) {
      words.push(publishStream.status(), publishStream.name());
      setStatus(STREAM_STATUS.PUBLISHING);
    }).on(STREAM_STATUS.UNPUBLISHED, function (stream) {
      setStatus(STREAM_STATUS.UNPUBLISHED + " " + stream.getRecordInfo());
    }).on(STREAM_STATUS.FAILED, function () {
      setStatus(STREAM_STATUS.FAILED);
    });
    stream.publish();
  }

  function stop() {
    stream.stop();
  }

  function setStatus(status) {
    document.getElementById("status").innerHTML = status;
  }
</script>
"#;

/// A site that may publish, and the server that lets it.
async fn site_and_studio() -> (Site, Studio) {
    let site = Site::start().await;
    let studio = Studio::open(&[&format!("server.cors_origins=[\"{}\"]", site.origin)]);
    (site, studio)
}

fn host(studio: &Studio) -> &str {
    studio.server.base.strip_prefix("http://").unwrap()
}

/// Presses Start, waits for PUBLISHING, and for three seconds of it; presses Stop.
async fn press_start_and_stop(browser: &Browser) {
    browser.click("#start").await;
    let word = "document.querySelector('#status').textContent";
    browser.until(&format!("{word} === 'PUBLISHING'"), CONNECT).await;
    browser.run("window.began = performance.now();").await;
    browser.until("performance.now() - began >= 3000", SOON).await;
    browser.click("#stop").await;
    browser.until(&format!("{word}.startsWith('UNPUBLISHED')"), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_written_for_flashphoner_works_with_our_script_and_name_space() {
    let (site, studio) = site_and_studio().await;
    let browser = Browser::start().await;
    browser.goto(&site.serve("streamer", FLASHPHONER_STYLE.replace("SERVER", host(&studio)))).await;
    press_start_and_stop(&browser).await;

    let manifest = studio.the_one_recording(SOON).await;
    let file = manifest["file"].as_str().unwrap();
    assert_eq!(browser.text("#status").await, format!("UNPUBLISHED {file}"));
    assert_eq!(browser.run("return words.join(' ');").await, "PUBLISHING stream222");
    let shown = browser.run("return document.querySelector('#localVideo > video').videoWidth > 0;").await;
    assert_eq!(shown, true, "the preview is in the element the page named");
    assert_seekable(&studio.path(file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_the_readme_records_as_written() {
    let (_, rest) = README.split_once("```html\n").expect("README.md has an example");
    let (example, _) = rest.split_once("\n```").unwrap();
    let lines = example.lines().count();
    assert!(lines < 48, "{lines} lines");
    assert_eq!(example.matches(EXAMPLE_SERVER).count(), 2, "the server is named in two places");

    let (site, studio) = site_and_studio().await;
    let browser = Browser::start().await;
    browser.goto(&site.serve("interview", example.replace(EXAMPLE_SERVER, host(&studio)))).await;
    press_start_and_stop(&browser).await;

    let manifest = studio.the_one_recording(SOON).await;
    browser.until("!document.querySelector('#download').hidden", SOON).await;
    browser.click("#download").await;
    let file = manifest["file"].as_str().unwrap();
    let downloaded = browser.downloaded(file, manifest["bytes"].as_u64().unwrap(), SOON).await;
    let (duration, _) = assert_seekable(&downloaded);
    assert!(duration > Duration::from_millis(2500), "{duration:?}");
    let console = browser.console().await;
    let errors: Vec<_> = console.iter().filter(|line| !line.contains("favicon")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
