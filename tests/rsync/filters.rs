//! Filter rules, deletion and lists of names: our ends against stock rsync's. The same command must leave the same trees,
//! exit code and words.

use crate::command::scripts::reads_like_stock;
use crate::support;
use crate::support::both::{Both, STOCK, all_agree, words};
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The time of all folders.
const FOLDERS: (i64, i64) = (THEN.0 - 3, 3);

/// A tree with something for every kind of rule.
fn source(src: &Path) {
    for name in [
        "f",
        "a/f",
        "a/b/f",
        "a/b/c/f",
        "foo/f",
        "foo/bar/f",
        "foo/bar/baz/f",
        "x/foo/bar/f",
        "x/foo/f",
        "foobar",
        "foobaz",
        "x/foobar",
        "back\\slash",
        "d/st*r",
        "d/str",
        "d/e/a]b",
        "d/e/-",
        "keep.o",
        "a/drop.o",
        "a/keep.txt",
        "CVS/x",
        "core",
        "a/.svn/y",
        "name with space",
        "a/b/.rules2",
        "x/tail~",
    ] {
        tree::put(src, name, name.as_bytes(), 0o644, THEN);
    }
    tree::put(src, ".rules", b"- /foobar\n- *.o\n+ keep.txt\n# comment\n", 0o644, THEN);
    tree::put(src, "a/.rules", b"+ drop.o\n- /b/f\nexclude keep.*\n", 0o644, THEN);
    tree::put(src, "a/b/.rules", b"!\n- c/\n:- .rules2\n", 0o644, THEN);
    tree::put(src, "a/b/.rules2", b"f\n", 0o644, THEN);
    tree::put(src, "x/.rules", b"dir-merge,n- .names\n- tail~\n", 0o644, THEN);
    tree::put(src, "x/.names", b"foobar\n", 0o644, THEN);
    tree::put(src, "x/foo/.names", b"f\n", 0o644, THEN);
    tree::put(src, ".cvsignore", b"foobaz *.txt\n", 0o644, THEN);
    tree::put(src, "d/.cvsignore", b"st?r\n! e\n", 0o644, THEN);
    tree::put(src, "foo/.sided", b"H f\n", 0o644, THEN);
    tree::put(src, "a/.rsync-filter", b"- b/\n", 0o644, THEN);
    for dir in ["hollow", "deep/hollow/within"] {
        fs::create_dir_all(src.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("f", src.join("link")).unwrap();
}

/// What the source lacks, among things it has.
fn destination(dst: &Path) {
    for name in [
        "f",
        "old",
        "old.o",
        "gone/a",
        "gone/sub/b",
        "gone/sub/deep/c",
        "gone/sub/deep/d.o",
        "a/old",
        "a/old.o",
        "foo/extra/one",
        "foo/bar/two",
        "x/three~",
        "zlast",
        "prot/p.o",
        "prot/q",
        "full/in",
        "CVS/own",
    ] {
        tree::put(dst, name, b"old", 0o644, THEN);
    }
    tree::put(dst, "foo/.rules", b"P extra/\n", 0o644, THEN);
    tree::put(dst, "gone/.rules", b"P a\n-p b\n", 0o644, THEN);
    fs::create_dir_all(dst.join("gone2")).unwrap();
    // A full directory where the source has a file, and a file where it has a directory.
    tree::put(dst, "foobar/in/the/way", b"w", 0o644, THEN);
    tree::put(dst, "d", b"a file", 0o644, THEN);
    std::os::unix::fs::symlink("f", dst.join("dangling")).unwrap();
    // Nothing behind a symlink may go.
    std::os::unix::fs::symlink("../outside", dst.join("hollow")).unwrap();
    tree::put(dst.parent().unwrap(), "outside/safe", b"safe", 0o644, THEN);
}

/// Lines of a run about items, totals, and what is or cannot be deleted.
fn told(run: &Run) -> Vec<String> {
    let out = String::from_utf8_lossy(&run.stdout);
    let heard = ["*deleting", "cannot delete", "could not make", "IO error", "Deletions stopped"];
    let deletions =
        out.lines().chain(run.stderr.lines()).filter(|line| heard.iter().any(|start| line.starts_with(start)));
    run.lines().into_iter().chain(deletions.map(str::to_owned)).collect()
}

/// Plays each case on copies of the two trees; nothing may differ.
fn table(cases: &[&[&str]], ends: &[[&str; 2]]) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    source(&bench.path().join("src"));
    destination(&bench.path().join("dst"));
    tree::settle(&bench.path().join("src"), FOLDERS);
    tree::settle(&bench.path().join("dst"), FOLDERS);
    let prepare = |work: &Path| {
        for name in ["src", "dst", "outside"] {
            tree::copy(&bench.path().join(name), &work.join(name));
        }
        fs::write(work.join("rules"), "# comment\n- *.o\n+ /foo/\n- foo*\n").unwrap();
        let list =
            "a/b/f\n/f\n\n# comment\n; c2\n./foo/f\r\nd/\n../core\nx/../a/f\nmissing\na//keep.txt\nfoo/./bar/f\n";
        fs::write(work.join("list"), list).unwrap();
        fs::write(work.join("list0"), "name with space\0d/st*r\0#none\0x/foo").unwrap();
        fs::write(work.join("dot"), "./\nx/\n").unwrap();
        // More than the pipes between the two ends hold.
        fs::write(work.join("long"), "x/foo/bar/f\n".repeat(12_000) + "missing\nf\n").unwrap();
        // Stock lists a parent anew whenever it comes back to it, so this is in order.
        fs::write(work.join("there"), "# comment\n/a/b/f\na//f\n../core\nd/\nmissing\nx/./foo/f\n").unwrap();
        fs::write(work.join("names"), "*.o\n; comment\n+ foobar\nfoo*\n").unwrap();
    };
    let look = |run: &Run, work: &Path| {
        assert_eq!(fs::read(work.join("outside/safe")).unwrap(), b"safe");
        told(run)
    };
    let both = Both { look: &look, ..Both::new(&bench, &prepare) };
    let cases: Vec<_> = cases.iter().flat_map(|case| ends.iter().map(move |ends| (*case, ends))).collect();
    all_agree(&cases, |(case, ends)| {
        both.compare((STOCK, OURS), &[&["-i", "--stats"][..], case, &ends[..]].concat()).0
    });
}

const PULL: [&str; 2] = ["host:src/", "dst/"];
const PUSH: [&str; 2] = ["src/", "host:dst/"];

#[test]
fn patterns_hide_the_same_names() {
    table(
        &[
            &["-r", "--exclude=**/f"],
            &["-r", "--exclude=/**/f"],
            &["-r", "--exclude=foo/**"],
            &["-r", "--exclude=foo/***"],
            &["-r", "--exclude=/foo/***", "--exclude=bar/f"],
            &["-r", "--include=*/", "--include=/a/**", "--exclude=*"],
            &["-r", "--exclude=back\\slash", "--exclude=st\\*r"],
            &["-r", "--exclude=[[:alpha:]]", "--exclude=*[ ]*"],
            &["-r", "--exclude=b**/f", "--exclude=foo/"],
            &["-rl", "-f", "-! */"],
            &["-r", "-f", "+ x/", "-f", "+ x/foo/", "-f", "+ x/foo/f", "-f", "- *"],
            &["-r", "-f", "H *.o", "-f", "P f", "-f", "-_foo*"],
            &["-r", "-f", "hide,! */", "-f", "show x"],
            &["-r", "--exclude=f", "-f", "!", "--exclude=x"],
        ],
        &[PULL],
    );
}

#[test]
fn files_of_rules_do_the_same() {
    table(
        &[
            &["-r", "-f", ". rules"],
            &["-r", "-f", "merge,- names"],
            &["-r", "--exclude-from=names"],
            &["-r", "--include-from=names", "--exclude=*"],
            &["-r", "-f", ": .rules"],
            &["-r", "-f", ": .rules", "--no-i-r"],
            &["-r", "-f", ":e .rules", "--exclude=foo"],
            &["-r", "-f", "dir-merge,n .rules"],
            &["-r", "-f", ":s .rules"],
            &["-r", "-F"],
            &["-r", "-FF"],
            &["-rC"],
            &["-r", "-f", ":C", "-f", "-C"],
            &["-rC", "--include=core", "-f", ":- .names"],
        ],
        &[PULL],
    );
}

#[test]
fn deletions_are_the_same() {
    table(
        &[
            &["-rl", "--delete"],
            &["-rl", "--delete", "--no-i-r"],
            &["-al", "--delete-delay", "--no-i-r"],
            &["-al", "--delete-before"],
            &["-al", "--delete-during"],
            &["-al", "--delete-delay"],
            &["-al", "--delete-after"],
            &["-rln", "--delete"],
            &["-rl", "--force"],
            &["-rl"],
            &["-rl", "--delete", "--max-delete=3"],
            &["-rl", "--delete", "--max-delete=0"],
            &["-dl", "--delete"],
            &["-rl", "--delete", "--max-size=3", "--min-size=2"],
        ],
        &[PUSH],
    );
}

#[test]
fn rules_protect_the_same() {
    table(
        &[
            &["-rl", "--delete", "--exclude=*.o"],
            &["-rl", "--delete-excluded", "--exclude=*.o"],
            &["-rl", "--delete-excluded", "--exclude=*.o", "-f", "P q"],
            &["-rl", "--delete-after", "-f", "P sub/", "-f", "R *", "-f", "H foo"],
            &["-rl", "--delete", "-f", "-p *.o", "-f", "-r /old"],
            &["-rl", "--delete", "-f", ": .rules"],
            &["-rl", "--delete-after", "-f", ": .rules"],
            &["-rl", "--delete-delay", "-f", ":e .rules"],
            &["-rlC", "--delete"],
            &["-rlC", "--delete-excluded"],
            &["-rl", "--delete", "-f", "-/ /old"],
        ],
        &[PUSH],
    );
}

/// Whoever cannot read a rule does not know what to leave out or alone.
#[test]
fn rules_that_mean_nothing_end_the_session() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    source(&bench.path().join("src"));
    fs::create_dir(bench.path().join("dst")).unwrap();
    destination(&bench.path().join("dst"));
    fs::write(bench.path().join("dst/.cvsignore"), "nonsense\n").unwrap();
    for (rule, from, to) in [
        (":s .sided", "host:src/", "dst/new/"),
        (": .cvsignore", "host:src/", "dst/new/"),
        (": .cvsignore", "d/", "host:dst/"),
    ] {
        fs::create_dir_all(bench.path().join("d")).unwrap();
        let run = bench.rsync(OURS, bench.path(), &["-r", "--no-i-r", "--delete", "-f", rule, from, to]);
        assert_eq!(run.code, 1, "{rule}: {}", run.stderr);
        assert!(run.stderr.contains("filter rule"), "{}", run.stderr);
        assert!(!bench.path().join("dst/new").exists() && bench.path().join("dst/zlast").exists());
    }
}

