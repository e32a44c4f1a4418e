//! The names under which the two sides find each other: programs, maps and
//! read-only globals of the eBPF object.

/// Read-only globals.
pub const LAYOUT: &str = "LAYOUT";
pub const CALLERS: &str = "CALLERS";
pub const OPTIONS: &str = "OPTIONS";

/// Maps.
pub const RECORDS: &str = "RECORDS";
pub const CONTROL: &str = "CONTROL";
pub const LOSSES: &str = "LOSSES";
pub const REQUESTS: &str = "REQUESTS";
pub const SWEEP: &str = "SWEEP";

/// Programs.
pub const TIMER_START: &str = "timer_start";
pub const TIMER_CANCEL: &str = "timer_cancel";
pub const TIMER_EXPIRE_ENTRY: &str = "timer_expire_entry";
pub const TIMER_EXPIRE_EXIT: &str = "timer_expire_exit";
pub const SET_STATE: &str = "set_state";
pub const SET_STATE_AGAIN: &str = "set_state_again";
pub const SEED: &str = "seed";
pub const READ: &str = "read_minisockets";
