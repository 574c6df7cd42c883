//! Which hosts and origins are one's own, local, or listed.

use std::net::IpAddr;
use url::{Host, Origin, Url};

/// The entries of `server.cors_origins` or `server.frame_ancestors`.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<Entry>);

#[derive(Clone, Debug)]
enum Entry {
    /// `https://app.example.org`, `http://localhost:3000`.
    Exact(Origin),
    /// `https://*.example.org`: any depth of subdomain, not the domain itself.
    Under { scheme: String, suffix: String, port: u16 },
    /// `app.example.org`, `localhost`: HTTP or HTTPS on any port, or on the one given.
    Host { host: String, port: Option<u16> },
}

impl Origins {
    /// Reads the entries configured as `key`; the error lists every one that can't be used.
    pub fn parse(key: &str, entries: &[String]) -> Result<Self, Vec<String>> {
        let (read, bad): (Vec<_>, Vec<_>) = entries.iter().map(|text| (text, entry(text))).partition(is_read);
        if bad.is_empty() {
            return Ok(Self(read.into_iter().filter_map(|(_, entry)| entry).collect()));
        }
        let expected = |text: &String| {
            format!(
                "{key}: expected \"https://app.example.org\", \"https://*.example.org\" or \
                 \"app.example.org\", found {text:?}"
            )
        };
        Err(bad.into_iter().map(|(text, _)| expected(text)).collect())
    }

    /// Whether an `Origin` is listed.
    pub fn lists(&self, origin: &Origin) -> bool {
        let Origin::Tuple(scheme, host, port) = origin else { return false };
        let web = matches!(scheme.as_str(), "http" | "https");
        let host = host.to_string();
        self.0.iter().any(|entry| match entry {
            Entry::Exact(exact) => exact == origin,
            Entry::Under { scheme: s, suffix, port: p } => {
                s == scheme && p == port && host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
            Entry::Host { host: h, port: p } => web && *h == host && p.is_none_or(|p| p == *port),
        })
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries as CSP source expressions (CSP level 3, section 2.3.1).
    pub fn csp_sources(&self) -> String {
        let source = |entry: &Entry| match entry {
            Entry::Exact(origin) => format!(" {}", origin.ascii_serialization()),
            Entry::Under { scheme, suffix, port } => format!(" {scheme}://*{suffix}:{port}"),
            Entry::Host { host, port: Some(port) } => format!(" http://{host}:{port} https://{host}:{port}"),
            Entry::Host { host, port: None } => format!(" http://{host}:* https://{host}:*"),
        };
        self.0.iter().map(source).collect()
    }
}

fn is_read((_, entry): &(&String, Option<Entry>)) -> bool {
    entry.is_some()
}

fn entry(text: &str) -> Option<Entry> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let url = bare(text).filter(|text| !text.contains('*'))?;
        let url = Url::parse(&format!("http://{url}")).ok()?;
        // `Url` drops a default port, so the text itself says whether one was written.
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        return Some(Entry::Host { host: url.host()?.to_string(), port });
    };
    let bare_rest = bare(rest.strip_suffix('/').unwrap_or(rest))?;
    if let Some(parent) = bare_rest.strip_prefix("*.") {
        let Origin::Tuple(scheme, Host::Domain(domain), port) = web_origin(&format!("{scheme}://{parent}"))?
        else {
            return None;
        };
        return Some(Entry::Under { scheme, suffix: format!(".{domain}"), port });
    }
    web_origin(&format!("{scheme}://{bare_rest}")).map(Entry::Exact)
}

/// `text` if it is a host with an optional port and nothing else.
fn bare(text: &str) -> Option<&str> {
    let foreign = |c: char| c.is_whitespace() || c.is_control() || "/\\@?#;,'\"".contains(c);
    let stars = text.strip_prefix("*.").unwrap_or(text);
    (!stars.is_empty() && !stars.contains(foreign) && !stars.contains('*')).then_some(text)
}

/// Reads `http://host:port` or `https://host:port`; `null` and everything else is `None`.
pub fn web_origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    bare(rest)?;
    let origin = Url::parse(text).ok()?.origin();
    (matches!(scheme, "http" | "https") && origin.is_tuple()).then_some(origin)
}

/// Whether a `Host` names this machine itself: `localhost`, anything under `.localhost` (RFC 6761
/// section 6.3 reserves it, so no name server points it elsewhere), or a loopback address; any port.
pub fn is_local_host(host: &str) -> bool {
    let Some(Origin::Tuple(_, host, _)) = web_origin(&format!("http://{host}")) else { return false };
    match host {
        Host::Domain(domain) => {
            let domain = domain.trim_end_matches('.');
            domain == "localhost" || domain.ends_with(".localhost")
        }
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => IpAddr::V6(ip).to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_addresses_of_this_machine_are_local() {
        for local in
            ["localhost", "LOCALHOST:8080", "localhost.", "app.localhost:1", "127.0.0.1", "127.9.9.9:80"]
        {
            assert!(is_local_host(local), "{local} was refused");
        }
        for local in ["[::1]", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert!(is_local_host(local), "{local} was refused");
        }
        for foreign in ["", "evil.example", "localhost.evil.example", "notlocalhost", "10.0.0.1", "0.0.0.0"] {
            assert!(!is_local_host(foreign), "{foreign} passed for local");
        }
        for foreign in ["user@localhost", "localhost/x", "[::]", "[fe80::1]", "127.0.0.1.evil.example"] {
            assert!(!is_local_host(foreign), "{foreign} passed for local");
        }
    }

    #[test]
    fn listed_origins_are_exact_wildcard_or_bare_hosts() {
        let list = ["https://app.example.org", "https://*.example.net", "tool.example", "localhost:3000"];
        let origins = Origins::parse("server.cors_origins", &list.map(String::from)).unwrap();
        let listed = |text: &str| web_origin(text).is_some_and(|origin| origins.lists(&origin));
        for yes in [
            "https://app.example.org",
            "https://app.example.org:443",
            "https://a.example.net",
            "https://a.b.example.net",
            "http://tool.example",
            "https://tool.example:8443",
            "http://localhost:3000",
        ] {
            assert!(listed(yes), "{yes} was refused");
        }
        for no in [
            "http://app.example.org",
            "https://app.example.org:8443",
            "https://example.net",
            "https://evilexample.net",
            "http://a.example.net",
            "https://a.example.net.evil.example",
            "ftp://tool.example",
            "http://localhost:3001",
            "null",
        ] {
            assert!(!listed(no), "{no} passed for listed");
        }
    }

    #[test]
    fn every_entry_that_cannot_be_used_is_named() {
        let bad =
            ["*", "*.a.org", "https://", "https://*.*.org", "", "ftp://a.org", "a b", "https://a.org/x"];
        let errors = Origins::parse("server.cors_origins", &bad.map(String::from)).unwrap_err();
        assert_eq!(errors.len(), bad.len(), "{errors:#?}");
        assert!(errors[3].contains("https://*.*.org"), "{}", errors[3]);
    }
}