#[test]
fn empty_directories_are_pruned_alike() {
    table(
        &[
            &["-rlm"],
            &["-rlm", "--delete"],
            &["-rlm", "--exclude=f", "-f", "P deep/"],
            &["-rlm", "--delete-after", "--include=*/", "--include=f", "--exclude=*", "-f", "R *"],
            &["-rlmn", "--delete", "-f", "hide,! */"],
            &["-dlm"],
        ],
        &[PUSH],
    );
}

const TO_BOTH: [[&str; 2]; 2] = [PUSH, PULL];

#[test]
fn lists_of_names_are_read_alike() {
    table(
        &[
            &["-a", "--files-from=list"],
            &["-ar", "--files-from=list"],
            &["-ar", "--files-from=list", "--no-i-r"],
            &["-a", "--no-R", "--files-from=list"],
            &["-a", "--no-implied-dirs", "--files-from=list"],
            &["-ar", "--files-from=list", "--exclude=*.o", "--exclude=f"],
            &["-a", "--files-from=host:there"],
            &["-ar", "--files-from=host:there", "--exclude=f"],
            &["-a0", "--files-from=list0"],
            &["-a0", "--files-from=host:list0"],
            &["-a", "--files-from=long"],
            &["-a", "--files-from=host:long"],
            &["-ar", "--files-from=list", "--delete"],
            &["-a", "--files-from=dot", "--delete"],
            // Names outside of all framing.
            &["-ar", "--protocol=30", "--files-from=list", "--exclude=*.o"],
            &["-a", "--protocol=30", "--files-from=host:there"],
            &["-a", "--protocol=30", "--files-from=long"],
            &["-as", "--protocol=30", "--files-from=host:long"],
            &["-a0", "--protocol=30", "--files-from=list0"],
            &["-a0s", "--protocol=30", "--files-from=host:list0"],
        ],
        &TO_BOTH,
    );
}

