//! The DEVICE argument: any text, with the class names as candidates for a shell's completion.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use vmbus::class::Class;

/// Takes any text: what it selects is known only once the bus is read.
#[derive(Clone, Debug)]
pub(crate) struct SelectorParser;

impl TypedValueParser for SelectorParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    /// Candidates for completion, not limits.
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Class::known().iter().map(|known| PossibleValue::new(known.short))))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn any_text_is_taken_and_class_names_complete() {
        for text in ["uio7", "12", "{1eccfd72-4b41-45ef-b73a-4a6e44c12924}", "whatever"] {
            assert!(Cli::try_parse_from(["vmbusctl", "status", text]).is_ok(), "{text}");
        }
        let mut script = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut <Cli as clap::CommandFactory>::command(),
            "vmbusctl",
            &mut script,
        );
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("keyboard"), "{script}");
    }
}
