//! `files verify`.

use super::{Desk, Ended};
use crate::support::archiver::{FarEnd, PROGRAM, Place};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use std::fs;
use std::process::Command;

/// The options of `run`, for `files verify`.
fn verify(desk: &Desk, run: &Command, words: &[&str]) -> Ended {
    let mut command = desk.place.program();
    command.args(["files", "verify"]).args(run.get_args().skip(1)).args(words);
    Ended::of(desk.named(command))
}

fn copies_are_verified_and_repaired(desk: &Desk, command: &dyn Fn(&Place) -> Command, source: Option<&str>) {
    let place = &desk.place;
    for number in 1..=5 {
        place.source(format!("{number} file\n.dat"), number * 50_000, number);
    }
    desk.add_sources();
    let run = || desk.run_once(command(place)).wait(crate::support::wait::PATIENCE);
    run().expect(0);
    let all = verify(desk, &command(place), &["--all", "--json"]).expect(0).object();
    assert_eq!((&all["right"], &all["right_bytes"]), (&5.into(), &750_000.into()), "{all}");

    let copy = |id: i64| {
        let row = desk.files(&["show", "--id", &id.to_string(), "--json"]).object();
        place.archive().join(row["copy"].as_str().unwrap())
    };
    let (second, fourth) = (copy(2), copy(4));
    let mut bytes = fs::read(&second).unwrap();
    bytes[77_777] ^= 1;
    fs::write(&second, &bytes).unwrap();
    fs::remove_file(&fourth).unwrap();
    let bad = verify(desk, &command(place), &["--all"]).expect(1);
    assert!(bad.out.starts_with("3 copies are right, ") && bad.out.ends_with("; 1 different; 1 missing\n"), "{bad:?}");
    assert!(bad.err.contains("different: ") && bad.err.contains(", row 2: "), "{}", bad.err);
    assert!(bad.err.contains("missing: ") && bad.err.contains(", row 4: "), "{}", bad.err);
    verify(desk, &command(place), &["--id", "1", "5"]).expect(0);
    let absent = verify(desk, &command(place), &["--id", "1", "44", "--json"]).expect(1).object();
    assert_eq!((&absent["right"], &absent["not_looked_at"]), (&1.into(), &1.into()));

    let words: Vec<&str> = ["--all", "--repair"].into_iter().chain(source.map(|_| "--source")).chain(source).collect();
    let repaired = verify(desk, &command(place), &words).expect(1);
    assert!(repaired.out.ends_with("; 2 rows will be copied again\n"), "{repaired:?}");
    run().expect(0);
    verify(desk, &command(place), &["--all"]).expect(0);
    assert_eq!(copy(4), fourth);
    // What stands under a name is never written over.
    assert_eq!(copy(2), second.with_file_name(format!("{}.1", second.file_name().unwrap().to_str().unwrap())));
    assert_eq!(fs::read(&second).unwrap(), bytes);

    // An archive that is not there has lost nothing.
    let away = place.path("away");
    fs::rename(place.archive(), &away).unwrap();
    fs::create_dir(place.archive()).unwrap();
    let unmounted = verify(desk, &command(place), &words).expect(1);
    assert!(unmounted.err.contains("is it mounted") && !unmounted.out.contains("copied again"), "{unmounted:?}");
    assert_eq!(desk.files(&["list", "--copied", "--json"]).objects().len(), 5);
    fs::remove_dir(place.archive()).unwrap();
    let gone = verify(desk, &command(place), &words).expect(2);
    assert!(gone.err.contains("Directory ") || gone.err.contains("cannot be looked at"), "{gone:?}");
    assert_eq!(desk.files(&["list", "--copied", "--json"]).objects().len(), 5);
}

#[test]
fn copies_on_this_machine_are_verified_and_repaired() {
    copies_are_verified_and_repaired(&Desk::sqlite(), &|place| place.run(), None);
}

#[test]
fn copies_behind_stock_rsync_are_verified_and_repaired() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let Some(desk) = Desk::mysql("verify") else { return };
    let source = desk.place.sources();
    copies_are_verified_and_repaired(&desk, &|place| place.run_to(&sshd), source.to_str());
}

#[test]
fn copies_behind_this_program_are_verified_and_repaired() {
    let Some(sshd) = Sshd::start("") else { return };
    let ours = |place: &Place| FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command();
    copies_are_verified_and_repaired(&Desk::sqlite(), &ours, None);
}

#[test]
fn copies_behind_sftp_alone_are_verified_and_repaired() {
    let Some(bare) = Sshd::start("Subsystem sftp internal-sftp\nForceCommand internal-sftp") else { return };
    copies_are_verified_and_repaired(&Desk::sqlite(), &|place| place.run_to(&bare), None);
}

#[test]
fn copies_that_were_pulled_are_verified_here() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    copies_are_verified_and_repaired(&Desk::sqlite(), &|place| place.from(&sshd).command(), None);
}
