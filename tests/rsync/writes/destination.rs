//! Bases that are never written to, kept symlinks, backups, dry runs, what is deleted: as stock leaves and says it.

use super::stories::{Road, Story, all_agree, make, play};
use crate::support;
use crate::support::both::Outcome;
use crate::support::stock::{Bench, OURS};
use crate::support::tree;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

const fn story(name: &'static str, setup: &'static str, runs: &'static [&'static str]) -> Story {
    Story { name, setup, runs, powerless: false }
}

const fn powerless(name: &'static str, setup: &'static str, runs: &'static [&'static str]) -> Story {
    Story { name, setup, runs, powerless: true }
}

const BASES: &[Story] = &[
    story(
        "an attribute differs",
        "put a/f 1\n attr a/f user.n old\n dir new\n copy a old\n attr a/f user.n changed",
        &[
            "-aiX --link-dest=WORK/old a/ new/",
            "-aiX --copy-dest=../old a/ new/",
            "-aiX --compare-dest=WORK/old a/ new/",
            "-aniX --link-dest=../old a/ new/",
            "-aniX --compare-dest=WORK/old a/ new/",
            "-ai --link-dest=WORK/old a/ new/",
            "-aXi --link-dest=WORK/old --remove-source-files a/ new/",
        ],
    ),
    story(
        "an attribute is too many",
        "put a/f 1\n copy a old\n dir new\n attr old/f user.more x",
        &[
            "-aiX --link-dest=WORK/old a/ new/",
            "-aiX --copy-dest=WORK/old a/ new/",
            "-aiX --compare-dest=WORK/old a/ n/",
        ],
    ),
    story(
        "all attributes are the same",
        "put a/f 1\n attr a/f user.n 1\n dir a/d\n attr a/d user.d 1\n put a/d/g 2\n link a/l f\n copy a old\n dir new",
        &[
            "-aiX --link-dest=WORK/old a/ new/",
            "-aiiX --link-dest=../old a/ new/",
            "-aiX --copy-dest=WORK/old a/ new/",
            "-aiX --compare-dest=WORK/old a/ new/",
            "-aX --compare-dest=WORK/old a/ fresh/",
            "-aXim --compare-dest=WORK/old a/ fresh/",
        ],
    ),
    story(
        "long values",
        "put a/f 1\n attr a/f user.n 0123456789012345678901234567890123456789\n copy a old\n dir new\n \
         attr a/f user.m 9876543210987654321098765432109876543210",
        &[
            "-aiX --link-dest=WORK/old a/ new/",
            "-aiX --copy-dest=WORK/old a/ new/",
            "-aiX --compare-dest=WORK/old a/ new/",
        ],
    ),
    story(
        "mode, owner, group, time",
        "put a/m 1\n put a/o 1\n put a/g 1\n put a/t 1\n put a/s 1\n copy a old\n dir new\n mode a/m 600\n owner a/o 5 0\n \
         owner a/g 0 6\n put a/t 1 2021",
        &[
            "-ai --link-dest=WORK/old a/ new/",
            "-ai --compare-dest=WORK/old a/ new/",
            "-aic --link-dest=WORK/old a/ new/",
            "-ai --size-only --copy-dest=WORK/old a/ new/",
            "-aiI --compare-dest=WORK/old a/ new/",
            "-ai --inplace --no-W --link-dest=WORK/old a/ new/",
            "-aiyy --no-W --link-dest=WORK/old a/ new/",
            "-rpi --link-dest=WORK/old a/ new/",
            "-rlti --link-dest=WORK/old a/ new/",
            "-ai --chmod=F600 --link-dest=WORK/old a/ new/",
            "-ai --delay-updates -b --link-dest=WORK/old a/ new/",
        ],
    ),
    story(
        "symlinks and special files",
        "dir a\n link a/same x\n link a/own x\n link a/time x\n link a/to x\n fifo a/p\n fifo a/m\n node a/c 1 3\n copy a old\n \
         owner a/own 5 0\n remove a/time\n link a/time x 2021\n remove a/to\n link a/to y\n mode a/m 600\n attr a/p trusted.k 1\n \
         dir new",
        &[
            "-ai --link-dest=WORK/old a/ new/",
            "-aiX --link-dest=WORK/old a/ new/",
            "-aiX --compare-dest=WORK/old a/ new/",
            "-aiX --copy-dest=WORK/old a/ new/",
            "-ani --link-dest=../old a/ new/",
        ],
    ),
    story(
        "several bases",
        "put a/f 1\n put a/g 1\n attr a/f user.n 1\n copy a one\n copy a two\n attr one/f user.n other\n remove two/g\n dir new",
        &[
            "-aiX --link-dest=WORK/one --link-dest=WORK/two a/ new/",
            "-aiX --copy-dest=WORK/two --copy-dest=WORK/one a/ new/",
            "-aiX --compare-dest=WORK/one --compare-dest=WORK/two a/ new/",
            "-aiX --link-dest=WORK/one --link-dest=WORK/no --link-dest=WORK/two a/ new/",
        ],
    ),
    story(
        "files of several names",
        "put a/x 1\n name a/y a/x\n put a/z 2\n name a/w a/z\n copy a old\n mode a/z 600\n dir new",
        &[
            "-aiH --link-dest=WORK/old a/ new/",
            "-aiiH --link-dest=WORK/old a/ new/",
            "-aiiH --compare-dest=WORK/old a/ new/",
            "-aiH --copy-dest=WORK/old a/ new/",
            "-aniH --link-dest=WORK/old a/ new/",
            "-aiHX --inplace --link-dest=WORK/old a/ new/",
            "-aiH --link-dest=WORK/old a/ fresh/",
        ],
    ),
    story(
        "names that the base has as files of their own",
        "put a/x 1\n copy a/x a/y\n copy a old\n remove a/y\n name a/y a/x\n name a/z a/x\n put old/x 1 2019\n copy old/y old/z\n dir new",
        &[
            "-aiH --link-dest=WORK/old a/ new/",
            "-aiH --compare-dest=WORK/old a/ new/",
            "-aiH --copy-dest=WORK/old a/ new/",
        ],
    ),
    story(
        "what --fake-super keeps",
        "put a/f 1\n owner a/f 5 6\n put old/f 1\n attr old/f user.rsync.%stat 100644_0,0_5:6\n dir new",
        &["-ai -M--fake-super --link-dest=WORK/old a/ new/", "-ai -M--fake-super --compare-dest=WORK/old a/ new/"],
    ),
    powerless(
        "by somebody",
        "put a/f 1\n attr a/f user.k 1\n put a/ro 2\n mode a/ro 444\n copy a old\n attr a/f user.k 2\n mode a/ro 644\n attr a/ro user.k 3\n \
         mode a/ro 444",
        &[
            "-aXi --link-dest=WORK/old a/ new/",
            "-aXi --compare-dest=WORK/old a/ new/",
            "-aXi --copy-dest=WORK/old a/ new/",
        ],
    ),
];

