//! The numbers of `--stats` and the letters of `--out-format`, by every road.

use super::scripts::{reads_like_stock, reads_like_stock_with_daemon};

const TREE: &str = r#"mkdir -p a/d/e; echo 1 >a/f; echo 22 >a/d/g; ln -s f a/l; mkfifo a/d/p; mknod a/n c 1 3; ln a/f a/hl
    head -c 100000 /dev/zero >a/big; seq 9000 >a/seq; find a -exec touch -hd 2020-01-01 {} +
    make() { rm -rf b; mkdir b; case $1 in old)
        cp -a a/. b/; echo more >>b/big; touch -d 2019-01-01 b/f b/d/g; ln -s x b/zl; mkfifo b/zp; mknod b/zn c 1 3
        echo 1 >b/zf; mkdir -p b/zd/ze; echo 1 >b/zd/ze/f; rm b/l;; esac; case $1 in dirs) mkdir -p b/d/g/x b/d/g/y b/f;;
    esac; }
    t() { make $1; shift; echo "== ${*:2}"; "$@" 2>&1 | grep -v '^sent \|^total size\|time: \|^Total bytes\|^File list size\|^$'; }
"#;

#[test]
fn every_count_of_stats_is_that_of_stock() {
    reads_like_stock_with_daemon(
        "[a]\npath = WORK/a\nuse chroot = no\nuid = 0\ngid = 0\n\
         [b]\npath = WORK/b\nuse chroot = no\nuid = 0\ngid = 0\nread only = no\n",
        &format!(
            r#"{TREE}
            all() {{
                for k in new old; do
                    t $k $R "$@" a/ b/
                    t $k $R "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/
                    t $k $R "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/
                done
            }}
            all -aH --stats --delete
            t dirs $R -aH --stats --delete a/ b/
            t dirs $R -aH --stats --force -e $RSH --rsync-path=$S a/ lh:$W/b/
            all -aHn --stats --delete-delay
            all -aH --stats --delete --protocol=30
            all -aH --stats --delete --protocol=28
            all -aH --stats --force --info=stats1
            all -a --stats --delete --no-i-r --delete-excluded --exclude=zd
            t old $R -aH --stats --delete a/ ${{URL}}b/ | grep -v ==
            t old $R -aH --stats --delete ${{URL}}a/ b/ | grep -v ==
            mkdir flat; touch flat/x; echo 12 >flat/y; ln -s y flat/z
            t new $R -a --stats flat/ flat/ b/
            t new $R -a --stats --no-i-r a/ a/f a/ a/d a/l b/
            t new $R -a --stats -e $RSH --rsync-path=$S flat/ flat/y flat/ lh:$W/b/
            t new $R -a --stats -e $RSH --rsync-path=$S lh:$W/flat/ lh:$W/flat/ b/
            t old $R -a --info=stats2 --delete a/ b/
            t old $R -a --max-delete=2 --delete --stats a/ b/"#
        ),
    );
}

/// The bytes that went over for a file, as the sender counts them and as the receiver does; its sum; all other letters.
#[test]
fn every_letter_of_a_format_is_that_of_stock() {
    let format = "%i|%n%L|%b|%c|%l|%o|%B|%C|%U|%G|%f|%a|%h|%m|%P|%u|%M|%q|%%";
    reads_like_stock(&format!(
        r#"{TREE}
        all() {{
            for k in new old; do
                t $k $R "$@" a/ b/
                t $k $R "$@" -e $RSH --rsync-path=$S a/ lh:$W/b/
                t $k $R "$@" -e $RSH --rsync-path=$S lh:$W/a/ b/
            done
        }}
        all -aH --out-format='{format}'
        all -aHc --out-format='%i|%n%L|%b|%c|%l|%o|%C|%U|%G|%f|%M' --delete | sort
        all -aHn --out-format='{format}'
        all -aHW --out-format='%n %b %c'
        all -aH --protocol=29 --out-format='%n %b %c %C'
        t new $R -aH --protocol=27 --out-format='%n %b %c %C' a/ b/
        for c in xxh64 xxh3 md5 md4 sha1; do all -a --checksum-choice=$c --out-format='%n %C'; done
        t old $R -a --log-file=log --log-file-format='%n %b %c %C' a/ b/; cut -d' ' -f4- log | grep -v '^sent'"#
    ));
}
