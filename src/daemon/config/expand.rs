//! `%VAR%` in values.

use std::collections::BTreeMap;

/// The variables that values may refer to: those of the process, and what a connection sets.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct DaemonVariables {
    set: BTreeMap<String, String>,
    /// Whether the process's own variables count.
    own: bool,
}

impl DaemonVariables {
    pub(in crate::daemon) fn of_process() -> Self {
        Self { set: BTreeMap::new(), own: true }
    }

    /// Sets one, for values and for commands.
    pub(in crate::daemon) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.set.insert(name.to_owned(), value.into());
    }

    /// What was set beyond the process's own.
    pub(in crate::daemon) fn added(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn get(&self, name: &str) -> Option<String> {
        let own = || std::env::var(name).ok().filter(|_| self.own);
        self.set.get(name).cloned().or_else(own)
    }

    /// A value with every reference replaced. One to a variable that is not set stays as it is: an empty text in a path
    /// could be far worse.
    pub(in crate::daemon) fn expand(&self, value: &str) -> String {
        self.replace(value, |_, value| Some(value)).unwrap_or_default()
    }

    /// The same, where `check` decides on each value, and `None` refuses the whole.
    pub(in crate::daemon) fn replace(
        &self,
        value: &str,
        check: impl Fn(&str, String) -> Option<String>,
    ) -> Option<String> {
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                text.push('%');
                rest = after;
                continue;
            }
            let named = rest.find('%').map(|end| &rest[..end]).filter(|name| is_name(name));
            match named.and_then(|name| Some((name, self.get(name)?))) {
                Some((name, found)) => {
                    text.push_str(&check(name, found)?);
                    rest = &rest[name.len() + 1..];
                }
                None => text.push('%'),
            }
        }
        text.push_str(rest);
        Some(text)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
