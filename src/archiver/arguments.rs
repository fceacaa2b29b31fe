//! How a session with the far end's rsync begins: the arguments that it is started with, and what we bring to the handshake.

use super::compression::{self, Coding};
use crate::transfer::fetch;
use protocol::args::{Options, ServerArgs};
use protocol::checksum::Checksum;
use protocol::handshake::{Hello, Offer, Side, VERSION_MOST};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// When the far end says of a file that it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// As soon as it has its name.
    #[default]
    EachFile,
    /// All together, by a session that ends without a word of trouble and with exit code 0.
    AtTheEnd,
}

/// What a session asks of the far end beyond the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Copies are to be on the disk before they count.
    pub(crate) fsync: bool,
    /// File data is compressed on its way.
    pub(crate) compressed: bool,
    /// Where unfinished files are kept, beside their places.
    pub(crate) partial: Option<String>,
    pub(crate) acknowledged: Acknowledged,
}

/// The server arguments for a batch: attributes are those of the files, parents are made as needed and otherwise left
/// alone, every judgement is by content, and finished files are acknowledged.
pub(crate) fn server_args(data_dir: &str, demands: Demands) -> Vec<OsString> {
    let Demands { fsync, compressed, partial, acknowledged } = demands;
    let options = Options {
        times: true,
        perms: true,
        checksum: true,
        relative: true,
        // They are made as they are needed: one that is listed would take the place of a file of its name.
        no_implied_dirs: true,
        omit_dir_times: true,
        // So each of them is; nothing is removed.
        remove_source_files: acknowledged == Acknowledged::EachFile,
        fsync,
        compress: compressed,
        compress_level: compressed.then_some(compression::LEVEL),
        partial_dir: partial.map(String::into_bytes),
        ..Options::default()
    };
    // The dot keeps a base that is not there from being made, where something is to be mounted or was mistyped.
    let destination = format!("{}/.", base(data_dir));
    let args = ServerArgs { options, paths: vec![destination.into_bytes()], ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

/// The server arguments for making directories with their permissions: what is there stays, of whatever kind it is.
pub(crate) fn folder_args(data_dir: &str) -> Vec<OsString> {
    let options =
        Options { perms: true, relative: true, omit_dir_times: true, ignore_existing: true, ..Options::default() };
    let destination = format!("{}/.", base(data_dir));
    let args = ServerArgs { options, paths: vec![destination.into_bytes()], ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

/// The server arguments for appending to unfinished files: nothing is made or judged, and nothing gets another name.
pub(super) fn append_args(data_dir: &str, coding: Coding) -> Vec<OsString> {
    let compressed = coding == Coding::Compressed;
    let options = Options {
        append: 1,
        relative: true,
        no_implied_dirs: true,
        omit_dir_times: true,
        compress: compressed,
        compress_level: compressed.then_some(compression::LEVEL),
        ..Options::default()
    };
    let destination = format!("{}/.", base(data_dir));
    let args = ServerArgs { options, paths: vec![destination.into_bytes()], ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

/// The base directory as the far end's programs are given it: never taken for an option.
pub(crate) fn base(data_dir: &str) -> String {
    let dash = if data_dir.starts_with('-') { "./" } else { "" };
    format!("{dash}{}", data_dir.trim_end_matches('/'))
}

/// What we bring to a handshake with a server that has [`server_args`].
pub(crate) fn hello(coding: Coding) -> Hello {
    let offer = Offer::Only(Checksum::Md5);
    Hello { offer, compression: coding.wish(), ..Hello::new(Side::Client, VERSION_MOST) }
}

/// What we bring to a handshake with a server that has [`sender_args`]. The registered MD5 is compared here, so the session's own
/// checksum is the fastest that both have: with MD5 each end would sum a file that several have read twice.
pub(crate) fn sender_hello(coding: Coding) -> Hello {
    Hello { offer: Offer::Stock, ..hello(coding) }
}

/// The server arguments for fetching.
pub(crate) fn sender_args(coding: Coding) -> Vec<OsString> {
    let compressed = coding == Coding::Compressed;
    let options =
        Options { compress: compressed, compress_level: compressed.then_some(compression::LEVEL), ..fetch::options() };
    let args = ServerArgs { sender: true, options, paths: vec![b"/".to_vec()], ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_not_among_the_arguments() {
        let words = sender_args(Coding::Plain);
        assert_eq!(words[..2], ["--server", "--sender"]);
        assert!(["--files-from=-", "--from0"].iter().all(|word| words.contains(&OsString::from(word))));
        assert_eq!(words[words.len() - 2..], [".", "/"]);
    }
}
