//! Counters that belong together: how far they moved between two moments, and
//! what such moves add up to.
//!
//! What a snapshot counts since the start is `u64`; a move is `i64`, because the
//! ledger takes a step back where it learns better. Which counters there are is
//! their structs' affair.

/// Gives a struct of counters `since` (two totals to a move), `add` (moves to a
/// sum) and `total` (a sum to totals). Members after `;` are such structs too.
macro_rules! counters {
    ($name:ident { $($field:ident),* $(; $($nested:ident),*)? }) => {
        impl $name {
            pub const NAMES: &[&str] = &[$(stringify!($field)),*];

            /// Of all, those of nested counters aside.
            #[must_use]
            pub fn sum(&self) -> u64 {
                0 $(+ self.$field)*
            }

            /// Both together.
            #[must_use]
            pub fn with(&self, other: &$name) -> $name {
                $name {
                    $($field: self.$field + other.$field,)*
                    $($($nested: self.$nested.with(&other.$nested),)*)?
                }
            }

            /// How far each moved since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &$name) -> $name<i64> {
                $name {
                    $($field: self.$field as i64 - earlier.$field as i64,)*
                    $($($nested: self.$nested.since(&earlier.$nested),)*)?
                }
            }
        }

        impl $name<i64> {
            pub fn add(&mut self, other: &$name<i64>) {
                $(self.$field += other.$field;)*
                $($(self.$nested.add(&other.$nested);)*)?
            }

            /// Each by its name; those of nested counters are not among them.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, i64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }

            /// What moves from nothing add up to.
            #[must_use]
            pub fn total(&self) -> $name {
                $name {
                    $($field: u64::try_from(self.$field).unwrap_or(0),)*
                    $($($nested: self.$nested.total(),)*)?
                }
            }
        }
    };
}

pub(crate) use counters;
