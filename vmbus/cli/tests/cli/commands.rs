//! The program as a user sees it: every `tests/cmd/*.trycmd` is run beside a set of made-up machines.
//!
//! `TRYCMD=overwrite cargo test -p vmbusctl --test cli` writes down what it prints now; read the difference.

use std::fs;
use std::path::Path;

use super::machines;

#[test]
fn commands() {
    // Cases run in their own folder, so that `--root hyperv` finds the machine and prints the same path everywhere.
    let folder = tempfile::tempdir().unwrap();
    machines::hyperv(&folder.path().join("hyperv"));
    machines::old(&folder.path().join("old"));
    machines::none(&folder.path().join("none"));
    machines::no_driver(&folder.path().join("no-driver"));
    machines::left_open(&folder.path().join("left-open"));
    machines::empty(&folder.path().join("empty"));
    let broken = machines::hyperv(&folder.path().join("broken"));
    broken.write(&format!("sys/bus/vmbus/devices/{}/id", machines::BALLOON), "one\n");

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    copy_cases(&source, folder.path());
    // The other tests use absolute paths only.
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
