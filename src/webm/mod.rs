//! L1: WebM as bytes. Knows no file.
