//! The registry's thread: one queue in, tasks out. It alone has the table, and it waits for nobody but its inputs:
//! never for a driver, nor for a worker.

use std::time::Duration;

use super::arrivals::Arrivals;
use super::input::{Input, Task};
use super::mutation::mutated;
use super::sync::queue::{Inbox, Post};
use super::sync::thread::JoinHandle;
use super::table::Table;
use super::{Handle, worker};

pub(super) struct Executor {
    pub(super) table: Table,
    pub(super) inputs: Inbox<Input>,
    /// None once the bus has ended.
    #[cfg_attr(shuttle, expect(dead_code, reason = "a model announces by hand"))]
    pub(super) arrivals: Option<Box<dyn Arrivals>>,
    pub(super) tasks: Post<Task>,
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) handle: Handle,
    pub(super) clock: Clock,
    #[cfg_attr(shuttle, expect(dead_code, reason = "a model announces by hand"))]
    /// Announcements heard since the last input of another kind.
    pub(super) in_a_row: usize,
}

/// So many announcements in a row may keep everything else waiting: more than a subscription holds, so that what was
/// announced before somebody asked comes before the question; and not without end, whatever the host does.
#[cfg(not(shuttle))]
const MOST_IN_A_ROW: usize = 8192;

impl Executor {
    pub(super) fn run(mut self) {
        let mut tasks = Vec::new();
        while !self.table.is_over() {
            let Some(input) = self.next() else { break };
            self.table.step(self.clock.now(), input, &mut tasks);
            while !tasks.is_empty() {
                self.hand_out(&mut tasks);
            }
        }
        let Self { inputs, tasks, workers, .. } = self;
        // Nobody can ask any more; workers have nothing to do.
        drop((inputs, tasks));
        for worker in workers {
            // They contain what panics.
            let _ = worker.join();
        }
    }

    fn hand_out(&mut self, tasks: &mut Vec<Task>) {
        for task in std::mem::take(tasks) {
            if mutated!(self.handle.mutations(), CallOnExecutor) {
                let answer = worker::run(task, self.handle.number());
                self.table.step(self.clock.now(), answer, tasks);
            } else {
                self.tasks.post(task);
            }
        }
    }
}

#[cfg(not(shuttle))]
mod clock {
    use super::super::arrivals::Disconnected;
    use super::{Arrivals, Duration, Executor, Input, MOST_IN_A_ROW};
    use std::time::Instant;

    /// Time since the registry was started.
    pub(in crate::registry) struct Clock(Instant);

    impl Clock {
        pub(in crate::registry) fn start() -> Self {
            Self(Instant::now())
        }

        pub(super) fn now(&self) -> Duration {
            self.0.elapsed()
        }
    }

    impl Executor {
        /// What happens next. What was announced before somebody asked comes before the question.
        pub(super) fn next(&mut self) -> Option<Input> {
            let in_a_row = std::mem::take(&mut self.in_a_row);
            if in_a_row >= MOST_IN_A_ROW
                && let Ok(input) = self.inputs.0.try_recv()
            {
                return Some(input);
            }
            let never = crossbeam_channel::never();
            let deadline = self.table.deadline().and_then(|deadline| self.clock.0.checked_add(deadline));
            let alarm = deadline.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            let arrivals = self.arrivals.as_deref().map_or(&never, Arrivals::receiver);
            let announced = crossbeam_channel::select_biased! {
                recv(arrivals) -> announcement => announcement,
                recv(self.inputs.0) -> input => return input.ok(),
                recv(alarm) -> _ => return Some(Input::Elapsed),
            };
            self.in_a_row = in_a_row + 1;
            Some(match announced {
                Ok(announcement) => Input::Announced(announcement),
                Err(_) => match self.arrivals.as_deref_mut().map_or(Disconnected::Ended, Arrivals::disconnected) {
                    Disconnected::One(announcement) => Input::Announced(announcement),
                    Disconnected::Lagged => Input::Lagged,
                    Disconnected::Ended => {
                        self.arrivals = None;
                        Input::BusEnded
                    }
                },
            })
        }
    }
}

#[cfg(shuttle)]
mod clock {
    use super::{Duration, Executor, Input};

    /// Time that jumps to the next deadline when nothing else happens.
    pub(in crate::registry) struct Clock(Duration);

    impl Clock {
        pub(in crate::registry) fn start() -> Self {
            Self(Duration::ZERO)
        }

        pub(super) fn now(&self) -> Duration {
            self.0
        }
    }

    impl Executor {
        pub(super) fn next(&mut self) -> Option<Input> {
            let Some(deadline) = self.table.deadline() else { return self.inputs.wait() };
            shuttle::thread::yield_now();
            Some(self.inputs.look().unwrap_or_else(|| {
                self.clock.0 = self.clock.0.max(deadline);
                Input::Elapsed
            }))
        }
    }
}

pub(super) use clock::Clock;
