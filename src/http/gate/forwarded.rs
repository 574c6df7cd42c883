//! Whose request it is, what it asks for, and where below `server.base_path`.
//!
//! A connection knows its peer and whether it is encrypted. Behind a proxy both are the proxy's own, so
//! of a peer in `server.trusted_proxies`, and of no other, `X-Forwarded-For`, `X-Forwarded-Proto` and
//! `X-Forwarded-Host` are believed, or `Forwarded` (RFC 7239) if it sends none of them.

use crate::base::quota::ClientKey;
use crate::http::Config;
use crate::http::error::{self, ApiError};
use crate::http::gate::origin;
use crate::http::listen::connection::Encrypted;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Once;
use url::{Origin, Url};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Proxies in a row. What stands further left in their headers is only what a client made up.
const MAX_HOPS: usize = 16;

/// The address a request comes from: the peer's, or the one that a trusted proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Of a request, by its extensions.
    pub fn of(extensions: &Extensions) -> Self {
        let forwarded = extensions.get().copied();
        let peer = || extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| peer.ip());
        forwarded.unwrap_or_else(|| Self(peer().unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical()))
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// The client whose share of the limits a request takes; none if it comes from this machine.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub Option<ClientKey>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(ClientKey::of(ClientAddress::of(&parts.extensions).0)))
    }
}

/// What a request asks for, as its client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// `https` or `http`; `None` if only a proxy knows it that is not trusted.
    pub scheme: Option<&'static str>,
    /// The host, with its port if one was written; `None` if none was asked for, or two.
    pub host: Option<String>,
    /// By way of a trusted proxy, whatever its headers say.
    pub proxied: bool,
}

impl Requested {
    /// Of a request that came through the middleware; of any other as its own head has it.
    pub fn of(request: &Request) -> Self {
        Self::found(request.extensions(), request.uri(), request.headers())
    }

    /// The same of a request without its body.
    pub fn of_parts(request: &Parts) -> Self {
        Self::found(&request.extensions, &request.uri, &request.headers)
    }

    fn found(extensions: &Extensions, uri: &Uri, headers: &HeaderMap) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self {
            scheme: None,
            host: host(uri, headers).map(str::to_owned),
            proxied: false,
        })
    }

    /// Whether the client's own connection is encrypted, as far as is known.
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Some("https")
    }
}

/// The one host a request asks for; `None` if it names none, or two (RFC 9112 section 3.2).
pub(in crate::http) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let mut hosts = uri.authority().map(|authority| Some(authority.as_str())).into_iter().chain(named);
    let first = hosts.next()??;
    hosts.all(|other| other == Some(first)).then_some(first)
}

/// The server's address as clients see it.
#[derive(Clone, Debug, Default)]
pub struct Site {
    base: String,
    trusted: Vec<IpNet>,
    public: Option<Url>,
    pub(super) hsts: bool,
}

impl Site {
    /// Of a configuration that is checked.
    pub fn new(config: &Config) -> Self {
        Self {
            base: config.base().to_owned(),
            trusted: config.trusted_proxies.iter().filter_map(|text| network(text)).collect(),
            public: Url::parse(&config.public_url).ok(),
            // A server that sends plain HTTP on to TLS has both ports of the host; elsewhere another server's
            // pages, on another port, may need plain HTTP. Under HSTS a browser lets no user past a
            // certificate it doesn't know, so never with one of our own.
            hsts: !config.tls.self_signed && config.tls.is_on() && !config.tls.redirect_bind.is_empty(),
        }
    }

