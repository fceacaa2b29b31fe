//! What cannot be used is refused with one clear message, and a file that breaks the far end holds up no other.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table, small_files};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn bad_options_are_said_at_once() {
    let place = Place::make();
    let program = |args: &[String]| {
        let mut command = place.program();
        command.args(args);
        command
    };
    let garbage = place.path("garbage.db");
    fs::write(&garbage, "this is no database, and long enough to be looked at. ".repeat(100)).unwrap();
    let garbage = format!("sqlite:{}", garbage.display());
    let no_key = place.path("not-a-key");
    fs::write(&no_key, "hello").unwrap();
    let no_key = no_key.display().to_string();
    let run = format!("run --data-dir {}", place.archive().display());
    let lite = format!("{run} --once --db sqlite:x.db");
    let far = format!("{lite} --target m --storage-host h");
    let cases = [
        ("run --once".to_owned(), "--data-dir"),
        ("run --once --data-dir / --target m".into(), "--data-dir"),
        ("run --once --data-dir '' --target m".into(), "--data-dir"),
        (format!("{run} --once --db mysql://u:p@127.0.0.1:1/files"), "--target"),
        (format!("{far} --host smurf"), "--host"),
        (format!("{run} --once --target m --db oracle://x"), "--db"),
        (format!("{run} --once --target m --db mysql://h:port/x"), "port"),
        (format!("{run} --once --target m --db {garbage}"), "garbage.db"),
        (format!("{lite} --archive-name a b"), "'b'"),
        (format!("{lite} --archive-name a --archive-name b"), "sqlite:x.db is not there"),
        (format!("{lite} --target a b"), "--archive-name"),
        (lite.clone(), "--archive-name"),
        (format!("{lite} --archive-name ''"), "--archive-name is given an empty name"),
        (format!("{run} --once --db mysql://u:p@127.0.0.1:1/files --target m ''"), "--target is given an empty name"),
        (format!("{lite} --target m --table t"), "--table"),
        (format!("{lite} --target m --poll 0"), "--poll"),
        (format!("{lite} --target m --workers 0"), "--workers"),
        (format!("{lite} --target m --no-such-option"), "--no-such-option"),
        (format!("{far} --ssh-key /no/such/key"), "/no/such/key"),
        (format!("{far} --ssh-key {no_key}"), "not-a-key"),
        (format!("{far} --known-hosts /no/such/hosts"), "/no/such/hosts"),
        (format!("{far} --ssh-config /no/such/config"), "/no/such/config"),
        (format!("{far} --rsync-path \"'\""), "--rsync-path"),
        (format!("{lite} --target m --storage-host=-oProxyCommand=x"), "ProxyCommand"),
        ("archive".into(), "archive"),
    ];
    let mut wrong = Vec::new();
    for (args, words) in cases {
        let args = shlex::split(&args).unwrap();
        let over = Run::to_end(program(&args));
        let message = over.log.trim();
        eprintln!("{}", message.lines().next().unwrap_or_default());
        if over.status.code() != Some(2)
            || !message.contains(words)
            || message.contains("panicked")
            || over.seconds > 10.0
        {
            wrong.push(format!("{args:?}: {}, {:.1} s, {message}", over.status, over.seconds));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing is written, least of all a database that a bad option named.
    assert_eq!(place.tree().0.len(), 0);
    assert!(!place.path("pysmurf-archiver.db").exists() && !place.path("x.db").exists());
}

/// A file that makes the far end's program break off whenever it is named.
#[test]
fn a_file_that_breaks_the_far_end_holds_up_no_other() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "breaks", Age::V1);
    let mut rows = small_files(&place, 0..40);
    rows.push(Row::new(place.source("poison_one", 1000, 1)));
    rows.extend(small_files(&place, 40..90));
    rows.push(Row::new(place.source("poison_two", 1000, 2)));
    rows.extend(small_files(&place, 90..200));
    table.insert(&rows);
    let Some(script) = fragile(&place, r#"kill "KILL", $pid; waitpid $pid, 0; exit 12"#) else { return };
    let mut command = FarEnd { rsync_path: script, ..place.behind(&sshd) }.command();
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    let over = Run::to_end(command).expect(1);
    eprintln!("{} rows, two of which break the far end: {:.1} s", rows.len(), over.seconds);
    for (stands, row) in table.rows().iter().zip(&rows) {
        let poison = String::from_utf8_lossy(&row.name()).contains("poison");
        let want = if poison { (0, Some(1)) } else { (1, Some(0)) };
        assert_eq!((stands.copied, stands.attempts), want, "{stands:?}\n{}", over.log);
    }
    // Blamed only when those that shared its session are through.
    let lines: Vec<_> = over.log.lines().collect();
    let blamed = lines.iter().position(|line| line.contains("Not copied")).unwrap();
    let through = lines[..blamed].iter().filter(|line| line.contains("Copied and proven")).count();
    assert!(through >= 40, "{through} before {}", lines[blamed]);
    assert_eq!(place.tree().files().count(), rows.len() - 2);
}

