//! Endpoints under shuttle: four threads that bind, look up, deliver, accept, connect and close in random orders.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p vmbus-devices --release --test endpoint_shuttle`. A failure prints its
//! seed; `VMBUS_SEED=N` replays that one alone. Each mutant must be caught within the seeds that pass without it.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use shuttle::{Config, Runner, thread};
use uuid::Uuid;
use vmbus_devices::socket::endpoint::mutation::Mutation;
use vmbus_devices::socket::endpoint::{Endpoints, Held, Kind, Owner, Phase, Refused};

/// Seeds that must pass, and among which each mutant must be caught.
const SEEDS: u64 = 6000;
const NAMES: u128 = 2;

/// One that is counted: it must be in one place, and be dropped in the end.
struct Item(Arc<AtomicU32>);

impl Drop for Item {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

struct Items;

impl Kind for Items {
    type Incoming = Item;
    type Outcome = Item;
    type Bell = ();
}

#[derive(Clone)]
struct World {
    endpoints: Endpoints<Items>,
    items: Arc<AtomicU32>,
    /// The end has come.
    ended: Arc<AtomicBool>,
    /// Binders that have each name now.
    owners: [Arc<AtomicU32>; NAMES as usize],
}

impl World {
    fn item(&self) -> Item {
        self.items.fetch_add(1, Ordering::SeqCst);
        Item(Arc::clone(&self.items))
    }

    fn name(&self) -> usize {
        thread_rng().gen_range(0..2)
    }

    /// Listens for a while; whoever waits in it is woken by its end.
    fn listen(&self) {
        let index = self.name();
        let name = Uuid::from_u128(index as u128 + 1);
        let fails = thread_rng().gen_range(0..4) == 0;
        let start = |endpoint: &Held<Items>| if fails { Err(Refused::Bound) } else { endpoint.listen(1) };
        let Ok(owner) = self.endpoints.bind(name, (), start) else { return };
        assert_eq!(self.owners[index].fetch_add(1, Ordering::SeqCst), 0, "two have one name");
        // Given up before the name is, by whoever closes.
        let counted = Arc::new(AtomicBool::new(true));
        let gives_up = {
            let (counted, owners) = (Arc::clone(&counted), Arc::clone(&self.owners[index]));
            move || {
                if counted.swap(false, Ordering::SeqCst) {
                    owners.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        if thread_rng().gen_range(0..2) == 0 {
            let gives_up = gives_up.clone();
            owner.call_back(move |endpoint: &Held<Items>| {
                gives_up();
                drop(endpoint.close());
            });
        }
        let share = owner.share();
        let accepts = thread::spawn(move || drop(share.accept(None)));
        thread::yield_now();
        let closed = owner.phase() == Phase::Closed;
        assert!(
            closed || !self.ended.load(Ordering::SeqCst) || owner.phase() == Phase::Closed,
            "the end left one open"
        );
        assert!(owner.begin_connect().is_err(), "a bound endpoint connects");
        gives_up();
        self.close(&owner);
        accepts.join().unwrap();
    }

    fn close(&self, owner: &Owner<Items>) {
        drop(owner.close());
        assert_eq!(owner.phase(), Phase::Closed);
        assert!(owner.deliver(self.item()).is_err(), "taken in after the close");
    }

    /// Connects, while somebody closes.
    fn connect(&self) {
        let name = Uuid::from_u128(self.name() as u128 + 1);
        let Ok(owner) = self.endpoints.reserve(name, ()) else { return };
        if owner.begin_connect().is_err() {
            return;
        }
        let (share, item) = (owner.share(), self.item());
        let completes = thread::spawn(move || drop(share.complete(item)));
        if thread_rng().gen_range(0..2) == 0 {
            self.close(&owner);
        }
        drop(owner.outcome(None));
        completes.join().unwrap();
        drop(owner.close());
    }

    fn deliver(&self) {
        let name = Uuid::from_u128(self.name() as u128 + 1);
        if let Some(held) = self.endpoints.look_up(name) {
            assert_eq!(held.name(), name, "found somebody else");
            drop(held.deliver(self.item()));
        }
    }
}

fn scenario(without: Option<Mutation>) {
    let world = World {
        endpoints: Endpoints::without(4, without),
        items: Arc::new(AtomicU32::new(0)),
        ended: Arc::new(AtomicBool::new(false)),
        owners: [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))],
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let world = world.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    match thread_rng().gen_range(0..5) {
                        0 | 1 => world.listen(),
                        2 => world.connect(),
                        _ => world.deliver(),
                    }
                }
            })
        })
        .collect();
    if thread_rng().gen_range(0..2) == 0 {
        world.endpoints.end();
        world.ended.store(true, Ordering::SeqCst);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((world.endpoints.in_use(), world.endpoints.names()), (0, 0), "the table is empty at the end");
    assert_eq!(world.items.load(Ordering::SeqCst), 0, "connections are left");
}

fn run(seed: u64, without: Option<Mutation>) {
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.stack_size = 0x20000;
    if seed % 2 == 0 {
        Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(move || scenario(without));
    } else {
        Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(move || scenario(without));
    }
}

#[test]
fn r3_1_to_r3_5_in_random_orders() {
    let only = std::env::var("VMBUS_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let fresh = u64::from(std::process::id()) << 32;
    let seeds = only.map_or_else(|| (0..SEEDS).chain(fresh..fresh + SEEDS / 3).collect(), |seed| vec![seed]);
    for seed in seeds {
        if let Err(panic) = catch_unwind(|| run(seed, None)) {
            println!("VMBUS_SEED={seed} shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Set in the process that runs a mutant.
const CHILD: &str = "VMBUS_MUTANT";

/// Runs a mutant in a process of its own, as what is found may not unwind.
fn is_caught(test: &str, mutation: Mutation) -> bool {
    if std::env::var_os(CHILD).is_some() {
        let caught = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, Some(mutation)))).is_err();
        let seed = (0..SEEDS).find(caught);
        assert_eq!(seed, None, "{mutation:?} is caught by this seed");
        println!("nothing was found");
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "{said}");
    !said.contains("nothing was found") && !output.status.success()
}

macro_rules! mutants {
    ($($name:ident: $mutation:ident,)*) => {
        $(#[test]
        fn $name() {
            assert!(is_caught(stringify!($name), Mutation::$mutation));
        })*
    };
}

mutants! {
    r3_1_mutant_bare_key_is_caught: LookUpBareKey,
    r3_2_mutant_publish_first_is_caught: PublishFirst,
    r3_2_mutant_forget_on_failure_is_caught: ForgetOnFailure,
    r3_3_mutant_check_then_set_is_caught: CheckThenSet,
    r3_3_mutant_connect_anyhow_is_caught: ConnectAnyhow,
    r3_4_mutant_close_tells_nobody_is_caught: CloseTellsNobody,
    r3_4_mutant_close_waits_for_callback_is_caught: CloseWaitsForCallback,
    r3_4_mutant_deliver_after_close_is_caught: DeliverAfterClose,
    r3_5_mutant_keep_closed_is_caught: KeepClosed,
}
