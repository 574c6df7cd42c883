//! Text messages of `/signal` and of `/chunks`.

use onrecord::fuzzing;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    fuzzing::signal(text);
    fuzzing::chunks_text(text);
}
