//! One peer connection, sans-IO: datagrams and time in, frames and datagrams out.
//!
//! Nothing in here touches a socket, a task or a clock, so an hour of lossy network is tested in a
//! second. The engine owns the session and drives it.

mod negotiation;
mod packets;
mod watch;

use negotiation::Restarts;
use watch::Watch;

use crate::media::{self, GapReason, Kind, Track};
use crate::rtp::{self, Pipeline};
use crate::webrtc::dtls::Repeats;
use crate::webrtc::offer::{Credentials, Plan, Refused};
use crate::webrtc::paths::{Inbound, Paths};
use crate::webrtc::receive::Arrived;
use crate::webrtc::route;
use crate::webrtc::sources::{Sections, Seen};
use crate::webrtc::{Candidate, peer};
use bytes::BytesMut;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use webrtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionEvent, RTCPeerConnectionState};

/// A peer that has not finished ICE and DTLS by then never will (D2).
const HANDSHAKE: Duration = Duration::from_secs(15);
/// A peer not heard of for 10 s is gone: browsers check their path every 2.5 s at the latest (D2). The
/// little that is left of them is for sealing the file.
const VANISHED: Duration = Duration::from_millis(9_950);

/// After a publisher's word to stop, media that was sent before it may still be on its way: the
/// word takes another road. The session ends once no more has come out for this long,
const LINGER: Duration = Duration::from_millis(300);
/// and at this time after the word whatever still comes; so long packets may be waited for that were asked
/// for again, since behind a hole nothing comes out.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Addresses offered to the peer, best first.
    pub candidates: Vec<SocketAddr>,
    /// Bounds of the way from packets to frames.
    pub pipeline: rtp::Config,
    /// Time 0 of the frames.
    pub origin: Instant,
    /// A connected peer without media for this long is ended.
    pub idle_timeout: Duration,
    /// What a browser's video is to begin with, bit/s; 0 leaves it to the browser.
    pub start_bitrate: u64,
}

/// What goes back to the client.
#[derive(Clone, Debug)]
pub struct Answer {
    /// SDP.
    pub sdp: String,
    /// The server's candidates, which are in the SDP too.
    pub candidates: Vec<Candidate>,
    /// Changes with every ICE generation.
    pub etag: String,
}

/// What a session tells its owner.
#[derive(Debug)]
pub enum Event {
    /// ICE and DTLS are up.
    Connected,
    /// This address has been proven to be the peer's (D4): route its packets here.
    Proven(SocketAddr),
    /// The peer's media comes from this source (SSRC).
    Source(u32),
    /// Media.
    Media(media::Event),
    /// A track brings nothing, or nothing that can be decoded; `None` once it does again.
    Trouble(usize, Option<GapReason>),
    /// The session is over.
    Gone(Gone),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The handshake took too long.
    NeverConnected,
    /// Nothing authentic came any more.
    Vanished,
    /// The peer closed the connection.
    Closed,
    /// It has shown another certificate than its offer names.
    Impostor,
    /// Connected, but without media for `webrtc.idle_timeout`.
    Idle,
    /// As [`Session::stop`] said, with what was still on its way.
    Stopped,
    /// A step of it panicked, as its owner noticed.
    Broken,
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Transmit {
    /// From which of our candidates.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Contents.
    pub data: BytesMut,
}

/// One peer connection.
pub struct Session {
    peer: RTCPeerConnection,
    plan: Plan,
    arrived: Arrived,
    seen: Seen,
    sections: Sections,
    local: Credentials,
    watch: Watch,
    /// Keyframes asked of sources that aren't recorded.
    asked: u64,
    /// Time 0 of the frames.
    origin: Instant,
    pipeline: Pipeline,
    paths: Paths,
    repeats: Repeats,
    events: VecDeque<Event>,
    outbox: VecDeque<Transmit>,
    idle_timeout: Duration,
    start_bitrate: u64,
    /// Candidates of the peer in this ICE generation.
    candidates: usize,
    restarts: Restarts,
    began: Instant,
    connected: bool,
    /// Last packet that only the peer can have sent.
    heard: Instant,
    /// Last media packet.
    media: Instant,
    stopping: Option<Stopping>,
    over: bool,
}

/// On its way out.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    /// When its publisher said stop.
    word: Instant,
    /// When it ends unless more comes out.
    quiet: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("connected", &self.connected)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Names the ICE generation.
    pub fn etag(&self) -> String {
        self.local.ufrag.clone()
    }

