//! The program as a user sees it: every `tests/cmd/*.trycmd` is run beside a set of made-up machines.
//!
//! `TRYCMD=overwrite cargo test -p vmbusctl --test cmd` writes down what it prints now; read the difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

#[test]
fn commands() {
    // Cases run in their own folder, so that `--root hyperv` finds the machine and prints the same path everywhere.
    let folder = tempfile::tempdir().unwrap();
    common::hyperv(&folder.path().join("hyperv"));
    common::old(&folder.path().join("old"));
    common::none(&folder.path().join("none"));
    common::no_driver(&folder.path().join("no-driver"));
    common::empty(&folder.path().join("empty"));
    let broken = common::hyperv(&folder.path().join("broken"));
    broken.write(&format!("sys/bus/vmbus/devices/{}/id", common::BALLOON), "one\n");

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    copy_cases(&source, folder.path());
    // This file has no other test that could mind.
    std::env::set_current_dir(folder.path()).unwrap();
    let cases = trycmd::TestCases::new();
    cases.case("*.trycmd");
    for variable in ["RUST_LOG", "VMBUS_LOG", "CLICOLOR_FORCE", "COLUMNS"] {
        cases.env(variable, "");
    }
    cases.run();
    if std::env::var("TRYCMD").is_ok_and(|mode| mode == "overwrite") {
        copy_cases(folder.path(), &source);
    }
}

fn copy_cases(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "trycmd") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
