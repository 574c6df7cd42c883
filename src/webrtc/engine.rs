//! An event loop with its sessions: a UDP socket, the peers' TCP connections beside it, one thread.
//!
//! Sessions do no I/O: the loop feeds them datagrams (by their [`Routes`]) and time, and carries off their
//! frames, datagrams and deadlines.
//!
//! What peers send reaches code of other projects (ICE, DTLS, SRTP, SDP). A panic in there must end that
//! peer's session and no other, so the loop takes every step of a session through [`catch_panic`].

mod commands;
mod sessions;

pub(crate) use commands::Command;
pub(super) use commands::panicked;

use crate::base::end_reason::EndReason;
use crate::base::heartbeat::Heartbeat;
use crate::webrtc::PeerOwner;
use crate::webrtc::loops::{LoopRoutes, Whose};
use crate::webrtc::route::{Key, Kind};
use crate::webrtc::session::{Event, SessionEnd};
use crate::webrtc::socket::{Datagram, Socket};
use crate::webrtc::starter::Starter;
use crate::webrtc::stats::LoopStats;
use crate::webrtc::tcp::{Arrival, Connections, Cut, Frame};
use sessions::{Outcome, Sessions, catch_panic, send};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{debug, info};

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

/// What a turn has found in the socket, or in the queue of TCP's frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Received {
    Nothing,
    /// All there was.
    All,
    /// There may be more.
    More,
}

pub(super) struct Engine<O> {
    socket: Socket,
    /// The TCP connections of all loops.
    connections: Connections,
    /// What has come over them, and from other loops.
    arrivals: mpsc::Receiver<Arrival>,
    /// Those of all loops, to hand sessions and what is asked of them over.
    commands: Arc<[mpsc::WeakSender<Command<O>>]>,
    /// Commands that another loop had no room for.
    postponed: Vec<Command<O>>,
    sessions: Sessions<O>,
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    /// Of the sessions that brought media in this turn, one is watched.
    watched: bool,
    /// The server stops: a session that is on its way here ends.
    stopping: bool,
    /// Starts another loop when this one is full.
    starter: Option<Arc<Starter<O>>>,
}

/// What a loop is made of, beside its socket.
pub(super) struct Setup<O> {
    pub connections: Connections,
    pub arrivals: mpsc::Receiver<Arrival>,
    /// Where each loop takes commands.
    pub commands: Arc<[mpsc::WeakSender<Command<O>>]>,
    /// Where each loop takes what came to another one.
    pub loops: Arc<[mpsc::Sender<Arrival>]>,
    pub routes: LoopRoutes,
    pub heartbeat: Heartbeat,
    pub starter: Option<Arc<Starter<O>>>,
}

