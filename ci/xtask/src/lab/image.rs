//! The initial memory file systems: L2's with the programs under test, and around it L1's with what runs L2.
//! Both are stored, not compressed: unpacking 80 MB costs an emulated processor longer than copying it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::fetch::{BUSYBOX, KernelFiles, Lsvmbus, Software};
use super::host::Host;
use super::modules::Modules;
use super::programs::Programs;

const FOLDERS: [&str; 10] = ["bin", "dev", "lib", "proc", "root", "run", "sys", "tmp", "var", "var/lib"];

/// What both guests do first. As soon as it finds itself below /proc, this shell runs busybox's commands without a file
/// for each.
const PREPARE: &str = "#!/bin/busybox sh
export PATH=/bin HOME=/root
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
";

/// Loads a module, and before it what it needs; what is there already, or built in, is left alone.
const LOAD: &str = "#!/bin/busybox sh
there() { grep -q \"^$1 \" /proc/modules || [ ! -e /lib/$1.ko ]; }
module=$1; shift
grep -q \"^$module:\" /lib/depends || { echo \"load: there is no module $module in here\" >&2; exit 1; }
for needed in $(sed -n \"s/^$module://p\" /lib/depends); do
    there $needed || insmod /lib/$needed.ko || exit 1
done
there $module || insmod /lib/$module.ko \"$@\"
";

/// L2: a quiet boot, then warnings on the console, and hung tasks found while a scenario still looks. With LAB_SHELL on
/// the kernel's command line the agent's port has a person at its other end, who gets a terminal by the telnet protocol.
const L2: &str = "/bin/busybox --install -s /bin
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
echo 30 > /proc/sys/kernel/hung_task_timeout_secs
dmesg -n 5
until [ -e /dev/vport0p1 ]; do usleep 20000; done
if [ \"$LAB_SHELL\" ]; then
    while read module; do load $module; done < /lib/bus
    telnetd -i -K -l /bin/welcome 0<>/dev/vport0p1 1>&0
else
    vmbus-lab-guest agent /dev/vport0p1
    echo \"lab: the agent ended with $?\"
fi
poweroff -f
";

/// What greets a person.
const WELCOME: &str = "#!/bin/sh
cd
echo \"Linux $(uname -r). In here: vmbusctl, vmbus-lab-guest, busybox, and \\`load MODULE\\` for these modules:\"
cut -d: -f1 /lib/depends | xargs
vmbusctl list
exec sh
";

/// Modules that scenarios may load beside those of the bus.
const OTHER_MODULES: [&str; 4] = ["hv_balloon", "hv_sock", "hv_utils", "vsock_loopback"];

/// Modules of L1: the emulated processor is an AMD.
const L1_MODULES: [&str; 4] = ["irqbypass", "kvm", "kvm_amd", "virtio_console"];

const FIRMWARE: [&str; 6] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/seabios/vgabios-stdvga.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/linuxboot.bin",
    "usr/share/qemu/pvh.bin",
];

/// The guest under test: its kernel's modules, the agent, `vmbusctl`, and if wanted the kernel's `lsvmbus`.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn inner(
    software: &Software,
    kernel: &KernelFiles,
    host: Host,
    programs: &Programs,
    lsvmbus: Option<&Lsvmbus>,
) -> Result<Vec<u8>> {
    let bus = host.bus_modules();
    let wanted: Vec<&str> = bus.iter().filter_map(|line| line.split(' ').next()).chain(OTHER_MODULES).collect();
    let mut archive = start(software, kernel, host.port_modules(), &wanted, L2)?;
    archive.file("lib/bus", false, format!("{}\n", bus.join("\n")).as_bytes())?;
    archive.file("bin/welcome", true, WELCOME.as_bytes())?;
    archive.file("bin/vmbus-lab-guest", true, &read(&programs.lab_guest)?)?;
    archive.file("bin/vmbusctl", true, &read(&programs.vmbusctl)?)?;
    archive.file("bin/vmbus-sockets", true, &read(&programs.sockets)?)?;
    if let Some(lsvmbus) = lsvmbus {
        add_lsvmbus(&mut archive, lsvmbus)?;
    }
    Ok(archive.finish()?)
}

/// What L1 runs L2 in, and by which command.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    /// The host, which is part of it.
    pub(crate) host: Host,
    /// The VMM, where it is that.
    pub(crate) programs: &'a Programs,
    /// Arguments, as a shell takes them.
    pub(crate) arguments: String,
}

