//! Packets that nobody vouches for: before the host key is looked at, whoever answers may send what it likes.

use crate::support::sshd::Sshd;
use pysmurf_archiver::transport::ssh::Ssh;
use pysmurf_archiver::transport::{Connect, ConnectError};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

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
