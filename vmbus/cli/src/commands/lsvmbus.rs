//! `vmbusctl list --format lsvmbus`: byte for byte the output of the kernel's tools/hv/lsvmbus, at each of its levels.
//!
//! Level 0 is one line a device; from level 1 on each device ends with its channels and an empty line.

use std::io::Write;

use vmbus::sysfs::Device;

use crate::output;

pub(super) fn print(devices: &[Device], verbose: u8) -> anyhow::Result<()> {
    let mut stdout = output::stdout();
    for device in devices {
        write!(stdout, "VMBUS ID {:>2}: ", device.relid)?;
        let title = device.class.title();
        if verbose == 0 {
            writeln!(stdout, "{title}")?;
            continue;
        }
        writeln!(stdout, "Class_ID = {{{}}} - {title}", device.class)?;
        if verbose > 1 {
            writeln!(stdout, "\tDevice_ID = {{{}}}", device.instance)?;
            writeln!(stdout, "\tSysfs path: {}", device.path.display())?;
        }
        let mut mapping = device.vp_mapping.clone();
        mapping.sort_by_key(|mapping| mapping.relid);
        for mapping in mapping {
            writeln!(stdout, "\tRel_ID={}, target_cpu={}", mapping.relid, mapping.cpu)?;
        }
        writeln!(stdout)?;
    }
    Ok(())
}
