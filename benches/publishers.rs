//! Those who publish: `str0m`, in real time, from this process, whose own cost is not counted. What they send
//! and when is noted, so that it can be said whether they kept up with their schedule.
//!
//! Two threads drive all of them, each awake once in a [`TICK`]: a task and a timer for each publisher would
//! take more of the machine than the one who is measured.

use crate::support::media::Clip;
use crate::support::network::{Datagram, Endpoint, rtp_payload_type};
use crate::support::publisher::{Config, Publisher};
use crate::support::signalling::Whip;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use reqwest::Client;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender as Commands, TryRecvError, channel};
use std::time::{Duration, Instant};
use str0m::media::MediaKind;
use tokio::sync::oneshot;

/// How late a packet may be, in either direction.
const TICK: Duration = Duration::from_millis(1);
/// How long a publisher may take to connect: as long as the server waits for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Over what time publishers come at the least, so that their keyframes don't fall together; and what each has
/// for its handshake, which takes both sides several ms of the processor.
const COMING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(30));
/// The same for how they go.
const GOING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(15));
/// One that is further behind its schedule catches up in such steps, so that not all of it waits in str0m.
const STEP: Duration = Duration::from_millis(500);

/// All that publish in a run.
pub struct Fleet {
    drivers: [Commands<Command>; 2],
    client: Client,
    sessions: Vec<Whip>,
    packets: Arc<AtomicU64>,
    /// Where the other side receives.
    pub port: u16,
}

enum Command {
    /// One more, by its number, with the answer to its offer.
    Start(usize, Box<Sender>, String),
    /// It sends no more frames.
    Stop(usize),
    /// It is given back.
    End(usize, oneshot::Sender<Sender>),
}

/// A frame: when it was to be sent, and when its last packet was.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    pub due: Instant,
    pub left: Instant,
}

/// One that publishes.
pub struct Sender {
    pub publisher: Publisher,
    /// Of each frame in `publisher.sent()`.
    pub frames: Vec<Sending>,
    /// For how long it published; none if it never connected.
    pub lasted: Option<Duration>,
    local: SocketAddr,
    socket: UdpSocket,
    /// What it was told to be the time, and what it waits for.
    latest: Instant,
    deadline: Option<Instant>,
    connected: Option<oneshot::Sender<()>>,
    packets: Arc<AtomicU64>,
}

impl Fleet {
    /// Has so many publish at `base` as `bench-0`, `bench-1` and so on. All of them are connected then, or have
    /// given up.
    pub async fn start(base: &str, streams: usize, clips: &(Clip, Clip)) -> Self {
        let drivers = std::array::from_fn(|_| {
            let (commands, queue) = channel();
            std::thread::spawn(move || Driver::new().run(&queue));
            commands
        });
        // A connection for each request: publishers have nothing in common.
        let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let mut fleet = Self { drivers, client, sessions: Vec::new(), packets: Arc::default(), port: 0 };
        let mut connecting = Vec::new();
        let began = Instant::now();
        for n in 0..streams {
            let (sender, offer, connected) = Sender::bind(clips.clone(), fleet.packets.clone());
            let url = format!("{base}/whip/bench-{n}");
            let (whip, answer) = Whip::publish_by(fleet.client.clone(), &url, &offer, None).await.unwrap();
            fleet.port = port_of(&answer);
            fleet.tell(n, Command::Start(n, Box::new(sender), answer));
            fleet.sessions.push(whip);
            connecting.push(connected);
            rest(COMING, began, n + 1, streams).await;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for (n, connected) in connecting.into_iter().enumerate() {
            match tokio::time::timeout_at(deadline, connected).await {
                Ok(connected) => connected.unwrap(),
                Err(_) => println!("    bench-{n} does not connect"),
            }
        }
        fleet
    }

    /// RTP packets that were sent so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Ends all of them in order.
    pub async fn stop(self) -> Vec<Sender> {
        let (began, streams) = (Instant::now(), self.sessions.len());
        let mut ending = Vec::new();
        for (n, whip) in self.sessions.iter().enumerate() {
            self.tell(n, Command::Stop(n));
            let request = self.client.delete(&whip.location);
            ending.push(tokio::spawn(async move {
                // Its last packets are on their way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                request.send().await?.error_for_status()
            }));
            rest(GOING, began, n + 1, streams).await;
        }
        let mut ended = Vec::new();
        for (n, deleted) in ending.into_iter().enumerate() {
            let deleted = deleted.await.unwrap();
            let (reply, sender) = oneshot::channel();
            self.tell(n, Command::End(n, reply));
            let sender = sender.await.unwrap();
            // One that never connected may be forgotten by now.
            if let (Err(error), Some(_)) = (deleted, sender.lasted) {
                println!("    bench-{n} can't say that it ends: {error}");
            }
            ended.push(sender);
        }
        ended
    }

    fn tell(&self, n: usize, command: Command) {
        self.drivers[n % self.drivers.len()].send(command).expect("the driver runs");
    }
}

/// Drives some of the publishers, on a thread of its own.
struct Driver {
    poll: Poll,
    senders: BTreeMap<usize, Sender>,
}

impl Driver {
    fn new() -> Self {
        Self { poll: Poll::new().unwrap(), senders: BTreeMap::new() }
    }

