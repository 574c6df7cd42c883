//! All integration tests in one binary: it links once, and shares what it stands on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measure"
)]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod chunks;
mod cli;
mod control;
mod disk;
mod disk_faults;
mod doors;
mod doors_auth;
mod faults;
mod harness;
mod hook_faults;
mod hook_replay;
mod hooks;
mod hostile;
mod installs;
mod life;
mod limits;
mod live;
mod loops;
mod metrics;
mod mjpeg;
mod network;
mod recorders;
mod release_before;
mod repair;
mod retention;
mod s3;
mod tcp;
mod tls;
mod to_mp4;
mod tools;
mod webhook;
mod wire;
