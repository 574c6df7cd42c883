//! L6: builds and runs the server; start and stop order, with the reasons.
