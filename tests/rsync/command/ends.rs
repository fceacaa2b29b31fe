//! What an option means holds at both ends, whichever of them we are, and no road loses what another keeps.

use super::scripts::{reads_like_stock, reads_like_stock_with_daemon};

/// A variable of a script that was never set must not become the folder it happens to run in.
#[test]
fn an_empty_operand_is_refused_and_changes_nothing() {
    reads_like_stock(
        r#"mkdir a b home; echo 1 >a/f; echo 2 >b/precious; echo 3 >mine; echo f >names; export HOME=$W/home
        t() { $R "$@"; echo "$? [$*]"; find a b home -type f | sort | tr '\n' ' '; echo; }
        t -a --delete "" b/
        t -a --delete a/ "" b/
        t -a --delete "" a/ b/
        t -a --delete a/ ""
        t -a ""
        t -a "" ""
        t -r --files-from=names "" b/
        t -r --files-from=names a ""
        t -rn --old-args "" b/
        t -rn --old-args a/ ""
        t -a --delete -e $RSH --rsync-path=$S "" lh:$W/b/
        t -a --delete -e $RSH --rsync-path=$S a/ "" lh:$W/b/
        t -a --delete -e $RSH --rsync-path=$S lh:$W/a/ "" b/
        t -a --delete -e $RSH --rsync-path=$S lh:$W/a/ ""
        t -a -e $RSH --rsync-path="cd home; $S" a/ lh:
        t -a -e $RSH --rsync-path="cd home; $S" lh: b/
        t -a -e $RSH --rsync-path="cd home; $S" lh:$W/a/ : b/"#,
    );
}

#[test]
fn what_is_only_listed_is_written_by_no_road() {
    reads_like_stock_with_daemon(
        "[m]\npath = WORK/b\nuse chroot = no\nread only = no\nuid = 0\ngid = 0\n",
        r#"mkdir -p a/s b; echo 1 >a/f; echo 2 >a/s/g; echo 3 >b/x; ln -s f a/l; touch -hd 2020-01-01 a/f a/l a/s/g a/s a b/x b
        t() { $R "$@"; echo "$? [${*##*:*}]"; find a b -type f | sort | tr '\n' ' '; ls -d n 2>/dev/null; echo; }
        for o in "--remove-source-files" "--delete -vi --mkpath"; do
            t -a --list-only $o a/ b/
            t -a --list-only $o a/ n/x/
            t -a --list-only $o -e $RSH --rsync-path=$S a/ lh:$W/b/
            t -a --list-only $o -e $RSH --rsync-path=$S a lh:$W/n/x
            t -a --list-only $o -e $RSH --rsync-path=$S lh:$W/a/ b/
            t -a --list-only $o a/ ${URL}m/
        done
        t -a --remove-source-files -e $RSH --rsync-path=$S lh:$W/a/
        t -a -M--list-only --remove-source-files -e $RSH --rsync-path=$S a/ lh:$W/b/
        t --list-only a/f -e $RSH --rsync-path=$S lh:$W/b/
        t --list-only a -e $RSH --rsync-path=$S lh:$W/b/"#,
    );
}

/// Rules hide at the sending end and protect at the receiving one, whichever of them is the client.
#[test]
fn rules_hide_and_protect_whoever_is_the_client() {
    reads_like_stock_with_daemon(
        "[a]\npath = WORK/a\nuse chroot = no\nuid = 0\ngid = 0\n\
         [b]\npath = WORK/b\nuse chroot = no\nuid = 0\ngid = 0\nread only = no\n",
        r#"make() {
            rm -rf a b; mkdir -p a/d b/d b/x; echo 1 >a/f; echo 2 >a/k.o; echo 2 >a/d/k.o; echo 3 >b/core; echo 4 >b/x/core
            echo 5 >b/d/y.o; echo 5 >b/z.o; echo 6 >b/gone; echo 7 >b/d/gone; echo 8 >a/s.tmp; echo 9 >b/t.tmp
            echo z.o >b/.cvsignore; echo '- y.o' >b/d/.rules; echo '- s.*' >a/.rules; echo '- t.*' >b/.rules
            echo f >a/d/.cvsignore; echo 1 >a/d/f; echo 2 >b/d/f; find a b -exec touch -d 2020-01-01 {} +
        }
        t() { echo "$? $*"; find b -type f | sort | tr '\n' ' '; echo; }
        all() {
            make; $R -a --delete "$@" a/ b/; t local "$@"
            make; $R -a --delete "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/; t push "$@"
            make; $R -a --delete "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/; t pull "$@"
            make; $R -a --delete "$@" ${URL}a/ b/; t from daemon "$@"
            make; $R -a --delete "$@" a/ ${URL}b/; t to daemon "$@"
        }
        all -C
        all -C --delete-excluded -m -f '+ core'
        all --delete-after -f '-s *.o' -f ':se .rules' -f '-r z.*'
        all -f 'P *.o' -f ':r .rules' --delete-excluded"#,
    );
}

