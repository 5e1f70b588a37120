//! The frames of its tables: 102 columns, in one cell a row or two.

const WIDTH: usize = 98;

/// `+---…---+` over the whole width.
pub(super) fn rule() -> String {
    format!("+{}+\n", "-".repeat(WIDTH))
}

/// `| text … |` over the whole width.
pub(super) fn line(text: &str) -> String {
    format!("| {text:<97}|\n")
}

/// `+---+---+` with a first cell of `first` columns.
pub(super) fn split_rule(first: usize) -> String {
    format!(
        "+{}+{}+\n",
        "-".repeat(first),
        "-".repeat(WIDTH - 1 - first)
    )
}

/// `| name | text |` with a first cell of `first` columns.
pub(super) fn split_line(first: usize, name: &str, text: &str) -> String {
    let (left, right) = (first - 1, WIDTH - 2 - first);
    format!("| {name:<left$}| {text:<right$}|\n")
}
