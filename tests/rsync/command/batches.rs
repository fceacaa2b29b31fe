//! Batch files of every kind of session, and what a script that plays one back makes of names and rules.

use super::scripts::reads_like_stock;

/// What is written is played back by the script beside it, and leaves what the session would have left.
#[test]
fn every_kind_of_session_is_written_and_played() {
    reads_like_stock(
        r#"make() {
            rm -rf a b c; mkdir -p a/d b/d; seq 2000 >a/f; seq 1999 >b/f; echo 1 >a/d/g; ln a/d/g a/d/h; ln -s f a/l; echo 9 >b/gone
            head -c 50000 /dev/zero >a/z; mkfifo a/p; chmod 640 a/f; echo 5 >a/empty-not
            setfattr -n user.n -v 1 a/f 2>/dev/null; setfattr -n user.k -v 2 b/f 2>/dev/null
            setfattr -n user.m -v "$(printf %0100d 7)" a/d/g a/d 2>/dev/null
            touch -hd 2020-01-01 a/d/* b/gone a/* a/d b/f b/d a b; cp -a b c
        }
        show() {
            (cd $1; find . | sort | xargs stat -c '%n %F %a %Y %h %s' | sed -E 's/ (1[789]|20)[0-9]{8} / now /'
            getfattr -Rhd -m user . 2>/dev/null; find . -type f | sort | xargs cat) | sha1sum
        }
        t() {
            make; $R "$@" 2>&1 | grep -v ^total; echo "${PIPESTATUS[0]} [$*]"; show b
            [ -e B.sh ] || return; make; sh ./B.sh c/ 2>&1 | grep -v ^total; echo "${PIPESTATUS[0]} played"; show c; rm B B.sh
        }
        for o in -aX "-aHX --delete" "-az --no-i-r" "-aX --inplace --no-W" "-abXvi --fake-super" "-aXc --protocol=30" -an; do
            t $o --write-batch=B a/ b/
            t $o --only-write-batch=B a/ b/
        done
        for o in "-aX --delete" -ain; do for k in write-batch only-write-batch; do
            t $o --$k=B -e $RSH --rsync-path=$S a/ lh:$W/b/
            t $o --$k=B -e $RSH --rsync-path=$S lh:$W/a/ b/
        done; done
        # What a batch holds is to be small, on a local copy too.
        make; seq 50000 >a/f; seq 49999 >b/f; $R -a --write-batch=B a/f b/; [ $(stat -c %s B) -lt 100000 ] && echo small"#,
    );
}

/// Nothing in an option, a name or a rule is text for the shell that plays the script.
#[test]
fn nothing_in_a_script_is_more_than_words() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f; echo 2 >a/x; nl='
'
        ran() { [ -e PWNED ] && { echo "it ran: $*"; rm -f PWNED; }; }
        t() {
            rm -rf b c; mkdir c; $R -a "$@" a/ b/ >said 2>&1; code=$?; echo "$code [$*]"; [ $code = 1 ] && grep -c "containing a newline" said
            for script in *.sh; do [ $code = 0 ] && { sh "./$script" c/ >said 2>&1; echo "$? played"; }; done; ran "$@"
            ls c; rm -f ./*.sh ./*B*
        }
        t --write-batch=B --filter="- x$nl#E#${nl}touch PWNED"
        t --write-batch=B --exclude="x$nl#E#${nl}touch PWNED"
        t --only-write-batch=B --include="x${nl}y"
        t -0 --write-batch=B --exclude="x${nl}#E#${nl}touch PWNED"
        printf 'x\n#E#\ntouch PWNED\0' >r; t -0 --write-batch=B --exclude-from=r; t -0 --write-batch=B -f '. r'
        t --write-batch=B --delete -b --suffix="~${nl}touch PWNED$nl"
        t --write-batch=B --partial-dir="p${nl}touch PWNED"
        printf -- '- #E#\n- touch PWNED\n- $(touch PWNED)\n- `touch PWNED`\n' >r; t --write-batch=B --filter='. r'
        printf '#E#\ntouch PWNED\n' >r; t --write-batch=B --exclude-from=r
        for s in '$(touch PWNED)' '`touch PWNED`' "';touch PWNED;'" "x}; touch PWNED; {" '"; touch PWNED; "' "x${nl}touch PWNED"; do
            t --write-batch=B --usermap="*:$s"
            t --write-batch="B$s"
            t --write-batch B --log-file="l$s"
            [ "${s#x$nl}" = "$s" ] && t --write-batch=B --exclude="$s"
            rm -rf d*; $R -a --write-batch=B a/ "d$s"; echo $?; rm -rf d*; sh B.sh; echo $?; ls d*; ran "$s"
        done
        t --write-batch B -e "sh -c 'touch PWNED'""#,
    );
}
