//! The publisher over a real socket, in real time.

use super::network::{Datagram, Dice, Endpoint};
use super::publisher::{Config, Publisher};
use std::future::pending;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

type Command = Box<dyn FnOnce(&mut Driver) + Send>;

/// A running publisher; dropping it ends it without a word to the server.
pub struct Live {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<Publisher>,
}

/// What the task owns.
struct Driver {
    publisher: Publisher,
    /// The address the publisher believes it has.
    local: SocketAddr,
    socket: UdpSocket,
    /// The share of datagrams that get lost, each way.
    loss: f64,
    dice: Dice,
    stopped: bool,
}

impl Live {
    /// Binds a socket on loopback, for which `configure` says what to publish; gives the offer.
    pub async fn start(configure: impl FnOnce(SocketAddr) -> Config) -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let local = socket.local_addr().unwrap();
        let (publisher, offer) = Publisher::new(configure(local), Instant::now());
        let (commands, queue) = mpsc::channel(4);
        let driver = Driver { publisher, local, socket, loss: 0.0, dice: Dice::new(1), stopped: false };
        (Self { commands, task: tokio::spawn(driver.run(queue)) }, offer)
    }

    /// Does something with the publisher.
    pub async fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Publisher) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let command: Command = Box::new(move |driver| {
            let _ = reply.send(act(&mut driver.publisher));
        });
        self.commands.send(command).await.expect("the publisher runs");
        answer.await.expect("the publisher runs")
    }

    /// Takes the answer to the latest offer.
    pub async fn accept(&self, answer: &str) {
        let answer = answer.to_owned();
        self.with(move |publisher| publisher.accept(&answer)).await;
    }

    /// Goes on from another port, as behind a NAT that has forgotten it: the publisher doesn't notice.
    pub async fn rebind(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        self.commands.send(Box::new(move |driver| driver.socket = socket)).await.expect("it runs");
    }

    /// From now on this share of datagrams gets lost, each way.
    pub async fn lose(&self, share: f64) {
        self.commands.send(Box::new(move |driver| driver.loss = share)).await.expect("it runs");
    }

    /// Ends it and gives the publisher with all it noted.
    pub async fn stop(self) -> Publisher {
        let _ = self.commands.send(Box::new(|driver| driver.stopped = true)).await;
        self.task.await.expect("the publisher ends well")
    }
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) -> Publisher {
        let mut buffer = vec![0; 2048];
        while !self.stopped {
            while let Some(datagram) = self.publisher.transmit(Instant::now()) {
                if !self.dice.chance(self.loss) {
                    // What the kernel doesn't take is lost, as on any network.
                    let _ = self.socket.send_to(&datagram.bytes, datagram.to).await;
                }
            }
            let deadline = self.publisher.deadline();
            let wake = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received
                        && !self.dice.chance(self.loss)
                    {
                        let bytes = buffer[..length].to_vec();
                        self.publisher.receive(Instant::now(), Datagram { from, to: self.local, bytes });
                    }
                }
                () = wake => self.publisher.timeout(Instant::now()),
                command = queue.recv() => match command {
                    Some(command) => command(&mut self),
                    None => self.stopped = true,
                },
            }
        }
        self.publisher
    }
}
