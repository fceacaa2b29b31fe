//! What `--iconv` comes to at either end. Counterpart: rsync's `setup_iconv`.

use super::TransferError;
use crate::disk::shown;
use protocol::args::Options;
use protocol::charset::Charset;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Our set at the client, from `LOCAL,REMOTE`; of the option stays what the server is told.
pub(crate) fn of_client(options: &mut Options) -> Result<(), TransferError> {
    let Some(spec) = &options.iconv else { return Ok(()) };
    let (ours, theirs) = match spec.iter().position(|&byte| byte == b',') {
        Some(comma) => (&spec[..comma], &spec[comma + 1..]),
        None => (&spec[..], &spec[..]),
    };
    options.charset = Some(lookup(ours)?);
    options.iconv = Some(theirs.to_vec());
    Ok(())
}

/// Our set at a server, from what it was told.
pub(crate) fn of_server(options: &mut Options) -> Result<(), TransferError> {
    options.charset = options.iconv.as_deref().map(at_server).transpose()?;
    Ok(())
}

/// The same from the option's value.
pub(crate) fn at_server(spec: &[u8]) -> Result<Charset, TransferError> {
    let comma = spec.iter().position(|&byte| byte == b',');
    lookup(&spec[comma.map_or(0, |comma| comma + 1)..])
}

fn lookup(name: &[u8]) -> Result<Charset, TransferError> {
    let set = match name {
        b"" | b"." => Charset::from_name(&of_locale(|name| std::env::var_os(name))),
        name => Charset::from_name(name),
    };
    set.ok_or_else(|| TransferError::Refused(format!("iconv_open(\"UTF-8\", \"{}\") failed", shown(name)).into()))
}

/// The set that the environment's locale names; a locale without one is taken to have the letters all sets share.
fn of_locale(variable: impl Fn(&str) -> Option<OsString>) -> Vec<u8> {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default();
    let codeset = locale.as_bytes().split(|&byte| byte == b'.').nth(1).unwrap_or(b"ascii");
    codeset.split(|&byte| byte == b'@').next().unwrap_or_default().to_vec()
}

/// Names for the peer to look up, as they travel: converted where `-s` has the arguments converted, too.
pub(crate) fn to_peer(name: &[u8], options: &Options) -> Vec<u8> {
    let set = options.charset.filter(|_| options.secluded_args);
    set.map_or_else(|| name.to_vec(), |set| set.text_to_utf8(name))
}

/// The same as we look them up.
pub(crate) fn from_peer(name: &[u8], options: &Options) -> Vec<u8> {
    let set = options.charset.filter(|_| options.secluded_args);
    set.map_or_else(|| name.to_vec(), |set| set.text_from_utf8(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_takes_its_part() {
        let set = |name: &str| Charset::from_name(name.as_bytes());
        for (spec, ours, told, theirs) in [
            ("utf8,latin1", "utf8", "latin1", "latin1"),
            ("koi8-r", "koi8-r", "koi8-r", "koi8-r"),
            ("utf8,a,cp1251", "utf8", "a,cp1251", "cp1251"),
        ] {
            let mut options = Options { iconv: Some(spec.into()), ..Options::default() };
            of_client(&mut options).unwrap();
            assert_eq!((options.charset, options.iconv.as_deref()), (set(ours), Some(told.as_bytes())), "{spec}");
            of_server(&mut options).unwrap();
            assert_eq!(options.charset, set(theirs), "{spec}");
        }
        let error = at_server(b"bogus").unwrap_err().to_string();
        assert_eq!(error, "iconv_open(\"UTF-8\", \"bogus\") failed");
    }

    #[test]
    fn locales_name_sets() {
        for (all, lang, set) in [
            ("", "de_DE.UTF-8", "UTF-8"),
            ("C.utf8", "x", "utf8"),
            ("C", "", "ascii"),
            ("", "ru_RU.KOI8-R@x", "KOI8-R"),
            ("", "", "ascii"),
        ] {
            let variable = |name: &str| match name {
                "LC_ALL" => Some(all.into()),
                "LANG" => Some(lang.into()),
                _ => None,
            };
            assert_eq!(of_locale(variable), set.as_bytes(), "{all} {lang}");
        }
    }
}
