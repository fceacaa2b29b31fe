//! The configuration of SSH.

mod ssh {
    mod settings;
    mod tokens;

    use settings::{SettingsOwner, SettingsReader, SshSettings};

    /// A file for one host. No command is run, and no other file is read.
    pub(super) fn read(data: &[u8]) {
        let letters: Vec<u8> =
            data.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect();
        let names = |word: &[u8]| letters.windows(word.len()).any(|part| part == word);
        if names(b"exec") || names(b"include") {
            return;
        }
        let path = crate::disk::written("ssh_config", data);
        let local = tokens::LocalNames { home: Some("/nowhere".into()), user: Some("somebody".into()) };
        for last_pass in [false, true] {
            let settings = SshSettings::default();
            let (user, port, asks_for_last_pass) = (Some("user"), None, false);
            let mut reader =
                SettingsReader { host: "storage", user, port, local: &local, settings, last_pass, asks_for_last_pass };
            if reader.file(&path, SettingsOwner::Named).is_ok() {
                let _ = (reader.settings.is_yes("identitiesonly"), reader.settings.words("userknownhostsfile"));
            }
        }
    }
}

pub(crate) fn settings(data: &[u8]) {
    ssh::read(data);
}