#[test]
fn what_a_base_has_is_the_same_only_with_every_attribute() {
    all_agree(BASES);
}

const TOLD: &[Story] = &[
    story(
        "one name of two has another time",
        "put a/x 1\n name a/y a/x\n copy a b\n put b/x 1 2021",
        &["-irlpH a/ b/", "-iiaH a/ b/", "-vvrlpH a/ b/", "-niaH a/ b/", "-nirlpH a/ b/", "-iaHI a/ b/"],
    ),
    story(
        "permissions of a file with names",
        "put a/x 1\n name a/y a/x\n copy a b\n mode b/x 600",
        &["-iaH a/ b/", "-iiaH a/ b/", "-nvvaH a/ b/", "-nvaH a/ b/", "-niiaH a/ b/"],
    ),
    story(
        "the first of two names is something else",
        "put a/x 1\n name a/y a/x\n put b/y 1\n link b/x z",
        &["-iaH a/ b/", "-vvaH a/ b/", "-iiaH a/ b/"],
    ),
    story(
        "names that are files",
        "put a/x 1\n name a/y a/x\n name a/z a/x\n put b/x 1\n put b/y 1\n put b/z 22",
        &["-irH a/ b/", "-vvaH a/ b/", "-iiaH a/ b/"],
    ),
    story(
        "links, fifos and nodes with names",
        "dir a\n link a/l t\n name a/m a/l\n fifo a/p\n name a/q a/p\n dir b\n link b/m t 2019\n fifo b/q",
        &["-iaH a/ b/", "-irlDH a/ b/"],
    ),
    story(
        "permissions of what is the same already and only to be claimed",
        "put a/su 1\n mode a/su 4755\n put a/ro 2\n mode a/ro 444\n put a/none 3\n mode a/none 0\n put a/plain 4\n dir a/d\n \
         mode a/d 1555\n copy a b\n copy a old\n dir new",
        &[
            "-ai -M--fake-super a/ b/",
            "-aii -M--fake-super a/ b/",
            "-rti -M--fake-super a/ b/",
            "-ani -M--fake-super a/ b/",
            "-ai -M--fake-super --link-dest=WORK/old a/ new/",
        ],
    ),
    story(
        "a base",
        "put a/f 1\n put a/g 1\n put a/d/h 3\n link a/l x\n name a/gg a/g\n copy a old\n dir new\n mode a/g 600",
        &[
            "-vva --link-dest=WORK/old a/ new/",
            "-vva --compare-dest=WORK/old a/ new/",
            "-vva --copy-dest=WORK/old a/ new/",
            "-vvaH --link-dest=WORK/old a/ new/",
            "-vvai --copy-dest=WORK/old a/ new/",
            "-a --info=name2 --link-dest=WORK/old a/ new/",
        ],
    ),
];

