//! One peer connection, sans-IO: datagrams and time in, frames and datagrams out.
//!
//! Nothing in here touches a socket, a task or a clock, so an hour of lossy network is tested in a
//! second. The engine owns the session and drives it.

mod lifetime;
mod negotiation;
mod packets;
mod stalled;

use lifetime::{LINGER, Stopping};
use negotiation::Restarts;
use stalled::Watch;

use crate::media::{self, GapReason, Kind, Track};
use crate::rtp::{self, Pipeline};
use crate::webrtc::dtls::Identity;
use crate::webrtc::offer::{Credentials, ParsedOffer, RejectedSection};
use crate::webrtc::peer::{Peer, PeerEvent};
use crate::webrtc::sources::Sections;
use crate::webrtc::{Candidate, Protocol, TransportAddress};
use bytes::BytesMut;
use packets::Receiver;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a session is configured with.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Addresses offered to the peer, best first; TCP ones for its connections (RFC 6544).
    pub candidates: Vec<TransportAddress>,
    /// What the server shows itself by.
    pub identity: Arc<Identity>,
    /// Bounds of the way from packets to frames.
    pub pipeline: rtp::Config,
    /// When the frames' time is 0.
    pub origin: Instant,
    /// A connected peer without media for this long is ended.
    pub idle_timeout: Duration,
    /// What a browser's video is to begin with, bit/s; 0 leaves it to the browser.
    pub start_bitrate: u64,
}

/// What goes back to the client.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The SDP answer.
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
    /// Only the peer can have sent what came over the TCP connection from this address: it lasts as long as the
    /// session. Told again with each such message.
    Authenticated(SocketAddr),
    /// The peer's media comes from this source (SSRC).
    Source(u32),
    /// A frame, or that frames are missing.
    Media(media::Event),
    /// A track brings nothing, or nothing that can be decoded; `None` once it does again.
    Trouble(usize, Option<GapReason>),
    /// The session is over.
    Ended(SessionEnd),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The handshake took too long.
    NeverConnected,
    /// Nothing authentic came any more.
    Vanished,
    /// The peer closed the connection.
    Closed,
    /// It has shown another certificate than its offer names.
    WrongCertificate,
    /// Connected, but without media for `webrtc.idle_timeout`.
    Idle,
    /// As [`Session::stop`] said, with what was still on its way.
    Stopped,
    /// A step of it panicked: its owner says so.
    Panicked,
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Transmit {
    /// The candidate of ours that it is sent from.
    pub from: SocketAddr,
    /// The peer's address.
    pub to: TransportAddress,
    /// The UDP payload, or what a TCP frame holds.
    pub data: BytesMut,
}

