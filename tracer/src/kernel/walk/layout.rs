//! What the walk has to be told of this kernel, from its type information.
//!
//! Kernels are told apart by the members they have, never by their version.

use tracer_common::layout;
use tracer_common::walk::{ABSENT, HEAD, WalkLayout};

use super::super::btf::{Btf, Missing, Width};

/// Ends of chains in `lhash2` (5.19+) hold the bucket's number and this, so that
/// they are told from those of the connections' table.
const LISTENING_NULLS_BASE: u32 = 1 << 29;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// For the kernel side.
    pub object: WalkLayout,
    /// The connections' table: minisockets and requests are in it too.
    pub(super) connections: Chains,
    pub(super) listeners: Chains,
    pub(super) net: Net,
}

/// How sockets are chained in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chains {
    /// Bytes of a bucket.
    pub(super) stride: u32,
    /// Of the first pointer, in a bucket.
    pub(super) chain: u32,
    /// Of the pointers' target, in a socket.
    pub(super) node: u32,
    /// What the end of a chain holds besides the bucket's number; [`ABSENT`]
    /// where it is a null pointer.
    pub(super) nulls_base: u32,
}

/// Where a number is in `struct net`, and its bytes.
pub(super) type Place = (u32, u32);

/// What is read from `struct net` itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Net {
    /// Bytes of a `struct net` up to the last of the members below.
    pub(super) bytes: u32,
    pub(super) inode: u32,
    /// Absent before 5.7.
    pub(super) cookie: Option<u32>,
    /// `ip_local_port_range`: two `int`s, or since 6.8 one word with the upper
    /// end in its upper half.
    pub(super) port_range: Place,
    /// A pointer to a bit for each port. Some kernels are built without.
    pub(super) reserved_ports: Option<u32>,
    /// From 5.18 to 6.0 `tcp_death_row`, which has the next, is behind a pointer.
    pub(super) death_row: Option<u32>,
    pub(super) max_tw_buckets: Place,
    pub(super) tw_reuse: Place,
    /// Absent before 6.14.
    pub(super) tw_reuse_delay: Option<Place>,
    pub(super) timestamps: Place,
}

impl Layout {
    pub fn read(btf: &Btf<'_>, layout: &layout::Layout) -> Result<Layout, Missing> {
        let at = |structure, path, width| btf.member(structure, path, Width::Exactly(width));
        let nulls_node = btf.member("sock_common", "skc_nulls_node", Width::Any)?;
        // Before 5.19 listeners are chained by a member of their own. (A bucket
        // has both kinds of head then, so it cannot tell.)
        let listeners = match btf.member(
            "inet_connection_sock",
            "icsk_listen_portaddr_node",
            Width::Any,
        ) {
            Ok(node) => Chains {
                stride: btf.size_of("inet_listen_hashbucket")?,
                chain: at("inet_listen_hashbucket", "head", 8)?,
                node,
                nulls_base: ABSENT,
            },
            Err(Missing::Member { .. }) => Chains {
                stride: btf.size_of("inet_listen_hashbucket")?,
                chain: at("inet_listen_hashbucket", "nulls_head", 8)?,
                node: nulls_node,
                nulls_base: LISTENING_NULLS_BASE,
            },
            Err(other) => return Err(other),
        };
        Ok(Layout {
            object: object(btf, layout)?,
            connections: Chains {
                stride: btf.size_of("inet_ehash_bucket")?,
                chain: at("inet_ehash_bucket", "chain", 8)?,
                node: nulls_node,
                nulls_base: 0,
            },
            listeners,
            net: net(btf, layout)?,
        })
    }
}