    /// Until nobody gives commands any more.
    fn run(mut self, commands: &Receiver<Command>) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 2048];
        loop {
            std::thread::sleep(TICK);
            loop {
                match commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            // What is due goes out before the time of what has come is told.
            for sender in self.senders.values_mut() {
                sender.wake();
            }
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                if let Some(sender) = self.senders.get_mut(&event.token().0) {
                    sender.receive(&mut buffer);
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(n, mut sender, answer) => {
                self.poll.registry().register(&mut sender.socket, Token(n), Interest::READABLE).unwrap();
                sender.publisher.accept(&answer);
                sender.transmit();
                self.senders.insert(n, *sender);
            }
            Command::Stop(n) => {
                let Some(sender) = self.senders.get_mut(&n) else { return };
                sender.lasted = sender.publisher.connected_at().map(|start| start.elapsed());
                sender.publisher.stop_sending();
            }
            Command::End(n, reply) => {
                let mut sender = self.senders.remove(&n).expect("one that was started");
                self.poll.registry().deregister(&mut sender.socket).unwrap();
                let _ = reply.send(sender);
            }
        }
    }
}

impl Sender {
    fn bind(clips: (Clip, Clip), packets: Arc<AtomicU64>) -> (Self, String, oneshot::Receiver<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap();
        let config = Config { red: false, ..Config::playing(local, clips) };
        let latest = Instant::now();
        let (publisher, offer) = Publisher::new(config, latest);
        let (connected, connects) = oneshot::channel();
        let (frames, lasted, deadline, connected) = (Vec::new(), None, None, Some(connected));
        let sender = Self { publisher, frames, lasted, local, socket, latest, deadline, connected, packets };
        (sender, offer, connects)
    }

    /// Frames that were sent, of pictures and of sound.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.publisher.sent();
        let video = all.iter().filter(|sent| sent.kind == MediaKind::Video).count();
        (video, all.len() - video)
    }

    /// Takes all that has come for it.
    fn receive(&mut self, buffer: &mut [u8]) {
        while let Ok((length, from)) = self.socket.recv_from(buffer) {
            self.latest = Instant::now();
            let bytes = buffer[..length].to_vec();
            self.publisher.receive(self.latest, Datagram { from, to: self.local, bytes });
        }
        self.transmit();
    }

    /// Does all that is due.
    fn wake(&mut self) {
        let now = Instant::now();
        // Again and again, because str0m makes packets of one frame of a track each time.
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) {
            self.latest = now.min(self.latest.max(deadline) + STEP);
            self.publisher.timeout(self.latest);
            self.transmit();
        }
        let Some(start) = self.publisher.connected_at() else { return };
        let left = Instant::now();
        let new = &self.publisher.sent()[self.frames.len()..];
        self.frames.extend(new.iter().map(|frame| Sending { due: start + frame.captured, left }));
    }

    /// Sends what there is to send.
    fn transmit(&mut self) {
        while let Some(datagram) = self.publisher.transmit(self.latest) {
            // What the kernel doesn't take is lost, as on any network.
            let _ = self.socket.send_to(&datagram.bytes, datagram.to);
            let is_media = rtp_payload_type(&datagram.bytes).is_some();
            self.packets.fetch_add(is_media.into(), Ordering::Relaxed);
        }
        self.deadline = self.publisher.deadline();
        if self.publisher.connected_at().is_some()
            && let Some(connected) = self.connected.take()
        {
            let _ = connected.send(());
        }
    }
}

/// Until the next of so many is to come or go, when so many have.
async fn rest((least, each): (Duration, Duration), began: Instant, done: usize, all: usize) {
    let spread = least.max(each * all as u32);
    tokio::time::sleep_until((began + spread * done as u32 / all as u32).into()).await;
}

/// The port of an answer's first candidate (RFC 8839 section 5.1).
fn port_of(answer: &str) -> u16 {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:")).expect("a candidate");
    line.split_whitespace().nth(5).unwrap().parse().unwrap()
}
