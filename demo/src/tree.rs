//! Writes files as a SMuRF server has them: long streams of detector samples, and many small results of its actions.
//!
//! Nothing here is random from run to run.

use anyhow::{Context, Result};
use fastrand::Rng;
use protocol::checksum::{Checksum, FileHasher};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const SEED: u64 = 20_261_122;

/// When the night begins, seconds since 1970.
const START: u64 = 1_589_517_264;
const DAY: &str = "20261122";

/// Small files beside the streams.
const SMALL_FILES: u64 = 300;

/// Bytes of the streams, one after another; scaled when the tree is to be smaller or larger.
const STREAM_SIZES: [u64; 30] = [
    40, 12, 18, 25, 10, 31, 16, 22, 14, 37, 11, 19, 27, 13, 20, 34, 10, 17, 23, 15, 29, 12, 21, 16, 26, 11, 18, 33, 14,
    24,
];

/// A file as the producer registers it.
pub(crate) struct Registered {
    /// Where it is.
    pub(crate) local: PathBuf,
    /// Where it belongs, relative to the archive's base.
    pub(crate) remote: String,
    /// MD5, 32 hex digits.
    pub(crate) md5: String,
    /// Bytes.
    pub(crate) size: u64,
}

/// Writes about `total` bytes of files below `root`.
pub(crate) fn write(root: &Path, total: u64) -> Result<Vec<Registered>> {
    let mut rng = Rng::with_seed(SEED);
    let samples = samples(&mut rng);
    let small_bytes = total / 30;
    let unit = (total - small_bytes) / STREAM_SIZES.iter().sum::<u64>();
    let mut files = Vec::new();
    for (index, size) in (0..).zip(STREAM_SIZES) {
        let time = START + index * 600;
        let slot = ["crate1slot2", "crate1slot3"][index as usize % 2];
        let name = format!("{time}_{:03}.g3", index / 2);
        files.push(put(root, Place::Stream { slot, time, name }, |out| {
            stream(out, size * unit, time, &samples, &mut rng)
        })?);
    }
    for index in 0..SMALL_FILES {
        let size = rng.u64(small_bytes / SMALL_FILES / 4..=small_bytes / SMALL_FILES * 7 / 4);
        let time = START + index * 60;
        let slot = ["crate1slot2", "crate1slot3"][index as usize % 2];
        let (plot, name) = small_name(index, time);
        let body = body(&samples, &mut rng, size);
        files.push(put(root, Place::Result { slot, time, plot, name: name.clone() }, |out| {
            small(out, &name, body, time)
        })?);
    }
    Ok(files)
}

