//! All integration tests in one binary: it links once, and shares what it stands on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they measure"
)]

mod support;

#[path = "it/browser/mod.rs"]
mod browser;
#[path = "it/chunks.rs"]
mod chunks;
#[path = "it/cli.rs"]
mod cli;
#[path = "it/control.rs"]
mod control;
#[path = "it/disk.rs"]
mod disk;
#[path = "it/disk_faults.rs"]
mod disk_faults;
#[path = "it/doors.rs"]
mod doors;
#[path = "it/doors_auth.rs"]
mod doors_auth;
#[path = "it/faults/mod.rs"]
mod faults;
#[path = "it/harness.rs"]
mod harness;
#[path = "it/hook_faults.rs"]
mod hook_faults;
#[path = "it/hook_replay.rs"]
mod hook_replay;
#[path = "it/hooks.rs"]
mod hooks;
#[path = "it/hostile/mod.rs"]
mod hostile;
#[path = "it/installs.rs"]
mod installs;
#[path = "it/life.rs"]
mod life;
#[path = "it/limits.rs"]
mod limits;
#[path = "it/live.rs"]
mod live;
#[path = "it/metrics.rs"]
mod metrics;
#[path = "it/mjpeg.rs"]
mod mjpeg;
#[path = "it/network/mod.rs"]
mod network;
#[path = "it/recorders.rs"]
mod recorders;
#[path = "it/release_before.rs"]
mod release_before;
#[path = "it/repair/mod.rs"]
mod repair;
#[path = "it/retention.rs"]
mod retention;
#[path = "it/s3.rs"]
mod s3;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/to_mp4.rs"]
mod to_mp4;
#[path = "it/tools/mod.rs"]
mod tools;
#[path = "it/webhook.rs"]
mod webhook;
#[path = "it/wire.rs"]
mod wire;
