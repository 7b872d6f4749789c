//! Plain text tables: first column left-aligned, numbers right-aligned.

/// Rows of cells under a header.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that are aligned to the left.
    left: Vec<bool>,
}

impl Table {
    /// A table with these columns; a name that starts with `<` is a left-aligned column.
    pub(crate) fn new(columns: &[&str]) -> Table {
        let left = columns.iter().map(|c| c.starts_with('<')).collect();
        let head = columns.iter().map(|c| c.trim_start_matches('<').to_owned()).collect();
        Table { rows: vec![head], left }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table, each line after `indent` spaces.
    pub(crate) fn render(&self, indent: usize) -> String {
        let columns = self.left.len();
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (c, cell) in row.iter().enumerate().take(columns) {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                let gap = if c == 0 { "" } else { "  " };
                let (before, after) =
                    if self.left[c] { ("", pad.as_str()) } else { (pad.as_str(), "") };
                line.push_str(&format!("{gap}{before}{cell}{after}"));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["<name", "error", "<"]);
        table.row(["o".into(), "1.0e-3".into(), "ok".into()]);
        table.row(["expiry".into(), "0".into(), "ok".into()]);
        assert_eq!(table.render(1), " name     error\n o       1.0e-3  ok\n expiry       0  ok\n");
    }
}
