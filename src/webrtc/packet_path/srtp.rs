//! What a peer sends over DTLS-SRTP, authenticated and decrypted where it lies (RFC 3711, RFC 7714); and what it is sent.
//!
//! A source has a state only once a packet of it is authentic: what somebody else makes up costs no memory, and
//! changes nothing.

mod outbound;

pub use outbound::Outbound;

use super::header::Header;
use rtc::crypto::{
    AeadAlgorithm, AeadCipher, CryptoError, HmacAlgorithm, Mac, RTCCrypto, SecretVec, StreamCipher,
    StreamCipherAlgorithm,
};
use rtc::shared::error::Error;
use rtc::srtp::protection_profile::ProtectionProfile;
use subtle::ConstantTimeEq;

/// Sources that packets are taken from, and as many that reports are: a browser has two of each of its tracks.
const MAX_SOURCES: usize = 64;
/// How far behind its newest a source's packet may arrive. Retransmissions are up to a second late: 2048 packets are a
/// second of 20 Mbit/s.
const WINDOW: u64 = 2048;
/// Header and sender of an RTCP packet, which are never encrypted (RFC 3711 section 3.4).
const RTCP_HEAD: usize = 8;
/// The first of three labels that keys are derived by (RFC 3711 section 4.3.2).
const RTP_LABELS: u8 = 0;
const RTCP_LABELS: u8 = 3;
/// The flag that an RTCP packet is encrypted, with the packet's index.
const RTCP_INDEX: usize = 4;
const ENCRYPTED: u32 = 1 << 31;
/// Of HMAC-SHA1, before it is cut to what a profile sends.
const FULL_TAG: usize = 20;
const GCM_TAG: usize = 16;

/// Why a packet is not given.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Refused {
    /// Too short to be one.
    Malformed,
    /// It came before, or is too old to say.
    Replayed,
    /// Not from the peer, or changed on its way.
    Forged,
    /// Its source is one more than is kept.
    TooManySources,
}

/// The receiving side of one DTLS-SRTP session.
pub struct Inbound {
    rtp: Protection,
    rtcp: Protection,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

impl Inbound {
    /// With the keys that the peer writes with (RFC 5764 section 4.2). An error where they aren't as long as the
    /// profile's, or `crypto` lacks its ciphers.
    pub fn new(
        profile: ProtectionProfile,
        master_key: &[u8],
        master_salt: &[u8],
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, Error> {
        let master = Master::new(profile, master_key, master_salt, crypto)?;
        let rtp = master.protection(RTP_LABELS, profile.rtp_auth_tag_len())?;
        let rtcp = master.protection(RTCP_LABELS, profile.rtcp_auth_tag_len())?;
        Ok(Self { rtp, rtcp, rtp_sources: Sources::default(), rtcp_sources: Sources::default() })
    }

    /// Opens an RTP packet: `header` is what was read of `head`, and `body` is all behind that. Gives the payload, with
    /// its padding.
    pub fn open<'a>(
        &mut self,
        header: &Header<'_>,
        head: &[u8],
        body: &'a mut [u8],
    ) -> Result<&'a [u8], Refused> {
        let (ssrc, source) = (header.ssrc, self.rtp_sources.find(header.ssrc)?);
        let window = source.map(|source| self.rtp_sources.window(source));
        let index = match window {
            Some(window) => window.index_of(header.sequence),
            None => u64::from(header.sequence),
        };
        // No key serves longer (RFC 3711 section 9.2).
        let rollovers = u32::try_from(index >> 16).map_err(|_| Refused::Replayed)?;
        if window.is_some_and(|window| !window.is_new(index)) {
            return Err(Refused::Replayed);
        }
        let length = body.len().checked_sub(self.rtp.tag_length()).ok_or(Refused::Malformed)?;
        let (payload, tag) = body.split_at_mut(length);
        match &mut self.rtp {
            Protection::Counter(counter) => {
                counter.verify(&[head, payload, &rollovers.to_be_bytes()], tag)?;
                counter.decrypt(ssrc, index, payload)?;
            }
            Protection::Gcm(gcm) => gcm.open(ssrc, index, head, payload, tag)?,
        }
        self.rtp_sources.accept(source, ssrc, index);
        Ok(payload)
    }

