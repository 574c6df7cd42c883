//! What callers may do.
//!
//! A *credential* is what a caller shows: a token of `auth.tokens`, a signed token, whatever `auth.url`
//! knows. It is traded for a [`Grant`]: permissions, for streams of some names, until some time.
//! Nothing here knows HTTP: where a credential comes from and what a denial looks like is `http`'s.
//!
//! Rules: a credential is compared in constant time or by its hash; neither it nor a key is in a log, in
//! an error or in `Debug`; a service that can't be asked allows nothing.
//!
//! Files import each other one way, but for this one, whose question and errors are for all below.

mod cache;
mod config;
mod external;
mod failures;
mod grant;
mod jwt;
mod keys;
mod permission;
mod signer;
mod token;
mod validate;

pub use crate::base::stream_pattern::{BadPattern, Pattern};
pub use config::{Config, Jwt, Mode, Token};
pub use grant::Grant;
pub use jwt::sign;
pub use permission::Permission;
pub use token::NewToken;

use crate::base::clock::Anchor;
use crate::base::id::StreamName;
use crate::base::metrics::metrics;
use external::External;
use failures::Failures;
use jiff::Timestamp;
use jwt::{Signed, looks_signed};
use parking_lot::Mutex;
use signer::Signer;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use token::Tokens;

/// The longest credential, in bytes. Signed tokens with all their claims are half of it; hashing more,
/// or sending it to `auth.url`, would be work for nothing.
const CREDENTIAL_MAX: usize = 4096;

/// What a caller wants to do.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// What it shows, if anything.
    pub credential: Option<&'a str>,
    /// What it wants.
    pub permission: Permission,
    /// With which stream; `None` if that is not known yet, or if it wants a list.
    pub stream: Option<&'a StreamName>,
    /// Where it is.
    pub from: IpAddr,
}

/// Why it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It shows nothing.
    #[error("show a token: in the header Authorization: Bearer, or log in at /login")]
    Missing,
    /// What it shows is unknown.
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
    /// The service that should know can't be asked.
    #[error("the service that knows who may do what does not answer: try again later")]
    Unavailable,
}

impl AuthError {
    /// As it is counted.
    fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::TooMany(_) => "too_many",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Trades credentials for grants. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asks: bool,
    tokens: Tokens,
    signed: Option<Signed>,
    external: Option<External>,
    failures: Mutex<Failures>,
    signer: Signer,
}

impl Auth {
    /// Reads the settings; the error lists every one that can't be used. What it signs is good until the
    /// process ends.
    pub fn new(config: Config) -> Result<Self, Vec<String>> {
        Self::build(config, Signer::passing)
    }

    /// The same with the server's key, which lies in `record.dir`, so that links and sessions outlive the
    /// process. Blocking; for the one process that has the folder locked.
    pub fn open(config: Config, dir: &Path) -> Result<Self, Vec<String>> {
        // Where no credential is needed there is nothing to sign for.
        let asks = config.asks();
        Self::build(
            config,
            |settings| if asks { Signer::of(dir, settings) } else { Signer::passing(settings) },
        )
    }

