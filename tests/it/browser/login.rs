//! Pages of a server that asks who is there: logging in, recording, the link; and a page of another origin
//! with a token.

use super::{CONNECT, SOON, Studio, assert_seekable, publish_for, start_publishing, stop_publishing};
use crate::support::browser::Browser;
use crate::support::web::Site;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const TOKEN: &str = "s3cret-of-the-studio";

/// Somebody who may do all but administer.
pub(super) fn tokens() -> String {
    let hash = format!("{:x}", Sha256::digest(TOKEN));
    format!(
        "auth.tokens=[{{name=\"studio\", hash=\"sha256:{hash}\", permissions=[\"publish\", \"view\", \"recordings\"]}}]"
    )
}

/// Somebody who may only publish, as a page of others is given.
fn guest() -> String {
    let hash = format!("{:x}", Sha256::digest(TOKEN));
    format!(
        "auth.tokens=[{{name=\"guest\", hash=\"sha256:{hash}\", permissions=[\"publish\"], streams=[\"guest-*\"]}}]"
    )
}

/// Keeps a picture of the page where `ONRECORD_SCREENSHOTS` says, for people to look at.
async fn keep(browser: &Browser, name: &str) {
    let png = browser.screenshot().await;
    assert!(png.len() > 5000, "{name}: {} bytes show nothing", png.len());
    if let Some(folder) = std::env::var_os("ONRECORD_SCREENSHOTS") {
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
    }
}

pub(super) async fn log_in(browser: &Browser, token: &str) {
    let script = format!(
        "const field = document.querySelector('#token'); field.value = '{token}'; field.form.requestSubmit();"
    );
    browser.run(&script).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_logs_in_records_downloads_by_the_link_and_logs_out() {
    let studio = Studio::open(&[&tokens(), "log.level=trace"]);
    let browser = Browser::start().await;
    let base = &studio.server.base;
    browser.goto(&format!("{base}/publish?name=a-1")).await;
    browser.until("location.pathname === '/login'", SOON).await;
    browser.until("document.activeElement === document.querySelector('#token')", SOON).await;
    browser.screen(1280, 900, "light").await;
    keep(&browser, "login").await;
    log_in(&browser, "s3cret-that-is-wrong").await;
    browser.until("document.querySelector('#problem').dataset.code === 'unauthorized'", SOON).await;
    assert!(browser.text("#problem").await.contains("not known"));
    browser.screen(390, 700, "dark").await;
    keep(&browser, "login-refused-phone").await;
    browser.screen(1280, 900, "light").await;
    log_in(&browser, TOKEN).await;
    browser.until("location.pathname === '/publish' && location.search === '?name=a-1'", SOON).await;
    browser.until("document.querySelector('.who')?.textContent === 'studio'", SOON).await;
    assert_eq!(browser.run("return document.cookie;").await, "", "scripts can read the cookie");

    start_publishing(&browser, base, "a-1").await;
    publish_for(&browser, Duration::from_secs(3)).await;
    let take = stop_publishing(&browser).await;
    assert!(take.url.contains("?token="), "{}", take.url);
    keep(&browser, "recorded").await;
    browser.click("#download").await;
    let downloaded = browser.downloaded(&take.file, take.bytes, SOON).await;
    assert_seekable(&downloaded);
    // The link is good by itself, where nobody is logged in.
    assert_eq!(reqwest::get(&take.url).await.unwrap().status(), 200);

    browser.goto(&format!("{base}/recordings")).await;
    browser.until("document.querySelector('[data-action=play]')", SOON).await;
    browser.click("[data-action=play]").await;
    browser.until("document.querySelector('#video').readyState >= 2", SOON).await;
    browser.goto(&format!("{base}/")).await;
    browser.until("document.querySelector('#logout')", SOON).await;
    keep(&browser, "home-logged-in").await;
    browser.click("#logout").await;
    browser.until("location.pathname === '/login'", SOON).await;
    browser.goto(&format!("{base}/recordings")).await;
    browser.until("location.pathname === '/login'", SOON).await;

    // A link with a token opens its page, and shows it to nobody.
    browser.goto(&format!("{base}/watch/a-1?token={TOKEN}")).await;
    browser.until("document.querySelector('#state').dataset.state === 'waiting'", SOON).await;
    assert_eq!(browser.run("return location.href;").await, format!("{base}/watch/a-1"));
    let output = studio.server.output();
    assert!(!output.contains("s3cret"), "a token in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_whose_script_is_quicker_than_its_first_picture_has_nothing_to_complain_of() {
    let studio = Studio::open(&[&tokens()]);
    let browser = Browser::start().await;
    // As soon as the field is there, and so before anything is painted.
    let script = "new MutationObserver(() => document.querySelector('#token')?.focus())
        .observe(document, { childList: true, subtree: true });";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    browser.goto(&format!("{}/recordings", studio.server.base)).await;
    browser.until("document.activeElement === document.querySelector('#token')", SOON).await;
    let painted = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));";
    browser.run(painted).await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

const EMBEDDED: &str = r##"<!doctype html>
<title>Another site</title>
<video id="preview" muted></video>
<p id="status"></p>
<script type="module">
  import { createSession } from "SERVER/js/onrecord.js";
  window.asked = 0;
  const session = createSession({ urlServer: "SERVER", token: async () => (asked += 1, "TOKEN") });
  const say = (text) => { document.querySelector("#status").textContent = text; };
  session.on("FAILED", () => say(`session ${session.getError().code}`));
  session.on("ESTABLISHED", () => {
    window.stream = session.createStream({ name: "NAME", mode: "MODE", display: document.querySelector("#preview") });
    for (const word of ["PUBLISHING", "UNPUBLISHED"]) stream.on(word, () => say(word));
    stream.on("FAILED", () => say(`FAILED ${stream.getError().code}`));
    stream.publish().catch(() => {});
  });
</script>
"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_publishes_by_every_way_with_a_token_that_may_only_publish() {
    let site = Site::start().await;
    let studio = Studio::open(&[&guest(), &format!("server.cors_origins=[\"{}\"]", site.origin)]);
    let browser = Browser::start().await;
    let page = |name: &str, mode: &str, token: &str| {
        let page = EMBEDDED.replace("SERVER", &studio.server.base).replace("TOKEN", token);
        site.serve(&format!("{name}-{mode}"), page.replace("NAME", name).replace("MODE", mode))
    };
    let word = "document.querySelector('#status').textContent";
    for mode in ["webrtc", "chunks", "mjpeg"] {
        browser.goto(&page(&format!("guest-{mode}"), mode, TOKEN)).await;
        browser.until(&format!("{word} === 'PUBLISHING'"), CONNECT).await;
        browser.run("window.began = performance.now();").await;
        browser.until("performance.now() - began >= 2000", SOON).await;
        let info = browser.run("return stream.stop().then((info) => info && { url: info.url });").await;
        let url = info["url"].as_str().unwrap_or_else(|| panic!("{mode}: no recording: {info}"));
        assert_eq!(reqwest::get(url).await.unwrap().status(), 200, "{mode}: {url}");
        println!("{mode}: recorded, {} tokens asked for", browser.run("return asked;").await);
    }
    browser.goto(&page("other", "webrtc", TOKEN)).await;
    browser.until(&format!("{word} === 'FAILED forbidden'"), SOON).await;
    browser.goto(&page("guest-x", "webrtc", "s3cret-that-is-wrong")).await;
    browser.until(&format!("{word} === 'session unauthorized'"), SOON).await;
}