    /// What every path begins with: nothing, or `/onrecord`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A path of ours as clients have to write it.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(in crate::http) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Warns once of a proxy that is not trusted: until it is, all clients behind it are one.
    pub(super) fn warn_of_unknown_proxy(&self, peer: IpAddr, headers: &HeaderMap) {
        let forwards = headers.contains_key(FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
        if forwards && is_near(peer.to_canonical()) && !self.trusts(peer.to_canonical()) {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    %peer,
                    "a proxy brings requests of others, and all count as its own: if it is yours, put its \
                     address into server.trusted_proxies"
                );
            });
        }
    }

    /// Whose request this is, and what it asks for.
    pub(super) fn forwarded(&self, peer: IpAddr, request: &Request) -> (ClientAddress, Requested) {
        let (mut address, headers) = (peer.to_canonical(), request.headers());
        let proxied = self.trusts(address);
        let hops = if proxied { ForwardedHops::by(headers) } else { ForwardedHops::default() };
        let mut last = 0;
        for (index, hop) in hops.clients.iter().enumerate() {
            let Some(next) = hop.filter(|_| self.trusts(address)) else { break };
            (address, last) = (next, index);
        }
        let encrypted = request.extensions().get() == Some(&Encrypted(true));
        let scheme =
            hops.at(&hops.schemes, last).map_or(encrypted.then_some("https"), |scheme| match scheme {
                _ if scheme.eq_ignore_ascii_case("https") => Some("https"),
                _ if scheme.eq_ignore_ascii_case("http") => Some("http"),
                _ => None,
            });
        let host = hops.at(&hops.hosts, last).or_else(|| host(request.uri(), headers)).map(str::to_owned);
        (ClientAddress(address), Requested { scheme, host, proxied })
    }

    /// The same address by `https`, on this port if neither `server.public_url` nor the client knows
    /// better.
    pub(in crate::http) fn encrypted(&self, uri: &Uri, headers: &HeaderMap, port: Option<u16>) -> Response {
        let public = self.public.as_ref().filter(|url| url.scheme() == "https");
        let authority = public.map(|url| url.origin().ascii_serialization()).or_else(|| {
            let asked = origin::web_origin(&format!("https://{}", host(uri, headers)?))?;
            let Origin::Tuple(scheme, host, asked) = asked else { return None };
            Some(Origin::Tuple(scheme, host, port.unwrap_or(asked)).ascii_serialization())
        });
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let target = authority.and_then(|origin| HeaderValue::try_from(format!("{origin}{path}")).ok());
        let Some(target) = target else {
            return ApiError::bad_request("this port wants https: and a Host header that names the server")
                .into_response();
        };
        // A client that asks plainly again on the same connection would be sent away again.
        let headers = [(header::LOCATION, target), (header::CONNECTION, HeaderValue::from_static("close"))];
        (StatusCode::PERMANENT_REDIRECT, headers).into_response()
    }

    /// The request's address below [`Self::base`]; `None` if it is not below.
    pub(super) fn strip_base_path(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path().strip_prefix(&self.base)?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(format!("{path}{query}").parse().ok().filter(|_| path.starts_with('/'))?);
        Uri::from_parts(parts).ok()
    }

    pub(super) fn not_below(&self, uri: &Uri) -> Response {
        let base = &self.base;
        if uri.path() == base {
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            return (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, format!("{base}/{query}"))])
                .into_response();
        }
        error::outside(base).into_response()
    }
}

/// What a proxy sends, from the nearest hop to the farthest.
#[derive(Default)]
struct ForwardedHops<'a> {
    /// Each hop's client; `None` if it is hidden.
    clients: Vec<Option<IpAddr>>,
    schemes: Vec<&'a str>,
    hosts: Vec<&'a str>,
}

