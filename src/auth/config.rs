//! Section `auth` of the configuration.

use crate::auth::permission::Permission;
use crate::base::stream_pattern::Pattern;
use crate::base::units;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the patterns of one grant may take in all, in bytes: a session holds them, and browsers drop a
/// cookie of more than 4096 bytes silently.
pub(super) const STREAMS_MAX: usize = 2048;
/// The longest name of a holder, in characters: it stands in lines of the log.
pub(super) const NAME_MAX: usize = 64;

/// What the hash of a token begins with.
const HASH: &str = "sha256:";
pub(super) const HASH_EXPECTED: &str =
    "\"sha256:\" and 64 hexadecimal digits, as `onrecord token new` prints it";

/// Section `auth` of the configuration. `Debug` shows nothing secret.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which requests are served without a credential.
    pub mode: Mode,
    /// Long-lived tokens, kept as hashes.
    pub tokens: Vec<Token>,
    /// Tokens that another party signs.
    pub jwt: Jwt,
    /// The service that is asked about every other credential; empty for none.
    pub url: String,
    /// How long that may take.
    #[serde(deserialize_with = "units::duration")]
    pub url_timeout: Duration,
    /// For how long it isn't asked the same again.
    #[serde(deserialize_with = "units::duration")]
    pub url_cache: Duration,
    /// Unknown credentials from one address in a minute, before it has to wait.
    pub max_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            tokens: Vec::new(),
            jwt: Jwt::default(),
            url: String::new(),
            url_timeout: Duration::from_secs(3),
            url_cache: Duration::from_secs(30),
            max_failures: 20,
        }
    }
}

/// Section `auth.jwt`: signed tokens. `Debug` doesn't show the secret.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The secret shared with the signer.
    pub secret: String,
    /// The file it is in, if it isn't here.
    pub secret_file: PathBuf,
    /// The file with the signer's public keys.
    pub jwks: PathBuf,
    /// The `aud` a token has to have; empty if it must have none.
    pub audience: String,
    /// The `iss` it has to have; empty for any.
    pub issuer: String,
    /// How long it may be good from now on; zero for ever.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime: Duration,
}

/// Which requests are served without a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Requests from this machine only, and as soon as any credential is configured, none.
    #[default]
    Off,
    /// None; an error if no credential is configured.
    Tokens,
    /// All.
    Open,
}

/// One entry of `auth.tokens`. As a plain string `"sha256:…"` it is good for everything.
#[derive(Clone, PartialEq)]
pub struct Token {
    /// Whose it is, for the log.
    pub name: String,
    /// `sha256:` and the hash of the token, in hexadecimal digits.
    pub hash: String,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// With which streams; all if there are none.
    pub streams: Vec<Pattern>,
    /// Until when; `None` for ever.
    pub expires: Option<Timestamp>,
}

impl Config {
    /// Whether callers have to show a credential.
    pub fn asks(&self) -> bool {
        self.mode != Mode::Open && (self.mode == Mode::Tokens || self.knows_any())
    }

    /// Whether there is anything that a caller could show.
    pub(super) fn knows_any(&self) -> bool {
        !self.tokens.is_empty() || self.jwt.is_set() || !self.url.is_empty()
    }

    /// Relative paths begin at this folder.
    pub fn begin_at(&mut self, folder: &Path) {
        for path in [&mut self.jwt.secret_file, &mut self.jwt.jwks] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

impl Jwt {
    /// Whether there is any key to verify with.
    pub(super) fn is_set(&self) -> bool {
        let no_file = |path: &Path| path.as_os_str().is_empty();
        !(self.secret.is_empty() && no_file(&self.secret_file) && no_file(&self.jwks))
    }
}

impl Token {
    /// The hash in bytes.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let digits = self.hash.strip_prefix(HASH)?.as_bytes();
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(digest)
    }
}

/// Whether patterns are few enough for a session.
pub(super) fn fits(streams: &[Pattern]) -> bool {
    streams.iter().map(|pattern| pattern.as_str().len()).sum::<usize>() <= STREAMS_MAX
}

/// A holder's name as another party gives it, fit for a line of the log.
pub(super) fn clean_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

/// A secret, or nothing, in `Debug`.
fn hidden(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "…" }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, tokens, jwt, url, url_timeout, url_cache, max_failures } = self;
        f.debug_struct("Config")
            .field("mode", mode)
            .field("tokens", tokens)
            .field("jwt", jwt)
            // Its path or query may hold a key.
            .field("url", &hidden(url))
            .field("url_timeout", url_timeout)
            .field("url_cache", url_cache)
            .field("max_failures", max_failures)
            .finish()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, secret_file, jwks, audience, issuer, max_lifetime } = self;
        f.debug_struct("Jwt")
            .field("secret", &hidden(secret))
            .field("secret_file", secret_file)
            .field("jwks", jwks)
            .field("audience", audience)
            .field("issuer", issuer)
            .field("max_lifetime", max_lifetime)
            .finish()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, permissions, streams, expires, .. } = self;
        // The hash gives no token away, but what stands in its place by mistake may be the token.
        f.debug_struct("Token")
            .field("name", name)
            .field("permissions", permissions)
            .field("streams", streams)
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

/// One entry as a table. What is missing is named by [`Config::problems`], with all else.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    name: String,
    hash: String,
    permissions: Vec<Permission>,
    streams: Vec<Pattern>,
    expires: Option<Timestamp>,
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Entry)
    }
}

/// A string or a table.
struct Entry;

impl<'de> Visitor<'de> for Entry {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with name, hash, permissions, streams and expires, or \"sha256:…\"")
    }

    fn visit_str<E: Error>(self, hash: &str) -> Result<Token, E> {
        if !hash.starts_with(HASH) {
            return Err(E::custom(format_args!("expected a table, or {HASH_EXPECTED}")));
        }
        let name = "a token of auth.tokens".to_owned();
        let permissions = vec![Permission::Admin];
        Ok(Token { name, hash: hash.to_owned(), permissions, streams: Vec::new(), expires: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Token, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        let Table { name, hash, permissions, streams, expires } = table;
        Ok(Token { name, hash, permissions, streams, expires })
    }
}
