//! The command line of `rdiff`: its verbs, options and files.

use super::{Cut, DeltaStats, Input, RdiffError, Signature, apply, write_delta, write_signature};
use clap::{Args, Subcommand, ValueEnum};
use protocol::checksum::{SignatureSum, Weak};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Exit code: a file cannot be read or written.
const FAILED: u8 = 1;
/// Exit code: a file is not what it should be, or the options are not possible.
const CORRUPT: u8 = 2;

/// What stands after `rdiff`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RdiffWords {
    #[command(subcommand)]
    verb: Verb,

    /// Overwrite a result that exists
    #[arg(short, long, global = true)]
    force: bool,

    /// Say on standard error what was found
    #[arg(short, long, global = true)]
    statistics: bool,

    /// Strong sums of a signature
    #[arg(short = 'H', long, value_enum, default_value_t = Hash::Blake2, global = true)]
    hash: Hash,

    /// Weak sums of a signature; librsync before 2.2 knows only rollsum
    #[arg(short = 'R', long, value_enum, default_value_t = Rollsum::Rabinkarp, global = true)]
    rollsum: Rollsum,

    /// Length of a signature's blocks; 0 chooses one by the basis' length
    #[arg(short, long, value_name = "BYTES", default_value_t = 0, global = true)]
    block_size: u32,

    /// Bytes of each strong sum; 0 for all, -1 for as few as are safe
    #[arg(short = 'S', long, value_name = "BYTES", default_value_t = 0, allow_negative_numbers = true, global = true)]
    sum_size: i32,

    /// Input is read in pieces of so many bytes
    #[arg(short = 'I', long, value_name = "BYTES", value_parser = buffer_size, global = true)]
    input_size: Option<usize>,

    /// Output is written in pieces of so many bytes
    #[arg(short = 'O', long, value_name = "BYTES", value_parser = buffer_size, global = true)]
    output_size: Option<usize>,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Write the sums of a file's blocks
    Signature {
        /// The old file
        #[arg(default_value = "-")]
        basis: PathBuf,
        /// The result
        #[arg(default_value = "-")]
        signature: PathBuf,
    },
    /// Write what makes a new file of the one that has a signature
    Delta {
        /// The old file's signature
        signature: PathBuf,
        /// The new file
        #[arg(default_value = "-")]
        new: PathBuf,
        /// The result
        #[arg(default_value = "-")]
        delta: PathBuf,
    },
    /// Make a new file of an old one and a delta
    Patch {
        /// The old file; it must be one that can be read from anywhere
        basis: PathBuf,
        /// What makes the new file of it
        #[arg(default_value = "-")]
        delta: PathBuf,
        /// The result
        #[arg(default_value = "-")]
        new: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hash {
    Blake2,
    Md4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rollsum {
    Rabinkarp,
    Rollsum,
}

fn buffer_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Ok(super::PIECE),
        Ok(size @ 1..=0x400_0000) => Ok(size),
        _ => Err("expected bytes, from 1 to 67108864, or 0 for the usual".into()),
    }
}

/// Does what the words say; the result is the exit code, and the error has been told.
pub(crate) fn main(words: &RdiffWords) -> u8 {
    match run(words) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "pysmurf-archiver rdiff: {}", failure.text);
            failure.code
        }
    }
}

struct RdiffFailure {
    text: String,
    code: u8,
}

fn run(words: &RdiffWords) -> Result<(), RdiffFailure> {
    let told = match &words.verb {
        Verb::Signature { basis, signature } => {
            let mut input = words.input(basis)?;
            let (weak, strong) = (words.rollsum.into(), words.hash.into());
            let cut =
                Cut::new(weak, strong, words.block_size, words.sum_size, input.len).map_err(|why| RdiffFailure {
                    text: format!("{} cannot be cut so: {why}; correct -b or -S", basis.display()),
                    code: CORRUPT,
                })?;
            let mut output = words.output(signature, &[&input])?;
            let count = write_signature(&mut input.reader, &cut, &mut output);
            let count = output.ended(count, &[(Input::Basis, basis)])?;
            format!("signature statistics: signature[{count} blocks, {} bytes per block]", cut.block_length())
        }
        Verb::Delta { signature, new, delta } => {
            let mut sums = words.input(signature)?;
            let known =
                Signature::read(&mut sums.reader).map_err(|error| failure(error, &[(Input::Signature, signature)]))?;
            let mut input = words.input(new)?;
            let mut output = words.output(delta, &[&sums, &input])?;
            let stats = write_delta(&known, &mut input.reader, &mut output);
            let stats = output.ended(stats, &[(Input::New, new)])?;
            format!(
                "delta statistics: signature[{} blocks, {} bytes per block] {}",
                known.blocks(),
                known.block_length(),
                counts(&stats)
            )
        }
        Verb::Patch { basis, delta, new } => {
            let mut old = match is_stdio(basis) {
                // Standard input may well be a file.
                true => File::open("/dev/stdin"),
                false => File::open(basis),
            }
            .map_err(|error| unopened(basis, &error))?;
            let place = place(&old);
            let mut input = words.input(delta)?;
            let mut output =
                words.output(new, &[&Opened { reader: Box::new(io::empty()), len: None, place }, &input])?;
            let stats = apply(&mut old, &mut input.reader, &mut output);
            let stats = output.ended(stats, &[(Input::Basis, basis), (Input::Delta, delta)])?;
            format!("patch statistics: {}", counts(&stats))
        }
    };
    if words.statistics {
        let _ = writeln!(io::stderr(), "pysmurf-archiver rdiff: {told}");
    }
    Ok(())
}

