//! The event loop of all sessions: one UDP socket, one thread.
//!
//! STUN requests are routed by ICE user fragment, STUN responses by the transaction they answer,
//! everything else by the address it comes from; an address belongs to a session only once the
//! session has proven it (D4). Media from any other address only tells its session where the peer
//! may be now. Sessions do no I/O: the loop feeds them datagrams and time, and carries off their
//! frames, datagrams and deadlines.
//!
//! What peers send reaches code of others (ICE, DTLS, SRTP, SDP). A panic in there must be the end of that
//! peer's session and not of everybody's, so the loop takes every step of a session through [`contained`].

use crate::base::heartbeat::Heartbeat;
use crate::base::id::SessionId;
use crate::base::metrics::metrics;
use crate::base::quota::Permit;
use crate::base::reason::EndReason;
use crate::media::GapReason;
use crate::webrtc::route::{Kind, Transaction};
use crate::webrtc::session::{Answer, Event, Gone, Session};
use crate::webrtc::socket::Socket;
use crate::webrtc::stats::LoopStats;
use crate::webrtc::{Candidate, Patch, Patched};
use crate::webrtc::{PeerError, PeerOwner};
use bytes::BytesMut;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, info_span, warn};

/// Batches of one wake-up before timers and commands get their turn.
const BATCHES: usize = 8;
/// From this many sessions on, the loop rests a moment after each wake-up that brought media: packets
/// of many publishers arrive one by one, and waking for each costs more than handling it.
const COALESCE_FROM: usize = 32;
/// That moment. The timer makes it 1 to 2 ms, far below the 10 ms that a frame may take.
const COALESCE: Duration = Duration::from_millis(1);
/// Commands that may wait for the loop; their senders wait when it is full.
pub(super) const COMMANDS: usize = 256;

/// STUN transactions of one session whose answers can still be told apart.
const TRANSACTIONS: usize = 32;
/// Addresses, or media sources, of one session that are kept; the oldest is forgotten.
const ROUTES: usize = 16;

type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

/// What the rest of the server asks of the loop.
pub(crate) enum Command<O> {
    Add {
        id: SessionId,
        session: Box<Session>,
        owner: Arc<O>,
        handshake: Permit,
    },
    Candidate {
        id: SessionId,
        candidate: Candidate,
        reply: Reply<()>,
    },
    /// `None` if the offer is another peer connection's.
    Reoffer {
        id: SessionId,
        sdp: String,
        reply: Reply<Option<(Answer, Arc<O>)>>,
    },
    Patch {
        id: SessionId,
        patch: Patch,
        reply: Reply<Patched>,
    },
    Stop {
        id: SessionId,
        reason: EndReason,
        reply: Reply<()>,
    },
    /// Ends every session; the loop goes on until its last handle is gone.
    StopAll {
        reply: Reply<()>,
    },
}

struct Entry<O> {
    id: SessionId,
    session: Box<Session>,
    owner: Arc<O>,
    /// Its place among those that have yet to connect.
    handshake: Option<Permit>,
    /// ICE user fragments, addresses and media sources routed here.
    ufrags: VecDeque<String>,
    addresses: VecDeque<SocketAddr>,
    sources: VecDeque<u32>,
    transactions: VecDeque<Transaction>,
    /// Its earliest entry in the heap of timers.
    alarm: Option<Instant>,
    /// Its publisher has said stop: why the publication ends, with the session.
    ending: Option<EndReason>,
    /// In the list of those to be settled.
    dirty: bool,
    /// A step of it has panicked: it ends.
    broken: bool,
    span: tracing::Span,
}

type Key = u64;

impl<O> Entry<O> {
    /// Whoever goes after the word to stop is not waited for.
    fn is_gone(&self, gone: Gone) -> Over {
        self.ending.map_or(Over::Gone(gone), Over::Stopped)
    }
}

