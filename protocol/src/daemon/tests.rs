use super::args::{ARG_BYTES_MOST, ARGS_MOST};
use super::lines::LINE_MOST;
use super::*;
use proptest::prelude::*;

fn server_events(bytes: &[u8], chunk: usize) -> Result<(Vec<ServerEvent>, Vec<u8>), PeerError> {
    let mut server = Server::new();
    let mut events = Vec::new();
    for bytes in bytes.chunks(chunk.max(1)) {
        server.feed(bytes);
        while let Some(event) = server.poll()? {
            match &event {
                ServerEvent::Module(name) if name == b"secret" => server.challenge(),
                ServerEvent::Module(_) | ServerEvent::Response { .. } => server.accept(),
                _ => {}
            }
            events.push(event);
        }
    }
    Ok((events, server.into_rest()))
}

fn client_events(bytes: &[u8], chunk: usize) -> Result<(Vec<ClientEvent>, Vec<u8>), PeerError> {
    let mut client = Client::new();
    let mut events = Vec::new();
    for bytes in bytes.chunks(chunk.max(1)) {
        client.feed(bytes);
        while let Some(event) = client.poll()? {
            events.push(event);
        }
    }
    Ok((events, client.into_rest()))
}

const GREETING: &[u8] = b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n";

fn greeting() -> Greeting {
    Greeting { version: 31, digests: Some(AuthDigest::ALL.to_vec()) }
}

#[test]
fn a_pull_is_understood_however_it_is_split() {
    let bytes = [GREETING, b"mod\n--server\0--sender\0-logDtpre.iLsfxCIvu\0.\0mod/\0\0\x1exx"].concat();
    for chunk in 1..=bytes.len() {
        let (events, rest) = server_events(&bytes, chunk).unwrap();
        let args: Vec<_> = ["--server", "--sender", "-logDtpre.iLsfxCIvu", ".", "mod/"].map(Vec::from).to_vec();
        let module = ServerEvent::Module(b"mod".to_vec());
        assert_eq!(events, [ServerEvent::Greeted(greeting()), module, ServerEvent::Args(args)], "{chunk}");
        assert_eq!(rest, b"\x1exx");
    }
}

#[test]
fn a_client_of_29_ends_its_arguments_with_lines() {
    let bytes = b"@RSYNCD: 29.0\nmod\n--server\n--sender\n-logDtpr\n.\nmod/\n\n\0\0\0\0";
    for chunk in [1, 3, bytes.len()] {
        let (events, rest) = server_events(bytes, chunk).unwrap();
        let args: Vec<_> = ["--server", "--sender", "-logDtpr", ".", "mod/"].map(Vec::from).to_vec();
        assert_eq!(events.last(), Some(&ServerEvent::Args(args)));
        assert_eq!(rest, [0; 4]);
    }
}

#[test]
fn secluded_arguments_are_joined() {
    let bytes = [GREETING, b"mod\n--server\0--sender\0-slogDtpre.iLsfxCIvu\0\0rsync\0.\0mod/\0\0\x1e"].concat();
    for chunk in [1, 7, bytes.len()] {
        let (events, rest) = server_events(&bytes, chunk).unwrap();
        let args: Vec<_> = ["--server", "--sender", "-slogDtpre.iLsfxCIvu", ".", "mod/"].map(Vec::from).to_vec();
        assert_eq!(events.last(), Some(&ServerEvent::Args(args)));
        assert_eq!(rest, b"\x1e");
    }
    // As stock rsync 3.5.0 writes them at 29.
    let bytes = b"@RSYNCD: 29.0 md5\nmod\n--server\n-slogDtpr\n(null)\n.\nmod/d/\n\nrsync\0.\0mod/d/\0\0\0\0\0\0";
    let (events, rest) = server_events(bytes, 5).unwrap();
    let args: Vec<_> = ["--server", "-slogDtpr", ".", "mod/d/"].map(Vec::from).to_vec();
    assert_eq!((events.last(), &rest[..]), (Some(&ServerEvent::Args(args)), &[0; 4][..]));
    // The letters behind `e` are capabilities, and paths are no options.
    assert!(!ArgList::is_secluded(&["--server", "-le.Lsf", ".", "-s"]));
    assert!(ArgList::is_secluded(&["--server", "-vse.Lf"]));
}

