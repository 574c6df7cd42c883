//! WebSockets with deadlines: what `/signal`, `/chunks` and `/live` have in common.

use crate::base::metrics::{Scrape, metrics};
use crate::base::quota::{ClientKey, Limit, Permit, Quota};
use crate::base::tasks::Tasks;
use crate::http::error::ApiError;
use crate::http::listen::accept::ReassemblyBudget;
use crate::publish::Limits;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A peer that doesn't read for this long is dropped; until then nothing piles up, since nothing is
/// sent to it before the last message is through.
const SEND_TIME: Duration = Duration::from_secs(10);
/// How long a closing handshake may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Errors after which a socket is closed: a browser whose publication ends while it still sends
/// candidates causes a dozen, a broken loop thousands.
pub(super) const MAX_ERRORS: u32 = 100;

/// What comes before a client's control frame (RFC 6455 section 5.2).
const CONTROL_HEAD: usize = 6;

/// The deadlines of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A client that hasn't published or registered anything by then is closed.
    pub first_publish: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// After this long without a message or a pong a socket is dead: three pings, and more than a
    /// page in the background needs.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_publish: Duration::from_secs(30),
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(45),
        }
    }
}

/// The open WebSockets: counted, owned, and closed by [`crate::http::serve`].
pub struct Sockets {
    /// Owns their tasks.
    pub tasks: Tasks,
    /// Their deadlines.
    pub timing: Timing,
    quota: Quota,
}

impl Sockets {
    /// None yet.
    pub fn new(timing: Timing, limits: &Limits) -> Self {
        let all = Limit("limits.max_sockets", limits.max_sockets);
        let each = Limit("limits.max_sockets_per_address", limits.max_sockets_per_address);
        Self { tasks: Tasks::new(), timing, quota: Quota::new(all, each) }
    }

    /// What there is at present.
    pub(in crate::http) fn gauges(&self, scrape: &mut Scrape) {
        scrape.gauge("websockets", "WebSockets that are open", self.quota.taken() as u64);
    }

    /// A permit for one more socket; a client over its bound is refused before its upgrade.
    pub fn enter(&self, client: Option<ClientKey>) -> Result<Permit, ApiError> {
        Ok(self.quota.enter(client)?)
    }
}

/// Why a socket ends.
#[derive(Debug)]
pub(super) enum End {
    /// The peer is gone, or doesn't read.
    Gone,
    /// In order, with this code and reason.
    Closed(u16, &'static str),
    /// The peer did what can't be passed over, and is sent the error.
    Refused(ApiError),
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// An open socket.
pub(super) struct Socket {
    socket: WebSocket,
    stop: CancellationToken,
    ping: Interval,
    silence: Duration,
    heard: Instant,
    /// What must happen by when, and how long it had.
    first: Option<(&'static str, Instant, Duration)>,
    first_publish: Duration,
    errors: u32,
    unfinished: ReassemblyBudget,
}

impl Socket {
    pub fn new(socket: WebSocket, sockets: &Sockets, unfinished: ReassemblyBudget) -> Self {
        unfinished.count();
        let timing = sockets.timing;
        let mut ping = interval_at(Instant::now() + timing.ping, timing.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = sockets.tasks.stop_token();
        let Timing { first_publish, silence, .. } = timing;
        let (heard, first, errors) = (Instant::now(), None, 0);
        Self { socket, stop, ping, silence, heard, first, first_publish, errors, unfinished }
    }

    /// Ends it if nothing is "published", or "registered", in time, which [`Self::mark_used`] notes.
    pub fn expects(&mut self, what: &'static str) {
        self.first = Some((what, Instant::now() + self.first_publish, self.first_publish));
    }

    /// What was expected has happened.
    pub fn mark_used(&mut self) {
        self.first = None;
    }

    /// The peer caused an error: the hundredth is the end.
    pub fn count_error(&mut self) -> Result<(), End> {
        self.errors += 1;
        if self.errors < MAX_ERRORS {
            return Ok(());
        }
        metrics().refused("errors of a socket");
        Err(ApiError::bad_request("this socket has caused too many errors").into())
    }

    /// The peer's next message, text or bytes. Pings the peer meanwhile, and ends if it is silent for
    /// too long or the server stops. May be dropped and called again: nothing is lost by it.
    pub async fn next(&mut self) -> Result<Message, End> {
        loop {
            let (what, by, limit) = self.first.unwrap_or(("", self.heard, Duration::ZERO));
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    return Err(End::Closed(close_code::AWAY, "the server is stopping"));
                }
                message = self.socket.recv() => {
                    let Some(Ok(message)) = message else { return Err(End::Gone) };
                    self.heard = Instant::now();
                    match message {
                        Message::Text(_) | Message::Binary(_) => {
                            self.unfinished.taken();
                            return Ok(message);
                        }
                        // Pings are answered by the library.
                        Message::Ping(payload) | Message::Pong(payload) => {
                            self.unfinished.aside(CONTROL_HEAD + payload.len());
                        }
                        // After a closing handshake nothing comes.
                        Message::Close(_) => {}
                    }
                }
                _ = self.ping.tick() => {
                    if self.heard.elapsed() > self.silence {
                        return Err(End::Gone);
                    }
                    self.send(Message::Ping(Bytes::new())).await?;
                }
                () = sleep_until(by), if self.first.is_some() => {
                    return Err(ApiError::bad_request(format!("nothing was {what} within {limit:?}")).into());
                }
            }
        }
    }

    /// The peer was not listened to until now: its silence begins here.
    pub fn listens_again(&mut self) {
        self.heard = Instant::now();
    }

    /// Sends a message; the peer has so long to take it.
    pub async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Sends one JSON object as text.
    pub async fn send_json(&mut self, message: &impl Serialize) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|why| End::Refused(ApiError::internal(why)))?;
        self.send(Message::Text(text.into())).await
    }

    /// Closes with the code of `end`. What a refused peer should know beside it was sent before.
    pub async fn close(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => return,
            End::Closed(code, reason) => (code, reason),
            End::Refused(error) => (error.close_code(), error.code.as_str()),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if self.send(close).await.is_ok() {
            // Closing with unread data would reset the connection, and the peer might never see why.
            let drained = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            let _ = timeout(CLOSE_TIME, drained).await;
        }
    }
}
