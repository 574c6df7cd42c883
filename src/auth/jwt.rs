//! Signed tokens (JWT, RFC 7519): made by another party that embeds our pages in its own, and known here
//! by a secret shared with them or by their public keys.
//!
//! Claims: `permissions`, a list of ours; `streams`, a list of patterns (all streams if it is left out,
//! none if it is empty); `sub` for the log; `exp`, which has to be there, `nbf`, `aud`, `iss`.
//!
//! Which key may verify a token follows from the kind of key, never from the token alone: the shared
//! secret verifies HS256, HS384 and HS512 only, a public key what its own kind signs. So no token is
//! signed with a public key as if it were the secret (RFC 8725 section 2.1), and `none` isn't known at all.

use crate::auth::AuthError;
use crate::auth::config::{Jwt, clean_name, fits};
use crate::auth::grant::Grant;
use crate::auth::keys::KeySet;
use crate::auth::permission::Permission;
use crate::base::clock::Anchor;
use crate::base::stream_pattern::Pattern;
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How far the signer's clock may be from ours, in seconds. Clocks that are set by the network differ
/// by less than one; more would stretch the short lives that signed tokens have.
const LEEWAY: i64 = 10;
/// The shortest secret, in bytes: RFC 7518 section 3.2 wants as many as SHA-256 has. One that people make
/// up is found by trying, from a single token.
const SECRET_MIN: usize = 32;
/// A file of a secret is no larger.
const SECRET_MAX: u64 = 4096;

/// Verifies signed tokens. `Debug` shows no key: that of the crate doesn't.
#[derive(Debug)]
pub(super) struct Signed {
    secret: Option<DecodingKey>,
    set: Option<KeySet>,
    audience: Option<String>,
    issuer: Option<String>,
    /// Zero for no bound.
    max_lifetime: Duration,
}

/// The claims that are read; others are ignored.
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<String>,
    permissions: Vec<Permission>,
    streams: Option<Vec<Pattern>>,
}

/// The claims of our own.
#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    permissions: &'a [Permission],
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<&'a [Pattern]>,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
    iat: i64,
    exp: i64,
}

