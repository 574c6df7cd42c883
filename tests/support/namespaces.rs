//! Three machines in one: a client's network, a server's, and a router between them that may let no UDP through. Each
//! is a network namespace that goes with its last process and the test.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

/// The server's address.
pub const SERVER: &str = "10.77.2.2";

/// The networks. The thread that makes them is in the client's, with all that it starts; so a test of them has a
/// runtime of one thread.
pub struct Networks {
    client: File,
    router: File,
    server: File,
}

impl Networks {
    /// Needs to be root, as making networks does.
    pub fn new() -> Self {
        let new = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make networks");
            ip(&["link", "set", "lo", "up"]);
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let (server, router, client) = (new(), new(), new());
        let networks = Self { client, router, server };
        networks.connect(&networks.client, "10.77.1");
        networks.connect(&networks.server, "10.77.2");
        networks.within(&networks.router, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        networks
    }

    /// Connects the router, which gets the first address of the network, to a machine, which gets the second.
    fn connect(&self, machine: &File, network: &str) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), machine.as_raw_fd());
        let wire = network.replace('.', "-");
        self.within(&self.router, || {
            ip(&["link", "add", &wire, "type", "veth", "peer", "name", "wire", "netns", &there]);
            ip(&["addr", "add", &format!("{network}.1/24"), "dev", &wire]);
            ip(&["link", "set", &wire, "up"]);
        });
        self.within(machine, || {
            ip(&["addr", "add", &format!("{network}.2/24"), "dev", "wire"]);
            ip(&["link", "set", "wire", "up"]);
            ip(&["route", "add", "default", "via", &format!("{network}.1")]);
        });
    }

    /// From now on the router drops every UDP datagram but those from and to this port.
    pub fn block_udp(&self, but: Option<u16>) {
        self.within(&self.router, || {
            for (pref, which) in [("10", "sport"), ("11", "dport")] {
                if let Some(port) = but {
                    ip(&[
                        "rule",
                        "add",
                        "pref",
                        pref,
                        "ipproto",
                        "udp",
                        which,
                        &port.to_string(),
                        "lookup",
                        "main",
                    ]);
                }
            }
            ip(&["rule", "add", "pref", "12", "ipproto", "udp", "blackhole"]);
        });
    }

    /// From now on the router drops everything.
    pub fn cut(&self) {
        self.within(&self.router, || ip(&["rule", "add", "pref", "9", "blackhole"]));
    }

    /// It does so no more.
    pub fn mend(&self) {
        self.within(&self.router, || ip(&["rule", "del", "pref", "9"]));
    }

    /// Does something on the server's machine: what it starts is there.
    pub fn on_server<T>(&self, act: impl FnOnce() -> T) -> T {
        self.within(&self.server, act)
    }

    fn within<T>(&self, network: &File, act: impl FnOnce() -> T) -> T {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        let done = act();
        setns(&self.client, CloneFlags::CLONE_NEWNET).unwrap();
        done
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}
