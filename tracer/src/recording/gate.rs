//! The door: lines of a recording are other people's bytes, and are judged here
//! one after the other, before anything is added up. What no run of twtrace can
//! have written is refused, by line and member.

mod once;

use std::collections::BTreeSet;
use std::fmt::Arguments;

use super::bounds::{
    BAND_CHANGE_BYTES, BAND_CHANGES_AT_LEAST, BANDS, Bound, Breach, COUNT, COUNTERS, Checked, EVER,
    FRAME_BYTES, FRAMES_AT_LEAST, FRAMES_PER_S, FRAMES_SOON, PLACES, PORTS, RATE, REASONS,
    ROUNDING_S, SOCKET_SECONDS, SOCKETS, SPAN, TIMER, TOTAL, TRANSITIONS, ascending, no_more,
    same_length,
};
use super::frame::{Ages, Frame};
use super::line::Line;
use crate::model::histogram::{Bands, HOUR_US, Sparse};
use crate::model::life_table::{AGE, AGES};
use crate::model::snapshot::{Destination, Timer};

pub(super) use self::once::header;

/// Judges the lines of a recording in their order.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Where the last frame ended.
    until_s: f64,
    frames: u64,
    counted: u64,
    socket_seconds: f64,
    edges: Vec<f64>,
    band_changes: u64,
    /// The kernel's names of its counters.
    counters: BTreeSet<String>,
    ended: bool,
}

