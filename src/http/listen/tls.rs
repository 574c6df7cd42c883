//! TLS of our own: two files that are read again when they change, or a certificate made here.

use crate::disk::{self, Stamp};
use crate::http::Config as Server;
use crate::http::listen::connection::{Acceptor, HANDSHAKE, TlsAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use jiff::{Timestamp, ToSpan};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};
use x509_parser::extensions::GeneralName;

/// Section `server.tls` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate and those between it and its root, as PEM. Absolute once loaded; empty for none.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// Whether a certificate is made here.
    pub self_signed: bool,
    /// Where plain HTTP is sent on to HTTPS; empty for nowhere.
    pub redirect_bind: String,
}

impl Config {
    /// Whether the server speaks TLS by itself.
    pub fn is_on(&self) -> bool {
        self.self_signed || !self.cert.as_os_str().is_empty()
    }
}

/// In `record.dir`, for that is the one folder the server is sure to keep and to be alone in;
/// recordings' names never begin with a dot. Key and certificate in one file are replaced in one step.
const OWN_FILE: &str = ".tls.pem";
/// As long as Apple's systems take any: browsers are asked to trust a new one as seldom as can be.
const OWN_DAYS: i64 = 800;
/// A certificate of our own is renewed so long before its end, one of files is warned of.
const AHEAD: Duration = Duration::from_secs(14 * 86400);
/// How often files are looked at, and the end of a certificate of our own.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_OWN: Duration = Duration::from_secs(3600);

/// A certificate in use, and where the next one comes from.
#[derive(Debug)]
pub struct Tls {
    served: RustlsConfig,
    source: Source,
    seen: Vec<Option<Stamp>>,
    ends: Timestamp,
}

#[derive(Clone, Debug)]
enum Source {
    Files { cert: PathBuf, key: PathBuf },
    Own { file: PathBuf, names: Vec<String> },
}

/// What a client is shown.
struct Pair {
    config: ServerConfig,
    ends: Timestamp,
}

impl Tls {
    /// Reads, or makes, the certificate; `None` without TLS. `dir` is `record.dir`. The error says which
    /// setting, and what to do.
    pub fn open(server: &Server, dir: &Path) -> Result<Option<Self>, String> {
        if !server.tls.is_on() {
            return Ok(None);
        }
        let source = match server.tls.self_signed {
            true => Source::Own { file: dir.join(OWN_FILE), names: own_names(server) },
            false => Source::Files { cert: server.tls.cert.clone(), key: server.tls.key.clone() },
        };
        let seen = source.stamp();
        let pair = source.pair()?;
        if let Source::Files { cert, .. } = &source {
            warn_of_end(cert, pair.ends);
        }
        let served = RustlsConfig::from_config(Arc::new(pair.config));
        Ok(Some(Self { served, source, seen, ends: pair.ends }))
    }

    /// When the certificate expires.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    pub(in crate::http) fn acceptor(&self) -> TlsAcceptor {
        let tls = RustlsAcceptor::new(self.served.clone()).handshake_timeout(HANDSHAKE);
        TlsAcceptor(tls.acceptor(Acceptor))
    }

    /// Replaces the certificate whenever its source changes, for ever. Connections there are go on with the one
    /// they began with.
    pub(in crate::http) async fn keep_current(mut self) {
        let mut changing = None;
        let pause = if matches!(self.source, Source::Own { .. }) { LOOK_OWN } else { LOOK };
        loop {
            tokio::time::sleep(pause).await;
            let due = match self.source {
                Source::Own { .. } => is_near(self.ends),
                Source::Files { .. } => {
                    let source = self.source.clone();
                    let Ok(now) = tokio::task::spawn_blocking(move || source.stamp()).await else { continue };
                    let still = changing.as_ref() == Some(&now);
                    // Two files are not replaced in one step: they are read once they have come to rest.
                    changing = (now != self.seen).then_some(now);
                    still && changing.is_some()
                }
            };
            if due {
                self.seen = changing.take().unwrap_or_default();
                self.renew().await;
            }
        }
    }

    async fn renew(&mut self) {
        let source = self.source.clone();
        let pair = tokio::task::spawn_blocking(move || source.pair()).await;
        match pair.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(pair) => {
                self.ends = pair.ends;
                self.served.reload_from_config(Arc::new(pair.config));
                tracing::info!(until = %pair.ends, "a new TLS certificate is in use");
                if let Source::Files { cert, .. } = &self.source {
                    warn_of_end(cert, pair.ends);
                }
            }
            Err(problem) => tracing::error!("{problem}; until then the certificate before it stays in use"),
        }
    }
}