#[test]
fn names_of_a_file_and_matches_in_a_base_are_told_as_by_stock() {
    all_agree(TOLD);
}

const LINKED_FOLDERS: &[Story] = &[
    story(
        "-K",
        "put a/dir/f newer 2021\n put a/dir/sub/g 1\n put b/real/f old\n link b/dir real",
        &[
            "-aKib a/ b/",
            "-aKib --inplace a/ b/",
            "-aKib --delay-updates a/ b/",
            "-aKibO --partial-dir=.p a/ b/",
            "-aKiO --inplace a/ b/",
            "-aKiO --delay-updates a/ b/",
            "-ai a/ b/",
            "-aib a/ b/",
        ],
    ),
    story(
        "-K through two",
        "put a/x/y/z/f 1\n dir b/r1/r2\n link b/x r1\n link b/r1/y r2",
        &["-aKib a/ b/", "-aKiO a/ b/"],
    ),
    story(
        "implied",
        "put a/p/f N 2021\n put a/p/s/g N 2021\n put b/real/f old\n put b/real/s/g old\n link b/p real",
        &[
            "-aiR --no-implied-dirs a/./p/f b/",
            "-aiRb --no-implied-dirs a/./p/f b/",
            "-aiR --no-implied-dirs --inplace a/./p/f b/",
            "-aiRb --no-implied-dirs --inplace a/./p/s/g b/",
            "-aiR --no-implied-dirs --delay-updates a/./p/f b/",
            "-aiR --no-implied-dirs --partial-dir=.p a/./p/s/g b/",
            "-aiR --no-implied-dirs a/./p/s/ b/",
            "-aiR --no-implied-dirs a/./p/ b/",
            "-aniR --no-implied-dirs a/./p/f b/",
            "-aiR a/./p/f b/",
        ],
    ),
    story(
        "implied, and more to be made",
        "put a/p/q/r/f N\n dir b/real\n link b/p real",
        &[
            "-aiR --no-implied-dirs a/./p/q/r/f b/",
            "-aiRb --no-implied-dirs --inplace a/./p/q/r b/",
            "-aiR --no-implied-dirs --delay-updates a/./p/q/r/f b/",
            "-aniR --no-implied-dirs a/./p/q/r b/",
        ],
    ),
];

