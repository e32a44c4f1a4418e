//! Which transitions the first of two programs on one tracepoint has taken on,
//! so that the second takes on those, and only those, that the kernel skipped the
//! first for.
//!
//! The kernel runs no program on a CPU in the midst of itself: where a softirq
//! interrupts the first, it is skipped in that softirq, and the second alone sees
//! what happens there. Where a softirq interrupts the second, that one is skipped,
//! and the marks that the first leaves there are never asked for. They must not
//! displace that of the transition which was interrupted. What interrupts another
//! runs on a stack of its own, so each stack has one mark at most: its last.

/// A step of a full socket, and where it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub socket: u64,
    /// The lower half of an address on the stack, the same for both programs.
    pub stack: u32,
    pub from: u8,
    pub to: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Mark {
    /// 0: none, or taken.
    socket: u64,
    stack: u32,
    from: u8,
    to: u8,
    /// Counts marks.
    number: u16,
}

/// Of one CPU.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Handled {
    marks: [Mark; PLACES],
    last: u16,
}

/// One for a task and one for the softirq that interrupts it, and as many for tasks
/// that were preempted on the way, on kernels that do so.
const PLACES: usize = 4;

/// No two marks of one stack are further apart, and none of different stacks so near.
/// A stack has 16 KiB, and a path through TCP takes less than a quarter of it.
const DEPTH: u32 = 8 << 10;

impl Handled {
    /// The first program takes this one on.
    #[inline(always)]
    pub fn push(&mut self, transition: Transition) {
        let Transition {
            socket,
            stack,
            from,
            to,
        } = transition;
        let number = read(&self.last).wrapping_add(1);
        let place = self.place_for(stack);
        let mark = &mut self.marks[place & (PLACES - 1)];
        write(
            mark,
            Mark {
                socket,
                stack,
                from,
                to,
                number,
            },
        );
        write(&mut self.last, number);
    }

    /// That of this stack, or else one that is free.
    #[inline(always)]
    fn place_for(&self, stack: u32) -> usize {
        for (place, mark) in self.marks.iter().enumerate() {
            let distance = stack.wrapping_sub(read(&mark.stack));
            if distance.wrapping_add(DEPTH) < 2 * DEPTH {
                return place;
            }
        }
        for (place, mark) in self.marks.iter().enumerate() {
            if read(&mark.socket) == 0 {
                return place;
            }
        }
        PLACES - 1
    }

