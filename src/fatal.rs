//! A reason not to start: one line, and what we exit with.

/// What we exit with where it is not the app's code; sysexits(3) and the shells' habit.
pub mod exit {
    pub const USAGE: u8 = 64;
    pub const UNAVAILABLE: u8 = 69;
    pub const INTERNAL: u8 = 70;
    pub const BAD_FILE: u8 = 78;
}

/// A reason not to start, for the one place that prints it.
#[derive(Debug)]
pub struct Fatal {
    pub code: u8,
    /// Without our name before it.
    pub message: String,
}

impl Fatal {
    pub fn usage(message: String) -> Fatal {
        Fatal { code: exit::USAGE, message }
    }

    pub fn internal(what: &str, error: std::io::Error) -> Fatal {
        Fatal { code: exit::INTERNAL, message: format!("cannot {what}: {error}; nothing was started") }
    }
}
