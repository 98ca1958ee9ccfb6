//! lameduck-rehearse: how a server's stop goes, before production finds out. docs/rehearse.md has the story, docs/design.md the house.
#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod body;
mod cast;
mod chaos;
mod cli;
mod contender;
mod diary;
mod endpoints;
mod image;
mod kubelet;
mod legacy;
mod load;
mod pod;
mod rehearsal;
mod report;
mod rollout;
mod round;
mod sandbox;
mod verdict;
mod wire;

#[doc(hidden)]
pub use cli::reference;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Why nothing was, or could be, rehearsed: for the one place that prints it.
#[derive(Debug)]
pub struct Refused {
    pub code: u8,
    pub message: String,
}

impl Refused {
    fn usage(message: String) -> Refused {
        Refused { code: 64, message }
    }

    fn unavailable(message: String) -> Refused {
        Refused { code: 69, message }
    }

    fn internal(message: String) -> Refused {
        Refused { code: 70, message }
    }
}

/// The names by which this binary knows that it is not the rehearsal itself, but one of those that play in it.
pub const STAGE: &str = "lameduck-rehearse-stage";
/// Its first word as the embedded server: an init passes on no name.
pub const EMBEDDED: &str = "--embedded-server";

/// The whole program.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "lameduck" => return lameduck::main(),
        _ => lameduck::sys::inherited::restore_mask(),
    }
    match name {
        STAGE => return round::main(),
        chaos::BURN => return chaos::burn(),
        _ => {}
    }
    let words = words.get(1..).unwrap_or_default();
    if name == image::JANITOR {
        return image::clean_up(words);
    }
    if words == [EMBEDDED] {
        return legacy::main();
    }
    match rehearsal::rehearse(words) {
        Ok(code) => code,
        Err(Refused { code, message }) => {
            eprintln!("lameduck-rehearse: {message}");
            code.into()
        }
    }
}
