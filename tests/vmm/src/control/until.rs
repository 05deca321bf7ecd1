//! Conditions that a scenario waits for.

use std::sync::Arc;

use anyhow::{Result, ensure};
use vmbus_simhost::server::Sim;
use vmbus_simhost::{Counters, OfferId};

use super::wire::Until;
use crate::bus_memory::BusMemory;
use crate::shared::Shared;

/// States of an offer.
const STATES: [&str; 6] = ["hidden", "offered", "opening", "open", "rescinded", "gone"];

/// What says whether it is true now.
pub(super) fn condition(
    until: Until,
    shared: &Arc<Shared>,
) -> Result<impl FnMut(&mut Sim<BusMemory>) -> bool + Send + use<>> {
    match &until {
        Until::State { state, .. } => {
            ensure!(STATES.contains(&state.as_str()), "`{state}` is no state: one of {STATES:?}");
        }
        Until::Counter { name, .. } => {
            let known = counters(&Counters::default(), 0, shared).iter().any(|(of, _)| of == name);
            ensure!(known, "there is no counter `{name}`");
        }
        Until::Quiet | Until::Connected | Until::Report { .. } => {}
    }
    let shared = Arc::clone(shared);
    Ok(move |simulation: &mut Sim<BusMemory>| match &until {
        Until::Quiet => simulation.is_quiet() && shared.stats.is_quiet(),
        Until::Connected => simulation.host().is_connected() && shared.stats.is_quiet(),
        Until::State { offer, state } => simulation.host().state(OfferId(*offer)).unwrap_or("gone") == state,
        Until::Counter { name, at_least } => {
            let faults = simulation.faults_applied();
            let all = counters(&simulation.host().counters(), faults, &shared);
            all.iter().any(|(of, count)| of == name && count >= at_least)
        }
        Until::Report { offer, name, at_least } => simulation.host().count(OfferId(*offer), name) >= *at_least,
    })
}

/// All counters, of the host and below it.
pub(super) fn counters(of_host: &Counters, faults: u64, shared: &Shared) -> Vec<(&'static str, u64)> {
    let Counters {
        messages_in,
        messages_out,
        contacts,
        contacts_refused,
        unloads,
        left_open,
        left_gpadls,
        offers,
        rescinds,
        released,
        opens,
        closes,
        moves,
        gpadls,
        teardowns,
        refused,
        interrupts,
        signals,
        monitor_signals,
        stray_signals,
        packets_in,
        packets_out,
        ..
    } = *of_host;
    let mut all = vec![
        ("messages_in", messages_in),
        ("messages_out", messages_out),
        ("contacts", contacts),
        ("contacts_refused", contacts_refused),
        ("unloads", unloads),
        ("left_open", left_open),
        ("left_gpadls", left_gpadls),
        ("offers", offers),
        ("rescinds", rescinds),
        ("released", released),
        ("opens", opens),
        ("closes", closes),
        ("moves", moves),
        ("gpadls", gpadls),
        ("teardowns", teardowns),
        ("refused", refused),
        ("interrupts", interrupts),
        ("signals", signals),
        ("monitor_signals", monitor_signals),
        ("stray_signals", stray_signals),
        ("packets_in", packets_in),
        ("packets_out", packets_out),
        ("faults", faults),
    ];
    all.extend(shared.stats.all());
    all
}