/// A file at whose name the whole connection dies, as some watchful firewalls do it: no fault of the file that could be
/// proven, so nothing is counted, but the others get past it.
#[test]
fn a_file_that_kills_the_connection_holds_up_no_other() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "kills", Age::V1);
    let mut rows = small_files(&place, 0..20);
    rows.push(Row::new(place.source("poison", 1000, 1)));
    rows.extend(small_files(&place, 20..100));
    table.insert(&rows);
    let Some(script) = fragile(&place, r#"kill "KILL", getppid(), $pid; exit 12"#) else { return };
    let mut command = FarEnd { rsync_path: script, ..place.behind(&sshd) }.command();
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2"]);
    let run = Run::start(command);
    wait_until("the others", || table.copied() == 100);
    // And those that come later.
    let more = small_files(&place, 100..110);
    table.insert(&more);
    wait_until("the later ones", || table.copied() == 110);
    let (over, _) = run.terminate();
    let over = over.expect(0);
    eprintln!("110 rows beside one that kills connections: {:.1} s", over.seconds);
    assert!(table.rows().iter().all(|row| row.attempts == Some(0)), "{}", over.log);
}

/// A far end that gives up within the protocol has said why: that is told and kept, and not its exit code alone.
#[test]
fn a_far_end_that_gives_up_is_heard_out() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "last_words", Age::V1);
    table.insert(&[Row::new(place.source("poison", 1000, 1))]);
    // MSG_ERROR and MSG_ERROR_EXIT.
    let then = r#"
        kill "KILL", $pid; waitpid $pid, 0;
        my $text = "rsync: [Receiver] node \"seven\" is on fire\n";
        syswrite STDOUT, pack("V", (10 << 24) + length $text) . $text . pack("VV", (93 << 24) + 4, 11);
        1 while sysread(STDIN, my $rest, 65536);
        exit 11"#;
    let Some(script) = fragile(&place, then) else { return };
    let mut command = FarEnd { rsync_path: script, ..place.behind(&sshd) }.command();
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    let log = Run::to_end(command).expect(1).log;
    let words = "The peer gave up with exit code 11; it said: rsync: [Receiver] node \"seven\" is on fire";
    assert!(log.lines().any(|line| line.contains("Not copied") && line.contains(words)), "{log}");
    assert!(table.execute("SELECT why FROM archiver_note").contains("exit code 11; it said: "));
}

/// A far end that does this when it hears the word `poison`.
fn fragile(place: &Place, then: &str) -> Option<PathBuf> {
    let filter = r#"case "$*" in *--server*) ;; *) exec rsync "$@" ;; esac
exec perl -e '
    use IPC::Open2;
    $SIG{PIPE} = "IGNORE";
    my $pid = open2(">&STDOUT", my $in, "rsync", @ARGV);
    while (sysread(STDIN, my $bytes, 65536)) {
        if ($bytes =~ /poison/) { THEN }
        syswrite $in, $bytes;
    }
    close $in;
    waitpid $pid, 0;
    exit($? >> 8);
' -- "$@""#;
    require("perl").then(|| place.script("fragile", &filter.replace("THEN", then)))
}

/// Before an rsync that may do nothing else, as rrsync is.
#[test]
fn what_refuses_to_say_whether_the_archive_is_there_does_not_say_that_it_is_not() {
    let (Some(server), true) = (MariaDb::shared(), require("rsync")) else { return };
    let place = Place::make();
    let only = "case \"$SSH_ORIGINAL_COMMAND\" in rsync*) exec sh -c \"$SSH_ORIGINAL_COMMAND\" ;; esac\n\
                echo 'error: SSH_ORIGINAL_COMMAND does not run rsync.' >&2\nexit 1";
    let script = place.script("only", only);
    let Some(sshd) = Sshd::start(&format!("ForceCommand {}", script.display())) else { return };
    let table = Table::new(server, "only_rsync", Age::V1);
    let rows = small_files(&place, 0..5);
    table.insert(&rows);
    let bad = Row { action: Some("in-the-way".into()), ..Row::new(place.source("refused", 3000, 1)) };
    table.insert(std::slice::from_ref(&bad));
    // A file in the place of its folder.
    let way = place.archive().join(FOLDER.replace("tracking_setup", "in-the-way"));
    let way = way.parent().unwrap();
    fs::create_dir_all(way.parent().unwrap()).unwrap();
    fs::write(way, "in the way").unwrap();
    let mut command = place.run_to(&sshd);
    command.args(["--once", "--db", &table.url, "--target", TARGET, "-v"]);
    let over = Run::to_end(command).expect(1);
    assert_eq!(table.copied(), rows.len(), "{}", over.log);
    assert!(!over.log.contains("is not there") && over.log.contains("the storage node refused it"), "{}", over.log);
}

/// Its memory holds the password and the key: what a crash leaves, others read later.
#[test]
fn a_crash_leaves_no_core() {
    let place = Place::make();
    // Whether a core is left here at all depends on the machine.
    let dumps = |mut command: Command| {
        command.current_dir(place.archive()).stdout(Stdio::null());
        let run = Run::start(command);
        wait_until("it runs", || !run.log().is_empty());
        run.signal("ABRT");
        run.wait(PATIENCE).status.core_dumped()
    };
    let unlimited = |program: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--core=unlimited:unlimited", program]);
        command
    };
    let mut other = unlimited("sh");
    other.args(["-c", "echo runs >&2; exec sleep 600"]);
    if !dumps(other) {
        println!("SKIPPED: no core files are left on this machine");
        return;
    }
    let mut ours = unlimited(PROGRAM);
    ours.args(["run", "--target", TARGET, "--db", "mysql://nobody:secret@127.0.0.1:1/files", "--data-dir"])
        .arg(place.archive());
    assert!(!dumps(ours));
}
