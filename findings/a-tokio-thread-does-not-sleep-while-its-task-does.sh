#!/usr/bin/env bash
# The thread of a current_thread runtime does not sleep while its only task does, if a socket of that runtime receives.
#
# Versions   tokio 1.54.1, Linux
# One guess  A loop that takes all that a UDP socket has and then rests 5 ms by `tokio::time::sleep` wakes once for many
#            datagrams: some 200 times a second, however many come.
# Seen       The runtime waits in epoll, which has the socket, too, edge-triggered: each datagram that arrives during
#            the rest ends the wait, finds no task to run, and the runtime waits again. Of 2000 datagrams a second nearly
#            each wakes the thread (voluntary context switches), beside the rests. `std::thread::sleep` in the same place
#            wakes it once a rest, as meant.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "rest"
version = "0.0.0"
edition = "2021"

[dependencies]
tokio = { version = "=1.54.1", default-features = false, features = ["net", "rt", "time"] }
TOML
cat >src/main.rs <<'RUST'
use std::time::{Duration, Instant};

const REST: Duration = Duration::from_millis(5);
const TIME: Duration = Duration::from_secs(3);

/// Voluntary context switches of the calling thread.
fn switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Receives for a while, resting after each look; gives datagrams, rests and context switches.
fn receive(blocking: bool) -> (u64, u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Read past the runtime, so that both ways read the same; what counts is that the runtime has it.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let registered = tokio::net::UdpSocket::from_std(socket.try_clone().unwrap()).unwrap();
        let to = registered.local_addr().unwrap();
        let sender = std::thread::spawn(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let began = Instant::now();
            for n in 0..TIME.as_millis() as u32 * 2 {
                let due = began + Duration::from_micros(500) * n;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                socket.send_to(&[0; 1000], to).unwrap();
            }
        });
        let (mut datagrams, mut rests, mut buffer) = (0, 0, [0; 2048]);
        let (began, before) = (Instant::now(), switches());
        while began.elapsed() < TIME {
            while socket.recv(&mut buffer).is_ok() {
                datagrams += 1;
            }
            rests += 1;
            if blocking {
                std::thread::sleep(REST);
            } else {
                tokio::time::sleep(REST).await;
            }
        }
        let after = switches();
        sender.join().unwrap();
        (datagrams, rests, after - before)
    })
}

fn main() {
    let (task, thread) = (receive(false), receive(true));
    println!("tokio::time::sleep: {} datagrams, {} rests, {} context switches", task.0, task.1, task.2);
    println!("std::thread::sleep: {} datagrams, {} rests, {} context switches", thread.0, thread.1, thread.2);
    assert!(task.0 > 3000 && thread.0 > 3000, "too few datagrams came to say anything");
    assert!(thread.2 <= thread.1 * 5 / 4, "a thread that sleeps was woken");
    assert!(task.2 > task.1 * 2, "a task that sleeps lets its thread sleep");
}
RUST
cargo run --quiet --release
echo "as described: the thread of a sleeping task wakes for datagrams"
