use super::server_option::Field;
use super::*;
use crate::checksum::Checksum;
use crate::compress::{Choice, Method, Wish};

fn parse(line: &str) -> Result<ServerArgs, ArgsError> {
    ServerArgs::parse(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn stock_vectors_are_understood() {
    let push = parse("--server -vlogDtpre.iLsfxCIvu --log-format=%i --stats . dst/").unwrap();
    assert!(!push.sender && push.options.links && push.options.specials && push.options.recurse);
    assert_eq!((push.options.verbose, push.options.detail), (1, ItemDetail::Changed));
    assert_eq!((&push.capabilities[..], &push.paths[0][..]), (&b"iLsfxCIvu"[..], &b"dst/"[..]));
    let pull = parse("--server --sender -re31.14LsfC --no-specials -B800 . a b").unwrap();
    assert!(pull.sender && !pull.options.specials);
    assert_eq!((pull.options.block_length, pull.paths.len()), (Some(800), 2));
    assert_eq!(pull.capabilities, b"LsfC");
    let choice = parse("--server -ce.v --checksum-choice=md5,xxh64 . d").unwrap().options.checksum_choice;
    assert_eq!(choice, Some((Checksum::Md5, Checksum::Xxh64)));
}

#[test]
fn compression_is_asked_for_in_many_ways() {
    let wish = |words: &str| parse(&format!("--server {words} . d")).unwrap().options.compression();
    for (words, choice, level) in [
        ("-re.v", Choice::Off, None),
        ("-rze.v", Choice::Negotiated, None),
        ("-re.v --compress-level=0", Choice::Negotiated, Some(0)),
        ("-rze.v --compress-level=999999999", Choice::Negotiated, Some(999_999_999)),
        ("-rze.v --old-compress", Choice::Named(Method::Zlib), None),
        ("-re.v --new-compress", Choice::Named(Method::Zlibx), None),
        ("-re.v --compress-level=-5 --compress-choice=zstd", Choice::Named(Method::Zstd), Some(-5)),
        ("-re.v --compress-choice=none", Choice::Off, None),
    ] {
        assert_eq!(wish(words), Wish { choice, level }, "{words}");
    }
}

#[test]
fn what_we_do_not_know_is_refused_by_name() {
    assert_eq!(parse("--server -re. --inplace --bogus . d"), Err(ArgsError::Unsupported("--bogus".into())));
    for line in [
        "--server -re. --confine-root=x . d",
        "--confine-root / --insecure-links --server -re. . d",
        "-re. . d",
        "--server -re.",
        "--server -re. . a b",
        "--server -re. .",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(parse("--server -re. --compress-choice=zip . d").is_err());
    assert!(parse("--server -re. -B0 . d").is_err() && parse("--server -re. -B999999 . d").is_err());
}

#[test]
fn no_bundle_is_written_where_there_is_no_letter() {
    let args = ServerArgs { old: true, paths: vec![b"d/".to_vec()], ..ServerArgs::default() };
    assert_eq!(args.to_words(), [&b"--server"[..], b".", b"d/"]);
}

#[test]
fn what_we_write_we_understand() {
    for sender in [false, true] {
        let mut options = Options::default();
        for option in table::ALL.iter().filter(|option| option.told.hears(sender)) {
            match option.field {
                Field::Flag(flag) => *flag(&mut options) = true,
                Field::Count(count) => *count(&mut options) = 2,
                Field::Text(_) | Field::Dir(_) | Field::Word(..) | Field::Value(..) => {}
            }
        }
        (options.devices, options.compress) = (true, true);
        let mut args = ServerArgs {
            sender,
            options,
            capabilities: CAPABILITIES.into(),
            paths: vec![b"-a b".to_vec()],
            ..ServerArgs::default()
        };
        let options = &mut args.options;
        options.specials = true;
        options.checksum_choice = Some((Checksum::Md5, Checksum::Sha1));
        (options.checksum_seed, options.block_length, options.timeout) = (Some(-7), Some(900), Some(60));
        (options.max_alloc, options.bwlimit, options.append) = (Some(1 << 30), Some(1500), 2);
        (options.backup_dir, options.suffix) = (Some(b"~/old".to_vec()), Some(b".o".to_vec()));
        (options.compress_level, options.files_from) = (Some(-3), Some(b"-".to_vec()));
        options.iconv = Some(b"latin1".to_vec());
        if !sender {
            (options.detail, options.modify_window, options.delete) = (ItemDetail::All, -1, Some(DeleteWhen::Delay));
            (options.max_delete, options.min_size, options.max_size) = (Some(0), Some(1), Some(1 << 40));
            (options.partial_dir, options.temp_dir) = (Some(b".p".to_vec()), Some(b"/t".to_vec()));
            options.alt_kind = Some(AltKind::Copy);
            options.alt_dirs = vec![b"../a".to_vec(), b"b".to_vec()];
            (options.usermap, options.groupmap) = (Some(b"*:root".to_vec()), Some(b"1-9:g".to_vec()));
            options.super_user = Some(true);
        }
        for choice in [None, Some(&b"zlib"[..]), Some(b"zlibx"), Some(b"zstd")] {
            args.options.compress_choice = choice.map(<[u8]>::to_vec);
            let incremental = if sender { args.options.takes_segments() } else { args.options.sends_segments() };
            args.capabilities = [if incremental { "i" } else { "" }, CAPABILITIES].concat().into();
            assert_eq!(ServerArgs::parse_any(&args.to_words(), &mut unknown), Ok(args.clone()));
        }
    }
}

#[test]
fn values_stand_behind_an_equals_sign_or_alone() {
    let args = ServerArgs::parse_any(
        &"--server -re. --backup-dir=b --temp-dir t --max-delete=-1 . d".split(' ').collect::<Vec<_>>(),
        &mut unknown,
    );
    let options = args.unwrap().options;
    assert_eq!((options.backup_dir, options.temp_dir), (Some(b"b".to_vec()), Some(b"t".to_vec())));
    assert_eq!(options.max_delete, Some(0));
    for line in
        ["--server -re. --temp-dir", "--server -re. --max-size=9x . d", "--server -re. --link-dest=a --copy-dest=b . d"]
    {
        assert!(ServerArgs::parse_any(&line.split(' ').collect::<Vec<_>>(), &mut unknown).is_err(), "{line}");
    }
}
