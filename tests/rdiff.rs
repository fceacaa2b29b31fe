//! `pysmurf-archiver rdiff` and librsync's own, on each other's files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod noise;
    pub mod tools;
}

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::noise::noise;
use support::tools::require;

const OURS: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

fn run(program: &[&str], words: &str, dir: &Path) -> Output {
    let output = Command::new(program[0]).args(&program[1..]).args(words.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program:?} {words}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What our program says where it fails, and how it ends.
fn fails(words: &str, dir: &Path) -> (i32, String) {
    let output = Command::new(OURS).arg("rdiff").args(words.split(' ')).current_dir(dir).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Old files and new ones: alike, unlike, empty, shorter than a block.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let old = noise(1_500_001, 5);
    let mut edited = old.clone();
    edited.splice(700_000..700_010, *b"something else");
    edited.truncate(1_499_000);
    let moved = [&old[900_000..], &old[..900_000], b"end"].concat();
    vec![
        (old.clone(), edited),
        (old.clone(), old.clone()),
        (old, moved),
        (noise(300_000, 6), noise(70_000, 7)),
        (b"short".to_vec(), b"shorter".to_vec()),
        (Vec::new(), b"new".to_vec()),
        (b"old".to_vec(), Vec::new()),
    ]
}

#[test]
fn librsync_and_we_read_each_others_files() {
    if !require("rdiff") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (ours, theirs): (&[&str], &[&str]) = (&[OURS, "rdiff"], &["rdiff"]);
    for (old, new) in pairs() {
        fs::write(dir.join("old"), &old).unwrap();
        fs::write(dir.join("new"), &new).unwrap();
        for options in ["-f", "-f -H md4 -R rollsum", "-f -H blake2 -R rollsum -b 777 -S 9", "-f -H md4 -S -1"] {
            run(ours, &format!("{options} signature old sums"), dir);
            run(theirs, &format!("{options} signature old their-sums"), dir);
            assert_eq!(fs::read(dir.join("sums")).unwrap(), fs::read(dir.join("their-sums")).unwrap(), "{options}");
            run(ours, "-f delta sums new changes", dir);
            run(theirs, "-f delta sums new their-changes", dir);
            run(theirs, "-f patch old changes made", dir);
            assert_eq!(fs::read(dir.join("made")).unwrap(), new, "{options}");
            run(ours, "-f patch old their-changes made", dir);
            assert_eq!(fs::read(dir.join("made")).unwrap(), new, "{options}");
            // Ours is no longer than theirs, but for what is lost where a literal is written in pieces.
            let length = |name| fs::metadata(dir.join(name)).unwrap().len();
            let (our_length, their_length) = (length("changes"), length("their-changes"));
            assert!(
                our_length <= their_length + their_length / 1000 + 16,
                "{our_length} and {their_length}, {options}"
            );
        }
    }
}

#[test]
fn files_pass_through_pipes_and_are_not_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (old, new) = &pairs()[0];
    fs::write(dir.join("old"), old).unwrap();
    fs::write(dir.join("sums"), "here before").unwrap();
    let (code, said) = fails("signature old sums", dir);
    assert_eq!(
        (code, said.as_str()),
        (1, "pysmurf-archiver rdiff: sums exists; overwrite it with -f, or name another\n")
    );
    let told = run(&[OURS, "rdiff"], "-s signature --force old sums", dir).stderr;
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("signature statistics: signature[1303 blocks, 1152 bytes per block]"), "{told}");

    let through = |words: &str, input: &[u8]| {
        let mut child = Command::new(OURS)
            .arg("rdiff")
            .args(words.split(' '))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{words}");
            output.stdout
        })
    };
    let sums = through("signature -b 1152", old);
    assert_eq!(sums, fs::read(dir.join("sums")).unwrap());
    let changes = through("delta sums - -", new);
    assert!(changes.len() < 5000, "{}", changes.len());
    assert_eq!(&through("patch old", &changes), new);

    // What fails leaves nothing behind, and no input is destroyed.
    fs::write(dir.join("changes"), &changes[..changes.len() - 1]).unwrap();
    let (code, said) = fails("patch old changes made", dir);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("changes: The delta is not usable: it ends before its end command"), "{said}");
    assert!(!dir.join("made").exists());
    let (code, said) = fails("-f patch old changes old", dir);
    assert!(code == 1 && said.contains("old is also an input"), "{said}");
    assert_eq!(&fs::read(dir.join("old")).unwrap(), old);
    let (code, said) = fails("delta old changes", dir);
    assert!(code == 2 && said.contains("old: The signature is not usable: it begins with"), "{said}");
    let (code, said) = fails("delta absent", dir);
    assert!(code == 1 && said.contains("Cannot open absent"), "{said}");
    assert_eq!(fails("-S 40 signature old other", dir).0, 2);
    assert_eq!(fails("differ", dir).0, 2);
}
