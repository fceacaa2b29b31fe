//! `--fake-super` at the receiving side: files carry in an attribute what only root could give them.

use std::io;
use std::os::fd::OwnedFd;

use protocol::flist::Kind;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attrs::{Attrs, chmod};
use super::error::{DestError, During};
use super::{Dest, Found};
use crate::disk::beneath;
use crate::disk::fake::{Fake, FakeClaim, STAT};
use crate::disk::pinned::Pinned;

impl Dest {
    /// How a kind of thing is kept here: what only root can make becomes a plain file that says what it is.
    pub(super) fn kept_as(&self, kind: Kind) -> Kind {
        match (self.fake, kind) {
            (Fake::Yes, Kind::Device | Kind::Special | Kind::Symlink) => Kind::File,
            _ => kind,
        }
    }

    /// What something claims to be; without `--fake-super` what it is.
    pub(super) fn claimed(&self, pinned: &Pinned) -> io::Result<Found> {
        let mut found = Found::from(pinned.stat()?);
        if self.fake == Fake::Yes
            && let Some(claim) = pinned.xattr(STAT)?.as_deref().and_then(FakeClaim::parse)
        {
            found.claim(&claim);
        }
        Ok(found)
    }

    /// Whether an ACL set here changes permissions too.
    pub fn acls_are_real(&self) -> bool {
        self.fake == Fake::No
    }

    /// Lets a file's claim stand for what a look at it found.
    pub(super) fn disguised(&self, dir: &OwnedFd, leaf: &[u8], found: Found) -> io::Result<Found> {
        let Some(kind @ (Kind::File | Kind::Dir)) = found.kind().filter(|_| self.fake == Fake::Yes) else {
            return Ok(found);
        };
        match Pinned::open(dir, leaf, kind) {
            Ok(pinned) => self.claimed(&pinned),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(found),
            Err(error) => Err(error),
        }
    }

    /// Sets attributes as far as they need no root, and has the file claim the rest; the times are the caller's.
    /// `entry` is what a new thing is to be: type bits and device number.
    pub(super) fn set_claim(
        &self,
        pinned: &Pinned,
        name: &[u8],
        attrs: &Attrs,
        new: Option<(u32, (u32, u32))>,
    ) -> Result<(), DestError> {
        let set = || -> io::Result<()> {
            let is = Found::from(pinned.stat()?);
            let claimed = self.claimed(pinned)?;
            let (mode, rdev) = new.unwrap_or((claimed.mode, claimed.rdev));
            let claim = FakeClaim {
                mode: mode & 0o170_000 | attrs.mode.unwrap_or(mode & 0o7777),
                rdev,
                uid: attrs.uid.unwrap_or(claimed.uid),
                gid: attrs.gid.unwrap_or(claimed.gid),
            };
            let own = if is.kind() == Some(Kind::Dir) { 0o700 } else { 0o600 };
            let real = claim.mode & 0o777 | own;
            // The link's own permissions mean nothing, and the attribute needs a file its owner may write.
            pinned.set_mode(real)?;
            let as_is = FakeClaim { mode: is.mode & 0o170_000 | real, rdev: (0, 0), uid: is.uid, gid: is.gid };
            if claim == as_is { pinned.remove_xattr(STAT) } else { pinned.set_xattr(STAT, &claim.to_bytes()) }
        };
        set().during("write of stat xattr", name)
    }

    /// [`Dest::set_claim`] and the times of what stands at `leaf`.
    pub(super) fn set_fake_at(
        &self,
        (dir, leaf): (&OwnedFd, &[u8]),
        name: &[u8],
        kind: Kind,
        attrs: &Attrs,
        new: Option<(u32, (u32, u32))>,
    ) -> Result<(), DestError> {
        // A node that is one in truth takes no claim; it gets what needs none.
        let node = || Ok::<_, Errno>(Found::from(rustix::fs::statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?).kind());
        if matches!(kind, Kind::Device | Kind::Special) && node().during("stat", name)? == Some(kind) {
            if let Some(mode) = attrs.mode {
                chmod(dir, leaf, kind, mode).during("set permissions on", name)?;
            }
            self.set_times_at(dir, leaf, name, attrs)?;
            return match attrs.owners() {
                None => Ok(()),
                Some(_) => Err(Errno::PERM).during("write of stat xattr", name),
            };
        }
        let pinned = Pinned::open(dir, leaf, self.kept_as(kind)).during("open", name)?;
        self.set_claim(&pinned, name, attrs, new)?;
        self.set_times_at(dir, leaf, name, attrs)
    }

    /// With `--fake-super`: gives a file or folder the permissions of one that keeps a claim, whatever it claims. Its owner
    /// may write to it, for attributes ask for that, and it runs as nobody else.
    pub(super) fn make_claimable(&self, pinned: &Pinned, name: &[u8]) -> Result<(), DestError> {
        let mode = pinned.stat().during("stat", name)?.st_mode;
        let kind = beneath::kind(mode);
        let own = if kind == Some(Kind::Dir) { 0o700 } else { 0o600 };
        let claimable = mode & 0o7000 == 0 && mode & own == own;
        if self.fake == Fake::No || claimable || !matches!(kind, Some(Kind::File | Kind::Dir)) {
            return Ok(());
        }
        self.set_claim(pinned, name, &Attrs::default(), None)
    }

    /// Makes the plain file that stands for a link or node, and writes `content` to it.
    pub(super) fn stand_in(dir: &OwnedFd, temp: &[u8], content: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, temp, flags, Mode::RUSR | Mode::WUSR)?;
        let mut rest = content;
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                Err(error) => {
                    let _ = rustix::fs::unlinkat(dir, temp, AtFlags::empty());
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Found {
    fn claim(&mut self, claim: &FakeClaim) {
        (self.mode, self.rdev, self.uid, self.gid) = (claim.mode, claim.rdev, claim.uid, claim.gid);
    }
}
