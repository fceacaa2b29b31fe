//! Numbers of devices, and of files that have several names, as versions before 30 have them.

use super::{Previous, flag};
use crate::wire::{Decoded, Ints, Reader};

/// What the flags of an entry say of its device number, given the numbers before; `special` of a fifo or socket.
pub(super) fn rdev_flags(version: u8, special: bool, (major, minor): (u32, u32), previous: &Previous) -> u32 {
    let when = |bit: u32, when: bool| if when { bit } else { 0 };
    match version {
        // That of a fifo means nothing, and what was before is the cheapest.
        ..28 => when(flag::SAME_RDEV, special || whole(major, minor) == previous.rdev),
        28 | 29 => {
            when(flag::SAME_RDEV_MAJOR, major == previous.major) | when(flag::RDEV_MINOR_8, minor <= u8::MAX.into())
        }
        _ => when(flag::SAME_RDEV_MAJOR, major == previous.major),
    }
}

/// Writes a device number; `previous` is not changed.
pub(super) fn put_rdev(version: u8, flags: u32, (major, minor): (u32, u32), out: &mut Vec<u8>) {
    let ints = Ints::of(version);
    if version < 28 {
        if flags & flag::SAME_RDEV == 0 {
            out.extend_from_slice(&whole(major, minor).to_le_bytes());
        }
        return;
    }
    if flags & flag::SAME_RDEV_MAJOR == 0 {
        ints.put_int(out, major as i32);
    }
    match version {
        ..30 if flags & flag::RDEV_MINOR_8 != 0 => out.push(minor as u8),
        _ => ints.put_int(out, minor as i32),
    }
}

/// Reads a device number.
pub(super) fn rdev(version: u8, flags: u32, previous: &mut Previous, reader: &mut Reader<'_>) -> Decoded<(u32, u32)> {
    let ints = Ints::of(version);
    if version < 28 {
        if flags & flag::SAME_RDEV == 0 {
            previous.rdev = reader.uint()?;
        }
        return Ok(parts(previous.rdev));
    }
    if flags & flag::SAME_RDEV_MAJOR == 0 {
        previous.major = ints.int(reader)? as u32;
    }
    let minor = match version {
        ..30 if flags & flag::RDEV_MINOR_8 != 0 => reader.byte()?.into(),
        _ => ints.int(reader)? as u32,
    };
    Ok((previous.major, minor))
}

/// The lower 32 bits of Linux' device number.
pub(super) fn whole(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | minor << 12 & 0xfff0_0000
}

fn parts(whole: u32) -> (u32, u32) {
    (whole >> 8 & 0xfff, whole & 0xff | whole >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As stock rsync 3.5.0 wrote them on Linux.
    #[test]
    fn whole_numbers_are_those_of_linux() {
        for (number, (major, minor)) in
            [(0x0010_082c, (8, 300)), (0x0001_2c05, (300, 5)), (0x00b1_2cbd, (300, 3005)), (0x0103, (1, 3))]
        {
            assert_eq!(whole(major, minor), number);
            assert_eq!(parts(number), (major, minor));
        }
    }
}