fn counts(stats: &DeltaStats) -> String {
    format!(
        "literal[{} cmds, {} bytes] copy[{} cmds, {} bytes] {} cmdbytes",
        stats.literals, stats.literal_bytes, stats.copies, stats.copy_bytes, stats.command_bytes
    )
}

fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn unopened(path: &Path, error: &io::Error) -> RdiffFailure {
    RdiffFailure { text: format!("Cannot open {}: {error}", path.display()), code: FAILED }
}

/// An error with the name of the file it is about.
fn failure(error: RdiffError, names: &[(Input, &PathBuf)]) -> RdiffFailure {
    let about = match &error {
        RdiffError::Read(input, _) | RdiffError::Corrupt(input, _) => Some(*input),
        RdiffError::Write(_) => None,
    };
    let name = names.iter().find(|(input, _)| Some(*input) == about).map(|(_, name)| format!("{}: ", name.display()));
    let code = if matches!(error, RdiffError::Corrupt(..)) { CORRUPT } else { FAILED };
    RdiffFailure { text: format!("{}{error}", name.unwrap_or_default()), code }
}

/// Device and number of an open file.
fn place(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| (meta.dev(), meta.ino()))
}

struct Opened {
    reader: Box<dyn Read>,
    len: Option<u64>,
    place: Option<(u64, u64)>,
}

impl RdiffWords {
    fn input(&self, path: &Path) -> Result<Opened, RdiffFailure> {
        let size = self.input_size.unwrap_or(super::PIECE);
        if is_stdio(path) {
            return Ok(Opened {
                reader: Box::new(BufReader::with_capacity(size, io::stdin())),
                len: None,
                place: None,
            });
        }
        let file = File::open(path).map_err(|error| unopened(path, &error))?;
        let len = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
        let place = place(&file);
        Ok(Opened { reader: Box::new(BufReader::with_capacity(size, file)), len, place })
    }

    /// Opens a result, which must be none of the inputs.
    fn output(&self, path: &Path, inputs: &[&Opened]) -> Result<RdiffOutput, RdiffFailure> {
        let size = self.output_size.unwrap_or(super::PIECE);
        if is_stdio(path) {
            return Ok(RdiffOutput {
                writer: BufWriter::with_capacity(size, Box::new(io::stdout())),
                path: path.into(),
                made: false,
            });
        }
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, made) = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.force => {
                let file = OpenOptions::new().write(true).open(path).map_err(|error| unopened(path, &error))?;
                if place(&file).is_some_and(|place| inputs.iter().any(|input| input.place == Some(place))) {
                    let text =
                        format!("{} is also an input, which writing would destroy; name another", path.display());
                    return Err(RdiffFailure { text, code: FAILED });
                }
                if place(&file).is_some() {
                    file.set_len(0).map_err(|error| unopened(path, &error))?;
                }
                (file, false)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = format!("{} exists; overwrite it with -f, or name another", path.display());
                return Err(RdiffFailure { text, code: FAILED });
            }
            other => (other.map_err(|error| unopened(path, &error))?, true),
        };
        Ok(RdiffOutput { writer: BufWriter::with_capacity(size, Box::new(file)), path: path.into(), made })
    }
}

struct RdiffOutput {
    writer: BufWriter<Box<dyn Write>>,
    path: PathBuf,
    made: bool,
}

impl Write for RdiffOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl RdiffOutput {
    /// Takes the work's result. Where it failed, no half of a file stays that was not there before.
    fn ended<T>(mut self, result: Result<T, RdiffError>, names: &[(Input, &PathBuf)]) -> Result<T, RdiffFailure> {
        let result = result.and_then(|value| self.flush().map(|()| value).map_err(RdiffError::Write));
        result.map_err(|error| {
            if self.made {
                let _ = std::fs::remove_file(&self.path);
            }
            match error {
                RdiffError::Write(error) => RdiffFailure {
                    text: format!("{}: Cannot write the result: {error}", self.path.display()),
                    code: FAILED,
                },
                error => failure(error, names),
            }
        })
    }
}

impl From<Hash> for SignatureSum {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Blake2 => Self::Blake2,
            Hash::Md4 => Self::Md4,
        }
    }
}

impl From<Rollsum> for Weak {
    fn from(rollsum: Rollsum) -> Self {
        match rollsum {
            Rollsum::Rabinkarp => Self::RabinKarp,
            Rollsum::Rollsum => Self::Rollsum,
        }
    }
}
