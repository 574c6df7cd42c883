//! The event loop of all sessions: one UDP socket, the peers' TCP connections beside it, one thread.
//!
//! Sessions do no I/O: the loop feeds them datagrams (by their [`Routes`]) and time, and carries off their
//! frames, datagrams and deadlines.
//!
//! What peers send reaches code of other projects (ICE, DTLS, SRTP, SDP). A panic in there must end that
//! peer's session and no other, so the loop takes every step of a session through [`catch_panic`].

mod commands;

pub(crate) use commands::Command;
pub(super) use commands::panicked;

use crate::base::end_reason::EndReason;
use crate::base::heartbeat::Heartbeat;
use crate::base::id::SessionId;
use crate::base::metrics::metrics;
use crate::base::quota::Permit;
use crate::media::GapReason;
use crate::webrtc::route::{Key, Kind, Routes, Transaction};
use crate::webrtc::session::{Event, Session, SessionEnd, Transmit};
use crate::webrtc::socket::{Datagram, Socket};
use crate::webrtc::stats::LoopStats;
use crate::webrtc::tcp::{Arrival, Connections, Cut, Tcp};
use crate::webrtc::{PeerOwner, Protocol, TransportAddress};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Batches of one wake-up before timers and commands get their turn.
const BATCHES: usize = 8;
/// While media flows the loop looks once in this time: packets arrive one by one, and waking for each costs more
/// than handling it. Kernel timestamps tell when each was here, so that nobody measures the pause; a frame is
/// handed on within 10 ms,
const RHYTHM: Duration = Duration::from_millis(8);
/// and within 2 ms if somebody watches.
const RHYTHM_WATCHED: Duration = Duration::from_millis(1);
/// Frames of TCP connections that are taken in a turn: as much as of the socket.
const ARRIVALS_A_TURN: usize = 256;
/// Commands that are taken in a turn.
const COMMANDS_A_TURN: usize = 8;
/// Commands that may wait for the loop; their senders wait when it is full.
pub(super) const COMMANDS: usize = 256;

/// A session, as the loop has it.
struct Entry<O> {
    id: SessionId,
    session: Box<Session>,
    owner: Arc<O>,
    /// Its share of the sessions that may be about to connect.
    handshake: Option<Permit>,
    /// Its earliest entry in the heap of timers.
    next_timer: Option<Instant>,
    /// Its publisher has asked to stop: why the publication ends, with the session.
    stop_reason: Option<EndReason>,
    /// In the list of those to be drained.
    dirty: bool,
    /// A step of it has panicked: it ends.
    panicked: bool,
    span: tracing::Span,
}

/// What a turn has found in the socket, or in the queue of TCP's frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Received {
    Nothing,
    /// All there was.
    All,
    /// There may be more.
    More,
}

/// What a session's end means for its publication.
#[derive(Debug)]
enum Outcome {
    /// As asked: the publication ends.
    Stopped(EndReason),
    /// The publication may wait for the peer.
    Lost(SessionEnd),
    /// The publication has ended already, or goes on in another session.
    Replaced,
}

/// Hands a datagram to its session; whether it has one.
fn hand_over<O: PeerOwner>(
    datagram: Datagram<'_>,
    sessions: &mut FxHashMap<Key, Entry<O>>,
    routes: &mut Routes,
    dirty: &mut Vec<Key>,
    stats: &mut LoopStats,
    now: Instant,
) -> bool {
    stats.datagram(datagram.data.len());
    let kind = Kind::of(datagram.data);
    let route = routes.find(&kind, datagram.from);
    let Some((key, proven, entry)) =
        route.and_then(|(key, proven)| Some((key, proven, sessions.get_mut(&key)?)))
    else {
        stats.unknown(&kind);
        return false;
    };
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
        entry.session.handle_unproven(now, datagram.from, datagram.to);
    }
    if !std::mem::replace(&mut entry.dirty, true) {
        dirty.push(key);
    }
    true
}

