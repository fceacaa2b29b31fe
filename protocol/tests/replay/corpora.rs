//! Recorded sessions, and some texts, for each target to begin with.

use super::case::{self, Case};
use super::machines;
use super::session::Session;
use super::setup::Setup;
use super::streams::{Piece, Sent, Streams};
use protocol::mux::Outbox;
use protocol::token::TokenWriter;
use std::fs;
use std::path::Path;

/// Writes an input: for which target, under which name, the parts it has.
type Write<'w> = &'w dyn Fn(&str, &str, &[&[u8]]);

/// Writes them into a folder for each target.
pub(crate) fn write(folder: &Path) {
    let write = |target: &str, name: &str, parts: &[&[u8]]| {
        let at = folder.join(target);
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join(name), parts.concat()).unwrap();
    };
    for case in case::all() {
        let (name, session) = (&case.name, Session::new(&case));
        let words: Vec<u8> = case.words.iter().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
        write("arguments", name, &[&[0], &words]);
        write("handshake", &format!("{name}-client"), &[&[8 | 4, 5, 255], &case.s2c]);
        write("handshake", &format!("{name}-server"), &[&[8 | 4 | 1, 5, 255], &case.c2s]);
        write("mux", name, &[&[255], &case.s2c[session.s2c_raw..]]);
        write_session(&case, &session, &write);
    }
    for (name, text) in [
        ("greeting", "\u{ff}@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n@RSYNCD: AUTHREQD abc\n@RSYNCD: OK\n"),
        (
            "request",
            "\u{0}@RSYNCD: 31.0\nmodule\nuser answer\n--server\0--sender\0-vlogDtpre.iLsfxCIvu\0.\0module/x\0\0",
        ),
        ("motd", "\u{ff}@RSYNCD: 30.0\nhello\nmodule\ta comment\n@ERROR: no\n@RSYNCD: EXIT\n"),
    ] {
        write("daemon", name, &[text.as_bytes()]);
    }
    let rules = "+ /a/**\n- *.[ch]\n:e .filter\n. other\nP keep?\nR x\n!\n-x user.*\n-s,!/ /b\nhide c\n";
    write("filters", "rules", &[&[0, 2], b"ab", rules.as_bytes()]);
    write("filters", "excludes", &[&[1 | 4, 9], b"dir/", b"*.o\n+ /x\n[a-z]/**/y\n"]);
    write("texts", "chmod", &[b"u=rwX,go-w,D2775,Fa+x"]);
    write("texts", "size", &[b"1.5KiB+1"]);
    write(
        "delta",
        "shifted",
        &[&[128, 8, 30], &[b"abcdefghijklmnop".repeat(8), b"xabcdefghijklmnop".repeat(8)].concat()],
    );
    write("names", "list", &[&[0], b"a\0b/../c\0/d//e/.\0"]);
}

fn write_session(case: &Case, session: &Session, write: Write<'_>) {
    if !machines::playable(session) {
        return;
    }
    let (to_server, to_client) = (&case.c2s[session.c2s_raw..], &case.s2c[session.s2c_raw..]);
    let server_sends = session.words.server_sends;
    let (asked, sent) = if server_sends { (to_server, to_client) } else { (to_client, to_server) };
    let shape = session.words.shape(session.n.list_checksum);
    let dry_run = u8::from(session.words.has('n')) << 1;
    let sender = u8::from(server_sends) | dry_run | u8::from(session.words.has('X')) << 2;
    let receiver = u8::from(!server_sends) | dry_run;
    let head = |flags| Setup { n: session.n, shape, flags, chunk: 4000 }.bytes();
    let (Some(sending), Some(receiving)) = (head(sender), head(receiver)) else { return };
    write("sender", &case.name, &[&sending, asked]);
    write("receiver", &case.name, &[&receiving, sent]);
    let (stream, start) = session.sending();
    let payload = &stream.payload[start..];
    write("segments", &case.name, &[&receiving, payload]);
    write("lists", &case.name, &[&receiving, payload]);
    let (asking, start) = session.receiving();
    write("heads", &case.name, &[&sending, &asking.payload[start..]]);
    write("tokens", &case.name, &[&receiving, &[255], &data_of_files(case, session)]);
}

/// The tokens of its files, one behind the other.
fn data_of_files(case: &Case, session: &Session) -> Vec<u8> {
    let mut out = Outbox::new();
    let mut tokens = TokenWriter::new(&session.n);
    for sent in Streams::new(case, session).sent {
        let Sent::File(.., pieces, _) = sent else { continue };
        tokens.begin(false);
        for piece in pieces {
            match piece {
                Piece::Literal(bytes) => tokens.literal(&bytes, &mut out).unwrap(),
                Piece::Copy(block) => tokens.copy(block, &[7; 700], &mut out).unwrap(),
            }
        }
        tokens.end(&mut out).unwrap();
    }
    out.bytes().to_vec()
}
