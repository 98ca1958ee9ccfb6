//! Servers whose losses are known by construction: what they did is what the report says, no more and no less.

use std::fs;

use serde_json::Value;

use super::*;

/// Rehearses known.py with this fault; returns its own count of answers and faults, the first answer left out.
fn with_fault(fault: &str) -> (Rehearsed, u64, u64) {
    // A stalled one is given up while the server still serves; elsewhere a busy machine may take its time.
    let timeout = if fault == "stall" { "2s" } else { "10s" };
    let (rehearsed, ledger) = known(&["--pinned", "0", "--rate", "150", "--timeout", timeout], &[fault]);
    assert!(ledger.answered > 60, "too few for a finding: {ledger:?}");
    (rehearsed, ledger.answered - 1, ledger.faults)
}

/// What known.py did, by its own word.
#[derive(Debug)]
pub struct Ledger {
    pub answered: u64,
    pub faults: u64,
    pub faulty_posts: u64,
}

pub fn known(words: &[&str], fault: &[&str]) -> (Rehearsed, Ledger) {
    let place = Place::new();
    let ledger = place.path("ledger.json");
    let known = source("known.py");
    let all = ["--url", "http://127.0.0.1:8080/", "--against", "none", "--load-for", "1s", "--propagate", "300ms..600ms"];
    let command = ["--probe-period", "10m", "--", PYTHON, &known, "8080", &ledger];
    let rehearsed = rehearse(&[&all, words, &command, fault].concat());
    let ledger = fs::read_to_string(&ledger).unwrap_or_else(|error| panic!("no ledger: {error}; {rehearsed:#?}"));
    let ledger: Value = serde_json::from_str(&ledger).expect("JSON");
    let figure = |name: &str| ledger[name].as_u64().expect("a number");
    assert_eq!(rehearsed.figure(0, "/client/unsent"), 0, "{rehearsed:#?}");
    let ledger = Ledger { answered: figure("answered"), faults: figure("faults"), faulty_posts: figure("faulty_posts") };
    (rehearsed, ledger)
}

/// `expected` of so many faults: refused, reset, cut, failed, timed out.
#[track_caller]
fn loses(fault: &str, expected: impl Fn(u64) -> [u64; 5]) {
    let (rehearsed, answered, faults) = with_fault(fault);
    assert!(faults > 15, "too few for a finding: {faults} of {answered}");
    assert_eq!(rehearsed.lost(0), expected(faults), "{rehearsed:#?}");
    assert_eq!((rehearsed.figure(0, "/tally/answered"), rehearsed.figure(0, "/tally/retried")), (answered, 0));
    assert_eq!(rehearsed.code, 1, "{rehearsed:#?}");
}

#[test]
fn a_perfect_server_loses_nothing() {
    let (rehearsed, answered, faults) = with_fault("perfect");
    assert_eq!((faults, rehearsed.lost(0)), (0, [0; 5]), "{rehearsed:#?}");
    assert_eq!((rehearsed.figure(0, "/tally/answered"), rehearsed.figure(0, "/tally/retried")), (answered, 0));
    assert_eq!(rehearsed.code, 0);
    assert!(rehearsed.table.contains("passed: none lost 0 requests"), "{}", rehearsed.table);
}

#[test]
fn a_server_that_resets_each_third_connection() {
    loses("reset", |faults| [0, faults, 0, 0, 0]);
}

#[test]
fn a_server_that_closes_each_third_connection_without_a_word() {
    loses("close", |faults| [0, faults, 0, 0, 0]);
}

#[test]
fn a_server_that_stops_inside_a_body_of_a_known_length() {
    loses("cut", |faults| [0, 0, faults, 0, 0]);
}

#[test]
fn a_server_that_leaves_the_last_chunk_out() {
    loses("cut-chunks", |faults| [0, 0, faults, 0, 0]);
}

#[test]
fn a_server_that_stops_inside_the_head() {
    loses("cut-head", |faults| [0, 0, faults, 0, 0]);
}

#[test]
fn a_server_that_answers_with_an_error() {
    loses("error", |faults| [0, 0, 0, faults, 0]);
}

#[test]
fn a_server_that_answers_in_another_protocol() {
    loses("garbage", |faults| [0, 0, 0, faults, 0]);
}

#[test]
fn a_server_that_never_answers() {
    loses("stall", |faults| [0, 0, 0, 0, faults]);
}

/// As a proxy does with what is idempotent: on a new connection, and counted apart.
#[test]
fn what_fails_on_a_reused_connection_is_sent_again() {
    let (rehearsed, answered, faults) = with_fault("reused");
    assert!(faults > 10, "too few for a finding: {faults}");
    assert_eq!((rehearsed.lost(0), rehearsed.figure(0, "/tally/retried")), ([0; 5], faults), "{rehearsed:#?}");
    assert_eq!((rehearsed.figure(0, "/tally/answered"), rehearsed.code), (answered, 0));
}

/// Nobody can tell a cut from an end there: it is said.
#[test]
fn an_answer_that_ends_with_its_connection_is_doubtful() {
    let (rehearsed, answered, faults) = with_fault("unmarked");
    assert_eq!((rehearsed.lost(0), rehearsed.figure(0, "/tally/answered")), ([0; 5], answered + faults), "{rehearsed:#?}");
    assert!(rehearsed.table.contains(&format!("{faults} answers had neither a length nor chunks")), "{}", rehearsed.table);
}
