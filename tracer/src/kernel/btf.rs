//! Where the members of the kernel's structures are, from its type information.
//!
//! A walk over `/sys/kernel/btf/vmlinux` that knows just enough of the format to
//! follow a path of members, anonymous structs and unions included, and to tell
//! how wide the last one is: the kernel side reads fixed widths, so a member of
//! another width is refused here rather than misread there. It relocates nothing
//! and knows nothing of programs. Little-endian only, as is the eBPF object.

use std::fmt;

use rustc_hash::FxHashMap;
use tracer_common::layout::Layout;
use tracer_common::walk::Bits;

/// Where the kernel gives its type information.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// Anonymous members and typedefs nest a few levels deep; a blob that nests
/// deeper is broken or circular.
const DEPTH: u32 = 32;

/// Members looked at for one path: a hundred times what the largest structure
/// has. Each anonymous member is gone through anew, so a small blob could ask for
/// more than there is time for.
const MEMBERS: u32 = 1 << 16;

/// No name in the kernel is longer, and a blob may lack the byte that ends one.
const LONGEST_NAME: usize = 512;

mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const PTR: u8 = 2;
    pub(super) const ARRAY: u8 = 3;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const FWD: u8 = 7;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const VAR: u8 = 14;
    pub(super) const DATASEC: u8 = 15;
    pub(super) const FLOAT: u8 = 16;
    pub(super) const DECL_TAG: u8 = 17;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;
}

/// What the type information does not say, as a fragment after "this kernel: ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The blob is not type information at all.
    Format(&'static str),
    Struct(String),
    Member {
        structure: String,
        path: String,
    },
    /// The member is there in another width, or as a bit field (`found` is 0).
    Width {
        structure: String,
        path: String,
        found: u32,
        wanted: u32,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Format(why) => write!(f, "its type information (BTF) cannot be read: {why}"),
            Missing::Struct(name) => write!(f, "its type information (BTF) has no struct {name}"),
            Missing::Member { structure, path } => {
                write!(f, "its struct {structure} has no member {path}")
            }
            Missing::Width {
                structure,
                path,
                found: 0,
                ..
            } => {
                write!(
                    f,
                    "its {structure}.{path} is a bit field, which the tracer cannot read"
                )
            }
            Missing::Width {
                structure,
                path,
                found,
                wanted,
            } => write!(
                f,
                "its {structure}.{path} is {found} bytes wide where the tracer reads {wanted}"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// Member offsets for the kernel side; the addresses of the handlers are left 0
/// (they come from [`super::kallsyms`]).
pub fn layout(blob: &[u8]) -> Result<Layout, Missing> {
    let btf = Btf::parse(blob)?;
    // Older kernels are not supported: before 5.6 sk_protocol is a bit field,
    // which the width refuses.
    let at = |structure, path, width| btf.member(structure, path, width);
    let absent_as_zero = |found: Result<u32, Missing>| match found {
        // Offset 0 is taken by the addresses of IPv4, so it can say "absent".
        Err(Missing::Member { .. }) => Ok(0),
        other => other,
    };
    Ok(Layout {
        sk_family: at("sock_common", "skc_family", Width::Exactly(2))?,
        sk_cookie: at("sock_common", "skc_cookie", Width::Exactly(8))?,
        sk_addrpair: at("sock_common", "skc_addrpair", Width::Exactly(8))?,
        sk_hash: at("sock_common", "skc_hash", Width::Exactly(4))?,
        sk_state: at("sock_common", "skc_state", Width::Exactly(1))?,
        sk_num: at("sock_common", "skc_num", Width::Exactly(2))?,
        sk_dport: at("sock_common", "skc_dport", Width::Exactly(2))?,
        sk_net: at("sock_common", "skc_net.net", Width::Exactly(8))?,
        sk_v6_daddr: absent_as_zero(at("sock_common", "skc_v6_daddr", Width::Exactly(16)))?,
        sk_v6_rcv_saddr: absent_as_zero(at("sock_common", "skc_v6_rcv_saddr", Width::Exactly(16)))?,
        sk_protocol: at("sock", "sk_protocol", Width::Exactly(2))?,
        sk_err: at("sock", "sk_err", Width::Exactly(4))?,
        inet_sport: at("inet_sock", "inet_sport", Width::Exactly(2))?,
        tcp_linger2: at("tcp_sock", "linger2", Width::Exactly(4))?,
        net_cookie: absent_as_zero(at("net", "net_cookie", Width::Exactly(8)))?,
        net_inum: at("net", "ns.inum", Width::Exactly(4))?,
        tw_timer: at("inet_timewait_sock", "tw_timer", Width::Any)?,
        tw_substate: at("inet_timewait_sock", "tw_substate", Width::Exactly(1))?,
        rsk_timer: at("request_sock", "rsk_timer", Width::Any)?,
        timer_expires: at("timer_list", "expires", Width::Exactly(8))?,
        timer_function: at("timer_list", "function", Width::Exactly(8))?,
        timer_flags: at("timer_list", "flags", Width::Exactly(4))?,
        task_flags: at("task_struct", "flags", Width::Exactly(4))?,
        task_group_leader: at("task_struct", "group_leader", Width::Exactly(8))?,
        task_comm: at("task_struct", "comm", Width::Exactly(16))?,
        task_pid: at("task_struct", "thread_pid", Width::Exactly(8))?,
        pid_level: at("pid", "level", Width::Exactly(4))?,
        pid_numbers: at("pid", "numbers", Width::Any)?,
        upid_nr: at("upid", "nr", Width::Exactly(4))?,
        upid_ns: at("upid", "ns", Width::Exactly(8))?,
        pid_ns_inum: at("pid_namespace", "ns.inum", Width::Exactly(4))?,
        ..Layout::default()
    })
}

/// How wide a member has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Bytes.
    Exactly(u32),
    /// It is a structure of which only the place matters.
    Any,
}

/// A parsed blob: where each type begins, and the structures by name.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset into `types` of type id n + 1.
    starts: Vec<u32>,
    /// A name can stand for several structures where the types of two units
    /// could not be merged.
    structures: FxHashMap<&'a [u8], Vec<u32>>,
}

/// One type: the three words that every kind begins with.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    /// The kind's flag: for a structure, that some member is a bit field.
    flag: bool,
    count: usize,
    /// Size or type id, by kind.
    word: u32,
    /// Offset into `types` of what follows.
    rest: usize,
}

