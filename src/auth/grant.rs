//! What a credential is traded for.

use crate::auth::permission::Permission;
use crate::base::id::StreamName;
use crate::base::stream_pattern::Pattern;
use jiff::Timestamp;
use std::sync::Arc;

/// What a caller may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Whose it is, for the log: never the credential.
    pub who: Arc<str>,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// With which streams.
    pub streams: Vec<Pattern>,
    /// Until when; `None` for ever.
    pub expires: Option<Timestamp>,
}

impl Grant {
    /// All there is, for callers that need no credential.
    pub fn everything(who: &str) -> Self {
        Self {
            who: who.into(),
            permissions: vec![Permission::Admin],
            streams: vec![Pattern::any()],
            expires: None,
        }
    }

    /// Whether it is good for this. Without a stream: for some stream at least.
    pub fn allows(&self, permission: Permission, stream: Option<&StreamName>) -> bool {
        let permitted = |held: &Permission| matches!(held, Permission::Admin) || *held == permission;
        self.permissions.iter().any(permitted)
            && stream.is_none_or(|name| self.streams.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether its time is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
