//! Lists of names (`--files-from`): what comes is what was named, in every form a name can have, by every road.

use super::scripts::reads_like_stock;

/// A client lets in what it asked for, and nothing else; what is named is found the same, whoever looks it up.
#[test]
fn what_a_list_names_comes_and_nothing_else() {
    reads_like_stock(
        r#"mkdir -p a/s/t a/u 'a/g*' 'a/sp ace'; echo 1 >a/s/f; echo 2 >a/s/t/h; echo 3 >a/u/k; echo 4 >a/top; echo 5 >'a/g*/x'
        echo 6 >'a/sp ace/y z'; echo 7 >'a/#hash'; echo 8 >'a/;semi'; echo 9 >a/gx; ln -s s a/link; echo 1 >"a/q[1]"; echo 1 >a/q1
        t() {
            for way in local push pull; do
                rm -rf b; case $way in
                    local) $R "$@" a/ b/;;
                    push) $R "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/;;
                    pull) $R "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/;;
                esac >said 2>&1; echo "$? $way [$*] $(tr '\n' '|' <l) $(grep -c rejecting said) $(grep -c link_stat said)"
                find b 2>/dev/null | sort | tr '\n' '|'; echo
            done
        }
        all() {
            printf "$1" >l
            for o in -a "-a --no-R" -ar "-l --no-d"; do t $o --files-from=l; done
        }
        all 's/t/\nu\ntop\nlink/\n'
        all './s/./t/h\n/top\n//u//k\nu/../s/f\n'
        all '# comment\n;comment\n\n#hash\n./#hash\n./;semi\ntop\r\n'
        all 'g*/x\nq[1]\n*\nsp ace/y z\nmissing\n'
        all 's/f/\ns/../top\n../a/top\n'
        all '.\n'
        all 's/.\n'
        printf 's/f\n' >l; for o in "--no-implied-dirs" -s "-s --no-R" --old-args "--exclude=f" "--include=s --exclude=*" "-H --no-R" \
            "--protocol=29 --no-R" "--protocol=30" "--no-i-r --no-R" "--ignore-missing-args"; do t -a $o --files-from=l; done
        printf 's/f\0top\0#hash\0;semi\0\0u/\0' >l; for o in -a0 "-a0 --no-R" -ar0s; do t $o --files-from=l; done
        printf 's/../top\ns/f/\n' >l; t -a --old-args --files-from=l
        for o in -a "-a --no-R" "-a0"; do
            [ "$o" = -a0 ] && printf 's/f\0#hash\0u/\0' >l || printf 's/f\n#hash\n/s/t/h\nu/\n' >l
            rm -rf b; $R $o --files-from=lh:$W/l -e $RSH --rsync-path=$S lh:$W/a/ b/ 2>/dev/null; echo "$? $o $(find b | sort | tr '\n' '|')"
            rm -rf b; $R $o --files-from=:$W/l -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>/dev/null; echo "$? $o $(find b | sort | tr '\n' '|')"
        done"#,
    );
}

/// With full names a slash at the end of what is no folder is nothing but a slash.
#[test]
fn a_slash_behind_a_file_is_left_out_with_full_names() {
    reads_like_stock(
        r#"mkdir -p c/d; echo 1 >c/f; echo 2 >c/d/g; ln -s f c/l; ln -s nowhere c/n
        t() { rm -rf b; $R "$@" b/ 2>/dev/null; echo "$? $*"; (cd b 2>/dev/null && find . | sort); }
        for n in c/f/ ./c/f/ c/./f/ c/f/. c/f// $W/c/f/ c/d/ c/l/ c/n/ c/f/x; do
            t -aR $n; t -a $n; echo $n >l; t -a --files-from=l .; t -rt --no-R --files-from=l .
        done"#,
    );
}
