//! What a receiver sends: RTCP (RFC 3711 section 3.4, RFC 7714 section 9).

use super::{ENCRYPTED, GCM_TAG, Master, Protection, RTCP_HEAD, RTCP_LABELS, with_packet};
use bytes::BytesMut;
use rtc::crypto::RTCCrypto;
use rtc::shared::error::Error;
use rtc::srtp::protection_profile::ProtectionProfile;

/// The sending side of one DTLS-SRTP session.
pub struct Outbound {
    rtcp: Protection,
    /// Of the next packet, whichever source of ours it is of: sources need not count by themselves.
    index: u32,
}

impl Outbound {
    /// With the keys that we write with; errors as [`Inbound::new`](super::Inbound::new).
    pub fn new(
        profile: ProtectionProfile,
        master_key: &[u8],
        master_salt: &[u8],
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, Error> {
        let master = Master::new(profile, master_key, master_salt, crypto)?;
        Ok(Self { rtcp: master.protection(RTCP_LABELS, profile.rtcp_auth_tag_len())?, index: 0 })
    }

    /// Seals a compound packet of RTCP where it lies.
    pub fn seal(&mut self, packet: &mut BytesMut) -> Result<(), Error> {
        let failed = |error: rtc::crypto::CryptoError| Error::Crypto(error.to_string());
        // No key serves longer (RFC 3711 section 9.2).
        if self.index & ENCRYPTED != 0 {
            return Err(Error::ErrExceededMaxPackets);
        }
        let Some((head, body)) = packet.split_first_chunk_mut::<RTCP_HEAD>() else {
            return Err(Error::ErrTooShortRtcp);
        };
        let ssrc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let (index, word) = (u64::from(self.index), (self.index | ENCRYPTED).to_be_bytes());
        self.index += 1;
        match &mut self.rtcp {
            Protection::Counter(counter) => {
                counter.apply(ssrc, index, body).map_err(failed)?;
                let tag = counter.sign(&[packet, &word]).map_err(failed)?;
                packet.extend_from_slice(&word);
                packet.extend_from_slice(&tag[..counter.tag.min(tag.len())]);
            }
            Protection::Gcm(gcm) => {
                let nonce = with_packet(gcm.salt, 2, ssrc, index);
                let mut associated = [0; RTCP_HEAD + 4];
                associated[..RTCP_HEAD].copy_from_slice(head);
                associated[RTCP_HEAD..].copy_from_slice(&word);
                let mut tag = [0; GCM_TAG];
                gcm.cipher.seal_in_place(&nonce, &associated, body, &mut tag).map_err(failed)?;
                packet.extend_from_slice(&tag);
                packet.extend_from_slice(&word);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::crypto::default_provider;
    use rtc::srtp::context::Context;

    #[test]
    fn another_implementation_opens_what_is_sealed_here_in_every_profile() {
        for profile in [
            ProtectionProfile::Aes128CmHmacSha1_80,
            ProtectionProfile::Aes128CmHmacSha1_32,
            ProtectionProfile::Aes256CmHmacSha1_80,
            ProtectionProfile::Aes256CmHmacSha1_32,
            ProtectionProfile::AeadAes128Gcm,
            ProtectionProfile::AeadAes256Gcm,
        ] {
            let key: Vec<_> = (7..).take(profile.key_len()).collect();
            let salt: Vec<_> = (100..).take(profile.salt_len()).collect();
            let provider = default_provider().unwrap();
            let mut sender = Outbound::new(profile, &key, &salt, provider.crypto()).unwrap();
            let mut receiver = Context::new(&key, &salt, profile, None, None, provider.crypto()).unwrap();
            for source in [1, 2, 1_u32] {
                // A PLI.
                let mut plain = vec![0x81, 206, 0, 2];
                plain.extend(source.to_be_bytes());
                plain.extend(7_u32.to_be_bytes());
                let mut packet = BytesMut::from(&plain[..]);
                sender.seal(&mut packet).unwrap();
                assert_ne!(packet[RTCP_HEAD..12], plain[RTCP_HEAD..], "{profile:?}: in the clear");
                assert_eq!(receiver.decrypt_rtcp(&packet).unwrap(), plain, "{profile:?}");
            }
            assert!(sender.seal(&mut BytesMut::from(&[0x81, 206, 0][..])).is_err(), "it is too short");
            sender.index = ENCRYPTED;
            assert!(
                sender.seal(&mut BytesMut::from(&[0; 12][..])).is_err(),
                "the key has served long enough"
            );
        }
    }
}
