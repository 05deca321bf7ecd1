//! Standard output: lines and JSON, through a stream that drops colours where there is no terminal for them.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use anstyle::Style;
use serde::Serialize;

/// Headings and names.
pub(crate) const BOLD: Style = Style::new().bold();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Standard output, locked. `NO_COLOR`, `CLICOLOR` and the like are respected.
pub(crate) fn stdout() -> AutoStream<io::StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// Prints one line.
pub(crate) fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    writeln!(stdout(), "{}", text.as_ref())?;
    Ok(())
}

/// Prints one line at once, for who reads along.
pub(crate) fn line_now(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut stdout = stdout();
    writeln!(stdout, "{}", text.as_ref())?;
    stdout.flush()?;
    Ok(())
}

/// Prints a document for programs, indented: it is read by people too.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    line(text)
}

/// Prints one JSON object as a line of its own, at once.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    let mut stdout = stdout();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// The columns of the terminal on standard output; `None` where there is no terminal, and so no limit.
pub(crate) fn columns() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Breaks `text` into lines of at most `width` columns, between words; a longer word gets a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities a", 5), ["incomprehensibilities", "a"]);
        assert!(wrap("", 5).is_empty());
    }
}
