//! One who helps, by sessions of its own.

use super::crew::Crew;
use crate::link::Link;
use crate::rsync::command_line::CommandLine;
use crate::rsync::operands::{Host, Plan, RemoteHost};
use crate::rsync::way::{HELPERS_PATIENCE, Traveller, Way};
use crate::transfer::help::{Brought, HelpTicket, Helper, OfferedFile};
use crate::transfer::scanned::list_again;
use crate::transfer::{
    Answer, Conversation, SendObserver, SendPlan, Sent, Source, TransferError, greet_with, offers, send,
};
use crate::transport::Connect;
use crate::transport::ranges::{Ranges, Written};
use crate::transport::ssh::Ssh;
use protocol::checksum::Sum;
use protocol::flist::{FileEntry, Kind, Ndx};
use protocol::handshake::Side;
use protocol::mux::{Message, TextKind};
use protocol::sender::Request;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Between the arrivals of two: an sshd turns some away where many have yet to log in.
const ARRIVAL: Duration = Duration::from_millis(60);

pub(super) fn way<'a>(line: &'a CommandLine, plan: &'a Plan, version: u8) -> Way<'a> {
    Way { line, plan, pull: false, version, names_here: false, rules: &[], traveller: Traveller::Helper }
}

/// How the content of files gets there.
#[derive(Clone, Copy)]
pub(super) enum Conveyance<'a> {
    /// By the session.
    Session,
    /// Others write these ranges of it, and the session only proves it.
    Staged(&'a Ranges),
}

/// One who helps.
pub(super) struct Hand<'a> {
    pub(super) helper: &'a Helper<'a, OfferedFile>,
    pub(super) way: &'a Way<'a>,
    pub(super) crew: &'a Crew,
    pub(super) number: usize,
    pub(super) conveyance: Conveyance<'a>,
}

impl Hand<'_> {
    /// Brings files as long as there are any; the error says why no longer.
    pub(super) fn work(&self) -> Result<(), String> {
        if !self.crew.pause(ARRIVAL * u32::try_from(self.number).unwrap_or(0)) {
            return Ok(());
        }
        let mut ssh = self.log_in()?;
        loop {
            let round = self.helper.round();
            if round.is_empty() {
                return Ok(());
            }
            let link = self.way.connect(&mut ssh, &|_| {}).map_err(|failure| failure.text)?;
            if !self.crew.begins(self.number, &link.closer) {
                link.closer.close();
                return Ok(());
            }
            let done = self.session(link, &round);
            self.crew.ends(self.number);
            let tickets: Vec<_> = round.iter().map(|(ticket, _)| *ticket).collect();
            self.helper.finish(&tickets);
            done?;
        }
    }

    /// Logs in ahead of all work, where the SSH within does that.
    pub(super) fn log_in(&self) -> Result<Option<Ssh>, String> {
        let Some(RemoteHost { host, .. }) = self.way.plan.remote.as_ref().filter(|_| self.way.line.rsh.is_none())
        else {
            return Ok(None);
        };
        let host: &Host = host;
        let mut ssh = Way::ssh(host, HELPERS_PATIENCE).map_err(|failure| failure.text)?;
        ssh.login().map_err(|error| error.to_string())?;
        Ok(Some(ssh))
    }

    /// One session with a list of these files.
    pub(super) fn session(&self, mut link: Link, round: &[HelpOffer]) -> Result<(), String> {
        let remote = link.remote.clone();
        let options = &self.way.line.options;
        if options.secluded_args {
            self.way.send_arguments(&mut link).map_err(|failure| failure.text)?;
        }
        let hello = offers::hello(Side::Client, self.way.version, options, false);
        let done = greet_with(link, hello, options).and_then(|session| self.send(session, round));
        done.map_err(|error| format!("{error} {}", remote.stderr().trim()))
    }

    fn send(&self, mut session: Conversation, round: &[HelpOffer]) -> Result<(), TransferError> {
        let options = &self.way.line.options;
        session.follow(options)?;
        let plan = SendPlan::of(options, &session.agreed);
        let entries = round.iter().map(|(_, file)| file.entry.clone()).collect();
        let listing = list_again(entries, options)?;
        let by_name: HashMap<_, _> = round.iter().map(|file| (&file.1.entry.name[..], file)).collect();
        let mut files = HashMap::new();
        for (ndx, entry) in listing.list.iter().filter(|(_, entry)| entry.kind() == Some(Kind::File)) {
            files.extend(by_name.get(&entry.name[..]).map(|(ticket, file)| (ndx, (*ticket, file.clone()))));
        }
        let mut watch = HelperWatch {
            helper: self.helper,
            files: &files,
            sent: HashMap::new(),
            troubled: false,
            conveyance: self.conveyance,
        };
        let source = OfferedFiles(&files);
        let summary = send(session, &plan, |_| Ok((listing, source)), &mut watch)?;
        self.helper.count(summary.written_bytes, summary.read_bytes);
        Ok(())
    }
}

