//! The sessions of a loop, and which of them a datagram is for.

use crate::base::end_reason::EndReason;
use crate::base::id::SessionId;
use crate::base::metrics::metrics;
use crate::base::quota::Permit;
use crate::media::GapReason;
use crate::webrtc::loops::LoopRoutes;
use crate::webrtc::route::{Key, Kind, Transaction};
use crate::webrtc::session::{Event, Session, SessionEnd, Transmit};
use crate::webrtc::socket::{Datagram, Socket};
use crate::webrtc::stats::LoopStats;
use crate::webrtc::tcp::{Arrival, Connections, Cut, Frame};
use crate::webrtc::{PeerOwner, Protocol};
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// A session goes over to another loop no more often: a peer's last datagrams from where it was may come behind the
/// first ones from elsewhere.
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// A session, as the loop has it.
pub(crate) struct Entry<O> {
    pub id: SessionId,
    pub session: Box<Session>,
    pub owner: Arc<O>,
    /// Its share of the sessions that may be about to connect.
    pub handshake: Option<Permit>,
    /// Its earliest entry in the heap of timers.
    pub next_timer: Option<Instant>,
    /// Its publisher has asked to stop: why the publication ends, with the session.
    pub stop_reason: Option<EndReason>,
    /// In the list of those to be drained.
    pub dirty: bool,
    /// A step of it has panicked: it ends.
    pub panicked: bool,
    /// The loop that its peer's datagrams come to, if it is another one.
    pub wanted_at: Option<usize>,
    /// When it came from another loop.
    pub moved: Option<Instant>,
    pub span: tracing::Span,
}

/// What a session's end means for its publication.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As asked: the publication ends.
    Stopped(EndReason),
    /// The publication may wait for the peer.
    Lost(SessionEnd),
    /// The publication has ended already, or goes on in another session.
    Replaced,
}

/// The sessions of a loop.
pub(super) struct Sessions<O> {
    pub all: FxHashMap<Key, Entry<O>>,
    pub by_id: HashMap<SessionId, Key>,
    pub routes: LoopRoutes,
    /// Those that something was done with, to be drained.
    pub dirty: Vec<Key>,
    pub stats: LoopStats,
    /// Where each loop takes what came to another one.
    pub loops: Arc<[mpsc::Sender<Arrival>]>,
}

impl<O: PeerOwner> Sessions<O> {
    pub fn new(routes: LoopRoutes, loops: Arc<[mpsc::Sender<Arrival>]>, stats: LoopStats) -> Self {
        let (all, by_id) = (FxHashMap::default(), HashMap::new());
        Self { all, by_id, routes, dirty: Vec::new(), stats, loops }
    }

    /// Hands a datagram that came to the loop `came_to` to its session, or to the loop that has it; whether there is
    /// one.
    pub fn hand_over(
        &mut self,
        datagram: Datagram<'_>,
        came_to: usize,
        is_first: bool,
        now: Instant,
    ) -> bool {
        let Self { all, routes, dirty, stats, .. } = self;
        let is_forwarded = came_to != routes.at;
        if !is_forwarded {
            stats.datagram(datagram.data.len());
        }
        let kind = Kind::of(datagram.data);
        let route = routes.find(&kind, datagram.from);
        let Some((key, proven, entry)) =
            route.and_then(|(key, proven)| Some((key, proven, all.get_mut(&key)?)))
        else {
            let home = routes.elsewhere(&kind, datagram.from);
            if home.is_none() {
                stats.unknown(&kind);
            }
            return home.is_some_and(|home| self.forward(datagram, home, came_to, is_first));
        };
        let from = datagram.from;
        if proven {
            let is_response = matches!(kind, Kind::Response(_));
            let Datagram { arrived, from, to, data } = datagram;
            catch_panic(entry, |entry| entry.session.handle(now, arrived, from, to, data));
            // Media may follow in the same turn: over TCP all that waited for this comes in one piece.
            if is_response {
                entry.note_proven(key, routes);
            }
        } else {
            stats.unproven();
            entry.session.handle_unproven(now, from, datagram.to);
        }
        if is_forwarded && entry.session.is_at(from) && entry.may_move(now) {
            entry.wanted_at = Some(came_to);
        }
        if !std::mem::replace(&mut entry.dirty, true) {
            dirty.push(key);
        }
        true
    }

    /// Gives a datagram to another loop, or, if its session is on the way here, to this one once more. One that has no
    /// room for it loses it, as the network may.
    fn forward(&self, datagram: Datagram<'_>, to: usize, came_to: usize, is_first: bool) -> bool {
        let Datagram { arrived, from, to: candidate, data } = datagram;
        let frame = Frame { arrived, from, to: candidate, is_first, came_to, data: (&*data).into() };
        let given = self.loops.get(to).is_some_and(|other| other.try_send(Arrival::Frame(frame)).is_ok());
        if !given {
            metrics().port.dropped.inc(["loop_full"]);
        }
        given
    }

