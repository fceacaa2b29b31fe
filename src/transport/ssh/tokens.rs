//! What the words of a configuration stand for: `~`, `%` tokens, and `${VARIABLES}`.

use protocol::checksum::{Checksum, FileHasher};
use std::fs;
use std::path::PathBuf;

/// Where `~` is and who we are.
pub(super) struct LocalNames {
    pub(super) home: Option<PathBuf>,
    pub(super) user: Option<String>,
}

impl LocalNames {
    /// From `HOME` and `USER`, else from the password file.
    pub(super) fn from_env() -> Self {
        let uid = rustix::process::getuid().as_raw().to_string();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry: Option<Vec<&str>> =
            passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.len() > 5 && f[2] == uid);
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            home: var("HOME").or_else(|| entry.as_ref().map(|f| f[5].to_owned())).map(PathBuf::from),
            user: var("USER").or_else(|| var("LOGNAME")).or_else(|| entry.as_ref().map(|f| f[0].to_owned())),
        }
    }

    pub(super) fn below_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    fn home_text(&self) -> String {
        self.home.as_ref().map(|home| home.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What the tokens stand for.
pub(super) struct PercentTokens<'a> {
    /// The host as typed.
    pub(super) host: &'a str,
    pub(super) hostname: String,
    pub(super) user: &'a str,
    pub(super) port: u16,
    /// The name of the host's key.
    pub(super) alias: &'a str,
    jump: &'a str,
    local: &'a LocalNames,
}

impl<'a> PercentTokens<'a> {
    /// As far as the settings go; what was typed beats them.
    pub(super) fn so_far(
        host: &'a str,
        user: Option<&'a str>,
        port: Option<u16>,
        local: &'a LocalNames,
        setting: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        let hostname = setting("hostname").unwrap_or("%h").replace("%%", "\0").replace("%h", host).replace('\0', "%");
        Self {
            host,
            hostname,
            user: user.or(setting("user")).or(local.user.as_deref()).unwrap_or_default(),
            port: port.or_else(|| setting("port")?.parse().ok()).unwrap_or(22),
            alias: setting("hostkeyalias").unwrap_or(host),
            jump: setting("proxyjump").filter(|jump| !jump.eq_ignore_ascii_case("none")).unwrap_or_default(),
            local,
        }
    }

    /// The path with all of them expanded; `None` for the word `none`.
    pub(super) fn path(&self, word: &str) -> Result<Option<PathBuf>, String> {
        if word.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        let word = variables(&self.expand_home(word))?;
        self.expand(&word).map(|path| Some(PathBuf::from(path)))
    }

    /// `~` and `~user` expanded at the beginning.
    pub(super) fn expand_home(&self, word: &str) -> String {
        let Some(rest) = word.strip_prefix('~') else { return word.to_owned() };
        let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let home = if user.is_empty() {
            Some(self.local.home_text())
        } else {
            uzers::get_user_by_name(user).map(|user| uzers::os::unix::UserExt::home_dir(&user).display().to_string())
        };
        home.map_or_else(|| word.to_owned(), |home| format!("{home}{rest}"))
    }

    /// The tokens expanded; one that is unknown is an error, as for `ssh`.
    pub(super) fn expand(&self, word: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some(token) => out.push_str(
                    &self
                        .token(token)
                        .ok_or_else(|| format!("{word} holds %{token}, which stands for nothing known"))?,
                ),
                None => return Err(format!("{word} ends with a single %; write %%")),
            }
        }
        Ok(out)
    }

    fn token(&self, token: char) -> Option<String> {
        let here = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        Some(match token {
            'C' => {
                let mut hasher = FileHasher::new(Checksum::Sha1);
                for part in [&here(), &self.hostname, &self.port.to_string(), self.user, self.jump] {
                    hasher.update(part.as_bytes());
                }
                hasher.finish().to_string()
            }
            'd' => self.local.home_text(),
            'h' => self.hostname.clone(),
            'i' => rustix::process::getuid().as_raw().to_string(),
            'j' => self.jump.to_owned(),
            'k' => self.alias.to_owned(),
            'L' => here().split('.').next().unwrap_or_default().to_owned(),
            'l' => here(),
            'n' => self.host.to_owned(),
            'p' => self.port.to_string(),
            'r' => self.user.to_owned(),
            'u' => self.local.user.clone().unwrap_or_default(),
            _ => return None,
        })
    }
}

/// `${VARIABLES}` of the environment; one that is not set is an error, as for `ssh`.
fn variables(word: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or_else(|| format!("{word} holds ${{ without its }}"))?;
        out.push_str(before);
        out.push_str(&std::env::var(name).map_err(|_| format!("{word} holds ${{{name}}}, which is not set"))?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}
