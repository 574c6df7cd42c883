//! A real STUN and TURN server.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct Coturn {
    child: Child,
    pub port: u16,
    _folder: TempDir,
}

impl Coturn {
    /// On this address of the machine, with these ways of authentication.
    pub fn start(address: &str, authentication: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("turnserver")
            .args(["-n", "--no-tls", "--no-dtls"])
            .args(["--realm=test", "--no-cli", "--allow-loopback-peers", "--log-file=stdout"])
            .args(authentication)
            .arg(format!("--listening-ip={address}"))
            .arg(format!("--relay-ip={address}"))
            .arg(format!("--listening-port={port}"))
            .arg(format!("--pidfile={}", folder.path().join("pid").display()))
            .arg(format!("--userdb={}", folder.path().join("db").display()))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn is installed");
        Self { child, port, _folder: folder }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