    /// Opens a datagram of SRTCP; gives the compound packet in it. A datagram that is refused may be changed.
    pub fn open_rtcp<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        let length = datagram.len().checked_sub(self.rtcp.tag_length() + RTCP_INDEX);
        let length = length.filter(|length| *length >= RTCP_HEAD).ok_or(Refused::Malformed)?;
        let (packet, trailer) = datagram.split_at_mut(length);
        let head: [u8; RTCP_HEAD] = *packet.first_chunk().ok_or(Refused::Malformed)?;
        if head[0] >> 6 != 2 {
            return Err(Refused::Malformed);
        }
        let ssrc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let (tag, word) = self.rtcp.split_trailer(trailer).ok_or(Refused::Malformed)?;
        let flagged = u32::from_be_bytes(word);
        let (encrypted, index) = (flagged & ENCRYPTED != 0, u64::from(flagged & !ENCRYPTED));
        let source = self.rtcp_sources.find(ssrc)?;
        if source.is_some_and(|source| !self.rtcp_sources.window(source).is_new(index)) {
            return Err(Refused::Replayed);
        }
        match &mut self.rtcp {
            Protection::Counter(counter) => {
                counter.verify(&[packet, &word], tag)?;
                if encrypted {
                    counter.decrypt(ssrc, index, &mut packet[RTCP_HEAD..])?;
                }
            }
            Protection::Gcm(gcm) if encrypted => {
                let mut associated = [0; RTCP_HEAD + RTCP_INDEX];
                associated[..RTCP_HEAD].copy_from_slice(&head);
                associated[RTCP_HEAD..].copy_from_slice(&word);
                gcm.open(ssrc, index, &associated, &mut packet[RTCP_HEAD..], tag)?;
            }
            Protection::Gcm(gcm) => {
                // What is authenticated is all but the tag, in one piece (RFC 7714 section 9.3).
                let tag: [u8; GCM_TAG] = *tag.first_chunk().ok_or(Refused::Malformed)?;
                datagram[length..length + RTCP_INDEX].copy_from_slice(&word);
                gcm.open(ssrc, index, &datagram[..length + RTCP_INDEX], &mut [], &tag)?;
            }
        }
        self.rtcp_sources.accept(source, ssrc, index);
        Ok(&datagram[..length])
    }
}

/// What the keys of one direction are derived from.
struct Master<'a> {
    profile: ProtectionProfile,
    key: &'a [u8],
    salt: &'a [u8],
    crypto: &'a dyn RTCCrypto,
}

impl<'a> Master<'a> {
    fn new(
        profile: ProtectionProfile,
        key: &'a [u8],
        salt: &'a [u8],
        crypto: &'a dyn RTCCrypto,
    ) -> Result<Self, Error> {
        if key.len() != profile.key_len() {
            return Err(Error::SrtpMasterKeyLength(profile.key_len(), key.len()));
        }
        if salt.len() != profile.salt_len() {
            return Err(Error::SrtpSaltLength(profile.salt_len(), salt.len()));
        }
        Ok(Self { profile, key, salt, crypto })
    }

    fn protection(&self, first_label: u8, tag: usize) -> Result<Protection, Error> {
        let Self { profile, key, salt, crypto } = *self;
        let derive = |label, length| derive(crypto, key, salt, first_label + label, length);
        let protection = || {
            let key = derive(0, profile.key_len())?;
            let authentication = derive(1, profile.auth_key_len())?;
            let salt = derive(2, profile.salt_len())?;
            Protection::new(profile, &key, &authentication, &salt, tag, crypto)
        };
        protection().map_err(|error| Error::Crypto(error.to_string()))
    }
}

/// A session key (RFC 3711 section 4.3.1; RFC 7714 section 11 for the shorter salt): the keystream of AES in counter
/// mode under the master key. Keys are derived once, at a rate of 0 (RFC 5764 section 4.1.2).
fn derive(
    crypto: &dyn RTCCrypto,
    master_key: &[u8],
    master_salt: &[u8],
    label: u8,
    length: usize,
) -> Result<SecretVec, CryptoError> {
    let mut start: [u8; 16] = padded(master_salt);
    start[7] ^= label;
    let mut key = SecretVec::new(vec![0; length]);
    counter_mode(crypto, master_key)?.apply_keystream(&start, key.as_mut())?;
    Ok(key)
}

