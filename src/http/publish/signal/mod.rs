//! `/signal`: publishing with feedback, over a WebSocket (`PROTOCOL.md`, "Signalling").
//!
//! One task a socket. It takes messages strictly in order, one at a time, so a candidate that
//! arrives while its offer is being answered waits in the socket, after the offer. Losing the
//! socket ends nothing: a publication ends with its media, or by `stop`.

pub(crate) mod wire;

use crate::auth::Permission;
use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::{Secret, SessionId, StreamName};
use crate::base::metrics::metrics;
use crate::base::quota::ClientKey;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::socket::{End, Socket};
use crate::http::state::State;
use crate::http::upgrade::{Opened, Upgrade};
use crate::ingest::webrtc::{Accepted, Offer};
use crate::publish::PublishError;
use crate::publish::status::Status;
use crate::webrtc::Candidate;
use axum::extract::ws::Message;
use axum::response::Response;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use wire::{Client, Server};

/// The largest message that is read: an offer with every codec and candidate is under 20 KiB.
const MAX_MESSAGE: usize = 256 << 10;
/// A larger one is received up to here, so that the answer is `too_large`; beyond this the
/// connection is cut in mid-message.
const MAX_RECEIVED: usize = 8 << 20;
/// Publications of one socket; one more is `limit_reached`.
const MAX_PUBLICATIONS: usize = 32;
/// Ingest answers in milliseconds; a request that takes this long has failed.
const CALL_TIME: Duration = Duration::from_secs(10);

/// `GET /signal`.
pub async fn open(upgrade: Upgrade) -> Result<Response, ApiError> {
    upgrade.open("signal", MAX_RECEIVED, |opened| Connection::new(opened).run())
}

/// A publication this socket holds.
struct Held {
    session: SessionId,
    resume: Secret,
    /// Distinguishes its watcher from those of earlier offers under the same name.
    watcher: u64,
    /// The status the client knows.
    status: &'static str,
}

/// A status has changed, or its publication is gone without one.
struct Change {
    stream: StreamName,
    watcher: u64,
    status: watch::Receiver<Status>,
    alive: bool,
}

struct Connection {
    socket: Socket,
    state: Arc<State>,
    access: Access,
    client: Option<ClientKey>,
    held: BTreeMap<StreamName, Held>,
    changes: FuturesUnordered<BoxFuture<'static, Change>>,
    watchers: u64,
}

impl Connection {
    fn new(Opened { mut socket, state, access, client }: Opened) -> Self {
        socket.expects("published");
        let (held, changes) = Default::default();
        Self { socket, state, access, client, held, changes, watchers: 0 }
    }

    async fn run(mut self) {
        let Err(end) = self.serve().await;
        if let End::Refused(error) = &end
            && self.error(None, error).await.is_err()
        {
            return;
        }
        self.socket.close(end).await;
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        loop {
            tokio::select! {
                biased;
                Some(change) = self.changes.next() => self.changed(change).await?,
                message = self.socket.next() => self.received(message?).await?,
            }
        }
    }

    async fn received(&mut self, message: Message) -> Result<(), End> {
        let Message::Text(text) = message else {
            return Err(ApiError::bad_request("a message is text, one JSON object").into());
        };
        if text.len() > MAX_MESSAGE {
            metrics().refused("signal message");
            return Err(End::Refused(ApiError::too_large(MAX_MESSAGE)));
        }
        match Client::parse(&text) {
            Err(bad) if bad.fatal => Err(End::Refused(bad.error)),
            Err(bad) => self.refuse(bad.stream.as_deref(), bad.error).await,
            Ok(message) => self.act(message).await,
        }
    }

    async fn act(&mut self, message: Client) -> Result<(), End> {
        let (Client::Publish { stream, .. } | Client::Candidate { stream, .. } | Client::Stop { stream }) =
            &message;
        let given = stream.clone();
        let stream = match self.name(given.as_deref()) {
            Ok(stream) => stream,
            Err(error) => return self.refuse(given.as_deref(), error).await,
        };
        let done = match message {
            Client::Publish { sdp, record, resume, .. } => {
                // A secret needs no other credential: what was begun under a grant may outlive it.
                let proven = resume.as_ref().is_some_and(|resume| !resume.is_empty());
                if !proven && !self.held.contains_key(&stream) {
                    let asked = self.access.asks(Permission::Publish, &stream).await;
                    if let Err(denied) = asked {
                        return self.deny(&stream, denied).await;
                    }
                }
                match self.publish(&stream, sdp, record, resume).await {
                    Ok(accepted) => return self.accepted(stream, accepted).await,
                    Err(error) => Err(error),
                }
            }
            Client::Candidate { candidate, .. } => self.candidate(&stream, candidate).await,
            Client::Stop { .. } => self.stop(&stream).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(Some(stream.as_str()), error).await,
        }
    }

    /// The stream a message is about: the named one, or the only one.
    fn name(&self, given: Option<&str>) -> Result<StreamName, ApiError> {
        if let Some(given) = given {
            return Ok(given.parse()?);
        }
        match self.held.first_key_value() {
            Some((only, _)) if self.held.len() == 1 => Ok(only.clone()),
            _ => Err(ApiError::bad_request(format!(
                "name the stream: this socket has {} publications",
                self.held.len()
            ))),
        }
    }

