//! Has files summed where they are: the list of a fetch that asks for no file. Counterpart: `--list-only --checksum
//! --files-from`.

use super::super::TransferError;
use super::super::conversation::Conversation;
use super::{FetchObserver, WantedFile, hear_list, send_names};
use protocol::PeerError;
use protocol::args::Options;
use protocol::checksum::{Checksum, Sum};
use protocol::flist::{Arrived, ListLimits};
use protocol::generator::Generator;
use protocol::handshake::Compat;
use protocol::receiver::{Receiver, ReceiverEvent, ReceiverFacts};
use std::collections::HashMap;

/// The options of a far end that sums files: those of a fetch, but a symlink is no file.
pub(crate) fn options() -> Options {
    Options { checksum: true, copy_links: false, ..super::options() }
}

/// What the far end has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FarSum {
    /// A file with this MD5; none where it could not be read.
    File(Option<Sum>, u64),
    /// Something else.
    NotAFile,
    /// Nothing, or nothing that it may look at.
    NotListed,
}

/// Has the files of these names summed, which are relative to the directory that the server was given; it has [`options`].
/// As many as one session takes; of each that it took what was found, by its number.
pub(crate) fn far_sums(
    mut conversation: Conversation,
    names: &[WantedFile],
    observer: &mut dyn FetchObserver,
) -> Result<HashMap<usize, FarSum>, TransferError> {
    let found = match converse(&mut conversation, names, observer) {
        Ok(found) => found,
        Err(error) => return Err(conversation.abort(error)),
    };
    let Conversation { mut reader, writer, .. } = conversation;
    drop(writer);
    reader.await_end()?;
    Ok(found)
}

fn converse(
    conversation: &mut Conversation,
    names: &[WantedFile],
    observer: &mut dyn FetchObserver,
) -> Result<HashMap<usize, FarSum>, TransferError> {
    if conversation.agreed.compat.has(Compat::INC_RECURSE) {
        return Err(PeerError::NotOffered("incremental recursion").into());
    }
    if conversation.agreed.checksum != Checksum::Md5 {
        return Err(PeerError::NotOffered("sums other than MD5").into());
    }
    let mut asked = send_names(conversation, names)?;
    let shape = options().list_shape(Checksum::Md5.size());
    let facts = ReceiverFacts { shape, limits: ListLimits::default(), server: false, dry_run: false };
    let inbox = conversation.take_inbox();
    let mut receiver = Receiver::new(&conversation.agreed, facts, inbox);
    let Arrived { list, .. } = hear_list(&mut receiver, &mut conversation.reader, observer)?;
    let mut found = HashMap::new();
    for (_, entry) in list.iter() {
        let Some(at) = asked.remove(&entry.name[..]) else { continue };
        // What it could not read has a sum of zeros.
        let sum = entry.extra.sum.filter(|sum| sum.as_bytes().iter().any(|&byte| byte != 0));
        found.insert(at, if entry.is_file() { FarSum::File(sum, entry.len) } else { FarSum::NotAFile });
    }
    found.extend(asked.into_values().map(|at| (at, FarSum::NotListed)));
    if list.is_empty() {
        // The far end leaves by itself.
        return Ok(found);
    }
    let Conversation { agreed, reader, writer, .. } = conversation;
    let mut speaker = Generator::new(agreed);
    speaker.done(&mut writer.out);
    while !receiver.is_over() {
        match receiver.poll()? {
            None => {
                writer.flush()?;
                receiver.feed(reader.read()?)?;
            }
            // The ends of the redo phase, of delayed updates and of late deletions.
            Some(ReceiverEvent::PhaseDone(1)) => {
                reader.brought_on();
                for _ in 0..agreed.phases() - 1 + u8::from(agreed.version >= 31) {
                    speaker.done(&mut writer.out);
                }
            }
            Some(ReceiverEvent::Message(message)) => observer.message(&message),
            Some(ReceiverEvent::List(_) | ReceiverEvent::File(..)) => {
                return Err(PeerError::Malformed("what was not asked for").into());
            }
            Some(_) => {}
        }
    }
    speaker.done(&mut writer.out);
    writer.flush()?;
    Ok(found)
}
