//! The request table among arbitrary completions, against a plain map.

use std::collections::BTreeMap;

use vmbus_channels::requests::{RequestTable, TableFull};
use vmbus_ringbuf::doubles::Script;

/// Requests, completions with ids that are right, nearly right, of the past or made up, and cancelled requests. A broken
/// promise is a failed assertion.
pub fn drive(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let capacity = usize::from(script.byte() % 32);
    let mut table = RequestTable::new(capacity);
    let mut waiting = BTreeMap::new();
    // Every id that there ever was, with its request.
    let mut all: Vec<(u64, u64)> = Vec::new();
    let mut unknown = 0;
    for number in 0..4096 {
        if script.is_exhausted() {
            break;
        }
        match script.byte() % 8 {
            0..=2 => match table.insert(number) {
                Ok(id) => {
                    assert!(waiting.len() < capacity, "more requests than the table takes");
                    assert!(id != 0 && all.iter().all(|(used, _)| *used != id), "id {id:#x} was used before");
                    waiting.insert(id, number);
                    all.push((id, number));
                }
                Err(TableFull(back)) => assert!(back == number && waiting.len() == capacity),
            },
            3 | 4 => {
                let id = id(&mut script, &all);
                let expected = waiting.remove(&id);
                unknown += u64::from(expected.is_none());
                assert_eq!(table.complete(id), expected, "completion of {id:#x}");
            }
            5 => {
                let id = id(&mut script, &all);
                assert_eq!(table.cancel(id), waiting.remove(&id), "{id:#x} cancelled");
            }
            6 => {
                let id = id(&mut script, &all);
                assert_eq!(table.get(id), waiting.get(&id));
                let (request, expected) = (table.get_mut(id), waiting.get_mut(&id));
                assert_eq!(request, expected);
                if let (Some(request), Some(expected)) = (request, expected) {
                    *request += 1 << 32;
                    *expected += 1 << 32;
                }
            }
            _ => {
                if script.byte() < 16 {
                    let mut cancelled: Vec<u64> = table.cancel_all().collect();
                    cancelled.sort_unstable();
                    let mut expected: Vec<u64> = std::mem::take(&mut waiting).into_values().collect();
                    expected.sort_unstable();
                    assert_eq!(cancelled, expected, "all cancelled");
                }
            }
        }
        assert_eq!((table.len(), table.is_empty()), (waiting.len(), waiting.is_empty()));
        assert_eq!((table.unknown(), table.capacity()), (unknown, capacity));
    }
    for (id, request) in waiting {
        assert_eq!(table.complete(id), Some(request));
    }
    assert!(table.is_empty());
}

/// An id as a host might send it.
fn id(script: &mut Script<'_>, all: &[(u64, u64)]) -> u64 {
    let how = script.byte();
    let back = usize::from(script.byte()) % all.len().max(1);
    let known = all.iter().rev().nth(back).map_or(0, |(id, _)| *id);
    match how {
        0..160 => known,
        // Another slot, another generation: one bit is wrong.
        160..224 => known ^ 1 << (how % 64),
        224..240 => known.wrapping_add(u64::from(script.byte())),
        _ => script.u64(),
    }
}