fn counter_mode(crypto: &dyn RTCCrypto, key: &[u8]) -> Result<Box<dyn StreamCipher>, CryptoError> {
    let long = key.len() > 16;
    let algorithm = if long { StreamCipherAlgorithm::Aes256Ctr } else { StreamCipherAlgorithm::Aes128Ctr };
    crypto.new_stream_cipher(algorithm, key)
}

/// The bytes with zeros behind; what is more than `N` is left out.
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    padded
}

/// The keyed ciphers of what is received, RTP or RTCP.
enum Protection {
    Counter(Counter),
    Gcm(Gcm),
}

impl Protection {
    fn new(
        profile: ProtectionProfile,
        key: &SecretVec,
        authentication: &SecretVec,
        salt: &SecretVec,
        tag: usize,
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, CryptoError> {
        let algorithm = match profile {
            ProtectionProfile::AeadAes128Gcm => AeadAlgorithm::Aes128Gcm,
            ProtectionProfile::AeadAes256Gcm => AeadAlgorithm::Aes256Gcm,
            ProtectionProfile::Aes128CmHmacSha1_80
            | ProtectionProfile::Aes128CmHmacSha1_32
            | ProtectionProfile::Aes256CmHmacSha1_80
            | ProtectionProfile::Aes256CmHmacSha1_32 => {
                let cipher = counter_mode(crypto, key.as_ref())?;
                let mac = crypto.new_hmac(HmacAlgorithm::Sha1, authentication.as_ref())?;
                return Ok(Self::Counter(Counter { cipher, mac, salt: padded(salt.as_ref()), tag }));
            }
            _ => return Err(CryptoError::Provider(format!("no cipher of {profile:?}"))),
        };
        let cipher = crypto.new_aead(algorithm, key.as_ref())?;
        Ok(Self::Gcm(Gcm { cipher, salt: padded(salt.as_ref()) }))
    }

    fn tag_length(&self) -> usize {
        match self {
            Self::Counter(counter) => counter.tag,
            Self::Gcm(_) => GCM_TAG,
        }
    }

    /// The tag behind an RTCP packet, and the word with its index: that is behind the tag of GCM (RFC 7714 section 9.2),
    /// and in front of the other.
    fn split_trailer<'a>(&self, trailer: &'a [u8]) -> Option<(&'a [u8], [u8; RTCP_INDEX])> {
        match self {
            Self::Counter(_) => trailer.split_first_chunk().map(|(word, tag)| (tag, *word)),
            Self::Gcm(_) => trailer.split_last_chunk().map(|(tag, word)| (tag, *word)),
        }
    }
}

/// AES in counter mode with HMAC-SHA1.
struct Counter {
    cipher: Box<dyn StreamCipher>,
    mac: Box<dyn Mac>,
    salt: [u8; 16],
    tag: usize,
}

impl Counter {
    fn verify(&mut self, authenticated: &[&[u8]], tag: &[u8]) -> Result<(), Refused> {
        let full = self.sign(authenticated).map_err(|_| Refused::Forged)?;
        let expected = full.get(..self.tag).ok_or(Refused::Forged)?;
        if bool::from(expected.ct_eq(tag)) { Ok(()) } else { Err(Refused::Forged) }
    }

    fn sign(&mut self, authenticated: &[&[u8]]) -> Result<[u8; FULL_TAG], CryptoError> {
        let mut full = [0; FULL_TAG];
        self.mac.sign(authenticated, &mut full)?;
        Ok(full)
    }

    fn decrypt(&mut self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), Refused> {
        self.apply(ssrc, index, data).map_err(|_| Refused::Malformed)
    }

    /// Encrypts, or decrypts.
    fn apply(&mut self, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), CryptoError> {
        // RFC 3711 section 4.1.1: the last two bytes count blocks.
        let start = with_packet(self.salt, 4, ssrc, index);
        self.cipher.apply_keystream(&start, data)
    }
}

/// AES-GCM.
struct Gcm {
    cipher: Box<dyn AeadCipher>,
    salt: [u8; 12],
}

impl Gcm {
    /// The nonce of RTP and of RTCP is the same (RFC 7714 sections 8.1 and 9.1), as an RTCP packet's index is shorter.
    fn open(
        &mut self,
        ssrc: u32,
        index: u64,
        associated: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), Refused> {
        let nonce = with_packet(self.salt, 2, ssrc, index);
        self.cipher.open_in_place(&nonce, associated, data, tag).map_err(|_| Refused::Forged)
    }
}

