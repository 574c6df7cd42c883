//! The messages of `/signal`, one JSON object each; `type` names it.

use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::catalog::Manifest;
use crate::http::api::recordings;
use crate::http::error::ApiError;
use crate::http::state::State;
use crate::publish::status::Status;
use crate::webrtc::{Candidate, IceServer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a client sends.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Client {
    /// Publish, or offer again.
    Publish {
        /// May be left out while the socket has one publication.
        stream: Option<String>,
        /// The offer.
        sdp: String,
        /// Whether to record.
        #[serde(default = "yes")]
        record: bool,
        /// The secret of an earlier publication.
        resume: Option<String>,
    },
    /// One candidate.
    Candidate {
        /// May be left out while the socket has one publication.
        stream: Option<String>,
        /// An `RTCIceCandidateInit`, its line alone, or `null` or `""` at the end.
        #[serde(default, deserialize_with = "candidate")]
        candidate: Candidate,
    },
    /// End the publication.
    Stop {
        /// May be left out while the socket has one publication.
        stream: Option<String>,
    },
}

/// Why a message can't be taken.
#[derive(Debug)]
pub struct Bad {
    /// It isn't even JSON: the socket is closed.
    pub fatal: bool,
    /// The stream it was about, if it names one.
    pub stream: Option<String>,
    /// The error to answer with.
    pub error: ApiError,
}

impl Client {
    /// Reads a message. Unknown keys are left for later versions.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        let value: Value = serde_json::from_str(text).map_err(|why| Bad {
            fatal: true,
            stream: None,
            error: ApiError::bad_request(format!("a message is one JSON object: {why}")),
        })?;
        let stream = value.get("stream").and_then(Value::as_str).map(str::to_owned);
        let hint = "known types are publish, candidate and stop";
        serde_json::from_value(value).map_err(|why| Bad {
            fatal: false,
            stream,
            error: ApiError::bad_request(format!("{why}; {hint}")),
        })
    }
}

fn yes() -> bool {
    true
}

fn candidate<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Candidate, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Init(Candidate),
        Line(String),
        End(()),
    }
    Ok(match Form::deserialize(from)? {
        Form::Init(init) => init,
        Form::Line(line) => Candidate { candidate: line, ..Candidate::default() },
        Form::End(()) => Candidate::default(),
    })
}

/// What the server sends.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Server<'a> {
    /// The publication is accepted.
    Answer {
        /// Its name.
        stream: &'a StreamName,
        /// The answer.
        sdp: &'a str,
        /// The publication's secret.
        resume: &'a str,
        /// What the client should use from now on.
        ice_servers: &'a [IceServer],
    },
    /// One of the server's candidates.
    Candidate {
        /// Its publication.
        stream: &'a StreamName,
        /// The candidate.
        candidate: &'a Candidate,
    },
    /// The publication's status.
    Status {
        /// Its name.
        stream: &'a StreamName,
        /// `PENDING`, `PUBLISHING`, `UNPUBLISHED` or `FAILED`.
        status: &'a str,
        /// With `UNPUBLISHED`, if it was recorded.
        #[serde(skip_serializing_if = "Option::is_none")]
        recording: Option<Recording<'a>>,
        /// With `UNPUBLISHED` the `end_reason`, with `FAILED` the code; `sealing` while the file of a
        /// publication that is over can't be finished, which is tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// With `FAILED`: what to do; with `sealing` what is wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        /// What is missing of the media, though it was agreed on; a status without it is all right again.
        #[serde(skip_serializing_if = "Option::is_none")]
        warning: Option<&'a str>,
    },
    /// A message could not be taken, or the socket is about to be closed.
    Error {
        /// The stream it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<&'a str>,
        /// For programs.
        code: ErrorCode,
        /// What to do.
        message: &'a str,
    },
}

/// A sealed recording, as a publisher sees it.
#[derive(Debug, Serialize)]
pub struct Recording<'a> {
    pub(in crate::http) id: &'a str,
    pub(in crate::http) stream: &'a str,
    pub(in crate::http) file: &'a str,
    pub(in crate::http) url: String,
    pub(in crate::http) bytes: u64,
    pub(in crate::http) duration_ms: u64,
}

impl<'a> Recording<'a> {
    /// Of its manifest. Its publisher may download it.
    pub fn of(state: &State, manifest: &'a Manifest) -> Self {
        Self {
            id: manifest.id.as_str(),
            stream: manifest.stream.as_str(),
            file: &manifest.file,
            url: recordings::url(state, &manifest.file),
            bytes: manifest.bytes,
            duration_ms: manifest.duration_ms,
        }
    }
}

impl<'a> Server<'a> {
    /// The message for a status.
    pub fn status(state: &State, stream: &'a StreamName, status: &'a Status) -> Self {
        let name = status.as_str();
        let (mut recording, mut reason, mut message) = (None, None, None);
        match status {
            Status::Pending(_) | Status::Publishing(_) => {}
            Status::Sealing { error } => {
                reason = Some("sealing");
                message = Some(error.as_str());
            }
            Status::Unpublished { recording: sealed, reason: why } => {
                reason = Some(why.as_str());
                recording = sealed.as_deref().map(|manifest| Recording::of(state, manifest));
            }
            Status::Failed { code, message: what } => {
                reason = Some(code.as_str());
                message = Some(what.as_str());
            }
        }
        Self::Status { stream, status: name, recording, reason, message, warning: status.warning() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate_of(text: &str) -> Candidate {
        match Client::parse(&format!(r#"{{"type":"candidate","stream":"a"{text}}}"#)) {
            Ok(Client::Candidate { candidate, .. }) => candidate,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn candidates_are_read_in_every_form_clients_send() {
        let line = |candidate: &str| Candidate { candidate: candidate.into(), ..Candidate::default() };
        let init = r#","candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}"#;
        let expected =
            Candidate { sdp_mid: Some("0".into()), sdp_m_line_index: Some(0), ..line("candidate:1") };
        assert_eq!(candidate_of(init), expected);
        assert_eq!(candidate_of(r#","candidate":"candidate:1""#), line("candidate:1"));
        for end in [r#","candidate":null"#, r#","candidate":"""#, "", r#","candidate":{"candidate":""}"#] {
            assert_eq!(candidate_of(end), line(""), "{end}");
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart_from_a_bad_one() {
        for rubbish in ["", "{", "rubbish", "\u{0}", "{\"type\":\"publish\""] {
            assert!(Client::parse(rubbish).unwrap_err().fatal, "{rubbish:?}");
        }
        for bad in ["1", "[]", "{}", r#"{"type":"dance"}"#, r#"{"type":"publish","sdp":1}"#] {
            let bad = Client::parse(bad).unwrap_err();
            assert!(!bad.fatal && bad.error.code == ErrorCode::BadRequest, "{bad:?}");
        }
        let bad = Client::parse(r#"{"type":"publish","stream":"cam"}"#).unwrap_err();
        assert_eq!(bad.stream.as_deref(), Some("cam"));
    }

    #[test]
    fn publish_records_unless_the_message_forbids_it() {
        let publish = |text: &str| match Client::parse(text) {
            Ok(Client::Publish { record, resume, .. }) => (record, resume),
            other => panic!("{other:?}"),
        };
        assert_eq!(publish(r#"{"type":"publish","stream":"a","sdp":"v=0"}"#), (true, None));
        let text = r#"{"type":"publish","stream":"a","sdp":"v=0","record":false,"resume":null,"later":1}"#;
        assert_eq!(publish(text), (false, None));
    }
}
