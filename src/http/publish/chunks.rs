//! `/chunks`: MediaRecorder's Blobs over a WebSocket (`PROTOCOL.md`, "Chunks").
//!
//! One task a socket. It takes messages strictly in order, each once the one before is taken: what is not
//! yet taken waits in the socket, and then with the client. Losing the socket ends nothing for
//! `chunks.resume_grace`.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::{Secret, StreamName, random_suffix};
use crate::base::metrics::metrics;
use crate::base::quota::ClientKey;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::publish::signal::wire::Recording;
use crate::http::socket::{End, Socket};
use crate::http::state::State;
use crate::http::upgrade::{Opened, Upgrade};
use crate::ingest::chunks::{Register, Upload, UploadError};
use crate::publish::PublishError;
use crate::publish::status::Status;
use axum::extract::State as Extract;
use axum::extract::ws::Message;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A byte of a REC_BLOB takes up to two of UTF-8, and control characters are escaped: twice the bytes
/// of compressed media, and never more than this many times. Beyond it, and some room for names, the
/// connection is cut in mid-message; up to it the answer is `too_large`.
const TEXT: u64 = 4;
/// Room for what is not a Blob.
const MAX_TEXT: u64 = 64 << 10;
/// An upload answers at once, unless it waits for the disk.
const CALL_TIME: Duration = Duration::from_secs(10);
/// How long a client that sent rubbish may wait for the file of what came before.
const SEAL_TIME: Duration = Duration::from_secs(10);

/// Names made of a prefix that are tried: two visitors' meet once in a billion.
const TRIES: usize = 8;

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "event")]
pub(crate) enum Client {
    #[serde(rename = "register")]
    Register {
        name: Option<String>,
        name_prefix: Option<String>,
        /// What the bytes are to be; what they are is seen by themselves.
        #[serde(default, rename = "mime")]
        _mime: Option<String>,
        uid: Option<String>,
        resume: Option<String>,
    },
    #[serde(rename = "START_REC_BLOB")]
    Start {},
    #[serde(rename = "REC_BLOB")]
    Blob { blob: String },
    #[serde(rename = "STOP_REC_BLOB")]
    Stop { bytes: Option<u64> },
}

/// What the server sends.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(in crate::http) enum Server<'a> {
    Registered {
        uid: &'a str,
        name: &'a StreamName,
        offset: u64,
    },
    Ack {
        offset: u64,
    },
    /// The upload is over, and its file can't be finished, which is tried again.
    Sealing {
        message: &'a str,
    },
    Stopped {
        recording: Option<Recording<'a>>,
        reason: &'a str,
    },
    Error {
        code: ErrorCode,
        message: &'a str,
    },
}

/// `GET /chunks`.
pub async fn open(Extract(state): Extract<Arc<State>>, upgrade: Upgrade) -> Result<Response, ApiError> {
    let most = (state.chunks.config().max_message * TEXT + MAX_TEXT) as usize;
    upgrade.open("chunks socket", most, |Opened { mut socket, state, access, client }| {
        socket.expects("registered");
        Connection { socket, state, access, client, upload: None, fault: None }.run()
    })
}

/// How bad an error is.
enum Bad {
    /// The message is not taken; the socket stays.
    Message(ApiError),
    /// Bytes are missing from here on: the socket ends, the upload doesn't.
    Stream(ApiError),
    /// The upload has ended, with what came before.
    Upload(ApiError),
}

struct Connection {
    socket: Socket,
    state: Arc<State>,
    access: Access,
    client: Option<ClientKey>,
    upload: Option<Upload>,
    /// Why the upload's file can't be finished, as the client knows it.
    fault: Option<String>,
}

impl Connection {
    async fn run(mut self) {
        let Err(end) = self.serve().await;
        if let End::Refused(error) = &end
            && self.error(error).await.is_err()
        {
            return;
        }
        // The next socket with this uid need not wait for the end of this handshake.
        self.upload = None;
        self.socket.close(end).await;
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        loop {
            tokio::select! {
                biased;
                came = watched(&mut self.upload, self.fault.as_deref()) => match came {
                    Some(status) => self.send_status(&status).await?,
                    None => return Err(ApiError::from(UploadError::Replaced).into()),
                },
                message = self.socket.next() => {
                    self.received(message?).await?;
                    // The disk may have kept it waiting.
                    self.socket.listens_again();
                }
            }
        }
    }

