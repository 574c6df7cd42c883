//! One upload's task: obeys its sockets, keeps its time, feeds its publication.

use crate::base::end_reason::EndReason;
use crate::base::id::SessionId;
use crate::base::tombstones::Tombstone;
use crate::container::mp4;
use crate::ingest::chunks::demux::{Demuxer, Out};
use crate::ingest::chunks::protocol::Protocol;
use crate::ingest::chunks::{Command, Inner, Upload, UploadError};
use crate::media::Event;
use crate::publish::publication::Publication;
use crate::publish::status::Status;
use crate::publish::{PublishError, Transport};
use crate::record::ByteSink;
use bytes::{Bytes, BytesMut};
use futures_util::future::OptionFuture;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];
/// What the first bytes have to be to tell the container.
const MAGIC: usize = 8;
/// How often a task that waits for the disk looks whether there is still anything to wait for.
const POLL: Duration = Duration::from_secs(1);
/// Bytes that are taken apart before the recorder is asked whether it keeps up.
const SLICE: usize = 256 << 10;

enum Sink {
    /// Too few to tell what they are.
    Unknown(BytesMut),
    Webm(Box<Demuxer>),
    Mp4(ByteSink, Box<mp4::FragmentReader>),
}

pub(super) struct Task {
    inner: Arc<Inner>,
    publication: Arc<Publication>,
    status: watch::Receiver<Status>,
    session: SessionId,
    protocol: Protocol,
    sink: Sink,
    /// Frames have come: the publication is this session's until another takes over.
    connected: bool,
    /// How often a recorder's clock was set, each track counted.
    clock_sets: u64,
    /// Counts the sockets that have held it.
    hold: watch::Sender<u64>,
    /// Ends with the socket.
    socket: Option<oneshot::Receiver<Infallible>>,
}

