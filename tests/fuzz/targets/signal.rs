//! Text messages of `/signal` and of `/chunks`.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use onrecord::fuzzing;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    fuzzing::signal(text);
    fuzzing::chunks_text(text);
    Corpus::Keep
});
