//! Pages are held once, and given back as they were.

use super::*;

const fn range(start: u64, count: u32) -> PageRange {
    PageRange { start, count }
}

#[test]
fn pages_are_held_once() {
    let mut held = Held::default();
    assert!(held.insert(range(10, 5)) && held.insert(range(15, 5)) && held.insert(range(5, 5)));
    for overlapping in [range(4, 2), range(19, 9), range(12, 1), range(0, 100), range(30, 0), range((1 << 40) - 1, 2)] {
        assert!(!held.insert(overlapping), "{overlapping:?}");
    }
    assert_eq!(held.pages(), 15);
    assert_eq!(held.take(6), [range(5, 6)]);
    assert!(held.insert(range(5, 6)), "given back, so free to be taken again");
    assert_eq!(held.take(u64::MAX), [range(5, 15)]);
    assert_eq!(held.pages(), 0);
}

#[test]
fn a_balloon_response_says_how_many_ranges_it_has() {
    let mut bytes = vec![7, 0, 24, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
    bytes.extend((7_u64 | 9 << 40).to_le_bytes());
    assert_eq!(Incoming::parse(&bytes), Some(Incoming::BalloonResponse { more: true, ranges: vec![range(7, 9)] }));
    bytes[12] = 5;
    assert_eq!(Incoming::parse(&bytes), None, "two are said and one is there");
    bytes[2] = 25;
    assert_eq!(Incoming::parse(&bytes), None, "longer than what is there");
}