impl<O: PeerOwner + 'static> Engine<O> {
    pub fn new(socket: Socket, setup: Setup<O>) -> Self {
        let Setup { connections, arrivals, commands, loops, routes, heartbeat, starter } = setup;
        Self {
            socket,
            connections,
            arrivals,
            commands,
            postponed: Vec::new(),
            sessions: Sessions::new(routes, loops, LoopStats::new(heartbeat)),
            timers: BinaryHeap::new(),
            watched: false,
            stopping: false,
            starter,
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
            let due = self.next_due();
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
                    Some(arrival) = self.arrivals.recv() => {
                        began = Instant::now();
                        self.take_arrival(arrival, began);
                        woken = Received::All;
                    }
                }
            }
            for command in std::mem::take(&mut self.postponed) {
                self.command(command, began);
            }
            for _ in 0..COMMANDS_A_TURN {
                match commands.try_recv() {
                    Ok(command) => self.command(command, began),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            let received = self.receive(began).max(self.take_arrivals(began)).max(woken);
            self.expire(began);
            self.drain(began);
            let ended = Instant::now();
            self.sessions.stats.note_turn(due, began, ended);
            if self.sessions.stats.beats(ended) {
                self.add_counts();
                if let Some(starter) = self.starter.as_ref().filter(|_| self.sessions.stats.is_full()) {
                    starter.relieve();
                }
            }
            flows = received != Received::Nothing;
            if received == Received::All {
                let rhythm = if std::mem::take(&mut self.watched) { RHYTHM_WATCHED } else { RHYTHM };
                std::thread::sleep(rhythm.saturating_sub(ended - began));
            }
        }
    }

    /// When the loop turns if nothing wakes it before.
    fn next_due(&self) -> Instant {
        let beat = self.sessions.stats.beat;
        let due = self.timers.peek().map_or(beat, |Reverse((at, _))| beat.min(*at));
        if self.postponed.is_empty() { due } else { due.min(Instant::now() + RHYTHM) }
    }

    /// Hands over what the sessions have counted.
    fn add_counts(&mut self) {
        let Sessions { all, stats, .. } = &mut self.sessions;
        for entry in all.values_mut() {
            stats.add(&mut entry.session);
        }
    }

    fn receive(&mut self, now: Instant) -> Received {
        let mut any = false;
        for _ in 0..BATCHES {
            let Self { socket, sessions, .. } = self;
            let here = sessions.routes.at;
            let more = socket.receive(now, |datagram| {
                any = true;
                sessions.hand_over(datagram, here, false, now);
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

    /// Takes what has come over TCP connections, and from other loops.
    fn take_arrivals(&mut self, now: Instant) -> Received {
        for taken in 0..ARRIVALS_A_TURN {
            match self.arrivals.try_recv() {
                Ok(arrival) => self.take_arrival(arrival, now),
                Err(_) if taken == 0 => return Received::Nothing,
                Err(_) => return Received::All,
            }
        }
        Received::More
    }

    fn take_arrival(&mut self, arrival: Arrival, now: Instant) {
        match arrival {
            Arrival::Frame(Frame { arrived, from, to, is_first, came_to, mut data }) => {
                let is_request = matches!(Kind::of(&data), Kind::Request(_));
                let datagram = Datagram { arrived: arrived.min(now), from, to, data: &mut data };
                let is_known = self.sessions.hand_over(datagram, came_to, is_first, now);
                if is_first && !(is_request && is_known) {
                    self.connections.cut(from.address, Cut::Unknown);
                }
            }
            Arrival::Closed(from) => match self.sessions.routes.close(from) {
                Some(Whose::Here(key)) => {
                    if let Some(entry) = self.sessions.all.get_mut(&key) {
                        entry.session.handle_closed(from);
                    }
                }
                // One that misses it finds out when nothing comes from there.
                Some(Whose::At(other)) => drop(self.sessions.loops[other].try_send(Arrival::Closed(from))),
                None => {}
            },
        }
    }

    /// Hands each session whose deadline has passed the time.
    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self.sessions.all.get_mut(&key) else { continue };
            if entry.next_timer == Some(at) {
                entry.next_timer = None;
                catch_panic(entry, |entry| entry.session.handle_timeout(now));
                self.sessions.touch(key);
            }
        }
    }

    /// Carries off what the touched sessions have to give.
    fn drain(&mut self, now: Instant) {
        while let Some(key) = self.sessions.dirty.pop() {
            match self.drain_session(key, now) {
                Some(outcome) => self.remove(key, outcome, now),
                None => self.move_session(key),
            }
        }
    }

    /// Returns what the session's end means, if it is over.
    fn drain_session(&mut self, key: Key, now: Instant) -> Option<Outcome> {
        let Sessions { all, routes, .. } = &mut self.sessions;
        let entry = all.get_mut(&key)?;
        entry.dirty = false;
        let (mut replaced, mut outcome) = (None, None);
        catch_panic(entry, |entry| {
            outcome =
                entry.take_events(key, routes, &self.connections, &mut self.watched, &mut replaced, now);
            entry.send(key, routes, &self.socket, &self.connections, now);
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
        if let Some(old) = replaced {
            self.command(Command::Replaced { id: old }, now);
        }
        outcome
    }

    /// Gives a session to the loop that its peer's datagrams come to. One that has no room for it is asked again with
    /// the next of them.
    fn move_session(&mut self, key: Key) {
        let Some(to) = self.sessions.all.get_mut(&key).and_then(|entry| entry.wanted_at.take()) else {
            return;
        };
        let Some(other) = self.commands[to].upgrade() else { return };
        let Ok(permit) = other.try_reserve() else { return };
        let Some(entry) = self.sessions.all.remove(&key) else { return };
        self.sessions.by_id.remove(&entry.id);
        entry.span.in_scope(|| debug!(to, "the session goes over to another loop"));
        self.sessions.routes.give(key, to, || permit.send(Command::Adopt { key, entry: Box::new(entry) }));
    }

    fn remove(&mut self, key: Key, over: Outcome, now: Instant) {
        let Some(mut entry) = self.sessions.all.remove(&key) else { return };
        catch_panic(&mut entry, |entry| {
            entry.session.close(now);
            while let Some(event) = entry.session.poll_event(now) {
                if let Event::Media(media) = event {
                    entry.owner.media(&entry.id, media, now);
                }
            }
            while let Some(transmit) = entry.session.poll_transmit(now) {
                send(&transmit, &self.socket, &self.connections);
            }
        });
        self.sessions.stats.add(&mut entry.session);
        entry.span.in_scope(|| info!(?over, "the session is over"));
        self.sessions.by_id.remove(&entry.id);
        for connection in self.sessions.routes.end(&entry.id, key) {
            self.connections.close(connection);
        }
        match over {
            Outcome::Stopped(reason) => entry.owner.end(reason, now),
            Outcome::Lost(SessionEnd::Idle) => entry.owner.end(EndReason::PublisherLost, now),
            Outcome::Lost(_) => entry.owner.lost(&entry.id, now),
            Outcome::Replaced => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sessions::Entry;
    use super::*;
    use crate::ingest::webrtc::tests::{held, offer};
    use crate::publish::publication::Publication;
    use crate::publish::status::Status;
    use crate::webrtc::loops::Directory;
    use crate::webrtc::socket::Addresses;
    use crate::webrtc::{Config, PeerError, socket, tcp};

    /// The only loop.
    fn alone(config: &Config) -> Engine<Publication> {
        let (socket, _) = socket::open_both(config, true).unwrap();
        let addresses = Addresses::new(socket.local_addr().unwrap(), &[]).unwrap();
        let socket = Socket::new(socket, addresses).unwrap();
        let (sender, arrivals) = tcp::arrivals();
        let setup = Setup {
            connections: Connections::default(),
            arrivals,
            commands: Arc::new([mpsc::channel(1).0.downgrade()]),
            loops: Arc::new([sender]),
            routes: LoopRoutes::new(Directory::new(1), 0),
            heartbeat: Heartbeat::new("test"),
            starter: None,
        };
        Engine::new(socket, setup)
    }

    #[tokio::test]
    async fn a_session_that_panics_ends_alone_and_leaves_nothing_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (webrtc, mut commands) = held(dir.path(), 2);
        let config = Config { udp_bind: "127.0.0.1:0".to_owned(), ..Config::default() };
        let mut engine = alone(&config);
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
        assert_eq!(
            (engine.sessions.routes.ufrags(), engine.sessions.all.len()),
            (1, 1),
            "routes and sessions"
        );
        assert!(matches!(*accepted[0].status.borrow(), Status::Failed { .. }), "{:?}", accepted[0].status);
        assert!(webrtc.accept(offer("breaks")).await.is_ok(), "its name and its permit are still taken");
    }
}
