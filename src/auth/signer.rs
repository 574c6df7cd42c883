//! What the server vouches for itself: links to one file, and sessions of the pages.
//!
//! Both are authenticated with keys derived from one key of the server, each from another label, so that
//! nothing made for one purpose is anything for another. Their holders can read them, but they hold
//! no credential.

use crate::auth::AuthError;
use crate::auth::grant::Grant;
use crate::auth::permission::Permission;
use crate::base::stream_pattern::Pattern;
use crate::disk;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use subtle::ConstantTimeEq;

/// Where the server's key lies, hidden among the recordings, so that links live as long as their files:
/// a user who can read it can read those anyway. Removing it ends all links and sessions.
const KEY_FILE: &str = ".key";
/// How long a link to a file is good. Counted in whole hours, so that a list that is asked for twice has
/// the same links, which browsers then know again: 23 to 24 hours.
const LINK_HOURS: u64 = 24;
const HOUR: u64 = 3600;
/// Hexadecimal digits of a link's tag: 128 bits, half the hash, which is not found by trying. A link
/// stays short enough for a line.
const TAG_DIGITS: usize = 32;
/// A session is a cookie: browsers keep none that is larger.
const SESSION_MAX: usize = 4096;

type Key = [u8; 32];

/// The server's own signatures. `Debug` never shows a key.
pub(super) struct Signer {
    files: Key,
    sessions: Key,
}

/// The claims of a session.
#[derive(Serialize, Deserialize)]
struct Session {
    who: String,
    permissions: Vec<Permission>,
    streams: Vec<Pattern>,
    /// Unix seconds.
    exp: i64,
}

impl Signer {
    /// With a key of its own: what it signs is good until the process ends.
    pub fn passing(settings: &[u8]) -> Self {
        Self::new(&rand::random(), settings)
    }

    /// With the key of this folder, made if it is missing. Blocking; for the one process that has the
    /// folder locked. Without a key that can be kept (a full disk, say) the server serves all the same:
    /// then what it signs is good until it ends.
    pub fn of(dir: &Path, settings: &[u8]) -> Self {
        let key = key_of(dir).unwrap_or_else(|error| {
            let file = dir.join(KEY_FILE);
            tracing::warn!(%error, file = %file.display(), "the server's key can't be kept: links to recordings and sessions end with this process");
            rand::random()
        });
        Self::new(&key, settings)
    }

    /// `settings` are whatever sessions are to end with: a token that was taken out of the configuration
    /// must not live on in a cookie.
    fn new(key: &Key, settings: &[u8]) -> Self {
        let sessions = authenticate(key, &[b"onrecord session"]);
        Self {
            files: authenticate(key, &[b"onrecord link to a file"]),
            sessions: authenticate(&sessions, &[settings]),
        }
    }

    /// A token that opens this file until tomorrow.
    pub fn sign_file(&self, file: &str, now: Timestamp) -> String {
        let until = (seconds(now) / HOUR + LINK_HOURS) * HOUR;
        format!("{until:x}-{}", self.tag(file, until))
    }

    /// Whether this is a token for this file, and its time not over.
    pub fn opens_file(&self, file: &str, token: &str, now: Timestamp) -> bool {
        let Some((until, tag)) = token.split_once('-') else { return false };
        let Ok(until) = u64::from_str_radix(until, 16) else { return false };
        bool::from(self.tag(file, until).as_bytes().ct_eq(tag.as_bytes())) && seconds(now) < until
    }

    fn tag(&self, file: &str, until: u64) -> String {
        // The number has a fixed length, so the name begins at a fixed offset.
        hex(&authenticate(&self.files, &[&until.to_be_bytes(), file.as_bytes()])[..TAG_DIGITS / 2])
    }

