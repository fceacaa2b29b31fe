//! Owners, rules and bounds in the corners of options: as stock has them.

use super::scripts::reads_like_stock;
use crate::support;
use crate::support::held::is_held;
use crate::support::stock::OURS;
use std::io::Read;
use std::process::{Command, Stdio};

/// What stands between a program and the system by way of libc, as fakeroot does, is heard of all that is done and asked.
#[test]
fn what_fakeroot_stands_for_is_copied() {
    if !support::tools::require("fakeroot") {
        return;
    }
    reads_like_stock(
        r#"chmod 755 .. && chmod 777 .; as=; [ $(id -u) = 0 ] && as="setpriv --reuid=65534 --regid=65534 --clear-groups"
        show='show() { (cd $1; stat -c "%n %F %u:%g %a %h %t:%T" * | sed "s/ character special file/ device/"); }; '
        t() { rm -rf t; mkdir t; chmod 777 t; (cd t; $as fakeroot sh -c "umask 22; $show $1" 2>&1); echo "= $?"; }
        export R S RSH; make='mkdir a a/d; echo 1 >a/f; ln a/f a/g; mkfifo a/p; ln -s f a/l; mknod a/c c 1 3; mknod a/b b 8 1
            chown -h 12:13 a/f a/l; chown 5:6 a/c a/p; chown 7:8 a/d; chmod 4750 a/f; chmod 2755 a/d; chmod 600 a/c; '
        t 'mkdir a; echo 1 >a/f; chown 12:13 a/f; $R -a a/ b/; stat -c %u:%g b/f'
        t "$make"'$R -aH a/ b/; show b; $R -aHi a/ b/; $R -aHX b/ c/; show c'
        t "$make"'$R -aH -e $RSH --rsync-path=$S a/ lh:$PWD/b/; show b; $R -aH -e $RSH --rsync-path=$S lh:$PWD/b/ c/; show c
            $R -aHi -e $RSH --rsync-path=$S lh:$PWD/b/ c/'
        t 'mkdir a b; echo 1 >a/f; chown 12:13 a/f; echo 22 >b/f; chown 3:3 b/f; $R -ab a/ b/; show b; echo 333 >a/f
            $R -a --inplace a/ b/; show b; chown 14:14 a/f; chmod 600 a/f; $R -ai a/ b/; show b; $R -ai --delay-updates a/ b/
            $R -a --chown=4:5 --link-dest=$PWD/b a/ c/; show c; $R -a --copy-dest=$PWD/b a/ d/; show d; $R -a --fake-super a/ e/; show e'"#,
    );
}

