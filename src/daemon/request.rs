//! What a client asks of its module, and the session that comes of it.

use super::access::Peer;
use super::arrival::Admitted;
use super::auth::UserAccess;
use super::config::Parameters;
use super::journal::Journal;
use super::module::inside;
use super::refuse::Refusals;
use super::talk::Talk;
use crate::disk::wild;
use crate::exit;
use crate::report::Ledger;
use crate::report::peer::LoggedPeer;
use crate::rsync::served;
use crate::transfer::glob::Globs;
use crate::transfer::guard::Guard;
use crate::transfer::held::hold;
use crate::transfer::serve::{Served, hello, serve_session};
use crate::transfer::{TransferError, charset, greet_agreed};
use protocol::args::{ArgsError, Options, ServerArgs};
use protocol::daemon::ArgList;
use std::time::Duration;

/// How long a silent client is waited for where nobody sets a limit; stock rsync waits for ever.
const SILENCE: Duration = Duration::from_secs(3600);
/// The default of `log format`.
const LOG_FORMAT: &str = "%o %h [%a] %m (%u) %f %l";

/// Serves the session; returns the exit code.
/// `bwlimit` bounds what the client may ask for.
pub(super) fn serve(admitted: Admitted<'_>, peer: &Peer, journal: &Journal, talk: Talk, bwlimit: Option<u64>) -> u8 {
    let settings = &admitted.module.settings;
    let asked = ask(&admitted);
    let (mut args, refusal) = match asked {
        Ok(args) => (args, None),
        Err(refused) => (*refused.args, Some((refused.text, refused.code))),
    };
    let refusal = admitted.turned_down.clone().map(|why| (why, 1)).or(refusal);
    let paths: Vec<_> =
        admitted.args.iter().skip_while(|arg| *arg != b".").skip(1).map(|path| String::from_utf8_lossy(path)).collect();
    let user = admitted.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
    journal.say(&format!(
        "rsync {} {} from {user}{} ({})",
        if args.sender { "on" } else { "to" },
        paths.join(" "),
        peer.shown_name(),
        peer.shown_address()
    ));
    // The module's word on silence goes before a longer one of the client's.
    let limit = u32::try_from(settings.timeout).unwrap_or(0);
    if limit > 0 && args.options.timeout.is_none_or(|asked| asked == 0 || asked > limit) {
        args.options.timeout = Some(limit);
    }
    if let Some(limit) = bwlimit.filter(|&limit| limit > 0) {
        let asked = args.options.bwlimit.filter(|&asked| asked > 0);
        args.options.bwlimit = Some(asked.map_or(limit, |asked| asked.min(limit)));
    }
    let silence =
        args.options.timeout.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
    let ledger = ledger(&admitted, peer, &args, journal);
    if refusal.is_none() {
        hold(&args);
    }
    let (link, count) = talk.into_link(silence.unwrap_or(SILENCE));
    let served = hello(&args, admitted.version).and_then(|hello| {
        let mut session = greet_agreed(link, hello)?;
        if limit > 0 {
            session.tell_timeout(settings.timeout as i32);
        }
        match &refusal {
            Some((text, code)) => {
                session.refuse(text, *code);
                Ok(None)
            }
            None => serve_session(&args, session, admitted.guard.as_ref(), Some(&ledger)).map(Some),
        }
    });
    let code = match (&served, &refusal) {
        (_, Some((text, code))) => {
            journal.warn(text);
            *code
        }
        (Ok(served), _) => served.map_or(0, Served::exit_code),
        (Err(error), _) => {
            journal.warn(&format!("rsync error: {error} (code {})", error.exit_code()));
            error.exit_code()
        }
    };
    if matches!(&served, Ok(None) | Err(_)) && !matches!(served, Err(TransferError::Link(_))) {
        ledger.ends(count.sent(), count.received());
    }
    if refusal.is_some() {
        journal.warn(&exit::line(code, if args.sender { "sender" } else { "Receiver" }));
    }
    exit::status(code)
}

/// What goes into the log of the transfer itself: with `transfer logging` each file, too.
fn ledger<'j>(admitted: &Admitted<'_>, peer: &Peer, args: &ServerArgs, journal: &'j Journal) -> Ledger<'j> {
    let settings = &admitted.module.settings;
    let expand = |text: &Option<String>| text.as_deref().map(|text| admitted.environment.expand(text));
    let path = expand(&settings.path).unwrap_or_default();
    let site = LoggedPeer {
        address: peer.shown_address(),
        host: peer.shown_name().to_owned(),
        module: admitted.module.name.clone(),
        user: admitted.user.clone().unwrap_or_default(),
        path: path.trim_end_matches('/').to_owned(),
    };
    // Its own percent signs are not those of variables.
    let format = settings.transfer_logging.then(|| settings.log_format.as_deref().unwrap_or(LOG_FORMAT));
    let sink = |line: &[u8]| journal.say(&String::from_utf8_lossy(line));
    Ledger::new(args, format.map(|format| format.as_bytes().to_vec()), Some(site), Box::new(sink))
}

