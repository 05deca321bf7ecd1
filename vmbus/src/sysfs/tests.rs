//! Devices read from made-up trees, whole, broken and vanishing.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use super::*;
use crate::class::Class;
use crate::fake::{Tree, instance, real};

#[test]
fn a_device_is_read_whole() {
    let tree = Tree::new();
    tree.device(Class::DYNAMIC_MEMORY, 1, Some("hv_balloon"));
    let device = tree.bus().find("balloon").unwrap();
    assert_eq!((device.instance, device.relid, device.class), (instance(1), 1, Class::DYNAMIC_MEMORY));
    assert_eq!(device.state, Some(ChannelState::OPENED));
    assert_eq!((device.monitor_id, device.vendor_id, device.numa_node), (None, Some(0x1414), Some(0)));
    assert_eq!((device.driver.as_deref(), device.driver_override.as_deref()), (Some("hv_balloon"), None));
    assert!(device.has_driver_override && device.uio.is_none());
    assert_eq!(device.vp_mapping, [VpMapping { relid: 1, cpu: 1 }]);
    assert_eq!(device.rings.unwrap().incoming.write_index, 24);
    let channel = device.primary().unwrap();
    assert_eq!((channel.subchannel_index, channel.cpu, channel.ring.as_ref()), (0, 1, None));
    assert_eq!(channel.fill.unwrap().readable_bytes, 16);
    assert_eq!(channel.counters.signals, Some(7));
    assert_eq!(channel.counters.outgoing_full_first, None);
    let json = serde_json::to_value(&device).unwrap();
    assert_eq!(json["state"], "open");
    assert_eq!(json["channels"][0]["fill"]["writable_bytes"], 4080);
}

#[test]
fn monitors_subchannels_rings_and_uio_are_found() {
    let tree = Tree::new();
    tree.device(Class::NIC, 9, Some("uio_hv_generic"));
    let at = real(9);
    tree.write(format!("{at}/monitor_id"), "17\n");
    tree.channel(9, 4, 1);
    tree.channel(9, 12, 2);
    tree.write(format!("{at}/channels/12/monitor_id"), "3\n");
    tree.write(format!("{at}/channels/12/latency"), "100\n");
    tree.write(format!("{at}/channels/9/ring"), vec![0; 8192]);
    tree.folder_at(format!("{at}/uio/uio3"));
    let device = tree.bus().find("uio3").unwrap();
    assert_eq!(device.monitor_id, Some(17));
    assert_eq!(device.channels.iter().map(|channel| channel.relid).collect::<Vec<_>>(), [9, 4, 12]);
    assert_eq!(device.channel(12).unwrap().monitor_id, Some(3));
    assert_eq!(device.channel(12).unwrap().monitor_latency, Some(100));
    let ring = device.primary().unwrap().ring.clone().unwrap();
    assert_eq!((ring.bytes, ring.path), (8192, device.path.join("channels/9/ring")));
}

#[test]
fn one_broken_device_hides_no_other() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, None);
    tree.device(Class::NIC, 2, None);
    tree.device(Class::NIC, 3, None);
    tree.write(format!("{}/id", real(1)), "one\n");
    fs::remove_file(tree.path(format!("{}/class_id", real(2)))).unwrap();
    let scan = tree.bus().scan().unwrap();
    assert_eq!(scan.devices.iter().map(|device| device.relid).collect::<Vec<_>>(), [3]);
    let messages: Vec<_> = scan.broken.iter().map(|broken| broken.error.to_string()).collect();
    assert!(messages[0].contains(&format!("{}/id holds \"one\"", instance(1))), "{messages:?}");
    assert!(messages[1].contains(&format!("cannot read {}", tree.path("sys/bus").display())), "{messages:?}");
    assert!(messages[1].contains("class_id"), "{messages:?}");
    assert!(matches!(tree.bus().find(&instance(1).to_string()), Err(Error::Malformed { .. })));
    assert_eq!(tree.bus().find("nic").unwrap().relid, 3);
}

#[test]
fn bytes_that_are_no_text_are_malformed() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, None);
    tree.write(format!("{}/vendor", real(1)), b"0x\xff14\n");
    assert!(
        matches!(&tree.bus().scan().unwrap().broken[0].error, Error::Malformed { path, .. } if path.ends_with("vendor"))
    );
}

#[test]
fn what_vanishes_is_no_error() {
    let tree = Tree::new();
    let device = tree.device(Class::NIC, 1, None);
    tree.link("sys/bus/vmbus/devices/dangling", "sys/devices/gone");
    fs::remove_dir_all(tree.path(format!("{}/channels", real(1)))).unwrap();
    let scan = tree.bus().scan().unwrap();
    // A link to a folder that is gone is neither a device nor a broken one.
    assert_eq!((scan.devices.len(), scan.broken.len()), (1, 0));
    assert!(scan.devices[0].channels.is_empty());
    fs::remove_file(tree.path(format!("sys/bus/vmbus/devices/{}", instance(1)))).unwrap();
    assert!(tree.bus().devices().unwrap().is_empty());
    assert!(matches!(tree.bus().refresh(&device), Err(Error::Rescinded { .. })));
}

