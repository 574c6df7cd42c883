//! DTLS of one peer connection: who the server is, and what the handshake agrees on (RFC 5764).

mod repeats;

use bytes::BytesMut;
use repeats::RepeatFilter;
use rtc::crypto::{RTCCryptoProvider, default_provider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::error::{Error, Result};
use rtc::shared::{TransportContext, TransportProtocol};
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::protection_profile::ProtectionProfile;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// What protects media, the preferred one first: AES-GCM costs a third of what AES-CM with HMAC does.
const PROFILES: [(SrtpProtectionProfile, ProtectionProfile); 4] = [
    (SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm, ProtectionProfile::AeadAes256Gcm),
    (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
    (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32, ProtectionProfile::Aes128CmHmacSha1_32),
];

/// A certificate of the server, and how the sessions that show it shake hands.
pub struct Identity {
    pub(super) crypto: Arc<dyn RTCCryptoProvider>,
    as_client: Arc<HandshakeConfig>,
    as_server: Arc<HandshakeConfig>,
    fingerprint: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new certificate, signed by itself.
    ///
    /// # Errors
    ///
    /// There is no source of randomness, or the build has no crypto provider.
    pub fn generate() -> Result<Self> {
        let crypto = default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["onrecord".to_owned()], crypto.crypto())?;
        let der = certificate.certificate.first().map(Sha256::digest).unwrap_or_default();
        let digits: Vec<String> = der.iter().map(|byte| format!("{byte:02X}")).collect();
        let config = |is_client| {
            ConfigBuilder::default()
                .with_crypto_provider(crypto.clone())
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(PROFILES.iter().map(|(offered, _)| *offered).collect())
                // Any certificate, as far as DTLS is concerned: the session compares it with its offer's
                // fingerprint, of which the crate knows SHA-256 alone.
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .build(is_client, None)
        };
        Ok(Self {
            as_client: Arc::new(config(true)?),
            as_server: Arc::new(config(false)?),
            fingerprint: digits.join(":"),
            crypto,
        })
    }

    /// The value of `a=fingerprint` (RFC 8122 section 5).
    pub fn fingerprint(&self) -> String {
        format!("sha-256 {}", self.fingerprint)
    }
}

/// What a handshake has agreed on.
pub(super) struct Agreed {
    /// The peer's certificate, DER.
    pub certificate: Vec<u8>,
    /// The profile, and the keys of both sides.
    pub srtp: Config,
}

/// What a datagram of the peer has led to.
pub(super) enum Outcome {
    /// The handshake goes on, or nothing has changed.
    Nothing,
    /// It is through.
    Agreed(Box<Agreed>),
    /// The peer has closed the connection.
    Closed,
}

/// The association with the peer.
pub(super) struct Association {
    endpoint: Endpoint,
    /// For the first flight, where we send it.
    as_client: Option<Arc<HandshakeConfig>>,
    repeats: RepeatFilter,
    agreed: bool,
    closed: bool,
}

impl Association {
    pub fn new(identity: &Identity, is_client: bool) -> Self {
        let local = TransportContext::default().local_addr;
        let server = (!is_client).then(|| identity.as_server.clone());
        Self {
            endpoint: Endpoint::new(local, TransportProtocol::UDP, server),
            as_client: is_client.then(|| identity.as_client.clone()),
            repeats: RepeatFilter::default(),
            agreed: false,
            closed: false,
        }
    }

    /// There is a path to the peer: a client speaks first.
    pub fn begin(&mut self, now: Instant) -> Result<()> {
        let Some(config) = self.as_client.take().filter(|_| !self.closed) else { return Ok(()) };
        self.endpoint.connect(now, peer(), config, None)
    }

    /// Takes a datagram of the peer.
    pub fn read(&mut self, now: Instant, datagram: &[u8]) -> Result<Outcome> {
        if self.closed || (!self.agreed && self.repeats.is_repeat(datagram)) {
            return Ok(Outcome::Nothing);
        }
        let mut outcome = Outcome::Nothing;
        for event in self.endpoint.read(now, peer(), None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self.endpoint.get_connection_state(peer());
                    outcome = Outcome::Agreed(Box::new(agreed(state.ok_or(Error::ErrNonCertificate)?)?));
                    self.agreed = true;
                }
                EndpointEvent::PeerClosed => {
                    self.closed = true;
                    return Ok(Outcome::Closed);
                }
                // There are no data channels.
                _ => {}
            }
        }
        Ok(outcome)
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        // Of an association that has not begun it knows nothing; one that has tried too often stays silent.
        if let Err(error) = self.endpoint.handle_timeout(peer(), now) {
            tracing::trace!(%error, "DTLS timers");
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&peer())
    }

    /// Says goodbye to the peer (`close_notify`).
    pub fn close(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.closed, true)
            && let Err(error) = self.endpoint.close(now)
        {
            tracing::debug!(%error, "closing DTLS");
        }
    }
}

/// What the endpoint knows the one peer by, wherever that is: ICE decides where datagrams go.
fn peer() -> std::net::SocketAddr {
    TransportContext::default().peer_addr
}

fn agreed(state: &State) -> Result<Agreed> {
    let chosen = state.srtp_protection_profile();
    let known = PROFILES.iter().find(|(offered, _)| *offered == chosen);
    let (_, profile) = *known.ok_or(Error::ErrNoSuchSrtpProfile)?;
    let mut srtp = Config { profile, ..Config::default() };
    let material =
        state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], srtp.keying_material_len())?;
    srtp.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    let certificate = state.peer_certificates.first().cloned().ok_or(Error::ErrNonCertificate)?;
    Ok(Agreed { certificate, srtp })
}
