//! Recordings in files: written line by line, so that whatever ends a run leaves
//! all the frames before; read as far as they are whole.
//!
//! A name that ends in `.zst` is compressed; a file is read as what it is, not
//! as what it is called.

mod create;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use zstd::stream::{read::Decoder, write::Encoder};

use crate::recording::{Line, Lines, Recording};

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
    let input = BufReader::new(File::open(path).with_context(cannot)?);
    let input = unpacked(input).with_context(cannot)?;
    Lines::new(input).map_err(|error| anyhow!(error).context(cannot()))
}

/// What a file holds, decompressed where it is compressed.
pub fn unpacked<'a>(mut file: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    if file.fill_buf()?.starts_with(&MAGIC) {
        let decoder = Decoder::with_buffer(file)?;
        Ok(Box::new(BufReader::new(decoder)))
    } else {
        Ok(Box::new(file))
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