/// Takes a step of a session. One that panics breaks it: it ends at the next settling, as if its peer had
/// vanished, so its publisher may come back.
fn contained<O, T>(entry: &mut Entry<O>, step: impl FnOnce(&mut Entry<O>) -> T) -> Option<T> {
    // Whatever state the session is left in, all that is still asked of it is its end.
    let done = catch_unwind(AssertUnwindSafe(|| step(entry))).ok();
    if done.is_none() {
        entry.broken = true;
        entry.span.in_scope(|| error!("a step of this session panicked: it ends, the others go on"));
    }
    done
}

/// What an offer or a candidate is answered that made its session panic.
pub(super) fn unusable() -> PeerError {
    PeerError::BadSdp(
        "this can't be dealt with, which is a fault of the server: its log says more".to_owned(),
    )
}

/// The loop's state.
pub(super) struct Engine<O> {
    socket: Socket,
    sessions: HashMap<Key, Entry<O>>,
    next_key: Key,
    by_id: HashMap<SessionId, Key>,
    by_ufrag: HashMap<String, Key>,
    by_address: HashMap<SocketAddr, Key>,
    by_source: HashMap<u32, Key>,
    by_transaction: HashMap<Transaction, Key>,
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    dirty: Vec<Key>,
    tally: LoopStats,
}

impl<O: PeerOwner> Engine<O> {
    pub fn new(socket: Socket, heartbeat: Heartbeat) -> Self {
        Self {
            socket,
            sessions: HashMap::new(),
            next_key: 0,
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_source: HashMap::new(),
            by_transaction: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            tally: LoopStats::new(heartbeat),
        }
    }

