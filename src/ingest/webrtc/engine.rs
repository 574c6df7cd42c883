//! The event loop of all sessions: one UDP socket, one thread.
//!
//! STUN requests are routed by ICE user fragment, STUN responses by the transaction they answer,
//! everything else by the address it comes from; an address belongs to a session only once the
//! session has proven it (D4). Sessions do no I/O: the
//! loop feeds them datagrams and time, and carries off their frames, datagrams and deadlines.

use crate::base::reason::EndReason;
use crate::ingest::publication::Publication;
use crate::ingest::webrtc::session::{Answer, Event, Gone, Session};
use crate::ingest::webrtc::socket::Socket;
use crate::ingest::webrtc::{Candidate, Patch, Patched, Refusal, SessionId};
use bytes::BytesMut;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, info_span};

/// Batches of one wake-up before timers and commands get their turn.
const BATCHES: usize = 8;
/// From this many sessions on, the loop rests a moment after each wake-up that brought media: packets
/// of many publishers arrive one by one, and waking for each costs more than handling it.
const COALESCE_FROM: usize = 8;
/// That moment. The timer makes it 1 to 2 ms, far below the 10 ms that a frame may take.
const COALESCE: Duration = Duration::from_millis(1);
/// After a publisher's word to stop, media that was sent before it may still be on its way: the
/// word takes another road.
const LINGER: Duration = Duration::from_millis(300);
/// Commands that may wait for the loop; their senders wait when it is full.
pub(super) const COMMANDS: usize = 256;

/// STUN transactions of one session whose answers can still be told apart.
const TRANSACTIONS: usize = 32;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the rest of the server asks of the loop.
pub(super) enum Command {
    Add {
        id: SessionId,
        session: Box<Session>,
        publication: Arc<Publication>,
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
        reply: Reply<Option<(Answer, Arc<Publication>)>>,
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

struct Entry {
    id: SessionId,
    session: Box<Session>,
    publication: Arc<Publication>,
    /// ICE user fragments and addresses routed here.
    ufrags: Vec<String>,
    addresses: Vec<SocketAddr>,
    transactions: VecDeque<Transaction>,
    deadline: Option<Instant>,
    /// Set when it is to end at a time.
    ending: Option<(Instant, EndReason)>,
    /// In the list of those to be settled.
    dirty: bool,
    span: tracing::Span,
}

type Key = u64;
type Transaction = [u8; 12];

/// The loop's state.
pub(super) struct Engine {
    socket: Socket,
    sessions: HashMap<Key, Entry>,
    next_key: Key,
    by_id: HashMap<SessionId, Key>,
    by_ufrag: HashMap<String, Key>,
    by_address: HashMap<SocketAddr, Key>,
    by_transaction: HashMap<Transaction, Key>,
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    dirty: Vec<Key>,
}

impl Engine {
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            sessions: HashMap::new(),
            next_key: 0,
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_transaction: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
        }
    }

