//! The table against a model: a map of what waits, and every id that was ever given out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{LAST_GENERATION, RequestTable, SLOT_BITS, TableFull};

#[derive(Debug, Clone)]
enum Step {
    Insert,
    /// An id that was given out at some time, by its number.
    Complete(usize),
    Cancel(usize),
    /// Whatever a host may say.
    Invent(u64),
    /// An id that was given out, with one bit wrong.
    Flip(usize, u32),
    CancelAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Insert),
        6 => any::<usize>().prop_map(Step::Complete),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<u64>().prop_map(Step::Invent),
        1 => (any::<usize>(), 0..64_u32).prop_map(|(which, bit)| Step::Flip(which, bit)),
        1 => Just(Step::CancelAll),
    ]
}

/// Runs the steps on both. `generation`: where the table begins to count.
fn compare(steps: Vec<Step>, capacity: usize, generation: u64) -> Result<(), TestCaseError> {
    let mut table = RequestTable::new(capacity);
    table.generation = generation;
    let mut model = BTreeMap::new();
    let (mut given, mut unknown) = (Vec::new(), 0);
    let named = |given: &Vec<u64>, which: usize| given.get(which % given.len().max(1)).copied().unwrap_or(77);
    for (number, step) in steps.into_iter().enumerate() {
        let complete = match step {
            Step::Insert => {
                match table.insert(number) {
                    Ok(id) => {
                        prop_assert_ne!(id, 0);
                        prop_assert!(!given.contains(&id), "given out twice");
                        prop_assert_eq!(model.insert(id, number), None);
                        given.push(id);
                    }
                    Err(TableFull(back)) => {
                        prop_assert_eq!((back, model.len()), (number, capacity));
                    }
                }
                None
            }
            Step::Complete(which) => Some(named(&given, which)),
            Step::Invent(id) => Some(id),
            Step::Flip(which, bit) => Some(named(&given, which) ^ 1 << bit),
            Step::Cancel(which) => {
                let id = named(&given, which);
                prop_assert_eq!(table.cancel(id), model.remove(&id));
                None
            }
            Step::CancelAll => {
                let mut all: Vec<_> = table.cancel_all().collect();
                all.sort_unstable();
                let mut expected: Vec<_> = std::mem::take(&mut model).into_values().collect();
                expected.sort_unstable();
                prop_assert_eq!(all, expected);
                None
            }
        };
        if let Some(id) = complete {
            prop_assert_eq!(table.get(id), model.get(&id));
            prop_assert_eq!(table.get_mut(id).copied(), model.get(&id).copied());
            let expected = model.remove(&id);
            unknown += u64::from(expected.is_none());
            prop_assert_eq!(table.complete(id), expected);
        }
        prop_assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
        prop_assert_eq!(table.unknown(), unknown);
    }
    Ok(())
}

proptest! {
    /// Red when `get` does not compare generations, when `complete` does not remove, or when `cancel` counts.
    #[test]
    fn behaves_like_the_model(steps in proptest::collection::vec(step(), 0..200), capacity in 0..9_usize) {
        compare(steps, capacity, 1)?;
    }

    /// Around the place where generations begin again: 0 is left out, so no id is zero.
    #[test]
    fn generations_come_round(steps in proptest::collection::vec(step(), 0..60), back in 0..20_u64) {
        compare(steps, 4, LAST_GENERATION - back)?;
    }
}

#[test]
fn an_id_is_good_for_one_completion() {
    let mut table = RequestTable::new(2);
    let first = table.insert('a').unwrap();
    assert_eq!(table.complete(first), Some('a'));
    let second = table.insert('b').unwrap();
    assert_eq!(first & ((1 << SLOT_BITS) - 1), second & ((1 << SLOT_BITS) - 1), "the slot is used again");
    assert_eq!((table.complete(first), table.unknown()), (None, 1), "an older generation");
    assert_eq!((table.complete(0), table.unknown()), (None, 2), "never given out");
    assert_eq!(table.complete(second), Some('b'));
    assert_eq!((table.complete(second), table.unknown()), (None, 3), "done already");
}

#[test]
fn a_full_table_gives_the_request_back() {
    let mut table = RequestTable::new(1);
    let id = table.insert("first").unwrap();
    assert_eq!(table.insert("second"), Err(TableFull("second")));
    assert_eq!(table.cancel(id), Some("first"));
    assert!(table.insert("third").is_ok());
    assert_eq!(RequestTable::<()>::new(usize::MAX).capacity(), RequestTable::<()>::MOST);
}