    /// Runs until every handle that can send commands is gone. A command, what has come from the network
    /// and what is due get their turn each time, whichever it was that woke the loop: none of them can
    /// keep the others waiting by coming without end.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command<O>>) {
        loop {
            let mut rest = false;
            let due = self.timers.peek().map_or(self.tally.beat, |Reverse((at, _))| self.tally.beat.min(*at));
            let began;
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
                    match ready {
                        Ok(()) => rest = self.sessions.len() >= COALESCE_FROM,
                        Err(error) => tracing::error!(%error, "the media socket"),
                    }
                }
            }
            rest &= self.receive();
            let now = Instant::now();
            self.expire(now);
            self.settle(now);
            let ended = Instant::now();
            self.tally.turned(due, began, ended);
            if self.tally.beats(ended) {
                self.add_up();
            }
            if rest {
                tokio::time::sleep(COALESCE).await;
            }
        }
    }

    /// Hands over what the sessions have counted.
    fn add_up(&mut self) {
        for entry in self.sessions.values_mut() {
            self.tally.add(&mut entry.session);
        }
    }

    /// Returns whether all that had come is taken.
    fn receive(&mut self) -> bool {
        for _ in 0..BATCHES {
            let now = Instant::now();
            let Self {
                socket, sessions, by_ufrag, by_address, by_source, by_transaction, dirty, tally, ..
            } = self;
            let more = socket.receive(|datagram| {
                let mut proven = true;
                tally.datagram(datagram.data.len());
                let kind = Kind::of(datagram.data);
                let key = match kind {
                    Kind::Request(ufrag) => by_ufrag.get(ufrag),
                    Kind::Response(transaction) => by_transaction.get(transaction),
                    Kind::Media(source) => by_address.get(&datagram.from).or_else(|| {
                        proven = false;
                        by_source.get(&source)
                    }),
                    Kind::Other => by_address.get(&datagram.from),
                };
                let Some((key, entry)) = key.and_then(|key| Some((*key, sessions.get_mut(key)?))) else {
                    return tally.unknown(&kind);
                };
                if proven {
                    let data = BytesMut::from(datagram.data);
                    contained(entry, |entry| entry.session.handle(now, datagram.from, datagram.to, data));
                } else {
                    tally.unproven();
                    entry.session.suspect(now, datagram.from, datagram.to);
                }
                if !std::mem::replace(&mut entry.dirty, true) {
                    dirty.push(key);
                }
            });
            match more {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => {
                    tracing::debug!(%error, "receiving media");
                    return true;
                }
            }
        }
        false
    }

    /// Hands each session whose deadline has passed the time.
    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self.sessions.get_mut(&key) else { continue };
            if entry.alarm == Some(at) {
                entry.alarm = None;
                contained(entry, |entry| entry.session.handle_timeout(now));
                if !std::mem::replace(&mut entry.dirty, true) {
                    self.dirty.push(key);
                }
            }
        }
    }

    /// Carries off what the touched sessions have to give.
    fn settle(&mut self, now: Instant) {
        while let Some(key) = self.dirty.pop() {
            if let Some(over) = self.settle_one(key, now) {
                self.remove(key, over, now);
            }
        }
    }

    /// Returns why the session is over, if it is.
    fn settle_one(&mut self, key: Key, now: Instant) -> Option<Over> {
        let entry = self.sessions.get_mut(&key)?;
        entry.dirty = false;
        let (mut replaced, mut over) = (None, None);
        contained(entry, |entry| {
            while let Some(event) = entry.session.poll_event(now) {
                match event {
                    Event::Media(media) => {
                        // Asked while media flows: a publisher that sends nothing has no keyframe to give.
                        if entry.owner.media(&entry.id, media, now) {
                            entry.session.want_keyframe(now);
                        }
                    }
                    Event::Trouble(track, reason) => tell_trouble(entry, track, reason),
                    Event::Proven(address) => {
                        self.by_address.insert(address, key);
                        bounded(&mut entry.addresses, address, |old| unmap(&mut self.by_address, old, key));
                    }
                    Event::Source(source) => {
                        // First come, first served: who names another's source must not get its packets.
                        self.by_source.entry(source).or_insert(key);
                        bounded(&mut entry.sources, source, |old| unmap(&mut self.by_source, old, key));
                    }
                    Event::Connected => {
                        entry.span.in_scope(|| info!("connected"));
                        entry.handshake = None;
                        let tracks = entry.session.tracks();
                        match entry.owner.connected(&entry.id, &tracks, now) {
                            Some(old) => replaced = old,
                            None => over = Some(Over::Refused),
                        }
                    }
                    Event::Gone(gone) => over = Some(entry.is_gone(gone)),
                }
            }
            while let Some(transmit) = entry.session.poll_transmit(now) {
                if let Kind::Request(_) = Kind::of(&transmit.data)
                    && let Some(Ok(transaction)) = transmit.data.get(8..20).map(Transaction::try_from)
                {
                    if entry.transactions.len() == TRANSACTIONS
                        && let Some(old) = entry.transactions.pop_front()
                    {
                        self.by_transaction.remove(&old);
                    }
                    entry.transactions.push_back(transaction);
                    self.by_transaction.insert(transaction, key);
                }
                self.socket.send(transmit.from, transmit.to, &transmit.data);
            }
            if over.is_none() && entry.owner.has_left(&entry.id) {
                over = Some(Over::Refused);
            }
            let deadline = entry.session.deadline();
            // A deadline that has moved back keeps its alarm, which then comes early and does no harm:
            // one more for every packet would fill the heap.
            if let Some(at) =
                deadline.filter(|at| over.is_none() && entry.alarm.is_none_or(|alarm| *at < alarm))
            {
                entry.alarm = Some(at);
                self.timers.push(Reverse((at, key)));
            }
        });
        if entry.broken {
            over = Some(entry.is_gone(Gone::Broken));
        }
        if let Some(old) = replaced.and_then(|id| self.by_id.get(&id).copied()) {
            self.remove(old, Over::Refused, now);
        }
        over
    }

    fn remove(&mut self, key: Key, over: Over, now: Instant) {
        let Some(mut entry) = self.sessions.remove(&key) else { return };
        contained(&mut entry, |entry| {
            entry.session.close(now);
            while let Some(event) = entry.session.poll_event(now) {
                if let Event::Media(media) = event {
                    entry.owner.media(&entry.id, media, now);
                }
            }
            while let Some(transmit) = entry.session.poll_transmit(now) {
                self.socket.send(transmit.from, transmit.to, &transmit.data);
            }
        });
        self.tally.add(&mut entry.session);
        entry.span.in_scope(|| info!(?over, "the session is over"));
        self.by_id.remove(&entry.id);
        for ufrag in &entry.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        for transaction in &entry.transactions {
            self.by_transaction.remove(transaction);
        }
        for address in entry.addresses {
            unmap(&mut self.by_address, address, key);
        }
        for source in entry.sources {
            unmap(&mut self.by_source, source, key);
        }
        match over {
            Over::Stopped(reason) => entry.owner.end(reason, now),
            Over::Gone(Gone::Idle) => entry.owner.end(EndReason::PublisherLost, now),
            Over::Gone(_) => entry.owner.lost(&entry.id, now),
            Over::Refused => {}
        }
    }

    fn command(&mut self, command: Command<O>, now: Instant) {
        match command {
            Command::Add { id, session, owner, handshake } => {
                self.add(id, session, owner, handshake);
            }
            Command::Candidate { id, candidate, reply } => {
                let result = self.with(&id, |entry| entry.session.add_candidate(&candidate.candidate));
                let _ = reply.send(result);
            }
            Command::Reoffer { id, sdp, reply } => {
                let result = self.with(&id, |entry| {
                    let answer = entry.session.reoffer(&sdp, now)?;
                    Ok(answer.map(|answer| (answer, entry.owner.clone())))
                });
                let _ = reply.send(result);
            }
            Command::Patch { id, patch, reply } => {
                let _ = reply.send(self.with(&id, |entry| patched(&mut entry.session, &patch, now)));
            }
            Command::Stop { id, reason, reply } => {
                let result = self.with(&id, |entry| {
                    entry.ending.get_or_insert(reason);
                    entry.owner.leaves();
                    entry.session.stop(now);
                    Ok(())
                });
                let _ = reply.send(result);
            }
            Command::StopAll { reply } => {
                let keys: Vec<Key> = self.sessions.keys().copied().collect();
                for key in keys {
                    self.remove(key, Over::Stopped(EndReason::ServerStopped), now);
                }
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn add(&mut self, id: SessionId, session: Box<Session>, owner: Arc<O>, handshake: Permit) {
        let key = self.next_key;
        self.next_key += 1;
        let ufrag = session.ufrag().to_owned();
        let span = info_span!("session", stream = %owner.name(), key);
        self.by_ufrag.insert(ufrag.clone(), key);
        self.by_id.insert(id.clone(), key);
        let entry = Entry {
            id,
            session,
            owner,
            handshake: Some(handshake),
            ufrags: VecDeque::from([ufrag]),
            addresses: VecDeque::new(),
            sources: VecDeque::new(),
            transactions: VecDeque::new(),
            alarm: None,
            ending: None,
            dirty: true,
            broken: false,
            span,
        };
        self.sessions.insert(key, entry);
        self.dirty.push(key);
    }

    /// Does something with a session, and notes the user fragment it may have taken.
    fn with<T>(
        &mut self,
        id: &SessionId,
        act: impl FnOnce(&mut Entry<O>) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        let key = *self.by_id.get(id).ok_or(PeerError::SessionNotFound)?;
        let entry = self.sessions.get_mut(&key).ok_or(PeerError::SessionNotFound)?;
        let result = contained(entry, act).unwrap_or_else(|| Err(unusable()));
        let ufrag = entry.session.ufrag().to_owned();
        if !entry.ufrags.contains(&ufrag) {
            self.by_ufrag.insert(ufrag.clone(), key);
            bounded(&mut entry.ufrags, ufrag, |old| unmap(&mut self.by_ufrag, old, key));
        }
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(key);
        }
        result
    }
}

/// A track brings nothing, or does so again: whoever can mend it should know.
fn tell_trouble<O: PeerOwner>(entry: &Entry<O>, track: usize, reason: Option<GapReason>) {
    let Some(kind) = entry.session.tracks().get(track).map(|track| track.codec.kind()) else { return };
    let name = kind.as_str();
    entry.span.in_scope(|| match reason {
        Some(GapReason::Undecodable) => warn!(track = name, "packets come that no frame comes of"),
        Some(_) => warn!(track = name, "nothing comes, though it was agreed on"),
        None => info!(track = name, "frames come again"),
    });
    if let Some(reason) = reason {
        metrics().rtp.trouble.inc([name, reason.as_str()]);
    }
    entry.owner.trouble(&entry.id, kind, reason);
}

/// How a session's end bears on its publication.
#[derive(Debug)]
enum Over {
    /// As asked: the publication ends.
    Stopped(EndReason),
    /// The peer is gone: the publication may wait for it.
    Gone(Gone),
    /// The publication has ended already, or goes on in another session.
    Refused,
}

fn patched(session: &mut Session, patch: &Patch, now: Instant) -> Result<Patched, PeerError> {
    if patch.if_match == ["*"] {
        let (fragment, etag) = session.restart(&patch.fragment, now)?;
        return Ok(Patched::Restarted { fragment, etag });
    }
    if !patch.if_match.contains(&session.etag()) {
        return Err(PeerError::StaleEtag);
    }
    for candidate in super::offer::candidates(&patch.fragment) {
        session.add_candidate(&candidate)?;
    }
    Ok(Patched::Trickled)
}

/// Adds a route to a session's list; one that had to make place is given to `forget`.
fn bounded<T: PartialEq>(list: &mut VecDeque<T>, new: T, forget: impl FnOnce(T)) {
    list.retain(|known| *known != new);
    list.push_back(new);
    if list.len() > ROUTES
        && let Some(old) = list.pop_front()
    {
        forget(old);
    }
}

/// Ends a route, unless another session has it by now.
fn unmap<T: std::hash::Hash + Eq>(map: &mut HashMap<T, Key>, route: T, key: Key) {
    if map.get(&route) == Some(&key) {
        map.remove(&route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::webrtc::tests::{held, offer};
    use crate::publish::publication::Publication;
    use crate::publish::status::Status;
    use crate::webrtc::Config;

    #[tokio::test]
    async fn a_session_that_panics_ends_alone_and_leaves_nothing_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (webrtc, mut commands) = held(dir.path(), 2);
        let config = Config { udp_bind: "127.0.0.1:0".to_owned(), ..Config::default() };
        let mut engine = Engine::new(Socket::bind(&config, true).unwrap(), Heartbeat::new("test"));
        let now = Instant::now();
        let mut accepted = Vec::new();
        for name in ["breaks", "other"] {
            accepted.push(webrtc.accept(offer(name)).await.unwrap());
            engine.command(commands.recv().await.unwrap(), now);
        }
        engine.settle(now);
        let broken: Result<(), _> = engine.with(&accepted[0].session, |_| panic!("this test means it"));
        assert_eq!(broken, Err(unusable()));
        engine.settle(now);
        let is_there = |entry: &mut Entry<Publication>| Ok(entry.broken);
        assert_eq!(engine.with(&accepted[0].session, is_there), Err(PeerError::SessionNotFound));
        assert_eq!(engine.with(&accepted[1].session, is_there), Ok(false), "the other one goes on");
        assert_eq!((engine.by_ufrag.len(), engine.sessions.len()), (1, 1), "routes and sessions");
        assert!(matches!(*accepted[0].status.borrow(), Status::Failed { .. }), "{:?}", accepted[0].status);
        assert!(webrtc.accept(offer("breaks")).await.is_ok(), "its name and its place are still taken");
    }

    #[test]
    fn a_session_keeps_its_newest_routes_and_takes_nobody_elses_away() {
        let (mut list, mut map) = (VecDeque::new(), HashMap::new());
        for source in 0..40_u32 {
            map.insert(source, 1);
            bounded(&mut list, source, |old| unmap(&mut map, old, 1));
            bounded(&mut list, 7, |_| panic!("it was known"));
        }
        assert_eq!((list.len(), map.len()), (ROUTES, ROUTES), "routes kept");
        assert!(list.contains(&39) && list.contains(&7), "{list:?}");
        map.insert(39, 2);
        unmap(&mut map, 39, 1);
        assert_eq!(map.get(&39), Some(&2), "it is another session's by now");
    }
}
