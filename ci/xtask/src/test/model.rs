//! The model checks: loom tries every order of few threads, shuttle many random orders of more.

use std::path::Path;

use anyhow::Result;

use super::step::{self, Outcome};

/// A crate, the cfg that turns its shared state into a model's, and the test that runs it.
const MODELS: [(&str, &str, &str); 9] = [
    ("vmbus-ringbuf", "loom", "loom"),
    ("vmbus-channels", "loom", "loom"),
    ("vmbus-channels", "loom", "group_loom"),
    ("vmbus-devices", "loom", "registry_loom"),
    ("vmbus-devices", "loom", "endpoint_loom"),
    ("vmbus-channels", "shuttle", "shuttle"),
    ("vmbus-channels", "shuttle", "group_shuttle"),
    ("vmbus-devices", "shuttle", "registry_shuttle"),
    ("vmbus-devices", "shuttle", "endpoint_shuttle"),
];

pub(super) fn check(root: &Path) -> Result<Outcome> {
    for (package, checker, test) in MODELS {
        let flags = format!("--cfg {checker}");
        // A folder of its own for each, or every build would throw the last one away.
        let target = root.join("target").join(checker).display().to_string();
        let command = ["test", "--package", package, "--release", "--test", test];
        let speed = [("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")];
        let environment = [&[("RUSTFLAGS", &*flags), ("CARGO_TARGET_DIR", &*target)], &speed[..]].concat();
        match step::cargo(root, &command, &environment)? {
            Outcome::Passed => {}
            other => return Ok(other),
        }
    }
    Ok(Outcome::Passed)
}
