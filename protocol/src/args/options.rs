//! What a transfer is asked to do: every option that both ends may have to know.

use super::{Debug, Flag, Info, Levels};
use crate::PeerError;
use crate::charset::Charset;
use crate::checksum::Checksum;
use crate::compress::{Choice, Method, Wish};
use crate::flist::ListShape;

/// How hidden details are told to the client: `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ItemDetail {
    /// Only what the protocol needs.
    #[default]
    None,
    /// Nothing either, but that the client shows names, though nothing else tells that (`X`).
    Names,
    /// Changed items (`%i`).
    Changed,
    /// All items (`%i%I`).
    All,
}

/// When the receiving side deletes what the sender does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeleteWhen {
    /// `--delete`: as the receiving side prefers, which is during the transfer.
    #[default]
    Default,
    /// `--delete-before`.
    Before,
    /// `--delete-during`.
    During,
    /// `--delete-delay`: found during the transfer, done after it.
    Delay,
    /// `--delete-after`.
    After,
}

/// What becomes of a file that an alternative destination holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AltKind {
    /// `--compare-dest`: it is left out.
    Compare,
    /// `--copy-dest`: it is copied from there.
    Copy,
    /// `--link-dest`: it is linked from there.
    Link,
}

macro_rules! options {
    (flags { $($(#[$flag_doc:meta])* $flag:ident),* $(,)? } counts { $($(#[$count_doc:meta])* $count:ident),* $(,)? }
     values { $($(#[$value_doc:meta])* $value:ident: $kind:ty),* $(,)? }) => {
        /// The options of a transfer, each with rsync's meaning. A server reads them from its arguments, a client from its
        /// command line.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Options {
            $($(#[$flag_doc])* pub $flag: bool,)*
            $($(#[$count_doc])* pub $count: u8,)*
            $($(#[$value_doc])* pub $value: $kind,)*
        }
    };
}

options! {
    flags {
        /// `-l`: keep symlinks.
        links,
        /// `-L`: follow all symlinks (sending side).
        copy_links,
        /// `-k`: follow symlinks to directories (sending side).
        copy_dirlinks,
        /// `--copy-unsafe-links`: follow symlinks that point out of the tree (sending side).
        copy_unsafe_links,
        /// `--safe-links`: leave out symlinks that point out of the tree.
        safe_links,
        /// `--munge-links`: make symlinks safe and unusable (client only).
        munge_links,
        /// `-K`: a symlink to a directory serves as a directory (receiving side).
        keep_dirlinks,
        /// `-H`: keep hard links.
        hard_links,
        /// `-o`: keep owners.
        owner,
        /// `-g`: keep groups.
        group,
        /// `-D` or `--devices`: keep devices.
        devices,
        /// `-D` without `--no-specials`: keep fifos and sockets.
        specials,
        /// `--drop-D`: make no devices and specials (receiving side).
        drop_devices,
        /// `--copy-devices`: the content of devices is sent as that of files (sending side).
        copy_devices,
        /// `--write-devices`: devices are written to as files are (receiving side).
        write_devices,
        /// `-t`: keep modification times.
        times,
        /// `-O`: but not of directories.
        omit_dir_times,
        /// `-J`: but not of symlinks.
        omit_link_times,
        /// `-N`: keep creation times.
        crtimes,
        /// `--open-noatime`: leave access times of what is read alone.
        open_noatime,
        /// `--insecure-links`: symlinks in paths an operator names are followed, whoever owns them (never told to the peer).
        insecure_links,
        /// `-p`: keep permissions.
        perms,
        /// `-E`: keep executability.
        executability,
        /// `-A`: keep ACLs.
        acls,
        /// `-r`: descend into directories.
        recurse,
        /// `--no-inc-recursive`: the file list comes in one piece.
        no_inc_recursive,
        /// `-d`: directories without their content.
        dirs,
        /// `-R`: full names.
        relative,
        /// `--no-implied-dirs`: attributes of implied parents are not kept.
        no_implied_dirs,
        /// `-m`: leave out directories that would be empty (receiving side).
        prune_empty_dirs,
        /// `-C`: leave out what CVS would.
        cvs_exclude,
        /// `-c`: compare by checksum.
        checksum,
        /// `-I`: no quick check.
        ignore_times,
        /// `--size-only`: sizes alone tell.
        size_only,
        /// `-u`: leave files alone that are newer here.
        update,
        /// `--existing`: update only.
        existing,
        /// `--ignore-existing`: create only.
        ignore_existing,
        /// `-n`: change nothing.
        dry_run,
        /// `-W`: no delta.
        whole_file,
        /// `--no-W`: delta even where both ends are on one machine.
        no_whole_file,
        /// `-q`: say errors only.
        quiet,
        /// `--numeric-ids`: no names of users and groups.
        numeric_ids,
        /// A daemon's `numeric ids`: ids have no names at this end, whatever the list carries.
        nameless_ids,
        /// A daemon's module that is no root of its own: targets of symlinks that come are kept from leading out.
        sanitize_links,
        /// `--remove-source-files`: finished files are acknowledged.
        remove_source_files,
        /// `--fsync`: what is written is flushed to the disk.
        fsync,
        /// `--mkpath`: create missing parents of the destination.
        mkpath,
        /// `--stats`: say what the transfer came to.
        stats,
        /// `--list-only`: nothing is transferred.
        list_only,
        /// `-S`: runs of zeros become holes.
        sparse,
        /// `--preallocate`: room is reserved before a file is written.
        preallocate,
        /// `--inplace`: files are written where they stand.
        inplace,
        /// `--partial`: what was received of a broken-off file is kept.
        partial,
        /// `--delay-updates`: files are renamed into place at the end.
        delay_updates,
        /// `-b`: what would be overwritten or deleted is kept.
        backup,
        /// `--delete-excluded`: what is left out is deleted, too.
        delete_excluded,
        /// `--delete-missing-args`: arguments that are missing are deleted at the destination.
        delete_missing_args,
        /// `--ignore-missing-args`: arguments that are missing are no error (sending side).
        ignore_missing_args,
        /// `--ignore-errors`: delete in spite of I/O errors.
        ignore_errors,
        /// `--force`: delete a full directory that is in the way.
        force,
        /// `--fake-super`: what needs root is kept in an extended attribute.
        fake_super,
        /// `-z`: compress file data.
        compress,
        /// `--from0`: names in a list end with a zero byte.
        from0,
        /// `--trust-sender`: the list is not checked against what was asked for (client only).
        trust_sender,
        /// `--old-args`: the remote shell splits and expands arguments (client only).
        old_args,
        /// `-s`: arguments travel over the connection.
        secluded_args,
    }
    counts {
        /// `-v`, repeated.
        verbose,
        /// `-x`, repeated.
        one_file_system,
        /// `-y`, repeated.
        fuzzy,
        /// `-U`, repeated: keep access times.
        atimes,
        /// `-X`, repeated: keep extended attributes.
        xattrs,
        /// `--append`; 2 for `--append-verify`.
        append,
    }
    values {
        /// `--checksum-choice`: of the transfer, of the list.
        checksum_choice: Option<(Checksum, Checksum)>,
        /// `--checksum-seed`.
        checksum_seed: Option<i32>,
        /// `-B` in bytes.
        block_length: Option<u32>,
        /// `--timeout` in seconds.
        timeout: Option<u32>,
        /// `--modify-window` in seconds; a negative one compares nanoseconds.
        modify_window: i32,
        /// `--log-format`.
        detail: ItemDetail,
        /// `--delete…`.
        delete: Option<DeleteWhen>,
        /// `--max-delete`: how many deletions at most.
        max_delete: Option<u64>,
        /// `--min-size` in bytes.
        min_size: Option<u64>,
        /// `--max-size` in bytes.
        max_size: Option<u64>,
        /// `--max-alloc` in bytes; 0 for no limit of the user's.
        max_alloc: Option<u64>,
        /// `--bwlimit` in bytes per second; 0 for none.
        bwlimit: Option<u64>,
        /// `--backup-dir`.
        backup_dir: Option<Vec<u8>>,
        /// `--suffix` of backups.
        suffix: Option<Vec<u8>>,
        /// `--partial-dir`.
        partial_dir: Option<Vec<u8>>,
        /// `--temp-dir`.
        temp_dir: Option<Vec<u8>>,
        /// `--compare-dest`, `--copy-dest` or `--link-dest`.
        alt_kind: Option<AltKind>,
        /// Its directories, in the order given.
        alt_dirs: Vec<Vec<u8>>,
        /// `--files-from` as it stands: a file's name, or `-` for a list that the peer sends.
        files_from: Option<Vec<u8>>,
        /// `--usermap`.
        usermap: Option<Vec<u8>>,
        /// `--groupmap`.
        groupmap: Option<Vec<u8>>,
        /// `--chmod` (client only).
        chmod: Option<Vec<u8>>,
        /// `--iconv`; a server is told its own character set.
        iconv: Option<Vec<u8>>,
        /// What it comes to at this end: the set our own names are in.
        charset: Option<Charset>,
        /// `--compress-choice`, a name; `--old-compress` is `zlib`, `--new-compress` `zlibx`.
        compress_choice: Option<Vec<u8>>,
        /// `--compress-level`.
        compress_level: Option<i32>,
        /// `--compress-threads` (client only).
        compress_threads: Option<u32>,
        /// `--skip-compress`: suffixes.
        skip_compress: Option<Vec<u8>>,
        /// `--super` or `--no-super`; without either, what root may do is tried as root only.
        super_user: Option<bool>,
        /// `--only-write-batch`: the receiving side makes a dry run of it.
        only_write_batch: bool,
        /// `--log-file` of a server (`-M--log-file=…`).
        log_file: Option<Vec<u8>>,
        /// `--log-file-format`.
        log_file_format: Option<Vec<u8>>,
        /// `--copy-as`: whom this side reads and writes as (never told to the peer).
        copy_as: Option<Vec<u8>>,
        /// `--confine-root`: paths that resolve outside it are refused.
        confine_root: Option<Vec<u8>>,
        /// `--stop-at`: when to end, in seconds since 1970 (client only).
        stop_at: Option<i64>,
        /// `--info`.
        info: Levels<Info>,
        /// `--debug`; a server elsewhere is not told.
        debug: Levels<Debug>,
        /// `-M`: words for the remote side only.
        remote_options: Vec<Vec<u8>>,
    }
}

impl Options {
    /// The level of a flag; 0 for silence.
    pub fn level<F: Flag>(&self, flag: F) -> u8 {
        F::levels((&self.info, &self.debug)).level(flag.number(), self.verbose)
    }

    /// Whether names are told, by themselves or with what changes.
    pub fn tells_names(&self) -> bool {
        self.level(Info::Name) > 0 || matches!(self.detail, ItemDetail::Changed | ItemDetail::All)
    }

    /// What the entries of the file list carry with these options.
    pub fn list_shape(&self, sum_size: usize) -> ListShape {
        ListShape {
            owner: self.owner,
            group: self.group,
            links: self.links,
            devices: self.devices,
            specials: self.specials,
            atimes: self.atimes > 0,
            acls: self.acls,
            xattrs: self.xattrs > 0,
            sum_size: if self.checksum { sum_size } else { 0 },
            numeric_ids: self.numeric_ids,
            relative: self.relative,
            missing_args: self.delete_missing_args,
            hard_links: self.hard_links,
            recurse: self.recurse,
            charset: self.charset,
        }
    }

    /// How file data is to be compressed. A level asks for compression, too.
    pub fn compression(&self) -> Wish {
        let choice = match self.compress_choice.as_deref() {
            Some(b"auto") | None if self.compress || self.compress_level.is_some() => Choice::Negotiated,
            Some(name) => match Method::from_name(name) {
                Some(Method::None) | None => Choice::Off,
                Some(method) => Choice::Named(method),
            },
            None => Choice::Off,
        };
        Wish { choice, level: self.compress_level }
    }

    /// Whether we, as the sender, may give the file list in segments.
    pub fn sends_segments(&self) -> bool {
        // What is missing has no directory whose segment could name it.
        self.recurse && !self.no_inc_recursive && !self.delete_missing_args
    }

    /// Whether we, as the receiver, may be given the file list in segments. Who must know the whole list first, or whose way of
    /// finishing files stock peers do not combine with it, does without.
    pub fn takes_segments(&self) -> bool {
        let whole = matches!(self.delete, Some(DeleteWhen::Before | DeleteWhen::After))
            || self.delay_updates
            || self.prune_empty_dirs;
        self.recurse && !self.no_inc_recursive && !whole
    }

    /// Whether a client that sends tells its filter rules to the server.
    pub fn receiver_hears_rules(&self, version: u8) -> bool {
        let deletes = self.delete.is_some() || self.delete_excluded;
        self.prune_empty_dirs || deletes && (version >= 29 || !self.delete_excluded)
    }

    /// Refuses what a version cannot do.
    pub fn check_version(&self, version: u8) -> Result<(), PeerError> {
        let alternative = match self.alt_kind {
            Some(AltKind::Copy) => "--copy-dest",
            Some(AltKind::Link) => "--link-dest",
            Some(AltKind::Compare) | None => "--compare-dest",
        };
        for (asked, least, option) in [
            (self.acls, 30, "--acls"),
            (self.xattrs > 0, 30, "--xattrs"),
            (self.fuzzy > 0, 29, "--fuzzy"),
            (
                (self.inplace || self.append > 0) && self.alt_kind.is_some(),
                29,
                &format!("{alternative} with --inplace"),
            ),
            (self.alt_dirs.len() > 1, 29, &format!("Using more than one {alternative} option")),
            (self.prune_empty_dirs, 29, "--prune-empty-dirs"),
        ] {
            if asked && version < least {
                return Err(PeerError::NeedsVersion { option: option.into(), least, negotiated: version });
            }
        }
        Ok(())
    }
}