/// A file that was put up.
pub(super) type HelpOffer = (HelpTicket, Arc<OfferedFile>);

/// The files of a session by their indexes.
type FilesByNdx = HashMap<Ndx, (HelpTicket, Arc<OfferedFile>)>;

struct OfferedFiles<'a>(&'a FilesByNdx);

impl Source for OfferedFiles<'_> {
    type File = File;

    fn open(&self, ndx: Ndx, _entry: &FileEntry) -> io::Result<File> {
        let (_, file) = self.0.get(&ndx).ok_or(io::ErrorKind::NotFound)?;
        (file.open)()
    }
}

/// What becomes of a helper's files.
struct HelperWatch<'a> {
    helper: &'a Helper<'a, OfferedFile>,
    files: &'a FilesByNdx,
    /// What was sent and is not acknowledged.
    sent: HashMap<Ndx, Brought>,
    /// The far end has complained, perhaps of one of these.
    troubled: bool,
    conveyance: Conveyance<'a>,
}

impl HelperWatch<'_> {
    fn give_back(&self, ndx: Ndx) {
        if let Some((ticket, _)) = self.files.get(&ndx) {
            self.helper.give_back(*ticket);
        }
    }
}

impl SendObserver for HelperWatch<'_> {
    fn requested(&mut self, _entry: &FileEntry, request: &Request) -> Answer {
        let Some((ticket, _)) = self.files.get(&request.ndx) else { return Answer::Decline };
        if request.redo {
            self.helper.give_back(*ticket);
            return Answer::Decline;
        }
        // While somebody may still be writing to it, it is none that could be proven.
        if let Conveyance::Staged(ranges) = self.conveyance
            && ranges.finish() != Written::Whole
        {
            self.helper.give_back(*ticket);
            return Answer::Decline;
        }
        if !self.troubled && self.helper.take(*ticket) { Answer::Send } else { Answer::Decline }
    }

    fn sent(&mut self, _entry: &FileEntry, request: &Request, sent: &Sent, sum: &Sum) {
        let mut sent = *sent;
        if let Conveyance::Staged(_) = self.conveyance {
            // All of it was brought for this.
            sent.literal_bytes += std::mem::take(&mut sent.matched_bytes);
            sent.matches = 0;
        }
        match self.troubled {
            true => self.give_back(request.ndx),
            false => drop(self.sent.insert(request.ndx, Brought { sent, sum: *sum })),
        }
    }

    fn unreadable(&mut self, ndx: Ndx, _error: &io::Error) {
        self.sent.remove(&ndx);
        self.give_back(ndx);
    }

    /// Words of trouble are the one session's to tell, which meets the same with the file: so that it is told once, and counts.
    fn message(&mut self, message: &Message) {
        if matches!(message, Message::Text(TextKind::Info, _) | Message::Noop) {
            return;
        }
        self.troubled = true;
        for ndx in std::mem::take(&mut self.sent).into_keys() {
            self.give_back(ndx);
        }
    }

    fn finished(&mut self, ndx: Ndx) {
        if let (Some((ticket, _)), Some(brought)) = (self.files.get(&ndx), self.sent.remove(&ndx)) {
            self.helper.brought(*ticket, brought);
        }
    }
}
