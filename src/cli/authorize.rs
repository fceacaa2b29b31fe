//! `authorize`: the line for the storage node that lets a key do no more than archive; and what that line starts there.

use super::flags::{AuthorizeArgs, ConfinedArgs};
use super::output::{print, say};
use super::server;
use crate::archiver::{Demands, folder_args, is_aside, server_args};
use crate::disk::{confine, open_operand};
use anyhow::{Context, Result, bail};
use rustix::fs::Access;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints the line for `~/.ssh/authorized_keys` of the storage node.
pub(super) fn authorize(args: &AuthorizeArgs) -> Result<u8> {
    if !args.data_dir.starts_with('/') || args.data_dir.contains(char::is_control) {
        bail!(
            "Option --data-dir: {:?} is no absolute path; name the archive's directory as the node has it",
            args.data_dir
        );
    }
    let key = public_key(&args.ssh_key)?;
    let words = [args.program.as_str(), "confined", &args.data_dir];
    let command = shlex::try_join(words).context("Option --program or --data-dir cannot be given to a shell")?;
    print(&format!("restrict,command=\"{}\" {key}", command.replace('\\', "\\\\").replace('"', "\\\"")));
    Ok(0)
}

/// The one line of a public key, which may stand beside the private one.
fn public_key(path: &Path) -> Result<String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    for path in [Path::new(&beside), path] {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        if let Some(line) = lines.next().filter(|line| ["ssh-", "ecdsa-", "sk-"].iter().any(|p| line.starts_with(p))) {
            return Ok(line.to_owned());
        }
    }
    let shown = path.display();
    bail!(
        "Option --ssh-key: no public key in {shown} or {shown}.pub; write it there with: ssh-keygen -y -f {shown} > {shown}.pub"
    )
}

/// Does what the client has asked `sshd` for, if it is one of the few things that an archiver asks for.
pub(super) fn confined(args: &ConfinedArgs) -> ExitCode {
    let asked = std::env::var("SSH_ORIGINAL_COMMAND").unwrap_or_default();
    let words: Vec<OsString> = shlex::split(&asked).unwrap_or_default().into_iter().map(OsString::from).collect();
    match wish(&words, &args.data_dir) {
        Some(ConfinedRequest::Version) => {
            print(concat!("pysmurf-archiver ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        Some(ConfinedRequest::Test(access)) => {
            let is_so = Path::new(&args.data_dir).is_dir() && rustix::fs::access(&args.data_dir, access).is_ok();
            ExitCode::from(u8::from(!is_so))
        }
        Some(ConfinedRequest::Serve(demands)) => serve(&args.data_dir, &server_args(".", demands)),
        Some(ConfinedRequest::MakeFolders) => serve(&args.data_dir, &folder_args(".")),
        None => {
            say(&format!("pysmurf-archiver: this key only archives below {}; refused: {asked:?}", args.data_dir));
            ExitCode::FAILURE
        }
    }
}

/// Serves a session that cannot leave the directory.
fn serve(data_dir: &str, words: &[OsString]) -> ExitCode {
    match open_operand(&PathBuf::from(data_dir)).and_then(confine) {
        Ok(()) => server::main(words),
        Err(error) => {
            say(&format!("pysmurf-archiver: {data_dir} cannot be entered: {error}"));
            ExitCode::from(3)
        }
    }
}

/// What a client may wish.
#[derive(Debug, PartialEq)]
enum ConfinedRequest {
    Version,
    Test(Access),
    Serve(Demands),
    MakeFolders,
}

/// The client's words as one of these, for this directory and no other.
fn wish(words: &[OsString], data_dir: &str) -> Option<ConfinedRequest> {
    let (program, rest) = words.split_first()?;
    if let ("test", [flag, dir]) = (program.to_str()?, rest) {
        let same = dir.to_str()?.trim_end_matches('/') == data_dir.trim_end_matches('/');
        return match flag.to_str()? {
            "-d" if same => Some(ConfinedRequest::Test(Access::EXISTS)),
            "-w" if same => Some(ConfinedRequest::Test(Access::WRITE_OK)),
            _ => None,
        };
    }
    if let [flag] = rest
        && flag == "--version"
    {
        return Some(ConfinedRequest::Version);
    }
    if folder_args(data_dir) == rest {
        return Some(ConfinedRequest::MakeFolders);
    }
    // Whatever the program was called over there, it is this one that serves, and only in ways that `run` asks for.
    let partial = rest.iter().find_map(|word| {
        let word = word.to_str()?;
        let name = word.strip_prefix("--partial-dir=").unwrap_or(word);
        is_aside(name).then(|| name.to_owned())
    });
    let all = [(false, false), (false, true), (true, false), (true, true)].map(|(fsync, compressed)| Demands {
        fsync,
        compressed,
        partial: partial.clone(),
        ..Demands::default()
    });
    all.into_iter().find(|demands| server_args(data_dir, demands.clone()) == rest).map(ConfinedRequest::Serve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_archiver_asks_for_is_granted() {
        let asked = |line: &str| {
            wish(&shlex::split(line).unwrap().into_iter().map(OsString::from).collect::<Vec<_>>(), "/data/a b")
        };
        for bits in 0..8 {
            let partial = (bits & 4 != 0).then(|| ".archiver-partial-0123abcd.2".to_owned());
            let demands = Demands { fsync: bits & 1 != 0, compressed: bits & 2 != 0, partial, ..Demands::default() };
            let mut words = vec![OsString::from("rsync")];
            words.extend(server_args("/data/a b/", demands));
            assert!(matches!(wish(&words, "/data/a b"), Some(ConfinedRequest::Serve(_))), "{words:?}");
            assert_eq!(wish(&words, "/data/a"), None, "{words:?}");
            words.insert(2, "--sender".into());
            assert_eq!(wish(&words, "/data/a b"), None, "{words:?}");
        }
        let mut words = vec![OsString::from("rsync")];
        words.extend(folder_args("/data/a b"));
        assert_eq!(wish(&words, "/data/a b"), Some(ConfinedRequest::MakeFolders));
        assert_eq!(wish(&words, "/data"), None);
        assert_eq!(asked("rsync --version"), Some(ConfinedRequest::Version));
        assert_eq!(asked("test -w '/data/a b'"), Some(ConfinedRequest::Test(Access::WRITE_OK)));
        for refused in [
            "",
            "sh",
            "sh -c 'rsync --version'",
            "test -d /etc",
            "test -f '/data/a b'",
            "rsync --server . '/data/a b/../'",
            "rsync --server --sender . '/data/a b/'",
            "rsync --server --daemon .",
            "internal-sftp",
            "/usr/lib/openssh/sftp-server",
        ] {
            assert_eq!(asked(refused), None, "{refused}");
        }
    }
}
