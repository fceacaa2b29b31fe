//! Where a transfer comes from and goes to when some of it is not there.

use super::scripts::reads_like_stock;

#[test]
fn a_destination_is_judged_though_nothing_comes() {
    reads_like_stock(
        r#"mkdir a dd; echo 1 >a/f; echo x >file; ln -s nowhere dang
        t() { $R "$@" 2>/dev/null; echo "$? [${*#lh:*}]"; ls -d b n1 n1/n2 2>/dev/null | tr '\n' ' '; rm -rf b n1 dd/*; }
        for d in b b/ n1/n2 n1/n2/ file/ file/x dd/x dang/; do
            for o in -t -n --mkpath "-n --mkpath"; do t $o a/ $d; done
            t -r a/nothing $d
            t a/f $d
        done
        for d in b/. b/./ n1/n2/. dd/.; do for o in -t -n; do t $o a/ $d; t $o a/f $d; t $o a/f file $d; done; done
        t -t -e $RSH --rsync-path=$S a/ lh:$W/b/.
        t -t a/ dang/x
        t -e $RSH --rsync-path=$S a/ lh:$W/n1/n2
        t -e $RSH --rsync-path=$S a lh:$W/b/
        t -e $RSH --rsync-path=$S lh:$W/a/ n1/n2
        for p in 27 28 29 30; do t --protocol=$p -e $RSH --rsync-path=$S a lh:$W/b/; done"#,
    );
}

/// A list of one entry is named by the destination, be it a directory.
#[test]
fn the_only_thing_that_comes_is_named_by_the_destination() {
    reads_like_stock(
        r#"t() {
            rm -rf a b dang file; mkdir -p a/d a/e; ln -s x a/l; ln -s nowhere dang; echo hi >file; echo d >names
            touch -d 2020-01-01 a/d a/e a
            $R "$@" 2>/dev/null; echo "$? [${*#lh:*}]"; find b dang file -printf '%p %y %TY ' 2>/dev/null; echo
        }
        for s in a a/d a/l "-R a/./d" "-R a/d" "--files-from=names a" nothing; do
            for o in -d -r -dni -dlti "--no-i-r -ri" "-dt --mkpath" "-di --existing" "-d --ignore-existing"; do t $o $s b; t $o $s b/n; done
            t -dt $s b/
            t -dt $s file
            t -dlt $s dang
            t -d -m $s b
        done
        for p in 27 29 31; do t -rti --protocol=$p a/d b; done
        t -dti -e $RSH --rsync-path=$S a/d lh:$W/b
        t -rti -e $RSH --rsync-path=$S a/d lh:$W/b
        t -rti -e $RSH --rsync-path=$S lh:$W/a/d b
        t -rti -e $RSH --rsync-path=$S lh:$W/a b"#,
    );
}

/// What was in a folder that is not there is unknown, and so no reason to delete.
#[test]
fn missing_arguments_are_those_whose_folder_is_there() {
    reads_like_stock(
        r#"mkdir -p a/d; echo 1 >a/f; touch -d 2020-01-01 a/f a/d a
        make() { rm -rf b; mkdir -p b/no b/a/no b/d; for f in no/x a/no/x d/x x; do echo 1 >b/$f; done; }
        t() {
            make; echo no/x | $R -rt "$@" >/dev/null 2>&1; echo "$? [$*]"; find b -type f | sort | tr '\n' ' '; echo
        }
        for o in --ignore-missing-args --delete-missing-args; do
            for s in a/no/ a/no/x "a/no/x a/f" a/./no/x a/d/x a/x a/f/x "-R a/no/x" "-R a/./no/x" "-R a/./d/x" "-R no/./x" \
                "--no-R --files-from=- a" "--files-from=- a"; do t $o $s b/; done
        done"#,
    );
}

#[test]
fn the_first_line_tells_how_the_list_comes() {
    reads_like_stock(
        r#"mkdir -p a/s; echo 1 >a/f
        t() { rm -rf b; $R -av "$@" 2>&1 | head -2; }
        for o in -m --delete-before --delete-after --delay-updates --no-i-r --delete --delete-delay; do
            echo "$o"; t $o a/ b/; t $o -e $RSH --rsync-path=$S a/ lh:$W/b/; t $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        for o in --out-format=%n --out-format=%i -i --info=name1; do
            rm -rf b; $R -r $o a/ b/; rm -rf b; $R -r $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done
        rm -rf b; $R -r --out-format=%o -e $RSH --rsync-path=$S lh:$W/a/ b/"#,
    );
}

/// `--no-super` is said of the end where it stands.
#[test]
fn only_super_goes_to_the_other_end() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f
        t() { rm -rf b; $R -a "$@"; stat -c "$1 %u:%g" b/f; }
        for o in --no-super --super; do
            t $o --groupmap=*:7 a/ b/
            t $o -M--super --groupmap=*:7 a/ b/
            t $o --groupmap=*:7 -e $RSH --rsync-path=$S a/ lh:$W/b/
            t $o --usermap=*:7 -e $RSH --rsync-path=$S lh:$W/a/ b/
            t -M$o --usermap=*:7 -e $RSH --rsync-path=$S a/ lh:$W/b/
        done"#,
    );
}

/// A log is worth less than the copy.
#[test]
fn a_log_that_cannot_be_kept_stops_nothing() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f
        t() { rm -rf b; $R -r "$@"; echo "$?"; ls b; }
        t --log-file=$W/nothing/log a/ b/
        t -q --log-file=$W/nothing/log a/ b/
        t --log-file=$W a/ b/
        t --log-file= a/ b/
        t -M--log-file=$W/nothing/log -e $RSH --rsync-path=$S a/ lh:$W/b/"#,
    );
}

#[test]
fn a_destination_that_cannot_be_entered_is_not_gone_through() {
    reads_like_stock(
        r#"[ $(id -u) = 0 ] || exit 0
        mkdir a b; echo 1 >a/f; echo 2 >a/g; chown -R 1001 . ; chmod 755 .
        for m in 000 600 200; do
            chmod $m b
            setpriv --reuid=1001 --regid=1001 --clear-groups $R -r a/ b/ 2>/dev/null; echo "$?"
            setpriv --reuid=1001 --regid=1001 --clear-groups $R -r --delete -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>/dev/null; echo "$?"
        done"#,
    );
}

/// Full names may begin at the root for one argument and elsewhere for another.
#[test]
fn absolute_and_relative_names_go_together() {
    reads_like_stock(
        r#"mkdir -p a/s/deep a/z a/-m c; for f in f s/g s/deep/h z/i -m/j; do echo $f >a/$f; done; ln a/f a/f2; echo 2 >c/k
        find a c -exec touch -hd 2020-01-01 {} +
        t() { rm -rf b; mkdir -p b/s; echo 9 >b/s/old; $R -aHR "$@" b/ 2>&1; echo "$?"; find b -type f -printf '%P %n\n' | sed "s|${W#/}|W|" | sort; }
        for o in "" --no-i-r --delete "--protocol=29 --delete"; do
            t $o -e $RSH --rsync-path="cd $W; $S" lh:./a/./s :$W/a/f :$W/a/z/ :a/./-m
            t $o -e $RSH --rsync-path=$S lh:$W/c/ :$W/a/./s/deep :$W/./a/f :$W/./a/f2
            t $o $W/a/f ./a/./s c/k
            t $o -e $RSH --rsync-path=$S lh:$W/a/f :$W/a/./f
        done"#,
    );
}
