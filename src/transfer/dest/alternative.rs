//! Files taken over from an alternative destination.

use rustix::fs::AtFlags;

use super::Dest;
use super::attrs::Attrs;
use super::error::{DestError, During};
use super::output;

impl Dest {
    /// Puts a copy of the regular file that stands at `name` in `from` here, under the same name.
    pub fn copy_from(&self, from: &Dest, name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        let (dir, leaf) = from.beneath.parent(name).during("open", name)?;
        let source = output::open_regular(&dir, leaf).during("open", name)?;
        self.copy_to(&source, name, attrs)
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
