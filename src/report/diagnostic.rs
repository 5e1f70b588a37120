//! Findings about the user's files, as `rustc` would show them: path, line,
//! column, the snippet with the place underlined, and what to do.

use std::sync::LazyLock;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use regex::Regex;

use crate::error::{Diagnostic, Origin, Problems, Severity};
use crate::text::printable;

/// Whether terminal colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With colours.
    Colour,
    /// Without.
    Plain,
}

/// All findings, one after the other, each with an empty line behind it.
#[must_use]
pub fn render(problems: &Problems, style: Style) -> String {
    let mut text = String::new();
    for diagnostic in &problems.0 {
        text.push_str(&render_one(diagnostic, style));
        text.push_str("\n\n");
    }
    text
}

fn render_one(diagnostic: &Diagnostic, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = printable(&diagnostic.message, 2000);
    let hint = diagnostic.hint.as_ref().map(|hint| printable(hint, 2000));
    let places: Vec<Place> = diagnostic
        .origin
        .iter()
        .map(|origin| Place::new(origin, AnnotationKind::Primary, ""))
        .chain(
            diagnostic
                .related
                .iter()
                .map(|(origin, text)| Place::new(origin, AnnotationKind::Context, text)),
        )
        .collect();

    let mut group = Group::with_title(level.primary_title(message.as_str()));
    for place in &places {
        let annotation = place.kind.span(place.span.clone());
        let annotation = if place.label.is_empty() {
            annotation
        } else {
            annotation.label(place.label.as_str())
        };
        group = group.element(
            Snippet::source(place.text.as_str())
                .path(place.path.as_str())
                .line_start(place.first_line)
                .annotation(annotation),
        );
    }
    if let Some(hint) = &hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = match style {
        Style::Colour => Renderer::styled(),
        Style::Plain => Renderer::plain(),
    };
    renderer.render(&[group])
}

/// The lines of a source that an origin touches, made printable. Only those
/// lines are handed to the renderer: a source may be large, and its other lines
/// are nobody's business.
struct Place {
    path: String,
    text: String,
    first_line: usize,
    span: std::ops::Range<usize>,
    kind: AnnotationKind,
    label: String,
}

impl Place {
    fn new(origin: &Origin, kind: AnnotationKind, label: &str) -> Self {
        let whole = &origin.source.text;
        let start = whole[..origin.span.start]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let line_end = whole[start..]
            .find('\n')
            .map_or(whole.len(), |at| start + at);
        let line = &without_secrets(&whole[start..line_end]);
        // A span over several lines is shown by its first one.
        let end = origin.span.end.min(line_end);
        let before = printable(&line[..origin.span.start - start], 400);
        let marked = printable(&line[origin.span.start - start..end - start], 400);
        let after = printable(&line[end - start..], 400);
        let span = before.len()..before.len() + marked.len();
        Self {
            path: printable(&origin.path().display().to_string(), 400),
            text: before + &marked + &after,
            first_line: origin.line,
            span,
            kind,
            label: printable(label, 400),
        }
    }
}

/// A line of a file with stars for what a key's name says is a secret: others may stand in the
/// line of a finding. Every byte keeps its place.
fn without_secrets(line: &str) -> String {
    static KEY: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let key = r#"(?i)(?:\b|_)(?:pass|password|passwd|passphrase|token|secret|api_?key|credentials?)["']?\s*[:=]\s*"#;
        Regex::new(key).ok()
    });
    let Some(pattern) = KEY.as_ref() else {
        return "*".repeat(line.len());
    };
    let mut shown = String::with_capacity(line.len());
    let mut from = 0;
    while let Some(found) = pattern.find_at(line, from) {
        let value = &line[found.end()..];
        let in_flow = line[..found.start()].contains(['{', '[']);
        let length = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |at| at + 2),
            _ if in_flow => value.find([',', '}', ']']).unwrap_or(value.len()),
            _ => value.len(),
        };
        shown.push_str(&line[from..found.end()]);
        match &value[..length] {
            // Where the secret comes from is none.
            template if template.contains("{{") => shown.push_str(template),
            secret => shown.push_str(&"*".repeat(secret.len())),
        }
        from = found.end() + length;
    }
    shown.push_str(&line[from..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_line_of_a_finding_are_not_shown() {
        let shown = [
            (
                "s1: {ansible_password: HUNTER2, gpu_platform: podmann}",
                "s1: {ansible_password: *******, gpu_platform: podmann}",
            ),
            ("  license_token: a, b # c", "  license_token: ********"),
            (
                "vgpu: {license_token: 'x}y', n: 1}",
                "vgpu: {license_token: *****, n: 1}",
            ),
            (
                "h1 ansible_become_password=\"a b\" x=1",
                "h1 ansible_become_password=***** x=1",
            ),
            ("token: \"{{ vaulted }}\"", "token: \"{{ vaulted }}\""),
            ("password: ключ", "password: ********"),
            ("compass: north", "compass: north"),
            ("passthrough: yes", "passthrough: yes"),
        ];
        for (line, wanted) in shown {
            assert_eq!(without_secrets(line), wanted);
        }
    }

    #[test]
    fn a_finding_shows_path_line_column_snippet_and_hint() {
        let text = "all:\n  hosts:\n    h1:\n      stratgy: mig\n";
        let whole = Origin::whole("inv.yml", text);
        let at = text.find("stratgy").expect("it is there");
        let origin = Origin::new(&whole.source, at..at + 7);
        let problems = Problems::from(
            Diagnostic::error("unknown key `stratgy`")
                .at(&origin)
                .did_you_mean("stratgy", ["strategy", "enabled"]),
        );
        insta::assert_snapshot!(render(&problems, Style::Plain).trim_end(), @r"
        error: unknown key `stratgy`
         --> inv.yml:4:7
          |
        4 |       stratgy: mig
          |       ^^^^^^^
          |
          = help: did you mean `strategy`?
        ");
    }

    #[test]
    fn escapes_in_a_file_do_not_reach_the_terminal() {
        let whole = Origin::whole("a.yml", "x: \x1b[2J\u{202e}\n");
        let problems = Problems::from(Diagnostic::error("bad \x1b").at(&whole));
        let text = render(&problems, Style::Plain);
        assert!(
            !text.contains('\x1b') && !text.contains('\u{202e}'),
            "{text}"
        );
    }

    #[test]
    fn an_origin_at_the_very_end_does_not_panic() {
        let whole = Origin::whole("a.yml", "x: 1");
        let origin = Origin::new(&whole.source, 4..4);
        let text = render(&Diagnostic::error("end").at(&origin).into(), Style::Plain);
        assert!(text.contains("a.yml:1:5"), "{text}");
    }
}
