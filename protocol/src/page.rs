//! `PROTOCOL.md` held against the code: what its tables say is all there is, and all of it is so.

use crate::args::{ArgsError, ServerArgs, ServerOption, table};
use crate::batch;
use crate::checksum::Checksum;
use crate::flist::flag;
use crate::handshake::{Compat, Offer, Side};
use crate::item::ItemFlags;
use crate::mux::{Message, code};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../PROTOCOL.md");

/// The rows of the one table whose head begins with these cells, each as its cells without backticks.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let begin = format!("\n{head}");
    let mut parts = PAGE.split(&begin);
    let (Some(_), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
        panic!("PROTOCOL.md has not one table that begins {head:?}")
    };
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |line: &'static str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    rows.map(cells).collect()
}

fn hex(cell: &str) -> u32 {
    u32::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{cell:?} is no hex number"))
}

/// Both directions: what the page lacks and what it has too much is said.
fn same<T: Ord + std::fmt::Debug>(what: &str, page: impl IntoIterator<Item = T>, code: impl IntoIterator<Item = T>) {
    let (page, code): (BTreeSet<_>, BTreeSet<_>) = (page.into_iter().collect(), code.into_iter().collect());
    let missing: Vec<_> = code.difference(&page).collect();
    let extra: Vec<_> = page.difference(&code).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: PROTOCOL.md lacks {missing:?}, and has {extra:?}");
    assert!(!page.is_empty());
}

#[test]
fn compatibility_flags_are_those_of_the_page() {
    let rows = table("| bit | name | letter |");
    let page = rows.iter().map(|row| (hex(row[0]), row[1], row[2]));
    let letters = (b'A'..=b'z').filter(u8::is_ascii_alphabetic);
    let asked: Vec<_> = letters.map(|letter| (letter, Compat::answer(&[letter], true).0)).collect();
    let always = Compat::answer(b"", true).0;
    let code = Compat::LISTED.iter().map(|&(name, Compat(bit))| {
        let letter = asked.iter().find(|(_, answer)| answer & bit & !always != 0).map(|(letter, _)| *letter as char);
        (bit, name, letter.map_or("always".into(), String::from))
    });
    same("compatibility flags", page.map(|(bit, name, letter)| (bit, name, letter.to_owned())), code);
}

#[test]
fn flags_of_list_entries_are_those_of_the_page() {
    let rows = table("| flag | name | of |");
    same(
        "flags of entries",
        rows.iter().map(|row| (hex(row[0]), row[1])),
        flag::LISTED.iter().map(|&(name, bit)| (bit, name)),
    );
}

#[test]
fn item_flags_are_those_of_the_page() {
    let rows = table("| flag | name | says |");
    let code = ItemFlags::LISTED.iter().map(|&(name, ItemFlags(bit))| (bit.into(), name));
    same("item flags", rows.iter().map(|row| (hex(row[0]), row[1])), code);
}

#[test]
fn messages_are_those_of_the_page() {
    let rows = table("| code | name | body |");
    let page: Vec<(u32, _)> = rows.iter().map(|row| (row[0].parse().unwrap(), row[1])).collect();
    same("messages", page.iter().copied(), code::LISTED.iter().map(|&(name, code)| (code, name)));
    // And whatever else is known would be known by one of these bodies.
    let bodies = [&b""[..], b"\0\0\0\0"];
    let known = (0..=255).filter(|&code| bodies.iter().any(|body| Message::decode(code, body.to_vec()).is_ok()));
    same("codes of messages", page.iter().map(|(code, _)| *code), known);
}

/// Values of which each option takes one.
const VALUES: [&str; 7] = ["%i", "/x", "-1", "1", "md5", "zstd", "zlib"];

fn parse(sender: bool, words: &[&str]) -> Result<ServerArgs, ArgsError> {
    let mut all = vec!["--server"];
    all.extend(sender.then_some("--sender"));
    all.extend(words);
    all.extend([".", "path"]);
    ServerArgs::parse(&all)
}

fn is_known(words: &[&str]) -> bool {
    !matches!(parse(false, words), Err(ArgsError::Unsupported(_)))
}

/// Which servers a client tells of what one of these word lists says, in the page's words.
fn told(lists: &[Vec<String>], is_it: impl Fn(&str) -> bool) -> &'static str {
    // Some are told only beside others.
    let beside = [&[][..], &["-D", "--delete", "--files-from=-"]];
    let tells = |sender: bool| {
        lists.iter().flat_map(|words| beside.map(|beside| (words, beside))).any(|(words, beside)| {
            let words: Vec<_> = beside.iter().copied().chain(words.iter().map(String::as_str)).collect();
            let Ok(args) = parse(sender, &words) else { return false };
            let options = args.to_words().into_iter().skip(1).take_while(|word| word != b".");
            options.into_iter().any(|word| is_it(&String::from_utf8(word).unwrap()))
        })
    };
    match (tells(true), tells(false)) {
        (true, true) => "both",
        (true, false) => "sender",
        (false, true) => "receiver",
        (false, false) => "none",
    }
}

