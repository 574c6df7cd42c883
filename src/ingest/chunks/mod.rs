//! MediaRecorder's output over `/chunks` (`src/http/PROTOCOL.md`, "Chunks"): a resumable stream of bytes.
//!
//! An [`Upload`] is one socket's hold of it. What it is given goes to the upload's one task, which knows
//! the [`protocol`], takes the bytes apart ([`demux`]) and pushes frames to the publication; a lost
//! socket ends nothing until `chunks.resume_grace` is over. MP4 is kept as it comes.
//!
//! What an ack means: the bytes are the recorder's, so a client may forget them. A server that is killed
//! loses at most the last `record.flush_interval` of frames; bytes that a client still had would be of
//! no use then, since a restart ends every recording. Back-pressure is the answer that doesn't come:
//! while the disk is behind, the next bytes are neither taken nor acked, and nothing is dropped.

mod clock;
pub(crate) mod demux;
pub(crate) mod protocol;
mod upload;

use crate::base::error_code::ErrorCode;
use crate::base::id::{Secret, StreamName};
use crate::base::quota::ClientKey;
use crate::base::tasks::Tasks;
use crate::base::tombstones::Tombstones;
use crate::base::units;
use crate::publish::PublishError;
use crate::publish::publication::Publication;
use crate::publish::registry::Publications;
use crate::publish::status::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use upload::Task;

/// So many ended uploads are remembered by their secret.
const MEMORY: usize = 1000;

/// Section `chunks` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a client that lost its socket may take to go on.
    #[serde(deserialize_with = "units::duration")]
    pub resume_grace: Duration,
    /// The largest message, in bytes of media.
    #[serde(deserialize_with = "units::size")]
    pub max_message: u64,
    /// A connected client that sends nothing for this long is ended.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            resume_grace: Duration::from_secs(60),
            max_message: 8 << 20,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// Why something a client sent is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// A message out of turn.
    #[error("{0}")]
    BadRequest(&'static str),
    /// Bytes that are no recording; what came before them is sealed.
    #[error("{0}: start a new recording")]
    BadBlob(String),
    /// Codecs that we don't record.
    #[error("{0} can't be recorded: use VP8, VP9, AV1 or H.264 for video and Opus for audio")]
    UnsupportedCodec(String),
    /// A count of bytes that doesn't fit what has arrived.
    #[error(
        "{said} bytes were announced, but {arrived} have arrived: count all bytes sent since START_REC_BLOB"
    )]
    OffsetMismatch {
        /// Bytes that the client has announced.
        said: u64,
        /// Bytes that have come.
        arrived: u64,
    },
    /// The stream goes on another way, or on another socket.
    #[error("another connection goes on with this stream")]
    Replaced,
    /// As for any publisher.
    #[error(transparent)]
    Refused(#[from] PublishError),
}

impl UploadError {
    /// The code to tell it by.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadRequest(_) => ErrorCode::BadRequest,
            Self::BadBlob(_) => ErrorCode::BadBlob,
            Self::UnsupportedCodec(_) => ErrorCode::UnsupportedCodec,
            Self::OffsetMismatch { .. } => ErrorCode::OffsetMismatch,
            Self::Replaced => ErrorCode::StreamBusy,
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

/// What a client registers for.
#[derive(Clone, Debug)]
pub enum Register {
    /// A new stream of this name, or, with another way's `resume`, the one that has it.
    Name(StreamName, Option<Secret>),
    /// A client that goes on.
    Again(Secret),
}

/// All uploads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Chunks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    publications: Publications,
    tasks: Tasks,
    config: Config,
    /// By secret, until a minute after the end.
    uploads: Mutex<HashMap<Secret, mpsc::Sender<Command>>>,
    /// Of uploads that are over.
    tombstones: Tombstones,
}

