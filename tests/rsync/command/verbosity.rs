//! What `--info`, `--debug` and `-v` show: each word of stock, by whichever road and end.

use super::scripts::{reads_like_stock, reads_like_stock_with_daemon};

/// Modules `a` and `b` that let their clients hear as much as they ask for.
const TALKATIVE: &str = "use chroot = no\nuid = 0\ngid = 0\nmax verbosity = 4\n\
    [a]\npath = WORK/a\n[b]\npath = WORK/b\nread only = no\n";

#[test]
fn backups_are_told() {
    reads_like_stock_with_daemon(
        TALKATIVE,
        r#"make() {
            rm -rf a b bk; mkdir -p a/d b/d; for f in f d/g; do echo new >a/$f; echo old1 >b/$f; done
            ln -s x b/l; ln -s y a/l; echo x >a/wasl; ln -s q b/wasl; ln -s q a/wasf; echo 1 >b/wasf; mkdir a/wd; echo 1 >b/wd
            echo 1 >b/gone; mkdir b/gd; echo 1 >b/gd/gg; ln -s /etc b/uns; ln -s /etc a/uns2; ln -s u b/uns2
            echo tt >a/same; echo tt >b/same; find a b -exec touch -hd 2020-01-01 {} +; touch -d 2021-01-01 a/f a/d/g
        }
        all() {
            echo "== $*"
            make; $R -rlt "$@" a/ b/ 2>&1 | sort
            make; $R -rlt "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>&1 | sort
            make; $R -rlt "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/ 2>&1 | sort
            make; $R -rlt "$@" a/ ${URL}b/ 2>&1 | sed 's/port [0-9]*/port/' | sort
            make; $R -rlt "$@" ${URL}a/ b/ 2>&1 | sed 's/port [0-9]*/port/' | sort
        }
        for o in -b "-b --delete" "-b --delete -n" "-b --inplace" "-b -i -n" "-b --backup-dir=bk --delete" \
            "--backup-dir=bk/deep/ --suffix=.x --delete" "-b --delay-updates" "-b --safe-links --delete"; do
            all $o --info=backup
        done
        all -b --delete -vv
        all -b --info=backup --protocol=29
        make; mkdir bk; $R -rlt --backup-dir=$W/bk --delete --info=backup a/ b/ 2>&1 | sort"#,
    );
}

#[test]
fn what_is_left_alone_is_told() {
    reads_like_stock(
        r#"make() {
            rm -rf a b; mkdir -p a/d b/d a/nd; echo 1 >a/new; for f in same older newer meta d/x; do echo 1 >a/$f; echo 1 >b/$f; done
            echo 22 >b/older; echo 22 >b/newer; ln -s x b/l; ln -s y a/l; ln -s x a/ls; ln -s x b/ls; ln -s q a/ln
            mkfifo a/p a/q b/q; mkdir a/wasf; echo 1 >b/wasf; mkdir b/wasd; echo 3 >a/wasd; echo 123456789012345 >a/big
            ln -s /etc a/unsafe; ln -s /etc b/unsafe
            find a b -exec touch -hd 2020-01-01 {} +; touch -d 2021-01-01 b/newer a/older; chmod 600 b/meta
        }
        all() {
            echo "== $*"
            make; $R "$@" a/ b/ 2>&1 | sort
            make; $R "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>&1 | sort
            make; $R "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/ 2>&1 | sort
        }
        for o in --existing --ignore-existing "--existing --ignore-existing" -u "-u --max-size=10" --max-size=2 --min-size=3 \
            "-c --ignore-existing" "-I --ignore-existing" "--size-only --ignore-existing" "-p --ignore-existing" \
            "--safe-links --ignore-existing" "--safe-links --existing"; do
            for i in none skip skip2 nonreg0,skip,name2; do all -rlt $o --info=$i; done
        done
        all -r --ignore-existing
        all -r --existing --info=nonreg0
        all -rt -u -vv --debug=none
        all -rt -u --info=skip --protocol=28
        $R a --info=nonreg0 b"#,
    );
}

