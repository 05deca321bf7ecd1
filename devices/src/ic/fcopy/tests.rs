//! Copies that end well, and all that must not happen: traversal, links, overwriting, partial files.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

pub(super) fn start(folder: &str, name: &str, flags: u32, bytes: u64) -> Vec<u8> {
    let mut body = vec![0; 36];
    for text in [name, folder] {
        let from = body.len();
        body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        body.resize(from + 520, 0);
    }
    [body, flags.to_le_bytes().to_vec(), bytes.to_le_bytes().to_vec()].concat()
}

pub(super) fn write(offset: u64, bytes: u32, data: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    body.resize(40, 0);
    [&body, &offset.to_le_bytes()[..], &bytes.to_le_bytes(), data].concat()
}

fn plain(operation: u32) -> Vec<u8> {
    [&operation.to_le_bytes()[..], &[0; 32]].concat()
}

struct World {
    outer: tempfile::TempDir,
    copy: FileCopy,
    events: Vec<Event>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir_all(outer.path().join("inner/sub")).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        let copy = FileCopy::new(Store::open(outer.path().join("inner")).unwrap(), settings);
        Self { outer, copy, events: Vec::new() }
    }

    fn ask(&mut self, mut body: Vec<u8>) -> Status {
        let events = &mut self.events;
        self.copy.request(Duration::ZERO, Version::new(1, 1), &mut body, &mut |event| events.push(event))
    }

    /// A whole copy of three bytes; the first status that isn't well, if any.
    fn copy(&mut self, folder: &str, name: &str, flags: u32) -> Status {
        let steps = [start(folder, name, flags, 3), write(0, 3, b"new"), plain(2)];
        steps.into_iter().map(|step| self.ask(step)).find(|status| !status.is_ok()).unwrap_or(Status::OK)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.outer.path().join(path)).ok()
    }

    /// All files, but folders.
    fn files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
            entries.map(|entry| if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 1 }).sum()
        }
        count(self.outer.path())
    }
}

fn all() -> Settings {
    Settings { overwrite: true, ..Settings::default() }
}

#[test]
fn a_file_comes_in_parts_and_has_its_name_when_it_is_whole() {
    let mut world = World::new(Settings::default());
    let bytes: Vec<u8> = (0..=255).cycle().take(FRAGMENT_BYTES * 2 + 17).collect();
    assert_eq!(world.ask(start("/sub/new/er", "Grüße 🐧.bin", 2, bytes.len().try_into().unwrap())), Status::OK);
    for (index, part) in bytes.chunks(FRAGMENT_BYTES).enumerate() {
        let offset = u64::try_from(index * FRAGMENT_BYTES).unwrap();
        assert_eq!(world.ask(write(offset, part.len().try_into().unwrap(), part)), Status::OK);
        assert!(!world.outer.path().join("inner/sub/new/er/Grüße 🐧.bin").exists());
    }
    assert_eq!(world.ask(plain(2)), Status::OK);
    assert_eq!(fs::read(world.outer.path().join("inner/sub/new/er/Grüße 🐧.bin")).unwrap(), bytes);
    assert_eq!((world.files(), world.events.len()), (2, 2));
    assert_eq!(world.ask(start("", "empty", 0, 0)), Status::OK);
    assert_eq!(world.ask(plain(2)), Status::OK);
    assert_eq!(world.read("inner/empty").as_deref(), Some(""));
}

#[test]
fn no_path_leads_out() {
    let mut world = World::new(all());
    symlink(world.outer.path(), world.outer.path().join("inner/link")).unwrap();
    symlink(world.outer.path().join("secret"), world.outer.path().join("inner/secret")).unwrap();
    symlink("nowhere", world.outer.path().join("inner/dangling")).unwrap();
    let absolute = world.outer.path().to_str().unwrap().to_owned();
    for (folder, name) in [
        ("..", "secret"),
        ("sub/../..", "secret"),
        ("/sub/../../", "x"),
        ("", "../secret"),
        ("", ".."),
        ("", "."),
        ("", ""),
        ("", "sub/x"),
        ("..\\..", "x"),
        ("", "..\\x"),
        ("link", "secret"),
        ("link", "x"),
        ("sub/../link", "x"),
        ("", "secret"),
        ("", "dangling"),
        ("", "link"),
        ("", "sub"),
        ("secret", "x"),
        ("a/".repeat(40).as_str(), "x"),
        ("", "x.vmbus-partial"),
        ("", "x".repeat(250).as_str()),
    ] {
        assert_ne!(world.copy(folder, name, 3), Status::OK, "{folder:?} {name:?}");
    }
    assert_eq!(world.read("secret").as_deref(), Some("secret"));
    assert!(!world.outer.path().join("x").exists());
    // An absolute path is one below the folder.
    assert_eq!(world.copy(&absolute, "y", 3), Status::OK);
    assert_eq!(world.read(&format!("inner/{absolute}/y")).as_deref(), Some("new"));
}

