//! Tables without rules; where the terminal is too narrow for one, a record of lines for each row.

use std::io::Write;

use comfy_table::{Table, presets};

use crate::output::{self, BOLD, DIM};

/// Blanks between columns.
const GAP: u16 = 2;

/// A table in the making.
pub(crate) struct Columns {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it below `indent` blanks.
    pub(crate) fn print(&self, indent: u16) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(&self.header).add_rows(&self.rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        let widths = table.column_max_content_widths();
        let width = widths.iter().fold(indent, |sum, width| sum.saturating_add(*width).saturating_add(GAP));
        // The last column's gap is not printed.
        match output::columns() {
            Some(columns) if width.saturating_sub(GAP) > columns => self.print_records(indent),
            _ => print_table(&table, indent),
        }
    }

    fn print_records(&self, indent: u16) -> anyhow::Result<()> {
        let indent = usize::from(indent);
        let key_width = self.header.iter().map(|key| key.len()).max().unwrap_or(0);
        let mut stdout = output::stdout();
        for row in &self.rows {
            for (number, (key, value)) in self.header.iter().zip(row).enumerate() {
                let more = if number == 0 { 0 } else { 2 };
                let style = if number == 0 { BOLD } else { DIM };
                let key_width = key_width + 2 - more;
                writeln!(stdout, "{:1$}{style}{key:<key_width$}{style:#} {value}", "", indent + more)?;
            }
        }
        Ok(())
    }
}

fn print_table(table: &Table, indent: u16) -> anyhow::Result<()> {
    let indent = usize::from(indent);
    let mut stdout = output::stdout();
    for (number, line) in table.lines().enumerate() {
        let line = line.trim_end();
        let style = if number == 0 { BOLD } else { anstyle::Style::new() };
        writeln!(stdout, "{:indent$}{style}{line}{style:#}", "")?;
    }
    Ok(())
}

/// A value, or a dash.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