/// One socket's hold of an upload. Dropping it is what a lost socket is.
#[derive(Debug)]
pub struct Upload {
    /// The secret to go on with.
    pub uid: Secret,
    /// The stream's name.
    pub name: StreamName,
    /// Bytes received in order.
    pub offset: u64,
    /// What becomes of the publication.
    pub status: watch::Receiver<Status>,
    hold: u64,
    commands: mpsc::Sender<Command>,
    /// Closed when another socket takes over.
    held: watch::Receiver<u64>,
    /// Tells the task when it is dropped.
    _socket: oneshot::Sender<Infallible>,
}

type Reply<T> = oneshot::Sender<Result<T, UploadError>>;

#[derive(Debug)]
enum Command {
    Attach { reply: Reply<Upload>, commands: mpsc::Sender<Command> },
    Start { hold: u64, reply: Reply<()> },
    Bytes { hold: u64, bytes: Bytes, reply: Reply<u64> },
    Stop { hold: u64, bytes: Option<u64>, reply: Reply<()> },
}

impl Chunks {
    /// There are no uploads yet.
    pub fn new(publications: Publications, tasks: Tasks, config: Config) -> Self {
        let (uploads, tombstones) = (Mutex::default(), Tombstones::new(MEMORY));
        Self { inner: Arc::new(Inner { publications, tasks, config, uploads, tombstones }) }
    }

    /// Section `chunks` of the configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Begins an upload, or takes it up again; the socket that held it before is told.
    ///
    /// # Errors
    ///
    /// The name is taken, the secret's time is over, or the server takes no more.
    pub async fn register(
        &self,
        register: Register,
        client: Option<ClientKey>,
    ) -> Result<Upload, UploadError> {
        self.attach(register, client).await.inspect_err(|error| {
            if let UploadError::Refused(refusal) = error {
                refusal.count();
            }
        })
    }

    async fn attach(&self, register: Register, client: Option<ClientKey>) -> Result<Upload, UploadError> {
        let commands = match register {
            Register::Again(uid) => {
                let known = self.inner.uploads.lock().get(&uid).cloned();
                known.ok_or(PublishError::ResumeExpired)?
            }
            Register::Name(name, resume) => {
                self.begin(self.inner.publications.reserve(&name, true, resume.as_ref(), None, client)?)
            }
        };
        ask(&commands, |reply| Command::Attach { reply, commands: commands.clone() }).await
    }

    fn begin(&self, publication: Arc<Publication>) -> mpsc::Sender<Command> {
        // One socket waits for each answer; a second one may come to take over.
        let (commands, receiver) = mpsc::channel(2);
        let uid = publication.resume().clone();
        self.inner.uploads.lock().insert(uid, commands.clone());
        let task = Task::new(self.inner.clone(), publication);
        let mine = commands.clone();
        self.inner.tasks.spawn("chunks", task.run(receiver, mine));
        commands
    }
}

impl Upload {
    /// START_REC_BLOB.
    ///
    /// # Errors
    ///
    /// It has begun already, or another publisher took the name.
    pub async fn start(&self) -> Result<(), UploadError> {
        ask(&self.commands, |reply| Command::Start { hold: self.hold, reply }).await
    }

    /// Bytes of a Blob; returns the offset behind them once they are the recorder's.
    ///
    /// # Errors
    ///
    /// They are no recording, or not expected; nothing of the upload is lost by that.
    pub async fn bytes(&self, bytes: Bytes) -> Result<u64, UploadError> {
        ask(&self.commands, |reply| Command::Bytes { hold: self.hold, bytes, reply }).await
    }

    /// STOP_REC_BLOB.
    ///
    /// # Errors
    ///
    /// More than `bytes` have arrived, or nothing has begun.
    pub async fn stop(&self, bytes: Option<u64>) -> Result<(), UploadError> {
        ask(&self.commands, |reply| Command::Stop { hold: self.hold, bytes, reply }).await
    }

    /// Resolves when another socket has taken over.
    pub async fn replaced(&mut self) {
        let mine = self.hold;
        // An error means that the upload is forgotten, long after its end.
        let _ = self.held.wait_for(|hold| *hold != mine).await;
    }
}

async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, UploadError> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| PublishError::ResumeExpired)?;
    answer.await.map_err(|_| PublishError::ResumeExpired)?
}