/// The guest around it: a QEMU or a VMM, and the kernel and file system to boot with it.
///
/// # Errors
/// A file is missing or cannot be read.
pub(crate) fn outer(software: &Software, inner: &[u8], kernel: &Path, runner: &Runner<'_>) -> Result<Vec<u8>> {
    let (prepare, command) = match runner.host {
        Host::Qemu => {
            ("stty raw -echo < /dev/ttyS1", "/qemu/lib/ld-linux-x86-64.so.2 --library-path /qemu/lib /qemu/qemu")
        }
        // The guest's memory is shared memory. Taking it page by page costs two exits each.
        Host::Vmm => ("echo always > /sys/kernel/mm/transparent_hugepage/shmem_enabled", "/bin/vmbus-vmm"),
    };
    let run = format!(
        "stty raw -echo < /dev/ttyS2\n\
         {prepare}\n\
         echo \"lab: the machine starts at $(cut -d ' ' -f 1 /proc/uptime) s\"\n\
         {command} {}\n\
         echo \"lab: the machine ended with $?\"\n\
         poweroff -f\n",
        runner.arguments
    );
    let l1 = software.kernel(super::kernel::Kernel::V6_12).map_err(anyhow::Error::msg)?;
    let mut archive = start(software, l1, &L1_MODULES, &[], &run)?;
    match runner.host {
        Host::Vmm => archive.file("bin/vmbus-vmm", true, &read(runner.programs.vmm()?)?)?,
        Host::Qemu => {
            archive.folder("qemu")?;
            archive.folder("qemu/lib")?;
            archive.file("qemu/qemu", true, &read(&software.file("usr/bin/qemu-system-x86_64"))?)?;
            for (name, path) in software.qemu_libraries()? {
                archive.file(&format!("qemu/lib/{name}"), true, &read(&path)?)?;
            }
            for path in FIRMWARE {
                let name = path.rsplit('/').next().unwrap_or(path);
                archive.file(&format!("qemu/{name}"), false, &read(&software.file(path))?)?;
            }
        }
    }
    archive.file("vmlinuz", false, &read(kernel)?)?;
    archive.file("initrd", false, inner)?;
    Ok(archive.finish()?)
}

/// An image that prepares itself, loads the modules `first`, has `later` to load, and goes on with `run`.
fn start(
    software: &Software,
    kernel: &KernelFiles,
    first: &[&str],
    later: &[&str],
    run: &str,
) -> Result<Archive<Vec<u8>>> {
    let mut archive = Archive::new(Vec::new());
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.file("bin/busybox", true, &read(&software.file(BUSYBOX))?)?;
    archive.file("bin/load", true, LOAD.as_bytes())?;
    let modules = Modules::of(kernel, software.file(BUSYBOX))?.closure(&[first, later].concat())?;
    let depends = modules.before.iter().map(|(name, before)| format!("{name}:{}\n", before.join(" ")));
    archive.file("lib/depends", false, depends.collect::<String>().as_bytes())?;
    for (name, code) in &modules.code {
        archive.file(&format!("lib/{name}.ko"), false, code)?;
    }
    let mut order: Vec<&str> = Vec::new();
    for name in first {
        let before = modules.before.get(*name).into_iter().flatten().map(String::as_str);
        for step in before.chain([*name]).filter(|step| modules.code.contains_key(*step)) {
            if !order.contains(&step) {
                order.push(step);
            }
        }
    }
    let load = order.iter().map(|name| format!("insmod /lib/{name}.ko || echo \"lab: cannot load {name}\"\n"));
    let load: String = load.collect();
    archive.file("init", true, format!("{PREPARE}{load}{run}").as_bytes())?;
    Ok(archive)
}

/// Python with its own loader, libraries and modules, and the script as a command.
fn add_lsvmbus(archive: &mut Archive<Vec<u8>>, lsvmbus: &Lsvmbus) -> Result<()> {
    for folder in ["python", "python/bin", "python/lib", "python/so"] {
        archive.folder(folder)?;
    }
    archive.file("python/bin/python3", true, &read(&lsvmbus.python())?)?;
    for (name, path) in lsvmbus.shared_libraries()? {
        archive.file(&format!("python/so/{name}"), true, &read(&path)?)?;
    }
    let library = lsvmbus.library();
    let name = library.file_name().and_then(|name| name.to_str()).context("Python's library has no name")?;
    add_folder(archive, &library, &format!("python/lib/{name}"))?;
    archive.file("python/lsvmbus", false, &read(&lsvmbus.script())?)?;
    let run = "#!/bin/sh\n\
               export PYTHONHOME=/python PYTHONDONTWRITEBYTECODE=1\n\
               exec /python/so/ld-linux-x86-64.so.2 --library-path /python/so /python/bin/python3 -S /python/lsvmbus \"$@\"\n";
    archive.file("bin/lsvmbus", true, run.as_bytes())?;
    Ok(())
}

fn add_folder(archive: &mut Archive<Vec<u8>>, from: &Path, to: &str) -> Result<()> {
    archive.folder(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, to) = (entry.path(), format!("{to}/{name}"));
        match entry.file_type()? {
            kind if kind.is_dir() => add_folder(archive, &path, &to)?,
            kind if kind.is_file() => archive.file(&to, false, &read(&path)?)?,
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
