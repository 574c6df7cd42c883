//! What `auth.url` knows: a service of the operator is asked about credentials that are unknown here.
//!
//! It gets `{"credential", "permission", "stream", "address"}` and answers 2xx for yes, 401 if it doesn't
//! know the credential, 403 if it doesn't allow that. A yes may come with
//! `{"who", "permissions", "streams", "expires"}` as `application/json`: then that is what is granted, and
//! it isn't asked again about whatever that covers. Anything else, and no answer in time, is a no: no caller is let
//! in because a service is down.

use crate::auth::cache::{self, Answer, Cache};
use crate::auth::config::{Config, clean_name, fits};
use crate::auth::grant::Grant;
use crate::auth::permission::Permission;
use crate::auth::{AccessRequest, AuthError};
use crate::base::clock::Anchor;
use crate::base::id::StreamName;
use crate::base::stream_pattern::Pattern;
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode, redirect};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::{Host, Url};

/// Questions on their way at the same time; further ones wait within their time. A flood here must not
/// become one there.
const QUESTIONS: usize = 64;
/// The largest answer, many times a grant.
const ANSWER_MAX: usize = 64 << 10;
/// A no is kept no longer: a caller that was just allowed something tries again soon.
const NO_KEPT: Duration = Duration::from_secs(5);
/// A service that doesn't answer is asked the same no more often than this.
const SILENCE_KEPT: Duration = Duration::from_secs(1);
/// How often the log has that the service can't be used.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// What `auth.url` has to be. What it is may hold a key and is not repeated.
const EXPECTED: &str = "expected a URL such as \"https://example.org/may\", without name and password";

/// Asks the service. `Debug` shows neither its address nor its answers.
pub(super) struct External {
    url: Url,
    client: Client,
    limit: Duration,
    keep: Duration,
    permits: Semaphore,
    cache: Mutex<Cache>,
    warned: Mutex<Option<Instant>>,
}

/// The question.
#[derive(Serialize)]
struct Question<'a> {
    credential: &'a str,
    permission: Permission,
    stream: Option<&'a StreamName>,
    address: IpAddr,
}

/// What a yes may come with. What is left out is what was asked for, and no more.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Yes {
    who: Option<String>,
    permissions: Option<Vec<Permission>>,
    streams: Option<Vec<Pattern>>,
    expires: Option<Timestamp>,
}

/// The caller has to wait.
struct Limited;

