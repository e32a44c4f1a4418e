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
    /// The table of bound ports.
    pub(super) ports: Chains,
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

/// Names and places of the members of a structure.
macro_rules! members {
    ($of:expr, $($member:tt).+) => {
        (stringify!($($member).+), &mut $of.$($member).+)
    };
}

impl Layout {
    /// Every offset by its name, for whoever tries what a wrong one does. One that
    /// this kernel does not have is not among them.
    pub fn offsets(&mut self) -> Vec<(&'static str, &mut u32)> {
        let (object, net) = (&mut self.object, &mut self.net);
        let mut offsets = vec![
            members!(object, task_real_parent),
            members!(object, task_nsproxy),
            members!(object, nsproxy_net_ns),
            members!(object, net_list),
            members!(object, net_hashinfo),
            members!(object, death_row_hashinfo),
            members!(object, hashinfo_ehash),
            members!(object, hashinfo_ehash_mask),
            members!(object, hashinfo_lhash2),
            members!(object, hashinfo_lhash2_mask),
            members!(object, hashinfo_bhash),
            members!(object, hashinfo_bhash_size),
            members!(object, sk_nulls_next),
            members!(object, sk_cookie),
            members!(object, sk_reuse.offset),
            members!(object, sk_reuseport.offset),
            members!(object, sk_userlocks.offset),
            members!(object, sk_listener),
            members!(object, sk_ack_backlog),
            members!(object, sk_max_ack_backlog),
            members!(object, sk_drops),
            members!(object, accept_qlen),
            members!(object, tw_ts_recent_stamp),
            members!(object, sk_socket),
            members!(object, tcp_rcv_tstamp),
            members!(object, tb_net),
            members!(object, tb_port),
            members!(object, tb_fastreuse),
            members!(object, tb_fastreuseport),
            members!(object, net_hash_mix),
            members!(object, task_tasks),
            members!(object, task_tgid),
            members!(object, task_start_boottime),
            members!(object, task_files),
            members!(object, task_cgroups),
            members!(object, css_set_dfl_cgrp),
            members!(object, cgroup_kn),
            members!(object, kernfs_id),
            members!(object, files_fdt),
            members!(object, fdt_max_fds),
            members!(object, fdt_fd),
            members!(object, file_inode),
            members!(object, file_private_data),
            members!(object, inode_mode),
            members!(object, socket_file),
            members!(object, socket_sk),
            members!(self.connections, stride),
            members!(self.connections, chain),
            members!(self.connections, node),
            members!(self.listeners, stride),
            members!(self.listeners, chain),
            members!(self.listeners, node),
            members!(self.listeners, nulls_base),
            members!(self.ports, stride),
            members!(self.ports, chain),
            members!(self.ports, node),
            members!(net, inode),
            members!(net, port_range.0),
            members!(net, max_tw_buckets.0),
            members!(net, tw_reuse.0),
            members!(net, timestamps.0),
        ];
        let optional = [
            ("net.cookie", net.cookie.as_mut()),
            ("net.reserved_ports", net.reserved_ports.as_mut()),
            ("net.death_row", net.death_row.as_mut()),
            (
                "net.tw_reuse_delay",
                net.tw_reuse_delay.as_mut().map(|(at, _)| at),
            ),
        ];
        let there = |(name, offset): (_, Option<_>)| offset.map(|offset| (name, offset));
        offsets.extend(optional.into_iter().filter_map(there));
        offsets.retain(|(_, offset)| **offset != ABSENT);
        offsets
    }

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
            ports: Chains {
                stride: btf.size_of("inet_bind_hashbucket")?,
                chain: at("inet_bind_hashbucket", "chain", 8)?,
                node: btf.member("inet_bind_bucket", "node", Width::Any)?,
                nulls_base: ABSENT,
            },
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
        sk_socket: at("sock", "sk_socket", 8)?,
        tcp_rcv_tstamp: at("tcp_sock", "rcv_tstamp", 4)?,
        tb_net: at("inet_bind_bucket", "ib_net.net", 8)?,
        tb_port: at("inet_bind_bucket", "port", 2)?,
        tb_fastreuse: at("inet_bind_bucket", "fastreuse", 1)?,
        tb_fastreuseport: at("inet_bind_bucket", "fastreuseport", 1)?,
        net_hash_mix: at("net", "hash_mix", 4)?,
        task_tasks: at("task_struct", "tasks", 16)?,
        task_tgid: at("task_struct", "tgid", 4)?,
        task_start_boottime: at("task_struct", "start_boottime", 8)?,
        task_files: at("task_struct", "files", 8)?,
        task_cgroups: at("task_struct", "cgroups", 8)?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp", 8)?,
        cgroup_kn: at("cgroup", "kn", 8)?,
        kernfs_id: at("kernfs_node", "id", 8)?,
        files_fdt: at("files_struct", "fdt", 8)?,
        fdt_max_fds: at("fdtable", "max_fds", 4)?,
        fdt_fd: at("fdtable", "fd", 8)?,
        file_inode: at("file", "f_inode", 8)?,
        file_private_data: at("file", "private_data", 8)?,
        inode_mode: at("inode", "i_mode", 2)?,
        socket_file: at("socket", "file", 8)?,
        socket_sk: at("socket", "sk", 8)?,
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
