use super::*;
use crate::rsync::Environment;
use crate::rsync::help;
use crate::rsync::table;
use protocol::args::{AltKind, Info, ItemDetail};
use protocol::checksum::Checksum;

fn parse(text: &str) -> Result<CommandLine, Usage> {
    parse_in(text, &Environment::default())
}

fn parse_in(text: &str, environment: &Environment) -> Result<CommandLine, Usage> {
    let words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect();
    CommandLine::parse(&words, environment)
}

fn options(text: &str) -> Options {
    parse(&format!("{text} s d")).unwrap_or_else(|usage| panic!("{text}: {}", usage.text)).options
}

#[test]
fn letters_bundle_and_values_stand_in_four_places() {
    for line in
        ["-avB700 s d", "-av -B 700 s d", "-avB=700 s d", "-av --block-size=700 s d", "s -av d --block-size 700"]
    {
        let line = parse(line).unwrap();
        assert_eq!((line.options.block_length, line.options.verbose, line.options.recurse), (Some(700), 1, true));
        assert_eq!(line.operands, [b"s", b"d"]);
    }
    let line = parse("-a -- -v --x").unwrap();
    assert_eq!((line.operands, line.options.verbose), (vec![b"-v".to_vec(), b"--x".to_vec()], 0));
}

#[test]
fn later_words_win() {
    let kept = options("-a --no-o --no-D");
    assert!(kept.links && kept.perms && kept.times && kept.group && !kept.owner && !kept.devices && !kept.specials);
    assert!(options("--no-o -a").owner && options("-a --no-D --specials").specials);
    assert!(!options("-a --no-r").recurse && !options("-z --no-z").compress);
    assert_eq!(options("-vv --no-v -v").verbose, 1);
    assert_eq!((options("-xx").one_file_system, options("-xx --no-x").one_file_system), (2, 0));
}