/// A request that is turned down once the client can hear why.
struct Refused {
    text: String,
    code: i32,
    /// As much as was understood, for the handshake.
    args: Box<ServerArgs>,
}

fn ask(admitted: &Admitted<'_>) -> Result<ServerArgs, Refused> {
    let (module, settings) = (admitted.module, &admitted.module.settings);
    let words = unescaped(&admitted.args);
    let sender = words.iter().take_while(|word| *word != b".").any(|word| word == b"--sender");
    let refuse_list = settings.refuse_options.as_deref().map(|list| admitted.environment.expand(list));
    let refusals = Refusals { list: refuse_list.as_deref().unwrap_or_default(), charset: settings.charset.is_some() };
    let refused =
        |text: String, code: i32| Refused { text, code, args: Box::new(as_far_as_understood(&words, sender)) };
    if let Some(text) = refusals.check(&words, sender) {
        return Err(refused(format!("rsync: {text}"), exit::UNSUPPORTED));
    }
    let borrowed: Vec<_> = words.iter().map(Vec::as_slice).collect();
    let mut args = served::args(&borrowed, served::Trust::Stranger).map_err(|error| match error {
        ArgsError::Unsupported(option) => {
            refused(format!("rsync: on remote machine: {option}: unknown option"), exit::UNSUPPORTED)
        }
        error => refused(format!("rsync: {error}"), exit::SYNTAX),
    })?;
    // The module is the boundary already, and this is the client's word.
    args.options.confine_root = None;
    let read_only = match admitted.access {
        UserAccess::ReadOnly => true,
        UserAccess::ReadWrite => false,
        UserAccess::AsModule | UserAccess::Deny => settings.read_only,
    };
    if !args.sender && read_only {
        return Err(Refused { text: "ERROR: module is read only".into(), code: exit::SYNTAX, args: Box::new(args) });
    }
    if args.sender && read_only && args.options.remove_source_files {
        let text = "ERROR: --remove-source-files cannot be used with a read-only module".into();
        return Err(Refused { text, code: exit::SYNTAX, args: Box::new(args) });
    }
    if args.sender && settings.write_only {
        return Err(Refused { text: "ERROR: module is write only".into(), code: exit::SYNTAX, args: Box::new(args) });
    }
    // The operator's own folder for temporary files is no client's word.
    let named: Vec<_> = folders(&args.options).cloned().collect();
    apply(settings, admitted, &mut args.options);
    if let Err(error) = charset::of_server(&mut args.options) {
        return Err(Refused { text: error.to_string(), code: error.exit_code(), args: Box::new(args) });
    }
    if let Some(set) = args.options.charset.filter(|_| args.options.secluded_args) {
        args.paths = args.paths.iter().map(|path| set.text_from_utf8(path)).collect();
    }
    let relative = args.options.relative;
    let (mut paths, mut globs) = (Vec::new(), Globs::new());
    for path in &args.paths {
        let path = inside(module.name.as_bytes(), path, relative);
        match args.sender {
            true => match globs.expand(&path, admitted.guard.as_ref()) {
                Ok(found) => paths.extend(found),
                Err(error) => {
                    return Err(Refused { text: error.to_string(), code: exit::MEMORY, args: Box::new(args) });
                }
            },
            false => paths.push(path),
        }
    }
    args.paths = paths;
    let base = args.paths.first().filter(|_| !args.sender);
    let list = args.options.files_from.as_deref().filter(|name| *name != b"-");
    if let Some(guard) = &admitted.guard
        && (named.iter().any(|dir| barred(guard, dir, base))
            || list.is_some_and(|list| guard.hides(&inside(b"", list, false), false)))
    {
        let text = "Your options have been rejected by the server.".into();
        return Err(Refused { text, code: exit::UNSUPPORTED, args: Box::new(args) });
    }
    Ok(args)
}

/// Whether a folder that an option names is kept from clients. A relative one counts from the destination, which may be a
/// file's name; it is judged as one of the module's, too, as by stock.
fn barred(guard: &Guard, dir: &[u8], base: Option<&Vec<u8>>) -> bool {
    let base = base.filter(|_| !dir.starts_with(b"/")).map_or(&b""[..], Vec::as_slice);
    let above = base.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &base[..slash]);
    let from = |base: &[u8]| inside(b"", &[base, b"/", dir].concat(), false);
    [b"", base, above].into_iter().any(|base| guard.hides(&from(base), true))
}

