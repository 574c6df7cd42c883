//! Builds and runs the server: every step of start and stop, in one place and in the right
//! order, with the reasons.
//!
//! Start: the folder's lock → recordings → hooks (with what the last run left) → repair of unfinished recordings → media →
//! HTTP → ready. Each step may rely on those before it, and no request is served before all are there. Only
//! the repair goes on beside the rest, since many gigabytes take their time; its files are known before
//! the first new one is created. So do the hooks: what the last server's left running is ended first.
//!
//! Stop: not ready → publishers end → recorders seal → hooks drain → HTTP ends. A client that
//! waits for a recording's fate on a socket still hears of it; what does not end in `server.shutdown_grace`
//! stays in the manifests.

mod check;
mod open_files;
mod repair;
mod replay;
mod retention;
mod token;

pub use check::check;
pub use repair::repair;
pub use replay::replay;
pub use retention::retention;
pub use token::{NewArgs, SignArgs, new_token, sign_token};

use crate::auth::{self, Auth};
use crate::base::critical_task::CriticalTasks;
use crate::base::heartbeat::{self, Heartbeat};
use crate::base::tasks::Tasks;
use crate::catalog::RecordingError;
use crate::config::Config;
use crate::hook::{Hooks, ReplayError, Script};
use crate::http::api::feed::Feed;
use crate::http::gate::forwarded::Site;
use crate::http::gate::same_origin::Guard;
use crate::http::listen::tls::Tls;
use crate::http::pages::assets::Assets;
use crate::http::socket::{Sockets, Timing};
use crate::http::state::{Diagnostics, Replay, State, connections};
use crate::http::watch::limits::ViewerLimits;
use crate::http::{self, Listeners};
use crate::ingest::chunks::Chunks;
use crate::ingest::mjpeg::Mjpeg;
use crate::ingest::webrtc::WebRtc;
use crate::publish::registry::Publications;
use crate::record::{Event, FolderInUse, FolderLock, LockError, Recordings};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long tasks that have nothing left to do may take to notice.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// HTTP gives its own connections 5 s.
const HTTP_END: Duration = Duration::from_secs(10);
/// How long work on files may go on that nothing waits for any more: all recordings are sealed by then.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// The same at an end at once: long enough for tasks to be dropped, which takes milliseconds.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Where `--dev` reads the pages, below the working directory.
const PAGES: &str = "www";