/// One peer connection.
pub struct Session {
    peer: Peer,
    offer: ParsedOffer,
    receiver: Receiver,
    sections: Sections,
    identity: Arc<Identity>,
    local: Credentials,
    own_candidates: Vec<String>,
    /// Number and version of the session in our answers (`o=`).
    origin_line: (u64, u64),
    watch: Watch,
    /// Keyframes asked of sources that aren't recorded, since the count was taken.
    unrecorded_keyframe_requests: u64,
    /// Time 0 of the frames.
    origin: Instant,
    pipeline: Pipeline,
    events: VecDeque<Event>,
    idle_timeout: Duration,
    start_bitrate: u64,
    /// Candidates of the peer in this ICE generation.
    peer_candidates: usize,
    restarts: Restarts,
    began: Instant,
    connected: bool,
    /// When a packet came last that only the peer can have sent.
    last_heard: Instant,
    /// When media came last.
    last_media: Instant,
    stopping: Option<Stopping>,
    over: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Session {
    /// WHIP's ETag without quotes, which changes with every ICE generation.
    pub fn etag(&self) -> String {
        self.local.ufrag.clone()
    }

    /// Our ICE user fragment: STUN requests for it are this session's.
    pub fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// What its publisher sends and is not recorded.
    pub(super) fn rejected(&self) -> &[RejectedSection] {
        &self.offer.rejected
    }

    /// The tracks its frames name by index.
    pub fn tracks(&self) -> Vec<Track> {
        self.offer.recorded.iter().map(|section| section.format.track()).collect()
    }

    /// Takes a datagram that came from `from` to our candidate `to` at `arrived`, which may lie before `now`. Media
    /// is opened where it lies.
    pub fn handle(
        &mut self,
        now: Instant,
        arrived: Instant,
        from: TransportAddress,
        to: SocketAddr,
        datagram: &mut [u8],
    ) {
        if self.over {
            return;
        }
        // RFC 7983 section 7.
        match datagram.first() {
            Some(0..=3) => {
                if self.peer.handle_stun(now, from, to, datagram) {
                    self.last_heard = now;
                    if from.protocol == Protocol::Tcp {
                        self.events.push_back(Event::Authenticated(from.address));
                    }
                }
                if let Some(round_trip) = self.peer.paths.round_trip.take() {
                    self.pipeline.round_trip(round_trip);
                }
                self.take_from_peer(now);
            }
            Some(20..=63) => {
                self.peer.handle_dtls(now, from, datagram);
                self.take_from_peer(now);
            }
            Some(128..=191) => {
                self.peer.paths.heard(from, now);
                self.open(now, arrived, datagram);
            }
            _ => {}
        }
    }

    /// Media of this session came from an unproven address: the peer may have moved there without
    /// knowing, as behind a NAT that has forgotten it.
    pub fn handle_unproven(&mut self, now: Instant, from: TransportAddress, to: SocketAddr) {
        if !self.over {
            self.peer.paths.probe(from, to, now);
        }
    }

    /// The peer's TCP connection from this address is closed.
    pub fn handle_closed(&mut self, from: SocketAddr) {
        self.peer.paths.closed(TransportAddress::tcp(from));
    }

    /// Whether what is sent to the peer goes to this address.
    pub fn is_at(&self, address: TransportAddress) -> bool {
        self.peer.paths.current().is_some_and(|path| path.remote == address)
    }

    fn take_from_peer(&mut self, now: Instant) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                // RFC 8122 section 6.2.
                PeerEvent::Connected(certificate) if !self.offer.identity().is_of(&certificate) => {
                    tracing::warn!("the peer's certificate isn't the one its offer names");
                    self.end(SessionEnd::WrongCertificate, now);
                }
                PeerEvent::Connected(_) => {
                    (self.connected, self.last_heard, self.last_media) = (true, now, now);
                    let time = now.saturating_duration_since(self.origin);
                    self.watch.begin(self.offer.recorded.len(), time, now);
                    self.events.push_back(Event::Connected);
                }
                PeerEvent::Closed => self.end(SessionEnd::Closed, now),
            }
        }
    }

    /// Asks the publisher for a keyframe.
    pub fn request_keyframe(&mut self, now: Instant) {
        self.pipeline.request_keyframe(now);
    }

    /// What became of the packets of each track since this was last asked.
    pub fn take_counts(&mut self) -> impl Iterator<Item = (Kind, rtp::Counts)> {
        self.pipeline.take_counts()
    }

    /// Keyframes asked since then of sources that aren't recorded: their pictures may be larger.
    pub fn take_unrecorded_keyframe_requests(&mut self) -> u64 {
        std::mem::take(&mut self.unrecorded_keyframe_requests)
    }

    /// STUN messages since then that were not the peer's, though they named it.
    pub fn take_forged(&mut self) -> u64 {
        std::mem::take(&mut self.peer.paths.forged)
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
                stopping.drained = now + LINGER;
            }
        }
    }

    /// The next address that has been proven to be the peer's (D4): its packets are for this session.
    pub fn poll_proven(&mut self) -> Option<TransportAddress> {
        self.peer.paths.proven.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        if let Some(source) = self.sections.found.pop_front() {
            return Some(Event::Source(source));
        }
        self.take_media(now);
        self.events.pop_front()
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.give_feedback(now);
        self.peer.poll_transmit()
    }
}
