//! TLS by the server itself: certificates that change, clients that speak plainly, viewers that stop.

use crate::support::certificate::Certificate;
use crate::support::nginx::free_port;
use crate::support::server::Server;
use crate::support::user::{SOON, eventually};
use reqwest::tls::TlsInfo;
use reqwest::{Client, header, redirect};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SELF_SIGNED: &str = "server.tls.self_signed=true";

/// Takes any certificate, and tells which.
fn client() -> Client {
    let builder = Client::builder().tls_info(true).tls_danger_accept_invalid_certs(true).no_proxy();
    builder.redirect(redirect::Policy::none()).build().unwrap()
}

async fn shown(client: &Client, server: &Server) -> Vec<u8> {
    let response = client.get(server.url("/healthz")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}

struct Files {
    folder: Arc<TempDir>,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(certificate: &Certificate) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        certificate.write(&cert, &key);
        Self { folder, cert, key }
    }

    fn settings(&self) -> [String; 2] {
        let setting = |name: &str, path: &Path| format!("server.tls.{name}={}", path.display());
        [setting("cert", &self.cert), setting("key", &self.key)]
    }

    fn serve(&self, more: &[&str]) -> Server {
        let settings = self.settings();
        let settings: Vec<_> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Server::start_in(self.folder.clone(), Vec::new(), &settings)
    }
}

#[tokio::test]
async fn a_certificate_that_changes_is_served_to_new_connections_and_costs_no_old_one() {
    let [first, second] = [Certificate::of(&["localhost"]), Certificate::of(&["localhost"])];
    let files = Files::of(&first);
    let server = files.serve(&[]);
    assert!(server.base.starts_with("https://localhost:"), "{}", server.base);
    let before = client();
    assert_eq!(shown(&before, &server).await, first.der);

    // One of the two alone is no pair.
    std::fs::write(&files.cert, &second.cert).unwrap();
    let what = "server.tls.key: ";
    eventually("a complaint", SOON, async || server.output().contains(what).then_some(())).await;
    assert!(server.output().contains("is not the key of the certificate"), "{}", server.output());
    assert_eq!(shown(&client(), &server).await, first.der, "a bad pair took the place of a good one");

    let began = Instant::now();
    second.write(&files.cert, &files.key);
    eventually("the new one", SOON, async || (shown(&client(), &server).await == second.der).then_some(()))
        .await;
    println!("served {:?} after it was written", began.elapsed());
    assert_eq!(shown(&before, &server).await, first.der, "the connection there was is another one now");
    let complaints = server.output().matches("server.tls.key: ").count();
    assert_eq!(complaints, 1, "{}", server.output());
}

#[tokio::test]
async fn plain_http_is_sent_on_to_https_from_both_ports() {
    let files = Files::of(&Certificate::of(&["localhost"]));
    let redirect = format!("server.tls.redirect_bind=127.0.0.1:{}", free_port());
    let server = files.serve(&[&redirect]);
    let (client, tls) = (client(), server.base.clone());
    let plain = tls.replace("https", "http");
    let other = format!("http://localhost:{}", redirect.rsplit(':').next().unwrap());
    for base in [&plain, &other] {
        let response = client.get(format!("{base}/publish?name=a%20b")).send().await.unwrap();
        assert_eq!(response.status(), 308, "{base}");
        assert_eq!(response.headers()[header::LOCATION], format!("{tls}/publish?name=a%20b"), "{base}");
        let post = client.post(format!("{base}/whip/x")).body("v=0").send().await.unwrap();
        assert_eq!(post.status(), 308, "{base}");
    }
    // Whoever only keeps it alive knows of no certificate.
    assert_eq!(client.get(format!("{plain}/healthz")).send().await.unwrap().status(), 200);
    let page = client.get(format!("{tls}/publish")).send().await.unwrap();
    assert_eq!(page.headers()[header::STRICT_TRANSPORT_SECURITY], "max-age=2592000");
}

