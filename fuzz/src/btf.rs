//! The kernel's type information.

use tracer::kernel::btf::{Btf, Missing, Width, layout};

/// Members that the tracer asks for, and one behind every kind of type.
const MEMBERS: [(&str, &str); 8] = [
    ("sock_common", "skc_family"),
    ("sock_common", "skc_net.net"),
    ("sock", "sk_protocol"),
    ("net", "ns.inum"),
    ("task_struct", "comm"),
    ("s", "deep"),
    ("s", "in.bytes"),
    ("s", "bit"),
];

/// `/sys/kernel/btf/vmlinux`. A member of no matter what width is one of
/// exactly the width that is told, at the same place.
pub fn btf(blob: &[u8]) {
    let _ = layout(blob);
    let Ok(btf) = Btf::parse(blob) else { return };
    let _ = (btf.has_tracepoint("timer_start"), btf.has_iterator("tcp"));
    for (structure, path) in MEMBERS {
        let any = btf.member(structure, path, Width::Any);
        // Nothing the tracer reads is as wide.
        let exact = btf.member(structure, path, Width::Exactly(u32::MAX));
        match (any, exact) {
            (Ok(_), Err(Missing::Width { found, .. })) => {
                if let Ok(at) = btf.member(structure, path, Width::Exactly(found)) {
                    assert_eq!(Ok(at), btf.member(structure, path, Width::Any));
                }
            }
            (Ok(any), Ok(exact)) => assert_eq!(any, exact),
            (any, exact) => assert_eq!(any, exact, "{structure}.{path}"),
        }
    }
}
