//! Files taken over from an alternative destination.

use rustix::fs::AtFlags;

use super::attrs::Attrs;
use super::error::{DestError, During};
use super::further::FurtherKept;
use super::output;
use super::{Dest, Found};

impl Dest {
    /// Puts a copy of the regular file that stands at `name` in `from` here, under the same name.
    pub fn copy_from(&self, from: &Dest, name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        let (dir, leaf) = from.beneath.parent(name).during("open", name)?;
        let source = output::open_regular(&dir, leaf).during("open", name)?;
        self.copy_to(&source, name, |copy| self.set_open(copy, name, attrs))
    }

    /// Makes the regular file at `name` one of its own: its other names keep what is there now.
    pub fn part(&self, name: &[u8]) -> Result<(), DestError> {
        let (dir, leaf) = self.beneath.parent(name).during("open", name)?;
        let source = output::open_regular(&dir, leaf).during("open", name)?;
        let is = Found::from(rustix::fs::fstat(&source).during("stat", name)?);
        self.copy_to(&source, name, |copy| {
            self.set_raw(copy, name, &Attrs::of(&is))?;
            self.copy_further(&source, copy, name, FurtherKept { xattrs: true, acls: true })?;
            // The time once more, and permissions that an ACL brought along.
            self.set_raw(copy, name, &Attrs::of(&is))
        })
    }

    /// Puts a hard link to what stands at `name` in `from` here, under the same name, replacing anything but a directory.
    pub fn link_from(&self, from: &Dest, name: &[u8]) -> Result<(), DestError> {
        let (there, leaf) = from.beneath.parent(name).during("link", name)?;
        let (dir, temp, ()) = self
            .with_temp_name("link", name, |dir, temp| rustix::fs::linkat(&*there, leaf, dir, temp, AtFlags::empty()))?;
        let done = output::rename(&dir, &temp, name);
        // Of two names of one file the rename leaves both.
        output::discard(&dir, &temp);
        done
    }
}