fn is_near(end: Timestamp) -> bool {
    end.duration_since(Timestamp::now()) < jiff::SignedDuration::try_from(AHEAD).unwrap_or_default()
}

/// An expired certificate is no reason not to start: what a crash left is still repaired, and clients
/// that don't check the date still record.
fn warn_of_end(cert: &Path, end: Timestamp) {
    let cert = cert.display();
    if end < Timestamp::now() {
        tracing::error!(
            "server.tls.cert: {cert} has expired on {end}: browsers refuse it; put a new one there"
        );
    } else if is_near(end) {
        tracing::warn!("server.tls.cert: {cert} expires on {end}: put a new one there before");
    }
}

impl Source {
    fn stamp(&self) -> Vec<Option<Stamp>> {
        let Self::Files { cert, key } = self else { return Vec::new() };
        // Of what a link leads to: that is how renewed certificates are put in place.
        [cert, key].map(|path| fs::metadata(path).ok().map(|meta| Stamp::of(&meta))).into()
    }

    fn pair(&self) -> Result<Pair, String> {
        match self {
            Self::Files { cert, key } => {
                let read = |name: &str, path: &Path| {
                    fs::read(path).map_err(|error| {
                        let shown = path.display();
                        format!("server.tls.{name}: can't read {shown}: {error}; name a PEM file there that the server's user may read")
                    })
                };
                pair(&read("cert", cert)?, cert, &read("key", key)?, key)
            }
            Self::Own { file, names } => own(file, names),
        }
    }
}

fn pair(cert: &[u8], cert_path: &Path, key: &[u8], key_path: &Path) -> Result<Pair, String> {
    let (cert_path, key_path) = (cert_path.display(), key_path.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        format!(
            "server.tls.cert: {cert_path} is no certificate: expected PEM (-----BEGIN CERTIFICATE-----), the \
             server's own first, then those between it and its root"
        )
    })?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        format!(
            "server.tls.key: {key_path} is no private key: expected PEM without a password \
             (-----BEGIN PRIVATE KEY-----)"
        )
    })?;
    let ends = end_of(&chain[0]).ok_or_else(|| {
        format!("server.tls.cert: {cert_path} can't be read as a certificate: make it anew")
    })?;
    let config = server_config(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "server.tls.key: {key_path} is not the key of the certificate {cert_path}: set both to files \
             that were made together"
        ),
        other => {
            format!("server.tls.cert, server.tls.key: {cert_path} and {key_path} can't be used: {other}")
        }
    })?;
    Ok(Pair { config, ends })
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // A browser has six HTTP/1.1 connections to a host, and each live picture keeps one. WebSockets are
    // not offered over HTTP/2 (RFC 8441), so browsers open them over HTTP/1.1.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn end_of(cert: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    Timestamp::from_second(cert.validity().not_after.timestamp()).ok()
}

/// The certificate of before, unless it ends soon or lacks a name; then a new one.
fn own(file: &Path, names: &[String]) -> Result<Pair, String> {
    let known = fs::read(file).ok().and_then(|pem| {
        let pair = pair(&pem, file, &pem, file).ok()?;
        (!is_near(pair.ends) && has_names(&pem, names)).then_some(pair)
    });
    if let Some(pair) = known {
        return Ok(pair);
    }
    let pem = make(names).map_err(|error| {
        format!("server.tls.self_signed: no certificate can be made for {}: {error}", names.join(", "))
    })?;
    keep(file, &pem).map_err(|error| {
        format!(
            "server.tls.self_signed: the certificate can't be kept in {}: {error}; give the server's user \
             the folder (record.dir)",
            file.display()
        )
    })?;
    tracing::info!(names = names.join(" "), file = %file.display(), "made a TLS certificate");
    pair(pem.as_bytes(), file, pem.as_bytes(), file)
}

