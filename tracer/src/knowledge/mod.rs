//! What is known of TCP states and sysctls before anything is measured.
//!
//! Pure tables with the few questions that verbs and analyses ask of them:
//! `explain` prints them, `doctor` judges by them, a trial and a comparison
//! choose their metrics by them, and docs/sysctls.md is held to them. Nothing
//! here knows the value of anything on this machine.

pub mod states;
pub mod sysctls;
