//! The real nginx, with `config/nginx.conf` as it is shipped, but for what every reader has to change.

use super::certificate::Certificate;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SHIPPED: &str = include_str!("../../config/nginx.conf");
/// What stands around it on a Debian system, without its folders and its user.
const AROUND: &str = "daemon off;\nuser root;\npid FOLDER/pid;\nerror_log FOLDER/error.log;\nworker_processes 1;\n\
    events { worker_connections 256; }\n\
    http {\n  access_log FOLDER/access.log;\n  client_body_temp_path FOLDER/body;\n  proxy_temp_path FOLDER/proxy;\n\
    \x20 fastcgi_temp_path FOLDER/f;\n  uwsgi_temp_path FOLDER/u;\n  scgi_temp_path FOLDER/s;\n  include FOLDER/onrecord.conf;\n}\n";
const START: Duration = Duration::from_secs(20);

/// A running nginx; dropping it ends it.
pub struct Nginx {
    child: Child,
    folder: TempDir,
    /// Where it speaks TLS.
    pub port: u16,
    /// Where it sends plain HTTP on to TLS.
    pub plain: u16,
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Nginx {
    /// One in front of a server on that port of loopback, which may come later.
    pub fn start(server: u16, certificate: &Certificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, plain) = (free_port(), free_port());
        let path = |name: &str| folder.path().join(name).display().to_string();
        certificate.write(Path::new(&path("cert.pem")), Path::new(&path("key.pem")));
        let mut conf = SHIPPED.to_owned();
        for (shipped, ours) in [
            ("server 127.0.0.1:8080;", format!("server 127.0.0.1:{server};")),
            ("listen 80;", format!("listen 127.0.0.1:{plain};")),
            ("listen 443 ssl http2;", format!("listen 127.0.0.1:{port} ssl http2;")),
            ("/etc/letsencrypt/live/record.example.org/fullchain.pem;", format!("{};", path("cert.pem"))),
            ("/etc/letsencrypt/live/record.example.org/privkey.pem;", format!("{};", path("key.pem"))),
        ] {
            let lines: Vec<_> = SHIPPED.lines().filter(|line| line.contains(shipped)).collect();
            let marked = lines.iter().filter(|line| line.contains("# CHANGE")).count();
            assert_eq!(marked, 1, "{shipped} is to be changed in one place: {lines:?}");
            conf = conf
                .lines()
                .map(|line| match line.contains("# CHANGE") {
                    true => line.replace(shipped, &ours) + "\n",
                    false => line.to_owned() + "\n",
                })
                .collect();
        }
        let conf = conf.replace("/var/log/nginx/", &path(""));
        std::fs::write(path("onrecord.conf"), conf).unwrap();
        std::fs::write(path("nginx.conf"), AROUND.replace("FOLDER", &folder.path().display().to_string()))
            .unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", &path("error.log"), "-p", &path(""), "-c", &path("nginx.conf")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("nginx is installed");
        let mut nginx = Self { child, folder, port, plain };
        nginx.listens();
        nginx
    }

    fn listens(&mut self) {
        let (began, at) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], self.port)));
        while TcpStream::connect(at).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < START, "nginx: {ended:?}\n{}", self.log());
            // A process can't be waited for otherwise.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it was asked.
    pub fn asked(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("onrecord.log")).unwrap_or_default()
    }

    /// What it has to complain of.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM ends its workers too.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("nginx said:\n{}", self.log());
        }
    }
}
