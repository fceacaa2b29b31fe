//! What the kernel is asked to refuse us from now on (Landlock, Linux 5.19 and newer): a second wall behind the names that are
//! resolved beneath held descriptors, for the day on which something in us is wrong. It holds the calling thread and all
//! that it starts, for good; older kernels and those that were started without it refuse nothing more.

use super::confine::jail;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::fs::{CWD, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The rights that are told apart; what later kernels add is left as it is.
const KNOWN: ABI = ABI::V4;

/// What names of users, local time and such are read from, libraries included, where nothing but the jail is read.
const OF_THE_SYSTEM: [&str; 18] = [
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc/self",
    "/run/systemd/userdb",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/var/lib/extrausers",
    "/var/lib/sss",
];

/// What a session does with the files that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Read,
    /// To read, and to remove what was read.
    ReadAndRemove,
    Write,
}

/// Whether the kernel refuses anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Held,
    /// It does not know how to.
    Free,
}

/// From now on nothing outside of the jail is read, nothing is written that `leave` does not allow there, no program is
/// run, and nobody is connected to.
pub(crate) fn hold_to_jail(leave: Leave) -> Held {
    let Some(jail) = jail() else { return Held::Free };
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let allowed = match leave {
        Leave::Read => reading,
        Leave::ReadAndRemove => reading | AccessFs::RemoveFile,
        Leave::Write => reading | writing(),
    };
    let hold = || {
        let mut rules = known(writing() | reading)?.handle_access(AccessNet::from_all(KNOWN))?.create()?;
        rules = rules.add_rule(PathBeneath::new(&jail.root, allowed))?;
        for place in OF_THE_SYSTEM.iter().filter_map(|place| open(Path::new(place))) {
            rules = rules.add_rule(PathBeneath::new(place, reading))?;
        }
        rules.restrict_self()
    };
    held(hold().map(|status| status.ruleset))
}

/// From now on nothing is written but beneath these places, though files may be removed elsewhere where `leave` says so, and
/// no program is run. A place that is to be made yet stands for the folder that is there of its way.
pub(crate) fn write_beneath(places: &[PathBuf], leave: Leave) -> Held {
    let hold = || {
        let mut rules = known(writing() & !elsewhere(leave))?.create()?;
        for place in places.iter().filter_map(|place| standing(place)) {
            rules = rules.add_rule(PathBeneath::new(place, writing() & !elsewhere(leave)))?;
        }
        rules.restrict_self()
    };
    held(hold().map(|status| status.ruleset))
}

/// What `leave` allows wherever the file is.
fn elsewhere(leave: Leave) -> BitFlags<AccessFs> {
    match leave {
        Leave::ReadAndRemove => AccessFs::RemoveFile.into(),
        Leave::Read | Leave::Write => BitFlags::EMPTY,
    }
}

/// How much the kernel could refuse, for people.
pub(crate) fn of_this_kernel() -> String {
    // Only who is held is told; that is a thread that does nothing else.
    let ask = || Ruleset::default().handle_access(AccessFs::Execute)?.create()?.restrict_self();
    let told = std::thread::scope(|threads| threads.spawn(ask).join());
    match told {
        Ok(Ok(RestrictionStatus { landlock: LandlockStatus::Available { effective_abi, kernel_abi }, .. })) => {
            let version = kernel_abi.unwrap_or(effective_abi as i32);
            let unused = if effective_abi < ABI::V2 { ", too old to be used" } else { "" };
            format!("Landlock {version}{unused}")
        }
        Ok(Ok(RestrictionStatus { landlock: LandlockStatus::NotEnabled, .. })) => "no Landlock at work".into(),
        Ok(Ok(_)) => "no Landlock in this kernel".into(),
        Ok(Err(error)) => format!("no Landlock to be used: {error}"),
        Err(_) => "no Landlock to be asked for".into(),
    }
}

/// What is refused where no rule allows it; programs nowhere. Without the right to rename from one folder to another, which
/// the first kernels could not give, nothing is asked for: they would refuse each such rename.
fn known(refused: BitFlags<AccessFs>) -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(refused | AccessFs::Execute)
}

fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_write(KNOWN)
}

fn held(asked: Result<RulesetStatus, RulesetError>) -> Held {
    match asked {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Held::Held,
        Ok(RulesetStatus::NotEnforced) => Held::Free,
        Err(error) => {
            tracing::debug!("The kernel refuses nothing more than before: {error}");
            Held::Free
        }
    }
}

/// The folder that a path names, or the lowest of its way that is there.
fn standing(path: &Path) -> Option<OwnedFd> {
    let folder = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    };
    path.ancestors().find_map(folder)
}

fn open(path: &Path) -> Option<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind::{CrossesDevices, PermissionDenied};
    use std::process::Command;

    /// In a thread of its own, which alone is held.
    fn apart(test: impl FnOnce() + Send) {
        std::thread::scope(|threads| threads.spawn(test).join().unwrap());
    }

    fn is_known() -> bool {
        let known = of_this_kernel().starts_with("Landlock ") && !of_this_kernel().contains("too old");
        if !known {
            println!("SKIPPED: no Landlock to be used here: {}", of_this_kernel());
        }
        known
    }

    #[test]
    fn what_receives_writes_beneath_its_places_alone() {
        if !is_known() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (inside, other, outside) =
            (folder.path().join("in"), folder.path().join("other"), folder.path().join("out"));
        for dir in [&inside, &other, &outside] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(outside.join("old"), "old").unwrap();
        apart(|| {
            // What is to be made yet.
            let places = [inside.join("new/er"), other.clone()];
            assert_eq!(write_beneath(&places, Leave::Write), Held::Held);
            fs::create_dir_all(inside.join("new/er")).unwrap();
            fs::write(inside.join("new/er/file"), "bytes").unwrap();
            fs::rename(inside.join("new/er/file"), other.join("file")).unwrap();
            fs::hard_link(other.join("file"), inside.join("link")).unwrap();
            std::os::unix::fs::symlink("x", inside.join("symlink")).unwrap();
            assert_eq!(fs::read(outside.join("old")).unwrap(), b"old");
            assert_eq!(fs::write(outside.join("old"), "new").unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::write(outside.join("file"), "new").unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::remove_file(outside.join("old")).unwrap_err().kind(), PermissionDenied);
            let moved = fs::rename(inside.join("link"), outside.join("link")).unwrap_err().kind();
            assert!([PermissionDenied, CrossesDevices].contains(&moved));
            assert_eq!(fs::create_dir(folder.path().join("x")).unwrap_err().kind(), PermissionDenied);
            assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), PermissionDenied);
        });
        assert_eq!(fs::read(outside.join("old")).unwrap(), b"old");
    }

    #[test]
    fn what_sends_writes_nowhere() {
        if !is_known() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "bytes").unwrap();
        apart(|| {
            assert_eq!(write_beneath(&[], Leave::ReadAndRemove), Held::Held);
            assert_eq!(fs::write(&file, "x").unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::write(folder.path().join("new"), "x").unwrap_err().kind(), PermissionDenied);
            assert_eq!(fs::read(&file).unwrap(), b"bytes");
            fs::remove_file(&file).unwrap();
        });
        fs::write(&file, "bytes").unwrap();
        apart(|| {
            assert_eq!(write_beneath(&[], Leave::Read), Held::Held);
            assert_eq!(fs::remove_file(&file).unwrap_err().kind(), PermissionDenied);
        });
    }
}