enum Place {
    Stream { slot: &'static str, time: u64, name: String },
    Result { slot: &'static str, time: u64, plot: bool, name: String },
}

impl Place {
    fn local(&self) -> String {
        match self {
            Self::Stream { slot, time, name } => format!("timestreams/{}/{slot}/{name}", time / 100_000),
            Self::Result { slot, time, plot, name } => {
                format!("smurf_data/{DAY}/{slot}/{time}/{}/{name}", if *plot { "plots" } else { "outputs" })
            }
        }
    }

    /// As the monitor of socs names it.
    fn remote(&self) -> String {
        match self {
            Self::Stream { slot, time, name } => format!("{}/{slot}/{name}", time / 100_000),
            Self::Result { slot, time, plot, name } => {
                let kind = if *plot { "plots" } else { "outputs" };
                format!("{}/{slot}/{time}_setup_notches/{kind}/{name}", time / 100_000)
            }
        }
    }
}

/// Kinds of small files; blanks, quotes and letters beyond ASCII among them, as people do name files.
fn small_name(index: u64, time: u64) -> (bool, String) {
    match index % 10 {
        0 => (false, format!("{time}_tuning.npy")),
        1 => (false, format!("{time}_channel_assignment_b{}.txt", index % 8)),
        2 => (true, format!("{time}_eta_scan_δf.png")),
        3 => (false, format!("{time}_tune notes.txt")),
        4 => (true, format!("{time} noise at 30 mK.png")),
        5 => (false, format!("{time}_IV Übergang.npy")),
        6 => (false, format!("{time}_operator's $notes; draft.txt")),
        7 => (true, format!("{time}_観測.png")),
        8 => (false, format!("{time}_freq_resp.npy")),
        _ => (false, format!("{time}_bias_steps.npy")),
    }
}

fn put(root: &Path, place: Place, content: impl FnOnce(&mut Summing) -> io::Result<()>) -> Result<Registered> {
    let local = root.join(place.local());
    let written = || -> io::Result<Summing> {
        if let Some(folder) = local.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut out = Summing { file: File::create_new(&local)?, md5: FileHasher::new(Checksum::Md5), size: 0 };
        content(&mut out)?;
        Ok(out)
    };
    let out = written().with_context(|| format!("Cannot write {}", local.display()))?;
    let (md5, size) = (out.md5.finish().to_string(), out.size);
    Ok(Registered { local, remote: place.remote(), md5, size })
}

/// A file that takes its sum while it is written.
struct Summing {
    file: File,
    md5: FileHasher,
    size: u64,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        self.md5.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Detector samples: 32-bit integers that wander, so that the high bytes are dull and the low ones noise.
fn samples(rng: &mut Rng) -> Vec<u8> {
    let mut level = 0i32;
    let mut bytes = Vec::with_capacity(4 << 20);
    while bytes.len() < 4 << 20 {
        level = level.wrapping_add(rng.i32(-4096..=4096));
        bytes.extend_from_slice(&level.to_le_bytes());
    }
    bytes
}

/// Frames after frames: version, type and time, then a blob of samples, each frame unlike every other.
fn stream(out: &mut impl Write, size: u64, time: u64, samples: &[u8], rng: &mut Rng) -> io::Result<()> {
    let mut left = size;
    let mut frame = 0u32;
    while left > 0 {
        let length = rng.usize(200_000..400_000).min(left as usize);
        let start = rng.usize(..samples.len() - length);
        let mut head = Vec::with_capacity(64);
        head.extend_from_slice(&1u32.to_le_bytes());
        head.extend_from_slice(&2u32.to_le_bytes());
        head.extend_from_slice(&u32::from(b'S').to_le_bytes());
        head.extend_from_slice(b"\x05\0\0\0time\0");
        head.extend_from_slice(&((time * 100_000_000) + u64::from(frame) * 1_000_000).to_le_bytes());
        head.extend_from_slice(b"\x05\0\0\0data\0");
        head.extend_from_slice(&(length as u64).to_le_bytes());
        head.extend_from_slice(&rng.u128(..).to_le_bytes());
        head.truncate(length);
        out.write_all(&head)?;
        out.write_all(&samples[start..start + length - head.len()])?;
        left -= length as u64;
        frame += 1;
    }
    Ok(())
}

fn body<'a>(samples: &'a [u8], rng: &mut Rng, size: u64) -> &'a [u8] {
    let start = rng.usize(..samples.len() - size as usize) / 4 * 4;
    &samples[start..start + size as usize / 4 * 4]
}

fn small(out: &mut impl Write, name: &str, body: &[u8], time: u64) -> io::Result<()> {
    if name.ends_with(".npy") {
        let mut head = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({},), }}", body.len() / 4);
        // Magic, version and length take ten bytes; NumPy aligns the data to 64.
        while (10 + head.len() + 1) % 64 != 0 {
            head.push(' ');
        }
        head.push('\n');
        out.write_all(b"\x93NUMPY\x01\x00")?;
        out.write_all(&(head.len() as u16).to_le_bytes())?;
        out.write_all(head.as_bytes())?;
        out.write_all(body)
    } else if name.ends_with(".png") {
        out.write_all(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06\0\0\0\x35\xd1\xdc\xe4")?;
        out.write_all(body)
    } else {
        let mut text = format!("# pysmurf, action of {time}\n# channel, sample\n");
        for (channel, sample) in body.chunks_exact(16).enumerate() {
            text.push_str(&format!("{channel:6} {:02x?}\n", &sample[..4]));
        }
        out.write_all(text.as_bytes())
    }
}