/// A folder named for its contents is asked for under the name that it has over there.
#[test]
fn rules_hold_for_the_full_names_of_arguments() {
    reads_like_stock(
        r#"mkdir -p a/s/d; echo 1 >a/f; echo 2 >a/s/d/f
        t() {
            for far in "" "-e $RSH --rsync-path=$S"; do
                rm -rf b; mkdir b; [ -z "$far" ] || { mkdir -p b/a/s; echo 3 >b/a/s/old; }; $R -rR --delete $far "$@" ${far:+lh:$W/}b/
                echo "$? $*"; find b | sort | tr '\n' ' '; echo
            done
        }
        for x in 'a' '[[:alpha:]]' '*' '/a/s' 's/' '/s' 'd' 'a/**' 'a/***'; do
            for s in a a/ a/. a/s a/s/ ./a/ a/./s/ a/s/./d/ "a/ a/s/d/"; do t --exclude="$x" $s; done
        done"#,
    );
}

/// What is asked for by name is judged by no file of the folder that it stands in, and what is in it by those of all folders
/// above, where a rule asks for that.
#[test]
fn files_of_rules_above_an_argument_hold_for_what_is_in_it() {
    reads_like_stock(
        r#"mkdir -p a/sub/in; echo x >a/sub/f; echo y >a/sub/in/g; echo z >a/f
        t() {
            rm -rf b; $R -r "$@" b/; echo "$? $*"; find b | sort | tr '\n' ' '; echo
        }
        for w in . a a/sub; do for rule in '- sub' '- /sub' '- f' '- in' '- /a' '+ f'; do
            rm -f .rsync-filter a/.rsync-filter a/sub/.rsync-filter; echo "$rule" >$w/.rsync-filter
            for o in -F "-f:_.rsync-filter"; do
                for s in a a/ a/sub a/sub/ a/./sub "-R a/./sub" "-R a/sub" a/sub/f "-R a/sub/f" "-R a/sub/"; do t $o $s; done
                cd a; t $o sub; t $o .; t $o -R ./sub; rm -rf b; cd ..
            done
        done; done
        t --exclude=f -R a/sub/f; t --exclude=/a -R a/sub/f; t --exclude=sub -R a/sub/f; t --exclude=a/sub -R a/sub
        # And so it is with what is deleted.
        for rule in 'P old' 'P /a/old' 'P /sub/old' '- old'; do for w in b b/a b/a/sub; do
            rm -rf b; mkdir -p b/a/sub b/sub; touch b/old b/a/old b/a/sub/old b/sub/old; echo "$rule" >$w/.rsync-filter
            $R -r --delete -F a b/; find b -name old | sort | tr '\n' ' '
            $R -rR --delete -F a/sub b/; find b -name old | sort | tr '\n' ' '; echo
        done; done"#,
    );
}

