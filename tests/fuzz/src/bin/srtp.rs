#![no_main]

#[path = "../../targets/srtp.rs"]
mod srtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| srtp::run(data));
