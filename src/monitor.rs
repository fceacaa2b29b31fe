//! Registers the files that pysmurf's publishers announce by UDP, each once, whatever ends in between.
//!
//! Sources hand messages to an [`Intake`]; one thread writes them to the [`Spool`], another sums and registers them.

mod aside;
mod columns;
mod counters;
mod frame;
mod gaps;
mod garbage;
mod gate;
mod intake;
mod json;
mod lane;
mod late;
mod making;
mod message;
mod notice;
mod registrar;
mod rejects;
mod retry;
mod spool;
mod sums;
mod table;
mod udp;
mod value;
mod watch;

use crate::catalog::{self, Database};
use aside::Aside;
use intake::Intaker;
use registrar::{Registrar, RegistrarCourse, RegistrarWord};
use spool::{Spool, SpoolWriter};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use sums::SumPool;
use table::MonitorTable;
use tokio::runtime::Handle;

pub(crate) use columns::MonitorAddress;
pub(crate) use counters::{MonitorCounters, MonitorSnapshot};
pub(crate) use gate::RegistrarGate;
pub(crate) use intake::{Intake, MessageAudience};
pub(crate) use making::{NameRule, RegistrarRules};
pub(crate) use message::{MessageTopic, PublisherMessage};
pub(crate) use rejects::{Reject, read_rejects, retry_rejects};
pub(crate) use spool::SpoolError;
pub(crate) use udp::{DropCount, UdpSource};
pub(crate) use value::{PyText, PyValue};
pub(crate) use watch::{FinishRule, MarkerName, WatchDesk, WatchRoot, WatchSource, WatchTerms};

/// Threads that sum small files, at most; more a disk seldom feeds.
const SUM_THREADS: usize = 8;

/// What a monitor is to do.
pub(crate) struct MonitorSettings {
    pub(crate) database: Database,
    pub(crate) options: catalog::Options,
    /// The spool's folder, and the bytes that it may take.
    pub(crate) spool: PathBuf,
    pub(crate) spool_bytes: u64,
    /// Bytes of messages that are kept in memory while the spool takes none.
    pub(crate) memory_bytes: usize,
    pub(crate) rules: RegistrarRules,
    /// Whether anything is registered yet.
    pub(crate) gate: RegistrarGate,
}

/// A monitor at work.
pub(crate) struct Monitor {
    intake: Option<Intake>,
    counters: Arc<MonitorCounters>,
    gate: RegistrarGate,
    table: MonitorTable,
    closing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: [Option<JoinHandle<()>>; 2],
}

impl Monitor {
    /// Begins; what is in the spool is gone on with. `audience` hears every message.
    pub(crate) fn start(
        settings: MonitorSettings,
        audience: Option<Box<dyn MessageAudience>>,
        runtime: Handle,
    ) -> Result<Self, SpoolError> {
        let spool = Spool::open(&settings.spool, settings.spool_bytes)?;
        let unusable = |why: io::Error| SpoolError::Folder { folder: settings.spool.clone(), why };
        let aside = Aside::open(spool.folder()).map_err(unusable)?;
        let counters = Arc::new(MonitorCounters::default());
        let (closing, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (intake, end) = Intake::new(settings.memory_bytes, counters.clone());
        let (tell, words) = channel();
        let grown = tell.clone();
        let told = Mutex::new(tell);
        let cores = thread::available_parallelism().map_or(2, usize::from).clamp(2, SUM_THREADS);
        let pool = SumPool::new(cores, move |key, result| {
            // Nobody listens any more once it is over.
            let _ = told.lock().unwrap_or_else(PoisonError::into_inner).send(RegistrarWord::Summed(key, result));
        });
        let table = MonitorTable::new(settings.database, settings.options, runtime, counters.clone());
        let others = table.another();
        let registrar = Registrar {
            name: spool.name(),
            course: RegistrarCourse::new(&spool, &aside),
            aside,
            pool,
            words,
            counters: counters.clone(),
            rules: settings.rules,
            table,
            stop: stop.clone(),
            gate: settings.gate.clone(),
            spool: spool.clone(),
        };
        let intaker = Intaker {
            end,
            writer: SpoolWriter::new(spool),
            counters: counters.clone(),
            audience,
            closing: closing.clone(),
            grown: Box::new(move || drop(grown.send(RegistrarWord::Grown))),
        };
        let threads = [thread::spawn(move || intaker.run()), thread::spawn(move || registrar.run())].map(Some);
        Ok(Self { intake: Some(intake), counters, gate: settings.gate, table: others, closing, stop, threads })
    }

    /// Where sources hand messages over; all of them must be gone before it can end.
    pub(crate) fn intake(&self) -> Option<Intake> {
        self.intake.clone()
    }

    /// What one who watches folders needs, and who must be gone likewise.
    pub(crate) fn watch_desk(&self) -> Option<WatchDesk> {
        Some(WatchDesk { intake: self.intake()?, table: self.table.another() })
    }

    pub(crate) fn counters(&self) -> &Arc<MonitorCounters> {
        &self.counters
    }

    /// Whether anything is registered.
    pub(crate) fn gate(&self) -> &RegistrarGate {
        &self.gate
    }

    /// Whether it still works: a thread that died takes the process with it, and who watches over that begins it anew.
    pub(crate) fn is_alive(&self) -> bool {
        self.threads.iter().flatten().all(|thread| !thread.is_finished())
    }
}

impl Drop for Monitor {
    /// Writes what was handed over to the spool, and ends; what is not registered yet is when it starts again. Its threads need
    /// the runtime until then.
    fn drop(&mut self) {
        self.closing.store(true, Relaxed);
        self.intake = None;
        let [intaker, registrar] = &mut self.threads;
        drop(intaker.take().map(JoinHandle::join));
        self.stop.store(true, Relaxed);
        drop(registrar.take().map(JoinHandle::join));
    }
}