/// The further folders that options name.
fn folders(options: &Options) -> impl Iterator<Item = &Vec<u8>> {
    let own = [&options.backup_dir, &options.partial_dir, &options.temp_dir];
    own.into_iter().flatten().chain(&options.alt_dirs)
}

/// Makes the module's parameters the session's options.
fn apply(settings: &Parameters, admitted: &Admitted<'_>, options: &mut Options) {
    let expand = |text: &Option<String>| text.as_deref().map(|text| admitted.environment.expand(text).into_bytes());
    let most = u8::try_from(settings.max_verbosity).unwrap_or(u8::MAX);
    options.verbose = options.verbose.min(most);
    options.info.limit(most);
    options.debug.limit(most);
    options.secluded_args = ArgList::is_secluded(&admitted.args);
    // In a changed root the names of users would be those that stand in the module.
    let hidden = admitted.changes_root && settings.name_converter.is_none();
    options.nameless_ids = settings.numeric_ids.unwrap_or(hidden);
    options.munge_links = settings.munge_symlinks.unwrap_or(!admitted.is_root);
    options.sanitize_links = !options.munge_links && !admitted.is_root;
    options.fake_super |= settings.fake_super;
    options.ignore_errors |= settings.ignore_errors;
    options.open_noatime = settings.open_noatime.unwrap_or(options.open_noatime);
    let chmod = if options_send(admitted) { &settings.outgoing_chmod } else { &settings.incoming_chmod };
    options.chmod = expand(chmod);
    if let Some(folder) = expand(&settings.temp_dir) {
        options.temp_dir.get_or_insert(folder);
    }
    if options.iconv.is_some() {
        options.iconv = expand(&settings.charset);
    }
    if settings.dont_compress.as_deref() == Some("*") {
        options.skip_compress = Some(b"*".to_vec());
    }
}

fn options_send(admitted: &Admitted<'_>) -> bool {
    admitted.args.iter().take_while(|arg| *arg != b".").any(|arg| arg == b"--sender")
}

/// Options' values as they were before the client put backslashes in them, as one of 3.5 does without `-s`.
fn unescaped(args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if ArgList::is_secluded(args) {
        // Both parts of the list stand here together by now.
        return args.iter().map(|arg| unsecluded(arg)).collect();
    }
    let dot = args.iter().position(|arg| arg == b".").unwrap_or(args.len());
    let plain = |(at, arg): (usize, &Vec<u8>)| if at < dot { wild::unescaped(arg) } else { arg.clone() };
    args.iter().enumerate().map(plain).collect()
}

/// A bundle of letters without the `s`.
fn unsecluded(arg: &[u8]) -> Vec<u8> {
    let bundle = arg.starts_with(b"-") && !arg.starts_with(b"--");
    let letters = arg.iter().position(|&byte| byte == b'e').filter(|_| bundle).unwrap_or(0);
    let kept = arg[..letters].iter().copied().filter(|&letter| letter != b's');
    kept.chain(arg[letters..].iter().copied()).collect()
}

/// What the handshake needs of arguments that cannot be served: the client has given its own already.
fn as_far_as_understood(words: &[Vec<u8>], sender: bool) -> ServerArgs {
    let options = words.iter().take_while(|word| *word != b".");
    let named = |word: &[u8], names: &[&str]| names.iter().any(|name| word.starts_with(name.as_bytes()));
    let attempt = |names: &[&str], compress: bool| {
        let kept =
            options.clone().filter(|word| named(word, names) || (word.starts_with(b"-") && !word.starts_with(b"--")));
        let mut attempt = vec![b"--server".to_vec()];
        attempt.extend(kept.map(|word| capabilities(word, compress)));
        attempt.extend([b".".to_vec(), b".".to_vec()]);
        ServerArgs::parse(&attempt)
    };
    let checksum = "--checksum-choice=";
    // What both ends negotiate depends on these; where we lack compression, that is what the client cannot be told.
    let args = attempt(&[checksum, "--compress-choice=", "--new-compress", "--old-compress"], true)
        .or_else(|_| attempt(&[checksum], false))
        .unwrap_or_default();
    ServerArgs { sender, ..args }
}

/// A bundle of letters without all that the handshake does not need.
fn capabilities(word: &[u8], compress: bool) -> Vec<u8> {
    if word.starts_with(b"--") {
        return word.to_vec();
    }
    let at = word.iter().position(|&byte| byte == b'e').unwrap_or(word.len());
    let compressed = compress && word[..at].contains(&b'z');
    [if compressed { &b"-rz"[..] } else { b"-r" }, &word[at..]].concat()
}
