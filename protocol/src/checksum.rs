//! Rolling and strong checksums, and how each is seeded.

/// A strong checksum's value, 1 to 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    bytes: [u8; 32],
    len: u8,
}
