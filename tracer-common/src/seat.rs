//! The names under which the two sides find each other: programs, maps and
//! read-only globals of the eBPF object.

/// Read-only globals.
pub const LAYOUT: &str = "LAYOUT";
pub const CALLERS: &str = "CALLERS";
pub const OPTIONS: &str = "OPTIONS";
pub const WALK: &str = "WALK";

/// Maps.
pub const RECORDS: &str = "RECORDS";
pub const CONTROL: &str = "CONTROL";
pub const LOSSES: &str = "LOSSES";
pub const BATCHES: &str = "BATCHES";
pub const SWEEP: &str = "SWEEP";
pub const WALK_CURSOR: &str = "WALK_CURSOR";
pub const WALK_BUFFER: &str = "WALK_BUFFER";
pub const WALK_NETS: &str = "WALK_NETS";
pub const WALK_RECORDS: &str = "WALK_RECORDS";
pub const WALK_TASKS: &str = "WALK_TASKS";
pub const WALK_OWNED: &str = "WALK_OWNED";

/// Programs.
pub const TIMER_START: &str = "timer_start";
pub const TIMER_CANCEL: &str = "timer_cancel";
pub const TIMER_EXPIRE_ENTRY: &str = "timer_expire_entry";
pub const SET_STATE: &str = "set_state";
pub const SET_STATE_AGAIN: &str = "set_state_again";
pub const SEED: &str = "seed";
pub const READ: &str = "read_minisockets";
pub const FLUSH: &str = "flush";
pub const WALK_NAMESPACES: &str = "walk_namespaces";
pub const WALK_COPY: &str = "walk_copy";
pub const WALK_CHAINS: &str = "walk_chains";
pub const WALK_KNOWN: &str = "walk_known";
pub const WALK_OWNERS: &str = "walk_owners";
