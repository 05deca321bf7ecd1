//! The initial memory file systems: L2's with the programs under test, and around it L1's with a QEMU to run L2.
//! Both are stored, not compressed: unpacking 80 MB costs an emulated processor longer than copying it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Kernel;
use super::cpio::Archive;
use super::fetch::Software;
use super::programs::Programs;
use crate::process;

const FOLDERS: [&str; 11] = ["bin", "dev", "lib", "proc", "qemu", "qemu/lib", "run", "sys", "tmp", "var", "var/lib"];

/// What both guests do first.
const PREPARE: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
while read module options; do
    insmod /lib/$module.ko $options || echo \"lab: cannot load $module\"
done < /lib/modules
";

/// L2: a quiet boot, then warnings on the console, and hung tasks found while a scenario still looks.
const L2: &str = "echo 30 > /proc/sys/kernel/hung_task_timeout_secs
dmesg -n 5
until [ -e /dev/vport0p1 ]; do usleep 50000; done
vmbus-lab-guest agent /dev/vport0p1
echo \"lab: the agent ended with $?\"
poweroff -f
";

/// Modules of L2 in the order of their dependencies. They are loaded when the guest is up: see `Guest::load_modules`.
pub(crate) const L2_MODULES: [&str; 4] = ["hv_vmbus", "uio", "uio_hv_generic", "hv_balloon"];

/// What 6.12 has built in for the agent's port.
const OLD_L2_MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console"];

/// Modules of L1: the emulated processor is an AMD.
const L1_MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

const FIRMWARE: [&str; 6] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/seabios/vgabios-stdvga.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/linuxboot.bin",
    "usr/share/qemu/pvh.bin",
];

/// The guest under test: its kernel's modules, the agent, `vmbusctl`.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn inner(software: &Software, kernel: Kernel, programs: &Programs) -> Result<Vec<u8>> {
    let modules: &[&str] = if kernel == Kernel::V6_1 { &OLD_L2_MODULES } else { &[] };
    let mut archive = start(software, kernel, modules, L2)?;
    for module in L2_MODULES {
        archive.file(&format!("lib/{module}.ko"), false, &find_module(software, kernel, module)?)?;
    }
    archive.file("bin/vmbus-lab-guest", true, &read(&programs.lab_guest)?)?;
    archive.file("bin/vmbusctl", true, &read(&programs.vmbusctl)?)?;
    Ok(archive.finish()?)
}

/// The guest around it: a QEMU, and the kernel and file system to boot with it by `command`.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn outer(software: &Software, inner: &[u8], kernel: &Path, command: &str) -> Result<Vec<u8>> {
    let run = format!(
        "for port in 1 2; do stty raw -echo < /dev/ttyS$port; done\n\
         /qemu/lib/ld-linux-x86-64.so.2 --library-path /qemu/lib /qemu/qemu {command}\n\
         echo \"lab: the inner QEMU ended with $?\"\n\
         poweroff -f\n"
    );
    let mut archive = start(software, Kernel::V6_12, &L1_MODULES, &run)?;
    archive.file("qemu/qemu", true, &read(&software.file("usr/bin/qemu-system-x86_64"))?)?;
    for (name, path) in software.qemu_libraries()? {
        archive.file(&format!("qemu/lib/{name}"), true, &read(&path)?)?;
    }
    for path in FIRMWARE {
        let name = path.rsplit('/').next().unwrap_or(path);
        archive.file(&format!("qemu/{name}"), false, &read(&software.file(path))?)?;
    }
    archive.file("vmlinuz", false, &read(kernel)?)?;
    archive.file("initrd", false, inner)?;
    Ok(archive.finish()?)
}

fn start(software: &Software, kernel: Kernel, modules: &[&str], run: &str) -> Result<Archive<Vec<u8>>> {
    let mut archive = Archive::new(Vec::new());
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.file("bin/busybox", true, &read(&software.file("bin/busybox"))?)?;
    archive.file("init", true, format!("{PREPARE}{run}").as_bytes())?;
    archive.file("lib/modules", false, format!("{}\n", modules.join("\n")).as_bytes())?;
    for module in modules.iter().filter_map(|module| module.split(' ').next()) {
        archive.file(&format!("lib/{module}.ko"), false, &find_module(software, kernel, module)?)?;
    }
    Ok(archive)
}

/// A module's code by name, unpacked by the fetched busybox if the kernel's package has it compressed.
fn find_module(software: &Software, kernel: Kernel, name: &str) -> Result<Vec<u8>> {
    let release = software.release(kernel)?;
    let mut folders = vec![software.file(&format!("lib/modules/{release}/kernel"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            if file == format!("{name}.ko") {
                return read(&path);
            }
            if file == format!("{name}.ko.xz") {
                return process::output(Command::new(software.file("bin/busybox")).args(["xz", "-dc"]).arg(&path));
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    anyhow::bail!("kernel {release} has no module {name}")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