    fn build(config: Config, signer: impl FnOnce(&[u8]) -> Signer) -> Result<Self, Vec<String>> {
        let message = |(key, expected): (&str, String)| format!("{key}: {expected}");
        let problems: Vec<_> = config.problems().into_iter().map(message).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self(Arc::new(Inner {
            asks: config.asks(),
            tokens: Tokens::new(&config.tokens),
            signed: Signed::new(&config.jwt)
                .map_err(|all| all.into_iter().map(message).collect::<Vec<_>>())?,
            external: External::new(&config).map_err(|expected| vec![message(("auth.url", expected))])?,
            failures: Mutex::new(Failures::new(config.max_failures)),
            signer: signer(&config.identity()),
        })))
    }

    /// Whether callers have to show a credential.
    pub fn asks(&self) -> bool {
        self.0.asks
    }

    /// What this caller may do, if it may do what it asks. A grant may be good for no more than that:
    /// for something else, or a stream whose name wasn't known before, it has to be asked again.
    pub async fn authorise(&self, asked: AccessRequest<'_>) -> Result<Grant, AuthError> {
        let decided = self.decide(asked, Anchor::now()).await;
        if let Err(denied) = &decided {
            metrics().auth.failures.inc([denied.reason()]);
        }
        decided
    }

    /// What a credential allows, whatever that is; it is no failure that it doesn't allow all. The service is
    /// asked about one permission at a time: those go together that are for the same streams.
    pub async fn identify(&self, credential: Option<&str>, from: IpAddr) -> Result<Grant, AuthError> {
        let found = self.all_of(credential, from).await;
        if let Err(denied) = &found {
            metrics().auth.failures.inc([denied.reason()]);
        }
        found
    }

    async fn all_of(&self, credential: Option<&str>, from: IpAddr) -> Result<Grant, AuthError> {
        use Permission::{Admin, Publish, Recordings, View};
        let mut all: Option<Grant> = None;
        for permission in [View, Publish, Recordings, Admin] {
            let asked = AccessRequest { credential, permission, stream: None, from };
            match (self.decide(asked, Anchor::now()).await, &mut all) {
                (Ok(grant), None) => all = Some(grant),
                (Ok(grant), Some(all)) if grant.streams == all.streams && grant.who == all.who => {
                    let more = grant.permissions.into_iter().filter(|one| !all.permissions.contains(one));
                    all.permissions.extend(more.collect::<Vec<_>>());
                    all.expires = [all.expires, grant.expires].into_iter().flatten().min();
                }
                (Ok(_) | Err(AuthError::Forbidden), _) | (Err(_), Some(_)) => {}
                (Err(denied), None) => return Err(denied),
            }
        }
        all.ok_or(AuthError::Forbidden)
    }

    async fn decide(&self, asked: AccessRequest<'_>, now: Anchor) -> Result<Grant, AuthError> {
        let credential = asked.credential.ok_or(AuthError::Missing)?;
        let wait = || self.0.failures.lock().wait(asked.from, now.instant);
        let found = match self.known(credential, now).await {
            Ok(grant) if grant.allows(asked.permission, asked.stream) => Ok(grant),
            Ok(_) => Err(AuthError::Forbidden),
            Err(AuthError::Unknown) => match &self.0.external {
                Some(external) if credential.len() <= CREDENTIAL_MAX => {
                    external.ask(credential, asked, now, || wait().is_some()).await
                }
                _ => Err(AuthError::Unknown),
            },
            Err(denied) => Err(denied),
        };
        // What is good is served, however often others fail behind the same address.
        if found != Err(AuthError::Unknown) {
            return found;
        }
        if let Some(seconds) = wait() {
            metrics().refused("auth.max_failures");
            return Err(AuthError::TooMany(seconds));
        }
        self.0.failures.lock().note(asked.from, now.instant);
        found
    }

    /// What is known here of a credential, without asking the service.
    async fn known(&self, credential: &str, now: Anchor) -> Result<Grant, AuthError> {
        if credential.len() > CREDENTIAL_MAX {
            return Err(AuthError::Unknown);
        }
        match (self.0.tokens.find(credential), &self.0.signed) {
            (Some(grant), _) if grant.expired(now.wall) => Err(AuthError::Expired),
            (Some(grant), _) => Ok(grant.clone()),
            (None, Some(signed)) if looks_signed(credential) => signed.verify(credential, now).await,
            (None, _) => Err(AuthError::Unknown),
        }
    }

    /// A token for a link that opens this one file, for a day.
    pub fn sign_file(&self, file: &str, now: Timestamp) -> String {
        self.0.signer.sign_file(file, now)
    }

    /// Whether this is such a token, for this file, and its day not over.
    pub fn opens_file(&self, file: &str, token: &str, now: Timestamp) -> bool {
        self.0.signer.opens_file(file, token, now)
    }

    /// The value of a cookie that stands for this grant, without the credential, until this time or the
    /// grant's own end, whichever is first. At most 4 KiB of letters, digits, `-`, `_` and `.`. A change
    /// of `auth.tokens`, `auth.jwt` or `auth.url` ends all sessions.
    pub fn seal_session(&self, grant: &Grant, until: Timestamp) -> String {
        self.0.signer.seal_session(grant, until)
    }

    /// The grant of a session: [`AuthError::Expired`] if its time is over, [`AuthError::Unknown`] if it isn't
    /// one of ours. See [`Grant::allows`] for what it allows.
    pub fn open_session(&self, session: &str, now: Timestamp) -> Result<Grant, AuthError> {
        self.0.signer.open_session(session, now)
    }
}

#[cfg(test)]
mod tests;
