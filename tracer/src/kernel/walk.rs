//! One walk over the kernel's own tables: every TCP socket of every network
//! namespace, whatever holds it and whoever can see it, without entering any.
//!
//! The kernel side reads memory by address and locks nothing, so a socket that
//! changes while it is read may be met as what it was, as what it becomes, as
//! both or as neither: the events that run meanwhile say which. One that is
//! there all the time is met exactly once. It refuses to know what the sockets
//! add up to.

mod facts;
mod found;
mod layout;
mod owners;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use tracer_common::seat;
use tracer_common::walk::{
    ABSENT, BUFFER_WORDS, Buffer, Cursor, NETS, NetRecord, OWNED, OwnedRecord, RECORDS,
    SocketRecord, Tasks,
};

pub use found::Decoder;
pub use layout::Layout;
pub use owners::OwnersOutcome;

use super::mapped::Mapped;
use crate::model::event::{Address, Moment, Netns};
use crate::model::found::{BoundPort, Found};
use layout::Chains;

/// Records that one run reports, unless a chain is longer. It is as long as the
/// CPU does nothing else where the kernel is not preemptible: some 0.3 ms.
const PIECE: u32 = 1024;

/// Runs that a chain is given to stand still.
const PATIENCE: u32 = 16;

/// Of a kernel as its types say no more chains than this cannot be read.
const STUCK: usize = 64;

/// The arrays of the walk, mapped.
#[derive(Debug)]
pub struct Maps {
    cursor: Mapped<Cursor>,
    buffer: Mapped<Buffer>,
    nets: Mapped<NetRecord>,
    records: Mapped<SocketRecord>,
    tasks: Mapped<Tasks>,
    owned: Mapped<OwnedRecord>,
}

impl Maps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Maps> {
        Ok(Maps {
            cursor: mapped(ebpf, seat::WALK_CURSOR, 1)?,
            buffer: mapped(ebpf, seat::WALK_BUFFER, 1)?,
            nets: mapped(ebpf, seat::WALK_NETS, NETS)?,
            records: mapped(ebpf, seat::WALK_RECORDS, RECORDS)?,
            tasks: mapped(ebpf, seat::WALK_TASKS, 1)?,
            owned: mapped(ebpf, seat::WALK_OWNED, OWNED)?,
        })
    }
}

/// A network namespace and its tables, as they stood when it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsFacts {
    /// Of its `struct net`, which another may have once this one has ended.
    pub address: Address,
    pub netns: Netns,
    /// Which no other namespace has while the machine runs; 0 where the kernel
    /// gives none, or only to who asks.
    pub cookie: u64,
    tables: NetRecord,
}

/// Every namespace, the first of which is the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub all: Vec<NetnsFacts>,
    /// There are more than there is room for.
    pub truncated: bool,
}

/// A chain that could not be read: longer than there is room for, or it did not
/// stand still. Its sockets are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Of listeners, else of the connections' table.
    pub listeners: bool,
    /// Of the namespace that alone has this table; `None` for the one they share.
    pub netns: Option<Netns>,
    pub bucket: u32,
    /// Whether there were more sockets than room.
    pub too_long: bool,
}

/// How a walk went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub namespaces: Namespaces,
    pub sockets: u64,
    /// Chains that changed under the reader and were read again.
    pub restarts: u64,
    /// Reads that failed, each of which began its chain again.
    pub faults: u64,
    /// Sockets in the middle of a change, left out: their events are on the way.
    pub torn: u64,
    /// Records that no kernel we know would give.
    pub malformed: u64,
    pub stuck: Vec<Stuck>,
    /// Runs of a program, the time they took together, and the longest.
    pub runs: u64,
    pub running: Duration,
    pub longest: Duration,
}

/// The programs and their arrays.
#[derive(Debug)]
pub struct Walk<'t> {
    layout: &'t Layout,
    namespaces: &'t RawTracePoint,
    copy: &'t RawTracePoint,
    chains: &'t RawTracePoint,
    known: &'t RawTracePoint,
    owners: &'t RawTracePoint,
    maps: &'t mut Maps,
    decoder: Decoder,
    piece: u32,
    runs: u64,
    running: Duration,
    longest: Duration,
}

