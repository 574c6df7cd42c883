//! Whose share of the limits a request takes.

use crate::base::places::Party;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

/// The client a request counts for; nobody if it comes from this machine.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub Option<Party>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(client_address(&parts.extensions).and_then(Party::of)))
    }
}

/// Where a request comes from.
pub fn client_address(of: &Extensions) -> Option<IpAddr> {
    of.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}