impl<'a> ForwardedHops<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let clients: Vec<_> = list(headers, &FORWARDED_FOR);
        let (schemes, hosts) = (list(headers, &FORWARDED_PROTO), list(headers, &FORWARDED_HOST));
        if clients.is_empty() && schemes.is_empty() && hosts.is_empty() {
            return Self::by_standard(headers);
        }
        Self { clients: clients.into_iter().map(address).collect(), schemes, hosts }
    }

    fn by_standard(headers: &'a HeaderMap) -> Self {
        let mut hops = Self::default();
        for hop in list(headers, &header::FORWARDED) {
            let pairs = || hop.split(';').filter_map(|pair| pair.trim().split_once('='));
            let value = |key: &str| {
                pairs()
                    .find(|(name, _)| name.eq_ignore_ascii_case(key))
                    .map(|(_, value)| value.trim_matches('"'))
            };
            hops.clients.push(value("for").and_then(address));
            hops.schemes.push(value("proto").unwrap_or_default());
            hops.hosts.push(value("host").unwrap_or_default());
        }
        hops
    }

    /// The value of the proxy that met the client: each in a chain adds its own, or leaves one for all.
    fn at(&self, values: &[&'a str], hop: usize) -> Option<&'a str> {
        let index = if values.len() == self.clients.len() { hop } else { 0 };
        values.get(index).copied().filter(|value| !value.is_empty())
    }
}

/// Where a proxy of one's own stands: this machine, or a network of one's own (RFC 1918, RFC 4193).
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// The values of a list header, the last first. One that is no text means nothing, and takes no other with it.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let items = values.into_iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    items.map(|item| str::from_utf8(item).unwrap_or_default().trim()).take(MAX_HOPS).collect()
}

