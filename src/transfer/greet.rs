//! The handshake over a link, from which a conversation comes.

use super::abort::{HANG_UP, within};
use super::conversation::{Conversation, LinkReader, LinkWriter};
use super::{TransferError, WORDS_SHOWN};
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
    let server = matches!(hello.side, Side::Server { .. });
    let mut out = Outbox::new();
    let handshake = Handshake::new(hello, &mut out);
    SessionGreeting::new(link, out, server).shake(handshake, options)
}

/// Shakes hands where a daemon's greeting has agreed on `hello.version` already.
pub fn greet_agreed(link: Link, hello: Hello) -> Result<Conversation, TransferError> {
    let server = matches!(hello.side, Side::Server { .. });
    let mut out = Outbox::new();
    let handshake = Handshake::agreed(hello, &mut out);
    SessionGreeting::new(link, out, server).shake(handshake, &Options::default())
}

/// A link whose ends have not agreed yet.
struct SessionGreeting {
    reader: LinkReader,
    writer: LinkWriter,
    closer: Closer,
    server: bool,
}

impl SessionGreeting {
    fn new(link: Link, out: Outbox, server: bool) -> Self {
        let Link { reader, writer, closer, remote, patience } = link;
        Self { reader: LinkReader::new(reader, remote, patience), writer: LinkWriter::new(writer, out), closer, server }
    }

    fn shake(mut self, mut handshake: Handshake, options: &Options) -> Result<Conversation, TransferError> {
        if let Some(agreed) = handshake.poll(&mut self.writer.out)? {
            return self.agreed(agreed, handshake);
        }
        loop {
            let Self { reader, writer, closer, server } = &mut self;
            let heard = match writer.flush() {
                Ok(()) => reader.read()?,
                // A far end that is gone already is explained by what it said, not by our failure to speak to it; a client
                // that does not listen may still hold its own end open, and says nothing.
                Err(TransferError::Link(_)) if !*server => within(HANG_UP, closer, || reader.read())?,
                Err(error) => return Err(error),
            };
            handshake.feed(heard)?;
            match handshake.poll(&mut writer.out) {
                Ok(Some(agreed)) => return self.agreed(agreed, handshake),
                // An old peer that cannot do what is asked for says no more.
                Ok(None) => handshake.version().map_or(Ok(()), |version| options.check_version(version))?,
                Err(PeerError::Version(_)) if heard.iter().all(|byte| byte.is_ascii()) => {
                    let shown = &heard[..heard.len().min(WORDS_SHOWN)];
                    let words = String::from_utf8_lossy(shown).trim().escape_debug().to_string();
                    return Err(TransferError::Garbled(format!(
                        "The far end printed {words:?} instead of speaking the rsync protocol. Is its shell start-up file silent?"
                    )));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn agreed(mut self, agreed: Negotiated, handshake: Handshake) -> Result<Conversation, TransferError> {
        self.writer.flush()?;
        let Self { mut reader, writer, closer, server } = self;
        reader.brought_on();
        let inbox = handshake.into_inbox();
        Ok(Conversation { agreed, server, inbox, reader, writer, closer, batch: None, replay: false })
    }
}
