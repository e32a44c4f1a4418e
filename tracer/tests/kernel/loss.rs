//! What cannot be delivered is said, and put right within a second.

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use tracer::lab::churn::{self, Churn};

use super::truth::{self, Mib, count};
use super::twtrace::Twtrace;
use super::{Outcome, Verdict, guest};

/// The contract's second, and the interval between two snapshots.
const PUT_RIGHT: SignedDuration = SignedDuration::from_millis(1_200);

pub(crate) fn a_ring_of_one_page() -> Outcome {
    let netns = churn::namespace()?;
    let live = Twtrace::live(&netns, &["--ring-size", "4K"])?;
    let load = Churn {
        connections: guest::lighter(20_000),
        ..Churn::default()
    };
    netns.run(|| load.run())??;
    #[expect(
        clippy::disallowed_methods,
        reason = "the snapshots carry the wall clock's time"
    )]
    let over = Timestamp::now();

    let right = live.equals_ss(&netns)?;
    // By the kernel's count of ends that were opened, each with five steps. What a
    // resync corrects is told as steps too, and a listener takes two.
    let opened = Mib::read(&netns)?;
    let made = 5 * (opened.get("ActiveOpens") + opened.get("PassiveOpens"));
    let (seen, lost) = (
        truth::all_transitions(&right),
        count(&right, &["lost", "ring"]),
    );
    ensure!(
        made.abs_diff(seen + lost) <= made / 100,
        "{made} steps were made; {seen} were seen and {lost} told lost: {right:#}"
    );
    let lines = live.stop()?;
    let approximate = lines.iter().any(|snapshot| {
        snapshot["exactness"] == "approximate" && count(snapshot, &["lost", "ring"]) > 0
    });
    ensure!(
        approximate,
        "no snapshot said that the ring lost any: {:#}",
        lines[lines.len() - 1]
    );
    ensure!(
        count(&right, &["resyncs"]) > 0,
        "exact again without a resync: {right:#}"
    );

    let at: Timestamp = right["time"]
        .as_str()
        .context("a snapshot without a time")?
        .parse()?;
    let took = at.duration_since(over);
    ensure!(
        took <= PUT_RIGHT,
        "the counts were put right only after {took:#}"
    );
    Ok(Verdict::Held)
}
