//! TURN credentials that expire, as coturn's `use-auth-secret` takes them (draft-uberti-behave-turn-rest-00): a page
//! that passes its credential on gives away a relay for a day, and not for ever.

use crate::webrtc::{Config, IceServer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rtc::crypto::{CryptoError, HmacAlgorithm, default_provider};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A TURN server asks for a good credential as long as the relay is used: longer than any exam or shift.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

impl IceServer {
    /// Whether it lends relays.
    pub fn is_turn(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with("turn"))
    }
}

impl Config {
    /// What clients should use: `ice_servers`, with credentials under `turn_secret` where they have none of their own.
    pub fn ice_servers_at(&self, now: SystemTime) -> Vec<IceServer> {
        let mut servers = self.ice_servers.clone();
        let lacks = |server: &&mut IceServer| server.is_turn() && server.username.is_none();
        if self.turn_secret.is_empty() {
            return servers;
        }
        for server in servers.iter_mut().filter(lacks) {
            let expires = (now + LIFETIME).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let username = format!("{expires}:onrecord");
            match credential(&username, &self.turn_secret) {
                Ok(credential) => (server.username, server.credential) = (Some(username), Some(credential)),
                Err(error) => tracing::error!(%error, "no TURN credential can be made"),
            }
        }
        servers
    }
}

fn credential(username: &str, secret: &str) -> Result<String, CryptoError> {
    let mut mac = default_provider()?.crypto().new_hmac(HmacAlgorithm::Sha1, secret.as_bytes())?;
    let mut tag = [0; 20];
    mac.sign(&[username.as_bytes()], &mut tag)?;
    Ok(BASE64_STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, username: Option<&str>) -> IceServer {
        let credential = username.map(|_| "of its own".to_owned());
        IceServer { urls: vec![url.to_owned()], username: username.map(str::to_owned), credential }
    }

    #[test]
    fn turn_servers_without_credentials_get_one_that_ends_in_a_day() {
        let ice_servers =
            vec![server("stun:a", None), server("turn:b", Some("ann")), server("turns:c", None)];
        let config = Config { ice_servers, turn_secret: "north".to_owned(), ..Config::default() };
        let now = UNIX_EPOCH + Duration::from_secs(1_433_895_918 - 24 * 3600);
        let [stun, own, made] = &config.ice_servers_at(now)[..] else { panic!("three servers") };
        assert_eq!((stun, own), (&config.ice_servers[0], &config.ice_servers[1]));
        assert_eq!(made.username.as_deref(), Some("1433895918:onrecord"));
        // printf 1433895918:onrecord | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(made.credential.as_deref(), Some("GtsY/EYWfKoSglM4y1vx7PwyL+s="));
        let without = Config { turn_secret: String::new(), ..config.clone() };
        assert_eq!(without.ice_servers_at(now), config.ice_servers);
    }
}
