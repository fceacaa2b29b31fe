//! Our engine as a client within the test's own process.

use protocol::args::ServerArgs;
use protocol::flist::{FileEntry, Ndx};
use protocol::handshake::{Hello, Offer, Side};
use pysmurf_archiver::link::Link;
use pysmurf_archiver::transfer::{SendObserver, Source};
use pysmurf_archiver::transport::Connect;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What a client says that wants nothing special.
pub fn hello(version: u8, offer: Offer) -> Hello {
    Hello { offer, ..Hello::new(Side::Client, version) }
}

/// Starts a server with these arguments.
pub fn open(connect: &mut dyn Connect, args: &ServerArgs) -> Link {
    let words: Vec<_> = args.to_words().into_iter().map(OsString::from_vec).collect();
    connect.open(&words).unwrap()
}

/// Files to send, in a folder.
pub struct Folder(pub PathBuf);

impl Source for Folder {
    type File = File;

    fn open(&self, _ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        File::open(self.0.join(OsStr::from_bytes(&entry.name)))
    }
}

/// Nobody who would hear how sending goes.
pub struct Silent;

impl SendObserver for Silent {}
