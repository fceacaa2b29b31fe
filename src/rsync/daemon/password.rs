//! Who we are to a daemon, and how we prove it.

use super::{Call, DaemonError, Site};
use crate::disk::dumps::leave_no_core;
use crate::disk::open_operator_file;
use protocol::daemon::EARLY_INPUT_MOST;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest password, in bytes.
const PASSWORD_MOST: u64 = 8192;

pub(super) fn user(site: &Site) -> Result<String, DaemonError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = site.user.clone().or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let user = user.unwrap_or_else(|| "nobody".to_owned());
    if user.is_empty() || user.contains([' ', '\t']) || user.contains(char::is_control) {
        return Err(DaemonError::Usage(format!("{user:?} cannot be a user's name at a daemon")));
    }
    Ok(user)
}

/// The password, from the file, the environment or the terminal.
pub(super) fn password(call: &Call) -> Result<Vec<u8>, DaemonError> {
    leave_no_core();
    if let Some(path) = &call.password_file {
        return first_line(path);
    }
    if let Some(password) = std::env::var_os("RSYNC_PASSWORD") {
        return Ok(password.into_encoded_bytes());
    }
    let typed = rpassword::prompt_password("Password: ");
    let cannot = |error| {
        DaemonError::Refused(format!("No password ({error}); name a file with --password-file or set RSYNC_PASSWORD"))
    };
    typed.map(String::into_bytes).map_err(cannot)
}

fn first_line(path: &Path) -> Result<Vec<u8>, DaemonError> {
    let shown = path.display();
    let cannot = |error: io::Error| DaemonError::Usage(format!("Cannot read the password file {shown}: {error}"));
    let mut line = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(PASSWORD_MOST).read_until(b'\n', &mut line).map_err(cannot)?;
    } else {
        let file = open_operator_file(path).map_err(cannot)?;
        let stat = file.metadata().map_err(cannot)?;
        if stat.mode() & 0o006 != 0 {
            let text = format!("The password file {shown} must not be open to others; give it mode 600");
            return Err(DaemonError::Usage(text));
        }
        if rustix::process::geteuid().is_root() && stat.uid() != 0 {
            let text = format!("The password file {shown} must belong to root when root uses it");
            return Err(DaemonError::Usage(text));
        }
        BufReader::new(file.take(PASSWORD_MOST)).read_until(b'\n', &mut line).map_err(cannot)?;
    }
    let end = line.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(line.len());
    line.truncate(end);
    if line.is_empty() {
        return Err(DaemonError::Usage(format!("The password file {shown} holds no password in its first line")));
    }
    Ok(line)
}

/// What goes to the daemon's early command.
pub(super) fn early_input(path: &Path) -> Result<Vec<u8>, DaemonError> {
    let shown = path.display();
    let cannot = |error| DaemonError::Usage(format!("Cannot read the early input {shown}: {error}"));
    let mut bytes = Vec::new();
    let most = EARLY_INPUT_MOST as u64;
    open_operator_file(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    match bytes.len() {
        0 => Err(DaemonError::Usage(format!("The early input {shown} is empty"))),
        len if len > EARLY_INPUT_MOST => Err(DaemonError::Usage(format!("The early input {shown} is over 5120 bytes"))),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        fs::write(&path, "secret word\r\nmore\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(first_line(&path).unwrap_err().to_string().ends_with("give it mode 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(first_line(&path).unwrap(), b"secret word");
        fs::write(&path, "\nx").unwrap();
        assert!(first_line(&path).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(first_line(&path).unwrap_err().to_string().contains("must belong to root"));
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            assert!(first_line(&link).unwrap_err().to_string().contains("belongs to another user"));
        }
    }

    #[test]
    fn names_that_would_break_the_line_are_refused() {
        for name in ["a b", "", "a\nb"] {
            assert!(user(&Site { user: Some(name.into()), ..Site::default() }).is_err(), "{name:?}");
        }
        assert_eq!(user(&Site { user: Some("joe".into()), ..Site::default() }).unwrap(), "joe");
    }
}
