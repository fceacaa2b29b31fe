//! Argument lists on the wire: a daemon's, and those of `-s`. Counterpart: rsync's `read_args`.

use crate::PeerError;

/// Most arguments of one list, as stock takes.
pub(crate) const ARGS_MOST: usize = 16_000;
/// Most bytes of one list.
pub(crate) const ARG_BYTES_MOST: usize = 1 << 20;

/// A list of arguments that ends with an empty one.
#[derive(Debug)]
pub struct ArgList {
    /// What stands behind each argument.
    end: u8,
    args: Vec<Vec<u8>>,
    current: Vec<u8>,
    bytes: usize,
}

impl ArgList {
    /// What stands behind each argument at a daemon that speaks this version.
    pub fn end_of(version: u8) -> u8 {
        if version < 30 { b'\n' } else { 0 }
    }

    /// An empty list, each of whose arguments has this behind it.
    pub fn new(end: u8) -> Self {
        Self { end, args: Vec::new(), current: Vec::new(), bytes: 0 }
    }

    /// Takes bytes; returns how many were used and whether the list is complete. What is behind the list is left alone.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), PeerError> {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte != self.end {
                self.bytes += 1;
                if self.bytes > ARG_BYTES_MOST {
                    return Err(PeerError::Malformed("more than a megabyte of arguments"));
                }
                self.current.push(byte);
            } else if self.current.is_empty() {
                return Ok((at + 1, true));
            } else if self.args.len() == ARGS_MOST {
                return Err(PeerError::Malformed("more than 16000 arguments"));
            } else {
                self.args.push(std::mem::take(&mut self.current));
            }
        }
        Ok((bytes.len(), false))
    }

    /// The arguments so far, taken out.
    pub(super) fn take_args(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.args)
    }

    /// The bytes of a list; no argument may hold what stands behind it.
    pub fn encode<A: AsRef<[u8]>>(args: &[A], end: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for arg in args {
            // An empty argument would end the list; stock sends a dot for it.
            let arg = if arg.as_ref().is_empty() { b"." } else { arg.as_ref() };
            bytes.extend_from_slice(arg);
            bytes.push(end);
        }
        bytes.push(end);
        bytes
    }

    /// Whether the list says that the true one follows: `s` among the bundled letters.
    pub fn is_secluded<A: AsRef<[u8]>>(args: &[A]) -> bool {
        let mut options = args.iter().map(AsRef::as_ref).take_while(|arg| *arg != b".");
        options.any(|arg| match arg {
            b"--secluded-args" | b"--protect-args" => true,
            [b'-', b'-', ..] | [b'-', b'B' | b'@', ..] => false,
            // What follows `e` are capabilities.
            [b'-', letters @ ..] => letters.iter().take_while(|&&letter| letter != b'e').any(|&letter| letter == b's'),
            _ => false,
        })
    }
}
