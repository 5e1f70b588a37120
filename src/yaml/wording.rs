//! What a syntax error is called, and what to do about it.
//!
//! The parser speaks of tokens and indicators. The line it stopped at usually
//! shows what was meant, so that the hint is made from the text.

use crate::error::{Diagnostic, Origin};

/// A finding for the parser's message `info` about what stands at `at`.
pub(super) fn syntax(info: &str, at: &Origin) -> Diagnostic {
    let message = match info {
        "mapping values are not allowed in this context" | "illegal placement of ':' indicator" => {
            "a `:` is not allowed here"
        }
        "while parsing a block mapping, did not find expected key" => {
            "a key of this mapping is expected here"
        }
        "while parsing a block collection, did not find expected '-' indicator" => {
            "a `-` is expected here"
        }
        "while parsing a flow mapping, did not find expected ',' or '}'" => {
            "a `,` or `}` is expected here"
        }
        "while parsing a flow sequence, expected ',' or ']'" => "a `,` or `]` is expected here",
        "while scanning a quoted scalar, found unexpected end of stream" => {
            "this quoted string has no end"
        }
        "while parsing node, found unknown anchor" => "this alias has no anchor before it",
        "simple key expected" | "simple key expect ':'" => "a `:` is missing after this key",
        "unexpected eof" => "the text ends too early",
        "recursion limit exceeded" => "lists and mappings are nested too deep",
        other => other,
    };
    let at = &place(info, at);
    let problem = Diagnostic::error(format!("this is not YAML: {message}")).at(at);
    match advice(info, at) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

// The parser tells of a tab from the end of what stands before it.
fn place(info: &str, at: &Origin) -> Origin {
    let from = at.span.start;
    match at.source.text[from..]
        .find('\t')
        .filter(|_| info.contains("found a tab"))
    {
        Some(tab) => Origin::new(&at.source, from + tab..from + tab + 1),
        None => at.clone(),
    }
}

fn advice(info: &str, at: &Origin) -> Option<&'static str> {
    let text = &at.source.text;
    let start = text[..at.span.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let behind_tab = text[..at.span.start].ends_with('\t');
    if indent.contains('\t') || behind_tab || info.contains("tab") {
        return Some("indent with spaces, YAML allows no tabs there");
    }
    let value = line
        .split_once(": ")
        .map_or(line, |(_, value)| value)
        .trim_start();
    let value = value.strip_prefix("- ").unwrap_or(value);
    if value.starts_with("{{") || value.starts_with("{%") {
        return Some("a value that begins with `{{` must be quoted: \"{{ … }}\"");
    }
    if value.starts_with(['@', '`', '%', '*', '&']) {
        return Some("a value that begins with this character must be quoted");
    }
    if info.contains("mapping values") && value.contains(':') {
        return Some("a value with `: ` in it must be quoted");
    }
    let quoted = value.starts_with(['"', '\'']);
    if quoted && (info.contains("expected key") || info.contains("trailing content")) {
        return Some("nothing may follow a quoted string: quote the whole value");
    }
    if info.contains("invalid indentation") {
        return Some("indent each line of this value further than its key");
    }
    if info.contains("expected key") || info.contains("mapping values") {
        return Some("check the indentation of this line and the one above");
    }
    None
}