#[test]
fn letters_are_those_of_the_page() {
    let rows = table("| letter | told to |");
    let page = rows.iter().map(|row| (row[0].to_owned(), row[1]));
    // `B` takes a number and stands among the long options.
    let letters = (b'A'..=b'z').filter(|letter| letter.is_ascii_alphabetic() && *letter != b'B').map(char::from);
    let code = letters.map(|letter| (letter, format!("-{letter}"))).filter(|(_, word)| is_known(&[word]));
    let code = code.map(|(letter, word)| {
        let bundle = |word: &str| !word.starts_with("--") && word.split('e').next().is_some_and(|w| w.contains(letter));
        let told = if letter == 'e' { "both" } else { told(&[vec![word]], bundle) };
        (letter.to_string(), told)
    });
    same("letters", page, code);
}

/// Whatever an option of the table may be spelt like, but for letters without a value.
fn spelt() -> BTreeSet<String> {
    let close = |option: &ServerOption| {
        Some(format!("-{}", option.letter as char)).filter(|_| option.is_close_behind(option.letter))
    };
    let long = |name: &str| Some(format!("--{name}")).filter(|_| !name.is_empty());
    let spelt = |option: &ServerOption| {
        let long = option.also.iter().copied().chain([option.name]).map(long);
        long.chain([close(option)]).collect::<Vec<_>>()
    };
    table::ALL.iter().flat_map(spelt).flatten().collect()
}

/// How an option takes its value, in the page's words, and the lists of words that give it one.
fn form(option: &str) -> (&'static str, Vec<Vec<String>>) {
    let is_good = |words: &Vec<String>| parse(false, &words.iter().map(String::as_str).collect::<Vec<_>>()).is_ok();
    let good = |give: &dyn Fn(&str) -> Vec<String>| VALUES.map(give).into_iter().filter(is_good).collect::<Vec<_>>();
    let own_word = good(&|value| vec![option.to_owned(), value.to_owned()]);
    let joined = good(&|value| vec![format!("{option}={value}")]);
    let close = good(&|value| vec![format!("{option}{value}")]);
    let alone = vec![option.to_owned()];
    match (own_word.is_empty(), joined.is_empty()) {
        (false, _) => ("V or =V", own_word),
        (true, false) => ("=V", joined),
        _ if is_good(&alone) => ("", vec![alone]),
        _ => ("V", close),
    }
}

#[test]
fn long_options_are_those_of_the_page() {
    let rows = table("| option | value | told to |");
    let page = rows.iter().map(|row| (row[0].to_owned(), row[1], row[2]));
    let spelt = spelt();
    let known = spelt.iter().filter(|option| is_known(&[option]) || is_known(&[&format!("{option}=1")]));
    let code = known.map(|option| {
        let (form, lists) = form(option);
        let is_it = |word: &str| match option.starts_with("--") {
            true => word == option || word.starts_with(&format!("{option}=")),
            false => word.starts_with(option.as_str()),
        };
        (option.clone(), form, told(&lists, is_it))
    });
    same("long options", page, code);
}

#[test]
fn checksums_are_those_of_the_page() {
    let rows = table("| name | bytes | block sum |");
    let page = rows.iter().map(|row| (row[0], row[1].parse().unwrap()));
    let list = Offer::Blake3.list(&Side::Server { letters: vec![], seed: 0 });
    same("checksums", page, list.iter().map(|checksum: &Checksum| (checksum.name(), checksum.size())));
}

#[test]
fn the_bits_of_a_batch_are_those_of_the_page() {
    let rows = table("| bit | options |");
    same(
        "bits of a batch",
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1])),
        batch::FLAGS.map(|(name, bit)| (bit, name)),
    );
}

#[test]
fn the_lists_and_versions_in_the_text_are_ours() {
    let names = |side: Side| Offer::Stock.list(&side).into_iter().map(Checksum::name).collect::<Vec<_>>().join(" ");
    let server = Side::Server { letters: vec![], seed: 0 };
    let (least, most) = (crate::handshake::VERSION_LEAST, crate::handshake::VERSION_MOST);
    for said in [
        format!("rsync protocol versions {least} to {most}"),
        format!("`{}`", names(Side::Client)),
        format!("`{}`", names(server)),
        format!("`{}`", crate::compress::Wish::OFF.list(false)),
        format!("`{}`", String::from_utf8(crate::daemon::Greeting::line(most)).unwrap().trim()),
        format!("`{}`", crate::args::CAPABILITIES),
    ] {
        assert!(PAGE.contains(&said), "PROTOCOL.md does not say {said:?}");
    }
}