    /// Our ICE user fragment: STUN requests for it are this session's.
    pub fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// What its publisher sends and is not recorded.
    pub(super) fn refused(&self) -> &[Refused] {
        &self.plan.refused
    }

    /// The tracks its frames name by index.
    pub fn tracks(&self) -> Vec<Track> {
        self.plan.chosen.iter().map(|chosen| chosen.format.track()).collect()
    }

    /// Takes a datagram that came from `from` to our candidate `to`.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, mut datagram: BytesMut) {
        let mut authentic = false;
        let shown = if datagram.first().is_some_and(|first| *first < 4) {
            match self.paths.inbound_stun(from, to, &mut datagram, now, &mut authentic) {
                Inbound::Agent(shown) => shown,
                Inbound::Done => {
                    self.heard_if(authentic, now);
                    return;
                }
            }
        } else {
            self.paths.inbound(from, now)
        };
        self.heard_if(authentic, now);
        let offered = || self.plan.chosen.iter().flat_map(|chosen| chosen.ssrcs.iter().copied());
        if route::source(&datagram).is_some_and(|source| !self.seen.admits(source, offered())) {
            return;
        }
        let transport = TransportContext {
            local_addr: to,
            peer_addr: shown,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let is_dtls = datagram.first().is_some_and(|first| (20..64).contains(first));
        if is_dtls && !self.connected && self.repeats.contain(&datagram) {
            return;
        }
        if let Err(error) = self.peer.handle_read(TaggedBytesMut { now, transport, message: datagram }) {
            tracing::debug!(%error, "a datagram is dropped");
        }
        if !self.connected {
            // The handshake's end puts the keys in place only when its event is taken, and the first
            // keyframe may be right behind it.
            self.poll_peer(now);
        }
        self.read();
        if is_dtls && self.connected && self.answers_goodbye(now) {
            self.end(Gone::Closed, now);
        }
    }

    /// Notes that media of this session came from an address that is nobody's: the peer may have
    /// moved there without knowing, as behind a NAT that has forgotten it.
    pub fn suspect(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) {
        if !self.over {
            self.paths.suspect(from, to, now);
        }
    }

    fn heard_if(&mut self, authentic: bool, now: Instant) {
        if authentic {
            self.heard = now;
        }
        if let Some(round_trip) = self.paths.round_trip.take() {
            self.pipeline.round_trip(round_trip);
        }
    }

    /// Whether DTLS sends an alert (record type 21, RFC 5246 section 6.2.1): only the peer's own,
    /// encrypted one makes it do so once it is up, and the peer connection says nothing of it.
    fn answers_goodbye(&mut self, now: Instant) -> bool {
        let before = self.outbox.len();
        while let Some(transmit) = self.poll_peer_write(now) {
            self.outbox.push_back(transmit);
        }
        self.outbox.iter().skip(before).any(|transmit| transmit.data.first() == Some(&21))
    }

