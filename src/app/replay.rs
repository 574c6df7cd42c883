//! `onrecord hook replay`: by the server that runs, or here and now if none does.

use crate::app::{Error, lock};
use crate::auth::{Auth, Grant};
use crate::base::id::RecordingId;
use crate::base::tasks::Tasks;
use crate::catalog::{HookState, Manifest, RecordingState};
use crate::config::Config;
use crate::hook::{Once, Script, run_once};
use crate::http;
use crate::record::{FolderInUse, Recordings};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::COOKIE;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A server answers when the manifest is written.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A session for one command.
const SESSION: SignedDuration = SignedDuration::from_mins(10);
/// A manifest with ten attempts' output is far smaller.
const ANSWER_MAX: usize = 1 << 20;

/// Runs the hooks of recordings again; returns whether all went well. If a server works in the folder it
/// is asked to, and that it will is well. Else they run here, one after the other, once each, with their
/// output on the standard output, and no server can start in the folder meanwhile.
pub async fn replay(config: &Config, ids: &[String]) -> Result<bool, Error> {
    match lock(&config.record.dir).await {
        Err(Error::Held(held)) => Ok(ask(config, &held, ids).await),
        Err(error) => Err(error),
        Ok(_lock) => here(config, ids).await,
    }
}

/// One line for a recording, to the standard error if it went wrong.
fn say(id: &str, result: Result<impl Display, impl Display>) -> bool {
    // Standard output or error may be closed; the exit code tells the rest.
    match result {
        Ok(what) => {
            let _ = writeln!(io::stdout(), "{id}: {what}");
            true
        }
        Err(why) => {
            let _ = writeln!(io::stderr(), "{id}: {why}");
            false
        }
    }
}

async fn ask(config: &Config, held: &FolderInUse, ids: &[String]) -> bool {
    let server = match Running::of(config, held) {
        Ok(server) => server,
        Err(why) => return ids.iter().fold(true, |_, id| say(id, Err::<&str, _>(&why))),
    };
    let mut all = true;
    for id in ids {
        let result = match server.replay(id).await {
            Ok(answer) => answer.map(|()| format!("queued: the server at {} runs its hook", server.url)),
            Err(error) => {
                Err(format!("the server at {}, which uses record.dir, can't be asked: {error}", server.url))
            }
        };
        all &= say(id, result);
    }
    all
}

/// The server that works in the folder.
struct Running {
    url: String,
    client: Client,
    /// A session with every permission; empty where the server asks for none.
    session: String,
}

impl Running {
    fn of(config: &Config, held: &FolderInUse) -> Result<Self, String> {
        // Another replay, or a server that is only starting. What listens on `server.bind` then may be any program.
        let http = held.http.ok_or_else(|| held.to_string())?;
        let scheme = if held.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", reachable(http), held.base);
        // The address is from the lock of a folder of this machine, and is this machine's; a certificate is
        // for the name by which others reach it, so here it says nothing.
        let client = Client::builder()
            .timeout(ANSWER_LIMIT)
            .no_proxy()
            .redirect(Policy::none())
            .tls_danger_accept_invalid_certs(held.tls)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { url, client, session: session(config)? })
    }

    /// Asks for one; the inner error is the server's own.
    async fn replay(&self, id: &str) -> Result<Result<(), String>, String> {
        if id.parse::<RecordingId>().is_err() {
            return Ok(Err(unknown(id)));
        }
        let mut request = self.client.post(format!("{}/api/recordings/{id}/hook", self.url));
        if !self.session.is_empty() {
            request = request.header(COOKIE, http::gate::credential::cookies(&self.session));
        }
        let mut response = request.send().await.map_err(whole)?;
        let (accepted, unknown_there) =
            (response.status().is_success(), response.status() == StatusCode::UNAUTHORIZED);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(whole)? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_MAX {
                return Err(format!("it answers more than {} KiB", ANSWER_MAX >> 10));
            }
        }
        if accepted {
            return Ok(Ok(()));
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let message = answer["message"].as_str().unwrap_or("refused without a word");
        // What the server vouches for ends with each change of its tokens: this command has others.
        let hint =
            if unknown_there { ". Give this command the configuration that the server has" } else { "" };
        Ok(Err(format!("{message}{hint}")))
    }
}

