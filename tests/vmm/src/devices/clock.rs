//! The clock of a PC, for reading only: a kernel without it asks 40,000 times whether it is just being updated, and then
//! believes that it is 1970.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::exits::Ports;

/// Port of the register number; the register itself is at the next one.
pub const CLOCK_PORT: u16 = 0x70;
/// Bytes of clock ports.
pub const CLOCK_PORTS: u16 = 2;

/// Not being updated; a second is a second.
const STATUS_A: u8 = 0x26;
/// Numbers are binary, hours go to 23.
const STATUS_B: u8 = 0x06;
/// The battery is good.
const STATUS_D: u8 = 0x80;
/// The number's top bit is no part of it.
const NUMBER: u8 = 0x7f;

/// The clock.
#[derive(Debug, Default)]
pub struct Clock {
    selected: AtomicU8,
}

impl Ports for Clock {
    fn read(&self, offset: u16, data: &mut [u8]) {
        if offset == 1 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            data.fill(register(self.selected.load(Ordering::Relaxed), now));
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        if let (0, Some(number)) = (offset, data.first()) {
            self.selected.store(number & NUMBER, Ordering::Relaxed);
        }
    }
}

/// What register `number` says so many seconds after 1970, UTC.
fn register(number: u8, seconds: u64) -> u8 {
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let value = match number {
        0 => seconds % 60,
        2 => seconds / 60 % 60,
        4 => seconds / 3600 % 24,
        // 1 is Sunday, and 1970 began with a Thursday.
        6 => (days + 4) % 7 + 1,
        7 => day,
        8 => month,
        9 => year % 100,
        0x32 => year / 100,
        0xa => STATUS_A.into(),
        0xb => STATUS_B.into(),
        0xd => STATUS_D.into(),
        _ => 0,
    };
    u8::try_from(value).unwrap_or(0)
}

/// Year, month and day of a day counted from 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let leaps = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |year| if leaps(year) { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = if leaps(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::{Clock, date, register};
    use crate::exits::Ports;

    #[test]
    fn dates_are_right_around_leap_days_and_year_ends() {
        assert_eq!(
            [0, 364, 365, 789, 790].map(date),
            [(1970, 1, 1), (1970, 12, 31), (1971, 1, 1), (1972, 2, 29), (1972, 3, 1)]
        );
        assert_eq!([11_016, 11_017, 19_782].map(date), [(2000, 2, 29), (2000, 3, 1), (2024, 2, 29)]);
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }

    #[test]
    fn the_registers_are_binary_and_of_24_hours() {
        // Tuesday 2024-12-31 23:59:58.
        let at = |number| register(number, 1_735_689_598);
        assert_eq!([0, 2, 4, 6, 7, 8, 9, 0x32].map(at), [58, 59, 23, 3, 31, 12, 24, 20]);
        assert_eq!(at(0xa) & 0x80, 0);
        assert_eq!(at(0xb) & 0x06, 0x06);
    }

    #[test]
    fn a_register_is_chosen_first() {
        let clock = Clock::default();
        let mut value = [0];
        clock.write(0, &[0x8d]);
        clock.read(1, &mut value);
        assert_eq!(value, [0x80]);
        clock.write(1, &[7]);
        clock.read(1, &mut value);
        assert_eq!(value, [0x80]);
    }
}
