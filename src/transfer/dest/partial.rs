//! Files that broke off, and files that wait for the end of the transfer.

use std::fs::File;
use std::io;
use std::sync::Arc;

use protocol::flist::Kind;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::error::{DestError, During};
use super::further::{Further, Values};
use super::output::{Fsync, Moved, OutputFile, leaf_of};
use super::places::{Make, Partial, Places};
use super::{Dest, Found};

impl Dest {
    /// With a directory of this name for what breaks off, beside each file.
    pub fn keeping(self, dir: &str) -> Dest {
        let places = Places { partial: Partial::Beside(dir.into()), ..Places::default() };
        Dest { places: Arc::new(places), ..self }
    }

    /// Opens the place where what broke off of `name` is kept, to begin or to go on there; without such places, a temporary
    /// file.
    pub fn open_kept(&self, name: &[u8]) -> Result<OutputFile, DestError> {
        match self.aside(name, Make::Last).during("mkdir", name)? {
            Some((dest, kept)) => Ok(dest.open_in_place(&kept)?.kept_for(name)),
            None => self.create_temp(name),
        }
    }

    /// Where what broke off of `name` is kept apart from it: the directory's owner, and the name there.
    fn aside(&self, name: &[u8], make: Make) -> io::Result<Option<(&Dest, Vec<u8>)>> {
        match &self.places.partial {
            Partial::Nowhere | Partial::Named => Ok(None),
            Partial::Beside(dir) => {
                let leaf = leaf_of(name);
                let above = &name[..name.len() - leaf.len()];
                if make == Make::Last {
                    let (parent, last) =
                        self.beneath.parent(&[above, dir].concat()).map(|(dir, leaf)| (dir, leaf.to_vec()))?;
                    match rustix::fs::mkdirat(&*parent, last, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(Some((self, [above, dir, b"/", leaf].concat())))
            }
            Partial::Elsewhere(place) => match place.dest(self, make) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && make == Make::Nothing => Ok(None),
                dest => Ok(Some((dest?, leaf_of(name).to_vec()))),
            },
        }
    }

    /// What is kept apart of an earlier try at `name`.
    pub fn partial(&self, name: &[u8]) -> Result<Option<Found>, DestError> {
        match self.aside(name, Make::Nothing).during("open", name)? {
            Some((dest, kept)) => Ok(dest.stat(&kept)?.filter(|found| found.kind() == Some(Kind::File))),
            None => Ok(None),
        }
    }

    /// Opens what is kept apart of an earlier try at `name`.
    pub fn open_partial(&self, name: &[u8]) -> Result<Option<File>, DestError> {
        match self.aside(name, Make::Nothing).during("open", name)? {
            Some((dest, kept)) => dest.basis(&kept),
            None => Ok(None),
        }
    }

    /// Goes on with an earlier try at `name` where it is kept.
    pub fn resume_partial(&self, name: &[u8]) -> Result<Option<OutputFile>, DestError> {
        match self.aside(name, Make::Nothing).during("open", name)? {
            Some((dest, kept)) => Ok(Some(dest.open_in_place(&kept)?.kept_for(name))),
            None => Ok(None),
        }
    }

    /// Removes what is kept apart of `name`, and the directory made for it beside the file when that is empty then.
    pub fn drop_partial(&self, name: &[u8]) {
        if let Ok(Some((dest, kept))) = self.aside(name, Make::Nothing) {
            // What cannot be removed is in nobody's way.
            let _ = dest.remove_non_dir(&kept);
            self.tidy_partial(name);
        }
    }

    /// Removes the directory for what is kept beside `name` if nothing is left there.
    fn tidy_partial(&self, name: &[u8]) {
        if let (Partial::Beside(dir), leaf) = (&self.places.partial, leaf_of(name)) {
            let path = [&name[..name.len() - leaf.len()], dir].concat();
            self.beneath.forget();
            if let Ok((parent, last)) = self.beneath.parent(&path) {
                let _ = rustix::fs::unlinkat(&*parent, last, AtFlags::REMOVEDIR);
            }
        }
    }
}

impl OutputFile {
    /// Keeps a file that broke off as the options ask; `false` when it is not kept. Without a place of its own it takes
    /// the final name, with a time so old that the next run does not take it for whole.
    pub fn keep(mut self, dest: &Dest, attrs: &Attrs) -> Result<bool, DestError> {
        if self.position() == 0 || self.is_in_place() || matches!(dest.places.partial, Partial::Nowhere) {
            return Ok(self.is_in_place());
        }
        let name = self.name().to_vec();
        if let Partial::Named = dest.places.partial {
            let nsec = attrs.mtime.map_or(0, |(_, nsec)| nsec);
            let attrs = Attrs { mtime: Some((0, nsec)), ..*attrs };
            self.settle(dest, &attrs, None, Fsync::No)??;
            self.move_to(dest, &name, &attrs, Moved::Home)?;
            return Ok(true);
        }
        let attrs = Attrs { mtime: None, ..*attrs };
        self.settle(dest, &attrs, None, Fsync::No)??;
        self.put_aside(dest, &name, &attrs)?;
        Ok(true)
    }

    fn put_aside(&mut self, dest: &Dest, name: &[u8], attrs: &Attrs) -> Result<(), DestError> {
        match dest.aside(name, Make::Last).during("mkdir", name)? {
            Some((kept, at)) if !self.is_kept() => self.move_to(kept, &at, attrs, Moved::Aside),
            _ => Ok(()),
        }
    }

    /// Finishes a file that is to take its name at the end of the transfer only; see [`Dest::place_delayed`].
    pub fn delay(
        mut self,
        dest: &Dest,
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        fsync: Fsync,
    ) -> Result<(), DestError> {
        let dressed = self.settle(dest, attrs, further, fsync)?;
        let name = self.name().to_vec();
        self.put_aside(dest, &name, attrs)?;
        dressed
    }
}

impl Dest {
    /// Gives a file that was put aside by [`OutputFile::delay`] its name.
    pub fn place_delayed(&self, name: &[u8]) -> Result<(), DestError> {
        let Some((kept, at)) = self.aside(name, Make::Nothing).during("rename", name)? else {
            return Err(Errno::NOENT).during("rename", name);
        };
        self.back_up_replaced(name)?;
        let (from, leaf) = kept.beneath.parent(&at).during("rename", name)?;
        let (to, last) = self.beneath.parent(name).during("rename", name)?;
        rustix::fs::renameat(&*from, leaf, &*to, last).during("rename", name)?;
        self.tidy_partial(name);
        Ok(())
    }
}
