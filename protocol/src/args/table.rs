//! Every option that a server understands by itself, in the order in which stock clients say them.

use super::For::{Both, Nobody, Receiver, Sender};
use super::server_option::Form::{Apart, ApartUnlessDash, Close, Letter, Long, LongOrClose};
use super::server_option::{Field, Form, ServerOption};
use super::verbosity::Flag;
use super::{AltKind, Debug, DeleteWhen, For, Info, ItemDetail, parse_size};
use crate::checksum::Checksum;
use crate::compress::Method;

const fn row(form: Form, letter: u8, name: &'static str, told: For, field: Field) -> ServerOption {
    ServerOption { name, also: &[], letter, form, told, field }
}

const fn letter(letter: u8, name: &'static str, told: For, field: Field) -> ServerOption {
    row(Letter, letter, name, told, field)
}

const fn long(name: &'static str, told: For, field: Field) -> ServerOption {
    row(Long, 0, name, told, field)
}

const fn apart(name: &'static str, told: For, field: Field) -> ServerOption {
    row(Apart, 0, name, told, field)
}

/// What is understood, and never said.
const fn heard(name: &'static str, act: fn(&mut super::Options)) -> ServerOption {
    long(name, Nobody, Field::Word(act, |_| false))
}

macro_rules! flag {
    ($field:ident) => {
        Field::Flag(|options| &mut options.$field)
    };
}
macro_rules! count {
    ($field:ident) => {
        Field::Count(|options| &mut options.$field)
    };
}
macro_rules! text {
    ($field:ident) => {
        Field::Text(|options| &mut options.$field)
    };
}
/// A value that `$read` reads and `$say` writes.
macro_rules! value {
    ($field:ident, $read:expr, $say:expr) => {
        Field::Value(
            |options, value| $read(value).map(|read| options.$field = Some(read)),
            |options| options.$field.map($say),
        )
    };
}
/// Deletion at a time of its own.
macro_rules! delete {
    ($when:ident) => {
        Field::Word(
            |options| options.delete = Some(DeleteWhen::$when),
            |options| options.delete == Some(DeleteWhen::$when),
        )
    };
}
macro_rules! table {
    ($($name:ident = $row:expr;)*) => {
        // Each says it itself.
        $(#[allow(missing_docs)] pub const $name: ServerOption = $row;)*

        /// All of them.
        pub(crate) const ALL: &[ServerOption] = &[$($name),*];
    };
}

table! {
    VERBOSE = letter(b'v', "verbose", Both, count!(verbose));
    QUIET = letter(b'q', "quiet", Both, flag!(quiet));
    BACKUP = letter(b'b', "backup", Both, flag!(backup));
    UPDATE = letter(b'u', "update", Both, flag!(update));
    DRY_RUN = letter(b'n', "dry-run", Both, flag!(dry_run));
    LINKS = letter(b'l', "links", Both, flag!(links));
    DIRS = letter(b'd', "dirs", Both, flag!(dirs));
    KEEP_DIRLINKS = letter(b'K', "keep-dirlinks", Receiver, flag!(keep_dirlinks));
    PRUNE_EMPTY_DIRS = letter(b'm', "prune-empty-dirs", Receiver, flag!(prune_empty_dirs));
    OMIT_DIR_TIMES = letter(b'O', "omit-dir-times", Receiver, flag!(omit_dir_times));
    OMIT_LINK_TIMES = letter(b'J', "omit-link-times", Receiver, flag!(omit_link_times));
    FUZZY = letter(b'y', "fuzzy", Receiver, count!(fuzzy));
    COPY_LINKS = letter(b'L', "copy-links", Sender, flag!(copy_links));
    COPY_DIRLINKS = letter(b'k', "copy-dirlinks", Sender, flag!(copy_dirlinks));
    WHOLE_FILE = letter(b'W', "whole-file", Both, flag!(whole_file));
    HARD_LINKS = letter(b'H', "hard-links", Both, flag!(hard_links));
    OWNER = letter(b'o', "owner", Both, flag!(owner));
    GROUP = letter(b'g', "group", Both, flag!(group));
    DEVICES_AND_SPECIALS = letter(
        b'D',
        "",
        Both,
        Field::Word(|options| (options.devices, options.specials) = (true, true), |options| options.devices),
    );
    TIMES = letter(b't', "times", Both, flag!(times));
    ATIMES = letter(b'U', "atimes", Both, count!(atimes));
    CRTIMES = letter(b'N', "crtimes", Both, flag!(crtimes));
    PERMS = letter(b'p', "perms", Both, flag!(perms));
    EXECUTABILITY = letter(b'E', "executability", Both, flag!(executability));
    ACLS = letter(b'A', "acls", Both, flag!(acls));
    XATTRS = letter(b'X', "xattrs", Both, count!(xattrs));
    RECURSIVE = letter(b'r', "recursive", Both, flag!(recurse));
    CHECKSUM = letter(b'c', "checksum", Both, flag!(checksum));
    CVS_EXCLUDE = letter(b'C', "cvs-exclude", Both, flag!(cvs_exclude));
    IGNORE_TIMES = letter(b'I', "ignore-times", Both, flag!(ignore_times));
    RELATIVE = letter(b'R', "relative", Both, flag!(relative));
    ONE_FILE_SYSTEM = letter(b'x', "one-file-system", Both, count!(one_file_system));
    SPARSE = letter(b'S', "sparse", Both, flag!(sparse));
    // A method with a name of its own is told by that.
    COMPRESS = letter(
        b'z',
        "compress",
        Both,
        Field::Word(
            |options| options.compress = true,
            |options| options.compress && matches!(options.compress_choice.as_deref(), None | Some(b"zlib")),
        ),
    );
    // A client sets it in front of the others.
    SECLUDED_ARGS = letter(b's', "secluded-args", Nobody, flag!(secluded_args));

    // With `-s` it stands among the few words that do not travel in the set it names.
    ICONV = long("iconv", Both, text!(iconv));
    NO_SPECIALS = long(
        "no-specials",
        Both,
        Field::Word(|options| options.specials = false, |options| options.devices && !options.specials),
    );
    SPECIALS = long(
        "specials",
        Both,
        Field::Word(|options| options.specials = true, |options| options.specials && !options.devices),
    );
    LIST_ONLY = long("list-only", Both, flag!(list_only));
    SIZE_ONLY = long("size-only", Receiver, flag!(size_only));
    STATS = long("stats", Receiver, flag!(stats));
    EXISTING = ServerOption { also: &["ignore-non-existing"], ..long("existing", Receiver, flag!(existing)) };
    IGNORE_EXISTING = long("ignore-existing", Receiver, flag!(ignore_existing));
    DELETE_EXCLUDED = long("delete-excluded", Receiver, flag!(delete_excluded));
    FORCE = long("force", Receiver, flag!(force));
    DELAY_UPDATES = long("delay-updates", Receiver, flag!(delay_updates));
    PARTIAL = long("partial", Receiver, flag!(partial));
    FSYNC = long("fsync", Receiver, flag!(fsync));
    MKPATH = long("mkpath", Receiver, flag!(mkpath));
    PREALLOCATE = long("preallocate", Receiver, flag!(preallocate));
    WRITE_DEVICES = long("write-devices", Receiver, flag!(write_devices));
    DROP_DEVICES = long("drop-D", Receiver, flag!(drop_devices));
    NO_WHOLE_FILE = long("no-W", Receiver, flag!(no_whole_file));
    IGNORE_MISSING_ARGS = long("ignore-missing-args", Sender, flag!(ignore_missing_args));
    COPY_DEVICES = long("copy-devices", Sender, flag!(copy_devices));
    DELETE_MISSING_ARGS = long("delete-missing-args", Both, flag!(delete_missing_args));
    IGNORE_ERRORS = long("ignore-errors", Both, flag!(ignore_errors));
    COPY_UNSAFE_LINKS = long("copy-unsafe-links", Both, flag!(copy_unsafe_links));
    SAFE_LINKS = long("safe-links", Both, flag!(safe_links));
    NUMERIC_IDS = long("numeric-ids", Both, flag!(numeric_ids));
    INPLACE = long("inplace", Both, flag!(inplace));
    NO_IMPLIED_DIRS = long("no-implied-dirs", Both, flag!(no_implied_dirs));
    REMOVE_SOURCE_FILES = ServerOption {
        also: &["remove-sent-files"],
        ..long("remove-source-files", Both, flag!(remove_source_files))
    };
    OPEN_NOATIME = long("open-noatime", Both, flag!(open_noatime));
    FROM0 = long("from0", Both, flag!(from0));

    CHECKSUM_CHOICE = long(
        "checksum-choice",
        Both,
        value!(checksum_choice, checksum_choice, |(transfer, list)| match transfer == list {
            true => transfer.name().to_owned(),
            false => format!("{},{}", transfer.name(), list.name()),
        }),
    );
    CHECKSUM_SEED = long(
        "checksum-seed",
        Both,
        value!(
            checksum_seed,
            |value| number(value, i32::MIN.into(), u32::MAX.into()).map(|seed| seed as u32 as i32),
            |seed| seed.to_string()
        ),
    );
    // A day of silence is long enough, whatever more is asked for.
    TIMEOUT = long(
        "timeout",
        Both,
        value!(
            timeout,
            |value| number(value, 0, i32::MAX.into()).map(|seconds| seconds.min(86_400) as u32),
            |seconds| seconds.to_string()
        ),
    );
    // A server takes it in its own unit, KiB, unless a suffix says otherwise.
    BWLIMIT = long("bwlimit", Both, value!(bwlimit, |value| size(value, b'K'), bytes));
    MAX_ALLOC = long("max-alloc", Both, value!(max_alloc, |value| size(value, b'b'), bytes));
    COMPRESS_LEVEL = long(
        "compress-level",
        Both,
        value!(compress_level, signed, |level| level.to_string()),
    );
    LOG_FORMAT = long("log-format", Receiver, Field::Value(
        |options, value| {
            let has = |what: &[u8]| value.windows(what.len()).any(|window| window == what);
            options.detail = match () {
                () if has(b"%I") => ItemDetail::All,
                () if has(b"%i") => ItemDetail::Changed,
                () if has(b"%o") || value == b"X" => ItemDetail::Names,
                () => ItemDetail::None,
            };
            Ok(())
        },
        |options| match options.detail {
            ItemDetail::None => None,
            ItemDetail::Names => Some("X".into()),
            ItemDetail::Changed => Some("%i".into()),
            ItemDetail::All => Some("%i%I".into()),
        },
    ));
    MAX_DELETE = long(
        "max-delete",
        Receiver,
        value!(
            max_delete,
            |value| number(value, -1, i32::MAX.into()).map(|most| most.max(0) as u64),
            |most| if most == 0 { "-1".into() } else { most.to_string() }
        ),
    );
    MIN_SIZE = long("min-size", Receiver, value!(min_size, |value| size(value, b'b'), bytes));
    MAX_SIZE = long("max-size", Receiver, value!(max_size, |value| size(value, b'b'), bytes));
    SUFFIX = long("suffix", Both, text!(suffix));
    COMPRESS_CHOICE = long("compress-choice", Both, Field::Value(
        |options, value| {
            if value != b"auto" && Method::from_name(value).is_none() {
                return Err("zstd, lz4, zlibx, zlib, auto or none");
            }
            options.compress = value != b"none";
            options.compress_choice = Some(value.to_vec());
            Ok(())
        },
        |options| {
            let choice = options.compress_choice.as_deref().filter(|choice| !matches!(*choice, b"zlib" | b"zlibx"));
            choice.map(|choice| String::from_utf8_lossy(choice).into_owned())
        },
    ));
    SKIP_COMPRESS = long("skip-compress", Sender, text!(skip_compress));
    USERMAP = long("usermap", Receiver, text!(usermap));
    GROUPMAP = long("groupmap", Receiver, text!(groupmap));
    BACKUP_DIR = apart("backup-dir", Both, text!(backup_dir));
    PARTIAL_DIR = apart("partial-dir", Receiver, text!(partial_dir));
    TEMP_DIR = apart("temp-dir", Receiver, text!(temp_dir));
    COMPARE_DEST = apart("compare-dest", Receiver, Field::Dir(AltKind::Compare));
    COPY_DEST = apart("copy-dest", Receiver, Field::Dir(AltKind::Copy));
    LINK_DEST = apart("link-dest", Receiver, Field::Dir(AltKind::Link));
    FILES_FROM = row(ApartUnlessDash, 0, "files-from", Both, text!(files_from));
    // A list of names means full names unless the other end is told.
    NO_RELATIVE = long(
        "no-relative",
        Both,
        Field::Word(|options| options.relative = false, |options| options.files_from.is_some() && !options.relative),
    );

    BLOCK_SIZE = row(Close, b'B', "block-size", Both, value!(
        block_length,
        |value| number(value, 1, 131_072).map(|length| length as u32),
        |length| length.to_string()
    ));
    OLD_COMPRESS = long("old-compress", Both, Field::Word(
        |options| options.compress_choice = Some(b"zlib".to_vec()),
        |options| options.compress_choice.as_deref() == Some(b"zlib"),
    ));
    NEW_COMPRESS = long("new-compress", Both, Field::Word(
        |options| (options.compress, options.compress_choice) = (true, Some(b"zlibx".to_vec())),
        |options| options.compress_choice.as_deref() == Some(b"zlibx"),
    ));
    APPEND = long("append", Both, count!(append));
    MODIFY_WINDOW = row(LongOrClose, b'@', "modify-window", Receiver, Field::Value(
        |options, value| signed(value).map(|window| options.modify_window = window),
        |options| Some(options.modify_window).filter(|window| *window != 0).map(|window| window.to_string()),
    ));
    // It changes nothing of what is done.
    NO_RECURSIVE = long("no-r", Receiver, Field::Word(|_| {}, |options| options.delete.is_some() && !options.recurse));
    DELETE = long("delete", Receiver, delete!(Default));
    DELETE_BEFORE = long("delete-before", Receiver, delete!(Before));
    DELETE_DURING = long("delete-during", Receiver, delete!(During));
    DELETE_DELAY = long("delete-delay", Receiver, delete!(Delay));
    DELETE_AFTER = long("delete-after", Receiver, delete!(After));
    SUPER = long(
        "super",
        Receiver,
        Field::Word(|options| options.super_user = Some(true), |options| options.super_user == Some(true)),
    );
    ONLY_WRITE_BATCH = long("only-write-batch", Receiver, Field::Value(
        |options, _| {
            options.only_write_batch = true;
            Ok(())
        },
        |options| options.only_write_batch.then(|| "X".into()),
    ));

    // What a server is told by others than our client, or what it says by a capability that it lacks.
    DEL = heard("del", |options| options.delete = Some(DeleteWhen::During));
    // As with stock, it is for this end alone.
    NO_SUPER = heard("no-super", |options| options.super_user = Some(false));
    MUNGE_LINKS = long("munge-links", Nobody, flag!(munge_links));
    FAKE_SUPER = long("fake-super", Nobody, flag!(fake_super));
    TRUST_SENDER = long("trust-sender", Nobody, flag!(trust_sender));
    NO_INC_RECURSIVE = long("no-inc-recursive", Nobody, flag!(no_inc_recursive));
    USE_QSORT = long("use-qsort", Nobody, flag!(no_inc_recursive));
    LOG_FILE = apart("log-file", Nobody, text!(log_file));
    LOG_FILE_FORMAT = apart("log-file-format", Nobody, text!(log_file_format));
    CONFINE_ROOT = apart("confine-root", Nobody, text!(confine_root));
    // Only who starts the server may say these, never a client.
    INSECURE_LINKS = long("insecure-links", Nobody, flag!(insecure_links));
    COPY_AS = long("copy-as", Nobody, text!(copy_as));
    // A client may know of more than we do. What a server is told of `--info` depends on the server.
    INFO = long(Info::OPTION, Nobody, Field::Value(
        |options, value| options.info.set(value).map(drop).or(Ok(())),
        |_| None,
    ));
    DEBUG = long(Debug::OPTION, Nobody, Field::Value(
        |options, value| options.debug.set(value).map(drop).or(Ok(())),
        |_| None,
    ));
    // These change what is said or how, never what is done: safe to pass over.
    STDERR = long("stderr", Nobody, Field::Value(|_, _| Ok(()), |_| None));
    MSGS2STDERR = heard("msgs2stderr", |_| {});
    NO_MSGS2STDERR = heard("no-msgs2stderr", |_| {});
}

fn number(value: &[u8], least: i64, most: i64) -> Result<i64, &'static str> {
    let number = String::from_utf8_lossy(value).parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or("a number within the protocol's limits")
}

fn signed(value: &[u8]) -> Result<i32, &'static str> {
    number(value, i32::MIN.into(), i32::MAX.into()).map(|number| number as i32)
}

fn size(value: &[u8], unit: u8) -> Result<u64, &'static str> {
    parse_size(value, unit).ok_or("a size such as 700, 1.5m or 2GB")
}

/// A size without a doubt about its unit.
fn bytes(size: u64) -> String {
    format!("{size}b")
}

fn checksum_choice(value: &[u8]) -> Result<(Checksum, Checksum), &'static str> {
    let name = |name: &[u8]| Checksum::from_name(name).ok_or("names such as xxh128, md5 or blake3");
    match value.iter().position(|&byte| byte == b',') {
        Some(comma) => Ok((name(&value[..comma])?, name(&value[comma + 1..])?)),
        None => name(value).map(|checksum| (checksum, checksum)),
    }
}