/// Why a token is refused: for the log, since the signer has to find out what is wrong with them; the
/// caller only learns whether it has expired.
#[derive(Debug, PartialEq)]
enum JwtError {
    Expired,
    Unknown(&'static str),
}

/// Whether a credential may be a signed token.
pub(super) fn looks_signed(credential: &str) -> bool {
    credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Signed {
    /// Reads secret and keys, if any are configured. Blocking. The error names every setting that can't
    /// be used.
    pub fn new(config: &Jwt) -> Result<Option<Self>, Vec<(&'static str, String)>> {
        if !config.is_set() {
            return Ok(None);
        }
        let (secret, set) = (secret(config), KeySet::open(&config.jwks));
        let mut problems: Vec<_> = secret.as_ref().err().cloned().into_iter().collect();
        problems.extend(set.as_ref().err().map(|why| ("auth.jwt.jwks", why.clone())));
        let (Ok(secret), Ok(set)) = (secret, set) else { return Err(problems) };
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        Ok(Some(Self {
            secret: secret.map(|secret| DecodingKey::from_secret(&secret)),
            set,
            audience: text(&config.audience),
            issuer: text(&config.issuer),
            max_lifetime: config.max_lifetime,
        }))
    }

    /// What a token is good for.
    pub async fn verify(&self, token: &str, now: Anchor) -> Result<Grant, AuthError> {
        if let Some(set) = &self.set {
            set.refresh(now.instant).await;
        }
        self.check(token, now.wall).map_err(|refused| match refused {
            JwtError::Expired => AuthError::Expired,
            JwtError::Unknown(reason) => {
                tracing::debug!(reason, "a signed token is refused");
                AuthError::Unknown
            }
        })
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Grant, JwtError> {
        let unreadable = JwtError::Unknown("it has no header we can read, or an algorithm that isn't taken");
        let header = jsonwebtoken::decode_header(token).map_err(|_| unreadable)?;
        if header.crit.is_some() {
            return Err(JwtError::Unknown("it wants something understood that isn't (crit)"));
        }
        let key = match (header.alg.family(), &self.set) {
            (AlgorithmFamily::Hmac, _) => self.secret.clone(),
            (_, Some(set)) => set.find(header.kid.as_deref(), header.alg),
            (_, None) => None,
        };
        let key = key.ok_or(JwtError::Unknown("no key here verifies its algorithm and kid"))?;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &self.rules(header.alg));
        self.grant(decoded.map_err(|error| refused(error.kind()))?.claims, now)
    }

    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut rules = Validation::new(algorithm);
        // Time is an argument here, and judged by ourselves.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        rules.required_spec_claims.clear();
        // A token for an audience, while none is configured, is for another server (RFC 7519 section 4.1.3).
        for (claim, expected) in [("aud", &self.audience), ("iss", &self.issuer)] {
            if let Some(expected) = expected {
                rules.required_spec_claims.insert(claim.to_owned());
                match claim {
                    "aud" => rules.set_audience(&[expected]),
                    _ => rules.set_issuer(&[expected]),
                }
            }
        }
        rules
    }

    fn grant(&self, claims: Claims, now: Timestamp) -> Result<Grant, JwtError> {
        let at = |seconds: f64| Timestamp::from_second(seconds as i64).ok();
        let expires = claims.exp.and_then(at).ok_or(JwtError::Unknown("it has no exp we can read"))?;
        let now_s = now.as_second();
        if expires.as_second().saturating_add(LEEWAY) <= now_s {
            return Err(JwtError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf as i64 > now_s.saturating_add(LEEWAY)) {
            return Err(JwtError::Unknown("it isn't good yet (nbf)"));
        }
        let left = expires.as_second().saturating_sub(now_s).saturating_sub(LEEWAY);
        if !self.max_lifetime.is_zero() && left > self.max_lifetime.as_secs() as i64 {
            return Err(JwtError::Unknown("it is good for longer than auth.jwt.max_lifetime"));
        }
        let streams = claims.streams.unwrap_or_else(|| vec![Pattern::any()]);
        if !fits(&streams) {
            return Err(JwtError::Unknown("its streams are too many"));
        }
        Ok(Grant {
            who: clean_name(claims.sub.as_deref().unwrap_or("a signed token")).into(),
            permissions: claims.permissions,
            streams,
            expires: Some(expires),
        })
    }
}

fn refused(error: &ErrorKind) -> JwtError {
    JwtError::Unknown(match error {
        ErrorKind::InvalidSignature => "its signature is not by the key that should have signed it",
        ErrorKind::InvalidAudience => "its audience (aud) is not auth.jwt.audience",
        ErrorKind::InvalidIssuer => "its issuer (iss) is not auth.jwt.issuer",
        ErrorKind::MissingRequiredClaim(_) => "it lacks aud or iss",
        ErrorKind::Json(_) => "its claims can't be read: permissions and streams are lists of ours",
        _ => "it is no signed token",
    })
}

/// The shared secret, from its key or its file.
pub(super) fn secret(config: &Jwt) -> Result<Option<Vec<u8>>, (&'static str, String)> {
    let (secret, key) = match (config.secret.is_empty(), config.secret_file.as_os_str().is_empty()) {
        (true, true) => return Ok(None),
        (false, true) => (config.secret.clone().into_bytes(), "auth.jwt.secret"),
        (true, false) => {
            let key = "auth.jwt.secret_file";
            let read = read_secret(&config.secret_file);
            (read.map_err(|error| (key, format!("expected a file with the secret: {error}")))?, key)
        }
        (false, false) => {
            return Err(("auth.jwt.secret_file", "expected nothing beside auth.jwt.secret".to_owned()));
        }
    };
    if secret.len() < SECRET_MIN {
        let found = secret.len();
        return Err((
            key,
            format!(
                "expected at least {SECRET_MIN} bytes, as `openssl rand -hex 32` makes them; it has {found}"
            ),
        ));
    }
    Ok(Some(secret))
}

/// Editors end a file with a line break that is not meant.
fn read_secret(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut secret = super::keys::read_bounded(path, SECRET_MAX)?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(secret)
}

/// Makes a signed token of this grant with the shared secret, good for so long from now on.
pub fn sign(config: &Jwt, grant: &Grant, now: Timestamp, lifetime: Duration) -> Result<String, String> {
    let secret = secret(config).map_err(|(key, expected)| format!("{key}: {expected}"))?.ok_or(
        "auth.jwt.secret: expected a secret to sign with, as `openssl rand -hex 32` makes one; with \
         auth.jwt.jwks, tokens are signed by whoever has the private key",
    )?;
    if !config.max_lifetime.is_zero() && lifetime > config.max_lifetime {
        let most = config.max_lifetime;
        return Err(format!("auth.jwt.max_lifetime: signed tokens are good for at most {most:?} here"));
    }
    let all = grant.streams == [Pattern::any()];
    let claims = Issued {
        sub: &grant.who,
        permissions: &grant.permissions,
        streams: (!all).then_some(&grant.streams),
        aud: &config.audience,
        iss: &config.issuer,
        iat: now.as_second(),
        exp: now.as_second().saturating_add_unsigned(lifetime.as_secs()),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&secret))
        .map_err(|error| format!("the token can't be signed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const NOW: i64 = 1_800_000_000;
    const SECRET: &str = "a secret for tests of 40 bytes and more!";

    /// Made by openssl and Python: see `fixtures/make.py`.
    fn fixtures() -> Value {
        serde_json::from_str(include_str!("fixtures/tokens.json")).unwrap()
    }

    fn keys() -> String {
        format!("{}/src/auth/fixtures/jwks.json", env!("CARGO_MANIFEST_DIR"))
    }

    fn config() -> Jwt {
        Jwt {
            secret: SECRET.to_owned(),
            jwks: keys().into(),
            audience: "onrecord".to_owned(),
            issuer: "https://school.example.org".to_owned(),
            ..Jwt::default()
        }
    }

    fn check(config: &Jwt, token: &str) -> Result<Grant, JwtError> {
        let signed = Signed::new(config).unwrap().unwrap();
        signed.check(token, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn tokens_that_others_sign_are_known_by_each_kind_of_key() {
        let fixtures = fixtures();
        for algorithm in ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "RS256 without kid"] {
            let token = fixtures[algorithm].as_str().unwrap();
            assert!(looks_signed(token));
            let grant = check(&config(), token).unwrap_or_else(|why| panic!("{algorithm}: {why:?}"));
            assert_eq!((&*grant.who, grant.permissions.as_slice()), ("pupil 7", &[Permission::Publish][..]));
            assert!(grant.allows(Permission::Publish, Some(&"interview-7".parse().unwrap())));
            assert!(!grant.allows(Permission::Publish, Some(&"other".parse().unwrap())));
            assert_eq!(grant.expires, Timestamp::from_second(NOW + 600).ok());

            let hmac = algorithm.starts_with("HS");
            let half = if hmac {
                Jwt { secret: String::new(), ..config() }
            } else {
                Jwt { jwks: Default::default(), ..config() }
            };
            assert!(check(&half, token).is_err(), "{algorithm} is known by a key of another kind");
            // The signature covers every byte: no change goes unnoticed.
            for at in (0..token.len()).step_by(13) {
                let mut forged = token.as_bytes().to_vec();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                let forged = String::from_utf8(forged).unwrap();
                assert!(check(&config(), &forged).is_err(), "{algorithm}, byte {at}");
            }
        }
    }

    #[test]
    fn hostile_tokens_are_unknown() {
        let fixtures = fixtures();
        let hostile = fixtures["hostile"].as_object().unwrap();
        // A secret that is public somewhere else must not make the key set's symmetric key usable.
        for (what, token) in hostile {
            let judged = check(&config(), token.as_str().unwrap());
            assert!(matches!(judged, Err(JwtError::Unknown(_))), "{what}: {judged:?}");
        }
        println!("{} hostile tokens", hostile.len());
        let good = fixtures["HS256"].as_str().unwrap();
        for end in 0..good.len() {
            assert!(check(&config(), &good[..end]).is_err(), "cut at {end}");
        }
        let signature = good.rsplit('.').next().unwrap();
        let payload = "A".repeat(1 << 20);
        for odd in
            ["", ".", "..", "...", "a.b.c", "é.é.é", &format!("{good}."), &format!("{good}.{signature}")]
        {
            assert!(check(&config(), odd).is_err(), "{odd:?}");
        }
        assert!(check(&config(), &format!("{payload}.{payload}.{payload}")).is_err());
    }

    #[test]
    fn claims_decide_what_until_when_and_for_which_streams() {
        let fixtures = fixtures();
        let token = |name: &str| fixtures["claims"][name].as_str().unwrap_or_else(|| panic!("{name}"));
        let judged = |name| check(&config(), token(name));
        for name in ["exp as a fraction", "just expired", "in a moment", "several audiences", "a long time"] {
            assert!(judged(name).is_ok(), "{name}: {:?}", judged(name));
        }
        assert_eq!(judged("expired"), Err(JwtError::Expired));
        for (name, reason) in [
            ("no exp", "no exp"),
            ("exp is text", "claims can't be read"),
            ("exp in a thousand centuries", "no exp"),
            ("not yet", "nbf"),
            ("another audience", "auth.jwt.audience"),
            ("no audience", "aud or iss"),
            ("another issuer", "auth.jwt.issuer"),
            ("no issuer", "aud or iss"),
            ("no permissions", "claims can't be read"),
            ("unknown permission", "claims can't be read"),
            ("permissions as text", "claims can't be read"),
            ("a path for a stream", "claims can't be read"),
        ] {
            let Err(JwtError::Unknown(why)) = judged(name) else { panic!("{name}: {:?}", judged(name)) };
            assert!(why.contains(reason), "{name}: {why}");
        }
        let any = "anything".parse().unwrap();
        assert!(judged("all streams").unwrap().allows(Permission::Publish, Some(&any)));
        assert!(!judged("no stream at all").unwrap().allows(Permission::Publish, Some(&any)));
        assert_eq!(&*judged("no sub").unwrap().who, "a signed token");
        assert_eq!(&*judged("a loud sub").unwrap().who, format!("ab{}", "c".repeat(62)));

        let told_of_nobody = Jwt { audience: String::new(), issuer: String::new(), ..config() };
        assert!(check(&told_of_nobody, token("no audience")).is_ok());
        assert!(check(&told_of_nobody, token("another audience")).is_err(), "it is for somebody else");
        let short = Jwt { max_lifetime: Duration::from_secs(600), ..config() };
        assert!(check(&short, fixtures["HS256"].as_str().unwrap()).is_ok());
        assert!(matches!(check(&short, token("a long time")), Err(JwtError::Unknown(_))));
    }

    #[test]
    fn what_we_sign_ourselves_is_known_and_stays_what_it_is() {
        let grant = Grant {
            who: "me".into(),
            permissions: vec![Permission::View],
            streams: vec!["a*".parse().unwrap()],
            expires: Timestamp::from_second(NOW + 60).ok(),
        };
        let minute = Duration::from_secs(60);
        let sign = |config: &Jwt, grant| sign(config, grant, Timestamp::from_second(NOW).unwrap(), minute);
        assert_eq!(check(&config(), &sign(&config(), &grant).unwrap()), Ok(grant.clone()));
        let all = Grant { streams: vec![Pattern::any()], ..grant.clone() };
        assert_eq!(check(&config(), &sign(&config(), &all).unwrap()), Ok(all.clone()));
        let error = sign(&Jwt { secret: String::new(), ..config() }, &grant).unwrap_err();
        assert!(error.contains("auth.jwt.secret") && error.contains("openssl rand"), "{error}");
        let error = sign(&Jwt { max_lifetime: minute / 2, ..config() }, &grant).unwrap_err();
        assert!(error.contains("auth.jwt.max_lifetime"), "{error}");
    }

    #[test]
    fn a_secret_is_long_enough_and_comes_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        let from_file = Jwt { secret: String::new(), secret_file: path.clone(), ..config() };
        assert!(check(&from_file, fixtures()["HS256"].as_str().unwrap()).is_ok());
        let both = Jwt { secret_file: path.clone(), ..config() };
        let weak = Jwt { secret: "hunter2".to_owned(), jwks: "/absent".into(), ..config() };
        std::fs::write(&path, "hunter2").unwrap();
        let absent = Jwt { secret_file: dir.path().join("absent"), ..from_file.clone() };
        for (config, keys) in [
            (both, &["auth.jwt.secret_file"][..]),
            (weak, &["auth.jwt.secret", "auth.jwt.jwks"]),
            (from_file, &["auth.jwt.secret_file"]),
            (absent, &["auth.jwt.secret_file"]),
        ] {
            let problems = Signed::new(&config).unwrap_err();
            println!("{problems:?}");
            assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
            assert!(!format!("{problems:?} {config:?}").contains("hunter2"), "{problems:?}");
        }
        assert!(!format!("{:?}", Signed::new(&super::tests::config())).contains("40 bytes"));
    }
}