#[test]
fn devices_that_come_and_go_while_they_are_read_are_never_broken() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, Some("hv_netvsc"));
    tree.device(Class::NIC, 2, None);
    let link = tree.path(format!("sys/bus/vmbus/devices/{}", instance(1)));
    let (folder, aside) = (tree.path(real(1)), tree.path("aside"));
    let target = fs::read_link(&link).unwrap();
    let (scans, seed) = (AtomicUsize::new(0), std::process::id());
    println!("seed {seed}");
    std::thread::scope(|scope| {
        // Each change falls somewhere into a scan, and the next waits until that scan is over.
        let scans = &scans;
        let after_this_scan = move || {
            let now = scans.load(Ordering::SeqCst);
            while scans.load(Ordering::SeqCst) < now + 2 {
                std::thread::yield_now();
            }
        };
        let changes = scope.spawn(move || {
            for round in 0..100 {
                for _ in 0..(round * seed) % 5000 {
                    std::hint::spin_loop();
                }
                // As the kernel does: the link goes first and comes last.
                fs::remove_file(&link).unwrap();
                fs::rename(&folder, &aside).unwrap();
                after_this_scan();
                fs::rename(&aside, &folder).unwrap();
                symlink(&target, &link).unwrap();
                after_this_scan();
            }
        });
        let mut broken = Vec::new();
        while !changes.is_finished() {
            let scan = tree.bus().scan().unwrap();
            scans.fetch_add(1, Ordering::SeqCst);
            broken.extend(scan.broken);
            assert!(scan.devices.iter().any(|device| device.relid == 2));
        }
        assert!(broken.is_empty(), "{broken:?}");
    });
}

#[test]
fn a_channel_that_is_being_set_up_is_left_out() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, None);
    tree.folder_at(format!("{}/channels/2", real(1)));
    assert_eq!(tree.bus().find("1").unwrap().channels.len(), 1);
}

#[test]
fn old_kernels_lack_files() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, None);
    for file in ["driver_override", "numa_node", "vendor", "device", "state", "channel_vp_mapping", "in_intr_mask"] {
        fs::remove_file(tree.path(format!("{}/{file}", real(1)))).unwrap();
    }
    fs::remove_dir_all(tree.path(format!("{}/channels", real(1)))).unwrap();
    tree.write(format!("{}/monitor_id", real(1)), "255\n");
    let device = tree.bus().find("nic").unwrap();
    assert!(!device.has_driver_override && device.primary().is_none() && device.rings.is_none());
    assert_eq!((device.state, device.monitor_id, device.vendor_id), (None, None, None));
}

#[test]
fn selectors_name_one_device() {
    let tree = Tree::new();
    tree.device(Class::NIC, 1, None);
    tree.device(Class::NIC, 2, None);
    tree.device(Class(instance(2)), 3, None);
    let bus = tree.bus();
    assert_eq!(bus.find("2").unwrap().relid, 2);
    assert_eq!(bus.find(&format!("{{{}}}", instance(2))).unwrap().relid, 2, "an instance goes before a class");
    assert_eq!(bus.find_all("nic").unwrap().len(), 2);
    assert_eq!(bus.find_all(&Class::NIC.to_string().to_uppercase()).unwrap().len(), 2);
    let ambiguous = bus.find("nic").unwrap_err();
    assert_eq!(ambiguous.kind(), crate::ErrorKind::Usage);
    assert!(ambiguous.to_string().contains(&instance(1).to_string()), "{ambiguous}");
    for selector in ["4", "uio0", "balloon", "", "no such thing", &Uuid::nil().to_string()] {
        assert_eq!(bus.find(selector).unwrap_err().kind(), crate::ErrorKind::NoDevice, "{selector}");
    }
}

#[test]
fn no_link_leads_out_of_the_root() {
    let outside = Tree::new();
    outside.device(Class::NIC, 1, None);
    let tree = Tree::new();
    symlink(outside.path(real(1)), tree.path(format!("sys/bus/vmbus/devices/{}", instance(1)))).unwrap();
    let scan = tree.bus().scan().unwrap();
    assert!(scan.devices.is_empty());
    assert!(scan.broken[0].error.to_string().contains("leads out of"), "{}", scan.broken[0].error);
}

#[test]
fn no_bus_is_said_in_one_line() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.path("sys/bus/vmbus")).unwrap();
    let error = tree.bus().devices().unwrap_err();
    assert_eq!(error.kind().exit_code(), 3);
    assert!(!error.to_string().contains('\n'));
}

/// Some files show the words of a ring with a sign, and a host of ill will writes any there: the device stays readable.
#[test]
fn whatever_a_host_writes_into_a_ring_the_device_is_read() {
    for (text, value) in [("-1", u32::MAX), ("-2147483648", 1 << 31), ("4294967295", u32::MAX), ("7", 7)] {
        assert_eq!(parse::ring_word(text), Ok(value));
    }
    for text in ["", "-", "--1", "-2147483649", "+1", "0x1"] {
        assert!(parse::ring_word(text).is_err(), "{text}");
    }
}