    async fn publish(
        &mut self,
        stream: &StreamName,
        sdp: String,
        record: bool,
        resume: Option<String>,
    ) -> Result<Accepted, ApiError> {
        let held = self.held.get(stream);
        if held.is_none() && self.held.len() >= MAX_PUBLICATIONS {
            metrics().refused("publications of a socket");
            return Err(PublishError::LimitReached("the publications of one socket").into());
        }
        let session = held.map(|held| held.session.clone());
        let given = resume.filter(|resume| !resume.is_empty()).map(|resume| Secret::from_client(&resume));
        let resume = given.or_else(|| held.map(|held| held.resume.clone()));
        let offer = |session: Option<SessionId>| Offer {
            stream: stream.clone(),
            sdp: sdp.clone(),
            record,
            resume: resume.clone(),
            bearer: None,
            session,
            client: self.client,
        };
        let again = session.is_some();
        match within(self.state.ingest.accept(offer(session))).await {
            // The session ended while its publication waits for the publisher: a new one goes on in it.
            Err(ApiError { code: ErrorCode::SessionNotFound, .. }) if again => {
                within(self.state.ingest.accept(offer(None))).await
            }
            done => done,
        }
    }

    async fn candidate(&mut self, stream: &StreamName, candidate: Candidate) -> Result<(), ApiError> {
        within(self.state.ingest.candidate(&self.holds(stream)?.session, candidate)).await
    }

    async fn stop(&mut self, stream: &StreamName) -> Result<(), ApiError> {
        within(self.state.ingest.stop(&self.holds(stream)?.session, EndReason::Stopped)).await
    }

    fn holds(&self, stream: &StreamName) -> Result<&Held, ApiError> {
        self.held.get(stream).ok_or_else(|| {
            let message = format!("this socket publishes no {stream}: send publish first");
            ApiError::new(ErrorCode::SessionNotFound, message)
        })
    }

    async fn accepted(&mut self, stream: StreamName, mut accepted: Accepted) -> Result<(), End> {
        self.watchers += 1;
        self.socket.mark_used();
        let status = accepted.status.borrow_and_update().clone();
        if self.held.get(&stream).is_none_or(|held| held.status != status.as_str()) {
            self.socket.send_json(&Server::status(&self.state, &stream, &status)).await?;
        }
        if status.is_final() {
            // Resumed after its end: there is nothing left to connect to.
            self.held.remove(&stream);
            return Ok(());
        }
        let (session, resume, watcher) = (accepted.session, accepted.resume, self.watchers);
        let held = Held { session, resume: resume.clone(), watcher, status: status.as_str() };
        self.held.insert(stream.clone(), held);
        self.watch(stream.clone(), self.watchers, accepted.status);
        let state = self.state.clone();
        self.socket
            .send_json(&Server::Answer {
                stream: &stream,
                sdp: &accepted.answer,
                resume: resume.reveal(),
                ice_servers: &state.ingest.ice_servers(),
            })
            .await?;
        for candidate in &accepted.candidates {
            self.socket.send_json(&Server::Candidate { stream: &stream, candidate }).await?;
        }
        Ok(())
    }

    fn watch(&self, stream: StreamName, watcher: u64, mut status: watch::Receiver<Status>) {
        let change = async move {
            let alive = status.changed().await.is_ok();
            Change { stream, watcher, status, alive }
        };
        self.changes.push(change.boxed());
    }

    async fn changed(&mut self, mut change: Change) -> Result<(), End> {
        let Some(held) = self.held.get_mut(&change.stream) else { return Ok(()) };
        if held.watcher != change.watcher {
            return Ok(());
        }
        let status = if change.alive {
            change.status.borrow_and_update().clone()
        } else {
            let error =
                ApiError::internal(format!("publication {} vanished without a status", change.stream));
            Status::Failed { code: error.code, message: error.message }
        };
        held.status = status.as_str();
        self.socket.send_json(&Server::status(&self.state, &change.stream, &status)).await?;
        if status.is_final() {
            self.held.remove(&change.stream);
        } else {
            self.watch(change.stream, change.watcher, change.status);
        }
        Ok(())
    }

    /// The caller may not publish that. A socket without a publication is closed.
    async fn deny(&mut self, stream: &StreamName, denied: ApiError) -> Result<(), End> {
        let end = End::Closed(denied.close_code(), denied.code.as_str());
        self.refuse(Some(stream.as_str()), denied).await?;
        if self.held.is_empty() { Err(end) } else { Ok(()) }
    }

    /// Answers one bad message with an error, the hundredth with the end.
    async fn refuse(&mut self, stream: Option<&str>, error: ApiError) -> Result<(), End> {
        self.error(stream, &error).await?;
        self.socket.count_error()
    }

    async fn error(&mut self, stream: Option<&str>, error: &ApiError) -> Result<(), End> {
        self.socket.send_json(&Server::Error { stream, code: error.code, message: &error.message }).await
    }
}

/// Waits for ingest, but not for ever.
async fn within<T>(call: impl Future<Output = Result<T, PublishError>>) -> Result<T, ApiError> {
    match timeout(CALL_TIME, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::internal("ingest did not answer in time")),
    }
}

#[cfg(test)]
mod tests;