/// The salt with a packet's source and 48 bits of its index added from the byte `at` on.
fn with_packet<const N: usize>(mut salt: [u8; N], at: usize, ssrc: u32, index: u64) -> [u8; N] {
    let packet = u128::from(ssrc) << 48 | u128::from(index);
    let packet = &packet.to_be_bytes()[6..];
    salt.iter_mut().skip(at).zip(packet).for_each(|(salt, packet)| *salt ^= packet);
    salt
}

/// The sources of RTP, or of RTCP.
#[derive(Default)]
struct Sources {
    /// Apart from their windows, so that looking one up touches little memory.
    ssrcs: Vec<u32>,
    windows: Vec<Window>,
    last_found: usize,
}

impl Sources {
    /// Where the source is; `None` if it is new, and there is still room for it.
    fn find(&mut self, ssrc: u32) -> Result<Option<usize>, Refused> {
        if self.ssrcs.get(self.last_found) == Some(&ssrc) {
            return Ok(Some(self.last_found));
        }
        match self.ssrcs.iter().position(|known| *known == ssrc) {
            Some(found) => {
                self.last_found = found;
                Ok(Some(found))
            }
            None if self.ssrcs.len() < MAX_SOURCES => Ok(None),
            None => Err(Refused::TooManySources),
        }
    }

    fn window(&self, source: usize) -> &Window {
        &self.windows[source]
    }

    fn accept(&mut self, source: Option<usize>, ssrc: u32, index: u64) {
        if let Some(source) = source {
            self.windows[source].accept(index);
        } else {
            self.ssrcs.push(ssrc);
            self.windows.push(Window::new(index));
        }
    }
}

/// Which of a source's packets have come (RFC 3711 section 3.3.2).
struct Window {
    newest: u64,
    /// A bit for each index modulo [`WINDOW`].
    seen: [u64; (WINDOW / 64) as usize],
}

impl Window {
    fn new(first: u64) -> Self {
        let mut window = Self { newest: first, seen: [0; (WINDOW / 64) as usize] };
        *window.word(first) |= 1 << (first % 64);
        window
    }

    fn word(&mut self, index: u64) -> &mut u64 {
        &mut self.seen[(index % WINDOW / 64) as usize]
    }

    /// The index of a packet with this sequence number: the one that is nearest to the newest (RFC 3711 section 3.3.1).
    /// None is before 0: what seems to be is far ahead.
    fn index_of(&self, sequence: u16) -> u64 {
        const HALF: u16 = 1 << 15;
        let (rollovers, newest) = (self.newest >> 16, self.newest as u16);
        let rollovers = if newest < HALF {
            if sequence.saturating_sub(newest) > HALF { rollovers.saturating_sub(1) } else { rollovers }
        } else if newest - HALF > sequence {
            rollovers + 1
        } else {
            rollovers
        };
        rollovers << 16 | u64::from(sequence)
    }

    fn is_new(&self, index: u64) -> bool {
        if index > self.newest {
            return true;
        }
        let seen = self.seen[(index % WINDOW / 64) as usize] & 1 << (index % 64) != 0;
        self.newest - index < WINDOW && !seen
    }

