#![no_main]

#[path = "../../targets/rtp.rs"]
mod rtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtp::run(data));
