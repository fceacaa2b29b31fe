//! Storage nodes without rsync: our own program is uploaded, or files are written by SFTP; rows end as ever.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, kill_connections, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven, small_files};
use protocol::checksum::{Checksum, FileHasher};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server whose PATH holds no rsync.
fn bare() -> Option<Sshd> {
    Sshd::start("SetEnv PATH=/nowhere\nSubsystem sftp internal-sftp")
}

/// A server that gives each command to this script, but SFTP.
fn forced(place: &Place, script: &str) -> Option<Sshd> {
    let server = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];
    let server = server.into_iter().find(|path| Path::new(path).exists())?;
    let text = format!(
        "case \"$SSH_ORIGINAL_COMMAND\" in *sftp*) exec {server} ;; esac\n{script}\nexec sh -c \"$SSH_ORIGINAL_COMMAND\""
    );
    let script = place.script("forced", &text);
    Sshd::start(&format!("Subsystem sftp internal-sftp\nForceCommand {}", script.display()))
}

fn command(place: &Place, sshd: &Sshd, table: &Table<'_>, more: &[&str]) -> Command {
    let mut command = place.run_to(sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET]).args(more);
    command
}

/// Where uploads go in these tests, with the options for it.
fn uploads(place: &Place) -> (PathBuf, Vec<String>) {
    let dir = place.path("uploads");
    let options = ["--bootstrap", PROGRAM, "--bootstrap-dir", dir.to_str().unwrap()];
    (dir.clone(), options.map(str::to_owned).to_vec())
}

fn blake3_of(path: &Path) -> String {
    let mut hasher = FileHasher::new(Checksum::Blake3);
    hasher.update(&fs::read(path).unwrap());
    hasher.finish().to_string()
}

/// Rows of many kinds, and what becomes of them: their path below the archive, or nothing.
fn rows(place: &Place) -> Vec<(Row, Option<String>)> {
    let row = |name: &str, len, seed| Row::new(place.source(name, len, seed));
    let here = |name: &str| Some(format!("{FOLDER}{name}"));
    let mut rows: Vec<_> = small_files(place, 0..40)
        .into_iter()
        .map(|row| (row.clone(), here(&String::from_utf8(row.name()).unwrap())))
        .collect();
    for name in ["with  blanks", "quote'\"`", "new\nline", "$(touch pwned)", "-leading", "*?[a]", "naïve ☃"] {
        rows.push((row(name, 3000, 1), here(name)));
    }
    rows.push((row("a/twin", 5000, 2), here("twin")));
    rows.push((row("b/twin", 5000, 3), here("twin.1")));
    rows.push((row("c/twin", 5000, 2), here("twin")));
    rows.push((row("large", 30 << 20, 4), here("large")));
    rows.push((row("empty", 0, 5), here("empty")));
    rows.push((Row { md5: [7; 16], ..row("wrong", 70_000, 6) }, None));
    rows.push((Row { path: place.sources().join("never-was"), ..row("x", 1, 7) }, None));
    rows
}

/// Further runs leave alone what has failed.
const GIVE_UP: &str = "UPDATE pysmurf_files_v1 SET failed_copy_attempts=5 WHERE copied=0";

fn expect(place: &Place, table: &Table<'_>, rows: &[(Row, Option<String>)], log: &str) {
    for (stands, (row, to)) in table.rows().iter().zip(rows) {
        match to {
            Some(to) => {
                let path = place.archive().join(to);
                assert_eq!(stands.copied, 1, "{:?}: {log}", row.path);
                assert_eq!(String::from_utf8_lossy(&stands.path), path.to_str().unwrap());
                assert_eq!(md5_of(&path), row.md5, "{path:?}");
                let (source, copy) = (fs::metadata(&row.path).unwrap(), fs::metadata(&path).unwrap());
                if !to.ends_with("/twin") {
                    assert_eq!((copy.mode(), copy.mtime()), (source.mode(), source.mtime()), "{path:?}");
                }
            }
            None => assert_eq!((stands.copied, stands.attempts), (0, Some(1)), "{:?}: {log}", row.path),
        }
    }
    let mut names: Vec<_> = rows.iter().filter_map(|(_, to)| to.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(place.tree().names(), names);
    assert!(!place.path("pwned").exists());
}

#[test]
fn without_rsync_files_go_by_sftp() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), bare()) else { return };
    let place = Place::make();
    let table = Table::new(server, "by_sftp", Age::V1);
    let rows = rows(&place);
    table.insert(&rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let over = Run::to_end(command(&place, &sshd, &table, &["--json", "--queue", "20"])).expect(1);
    expect(&place, &table, &rows, &over.log);
    assert_eq!(over.log.matches("files are written by SFTP").count(), 1, "{}", over.log);
    table.execute(GIVE_UP);
    let (after, tree) = (table.rows(), place.tree());
    Run::to_end(command(&place, &sshd, &table, &[])).expect(0);
    assert_eq!((table.rows(), place.tree()), (after, tree));
}