    fn accept(&mut self, index: u64) {
        if index > self.newest {
            if index - self.newest >= WINDOW {
                self.seen.fill(0);
            } else {
                (self.newest + 1..index).for_each(|missed| *self.word(missed) &= !(1 << (missed % 64)));
            }
            self.newest = index;
        }
        *self.word(index) |= 1 << (index % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::packet_path::header;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rtc::crypto::{RTCCryptoProvider, default_provider};
    use rtc::srtp::context::Context;
    use std::sync::Arc;

    const PROFILES: [ProtectionProfile; 6] = [
        ProtectionProfile::Aes128CmHmacSha1_80,
        ProtectionProfile::Aes128CmHmacSha1_32,
        ProtectionProfile::Aes256CmHmacSha1_80,
        ProtectionProfile::Aes256CmHmacSha1_32,
        ProtectionProfile::AeadAes128Gcm,
        ProtectionProfile::AeadAes256Gcm,
    ];

    fn provider() -> Arc<dyn RTCCryptoProvider> {
        default_provider().unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    fn secret(text: &str) -> SecretVec {
        SecretVec::new(hex(text))
    }

    /// Both sides of a session: `rtc` writes.
    fn session(profile: ProtectionProfile) -> (Context, Inbound) {
        let key: Vec<_> = (7..).take(profile.key_len()).collect();
        let salt: Vec<_> = (100..).take(profile.salt_len()).collect();
        let provider = provider();
        let sender = Context::new(&key, &salt, profile, None, None, provider.crypto()).unwrap();
        (sender, Inbound::new(profile, &key, &salt, provider.crypto()).unwrap())
    }

    /// A session whose keys are those of a test vector, for which there is no master key.
    fn with_keys(profile: ProtectionProfile, key: &str, salt: &str) -> Inbound {
        let provider = provider();
        let protection = |tag| {
            let none = secret("");
            Protection::new(profile, &secret(key), &none, &secret(salt), tag, provider.crypto()).unwrap()
        };
        Inbound {
            rtp: protection(profile.rtp_auth_tag_len()),
            rtcp: protection(profile.rtcp_auth_tag_len()),
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
        }
    }

    fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 1]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    fn rtcp(ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 201, 0, u8::try_from(1 + payload.len() / 4).unwrap()];
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    fn open(inbound: &mut Inbound, datagram: &[u8]) -> Result<Vec<u8>, Refused> {
        let length = header::length(datagram).ok_or(Refused::Malformed)?;
        let (head, body) = datagram.split_at(length);
        let mut body = body.to_vec();
        inbound.open(&Header::read(head).unwrap(), head, &mut body).map(<[u8]>::to_vec)
    }

    fn open_rtcp(inbound: &mut Inbound, datagram: &[u8]) -> Result<Vec<u8>, Refused> {
        inbound.open_rtcp(&mut datagram.to_vec()).map(<[u8]>::to_vec)
    }

    #[test]
    fn keys_are_derived_as_in_rfc_3711_b_3_and_rfc_6188_7_2() {
        let provider = provider();
        let check = |key, salt, label, expected: &str| {
            let expected = hex(expected);
            let derived = derive(provider.crypto(), &hex(key), &hex(salt), label, expected.len()).unwrap();
            assert_eq!(derived.as_ref(), expected, "label {label}");
        };
        let (key, salt) = ("E1F97A0D3E018BE0D64FA32C06DE4139", "0EC675AD498AFEEBB6960B3AABE6");
        check(key, salt, 0, "C61E7A93744F39EE10734AFE3FF7A087");
        check(key, salt, 2, "30CBBC08863D8C85D49DB34A9AE1");
        let authentication = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
            E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25 6D6E919A48B610EF17C2041E47403576
            6B68642C59BBFC2F34DB60DBDFB2";
        check(key, salt, 1, authentication);
        let key = "F0F04914B513F2763A1B1FA130F10E29 98F6F6E43E4309D1E622A0E332B9F1B6";
        let salt = "3B04803DE51EE7C96423AB5B78D2";
        check(key, salt, 0, "5BA1064E30EC51613CAD926C5A28EF73 1EC7FB397F70A960653CAF06554CD8C4");
        check(key, salt, 2, "FA31791685CA444A9E07C6C64E93");
        check(key, salt, 1, "FD9C32D39ED5FBB5A9DC96B30818454D1313DC05");
    }

    #[test]
    fn the_keystream_is_that_of_rfc_3711_b_2() {
        let profile = ProtectionProfile::Aes128CmHmacSha1_80;
        let key = "2B7E151628AED2A6ABF7158809CF4F3C";
        let mut inbound = with_keys(profile, key, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
        let Protection::Counter(counter) = &mut inbound.rtp else { panic!("{profile:?}") };
        let mut data = [0; 48];
        counter.decrypt(0, 0, &mut data).unwrap();
        let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
            41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(data[..], hex(expected));
    }

    #[test]
    fn packets_of_rfc_7714_are_opened() {
        let salt = "517569642070726f2071756f";
        let short = "000102030405060708090a0b0c0d0e0f";
        let long = format!("{short}101112131415161718191a1b1c1d1e1f");
        let (gcm_128, gcm_256) = (ProtectionProfile::AeadAes128Gcm, ProtectionProfile::AeadAes256Gcm);
        let rtp = "8040f17b8041f8d35501a0b2";
        // Sections 16.1.2 and 16.2.2.
        for (profile, key, packet) in [
            (
                gcm_128,
                short,
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833
                899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                gcm_256,
                &long,
                "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b
                7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ] {
            let opened = open(&mut with_keys(profile, key, salt), &hex(&format!("{rtp}{packet}")));
            assert_eq!(opened.unwrap(), b"Gallia est omnis divisa in partes tres", "{profile:?}");
        }
        let rtcp = "81c8000d4d617273 4e5450314e545032525450200000042a0000e9304c756e61
            deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
        let encrypted = "81c8000d4d617273";
        // Sections 17.1 to 17.4: encrypted, and with a tag only.
        for (profile, key, head, packet) in [
            (
                gcm_128,
                short,
                encrypted,
                "63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda
                4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade 800005d4",
            ),
            (
                gcm_256,
                &long,
                encrypted,
                "d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be
                8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be 800005d4",
            ),
            (gcm_128, short, rtcp, "841dd9683dd78ec92ae58790125f62b3 000005d4"),
            (gcm_256, &long, rtcp, "91db4afbfeee5a978fab4393ed2615fe 000005d4"),
        ] {
            let mut inbound = with_keys(profile, key, salt);
            let packet = hex(&format!("{head}{packet}"));
            assert_eq!(open_rtcp(&mut inbound, &packet).unwrap(), hex(rtcp), "{profile:?}");
            assert_eq!(open_rtcp(&mut inbound, &packet), Err(Refused::Replayed));
        }
    }

    #[test]
    fn reports_that_are_authentic_but_not_encrypted_are_taken() {
        for profile in [ProtectionProfile::Aes128CmHmacSha1_80, ProtectionProfile::Aes256CmHmacSha1_32] {
            let (_, mut inbound) = session(profile);
            let packet = rtcp(9, &[1, 2, 3, 4]);
            let index = 3u32.to_be_bytes();
            let mut tag = [0; FULL_TAG];
            let Protection::Counter(counter) = &mut inbound.rtcp else { panic!("{profile:?}") };
            counter.mac.sign(&[&packet, &index], &mut tag).unwrap();
            let datagram = [&packet[..], &index, &tag[..10]].concat();
            let encrypted = [&packet[..], &[0x80, 0, 0, 3], &tag[..10]].concat();
            assert_eq!(
                open_rtcp(&mut inbound, &encrypted),
                Err(Refused::Forged),
                "the flag is authentic too"
            );
            assert_eq!(open_rtcp(&mut inbound, &datagram).unwrap(), packet);
            assert_eq!(open_rtcp(&mut inbound, &datagram), Err(Refused::Replayed));
        }
    }

    #[test]
    fn keys_of_another_length_are_an_error() {
        let provider = provider();
        for profile in PROFILES {
            let (key, salt) = (vec![0; profile.key_len()], vec![0; profile.salt_len()]);
            let new = |key: &[u8], salt: &[u8]| Inbound::new(profile, key, salt, provider.crypto()).is_ok();
            assert!(new(&key, &salt));
            assert!(!new(&key[1..], &salt) && !new(&key, &salt[1..]) && !new(&[], &[]), "{profile:?}");
        }
    }

    /// Each packet is there once, is opened but a single time, and late ones only as long as they may be late.
    #[test]
    fn sequence_numbers_wrap_and_packets_overtake_each_other() {
        for profile in PROFILES {
            let (mut sender, mut inbound) = session(profile);
            let packets: Vec<_> = (0..140_000u32)
                .step_by(97)
                .map(|count| (count, (60_000 + count) as u16))
                .map(|(count, sequence)| {
                    (count, sender.encrypt_rtp(&rtp(1, sequence, &count.to_be_bytes())).unwrap())
                })
                .collect();
            // Groups of 20 are 1940 sequence numbers: within a window, backwards.
            for (group, packets) in packets.chunks(20).enumerate() {
                let order: Vec<_> =
                    if group % 2 == 0 { packets.iter().collect() } else { packets.iter().rev().collect() };
                for (count, packet) in &order {
                    let opened = open(&mut inbound, packet);
                    assert_eq!(opened, Ok(count.to_be_bytes().to_vec()), "{profile:?}, packet {count}");
                }
                for (count, packet) in &order {
                    assert_eq!(open(&mut inbound, packet), Err(Refused::Replayed), "{profile:?}, {count}");
                }
            }
            let last = packets.len() - 1;
            assert_eq!(open(&mut inbound, &packets[last - 22].1), Err(Refused::Replayed), "too old");
            assert_eq!(inbound.rtp_sources.windows[0].newest >> 16, 3, "three times around");
        }
    }

    #[test]
    fn the_index_is_never_below_zero_and_follows_rfc_3711_3_3_1() {
        let index = |newest, sequence| Window::new(newest).index_of(sequence);
        assert_eq!(index(65_535, 0), 65_536, "a first packet right before the wrap");
        assert_eq!(index(65_530, 3), 65_539);
        assert_eq!(index(65_539, 65_530), 65_530, "late, from before the wrap");
        assert_eq!(index(3, 65_530), 65_530, "before 0 there is nothing");
        assert_eq!(index(0, 65_535), 65_535);
        assert_eq!(index(3, 2), 2);
        assert_eq!(index(40_000, 39_000), 39_000);
        assert_eq!(index(5 << 16 | 100, 65_000), 4 << 16 | 65_000);
        assert_eq!(index(5 << 16 | 65_000, 100), 6 << 16 | 100);
        assert_eq!(index(5 << 16, 1 << 15), 5 << 16 | 1 << 15, "half the range ahead is ahead");
        assert_eq!(index(5 << 16 | 1 << 15, 0), 5 << 16, "and behind, behind");
    }

    #[test]
    fn a_source_that_begins_right_before_the_wrap_is_followed_in_any_order() {
        for profile in PROFILES {
            let (mut sender, mut inbound) = session(profile);
            let sent: Vec<_> = (65_500..65_900u32)
                .map(|count| sender.encrypt_rtp(&rtp(1, count as u16, &[1, 2])).unwrap())
                .collect();
            assert!(open(&mut inbound, &sent[35]).is_ok(), "the last before the wrap");
            for packet in sent[36..].iter().rev().chain(&sent[..35]) {
                assert_eq!(open(&mut inbound, packet), Ok(vec![1, 2]), "{profile:?}");
            }
        }
    }

    #[test]
    fn who_has_not_the_keys_takes_no_memory() {
        for profile in PROFILES {
            let (mut sender, mut inbound) = session(profile);
            for ssrc in 0..200 {
                let mut packet = rtp(ssrc, 1, &[0; 20]);
                packet.extend_from_slice(&[1; 20]);
                assert_eq!(open(&mut inbound, &packet), Err(Refused::Forged));
                packet = rtcp(ssrc, &[0; 24]);
                packet.extend_from_slice(&[0x80, 0, 0, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
                assert_eq!(open_rtcp(&mut inbound, &packet), Err(Refused::Forged));
            }
            assert!(inbound.rtp_sources.ssrcs.is_empty() && inbound.rtcp_sources.windows.is_empty());
            for ssrc in 0..200 {
                let expected = |payload: &[u8]| {
                    if ssrc < 64 { Ok(payload.to_vec()) } else { Err(Refused::TooManySources) }
                };
                let packet = sender.encrypt_rtp(&rtp(ssrc, 1, &[7])).unwrap();
                assert_eq!(open(&mut inbound, &packet), expected(&[7]));
                let packet = rtcp(ssrc, &[1, 2, 3, 4]);
                let sent = sender.encrypt_rtcp(&packet).unwrap();
                assert_eq!(open_rtcp(&mut inbound, &sent), expected(&packet));
            }
            let packet = sender.encrypt_rtp(&rtp(63, 2, &[8])).unwrap();
            assert_eq!(open(&mut inbound, &packet), Ok(vec![8]), "those that are known go on");
        }
    }

    #[test]
    fn a_bit_that_is_flipped_and_a_packet_that_is_cut_are_refused_and_change_nothing() {
        for profile in PROFILES {
            let (mut sender, mut inbound) = session(profile);
            let known = sender.encrypt_rtp(&rtp(5, 10, &[1])).unwrap();
            assert!(open(&mut inbound, &known).is_ok());
            let media = sender.encrypt_rtp(&rtp(5, 11, b"some media")).unwrap();
            let report = sender.encrypt_rtcp(&rtcp(5, b"a report")).unwrap();
            for bit in 0..media.len() * 8 {
                let mut packet = media.to_vec();
                packet[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&mut inbound, &packet).is_err(), "{profile:?}, bit {bit}");
            }
            for bit in 0..report.len() * 8 {
                let mut packet = report.to_vec();
                packet[bit / 8] ^= 1 << (bit % 8);
                assert!(open_rtcp(&mut inbound, &packet).is_err(), "{profile:?}, bit {bit}");
            }
            for cut in 0..media.len() {
                assert!(open(&mut inbound, &media[..cut]).is_err(), "{profile:?}, cut at {cut}");
            }
            for cut in 0..report.len() {
                assert!(open_rtcp(&mut inbound, &report[..cut]).is_err(), "{profile:?}, cut at {cut}");
            }
            assert_eq!((inbound.rtp_sources.ssrcs.len(), inbound.rtcp_sources.ssrcs.len()), (1, 0));
            assert_eq!(inbound.rtp_sources.windows[0].newest, 10);
            assert_eq!(open(&mut inbound, &media).unwrap(), b"some media", "{profile:?}");
            assert_eq!(open_rtcp(&mut inbound, &report).unwrap(), rtcp(5, b"a report"), "{profile:?}");
        }
    }

    #[test]
    fn after_the_last_index_no_key_serves() {
        let (mut sender, mut inbound) = session(ProtectionProfile::AeadAes128Gcm);
        assert!(open(&mut inbound, &sender.encrypt_rtp(&rtp(5, 10, &[1])).unwrap()).is_ok());
        inbound.rtp_sources.windows[0].newest = (1 << 48) - 1;
        let packet = sender.encrypt_rtp(&rtp(5, 11, &[1])).unwrap();
        assert_eq!(open(&mut inbound, &packet), Err(Refused::Replayed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Any start, jumps of any size that a rollover counter can follow, and an order that is off by hundreds.
        #[test]
        fn what_rtc_encrypts_is_opened_once(
            profile in prop::sample::select(&PROFILES[..]),
            start in prop_oneof![0..300u32, 65_236..65_836u32, any::<u16>().prop_map(u32::from)],
            steps in vec((prop_oneof![20 => 1..3u32, 1 => 1..1500u32], any::<u16>(), vec(any::<u8>(), 0..30)), 1..300),
        ) {
            let (mut sender, mut inbound) = session(profile);
            let mut count = start.min(65_535);
            let mut sent = Vec::new();
            for (step, delay, payload) in steps {
                let packet = sender.encrypt_rtp(&rtp(3, count as u16, &payload)).unwrap();
                sent.push((count + u32::from(delay % 500), packet, payload));
                count += step;
            }
            // The first comes first: what a receiver has not seen, it can't count rollovers of.
            sent[1..].sort_by_key(|(time, ..)| *time);
            for (_, packet, payload) in &sent {
                prop_assert_eq!(open(&mut inbound, packet), Ok(payload.clone()));
                prop_assert_eq!(open(&mut inbound, packet), Err(Refused::Replayed));
            }
            for (_, packet, _) in &sent {
                prop_assert_eq!(open(&mut inbound, packet), Err(Refused::Replayed));
            }
        }

        #[test]
        fn reports_that_rtc_encrypts_are_opened_once(
            profile in prop::sample::select(&PROFILES[..]),
            reports in vec((0..4u32, vec(any::<u32>(), 0..20), 0..100usize), 1..60),
        ) {
            let (mut sender, mut inbound) = session(profile);
            let mut sent: Vec<_> = reports
                .into_iter()
                .enumerate()
                .map(|(count, (ssrc, words, delay))| {
                    let words: Vec<_> = words.into_iter().flat_map(u32::to_be_bytes).collect();
                    let packet = rtcp(ssrc, &words);
                    (count + delay, sender.encrypt_rtcp(&packet).unwrap(), packet)
                })
                .collect();
            sent.sort_by_key(|(time, ..)| *time);
            for (_, encrypted, packet) in &sent {
                prop_assert_eq!(open_rtcp(&mut inbound, encrypted), Ok(packet.clone()));
            }
            for (_, encrypted, _) in &sent {
                prop_assert_eq!(open_rtcp(&mut inbound, encrypted), Err(Refused::Replayed));
            }
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(
            profile in prop::sample::select(&PROFILES[..]),
            datagrams in vec(vec(any::<u8>(), 0..80), 0..20),
        ) {
            let (_, mut inbound) = session(profile);
            for mut datagram in datagrams {
                if let Some(first) = datagram.first_mut() {
                    *first = *first & 0x3F | 0x80;
                }
                prop_assert!(open(&mut inbound, &datagram).is_err());
                prop_assert!(open_rtcp(&mut inbound, &datagram).is_err());
            }
        }
    }
}
