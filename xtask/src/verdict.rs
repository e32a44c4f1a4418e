//! What a test program says of a test, a line each: `test NAME ... ok`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Passed,
    Failed,
    /// With the reason, where one is given.
    Ignored(&'a str),
}

/// The name and the verdict, if it is such a line.
pub(crate) fn of(line: &str) -> Option<(&str, Verdict<'_>)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let verdict = if verdict == "ok" {
        Verdict::Passed
    } else if verdict.starts_with("FAILED") {
        Verdict::Failed
    } else {
        // libtest has a comma before the reason, libtest-mimic brackets around it.
        let why = verdict.strip_prefix("ignored")?.trim();
        let why = why.strip_prefix(", ").unwrap_or(why);
        Verdict::Ignored(
            why.strip_prefix('(')
                .and_then(|why| why.strip_suffix(')'))
                .unwrap_or(why),
        )
    };
    Some((name.trim_end(), verdict))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, of};

    #[test]
    fn lines_of_both_kinds_of_test_programs() {
        for (line, said) in [
            ("test a::b ... ok", Some(("a::b", Verdict::Passed))),
            ("test a::b   ... FAILED", Some(("a::b", Verdict::Failed))),
            ("test a ... ignored", Some(("a", Verdict::Ignored("")))),
            (
                "test a ... ignored, for now",
                Some(("a", Verdict::Ignored("for now"))),
            ),
            (
                "test a::b  ... ignored (no ss (yet))",
                Some(("a::b", Verdict::Ignored("no ss (yet)"))),
            ),
            ("test result: ok. 1 passed", None),
            ("running 3 tests", None),
            ("test a ... bench", None),
        ] {
            assert_eq!(of(line), said, "{line}");
        }
    }
}