#[test]
fn without_rsync_our_own_is_uploaded() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), bare()) else { return };
    let place = Place::make();
    let table = Table::new(server, "uploaded", Age::V1);
    let rows = rows(&place);
    let (dir, options) = uploads(&place);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    table.insert(&rows.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    let over = Run::to_end(command(&place, &sshd, &table, &options)).expect(1);
    expect(&place, &table, &rows, &over.log);
    table.execute(GIVE_UP);
    assert!(over.log.contains("our own was uploaded") && !over.log.contains("by SFTP"), "{}", over.log);
    let program = dir.join(blake3_of(Path::new(PROGRAM)));
    let stands = fs::metadata(&program).unwrap();
    assert_eq!((stands.mode() & 0o7777, fs::metadata(&dir).unwrap().mode() & 0o7777), (0o700, 0o700));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    // What is there is used again; what is no longer what it was is not run.
    let more = |name: &str| {
        table.insert(&[Row::new(place.source(name, 100, 9))]);
        Run::to_end(command(&place, &sshd, &table, &options)).expect(0);
        fs::metadata(&program).unwrap().ino()
    };
    assert_eq!(more("again"), stands.ino());
    fs::write(&program, "#!/bin/sh\ntouch /tmp/never\n").unwrap();
    more("anew");
    assert_eq!(blake3_of(&program), program.file_name().unwrap().to_str().unwrap());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    more("closed");
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o700);
    table.insert(&[Row::new(place.source("last", 100, 9))]);
    Run::to_end(command(&place, &sshd, &table, &[&options[..], &["--bootstrap-remove"]].concat())).expect(0);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

/// As a shell says it, and with an uploaded program that may not be run.
#[test]
fn a_shell_that_knows_no_rsync() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let unknown =
        "case \"$SSH_ORIGINAL_COMMAND\" in rsync*) echo 'bash: line 1: rsync: command not found' >&2; exit 127 ;; esac";
    let noexec = format!(
        "{unknown}\ncase \"$SSH_ORIGINAL_COMMAND\" in */uploads/*) echo 'sh: 1: Permission denied' >&2; exit 126 ;; esac"
    );
    let (_, options) = uploads(&place);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    for (name, script, road) in [
        ("unknown_up", unknown, "our own was uploaded"),
        ("unknown_noexec", &noexec, "is the directory mounted noexec"),
    ] {
        let Some(sshd) = forced(&place, script) else { return };
        let table = Table::new(server, name, Age::V1);
        let rows: Vec<_> = (0..3).map(|n| Row::new(place.source(format!("{name}{n}"), 1000, n))).collect();
        table.insert(&rows);
        let over = Run::to_end(command(&place, &sshd, &table, &options)).expect(0);
        assert!(over.log.contains(road), "{}", over.log);
        assert_eq!(table.copied(), 3);
    }
}

#[test]
fn an_account_for_files_alone_will_do() {
    let (Some(server), Some(sshd)) =
        (MariaDb::shared(), Sshd::start("Subsystem sftp internal-sftp\nForceCommand internal-sftp"))
    else {
        return;
    };
    let place = Place::make();
    let table = Table::new(server, "files_alone", Age::V1);
    let rows = small_files(&place, 0..5);
    table.insert(&rows);
    Run::to_end(command(&place, &sshd, &table, &[])).expect(0);
    expect_all_proven(&place, &table, &rows);
}

#[test]
fn troubles_by_sftp_count_against_no_file() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), bare()) else { return };
    let place = Place::make();
    let table = Table::new(server, "sftp_troubles", Age::V1);
    let mut rows = small_files(&place, 0..60);
    rows.push(Row::new(place.source("large", 60 << 20, 1)));
    table.insert(&rows);
    let start = || {
        let mut command = place.run_to(&sshd);
        // With one session the large file has its turn after the small ones.
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2", "--queue", "20", "--workers", "1"]);
        Run::start(command)
    };
    let run = start();
    wait_until("some rows", || table.copied() > 10);
    kill_connections(&sshd);
    wait_until("a large file on its way", || place.tree().temporary().iter().any(|(_, stand)| stand.len > 1 << 20));
    run.kill();
    fs::rename(place.archive(), place.path("elsewhere")).unwrap();
    let run = start();
    wait_until("it is missed", || run.log().contains("is not there"));
    fs::rename(place.path("elsewhere"), place.archive()).unwrap();
    wait_until("all rows", || table.copied() == rows.len());
    let (over, _) = run.terminate();
    over.expect(0);
    for (name, _) in place.tree().temporary() {
        fs::remove_file(place.archive().join(String::from_utf8_lossy(name).as_ref())).unwrap();
    }
    expect_all_proven(&place, &table, &rows);
}

