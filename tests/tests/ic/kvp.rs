//! Key-value pairs: the host's view of the pools, of the facts, and of the network hook.

use std::sync::mpsc::{Sender, channel};

use vmbus_devices::ic::kvp::facts::Facts;
use vmbus_devices::ic::kvp::network::{IpSettings, Network};
use vmbus_devices::ic::kvp::pool::Pools;
use vmbus_devices::ic::{Kvp, wire::Status};
use vmbus_simhost::device::ic::{ComponentHost, HostSettings, KvpAnswer, KvpAnswers, KvpHost};
use vmbus_tests::LONG;

use crate::world::World;

struct Three;

impl Facts for Three {
    fn all(&self) -> Vec<(String, String)> {
        ["one", "two", "drei 🐧"].map(|name| (name.to_owned(), name.repeat(3))).into()
    }
}

struct Net(Sender<IpSettings>);

impl Network for Net {
    fn configure(&mut self, settings: &IpSettings) -> Result<(), String> {
        self.0.send(settings.clone()).map_err(|error| error.to_string())
    }
}

fn answer(status: Status, key: &str, value: &str) -> KvpAnswer {
    KvpAnswer { status: status.0, key: key.to_owned(), value: value.to_owned() }
}

#[test]
fn a_host_reads_and_writes_keys_at_every_version() {
    for (versions, agreed) in [(vec![(3, 0)], 0x3_0000), (vec![(3, 0), (4, 0), (5, 0)], 0x4_0000)] {
        let (folder, answers) = (tempfile(), KvpAnswers::default());
        let heard = answers.clone();
        let settings = HostSettings { versions, ..HostSettings::default() };
        let spec = ComponentHost::spec(move || KvpHost::new(heard.clone()), settings);
        let (net, configured) = channel();
        let world = World::start(spec, Kvp::new(Pools::in_folder(folder.path()), Three, Net(net)));
        let none = answer(Status::NO_MORE_ITEMS, "", "");
        let ok = |key: &str, value: &str| answer(Status::OK, key, value);
        let mut facts = ["one", "two", "drei 🐧"].map(|name| ok(name, &name.repeat(3))).to_vec();
        facts.push(none.clone());
        let mut done = 0;
        for (words, expected) in [
            ("get 0 name", vec![none.clone()]),
            ("set 0 name wert mit Leerzeichen", vec![ok("", "")]),
            ("set 0 ümlaut ✓", vec![ok("", "")]),
            ("get 0 name", vec![ok("", "wert mit Leerzeichen")]),
            ("enumerate 0", vec![ok("name", "wert mit Leerzeichen"), ok("ümlaut", "✓"), none.clone()]),
            ("delete 0 name", vec![ok("", "")]),
            ("delete 0 name", vec![none.clone()]),
            ("enumerate 0", vec![ok("ümlaut", "✓"), none.clone()]),
            ("enumerate 1", vec![none.clone()]),
            ("set 2 fact x", vec![answer(Status::INVALID_ARGUMENT, "", "")]),
            ("enumerate 2", facts),
        ] {
            done += u64::try_from(expected.len()).unwrap();
            world.command(words);
            world.wait("done", done);
            assert_eq!(answers.take(), expected, "{words}");
        }
        assert_eq!(world.count("version"), agreed);
        world.command("configure {f8615163-df3e-46c5-913f-f2d2f965ed0e} 10.0.0.5 255.255.255.0");
        assert_eq!(configured.recv_timeout(LONG).unwrap().addresses, ["10.0.0.5".parse::<std::net::IpAddr>().unwrap()]);
        world.command("configure eth0 10.0.0.5 255.255.255.0");
        world.wait("done", done + 2);
        assert_eq!(answers.take(), [ok("", ""), answer(Status::GUID_NOT_FOUND, "", "")]);
        world.end();
    }
}

#[test]
fn keys_outlive_the_device() {
    let (folder, answers) = (tempfile(), KvpAnswers::default());
    for round in 0..3 {
        let heard = answers.clone();
        let spec = ComponentHost::spec(move || KvpHost::new(heard.clone()), HostSettings::default());
        let (net, _) = channel();
        let mut world = World::start(spec, Kvp::new(Pools::in_folder(folder.path()), Three, Net(net)));
        world.command("enumerate 3");
        world.wait("rounds", 1);
        assert_eq!(answers.take().len(), round + 1);
        world.command(&format!("set 3 key{round} value"));
        world.wait("done", u64::try_from(round + 2).unwrap());
        drop(answers.take());
        world.rescind();
        world.end();
    }
}

fn tempfile() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
