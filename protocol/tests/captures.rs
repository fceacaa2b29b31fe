//! Recorded sessions of stock programs, replayed from the first byte to the last through the codecs and the machines.
//!
//! `captures/` holds a folder for each session; `captures/record.py` records those from 200 on anew. Of the sessions the
//! project has recorded these are left out:
//! - 19: two 3.5 ends that choose different checksums, and fail;
//! - 73, 74: appending;
//! - 80: secluded arguments;
//! - 85: its tree is 3 MB;
//! - 90-99, 115, 124: daemons;
//! - 125, 126: conversion of names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "replay/case.rs"]
mod case;
#[path = "replay/machines.rs"]
mod machines;
#[path = "replay/session.rs"]
mod session;
#[path = "replay/streams.rs"]
mod streams;
#[path = "replay/verify.rs"]
mod verify;

use case::Case;
use session::Session;
use std::panic::{AssertUnwindSafe, catch_unwind};
use streams::Streams;

/// Runs a check over every case and tells at the end which failed.
fn each<T>(cases: &[Case], check: impl Fn(&Case) -> T) -> Vec<T> {
    let mut failed = Vec::new();
    let mut results = Vec::new();
    for case in cases {
        match catch_unwind(AssertUnwindSafe(|| check(case))) {
            Ok(result) => results.push(result),
            Err(_) => {
                eprintln!("^ {}", case.name);
                failed.push(case.name.clone());
            }
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
    results
}

#[test]
fn codecs_read_and_write_every_byte() {
    let cases = case::all();
    let mut total = verify::Verified::default();
    let mut compared = 0;
    for (verified, entries) in each(&cases, |case| {
        let session = Session::new(case);
        let streams = Streams::new(case, &session);
        (verify::verify(case, &session, &streams), streams.compared)
    }) {
        total.entries += verified.entries;
        total.files += verified.files;
        total.blocks += verified.blocks;
        total.redone += verified.redone;
        compared += entries;
    }
    eprintln!("{} captures replayed: {total:?}, {compared} entries written as stock wrote them", cases.len());
    assert!(cases.len() >= 148 && total.entries > 4700 && total.files > 600 && total.blocks > 1800 && compared > 4700);
}

#[test]
fn either_side_of_the_handshake() {
    each(&case::all(), |case| {
        let session = Session::new(case);
        for chunk in [1, 5, usize::MAX] {
            machines::shake(case, &session, chunk);
        }
    });
}

#[test]
fn machines_take_the_place_of_either_side() {
    let cases = case::all();
    let played = each(&cases, |case| {
        let session = Session::new(case);
        let streams = Streams::new(case, &session);
        machines::generate(&session, &streams);
        if !machines::playable(&session) {
            return 0;
        }
        for chunk in [1, 2, 7, 100, usize::MAX] {
            machines::send(case, &session, &streams, chunk);
            machines::receive(case, &session, &streams, chunk);
        }
        1
    });
    let played: usize = played.iter().sum();
    eprintln!("{played} captures played by Sender, Receiver and Generator");
    assert!(played >= 118);
}