#[test]
fn early_input_is_taken_before_the_module() {
    let bytes = [GREETING, b"#early_input=17\nearly-input-\ndata\nmod\n"].concat();
    let (events, _) = server_events(&bytes, 5).unwrap();
    assert_eq!(events[1], ServerEvent::EarlyInput(b"early-input-\ndata".to_vec()));
    let bytes = [GREETING, b"#early_input=17\nearly-input-data\nmod\n"].concat();
    let (events, _) = server_events(&bytes, 5).unwrap();
    assert_eq!(events[2], ServerEvent::Module(b"mod".to_vec()));
    for bad in ["#early_input=5121\n", "#early_input=-1\n", "#early_input=\n", "#early_input=1\nx#early_input=1\nx"] {
        assert!(server_events(&[GREETING, bad.as_bytes()].concat(), 9).is_err(), "{bad}");
    }
}

#[test]
fn a_client_hears_motd_list_and_end() {
    let text = b"welcome\n\nmod            \tthe public module\n@RSYNCD: EXIT\n";
    for chunk in [1, 3, 500] {
        let (events, _) = client_events(&[GREETING, text].concat(), chunk).unwrap();
        let text = |text: &str| ClientEvent::Text(text.into());
        let listing = text("mod            \tthe public module");
        let expected = [ClientEvent::Greeted(greeting()), text("welcome"), text(""), listing, ClientEvent::Exit];
        assert_eq!(events, expected);
    }
}

#[test]
fn a_client_keeps_what_follows_the_ok() {
    let bytes = [GREETING, b"@RSYNCD: AUTHREQD abc/+\n@RSYNCD: OK\n\x81\xff@RSYNCD: OK\n"].concat();
    let (events, rest) = client_events(&bytes, 4).unwrap();
    assert_eq!(events[1..], [ClientEvent::Challenge(b"abc/+".to_vec()), ClientEvent::Accepted]);
    assert_eq!(rest, b"\x81\xff@RSYNCD: OK\n");
    let (events, _) = client_events(&[GREETING, b"@ERROR: no\r\nmore\n"].concat(), 400).unwrap();
    assert_eq!(events[1..], [ClientEvent::Refused(b"@ERROR: no".to_vec())]);
}

#[test]
fn answers_are_those_of_stock() {
    // Recorded between two stock rsyncs of 3.2.7.
    let challenge = b"uFH+zDehTSgcjJMqBylokFsuGym8nXHUbz67OLCZObSLjhU4PUt71ucL5P8Fo9dfqnTuOVqFB1mVRIUnvmidPQ";
    let recorded = "rzl10KZz2yV1n3H227zb7cx5vW+BJlZNvPIqOi8g+HvoV21LU2kZymFH4SZ4P2UztsF39FwEeew8Qd9JTMi78w";
    assert_eq!(AuthDigest::Sha512.answer(b"s3cret", challenge), recorded);
    let answer = |digest: AuthDigest| digest.answer(b"pw", b"challenge");
    for (digest, len) in AuthDigest::ALL.into_iter().zip([86, 43, 27, 22, 22]) {
        assert_eq!(answer(digest).len(), len, "{digest:?}");
        assert_eq!(AuthDigest::from_name(digest.name()), Some(digest));
        assert!(matches(answer(digest).as_bytes(), answer(digest).as_bytes()));
        assert!(!matches(answer(digest).as_bytes(), &answer(digest).as_bytes()[1..]));
    }
    assert_eq!(AuthDigest::Md5.answer(b"", b""), "1B2M2Y8AsgTpgAmY7PhCfg");
    // Stock's daemon of 3.5.0 takes this from a client that greets with `@RSYNCD: 29`.
    assert_eq!(AuthDigest::OldMd4.answer(b"s3cret", b"abc"), AuthDigest::Md4.answer(b"\0\0\0\0s3cret", b"abc"));
}