/// Why the server can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP address.
    #[error("can't listen on {1} ({0}): {2}")]
    Bind(&'static str, String, #[source] io::Error),
    /// The certificate.
    #[error("{0}")]
    Tls(String),
    /// The media socket.
    #[error("can't open the media socket {0} (webrtc.udp_bind, webrtc.advertise): {1}")]
    Media(String, #[source] io::Error),
    /// The recordings' folder.
    #[error("can't use {0} (record.dir): {1}")]
    Records(PathBuf, #[source] RecordingError),
    /// Another process uses the recordings' folder.
    #[error(transparent)]
    Held(#[from] FolderInUse),
    /// A task ended that must not, before the server was told to stop.
    #[error("{0} ended by itself, which is a fault of onrecord: the log says why; the recordings are sealed")]
    Broken(&'static str),
    /// What the guard can't use.
    #[error("{}", .0.join("; "))]
    Guard(Vec<String>),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Prints the OpenAPI document.
pub fn openapi() -> io::Result<()> {
    let document = serde_json::to_string_pretty(&http::api::openapi::document())?;
    writeln!(io::stdout(), "{document}")
}

/// Runs the server until it is told to stop (SIGTERM, SIGINT); a second signal ends it at once.
pub fn serve(config: Config, dev: bool) -> Result<(), Error> {
    let runtime = Runtime::new()?;
    let ended = runtime.block_on(run(config, dev));
    leave(runtime, matches!(ended, Ok(Ended::InOrder) | Err(Error::Broken(_))));
    ended.map(drop)
}

/// Runs what ends by itself.
pub fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = Runtime::new()?;
    let done = runtime.block_on(work);
    leave(runtime, done.is_ok());
    done
}

/// Leaves a runtime. Tasks are dropped, and hooks with them. Work on files that still goes on has
/// [`LAST_WRITES`] after an end in order, and [`AT_ONCE`] after any other: a long repair or a disk that hangs must keep back neither an end "at once" nor the reason of a start that
/// failed. What is cut off there is what a crash cuts off, and the next start goes on with it.
fn leave(runtime: Runtime, in_order: bool) {
    runtime.shutdown_timeout(if in_order { LAST_WRITES } else { AT_ONCE });
}

/// How the server ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    InOrder,
    /// A second signal came.
    AtOnce,
}

async fn run(config: Config, dev: bool) -> Result<Ended, Error> {
    let server = Server::start(config, dev).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut broken = None;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
        part = server.critical.ended() => {
            error!(part, "a part ended that must not: stopping, for who supervises the server to start it again");
            broken = Some(part);
        }
    }
    tokio::select! {
        () = server.stop() => {
            info!("stopped");
            return broken.map_or(Ok(Ended::InOrder), |part| Err(Error::Broken(part)));
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    warn!("a second signal: stopped at once");
    Ok(Ended::AtOnce)
}

async fn lock(dir: &Path) -> Result<FolderLock, Error> {
    FolderLock::take(dir).await.map_err(|error| match error {
        LockError::InUse(held) => held.into(),
        LockError::Io(error) => Error::Records(dir.to_owned(), error.into()),
    })
}

/// What the operator is shown, from all over the server.
fn diagnostics(
    webrtc: &WebRtc,
    publications: &Publications,
    recordings: &Recordings,
    hooks: Option<&Hooks>,
    tasks: &Tasks,
) -> Diagnostics {
    let runtime = Heartbeat::new("runtime");
    tasks.spawn("runtime probe", heartbeat::probe(runtime.clone(), tasks.stop_token()));
    let mut diagnostics = Diagnostics {
        heartbeats: webrtc.peers().heartbeats().iter().cloned().chain([runtime]).collect(),
        ..Diagnostics::default()
    };
    let (publications, recordings, peers) =
        (publications.clone(), recordings.clone(), webrtc.peers().clone());
    diagnostics.owners.push(Box::new(move |scrape| peers.gauges(scrape)));
    diagnostics.owners.push(Box::new(move |scrape| publications.gauges(scrape)));
    diagnostics.owners.push(Box::new(move |scrape| recordings.gauges(scrape)));
    if let Some(hooks) = hooks.cloned() {
        let full = hooks.clone();
        diagnostics.hooks_full = Some(Box::new(move || full.is_full()));
        diagnostics.owners.push(Box::new(move |scrape| hooks.gauges(scrape)));
    }
    diagnostics
}

fn start_hooks(
    config: &Config,
    script: PathBuf,
    recordings: &Recordings,
    sealed: mpsc::Receiver<Event>,
    tasks: &Tasks,
    critical: &CriticalTasks,
) -> Hooks {
    let (script, catalog, folder) = (Script::new(script), recordings.catalog(), recordings.folder());
    Hooks::start(&config.hooks, script, catalog, folder, sealed, tasks, critical)
}

/// What the routes call to run a hook again.
fn replay_by(hooks: Option<Hooks>) -> Replay {
    Arc::new(move |id| {
        let hooks = hooks.clone();
        Box::pin(async move { hooks.ok_or(ReplayError::NoHook)?.replay(&id).await })
    })
}

async fn listen(config: &Config, tls: Option<Tls>) -> Result<Listeners, Error> {
    let bind = async |key, address: String| {
        TcpListener::bind(&address).await.map_err(|error| Error::Bind(key, address, error))
    };
    let main = bind("server.bind", config.server.bind.to_string()).await?;
    let redirect = match config.server.tls.redirect_bind.as_str() {
        "" => None,
        address => Some(bind("server.tls.redirect_bind", address.to_owned()).await?),
    };
    Ok(Listeners { main, tls, redirect })
}

/// Says in the log and on the standard output that the server is there, where, and for whom.
fn announce(config: &Config, bound: SocketAddr, webrtc: &WebRtc) {
    info!(http = %bound, media = %webrtc.peers().local_addr(), candidates = ?webrtc.peers().candidates(), "listening");
    if config.auth.mode == auth::Mode::Open {
        warn!("auth.mode is open: everybody who reaches this server may publish, watch and delete");
    }
    let abroad = !config.server.public_url.is_empty() || !config.server.trusted_proxies.is_empty();
    if config.auth.mode == auth::Mode::Off && !config.auth.asks() && abroad {
        warn!(
            "auth.mode is off: only this machine is served, and whoever comes by a proxy should not be; but a \
             proxy that says nothing of itself can't be told from this machine: set auth.tokens before one \
             stands in front"
        );
    }
    // The banner is for people; a closed standard output is no reason to stop.
    let _ = io::stdout().write_all(config.banner(bound).as_bytes()).and_then(|()| io::stdout().flush());
}

/// The running server.
struct Server {
    grace: Duration,
    critical: CriticalTasks,
    ready: Arc<AtomicBool>,
    webrtc: WebRtc,
    recordings: Recordings,
    /// Held to the end.
    _lock: FolderLock,
    hooks: Option<Hooks>,
    /// Tasks that end with what they read, in this order: publications, hooks, sockets.
    ingest: Tasks,
    hook_tasks: Tasks,
    http_tasks: Tasks,
    http_stop: CancellationToken,
}

impl Server {
    /// All steps in one function, since their order is what counts.
    async fn start(config: Config, dev: bool) -> Result<Self, Error> {
        let limits = open_files::make_room(config.limits.clone());
        let (ingest, hook_tasks, http_tasks) = (Tasks::new(), Tasks::new(), Tasks::new());
        let critical = CriticalTasks::default();
        let dir = config.record.dir.clone();
        let mut lock = lock(&dir).await?;
        let tls = Tls::open(&config.server, &dir).map_err(Error::Tls)?;
        let hook = config.hook_script.clone();
        let (recordings, events) = Recordings::open(config.record.clone(), hook.is_some(), ingest.clone())
            .map_err(|error| Error::Records(dir, error))?;
        let start = |script| start_hooks(&config, script, &recordings, events, &hook_tasks, &critical);
        let hooks = hook.map(start);

        let grace = config.record.reconnect_grace;
        let publications = Publications::new(recordings.clone(), ingest.clone(), grace, &limits);
        let sockets = Sockets::new(Timing::default(), &limits);
        // Before the first change: what is repaired is told too.
        let feed = Feed::start(publications.changes(), recordings.changes(), &sockets.tasks);
        recordings.recover();
        recordings.keep_to(config.retention.clone());
        let mjpeg = Mjpeg::new(config.mjpeg.clone(), publications.clone(), ingest.clone());
        let chunks = Chunks::new(publications.clone(), ingest.clone(), config.chunks.clone());
        let (settings, engine) = (config.webrtc.clone(), critical.part("the media engine"));
        let webrtc = WebRtc::start(settings, config.is_local(), publications.clone(), engine)
            .map_err(|error| Error::Media(config.webrtc.udp_bind.clone(), error))?;

        let listeners = listen(&config, tls).await?;
        let bound = listeners.main.local_addr()?;
        lock.serves(bound, listeners.tls.is_some(), config.server.base());
        let (ready, http_stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let diagnostics = diagnostics(&webrtc, &publications, &recordings, hooks.as_ref(), &http_tasks);
        let state = State {
            ingest: Arc::new(webrtc.clone()),
            chunks,
            recordings: Arc::new(recordings.clone()),
            mjpeg,
            site: Site::new(&config.server),
            guard: Guard::new(&config.server, &config.auth).map_err(Error::Guard)?,
            auth: Auth::open(config.auth.clone(), &config.record.dir).map_err(Error::Guard)?,
            replay: replay_by(hooks.clone()),
            assets: if dev { Assets::Dev(PAGES.into()) } else { Assets::Embedded },
            ready: ready.clone(),
            connections: connections(&limits),
            requests: connections(&limits),
            sockets,
            viewers: ViewerLimits::new(&limits, config.live.cache),
            diagnostics,
            feed,
        };
        let (stop, alive) = (http_stop.clone(), critical.part("HTTP"));
        http_tasks.spawn("http", async move {
            let _alive = alive;
            if let Err(error) = http::serve(listeners, Arc::new(state), stop).await {
                error!(%error, "HTTP ended");
            }
        });

        ready.store(true, Ordering::Release);
        announce(&config, bound, &webrtc);
        Ok(Self {
            grace: config.server.shutdown_grace,
            critical,
            ready,
            webrtc,
            recordings,
            _lock: lock,
            hooks,
            ingest,
            hook_tasks,
            http_tasks,
            http_stop,
        })
    }

    async fn stop(self) {
        self.ready.store(false, Ordering::Release);
        self.webrtc.stop_all().await;
        if tokio::time::timeout(self.grace, self.recordings.drained()).await.is_err() {
            error!("recordings are not sealed in server.shutdown_grace: the next start repairs them");
        }
        if let Some(hooks) = &self.hooks {
            hooks.drain(self.grace).await;
        }
        self.ingest.stop(STOP_LIMIT).await;
        self.hook_tasks.stop(STOP_LIMIT).await;
        self.http_stop.cancel();
        self.http_tasks.stop(HTTP_END).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    #[test]
    fn work_on_files_that_hangs_keeps_nobody_who_leaves_at_once() {
        let runtime = Runtime::new().unwrap();
        let (hold, hangs) = channel::<()>();
        let (runs, began) = channel();
        runtime.spawn_blocking(move || {
            runs.send(()).unwrap();
            hangs.recv()
        });
        began.recv().unwrap();
        let (left, leaves) = channel();
        std::thread::spawn(move || {
            leave(runtime, false);
            left.send(())
        });
        assert!(leaves.recv_timeout(Duration::from_secs(60)).is_ok(), "it waits for what hangs");
        drop(hold);
    }

    #[test]
    fn a_sync_under_way_is_finished_at_an_end_in_order() {
        let runtime = Runtime::new().unwrap();
        let (runs, began) = channel();
        let (done, synced) = channel();
        runtime.spawn_blocking(move || {
            runs.send(()).unwrap();
            // A slow disk.
            std::thread::sleep(Duration::from_millis(300));
            done.send(Instant::now()).unwrap();
        });
        began.recv().unwrap();
        leave(runtime, true);
        assert!(synced.try_recv().is_ok(), "left before the disk was done");
    }
}
