//! Names and identifiers that are valid by construction.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// A stream's name: UTF-8, 1 to 128 bytes, no control characters, no `/` or `\`, no leading `.` or
/// `-`. It can't hold a path, and it can't be taken for an option by a script.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 1, max_length = 128, pattern = r"^[^./\\-][^/\\]*$", example = "interview 7")]
pub struct StreamName(String);

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty, or over 128 bytes.
    #[error("a stream name has 1 to 128 bytes, this one has {0}")]
    Length(usize),
    /// A control character, `/` or `\`.
    #[error("a stream name has no control characters and no / or \\, this one has {0:?}")]
    Character(char),
    /// A leading `.` or `-`.
    #[error("a stream name doesn't begin with {0:?}")]
    Start(char),
}

impl StreamName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        if name.is_empty() || name.len() > 128 {
            return Err(BadName::Length(name.len()));
        }
        if let Some(bad) = name.chars().find(|c| c.is_control() || matches!(c, '/' | '\\')) {
            return Err(BadName::Character(bad));
        }
        match name.chars().next() {
            Some(start @ ('.' | '-')) => Err(BadName::Start(start)),
            _ => Ok(Self(name.to_owned())),
        }
    }
}

impl TryFrom<String> for StreamName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        name.parse()
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Crockford's base 32, lower case: no `i`, `l`, `o`, `u`, so that an id read aloud stays itself.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Encodes the low `5 * digits` bits of `value`.
fn base32(value: u128, digits: u32) -> String {
    (0..digits).rev().map(|digit| ALPHABET[(value >> (5 * digit) & 31) as usize] as char).collect()
}

/// Six random digits: what tells one visitor's stream from another's of the same prefix.
pub fn random_suffix() -> String {
    base32(rand::random(), 6)
}

/// A recording's identifier: a ULID in lower case (48 bits of milliseconds, 80 random bits), so
/// that sorting by id sorts by time. What one folder gives out also rises where the wall clock was set
/// back: the order of recordings is that of their ids, not of their wall times.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-hjkmnp-tv-z]{26}$", example = "01kax3v5m0e8d2rk6w7c9ynzqt")]
pub struct RecordingId(String);

impl RecordingId {
    /// A new identifier for a recording that starts at `at`.
    pub fn new(at: Timestamp) -> Self {
        Self::of_millis(at.as_millisecond().max(0) as u128)
    }

    /// The same, but later than `last`: a millisecond, if the clock doesn't say more.
    fn later_than(last: &Self, at: Timestamp) -> Self {
        Self::of_millis((at.as_millisecond().max(0) as u128).max(last.millis() + 1))
    }

    fn of_millis(millis: u128) -> Self {
        Self(base32(millis << 80 | rand::random::<u128>() >> 48, 26))
    }

    /// When it was given out, by a clock that never goes back in one folder.
    pub fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(i64::try_from(self.millis()).ok()?).ok()
    }

    /// Ten digits: the bits before the random ones.
    fn millis(&self) -> u128 {
        let digit = |byte| ALPHABET.iter().position(|known| *known == byte).unwrap_or(0) as u128;
        self.0.bytes().take(10).fold(0, |millis, byte| millis << 5 | digit(byte))
    }

    /// 26 characters of `[0-9a-z]`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Gives out identifiers, each later than all before it, whatever the wall clock says.
#[derive(Debug)]
pub struct RecordingIds(Mutex<Option<RecordingId>>);

impl RecordingIds {
    /// Goes on behind `last`.
    pub fn after(last: Option<RecordingId>) -> Self {
        Self(Mutex::new(last))
    }

    /// One for a recording that begins at `at`.
    pub fn next(&self, at: Timestamp) -> RecordingId {
        let mut last = self.0.lock();
        let id = last.as_ref().map_or_else(|| RecordingId::new(at), |last| RecordingId::later_than(last, at));
        last.insert(id).clone()
    }
}

