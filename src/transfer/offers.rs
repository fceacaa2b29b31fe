//! What an end brings to the handshake. Of checksums and compression the environment says what may be offered:
//! `RSYNC_CHECKSUM_LIST` and `RSYNC_COMPRESS_LIST`.

use super::TransferError;
use protocol::args::Options;
use protocol::checksum::Checksum;
use protocol::compress::{Choice, Method, Wish};
use protocol::handshake::{Hello, Offer, Side};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What an end with these options brings to the handshake. `pull`: the files go to the client.
pub(crate) fn hello(side: Side, version: u8, options: &Options, pull: bool) -> Hello {
    let server = matches!(side, Side::Server { .. });
    Hello {
        side,
        version,
        choice: options.checksum_choice,
        offer: checksums(server),
        compression: compression(options.compression(), server),
        incremental: if pull != server { options.takes_segments() } else { options.sends_segments() },
        acknowledges: pull && options.remove_source_files,
    }
}

fn checksums(server: bool) -> Offer {
    match listed("RSYNC_CHECKSUM_LIST", server, Checksum::from_name) {
        Some(list) => Offer::These(list),
        None => Offer::Stock,
    }
}

/// The same wish, held to the methods that the environment lists.
fn compression(wish: Wish, server: bool) -> Wish {
    match (wish.choice, listed("RSYNC_COMPRESS_LIST", server, Method::from_name)) {
        (Choice::Negotiated, Some(list)) => Wish { choice: Choice::Among(list), ..wish },
        _ => wish,
    }
}

/// Refuses at a server what the client names and the environment does not list.
pub(crate) fn check(options: &Options) -> Result<(), TransferError> {
    let refused = |option: &str, name: &str| {
        Err(TransferError::Refused(format!("Your --{option} value ({name}) was refused by the server.").into()))
    };
    if let (Offer::These(list), Some((of_transfer, of_list))) = (checksums(true), options.checksum_choice)
        && let Some(lacking) = [of_transfer, of_list].into_iter().find(|checksum| !list.contains(&Some(*checksum)))
    {
        return refused("checksum-choice", lacking.name());
    }
    let list: Option<[_; 5]> = listed("RSYNC_COMPRESS_LIST", true, Method::from_name);
    if let (Choice::Named(method), Some(list)) = (options.compression().choice, list)
        && !list.contains(&Some(method))
    {
        return refused("compress-choice", method.name());
    }
    Ok(())
}

fn listed<T: Copy + PartialEq, const N: usize>(
    variable: &str,
    server: bool,
    named: fn(&[u8]) -> Option<T>,
) -> Option<[Option<T>; N]> {
    let value = std::env::var_os(variable).map(OsString::into_vec)?;
    parse(&value, server, named)
}

/// The names of one end: those before an `&` are the client's, those behind it the server's. `None` without any word;
/// words that name nothing are left out.
fn parse<T: Copy + PartialEq, const N: usize>(
    value: &[u8],
    server: bool,
    named: fn(&[u8]) -> Option<T>,
) -> Option<[Option<T>; N]> {
    let mut ends = value.splitn(2, |&byte| byte == b'&');
    let client = ends.next().unwrap_or_default();
    let own = if server { ends.next().unwrap_or(client) } else { client };
    let mut words = own.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).peekable();
    words.peek()?;
    let mut list = [None; N];
    let mut filled = 0;
    for found in words.filter_map(|word| named(&word.to_ascii_lowercase())) {
        if filled < N && !list.contains(&Some(found)) {
            list[filled] = Some(found);
            filled += 1;
        }
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Checksum::{Md4, Md5, Xxh64};

    #[test]
    fn each_end_has_its_part_of_a_list() {
        let parsed = |text: &str, server: bool| {
            parse::<_, 8>(text.as_bytes(), server, Checksum::from_name)
                .map(|list| list.into_iter().flatten().collect::<Vec<_>>())
        };
        for (text, client, server) in [
            ("md5 xxhash", Some(vec![Md5, Xxh64]), Some(vec![Md5, Xxh64])),
            ("md4 & md5", Some(vec![Md4]), Some(vec![Md5])),
            ("& md5", None, Some(vec![Md5])),
            ("md5 &", Some(vec![Md5]), None),
            ("  ", None, None),
            ("auto nonsense", Some(vec![]), Some(vec![])),
            ("MD5\tmd5 md4", Some(vec![Md5, Md4]), Some(vec![Md5, Md4])),
        ] {
            assert_eq!((parsed(text, false), parsed(text, true)), (client, server), "{text}");
        }
    }
}
