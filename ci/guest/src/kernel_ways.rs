//! What this kernel's `uio_hv_generic` does by itself, seen from user space: who masks a ring's interrupts, and who
//! opens them again. Versions differ, and a doctor that knows them should be right about this one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use vmbus::sysfs::Bus;
use vmbus::uio::{Event, OpenDevice, Options};
use vmbus_ringbuf::{ControlField, Memory as _, OutgoingPacket, Writer};

use crate::say::Say;

/// Longer than a host takes for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which device.
#[derive(Debug, Clone, Args)]
pub(crate) struct KernelWaysArgs {
    /// An echo device that is bound: instance or uioN.
    device: String,
}

/// Opens the device, has one packet echoed, and looks at the masks around it.
///
/// # Errors
/// There is no such device, or no echo.
pub(crate) fn run(args: &KernelWaysArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.device)?;
    let (relid, monitored) = (device.relid, device.monitor_id.is_some());
    let open = OpenDevice::open(&bus, &device, Options::default())?;
    let rings = open.rings(relid)?;
    let incoming = rings.incoming;
    incoming.store_then_fence(ControlField::InterruptMask, 0);
    let mut writer = Writer::new(rings.outgoing)?;
    let signal = writer.try_write(&OutgoingPacket::in_band(7), &[&[0x5a; 64]])?;
    ensure!(signal.is_needed(), "the first packet in an empty ring needs no signal");
    open.signal(relid)?;
    // At least one, also when the echo was faster than this look.
    loop {
        match open.wait(None, Some(PATIENCE))? {
            Event::Interrupt(_) if incoming.load(ControlField::WriteIndex) != 0 => break,
            Event::Interrupt(_) => {}
            other => bail!("an interrupt for the echo was expected, not {other:?}"),
        }
    }
    let masks_after_interrupt = incoming.load(ControlField::InterruptMask) != 0;
    // Only the 4-byte write has to do with masks; a monitor bit has not.
    let unmasks_by_signal = (!monitored).then(|| {
        incoming.store_then_fence(ControlField::InterruptMask, 1);
        open.signal(relid).map(|()| incoming.load(ControlField::InterruptMask) == 0)
    });
    let unmasks_by_signal = unmasks_by_signal.transpose().context("signal once more")?;
    let data_bytes = incoming.data_bytes();
    drop((writer, incoming));
    open.close()?;
    Say::aloud().line(&json!({
        "event": "ways", "monitored": monitored, "data_bytes": data_bytes,
        "masks_after_interrupt": masks_after_interrupt, "unmasks_by_signal": unmasks_by_signal,
    }))?;
    Ok(ExitCode::SUCCESS)
}