#[test]
fn missing_arguments_are_deleted_alike() {
    let ends: &[[&str; 2]] = &[["src/", "host:dst/"]];
    table(
        &[
            &["-r", "--delete-missing-args", "src/old", "src/gone", "src/a"],
            &["-rn", "--delete-missing-args", "src/old", "src/gone"],
            &["-r", "--force", "--delete-missing-args", "src/old", "src/gone"],
            &["-r", "--delete", "--delete-missing-args", "src/old", "src/gone"],
            &["-aR", "--delete-missing-args", "src/./gone/a", "src/./foo/none"],
            &["-a", "--ignore-missing-args", "src/none", "src/f"],
        ],
        ends,
    );
    table(&[&["-r", "--delete-missing-args", "host:src/old", "host:src/gone"]], &[PULL]);
}

/// Below 31 names stand outside of all framing; here ours is the client, with each kind of far end.
#[test]
fn our_client_gives_and_takes_plain_names() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let prepare = |work: &Path| {
        source(&work.join("src"));
        tree::settle(&work.join("src"), FOLDERS);
        fs::write(work.join("list"), "f\0a/b/f\0x/foo/\0missing\0").unwrap();
        fs::write(work.join("long"), "f\0x/foo/bar/f\0".repeat(8000) + "missing\0").unwrap();
    };
    let look = |run: &Run, _: &Path| vec![run.stderr.contains("missing").to_string()];
    let both = Both { folders: &["dst"], look: &look, since: 0, ..Both::new(&bench, &prepare) };
    for options in ["--files-from=list", "--files-from=host:list -s", "--files-from=host:long -r"] {
        for [from, to] in TO_BOTH {
            let line = format!("-a0 --protocol=30 {options} {from} {to}");
            let stock = both.run((STOCK, STOCK), &words(&line));
            assert_eq!((stock.run.code, &stock.lines[..]), (23, &["true".to_owned()][..]), "{line}");
            for server in [STOCK, OURS] {
                let text = stock.difference(&both.run((OURS, server), &words(&line)));
                assert!(text.is_empty(), "{line} {server}\n{text}");
            }
        }
    }
}