/// Sends a datagram by what its address is of.
fn send(transmit: &Transmit, socket: &Socket, connections: &Connections) {
    let Transmit { from, to, data } = transmit;
    match to.protocol {
        Protocol::Udp => socket.send(*from, to.address, data),
        Protocol::Tcp => connections.send(to.address, data),
    }
}

/// Takes a step of a session. One that panics ends the session when it is next drained, as if its peer had
/// vanished, so its publisher may come back.
fn catch_panic<O, T>(entry: &mut Entry<O>, step: impl FnOnce(&mut Entry<O>) -> T) -> Option<T> {
    // Whatever state the session is left in, all that is still asked of it is its end.
    let done = catch_unwind(AssertUnwindSafe(|| step(entry))).ok();
    if done.is_none() {
        entry.panicked = true;
        entry.span.in_scope(|| error!("a step of this session panicked: it ends, the others go on"));
    }
    done
}

pub(super) struct Engine<O> {
    socket: Socket,
    tcp: Tcp,
    sessions: FxHashMap<Key, Entry<O>>,
    next_key: Key,
    by_id: HashMap<SessionId, Key>,
    routes: Routes,
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    dirty: Vec<Key>,
    /// Of the sessions that brought media in this turn, one is watched.
    watched: bool,
    stats: LoopStats,
}

impl<O: PeerOwner> Engine<O> {
    pub fn new(socket: Socket, tcp: Tcp, heartbeat: Heartbeat) -> Self {
        Self {
            socket,
            tcp,
            sessions: FxHashMap::default(),
            next_key: 0,
            by_id: HashMap::new(),
            routes: Routes::default(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            watched: false,
            stats: LoopStats::new(heartbeat),
        }
    }

    /// Runs until every handle that can send commands is gone. Commands, what has come from the network and what
    /// is due get their turn each time, whichever it was that woke the loop: none of them can keep the others
    /// waiting by coming without end.
    ///
    /// While media flows the loop sleeps and looks, with two system calls a turn: to wait on the socket would wake
    /// it for each datagram, and on a timer beside it as well. The thread is its own.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command<O>>) {
        let mut flows = false;
        loop {
            let due = self.timers.peek().map_or(self.stats.beat, |Reverse((at, _))| self.stats.beat.min(*at));
            let mut began = Instant::now();
            let mut woken = Received::Nothing;
            if !flows {
                tokio::select! {
                    biased;
                    command = commands.recv() => {
                        began = Instant::now();
                        match command {
                            Some(command) => self.command(command, began),
                            None => return,
                        }
                    }
                    () = tokio::time::sleep_until(due.into()) => began = Instant::now(),
                    ready = self.socket.readable() => {
                        began = Instant::now();
                        if let Err(error) = ready {
                            tracing::error!(%error, "the media socket");
                        }
                    }
                    Some(arrival) = self.tcp.arrivals.recv() => {
                        began = Instant::now();
                        self.take_arrival(arrival, began);
                        woken = Received::All;
                    }
                }
            }
            for _ in 0..COMMANDS_A_TURN {
                match commands.try_recv() {
                    Ok(command) => self.command(command, began),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            let received = self.receive(began).max(self.receive_tcp(began)).max(woken);
            self.expire(began);
            self.drain(began);
            let ended = Instant::now();
            self.stats.note_turn(due, began, ended);
            if self.stats.beats(ended) {
                self.add_counts();
            }
            flows = received != Received::Nothing;
            if received == Received::All {
                let rhythm = if std::mem::take(&mut self.watched) { RHYTHM_WATCHED } else { RHYTHM };
                std::thread::sleep(rhythm.saturating_sub(ended - began));
            }
        }
    }

    /// Hands over what the sessions have counted.
    fn add_counts(&mut self) {
        for entry in self.sessions.values_mut() {
            self.stats.add(&mut entry.session);
        }
    }

    fn receive(&mut self, now: Instant) -> Received {
        let mut any = false;
        for _ in 0..BATCHES {
            let Self { socket, sessions, routes, dirty, stats, .. } = self;
            let more = socket.receive(now, |datagram| {
                any = true;
                hand_over(datagram, sessions, routes, dirty, stats, now);
            });
            match more {
                Ok(true) => {}
                Ok(false) => return if any { Received::All } else { Received::Nothing },
                Err(error) => {
                    tracing::debug!(%error, "receiving media");
                    return Received::Nothing;
                }
            }
        }
        Received::More
    }

    /// Takes what has come over TCP connections.
    fn receive_tcp(&mut self, now: Instant) -> Received {
        for taken in 0..ARRIVALS_A_TURN {
            match self.tcp.arrivals.try_recv() {
                Ok(arrival) => self.take_arrival(arrival, now),
                Err(_) if taken == 0 => return Received::Nothing,
                Err(_) => return Received::All,
            }
        }
        Received::More
    }

    fn take_arrival(&mut self, arrival: Arrival, now: Instant) {
        let Self { sessions, routes, dirty, stats, tcp, .. } = self;
        match arrival {
            Arrival::Frame(mut frame) => {
                let from = TransportAddress::tcp(frame.from);
                let is_request = matches!(Kind::of(&frame.data), Kind::Request(_));
                let datagram = Datagram { arrived: frame.arrived, from, to: frame.to, data: &mut frame.data };
                let is_known = hand_over(datagram, sessions, routes, dirty, stats, now);
                if frame.is_first && !(is_request && is_known) {
                    tcp.connections.cut(frame.from, Cut::Unknown);
                }
            }
            Arrival::Closed(from) => {
                let key = routes.close(from);
                if let Some(entry) = key.and_then(|key| sessions.get_mut(&key)) {
                    entry.session.handle_closed(from);
                }
            }
        }
    }

    /// Hands each session whose deadline has passed the time.
    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self.sessions.get_mut(&key) else { continue };
            if entry.next_timer == Some(at) {
                entry.next_timer = None;
                catch_panic(entry, |entry| entry.session.handle_timeout(now));
                if !std::mem::replace(&mut entry.dirty, true) {
                    self.dirty.push(key);
                }
            }
        }
    }

