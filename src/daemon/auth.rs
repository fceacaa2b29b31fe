//! Users of a module: `auth users` and the secrets file. Counterpart: rsync's `authenticate.c`.

use crate::disk::dumps::leave_no_core;
use crate::disk::open_operator_file;
use crate::disk::wild;
use protocol::daemon::{AuthDigest, matches};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest secrets file, in bytes.
const SECRETS_MOST: u64 = 4 << 20;

/// What a rule makes of the module's `read only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserAccess {
    AsModule,
    ReadOnly,
    ReadWrite,
    Deny,
}

/// One word of `auth users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserRule {
    name: String,
    /// The name is a group's.
    group: bool,
    access: UserAccess,
}

/// The rules of a list; a word that means nothing is the error.
pub(super) fn rules(list: &str) -> Result<Vec<UserRule>, String> {
    let commas_only = list.trim_start().starts_with(',');
    let splits = |letter: char| letter == ',' || (!commas_only && letter.is_whitespace());
    list.split(splits).map(str::trim).filter(|word| !word.is_empty()).map(rule).collect()
}

fn rule(word: &str) -> Result<UserRule, String> {
    let (name, access) = match word.rsplit_once(':') {
        None => (word, UserAccess::AsModule),
        Some((name, "deny")) => (name, UserAccess::Deny),
        Some((name, "ro")) => (name, UserAccess::ReadOnly),
        Some((name, "rw")) => (name, UserAccess::ReadWrite),
        Some(_) => return Err(format!("auth users: {word:?} ends in neither :deny, :ro nor :rw")),
    };
    let group = name.strip_prefix('@');
    Ok(UserRule { name: group.unwrap_or(name).to_owned(), group: group.is_some(), access })
}

/// A client's proof, and what it was asked for.
pub(super) struct Proof<'a> {
    pub(super) user: &'a str,
    pub(super) answer: &'a [u8],
    pub(super) challenge: &'a [u8],
    pub(super) digest: AuthDigest,
}

pub(super) struct Secrets<'a> {
    pub(super) file: Option<&'a Path>,
    /// `strict modes`.
    pub(super) strict: bool,
}

/// Finds the first rule for the user and checks the proof; the error is for the log, never for the client.
pub(super) fn authorise(rules: &[UserRule], secrets: &Secrets<'_>, proof: &Proof<'_>) -> Result<UserAccess, String> {
    let mut groups = None;
    for rule in rules {
        let mut group = None;
        if rule.group {
            let groups = groups.get_or_insert_with(|| groups_of(proof.user));
            group = groups.iter().find(|name| wild::matches(rule.name.as_bytes(), name.as_bytes())).cloned();
            if group.is_none() {
                continue;
            }
        } else if !wild::matches(rule.name.as_bytes(), proof.user.as_bytes()) {
            continue;
        }
        if rule.access == UserAccess::Deny {
            return Err("denied by rule".into());
        }
        return prove(secrets, proof, group.as_deref()).map(|()| rule.access);
    }
    Err("no matching rule".into())
}

fn groups_of(user: &str) -> Vec<String> {
    let groups = uzers::get_user_by_name(user).and_then(|found| uzers::get_user_groups(user, found.primary_group_id()));
    groups.unwrap_or_default().iter().map(|group| group.name().to_string_lossy().into_owned()).collect()
}

fn prove(secrets: &Secrets<'_>, proof: &Proof<'_>, group: Option<&str>) -> Result<(), String> {
    let file = secrets.file.ok_or("no secrets file")?;
    leave_no_core();
    let cannot = |error: std::io::Error| format!("secrets file {}: {error}", file.display());
    let opened = open_operator_file(file).map_err(cannot)?;
    let stat = opened.metadata().map_err(cannot)?;
    if secrets.strict {
        if stat.mode() & 0o006 != 0 {
            return Err(format!("secrets file {} is open to others; give it mode 600", file.display()));
        }
        if rustix::process::geteuid().is_root() && stat.uid() != 0 {
            return Err(format!("secrets file {} must belong to root", file.display()));
        }
    }
    let mut text = Vec::new();
    opened.take(SECRETS_MOST).read_to_end(&mut text).map_err(cannot)?;
    let mut known = false;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, secret) = (&line[..colon], &line[colon + 1..]);
        let meant = match name.strip_prefix(b"@") {
            Some(name) => group.is_some_and(|group| group.as_bytes() == name),
            None => name == proof.user.as_bytes(),
        };
        if !meant || secret.is_empty() {
            continue;
        }
        known = true;
        if matches(proof.answer, proof.digest.answer(secret, proof.challenge).as_bytes()) {
            return Ok(());
        }
    }
    Err(if known { "password mismatch" } else { "secret not found" }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn ask(list: &str, secrets: &str, mode: u32, user: &str, password: &str) -> Result<UserAccess, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets");
        fs::write(&file, secrets).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let challenge = b"challenge";
        let answer = AuthDigest::Sha256.answer(password.as_bytes(), challenge);
        let proof = Proof { user, answer: answer.as_bytes(), challenge, digest: AuthDigest::Sha256 };
        let answer = authorise(&rules(list)?, &Secrets { file: Some(&file), strict: true }, &proof);
        answer.map_err(|error| error.replace(folder.path().to_str().unwrap(), "DIR"))
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let secrets = "# joe:no\njoe:pw:with:colons\nsam:s\n@root:shared\nempty:\nroot:own\n";
        for (list, user, password, expected) in [
            ("joe sam", "joe", "pw:with:colons", Ok(UserAccess::AsModule)),
            ("joe:ro,sam", "joe", "pw:with:colons", Ok(UserAccess::ReadOnly)),
            ("s*:rw", "sam", "s", Ok(UserAccess::ReadWrite)),
            ("joe:deny joe", "joe", "pw:with:colons", Err("denied by rule")),
            ("joe", "joe", "pw", Err("password mismatch")),
            ("joe", "sam", "s", Err("no matching rule")),
            ("ann", "ann", "s", Err("secret not found")),
            ("empty", "empty", "", Err("secret not found")),
            ("@root", "root", "shared", Ok(UserAccess::AsModule)),
            ("@root:ro", "root", "own", Ok(UserAccess::ReadOnly)),
            ("root", "root", "shared", Err("password mismatch")),
            ("@root", "nosuchuser", "shared", Err("no matching rule")),
            (", joe sam, sam", "sam", "s", Ok(UserAccess::AsModule)),
            (", joe sam", "joe", "pw:with:colons", Err("no matching rule")),
        ] {
            let found = ask(list, secrets, 0o600, user, password);
            assert_eq!(found, expected.map_err(str::to_owned), "{list} {user}");
        }
        assert!(rules("joe:rx").is_err());
    }

    #[test]
    fn a_secrets_file_for_everyone_is_none() {
        assert!(ask("joe", "joe:x\n", 0o640, "joe", "x").is_ok());
        for mode in [0o644, 0o602] {
            let error = ask("joe", "joe:x\n", mode, "joe", "x").unwrap_err();
            assert_eq!(error, "secrets file DIR/secrets is open to others; give it mode 600");
        }
    }
}
