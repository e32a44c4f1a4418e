//! One file a verb. Verbs may know every other room; no room knows them.

pub mod doctor;
pub mod events;
pub mod live;
