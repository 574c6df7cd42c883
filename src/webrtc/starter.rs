//! Starts the loops: as many as there are to be, or with `webrtc.loops = "auto"` one, and another one when one is
//! full. Several cost more than one that has time for all.

use crate::base::critical_task::CriticalTask;
use crate::base::heartbeat::Heartbeat;
use crate::webrtc::engine::{Command, Engine, Setup};
use crate::webrtc::loops::{Directory, LoopRoutes};
use crate::webrtc::socket::{self, Addresses, Socket};
use crate::webrtc::tcp::{Arrival, Connections};
use crate::webrtc::{PeerOwner, with_runtime};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What a loop receives by: from other loops and TCP connections, and what is asked of it.
pub(super) struct Inlets<O> {
    pub arrivals: mpsc::Receiver<Arrival>,
    pub commands: mpsc::Receiver<Command<O>>,
    pub heartbeat: Heartbeat,
}

/// What all loops have in common, and those that haven't started.
pub(super) struct Starter<O> {
    pub first: UdpSocket,
    pub addresses: Addresses,
    pub connections: Connections,
    /// Where each loop takes commands. Weak: the loops end with the last handle to them.
    pub commands: Arc<[mpsc::WeakSender<Command<O>>]>,
    /// Where each loop takes what came to another one.
    pub loops: Arc<[mpsc::Sender<Arrival>]>,
    pub directory: Arc<Directory>,
    pub waiting: Mutex<VecDeque<Inlets<O>>>,
    pub alive: CriticalTask,
}

impl<O: PeerOwner + 'static> Starter<O> {
    /// Starts the next loop, if there is one more, on a thread of its own.
    pub fn start_one(self: &Arc<Self>) -> io::Result<()> {
        let mut waiting = self.waiting.lock();
        let Some(Inlets { arrivals, commands, heartbeat }) = waiting.pop_front() else { return Ok(()) };
        let at = self.directory.active();
        let socket = if at == 0 { self.first.try_clone()? } else { socket::open_another(&self.first)? };
        let (runtime, socket) = with_runtime(|| Socket::new(socket, self.addresses.clone()))?;
        let setup = Setup {
            connections: self.connections.clone(),
            arrivals,
            commands: self.commands.clone(),
            loops: self.loops.clone(),
            routes: LoopRoutes::new(self.directory.clone(), at),
            heartbeat: heartbeat.clone(),
            starter: Some(self.clone()),
        };
        let (engine, alive) = (Engine::new(socket, setup), self.alive.beside("media engine"));
        // Before it reads: what is first in its share of datagrams is of sessions of the others.
        self.directory.activate();
        let started = std::thread::Builder::new().name("webrtc".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(engine.run(commands));
        });
        if let Err(error) = started {
            self.directory.deactivate();
            return Err(error);
        }
        heartbeat.beat(Instant::now());
        Ok(())
    }

    /// A loop is full: another one takes its share. Where none can be started, there is one less.
    pub fn relieve(self: &Arc<Self>) {
        let before = self.directory.active();
        match self.start_one() {
            Ok(()) if self.directory.active() > before => {
                tracing::info!(loops = before + 1, "a media loop is full: another one takes its share");
            }
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "a media loop is full, and another one can't be started"),
        }
    }
}