#[test]
fn whom_files_belong_to_is_said_once() {
    for (line, why) in [
        ("--chown=3:4 --usermap=a:b s d", "--usermap conflicts with prior --chown."),
        ("--groupmap=a:b --chown=3:4 s d", "--chown conflicts with prior --groupmap."),
        ("--usermap=a:b --usermap=c:d s d", "You can only specify --usermap once."),
        ("--chown=3:4 --chown=:5 s d", "You can only specify a group-affecting --chown once."),
    ] {
        assert!(parse(line).unwrap_err().text.contains(why), "{line}");
    }
    for line in ["--chown=3: --groupmap=a:b s d", "--usermap=a:b --chown=:4 s d", "--chown=3 --chown=:4 s d"] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn one_option_brings_others() {
    assert!(options("-A").perms && options("--write-devices").inplace && options("--backup-dir=b").backup);
    let parts = options("-P");
    assert!(parts.partial);
    assert_eq!(parts.level(Info::Progress), 1);
    let chown = options("--chown=u:g");
    assert_eq!((chown.owner, chown.group), (true, true));
    assert_eq!((chown.usermap, chown.groupmap), (Some(b"*:u".to_vec()), Some(b"*:g".to_vec())));
    let list = options("-a --files-from=f");
    assert!(list.relative && list.dirs && !list.recurse && options("-ar --files-from=f").recurse);
    assert!(!options("-a --files-from=f --no-R").relative);
    assert_eq!(options("--delay-updates").partial_dir, Some(b".~tmp~".to_vec()));
    assert_eq!(options("--append-verify").append, 2);
    assert_eq!(options("-@-1").modify_window, -1);
    assert_eq!(options("--link-dest=a --link-dest=b").alt_dirs, [b"a", b"b"]);
    assert_eq!(options("--link-dest=a").alt_kind, Some(AltKind::Link));
    let listing = parse("s").unwrap().options;
    assert!(listing.list_only && listing.dirs);
    assert!(!parse("-r s").unwrap().options.dirs);
}

#[test]
fn sizes_and_numbers_are_read() {
    assert_eq!(options("--max-size=1.5m").max_size, Some(1_572_864));
    assert_eq!((options("--bwlimit=1.5m").bwlimit, options("--bwlimit=0").bwlimit), (Some(1_572_864), None));
    assert_eq!((options("--bwlimit=100").bwlimit, options("--timeout=9 --no-timeout").timeout), (Some(102_400), None));
    assert_eq!(options("--cc=md5,xxh64").checksum_choice, Some((Checksum::Md5, Checksum::Xxh64)));
    assert_eq!(options("--checksum-choice=auto").checksum_choice, None);
    assert_eq!(options("--zc=lz4 --zl=3").compress_choice, Some(b"lz4".to_vec()));
    assert_eq!(options("--max-delete=-1").max_delete, Some(0));
    assert!(options("--stop-after=5").stop_at.is_some() && options("--stop-at=23:59").stop_at.is_some());
    assert!(options("--stop-at=12-31").stop_at.is_some() && parse("--stop-at=2001-01-01T00:00 s d").is_err());
}

#[test]
fn what_is_said_is_graded() {
    let level = |text: &str, flag: Info| options(text).level(flag);
    assert_eq!(
        (
            level("", Info::Name),
            level("-v", Info::Name),
            level("-vv", Info::Name),
            level("-v --info=name0", Info::Name)
        ),
        (0, 1, 2, 0)
    );
    assert_eq!(
        (level("", Info::Nonreg), level("--info=none", Info::Nonreg), level("--info=all2", Info::Del)),
        (1, 0, 2)
    );
    assert_eq!(
        (level("--stats", Info::Stats), level("-v", Info::Stats), level("--info=stats3", Info::Stats)),
        (2, 1, 3)
    );
    assert_eq!(
        (level("-qvv", Info::Name), level("--progress", Info::Flist), level("--info=progress2", Info::Flist)),
        (0, 1, 0)
    );
    let detail = |text: &str| options(text).detail;
    assert_eq!((detail("-v"), detail("-i"), detail("-ii")), (ItemDetail::None, ItemDetail::Changed, ItemDetail::All));
    assert_eq!((detail("--out-format=%n"), detail("--out-format=%i")), (ItemDetail::Names, ItemDetail::Changed));
    assert_eq!((detail("-v --out-format=%n"), detail("--progress")), (ItemDetail::None, ItemDetail::Names));
    let human = |text: &str| parse(&format!("{text} s d")).unwrap().human;
    assert_eq!((human(""), human("-h"), human("-hh"), human("--no-h")), (1, 2, 3, 0));
}

#[test]
fn filters_keep_their_order() {
    let line = parse("-a --exclude=a -f +_b -FF --include=c --exclude-from=d s d").unwrap();
    let kinds: Vec<_> = line.filters.iter().map(|(kind, text)| (*kind, String::from_utf8_lossy(text))).collect();
    assert_eq!(
        kinds,
        [
            (FilterKind::Exclude, "a".into()),
            (FilterKind::Rule, "+_b".into()),
            (FilterKind::Rule, ": /.rsync-filter".into()),
            (FilterKind::Rule, "- .rsync-filter".into()),
            (FilterKind::Include, "c".into()),
            (FilterKind::ExcludeFrom, "d".into()),
        ]
    );
}

#[test]
fn the_environment_stands_in() {
    let environment = Environment {
        rsh: Some(b"ssh -x".to_vec()),
        protect_args: Some(true),
        partial_dir: Some(b".part".to_vec()),
        iconv: Some(b"utf8,latin1".to_vec()),
        ..Environment::default()
    };
    let line = parse_in("--partial s d", &environment).unwrap();
    assert_eq!(line.rsh, Some(b"ssh -x".to_vec()));
    assert!(line.options.secluded_args && line.options.partial_dir == Some(b".part".to_vec()));
    assert_eq!(line.options.iconv, Some(b"utf8,latin1".to_vec()));
    let line = parse_in("-e rsh --no-s --iconv=- s d", &environment).unwrap();
    assert!(line.rsh == Some(b"rsh".to_vec()) && !line.options.secluded_args && line.options.iconv.is_none());
    assert!(parse_in("--old-args s d", &environment).unwrap().options.old_args);
}

/// The words of stock rsync 3.5.0.
#[test]
fn slips_are_refused_in_the_words_of_stock() {
    for (line, text) in [
        ("--frobnicate s d", "rsync: --frobnicate: unknown option"),
        ("-Q s", "rsync: -Q: unknown option"),
        ("-a --no-foo s d", "rsync: --no-foo: unknown option"),
        ("--no-rsh s d", "rsync: --no-rsh: unknown option"),
        ("s --rsh", "rsync: --rsh: missing argument"),
        ("-avx=3 a b", "rsync: -avx=3: option does not take an argument"),
        ("--delete=3 a b", "rsync: --delete=3: option does not take an argument"),
        ("--timeout=x a b", "rsync: --timeout=x: invalid numeric value"),
        ("--max-delete=x a b", "rsync: --max-delete=x: invalid numeric value"),
        ("--bwlimit=x a b", "rsync: --bwlimit=x is invalid"),
        ("-B x a b", "rsync: --block-size=x is invalid"),
        ("--block-size=999999 a b", "rsync: --block-size=999999 is too large (max: 128.00K)"),
        ("--max-alloc=1 a b", "rsync: --max-alloc=1 is too small (min: 1.00M or 0 for unlimited)"),
        (
            "--compare-dest=a --copy-dest=b s d",
            "rsync: ERROR: the --copy-dest option conflicts with the --compare-dest option",
        ),
        ("--inplace --partial-dir=x s d", "rsync: --inplace cannot be used with --partial-dir"),
        ("--inplace --delay-updates s d", "rsync: --inplace cannot be used with --delay-updates"),
        ("--append --whole-file s d", "rsync: --append cannot be used with --whole-file"),
        ("--delete s d", "rsync: --delete does not work without --recursive (-r) or --dirs (-d)."),
        ("--delete-before --delete-after -r s d", "rsync: You may not combine multiple --delete-WHEN options."),
        ("--info=foo s d", "Unknown --info item: \"foo\""),
        ("--outbuf=x s d", "rsync: Invalid --outbuf setting -- specify N, L, or B."),
        ("--checksum-choice=foo s d", "unknown checksum name: foo"),
        ("--compress-choice=foo s d", "unknown compress name: foo"),
        ("--suffix=a/b s d", "rsync: --suffix cannot contain slashes: a/b"),
        ("--stderr=z s d", "rsync: --stderr mode \"z\" is not one of errors, all, or client"),
        ("--old-args -s a b", "rsync: --secluded-args conflicts with --old-args."),
        ("--read-batch=x --write-batch=y a b", "rsync: --write-batch and --read-batch can not be used together"),
        ("-M x s d", "rsync: Remote option must start with a dash: x"),
        ("--stop-after=x s d", "rsync: invalid --stop-after value: x"),
        ("--stop-at=foo s d", "rsync: invalid --stop-at format: foo"),
        ("--password-file=x s d", "The --password-file option may only be used when accessing an rsync daemon."),
        ("", ""),
    ] {
        match parse(line) {
            Ok(_) => panic!("{line} is taken"),
            Err(usage) => assert_eq!(usage.text, text, "{line}"),
        }
    }
    assert_eq!(parse("--checksum-choice=foo s d").map_err(|usage| usage.code), Err(4));
}

#[test]
fn every_name_leads_to_one_option() {
    let mut names = std::collections::BTreeSet::new();
    let mut letters = std::collections::BTreeSet::new();
    for option in table::all() {
        for name in option.names {
            assert!(names.insert(name.clone()), "--{name} is there twice");
        }
        assert!(option.letter == 0 || letters.insert(option.letter), "-{} is there twice", char::from(option.letter));
    }
}

/// All that stock rsync 3.5.0 lists in its `--help`.
const STOCK: &str = "verbose info debug stderr quiet no-motd checksum archive recursive inc-recursive no-inc-recursive \
    relative no-implied-dirs backup backup-dir suffix update inplace append append-verify dirs old-dirs old-d mkpath links \
    copy-links copy-unsafe-links safe-links insecure-links confine-root munge-links copy-dirlinks keep-dirlinks hard-links \
    perms executability chmod acls xattrs owner group devices copy-devices write-devices specials drop-D times atimes \
    open-noatime crtimes omit-dir-times omit-link-times super fake-super sparse preallocate dry-run whole-file no-whole-file \
    checksum-choice one-file-system block-size rsh rsync-path existing ignore-non-existing ignore-existing \
    remove-source-files del delete delete-before delete-during delete-delay delete-after delete-excluded \
    ignore-missing-args delete-missing-args ignore-errors force max-delete max-size min-size max-alloc partial partial-dir \
    delay-updates prune-empty-dirs numeric-ids usermap groupmap chown timeout contimeout ignore-times size-only modify-window \
    temp-dir fuzzy compare-dest copy-dest link-dest compress compress-choice compress-level compress-threads skip-compress \
    cvs-exclude filter exclude exclude-from include include-from files-from from0 old-args secluded-args trust-sender copy-as \
    address port sockopts blocking-io outbuf stats 8-bit-output human-readable progress itemize-changes remote-option \
    out-format log-file log-file-format password-file early-input list-only bwlimit stop-after stop-at fsync write-batch \
    only-write-batch read-batch protocol iconv checksum-seed ipv4 ipv6 version help";

#[test]
fn help_manual_and_completions_name_every_option() {
    let roff = help::generate("man").unwrap().replace("\\-", "-");
    let texts = [
        ("help", help::text()),
        ("man", roff),
        ("bash", help::generate("bash").unwrap()),
        ("zsh", help::generate("zsh").unwrap()),
    ];
    let fish = help::generate("fish").unwrap();
    for name in STOCK.split_whitespace() {
        assert!(
            table::by_name(name.as_bytes()).is_some_and(|found| !found.option.help.is_empty() && !found.taken_back),
            "--{name}"
        );
        for (what, text) in &texts {
            assert!(text.contains(&format!("--{name}")), "{what} lacks --{name}");
        }
        assert!(fish.contains(&format!(" -l {name}")), "fish lacks --{name}");
    }
    for letter in "vqcarRbudlLkKHpEAXogDtUNOJSnWxBeImTyzCfF0s48hPiMV@".bytes() {
        assert!(table::by_letter(letter).is_some(), "-{}", char::from(letter));
    }
    assert_eq!(help::generate("tcsh"), None);
}

#[test]
fn a_mistyped_option_has_a_hint() {
    for (word, name) in [
        ("--progess", Some("progress")),
        ("--recurs", Some("recursive")),
        ("--delete-exclude", Some("delete-excluded")),
        ("--chekcsum", Some("checksum")),
        ("--bwlimt=5", Some("bwlimit")),
        ("--no-perm", Some("no-perms")),
        ("--something-else", None),
        ("-Q", None),
    ] {
        assert_eq!(table::resembling(word).as_deref(), name, "{word}");
        let error = CommandLine::parse(&[word.as_bytes(), b"a", b"b"], &Environment::default()).unwrap_err();
        let hint = name.map(|name| format!("did you mean --{name}?"));
        assert!(error.code == 1 && hint.is_none_or(|hint| error.text.ends_with(&hint)), "{word}: {}", error.text);
    }
}
