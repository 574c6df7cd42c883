//! What an offer says of its transport: which section it belongs to, ICE credentials, the DTLS role and
//! the offerer's certificate.

use super::section::{is_disabled, lines, mid, value};
use super::{MAX_SECTIONS, RecordedSection, bad};
use crate::webrtc::PeerError;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// ICE credentials (RFC 8839 section 5.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::webrtc) struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// Credentials of our own. RFC 8445 section 5.3 asks for 24 and 128 random bits.
    pub fn random() -> Self {
        let random = |letters: usize| {
            (0..letters)
                .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[rand::random_range(0..32)]))
                .collect()
        };
        Self { ufrag: random(16), pwd: random(32) }
    }

    /// The first pair in an SDP or fragment.
    pub fn find(sdp: &str) -> Option<Self> {
        Self::of(&lines(sdp).collect::<Vec<_>>())
    }

    fn of(lines: &[&str]) -> Option<Self> {
        let own = |key| value(lines, key).map(str::to_owned);
        Some(Self { ufrag: own("a=ice-ufrag:")?, pwd: own("a=ice-pwd:")? })
    }
}

/// Hash functions for fingerprints, the strongest last (RFC 8122 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By its name, whose letters' case says nothing.
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "sha-256" => Some(Self::Sha256),
            "sha-384" => Some(Self::Sha384),
            "sha-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha384 => Sha384::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }
}

/// What the offerer's certificate is known by: its fingerprints of the strongest hash we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webrtc) struct Identity {
    hash: Hash,
    values: Vec<Vec<u8>>,
}

impl Identity {
    /// From lines with at least one `a=fingerprint`. Any certificate that one of the strongest hash fits
    /// is the offerer's; the weaker ones count no more then (RFC 8122 section 5).
    fn of(lines: &[&str]) -> Option<Self> {
        let mut known: Vec<(Hash, Vec<u8>)> = lines
            .iter()
            .filter_map(|line| {
                let (name, value) = line.strip_prefix("a=fingerprint:")?.trim().split_once(' ')?;
                let hash = Hash::named(name)?;
                let bytes = value.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
                let bytes = bytes.collect::<Result<Vec<u8>, _>>().ok()?;
                (bytes.len() == hash.of(&[]).len()).then_some((hash, bytes))
            })
            .collect();
        known.sort();
        let hash = known.last()?.0;
        let values = known.into_iter().filter(|(other, _)| *other == hash).map(|(_, value)| value).collect();
        Some(Self { hash, values })
    }

    /// Whether this certificate (DER) is the offerer's.
    pub fn is_of(&self, certificate: &[u8]) -> bool {
        self.values.contains(&self.hash.of(certificate))
    }
}

/// The one transport of everything that is recorded.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// Mids of the group in the answer (`a=group:BUNDLE`), where the offer has one.
    pub group: Option<Vec<String>>,
    /// The section that it belongs to (RFC 9143 section 7.2: the offerer-tagged one).
    pub tag: usize,
    pub credentials: Credentials,
    pub identity: Identity,
    /// The offerer insists on being the DTLS client.
    pub peer_is_dtls_client: bool,
}

impl Transport {
    pub fn of(
        session: &[&str],
        sections: &[Vec<&str>],
        recorded: &[RecordedSection],
    ) -> Result<Self, PeerError> {
        let (group, tag) = bundle(session, sections, recorded)?;
        // What the tagged section says holds for the group (RFC 9143 section 7.1.3); what it leaves out,
        // the session may say, and what that leaves out, clients have said in the others.
        let others = recorded.iter().map(|recorded| sections[recorded.index].as_slice());
        let scopes: Vec<&[&str]> = [sections[tag].as_slice(), session].into_iter().chain(others).collect();
        let credentials = scopes
            .iter()
            .find_map(|lines| Credentials::of(lines))
            .ok_or_else(|| bad("a=ice-ufrag or a=ice-pwd is missing"))?;
        let fingerprints = scopes
            .iter()
            .find(|lines| value(lines, "a=fingerprint:").is_some())
            .ok_or_else(|| bad("a=fingerprint is missing: media must be encrypted with DTLS-SRTP"))?;
        let identity = Identity::of(fingerprints)
            .ok_or_else(|| bad("no a=fingerprint is a whole one of sha-256, sha-384 or sha-512"))?;
        let setup = scopes.iter().find_map(|lines| value(lines, "a=setup:"));
        let peer_is_dtls_client = setup.is_some_and(|setup| setup.trim().eq_ignore_ascii_case("active"));
        Ok(Self { group, tag, credentials, identity, peer_is_dtls_client })
    }
}

/// The group that the answer's sections form, if there is one, and the section that the transport
/// belongs to: the group's first that the offerer hasn't given up.
fn bundle(
    session: &[&str],
    sections: &[Vec<&str>],
    recorded: &[RecordedSection],
) -> Result<(Option<Vec<String>>, usize), PeerError> {
    let mids: Vec<Option<&str>> = sections.iter().map(|section| mid(section)).collect();
    let groups = session.iter().filter_map(|line| line.strip_prefix("a=group:BUNDLE "));
    let group = groups
        .map(|mids| mids.split_ascii_whitespace().take(MAX_SECTIONS).collect::<Vec<_>>())
        .find(|group| recorded.iter().all(|c| mids[c.index].is_some_and(|mid| group.contains(&mid))));
    let Some(group) = group else {
        return match recorded {
            [alone] => Ok((None, alone.index)),
            _ => Err(bad("audio and video must share one transport (a=group:BUNDLE)")),
        };
    };
    let kept = group.iter().find_map(|mid| {
        let index = mids.iter().position(|other| *other == Some(*mid))?;
        (!is_disabled(&sections[index])).then_some(index)
    });
    let tag = kept.unwrap_or(recorded[0].index);
    let is_taken =
        |mid: &&&str| mids[tag] == Some(**mid) || recorded.iter().any(|recorded| recorded.mid == **mid);
    let taken = group.iter().filter(is_taken).map(|mid| (*mid).to_owned()).collect();
    Ok((Some(taken), tag))
}
