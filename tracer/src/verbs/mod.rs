//! One file a verb. Verbs may know every other room; no room knows them.

pub mod compare;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod lab;
pub mod live;
pub mod record;
pub mod report;
pub mod trial;