    async fn received(&mut self, message: Message) -> Result<(), End> {
        let most = self.state.chunks.config().max_message as usize;
        let done = match message {
            Message::Binary(bytes) if bytes.len() > most => Err(Bad::Stream(too_large(most))),
            Message::Binary(bytes) => self.bytes(bytes).await,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(message) => self.act(message, most).await,
                Err(why) if why.is_data() => Err(Bad::Message(ApiError::bad_request(format!(
                    "{why}; known events are register, START_REC_BLOB, REC_BLOB and STOP_REC_BLOB"
                )))),
                Err(why) => {
                    let message = format!("a message is bytes or one JSON object: {why}");
                    return Err(End::Refused(ApiError::bad_request(message)));
                }
            },
            // Only those two come.
            _ => return Ok(()),
        };
        match done {
            Ok(Some(offset)) => self.socket.send_json(&Server::Ack { offset }).await,
            Ok(None) => Ok(()),
            Err(Bad::Message(error)) => self.refuse(error).await,
            Err(Bad::Stream(error)) => Err(End::Refused(error)),
            Err(Bad::Upload(error)) => self.ends_with(error).await,
        }
    }

    /// Acts on a message; returns what to ack.
    async fn act(&mut self, message: Client, most: usize) -> Result<Option<u64>, Bad> {
        match message {
            Client::Register { name, name_prefix, uid, resume, .. } => {
                self.register(name, name_prefix, uid, resume).await.map(|()| None)
            }
            Client::Start {} => self.upload()?.start().await.map(|()| None).map_err(Bad::from),
            Client::Blob { blob } => {
                let bytes = bytes_of(&blob).map_err(Bad::Stream)?;
                if bytes.len() > most {
                    return Err(Bad::Stream(too_large(most)));
                }
                self.bytes(bytes.into()).await
            }
            Client::Stop { bytes } => self.upload()?.stop(bytes).await.map(|()| None).map_err(Bad::from),
        }
    }

    async fn bytes(&mut self, bytes: Bytes) -> Result<Option<u64>, Bad> {
        Ok(Some(self.upload()?.bytes(bytes).await?))
    }

    fn upload(&self) -> Result<&Upload, Bad> {
        let message = "this socket has no upload: send register first";
        self.upload.as_ref().ok_or_else(|| Bad::Message(ApiError::bad_request(message)))
    }

    async fn register(
        &mut self,
        name: Option<String>,
        prefix: Option<String>,
        uid: Option<String>,
        resume: Option<String>,
    ) -> Result<(), Bad> {
        let bad = |message: &str| Bad::Message(ApiError::bad_request(message));
        if self.upload.is_some() {
            return Err(bad("this socket has an upload already: stop it first, or open another socket"));
        }
        let secret = |text: Option<String>| {
            text.filter(|text| !text.is_empty()).map(|text| Secret::from_client(&text))
        };
        let name = name.map(|name| name.parse::<StreamName>()).transpose();
        let name = name.map_err(|error| Bad::Message(error.into()))?;
        let upload = match (secret(uid), name, prefix) {
            // A secret needs no other credential: what was begun under a grant may outlive it.
            (Some(uid), ..) => self.attach(Register::Again(uid)).await,
            (None, Some(name), None) => {
                let resume = secret(resume);
                if resume.is_none() {
                    self.access.asks(Permission::Publish, &name).await.map_err(Bad::Stream)?;
                }
                self.attach(Register::Name(name, resume)).await
            }
            (None, None, Some(prefix)) => {
                // The rules of a whole name, checked before six digits are added.
                prefix.parse::<StreamName>().map_err(|error| Bad::Message(error.into()))?;
                self.attach_with(&prefix).await
            }
            _ => return Err(bad("register with either name or name_prefix, or with uid")),
        };
        let upload = upload?;
        let (uid, name, offset) = (upload.uid.clone(), upload.name.clone(), upload.offset);
        self.upload = Some(upload);
        self.socket.mark_used();
        let sent =
            self.socket.send_json(&Server::Registered { uid: uid.reveal(), name: &name, offset }).await;
        sent.map_err(|_| bad("the socket is gone"))
    }

    async fn attach(&mut self, register: Register) -> Result<Upload, Bad> {
        match timeout(CALL_TIME, self.state.chunks.register(register, self.client)).await {
            Ok(Ok(upload)) => Ok(upload),
            Ok(Err(fault @ UploadError::Refused(PublishError::ResumeExpired))) => {
                Err(Bad::Stream(fault.into()))
            }
            Ok(Err(fault)) => Err(Bad::Message(fault.into())),
            Err(_) => Err(Bad::Stream(ApiError::internal("an upload did not answer in time"))),
        }
    }

    /// The same under a free name that begins so; the caller must be allowed that one.
    async fn attach_with(&mut self, prefix: &str) -> Result<Upload, Bad> {
        let mut tried = Err(Bad::Message(PublishError::LimitReached("all names of this prefix").into()));
        for _ in 0..TRIES {
            let name = format!("{prefix}-{}", random_suffix()).parse::<StreamName>();
            let name = name.map_err(|error| Bad::Message(error.into()))?;
            self.access.asks(Permission::Publish, &name).await.map_err(Bad::Stream)?;
            tried = self.attach(Register::Name(name, None)).await;
            if !matches!(&tried, Err(Bad::Message(error)) if error.code == ErrorCode::StreamBusy) {
                break;
            }
        }
        tried
    }

    /// The upload is over, or will be at once: sends the error, and what became of it.
    async fn ends_with(&mut self, error: ApiError) -> Result<(), End> {
        self.error(&error).await?;
        if let Some(upload) = &mut self.upload {
            let _ = timeout(SEAL_TIME, upload.status.wait_for(Status::is_final)).await;
            let status = upload.status.borrow().clone();
            if matches!(&status, Status::Unpublished { recording: Some(_), .. } | Status::Sealing { .. }) {
                self.send_status(&status).await?;
            }
        }
        Err(End::Closed(error.close_code(), error.code.as_str()))
    }

    /// Sends what has become of the upload. When that has come to its end the socket may register another.
    async fn send_status(&mut self, status: &Status) -> Result<(), End> {
        if let Status::Sealing { error } = status {
            self.fault = Some(error.clone());
            return self.socket.send_json(&Server::Sealing { message: error }).await;
        }
        (self.upload, self.fault) = (None, None);
        match status {
            Status::Unpublished { recording, reason } => {
                let recording = recording.as_deref().map(|manifest| Recording::of(&self.state, manifest));
                self.socket.send_json(&Server::Stopped { recording, reason: reason.as_str() }).await
            }
            Status::Failed { code, message } => {
                self.socket.send_json(&Server::Error { code: *code, message }).await
            }
            Status::Pending(_) | Status::Publishing(_) | Status::Sealing { .. } => Ok(()),
        }
    }

    /// Answers one bad message with an error, the hundredth with the end.
    async fn refuse(&mut self, error: ApiError) -> Result<(), End> {
        self.error(&error).await?;
        self.socket.count_error()
    }

    async fn error(&mut self, error: &ApiError) -> Result<(), End> {
        self.socket.send_json(&Server::Error { code: error.code, message: &error.message }).await
    }
}