#[test]
fn a_program_that_may_not_run_elsewhere_is_refused() {
    let place = Place::make();
    let mut command = place.run();
    command.args(["--once", "--db", "sqlite:x.db", "--target", "m", "--storage-host", "h", "--bootstrap"]);
    let over = Run::to_end(command);
    if cfg!(target_feature = "crt-static") {
        return;
    }
    assert!(over.expect(2).log.contains("make static"));
}

#[path = "../../demo/src/sftp.rs"]
mod sftp;

/// What a server does when it is asked to run a command.
#[derive(Clone, Copy)]
enum Refusal {
    Answers,
    ClosesTheChannel,
    Leaves,
}

/// A server with SFTP alone, whose refusals are as one likes.
#[derive(Clone)]
struct FilesOnly {
    of_commands: Refusal,
    of_requests: russh_sftp::protocol::StatusCode,
    sets: bool,
}

impl russh::server::Handler for FilesOnly {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<russh::server::Auth, Self::Error> {
        Ok(russh::server::Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<russh::server::Msg>,
        reply: russh::server::ChannelOpenHandle,
        session: &mut russh::server::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let (this, handle) = (self.clone(), session.handle());
        tokio::spawn(this.attend(channel, handle));
        Ok(())
    }
}

impl FilesOnly {
    async fn attend(self, mut channel: russh::Channel<russh::server::Msg>, session: russh::server::Handle) {
        let id = channel.id();
        while let Some(message) = channel.wait().await {
            match message {
                russh::ChannelMsg::Exec { .. } => match self.of_commands {
                    Refusal::Answers => drop(session.channel_failure(id).await),
                    Refusal::ClosesTheChannel => drop(session.close(id).await),
                    Refusal::Leaves => {
                        let why = "no commands here".to_owned();
                        let _ = session.disconnect(russh::Disconnect::ByApplication, why, String::new()).await;
                    }
                },
                russh::ChannelMsg::RequestSubsystem { name, .. } if name == "sftp" => {
                    let _ = session.channel_success(id).await;
                    let files = sftp::Files::new("/".into()).refusing(self.of_requests, self.sets);
                    return russh_sftp::server::run(channel.into_stream(), files).await;
                }
                _ => {}
            }
        }
    }

    /// Serves on a port of 127.0.0.1 as long as the runtime lives; gives the far end that reaches it.
    fn serve<'p>(self, place: &'p Place, runtime: &tokio::runtime::Runtime) -> FarEnd<'p> {
        use russh::keys::ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};
        let key = |seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
        let (host_key, client_key) = (key(1), key(2));
        client_key.write_openssh_file(place.path("id"), LineEnding::LF).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = format!("[127.0.0.1]:{port} {}\n", host_key.public_key().to_openssh().unwrap());
        fs::write(place.path("known_hosts"), known).unwrap();
        let config = std::sync::Arc::new(russh::server::Config { keys: vec![host_key], ..Default::default() });
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (config, handler) = (config.clone(), self.clone());
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, tcp, handler).await {
                        let _ = session.await;
                    }
                });
            }
        });
        place.at_port(port)
    }
}

#[test]
fn a_server_may_refuse_commands_and_optional_requests_in_any_way() {
    use russh_sftp::protocol::StatusCode;
    let Some(server) = MariaDb::shared() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cases = [
        (Refusal::Answers, StatusCode::OpUnsupported, true),
        (Refusal::ClosesTheChannel, StatusCode::PermissionDenied, false),
        (Refusal::Leaves, StatusCode::Failure, false),
        (Refusal::Answers, StatusCode::BadMessage, true),
    ];
    for (n, (of_commands, of_requests, sets)) in cases.into_iter().enumerate() {
        let place = Place::make();
        let far = FilesOnly { of_commands, of_requests, sets }.serve(&place, &runtime);
        let table = Table::new(server, &format!("refusals_{n}"), Age::V1);
        let rows = small_files(&place, 0..5);
        fs::set_permissions(&rows[0].path, fs::Permissions::from_mode(0o640)).unwrap();
        table.insert(&rows);
        let mut command = far.command();
        command.args(["--once", "--db", &table.url, "--target", TARGET]);
        let over = Run::to_end(command).expect(0);
        expect_all_proven(&place, &table, &rows);
        assert!(over.log.contains("files are written by SFTP") && over.log.contains("syncs no files"), "{}", over.log);
        assert_eq!(over.log.contains("sets no permissions"), !sets, "{}", over.log);
        let first = place.archive().join(FOLDER).join(String::from_utf8(rows[0].name()).unwrap());
        assert_eq!(fs::metadata(first).unwrap().mode() & 0o7777, 0o640);
    }
}

