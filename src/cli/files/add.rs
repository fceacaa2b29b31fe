//! `files add`: registers files and trees.

use super::super::flags::files::AddArgs;
use super::super::output::{json_object, print, printable};
use super::super::{SOME_FAILED, plan};
use super::meter::Meter;
use super::open;
use super::wording::bytes;
use crate::catalog::files::Writing;
use crate::catalog::{AnyCatalog, Catalog};
use crate::console::files::adding::{AddObserver, AddTerms, AddWords, Added, Addition, Making};
use crate::console::files::tree::NamedTree;
use crate::service::runtime;
use anyhow::{Context, Result, bail};

/// Options are called so.
const WORDS: AddWords = AddWords { mark: "Option --", joint: '-' };

impl AddObserver for Meter {
    fn bytes(&self, bytes: u64) {
        self.count_bytes(bytes);
    }

    fn file(&self) {
        self.count_files(1);
    }

    fn tell(&self, line: &str) {
        Meter::tell(self, &printable(line));
    }

    fn goes_on(&self) -> bool {
        self.draw();
        true
    }
}

/// Registers files.
pub(super) fn add(args: &AddArgs) -> Result<u8> {
    let roots = args.paths.iter().map(|path| {
        NamedTree::new(path)
            .with_context(|| format!("Cannot find {}; name a file or a folder", printable(&path.to_string_lossy())))
    });
    let roots = roots.collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    let catalog = runtime.block_on(open(&args.table))?;
    let meter = Meter::new();
    let added = making(args, &catalog).and_then(|making| {
        let writing = if args.dry_run { Writing::Tried } else { Writing::Done };
        let threads = args.threads.map(usize::from);
        let addition = Addition { roots: &roots, making: &making, threads, writing };
        std::thread::scope(|scope| {
            if meter.is_drawn() {
                scope.spawn(|| {
                    let (files, bytes) = addition.count();
                    meter.expect(files, Some(bytes));
                });
            }
            Ok(addition.run(runtime.handle(), &catalog, &meter)?)
        })
    });
    runtime.block_on(catalog.close());
    meter.clear();
    let added = added?;
    if args.json {
        print(&json(&added, &meter));
    } else {
        print(&summary(args, &added, &meter));
    }
    Ok(if added.changed + added.failed > 0 { SOME_FAILED } else { 0 })
}

/// What the options mean for this table.
fn making(args: &AddArgs, catalog: &AnyCatalog) -> Result<Making> {
    let (database, options) = plan::table(&args.table)?;
    let targets = options.selection.targets;
    let [target] = targets.as_slice() else {
        bail!("Files are registered for one monitor, and {} are named; give --target one instance id", targets.len());
    };
    let AddArgs { remote_prefix, deletable, kind, pub_id, timestamp, .. } = args.clone();
    let terms = AddTerms { remote_prefix, deletable, kind, pub_id, timestamp };
    Making::new(terms, catalog, &database, target, WORDS).map_err(anyhow::Error::msg)
}

fn summary(args: &AddArgs, added: &Added, meter: &Meter) -> String {
    let files = |count: u64| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    let did = if args.dry_run { "Would register" } else { "Registered" };
    let mut line = format!("{did} {}, {}, in {}", files(added.new), bytes(added.bytes), meter.took());
    for (count, what) in [
        (added.same, "registered already"),
        (added.changed, "registered with another MD5 and left so"),
        (added.left_out, "left out"),
        (added.failed, "could not be registered"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {count} {what}"));
        }
    }
    line
}

fn json(added: &Added, meter: &Meter) -> String {
    json_object([
        ("registered", added.new.into()),
        ("registered_bytes", added.bytes.into()),
        ("known", added.same.into()),
        ("changed", added.changed.into()),
        ("left_out", added.left_out.into()),
        ("failed", added.failed.into()),
        ("read_bytes", meter.bytes().into()),
        ("seconds", ((meter.seconds() * 1000.0).round() / 1000.0).into()),
    ])
}