impl FromStr for RecordingId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        if id.len() == 26 && id.bytes().all(|byte| ALPHABET.contains(&byte)) {
            Ok(Self(id.to_owned()))
        } else {
            Err(format!("{id:?} is not a recording's id (26 characters of 0-9 and a-z)"))
        }
    }
}

impl TryFrom<String> for RecordingId {
    type Error = String;

    fn try_from(id: String) -> Result<Self, String> {
        id.parse()
    }
}

impl From<RecordingId> for String {
    fn from(id: RecordingId) -> Self {
        id.0
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 128 random bits that prove a publisher is the one it was. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A new secret.
    pub fn new() -> Self {
        Self(base32(rand::random(), 26))
    }

    /// For handing it to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// A secret a client sent.
    pub fn from_client(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Names one session, which is one connection that brings media; unguessable, usable in a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(Secret);

impl SessionId {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        Self(Secret::new())
    }

    /// The id in a URL.
    pub fn as_str(&self) -> &str {
        self.0.reveal()
    }

    /// An id from a URL.
    pub fn from_client(text: &str) -> Self {
        Self(Secret::from_client(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_cannot_hold_a_path_or_pass_for_an_option() {
        for bad in ["", "../../etc/passwd", "a/b", "a\\b", ".hidden", "-rf", "a\nb", "a\0b", &"x".repeat(129)]
        {
            assert!(bad.parse::<StreamName>().is_err(), "{bad:?} was taken");
        }
        for good in ["interview 7", "$HOME \"x\" 'y'", "собеседование", "a..b", &"x".repeat(128)]
        {
            assert!(good.parse::<StreamName>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn recording_ids_sort_by_time_and_differ() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let (early, late) =
            (RecordingId::new(at(1_700_000_000_000)), RecordingId::new(at(1_700_000_000_001)));
        assert!(early < late, "{early} {late}");
        assert_ne!(RecordingId::new(at(1)), RecordingId::new(at(1)));
        assert_eq!(early.as_str().len(), 26);
        assert_eq!(early.as_str().parse::<RecordingId>().as_ref(), Ok(&early));
    }

    #[test]
    fn an_id_is_later_than_the_last_whatever_the_clock_says() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let last = RecordingId::new(at(1_700_000_000_000));
        let later = |ms| RecordingId::later_than(&last, at(ms));
        assert!(later(1_600_000_000_000) > last && later(1_700_000_000_000) > last);
        assert_eq!(later(0).millis(), 1_700_000_000_001);
        assert_eq!(later(1_800_000_000_000).time(), Some(at(1_800_000_000_000)));
        // The last one of all, should there be such a file.
        let end: RecordingId = "z".repeat(26).parse().unwrap();
        assert_eq!(RecordingId::later_than(&end, at(0)).as_str().len(), 26);
        assert_eq!(end.time(), None, "beyond all calendars");
    }

    proptest! {
        #[test]
        fn a_name_is_taken_by_its_rules_and_comes_back_as_it_was(text in "\\PC{0,130}|[\\x00-\\x7f]{0,8}") {
            let good = (1..=128).contains(&text.len())
                && !text.starts_with(['.', '-'])
                && !text.contains(['/', '\\'])
                && !text.chars().any(char::is_control);
            let json = serde_json::to_string(&text).unwrap();
            let read: Option<StreamName> = serde_json::from_str(&json).ok();
            prop_assert_eq!(read.as_ref().map(StreamName::as_str), good.then_some(&*text));
            if let Some(name) = read {
                prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
                prop_assert_eq!(serde_json::to_string(&name).unwrap(), json);
            }
        }

        #[test]
        fn an_id_is_26_digits_and_nothing_else(text in "[0-9a-zA-Z_./-]{20,30}|[0-9a-hjkmnp-tv-z]{26}") {
            let good = text.len() == 26 && text.chars().all(|c| c.is_ascii_digit() || "abcdefghjkmnpqrstvwxyz".contains(c));
            let read = text.parse::<RecordingId>();
            prop_assert_eq!(read.is_ok(), good);
            prop_assert!(read.is_err() || read.unwrap().as_str() == text);
        }
    }
}