/// `curl` with these arguments, to its end.
fn curl(args: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "-k", "-m", "20"]).args(args).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_certificate_of_its_own_survives_a_restart_and_serves_both_versions_of_http() {
    let server = Server::start(&[SELF_SIGNED]);
    let first = shown(&client(), &server).await;
    let server = server.killed_and_started(&[SELF_SIGNED]);
    assert_eq!(shown(&client(), &server).await, first, "browsers would ask again");
    let (_, cert) = x509_parser::parse_x509_certificate(&first).unwrap();
    println!("{:?}", cert.subject_alternative_name().unwrap().unwrap().value.general_names);

    let url = server.url("/healthz");
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said =
            curl(&[flag, "-o", "/dev/null", "-D", "-", "-w", "%{http_version} %{response_code}", &url]);
        assert!(said.ends_with(&format!("{version} 200")), "{said}");
        assert!(!said.to_lowercase().contains("strict-transport"), "no way past the warning: {said}");
    }
    // `:authority` is a Host like any other.
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    let evil = format!("https://evil.example:{port}/api/streams");
    let to = format!("evil.example:{port}:127.0.0.1");
    let said = curl(&["--http2", "--resolve", &to, "-w", "%{http_version} %{response_code}", &evil]);
    assert!(said.ends_with("2 401"), "{said}");
    let origin = format!("Origin: https://localhost:{port}");
    for (origin, status) in [(origin.as_str(), "404"), ("Origin: https://evil.example", "403")] {
        let url = server.url("/api/recordings/x");
        let said = curl(&["--http2", "-X", "DELETE", "-H", origin, "-w", "%{response_code}", &url]);
        assert!(said.ends_with(status), "{origin}: {said}");
    }
    // A client may say in its own time that it wants TLS, but not in any.
    let quiet = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    quiet.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let began = Instant::now();
    let read =
        tokio::task::spawn_blocking(move || std::io::Read::read(&mut &quiet, &mut [0; 1])).await.unwrap();
    println!("a client that says nothing is left after {:?}", began.elapsed());
    assert!(matches!(read, Ok(0)) && began.elapsed() >= Duration::from_secs(9), "{read:?}");
}

/// A picture that no socket's buffers hold a few of.
fn large_picture() -> Vec<u8> {
    let args =
        ["-nostdin", "-v", "error", "-f", "lavfi", "-i", "nullsrc=s=1280x720,geq=random(1)*255:128:128"];
    let args = args.iter().chain(&[
        "-frames:v",
        "1",
        "-t",
        "1",
        "-c:v",
        "mjpeg",
        "-q:v",
        "2",
        "-f",
        "image2pipe",
        "-",
    ]);
    Command::new("ffmpeg").args(args).stdin(Stdio::null()).output().expect("ffmpeg is installed").stdout
}

#[tokio::test]
async fn a_viewer_that_stops_reading_is_cut_under_tls_too() {
    let server = Server::start(&[SELF_SIGNED, "mjpeg.record=false", "hooks.on_record="]);
    let (client, picture) = (client(), large_picture());
    println!("a picture of {} bytes", picture.len());
    let post = async || {
        let request = client.post(server.url("/upload")).header(header::CONTENT_TYPE, "image/jpeg");
        assert_eq!(request.body(picture.clone()).send().await.unwrap().status(), 204);
    };
    post().await;
    let before = server.open_files();
    let mut viewer = Command::new("curl")
        .args(["-sS", "-k", "--http1.1", "-o", "/dev/null", &server.url("/stream")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("a viewer", SOON, async || {
        post().await;
        (server.open_files() > before).then_some(())
    })
    .await;
    let with_viewer = server.open_files();
    let signal = |name: &str, pid: u32| Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    signal("-STOP", viewer.id());
    let began = Instant::now();
    eventually("it is cut", Duration::from_secs(40), async || {
        post().await;
        (server.open_files() < with_viewer).then_some(())
    })
    .await;
    println!("cut {:?} after it stopped", began.elapsed());
    assert!(began.elapsed() >= Duration::from_secs(9));
    let _ = viewer.kill();
    let _ = viewer.wait();
}

#[test]
fn certificates_that_cannot_be_used_are_named_and_nothing_starts() {
    let [one, other] = [Certificate::of(&["a.example"]), Certificate::of(&["a.example"])];
    let files = Files::of(&one);
    let run = |command: &str| {
        let settings = files.settings();
        let mut run = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        run.arg(command).current_dir(files.folder.path()).stdin(Stdio::null());
        for setting in settings
            .iter()
            .map(String::as_str)
            .chain(["server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0"])
        {
            run.args(["--set", setting]);
        }
        let output = run.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    std::fs::write(&files.key, &other.key).unwrap();
    for command in ["serve", "check"] {
        let (code, said) = run(command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("server.tls.key: ") && said.contains("is not the key of"), "{said}");
    }
    std::fs::remove_file(&files.cert).unwrap();
    let (code, said) = run("serve");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("server.tls.cert: can't read") && said.contains("cert.pem"), "{said}");
}