impl<'a> Btf<'a> {
    pub fn parse(blob: &'a [u8]) -> Result<Btf<'a>, Missing> {
        if blob.len() < 24 {
            return Err(Missing::Format("it is shorter than its header"));
        }
        if u16::from_le_bytes([blob[0], blob[1]]) != MAGIC {
            return Err(Missing::Format("it does not begin with its magic number"));
        }
        let word = |at: usize| word(blob, at).unwrap_or(0) as usize;
        let header = word(4);
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            blob.get(start..start.checked_add(length)?)
        };
        let outside = Missing::Format("a section lies outside of it");
        let types = section(word(8), word(12)).ok_or(outside.clone())?;
        let strings = section(word(16), word(20)).ok_or(outside)?;
        let mut btf = Btf {
            types,
            strings,
            starts: Vec::new(),
            structures: FxHashMap::default(),
        };

        let mut at = 0;
        // Kinds are appended to the format as kernels grow, and pahole puts the
        // newest last. What stands before an unknown kind is still true, so the
        // walk ends there; a member that is thereby not found is named.
        while let Some(t) = btf.type_at(at) {
            let Some(more) = trailing(t.kind, t.count) else {
                break;
            };
            if t.kind == kind::STRUCT && t.name != 0 {
                let id = btf.starts.len() as u32 + 1;
                btf.structures
                    .entry(btf.string(t.name))
                    .or_default()
                    .push(id);
            }
            btf.starts.push(at as u32);
            at = t.rest + more;
        }
        Ok(btf)
    }

    /// Byte offset of `path` (`a.b.c`) in `struct structure`.
    pub fn member(&self, structure: &str, path: &str, width: Width) -> Result<u32, Missing> {
        let (bits, bytes) = self.place(structure, path)?;
        match width {
            Width::Any => Ok(bits / 8),
            Width::Exactly(wanted) if wanted == bytes && bits % 8 == 0 => Ok(bits / 8),
            Width::Exactly(wanted) => Err(Missing::Width {
                structure: structure.to_owned(),
                path: path.to_owned(),
                found: bytes,
                wanted,
            }),
        }
    }

    /// Byte offset and width of a number whose width differs between kernels.
    pub fn number(&self, structure: &str, path: &str) -> Result<(u32, u32), Missing> {
        let (_, bytes) = self.place(structure, path)?;
        let offset = self.member(structure, path, Width::Exactly(bytes.clamp(1, 8)))?;
        Ok((offset, bytes))
    }

    /// A member of at most one byte, whether it is a bit field or not.
    pub fn bits(&self, structure: &str, path: &str) -> Result<Bits, Missing> {
        let (at, _, width) = self.find(structure, path)?;
        if width == 0 {
            let offset = self.member(structure, path, Width::Exactly(1))?;
            return Ok(Bits {
                offset,
                shift: 0,
                mask: 0xff,
            });
        }
        let (offset, shift) = (at / 8, at % 8);
        if shift + width > 8 {
            return Err(Missing::Width {
                structure: structure.to_owned(),
                path: path.to_owned(),
                found: 0,
                wanted: 1,
            });
        }
        Ok(Bits {
            offset,
            shift,
            mask: (1 << width) - 1,
        })
    }

