//! `onrecord hook replay`: by the server that runs, or here and now if none does.

use crate::app::hooks::{self, Notes};
use crate::app::{Error, lock};
use crate::base::id::RecordingId;
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::hook::{self, Job, Script, State};
use crate::record::{Held, HookState, Manifest, RecordingState, Recordings};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A server answers when the manifest is written.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A manifest with ten attempts' output is far smaller.
const ANSWER_MAX: usize = 1 << 20;
/// Updates of one attempt; more than there are.
const UPDATES: usize = 8;
/// How long the last word may take into the manifest.
const FAREWELL: Duration = Duration::from_secs(10);

/// Runs the hooks of recordings again; returns whether all went well. If a server works in the folder it
/// is asked to, and that it will is well. Else they run here, one after the other, once each, with their
/// output on the standard output, and no server can start in the folder meanwhile.
pub async fn replay(config: &Config, ids: &[String]) -> Result<bool, Error> {
    match lock(&config.record.dir).await {
        Err(Error::Held(held)) => Ok(ask(&held, ids).await),
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

async fn ask(held: &Held, ids: &[String]) -> bool {
    // Another replay, or a server that is only starting. What listens on `server.bind` then may be anybody.
    let Some(http) = held.http else {
        return ids.iter().fold(true, |_, id| say(id, Err::<&str, _>(held)));
    };
    let address = reachable(http);
    let mut all = true;
    for id in ids {
        let answer = timeout(ANSWER_LIMIT, post(address, id)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}")));
        let result = match answer {
            Ok(answer) => answer.map(|()| format!("queued: the server at {address} runs its hook")),
            Err(error) => {
                Err(format!("the server at {address}, which uses record.dir, can't be asked: {error}"))
            }
        };
        all &= say(id, result);
    }
    all
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

/// Asks for one; the inner error is the server's own word.
async fn post(address: SocketAddr, id: &str) -> Result<Result<(), String>, String> {
    if id.parse::<RecordingId>().is_err() {
        return Ok(Err(unknown(id)));
    }
    let problem = |error: &dyn Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| problem(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| problem(&error))?;
    let request = hyper::Request::post(format!("/api/recordings/{id}/hook"))
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<&[u8]>::new())
        .map_err(|error| problem(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| problem(&error))?;
        let accepted = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| problem(&error))?.to_bytes();
        if accepted {
            return Ok(Ok(()));
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).map_err(|error| problem(&error))?;
        Ok(Err(answer["message"].as_str().unwrap_or("refused without a word").to_owned()))
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        // The connection only carries the exchange; should it end first, the exchange says why.
        Err(error) = connection => Err(error.to_string()),
    }
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
        RecordingState::Recording => {
            Err("it is not sealed: the next start of the server repairs it and runs its hook".to_owned())
        }
        RecordingState::Quarantined => Err("it could not be repaired and is in quarantine".to_owned()),
        RecordingState::Deleted => Err("it was deleted".to_owned()),
    }
}

/// One attempt, with its place in the manifest.
async fn run(
    config: &Config,
    recordings: &Recordings,
    manifest: &Manifest,
    script: PathBuf,
    halt: &CancellationToken,
) -> Result<String, String> {
    let unfinished = hooks::unfinished(manifest, &hooks::census().await);
    let job = Job { unfinished, ..hooks::job(recordings, manifest) };
    let (updates, noted) = mpsc::channel(UPDATES);
    let tasks = Tasks::new();
    tasks.spawn("hook notes", Notes::new(recordings).keep(noted));
    let state = hook::run_once(&config.hooks, Script::new(script), job, updates, halt).await;
    let written = tasks.drain(FAREWELL).await;
    let now = recordings.get(&manifest.id).map(|manifest| manifest.hook);
    let saved = written && now.as_ref().is_some_and(|hook| hook.state != HookState::Running);
    let last = now.and_then(|hook| hook.attempts.last().cloned());
    let how = last.map_or_else(String::new, |last| match (last.error, last.exit) {
        (Some(error), _) => format!(": {error}"),
        (None, Some(code)) => format!(": exit code {code}"),
        (None, None) => String::new(),
    });
    match state {
        None if halt.is_cancelled() => Err("interrupted before the hook was started".to_owned()),
        None => Err("processes of an earlier attempt can't be ended: end them, then try again".to_owned()),
        Some(_) if !saved => {
            Err("the hook has run, but its manifest can't be written: it runs again when the server starts"
                .to_owned())
        }
        Some(State::Done) => Ok("the hook has run".to_owned()),
        Some(State::Queued) => Err(format!("the hook was interrupted{how}")),
        Some(_) => Err(format!("the hook failed{how}")),
    }
}