/// What stands in a file is for nobody's eyes, and what goes to another machine does not say where it stood.
#[test]
fn what_filter_rules_do_is_told() {
    reads_like_stock_with_daemon(
        TALKATIVE,
        r#"make() {
            rm -rf a b home; mkdir -p a/d b/d a/nd b/keep a/dd/ee b/dd/q home; export HOME=$W/home CVSIGNORE='env*'
            touch a/x.o a/f a/d/y.o b/x.o b/keep/k b/gone a/show a/dd/k a/dd/ee/k a/dd/zz b/d/y.o b/dd/q/k a/envx b/homx a/homx
            echo '- f' >a/.rules; printf -- '- k\n- /zz\n' >a/dd/.rules; echo 'hom*' >home/.cvsignore; echo show >a/.cvsignore
            printf '*.o\nshow\n' >ex; printf -- '- *.o\n. inn\nH dd\n' >mer; printf -- '- zz\n+ f\n' >inn; ln -s x b/ln.o
        }
        all() {
            echo "== $*"
            make; $R -rl "$@" a/ b/ 2>&1 | grep because | sort
            make; $R -rl "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>&1 | grep because | sort
            make; $R -rl "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/ 2>&1 | grep because | sort
            make; $R -rl "$@" a/ ${URL}b/ 2>&1 | grep because | sort
            make; $R -rl "$@" ${URL}a/ b/ 2>&1 | grep because | sort
        }
        for l in --debug=FILTER -vv "-vv --debug=filter0"; do
            all $l --delete --exclude='*.o' --exclude=keep/ --include=/show -f 'R gone'
            all $l --delete --exclude-from=ex
            all $l --delete -f '. mer'
            all $l --delete -C --exclude=d
            all $l --delete -f ': .rules' -f 'H,! */' -f 'P keep' -f 'S s*' -m
            all $l -f 'dir-merge .rules' -f '-p y.o' -f '-s ee/' -f "-/ $W/a/show"
            all $l -f ':e .rules' --delete-excluded
        done
        all -vv --protocol=28 --delete --exclude='*.o'"#,
    );
}

#[test]
fn symlinks_searches_and_connections_are_told() {
    reads_like_stock_with_daemon(
        TALKATIVE,
        r#"make() {
            rm -rf a b; mkdir -p a b; echo 1 >a/f; echo new >a/new; ln -s /etc/hostname a/unsafe; seq 3000 >a/big; seq 3000 >b/big
            echo more >>a/big; find a b -exec touch -hd 2020-01-01 {} +; touch -d 2021-01-01 a/big
        }
        all() {
            echo "== $*"
            make; $R -rlt "$@" a/ b/ 2>&1 | sort
            make; $R -rlt "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/ 2>&1 | sort
            make; $R -rlt "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/ 2>&1 | sort
        }
        daemon() {
            all "$@"
            make; rm a/unsafe; $R -rlt "$@" a/ ${URL}b/ 2>&1 | sed 's/port [0-9]*/port/' | sort
            make; rm a/unsafe; $R -rlt "$@" ${URL}a/ b/ 2>&1 | sed 's/port [0-9]*/port/' | sort
        }
        for o in --safe-links --copy-unsafe-links; do
            for i in --info=name --info=symsafe "-v --info=symsafe0" "-v --info=name0" "-vv --debug=none" "-vv --info=none"; do all $o $i; done
        done
        for i in deltasum flist cmd connect; do daemon --debug=$i; done; for i in deltasum flist; do all --debug=$i --no-W; done
        daemon -vv
        # Nothing comes, and nothing is found.
        make; $R -rvv a/nothing b/ 2>&1; $R -rvv -e $RSH --rsync-path=$S lh:$W/a/nothing b/ 2>&1 | sort
        $R -rvv --exclude='*' a/ b/ 2>&1 | sort; $R -rvv a/new a/nothing b/ 2>&1 | sort; rm -rf b; $R -rnvv a/ b/ | sort"#,
    );
}

