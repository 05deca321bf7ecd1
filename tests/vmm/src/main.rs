//! The VMM's command line.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
