//! The handshake over a link, from which a conversation comes.

use super::TransferError;
use super::abort::{HANG_UP, within};
use super::conversation::{Conversation, LinkReader, LinkWriter};
use crate::link::{Closer, Link};
use protocol::PeerError;
use protocol::args::Options;
use protocol::handshake::{Handshake, Hello, Negotiated, Side};
use protocol::mux::Outbox;

/// Shakes hands. Errors name what the far end's program said, where it never came to speak the protocol.
pub fn greet(link: Link, hello: Hello) -> Result<Conversation, TransferError> {
    greet_with(link, hello, &Options::default())
}

/// The same for a client that wants these options, which not every version has.
pub fn greet_with(link: Link, hello: Hello, options: &Options) -> Result<Conversation, TransferError> {
    let mut out = Outbox::new();
    let serves = matches!(hello.side, Side::Server { .. });
    let handshake = Handshake::new(hello, &mut out);
    shake(link, handshake, out, options, serves)
}

/// Shakes hands where a daemon's greeting has agreed on `hello.version` already.
pub fn greet_agreed(link: Link, hello: Hello) -> Result<Conversation, TransferError> {
    let mut out = Outbox::new();
    let serves = matches!(hello.side, Side::Server { .. });
    let handshake = Handshake::agreed(hello, &mut out);
    shake(link, handshake, out, &Options::default(), serves)
}

fn shake(
    link: Link,
    mut handshake: Handshake,
    mut out: Outbox,
    options: &Options,
    serves: bool,
) -> Result<Conversation, TransferError> {
    let Link { reader, writer, closer, remote } = link;
    let mut reader = LinkReader::new(reader, remote);
    let mut writer = LinkWriter::new(writer);
    if let Some(agreed) = handshake.poll(&mut out)? {
        writer.flush(&mut out)?;
        return Ok(session(agreed, handshake, out, reader, writer, closer));
    }
    let agreed = loop {
        let heard = match writer.flush(&mut out) {
            Ok(()) => reader.read()?,
            // A far end that is gone already is explained by what it said, not by our failure to speak to it; a client that
            // does not listen may still hold its own end open, and says nothing.
            Err(TransferError::Link(_)) if !serves => within(HANG_UP, &closer, || reader.read())?,
            Err(error) => return Err(error),
        };
        handshake.feed(heard)?;
        match handshake.poll(&mut out) {
            Ok(Some(agreed)) => {
                writer.flush(&mut out)?;
                break agreed;
            }
            // An old peer that cannot do what is asked for says no more.
            Ok(None) => handshake.version().map_or(Ok(()), |version| options.check_version(version))?,
            Err(PeerError::Version(_)) if heard.iter().all(|byte| byte.is_ascii()) => {
                let words = String::from_utf8_lossy(heard).trim().escape_debug().to_string();
                return Err(TransferError::Garbled(format!(
                    "The far end printed {words:?} instead of speaking the rsync protocol. Is its shell start-up file silent?"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok(session(agreed, handshake, out, reader, writer, closer))
}

fn session(
    agreed: Negotiated,
    handshake: Handshake,
    out: Outbox,
    reader: LinkReader,
    writer: LinkWriter,
    closer: Closer,
) -> Conversation {
    Conversation { agreed, inbox: handshake.into_inbox(), out, reader, writer, closer, batch: None, replay: false }
}