impl External {
    /// Reads the settings; `None` if there is no service.
    pub fn new(config: &Config) -> Result<Option<Self>, String> {
        if config.url.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&config.url).map_err(|_| EXPECTED)?;
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
            return Err(EXPECTED.to_owned());
        }
        let client = Client::builder()
            .timeout(config.url_timeout)
            // Credentials go where `auth.url` says and nowhere else: not where the service redirects, and
            // not to a proxy that a variable names, which was meant for what hooks upload.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("onrecord/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no client for it can be made: {}", error.without_url()))?;
        Ok(Some(Self {
            url,
            client,
            limit: config.url_timeout,
            keep: config.url_cache,
            permits: Semaphore::new(QUESTIONS),
            cache: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    /// What the service answers, or did a moment ago. Callers that ask the same at the same time share one
    /// question. One that is `limited` only gets what is known already.
    pub async fn ask(
        &self,
        credential: &str,
        asked: AccessRequest<'_>,
        now: Anchor,
        limited: impl Fn() -> bool,
    ) -> Result<Grant, AuthError> {
        let keys = cache::keys(credential, asked);
        let slot = match self.cache.lock().find(&keys, asked, now.instant) {
            Ok(grant) => return Ok(grant),
            Err(slot) => slot,
        };
        if let Some(answer) = slot.get() {
            return answer.found.clone();
        }
        // If the caller that asks goes away, the next of those that wait asks anew.
        let asking = slot.get_or_try_init(|| self.question(credential, asked, now, &limited));
        let answer = match timeout(2 * self.limit, asking).await {
            Err(_) => return Err(AuthError::Unavailable),
            Ok(Err(Limited)) => return Err(AuthError::Unknown),
            Ok(Ok(answer)) => answer,
        };
        if answer.wide {
            self.cache.lock().widen(&keys, answer.clone());
        }
        answer.found.clone()
    }

    async fn question(
        &self,
        credential: &str,
        asked: AccessRequest<'_>,
        now: Anchor,
        limited: impl Fn() -> bool,
    ) -> Result<Answer, Limited> {
        let exchange = async {
            // Never closed; and if it were, no caller would be let in.
            let _permit = self.permits.acquire().await.map_err(|_| Limited)?;
            // Only now: while it waited, others from its address may have failed.
            if limited() { Err(Limited) } else { Ok(self.post(credential, asked).await) }
        };
        let answer = match timeout(self.limit, exchange).await {
            Ok(said) => said?,
            Err(_) => Err(self.silent("no answer within auth.url_timeout")),
        };
        let (found, wide) = match answer {
            Ok((grant, _)) if grant.expired(now.wall) => (Err(AuthError::Expired), false),
            Ok((grant, true)) if !grant.allows(asked.permission, asked.stream) => {
                (Err(AuthError::Forbidden), true)
            }
            Ok((grant, wide)) => (Ok(grant), wide),
            Err(denied) => (Err(denied), false),
        };
        let keep = match &found {
            Ok(grant) => grant.expires.map_or(self.keep, |expires| {
                self.keep.min(expires.duration_since(now.wall).try_into().unwrap_or_default())
            }),
            Err(AuthError::Unavailable) => SILENCE_KEPT.min(self.keep),
            Err(_) => NO_KEPT.min(self.keep),
        };
        Ok(Answer { wide: wide && found.is_ok(), found, until: now.instant + keep })
    }

    /// Asks; whether the answer is more than yes.
    async fn post(&self, credential: &str, asked: AccessRequest<'_>) -> Result<(Grant, bool), AuthError> {
        let AccessRequest { permission, stream, from, .. } = asked;
        let question = Question { credential, permission, stream, address: from.to_canonical() };
        let response = self.client.post(self.url.clone()).json(&question).send().await;
        let response = response.map_err(|error| self.silent(error.without_url()))?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED => return Err(AuthError::Unknown),
            StatusCode::FORBIDDEN => return Err(AuthError::Forbidden),
            status => return Err(self.silent(format_args!("it answers {status}"))),
        }
        let Yes { who, permissions, streams, expires } =
            read(response).await.map_err(|why| self.silent(why))?;
        let wide = permissions.is_some() || streams.is_some();
        let grant = Grant {
            who: clean_name(who.as_deref().unwrap_or("a caller that auth.url knows")).into(),
            permissions: permissions.unwrap_or_else(|| vec![permission]),
            streams: streams.unwrap_or_else(|| stream.and_then(Pattern::only).into_iter().collect()),
            expires,
        };
        Ok((grant, wide))
    }

    /// For an answer that is none: it is logged, but not for each of a flood.
    fn silent(&self, reason: impl fmt::Display) -> AuthError {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%reason, "auth.url can't be asked: who shows what only it knows is refused");
        }
        AuthError::Unavailable
    }
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("External(…)")
    }
}

/// What a yes comes with. Only what is declared as JSON is read: many services just send "OK". But what is declared
/// so has to be it: it may be meant to allow less.
async fn read(mut response: Response) -> Result<Yes, String> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let json = kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_MAX {
            return Err(format!("its answer has more than {ANSWER_MAX} bytes"));
        }
    }
    if !json || body.is_empty() {
        return Ok(Yes::default());
    }
    let yes: Yes =
        serde_json::from_slice(&body).map_err(|error| format!("its answer is not ours: {error}"))?;
    if yes.streams.as_deref().is_some_and(|streams| !fits(streams)) {
        return Err("its answer has too many streams".to_owned());
    }
    Ok(yes)
}

/// Whether credentials would leave this machine as they are.
pub(super) fn in_the_clear(url: &str) -> bool {
    let Some(url) = Url::parse(url).ok().filter(|url| url.scheme() == "http") else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => !address.is_loopback(),
        Some(Host::Ipv6(address)) => !address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests;