/// A receiver does not know where the sender's folders stand, and so refuses nothing for rules of full paths.
#[test]
fn rules_of_full_paths_are_the_senders() {
    reads_like_stock(
        r#"mkdir -p a/d3 a/d4; echo 1 >a/d3/f; echo 2 >a/d4/f; echo 3 >a/f
        t() { rm -rf b; $R -r "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/; echo "$? $*"; find b | sort | tr '\n' ' '; echo; }
        for m in / s/ '!/'; do for p in /d3 d3 /nope d3/f '/d*/f' '**/f'; do
            t -f "-$m $p"; t -f "+$m $p" -f '- *'
        done; done
        # What only such a rule lets through is refused by stock; so it is left out here.
        t -f "-/ $W/a/d3"; t -f "-s/ $W/a/d3""#,
    );
}

#[test]
fn stopped_deletions_end_with_their_code_by_every_road() {
    reads_like_stock_with_daemon(
        "post-xfer exec = echo $RSYNC_EXIT_STATUS >WORK/part; mv WORK/part WORK/status\n\
         [a]\npath = WORK/a\nuse chroot = no\nuid = 0\ngid = 0\n\
         [b]\npath = WORK/b\nuse chroot = no\nuid = 0\ngid = 0\nread only = no\n",
        r#"mkdir a; echo 1 >a/f
        make() { rm -rf b status; mkdir b; touch b/1 b/2 b/3; }
        t() { echo "$? $* $(ls b | wc -l)"; }
        status() { for i in $(seq 600); do [ -e status ] && break; sleep 0.1; done; cat status; }
        for when in delete delete-before delete-delay delete-after; do for most in 1 3; do
            o="-r --$when --max-delete=$most"
            make; $R $o a/ b/; t local $o
            make; $R $o -e $RSH --rsync-path=$S a/ lh:$W/b/; t push $o
            make; $R $o -e $RSH --rsync-path=$S lh:$W/a/ b/; t pull $o
        done; done
        make; $R -r --delete --max-delete=1 a/ ${URL}b/; t to daemon; status
        make; $R -r --delete --max-delete=1 ${URL}a/ b/; t from daemon; status
        make; $R -r --delete --max-delete=1 a/ nothing b/; t beside trouble"#,
    );
}

/// What was named and does not exist hides nothing that does; a folder that cannot be entered may.
#[test]
fn a_missing_source_keeps_nothing_from_being_deleted() {
    reads_like_stock(
        r#"mkdir -p a/d; echo 1 >a/f
        make() { rm -rf b; mkdir b; touch b/1 b/2; }
        t() { make; $R --delete "$@" b/; echo "$? [$*] $(ls b | tr '\n' ' ')"; }
        t -r a/ nothing
        t -r a/ a/nothing
        t -r nothing/ a/
        t -r nothing/x a/
        t -rR a/./ nothing/x
        t -rR a/./ nothing/./x
        t -rR a/./ nothing
        t -r a/ a/f/x
        echo nothing >l; t -r --files-from=l .
        make; $R -r --delete -e $RSH --rsync-path=$S lh:$W/a/ lh:$W/nothing b/; echo "$?" b/*
        make; $R -r --delete -e $RSH --rsync-path=$S a/ nothing lh:$W/b/; echo "$?" b/*"#,
    );
}

/// `--rsync-path` is text for a shell, so that it may set variables or enter a folder first.
#[test]
fn the_far_program_may_be_a_command_of_the_shell() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f; printf '[m]\npath = %s/a\nuse chroot = no\nuid = 0\ngid = 0\n' $W >c
        printf '#!/bin/sh\necho "$X" >>'$W'/told; exec '$S' --server --daemon --config='$W'/c .\n' >serve; chmod +x serve
        $R -e $RSH --rsync-path="env X=1 ./serve" lh::; echo $?
        $R -ae $RSH --rsync-path="X=2; export X; ./serve" lh::m/ b/; echo $?
        $R -ae $RSH --rsync-path="cd a; $S" lh:. d/; echo $?
        cat told; ls b d"#,
    );
}

/// `-s` and its other names are for a shell in between; where there is none nothing changes.
#[test]
fn arguments_past_the_shell_need_none() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f; echo 2 >"a/x y"; touch -d 2020-01-01 a/* a
        t() { rm -rf b; $R "$@"; echo "$? [$*]"; ls b; }
        for o in -s --secluded-args --protect-args -lts --no-s; do
            t -r $o a/ b/
            t -r $o "a/x y" a/f b
            t -r $o -e $RSH --rsync-path=$S a/ lh:$W/b/
        done
        export RSYNC_PROTECT_ARGS=1
        t -r a/ b/
        t -r --suffix='a b*' -b a/ b/
        t -rs --list-only a/"#,
    );
}

/// What `-M` hands on is for the other end only, and may be any option.
#[test]
fn the_other_end_takes_every_option() {
    reads_like_stock(
        r#"mkdir -p a/d; echo 1 >a/f; echo 2 >a/g.o; echo 3 >a/d/h.o; echo 4 >a/d/core; mkfifo a/p; ln -s /etc a/l
        touch -hd 2020-01-01 a/d/* a/*; chmod 640 a/f
        show() { (cd b && find . | sort | while read -r n; do echo "$(stat -c '%n %F %a' "$n") $(readlink "$n")"; done); }
        t() { rm -rf b; mkdir b; echo x >b/old.o; $R "$@"; echo "$? [$*]"; show; }
        for o in '-M--exclude=*.o' '-M-f-_*.o' '-M--no-perms' '-M--backup' '-M--existing' '-M--chmod=F600' \
            '-M--no-D' '-M--fake-super' '-M--munge-links' '-M--max-size=1' '-M-v' '-M--numeric-ids'; do
            t -r -lptD --delete $o a/ b/
            t -r -lptD --delete $o -e $RSH --rsync-path=$S a/ lh:$W/b/
            t -r -lptD --delete $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        rm -rf b; $S --server --sender -logDtpr -e.LsfxCIvu -- . a/ </dev/null >out 2>errors; [ -s out ] && echo it speaks"#,
    );
}

/// Of the moments to delete at, two that find it on the way go together, and the last one counts.
#[test]
fn deletions_have_one_moment() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f
        t() { rm -rf b; mkdir -p b/x; echo o >b/y; $R -r "$@" 2>said; echo "$? [$*] $(ls b | tr '\n' ' ') $(grep WHEN said)"; }
        for o in "--delete-delay --del" "--del --delete-delay" "--delete-during --delete-delay" "--delete --delete-delay" \
            "--delete-before --del" "--del --delete-after" "--delete-delay --delete-before" "--delete-after --delete-delay" \
            "--del --del" "--delete-before --delete-before" "--delete-excluded --delete-delay --del" \
            "--del --delete-delay --delete-before" "--delete-delay --no-delete-delay --del"; do
            t $o a/ b/
            t $o -e $RSH --rsync-path=$S a/ lh:$W/b/
            t $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        touch -d 2020-01-01 a/*
        for o in "--del --delete-delay" "--delete-delay --del"; do
            rm -rf b; mkdir -p b/z; $R -rtOiv $o a/ b/ | grep -v "^sent\|^total"
        done"#,
    );
}

#[test]
fn a_local_copy_is_two_ends() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f; mkfifo a/p; ln -s /etc/passwd a/l; [ $(id -u) = 0 ] && chown -h 12:13 a/*
        for o in --fake-super --munge-links "--fake-super --munge-links" "-M--fake-super" "-M--munge-links"; do
            rm -rf b c; $R -a $o a/ b/; echo "$? $o"; (cd b; stat -c '%n %F %u:%g' *; readlink l; getfattr -hd -m- * | sort)
            $R -a $o b/ c/; echo "$? back"; (cd c; stat -c '%n %F %u:%g' *; readlink l)
        done 2>&1"#,
    );
}

/// A prefix of a file is no version of it.
#[test]
fn a_source_cut_off_while_it_is_read_says_so() {
    reads_like_stock(
        r#"cut() {
            rm -rf a b; mkdir a b; head -c 6000000 /dev/zero | tr '\0' x >a/f; [ -n "$2" ] && head -c 1000000 a/f >b/f
            touch -d 2020-01-01 a/f b/f 2>/dev/null; eval "$3"; (while [ -z "$(find b -name '.f.*' -size +1 -o -name f -size +1960)" ]; do sleep 0.05; done; truncate -s 3000000 a/f) & c=$!
            eval "$R -r $1" 2>said; r=$?; wait $c; grep -v WARNING said; cmp a/f b/f; echo "$r [$1] $(ls -A b)"
        }
        slow=--bwlimit=4000
        cut "$slow a/ b/"
        cut "$slow -z a/ b/"
        cut "$slow --append a/ b/" old
        cut "$slow -e $RSH --rsync-path=$S a/ lh:$W/b/"
        cut "$slow -e $RSH --rsync-path=$S lh:$W/a/ b/""#,
    );
}
