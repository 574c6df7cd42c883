//! A WebSocket with deadlines: what `/signal`, `/chunks` and `/live` have in common.

use crate::http::error::ApiError;
use crate::http::listen::accept::ReassemblyBudget;
use crate::http::state::Sockets;
use axum::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

/// A peer that doesn't read for this long is dropped; until then nothing piles up, since nothing is
/// sent to it before the last message is through.
const SEND_TIME: Duration = Duration::from_secs(10);
/// How long a closing handshake may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// What comes before a client's control frame (RFC 6455 section 5.2).
const CONTROL_HEAD: usize = 6;

/// Whether a request means to become a WebSocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Why a socket ends.
#[derive(Debug)]
pub(super) enum End {
    /// The peer is gone, or doesn't read.
    Gone,
    /// In order, with this code and reason.
    Closed(u16, &'static str),
    /// The peer did what can't be passed over, and is told.
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
    unfinished: ReassemblyBudget,
}

impl Socket {
    pub fn new(
        socket: WebSocket,
        sockets: &Sockets,
        Extension(unfinished): Extension<ReassemblyBudget>,
    ) -> Self {
        unfinished.count();
        let timing = sockets.timing;
        let mut ping = interval_at(Instant::now() + timing.ping, timing.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = sockets.tasks.stop_token();
        Self { socket, stop, ping, silence: timing.silence, heard: Instant::now(), unfinished }
    }

    /// The peer's next message, text or bytes. Pings the peer meanwhile, and ends if it is silent for
    /// too long or the server stops. May be dropped and called again: nothing is lost by it.
    pub async fn next(&mut self) -> Result<Message, End> {
        loop {
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
                        Message::Ping(said) | Message::Pong(said) => {
                            self.unfinished.aside(CONTROL_HEAD + said.len());
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
            }
        }
    }

    /// The peer was not listened to until now: its silence begins here.
    pub fn listens_again(&mut self) {
        self.heard = Instant::now();
    }

    /// Sends a message; the peer has so long to make room for it.
    pub async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Sends one JSON object as text.
    pub async fn tell(&mut self, message: &impl Serialize) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|why| End::Refused(ApiError::internal(why)))?;
        self.send(Message::Text(text.into())).await
    }

    /// Closes as `end` says. What a refused peer should know beside the code was told before.
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
