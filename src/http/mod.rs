//! L5: axum handlers: parse, authorise, call, map the error. No media, no WebRTC types.

use crate::base::units;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;

/// Section `server` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of HTTP and WebSocket; port 0 picks a free one.
    pub bind: SocketAddr,
    /// How users reach the server from outside (`https://record.example.org`), if not by `bind`.
    pub public_url: String,
    /// Foreign origins that may publish: exact, `https://*.example.org`, or a bare host.
    pub cors_origins: Vec<String>,
    /// How long recordings and hooks may take to finish at shutdown.
    #[serde(deserialize_with = "units::duration")]
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            cors_origins: Vec::new(),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Section `auth` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Who is served.
    pub mode: AuthMode,
}

/// Who is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Requests from this machine only.
    #[default]
    Off,
    /// Everybody, by the operator's explicit word.
    Open,
}
