//! The listening thread: accepts guests, gives each a thread, and collects those that have ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags};
use vmbus::wire::{Arrival, HostListener};

use super::bridge::Guests;
use super::guest::GuestThread;
use super::wake::Wake;
use super::{Control, ServerSettings, Stopping, spawn};
use crate::{Config, Error};

/// Accepting failed, or there are as many guests as there may be: look again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// A guest's thread and how to end it.
struct Running {
    thread: JoinHandle<()>,
    stopping: Arc<Stopping>,
}

/// Who wants to know of guests.
pub(super) struct Arrivals {
    /// Whoever asks the server.
    pub(super) arrivals: Sender<Control>,
    /// Those who connect to guests.
    pub(super) there: Guests,
}

/// Accepts guests until the server ends.
pub(super) fn run(
    listener: &HostListener,
    config: &Config,
    settings: &ServerSettings,
    stopping: &Stopping,
    arrivals: &Arrivals,
) {
    let (mut running, mut number) = (Vec::<Running>::new(), 0_u64);
    while !stopping.is_set() {
        if reap(&mut running) {
            arrivals.there.forget_gone();
        }
        let full = running.len() >= settings.guests;
        let mut on = vec![PollFd::new(&*stopping.wake, PollFlags::IN)];
        if !full {
            on.push(PollFd::new(listener, PollFlags::IN));
        }
        // Threads that have ended are collected now and then; nothing waits for that.
        stopping.wake.sleep(&mut on, if running.is_empty() { None } else { Some(PAUSE) });
        if full || stopping.is_set() {
            continue;
        }
        let arrival = match listener.accept() {
            Ok(Some(arrival)) => arrival,
            Ok(None) => continue,
            Err(error) => {
                log::warn!(target: "vmbus::simhost", "{error}");
                stopping.wake.sleep(&mut [PollFd::new(&*stopping.wake, PollFlags::IN)], Some(PAUSE));
                continue;
            }
        };
        let mut config = config.clone();
        config.seed = config.seed.wrapping_add(number);
        number += 1;
        match start(arrival, config, settings.clone()) {
            Ok((guest, control)) => {
                running.push(guest);
                arrivals.there.add(control.clone());
                // Nobody asks for guests: they are served all the same.
                let _ = arrivals.arrivals.send(control);
            }
            Err(error) => log::warn!(target: "vmbus::simhost", "a guest is turned away: {error}"),
        }
    }
    for guest in &running {
        guest.stopping.flag.store(true, Ordering::Release);
        guest.stopping.wake.wake();
    }
    for guest in running {
        join(guest.thread);
    }
}

fn start(arrival: Arrival, config: Config, settings: ServerSettings) -> Result<(Running, Control), Error> {
    let stopping = Stopping::new()?;
    let wake: Arc<Wake> = Arc::clone(&stopping.wake);
    let (control, commands) = Control::new(Arc::clone(&wake));
    settings.bridges.serve(&control)?;
    let of_guest = Arc::clone(&stopping);
    let work = GuestThread { arrival, config, settings, commands, wake, stopping: of_guest, lingers: false };
    let thread = spawn("simhost-guest", move || work.run())?;
    Ok((Running { thread, stopping }, control))
}

/// Collects the threads that have ended; whether there were any.
fn reap(running: &mut Vec<Running>) -> bool {
    let (ended, rest): (Vec<_>, _) = std::mem::take(running).into_iter().partition(|guest| guest.thread.is_finished());
    *running = rest;
    let any = !ended.is_empty();
    ended.into_iter().for_each(|guest| join(guest.thread));
    any
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!(target: "vmbus::simhost", "a guest's thread panicked");
    }
}
