//! The lists, and how pages look.

use super::{SOON, Studio, record, start_publishing, stop_publishing};
use crate::support::browser::Browser;
use std::path::{Path, PathBuf};
use std::time::Duration;

const THREE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_are_played_deleted_and_their_hook_run_again_from_the_page() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let take = record(&browser, &studio.server.base, "take", THREE).await;
    studio.the_one_recording(SOON).await;

    browser.goto(&studio.server.url("/recordings")).await;
    browser.until("document.querySelector('li[data-hook=done] [data-action=play]')", SOON).await;
    browser.click("[data-action=play]").await;
    let playing =
        "document.querySelector('#video').currentTime > 0.5 && document.querySelector('#video').duration";
    let duration = browser.until(playing, SOON).await.as_f64().unwrap();
    assert!((duration - take.on_page.as_secs_f64()).abs() < 1.0, "{duration} s, {:?}", take.on_page);
    browser.click("#player form button").await;

    browser.click("[data-action=details]").await;
    browser.click("[data-action=hook]").await;
    let runs = studio.hook.ran(2, SOON).await;
    assert_eq!(runs[1], ("take".to_owned(), studio.path(&take.file), 2));
    browser.until("document.querySelectorAll('li[data-hook=done] .attempt').length === 2", SOON).await;

    browser.click("[data-action=delete]").await;
    browser.click("#confirm button[value=delete]").await;
    browser.until("!document.querySelector('#empty').hidden", SOON).await;
    assert!(!studio.path(&take.file).exists(), "{} is still there", take.file);
    assert_eq!(reqwest::get(&take.url).await.unwrap().status(), 410);
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_home_page_lists_who_publishes_and_what_is_new() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "on%20air").await;
    let publisher = browser.new_window().await;
    browser.goto(&studio.server.url("/")).await;
    browser.until("document.querySelector('#live .badge[data-tone=live]')", SOON).await;
    let live = browser.text("#live").await;
    assert!(live.contains("on air") && live.contains("recording"), "{live}");
    let home = browser.window().await;
    browser.switch(publisher).await;
    stop_publishing(&browser).await;
    browser.switch(home).await;
    browser.until("!document.querySelector('#live li') && document.querySelector('#newest li')", SOON).await;
    let newest = browser.text("#newest").await;
    assert!(newest.contains("on air"), "{newest}");
}

/// Pictures of every page are left in the folder of test output, to be looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_fit_a_phone_and_are_dark_where_that_is_wished() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let pictures = pictures();
    record(
        &browser,
        &studio.server.base,
        "a-name-that-is-much-longer-than-a-phone-is-wide-0123456789",
        THREE,
    )
    .await;
    studio.hook.ran(1, SOON).await;
    start_publishing(&browser, &studio.server.base, "interview").await;
    // Until the encoder has found its picture size, there is a level and a bitrate to be seen.
    browser.until("performance.now() - marks.PUBLISHING > 8000", SOON).await;
    browser.until("document.querySelector('#rate').textContent !== ''", SOON).await;
    browser.until("document.querySelector('#level').value > 0.1", SOON).await;
    look(&browser, &pictures, "publish").await;
    let publisher = browser.new_window().await;
    for (path, ready, picture) in [
        ("/", "#newest li", "home"),
        ("/recordings", "#list li[data-hook=done]", "recordings"),
        ("/watch/interview", "[data-state=live]", "watch"),
    ] {
        browser.goto(&studio.server.url(path)).await;
        browser.until(&format!("document.querySelector('{ready}')"), SOON).await;
        look(&browser, &pictures, picture).await;
    }
    browser.switch(publisher).await;
    stop_publishing(&browser).await;
    look(&browser, &pictures, "stopped").await;
}

/// Where pictures of pages are left.
pub(super) fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(super) async fn look(browser: &Browser, pictures: &Path, name: &str) {
    let mut shades = Vec::new();
    for (width, height) in [(1280, 800), (360, 740)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height, scheme).await;
            let wide = "document.documentElement.scrollWidth";
            let fits = browser.run(&format!("return {wide} <= innerWidth || {wide};")).await;
            assert_eq!(fits, true, "{name} at {width} pixels is wider than the screen");
            shades.push(browser.run("return getComputedStyle(document.body).backgroundColor;").await);
            let file = pictures.join(format!("{name}-{width}-{scheme}.png"));
            std::fs::write(file, browser.screenshot().await).unwrap();
        }
    }
    assert_ne!(shades[0], shades[1], "{name} is the same in dark and light");
}
