//! L6: composes each module's own `Config`; reports every error at once.
