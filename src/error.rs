//! What can be wrong with something the user wrote, and where it stands.
//!
//! Owns positions (`Origin`), one finding (`Diagnostic`) and a collection of
//! them (`Problems`). Loaders collect every finding and return them together;
//! nobody stops at the first. This room knows neither how a finding is printed
//! (`report::diagnostic` does that) nor what it means for the exit code.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text the user gave us: a file, or a command-line value under a made-up
/// name such as `--extra-vars`.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the user would write it, or the made-up name.
    pub path: PathBuf,
    /// The whole text, for snippets.
    pub text: String,
}

/// Where a value stands: which text, which bytes of it, which line and column.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The text that holds the value.
    pub source: Arc<Source>,
    /// Byte range in `source.text`; within bounds and on character boundaries.
    pub span: Range<usize>,
    /// 1-based line of the start.
    pub line: usize,
    /// 1-based column of the start, in characters.
    pub column: usize,
}

impl Origin {
    /// The origin of the bytes `span` of `source`; line and column are counted here.
    /// A span out of bounds is clamped, so that a bad position can never panic.
    #[must_use]
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let floor = |at: usize| {
            let mut at = at.min(source.text.len());
            while !source.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        let end = floor(span.end).max(start);
        let before = &source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            source: Arc::clone(source),
            span: start..end,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// An origin that spans a whole text, for values that have no finer position.
    #[must_use]
    pub fn whole(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let source = Arc::new(Source {
            path: path.into(),
            text: text.into(),
        });
        let end = source.text.len();
        Self::new(&source, 0..end)
    }

    /// The path or made-up name of the text.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.source.path
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.source.path.display(),
            self.line,
            self.column
        )
    }
}

// The derived form would print the whole file for each value.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is done until it is mended.
    Error,
    /// Said, and gone on with.
    Warning,
}

/// One finding: what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// One sentence, lower case, no full stop, literals in backticks.
    pub message: String,
    /// Where; absent for a finding about the command line or a missing file.
    pub origin: Option<Origin>,
    /// A second place that matters (the other key of a duplicate), with its text.
    pub related: Vec<(Origin, String)>,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error without position.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            origin: None,
            related: Vec::new(),
            hint: None,
        }
    }

    /// A warning without position.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// The same finding at `origin`.
    #[must_use]
    pub fn at(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    /// The same finding with a second place.
    #[must_use]
    pub fn related(mut self, origin: &Origin, text: impl Into<String>) -> Self {
        self.related.push((origin.clone(), text.into()));
        self
    }

    /// The same finding with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same finding, with `nearest` of the known names as its hint if one is near.
    #[must_use]
    pub fn did_you_mean<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, known) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// The same finding about a file that the user named, with what mostly stands behind such
    /// an error as its hint.
    #[must_use]
    pub fn of_file(self, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => {
                self.hint("a path that is relative begins at the folder in which deploy is started")
            }
            ErrorKind::PermissionDenied => self.hint("the user who starts deploy needs the right"),
            ErrorKind::IsADirectory => self.hint("this is a folder: name the file in it"),
            _ => self,
        }
    }

    /// The same finding, with this hint if it has none yet.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        match self.hint {
            Some(_) => self,
            None => self.hint(hint),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// Everything that was found, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Diagnostic>);

impl Problems {
    /// Adds one finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds all findings of another collection.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// `value` unless an error was found. Warnings are dropped with the
    /// collection, so report them first.
    ///
    /// # Errors
    /// Returns the collection if it holds an error.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.has_errors() {
            Err(self)
        } else {
            Ok(value)
        }
    }
}

impl From<Diagnostic> for Problems {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known name that is nearest to `wrong`, if it is near enough to be meant:
/// at most a third of the letters differ (optimal string alignment distance).
#[must_use]
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_transposed_name_and_refuses_a_far_one() {
        let known = ["profiles", "enabled", "strategy"];
        assert_eq!(nearest("profilse", known), Some("profiles"));
        assert_eq!(nearest("startegy", known), Some("strategy"));
        assert_eq!(nearest("gpu_count", known), None);
    }

    #[test]
    fn origin_counts_lines_and_characters_not_bytes() {
        let source = Arc::new(Source {
            path: "a.yml".into(),
            text: "é: 1\nüü: x\n".into(),
        });
        let at = source.text.find('x').expect("x is in the text");
        let origin = Origin::new(&source, at..at + 1);
        assert_eq!(origin.to_string(), "a.yml:2:5");
    }

    #[test]
    fn a_span_out_of_bounds_is_clamped() {
        let origin = Origin::whole("x", "é");
        assert_eq!(Origin::new(&origin.source, 1..99).span, 0..2);
    }
}
