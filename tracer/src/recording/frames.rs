//! The frames of a recording as something to keep: packed as in a file, where a
//! day of them takes forty megabytes and not a gigabyte, with the few figures of
//! each beside them by which a stretch is chosen.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::Frame;
use crate::model::event::State;
use crate::printable;

/// A block is packed when it holds as much, in frames and in bytes.
const FRAMES: usize = 64;
const BYTES: usize = 128 << 10;

/// Frames change little from one to the next: zstd's quickest level packs them
/// half as well as its best.
const LEVEL: i32 = 1;

/// Stretches that are read one after the other have ends in common.
const UNPACKED: usize = 2;

/// When a frame was, and what Little's law needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stock {
    /// From the start of the run to its end.
    pub elapsed_s: f64,
    pub interval_s: f64,
    /// TIME_WAITs entered in it.
    pub born: u64,
    /// And those there were at its end.
    pub time_waits: u64,
}

impl Stock {
    #[must_use]
    pub fn of(frame: &Frame) -> Stock {
        let time_waits = frame.states.get(State::TimeWait);
        Stock {
            elapsed_s: frame.elapsed_s,
            interval_s: frame.interval_s,
            born: time_waits.map_or(0, |count| u64::try_from(count.entered).unwrap_or(0)),
            time_waits: time_waits.map_or(0, |count| count.now),
        }
    }
}

/// In the order in which they were cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frames {
    stocks: Vec<Stock>,
    blocks: Vec<Block>,
    /// Lines of the frames that are in no block yet.
    open: Vec<u8>,
    packed: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Block {
    frames: Range<usize>,
    packed: Vec<u8>,
    /// Bytes.
    unpacked: usize,
}

/// What was written can be read.
const OURS: &str = "a frame is read as it was written, and unpacked as it was packed";

impl Frames {
    pub fn push(&mut self, frame: &Frame) {
        self.stocks.push(Stock::of(frame));
        printable::write_json(&mut self.open, frame).expect("memory takes everything");
        self.open.push(b'\n');
        let first = self.blocks.last().map_or(0, |block| block.frames.end);
        if self.open.len() >= BYTES || self.stocks.len() - first >= FRAMES {
            let mut packed = zstd::bulk::compress(&self.open, LEVEL).expect(OURS);
            // It has room for what could not be packed.
            packed.shrink_to_fit();
            self.packed += packed.len();
            self.blocks.push(Block {
                frames: first..self.stocks.len(),
                packed,
                unpacked: self.open.len(),
            });
            self.open.clear();
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.stocks.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stocks.is_empty()
    }

    #[must_use]
    pub fn stocks(&self) -> &[Stock] {
        &self.stocks
    }

    /// Memory that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables = self.stocks.capacity() * size_of::<Stock>()
            + self.blocks.capacity() * size_of::<Block>();
        tables + self.packed + self.open.capacity()
    }

    #[must_use]
    pub fn last(&self) -> Option<Frame> {
        let last = self.len().checked_sub(1)?;
        self.reader()
            .range(last..self.len())
            .next()
            .map(|frame| (*frame).clone())
    }

    /// Unpacked one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Rc<Frame>> {
        self.reader().range(0..self.len())
    }

    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            frames: self,
            unpacked: Rc::default(),
        }
    }

    /// That of the frames from the last full block on is the last.
    fn block(&self, at: usize) -> usize {
        self.blocks.partition_point(|block| block.frames.end <= at)
    }

    fn unpack(&self, block: usize) -> Vec<Rc<Frame>> {
        let read = |lines: &[u8]| {
            let lines = lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            let frame = |line| Rc::new(serde_json::from_slice(line).expect(OURS));
            lines.map(frame).collect()
        };
        match self.blocks.get(block) {
            None => read(&self.open),
            Some(block) => {
                read(&zstd::bulk::decompress(&block.packed, block.unpacked).expect(OURS))
            }
        }
    }
}

impl FromIterator<Frame> for Frames {
    fn from_iter<T: IntoIterator<Item = Frame>>(frames: T) -> Frames {
        let mut kept = Frames::default();
        for frame in frames {
            kept.push(&frame);
        }
        kept
    }
}

type Unpacked = Rc<RefCell<Vec<(usize, Rc<[Rc<Frame>]>)>>>;

/// Reads stretches; what two of them share is unpacked once.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frames: &'a Frames,
    /// The newest last.
    unpacked: Unpacked,
}

impl<'a> Reader<'a> {
    /// Frames by their places.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = Rc<Frame>> + use<'a> {
        let reader = self.clone();
        let mut block: Option<(usize, Rc<[Rc<Frame>]>)> = None;
        range.map(move |at| {
            let wanted = reader.frames.block(at);
            let (_, frames) = match block.take() {
                Some(block) if block.0 == wanted => block,
                _ => (wanted, reader.block(wanted)),
            };
            let first = match wanted.checked_sub(1) {
                None => 0,
                Some(before) => reader.frames.blocks[before].frames.end,
            };
            let frame = Rc::clone(&frames[at - first]);
            block = Some((wanted, frames));
            frame
        })
    }

    fn block(&self, wanted: usize) -> Rc<[Rc<Frame>]> {
        let mut unpacked = self.unpacked.borrow_mut();
        let known = unpacked.iter().position(|(block, _)| *block == wanted);
        let block = match known {
            Some(at) => unpacked.remove(at).1,
            None => self.frames.unpack(wanted).into(),
        };
        if unpacked.len() == UNPACKED {
            unpacked.remove(0);
        }
        unpacked.push((wanted, Rc::clone(&block)));
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the example, one after the other, as often as fills some blocks.
    fn some() -> Vec<Frame> {
        let example = include_str!("../../tests/examples/recording.jsonl");
        let of_one: Vec<Frame> = example
            .lines()
            .filter(|line| line.starts_with("{\"kind\":\"frame\""))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let seq = |(seq, frame): (u64, &Frame)| Frame {
            seq,
            elapsed_s: seq as f64,
            ..frame.clone()
        };
        (0..300).zip(of_one.iter().cycle()).map(seq).collect()
    }

    #[test]
    fn what_is_kept_is_what_was_given() {
        let frames = some();
        let kept: Frames = frames.iter().cloned().collect();
        assert_eq!(kept.len(), 300);
        assert!(kept.blocks.len() > 3 && !kept.open.is_empty());
        let again: Vec<Frame> = kept.iter().map(|frame| (*frame).clone()).collect();
        assert_eq!(again, frames);
        assert_eq!(kept.last().as_ref(), frames.last());
        assert_eq!(kept.stocks()[7], Stock::of(&frames[7]));
        let whole: usize = frames.len() * size_of::<Frame>();
        assert!(kept.bytes() < whole, "{} of {whole}", kept.bytes());
        assert_eq!(Frames::default().last(), None);
    }

    #[test]
    fn stretches_are_read_in_any_order() {
        let frames = some();
        let kept: Frames = frames.iter().cloned().collect();
        let reader = kept.reader();
        for range in [250..300, 100..251, 63..65, 64..64, 0..300, 299..300, 0..1] {
            let read: Vec<u64> = reader.range(range.clone()).map(|frame| frame.seq).collect();
            let asked: Vec<u64> = range.map(|seq| seq as u64).collect();
            assert_eq!(read, asked);
        }
        assert_eq!(reader.unpacked.borrow().len(), UNPACKED);
    }
}
