//! What of section `auth` can't be used, or is perhaps not meant so.

use crate::auth::config::{Config, HASH_EXPECTED, Jwt, Mode, NAME_MAX, STREAMS_MAX, Token, clean_name, fits};
use crate::auth::external::{self, External};
use crate::auth::jwt::{self, Signed};
use jiff::Timestamp;

impl Config {
    /// Everything that can't be used: each the key and what was expected there. Blocking: it reads the
    /// files of `auth.jwt`.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.mode == Mode::Tokens && !self.knows_any() {
            let expected = "expected auth.tokens, auth.jwt or auth.url beside \"tokens\": run `onrecord \
                            token new --name me --admin` and put what it prints into config/local.toml";
            problems.push(("auth.mode", expected.to_owned()));
        }
        for (at, token) in self.tokens.iter().enumerate() {
            problems.extend(token.problems().into_iter().map(|expected| {
                // Not what was found: it may be the token itself.
                let which = match token.name.as_str() {
                    "" => format!("entry {}", at + 1),
                    name => format!("{name:?}"),
                };
                ("auth.tokens", format!("{which}: {expected}"))
            }));
        }
        problems.extend(Signed::new(&self.jwt).err().unwrap_or_default());
        problems.extend(External::new(self).err().map(|expected| ("auth.url", expected)));
        problems
    }

    /// What sessions depend on, in bytes: they end when any of it changes.
    pub(super) fn identity(&self) -> Vec<u8> {
        let token = |token: &Token| {
            let Token { name, hash, permissions, streams, expires } = token;
            format!("{:?}", (name, hash, permissions, streams, expires))
        };
        // `Debug` of a list of texts quotes and escapes them: two configurations never read the same.
        let tokens: Vec<_> = self.tokens.iter().map(token).collect();
        let Jwt { jwks, audience, issuer, max_lifetime, .. } = &self.jwt;
        let secret = jwt::secret(&self.jwt).ok().flatten();
        format!("{:?}", (tokens, secret, jwks, audience, issuer, max_lifetime, &self.url)).into_bytes()
    }

    /// What to warn of at the start: usable, but perhaps not meant so.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.mode == Mode::Open && self.knows_any() {
            warnings.push(
                "auth.mode is \"open\", so nobody is asked for a token: leave it out to have the tokens \
                 of auth asked for"
                    .to_owned(),
            );
        }
        if external::in_the_clear(&self.url) {
            warnings.push(
                "auth.url is plain HTTP to another machine: whoever is on the way can read what callers \
                 show; use https"
                    .to_owned(),
            );
        }
        let expired = |token: &&Token| token.expires.is_some_and(|expires| expires <= now);
        warnings.extend(
            self.tokens.iter().filter(expired).map(|token| {
                format!("auth.tokens: {:?} has expired: take it out, or make another", token.name)
            }),
        );
        warnings
    }
}

impl Token {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.name.is_empty() || clean_name(&self.name) != self.name {
            problems.push(format!(
                "expected a name of 1 to {NAME_MAX} characters without control characters, for the log"
            ));
        }
        if self.digest().is_none() {
            problems.push(format!("expected hash = {HASH_EXPECTED}"));
        }
        if self.permissions.is_empty() {
            problems.push("expected permissions: some of publish, view, recordings, admin".to_owned());
        }
        if !fits(&self.streams) {
            problems.push(format!(
                "expected streams of at most {STREAMS_MAX} bytes in all: let patterns stand for several"
            ));
        }
        problems
    }
}
