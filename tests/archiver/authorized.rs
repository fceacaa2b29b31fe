//! A key that may archive and nothing else.

use crate::support::archiver::{PROGRAM, Place, Run};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::tables::{Age, TARGET, Table, expect_all_proven, small_files};
use pysmurf_archiver::transport::Connect;
use pysmurf_archiver::transport::ssh::Ssh;
use std::ffi::OsString;
use std::fs;

#[test]
fn a_key_that_is_authorized_archives_and_does_nothing_else() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), Sshd::start("Subsystem sftp internal-sftp")) else { return };
    let place = Place::make();
    let (key, dir) = (sshd.client_key(), place.archive());
    let mut command = place.program();
    command.args(["authorize", "--program", PROGRAM, "--data-dir"]).arg(&dir).arg("--ssh-key").arg(&key);
    let line = command.output().unwrap();
    assert!(line.status.success(), "{line:?}");
    assert!(line.stdout.starts_with(b"restrict,command="), "{line:?}");
    fs::write(sshd.path("authorized_keys"), &line.stdout).unwrap();

    let table = Table::new(server, "authorized", Age::V1);
    let rows = small_files(&place, 0..20);
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    Run::to_end(command).expect(0);
    expect_all_proven(&place, &table, &rows);

    let secret = place.path("secret");
    fs::write(&secret, "for nobody").unwrap();
    let outside = format!("{}/", place.path("").display());
    let inside = format!("{}/", dir.display());
    let mut ssh = Ssh::new(sshd.options()).unwrap();
    for words in [
        vec!["sh", "-c", "echo here"],
        vec!["cat", secret.to_str().unwrap()],
        vec!["rsync", "--server", "-tpcRe.", ".", &outside],
        vec!["rsync", "--server", "--sender", "-te.", ".", &inside],
        vec!["rsync", "--server", "--daemon", "."],
        vec!["test", "-d", "/etc"],
    ] {
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let output = ssh.run(&words).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status, output.stdout.as_slice()), (Some(1), &b""[..]), "{words:?}: {said}");
        assert!(said.contains("only archives below"), "{words:?}: {said}");
    }
    assert!(ssh.sftp().is_err());
}
