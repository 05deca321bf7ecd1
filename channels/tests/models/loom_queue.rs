//! Nothing is missed: orders by a dispatcher that goes to sleep, raises by whoever waits for its notifier.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use vmbus_channels::dispatch::parts::{
    Dispatcher, Lines, Mailbox, Mutant, Mutation, NoFlags, Order, Role, Tally, channel_id,
};
use vmbus_channels::dispatch::{Attention, Ending, Entry, Notifier, Progress, Report, Serve};

use super::{check, finds};

/// Counts its events.
struct Counter(Arc<std::sync::atomic::AtomicU32>);

impl Serve for Counter {
    fn event(&mut self) -> Attention {
        self.0.fetch_add(1, Ordering::SeqCst);
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn ended(&mut self, _why: Option<Ending>) {}
}

/// Two threads give orders, one of which is the last; the dispatcher sleeps whenever there is none.
fn orders(mutant: Mutant) {
    let mail: Arc<[Mailbox]> = [Mailbox::new(mutant).unwrap()].into();
    let events = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let entry = Entry::serve(Box::new(Counter(Arc::clone(&events))));
    let role =
        Role { number: 0, relids: 63, budget: 1, mail: Arc::clone(&mail), reports: Arc::new(|_: Report| ()), mutant };
    let mut dispatcher = Dispatcher::new(role, NoFlags, Lines::none(), Arc::new(Tally::default()));
    mail[0].post(Order::Insert(1, channel_id(1, 1), entry));
    dispatcher.take_orders();
    let other = {
        let mail = Arc::clone(&mail);
        thread::spawn(move || mail[0].post(Order::Poke(1, channel_id(1, 1))))
    };
    let thread = {
        let (mail, events) = (Arc::clone(&mail), Arc::clone(&events));
        thread::spawn(move || {
            // Until both have been done, in whatever order.
            while !(dispatcher.is_stopping() || events.load(Ordering::SeqCst) == 3) {
                mail[0].sleep();
                dispatcher.take_orders();
            }
        })
    };
    mail[0].post(Order::Poke(1, channel_id(1, 1)));
    other.join().unwrap();
    thread.join().unwrap();
    assert_eq!(events.load(Ordering::SeqCst), 3, "one look when it came, and two pokes");
}

#[test]
fn no_order_is_lost() {
    check(3, None, orders);
}

#[test]
fn the_exchange_that_takes_the_flag_down_is_needed() {
    finds(3, Mutation::OpenedByStore, "deadlock", orders);
}

#[test]
fn the_exchange_that_puts_the_flag_up_is_needed() {
    finds(3, Mutation::PendingStored, "deadlock", orders);
}

#[test]
fn the_fence_of_the_sleeper_is_needed() {
    finds(3, Mutation::SleepUnfenced, "deadlock", orders);
}

#[test]
fn the_fence_of_the_sender_is_needed() {
    finds(3, Mutation::SendUnfenced, "deadlock", orders);
}

/// One thread does three things and raises for each; the other sleeps until it has seen all.
fn notifier(mutant: Mutant) {
    let notifier = Notifier::with(mutant).unwrap();
    let done = Arc::new(AtomicU32::new(0));
    let thread = {
        let (notifier, done) = (notifier.clone(), Arc::clone(&done));
        thread::spawn(move || {
            for number in 1..=3 {
                done.store(number, Ordering::Relaxed);
                notifier.raise();
            }
        })
    };
    while done.load(Ordering::Relaxed) != 3 {
        notifier.wait(None).unwrap();
        notifier.clear();
    }
    thread.join().unwrap();
}

#[test]
fn no_raise_is_lost() {
    check(3, None, notifier);
}

#[test]
fn the_fence_of_a_raise_is_needed() {
    finds(3, Mutation::RaiseUnfenced, "deadlock", notifier);
}

#[test]
fn the_event_is_cleared_before_the_flag() {
    finds(3, Mutation::ClearedInWrongOrder, "deadlock", notifier);
}
