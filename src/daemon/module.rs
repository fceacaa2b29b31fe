//! Entering a module: its folder, its user, and no way back. Counterpart: the middle of rsync's `rsync_module`.

use super::config::{DaemonVariables, Parameters};
use crate::disk::{confine, open_operand, reason};
use crate::transfer::filters::{Rules, RulesError};
use crate::transfer::guard::Guard;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use protocol::args::Options;
use protocol::filter::Action;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A module that can be entered; everything that has a name outside is resolved.
pub(super) struct Entrance {
    /// The module's path, as configured.
    path: PathBuf,
    dir: OwnedFd,
    /// What lies inside of where the root is changed to.
    inner: Option<PathBuf>,
    /// `use chroot`; without a word it is tried.
    chroot: Option<bool>,
    identity: Option<Identity>,
}

/// Whom the transfer runs as.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Why a module cannot be entered: in stock's words for the client, and in ours for the log.
#[derive(Debug)]
pub(super) struct NoEntry {
    pub(super) client: &'static str,
    pub(super) log: String,
}

impl Entrance {
    /// Looks up whom the module runs as, and opens its folder.
    pub(super) fn find(settings: &Parameters, environment: &DaemonVariables) -> Result<Self, NoEntry> {
        let expand = |text: &Option<String>| text.as_deref().map(|text| environment.expand(text));
        let path = expand(&settings.path).unwrap_or_default();
        let identity = match rustix::process::geteuid().is_root() {
            true => Some(Identity::find(expand(&settings.uid).as_deref(), expand(&settings.gid).as_deref())?),
            false => None,
        };
        // An inner path makes sense in a changed root only.
        let split = path.split_once("/./").filter(|_| settings.use_chroot != Some(false));
        let (outer, inner) = split.map_or((path.as_str(), None), |(outer, inner)| (outer, Some(inner)));
        let chroot = if inner.is_some() { Some(settings.use_chroot.unwrap_or(true)) } else { settings.use_chroot };
        let outer = if outer.is_empty() { Path::new("/") } else { Path::new(outer) };
        let dir = open_operand(outer).map_err(|error| NoEntry {
            client: "chdir failed",
            log: format!("rsync: chdir {path} failed: {}", reason(&error)),
        })?;
        let inner = inner.map(|inner| Path::new("/").join(inner));
        Ok(Self { path: PathBuf::from(&path), dir, inner, chroot, identity })
    }

    /// Whether the root will be changed, as far as that is known before.
    pub(super) fn changes_root(&self) -> bool {
        self.chroot.unwrap_or_else(|| rustix::process::geteuid().is_root())
    }

    /// Whether the root will be the module itself, so that no symlink in it leads out.
    pub(super) fn is_root(&self) -> bool {
        self.changes_root() && self.inner.is_none()
    }

    /// Goes in. From then on this process is the module's user, and reaches nothing beyond the module. Nothing of the
    /// daemon but this process is changed; it must not run threads yet, that none of them stays behind.
    pub(super) fn enter(self, warn: &dyn Fn(&str)) -> Result<(), NoEntry> {
        let no = |client: &'static str| {
            let path = self.path.display().to_string();
            move |error: io::Error| NoEntry { client, log: format!("rsync: {client} for {path}: {error}") }
        };
        let mut root = self.dir;
        if self.chroot != Some(false) {
            let changed = rustix::process::fchdir(&root).and_then(|()| rustix::process::chroot("."));
            match changed {
                Ok(()) => {
                    let inner = self.inner.as_deref().unwrap_or(Path::new("/"));
                    root = open_operand(inner).map_err(no("chdir failed"))?;
                }
                Err(error) if self.chroot.is_none() => {
                    warn(&format!("chroot failed ({error}); going on without, confined to {}", self.path.display()));
                }
                Err(error) => return Err(no("chroot failed")(error.into())),
            }
        }
        confine(root).map_err(no("chdir failed"))?;
        if let Some(Identity { uid, gid, groups }) = &self.identity {
            let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
            // The library changes all threads of the process, as the bare system calls would not.
            setgroups(&groups).map_err(|error| no("setgroups failed")(error.into()))?;
            setgid(Gid::from_raw(*gid)).map_err(|error| no("setgid failed")(error.into()))?;
            setuid(Uid::from_raw(*uid)).map_err(|error| no("setuid failed")(error.into()))?;
        }
        Ok(())
    }
}

/// Leaves what a connection does not need of the daemon's rights, before a word is heard of its client (`daemon chroot`,
/// `daemon uid` and `daemon gid`).
pub(super) fn step_down(settings: &Parameters, environment: &DaemonVariables) -> Result<(), NoEntry> {
    let expand = |text: &Option<String>| text.as_deref().map(|text| environment.expand(text));
    let (uid, gid) = (expand(&settings.daemon_uid), expand(&settings.daemon_gid));
    let no = |client: &'static str| {
        move |error: io::Error| NoEntry { client, log: format!("rsync: daemon {client}: {error}") }
    };
    // Names are looked up in the root where they mean something.
    let group = gid.map(|name| group(&name).ok_or(name)).transpose().map_err(|name| NoEntry {
        client: "invalid gid",
        log: format!("daemon gid: no group {name:?} on this machine"),
    })?;
    let user = uid.map(|name| user(&name).ok_or(name)).transpose().map_err(|name| NoEntry {
        client: "invalid uid",
        log: format!("daemon uid: no user {name:?} on this machine"),
    })?;
    if let Some(root) = expand(&settings.daemon_chroot) {
        let changed = rustix::process::chroot(root.as_str()).and_then(|()| rustix::process::chdir("/"));
        changed.map_err(|error| no("chroot failed")(error.into()))?;
    }
    if let Some(gid) = group.map(Gid::from_raw) {
        setgid(gid).map_err(|error| no("setgid failed")(error.into()))?;
        setgroups(&[gid]).map_err(|error| no("setgroups failed")(error.into()))?;
    }
    if let Some(uid) = user {
        setuid(Uid::from_raw(uid)).map_err(|error| no("setuid failed")(error.into()))?;
    }
    Ok(())
}