impl Gate {
    /// Up to the end of the line, the file has taken so many bytes on the disk.
    pub(super) fn check(&mut self, line: &Line, stored: u64) -> Checked {
        if self.ended {
            return Err(Breach::of(format_args!("kind"), "it comes after the end"));
        }
        match line {
            Line::Header(_) => Err(Breach::of(
                format_args!("kind"),
                "there is a header already: the file was put together from two",
            )),
            Line::Frame(frame) => {
                self.frame(frame)?;
                self.proportion(stored)
            }
            Line::Namespace(settings) => {
                once::namespace_settings(format_args!("elapsed_s"), settings)
            }
            Line::Sysctl(change) => once::sysctl_change(change),
            Line::End(last) => {
                self.ended = true;
                once::end(last)
            }
            // Nothing is read of it.
            Line::Event(_) => Ok(()),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Checked {
        let Frame {
            seq: _,
            time: _,
            elapsed_s,
            interval_s,
            states,
            transitions,
            closes,
            connect,
            time_wait,
            fin_wait2_orphan: orphan,
            ports,
            namespaces,
            kernel,
            syn_ack_timeouts,
            lost,
            resyncs,
            exactness: _,
        } = frame;
        self.place(*elapsed_s, *interval_s)?;
        for (state, count) in states.iter() {
            let state = state.name();
            SOCKETS.number(format_args!("states.{state}.now"), count.now)?;
            self.moved(format_args!("states.{state}.seeded"), count.seeded)?;
            self.moved(format_args!("states.{state}.entered"), count.entered)?;
            self.moved(format_args!("states.{state}.left"), count.left)?;
        }
        no_more(format_args!("transitions"), transitions.len(), TRANSITIONS)?;
        for (i, transition) in transitions.iter().enumerate() {
            self.moved(format_args!("transitions[{i}].count"), transition.count)?;
        }
        self.moved(format_args!("closes.via_time_wait"), closes.via_time_wait)?;
        self.moved(format_args!("closes.passive"), closes.passive)?;
        self.all_moved(
            "closes.straight_to_closed",
            closes.straight_to_closed.named(),
        )?;
        self.all_moved("connect.failures", connect.failures.named())?;
        self.sparse("connect.latency_s", &connect.latency_s)?;

        let sides = &time_wait.side;
        for (side, n) in [
            ("client", sides.client),
            ("server", sides.server),
            ("unknown", sides.unknown),
        ] {
            SOCKETS.number(format_args!("time_wait.side.{side}"), n)?;
        }
        self.moved(format_args!("time_wait.rearmed"), time_wait.rearmed)?;
        self.moved(format_args!("time_wait.overflowed"), time_wait.overflowed)?;
        self.all_moved("time_wait.ended", time_wait.ended.named())?;
        self.moved(
            format_args!("time_wait.ended_seeded"),
            time_wait.ended_seeded,
        )?;
        no_more(
            format_args!("time_wait.lives_s"),
            time_wait.lives_s.len(),
            REASONS,
        )?;
        for (reason, lives) in &time_wait.lives_s {
            self.sparse(&format!("time_wait.lives_s.{reason}"), lives)?;
        }
        self.bands(&time_wait.bands)?;
        self.ages(&time_wait.ages)?;
        timer(&time_wait.timer)?;

        SOCKETS.number(format_args!("fin_wait2_orphan.now"), orphan.now)?;
        for (name, n) in [
            ("seeded", orphan.seeded),
            ("entered", orphan.entered),
            ("became_time_wait", orphan.became_time_wait),
        ] {
            self.moved(format_args!("fin_wait2_orphan.{name}"), n)?;
        }
        self.all_moved("fin_wait2_orphan.ended", orphan.ended.named())?;
        self.sparse("fin_wait2_orphan.lives_s", &orphan.lives_s)?;

        for (i, port) in ports.iter().enumerate() {
            destination(i, port)?;
        }
        for (i, namespace) in namespaces.iter().enumerate() {
            for (state, &n) in &namespace.now {
                SOCKETS.number(format_args!("namespaces[{i}].now.{state}"), n)?;
            }
            self.moved(
                format_args!("namespaces[{i}].time_wait_entered"),
                namespace.time_wait_entered,
            )?;
        }
        if let Some(kernel) = kernel {
            for (name, &n) in &kernel.counters {
                self.counted(format_args!("kernel.counters.{name}"), n)?;
                if !self.counters.contains(name) {
                    self.counters.insert(name.clone());
                }
            }
            if self.counters.len() > COUNTERS {
                let why = format!("they have more than {COUNTERS} names in all, as in no run");
                return Err(Breach::of(format_args!("kernel.counters"), why));
            }
            SOCKETS.number(format_args!("kernel.minisockets"), kernel.minisockets)?;
            SOCKETS.number(format_args!("kernel.full_sockets"), kernel.full_sockets)?;
        }
        self.moved(format_args!("syn_ack_timeouts"), *syn_ack_timeouts)?;
        self.all_moved("lost", lost.named())?;
        self.moved(format_args!("resyncs"), *resyncs)
    }

    /// Frames come in their order, none within another.
    fn place(&mut self, elapsed_s: f64, interval_s: f64) -> Checked {
        SPAN.check(format_args!("elapsed_s"), elapsed_s)?;
        SPAN.check(format_args!("interval_s"), interval_s)?;
        let began_s = elapsed_s - interval_s;
        if began_s < self.until_s - ROUNDING_S {
            let until_s = self.until_s;
            return Err(Breach::of(
                format_args!("elapsed_s"),
                format!(
                    "{elapsed_s} less interval_s, {interval_s}, is before {until_s}, where the \
                     frame before ended"
                ),
            ));
        }
        self.until_s = elapsed_s;
        self.frames += 1;
        if self.frames as f64 > FRAMES_SOON + FRAMES_PER_S * elapsed_s {
            return Err(Breach::of(
                format_args!("elapsed_s"),
                format!(
                    "{elapsed_s} is too soon for frame {}: no run cuts {FRAMES_PER_S} a second",
                    self.frames
                ),
            ));
        }
        Ok(())
    }

    /// What takes time for each frame, or each change, takes room in a file.
    fn proportion(&self, stored: u64) -> Checked {
        if self.frames > FRAMES_AT_LEAST + stored / FRAME_BYTES {
            let why = format!("it is frame {} in {stored} bytes of file", self.frames);
            return Err(Breach::of(format_args!("seq"), why));
        }
        if self.band_changes > BAND_CHANGES_AT_LEAST + stored / BAND_CHANGE_BYTES {
            let why = format!(
                "they change for time {} in {stored} bytes of file",
                self.band_changes
            );
            return Err(Breach::of(format_args!("time_wait.bands.ge"), why));
        }
        Ok(())
    }

    fn moved(&mut self, member: Arguments<'_>, n: i64) -> Checked {
        if n.unsigned_abs() as f64 > COUNT.most {
            let Bound { most, why, .. } = COUNT;
            let why = format!("{n} is not from -{most} to {most} ({why})");
            return Err(Breach::of(member, why));
        }
        self.counted(member, n.unsigned_abs())
    }

    fn counted(&mut self, member: Arguments<'_>, n: u64) -> Checked {
        COUNT.number(member, n)?;
        // Both are so much below what an integer holds that this cannot wrap.
        self.counted += n;
        if self.counted as f64 > TOTAL.most {
            let why = format!("with {n} all counts together are {}", TOTAL.not_in());
            return Err(Breach::of(member, why));
        }
        Ok(())
    }

    fn all_moved(
        &mut self,
        group: &str,
        counts: impl Iterator<Item = (&'static str, i64)>,
    ) -> Checked {
        for (name, n) in counts {
            self.moved(format_args!("{group}.{name}"), n)?;
        }
        Ok(())
    }

    fn sparse(&mut self, member: &str, sparse: &Sparse) -> Checked {
        let Sparse {
            count,
            sum_s,
            min_s,
            max_s,
            us,
            n,
        } = sparse;
        self.counted(format_args!("{member}.count"), *count)?;
        self.seconds(format_args!("{member}.sum_s"), *sum_s)?;
        match (min_s, max_s) {
            (Some(min_s), Some(max_s)) => {
                SPAN.check(format_args!("{member}.min_s"), *min_s)?;
                SPAN.check(format_args!("{member}.max_s"), *max_s)?;
                if min_s > max_s {
                    let why = format!("{min_s} is above max_s, {max_s}");
                    return Err(Breach::of(format_args!("{member}.min_s"), why));
                }
            }
            (None, None) => {}
            _ => {
                let why = "there is one of min_s and max_s, and not the other";
                return Err(Breach::of(format_args!("{member}"), why));
            }
        }
        same_length(member, ("us", us.len()), ("n", n.len()))?;
        no_more(format_args!("{member}.us"), us.len(), PLACES)?;
        ascending(member, "us", us)?;
        if let Some(last) = us.last().filter(|last| **last > HOUR_US) {
            let why = format!("{last} is above {HOUR_US}, where the last place is");
            return Err(Breach::of(format_args!("{member}.us"), why));
        }
        for (i, &n) in n.iter().enumerate() {
            self.counted(format_args!("{member}.n[{i}]"), n)?;
        }
        Ok(())
    }

    fn bands(&mut self, bands: &Bands) -> Checked {
        const MEMBER: &str = "time_wait.bands";
        let Bands { ge, n } = bands;
        same_length(MEMBER, ("ge", ge.len()), ("n", n.len()))?;
        if ge.is_empty() || ge.len() > BANDS || ge[0] != 0.0 {
            let why = format!("it is not 1 to {BANDS} edges, of which the first is 0");
            return Err(Breach::of(format_args!("{MEMBER}.ge"), why));
        }
        for (i, &edge) in ge.iter().enumerate() {
            SPAN.check(format_args!("{MEMBER}.ge[{i}]"), edge)?;
        }
        ascending(MEMBER, "ge", ge)?;
        for (i, &n) in n.iter().enumerate() {
            self.counted(format_args!("{MEMBER}.n[{i}]"), n)?;
        }
        if *ge != self.edges {
            self.edges.clone_from(ge);
            self.band_changes += 1;
        }
        Ok(())
    }

    fn ages(&mut self, ages: &Ages) -> Checked {
        const MEMBER: &str = "time_wait.ages";
        let Ages {
            width_s,
            exposure_s,
            deaths,
            lived_s,
        } = ages;
        let width = AGE as f64 / 1e9;
        if (width_s - width).abs() > 1e-9 {
            let why = format!("{width_s} is not {width}, as wide as ages are");
            return Err(Breach::of(format_args!("{MEMBER}.width_s"), why));
        }
        let length = exposure_s.len();
        if length > AGES {
            let why = format!("it has {length} ages, and there are {AGES}");
            return Err(Breach::of(format_args!("{MEMBER}.exposure_s"), why));
        }
        same_length(MEMBER, ("exposure_s", length), ("deaths", deaths.len()))?;
        same_length(MEMBER, ("exposure_s", length), ("lived_s", lived_s.len()))?;
        for age in 0..length {
            self.seconds(format_args!("{MEMBER}.exposure_s[{age}]"), exposure_s[age])?;
            self.counted(format_args!("{MEMBER}.deaths[{age}]"), deaths[age])?;
            self.seconds(format_args!("{MEMBER}.lived_s[{age}]"), lived_s[age])?;
        }
        Ok(())
    }

    /// Seconds of many sockets, which are added up.
    fn seconds(&mut self, member: Arguments<'_>, s: f64) -> Checked {
        SOCKET_SECONDS.check(member, s)?;
        self.socket_seconds += s;
        if self.socket_seconds > SOCKET_SECONDS.most {
            let why = format!(
                "with {s} all of them together are {}",
                SOCKET_SECONDS.not_in()
            );
            return Err(Breach::of(member, why));
        }
        Ok(())
    }
}

fn timer(timer: &Timer) -> Checked {
    let Timer { nominal_s, slack_s } = timer;
    if let Some(nominal_s) = nominal_s {
        TIMER.check(format_args!("time_wait.timer.nominal_s"), *nominal_s)?;
    }
    TIMER.check(format_args!("time_wait.timer.slack_s"), *slack_s)
}

fn destination(i: usize, port: &Destination) -> Checked {
    let Destination {
        netns: _,
        local: _,
        remote: _,
        remote_port: _,
        used,
        time_wait,
        usable,
        connects_per_s,
        limit_per_s,
        exhausted_in_s,
    } = port;
    SOCKETS.number(format_args!("ports[{i}].used"), *used)?;
    SOCKETS.number(format_args!("ports[{i}].time_wait"), *time_wait)?;
    PORTS.number(format_args!("ports[{i}].usable"), *usable)?;
    RATE.check(format_args!("ports[{i}].connects_per_s"), *connects_per_s)?;
    RATE.check(format_args!("ports[{i}].limit_per_s"), *limit_per_s)?;
    match exhausted_in_s {
        Some(s) => EVER.check(format_args!("ports[{i}].exhausted_in_s"), *s),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_changes_of_the_bands_take_room_in_a_file() {
        let passes = |frames, band_changes, stored| {
            let gate = Gate {
                frames,
                band_changes,
                ..Gate::default()
            };
            gate.proportion(stored).is_ok()
        };
        assert!(passes(FRAMES_AT_LEAST, BAND_CHANGES_AT_LEAST, 0));
        assert!(!passes(FRAMES_AT_LEAST + 1, 0, 0));
        assert!(!passes(0, BAND_CHANGES_AT_LEAST + 1, 0));
        // As many more as the room that is taken has room for.
        let stored = 1_000 * FRAME_BYTES * BAND_CHANGE_BYTES;
        let (frames, changes) = (1_000 * BAND_CHANGE_BYTES, 1_000 * FRAME_BYTES);
        assert!(passes(FRAMES_AT_LEAST + frames, 0, stored));
        assert!(!passes(FRAMES_AT_LEAST + frames + 1, 0, stored));
        assert!(passes(0, BAND_CHANGES_AT_LEAST + changes, stored));
        assert!(!passes(0, BAND_CHANGES_AT_LEAST + changes + 1, stored));
    }

    #[test]
    fn a_duration_may_be_in_the_last_place_and_not_behind_it() {
        let passes = |us| {
            let sparse = Sparse {
                count: 1,
                sum_s: 1.0,
                min_s: Some(1.0),
                max_s: Some(1.0),
                us: vec![us],
                n: vec![1],
            };
            Gate::default().sparse("it", &sparse).is_ok()
        };
        assert!(passes(HOUR_US));
        assert!(!passes(HOUR_US + 1));
    }
}