    /// Takes the peer connection's own events.
    fn poll_peer(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event else { continue };
            match state {
                RTCPeerConnectionState::Connected if !self.connected && !self.is_offerer() => {
                    tracing::warn!("the peer's certificate isn't the one its offer names");
                    self.end(Gone::Impostor, now);
                }
                RTCPeerConnectionState::Connected if !self.connected => {
                    (self.connected, self.heard, self.media) = (true, now, now);
                    let time = now.saturating_duration_since(self.origin);
                    self.watch.begin(self.plan.chosen.len(), time, now);
                    self.events.push_back(Event::Connected);
                }
                RTCPeerConnectionState::Closed => self.end(Gone::Closed, now),
                RTCPeerConnectionState::Failed if self.connected => self.end(Gone::Vanished, now),
                _ => {}
            }
        }
    }

    /// Whether the peer has proven to be who made the offer (RFC 8122 section 6.2).
    fn is_offerer(&mut self) -> bool {
        let certificate = peer::remote_certificate(&mut self.peer);
        certificate.is_some_and(|certificate| self.plan.identity().is_of(&certificate))
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.peer.handle_timeout(now) {
            tracing::debug!(%error, "the peer connection's timers");
        }
        self.read();
        self.pipeline.handle_timeout(now);
        self.take_media(now);
        while let Some((track, reason)) = self.watch.look(now, self.heard) {
            self.events.push_back(Event::Trouble(track, Some(reason)));
        }
        if self.stops_at().is_some_and(|at| now >= at) {
            self.end(Gone::Stopped, now);
        }
        if !self.over && now >= self.patience() {
            let gone = match (self.connected, now.saturating_duration_since(self.heard) >= VANISHED) {
                (false, _) => Gone::NeverConnected,
                (true, true) => Gone::Vanished,
                (true, false) => Gone::Idle,
            };
            self.end(gone, now);
        }
    }

    /// When our patience ends if nothing more is heard.
    fn patience(&self) -> Instant {
        if self.connected {
            (self.heard + VANISHED).min(self.media + self.idle_timeout)
        } else {
            self.began + HANDSHAKE
        }
    }

    /// When `handle_timeout` is next needed.
    pub fn deadline(&mut self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let due =
            [self.peer.poll_timeout(), self.pipeline.deadline(), self.stops_at(), self.watch.due(self.heard)];
        due.into_iter().flatten().chain([self.patience()]).min()
    }

    /// Its publisher has said stop: it ends by itself once what was sent before is there. The first word
    /// counts.
    pub fn stop(&mut self, now: Instant) {
        self.stopping.get_or_insert(Stopping { word: now, quiet: now + LINGER });
    }

    /// When it ends at its publisher's word, if nothing more comes.
    fn stops_at(&self) -> Option<Instant> {
        let Stopping { word, quiet } = self.stopping?;
        let last = word + MAX_LINGER;
        Some(if self.pipeline.has_hole() { last } else { quiet.min(last) })
    }

    /// Asks the publisher for a keyframe.
    pub fn want_keyframe(&mut self, now: Instant) {
        self.pipeline.want_keyframe(now);
    }

    /// Ends the session: releases the frames that are whole and says goodbye to the peer.
    pub fn close(&mut self, now: Instant) {
        if !self.over {
            self.over = true;
            self.pipeline.finish(now);
            self.take_media(now);
            let missing = self.watch.end().into_iter().map(media::Event::Gap);
            self.events.extend(missing.map(Event::Media));
            if let Err(error) = self.peer.close() {
                tracing::debug!(%error, "closing the peer connection");
            }
        }
    }

    fn end(&mut self, gone: Gone, now: Instant) {
        if !self.over {
            self.close(now);
            self.events.push_back(Event::Gone(gone));
        }
    }

    /// What became of the packets of each track since this was last asked.
    pub fn take_counts(&mut self) -> impl Iterator<Item = (Kind, rtp::Counts)> {
        self.pipeline.take_counts()
    }

    /// Keyframes asked since then of sources that aren't recorded: what they send may be larger.
    pub fn take_asked(&mut self) -> u64 {
        std::mem::take(&mut self.asked)
    }

    /// STUN messages since then that were not the peer's, though they named it.
    pub fn take_forged(&mut self) -> u64 {
        std::mem::take(&mut self.paths.forged)
    }

    fn take_media(&mut self, now: Instant) {
        while let Some(event) = self.pipeline.poll_event() {
            if let media::Event::Frame(frame) = &event
                && let Some(gap) = self.watch.frame(frame.track, frame.time, now)
            {
                self.events.push_back(Event::Media(media::Event::Gap(gap)));
                self.events.push_back(Event::Trouble(frame.track, None));
            }
            self.events.push_back(Event::Media(event));
            if let Some(stopping) = &mut self.stopping {
                stopping.quiet = now + LINGER;
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        self.poll_peer(now);
        if let Some(address) = self.paths.proven.pop_front() {
            return Some(Event::Proven(address));
        }
        if let Some(source) = self.sections.found.pop_front() {
            return Some(Event::Source(source));
        }
        self.take_media(now);
        self.events.pop_front()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.give_feedback(now);
        let waiting = self.outbox.pop_front().or_else(|| self.poll_peer_write(now));
        waiting
            .or_else(|| self.paths.outgoing.pop_front().map(|(from, to, data)| Transmit { from, to, data }))
    }

    fn poll_peer_write(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let message = self.peer.poll_write()?;
            let (from, to, mut data) =
                (message.transport.local_addr, message.transport.peer_addr, message.message);
            if let Some(to) = self.paths.outbound(to, &mut data, now) {
                return Some(Transmit { from, to, data });
            }
        }
    }
}
