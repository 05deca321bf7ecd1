//! What may not be taken from the machine, on made-up machines.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{major, minor};

use super::*;
use crate::class::Class;
use crate::fake::{Tree, real};

const HEADER: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";

fn tree() -> Tree {
    let tree = Tree::new();
    tree.write("proc/self/mountinfo", "1 1 0:2 / / rw - rootfs none rw\n");
    tree
}

/// An interface whose hardware is below the folder `hardware`.
fn interface(tree: &Tree, hardware: &str, name: &str) {
    tree.folder_at(format!("{hardware}/net/{name}"));
    tree.link(format!("sys/class/net/{name}"), format!("{hardware}/net/{name}"));
}

fn default_route(tree: &Tree, interface: &str) {
    tree.write("proc/net/route", format!("{HEADER}{interface} 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n"));
}

/// A block device below the folder `hardware`, with its number.
fn block(tree: &Tree, hardware: &str, name: &str, number: &str) -> String {
    let at = format!("{hardware}/{name}");
    tree.folder_at(&at);
    tree.link(format!("sys/class/block/{}", name.rsplit('/').next().unwrap()), &at);
    tree.link(format!("sys/dev/block/{number}"), &at);
    at
}

fn mount(tree: &Tree, number: &str, place: &str, kind: &str, source: &str) {
    let old = fs::read_to_string(tree.path("proc/self/mountinfo")).unwrap();
    tree.write(
        "proc/self/mountinfo",
        format!("{old}30 1 {number} / {place} rw,relatime shared:1 - {kind} {source} rw\n"),
    );
}

