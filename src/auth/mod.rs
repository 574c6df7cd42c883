//! L2: who may do what.
//!
//! A *credential* is what a caller shows: a token of `auth.tokens`, a signed token, whatever `auth.url`
//! knows. It is traded for a [`Grant`]: permissions, for streams of some names, until some time.
//! Nothing here knows HTTP: where a credential comes from and what a denial looks like is `http`'s.

mod permission;

pub use crate::base::pattern::{BadPattern, Pattern};
pub use permission::Permission;

use crate::base::id::StreamName;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Section `auth` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who is served without a credential.
    pub mode: Mode,
    /// Long-lived tokens, kept as hashes.
    pub tokens: Vec<Token>,
}

impl Config {
    /// Whether callers have to show a credential.
    pub fn asks(&self) -> bool {
        self.mode != Mode::Open && !self.tokens.is_empty()
    }
}

/// Who is served without a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Requests from this machine only, and as soon as there are tokens to show, nobody.
    #[default]
    Off,
    /// Everybody, by the operator's explicit word.
    Open,
}

/// One entry of `auth.tokens`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is, for the log.
    pub name: String,
    /// `sha256:` and the hash of the token, in hexadecimal digits.
    pub hash: String,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// With which streams; all if there are none.
    #[serde(default)]
    pub streams: Vec<Pattern>,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What it shows, if anything.
    pub credential: Option<&'a str>,
    /// What it wants.
    pub permission: Permission,
    /// With which stream; `None` if that is not known yet, or if it wants a list.
    pub stream: Option<&'a StreamName>,
    /// Where it is.
    pub from: IpAddr,
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows nothing.
    #[error("show a token: in the header Authorization: Bearer, or log in at /login")]
    Missing,
    /// Nobody knows what it shows.
    #[error("this token is not known here")]
    Unknown,
    /// It was good once.
    #[error("this token has expired")]
    Expired,
    /// It is good for something else.
    #[error("this token doesn't allow that")]
    Forbidden,
    /// Too many failures from its address.
    #[error("too many failed attempts from this address: wait {0} s")]
    TooMany(u64),
    /// Who should know can't be asked.
    #[error("the service that knows who may do what does not answer: try again later")]
    Unavailable,
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Whose it is, for the log: never the credential.
    pub who: Arc<str>,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// With which streams.
    pub streams: Vec<Pattern>,
    /// Until when; `None` for ever.
    pub expires: Option<Timestamp>,
}

impl Grant {
    /// All there is, for callers who need no credential.
    pub fn everything(who: &str) -> Self {
        Self {
            who: who.into(),
            permissions: vec![Permission::Admin],
            streams: vec![Pattern::any()],
            expires: None,
        }
    }

    /// Whether it is good for this. Without a stream: for some stream at least.
    pub fn allows(&self, permission: Permission, stream: Option<&StreamName>) -> bool {
        let permitted = |held: &Permission| matches!(held, Permission::Admin) || *held == permission;
        self.permissions.iter().any(permitted)
            && stream.is_none_or(|name| self.streams.iter().any(|pattern| pattern.matches(name)))
    }
}

/// Who may do what. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth {
    config: Arc<Config>,
}

impl Auth {
    /// Reads the settings; the error lists every one that can't be used.
    pub fn new(config: Config) -> Result<Self, Vec<String>> {
        Ok(Self { config: Arc::new(config) })
    }

    /// Whether callers have to show a credential.
    pub fn asks(&self) -> bool {
        self.config.asks()
    }

    /// What this caller may do, if it may do what it asks.
    pub async fn authorise(&self, asked: Asked<'_>) -> Result<Grant, Denied> {
        let credential = asked.credential.ok_or(Denied::Missing)?;
        let grant = self.token(credential).ok_or(Denied::Unknown)?;
        if grant.allows(asked.permission, asked.stream) { Ok(grant) } else { Err(Denied::Forbidden) }
    }

    fn token(&self, credential: &str) -> Option<Grant> {
        let hash = format!("sha256:{:x}", Sha256::digest(credential));
        // All are compared, each in constant time, so that the time tells nothing of any.
        let same = |token: &&Token| bool::from(token.hash.as_bytes().ct_eq(hash.as_bytes()));
        let token = self.config.tokens.iter().filter(same).next_back()?;
        let streams = if token.streams.is_empty() { vec![Pattern::any()] } else { token.streams.clone() };
        Some(Grant {
            who: token.name.as_str().into(),
            permissions: token.permissions.clone(),
            streams,
            expires: None,
        })
    }
}