    /// Bytes of `struct structure`.
    pub fn size_of(&self, structure: &str) -> Result<u32, Missing> {
        let ids = self.structures.get(structure.as_bytes());
        ids.and_then(|ids| self.size(*ids.first()?, DEPTH))
            .ok_or_else(|| Missing::Struct(structure.to_owned()))
    }

    /// Bit offset of a member, and its bytes; 0 for a bit field.
    fn place(&self, structure: &str, path: &str) -> Result<(u32, u32), Missing> {
        let (at, id, width) = self.find(structure, path)?;
        let bytes = match width {
            0 => self.size(id, DEPTH).unwrap_or(0),
            _ => 0,
        };
        Ok((at, bytes))
    }

    /// Bit offset of a member, its type, and its bits where it is a bit field.
    fn find(&self, structure: &str, path: &str) -> Result<(u32, u32, u32), Missing> {
        let Some(ids) = self.structures.get(structure.as_bytes()) else {
            return Err(Missing::Struct(structure.to_owned()));
        };
        let mut left = MEMBERS;
        let found = ids.iter().find_map(|&id| self.follow(id, path, &mut left));
        found.ok_or_else(|| Missing::Member {
            structure: structure.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether a tracepoint of that name can be attached to with its types.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.has(kind::TYPEDEF, &format!("btf_trace_{name}"))
    }

    /// Whether the kernel has a BPF iterator of that name.
    #[must_use]
    pub fn has_iterator(&self, name: &str) -> bool {
        self.has_function(&format!("bpf_iter_{name}"))
    }

    /// Whether the kernel has a function of that name, and its type.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.has(kind::FUNC, name)
    }

    fn has(&self, kind: u8, name: &str) -> bool {
        self.starts
            .iter()
            .filter_map(|&at| self.type_at(at as usize))
            .any(|t| t.kind == kind && self.string(t.name) == name.as_bytes())
    }

    /// Bit offset of a path in a structure, its type, and its bits where it is a
    /// bit field.
    fn follow(&self, id: u32, path: &str, left: &mut u32) -> Option<(u32, u32, u32)> {
        let mut at = (0u32, id, 0);
        for name in path.split('.') {
            let (bits, id, width) = self.search(self.plain(at.1)?, name.as_bytes(), DEPTH, left)?;
            at = (at.0.checked_add(bits)?, id, width);
        }
        Some(at)
    }

    /// Finds a member by name, looking into anonymous members as C does.
    /// `left` is how many members may be looked at yet.
    fn search(&self, id: u32, name: &[u8], depth: u32, left: &mut u32) -> Option<(u32, u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let t = self.get(id)?;
        if t.kind != kind::STRUCT && t.kind != kind::UNION {
            return None;
        }
        for n in 0..t.count {
            *left = left.checked_sub(1)?;
            let member = t.rest + n * 12;
            let named = word(self.types, member)?;
            let kind = word(self.types, member + 4)?;
            let offset = word(self.types, member + 8)?;
            let (bits, width) = if t.flag {
                (offset & 0x00ff_ffff, offset >> 24)
            } else {
                (offset, 0)
            };
            if named != 0 {
                if self.string(named) == name {
                    return Some((bits, kind, width));
                }
            } else if let Some((inner, id, width)) = self
                .plain(kind)
                .and_then(|id| self.search(id, name, depth, left))
            {
                return Some((bits.checked_add(inner)?, id, width));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let t = self.get(id)?;
            match t.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = t.word;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Bytes; `None` for what has no size.
    fn size(&self, id: u32, depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let t = self.get(self.plain(id)?)?;
        match t.kind {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(t.word)
            }
            // Only 64-bit kernels have the tracepoints' types we rely on.
            kind::PTR => Some(8),
            kind::ARRAY => {
                let of = self.size(word(self.types, t.rest)?, depth)?;
                of.checked_mul(word(self.types, t.rest + 8)?)
            }
            _ => None,
        }
    }

    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.starts.get((id as usize).checked_sub(1)?)?;
        self.type_at(at as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(self.types, at.checked_add(4)?)?;
        Some(Type {
            name: word(self.types, at)?,
            kind: ((info >> 24) & 0x1f) as u8,
            flag: info >> 31 == 1,
            count: (info & 0xffff) as usize,
            word: word(self.types, at + 8)?,
            rest: at + 12,
        })
    }

    /// Empty where the offset leads nowhere, or to no name.
    fn string(&self, at: u32) -> &'a [u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(LONGEST_NAME)];
        let end = rest.iter().position(|&b| b == 0).unwrap_or(0);
        &rest[..end]
    }
}

/// Bytes after the three common words; `None` for a kind that is not known.
fn trailing(kind: u8, count: usize) -> Option<usize> {
    Some(match kind {
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count * 12,
        kind::ENUM | kind::FUNC_PROTO => count * 8,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests;
