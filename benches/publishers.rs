//! Those who publish: `str0m`, in real time, from this process, whose own cost is not counted. What they send
//! and when is noted, so that it can be said whether they kept up with their schedule.

use crate::support::media::Clip;
use crate::support::network::{Datagram, Endpoint, rtp_payload_type};
use crate::support::publisher::{Config, Publisher};
use crate::support::signalling::Whip;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use str0m::media::MediaKind;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// All that publish in a run.
pub struct Fleet {
    running: Vec<Running>,
    packets: Arc<AtomicU64>,
    /// Where the other side receives.
    pub port: u16,
}

struct Running {
    commands: mpsc::Sender<Command>,
    whip: Whip,
    task: JoinHandle<Sender>,
}

enum Command {
    Accept(String),
    Stop,
    End,
}

/// A frame: when it was to be sent, and when its last packet was.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    pub due: Instant,
    pub left: Instant,
}

/// One that has published.
pub struct Sender {
    pub publisher: Publisher,
    /// Of each frame in `publisher.sent()`.
    pub frames: Vec<Sending>,
    /// For how long it published.
    pub lasted: Duration,
    local: SocketAddr,
    socket: UdpSocket,
    connected: Option<oneshot::Sender<()>>,
    packets: Arc<AtomicU64>,
}

/// How long a publisher may take to connect: as long as the server waits for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Over what time publishers come, and go, so that neither their handshakes nor their keyframes fall together.
const SPREAD: Duration = Duration::from_secs(2);

impl Fleet {
    /// Has so many publish at `base` as `bench-0`, `bench-1` and so on; all of them are connected then.
    pub async fn start(base: &str, streams: usize, clips: &(Clip, Clip)) -> Self {
        let packets = Arc::new(AtomicU64::new(0));
        let mut fleet = Self { running: Vec::new(), packets, port: 0 };
        let mut connecting = Vec::new();
        let began = Instant::now();
        for n in 0..streams {
            let (sender, offer, connected) = Sender::bind(clips.clone(), fleet.packets.clone()).await;
            let (whip, answer) = Whip::publish(&format!("{base}/whip/bench-{n}"), &offer).await.unwrap();
            fleet.port = port_of(&answer);
            let (commands, queue) = mpsc::channel(4);
            let task = tokio::spawn(sender.run(queue));
            commands.send(Command::Accept(answer)).await.unwrap();
            fleet.running.push(Running { commands, whip, task });
            connecting.push(connected);
            tokio::time::sleep_until((began + SPREAD * (n as u32 + 1) / streams as u32).into()).await;
        }
        for (n, connected) in connecting.into_iter().enumerate() {
            let connected = tokio::time::timeout(PATIENCE, connected).await;
            connected.unwrap_or_else(|_| panic!("bench-{n} does not connect")).unwrap();
        }
        fleet
    }

    /// RTP packets that were sent so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Ends all of them in order.
    pub async fn stop(self) -> Vec<Sender> {
        let (began, streams) = (Instant::now(), self.running.len() as u32);
        let mut ending = Vec::new();
        for (n, running) in self.running.into_iter().enumerate() {
            ending.push(tokio::spawn(running.stop()));
            tokio::time::sleep_until((began + SPREAD * (n as u32 + 1) / streams).into()).await;
        }
        let mut ended = Vec::new();
        for task in ending {
            ended.push(task.await.unwrap());
        }
        ended
    }
}

impl Running {
    async fn stop(self) -> Sender {
        self.commands.send(Command::Stop).await.unwrap();
        // Its last packets are on their way.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.whip.delete().await.unwrap();
        // It may have noticed, and gone.
        let _ = self.commands.send(Command::End).await;
        self.task.await.unwrap()
    }
}

impl Sender {
    async fn bind(clips: (Clip, Clip), packets: Arc<AtomicU64>) -> (Self, String, oneshot::Receiver<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let local = socket.local_addr().unwrap();
        let config = Config { red: false, ..Config::playing(local, clips) };
        let (publisher, offer) = Publisher::new(config, Instant::now());
        let (connected, connects) = oneshot::channel();
        let (frames, lasted, connected) = (Vec::new(), Duration::ZERO, Some(connected));
        let sender = Self { publisher, frames, lasted, local, socket, connected, packets };
        (sender, offer, connects)
    }

    /// Frames of a kind that were sent.
    pub fn sent(&self, kind: MediaKind) -> usize {
        self.publisher.sent().iter().filter(|sent| sent.kind == kind).count()
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Self {
        let mut buffer = vec![0; 2048];
        loop {
            self.transmit().await;
            let deadline = self.publisher.deadline();
            let wake = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received {
                        let bytes = buffer[..length].to_vec();
                        self.publisher.receive(Instant::now(), Datagram { from, to: self.local, bytes });
                    }
                }
                () = wake => self.publisher.timeout(Instant::now()),
                command = commands.recv() => match command {
                    Some(Command::Accept(answer)) => self.publisher.accept(&answer),
                    Some(Command::Stop) => {
                        self.lasted = self.publisher.connected_at().unwrap().elapsed();
                        self.publisher.stop_sending();
                    }
                    Some(Command::End) | None => return self,
                },
            }
        }
    }

    /// Sends what there is to send.
    async fn transmit(&mut self) {
        while let Some(datagram) = self.publisher.transmit(Instant::now()) {
            // What the kernel doesn't take is lost, as on any network.
            let _ = self.socket.send_to(&datagram.bytes, datagram.to).await;
            let is_media = rtp_payload_type(&datagram.bytes).is_some();
            self.packets.fetch_add(is_media.into(), Ordering::Relaxed);
        }
        let Some(start) = self.publisher.connected_at() else { return };
        if let Some(connected) = self.connected.take() {
            let _ = connected.send(());
        }
        let left = Instant::now();
        let new = &self.publisher.sent()[self.frames.len()..];
        self.frames.extend(new.iter().map(|frame| Sending { due: start + frame.captured, left }));
    }
}

/// The port of an answer's first candidate (RFC 8839 section 5.1).
fn port_of(answer: &str) -> u16 {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:")).expect("a candidate");
    line.split_whitespace().nth(5).unwrap().parse().unwrap()
}
