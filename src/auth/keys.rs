//! The public keys of the signer of tokens: a JWKS file (RFC 7517), read again when it changes, so that keys
//! are replaced without a restart.

use crate::disk::Stamp;
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::Mutex;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The largest file: some hundred keys.
const FILE_MAX: u64 = 1 << 20;
/// How often it is looked at: a token signed with a new key waits no longer, and a flood of tokens costs
/// no flood of looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take: a file system that hangs must not hang callers whose keys are known.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// The keys of a file.
#[derive(Debug)]
pub(super) struct KeySet {
    path: PathBuf,
    keys: Mutex<Vec<Key>>,
    /// Held while the file is looked at; other callers wait for what comes of it.
    looked: tokio::sync::Mutex<Looked>,
}

#[derive(Debug)]
struct Looked {
    at: Option<Instant>,
    found: Option<Stamp>,
}

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// The one algorithm it is for, if it names one.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// One that can't be read, of an unknown kind for example, is left out, not the whole file.
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads the file; `None` if there is none to read. Blocking.
    pub fn open(path: &Path) -> Result<Option<Self>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let (keys, stamp) =
            read(path).map_err(|error| format!("expected a JWKS file, with public keys: {error}"))?;
        let looked = tokio::sync::Mutex::new(Looked { at: None, found: Some(stamp) });
        Ok(Some(Self { path: path.to_owned(), keys: Mutex::new(keys), looked }))
    }

    /// Reads the file again if it has changed. One that can't be used changes nothing: the keys known so
    /// far go on, and it is logged.
    pub async fn refresh(&self, now: Instant) {
        let mut looked = self.looked.lock().await;
        if looked.at.is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY) {
            return;
        }
        looked.at = Some(now);
        let (path, known) = (self.path.clone(), looked.found);
        let look = spawn_blocking(move || {
            let stamp = std::fs::metadata(&path).map(|meta| Stamp::of(&meta)).ok();
            (stamp != known).then(|| (stamp, read(&path)))
        });
        let Ok(Ok(Some((found, changed)))) = timeout(LOOK_LIMIT, look).await else { return };
        looked.found = found;
        match changed {
            Ok((keys, stamp)) => {
                tracing::info!(keys = keys.len(), "auth.jwt.jwks has changed and is read again");
                looked.found = Some(stamp);
                *self.keys.lock() = keys;
            }
            Err(error) => {
                tracing::warn!(%error, "auth.jwt.jwks has changed and can't be used: the keys read before go on");
            }
        }
    }

    /// The key of this name for this algorithm; without a name the only one there is.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let keys = self.keys.lock();
        let mut fitting = keys.iter().filter(|key| {
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|only| only == algorithm)
                && (kid.is_none() || key.kid.as_deref() == kid)
        });
        let first = fitting.next()?;
        (kid.is_some() || fitting.next().is_none()).then(|| first.key.clone())
    }
}

/// The whole of a small file.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_file(&File::open(path)?, max)
}

fn read_file(file: &File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<(Vec<Key>, Stamp)> {
    let file = File::open(path)?;
    // Before the bytes: a change from now on is noticed at the next look.
    let stamp = Stamp::of(&file.metadata()?);
    let document: Document = serde_json::from_slice(&read_file(&file, FILE_MAX)?)?;
    let keys: Vec<_> = document.keys.into_iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(io::Error::other("none of its keys is public and for signatures (RSA, EC or Ed25519)"));
    }
    Ok((keys, stamp))
}

/// A public key for signatures. A symmetric one has no place in a file that others publish.
fn usable(key: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let common = &jwk.common;
    let verifies = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let algorithm = match common.key_algorithm {
        Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let public = key.family() != AlgorithmFamily::Hmac;
    (verifies && public).then(|| Key { kid: common.key_id.clone(), algorithm, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn keys_are_replaced_without_a_restart_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let all = include_str!("fixtures/jwks.json");
        // As it is replaced by who publishes keys: under another name, then renamed.
        let publish = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        };
        publish(&all.replace("\"kid\": \"e\"", "\"kid\": \"first\""));
        let set = KeySet::open(&path).unwrap().unwrap();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let knows = |kid| set.find(Some(kid), Algorithm::ES256).is_some();
        set.refresh(start).await;
        assert!(knows("first") && !knows("e"));
        publish(all);
        set.refresh(start + LOOK_EVERY / 2).await;
        assert!(knows("first"), "it was looked at again too soon");
        set.refresh(later(1)).await;
        assert!(!knows("first") && knows("e"));
        for (at, bad) in [(2, "{"), (3, "{\"keys\":[]}"), (4, &" ".repeat(2 << 20))] {
            publish(bad);
            set.refresh(later(at)).await;
            assert!(knows("e"), "lost by a broken file");
        }
        fs::remove_file(&path).unwrap();
        set.refresh(later(5)).await;
        assert!(knows("e"));
        publish(&all.replace("\"kid\": \"e\"", "\"kid\": \"last\""));
        set.refresh(later(6)).await;
        assert!(knows("last") && !knows("e"));
    }

    #[test]
    fn a_key_is_for_what_it_says_and_a_name_may_be_left_out_if_there_is_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/fixtures/jwks.json");
        let set = KeySet::open(&path).unwrap().unwrap();
        assert_eq!(set.keys.lock().len(), 3, "of six");
        for (kid, algorithm, known) in [
            (Some("r"), Algorithm::RS256, true),
            (Some("r"), Algorithm::RS512, false),
            (Some("r"), Algorithm::ES256, false),
            (Some("d"), Algorithm::EdDSA, true),
            (Some("o"), Algorithm::HS256, false),
            (Some(""), Algorithm::RS256, false),
            (None, Algorithm::RS256, true),
            (None, Algorithm::HS256, false),
        ] {
            assert_eq!(set.find(kid, algorithm).is_some(), known, "{kid:?} {algorithm:?}");
        }
    }
}
