//! L2: runs the operator's scripts.
