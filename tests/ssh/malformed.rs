//! Packets that nobody vouches for: before the host key is looked at, whoever answers may send what it likes.

use crate::SOON;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use pysmurf_archiver::transport::ssh::Ssh;
use pysmurf_archiver::transport::{Connect, ConnectError};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The message that ends the plain part of a connection.
const NEW_KEYS: u8 = 21;

/// What is done to a packet's first four bytes, its length.
type Change = fn([u8; 4]) -> [u8; 4];

/// Passes on what the server says, with the length of one packet changed: of its first, or of the first encrypted one.
fn passed_on(from: &mut TcpStream, to: &mut TcpStream, encrypted: bool, change: Change) -> io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        from.read_exact(&mut byte)?;
        to.write_all(&byte)?;
    }
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        if !encrypted {
            to.write_all(&change(length))?;
            break;
        }
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut packet)?;
        to.write_all(&[&length[..], &packet].concat())?;
        if packet[1] == NEW_KEYS {
            from.read_exact(&mut length)?;
            to.write_all(&change(length))?;
            break;
        }
    }
    io::copy(from, to).map(drop)
}

/// What comes of a login when somebody in the way changes a length.
fn login_through(sshd: &Sshd, cipher: &str, encrypted: bool, change: Change) -> ConnectError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = sshd.options();
    options.port = Some(listener.local_addr().unwrap().port());
    options.ciphers = vec![cipher.to_owned()];
    options.connect_timeout = Duration::from_secs(2);
    let server_port = sshd.port;
    let relay = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let upward = thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(std::net::Shutdown::Both);
        });
        let _ = passed_on(&mut server, &mut client, encrypted, change);
        let _ = client.shutdown(std::net::Shutdown::Both);
        upward.join().unwrap();
    });
    let error = Ssh::new(options).unwrap().run(&["true".into()]).unwrap_err();
    relay.join().unwrap();
    error
}

#[test]
fn a_length_that_no_packet_has_is_an_error() {
    let to: [Change; 8] = [
        |_| [0, 0, 0, 0],
        |_| [0, 0, 0, 1],
        |_| [0, 0, 0, 2],
        |_| [0, 0, 0, 13],
        |_| [0, 0, 0x88, 0x01],
        |_| [0xff; 4],
        |length| [length[0], length[1], length[2], length[3] ^ 1],
        |length| [length[0], length[1], length[2], length[3] ^ 8],
    ];
    for (cipher, mac) in [
        ("aes256-ctr", "hmac-sha2-256"),
        ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
        ("aes128-gcm@openssh.com", "hmac-sha2-256"),
        ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ] {
        let Some(sshd) = Sshd::start(&format!("Ciphers {cipher}\nMACs {mac}")) else { return };
        thread::scope(|scope| {
            for (n, change) in to.into_iter().enumerate() {
                for encrypted in [false, true] {
                    let sshd = &sshd;
                    scope.spawn(move || {
                        let error = login_through(sshd, cipher, encrypted, change);
                        let lost = matches!(error, ConnectError::Lost { .. } | ConnectError::Timeout { .. });
                        assert!(lost, "{cipher} {mac}, {n}, encrypted {encrypted}: {error}");
                    });
                }
            }
        });
        assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
    }
}

/// Speaks SFTP, and answers one kind of request as no server does, in each session another way; then it leaves.
const FALSE_FILES: &str = r#"
import itertools, os, struct, sys

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, OPENDIR, REALPATH, STAT, EXTENDED = 1, 2, 3, 4, 5, 6, 7, 11, 16, 17, 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
KINDS = {
    INIT: [VERSION], OPEN: [HANDLE, STATUS], CLOSE: [STATUS], READ: [DATA, STATUS], WRITE: [STATUS], LSTAT: [ATTRS],
    REALPATH: [NAME], EXTENDED: [EXTENDED_REPLY, STATUS],
}
BODIES = [b"", b"\xff" * 4, b"\xff" * 40, b"\x7f\xff\xff\xff" + bytes(16), b"\0\0\1\1" + b"h" * 257, b"\0\0\0\1" + b"\xff" * 7]


def frame(kind, body):
    return struct.pack(">IB", 1 + len(body), kind) + body