impl Task {
    pub fn new(inner: Arc<Inner>, publication: Arc<Publication>) -> Self {
        Self {
            inner,
            status: publication.status(),
            publication,
            session: SessionId::new(),
            protocol: Protocol::new(Instant::now()),
            sink: Sink::Unknown(BytesMut::new()),
            connected: false,
            clock_sets: 0,
            hold: watch::Sender::new(0),
            socket: None,
        }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, mine: mpsc::Sender<Command>) {
        let stop = self.inner.tasks.stop_token();
        while !self.status.borrow().is_final() {
            let (due, reason) = self.protocol.end(&self.inner.config);
            let mut status = self.status.clone();
            let command = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = commands.recv() => command,
                () = gone(&mut self.socket) => {
                    self.protocol.lost(Instant::now());
                    None
                }
                () = tokio::time::sleep_until(due.into()), if !self.publication.is_over() => {
                    self.end(reason);
                    None
                }
                _ = status.wait_for(Status::is_final) => None,
            };
            if let Some(command) = command {
                self.handle(command).await;
            }
        }
        let tombstone = self.inner.tombstones.add();
        let forget = OptionFuture::from(tombstone.map(Tombstone::expires));
        tokio::pin!(forget);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = &mut forget => break,
                Some(command) = commands.recv() => self.handle(command).await,
            }
        }
        let mut uploads = self.inner.uploads.lock();
        // The same secret may be another upload's by now.
        if uploads.get(self.publication.resume()).is_some_and(|held| mine.same_channel(held)) {
            uploads.remove(self.publication.resume());
        }
    }

    /// An upload that has been replaced only goes; the publication is another's.
    fn end(&mut self, reason: EndReason) {
        if self.publication.has_left(&self.session) {
            self.protocol = Protocol::new(Instant::now());
            return;
        }
        self.publication.end(reason, Instant::now());
    }

    async fn handle(&mut self, command: Command) {
        let now = Instant::now();
        // An error means that the socket waits for the answer no more.
        match command {
            Command::Attach { reply, commands } => {
                let _ = reply.send(Ok(self.attach(commands, now)));
            }
            Command::Start { hold, reply } => {
                let done = self.check(hold).and_then(|()| self.protocol.start(now));
                let _ = reply.send(done.and_then(|()| Ok(self.publication.claim()?)));
            }
            Command::Bytes { hold, bytes, reply } => {
                let taken = match self.check(hold) {
                    Ok(()) => self.take(bytes).await,
                    error => error,
                };
                let _ = reply.send(taken.map(|()| self.protocol.offset()));
            }
            Command::Stop { hold, bytes, reply } => {
                let _ = reply.send(self.check(hold).and_then(|()| self.protocol.stop(bytes, now)));
            }
        }
    }

    fn attach(&mut self, commands: mpsc::Sender<Command>, now: Instant) -> Upload {
        self.hold.send_modify(|hold| *hold += 1);
        let (socket, gone) = oneshot::channel();
        self.socket = Some(gone);
        self.protocol.attached(now);
        Upload {
            uid: self.publication.resume().clone(),
            name: self.publication.name().clone(),
            offset: self.protocol.offset(),
            status: self.status.clone(),
            hold: *self.hold.borrow(),
            commands,
            held: self.hold.subscribe(),
            _socket: socket,
        }
    }

    fn check(&self, hold: u64) -> Result<(), UploadError> {
        if *self.hold.borrow() != hold || (self.connected && self.publication.has_left(&self.session)) {
            return Err(UploadError::Replaced);
        }
        if self.publication.is_over() {
            return Err(PublishError::SessionNotFound.into());
        }
        Ok(())
    }

    /// Takes a message's bytes; what is wrong with them ends the publication, with what came before.
    async fn take(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let len = bytes.len() as u64;
        self.protocol.expects(len)?;
        let fed = self.feed(bytes).await;
        if let Err(UploadError::BadBlob(_) | UploadError::UnsupportedCodec(_)) = &fed {
            self.publication.end(EndReason::BadMedia, Instant::now());
        }
        fed?;
        self.protocol.took(len, Instant::now());
        Ok(())
    }

    async fn feed(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        if let Sink::Unknown(first) = &mut self.sink {
            first.extend_from_slice(&bytes);
            if first.len() < MAGIC {
                return Ok(());
            }
            bytes = std::mem::take(first).freeze();
        }
        self.detect(&bytes)?;
        if let Sink::Mp4(sink, reader) = &mut self.sink {
            reader.push(&bytes);
            let length = bytes.len();
            let written = sink.write(bytes).await;
            self.publication.kept_bytes(&self.session, length, Instant::now());
            return match written {
                _ if reader.is_broken() => Err(UploadError::BadBlob("these bytes are no MP4".into())),
                true => Ok(()),
                false => Err(PublishError::SessionNotFound.into()),
            };
        }
        while !bytes.is_empty() {
            let slice = bytes.split_to(SLICE.min(bytes.len()));
            self.keep_pace().await?;
            self.demux(&slice)?;
        }
        Ok(())
    }

    /// What the bytes are. A MediaRecorder that starts again, with another container or with MP4, which
    /// can't go on in the same file, begins with a Blob.
    fn detect(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let is_mp4 = mp4::begins(bytes);
        match &self.sink {
            Sink::Unknown(_) if !is_mp4 && !bytes.starts_with(&EBML) => {
                let message = "these bytes are neither WebM nor MP4: a recording begins with its header";
                return Err(UploadError::BadBlob(message.into()));
            }
            _ if is_mp4 => {
                let (now, transport) = (Instant::now(), Transport::Chunks);
                let sink = self.publication.connected_bytes(&self.session, transport, now)?;
                self.sink = Sink::Mp4(sink, Box::default());
                self.connected = true;
            }
            Sink::Unknown(_) | Sink::Mp4(..) if bytes.starts_with(&EBML) => {
                self.sink = Sink::Webm(Box::new(Demuxer::new()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits while the recorder is behind.
    async fn keep_pace(&self) -> Result<(), UploadError> {
        loop {
            if self.publication.is_over() {
                return Err(PublishError::SessionNotFound.into());
            }
            let Some(stream) = self.publication.stream() else { return Ok(()) };
            if tokio::time::timeout(POLL, stream.ready()).await.is_ok() {
                return Ok(());
            }
        }
    }

    fn demux(&mut self, slice: &[u8]) -> Result<(), UploadError> {
        let Sink::Webm(demuxer) = &mut self.sink else { return Ok(()) };
        let now = Instant::now();
        let at = now.saturating_duration_since(self.publication.origin());
        let mut out = Vec::new();
        let read = demuxer.push(slice, at, &mut out);
        for out in out {
            match out {
                Out::Tracks(tracks) => {
                    self.publication.connected(&self.session, Transport::Chunks, &tracks, now)?;
                    self.connected = true;
                }
                // A viewer that needs a keyframe waits for the next: MediaRecorder takes no requests.
                Out::Frame(frame) => drop(self.publication.media(&self.session, Event::Frame(frame), now)),
                Out::Gap(gap) => {
                    self.clock_sets += 1;
                    // A clock that is set all the time fills no log.
                    if self.clock_sets.is_power_of_two() {
                        let (stream, times) = (self.publication.name(), self.clock_sets);
                        tracing::warn!(%stream, track = gap.track + 1, at = ?gap.from, times,
                            "the recorder's clock was set: its frames go on as they arrive");
                    }
                    self.publication.media(&self.session, Event::Gap(gap), now);
                }
            }
        }
        read
    }
}

/// Resolves when the socket is gone; never if there is none.
async fn gone(socket: &mut Option<oneshot::Receiver<Infallible>>) {
    let Some(open) = socket else { return std::future::pending().await };
    let _ = open.await;
    *socket = None;
}
