//! Why a guest ended or fell silent, from what is left: the consoles of both layers and its machine's own words.

use std::fs;
use std::path::Path;

use super::guest::tail;
use super::kernel_log::{complaints, emulator_failure};
use super::machine::Acceleration;

/// What the logs say about a guest's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sign {
    /// In words.
    pub(crate) text: String,
    /// It is, or is likely to be, the emulator's doing.
    pub(crate) emulator: bool,
}

/// Exit code of the VMM for a failure of its own.
const VMM_FAILED: &str = "1";

/// Reads the logs of a boot whose machine has ended, or whose guest is silent.
///
/// A guest that was emulated and ended without its kernel saying a word was reset by a triple fault. KVM on an emulated
/// AMD does that now and then: an interrupt is injected twice. It could be a kernel that lost its memory, too; whoever
/// plays the scenario once more finds out.
pub(crate) fn post_mortem(logs: &Path, acceleration: Acceleration) -> Option<Sign> {
    let read = |name: &str| {
        fs::read(logs.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    let (console, outer, machine) = (read("console.log"), read("l1-console.log"), read("machine.log"));
    let code = outer.lines().find_map(|line| Some(line.split_once("lab: the machine ended with ")?.1.trim()));
    let vmm_words = || outer.lines().take_while(|line| !line.contains("lab: the machine ended")).last();
    if code == Some(VMM_FAILED) {
        let words = vmm_words().unwrap_or_default();
        return Some(Sign { text: format!("its machine failed: {}", words.trim()), emulator: false });
    }
    if let Some(sign) = [&machine, &outer].into_iter().find_map(|log| emulator_failure(log)) {
        return Some(Sign { text: format!("the emulator's doing: {sign}"), emulator: true });
    }
    if let Some(complaint) = complaints(console.lines(), acceleration == Acceleration::Nested).into_iter().next() {
        return Some(Sign { text: complaint.line, emulator: complaint.emulator });
    }
    if acceleration == Acceleration::Nested && code.is_some() && !console.contains("reboot: ") {
        let text = "its processor was reset and its kernel said nothing: the emulator's doing, it seems";
        return Some(Sign { text: text.to_owned(), emulator: true });
    }
    let last_line = |what: &str, text: &str| {
        let last = tail(text.trim_end(), 200).lines().last()?.to_owned();
        (!last.is_empty()).then(|| Sign { text: format!("{what} ends with: {last}"), emulator: false })
    };
    last_line("its console", &console).or_else(|| last_line("its machine's output", &machine))
}

#[cfg(test)]
mod tests {
    use super::{Acceleration, Sign, post_mortem};

    fn examine(files: &[(&str, &str)], acceleration: Acceleration) -> Option<Sign> {
        let logs = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(logs.path().join(name), text).unwrap();
        }
        post_mortem(logs.path(), acceleration)
    }

    #[test]
    fn a_reset_without_a_word_is_the_emulators_where_there_is_one() {
        let ended = ("l1-console.log", "lab: the machine ended with 0\n");
        assert!(examine(&[ended], Acceleration::Nested).unwrap().emulator);
        assert_eq!(examine(&[ended], Acceleration::Kvm), None);
    }

    #[test]
    fn a_kernel_that_says_why_is_believed() {
        let ended = ("l1-console.log", "lab: the machine ended with 0\n");
        let panic = ("console.log", "[ 7.8] Kernel panic - not syncing: x\n");
        let sign = examine(&[ended, panic], Acceleration::Nested).unwrap();
        assert_eq!(sign, Sign { text: "[ 7.8] Kernel panic - not syncing: x".to_owned(), emulator: false });
        let off = ("console.log", "[ 7.8] reboot: Power down\n");
        let sign = examine(&[ended, off], Acceleration::Nested).unwrap();
        assert_eq!(sign.text, "its console ends with: [ 7.8] reboot: Power down");
        assert!(!sign.emulator);
    }

    #[test]
    fn a_vmm_that_fails_is_not_the_emulator_and_a_reset_is() {
        let failed = ("l1-console.log", "error: no such ioctl\nlab: the machine ended with 1\n");
        let sign = examine(&[failed], Acceleration::Nested).unwrap();
        assert_eq!((sign.text.as_str(), sign.emulator), ("its machine failed: error: no such ioctl", false));
        let reset = ("l1-console.log", "the guest was reset\nlab: the machine ended with 3\n");
        assert!(examine(&[reset], Acceleration::Nested).unwrap().emulator);
    }

    #[test]
    fn a_qemu_that_gives_up_is_the_emulator() {
        let sign = examine(&[("l1-console.log", "KVM internal error. Suberror: 1\n")], Acceleration::Nested).unwrap();
        assert!(sign.emulator, "{sign:?}");
    }
}
