//! STUN messages that a session writes itself, each signed with one side's password (RFC 8489 section 14.5).

use super::Generation;
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_USERNAME,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc::stun::xoraddr::XorMappedAddress;
use std::net::SocketAddr;
use std::sync::Arc;

/// Signs messages and checks signatures.
pub(super) struct Signer(Arc<dyn RTCCryptoProvider>);

impl Signer {
    pub fn new(crypto: Arc<dyn RTCCryptoProvider>) -> Self {
        Self(crypto)
    }

    pub fn is_signed(&self, message: &mut Message, password: &str) -> bool {
        MessageIntegrity::check(message, password.as_bytes(), self.0.crypto()).is_ok()
    }

    /// The answer to a request that came from this address.
    pub fn answer(&self, request: &Message, from: SocketAddr, password: &str) -> Option<BytesMut> {
        let mut message = Message::new();
        let setters: [Box<dyn Setter + '_>; 5] = [
            Box::new(request.transaction_id),
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress { ip: from.ip(), port: from.port() }),
            Box::new(self.integrity(password)),
            Box::new(FINGERPRINT),
        ];
        message.build(&setters).ok()?;
        Some(BytesMut::from(&message.raw[..]))
    }

    /// A check of ours.
    pub fn request(&self, generation: &Generation) -> Option<(TransactionId, BytesMut)> {
        let mut message = Message::new();
        // 110 is the type preference of a peer-reflexive candidate (RFC 8445 section 5.1.2.2).
        message.typ = BINDING_REQUEST;
        message.transaction_id = TransactionId::new();
        message.write_header();
        message.add(ATTR_ICE_CONTROLLED, &rand::random::<[u8; 8]>());
        message.add(ATTR_PRIORITY, &(110_u32 << 24 | 0x00ff_ff00).to_be_bytes());
        let signed = self.resign(&message, Some(generation), &generation.remote.pwd)?;
        Some((message.transaction_id, signed))
    }

    /// The same message signed with another password, and as a request of this generation.
    pub fn resign(
        &self,
        message: &Message,
        request: Option<&Generation>,
        password: &str,
    ) -> Option<BytesMut> {
        let mut copy = Message::new();
        (copy.typ, copy.transaction_id) = (message.typ, message.transaction_id);
        copy.write_header();
        if let Some(Generation { local, remote, .. }) = request {
            // RFC 8445 section 7.2.2.
            copy.add(ATTR_USERNAME, format!("{}:{}", remote.ufrag, local.ufrag).as_bytes());
        }
        let replaced = [ATTR_USERNAME, ATTR_MESSAGE_INTEGRITY, ATTR_FINGERPRINT];
        for attribute in message.attributes.0.iter().filter(|found| !replaced.contains(&found.typ)) {
            copy.add(attribute.typ, &attribute.value);
        }
        let setters: [Box<dyn Setter + '_>; 2] = [Box::new(self.integrity(password)), Box::new(FINGERPRINT)];
        let signed = setters.iter().all(|setter| setter.add_to(&mut copy).is_ok());
        signed.then(|| BytesMut::from(&copy.raw[..]))
    }

    pub fn integrity(&self, password: &str) -> MessageIntegrity<'_> {
        MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), self.0.crypto())
    }
}