/// Whether a certificate has all the names. Addresses come and go with networks, and one more is no
/// reason to be asked by every browser again.
fn has_names(pem: &[u8], names: &[String]) -> bool {
    let Ok(cert) = CertificateDer::from_pem_slice(pem) else { return false };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(&cert) else { return false };
    let Ok(Some(alternatives)) = cert.subject_alternative_name() else { return false };
    names.iter().filter(|name| name.parse::<IpAddr>().is_err()).all(|name| {
        let same = |other: &GeneralName<'_>| matches!(other, GeneralName::DNSName(dns) if dns == name);
        alternatives.value.general_names.iter().any(same)
    })
}

/// What browsers on a LAN may call this machine.
fn own_names(server: &Server) -> Vec<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    let mut names = vec!["localhost".to_owned()];
    if !host.is_empty() && host != "localhost" {
        // The second one is how mDNS has it.
        names.extend((!host.contains('.')).then(|| format!("{host}.local")));
        names.push(host);
    }
    match Url::parse(&server.public_url).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
        Some(Host::Domain(name)) => names.push(name),
        Some(Host::Ipv4(address)) => names.push(address.to_string()),
        Some(Host::Ipv6(address)) => names.push(address.to_string()),
        None => {}
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(if_addrs::Interface::ip).chain([server.bind.ip()]);
    names.extend(addresses.filter(|address| !address.is_unspecified()).map(|address| address.to_string()));
    names.sort();
    names.dedup();
    // A host's name may be anything; a certificate's may not.
    names.retain(|name| rustls::pki_types::ServerName::try_from(name.as_str()).is_ok());
    names
}

/// Key and certificate, as PEM.
fn make(names: &[String]) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "onrecord, self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = |days: i64| {
        let date = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().saturating_add(days.days());
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // Phones' clocks are not to be trusted by a day.
    (params.not_before, params.not_after) = (day(-1), day(OWN_DAYS));
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), cert.pem()))
}

/// Readable by the server's user alone, and never half-written.
fn keep(file: &Path, pem: &str) -> io::Result<()> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name().and_then(OsStr::to_str)) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    disk::replace(dir, name, 0o600, pem.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn signed(folder: &Path, public_url: &str) -> Result<Tls, String> {
        let tls = Config { self_signed: true, ..Config::default() };
        let server = Server { tls, public_url: public_url.to_owned(), ..Server::default() };
        Tls::open(&server, folder).map(Option::unwrap)
    }

    #[test]
    fn a_certificate_of_our_own_is_kept_and_made_anew_for_a_new_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(OWN_FILE);
        let tls = signed(folder.path(), "").unwrap();
        let days = tls.ends.duration_since(Timestamp::now()).as_hours() / 24;
        assert!((OWN_DAYS - 1..=OWN_DAYS).contains(&days), "{days} days");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read_to_string(&file).unwrap();
        assert!(has_names(first.as_bytes(), &["localhost".to_owned()]), "{first}");

        signed(folder.path(), "").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), first, "browsers would ask again");
        signed(folder.path(), "https://studio.example:8443/").unwrap();
        let second = fs::read_to_string(&file).unwrap();
        assert!(second != first && has_names(second.as_bytes(), &["studio.example".to_owned()]));
        fs::write(&file, "rubbish").unwrap();
        signed(folder.path(), "").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something lies beside it");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_setting() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, two) = (make(&["a.example".to_owned()]).unwrap(), make(&["a.example".to_owned()]).unwrap());
        let (one, two, text) = (put("one.pem", &one), put("two.pem", &two), put("text", "hello"));
        let absent = folder.path().join("absent");
        let open = |cert: &Path, key: &Path| {
            let tls = Config { cert: cert.to_owned(), key: key.to_owned(), ..Config::default() };
            Tls::open(&Server { tls, ..Server::default() }, folder.path()).map(drop)
        };
        open(&one, &one).unwrap();
        for (cert, key, expected) in [
            (&absent, &one, "server.tls.cert: can't read"),
            (&one, &absent, "server.tls.key: can't read"),
            (&text, &one, "text is no certificate: expected PEM"),
            (&one, &text, "text is no private key: expected PEM"),
            (&one, &two, "two.pem is not the key of the certificate"),
        ] {
            let problem = open(cert, key).unwrap_err();
            assert!(problem.contains(expected), "{problem}\ndoesn't say\n{expected}");
        }
    }
}