/// A name that a format shows is told of as it goes, and where it goes.
#[test]
fn who_shows_names_hears_of_folders_and_deletions() {
    reads_like_stock(
        r#"make() { rm -rf a b; mkdir -p a; echo 1 >a/f; [ -n "$1" ] || { mkdir -p b/gd; echo 1 >b/gone; }; }
        for o in "-v --info=del0" --info=name --info=name,del0 --out-format=%n "--out-format=x%n --info=del0" --info=del "--out-format=%o_%n" \
            "-i --info=del0" --info=progress2 "-q --info=del" "-v --info=name0" "-v --info=name0,del0"; do
            for p in 28 30 32; do for new in "" 1; do
                case "$o $p" in *%o*28 | -i*28) continue;; esac
                run() { $R -r --delete --protocol=$p $o "$@" 2>&1 | grep -v 'speedup\|^sent\|100%\|^$' | sort; }
                echo "== $o $p $new"
                make $new; run a/ b/
                make $new; run -e $RSH --rsync-path=$S a/ lh:$W/b/
                make $new; run -e $RSH --rsync-path=$S lh:$W/a/ b/
            done; done
        done"#,
    );
}

#[test]
fn progress_goes_with_words() {
    reads_like_stock(
        r#"mkdir a; echo 1 >a/f
        for d in b b/ "--mkpath n/b"; do for o in --progress -P "--progress --info=del0,flist0" "--progress --info=name0"; do
            run() { rm -rf b n; mkdir -p gone; $R -r $o "$@" 2>&1 | tr '\r' '\n' | grep -v 'speedup\|^sent\|%\|^$'; }
            echo "== $o $d"
            run a/ $d; run -e $RSH --rsync-path=$S lh:$W/a/ $d; run -e $RSH --rsync-path="cd $W; $S" a/ ${d/b/lh:b}
        done; done"#,
    );
}

/// What only gets other attributes is named at the second level, by whoever receives.
#[test]
fn names_of_what_gets_other_attributes_are_told() {
    reads_like_stock(
        r#"make() {
            rm -rf a b; mkdir -p a/d; for f in x y d/z; do echo 1 >a/$f; done; ln a/x a/w; ln -s to a/l; mkfifo a/p
            touch -hd 2020-01-01 a/* a/d/z a; cp -a a b; chmod 600 b/x b/d/z b/p; chmod 700 b/d; touch -hd 2011-01-01 b/l b/y
        }
        t() { make; $R "$@" 2>&1 | grep -v '^sent\|^total\|^opening\|^sending inc' | sort; echo "$? [$*]"; }
        for o in -va -vva -nvva -vvaH -nvvaH "-vva --out-format=%n" -ivva -vvrlp "-va --protocol=28" "-vva --protocol=28"; do
            t $o a/ b/
            t $o -e $RSH --rsync-path=$S a/ lh:$W/b/
            t $o -e $RSH --rsync-path=$S lh:$W/a/ b/
        done"#,
    );
}

/// A client's own log, whatever the client shows.
#[test]
fn what_a_client_logs_is_what_happens() {
    reads_like_stock(
        r#"make() {
            rm -rf a b log; mkdir -p a/d a/e b/d b/old; for n in f g s d/n; do echo $n >a/$n; done; ln a/f a/h; ln -s f a/l; mkfifo a/p
            cp -a a/s b/s; echo 9 >b/g; echo x >b/old/x; chmod 600 b/s; touch -hd 2020-01-01 a/* a/d/n b/s b/g a/d a/e a
        }
        t() {
            make; $R "$@" >/dev/null 2>&1; echo "$? [$*]"
            cut -d] -f2- log | grep -v 'sent .*received\|^ opening\|total: match\|^ total size' | sort
        }
        for f in '%i %n%L' '%o %n' '%n %l %U:%G'; do
            for o in -a "-av --delete" "-avv --delete" "-rlt --delete" "-aHi --delete" "-an --delete" -avn "-rv --backup" \
                "-av --protocol=28" "-ai --protocol=28" "-rlt --protocol=28" "-av --delete --protocol=29" "-a --existing -vv"; do
                t $o --log-file=log --log-file-format="$f" a/ b/
                t $o --log-file=log --log-file-format="$f" -e $RSH --rsync-path=$S a/ lh:$W/b/
                t $o --log-file=log --log-file-format="$f" -e $RSH --rsync-path=$S lh:$W/a/ b/
            done
        done"#,
    );
}