#[test]
fn greetings_good_and_bad() {
    let version = |line: &str| Greeting::parse(line.as_bytes()).map(|greeting| greeting.version);
    for (line, expected) in [
        ("@RSYNCD: 27", 27),
        ("@RSYNCD: 29", 29),
        ("@RSYNCD: 30", 30),
        ("@RSYNCD: 31.0", 31),
        ("@RSYNCD: 32.0 md5", 32),
        ("@RSYNCD: 32.14 md5", 31),
        ("@RSYNCD: 33.0 blake9 md5", 33),
    ] {
        assert_eq!(version(line), Ok(expected), "{line}");
    }
    for line in [
        "",
        "@RSYNCD:",
        "@RSYNCD: ",
        "@RSYNCD: x",
        "@RSYNCD: -31.0",
        "@RSYNCD: 26.0 md5",
        "@RSYNCD: 41.0 md5",
        "@RSYNCD: 999999999999999999999.0",
        "@RSYNCD: 31.999999999",
        "@RSYNCD: 32.0",
        "SSH-2.0-OpenSSH_9.2",
        "HTTP/1.1 400 Bad Request",
    ] {
        assert!(version(line).is_err(), "{line}");
    }
    assert_eq!(Greeting::parse(b"@RSYNCD: 31.0").unwrap().digest(32), Some(AuthDigest::Md5));
    assert_eq!(Greeting::parse(b"@RSYNCD: 31.0 md4 sha1").unwrap().digest(32), Some(AuthDigest::Sha1));
    assert_eq!(Greeting::parse(b"@RSYNCD: 31.0 foo").unwrap().digest(32), None);
    // Nothing is listed where the lower version knows no list, whoever of the two has it.
    assert_eq!(Greeting::parse(b"@RSYNCD: 29").unwrap().digest(32), Some(AuthDigest::OldMd4));
    assert_eq!(Greeting::parse(b"@RSYNCD: 31.0").unwrap().digest(28), Some(AuthDigest::OldMd4));
    assert_eq!(Greeting::parse(b"@RSYNCD: 29.0 sha1 md4").unwrap().digest(32), Some(AuthDigest::Sha1));
    assert_eq!(Greeting::parse(b"@RSYNCD: 33.0 md5").unwrap().agreed(31), 31);
    assert_eq!(Greeting::parse(&Greeting::line(31)[..GREETING.len() - 1]), Ok(greeting()));
    assert_eq!(Greeting::line(31), GREETING);
}

#[test]
fn what_has_no_end_is_cut() {
    let long = vec![b'x'; LINE_MOST + 1];
    assert!(server_events(&long, 1000).is_err());
    assert!(server_events(&[GREETING, &long].concat(), 1000).is_err());
    assert!(client_events(&[GREETING, &long].concat(), 1000).is_err());
    let many = b"a\0".repeat(ARGS_MOST + 1);
    assert!(server_events(&[GREETING, b"mod\n", &many].concat(), 4096).is_err());
    let big = vec![b'x'; ARG_BYTES_MOST + 1];
    assert!(server_events(&[GREETING, b"mod\n", &big].concat(), 4096).is_err());
    let motd = b"\n".repeat(200_000);
    assert!(client_events(&[GREETING, &motd].concat(), 4096).is_err());
    for bytes in [&b"mod\0\n"[..], b"#foo\n"] {
        assert!(server_events(&[GREETING, bytes].concat(), 3).is_err());
    }
    assert!(server_events(&[GREETING, b"secret\nno-answer\n"].concat(), 3).is_err());
}

proptest! {
    /// Whatever comes, the split of the bytes changes nothing, and nothing panics.
    #[test]
    fn noise_is_heard_alike(
        greeted in any::<bool>(),
        noise in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0u8), Just(b' '), Just(b'#'), Just(b'-'), any::<u8>()], 0..200),
        chunk in 1usize..40,
    ) {
        let bytes = if greeted { [GREETING, b"secret\n", &noise].concat() } else { noise };
        prop_assert_eq!(server_events(&bytes, chunk), server_events(&bytes, usize::MAX));
        prop_assert_eq!(client_events(&bytes, chunk), client_events(&bytes, usize::MAX));
    }
}