fn refusal(tree: &Tree, device: &Device) -> Option<String> {
    match refuse(&tree.bus(), device) {
        Ok(()) => None,
        Err(Error::Refused { why, .. }) => Some(why),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_adapter_with_the_default_route_is_refused() {
    let tree = tree();
    let device = tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let other = tree.device(Class::NIC, 2, Some("hv_netvsc"));
    interface(&tree, &real(1), "eth0");
    interface(&tree, &real(2), "eth1");
    assert_eq!(refusal(&tree, &device), None);
    default_route(&tree, "eth0");
    assert!(refusal(&tree, &device).unwrap().contains("(eth0)"));
    assert_eq!(refusal(&tree, &other), None);
}

#[test]
fn an_ipv6_default_route_counts() {
    let tree = tree();
    let device = tree.device(Class::NIC, 1, Some("hv_netvsc"));
    interface(&tree, &real(1), "eth0");
    let zero = "0".repeat(32);
    let line = format!("{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00450003     eth0\n");
    tree.write("proc/net/ipv6_route", line);
    assert!(refusal(&tree, &device).is_some());
}

#[test]
fn adapters_below_the_one_with_the_route_are_refused() {
    let tree = tree();
    let nic = tree.device(Class::NIC, 1, Some("hv_netvsc"));
    let pass_through = tree.device(Class::PCIE, 2, Some("hv_pci"));
    interface(&tree, &real(1), "eth0");
    // A virtual function: a PCI device behind the pass-through bus, whose master is the synthetic adapter.
    interface(&tree, &format!("{}/pci0001:00/0001:00:02.0", real(2)), "enP1s1");
    tree.link("sys/class/net/enP1s1/master", format!("{}/net/eth0", real(1)));
    tree.folder_at("sys/devices/virtual/net/bond0");
    tree.folder_at("sys/devices/virtual/net/bond0.7");
    for name in ["bond0", "bond0.7"] {
        tree.link(format!("sys/class/net/{name}"), format!("sys/devices/virtual/net/{name}"));
    }
    tree.link(format!("{}/net/eth0/upper_bond0", real(1)), "sys/devices/virtual/net/bond0");
    tree.link("sys/devices/virtual/net/bond0/upper_bond0.7", "sys/devices/virtual/net/bond0.7");
    // A loop of links must not be an endless one.
    tree.link("sys/devices/virtual/net/bond0.7/upper_bond0", "sys/devices/virtual/net/bond0");
    default_route(&tree, "eth9");
    assert_eq!((refusal(&tree, &nic), refusal(&tree, &pass_through)), (None, None));
    default_route(&tree, "bond0.7");
    assert!(refusal(&tree, &nic).unwrap().contains("(eth0 in bond0 in bond0.7)"));
    default_route(&tree, "eth0");
    assert!(refusal(&tree, &pass_through).unwrap().contains("(enP1s1 in eth0)"));
}

#[test]
fn the_disk_with_the_root_file_system_is_refused() {
    let tree = tree();
    let disk = tree.device(Class::SCSI, 1, Some("hv_storvsc"));
    let other = tree.device(Class::SCSI, 2, Some("hv_storvsc"));
    block(&tree, &format!("{}/host0/block", real(1)), "sda", "8:0");
    let partition = block(&tree, &format!("{}/host0/block/sda", real(1)), "sda1", "8:1");
    tree.write(format!("{partition}/partition"), "1\n");
    block(&tree, &format!("{}/host1/block", real(2)), "sdb", "8:16");
    assert_eq!(refusal(&tree, &disk), None);
    mount(&tree, "8:1", "/", "ext4", "/dev/root");
    assert!(refusal(&tree, &disk).unwrap().starts_with("it holds the root file system;"));
    assert_eq!(refusal(&tree, &other), None);
    mount(&tree, "8:16", "/srv/my\\040data", "xfs", "/dev/sdb");
    assert!(refusal(&tree, &other).unwrap().contains("/srv/my data"));
}

#[test]
fn stacked_disks_are_followed() {
    let tree = tree();
    let disk = tree.device(Class::SCSI, 1, Some("hv_storvsc"));
    block(&tree, &format!("{}/host0/block", real(1)), "sda", "8:0");
    // LVM on a partition of an md array on sda, which names itself as its slave for good measure.
    let md = block(&tree, "sys/devices/virtual/block", "md0", "9:0");
    let part = block(&tree, "sys/devices/virtual/block/md0", "md0p1", "259:0");
    let dm = block(&tree, "sys/devices/virtual/block", "dm-0", "253:0");
    tree.write(format!("{part}/partition"), "1\n");
    tree.link(format!("{dm}/slaves/md0p1"), &part);
    tree.link(format!("{md}/slaves/md0"), &md);
    mount(&tree, "253:0", "/", "ext4", "/dev/mapper/vg-root");
    assert_eq!(refusal(&tree, &disk), None);
    tree.link(format!("{md}/slaves/sda"), format!("{}/host0/block/sda", real(1)));
    assert!(refusal(&tree, &disk).is_some());
}

#[test]
fn disks_without_a_number_are_found_by_name() {
    let tree = tree();
    let first = tree.device(Class::SCSI, 1, Some("hv_storvsc"));
    let second = tree.device(Class::SCSI, 2, Some("hv_storvsc"));
    block(&tree, &format!("{}/host0/block", real(1)), "sda", "8:0");
    block(&tree, &format!("{}/host1/block", real(2)), "sdb", "8:16");
    tree.write("dev/sda", "");
    tree.link("dev/disk/by-label/system", "dev/sda");
    // Of a btrfs over two disks, mountinfo names one.
    mount(&tree, "0:30", "/", "btrfs", "/dev/disk/by-label/system");
    assert!(refusal(&tree, &first).is_some());
    assert_eq!(refusal(&tree, &second), None);
    for (name, relid, host) in [("sda", 1, 0), ("sdb", 2, 1)] {
        let disk = format!("{}/host{host}/block/{name}", real(relid));
        tree.link(format!("sys/fs/btrfs/3f4c/devices/{name}"), disk);
    }
    assert!(refusal(&tree, &second).is_some());
}

#[test]
fn nvme_swap_and_unknown_roots_are_thought_of() {
    let tree = tree();
    let bus = tree.device(Class::PCIE, 1, Some("hv_pci"));
    let disk = tree.device(Class::SCSI, 2, Some("hv_storvsc"));
    let controller = format!("{}/pci0001:00/0001:00:00.0/nvme/nvme0", real(1));
    tree.folder_at(&controller);
    block(&tree, "sys/devices/virtual/nvme-subsystem/nvme-subsys0", "nvme0n1", "259:0");
    mount(&tree, "259:0", "/", "ext4", "/dev/nvme0n1");
    assert_eq!(refusal(&tree, &bus), None);
    tree.link("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0", &controller);
    assert!(refusal(&tree, &bus).is_some());

    block(&tree, &format!("{}/host1/block", real(2)), "sdb", "8:16");
    assert_eq!(refusal(&tree, &disk), None);
    tree.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sdb partition 1048572 0 -2\n");
    assert!(refusal(&tree, &disk).unwrap().contains("swap"));
    tree.write("proc/swaps", "");
    tree.write("proc/self/mountinfo", "");
    mount(&tree, "0:31", "/", "zfs", "rpool/ROOT/debian");
    assert!(refusal(&tree, &disk).unwrap().contains("zfs"));
    assert_eq!(refusal(&tree, &bus), None, "no disk of its own");
}

#[test]
fn what_can_t_be_checked_is_no_pass() {
    let tree = tree();
    let device = tree.device(Class::SCSI, 1, None);
    fs::remove_file(tree.path("proc/self/mountinfo")).unwrap();
    assert!(refuse(&tree.bus(), &device).is_err());
}

/// A process that runs `comm`, with one open file.
fn process(tree: &Tree, number: u32, comm: &str, open: &str) {
    tree.write(format!("proc/{number}/comm"), format!("{comm}\n"));
    tree.folder_at(format!("proc/{number}/fd"));
    symlink(open, tree.path(format!("proc/{number}/fd/3"))).unwrap();
}

fn held(tree: &Tree, device: &Device) -> Option<String> {
    refuse_if_held(&tree.bus(), device).err().map(|error| error.to_string())
}

#[test]
fn open_mapped_and_locked_devices_are_held() {
    let tree = tree();
    tree.device(Class::NIC, 1, Some("uio_hv_generic"));
    tree.folder_at(format!("{}/uio/uio0", real(1)));
    tree.write("dev/uio0", "");
    let device = tree.bus().find("nic").unwrap();
    process(&tree, 10, "sshd", "/dev/null");
    process(&tree, 11, "other", "/dev/uio01");
    tree.write("proc/locks", "1: POSIX  ADVISORY  WRITE 10 08:01:99 0 EOF\n");
    assert_eq!(held(&tree, &device), None);

    process(&tree, 42, "balloon", "/dev/uio0");
    assert!(held(&tree, &device).unwrap().contains("process 42 (balloon, has it open)"));
    fs::remove_dir_all(tree.path("proc/42")).unwrap();

    process(&tree, 43, "gone", "/dev/uio0 (deleted)");
    assert!(held(&tree, &device).unwrap().contains("process 43"));
    fs::remove_dir_all(tree.path("proc/43")).unwrap();

    for path in ["/dev/uio0", &format!("/sys/devices/a b/{}/channels/1/ring", device.name)] {
        process(&tree, 44, "mapper", "/dev/null");
        tree.write("proc/44/maps", format!("7f0000000000-7f0000400000 rw-s 00000000 00:05 12    {path}\n"));
        assert!(held(&tree, &device).unwrap().contains("process 44 (mapper, has it mapped)"), "{path}");
        fs::remove_dir_all(tree.path("proc/44")).unwrap();
    }

    let node = fs::metadata(tree.path("dev/uio0")).unwrap();
    let file = format!("{:02x}:{:02x}:{}", major(node.dev()), minor(node.dev()), node.ino());
    tree.write("proc/locks", format!("1: FLOCK  ADVISORY  WRITE 10 {file} 0 EOF\n"));
    assert!(held(&tree, &device).unwrap().contains("process 10 (sshd, has it locked)"));
}

#[test]
fn the_real_proc_is_understood() {
    let tree = Tree::new();
    let mut device = tree.device(Class::NIC, 1, Some("uio_hv_generic"));
    // A device that any process may open plays the node.
    device.uio = Some("null".to_owned());
    let file = fs::File::open("/dev/null").unwrap();
    let this = format!("process {} (", std::process::id());
    let error = refuse_if_held(&Bus::system(), &device).unwrap_err().to_string();
    assert!(error.contains(&this) && error.contains("has it open"), "{error}");

    file.lock_shared().unwrap();
    let node = file.metadata().unwrap();
    let expected =
        format!(" {} {:02x}:{:02x}:{} ", std::process::id(), major(node.dev()), minor(node.dev()), node.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    assert!(locks.contains(&expected), "{expected} is not in {locks}");
}
