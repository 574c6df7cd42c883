#![no_main]

#[path = "../../targets/sdp.rs"]
mod sdp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sdp::run(data));