/// What the module keeps from its clients; files of rules are read as they lie outside.
pub(super) fn guard(settings: &Parameters, environment: &DaemonVariables) -> Result<Option<Guard>, NoEntry> {
    let expand = |text: &Option<String>| text.as_deref().map(|text| environment.expand(text).into_bytes());
    let gather = || {
        let mut rules = Rules::new(&Options::default());
        if let Some(text) = expand(&settings.filter) {
            rules.words(None, &text)?;
        }
        if let Some(name) = expand(&settings.include_from) {
            rules.file(Action::Include, &name)?;
        }
        if let Some(text) = expand(&settings.include) {
            rules.words(Some(Action::Include), &text)?;
        }
        if let Some(name) = expand(&settings.exclude_from) {
            rules.file(Action::Exclude, &name)?;
        }
        if let Some(text) = expand(&settings.exclude) {
            rules.words(Some(Action::Exclude), &text)?;
        }
        rules.finish(&Options::default())
    };
    let failed =
        |error: RulesError| NoEntry { client: "the module's rules cannot be read", log: format!("rsync: {error}") };
    Ok(Guard::new(&gather().map_err(failed)?, settings.ignore_nonreadable))
}

impl Identity {
    fn find(uid: Option<&str>, gid: Option<&str>) -> Result<Self, NoEntry> {
        let user = uid.unwrap_or("nobody");
        let by_name = uzers::get_user_by_name(user);
        let uid = by_name.as_ref().map(uzers::User::uid).or_else(|| user.parse().ok());
        let uid =
            uid.ok_or_else(|| NoEntry { client: "invalid uid", log: format!("no user {user:?} on this machine") })?;
        let mut groups = Vec::new();
        for word in words(gid.unwrap_or_default()) {
            if word == "*" && groups.is_empty() {
                let known = by_name.clone().or_else(|| uzers::get_user_by_uid(uid));
                let all = known.and_then(|user| user.groups()).unwrap_or_default();
                groups.extend(all.iter().map(uzers::Group::gid));
                continue;
            }
            groups.push(
                group(word).ok_or_else(|| NoEntry {
                    client: "invalid gid",
                    log: format!("no group {word:?} on this machine"),
                })?,
            );
        }
        if groups.is_empty() {
            let nobody = group("nobody").or_else(|| group("nogroup"));
            groups.push(nobody.unwrap_or(65534));
        }
        Ok(Self { uid, gid: groups[0], groups })
    }
}

/// The words of a list that may begin with a comma, and then is split at commas only.
fn words(list: &str) -> impl Iterator<Item = &str> {
    let commas_only = list.trim_start().starts_with(',');
    let splits = move |letter: char| letter == ',' || (!commas_only && letter.is_whitespace());
    list.split(splits).map(str::trim).filter(|word| !word.is_empty())
}

fn user(name: &str) -> Option<u32> {
    uzers::get_user_by_name(name).map(|user| user.uid()).or_else(|| name.parse().ok())
}

fn group(name: &str) -> Option<u32> {
    uzers::get_group_by_name(name).map(|group| group.gid()).or_else(|| name.parse().ok())
}

/// A client's path within the module: beneath its top whatever the client wrote. `keep_dots` for `--relative`, where a
/// dot divides.
pub(super) fn inside(module: &[u8], path: &[u8], keep_dots: bool) -> Vec<u8> {
    let path = match path.strip_prefix(module) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => rest,
        _ => path,
    };
    let mut kept: Vec<&[u8]> = Vec::new();
    for word in path.split(|&byte| byte == b'/') {
        match word {
            b"" => {}
            b"." if !keep_dots => {}
            b".." => {
                kept.pop();
            }
            word => kept.push(word),
        }
    }
    let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let contents = matches!(last, b"" | b"." | b"..");
    let mut clean = kept.join(&b'/');
    if clean.is_empty() {
        return b".".to_vec();
    }
    if contents {
        clean.push(b'/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_above_the_module() {
        for (path, keep, expected) in [
            ("mod", false, "."),
            ("mod/", false, "."),
            ("mod/.", false, "."),
            ("mod/a", false, "a"),
            ("mod//a//b/", false, "a/b/"),
            ("mod/../../etc/passwd", false, "etc/passwd"),
            ("mod/a/../..", false, "."),
            ("mod/a/b/..", false, "a/"),
            ("mod/./a/./b", false, "a/b"),
            ("mod/x/./a/./b", true, "x/./a/./b"),
            ("/etc/passwd", false, "etc/passwd"),
            ("module2/x", false, "module2/x"),
            ("mod/-x", false, "-x"),
            ("", false, "."),
        ] {
            let found = inside(b"mod", path.as_bytes(), keep);
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn who_is_who() {
        let root = Identity::find(Some("root"), Some("root, 7")).unwrap();
        assert_eq!(root, Identity { uid: 0, gid: 0, groups: vec![0, 7] });
        assert_eq!(Identity::find(Some("4711"), Some("4712")).unwrap().uid, 4711);
        assert_eq!(Identity::find(None, None).unwrap().uid, 65534);
        assert_eq!(Identity::find(Some("no such"), None).unwrap_err().client, "invalid uid");
        assert_eq!(Identity::find(Some("root"), Some(", no such")).unwrap_err().client, "invalid gid");
        assert!(Identity::find(Some("root"), Some("*")).unwrap().groups.contains(&0));
    }
}