/// One table to walk, and whose sockets alone are wanted.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    buckets: u64,
    chains: Chains,
    listeners: bool,
    /// It is the table of bound ports.
    ports: bool,
    /// Of the one namespace that has this table.
    netns: Option<Netns>,
    only: u64,
}

impl<'t> Walk<'t> {
    /// The programs have to be loaded.
    pub fn new(
        ebpf: &'t Ebpf,
        maps: &'t mut Maps,
        layout: &'t Layout,
        decoder: Decoder,
    ) -> Result<Walk<'t>> {
        let program = |name| -> Result<&'t RawTracePoint> {
            let program = ebpf.program(name);
            let program = program.with_context(|| format!("the eBPF object has no {name}"))?;
            Ok(program.try_into()?)
        };
        Ok(Walk {
            layout,
            namespaces: program(seat::WALK_NAMESPACES)?,
            copy: program(seat::WALK_COPY)?,
            chains: program(seat::WALK_CHAINS)?,
            known: program(seat::WALK_KNOWN)?,
            owners: program(seat::WALK_OWNERS)?,
            maps,
            decoder,
            piece: PIECE,
            runs: 0,
            running: Duration::ZERO,
            longest: Duration::ZERO,
        })
    }

    /// Sets how many records one run reports, at most [`RECORDS`].
    #[must_use]
    pub fn in_pieces_of(mut self, records: u32) -> Self {
        self.piece = records.clamp(1, RECORDS as u32);
        self
    }

    /// Every network namespace there is, even one that nothing but an open socket
    /// keeps alive.
    pub fn namespaces(&mut self) -> Result<Namespaces> {
        self.run(self.namespaces, Cursor::EMPTY)?;
        let cursor = self.maps.cursor.get(1)[0];
        if cursor.faults != 0 || cursor.count == 0 {
            bail!("the kernel's list of network namespaces is not where its types say");
        }
        let all = self.maps.nets.get(cursor.count as usize).iter();
        let all = all.map(|net| NetnsFacts {
            address: Address(net.address),
            netns: Netns(net.inode),
            cookie: net.cookie,
            tables: *net,
        });
        Ok(Namespaces {
            all: all.collect(),
            truncated: cursor.done == 0,
        })
    }

    /// Hands over every TCP socket there is, of one namespace or of all, in pieces,
    /// some of which are empty: what happens meanwhile can be read between them.
    pub fn sockets(
        &mut self,
        only: Option<Netns>,
        take: impl FnMut(&[Found]) -> Result<()>,
    ) -> Result<Outcome> {
        self.tables_that(|_| true, only, take)
    }

    /// The same of listening sockets alone, which takes a fraction of the time.
    pub fn listeners(
        &mut self,
        only: Option<Netns>,
        take: impl FnMut(&[Found]) -> Result<()>,
    ) -> Result<Outcome> {
        self.tables_that(|table| table.listeners, only, take)
    }

    fn tables_that(
        &mut self,
        wanted: impl Fn(&Table) -> bool,
        only: Option<Netns>,
        mut take: impl FnMut(&[Found]) -> Result<()>,
    ) -> Result<Outcome> {
        (self.runs, self.running, self.longest) = (0, Duration::ZERO, Duration::ZERO);
        let mut outcome = Outcome {
            namespaces: self.namespaces()?,
            ..Outcome::default()
        };
        let tables = self.tables(&outcome.namespaces.all, only);
        for table in tables.iter().filter(|table| wanted(table)) {
            self.sockets_of(table, &mut outcome, &mut take)?;
        }
        (outcome.runs, outcome.running, outcome.longest) = (self.runs, self.running, self.longest);
        Ok(outcome)
    }

    /// Every local port that is taken, once for each network namespace.
    pub fn ports(&mut self, only: Option<Netns>) -> Result<Vec<BoundPort>> {
        let all = self.namespaces()?.all;
        let mut outcome = Outcome::default();
        let mut ports = Vec::new();
        let Some(shared) = all.first().map(|host| host.tables) else {
            return Ok(ports);
        };
        let only = match only {
            None => 0,
            Some(only) => match all.iter().find(|net| net.netns == only) {
                Some(net) => net.address.0,
                None => return Ok(ports),
            },
        };
        let table = Table {
            address: shared.bhash,
            buckets: u64::from(shared.bhash_size),
            chains: self.layout.ports,
            listeners: false,
            ports: true,
            netns: None,
            only,
        };
        self.table(&table, &mut outcome, &mut |walk, end, outcome| {
            walk.listed(&table, end, outcome, &mut |_, records| {
                ports.extend(records.iter().map(found::bound_port));
                Ok(())
            })
        })?;
        Ok(ports)
    }

    /// Reads sockets in place, which the walk or an event has met. Each comes as
    /// what it is now: by its cookie and state it is the same, or another.
    pub fn known(&mut self, addresses: &[Address], mut take: impl FnMut(&Found)) -> Result<()> {
        for batch in addresses.chunks(RECORDS) {
            for (record, address) in self.maps.records.get_mut().iter_mut().zip(batch) {
                record.address = address.0;
            }
            let end = batch.len() as u32;
            self.run(
                self.known,
                Cursor {
                    end,
                    ..Cursor::EMPTY
                },
            )?;
            for record in self.maps.records.get(batch.len()) {
                if let Some(found) = self.decoder.decode(record) {
                    take(&found);
                }
            }
        }
        Ok(())
    }

    /// The tables that hold what is wanted, each once. A namespace may have a
    /// connections' table of its own (`tcp_child_ehash_entries`, 6.1+); the one of
    /// listeners it shares all the same.
    fn tables(&self, namespaces: &[NetnsFacts], only: Option<Netns>) -> Vec<Table> {
        let Some(shared) = namespaces.first().map(|host| host.tables) else {
            return Vec::new();
        };
        let wanted = |net: &&NetnsFacts| only.is_none_or(|only| net.netns == only);
        let mut tables = Vec::new();
        let only = match only {
            None => 0,
            Some(_) => match namespaces.iter().find(wanted) {
                Some(net) => net.address.0,
                // It has ended.
                None => return tables,
            },
        };
        let connections = |net: &NetRecord, netns, only| Table {
            address: net.ehash,
            buckets: u64::from(net.ehash_mask) + 1,
            chains: self.layout.connections,
            listeners: false,
            ports: false,
            netns,
            only,
        };
        let mut share = false;
        for net in namespaces.iter().filter(wanted) {
            if net.tables.ehash == shared.ehash {
                share = true;
            } else {
                // It alone is in there, as long as it is there itself.
                let own = Some(net.netns);
                tables.push(connections(&net.tables, own, net.address.0));
            }
        }
        if share {
            tables.push(connections(&shared, None, only));
        }
        tables.push(Table {
            address: shared.lhash2,
            buckets: u64::from(shared.lhash2_mask) + 1,
            chains: self.layout.listeners,
            listeners: true,
            ports: false,
            netns: None,
            only,
        });
        tables
    }

    /// Has the buckets of a table walked that are not empty, some at a time.
    fn table(
        &mut self,
        table: &Table,
        outcome: &mut Outcome,
        walk: &mut impl FnMut(&mut Self, u32, &mut Outcome) -> Result<()>,
    ) -> Result<()> {
        let mut from = 0;
        while from < table.buckets {
            let Some((end, copied)) = self.list_buckets(table, from)? else {
                // The namespace may have ended, and its table with it.
                if table.netns.is_some() {
                    return Ok(());
                }
                bail!("the kernel's table of sockets is not where its types say");
            };
            from += copied;
            walk(self, end, outcome)?;
        }
        Ok(())
    }

    /// What stands in a table, decoded, in pieces.
    fn sockets_of(
        &mut self,
        table: &Table,
        outcome: &mut Outcome,
        take: &mut impl FnMut(&[Found]) -> Result<()>,
    ) -> Result<()> {
        let (decoder, mut piece) = (self.decoder, Vec::new());
        self.table(table, outcome, &mut |walk, end, outcome| {
            take(&[])?;
            walk.listed(table, end, outcome, &mut |outcome, records| {
                piece.clear();
                piece.extend(records.iter().filter_map(|record| decoder.decode(record)));
                outcome.malformed += (records.len() - piece.len()) as u64;
                outcome.sockets += piece.len() as u64;
                take(&piece)
            })
        })
    }

    /// Copies the heads of buckets and leaves in the buffer the numbers of those
    /// that are not empty: how many these are, and how many were looked at.
    fn list_buckets(&mut self, table: &Table, from: u64) -> Result<Option<(u32, u64)>> {
        let chains = table.chains;
        let stride = u64::from(chains.stride);
        if stride == 0 || u64::from(chains.chain) + 8 > stride {
            bail!("a bucket of the kernel's tables is not as its types say");
        }
        let fit = (BUFFER_WORDS * 8) as u64 / stride;
        let copied = fit.min(table.buckets - from);
        // Of a namespace that has ended it may be anything.
        let address = table.address.wrapping_add(from * stride);
        if !self.copied(address, copied * stride)? {
            return Ok(None);
        }
        let words = &mut self.maps.buffer.get_mut()[0].words;
        let (per, head) = (chains.stride as usize / 8, chains.chain as usize / 8);
        let mut end = 0;
        for bucket in 0..copied as usize {
            let first = words[bucket * per + head];
            let empty = match chains.nulls_base {
                ABSENT => first == 0,
                _ => first & 1 == 1,
            };
            if !empty {
                // Never ahead of what is read: a bucket has at least a word.
                words[end] = from + bucket as u64;
                end += 1;
            }
        }
        Ok(Some((end as u32, copied)))
    }

    /// Copies kernel memory into the buffer, whether that can be.
    fn copied(&mut self, address: u64, bytes: u64) -> Result<bool> {
        self.run(
            self.copy,
            Cursor {
                table: address,
                bytes,
                ..Cursor::EMPTY
            },
        )?;
        Ok(self.maps.cursor.get(1)[0].done == 1)
    }

    /// Walks the buckets that the buffer lists.
    fn listed(
        &mut self,
        table: &Table,
        end: u32,
        outcome: &mut Outcome,
        take: &mut impl FnMut(&mut Outcome, &[SocketRecord]) -> Result<()>,
    ) -> Result<()> {
        let (mut at, mut limit, mut stood_still) = (0, self.piece, 0);
        while at < end {
            let asked = Cursor {
                table: table.address,
                stride: table.chains.stride,
                chain: table.chains.chain,
                node: table.chains.node,
                nulls_base: table.chains.nulls_base,
                only: table.only,
                ports: if table.ports { table.buckets } else { 0 },
                limit,
                end,
                at,
                ..Cursor::EMPTY
            };
            self.run(self.chains, asked)?;
            let cursor = self.maps.cursor.get(1)[0];
            outcome.restarts += u64::from(cursor.restarts);
            outcome.faults += u64::from(cursor.faults);
            outcome.torn += u64::from(cursor.torn);
            take(outcome, self.maps.records.get(cursor.count as usize))?;
            if cursor.at > at {
                (at, limit, stood_still) = (cursor.at, self.piece, 0);
                continue;
            }
            // Not even one chain came to its end.
            let full = cursor.full == 1;
            stood_still += 1;
            if full && limit < RECORDS as u32 {
                limit = RECORDS as u32;
            } else if full || stood_still == PATIENCE {
                outcome.stuck.push(Stuck {
                    listeners: table.listeners,
                    netns: table.netns,
                    bucket: cursor.bucket,
                    too_long: full,
                });
                if outcome.stuck.len() > STUCK {
                    bail!("the chains of the kernel's tables are not where its types say");
                }
                (at, limit, stood_still) = (at + 1, self.piece, 0);
            }
        }
        Ok(())
    }

    fn run(&mut self, program: &RawTracePoint, asked: Cursor) -> Result<()> {
        self.maps.cursor.get_mut()[0] = asked;
        run(program)?;
        let cursor = &self.maps.cursor.get(1)[0];
        self.ran(cursor.began_ns, cursor.ended_ns);
        Ok(())
    }

    fn ran(&mut self, began_ns: u64, ended_ns: u64) {
        let took = Moment(ended_ns).since(Moment(began_ns));
        self.runs += 1;
        self.running += took;
        self.longest = self.longest.max(took);
    }
}

fn run(program: &RawTracePoint) -> Result<()> {
    program
        .test_run(RawTracePointRunOptions::new())
        .context("cannot run the walk over the kernel's tables")?;
    Ok(())
}

/// The program holds the array; mapped it outlives our descriptor of it.
fn mapped<T: aya::Pod>(ebpf: &mut Ebpf, name: &str, count: usize) -> Result<Mapped<T>> {
    let Some(Map::Array(data)) = ebpf.take_map(name) else {
        bail!("the eBPF object has no array {name}: it does not belong to this binary");
    };
    Mapped::new(data.fd(), count).context("cannot map an array of the walk")
}