    /// A grant as the value of a cookie, good until this time or the grant's own, whichever is first.
    pub fn seal_session(&self, grant: &Grant, until: Timestamp) -> String {
        let session = Session {
            who: grant.who.to_string(),
            permissions: grant.permissions.clone(),
            streams: grant.streams.clone(),
            exp: grant.expires.map_or(until, |expires| expires.min(until)).as_second(),
        };
        let key = EncodingKey::from_secret(&self.sessions);
        // Numbers and strings always have JSON; nothing would be a session that opens nothing.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &session, &key).unwrap_or_default()
    }

    /// The grant of a session.
    pub fn open_session(&self, session: &str, now: Timestamp) -> Result<Grant, AuthError> {
        if session.len() > SESSION_MAX {
            return Err(AuthError::Unknown);
        }
        let mut rules = Validation::new(Algorithm::HS256);
        // Time is an argument here, and judged below.
        rules.validate_exp = false;
        let key = DecodingKey::from_secret(&self.sessions);
        let opened = jsonwebtoken::decode::<Session>(session, &key, &rules);
        let Session { who, permissions, streams, exp } = opened.map_err(|_| AuthError::Unknown)?.claims;
        let expires = Timestamp::from_second(exp).map_err(|_| AuthError::Unknown)?;
        let grant = Grant { who: who.into(), permissions, streams, expires: Some(expires) };
        if grant.expired(now) { Err(AuthError::Expired) } else { Ok(grant) }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

fn seconds(at: Timestamp) -> u64 {
    at.as_second().max(0).unsigned_abs()
}

/// HMAC-SHA256.
fn authenticate(key: &Key, parts: &[&[u8]]) -> Key {
    // A key shorter than the hash's block is filled up with zeros: so RFC 2104 has it.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac: Hmac<Sha256> = hmac::digest::KeyInit::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the folder's key, or makes one.
fn key_of(dir: &Path) -> io::Result<Key> {
    let path = dir.join(KEY_FILE);
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(dir),
        Err(error) => Err(error),
        Ok(mut file) => {
            let meta = file.metadata()?;
            if meta.mode() & 0o077 != 0 {
                tracing::warn!(file = %path.display(), "the server's key could be read by others: now it can't, but remove it to have another one made");
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            let mut key = Key::default();
            // One of another length isn't ours, or is damaged: nothing it signed can be known again.
            if meta.len() != key.len() as u64 {
                tracing::warn!(file = %path.display(), "the server's key is damaged: another one is made");
                return make_key(dir);
            }
            file.read_exact(&mut key)?;
            Ok(key)
        }
    }
}

/// Whole and on the disk before anything is signed with it, or not there.
fn make_key(dir: &Path) -> io::Result<Key> {
    let key: Key = rand::random();
    disk::replace(dir, KEY_FILE, 0o600, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            who: "studio \"7\"".into(),
            permissions: vec![Permission::Publish, Permission::View],
            streams: vec!["interview-*".parse().unwrap(), "é".parse().unwrap()],
            expires: None,
        }
    }

    #[test]
    fn a_link_opens_its_file_for_a_day_and_no_other() {
        let signer = Signer::passing(b"");
        let token = signer.sign_file("a.webm", at(NOW));
        assert_eq!(token, signer.sign_file("a.webm", at(NOW + 1)), "a list asked for twice");
        let open_for = (0..=48).take_while(|h| signer.opens_file("a.webm", &token, at(NOW + h * 3600)));
        assert_eq!(open_for.count(), 24, "hours");
        assert!(signer.opens_file("a.webm", &token, at(NOW + 23 * 3600)));
        for (file, token) in [
            ("b.webm", token.as_str()),
            ("a.webm ", &token),
            ("", &token),
            ("a.webm", &token[1..]),
            ("a.webm", &token[..token.len() - 1]),
            ("a.webm", &format!("{token}0")),
            ("a.webm", &token.replacen('-', "", 1)),
            ("a.webm", &format!("ffffffffff-{}", token.split_once('-').unwrap().1)),
            ("a.webm", "-"),
            ("a.webm", ""),
            ("a.webm", &signer.seal_session(&grant(), at(NOW + 60))),
            ("a.webm", &Signer::passing(b"").sign_file("a.webm", at(NOW))),
        ] {
            assert!(!signer.opens_file(file, token, at(NOW)), "{token:?} opened {file:?}");
        }
    }

    #[test]
    fn a_session_is_its_grant_until_its_end_and_nothing_else_is_a_session() {
        let signer = Signer::passing(b"settings");
        let sealed = signer.seal_session(&grant(), at(NOW + 60));
        let opened = signer.open_session(&sealed, at(NOW + 59)).unwrap();
        assert_eq!(opened, Grant { expires: Some(at(NOW + 60)), ..grant() });
        assert_eq!(signer.open_session(&sealed, at(NOW + 60)), Err(AuthError::Expired));
        let short = Grant { expires: Some(at(NOW + 10)), ..grant() };
        let sealed_short = signer.seal_session(&short, at(NOW + 60));
        assert_eq!(signer.open_session(&sealed_short, at(NOW)), Ok(short), "longer than its credential");
        let (head, tail) = sealed.split_at(sealed.len() / 2);
        let forged = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        let other = Signer::passing(b"settings");
        for bad in [
            "",
            "..",
            head,
            &forged,
            &format!("{sealed}A"),
            &"A".repeat(1 << 20),
            &signer.sign_file("a.webm", at(NOW)),
            &other.seal_session(&grant(), at(NOW + 60)),
        ] {
            let opened = signer.open_session(bad, at(NOW));
            assert_eq!(opened, Err(AuthError::Unknown), "{:?}", bad.get(..80).unwrap_or(bad));
        }
    }

    #[test]
    fn the_largest_grant_fits_a_cookie() {
        let pattern: Pattern = "x".repeat(128).parse().unwrap();
        let streams = vec![pattern; crate::auth::config::STREAMS_MAX / 128];
        let grant = Grant { who: "é".repeat(64).into(), streams, ..grant() };
        let sealed = Signer::passing(b"").seal_session(&grant, at(NOW));
        println!("{} bytes", sealed.len());
        assert!(sealed.len() < SESSION_MAX - 256, "{} bytes, and a cookie has attributes", sealed.len());
    }

    #[test]
    fn the_key_outlives_the_process_is_its_owners_alone_and_ends_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        let token = Signer::of(dir.path(), b"a").sign_file("a.webm", at(NOW));
        assert_eq!((fs::read(&path).unwrap().len(), mode()), (32, 0o600));
        let again = Signer::of(dir.path(), b"b");
        assert!(again.opens_file("a.webm", &token, at(NOW)), "not after a restart");
        assert!(!format!("{again:?}").contains(|c: char| c.is_ascii_digit()), "{again:?}");
        let session = Signer::of(dir.path(), b"a").seal_session(&grant(), at(NOW + 60));
        assert_eq!(again.open_session(&session, at(NOW)), Err(AuthError::Unknown), "other settings");
        assert!(Signer::of(dir.path(), b"a").open_session(&session, at(NOW)).is_ok());

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(Signer::of(dir.path(), b"a").opens_file("a.webm", &token, at(NOW)));
        assert_eq!(mode(), 0o600);
        fs::write(&path, "short").unwrap();
        fs::write(dir.path().join("..key.tmp"), "as a crash left it").unwrap();
        assert!(!Signer::of(dir.path(), b"a").opens_file("a.webm", &token, at(NOW)));
        assert_eq!((fs::read(&path).unwrap().len(), mode()), (32, 0o600));
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [KEY_FILE]);
    }

    #[test]
    fn without_a_place_for_its_key_the_server_signs_all_the_same() {
        let signer = Signer::of(Path::new("/nowhere/at/all"), b"");
        let token = signer.sign_file("a.webm", at(NOW));
        assert!(signer.opens_file("a.webm", &token, at(NOW)));
    }
}