#[test]
fn nothing_is_written_over_or_made_unless_both_want_it() {
    for (allowed, asked, status) in [
        (false, 0, Status::ALREADY_EXISTS),
        (false, 1, Status::ALREADY_EXISTS),
        (true, 0, Status::ALREADY_EXISTS),
        (true, 1, Status::OK),
    ] {
        let mut world = World::new(Settings { overwrite: allowed, ..Settings::default() });
        fs::write(world.outer.path().join("inner/old"), "old").unwrap();
        assert_eq!(world.copy("", "old", asked), status);
        assert_eq!(world.read("inner/old").as_deref(), Some(if status.is_ok() { "new" } else { "old" }));
        assert_eq!(world.files(), 2);
    }
    for (allowed, asked, status) in [(false, 2, Status::FAIL), (true, 0, Status::FAIL), (true, 2, Status::OK)] {
        let mut world = World::new(Settings { make_folders: allowed, ..Settings::default() });
        assert_eq!(world.copy("x/y", "z", asked), status);
    }
    // A file that appears meanwhile is not written over.
    let mut world = World::new(Settings::default());
    assert_eq!(world.ask(start("", "race", 0, 0)), Status::OK);
    fs::write(world.outer.path().join("inner/race"), "theirs").unwrap();
    assert_eq!(world.ask(plain(2)), Status::ALREADY_EXISTS);
    assert_eq!((world.read("inner/race").as_deref(), world.files()), (Some("theirs"), 2));
}

#[test]
fn what_is_not_whole_goes_away() {
    let begin = || start("", "file", 0, 10);
    for (steps, status) in [
        (vec![begin(), plain(2)], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, 9, &[0; 9]), plain(2)], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, 11, &[0; 11])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(1, 9, &[0; 9])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(u64::MAX, 9, &[0; 9])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, 9, &[0; 8])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, u32::MAX, &[0; 8])], Status::INVALID_ARGUMENT),
        (vec![start("", "file", 0, 9000), write(0, 6145, &[0; 6145])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, 5, &[0; 5]), write(0, 5, &[0; 5])], Status::INVALID_ARGUMENT),
        (vec![begin(), write(0, 5, &[0; 5]), plain(3)], Status::OK),
        (vec![begin(), start("..", "x", 0, 1)], Status::INVALID_ARGUMENT),
        (vec![start("", "file", 0, u64::MAX)], Status::DISK_FULL),
        (vec![plain(2)], Status::FAIL),
        (vec![write(0, 0, &[])], Status::FAIL),
        (vec![plain(4)], Status::NOT_SUPPORTED),
        (vec![vec![0; 35]], Status::INVALID_ARGUMENT),
        (vec![vec![0; 1087]], Status::INVALID_ARGUMENT),
        (vec![[&[0; 36][..], &[0x61; 1052]].concat()], Status::INVALID_ARGUMENT),
    ] {
        let mut world = World::new(Settings::default());
        let last = steps.into_iter().map(|step| world.ask(step)).last();
        assert_eq!((last, world.files(), world.copy.deadline()), (Some(status), 1, None));
    }
    for way in 0..3 {
        let mut world = World::new(Settings::default());
        assert_eq!(world.ask(begin()), Status::OK);
        assert_eq!(world.files(), 2);
        let mut events = Vec::new();
        match way {
            0 => world.copy.ended(Ending::Lost, &mut |event| events.push(event)),
            1 => {
                world.copy.elapsed(Duration::from_secs(599), &mut |_| panic!("too early"));
                world.copy.elapsed(Duration::from_secs(600), &mut |event| events.push(event));
            }
            _ => world.copy = FileCopy::new(Store::open(world.outer.path()).unwrap(), Settings::default()),
        }
        assert_eq!((world.files(), events.len()), (1, usize::from(way < 2)));
    }
}

/// A disk that is full says so at the beginning, and nothing is left on it.
#[test]
fn a_full_disk_is_told() {
    let mut world = World::new(Settings { bytes_at_most: u64::MAX, ..Settings::default() });
    // More than any disk of today has; some file systems say that it is too large.
    let status = world.ask(start("", "huge", 0, 1 << 60));
    assert!(!status.is_ok());
    assert_eq!(world.files(), 1);
    assert_eq!(store::status(rustix::io::Errno::NOSPC), Status::DISK_FULL);
}

proptest! {
    #[test]
    fn nothing_that_comes_leaves_the_folder(
        folder in "[./\\\\ab]{0,12}", name in "[./\\\\ab]{0,6}", flags in 0..4_u32, noise: Vec<u8>,
    ) {
        let mut world = World::new(all());
        let _ = world.copy(&folder, &name, flags);
        let _ = world.ask(noise);
        world.copy.ended(Ending::Stopped, &mut |_| {});
        let outside: Vec<_> = fs::read_dir(world.outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        prop_assert_eq!(outside.len(), 2, "{:?}", outside);
        prop_assert_eq!(world.read("secret"), Some("secret".to_owned()));
    }
}
