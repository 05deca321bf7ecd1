//! Which requests are orders, and when orders are carried out.

use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Double(Arc<Mutex<Vec<Order>>>);

impl Power for Double {
    fn carry_out(&mut self, order: Order) -> Result<(), String> {
        self.0.lock().unwrap().push(order);
        if order.reason == 13 { Err("no".to_owned()) } else { Ok(()) }
    }
}

fn request(reason: u32, seconds: u32, flags: u32) -> Vec<u8> {
    [reason, seconds, flags].iter().flat_map(|word| word.to_le_bytes()).chain([0; 2048]).collect()
}

const GRACE: Duration = Duration::from_secs(5);
const VERSION: Version = Version::new(3, 2);

/// At each second a request or nothing; the events that came, and what power heard.
fn run(
    settings: Settings,
    script: &[Option<Vec<u8>>],
    ending: Option<Ending>,
) -> (Vec<Notice>, Vec<Kind>, Vec<Status>) {
    let double = Double::default();
    let mut shutdown = Shutdown::new(settings, double.clone());
    let (mut events, mut statuses) = (Vec::new(), Vec::new());
    let mut tell = |event| {
        if let Event::Shutdown(notice) = event {
            events.push(notice);
        }
    };
    for (second, body) in (0..).zip(script) {
        let now = Duration::from_secs(second);
        if let Some(body) = body {
            statuses.push(shutdown.request(now, VERSION, &mut body.clone(), &mut tell));
            assert!(double.0.lock().unwrap().is_empty() || second > 0, "never before the answer");
            shutdown.answered(now, &mut tell);
        }
        shutdown.elapsed(now, &mut tell);
    }
    if let Some(ending) = ending {
        shutdown.ended(ending, &mut tell);
        assert_eq!(shutdown.deadline(), None);
    }
    let heard = double.0.lock().unwrap().iter().map(|order| order.kind).collect();
    (events, heard, statuses)
}

#[test]
fn flags_say_what_is_wanted() {
    for (flags, hibernates, expected) in [
        (0, false, Ok((Kind::PowerOff, false))),
        (1, false, Ok((Kind::PowerOff, true))),
        (2, false, Ok((Kind::Restart, false))),
        (3, false, Ok((Kind::Restart, true))),
        (4, true, Ok((Kind::Hibernate, false))),
        (5, true, Ok((Kind::Hibernate, true))),
        (4, false, Err(Status::FAIL)),
        (6, true, Err(Status::FAIL)),
        (8, true, Err(Status::FAIL)),
        (u32::MAX, true, Err(Status::FAIL)),
    ] {
        let settings = Settings { hibernates, ..Settings::default() };
        let (events, heard, statuses) = run(settings, &[Some(request(7, 9, flags))], None);
        match expected {
            Ok((kind, force)) => {
                let order = Order { kind, force, reason: 7, timeout: Some(Duration::from_secs(9)) };
                let accepted = Notice::Accepted { order, grace: Duration::ZERO };
                assert_eq!(events, [accepted, Notice::Done(order)]);
                assert_eq!((heard, statuses), (vec![kind], vec![Status::OK]));
            }
            Err(status) => assert_eq!((events, heard, statuses), (vec![], vec![], vec![status])),
        }
    }
}

#[test]
fn the_length_is_checked() {
    for bytes in 0..12 {
        let (events, _, statuses) = run(Settings::default(), &[Some(vec![0; bytes])], None);
        assert_eq!((events, statuses), (vec![], vec![Status::INVALID_ARGUMENT]));
    }
    let (_, heard, _) = run(Settings::default(), &[Some(vec![0; 12])], None);
    assert_eq!(heard, [Kind::PowerOff]);
}

#[test]
fn grace_is_given_once_and_the_last_order_counts() {
    let settings = || Settings { grace: GRACE, ..Settings::default() };
    let off = || Some(request(0, 0, 0));
    let restart = || Some(request(0, 0, 2));
    let quiet = |count| vec![None; count];
    // The same again at 3 s does not put it off.
    let script = [vec![off(), None, None, off()], quiet(1)].concat();
    assert_eq!(run(settings(), &script, None).1, []);
    let script = [script, quiet(1)].concat();
    assert_eq!(run(settings(), &script, None).1, [Kind::PowerOff]);
    // Another one begins anew.
    let script = [vec![off(), None, None, restart()], quiet(4)].concat();
    assert_eq!(run(settings(), &script, None).1, []);
    assert_eq!(run(settings(), &[script, quiet(1)].concat(), None).1, [Kind::Restart]);
}

#[test]
fn an_order_outlives_the_device_and_not_the_service() {
    let settings = || Settings { grace: GRACE, ..Settings::default() };
    let (events, heard, _) = run(settings(), &[Some(request(0, 0, 2))], Some(Ending::Lost));
    assert_eq!((heard, events.len()), (vec![Kind::Restart], 2));
    let (events, heard, _) = run(settings(), &[Some(request(0, 0, 2))], Some(Ending::Stopped));
    assert_eq!(heard, []);
    assert!(matches!(events.last(), Some(Notice::Abandoned(_))));
}

#[test]
fn nothing_is_done_in_a_dry_run_or_after_a_hook_that_fails() {
    let (events, heard, _) = run(Settings { dry_run: true, ..Settings::default() }, &[Some(request(0, 0, 0))], None);
    assert_eq!(heard, []);
    assert!(matches!(events.last(), Some(Notice::DryRun(_))));
    let before = Some(Hook::new("false"));
    let (events, heard, _) = run(Settings { before, ..Settings::default() }, &[Some(request(0, 0, 0))], None);
    assert_eq!(heard, []);
    assert!(matches!(events.last(), Some(Notice::Failed { .. })));
    let (events, _, _) = run(Settings::default(), &[Some(request(13, 0, 0))], None);
    assert!(matches!(events.last(), Some(Notice::Failed { why, .. }) if why == "no"));
}

proptest! {
    #[test]
    fn whatever_comes_has_an_answer(body in proptest::collection::vec(any::<u8>(), 0..40)) {
        let settings = Settings { dry_run: true, ..Settings::default() };
        let (events, heard, statuses) = run(settings, &[Some(body)], None);
        prop_assert_eq!(heard, vec![]);
        prop_assert_eq!(events.len(), if statuses[0].is_ok() { 2 } else { 0 });
    }
}