    /// Marks a session as one to be drained.
    pub fn touch(&mut self, key: Key) {
        if let Some(entry) = self.all.get_mut(&key)
            && !std::mem::replace(&mut entry.dirty, true)
        {
            self.dirty.push(key);
        }
    }
}

/// Sends a datagram by what its address is of.
pub(super) fn send(transmit: &Transmit, socket: &Socket, connections: &Connections) {
    let Transmit { from, to, data } = transmit;
    match to.protocol {
        Protocol::Udp => socket.send(*from, to.address, data),
        Protocol::Tcp => connections.send(to.address, data),
    }
}

/// Takes a step of a session. One that panics ends the session when it is next drained, as if its peer had
/// vanished, so its publisher may come back.
pub(super) fn catch_panic<O, T>(entry: &mut Entry<O>, step: impl FnOnce(&mut Entry<O>) -> T) -> Option<T> {
    // Whatever state the session is left in, all that is still asked of it is its end.
    let done = catch_unwind(AssertUnwindSafe(|| step(entry))).ok();
    if done.is_none() {
        entry.panicked = true;
        entry.span.in_scope(|| error!("a step of this session panicked: it ends, the others go on"));
    }
    done
}

impl<O: PeerOwner> Entry<O> {
    /// Takes what the session tells: what its end means, if it is over, whether its media is `watched`, and which
    /// session it has `replaced`, which is known even if a later event panics.
    pub(super) fn take_events(
        &mut self,
        key: Key,
        routes: &mut LoopRoutes,
        connections: &Connections,
        watched: &mut bool,
        replaced: &mut Option<SessionId>,
        now: Instant,
    ) -> Option<Outcome> {
        let mut outcome = None;
        self.note_proven(key, routes);
        while let Some(event) = self.session.poll_event(now) {
            match event {
                Event::Media(media) => {
                    let demand = self.owner.media(&self.id, media, now);
                    *watched |= demand.watched;
                    // Asked while media flows: a publisher that sends nothing has no keyframe to give.
                    if demand.keyframe {
                        self.session.request_keyframe(now);
                    }
                }
                Event::Trouble(track, reason) => self.tell_trouble(track, reason),
                Event::Authenticated(from) => {
                    connections.authenticated(from);
                    if let Some(crowded) = routes.add(|routes| routes.connections.insert(from, key)) {
                        connections.cut(crowded, Cut::Crowded);
                    }
                }
                // First come, first served: a peer that names another's source must not get its packets.
                Event::Source(source) => routes.add(|routes| routes.sources.insert_free(source, key)),
                Event::Connected => {
                    self.span.in_scope(|| info!("connected"));
                    self.handshake = None;
                    match self.owner.connected(&self.id, &self.session.tracks(), now) {
                        Some(old) => *replaced = old,
                        None => outcome = Some(Outcome::Replaced),
                    }
                }
                Event::Ended(end) => outcome = Some(self.outcome_of(end)),
            }
        }
        outcome
    }

    /// Routes what comes from addresses that have been proven to be the peer's.
    pub(super) fn note_proven(&mut self, key: Key, routes: &mut LoopRoutes) {
        while let Some(address) = self.session.poll_proven() {
            routes.add(|routes| routes.addresses.insert(address, key));
        }
    }

    /// Sends the session's datagrams; answers to its STUN requests will be routed to it.
    pub(super) fn send(
        &mut self,
        key: Key,
        routes: &mut LoopRoutes,
        socket: &Socket,
        connections: &Connections,
        now: Instant,
    ) {
        while let Some(transmit) = self.session.poll_transmit(now) {
            if let Kind::Request(_) = Kind::of(&transmit.data)
                && let Some(Ok(transaction)) = transmit.data.get(8..20).map(Transaction::try_from)
            {
                routes.add(|routes| routes.transactions.insert(transaction, key));
            }
            send(&transmit, socket, connections);
        }
    }

    fn may_move(&self, now: Instant) -> bool {
        self.moved.is_none_or(|moved| now.saturating_duration_since(moved) >= MOVE_EVERY)
    }

    /// A peer that goes after it was asked to stop is not waited for.
    pub(super) fn outcome_of(&self, end: SessionEnd) -> Outcome {
        self.stop_reason.map_or(Outcome::Lost(end), Outcome::Stopped)
    }

    /// A track brings nothing, or does so again: the log and the publisher are told.
    fn tell_trouble(&self, track: usize, reason: Option<GapReason>) {
        let Some(kind) = self.session.tracks().get(track).map(|track| track.codec.kind()) else { return };
        let name = kind.as_str();
        self.span.in_scope(|| match reason {
            Some(GapReason::Undecodable) => warn!(track = name, "packets come that no frame comes of"),
            Some(_) => warn!(track = name, "nothing comes, though it was agreed on"),
            None => info!(track = name, "frames come again"),
        });
        if let Some(reason) = reason {
            metrics().rtp.trouble.inc([name, reason.as_str()]);
        }
        self.owner.trouble(&self.id, kind, reason);
    }
}
