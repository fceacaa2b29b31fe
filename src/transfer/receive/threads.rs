//! Generator and receiver at work, each on a thread of its own, and how one hears that the other gave up.

use super::LAST_WORDS;
use crate::link::Closer;
use crate::transfer::TransferError;
use crate::transfer::conversation::LinkWriter;
use crate::transfer::generate::{Board, Generate, Generated};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

/// What both know of each other.
#[derive(Clone, Copy)]
pub(super) struct Threads<'a> {
    pub(super) board: &'a Board,
    pub(super) closer: &'a Closer,
    pub(super) server: bool,
}

/// What became of both.
pub(super) struct ThreadsEnded {
    pub(super) heard: Result<(), TransferError>,
    pub(super) generated: Result<Generated, TransferError>,
    /// The way to a peer that has been told why: it hears us as long as this is open.
    pub(super) writer: Option<LinkWriter>,
}

impl Threads<'_> {
    /// Runs both to their ends; `hear` is the receiver.
    pub(super) fn run(self, generate: Generate<'_>, hear: impl FnOnce() -> Result<(), TransferError>) -> ThreadsEnded {
        std::thread::scope(|scope| {
            let (heard_out, hearing) = mpsc::channel::<()>();
            let generator = scope.spawn(move || self.generate(generate, &hearing));
            let heard = guarded("receiver", hear).flatten();
            drop(heard_out);
            if let Err(error) = &heard {
                self.board.fail(error, self.server);
                if !self.board.wait_for_generator(LAST_WORDS) {
                    self.closer.close();
                }
            }
            let (generated, writer) = generator.join().unwrap_or((Err(TransferError::Bug("generator")), None));
            ThreadsEnded { heard, generated, writer }
        })
    }

    fn generate(
        self,
        generate: Generate<'_>,
        hearing: &mpsc::Receiver<()>,
    ) -> (Result<Generated, TransferError>, Option<LinkWriter>) {
        let (result, writer) = match guarded("generator", || generate.run()) {
            Ok((result, writer)) => (result, Some(writer)),
            Err(bug) => (Err(bug), None),
        };
        match &result {
            // A peer that was told why hangs up itself.
            Ok(_) | Err(TransferError::Rules(_) | TransferError::Echo) => {}
            // One that takes nothing any more has said why, and is to be heard out.
            Err(TransferError::Link(_)) if !self.server => {
                if hearing.recv_timeout(LAST_WORDS) == Err(mpsc::RecvTimeoutError::Timeout) {
                    self.closer.close();
                }
            }
            Err(_) => self.closer.close(),
        }
        self.board.generator_left();
        // What the receiver has to say last, the peer hears as long as our stream is open.
        let writer = writer.filter(|_| matches!(result, Err(TransferError::Echo)));
        (result, writer)
    }
}

/// Makes an error of a panic, so that neither thread waits for one that is gone, and the peer hears of it.
fn guarded<T>(thread: &'static str, act: impl FnOnce() -> T) -> Result<T, TransferError> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| TransferError::Bug(thread))
}