impl From<UploadError> for Bad {
    fn from(fault: UploadError) -> Self {
        let error = ApiError::from(fault.clone());
        match fault {
            UploadError::BadRequest(_) => Self::Message(error),
            UploadError::OffsetMismatch { .. } => Self::Message(error),
            UploadError::Replaced => Self::Stream(error),
            UploadError::BadBlob(_) | UploadError::UnsupportedCodec(_) | UploadError::Refused(_) => {
                Self::Upload(error)
            }
        }
    }
}

fn too_large(most: usize) -> ApiError {
    metrics().refused("chunks.max_message");
    ApiError::too_large(most)
}

/// Resolves when the upload is over, or can't be finished for another reason than `fault`, or (`None`)
/// another socket has it; never without one.
async fn watched(upload: &mut Option<Upload>, fault: Option<&str>) -> Option<Status> {
    let Some(upload) = upload else { return std::future::pending().await };
    let mut status = upload.status.clone();
    let is_news = |status: &Status| match status {
        Status::Sealing { error } => fault != Some(error),
        other => other.is_final(),
    };
    tokio::select! {
        news = status.wait_for(is_news) => news.ok().map(|news| news.clone()),
        () = upload.replaced() => None,
    }
}

/// The bytes of a binary string: a character each.
pub(crate) fn bytes_of(blob: &str) -> Result<Vec<u8>, ApiError> {
    blob.chars().map(|c| u8::try_from(u32::from(c))).collect::<Result<_, _>>().map_err(|_| {
        let message = "a blob is a binary string, one character a byte: read it with readAsBinaryString, \
                       or send the Blob itself as a binary message";
        ApiError::new(ErrorCode::BadBlob, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_string_is_a_byte_a_character() {
        let all: String = (0..=255u8).map(char::from).collect();
        assert_eq!(bytes_of(&all).unwrap(), (0..=255u8).collect::<Vec<_>>());
        assert_eq!(bytes_of("a\u{100}").unwrap_err().code, ErrorCode::BadBlob);
    }
}
