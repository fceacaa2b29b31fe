//! Further names of a file that is already here.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::{DestError, During};
use super::{Dest, output};

impl Dest {
    /// Makes `name` another name of what stands at `existing`, replacing in one step anything but a directory. A symlink
    /// gets another name itself, not what it points to.
    pub fn make_link(&self, existing: &[u8], name: &[u8]) -> Result<(), DestError> {
        let (from, from_leaf) = self.beneath.parent(existing).during("link", existing)?;
        let (dir, leaf) = self.beneath.parent(name).during("link", name)?;
        match rustix::fs::linkat(&*from, from_leaf, &*dir, leaf, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).during("link", name),
        }
        let link = |dir: &_, temp: &[u8]| rustix::fs::linkat(&*from, from_leaf, dir, temp, AtFlags::empty());
        let (dir, temp, ()) = self.with_temp_name("link", name, link)?;
        let done = self.back_up_replaced(name).and_then(|()| output::rename(&dir, &temp, name));
        // A rename between two names of one file does nothing and leaves both.
        output::discard(&dir, &temp);
        done
    }
}
