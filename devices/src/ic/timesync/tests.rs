//! What each sample does to a clock.

use super::*;
use proptest::prelude::*;
use std::time::UNIX_EPOCH;

/// 2026 in units of 100 ns since 1601.
const NOW: u64 = 116_444_736_000_000_000 + 1_780_000_000 * 10_000_000;
const MS: i64 = 1_000_000;

fn guest() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

/// Ahead by milliseconds.
fn sample(ms: i64, sync: bool) -> Sample {
    let host_time = NOW.checked_add_signed(ms * 10_000).unwrap();
    Sample { host_time, reference: None, sync, sample: !sync, leap: 0 }
}

const fn settings(discipline: Discipline) -> Settings {
    Settings {
        discipline,
        tolerance: Duration::from_millis(1),
        slew_at_most: Duration::from_millis(500),
        step_at_least: Duration::from_secs(5),
        confirm_at_least: Duration::from_secs(3600),
    }
}

#[test]
fn each_discipline_at_its_limits() {
    use Discipline::{Report, Slew, Step};
    for (discipline, ms, sync, expected) in [
        (Report, 7_000_000, true, Verdict::Nothing),
        (Step, 0, true, Verdict::Nothing),
        (Step, 1, true, Verdict::Step(MS)),
        (Step, -400_000_000, true, Verdict::Step(-400_000_000 * MS)),
        (Step, 4_999, false, Verdict::Nothing),
        (Step, -4_999, false, Verdict::Nothing),
        (Step, 5_000, false, Verdict::Step(5_000 * MS)),
        (Step, 3_599_999, false, Verdict::Step(3_599_999 * MS)),
        (Step, 3_600_000, false, Verdict::Rejected(Rejected::Unconfirmed)),
        (Slew, 1, false, Verdict::Slew(MS)),
        (Slew, -500, true, Verdict::Slew(-500 * MS)),
        (Slew, 501, true, Verdict::Step(501 * MS)),
        (Slew, 501, false, Verdict::Nothing),
    ] {
        let mut judge = Judge::new(settings(discipline));
        let (offset, verdict) = judge.judge(sample(ms, sync), guest(), None);
        assert_eq!((offset, verdict), (Some(ms * MS), expected), "{discipline:?} {ms} ms, sync {sync}");
    }
}

#[test]
fn what_can_not_be_right_is_rejected() {
    let mut judge = Judge::new(settings(Discipline::Step));
    let far = sample(0, true);
    for host_time in
        [0, 1, 116_444_736_000_000_000, u64::MAX, i64::MAX.unsigned_abs(), NOW - (30 * 365 * 86400 * 10_000_000)]
    {
        let (offset, verdict) = judge.judge(Sample { host_time, ..far }, guest(), None);
        assert_eq!((offset, verdict), (None, Verdict::Rejected(Rejected::Date)), "{host_time}");
    }
    for leap in [1, 2, 3, 255] {
        let (_, verdict) = judge.judge(Sample { leap, ..sample(60_000, true) }, guest(), None);
        assert_eq!(verdict, Verdict::Rejected(Rejected::Leap(leap)));
    }
    // The reference counter at sending and now.
    for (then, now, expected) in [
        (100, 100 + 600 * 10_000_000, Some(600_000 * MS)),
        (100, 101 + 600 * 10_000_000, None),
        (101, 100, None),
        (u64::MAX, 0, None),
        (0, u64::MAX, None),
    ] {
        let (offset, _) = judge.judge(Sample { reference: Some(then), ..far }, guest(), Some(now));
        assert_eq!(offset, expected);
    }
    // Neither flag: a probe.
    let probe = Sample { sync: false, sample: false, ..sample(10_000, false) };
    assert_eq!(judge.judge(probe, guest(), None).1, Verdict::Nothing);
}

#[test]
fn a_sample_that_is_far_off_needs_a_second_one() {
    let mut judge = Judge::new(settings(Discipline::Step));
    let unconfirmed = Verdict::Rejected(Rejected::Unconfirmed);
    let day = 86_400_000;
    for (ms, expected) in [
        (day, unconfirmed),
        (day + 2000, unconfirmed),
        (day + 2500, Verdict::Step((day + 2500) * MS)),
        (day, unconfirmed),
        (1, Verdict::Nothing),
        (day, unconfirmed),
    ] {
        assert_eq!(judge.judge(sample(ms, false), guest(), None).1, expected);
    }
    judge.forget();
    assert_eq!(judge.judge(sample(day, false), guest(), None).1, unconfirmed);
}

#[test]
fn each_version_has_its_layout() {
    let plain = [&NOW.to_le_bytes()[..], &[9; 16], &[2], &[9; 7]].concat();
    let expected = Sample { host_time: NOW, reference: None, sync: false, sample: true, leap: 0 };
    assert_eq!(parse(VERSION_3_0, &plain), Some(expected));
    assert_eq!(parse(VERSION_1_0, &plain[..25]), Some(expected));
    assert_eq!(parse(VERSION_3_0, &plain[..24]), None);
    let referenced = [&NOW.to_le_bytes()[..], &77_u64.to_le_bytes(), &[1, 3, 0, 0, 0, 0]].concat();
    let expected = Sample { host_time: NOW, reference: Some(77), sync: true, sample: false, leap: 3 };
    assert_eq!(parse(VERSION_4_0, &referenced), Some(expected));
    assert_eq!(parse(VERSION_4_0, &referenced[..21]), None);
}

proptest! {
    #[test]
    fn no_sample_breaks_it(host_time: u64, reference: Option<u64>, now: Option<u64>, flags: u8, leap: u8, seconds: u32) {
        let mut judge = Judge::new(settings(Discipline::Slew));
        let sample = Sample { host_time, reference, sync: flags & 1 != 0, sample: flags & 2 != 0, leap };
        let guest = UNIX_EPOCH + Duration::from_secs(seconds.into());
        let (offset, verdict) = judge.judge(sample, guest, now);
        match verdict {
            Verdict::Step(by) | Verdict::Slew(by) => prop_assert_eq!(offset, Some(by)),
            Verdict::Nothing | Verdict::Rejected(_) => {}
        }
    }
}
