//! Recordings in files: written line by line, so that whatever ends a run leaves
//! all the frames before; read as far as they are whole.
//!
//! A name that ends in `.zst` is compressed; a file is read as what it is, not
//! as what it is called.

mod create;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use zstd::stream::{read::Decoder, write::Encoder};

use crate::recording::{Line, Lines, ReadError, Recording, Stored};

/// Of frames it makes a quarter less than zstd's own choice, for a fifth of a
/// millisecond each.
const LEVEL: i32 = 12;

/// What a compressed file begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Writes a recording. Each line has been given to the kernel when the call returns.
pub struct Writer {
    file: File,
    path: PathBuf,
    packer: Packer,
    /// Whether a line was written. Until then the file is as it was found.
    begun: bool,
    created: bool,
    bytes: u64,
}

enum Packer {
    Plain(Vec<u8>),
    Zstd(Encoder<'static, Vec<u8>>),
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Makes sure that the file can be written. What is in it stays until the
    /// first line comes.
    pub fn open(path: &Path) -> Result<Writer> {
        let cannot = || format!("cannot write the recording {}", path.display());
        let (file, created) = create::create(path).with_context(cannot)?;
        let zstd = path.extension().is_some_and(|extension| extension == "zst");
        let packer = if zstd {
            let mut encoder = Encoder::new(Vec::new(), LEVEL).with_context(cannot)?;
            encoder.include_checksum(true).with_context(cannot)?;
            Packer::Zstd(encoder)
        } else {
            Packer::Plain(Vec::new())
        };
        Ok(Writer {
            file,
            path: path.to_owned(),
            packer,
            begun: false,
            created,
            bytes: 0,
        })
    }

    pub fn write(&mut self, line: &Line) -> Result<()> {
        self.try_write(line)
            .with_context(|| format!("cannot write the recording {}", self.path.display()))
    }

    fn try_write(&mut self, line: &Line) -> io::Result<()> {
        if !self.begun {
            // A device has no length to set.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.begun = true;
        }
        let packed = match &mut self.packer {
            Packer::Plain(bytes) => {
                line.write(bytes)?;
                bytes
            }
            Packer::Zstd(encoder) => {
                line.write(encoder)?;
                // Events are many and small: the frame after them takes them along.
                if !matches!(line, Line::Event(_)) {
                    encoder.flush()?;
                }
                encoder.get_mut()
            }
        };
        self.bytes += packed.len() as u64;
        self.file.write_all(packed)?;
        packed.clear();
        Ok(())
    }

    /// Makes the file whole. Returns its size in bytes.
    pub fn finish(mut self) -> Result<u64> {
        if let Packer::Zstd(encoder) = &mut self.packer {
            let cannot = || format!("cannot write the recording {}", self.path.display());
            encoder.do_finish().with_context(cannot)?;
            let rest = encoder.get_mut();
            self.bytes += rest.len() as u64;
            self.file.write_all(rest).with_context(cannot)?;
        }
        Ok(self.bytes)
    }
}

impl Drop for Writer {
    /// A run that could not begin leaves no empty file behind.
    fn drop(&mut self) {
        if self.created && !self.begun {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The lines of a recording, read one after the other.
pub fn open(path: &Path) -> Result<Lines<Box<dyn BufRead>>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    lines(file).map_err(|error| anyhow!(error).context(cannot()))
}

/// The same of what a file holds.
pub fn lines<'a>(file: impl Read + 'a) -> Result<Lines<Box<dyn BufRead + 'a>>, ReadError> {
    let stored = Stored::default();
    let mut file = BufReader::new(Counted {
        file,
        taken: Stored::clone(&stored),
    });
    if !file.fill_buf().map_err(ReadError::Io)?.starts_with(&MAGIC) {
        return Lines::new(Box::new(file));
    }
    let mut decoder = Decoder::with_buffer(file).map_err(ReadError::Io)?;
    decoder.window_log_max(WINDOW).map_err(ReadError::Io)?;
    let unpacked = BufReader::new(Unpacked {
        packed: decoder,
        given: 0,
        taken: Stored::clone(&stored),
    });
    Lines::of_stored(Box::new(unpacked), stored)
}

/// How far back a compressed file may refer, as a power of two: what zstd's levels
/// up to 19 make use of, and as much memory as they want.
const WINDOW: u32 = 23;

/// A recording of a host at rest unpacks to eighty times its size, and with a
/// hundred namespaces at rest to 260 times: one that unpacks to more than so many
/// times, and so many bytes, is only read by who has unpacked it himself.
const UNPACKS: u64 = 500;
const UNPACKS_AT_LEAST: u64 = 32 << 20;

fn untrusted(why: impl fmt::Display) -> io::Error {
    io::Error::other(format!(
        "{why}: if you trust it, unpack it with `zstd -d --long=31` first"
    ))
}

/// Counts what has been taken from a file.
struct Counted<R> {
    file: R,
    taken: Stored,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(bytes)?;
        self.taken.set(self.taken.get() + n as u64);
        Ok(n)
    }
}

/// Fails where there is more in a file than can be.
struct Unpacked<R> {
    packed: R,
    given: u64,
    taken: Stored,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.packed.read(bytes).map_err(|error| {
            // zstd has names for its errors and no numbers that are kept.
            if error.to_string().contains("too much memory") {
                untrusted("it refers back by more than 8 MiB")
            } else {
                error
            }
        })?;
        self.given += n as u64;
        if self.given > UNPACKS_AT_LEAST + UNPACKS * self.taken.get() {
            return Err(untrusted(format_args!(
                "it unpacks to more than {UNPACKS} times its size"
            )));
        }
        Ok(n)
    }
}

/// A recording as a whole.
pub fn read(path: &Path) -> Result<Recording> {
    open(path)?
        .collect()
        .map_err(|error| anyhow!(error).context(format!("cannot read {}", path.display())))
}

#[cfg(test)]
mod tests;
