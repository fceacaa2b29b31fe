//! What a server's session has a use for, as the kernel is told it before the first byte of the session: what comes after
//! that is a peer's.

use crate::disk::confine::{jail, trusts_all_links};
use crate::disk::landlock::{Held, Leave, hold_to_jail, write_beneath};
use protocol::args::{Options, ServerArgs};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Has the kernel refuse what a session with these arguments has no use for. Only this thread is held and what it starts,
/// so nothing else may run yet.
pub(crate) fn hold(args: &ServerArgs) -> Held {
    let options = &args.options;
    let leave = match (args.sender, options.remove_source_files) {
        (true, false) => Leave::Read,
        (true, true) => Leave::ReadAndRemove,
        (false, _) => Leave::Write,
    };
    if jail().is_some() {
        return hold_to_jail(leave);
    }
    let mut places: Vec<PathBuf> = options.log_file.iter().map(|file| above(path(file))).collect();
    if !args.sender {
        // Links that lead out of the destination are ways into it with these.
        if options.keep_dirlinks || trusts_all_links() {
            return Held::Free;
        }
        let destination = args.paths.first().map_or(Path::new("."), |dir| path(dir));
        places.extend(receiving(destination, options));
    }
    write_beneath(&places, leave)
}

/// Where a receiver writes.
fn receiving(destination: &Path, options: &Options) -> Vec<PathBuf> {
    // What is no folder is a file's name, or is made in the folder that it would be in.
    let base = if destination.is_dir() { destination.to_owned() } else { above(destination) };
    let further = [&options.backup_dir, &options.partial_dir, &options.temp_dir];
    // A link to a file of another folder, as `--link-dest` makes it, would be refused if less were allowed there.
    let further = further.into_iter().flatten().chain(&options.alt_dirs);
    let further: Vec<_> = further.map(|dir| base.join(path(dir))).collect();
    std::iter::once(base).chain(further).collect()
}

fn above(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_else(|| "/".into())
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_writes_where_its_options_say() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("there"), folder.path().join("new"));
        std::fs::create_dir(&there).unwrap();
        let options = Options {
            backup_dir: Some(b"../old".to_vec()),
            temp_dir: Some(b"/tmp/x".to_vec()),
            alt_dirs: vec![b"base".to_vec()],
            ..Options::default()
        };
        let whole = |base: &Path| vec![base.to_owned(), base.join("../old"), "/tmp/x".into(), base.join("base")];
        assert_eq!(receiving(&there, &options), whole(&there));
        assert_eq!(receiving(&new, &options), whole(folder.path()));
        assert_eq!(receiving(Path::new("name"), &Options::default()), [PathBuf::from("")]);
    }
}