    /// Carries off what the touched sessions have to give.
    fn drain(&mut self, now: Instant) {
        while let Some(key) = self.dirty.pop() {
            if let Some(outcome) = self.drain_session(key, now) {
                self.remove(key, outcome, now);
            }
        }
    }

    /// Returns what the session's end means, if it is over.
    fn drain_session(&mut self, key: Key, now: Instant) -> Option<Outcome> {
        let entry = self.sessions.get_mut(&key)?;
        entry.dirty = false;
        let (mut replaced, mut outcome) = (None, None);
        catch_panic(entry, |entry| {
            let (routes, connections) = (&mut self.routes, &self.tcp.connections);
            outcome = entry.take_events(key, routes, connections, &mut self.watched, &mut replaced, now);
            entry.send(key, routes, &self.socket, connections, now);
            if outcome.is_none() && entry.owner.has_left(&entry.id) {
                outcome = Some(Outcome::Replaced);
            }
            let deadline = entry.session.deadline();
            // A deadline that has moved back keeps its timer, which then comes early and does no harm:
            // one more for every packet would fill the heap.
            if let Some(at) =
                deadline.filter(|at| outcome.is_none() && entry.next_timer.is_none_or(|timer| *at < timer))
            {
                entry.next_timer = Some(at);
                self.timers.push(Reverse((at, key)));
            }
        });
        if entry.panicked {
            outcome = Some(entry.outcome_of(SessionEnd::Panicked));
        }
        if let Some(old) = replaced.and_then(|id| self.by_id.get(&id).copied()) {
            self.remove(old, Outcome::Replaced, now);
        }
        outcome
    }

