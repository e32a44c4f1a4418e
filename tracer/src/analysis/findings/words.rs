//! Words that several findings need.

use super::Subject;
use crate::model::snapshot::Holder;
use crate::units::{pid, roughly};

/// `curl (pid 812)`, or what stands for a process that is not known.
pub(super) fn who(holder: Option<&Holder>, otherwise: &str) -> String {
    match holder {
        Some(holder) if !holder.comm.is_empty() => {
            format!("{} (pid {})", holder.comm, pid(holder.pid))
        }
        Some(holder) => format!("process {}", pid(holder.pid)),
        None => otherwise.to_owned(),
    }
}

/// `58 s`, `1 s` for what is over in less.
pub(super) fn time_left(s: f64) -> String {
    roughly(s.max(1.0))
}

impl Subject {
    pub(super) fn held_by(mut self, holder: Option<&Holder>) -> Subject {
        if let Some(holder) = holder {
            self.pid = Some(holder.pid);
            self.comm = Some(holder.comm.clone());
            self.cgroup.clone_from(&holder.cgroup);
        }
        self
    }
}
