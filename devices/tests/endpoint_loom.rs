//! Endpoints in every order of two and three threads. Each protection that is taken away must be noticed.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vmbus-devices --release --test endpoint_loom`.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use uuid::Uuid;
use vmbus_devices::socket::endpoint::mutation::Mutation;
use vmbus_devices::socket::endpoint::{Endpoints, Held, Kind, Owner, Phase, Refused};

struct Numbers;

impl Kind for Numbers {
    type Incoming = u32;
    type Outcome = u32;
    type Bell = ();
}

type All = Endpoints<Numbers>;

const NAME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn bind(endpoints: &All, name: Uuid) -> Result<Owner<Numbers>, Refused> {
    endpoints.bind(name, (), |endpoint| endpoint.listen(1))
}

/// Runs a scenario in every order, and looks at the end whether anything is left.
fn model(without: Option<Mutation>, scenario: fn(&All)) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let endpoints = All::without(4, without);
        scenario(&endpoints);
        // R3.5 holds at the end of each of them.
        assert_eq!((endpoints.in_use(), endpoints.names()), (0, 0), "the table is empty at the end");
    });
}

/// Set in the process that runs a mutant.
const CHILD: &str = "VMBUS_MUTANT";

/// Runs a mutant in a process of its own, which must fail: loom can't unwind what it finds while shares are held, and
/// aborts.
fn is_caught(test: &str, without: Mutation, scenario: fn(&All)) -> bool {
    if std::env::var_os(CHILD).is_some() {
        model(Some(without), scenario);
        return false;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("running 1 test"), "{said}");
    // The scenario's own verdict, or a deadlock; not that it came to an end and nothing was found.
    said.contains("panicked at") && !said.contains(NOT_CAUGHT)
}

/// What a child says that found nothing.
const NOT_CAUGHT: &str = "nothing was found";

/// One name goes, another takes its slot; a lookup of the first never finds the second.
fn lookup_and_rebind(endpoints: &All) {
    let first = bind(endpoints, NAME).unwrap();
    let theirs = endpoints.clone();
    let changes = thread::spawn(move || {
        drop(first);
        drop(bind(&theirs, OTHER).unwrap());
    });
    if let Some(found) = endpoints.look_up(NAME) {
        assert_eq!(found.name(), NAME, "found somebody else");
        if found.deliver(7).is_err() {
            assert_eq!(found.phase(), Phase::Closed);
        }
    }
    changes.join().unwrap();
}

/// Somebody binds while everything ends: whoever got in is closed by the end.
fn bind_and_end(endpoints: &All) {
    let theirs = endpoints.clone();
    let binder = thread::spawn(move || bind(&theirs, NAME));
    endpoints.end();
    if let Ok(owner) = binder.join().unwrap() {
        assert_eq!(owner.phase(), Phase::Closed, "it got in and nobody closed it");
    }
}

/// An endpoint fails to start while somebody looks it up.
fn failed_start(endpoints: &All) {
    let theirs = endpoints.clone();
    let looks = thread::spawn(move || theirs.look_up(NAME).map(|held| held.deliver(1)));
    let failed = endpoints.bind(NAME, (), |_| Err(Refused::Bound));
    assert!(failed.is_err());
    looks.join().unwrap();
    assert_eq!(endpoints.names(), 0, "the name is free again");
}

/// Two want one name: one has it.
fn two_binders(endpoints: &All) {
    let theirs = endpoints.clone();
    let other = thread::spawn(move || bind(&theirs, NAME));
    let mine = bind(endpoints, NAME);
    let other = other.join().unwrap();
    let both = mine.is_ok() && other.is_ok();
    assert!(!both, "both have the name");
    assert!(mine.is_ok() || other.is_ok(), "nobody has it");
}