    fn remove(&mut self, key: Key, over: Outcome, now: Instant) {
        let Some(mut entry) = self.sessions.remove(&key) else { return };
        catch_panic(&mut entry, |entry| {
            entry.session.close(now);
            while let Some(event) = entry.session.poll_event(now) {
                if let Event::Media(media) = event {
                    entry.owner.media(&entry.id, media, now);
                }
            }
            while let Some(transmit) = entry.session.poll_transmit(now) {
                send(&transmit, &self.socket, &self.tcp.connections);
            }
        });
        self.stats.add(&mut entry.session);
        entry.span.in_scope(|| info!(?over, "the session is over"));
        self.by_id.remove(&entry.id);
        for connection in self.routes.remove(key) {
            self.tcp.connections.close(connection);
        }
        match over {
            Outcome::Stopped(reason) => entry.owner.end(reason, now),
            Outcome::Lost(SessionEnd::Idle) => entry.owner.end(EndReason::PublisherLost, now),
            Outcome::Lost(_) => entry.owner.lost(&entry.id, now),
            Outcome::Replaced => {}
        }
    }
}

impl<O: PeerOwner> Entry<O> {
    /// Takes what the session tells: what its end means, if it is over, whether its media is `watched`, and which
    /// session it has `replaced`, which is known even if a later event panics.
    fn take_events(
        &mut self,
        key: Key,
        routes: &mut Routes,
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
                    if let Some(crowded) = routes.connections.insert(from, key) {
                        connections.cut(crowded, Cut::Crowded);
                    }
                }
                // First come, first served: a peer that names another's source must not get its packets.
                Event::Source(source) => routes.sources.insert_free(source, key),
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
    fn note_proven(&mut self, key: Key, routes: &mut Routes) {
        while let Some(address) = self.session.poll_proven() {
            routes.addresses.insert(address, key);
        }
    }

    /// Sends the session's datagrams; answers to its STUN requests will be routed to it.
    fn send(
        &mut self,
        key: Key,
        routes: &mut Routes,
        socket: &Socket,
        connections: &Connections,
        now: Instant,
    ) {
        while let Some(transmit) = self.session.poll_transmit(now) {
            if let Kind::Request(_) = Kind::of(&transmit.data)
                && let Some(Ok(transaction)) = transmit.data.get(8..20).map(Transaction::try_from)
            {
                routes.transactions.insert(transaction, key);
            }
            send(&transmit, socket, connections);
        }
    }

    /// A peer that goes after it was asked to stop is not waited for.
    fn outcome_of(&self, end: SessionEnd) -> Outcome {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::webrtc::tests::{held, offer};
    use crate::publish::publication::Publication;
    use crate::publish::status::Status;
    use crate::webrtc::{Config, PeerError};

    #[tokio::test]
    async fn a_session_that_panics_ends_alone_and_leaves_nothing_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (webrtc, mut commands) = held(dir.path(), 2);
        let config = Config { udp_bind: "127.0.0.1:0".to_owned(), ..Config::default() };
        let mut engine =
            Engine::new(Socket::bind(&config, true).unwrap().0, Tcp::none(), Heartbeat::new("test"));
        let now = Instant::now();
        let mut accepted = Vec::new();
        for name in ["breaks", "other"] {
            accepted.push(webrtc.accept(offer(name)).await.unwrap());
            engine.command(commands.recv().await.unwrap(), now);
        }
        engine.drain(now);
        let broken: Result<(), _> = engine.on_session(&accepted[0].session, |_| panic!("this test means it"));
        assert_eq!(broken, Err(panicked()));
        engine.drain(now);
        let is_there = |entry: &mut Entry<Publication>| Ok(entry.panicked);
        assert_eq!(engine.on_session(&accepted[0].session, is_there), Err(PeerError::SessionNotFound));
        assert_eq!(engine.on_session(&accepted[1].session, is_there), Ok(false), "the other one goes on");
        assert_eq!((engine.routes.ufrags.len(), engine.sessions.len()), (1, 1), "routes and sessions");
        assert!(matches!(*accepted[0].status.borrow(), Status::Failed { .. }), "{:?}", accepted[0].status);
        assert!(webrtc.accept(offer("breaks")).await.is_ok(), "its name and its permit are still taken");
    }
}
