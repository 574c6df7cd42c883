//! Long-lived tokens: how they are made, and how one is known again.

use crate::auth::config::Token;
use crate::auth::grant::Grant;
use crate::base::id::Secret;
use crate::base::stream_pattern::Pattern;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// What a token begins with, so that people and scanners of leaked secrets know one when they see it.
const PREFIX: &str = "onr_";

/// A token just made. It is shown once, to its owner; `Debug` doesn't.
pub struct NewToken(String);

impl NewToken {
    /// 256 random bits.
    pub fn generate() -> Self {
        Self(format!("{PREFIX}{}{}", Secret::new().reveal(), Secret::new().reveal()))
    }

    /// For showing it to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the configuration keeps of it, as [`Token::hash`].
    pub fn hash(&self) -> String {
        format!("sha256:{:x}", Sha256::digest(&self.0))
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken(…)")
    }
}

/// The tokens of the configuration.
///
/// Kept as plain SHA-256: a token is 256 random bits, which is not found by trying, however fast the
/// hash. What slow hashes are for, words that people make up, is not a token here; and a slow one would
/// be a way to keep the server busy by asking.
#[derive(Debug)]
pub(super) struct Tokens(Vec<(Hash, Grant)>);

/// The hash of a token.
struct Hash([u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl Tokens {
    /// Those with a hash that is one; the configuration names the others.
    pub fn new(tokens: &[Token]) -> Self {
        Self(tokens.iter().filter_map(|token| Some((Hash(token.digest()?), grant(token)))).collect())
    }

    /// What this one is good for, over or not.
    pub fn find(&self, credential: &str) -> Option<&Grant> {
        let hash: [u8; 32] = Sha256::digest(credential).into();
        // All are compared, each in constant time, so that the time gives nothing away.
        let same = |known: &Hash| bool::from(known.0.ct_eq(&hash));
        self.0.iter().fold(None, |found, (known, grant)| if same(known) { Some(grant) } else { found })
    }
}

fn grant(token: &Token) -> Grant {
    Grant {
        who: token.name.as_str().into(),
        permissions: token.permissions.clone(),
        streams: if token.streams.is_empty() { vec![Pattern::any()] } else { token.streams.clone() },
        expires: token.expires,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_256_random_bits_and_known_by_its_hash_only() {
        let (one, other) = (NewToken::generate(), NewToken::generate());
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.reveal().len(), PREFIX.len() + 52);
        assert!(!format!("{one:?} {}", one.hash()).contains(&one.reveal()[4..12]));
        let entry = |token: &NewToken| Token {
            name: "studio".to_owned(),
            hash: token.hash(),
            permissions: Vec::new(),
            streams: Vec::new(),
            expires: None,
        };
        let tokens = Tokens::new(&[entry(&one), Token { hash: other.hash().to_uppercase(), ..entry(&one) }]);
        assert_eq!(tokens.find(one.reveal()).unwrap().streams, [Pattern::any()]);
        assert!(tokens.find(other.reveal()).is_none(), "SHA256: is no hash we write");
        assert!(tokens.find(&one.hash()).is_none(), "the hash opened what the token does");
        assert!(tokens.find("").is_none());
    }
}