#[test]
fn kept_symlinks_to_folders_are_written_through() {
    all_agree(LINKED_FOLDERS);
}

const KEPT: &[Story] = &[
    story(
        "in place",
        "put a/f newcontent 2021\n put b/f oldcontent\n put a/long 1234567890\n put b/long 123 2019\n put a/short 12 2021\n put b/short 12345\n \
         put a/s/g n 2021\n put b/s/g o",
        &[
            "-aib --inplace a/ b/",
            "-aib --inplace --no-W a/ b/",
            "-aib --append a/ b/",
            "-aib --append-verify a/ b/",
            "-aib --append --no-W a/ b/",
            "-aib --inplace --suffix=.orig a/ b/",
            "-aibO --inplace --backup-dir=bak a/ b/",
            "-aibO --append-verify --backup-dir=bak a/ b/",
            "-aib --inplace --backup-dir=WORK/bak --suffix=.x a/ b/",
            "-aibS --inplace --fsync a/ b/",
        ],
    ),
    story(
        "names and earlier backups",
        "put a/f new 2021\n put b/f old\n name b/g b/f\n put b/f~ older 2018\n put a/h newer 2021\n put b/h old\n name b/h~ b/h",
        &["-aib a/ b/", "-aib --inplace a/ b/", "-aib --append a/ b/", "-aibH --inplace --delete a/ b/"],
    ),
    story(
        "unsafe links",
        "put a/e 1\n dir b\n link b/e ../../etc\n link a/esc ../../up\n link b/esc other\n link b/gone /abs\n link a/ok e\n link b/ok ../../x",
        &[
            "-aib --safe-links a/ b/",
            "-aib --safe-links --delete a/ b/",
            "-aib --safe-links --inplace a/ b/",
            "-aib --safe-links --delay-updates a/ b/",
            "-aib a/ b/",
        ],
    ),
    story(
        "attributes",
        "put a/f new 2021\n put b/f old\n attr b/f user.k 1\n attr a/f user.k 2",
        &["-aibX --inplace a/ b/", "-aibX a/ b/", "-aibXO --inplace --backup-dir=bak a/ b/"],
    ),
    powerless(
        "what its owner may not write",
        "put a/f new 2021\n put b/f old\n mode b/f 400",
        &["-ai --inplace a/ b/", "-ri --inplace a/ b/", "-ai --inplace -S a/ b/", "-aiX --inplace a/ b/"],
    ),
];

#[test]
fn what_is_written_in_place_is_kept_first() {
    all_agree(KEPT);
}

const DRY: &[Story] = &[
    story(
        "a folder that is not there",
        "put a/f 1\n put a/d/g 2\n put a/d/h 3\n link a/l f\n copy a old\n put a/d/h 33 2021\n put a/n 4",
        &[
            "-ani --link-dest=WORK/old a/ new/",
            "-ani --link-dest=../old a/ new/",
            "-ani --compare-dest=../old a/ new/",
            "-ani --copy-dest=WORK/old a/ new/",
            "-anii --link-dest=WORK/old a/ new/",
            "-anic --link-dest=WORK/old a/ new/",
            "-ani --no-i-r --link-dest=WORK/old a/ new/",
            "-ani --delete --link-dest=WORK/old a/ new/",
            "-ani --link-dest=WORK/no a/ new/",
            "-ani --mkpath a/ new/x/y/",
            "-ai --mkpath --link-dest=WORK/old a/ new/x/y/",
            "-ani a/ new/x/y/",
            "-ani a new",
        ],
    ),
    story(
        "a file",
        "put a/f 1\n put e/g old",
        &[
            "-ain --mkpath a/f n/x/g",
            "-ai --mkpath a/f n/x/g",
            "-ain --mkpath a/f n/x/",
            "-ai --mkpath a/f n/x/",
            "-ain --mkpath a/f e/x/g",
            "-ain --link-dest=WORK/a a/f n/",
            "-ai --link-dest=WORK/a --mkpath a/f x/y/f",
            "-ain --link-dest=WORK/a --mkpath a/f x/y/f",
            "-ain a/f n/x/g",
            "-ain --mkpath a/f a/f/x",
            "-ai --mkpath a/f a/f/x",
            "-ain --mkpath a/ e/g/",
            "-ain --mkpath a n/x/g",
        ],
    ),
    story(
        "names",
        "put a/x 1\n name a/y a/x\n put b/y 1",
        &["-aniH --link-dest=WORK/b a/ c/", "-aiH --link-dest=WORK/b a/ c/"],
    ),
];

