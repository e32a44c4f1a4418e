//! Real workloads in private network namespaces: what the acceptance tests, the
//! benchmark and the verb `lab` have in common.
//!
//! Nothing here touches the namespace it was started from, and nothing outlives
//! the values: the kernel takes namespaces, links and sockets back when the last
//! descriptor goes, after a panic or a SIGKILL too. The lab knows nothing of the
//! tracer.

pub mod churn;
pub mod destroy;
pub mod link;
pub mod mounts;
pub mod netns;
pub mod option;
pub mod population;
pub mod replicas;
pub mod scenes;
pub mod segments;
pub mod setting;
pub mod shape;
pub mod workload;
