//! An SSH server that does its key exchange right, lets everybody in, and at one moment does as it is told instead.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use openssl::derive::Deriver;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::Sha256;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Messages, by their numbers.
pub mod message {
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const ECDH_INIT: u8 = 30;
    pub const ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    /// For other ways to log in it is a request for information.
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
    /// Nobody's.
    pub const UNKNOWN: u8 = 192;
}
use message::*;

/// When the server stops to be honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the message that ends the plain part.
    BeforeNewKeys,
    /// Behind it, before anything is asked.
    AfterNewKeys,
    /// At each attempt to log in, in the place of an answer.
    Login,
    /// At each channel that is to be opened, in the place of an answer.
    Open,
    /// Behind the answer that the program was started that is asked for its version.
    Version,
    /// Behind the answer that a command was started, having told its version.
    Command,
    /// Behind the answer that SFTP was started, where no command is known.
    Sftp,
}

/// What the server does then; it may be done each time, and its end by an error is that of the connection.
pub type Deed = dyn Fn(&mut Wire, &[u8]) -> io::Result<()> + Send + Sync;

/// What a client may rely on, but for one moment.
pub struct FalseServer {
    pub port: u16,
    /// How often it came to that moment.
    pub reached: Arc<AtomicUsize>,
    /// Of how many connections on which it did the client is gone.
    pub left: Arc<AtomicUsize>,
    host_key: PKey<Private>,
}

impl FalseServer {
    /// `strict`: it offers the strict key exchange.
    pub fn start(moment: Moment, strict: bool, deed: Arc<Deed>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host_key = PKey::private_key_from_raw_bytes(&[7; 32], Id::ED25519).unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(0));
        let server = Self { port, reached: reached.clone(), left: left.clone(), host_key: host_key.clone() };
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let (host_key, deed) = (host_key.clone(), deed.clone());
                let (reached, left) = (reached.clone(), left.clone());
                thread::spawn(move || {
                    let lie = Lie { moment, reached, told: Cell::new(false), deed };
                    // However it ends: it is the client that is looked at.
                    let _ = Wire::greet(tcp, host_key, strict).and_then(|mut wire| lie.serve(&mut wire));
                    left.fetch_add(lie.told.get().into(), Relaxed);
                });
            }
        });
        server
    }

    /// The line for a known hosts file.
    pub fn known_hosts_line(&self) -> String {
        format!("[127.0.0.1]:{} ssh-ed25519 {}\n", self.port, BASE64_STANDARD.encode(blob(&self.host_key)))
    }
}

struct Lie {
    moment: Moment,
    reached: Arc<AtomicUsize>,
    told: Cell<bool>,
    deed: Arc<Deed>,
}

impl Lie {
    fn tell(&self, wire: &mut Wire, said: &[u8]) -> io::Result<()> {
        self.reached.fetch_add(1, Relaxed);
        self.told.set(true);
        (self.deed)(wire, said)
    }

    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        wire.exchange(|wire| match self.moment {
            Moment::BeforeNewKeys => self.tell(wire, &[]),
            _ => Ok(()),
        })?;
        if self.moment == Moment::AfterNewKeys {
            self.tell(wire, &[])?;
        }
        loop {
            let said = wire.hear()?;
            match said[0] {
                SERVICE_REQUEST => wire.send(&[&[SERVICE_ACCEPT][..], &string(b"ssh-userauth")].concat())?,
                USERAUTH_REQUEST if self.moment == Moment::Login => self.tell(wire, &said)?,
                USERAUTH_REQUEST => wire.send(&[USERAUTH_SUCCESS])?,
                CHANNEL_OPEN if self.moment == Moment::Open => self.tell(wire, &said)?,
                CHANNEL_OPEN => wire.confirm(&said, 1 << 20, 32768)?,
                CHANNEL_REQUEST => self.request(wire, &said)?,
                _ => {}
            }
        }
    }

    /// A channel bears the same number on both sides.
    fn request(&self, wire: &mut Wire, said: &[u8]) -> io::Result<()> {
        let channel = &said[1..5];
        let of = |kind: &[u8]| said[5..].starts_with(&string(kind));
        wire.send(&[&[CHANNEL_SUCCESS][..], channel].concat())?;
        let asks_version = said.windows(9).any(|part| part == b"--version");
        let moment = match (of(b"exec"), asks_version) {
            (true, true) => Moment::Version,
            (true, false) => Moment::Command,
            (false, _) => Moment::Sftp,
        };
        if moment == self.moment {
            return self.tell(wire, said);
        }
        let (text, status) = match self.moment {
            Moment::Sftp => (&b""[..], 127),
            _ => (&b"rsync  version 3.2.7  protocol version 31\n"[..], 0),
        };
        if moment == Moment::Version {
            wire.send(&[&[CHANNEL_DATA][..], channel, &string(text)].concat())?;
            wire.send(&exit_status(channel, status))?;
            wire.send(&[&[CHANNEL_EOF][..], channel].concat())?;
            wire.send(&[&[CHANNEL_CLOSE][..], channel].concat())?;
        }
        Ok(())
    }
}

