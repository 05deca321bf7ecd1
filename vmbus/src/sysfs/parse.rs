//! The formats of single attributes: pure functions from text, which say only what they expected.

use uuid::Uuid;

use super::VpMapping;
use crate::class::parse_guid;

/// A parser's complaint: what should have been there.
pub(crate) type Expected = &'static str;

/// The number of monitor bits on the page that host and guest share: 4 groups of 32.
const MONITOR_BITS: u8 = 128;

/// `id`, `state`, indices and masks: a decimal number.
pub(crate) fn number(text: &str) -> Result<u32, Expected> {
    digits(text).and_then(|digits| digits.parse().ok()).ok_or("a decimal number below 2^32")
}

/// What stands in a ring's control page, or follows from it: a decimal number of 32 bits that the kernel prints with a
/// sign in some files. The host may have written anything there.
pub(crate) fn ring_word(text: &str) -> Result<u32, Expected> {
    let negative = text.strip_prefix('-').and_then(digits).and_then(|_| text.parse::<i32>().ok());
    negative.map(i32::cast_unsigned).map_or_else(|| number(text), Ok)
}

/// Counters: a decimal number.
pub(crate) fn counter(text: &str) -> Result<u64, Expected> {
    digits(text).and_then(|digits| digits.parse().ok()).ok_or("a decimal number below 2^64")
}

/// `numa_node`: a decimal number, -1 where it is unknown.
pub(crate) fn node(text: &str) -> Result<i32, Expected> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    digits(unsigned).and_then(|_| text.parse().ok()).ok_or("a node number or -1")
}

/// `vendor` and `device`: a hexadecimal number with its prefix.
pub(crate) fn hexadecimal(text: &str) -> Result<u32, Expected> {
    let digits = text.strip_prefix("0x").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or("a hexadecimal number such as 0x1414")
}

/// `class_id` and `device_id`: a GUID in braces.
pub(crate) fn guid(text: &str) -> Result<Uuid, Expected> {
    let braced = text.starts_with('{');
    parse_guid(text).filter(|_| braced).ok_or("a GUID in braces")
}

/// `monitor_id`; `None` for a number beyond the page, which kernels before 4.19 show where no bit was allocated.
pub(crate) fn monitor_id(text: &str) -> Result<Option<u8>, Expected> {
    let id: u8 = digits(text).and_then(|digits| digits.parse().ok()).ok_or("a monitor bit below 256")?;
    Ok(Some(id).filter(|id| *id < MONITOR_BITS))
}

/// `channel_vp_mapping`: one `relid:cpu` in each line.
pub(crate) fn vp_mapping(text: &str) -> Result<Vec<VpMapping>, Expected> {
    let line = |line: &str| {
        let (relid, cpu) = line.trim().split_once(':')?;
        Some(VpMapping { relid: number(relid).ok()?, cpu: number(cpu).ok()? })
    };
    text.lines().map(line).collect::<Option<_>>().ok_or("lines of relid:cpu")
}

/// `driver_override`: a driver's name; `None` for an empty line and for the `(null)` of kernels that print it.
pub(crate) fn driver_override(text: &str) -> Option<String> {
    if text.is_empty() || text == "(null)" { None } else { Some(text.to_owned()) }
}

/// Whether a name is that of a UIO device: `uio` and a number.
pub(crate) fn is_uio(name: &str) -> bool {
    name.strip_prefix("uio").is_some_and(|number| digits(number).is_some())
}

/// `text` if it is nothing but digits: `parse` alone would take a sign.
fn digits(text: &str) -> Option<&str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signs_blanks_and_overflow_are_refused() {
        for text in ["", "+1", "-1", " 1", "0x1", "4294967296", "1\n2"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        assert_eq!(number("4294967295"), Ok(u32::MAX));
        assert_eq!(node("-1"), Ok(-1));
        assert!(node("--1").is_err() && node("-").is_err() && node("+1").is_err());
        assert!(hexadecimal("1414").is_err() && hexadecimal("0x").is_err() && hexadecimal("0x+1").is_err());
        assert_eq!(hexadecimal("0x1414"), Ok(0x1414));
        assert!(guid("525074dc-8985-46e2-8057-a307dc18a502").is_err());
        assert_eq!(monitor_id("127"), Ok(Some(127)));
        assert_eq!(monitor_id("255"), Ok(None));
        assert!(monitor_id("256").is_err());
        assert_eq!(vp_mapping(""), Ok(Vec::new()));
        assert!(vp_mapping("1:0\n\n2:1").is_err());
        assert_eq!(driver_override("(null)"), None);
        assert!(is_uio("uio10") && !is_uio("uio") && !is_uio("uio1a") && !is_uio("xuio1"));
    }

    proptest! {
        #[test]
        fn what_the_kernel_prints_is_read_back(
            id: u32, wide: u64, signed: i32, bit in 0u8..128, bytes: [u8; 16],
            pairs in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..64),
        ) {
            prop_assert_eq!(number(&id.to_string()), Ok(id));
            prop_assert_eq!(counter(&wide.to_string()), Ok(wide));
            prop_assert_eq!(node(&signed.to_string()), Ok(signed));
            prop_assert_eq!(hexadecimal(&format!("{id:#x}")), Ok(id));
            prop_assert_eq!(monitor_id(&bit.to_string()), Ok(Some(bit)));
            let uuid = Uuid::from_bytes(bytes);
            prop_assert_eq!(guid(&format!("{{{uuid}}}")), Ok(uuid));
            let lines: String = pairs.iter().map(|(relid, cpu)| format!("{relid}:{cpu}\n")).collect();
            let expected: Vec<_> = pairs.iter().map(|&(relid, cpu)| VpMapping { relid, cpu }).collect();
            prop_assert_eq!(vp_mapping(&lines), Ok(expected));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>(), almost in "[-+0-9a-fx:{}\\n ]{0,40}") {
            for text in [text.as_str(), almost.as_str()] {
                // A parser that accepts a text must have read it whole: printing gives the same number again.
                if let Ok(value) = number(text) {
                    prop_assert_eq!(value.to_string(), text.trim_start_matches('0').to_owned().max("0".into()));
                }
                let _ = (counter(text), node(text), hexadecimal(text), guid(text), monitor_id(text), vp_mapping(text));
            }
        }
    }
}
