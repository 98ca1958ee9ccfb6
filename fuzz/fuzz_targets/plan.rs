//! From the words, the environment and what the machine says to the plan: it fits its budget or is refused in one line, and shows no secret.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use lameduck::core::shutdown::Timing;
use lameduck::core::size::cgroup::{Cgroup, Figure};
use lameduck::fuzzing::{self, Machine};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "xyzzy-5ecret'\"\\";

/// As it is, or between quotes.
fn shows_the_secret(text: &str) -> bool {
    text.contains(SECRET) || text.contains(format!("{SECRET:?}").trim_matches('"'))
}

fn figure(text: &str) -> Figure {
    Figure { path: "/sys/fs/cgroup/file".to_owned(), text: text.to_owned() }
}

// A line is a word; `NAME=value` before the first of them a variable; behind `@` what the machine says. `%S` is the secret.
fuzz_target!(|bytes: &[u8]| {
    let (mut words, mut variables) = (Vec::new(), Vec::new());
    let mut machine = Machine { cpus: Some(4), memory: Some(1 << 34), ..Machine::default() };
    let Cgroup { cpu_max, cpu_weight, cpu_shares, memory_max } = &mut machine.cgroup;
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let text = String::from_utf8_lossy(line);
        if text.contains("xyzzy") {
            // It stands where nobody could know it.
            return;
        }
        match text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some(("cpu_request", text)) => machine.podinfo_cpu = Some(text.to_owned()),
            Some(("memory_limit", text)) => machine.podinfo_memory = Some(text.to_owned()),
            Some(("cpu.max", text)) => cpu_max.push(figure(text)),
            Some(("cpu.weight", text)) => *cpu_weight = Some(figure(text)),
            Some(("cpu.shares", text)) => *cpu_shares = Some(figure(text)),
            Some(("memory.max", text)) => memory_max.push(figure(text)),
            // A second each character, so that many sums are tried.
            Some(("budget", text)) => {
                for (option, seconds) in ["--grace-period", "--delay", "--stop-timeout"].into_iter().zip(text.bytes()) {
                    words.extend([option.into(), format!("{}s", seconds.saturating_sub(b' ')).into()]);
                }
            }
            _ => match text
                .split_once('=')
                .filter(|(name, _)| words.is_empty() && name.starts_with(|c: char| c.is_ascii_uppercase()))
            {
                Some((name, value)) => variables.push((name.to_owned(), value.replace("%S", SECRET).into())),
                None if text.contains("%S") => words.push(text.replace("%S", SECRET).into()),
                None => words.push(OsString::from_vec(line.to_vec())),
            },
        }
    }
    variables.push(("APP_PASSWORD".to_owned(), OsString::from(SECRET)));
    match fuzzing::plan(&words, variables, machine) {
        Ok(plan) => {
            let Timing { grace, delay, stop_timeout, .. } = plan.timing;
            assert!(delay + stop_timeout + Timing::margin(grace) <= grace, "{:?}", plan.timing);
            assert!(plan.workers.is_none_or(|workers| workers >= 1));
            assert!(!shows_the_secret(&plan.described), "{}", plan.described);
        }
        Err(why) => {
            assert!(!why.is_empty() && !why.contains('\n'), "{why:?}");
            assert!(!shows_the_secret(&why), "{why}");
        }
    }
});
