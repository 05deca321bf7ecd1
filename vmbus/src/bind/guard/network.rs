//! Whether the default route goes through a device: directly, or through a bond, a bridge, a VLAN or the synthetic
//! adapter above a virtual function.
//!
//! Sources: `/proc/net/route`, `/proc/net/ipv6_route`, and the `upper_*` and `master` links in `/sys/class/net`.
//! Only the main table of this network namespace is seen.

use std::collections::{BTreeMap, BTreeSet};

use super::is_below;
use crate::Error;
use crate::sysfs::{Bus, Device};

const INTERFACES: &str = "sys/class/net";
/// `RTF_UP` of `linux/route.h`.
const ROUTE_UP: u32 = 0x1;
/// `RTF_REJECT` of `linux/route.h`: a route to nowhere.
const ROUTE_REJECT: u32 = 0x200;
/// A VPN often adds two halves of everything (`0.0.0.0/1`, `128.0.0.0/1`) instead of a default route.
const SHORTEST_SPECIFIC_PREFIX: u32 = 2;

/// The way from the device's interface to one with a default route, such as `eth0 in bond0`; `None` if there is none.
pub(super) fn carries_default_route(bus: &Bus, device: &Device) -> Result<Option<String>, Error> {
    let defaults = default_interfaces(bus)?;
    // Each interface, and the one that it was reached from.
    let mut ways: BTreeMap<String, String> = BTreeMap::new();
    let mut todo: Vec<String> = Vec::new();
    for interface in interfaces_of(bus, device)? {
        ways.insert(interface.clone(), interface.clone());
        todo.push(interface);
    }
    while let Some(interface) = todo.pop() {
        let way = ways.get(&interface).cloned().unwrap_or_default();
        if defaults.contains(&interface) {
            return Ok(Some(way));
        }
        for upper in uppers(bus, &interface)? {
            if !ways.contains_key(&upper) {
                ways.insert(upper.clone(), format!("{way} in {upper}"));
                todo.push(upper);
            }
        }
    }
    Ok(None)
}

/// The interfaces whose hardware is the device, or is behind it (a virtual function on a pass-through bus).
fn interfaces_of(bus: &Bus, device: &Device) -> Result<BTreeSet<String>, Error> {
    let mut found: BTreeSet<String> = bus.names(&device.path.join("net"))?.into_iter().collect();
    let folder = bus.path(INTERFACES);
    for interface in bus.names(&folder)? {
        if is_below(bus, &folder.join(&interface), device) {
            found.insert(interface);
        }
    }
    Ok(found)
}

/// The interfaces stacked directly on this one.
fn uppers(bus: &Bus, interface: &str) -> Result<Vec<String>, Error> {
    let folder = bus.path(INTERFACES).join(interface);
    let names = bus.names(&folder)?;
    let mut uppers: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("upper_")).map(str::to_owned).collect();
    uppers.extend(bus.link_name(&folder.join("master"))?);
    Ok(uppers)
}

fn default_interfaces(bus: &Bus) -> Result<BTreeSet<String>, Error> {
    let mut found = BTreeSet::new();
    for (file, parse) in [("route", route_v4 as fn(&str) -> Option<&str>), ("ipv6_route", route_v6)] {
        // A kernel without IPv6 has no second file.
        let text = match bus.text(&bus.path("proc/net").join(file)) {
            Ok(text) => text,
            Err(error) if error.is_vanished() => continue,
            Err(error) => return Err(error),
        };
        found.extend(text.lines().filter_map(parse).map(str::to_owned));
    }
    Ok(found)
}

/// The interface of a line of `/proc/net/route` that is (half of) a default route.
fn route_v4(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [interface, _destination, _gateway, flags, _references, _use, _metric, mask, ..] = fields.as_slice() else {
        return None;
    };
    // The mask is in network byte order, printed as a number of this machine: bits can be counted either way.
    let prefix = u32::from_str_radix(mask, 16).ok()?.count_ones();
    is_default(prefix, u32::from_str_radix(flags, 16).ok()?).then_some(*interface)
}

/// The same for `/proc/net/ipv6_route`, where unusable routes to everything sit on `lo`.
fn route_v6(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_destination, prefix, _source, _source_prefix, _next, _metric, _references, _use, flags, interface] =
        fields.as_slice()
    else {
        return None;
    };
    let prefix = u32::from_str_radix(prefix, 16).ok()?;
    (is_default(prefix, u32::from_str_radix(flags, 16).ok()?) && *interface != "lo").then_some(*interface)
}

fn is_default(prefix: u32, flags: u32) -> bool {
    prefix < SHORTEST_SPECIFIC_PREFIX && flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_routes_are_told_from_others() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        assert_eq!(route_v4(header), None);
        assert_eq!(route_v4("eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"), Some("eth0"));
        assert_eq!(route_v4("tun0\t00000080\t0101A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0"), Some("tun0"));
        assert_eq!(route_v4("eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"), None);
        assert_eq!(route_v4("*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0"), None);
        let zero = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let six = |prefix, flags, interface| {
            format!("{zero} {prefix} {zero} 00 {gateway} 00000400 00000001 00000000 {flags} {interface:>8}")
        };
        assert_eq!(route_v6(&six("00", "00450003", "eth0")), Some("eth0"));
        assert_eq!(route_v6(&six("00", "00200200", "lo")), None);
        assert_eq!(route_v6(&six("40", "00000001", "eth0")), None);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in any::<String>(), almost in "([0-9a-z]{0,40}[ \\t]){0,12}") {
            let _ = (route_v4(&line), route_v6(&line), route_v4(&almost), route_v6(&almost));
        }
    }
}
