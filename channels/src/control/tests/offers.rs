//! R1.3, and the rest of R1.4 that is about offers: whatever does not become a channel is given back.

use vmbus::message::{GuestMessage, HostMessage, OfferFlags, Version};

use super::control_model::{offer, offered, subchannel};
use super::steps::not_supported;
use super::{Action, Bench, Command, Input, Limits};
use crate::Announcement;
use crate::mutation::{self, Mutation, OfferStep};

/// Offers a channel whose handling fails at a step, then the same one again, in peace.
fn fail_and_try_again(step: OfferStep, message: &HostMessage) -> (Bench, bool) {
    let mut bench = Bench::connected(Version::V5_3);
    bench.offer(9);
    let arrived = mutation::failing(step, || {
        bench.message(message.clone());
        bench.arrived().is_some()
    });
    let released = bench.releases(1) == 1;
    bench.message(message.clone());
    let again = bench.arrived().is_some();
    (bench, !arrived && released && again)
}

/// R1.3: a failure at each step of the handling of an offer leaves nothing behind, shows nobody anything, and gives the
/// number back; the same offer works afterwards.
#[test]
fn r1_3_an_offer_that_fails_at_any_step_leaves_nothing() {
    for message in [offered(offer(1)), offered(subchannel(1, 9, 3))] {
        for step in OfferStep::ALL {
            let (mut bench, clean) = fail_and_try_again(step, &message);
            bench.sound();
            assert!(clean, "{step:?}");
            assert_eq!(bench.core.live_channels(), 2, "{step:?}");
            assert_eq!(bench.core.counters().failed_offers, 1, "{step:?}");
            bench.end();
        }
    }
}

#[test]
fn r1_3_mutants_half_built_channels_are_noticed() {
    let noticed = |mutation, step| {
        mutation::with(mutation, || {
            let (bench, clean) = fail_and_try_again(step, &offered(offer(1)));
            bench.broken.is_some() || !clean || bench.core.live_channels() != 2
        })
    };
    assert!(OfferStep::ALL.into_iter().all(|step| noticed(Mutation::ForgetFailedOffer, step)));
    // Whatever was built before the step that failed stays: from the slot on.
    let late = &OfferStep::ALL[1..];
    assert!(late.iter().all(|step| noticed(Mutation::KeepHalfBuilt, *step)));
    assert!(late.iter().all(|step| noticed(Mutation::VisibleBeforeBuilt, *step)));
}

/// R1.3: the last step is not the core's: what the shell can't show is given back, and nobody hears of it.
#[test]
fn r1_3_a_failed_announcement_is_given_back() {
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    bench.feed(Input::AnnounceFailed(id));
    assert_eq!(bench.releases(1), 1);
    assert!(!bench.out.iter().any(|action| matches!(action, Action::Announce(_))), "{:?}", bench.out);
    bench.rescind(1);
    assert!(bench.out.is_empty(), "a rescind that comes late finds nothing: {:?}", bench.out);
    bench.offer(1);
    bench.end();

    // Somebody who guessed its name has it open: it is closed first.
    let mut bench = Bench::connected(Version::V5_3);
    let id = bench.offer(1);
    let ring = bench.open(1, id);
    bench.feed(Input::AnnounceFailed(id));
    assert_eq!(bench.out, [Action::Retire { channel: id, relid: 1, processor: 0 }]);
    bench.let_go(id);
    bench.message(HostMessage::GpadlTorndown { gpadl: ring });
    assert_eq!(bench.releases(1), 1);
    bench.end();
}

#[test]
fn r1_4_mutant_a_device_that_failed_to_register_is_noticed() {
    // Unlinked, so that the rescind finds nothing.
    let forgotten = mutation::with(Mutation::ForgetFailedAnnouncement, || {
        let mut bench = Bench::connected(Version::V5_3);
        let id = bench.offer(1);
        bench.feed(Input::AnnounceFailed(id));
        bench.broken
    });
    assert!(forgotten.is_some(), "a device that failed to register is unlinked, and never released");
}