/// The request that tells how a command ended.
pub fn exit_status(channel: &[u8], status: u32) -> Vec<u8> {
    [&[CHANNEL_REQUEST][..], channel, &string(b"exit-status"), &[0], &status.to_be_bytes()].concat()
}

/// Bytes behind their length.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A number above 0 in the form of the key exchange.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros..];
    if digits.first().is_some_and(|byte| *byte > 0x7f) { string(&[&[0][..], digits].concat()) } else { string(digits) }
}

fn blob(host_key: &PKey<Private>) -> Vec<u8> {
    [string(b"ssh-ed25519"), string(&host_key.raw_public_key().unwrap())].concat()
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finish()
}

/// The offer of a key exchange.
pub fn kexinit(kex: &str) -> Vec<u8> {
    let lists = [
        kex,
        "ssh-ed25519",
        "aes128-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ];
    let mut offer = vec![KEXINIT];
    offer.extend([9; 16]);
    lists.iter().for_each(|list| offer.extend(string(list.as_bytes())));
    offer.extend([0; 5]);
    offer
}

/// AES-GCM in one direction.
struct Seal {
    key: [u8; 16],
    nonce: [u8; 12],
}

impl Seal {
    /// `letter` tells the directions and purposes apart.
    fn new(secret: &[u8], hash: &[u8], session_id: &[u8], letters: [u8; 2]) -> Self {
        let [nonce, key] = letters.map(|letter| sha256(&[secret, hash, &[letter], session_id]));
        Self { key: key[..16].try_into().unwrap(), nonce: nonce[..12].try_into().unwrap() }
    }

    fn next_nonce(&mut self) -> [u8; 12] {
        let nonce = self.nonce;
        let count = u64::from_be_bytes(nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&count.to_be_bytes());
        nonce
    }
}

/// A connection as the server sees it.
pub struct Wire {
    tcp: TcpStream,
    from: BufReader<TcpStream>,
    client: Vec<u8>,
    host_key: PKey<Private>,
    strict: bool,
    session_id: Option<[u8; 32]>,
    sends: Option<Seal>,
    hears: Option<Seal>,
}

const OURS: &[u8] = b"SSH-2.0-OpenSSH_9.9";

impl Wire {
    fn greet(mut tcp: TcpStream, host_key: PKey<Private>, strict: bool) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.write_all(&[OURS, b"\r\n"].concat())?;
        let mut from = BufReader::new(tcp.try_clone()?);
        let mut client = Vec::new();
        from.read_until(b'\n', &mut client)?;
        client.truncate(client.trim_ascii_end().len());
        Ok(Self { tcp, from, client, host_key, strict, session_id: None, sends: None, hears: None })
    }

    /// A whole key exchange; `before` is done before the message that ends it.
    pub fn exchange(&mut self, before: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let first = self.session_id.is_none();
        let strict = if first && self.strict { ",kex-strict-s-v00@openssh.com" } else { "" };
        let ours = kexinit(&format!("curve25519-sha256{strict}"));
        self.send(&ours)?;
        let theirs = self.hear_of(KEXINIT)?;
        let init = self.hear_of(ECDH_INIT)?;
        let (asked, wrong) = (&init[5..], |_| io::Error::other("no such key"));
        let ephemeral = PKey::generate_x25519().map_err(wrong)?;
        let public = ephemeral.raw_public_key().map_err(wrong)?;
        let peer = PKey::public_key_from_raw_bytes(asked, Id::X25519).map_err(wrong)?;
        let mut deriver = Deriver::new(&ephemeral).map_err(wrong)?;
        deriver.set_peer(&peer).map_err(wrong)?;
        let secret = mpint(&deriver.derive_to_vec().map_err(wrong)?);
        let host_key = blob(&self.host_key);
        let strings: [&[u8]; 7] = [&self.client, OURS, &theirs, &ours, &host_key, asked, &public];
        let hash = sha256(&[&strings.map(string).concat(), &secret]);
        let signed = Signer::new_without_digest(&self.host_key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(&hash))
            .map_err(wrong)?;
        let signature = [string(b"ssh-ed25519"), string(&signed)].concat();
        self.send(&[&[ECDH_REPLY][..], &string(&host_key), &string(&public), &string(&signature)].concat())?;
        before(self)?;
        self.send(&[NEWKEYS])?;
        let session_id = *self.session_id.get_or_insert(hash);
        self.sends = Some(Seal::new(&secret, &hash, &session_id, *b"BD"));
        self.hear_of(NEWKEYS)?;
        self.hears = Some(Seal::new(&secret, &hash, &session_id, *b"AC"));
        Ok(())
    }

    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let packet = self.packet(payload);
        self.tcp.write_all(&packet)
    }

    /// Says one thing after the other, for as long as the client is there, and hears nothing of what that says.
    pub fn flood(&mut self, mut next: impl FnMut(u32) -> Vec<u8>) -> io::Result<()> {
        let mut number = 0;
        loop {
            let mut packets = Vec::new();
            while packets.len() < 1 << 16 {
                packets.extend(self.packet(&next(number)));
                number = number.wrapping_add(1);
            }
            self.tcp.write_all(&packets)?;
        }
    }

    /// As [`Wire::flood`], and takes what the client says from it.
    pub fn flood_and_hear(&mut self, next: impl FnMut(u32) -> Vec<u8>) -> io::Result<()> {
        let mut from = self.tcp.try_clone()?;
        thread::spawn(move || io::copy(&mut from, &mut io::sink()));
        self.flood(next)
    }

    /// Opens a channel as the client asked, which may send so much.
    pub fn confirm(&mut self, asked: &[u8], window: u32, packet: u32) -> io::Result<()> {
        let channel = channel_of(asked);
        self.send(
            &[&[CHANNEL_OPEN_CONFIRMATION][..], channel, channel, &window.to_be_bytes(), &packet.to_be_bytes()]
                .concat(),
        )
    }

    fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let (block, counted) = if self.sends.is_some() { (16, 1) } else { (8, 5) };
        let padding = match block - (counted + payload.len()) % block {
            few @ ..4 => few + block,
            enough => enough,
        };
        let text = [&[padding as u8][..], payload, &[0; 32][..padding]].concat();
        let length = (text.len() as u32).to_be_bytes();
        let Some(seal) = &mut self.sends else { return [&length[..], &text].concat() };
        let mut tag = [0; 16];
        let nonce = seal.next_nonce();
        let sealed = encrypt_aead(Cipher::aes_128_gcm(), &seal.key, Some(&nonce), &length, &text, &mut tag).unwrap();
        [&length[..], &sealed, &tag].concat()
    }

    /// The next message.
    pub fn hear(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length)?;
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut text)?;
        if let Some(seal) = &mut self.hears {
            let mut tag = [0; 16];
            self.from.read_exact(&mut tag)?;
            let nonce = seal.next_nonce();
            text = decrypt_aead(Cipher::aes_128_gcm(), &seal.key, Some(&nonce), &length, &text, &tag)
                .map_err(io::Error::other)?;
        }
        let padding = text[0] as usize;
        Ok(text[1..text.len() - padding].to_vec())
    }

    /// The next message of this kind; others are not listened to.
    pub fn hear_of(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let said = self.hear()?;
            if said[0] == kind {
                return Ok(said);
            }
        }
    }
}

/// Which channel the client wants opened, by its own number.
pub fn channel_of(asked: &[u8]) -> &[u8] {
    let kind = u32::from_be_bytes(asked[1..5].try_into().unwrap()) as usize;
    &asked[5 + kind..9 + kind]
}
