//! What is new, gone and another.

use super::*;

fn unit(lun: u8, serial: &str) -> Unit {
    let inquiry = Inquiry {
        device_type: 0,
        qualifier: 0,
        removable: false,
        vendor: "Msft".to_owned(),
        product: "Virtual Disk".to_owned(),
        revision: "1.0".to_owned(),
    };
    Unit { address: Address::lun(lun), inquiry, identifier: None, serial: Some(serial.to_owned()) }
}

#[test]
fn what_is_new_gone_and_another() {
    let at = |luns: &[u8]| luns.iter().map(|lun| Address::lun(*lun)).collect::<Vec<_>>();
    let (first, known) = Changes::between(&BTreeMap::new(), vec![unit(0, "a"), unit(2, "b")]);
    assert_eq!((first.added, first.removed), (at(&[0, 2]), at(&[])));
    let (same, known) = Changes::between(&known, vec![unit(0, "a"), unit(2, "b")]);
    assert_eq!((same.added, same.removed, same.units.len()), (at(&[]), at(&[]), 2));
    let (other, known) = Changes::between(&known, vec![unit(0, "c"), unit(3, "b")]);
    assert_eq!((other.added, other.removed), (at(&[0, 3]), at(&[0, 2])));
    let (none, _) = Changes::between(&known, Vec::new());
    assert_eq!((none.added, none.removed), (at(&[]), at(&[0, 3])));
}
