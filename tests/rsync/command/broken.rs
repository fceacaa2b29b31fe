//! Sessions that come to no good end: both ends say so by the numbers that stock uses.

use super::scripts::{reads_like_stock, reads_like_stock_with_daemon};
use crate::support::stock::{Bench, OURS};
use crate::support::tree;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// `far` starts the far end and notes its exit code, `code` waits for that; of the words only their presence is compared.
const ENDS: &str = r#"mkdir -p a/s b; head -c 3000000 /dev/urandom >a/big; echo 1 >a/f; echo 2 >a/s/g
    cat >far <<'END'
#!/bin/bash
while :; do case $1 in -l) shift 2;; -*) shift;; *) shift; break;; esac; done
eval "$BEFORE"
eval "$@"; c=$?; echo $c >$W/part; mv $W/part $W/code
eval "$BEHIND"
exit $c
END
    chmod +x far; export BEFORE BEHIND
    code() { for i in $(seq 200); do [ -e code ] && break; sleep 0.1; done; cat code; rm -f code; }
    t() { "$@" 2>words; echo "$? $([ -s words ] && echo said)"; rm -rf b; mkdir b; }
    push() { t $R -a -e $W/far --rsync-path=$S "$@" a/ lh:$W/b/; }
    pull() { t $R -a -e $W/far --rsync-path=$S "$@" lh:$W/a/ b/; }
    both() { echo "== $*"; push "$@"; pull "$@"; }
"#;

#[test]
fn what_is_no_rsync_at_the_far_end_is_a_protocol_error() {
    reads_like_stock(&format!(
        r#"{ENDS}
        BEFORE='echo Welcome to this machine; cat >/dev/null; exit'; both
        BEFORE='echo Welcome to this machine'; both
        BEFORE='printf "\0\0\0\0"; cat >/dev/null; exit'; both
        BEFORE='printf "\23\0\0\0"; cat >/dev/null; exit'; both
        BEFORE='printf "\51\0\0\0"; cat >/dev/null; exit'; both
        BEFORE='printf "\37\0\0\0"; exit 0'; both
        BEFORE="exit 0"; both"#
    ));
}

/// A program that fails behind a session that went well takes its number along; how one was killed is a number of its own.
#[test]
fn the_far_program_has_a_say_in_the_exit_code() {
    reads_like_stock(&format!(
        r#"{ENDS}
        for c in 1 12 127; do BEHIND="exit $c"; both; done
        for s in KILL; do BEHIND="kill -$s \$\$"; both; done
        BEHIND=
        both -M--no-such-option
        both --no-such-option
        t $R -a -e $W/far --rsync-path=$S a/ lh:$W/no/such/
        t $R -a -e $W/far --rsync-path=$S lh:$W/a/ no/such/
        t $R -a -e $W/far --rsync-path=$S lh:$W/none b/
        t $R -a -e $W/far --rsync-path=$S none lh:$W/b/
        echo 1 >file
        for d in file/ file/x file; do for s in a/f a/; do for n in ""; do
            echo "== $n $s $d"
            t $R -a $n $s $d
            t $R -a $n -e $W/far --rsync-path=$S $s lh:$W/$d
            t $R -a $n -e $W/far --rsync-path=$S $(for p in $s; do echo lh:$W/$p; done) $d
        done; done; done; cat file"#
    ));
}

/// A disk that is full does not get emptier with the next file.
#[test]
fn a_file_that_takes_no_more_bytes_ends_the_session() {
    reads_like_stock_with_daemon(
        "[m]\npath = WORK/b\nuse chroot = no\nread only = no\nuid = 0\ngid = 0\n",
        &format!(
            r#"{ENDS}
            kept() {{ find b -type f -name big -size +100k | wc -l; }}
            t() {{ (ulimit -f 1000; "$@" 2>words); echo "$? $(grep -c 'write failed on .*big.*File too large' words) $(kept)"; rm -rf b; mkdir b; }}
            for o in "" --inplace "--partial-dir=.p"; do
                t $R -a $o a/ b/
                both $o
            done
            echo old >b/big; push --no-W"#
        ),
    );
}

