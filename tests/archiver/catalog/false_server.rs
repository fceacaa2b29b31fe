//! A server of MySQL that is none, or is somebody else's: what it may ask for, and what it may answer.

use crate::support::archiver::{Place, Run};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const QUERY: u8 = 3;
const PREPARE: u8 = 22;
const EXECUTE: u8 = 23;

/// Protocol 10, connection 1; all that a server of today can, but TLS; authentication by this method.
pub(super) fn greeting(method: &str) -> Vec<u8> {
    let mut greeting = b"\x0a8.0.36\0\x01\0\0\0saltsalt\0\xff\xf7\xff\x02\0\xff\xc1\x15".to_vec();
    greeting.extend([0; 10]);
    greeting.extend(b"saltsaltsalt\0");
    greeting.extend(method.bytes().chain([0]));
    packet(0, &greeting)
}

fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..3], &[number], body].concat()
}

/// A column, or a parameter, of this type.
fn column(of: u8) -> Vec<u8> {
    let names: Vec<u8> =
        ["def", "", "", "", "c", ""].iter().flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect();
    [&names[..], &[0x0c, 63, 0, 0, 4, 0, 0, of, 0, 0, 0, 0, 0]].concat()
}

/// What is answered to a kind of command, in place of what is right.
#[derive(Clone)]
struct Lie {
    to: u8,
    packets: Vec<Vec<u8>>,
}

/// Lets everybody in, answers one kind of command with lies, and leaves. Gives all that it was told.
fn serve(listener: TcpListener, lie: &Lie, heard: &Mutex<Vec<u8>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let (lie, mut told) = (lie.clone(), Vec::new());
        thread::scope(|scope| scope.spawn(|| drop(attend(stream, &lie, &mut told))).join().unwrap());
        heard.lock().unwrap().extend(told);
    }
}

fn attend(mut stream: TcpStream, lie: &Lie, told: &mut Vec<u8>) -> io::Result<()> {
    const FINE: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    stream.write_all(&greeting("mysql_native_password"))?;
    let mut first = true;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        stream.read_exact(&mut body)?;
        told.extend_from_slice(&body);
        let command = body.first().copied().unwrap_or_default();
        let mut answers = vec![FINE.to_vec()];
        if std::mem::take(&mut first) {
            answers = vec![FINE.to_vec()];
        } else if command == lie.to {
            answers.clone_from(&lie.packets);
        } else if command == PREPARE {
            let count = body.iter().filter(|byte| **byte == b'?').count();
            answers = vec![[&[0, 1, 0, 0, 0, 0, 0, count as u8, 0, 0, 0, 0][..]].concat()];
            answers.extend((0..count).map(|_| column(0xfd)));
        }
        let number = if command == lie.to || head[3] == 0 { 1 } else { head[3] + 1 };
        for (at, answer) in answers.iter().enumerate() {
            stream.write_all(&packet(number.wrapping_add(at as u8), answer))?;
        }
        if command == lie.to && head[3] == 0 {
            // What comes after it is heard, and nothing more is said.
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(told)?;
            return Ok(());
        }
    }
}

/// What the program makes of such a server, and what that was told.
fn checked(place: &Place, lie: Lie) -> (Option<i32>, String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    thread::spawn(move || serve(listener, &lie, &hears));
    let mut command = place.program();
    command.args(["check", "--target", "m", "--data-dir"]).arg(place.archive());
    command.arg(format!("--db=mysql://u@127.0.0.1:{port}/files"));
    let over = Run::to_end(command);
    let heard = heard.lock().unwrap().clone();
    (over.status.code(), over.log, heard)
}

#[test]
fn a_false_server_gets_no_file_and_ends_nothing() {
    let place = Place::make();
    let secret = place.path("secret");
    fs::write(&secret, "for nobody's eyes").unwrap();
    let asks = [&b"\xfb"[..], secret.to_str().unwrap().as_bytes()].concat();
    let row = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let end = vec![0xfe, 0, 0, 2, 0, 0, 0];
    let lies: Vec<Vec<Vec<u8>>> = vec![
        vec![asks],
        vec![vec![0xff]],
        vec![vec![0xff; 40]],
        vec![vec![0xfe]],
        vec![vec![]],
        vec![vec![0]],
        vec![vec![0, 0xff, 0xff]],
        vec![vec![0xfc, 0xff, 0xff]],
        vec![vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
        vec![vec![3], vec![9; 5], vec![], vec![0xff; 9]],
        vec![vec![1], column(0xfd), row("words where a number is due"), end.clone()],
        vec![vec![1], column(8), row("words where a number is due"), end.clone()],
        vec![vec![1], column(0xfd), vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], end.clone()],
        vec![vec![1], column(0xf6), vec![0xfb], end.clone()],
        vec![vec![2], column(12), column(7), vec![0, 0, 4, 1, 2], end],
        vec![vec![0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]],
    ];
    let wrong: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        for to in [QUERY, PREPARE, EXECUTE] {
            let (place, lies, wrong) = (&place, &lies, &wrong);
            scope.spawn(move || {
                for packets in lies {
                    let (code, said, heard) = checked(place, Lie { to, packets: packets.clone() });
                    let told = String::from_utf8_lossy(&heard).contains("nobody's eyes");
                    if code != Some(1) || told {
                        wrong.lock().unwrap().push(format!("{to} {packets:02x?}: {code:?} {said}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