/// A user who can read the server's key owns the recordings anyway, and may run their hooks: signs a session
/// with the key and under the settings that the server has.
fn session(config: &Config) -> Result<String, String> {
    let auth = Auth::open(config.auth.clone(), &config.record.dir).map_err(|problems| problems.join("; "))?;
    if !auth.asks() {
        return Ok(String::new());
    }
    let until = Timestamp::now() + SESSION;
    Ok(auth.seal_session(&Grant::everything("onrecord hook replay"), until))
}

/// An error with what caused it.
fn whole(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Where a server that listens on this address is reached from its own machine.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn unknown(id: &str) -> String {
    format!("there is no recording {id}: see /api/recordings or the manifests in record.dir")
}

async fn here(config: &Config, ids: &[String]) -> Result<bool, Error> {
    let dir = config.record.dir.clone();
    let script = config.hook_script.clone();
    let (recordings, _events) = Recordings::open(config.record.clone(), script.is_some(), Tasks::new())
        .map_err(|error| Error::Records(dir, error))?;
    let halt = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        halt.cancel();
        std::future::pending().await
    };
    let work = async {
        let mut all = true;
        for id in ids {
            let result = match runnable(&recordings, script.as_ref(), id) {
                Ok((manifest, script)) => run(config, &recordings, &manifest, script, &halt).await,
                Err(why) => Err(why),
            };
            all &= say(id, result);
            if halt.is_cancelled() {
                return false;
            }
        }
        all
    };
    tokio::select! {
        all = work => Ok(all),
        never = stop => never,
    }
}

/// What is run, or why it can't be.
fn runnable(
    recordings: &Recordings,
    script: Option<&PathBuf>,
    id: &str,
) -> Result<(Manifest, PathBuf), String> {
    let found = id.parse().ok().and_then(|id: RecordingId| recordings.get(&id));
    let manifest = found.ok_or_else(|| unknown(id))?;
    let script = script.ok_or("no hook is configured: set hooks.on_record")?;
    match manifest.state {
        RecordingState::Sealed if manifest.file_present => Ok((manifest, script.clone())),
        RecordingState::Sealed => Err("its file was moved away, most likely by the hook".to_owned()),
        RecordingState::Recording | RecordingState::Sealing => {
            Err("it is not sealed: the next start of the server repairs it and runs its hook".to_owned())
        }
        RecordingState::Quarantined => Err("it could not be repaired and is in quarantine".to_owned()),
        RecordingState::Deleted => Err("it was deleted".to_owned()),
    }
}

async fn run(
    config: &Config,
    recordings: &Recordings,
    manifest: &Manifest,
    script: PathBuf,
    halt: &CancellationToken,
) -> Result<String, String> {
    let (script, catalog, folder) = (Script::new(script), recordings.catalog(), recordings.folder());
    let once = run_once(&config.hooks, script, catalog, &folder, manifest, halt).await;
    let last = recordings.get(&manifest.id).and_then(|manifest| manifest.hook.attempts.last().cloned());
    let how = last.map_or_else(String::new, |last| match (last.error, last.exit) {
        (Some(error), _) => format!(": {error}"),
        (None, Some(code)) => format!(": exit code {code}"),
        (None, None) => String::new(),
    });
    match once {
        Once::NotBegun if halt.is_cancelled() => Err("interrupted before the hook was started".to_owned()),
        Once::NotBegun => {
            Err("processes of an earlier attempt can't be ended: end them, then try again".to_owned())
        }
        Once::NotNoted => {
            Err("the hook has run, but its manifest can't be written: it runs again when the server starts"
                .to_owned())
        }
        Once::Ran(HookState::Done) => Ok("the hook has run".to_owned()),
        Once::Ran(HookState::Queued) => Err(format!("the hook was interrupted{how}")),
        Once::Ran(_) => Err(format!("the hook failed{how}")),
    }
}
