//! Boxes drawn with `+-|=`, as all of the tool's tables are.

/// A table of a fixed inner width.
#[derive(Debug)]
pub(super) struct Table {
    width: usize,
    text: String,
}

impl Table {
    /// A table with its title and head; the head ends in a double rule.
    pub(super) fn new(width: usize, head: &[String]) -> Self {
        let mut table = Self {
            width,
            text: String::new(),
        };
        table.rule();
        for line in head {
            table.line(line);
        }
        table.text.push_str(&format!("|{}|\n", "=".repeat(width)));
        table
    }

    /// One line between the borders, filled up with blanks.
    pub(super) fn line(&mut self, line: &str) {
        self.text
            .push_str(&format!("|{line:<width$}|\n", width = self.width));
    }

    /// A rule across.
    pub(super) fn rule(&mut self) {
        self.text
            .push_str(&format!("+{}+\n", "-".repeat(self.width)));
    }

    /// The table as text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}