/// A file of rules in a directory that nobody can follow is a file as any other; its path may lead anywhere.
#[test]
fn files_of_rules_in_directories_are_found_or_passed_over() {
    reads_like_stock(
        r#"mkdir -p a/s/t; for f in f g s/f s/g s/t/g; do echo 1 >a/$f; done; echo '- f' >rules; echo '- g' >a/s/r
        t() { rm -rf b; $R "$@" a/ b/ >/dev/null 2>&1; echo "$? [${*//$W/W}] $(find b | sort | tr '\n' ' ')"; }
        for n in ../rules /rules $W/rules ./r s/r s/../r s/t/../r ../nothing /nothing/at/all ../../rules t/r; do
            t -a -f ": $n"; t -a -f ":n $n"; t -a -f "dir-merge,e $n"
        done
        for make in 'mkdir a/s/.rsync-filter' 'ln -s nowhere a/s/.rsync-filter' 'ln -s a/s/.rsync-filter a/s/.rsync-filter'; do
            $make; t -aF; rm -rf a/s/.rsync-filter
        done
        mkdir u; mv a u; chmod 755 .. . u; echo '- f' >u/a/s/.rsync-filter; chown -R 65534:65534 u; chmod 0 u/a/s/.rsync-filter; cd u
        $(test $(id -u) = 0 && echo setpriv --reuid=65534 --regid=65534 --clear-groups) $R -aF a/ b/ >/dev/null 2>&1
        echo $?; find b -type f | sort"#,
    );
}

/// Who hears of a wrong rule need not be one who may read the file.
#[test]
fn errors_in_files_of_rules_name_the_place_and_not_the_text() {
    let work = tempfile::tempdir().unwrap();
    let work = work.path();
    tree::put(&work.join("a"), "f", b"1", 0o644, tree::THEN);
    tree::put(work, "bad", b"# c\n\n- f\nZsecret word\n", 0o644, tree::THEN);
    tree::put(work, "words", b"-_x\n-_y Zsecret\n", 0o644, tree::THEN);
    tree::put(work, "outer", b"- x\n. bad\n", 0o644, tree::THEN);
    tree::put(work, "lost", b"\n. Zsecret\n", 0o644, tree::THEN);
    tree::put(&work.join("c"), "rules", b"- q\nZsecret\n", 0o644, tree::THEN);
    for (rule, source, place, code) in [
        (". bad", "a/", "bad line 4", 1),
        ("merge,w words", "a/", "words line 2", 1),
        (". outer", "a/", "a file named at outer line 2", 1),
        (". lost", "a/", "lost line 2", 11),
        (": rules", "c/", "c/rules line 2", 1),
    ] {
        let mut command = Command::new(support::stock::OURS);
        let output = command.args(["rsync", "-a", "-f", rule, source, "b/"]).current_dir(work).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{rule}: {said}");
        assert!(said.contains(place) && !said.contains("secret"), "{rule}: {said}");
    }
}