/// What the other end sees of a client that is killed in the middle of a file.
#[test]
fn a_server_whose_client_is_gone_ends_with_a_broken_stream() {
    reads_like_stock(&format!(
        r#"{ENDS}
        for s in TERM USR1 KILL; do
            rm -rf b; mkdir b
            $R -a --bwlimit=500 -e $W/far --rsync-path=$S a/ lh:$W/b/ 2>words & p=$!
            for i in $(seq 900); do [ -n "$(find b -name '.big.*' -size +0)" ] && break; sleep 0.05; done
            kill -$s $p; wait $p; echo $s $?; code; ls -A b
        done 2>/dev/null"#
    ));
}

/// Stock may or may not have learnt of it by then; we always wait for it.
#[test]
fn what_cannot_be_started_is_told_by_its_number() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    let work = work.path();
    tree::put(work, "f", b"1", 0o644, tree::THEN);
    let run = |shell: &str, path: &str, operands: [&str; 2]| {
        let mut command = Command::new(OURS);
        command.args(["rsync", "-a", "-e", shell, "--rsync-path", path]).args(operands).current_dir(work);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let shell = bench.shell();
    let shell = shell.to_str().unwrap();
    let ends = |code: i32| bench.script(&format!("ends-{code}"), &format!("exit {code}")).to_str().unwrap().to_owned();
    for operands in [["f", "lh:x"], ["lh:f", "x"]] {
        for (shell, path, code) in [
            (shell, "no-such-program", 127),
            (shell, "/no/such/program", 127),
            (shell, "/etc/passwd", 126),
            ("/no/such/shell", "rsync", 14),
            ("/etc/passwd", "rsync", 14),
            ("/", "rsync", 14),
            (&ends(255), "rsync", 255),
            (&ends(13), "rsync", 13),
            (&ends(3), "rsync", 12),
            (&ends(0), "rsync", 12),
        ] {
            let (ended, said) = run(shell, path, operands);
            assert_eq!(ended, Some(code), "{shell} {path} {operands:?}: {said}");
            assert!(said.contains(&format!("(code {code})")), "{said}");
        }
    }
}

/// What a daemon says first, and then hangs up.
#[test]
fn a_daemon_that_hangs_up_early_never_started_a_session() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("work");
    let work = work.path();
    tree::put(&work.join("a"), "f", b"1", 0o644, tree::THEN);
    for said in [
        &b""[..],
        b"hello\n",
        b"@RSYNCD: 32.0 md5 md4\n",
        b"@RSYNCD: 32.0 md5 md4\nsome words\n",
        b"@RSYNCD: 32.0 md5 md4\n@ERROR: not today\n",
        b"@ERROR: max connections (1) reached -- try again later\n",
    ] {
        for operands in [&["URL"][..], &["-a", "a/", "URL"], &["-a", "URL", "b/"]] {
            let codes = [OURS, "rsync"].map(|program| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let url = format!("rsync://127.0.0.1:{}/m/", listener.local_addr().unwrap().port());
                let server = std::thread::spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let _ = stream.write_all(said);
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    let _ = stream.read_to_end(&mut Vec::new());
                });
                let mut command = Command::new(program);
                command.args((program == OURS).then_some("rsync")).current_dir(work);
                let output = command.args(operands.iter().map(|word| word.replace("URL", &url))).output().unwrap();
                server.join().unwrap();
                assert!(!output.stderr.is_empty() || program != OURS, "{operands:?} {}", said.escape_ascii());
                output.status.code()
            });
            assert_eq!(codes, [Some(5), Some(5)], "{operands:?} {}", said.escape_ascii());
        }
    }
}