/// A connect on an endpoint that another thread closes, and one more on the same: at most one goes through.
fn two_connects(endpoints: &All) {
    let owner = Arc::new(endpoints.reserve(NAME, ()).unwrap());
    let share = owner.share();
    let other = thread::spawn(move || share.begin_connect().is_ok());
    let mine = owner.begin_connect().is_ok();
    let other = other.join().unwrap();
    assert!(!(mine && other), "connected twice");
}

/// Somebody accepts, somebody closes, somebody delivers: the wait ends, and nothing is kept.
fn accept_and_close(endpoints: &All) {
    let owner = bind(endpoints, NAME).unwrap();
    let (accepts, delivers) = (owner.share(), owner.share());
    let accepting = thread::spawn(move || accepts.accept(None));
    let delivering = thread::spawn(move || delivers.deliver(7));
    let remains = owner.close();
    let accepted = accepting.join().unwrap();
    let delivered = delivering.join().unwrap();
    let left = remains.map_or(0, |remains| remains.incoming.len());
    let places = usize::from(accepted == Ok(7)) + left + usize::from(delivered == Err(7));
    assert_eq!(places, 1, "what came in is in one place: accepted, given back, or left at the close");
}

/// A connect in progress is closed; its outcome comes before, meanwhile, or after.
fn connect_and_close(endpoints: &All) {
    let owner = endpoints.reserve(NAME, ()).unwrap();
    owner.begin_connect().unwrap();
    let (waits, completes) = (owner.share(), owner.share());
    let waiting = thread::spawn(move || waits.outcome(None));
    let completing = thread::spawn(move || completes.complete(7));
    let remains = owner.close();
    let waited = waiting.join().unwrap();
    let completed = completing.join().unwrap();
    let left = usize::from(remains.is_some_and(|remains| remains.outcome.is_some()));
    assert_eq!(usize::from(waited == Ok(7)) + left + usize::from(completed == Err(7)), 1);
}

/// The endpoint's own callback closes it, while another thread does.
fn callback_closes(endpoints: &All) {
    let owner = bind(endpoints, NAME).unwrap();
    owner.call_back(|endpoint: &Held<Numbers>| drop(endpoint.close()));
    let delivers = owner.share();
    let delivering = thread::spawn(move || drop(delivers.deliver(7)));
    // Not by its drop: a model that finds something there can't unwind.
    drop(owner.close());
    delivering.join().unwrap();
}

macro_rules! models {
    ($($name:ident: $scenario:ident, $($mutant:ident: $mutation:ident,)*;)*) => {
        $(
            #[test]
            fn $name() {
                model(None, $scenario);
            }
            $(#[test]
            fn $mutant() {
                let caught = is_caught(stringify!($mutant), Mutation::$mutation, $scenario);
                assert!(caught, "{NOT_CAUGHT}");
            })*
        )*
    };
}

models! {
    r3_1_a_lookup_is_held: lookup_and_rebind,
        r3_1_mutant_bare_key_is_caught: LookUpBareKey,;
    r3_2_the_reference_comes_before_the_name: bind_and_end,
        r3_2_mutant_publish_first_is_caught: PublishFirst,;
    r3_2_failure_gives_back: failed_start,
        r3_2_mutant_forget_on_failure_is_caught: ForgetOnFailure,;
    r3_3_a_name_is_had_once: two_binders,
        r3_3_mutant_check_then_set_is_caught: CheckThenSet,;
    r3_3_one_connect: two_connects,
        r3_3_mutant_connect_anyhow_is_caught: ConnectAnyhow,;
    r3_4_close_ends_accept: accept_and_close,
        r3_4_mutant_close_tells_nobody_is_caught: CloseTellsNobody,
        r3_4_mutant_deliver_after_close_is_caught: DeliverAfterClose,
        r3_5_mutant_keep_closed_is_caught: KeepClosed,;
    r3_4_close_ends_connect: connect_and_close,
        r3_4_mutant_connect_is_not_told_is_caught: CloseTellsNobody,;
    r3_4_close_in_own_callback: callback_closes,
        r3_4_mutant_close_waits_for_callback_is_caught: CloseWaitsForCallback,;
}