    /// Whether the first program has taken this one on. If so it is forgotten, with
    /// all that were marked since: what interrupted this one is over.
    #[inline(always)]
    pub fn take(&mut self, transition: Transition) -> bool {
        for mark in &mut self.marks {
            let found = read(&mark.socket) == transition.socket
                && read(&mark.stack) == transition.stack
                && read(&mark.from) == transition.from
                && read(&mark.to) == transition.to;
            if found {
                write(&mut mark.socket, 0);
                let number = read(&mark.number);
                if read(&self.last) != number {
                    self.forget_since(number);
                }
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn forget_since(&mut self, number: u16) {
        for mark in &mut self.marks {
            if (read(&mark.number).wrapping_sub(number) as i16) > 0 {
                write(&mut mark.socket, 0);
            }
        }
    }
}

/// Volatile, as is [`write`]: a softirq may come between any two of these. It leaves
/// the marks of other stacks as they were.
#[inline(always)]
fn read<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { (&raw const *field).read_volatile() }
}

#[inline(always)]
fn write<T>(field: &mut T, value: T) {
    // SAFETY: a reference is valid for writes.
    unsafe { (&raw mut *field).write_volatile(value) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;
    use std::{prelude::rust_2024::*, vec};

    use proptest::prelude::*;

    use super::{Handled, Transition};

    const STEP: Transition = Transition {
        socket: 7,
        stack: TASK,
        from: 1,
        to: 4,
    };

    const INSIDE: Transition = Transition {
        socket: 8,
        stack: SOFTIRQ,
        ..STEP
    };

    /// [`INSIDE`] came between the two programs on [`STEP`].
    fn interrupted() -> Handled {
        let mut handled = Handled::default();
        handled.push(STEP);
        handled.push(INSIDE);
        handled
    }

    #[test]
    fn what_interrupted_a_step_is_forgotten_with_it() {
        let mut handled = interrupted();
        assert!(handled.take(STEP));
        assert!(!handled.take(INSIDE) && !handled.take(STEP));
    }

    #[test]
    fn a_step_that_was_interrupted_is_still_known() {
        let mut handled = interrupted();
        assert!(handled.take(INSIDE));
        for differs in [
            Transition { socket: 9, ..STEP },
            Transition {
                stack: TASK - 8,
                ..STEP
            },
            Transition { from: 2, ..STEP },
            Transition { to: 5, ..STEP },
        ] {
            assert!(!handled.take(differs), "{differs:?}");
        }
        assert!(handled.take(STEP));
    }

    /// The kernel's stacks of a task and of the interrupts of its CPU.
    const TASK: u32 = 0x0010_3f00;
    const SOFTIRQ: u32 = 0xffff_7e00;

    /// Where a softirq may come in: before, in the midst of and after what each
    /// program does, while the kernel counts it as running, and between the two.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Point {
        FirstEntry,
        FirstExit,
        Between,
        SecondEntry,
        SecondExit,
    }

    const POINTS: [Point; 5] = [
        Point::FirstEntry,
        Point::FirstExit,
        Point::Between,
        Point::SecondEntry,
        Point::SecondExit,
    ];

    /// A task's step: how deep, and the softirqs that come, each with the depths of
    /// its steps.
    type Task = (u32, Vec<(Point, Vec<u32>)>);

    /// A CPU as the kernel runs the two programs on it.
    struct Cpu {
        handled: Handled,
        first_runs: bool,
        second_runs: bool,
        sockets: u64,
        /// How often each socket's step was taken on.
        taken_on: Vec<u32>,
    }

    impl Cpu {
        fn step(&mut self, stack: u32, interrupts: &[(Point, Vec<u32>)]) {
            self.sockets += 1;
            let transition = Transition {
                socket: self.sockets,
                stack,
                from: 1,
                to: 4,
            };
            self.taken_on.push(0);
            if !self.first_runs {
                self.first_runs = true;
                self.interrupted(Point::FirstEntry, interrupts);
                self.handled.push(transition);
                self.take_on(transition);
                self.interrupted(Point::FirstExit, interrupts);
                self.first_runs = false;
            }
            self.interrupted(Point::Between, interrupts);
            if !self.second_runs {
                self.second_runs = true;
                self.interrupted(Point::SecondEntry, interrupts);
                if !self.handled.take(transition) {
                    self.take_on(transition);
                }
                self.interrupted(Point::SecondExit, interrupts);
                self.second_runs = false;
            }
        }

        fn interrupted(&mut self, point: Point, interrupts: &[(Point, Vec<u32>)]) {
            for (at, depths) in interrupts {
                if *at == point {
                    for depth in depths {
                        self.step(SOFTIRQ - depth, &[]);
                    }
                }
            }
        }

        fn take_on(&mut self, transition: Transition) {
            self.taken_on[transition.socket as usize - 1] += 1;
        }
    }

    fn depth() -> impl Strategy<Value = u32> {
        // Steps of one kind are made at one depth.
        prop::sample::select(vec![0x300_u32, 0x480, 0x7f8, 0xa00, 0x1100])
    }

    fn tasks() -> impl Strategy<Value = Vec<Task>> {
        let interrupt = (
            prop::sample::select(POINTS.to_vec()),
            prop::collection::vec(depth(), 0..12),
        );
        prop::collection::vec((depth(), prop::collection::vec(interrupt, 0..3)), 0..40)
    }

    proptest! {
        #[test]
        fn every_transition_is_taken_on_once(tasks in tasks()) {
            let mut cpu = Cpu {
                handled: Handled::default(),
                first_runs: false,
                second_runs: false,
                sockets: 0,
                taken_on: Vec::new(),
            };
            for (depth, interrupts) in tasks {
                cpu.step(TASK - depth, &interrupts);
            }
            prop_assert!(cpu.taken_on.iter().all(|&n| n == 1), "{:?}", cpu.taken_on);
        }
    }
}