/// A full table gives back what it can't hold, and takes it when there is room.
#[test]
fn r1_4_a_full_table_gives_back() {
    let mut bench = Bench::new(Limits { channels: 2, newest: Version::V5_3, ..Limits::default() });
    bench.command(Command::Connect);
    bench.accept();
    bench.offer(1);
    bench.offer(2);
    bench.message(offered(offer(3)));
    assert_eq!((bench.arrived(), bench.releases(3)), (None, 1));
    bench.rescind(1);
    bench.offer(3);
    for relid in [0, 2048, u32::MAX] {
        bench.message(offered(offer(relid)));
        assert_eq!((bench.arrived(), bench.releases(relid)), (None, 1));
    }
    bench.end();
    assert_eq!(bench.core.counters().refused_offers, 4);
}

/// Subchannels go one by one, before or after their primary channel; each is released for itself.
#[test]
fn r1_4_subchannels_are_released_one_by_one() {
    for order in [[1, 2, 3], [2, 3, 1], [2, 1, 3], [3, 1, 2]] {
        let mut bench = Bench::connected(Version::V5_3);
        let primary = bench.offer(1);
        for (relid, index) in [(2, 1), (3, 2)] {
            bench.message(offered(subchannel(relid, 1, index)));
            let id = bench.arrived().expect("a subchannel of a channel that is there");
            bench.open(relid, id);
        }
        let subs = bench.core.offers().into_iter().filter(|offer| offer.primary == Some(primary)).count();
        assert_eq!(subs, 2);
        for relid in order {
            let before = bench.core.live_channels();
            bench.rescind(relid);
            let gone = bench.out.iter().filter(|action| matches!(action, Action::Announce(Announcement::Departed(_))));
            assert_eq!(gone.count(), 1, "the others stay");
            let used: Vec<_> = bench.ghost.channels.values().filter(|seen| seen.revoked && seen.referenced).collect();
            if let Some(id) = used.first().map(|seen| seen.offer.id) {
                bench.let_go(id);
            }
            assert_eq!((bench.releases(relid), bench.core.live_channels()), (1, before - 1), "{order:?}");
        }
        // Without its primary channel a subchannel is nobody's.
        bench.message(offered(subchannel(2, 1, 1)));
        assert_eq!((bench.arrived(), bench.releases(2)), (None, 1));
        bench.end();
    }
}

/// On an isolated machine, a class that is not on the list is never seen; sockets are.
#[test]
fn r1_3_classes_that_are_not_allowed_are_given_back() {
    let allowed = Some(crate::control::ISOLATED_CLASSES.to_vec());
    let mut bench = Bench::new(Limits { allowed, ..Limits::default() });
    bench.command(Command::Connect);
    bench.accept();
    bench.message(offered(offer(1)));
    assert_eq!((bench.arrived(), bench.releases(1)), (None, 1));
    let mut socket = offer(1);
    socket.flags = OfferFlags::TLNPI_PROVIDER;
    bench.message(offered(socket));
    assert!(bench.arrived().is_some());
    let mut nic = offer(2);
    nic.class = vmbus::class::Class::NIC;
    bench.message(offered(nic));
    assert!(bench.arrived().is_some());
    bench.end();
    assert_eq!(bench.core.counters().unwanted_offers, 1);
    // The versions that isolated machines trust end at 5.2.
    let mut bench = Bench::new(Limits { allowed: Some(Vec::new()), ..Limits::default() });
    bench.command(Command::Connect);
    let mut offered = 1;
    while let [GuestMessage::InitiateContact(contact)] = bench.posts().as_slice() {
        assert!(contact.version >= Version::V5_2);
        offered += 1;
        bench.message(not_supported());
    }
    assert_eq!(offered, 4);
}
