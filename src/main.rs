//! Arguments → configuration → app → exit code. No logic.

fn main() {}