def cases():
    for where, kinds in KINDS.items():
        for kind, body in itertools.product(kinds, BODIES):
            yield where, lambda id, kind=kind, body=body: frame(kind, id + body)
        yield where, lambda id: b"\xff\xff\xff\xff" + b"e" + id
        yield where, lambda id: b"\x7f\xff\xff\xff" + b"e" + id
        yield where, lambda id: bytes(4)
        yield where, lambda id: frame(STATUS, b"")
        yield where, lambda id: b"".join(frame(STATUS, struct.pack(">II", n, 0) + bytes(8)) for n in range(5000, 9000))
    yield READ, lambda id: frame(DATA, id + struct.pack(">I", 100_000) + b"m" * 100_000)


CASES = list(cases())
if sys.argv[1] == "count":
    sys.exit(print(len(CASES)))
# Each session is another case.
for number in itertools.count():
    try:
        os.mkdir(os.path.join(sys.argv[1], str(number)))
        break
    except FileExistsError:
        pass
where, answer = CASES[number % len(CASES)]
said, heard = sys.stdout.buffer, sys.stdin.buffer
attrs = struct.pack(">IQI", 5, 50_000, 0o100600)
honest = {
    OPEN: (HANDLE, struct.pack(">I", 1) + b"h"), OPENDIR: (HANDLE, struct.pack(">I", 1) + b"d"),
    LSTAT: (ATTRS, attrs), STAT: (ATTRS, attrs), REALPATH: (NAME, struct.pack(">II", 1, 1) + b"/" + bytes(8)),
    EXTENDED: (STATUS, struct.pack(">I", 8) + bytes(8)),
}
while len(head := heard.read(4)) == 4:
    body = heard.read(struct.unpack(">I", head)[0])
    kind, id = body[0], body[1:5]
    if kind == where:
        said.write(answer(b"" if kind == INIT else id))
        said.flush()
        break
    if kind == INIT:
        said.write(frame(VERSION, struct.pack(">I", 3)))
    elif kind == READ:
        offset, length = struct.unpack(">QI", body[-12:])
        count = max(0, min(50_000 - offset, length, 30_000))
        end = (STATUS, struct.pack(">I", 1) + bytes(8))
        answered, text = (DATA, struct.pack(">I", count) + b"x" * count) if count else end
        said.write(frame(answered, id + text))
    else:
        answered, text = honest.get(kind, (STATUS, bytes(12)))
        said.write(frame(answered, id + text))
    said.flush()
"#;

/// What goes wrong where a server of files is asked for everything that we ask of one.
fn asked_for_all(sshd: &Sshd) -> Vec<String> {
    let mut options = sshd.options();
    (options.connect_timeout, options.stall_timeout) = (Duration::from_secs(20), Duration::from_secs(3));
    let mut sftp = match Ssh::new(options).unwrap().sftp() {
        Ok(sftp) => sftp,
        Err(error) => return vec![error.to_string()],
    };
    let path = Path::new("/file");
    let mut bytes = vec![b'y'; 200_000];
    let mut next = |buffer: &mut [u8]| {
        let n = buffer.len().min(bytes.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        bytes.drain(..n);
        Ok(n)
    };
    let done = [
        sftp.home().map(drop),
        sftp.stat(path).map(drop),
        sftp.create(path, 0o600, &mut next).map(drop),
        sftp.read(path, &mut |bytes| assert!(!bytes.contains(&0), "bytes that nobody sent")).map(drop),
    ];
    let room = if sftp.room(path).is_none() { Some("It does not say what room there is".to_owned()) } else { None };
    done.into_iter().filter_map(|done| done.err().map(|error| error.to_string())).chain(room).collect()
}

#[test]
fn answers_that_no_server_of_files_gives_are_errors() {
    if !require("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("files.py");
    fs::write(&script, FALSE_FILES).unwrap();
    let count = Command::new("python3").arg(&script).arg("count").output().unwrap();
    let count: usize = String::from_utf8(count.stdout).unwrap().trim().parse().unwrap();
    let sessions = folder.path().join("sessions");
    fs::create_dir(&sessions).unwrap();
    let forced = format!("ForceCommand python3 {} {}", script.display(), sessions.display());
    let Some(sshd) = Sshd::start(&format!("Subsystem sftp internal-sftp\n{forced}")) else { return };
    thread::scope(|scope| {
        for at in 0..6 {
            let sshd = &sshd;
            scope.spawn(move || {
                for _ in (at..count).step_by(6) {
                    let began = Instant::now();
                    let wrong = asked_for_all(sshd);
                    assert!(!wrong.is_empty() && began.elapsed() < SOON, "{wrong:?} after {:?}", began.elapsed());
                }
            });
        }
    });
    assert_eq!(fs::read_dir(&sessions).unwrap().count(), count);
}