#[test]
fn a_dry_run_says_what_is_to_come_whatever_is_not_there_yet() {
    all_agree(DRY);
}

const GOING: &[Story] = &[
    powerless(
        "folders nobody may write to",
        "put a/k 1\n put b/ro/x 1\n put b/ro/s/y 1\n dir a/keep\n put b/keep/z 1\n mode b/ro/s 555\n mode b/ro 555\n mode a/keep 555\n mode b/keep 555",
        &[
            "-ai --delete a/ b/",
            "-ai --delete-after a/ b/",
            "-ai --delete-delay a/ b/",
            "-ri --delete a/ b/",
            "-ai --delete-excluded --exclude=z a/ b/",
            "-ani --delete a/ b/",
        ],
    ),
    powerless(
        "one in the way",
        "put a/d file\n put b/d/s/x 1\n mode b/d/s 555\n mode b/d 555",
        &["-ai --force a/ b/", "-ai --delete a/ b/"],
    ),
];

#[test]
fn who_owns_a_folder_may_delete_in_it() {
    all_agree(GOING);
}

const OWNERS: &[Story] = &[story(
    "maps",
    "put a/f0 1\n put a/f5 1\n owner a/f5 5 7\n put a/f9 1\n owner a/f9 1000 1000\n link a/l x\n owner a/l 1 2",
    &[
        "-a --numeric-ids --groupmap=:5 a/ b/",
        "-a --groupmap=:5 a/ b/",
        "-a --numeric-ids --usermap=:5 a/ b/",
        "-a --numeric-ids --usermap=root:5 a/ b/",
        "-a --numeric-ids --usermap=1-6:2,:3 a/ b/",
        "-a --usermap=daemon:games,root:sync,*:nobody a/ b/",
        "-a --numeric-ids --usermap=daemon:games,root:sync,*:nobody a/ b/",
        "-a --numeric-ids --groupmap=*:5 a/ b/",
        "-a --groupmap=?oot:5 a/ b/",
    ],
)];

#[test]
fn owners_are_mapped_as_by_stock() {
    all_agree(OWNERS);
}

const FAKE: &[Story] = &[story(
    "all kinds",
    "put a/f 1\n owner a/f 12 13\n mode a/f 4755\n link a/l f\n owner a/l 5 0\n fifo a/p\n node a/c 1 3\n dir a/d\n owner a/d 7 0\n \
     mode a/d 1777\n attr a/f user.k 1",
    &[
        "-ai --fake-super a/ b/",
        "-aiX --fake-super a/ b/",
        "-aiA --fake-super a/ b/",
        "-aiAX --fake-super -M--fake-super a/ b/",
        "-aiX -M--fake-super a/ b/",
    ],
)];

#[test]
fn fake_super_holds_for_both_ends_of_a_local_copy_and_opens_no_special_file() {
    all_agree(FAKE);
}