/// `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:1234`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// An entry of `server.trusted_proxies`: an address, or a network as `10.0.0.0/8`.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.to_canonical().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn site(trusted: &[&str], base: &str) -> Site {
        let trusted_proxies = trusted.iter().map(|&text| text.to_owned()).collect();
        Site::new(&Config { trusted_proxies, base_path: base.to_owned(), ..Config::default() })
    }

    fn forwarded(site: &Site, peer: &str, headers: Headers<'_>) -> (String, Option<&'static str>, String) {
        let mut request = Request::builder().uri("/").header("host", "inner:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (address, asked) = site.forwarded(peer.parse().unwrap(), &request.body(Body::empty()).unwrap());
        (address.0.to_string(), asked.scheme, asked.host.unwrap_or_default())
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_what_it_added_itself() {
        let site = site(&["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"], "");
        let xff = |value| ("x-forwarded-for", value);
        let table: &[(&str, Headers<'_>, &str)] = &[
            ("192.0.2.9", &[xff("203.0.113.1")], "192.0.2.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("::ffff:127.0.0.1", &[xff("203.0.113.1")], "203.0.113.1"),
            ("127.0.0.1", &[xff("1.1.1.1, 203.0.113.1")], "203.0.113.1"),
            ("127.0.0.1", &[xff("1.1.1.1"), xff("203.0.113.1, 10.1.2.3")], "203.0.113.1"),
            ("127.0.0.1", &[xff("203.0.113.1:4711, 10.1.2.3")], "203.0.113.1"),
            ("127.0.0.1", &[xff("1.1.1.1, unknown, 10.1.2.3")], "10.1.2.3"),
            ("127.0.0.1", &[xff("10.1.2.4, 10.1.2.3")], "10.1.2.4"),
            ("2001:db8::1", &[xff("[2001:db9::7]:80")], "2001:db9::7"),
            (
                "127.0.0.1",
                &[("forwarded", "for=1.1.1.1, For=\"[2001:db9::7]:1\";proto=https")],
                "2001:db9::7",
            ),
            ("127.0.0.1", &[xff("203.0.113.1"), ("forwarded", "for=1.1.1.1")], "203.0.113.1"),
            ("127.0.0.1", &[xff("")], "127.0.0.1"),
        ];
        for (peer, headers, expected) in table {
            assert_eq!(forwarded(&site, peer, headers).0, *expected, "{peer} {headers:?}");
        }
        let mut strange = Request::builder().uri("/").body(Body::empty()).unwrap();
        let value = HeaderValue::from_bytes(b"\xff, 203.0.113.1").unwrap();
        strange.headers_mut().insert(FORWARDED_FOR, value);
        let (address, _) = site.forwarded([127, 0, 0, 1].into(), &strange);
        assert_eq!(address.0.to_string(), "203.0.113.1", "a client's own word hid what the proxy added");
        let long = vec!["10.0.0.1"; 5000].join(",");
        assert_eq!(forwarded(&site, "127.0.0.1", &[xff(&long)]).0, "10.0.0.1");
    }

    #[test]
    fn scheme_and_host_are_those_that_the_first_trusted_proxy_met() {
        let site = site(&["127.0.0.1", "10.0.0.0/8"], "");
        let (proto, host) = (|value| ("x-forwarded-proto", value), |value| ("x-forwarded-host", value));
        let xff = |value| ("x-forwarded-for", value);
        let table: &[(&str, Headers<'_>, Option<&str>, &str)] = &[
            ("192.0.2.9", &[proto("https"), host("evil.example")], None, "inner:8080"),
            ("127.0.0.1", &[], None, "inner:8080"),
            ("127.0.0.1", &[proto("https"), host("a.example")], Some("https"), "a.example"),
            ("127.0.0.1", &[proto("HTTP")], Some("http"), "inner:8080"),
            ("127.0.0.1", &[proto("gopher")], None, "inner:8080"),
            ("127.0.0.1", &[xff("1.1.1.1, 10.0.0.2"), proto("https, http")], Some("https"), "inner:8080"),
            ("127.0.0.1", &[xff("9.9.9.9, 1.1.1.1, 10.0.0.2"), proto("https")], Some("https"), "inner:8080"),
            ("127.0.0.1", &[xff("9.9.9.9, 1.1.1.1"), host("evil.example, a.example")], None, "a.example"),
            (
                "127.0.0.1",
                &[("forwarded", "for=1.1.1.1;host=\"a.example:8443\";proto=https")],
                Some("https"),
                "a.example:8443",
            ),
        ];
        for (peer, headers, scheme, host) in table {
            let (_, found, named) = forwarded(&site, peer, headers);
            assert_eq!((found, named.as_str()), (*scheme, *host), "{peer} {headers:?}");
        }
    }

    #[test]
    fn the_base_path_is_a_whole_segment_and_taken_off_once() {
        let site = site(&[], "/onrecord/");
        let below = |text: &str| site.strip_base_path(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(below("/onrecord/publish?name=a").as_deref(), Some("/publish?name=a"));
        assert_eq!(below("/onrecord/").as_deref(), Some("/"));
        assert_eq!(below("/onrecord/onrecord/x").as_deref(), Some("/onrecord/x"));
        assert_eq!(below("https://a.example/onrecord/x").as_deref(), Some("https://a.example/x"));
        for outside in ["/", "/publish", "/onrecord", "/onrecordings/x", "/ONRECORD/x", "/%6fnrecord/x"] {
            assert_eq!(below(outside), None, "{outside}");
        }
        let plain = Site::default();
        assert_eq!(plain.strip_base_path(&"/x?y".parse().unwrap()).unwrap().to_string(), "/x?y");
        assert_eq!((plain.path("/x"), site.path("/x")), ("/x".to_owned(), "/onrecord/x".to_owned()));
    }

    #[test]
    fn the_way_to_https_goes_to_the_public_url_or_to_the_host_asked_for() {
        let to = |site: &Site, host: Option<&str>, path: &str, port| {
            let mut headers = HeaderMap::new();
            headers.extend(host.map(|host| (header::HOST, HeaderValue::from_str(host).unwrap())));
            let response = site.encrypted(&path.parse().unwrap(), &headers, port);
            let location = response.headers().get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
            location.ok_or(response.status().as_u16())
        };
        let own = Site::default();
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(to(&own, Some("a.example:80"), "/x?y=1", Some(8443)), ok("https://a.example:8443/x?y=1"));
        assert_eq!(to(&own, Some("a.example"), "/", Some(443)), ok("https://a.example/"));
        assert_eq!(
            to(&own, Some("[::1]:8443"), "//evil.example/", None),
            ok("https://[::1]:8443//evil.example/")
        );
        for bad in [None, Some("a@evil.example"), Some("a/b"), Some("")] {
            assert_eq!(to(&own, bad, "/", Some(8443)), Err(400), "{bad:?}");
        }
        let public =
            Site::new(&Config { public_url: "https://rec.example.org".to_owned(), ..Config::default() });
        assert_eq!(to(&public, Some("evil.example"), "/x", Some(8443)), ok("https://rec.example.org/x"));
    }
}
