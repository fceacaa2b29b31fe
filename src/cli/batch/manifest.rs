//! `batch from-manifest`: the files of a Librarian's manifest as batches, and the manifest as the receiving Librarian wants it.

use super::super::flags::batch::ManifestArgs;
use super::super::output::print;
use crate::batches::request::{BatchRequest, REQUEST_MOST, VERSION};
use crate::batches::spool::BatchSpool;
use anyhow::{Context, Result, bail};
use protocol::checksum::{Checksum, FileHasher};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a manifest.
const MANIFEST_MOST: u64 = 1 << 30;
/// Files of one batch.
const PORTION: usize = 5000;
/// Digits of the sum that a batch is named by.
const DIGITS: usize = 12;

/// Queues the files of a manifest and writes the mended one beside it.
pub(super) fn from_manifest(args: &ManifestArgs) -> Result<u8> {
    let name = args.manifest.display();
    let mut text = Vec::new();
    let read = File::open(&args.manifest).and_then(|file| file.take(MANIFEST_MOST + 1).read_to_end(&mut text));
    read.with_context(|| format!("Cannot read {name}"))?;
    if text.len() as u64 > MANIFEST_MOST {
        bail!("{name} is larger than {} MiB, which no manifest is", MANIFEST_MOST >> 20);
    }
    let manifest: Value = serde_json::from_slice(&text).with_context(|| format!("{name} is no JSON"))?;
    let mended = mended(&manifest).map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    let id = args.name.clone().unwrap_or_else(|| id_of(&text, args));
    let requests = requests(&manifest, args, &id).map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    let spool = BatchSpool::open(&args.spool.batches)?;
    let beside = args.manifest.with_extension("mended.json");
    write(&beside, &serde_json::to_vec_pretty(&mended)?)
        .with_context(|| format!("Cannot write {}", beside.display()))?;
    for request in &requests {
        super::hand_over(&spool, request)?;
    }
    print(&format!(
        "Once that is done, at the other Librarian: librarian ingest-manifest CONNECTION --manifest {} --store-root {}",
        beside.display(),
        args.to
    ));
    Ok(0)
}

/// The name of the batch of a manifest: the same manifest to the same place is the same batch.
fn id_of(text: &[u8], args: &ManifestArgs) -> String {
    let mut hasher = FileHasher::new(Checksum::Blake3);
    for part in [text, args.link.as_bytes(), args.to.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let sum = hasher.finish().to_string();
    format!("manifest-{}", &sum[..DIGITS.min(sum.len())])
}

/// The manifest with its own Librarian as the source of each entry: it is whom the other one calls back.
fn mended(manifest: &Value) -> Result<Value, String> {
    let librarian = manifest.get("librarian_name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let librarian = librarian.ok_or("it has no librarian_name; give one that librarian get-store-manifest wrote")?;
    let mut mended = manifest.clone();
    let entries = mended.get_mut("store_files").and_then(Value::as_array_mut).ok_or("it has no list store_files")?;
    for (at, entry) in entries.iter_mut().enumerate() {
        let entry = entry.as_object_mut().ok_or_else(|| format!("store_files[{at}] is no object"))?;
        entry.insert("source".to_owned(), librarian.into());
    }
    Ok(mended)
}

fn requests(manifest: &Value, args: &ManifestArgs, id: &str) -> Result<Vec<BatchRequest>, String> {
    let root = args.to.trim_end_matches('/');
    if !root.starts_with('/') {
        return Err(format!("option --to cannot be {:?}; name a folder from / on", args.to));
    }
    let entries = manifest.get("store_files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let files = entries.iter().enumerate().map(|(at, entry)| {
        let text = |field: &str| {
            let text = entry.get(field).and_then(Value::as_str);
            text.ok_or_else(|| format!("store_files[{at}] has no {field}"))
        };
        let (name, local) = (text("name")?, text("instance_path")?);
        let meta = fs::metadata(local).map_err(|error| format!("{name}: {local} cannot be read: {error}"))?;
        Ok(json!({"local": local, "remote": format!("{root}/{name}"), "dir": meta.is_dir()}))
    });
    let files = files.collect::<Result<Vec<_>, String>>()?;
    if files.is_empty() {
        return Err("it has no files".into());
    }
    let librarian = &manifest["librarian_name"];
    let portions = files.chunks(PORTION);
    let several = portions.len() > 1;
    let portion = |(at, files): (usize, &[Value])| {
        let id = if several { format!("{id}.{}", at + 1) } else { id.to_owned() };
        let request = json!({"v": VERSION, "batch": id, "link": args.link, "librarian": librarian, "files": files});
        let text = request.to_string();
        match text.len() as u64 > REQUEST_MOST {
            true => Err(format!("its paths are too long: {PORTION} of them make more than {} MiB", REQUEST_MOST >> 20)),
            false => BatchRequest::parse(text.as_bytes()),
        }
    };
    portions.enumerate().map(portion).collect()
}

/// Whole, or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