const ATTRIBUTES: &[Story] = &[story(
    "rules for attributes",
    "put a/one 1\n put a/two 2\n dir a/d\n link a/l x\n attr a/one user.bin 1\n attr a/one user.k 1\n attr a/two user.bin 1\n attr a/two user.k 1\n \
     attr a/d user.bin 1\n attr a/l trusted.bin 1\n attr a/l trusted.k 1",
    &[
        "-aXi --filter=-x_user.bin a/ b/",
        "-aXi --filter=-xs_user.bin a/ b/",
        "-aXi --filter=-x_*.bin a/ b/",
        "-aXi --filter=+x_user.k --filter=-x_* a/ b/",
        "-aXi --filter=-x!_user.k a/ b/",
        "-aXi --delete --filter=-x_user.bin a/ b/",
        "-aXi --exclude=two --filter=-x_trusted.bin a/ b/",
    ],
)];

#[test]
fn rules_for_attributes_hold_for_every_entry() {
    all_agree(ATTRIBUTES);
}

/// Plays a local copy by our own program.
fn ours(story: &Story, command: &str) -> Option<Outcome> {
    if !tree::is_root() || !support::tools::require("setpriv") {
        return None;
    }
    let bench = Bench::start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(play(&bench, story, command, Road::Local, (OURS, OURS)))
}

/// Stock changes the file in the base here, and says so in its manual.
#[test]
fn a_name_that_is_linked_with_a_base_parts_from_it_before_it_changes() {
    let linked = "put a/f 11\n attr a/f user.k 1\n copy a old\n dir new\n name new/f old/f\n link a/l x\n link old/l x\n name new/l old/l\n";
    let changes = ["mode a/f 600\n owner a/f 4 0\n attr a/f user.k 2\n owner a/l 4 0", "put a/f 223 2021"];
    for setup in changes.map(|change| format!("{linked}{change}")) {
        let setup: &'static str = setup.leak();
        for kind in ["link", "copy", "compare"] {
            for options in ["-aX", "-aXc", "-aX --inplace", "-aXb --inplace", "-aX --append-verify"] {
                let command = format!("{options} --{kind}-dest=WORK/old a/ new/");
                let Some(left) = ours(&story("linked", setup, &[]), &command) else { return };
                assert_eq!(left.run.code, 0, "{command}");
                let node = |name: &str| left.tree(".").0[format!("./{name}").as_bytes()].clone();
                assert_eq!((node("old/f").content, node("old/f").mode), (b"11".to_vec(), 0o100_644), "{command}");
                assert_eq!((node("old/f").owner, node("old/l").owner), ((0, 0), (0, 0)), "{command}");
                assert!(left.lines.contains(&"./old/f: user.k = 1".into()), "{command}: {:?}", left.lines);
                assert_eq!(node("new/f").content, node("a/f").content, "{command}");
                assert_eq!(
                    (node("new/f").mode, node("new/l").owner),
                    (node("a/f").mode, node("a/l").owner),
                    "{command}"
                );
            }
        }
    }
}

/// A base as long as the file itself leaves nothing to append, to nothing.
#[test]
fn appending_to_nothing_takes_no_beginning_from_a_base() {
    for setup in ["put a/t new 2021\n put old/t old\n dir b", "put a/t newer 2021\n put old/t new\n dir b"] {
        for options in ["--append", "--append-verify", "--append --no-W", "--append -y --no-W"] {
            let Some(left) = ours(&story("appended", setup, &[]), &format!("-a {options} --link-dest=WORK/old a/ b/"))
            else {
                return;
            };
            assert_eq!(
                (left.run.code, &left.tree(".").0[&b"./b/t"[..]].content),
                (0, &left.tree(".").0[&b"./a/t"[..]].content),
                "{options}"
            );
        }
    }
}

#[test]
fn a_folder_that_is_closed_even_to_its_owner_goes_with_all_it_holds() {
    let setup = "put a/k 1\n put b/none/s/x 1\n put b/deaf/x 1\n put b/full/in 1\n put a/full file\n mode b/none/s 000\n mode b/none 000\n \
                 mode b/deaf 300\n mode b/full 400";
    for when in ["--delete", "--delete-before", "--delete-after", "--delete-delay"] {
        let Some(left) = ours(&powerless("closed", setup, &[]), &format!("-a {when} a/ b/")) else { return };
        let names: Vec<_> =
            left.tree(".").0.keys().filter(|name| name.starts_with(b"./b/")).map(|name| name.to_vec()).collect();
        assert_eq!((left.run.code, names), (0, vec![b"./b/full".to_vec(), b"./b/k".to_vec()]), "{when}");
    }
}