/// The largest id is nobody's; what it was to be given to comes all the same, and that is told.
#[test]
fn ids_that_nobody_can_have_are_told() {
    reads_like_stock(
        r#"[ $(id -u) = 0 ] || exit 0
        mkdir a; echo 1 >a/f; ln -s f a/l; mkfifo a/p
        t() { rm -rf b; $R -a "$@" >said 2>&1; echo "$? $*"; grep -c impossible said; stat -c '%n %u:%g' b/* 2>/dev/null; }
        for m in 0:4294967295 '*:4294967295' 0:4294967294 0:4294967296 0:-1 0:+5 0-4294967295:7; do
            t --usermap=$m a/f b/; t --groupmap=$m -e $RSH --rsync-path=$S a/f lh:$W/b/; t --usermap=$m -e $RSH --rsync-path=$S lh:$W/a/f b/
        done
        for m in 4294967295 5:4294967295 4294967296:; do t --chown=$m a/f b/; done"#,
    );
}

/// Numbers are read as the original's library of options reads them, and hold as far as it lets them.
#[test]
fn numbers_are_bounded_as_by_stock() {
    reads_like_stock(
        r#"mkdir a b; echo 1 >a/f; echo 2 >b/f; touch -d '2020-01-01 00:00:00.5' a/f; touch -d '2020-01-01 00:00:00.7' b/f; cp -a b b0
        t() { rm -rf b; cp -a b0 b; $R "$@" >said 2>&1; echo "$? $* $(grep -o 'f\.\.t.*\|number too.*\|invalid num.*' said)"; }
        for w in 0 1 -1 -2 86401 99999999 2147483647 2147483648 4294967296 -2147483648 -2147483649 1.5 x '' 1k 0x10 010 08 ' 5' '5 ' +5; do
            t -ai --modify-window="$w" -e $RSH --rsync-path=$S a/ lh:$W/b/; t -a --timeout="$w" a/ b/
        done
        touch -d '2019-01-01' b0/f; for w in 99999999 31536000 31535999 0x1e13380 -5; do
            t -ai --modify-window=$w a/ b/; t -ai --modify-window=$w -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        for o in bwlimit max-size min-size block-size checksum-seed compress-level compress-threads max-alloc; do t -a --$o= a/ b/; done"#,
    );
}

/// Where another file system begins, twice `-x` leaves its folder out; nothing on another one is deleted.
#[test]
fn mount_points_are_passed_over() {
    if !support::tools::require("unshare") || !support::tree::is_root() {
        return;
    }
    reads_like_stock(
        r#"[ -z "$IN" ] && { export IN=1 R S RSH W; exec unshare -m bash -c "$BASH_EXECUTION_STRING"; }
        mkdir -p a/d/m a/m b; mount -t tmpfs none a/m || exit 0; mount -t tmpfs none a/d/m; echo 1 >a/m/f; mkdir a/m/sub; echo 1 >a/d/m/g; echo 2 >a/f
        touch -d 2020-01-01 a/m a/d/m a/d a/f a
        t() { rm -rf b; mkdir b; $R "$@" | grep -v '^sen\|^total\|^receiving\|^building\|^created\|^delta\|^done'; echo "${PIPESTATUS[0]} $*"; find b | sort | tr '\n' ' '; }
        for o in -xr -xxr "-xxa --info=mount" "-xxr --no-i-r" "-xrR" "-xxrR" "-xd"; do
            t $o a/ b/; t $o a b/; t $o a/m b/; t $o -e $RSH --rsync-path=$S a/ lh:$W/b/; t $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        t2() {
            rm -rf b; mkdir -p b/x b/y/z; mount -t tmpfs none b/x; mount -t tmpfs none b/y/z; echo 1 >b/x/keep; echo 3 >b/gone
            $R "$@" | grep -v '^sen\|^total\|^receiving\|^building'; echo "${PIPESTATUS[0]} $*"; find b | sort | tr '\n' ' '; umount b/x b/y/z
        }
        for o in "-xr --delete" "-xxr --delete" "-xrn --delete --info=mount"; do
            t2 $o a/d/ b/; t2 $o -e $RSH --rsync-path=$S a/d/ lh:$W/b/; t2 $o -e $RSH --rsync-path=$S lh:$W/a/d/ b/
        done"#,
    );
}

/// Rules for attributes that folders bring along hold in them and below.
#[test]
fn rules_of_folders_hold_for_attributes() {
    reads_like_stock(
        r#"make() {
            rm -rf a b; mkdir -p a/d/e; for n in f d/g d/e/h; do echo 1 >a/$n; setfattr -n user.a -v 1 a/$n; setfattr -n user.b -v 2 a/$n; done
            setfattr -n user.a -v 1 a/d; touch -hd 2020-01-01 a/f a/d/g a/d/e/h a/d/e a/d a
        }
        t() {
            make; printf "$1" >a/$2; echo "[$*]"; shift 2
            $R -aX "$@" a/ b/; echo $?; getfattr -Rd -m user b; rm -rf b; $R -aX --no-i-r "$@" a/ b/; getfattr -Rd -m user b; rm -rf b
            $R -aX "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/; getfattr -Rd -m user b; rm -rf b
            $R -aX "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/; getfattr -Rd -m user b
        }
        t '-x user.a\n' .rules -f ': .rules'
        t '-x user.a\n' d/.rules -f ': .rules'
        t '+x user.a\n-x user.*\n' d/e/.rules -f ':n .rules'
        t '-x user.b\n' d/.rules -f '-x user.a' -f ': .rules'
        t '-x user.b\n- h\n' d/.rules -f ': .rules' -f '+x user.b'"#,
    );
}

/// A place for backups that is none is refused before anything is done.
#[test]
fn a_place_for_backups_must_be_able_to_be_one() {
    reads_like_stock(
        r#"mkdir -p a b; echo 1 >a/f; touch -d 2020-01-01 a/f; touch bk
        t() { rm -rf b; mkdir b; echo 22 >b/f; $R "$@" 2>said; echo "$? $*"; grep -o 'The backup-dir .*' said | head -n 1; ls b; rm -rf new; }
        for d in ../bk $W/bk ../new ../new/x; do
            t -ab --backup-dir=$d a/ b/; t -ab --backup-dir=$d -e $RSH --rsync-path=$S a/ lh:$W/b/; t -abn --backup-dir=$d a/ b/
            rm b/f; $R -ab --backup-dir=$d a/ b/ 2>said; echo $?; ls -d new 2>&1
        done"#,
    );
}

/// What is for the other end only holds there on a local copy, too.
#[test]
fn options_for_the_other_end_hold_on_a_local_copy() {
    reads_like_stock(
        r#"t() {
            rm -rf a b; mkdir -p a/d b/d; echo 1 >a/f; echo 1 >a/k.o; echo q >a/d/q; echo 1 >b/x.o; echo 9 >b/gone; echo z >b/d/.cvsignore; echo 2 >b/d/z
            $R -a --delete "$@" a/ b/ 2>/dev/null; echo "$? $*"; find b -type f | sort | tr '\n' ' '
        }
        for o in -M-C -M--cvs-exclude '-M--exclude=*.o' -M-f:C -M--max-size=0 -M--bogus; do t $o; done"#,
    );
}

/// Before the first byte of a session the kernel is told what it is for; links that lead out of a destination are ways into
/// it only where options say so.
#[test]
fn a_server_is_held_before_it_hears_its_client() {
    let folder = tempfile::tempdir().unwrap();
    for (words, held) in [
        (&["-logDtpre.iLsfxCIvu"][..], true),
        (&["--sender", "-logDtpre.iLsfxCIvu"], true),
        (&["--sender", "-logDtpre.iLsfxCIvu", "--remove-source-files"], true),
        (&["-logDtpKre.iLsfxCIvu"], false),
    ] {
        let mut command = Command::new(OURS);
        command.arg("--server").args(words).arg(".").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        server.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
        let found = is_held(server.id());
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(found.is_none_or(|found| found == held), "{words:?}");
    }
}
