//! Tables without rules, as wide as the terminal allows.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};

use crate::output::{self, BOLD};

/// A table in the making.
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.iter().copied());
        match output::columns() {
            Some(columns) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells);
    }

    /// Prints it below `indent` blanks.
    pub(crate) fn print(&self, indent: usize) -> anyhow::Result<()> {
        let mut stdout = output::stdout();
        for (number, line) in self.table.lines().enumerate() {
            let line = line.trim_end();
            if number == 0 {
                writeln!(stdout, "{:indent$}{BOLD}{line}{BOLD:#}", "")?;
            } else {
                writeln!(stdout, "{:indent$}{line}", "")?;
            }
        }
        Ok(())
    }
}

/// A value, or a dash.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
