//! What is mounted where.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tracer::kernel::mountinfo::{Mount, parse};

/// `/proc/PID/mountinfo`. Mounts written as the kernel writes them are read as
/// the same mounts.
pub fn mountinfo(text: &[u8]) {
    let mounts: Vec<Mount> = parse(text).collect();
    let mut written = Vec::new();
    for Mount { root, point, kind } in &mounts {
        written.extend_from_slice(b"24 30 0:22 ");
        escape(root, &mut written);
        written.push(b' ');
        escape(point, &mut written);
        written.extend_from_slice(b" rw shared:9 - ");
        written.extend_from_slice(kind.as_bytes());
        written.extend_from_slice(b" none rw\n");
    }
    assert_eq!(parse(&written).collect::<Vec<_>>(), mounts);
    // Nothing is unescaped that is not an escape.
    if !text.contains(&b'\\') {
        for Mount { root, point, .. } in &mounts {
            for path in [root, point] {
                let path = path.as_os_str().as_bytes();
                assert!(path.is_empty() || text.windows(path.len()).any(|part| part == path));
            }
        }
    }
}

fn escape(path: &Path, into: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\\') {
            into.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            into.push(byte);
        }
    }
}