    /// Runs until every handle that can send commands is gone.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let mut rest = false;
            let next = self.timers.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command, Instant::now()),
                    None => return,
                },
                () = sleep_until(next) => {}
                ready = self.socket.readable() => match ready {
                    Ok(()) => {
                        self.receive();
                        rest = self.sessions.len() >= COALESCE_FROM;
                    }
                    Err(error) => tracing::error!(%error, "the media socket"),
                },
            }
            let now = Instant::now();
            self.expire(now);
            self.settle(now);
            if rest {
                tokio::time::sleep(COALESCE).await;
            }
        }
    }

    fn receive(&mut self) {
        for _ in 0..BATCHES {
            let now = Instant::now();
            let Self { socket, sessions, by_ufrag, by_address, by_transaction, dirty, .. } = self;
            let more = socket.receive(|datagram| {
                let key = match Kind::of(datagram.data) {
                    Kind::Request(ufrag) => by_ufrag.get(ufrag),
                    Kind::Response(transaction) => by_transaction.get(transaction),
                    Kind::Other => by_address.get(&datagram.from),
                };
                let Some((key, entry)) = key.and_then(|key| Some((*key, sessions.get_mut(key)?))) else {
                    return;
                };
                entry.session.handle(now, datagram.from, datagram.to, BytesMut::from(datagram.data));
                if !std::mem::replace(&mut entry.dirty, true) {
                    dirty.push(key);
                }
            });
            match more {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "receiving media");
                    return;
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
            // An entry of the heap is void if its session has another deadline by now.
            if entry.deadline == Some(at) {
                entry.deadline = None;
                entry.session.handle_timeout(now);
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
        let mut replaced = None;
        let mut over = None;
        while let Some(event) = entry.session.poll_event(now) {
            match event {
                Event::Media(media) => entry.publication.media(&entry.id, media, now),
                Event::Proven(address) => {
                    if !entry.addresses.contains(&address) {
                        entry.addresses.push(address);
                    }
                    self.by_address.insert(address, key);
                }
                Event::Connected => {
                    entry.span.in_scope(|| info!("connected"));
                    match entry.publication.connected(&entry.id, &entry.session.tracks(), now) {
                        Ok(old) => replaced = old,
                        Err(_) => over = Some(Over::Refused),
                    }
                }
                Event::Gone(gone) => over = Some(Over::Gone(gone)),
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
        if over.is_none() && entry.publication.is_over() {
            over = Some(Over::Refused);
        }
        if over.is_none()
            && let Some((_, reason)) = entry.ending.filter(|(at, _)| *at <= now)
        {
            over = Some(Over::Stopped(reason));
        }
        let deadline = entry.session.deadline().into_iter().chain(entry.ending.map(|(at, _)| at)).min();
        if over.is_none() && deadline != entry.deadline {
            entry.deadline = deadline;
            self.timers.extend(deadline.map(|at| Reverse((at, key))));
        }
        if let Some(old) = replaced.and_then(|id| self.by_id.get(&id).copied()) {
            self.remove(old, Over::Refused, now);
        }
        over
    }

    fn remove(&mut self, key: Key, over: Over, now: Instant) {
        let Some(mut entry) = self.sessions.remove(&key) else { return };
        entry.session.close(now);
        while let Some(event) = entry.session.poll_event(now) {
            if let Event::Media(media) = event {
                entry.publication.media(&entry.id, media, now);
            }
        }
        while let Some(transmit) = entry.session.poll_transmit(now) {
            self.socket.send(transmit.from, transmit.to, &transmit.data);
        }
        entry.span.in_scope(|| info!(?over, "the session is over"));
        self.by_id.remove(&entry.id);
        for ufrag in &entry.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        for transaction in &entry.transactions {
            self.by_transaction.remove(transaction);
        }
        self.by_address.retain(|_, held| *held != key);
        match over {
            Over::Stopped(reason) => entry.publication.end(reason, now),
            Over::Gone(Gone::Idle) => entry.publication.end(EndReason::PublisherLost, now),
            Over::Gone(_) => entry.publication.lost(&entry.id, now),
            Over::Refused => {}
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Add { id, session, publication } => self.add(id, session, publication),
            Command::Candidate { id, candidate, reply } => {
                let result = self.with(&id, |entry| {
                    entry.session.add_candidate(&candidate.candidate);
                    Ok(())
                });
                let _ = reply.send(result);
            }
            Command::Reoffer { id, sdp, reply } => {
                let result = self.with(&id, |entry| {
                    let answer = entry.session.reoffer(&sdp, now)?;
                    Ok(answer.map(|answer| (answer, entry.publication.clone())))
                });
                let _ = reply.send(result);
            }
            Command::Patch { id, patch, reply } => {
                let _ = reply.send(self.with(&id, |entry| patched(&mut entry.session, &patch, now)));
            }
            Command::Stop { id, reason, reply } => {
                let result = self.with(&id, |entry| {
                    entry.ending.get_or_insert((now + LINGER, reason));
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

    fn add(&mut self, id: SessionId, session: Box<Session>, publication: Arc<Publication>) {
        let key = self.next_key;
        self.next_key += 1;
        let ufrag = session.ufrag().to_owned();
        let span = info_span!("session", stream = %publication.name(), key);
        self.by_ufrag.insert(ufrag.clone(), key);
        self.by_id.insert(id.clone(), key);
        let entry = Entry {
            id,
            session,
            publication,
            ufrags: vec![ufrag],
            addresses: Vec::new(),
            transactions: VecDeque::new(),
            deadline: None,
            ending: None,
            dirty: true,
            span,
        };
        self.sessions.insert(key, entry);
        self.dirty.push(key);
    }

    /// Does something with a session, and notes the user fragment it may have taken.
    fn with<T>(
        &mut self,
        id: &SessionId,
        act: impl FnOnce(&mut Entry) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let key = *self.by_id.get(id).ok_or(Refusal::SessionNotFound)?;
        let entry = self.sessions.get_mut(&key).ok_or(Refusal::SessionNotFound)?;
        let result = act(entry);
        let ufrag = entry.session.ufrag().to_owned();
        if !entry.ufrags.contains(&ufrag) {
            self.by_ufrag.insert(ufrag.clone(), key);
            entry.ufrags.push(ufrag);
        }
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(key);
        }
        result
    }
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

fn patched(session: &mut Session, patch: &Patch, now: Instant) -> Result<Patched, Refusal> {
    if patch.if_match == "*" {
        let (fragment, etag) = session.restart(&patch.fragment, now)?;
        return Ok(Patched::Restarted { fragment, etag });
    }
    if patch.if_match != session.etag() {
        return Err(Refusal::StaleEtag);
    }
    for candidate in super::offer::candidates(&patch.fragment) {
        session.add_candidate(&candidate);
    }
    Ok(Patched::Trickled)
}

/// What a datagram is, as far as its way is concerned.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// A STUN binding request for this user fragment of ours: the part of USERNAME before the colon
    /// (RFC 8445 section 7.2.2).
    Request(&'a str),
    /// The answer to this STUN transaction of ours.
    Response(&'a Transaction),
    /// DTLS, SRTP, SRTCP, or anything.
    Other,
}

impl<'a> Kind<'a> {
    fn of(datagram: &'a [u8]) -> Self {
        let transaction = || datagram.get(8..20)?.try_into().ok();
        match datagram {
            [0, 1, ..] => username(datagram).map_or(Kind::Other, Kind::Request),
            [1, 1 | 0x11, ..] => transaction().map_or(Kind::Other, Kind::Response),
            _ => Kind::Other,
        }
    }
}

fn username(datagram: &[u8]) -> Option<&str> {
    const USERNAME: u16 = 6;
    let mut attributes = datagram.get(20..)?;
    loop {
        let word = |at: usize| Some(u16::from_be_bytes([*attributes.get(at)?, *attributes.get(at + 1)?]));
        let (kind, length) = (word(0)?, usize::from(word(2)?));
        if kind == USERNAME {
            return std::str::from_utf8(attributes.get(4..4 + length)?).ok()?.split(':').next();
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stun_request_names_its_session_and_rubbish_names_none() {
        let mut request = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        request.extend([0; 12]);
        request.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        request.extend([0, 6, 0, 9]);
        request.extend(b"mine:hers");
        request.extend([0; 3]);
        assert_eq!(Kind::of(&request), Kind::Request("mine"));
        for cut in 0..request.len() - 4 {
            assert_eq!(Kind::of(&request[..cut]), Kind::Other, "cut at {cut}");
        }
        request[0] = 1;
        assert_eq!(Kind::of(&request), Kind::Response(&[0; 12]), "its answer");
    }
}
