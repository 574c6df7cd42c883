//! What stands around the server in the tests of pages: a site of another origin, a proxy that
//! counts and cuts, a hook that keeps a log.

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Pages = Arc<Mutex<HashMap<String, String>>>;

/// A site that is not the server.
pub struct Site {
    /// `http://localhost:PORT`.
    pub origin: String,
    pages: Pages,
    task: JoinHandle<()>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let pages = Pages::default();
        let app = Router::new().route("/{page}", get(page)).with_state(pages.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { origin, pages, task }
    }

    /// Puts a page there; gives its address.
    pub fn serve(&self, page: &str, html: String) -> String {
        self.pages.lock().unwrap().insert(page.to_owned(), html);
        format!("{}/{page}", self.origin)
    }
}

async fn page(State(pages): State<Pages>, UrlPath(page): UrlPath<String>) -> Response {
    match pages.lock().unwrap().get(&page).cloned() {
        Some(html) => Html(html).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes TCP on to the server.
pub struct Proxy {
    /// `http://localhost:PORT`.
    pub base: String,
    counts: Arc<Counts>,
    cut: watch::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    opened: AtomicU64,
}

/// Small, so that what was read from the server is nearly what the browser took.
const SOCKET_BUFFER: u32 = 32 * 1024;

impl Proxy {
    /// `base` is the server's `http://HOST:PORT`, on loopback.
    pub fn start(base: &str) -> Self {
        Self::with(base, None, true)
    }

    /// The same, but WebSockets are refused.
    pub fn without_sockets(base: &str) -> Self {
        Self::with(base, None, false)
    }

    /// The same, with so many bytes a second from the server at most on each connection.
    pub fn slow(base: &str, rate: u32) -> Self {
        Self::with(base, Some(rate), true)
    }

    fn with(base: &str, rate: Option<u32>, sockets: bool) -> Self {
        let target: SocketAddr = ([127, 0, 0, 1], base.rsplit(':').next().unwrap().parse().unwrap()).into();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let base = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let (cut, cuts) = watch::channel(());
        let counts = Arc::new(Counts::default());
        let counting = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut cuts, counts) = (cuts.clone(), counting.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    if !sockets && is_upgrade(&client).await {
                        return refuse(client).await;
                    }
                    tokio::select! {
                        _ = pass(client, target, rate, counts) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { base, counts, cut, task }
    }

    /// Bytes sent to browsers so far.
    pub fn served(&self) -> u64 {
        self.counts.served.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn opened(&self) -> u64 {
        self.counts.opened.load(Ordering::Relaxed)
    }

    /// Drops every connection; new ones are taken.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }
}

/// Whether a connection begins with a request for a WebSocket. Browsers open one of its own for each.
async fn is_upgrade(client: &TcpStream) -> bool {
    let mut head = [0; 8192];
    loop {
        let Ok(read @ 1..) = client.peek(&mut head).await else { return false };
        let text = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
        if text.contains("\r\n\r\n") || read == head.len() {
            return text.contains("upgrade: websocket");
        }
        tokio::task::yield_now().await;
    }
}

async fn refuse(mut client: TcpStream) {
    let _ = client.read(&mut [0; 8192]).await;
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    rate: Option<u32>,
    counts: Arc<Counts>,
) -> std::io::Result<()> {
    counts.opened.fetch_add(1, Ordering::Relaxed);
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    let (mut from_server, mut to_server) = socket.connect(target).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            counts.served.fetch_add(read as u64, Ordering::Relaxed);
            to_client.write_all(&buffer[..read]).await?;
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(read as f64 / f64::from(rate))).await;
            }
        }
    };
    tokio::try_join!(up, down).map(drop)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

/// A hook that writes down what it was told.
pub struct HookLog {
    folder: TempDir,
}

impl HookLog {
    pub fn new() -> Self {
        let hook = Self { folder: tempfile::tempdir().unwrap() };
        let log = hook.log();
        let script = format!(
            "#!/bin/sh\nprintf '%s|%s|%s\\n' \"$1\" \"$2\" \"$ONRECORD_ATTEMPT\" >> '{}'\n",
            log.display()
        );
        std::fs::write(hook.script(), script).unwrap();
        std::fs::set_permissions(hook.script(), PermissionsExt::from_mode(0o755)).unwrap();
        hook
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("hook.sh")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the server is told to run it.
    pub fn setting(&self) -> String {
        format!("hooks.on_record={}", self.script().display())
    }

    /// Every run so far: name, file, attempt.
    pub fn runs(&self) -> Vec<(String, PathBuf, u32)> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let run = |line: &str| {
            let (rest, attempt) = line.rsplit_once('|')?;
            let (name, file) = rest.split_once('|')?;
            Some((name.to_owned(), file.into(), attempt.parse().ok()?))
        };
        log.lines().map(|line| run(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
    }

    /// Waits for so many runs.
    pub async fn ran(&self, times: usize, patience: Duration) -> Vec<(String, PathBuf, u32)> {
        let deadline = Instant::now() + patience;
        loop {
            let runs = self.runs();
            if runs.len() >= times {
                return runs;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {times} hooks within {patience:?}: {runs:?}",
                runs.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
