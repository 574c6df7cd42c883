//! Pages, scripts, styles: embedded in the binary, or with `--dev` read from disk on each request,
//! in which case open pages reload when a file changes.

use crate::http::error::{self, ApiError};
use crate::http::state::State;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[derive(RustEmbed)]
#[folder = "www/"]
struct Embedded;

/// Where in `www/` the file of an address lies: by the first of these that it begins with, with what takes
/// its place. `/js/onrecord.js` is what pages of others load; ours import it as `../lib/onrecord.js`, which
/// is so on the disk, too.
const FOLDERS: [(&str, &str); 4] =
    [("js/pages/", "pages/"), ("js/lib/", "lib/"), ("js/", "lib/"), ("", "pages/")];

/// Where the files of `www/` come from.
#[derive(Clone, Debug)]
pub enum Assets {
    /// The binary.
    Embedded,
    /// This folder, read anew for each request (`--dev`).
    Dev(PathBuf),
}

impl Assets {
    fn read(&self, path: &str) -> Option<Cow<'static, [u8]>> {
        let plain = FilePath::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.contains('\\') || path.split('/').any(|part| part.starts_with('.')) {
            return None;
        }
        let file = FOLDERS
            .iter()
            .find_map(|(start, folder)| Some(format!("{folder}{}", path.strip_prefix(start)?)))?;
        match self {
            Self::Embedded => Some(Embedded::get(&file)?.data),
            Self::Dev(_) if path == DEV_SCRIPT.0 => Some(Cow::Borrowed(DEV_SCRIPT.1.as_bytes())),
            Self::Dev(folder) => {
                let mut file = std::fs::read(folder.join(file)).ok()?;
                if path.ends_with(".html") {
                    let root = if path == "watch.html" { "../" } else { "" };
                    file.extend_from_slice(
                        format!("<script type=\"module\" src=\"{root}{}\"></script>\n", DEV_SCRIPT.0)
                            .as_bytes(),
                    );
                }
                Some(Cow::Owned(file))
            }
        }
    }
}

/// What `--dev` adds to every page.
const DEV_SCRIPT: (&str, &str) = (
    "js/dev-reload.js",
    "new EventSource(new URL(\"../dev/reload\", import.meta.url)).addEventListener(\"change\", () => location.reload());\n",
);

/// `GET /`.
pub async fn index(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    answer(&state.assets, "index.html", &headers).await
}

/// `GET /publish`, `/record`, `/camera`: one page in three modes.
pub async fn publish(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    answer(&state.assets, "publish.html", &headers).await
}

/// `GET /recordings`.
pub async fn recordings(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    answer(&state.assets, "recordings.html", &headers).await
}

/// `GET /login`.
pub async fn login(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    answer(&state.assets, "login.html", &headers).await
}

/// `GET /watch/{name}`.
pub async fn watch(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    answer(&state.assets, "watch.html", &headers).await
}

/// `GET /js/…`, `/css/…`, `/img/…`.
pub async fn file(
    state: Extract<Arc<State>>,
    uri: Uri,
    rest: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let folder = uri.path().trim_start_matches('/').split('/').next().unwrap_or("");
    match rest {
        // Pages have addresses of their own, with what those need.
        Ok(Path(rest)) if !rest.ends_with(".html") => {
            answer(&state.assets, &format!("{folder}/{rest}"), &headers).await
        }
        _ => error::no_route().await.into_response(),
    }
}

async fn answer(assets: &Assets, path: &str, headers: &HeaderMap) -> Response {
    let Some(data) = assets.read(path) else { return error::no_route().await.into_response() };
    let etag = etag(&data);
    // Asked for each time, sent only when changed: a new binary's pages are never mixed with old ones.
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).is_some_and(|tags| {
        tags.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == etag)
    });
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { bytes(data).into_response() };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let charset = if mime.type_() == mime_guess::mime::TEXT { "; charset=utf-8" } else { "" };
    if let Ok(kind) = HeaderValue::try_from(format!("{}{charset}", mime.essence_str())) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// What is embedded is there once, however many take their time with it.
fn bytes(data: Cow<'static, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(embedded) => Bytes::from_static(embedded),
        Cow::Owned(read) => read.into(),
    }
}

fn etag(data: &[u8]) -> String {
    let mut etag = String::from("\"");
    for byte in &Sha256::digest(data)[..12] {
        let _ = write!(etag, "{byte:02x}");
    }
    etag + "\""
}

/// How often `--dev` looks for changes: seldom enough to cost nothing, often enough to seem instant.
const DEV_POLL: Duration = Duration::from_millis(300);
/// Files looked at; `www/` has a few dozen.
const DEV_FILES: usize = 2000;

/// `GET /dev/reload`: an event whenever a file under `www/` changes. Only with `--dev`.
pub async fn reload(
    state: Extract<Arc<State>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Assets::Dev(folder) = state.assets.clone() else { return Err(error::no_route().await) };
    let place = state.sockets.enter(None)?;
    let stop = state.sockets.tasks.stop_token();
    let seen = newest(folder.clone()).await;
    let changes = stream::unfold((folder, seen, place), |(folder, seen, place)| async move {
        loop {
            tokio::time::sleep(DEV_POLL).await;
            let now = newest(folder.clone()).await;
            if now != seen {
                let event = Event::default().event("change").data("www");
                return Some((Ok(event), (folder, now, place)));
            }
        }
    });
    Ok(Sse::new(changes.take_until(stop.cancelled_owned())).keep_alive(KeepAlive::default()))
}

/// How many files there are, and when the newest was changed.
async fn newest(folder: PathBuf) -> (usize, Option<SystemTime>) {
    let walk = move || {
        let (mut folders, mut count, mut newest) = (vec![folder], 0, None);
        while let Some(entries) = folders.pop().map(std::fs::read_dir) {
            for entry in entries.into_iter().flatten().flatten().take(DEV_FILES - count) {
                count += 1;
                match entry.metadata() {
                    Ok(about) if about.is_dir() => folders.push(entry.path()),
                    Ok(about) => newest = newest.max(about.modified().ok()),
                    Err(_) => {}
                }
            }
        }
        (count, newest)
    };
    tokio::task::spawn_blocking(walk).await.unwrap_or_default()
}