/// Whatever a server does in the place of a command, files reach an account that has SFTP.
#[test]
fn accounts_that_run_something_else_get_files_by_sftp() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    for (n, script) in [
        "exit 0",
        "echo This account is for files; exit 0",
        "echo 'This account is currently not available.'; exit 1",
        "echo no >&2; exit 126",
        "kill -9 $$",
        "kill -9 $PPID",
    ]
    .into_iter()
    .enumerate()
    {
        let Some(sshd) = forced(&place, script) else { return };
        let table = Table::new(server, &format!("something_else_{n}"), Age::V1);
        table.insert(&[Row::new(place.source(format!("something{n}"), 1000, 1))]);
        let over = Run::to_end(command(&place, &sshd, &table, &[])).expect(0);
        assert!(over.log.contains("files are written by SFTP"), "{script}: {}", over.log);
        assert_eq!(table.copied(), 1, "{script}");
    }
}

#[test]
fn what_sftp_refuses_leaves_no_probe() {
    let (Some(server), Some(sshd)) = (
        MariaDb::shared(),
        Sshd::start("Subsystem sftp internal-sftp\nForceCommand internal-sftp -P fsync,setstat,fsetstat"),
    ) else {
        return;
    };
    let place = Place::make();
    let table = Table::new(server, "no_probe", Age::V1);
    let rows = small_files(&place, 0..5);
    table.insert(&rows);
    // A file in the way of the first, so that it is refused and the base is tried.
    let way = place.archive().join(FOLDER.trim_end_matches('/'));
    fs::create_dir_all(way.parent().unwrap()).unwrap();
    fs::write(&way, "in the way").unwrap();
    Run::to_end(command(&place, &sshd, &table, &[])).expect(1);
    let stands = || {
        let names = fs::read_dir(place.archive()).unwrap().flatten().map(|entry| entry.file_name());
        names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let top = FOLDER.split('/').next().unwrap();
    assert_eq!(stands(), [top]);
    fs::remove_file(&way).unwrap();
    table.insert(&rows);
    Run::to_end(command(&place, &sshd, &table, &[])).expect(0);
    assert!(table.copied() >= rows.len());
    assert_eq!(stands(), [top]);
}

/// Hands SFTP on to a server until it is to sync a file: then it is gone, as one may go that stumbles over what it does
/// not know.
const STUMBLES: &str = r#"
import os, struct, subprocess, sys
server = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE)
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        break
    body = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
    if body[:1] == b"\xc8" and b"fsync@openssh.com" in body[:40]:
        open(sys.argv[2], "a").write("asked\n")
        server.kill()
        os._exit(1)
    server.stdin.write(head + body)
    server.stdin.flush()
"#;

#[test]
fn a_server_that_ends_the_connection_when_it_is_to_sync_is_not_asked_for_ever() {
    let place = Place::make();
    let server = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];
    let server = server.into_iter().find(|path| Path::new(path).exists());
    let (Some(database), Some(server), true) = (MariaDb::shared(), server, require("python3")) else { return };
    let (python, asked) = (place.path("stumbles.py"), place.path("asked"));
    fs::write(&python, STUMBLES).unwrap();
    let run = format!("exec python3 {} {server} {}", python.display(), asked.display());
    let script = place.script("forced", &format!("case \"$SSH_ORIGINAL_COMMAND\" in *sftp*) {run} ;; esac\nexit 127"));
    let Some(sshd) = Sshd::start(&format!("Subsystem sftp internal-sftp\nForceCommand {}", script.display())) else {
        return;
    };
    let table = Table::new(database, "stumbles", Age::V1);
    let rows = small_files(&place, 0..5);
    table.insert(&rows);
    let over = Run::to_end(command(&place, &sshd, &table, &["--workers", "1"])).expect(0);
    expect_all_proven(&place, &table, &rows);
    assert_eq!(fs::read_to_string(asked).unwrap().lines().count(), 2, "{}", over.log);
    assert_eq!(over.log.matches("not asked any more").count(), 1, "{}", over.log);
    assert!(place.tree().names().iter().all(|name| !name.contains("/.")), "{:?}", place.tree().names());
}