#[test]
fn what_is_closed_or_no_file_is_written_in_place_and_kept_too() {
    let closed = powerless("closed", "put a/f newer 2021\n put b/f old\n mode b/f 000", &[]);
    for (options, mode) in
        [("-a --inplace", 0o100_644), ("-rtb --inplace --no-W", 0o100_000), ("-rt --append", 0o100_000)]
    {
        let Some(left) = ours(&closed, &format!("{options} a/ b/")) else { return };
        let node = &left.tree(".").0[&b"./b/f"[..]];
        // A backup cannot be made of what cannot be read.
        let kept = if options.contains('b') { (23, &b"old"[..]) } else { (0, &b"newer"[..]) };
        let kept = if options.contains("append") { (0, &b"newer"[..]) } else { kept };
        assert_eq!((left.run.code, &node.content[..], node.mode), (kept.0, kept.1, mode), "{options}");
    }
    let device = story("a device", "put a/d content\n dir b\n node b/d 1 3", &[]);
    for (options, backup) in [("-ab --write-devices", "./b/d~"), ("-a --write-devices --backup-dir=bak", "./b/bak/d")] {
        let Some(left) = ours(&device, &format!("{options} a/ b/")) else { return };
        assert_eq!((left.run.code, left.tree(".").0[backup.as_bytes()].mode), (0, 0o100_644), "{options}");
        assert_eq!(left.tree(".").0[&b"./b/d"[..]].mode, 0o020_644, "{options}");
    }
}

#[test]
fn zeros_that_stand_in_a_file_become_holes() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("holes");
    let block = |seed| tree::noise(4096, seed);
    let bytes: Vec<u8> = (0..16).flat_map(|nth| [block(nth), vec![0; 122_880], block(nth + 50)].concat()).collect();
    for options in [&["--no-W", "-B32768"][..], &["--no-W"], &["-W"]] {
        tree::put(&work.path().join("a"), "f", &bytes, 0o644, tree::THEN);
        tree::put(&work.path().join("b"), "f", &bytes, 0o644, (tree::THEN.0 - 9, 0));
        let mut run = Command::new(OURS);
        run.args(["rsync", "-a", "--inplace", "-S"]).args(options).args(["a/", "b/"]);
        let run = run.current_dir(work.path()).status().unwrap();
        let copy = work.path().join("b/f");
        let meta = fs::metadata(&copy).unwrap();
        assert!(run.success() && fs::read(&copy).unwrap() == bytes, "{options:?}");
        assert!(meta.blocks() * 512 < 400_000, "{options:?}: {}", meta.blocks());
    }
}

/// A way that leads out of the destination is none, whoever made the link.
#[test]
fn an_implied_folder_that_leads_out_is_refused() {
    for target in ["WORK/out", "../out", "in/../../out"] {
        let setup: &'static str = format!("put a/p/f 1\n dir out\n dir b/in\n link b/p {target}").leak();
        let Some(left) = ours(&story("out", setup, &[]), "-aR --no-implied-dirs a/./p/f b/") else { return };
        assert_eq!((left.run.code, left.tree(".").0.contains_key(&b"./out/f"[..])), (23, false), "{target}");
    }
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "put a/p/f 1\n dir b/in/deep\n link b/p in/deep/../deep");
    let mut run = Command::new(OURS);
    run.args(["rsync", "-aR", "--no-implied-dirs", "a/./p/f", "b/"]).current_dir(folder.path());
    assert!(run.status().unwrap().success() && folder.path().join("b/in/deep/f").exists());
}
