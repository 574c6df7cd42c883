//! The publisher over a real socket or connection, in real time.

use super::network::{Datagram, Dice, Endpoint};
use super::publisher::{Config, Publisher};
use super::wire::{Connection, Wire};
use futures_util::future::BoxFuture;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::time::Instant;
use str0m::net::Protocol;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

type Command = Box<dyn FnOnce(&mut Driver) -> BoxFuture<'_, ()> + Send>;

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
    wire: Wire,
    /// The share of datagrams that get lost, each way.
    loss: f64,
    dice: Dice,
    stopped: bool,
}

impl Live {
    /// Binds a socket on loopback, for which `configure` says what to publish; gives the offer.
    pub async fn start(configure: impl FnOnce(SocketAddr) -> Config) -> (Self, String) {
        Self::over(Wire::udp().await, configure)
    }

    /// The same over a TCP connection that the publisher makes to the server.
    pub fn start_tcp(configure: impl FnOnce(SocketAddr) -> Config) -> (Self, String) {
        Self::over(Wire::tcp(), |local| Config { protocol: Protocol::Tcp, ..configure(local) })
    }

    fn over(wire: Wire, configure: impl FnOnce(SocketAddr) -> Config) -> (Self, String) {
        let local = wire.local_addr();
        let (publisher, offer) = Publisher::new(configure(local), Instant::now());
        let (commands, queue) = mpsc::channel(4);
        let driver = Driver { publisher, local, wire, loss: 0.0, dice: Dice::new(1), stopped: false };
        (Self { commands, task: tokio::spawn(driver.run(queue)) }, offer)
    }

    /// Does something with the publisher.
    pub async fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Publisher) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        self.command(move |driver| drop(reply.send(act(&mut driver.publisher)))).await;
        answer.await.expect("the publisher runs")
    }

    async fn command(&self, act: impl FnOnce(&mut Driver) + Send + 'static) {
        let command: Command = Box::new(move |driver| {
            act(driver);
            Box::pin(ready(()))
        });
        self.commands.send(command).await.expect("the publisher runs");
    }

    /// Does something with its TCP connection.
    async fn connection(&self, act: impl FnOnce(&mut Connection) -> BoxFuture<'_, ()> + Send + 'static) {
        let command: Command = Box::new(move |driver| match &mut driver.wire {
            Wire::Tcp(connection) => act(connection),
            Wire::Udp(_) => panic!("it has no connection"),
        });
        self.commands.send(command).await.expect("the publisher runs");
    }

    /// Its TCP connection ends behind what was sent; it makes another one for its next check.
    pub async fn close_connection(&self) {
        self.connection(|connection| Box::pin(connection.close())).await;
    }

    /// Its TCP connection is reset, with what is under way; it makes another one for its next check.
    pub async fn reset_connection(&self) {
        self.connection(|connection| {
            connection.reset();
            Box::pin(ready(()))
        })
        .await;
    }

    /// Takes the answer to the latest offer.
    pub async fn accept(&self, answer: &str) {
        let answer = answer.to_owned();
        self.with(move |publisher| publisher.accept(&answer)).await;
    }

    /// Goes on from another port, as behind a NAT that has forgotten it: the publisher doesn't notice.
    pub async fn rebind(&self) {
        let wire = Wire::udp().await;
        self.command(move |driver| driver.wire = wire).await;
    }

    /// From now on this share of datagrams gets lost, each way.
    pub async fn lose(&self, share: f64) {
        self.command(move |driver| driver.loss = share).await;
    }

    /// Ends it and gives the publisher with all it noted.
    pub async fn stop(self) -> Publisher {
        let stop: Command = Box::new(|driver| {
            driver.stopped = true;
            Box::pin(ready(()))
        });
        let _ = self.commands.send(stop).await;
        self.task.await.expect("the publisher ends well")
    }
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) -> Publisher {
        while !self.stopped {
            while let Some(datagram) = self.publisher.transmit(Instant::now()) {
                if !self.dice.chance(self.loss) {
                    self.wire.send(datagram.to, &datagram.bytes).await;
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
                received = self.wire.receive() => {
                    if let Ok((bytes, from)) = received
                        && !self.dice.chance(self.loss)
                    {
                        self.publisher.receive(Instant::now(), Datagram { from, to: self.local, bytes });
                    }
                }
                () = wake => self.publisher.timeout(Instant::now()),
                command = queue.recv() => match command {
                    Some(command) => command(&mut self).await,
                    None => self.stopped = true,
                },
            }
        }
        self.publisher
    }
}