fn object(btf: &Btf<'_>, layout: &layout::Layout) -> Result<WalkLayout, Missing> {
    let at = |structure, path, width| btf.member(structure, path, Width::Exactly(width));
    let ipv4 = btf.member("net", "ipv4", Width::Any)?;
    // From 5.18 to 6.0 it is a pointer.
    let embedded = at("netns_ipv4", "tcp_death_row.hashinfo", 8);
    let (hashinfo, behind) = match embedded {
        Ok(embedded) => (embedded, ABSENT),
        Err(Missing::Member { .. }) => (
            at("netns_ipv4", "tcp_death_row", 8)?,
            at("inet_timewait_death_row", "hashinfo", 8)?,
        ),
        Err(other) => return Err(other),
    };
    let mut walk = WalkLayout {
        task_real_parent: at("task_struct", "real_parent", 8)?,
        task_nsproxy: at("task_struct", "nsproxy", 8)?,
        nsproxy_net_ns: at("nsproxy", "net_ns", 8)?,
        net_list: at("net", "list", 16)?,
        net_hashinfo: ipv4 + hashinfo,
        death_row_hashinfo: behind,
        hashinfo_ehash: at("inet_hashinfo", "ehash", 8)?,
        hashinfo_ehash_mask: at("inet_hashinfo", "ehash_mask", 4)?,
        hashinfo_lhash2: at("inet_hashinfo", "lhash2", 8)?,
        hashinfo_lhash2_mask: at("inet_hashinfo", "lhash2_mask", 4)?,
        hashinfo_bhash: at("inet_hashinfo", "bhash", 8)?,
        hashinfo_bhash_size: at("inet_hashinfo", "bhash_size", 4)?,
        sk_nulls_next: at("sock_common", "skc_nulls_node.next", 8)?,
        sk_cookie: at("sock_common", "skc_cookie", 8)?,
        sk_reuse: btf.bits("sock_common", "skc_reuse")?,
        sk_reuseport: btf.bits("sock_common", "skc_reuseport")?,
        sk_userlocks: btf.bits("sock", "sk_userlocks")?,
        sk_listener: at("sock_common", "skc_listener", 8)?,
        sk_ack_backlog: at("sock", "sk_ack_backlog", 4)?,
        sk_max_ack_backlog: at("sock", "sk_max_ack_backlog", 4)?,
        sk_drops: at("sock", "sk_drops", 4)?,
        accept_qlen: at("inet_connection_sock", "icsk_accept_queue.qlen", 4)?,
        tw_ts_recent_stamp: at("tcp_timewait_sock", "tw_ts_recent_stamp", 4)?,
        head_bytes: 0,
        dawdle: 0,
    };
    let last = [
        layout.sk_family,
        layout.sk_addrpair,
        layout.sk_state,
        layout.sk_num,
        layout.sk_dport,
        layout.sk_net,
        layout.sk_v6_daddr + 8,
        layout.sk_v6_rcv_saddr + 8,
        layout.tw_substate,
        layout.tw_timer + layout.timer_expires,
        layout.rsk_timer + layout.timer_expires,
        walk.sk_nulls_next,
        walk.sk_cookie,
        walk.sk_listener,
    ]
    .into_iter()
    .max()
    .unwrap_or(0);
    walk.head_bytes = last + 8;
    if walk.head_bytes as usize > HEAD {
        return Err(Missing::Width {
            structure: "sock_common".to_owned(),
            path: "skc_cookie".to_owned(),
            found: walk.head_bytes,
            wanted: HEAD as u32,
        });
    }
    Ok(walk)
}

fn net(btf: &Btf<'_>, layout: &layout::Layout) -> Result<Net, Missing> {
    let ipv4 = btf.member("net", "ipv4", Width::Any)?;
    let number = |path| {
        let (offset, bytes) = btf.number("netns_ipv4", path)?;
        Ok((ipv4 + offset, bytes))
    };
    let optional = |found: Result<Place, Missing>| match found {
        Err(Missing::Member { .. }) => Ok(None),
        found => found.map(Some),
    };
    let cookie = (layout.net_cookie != 0).then_some(layout.net_cookie);
    let (death_row, max_tw_buckets) = match number("tcp_death_row.sysctl_max_tw_buckets") {
        Err(Missing::Member { .. }) => (
            Some(number("tcp_death_row")?.0),
            btf.number("inet_timewait_death_row", "sysctl_max_tw_buckets")?,
        ),
        found => (None, found?),
    };
    let mut net = Net {
        bytes: 0,
        inode: layout.net_inum,
        cookie,
        port_range: number("ip_local_ports.range")?,
        reserved_ports: optional(number("sysctl_local_reserved_ports"))?.map(|(at, _)| at),
        death_row,
        max_tw_buckets,
        tw_reuse: number("sysctl_tcp_tw_reuse")?,
        tw_reuse_delay: optional(number("sysctl_tcp_tw_reuse_delay"))?,
        timestamps: number("sysctl_tcp_timestamps")?,
    };
    let ends = [
        net.inode,
        cookie.unwrap_or(0),
        net.port_range.0,
        net.reserved_ports.unwrap_or(0),
        death_row.unwrap_or(net.max_tw_buckets.0),
        net.tw_reuse.0,
        net.tw_reuse_delay.unwrap_or((0, 0)).0,
        net.timestamps.0,
    ];
    net.bytes = ends.into_iter().max().unwrap_or(0) + 8;
    Ok(net)
}
