//! What `-e` gives: `key=value` words, a YAML or JSON mapping, or `@file`.
//!
//! The words are split as ansible-core's `parsing/splitter.py` does, templates
//! and quotes kept together; their values are always strings.

use std::path::Path;

use super::var_files;
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{Loaded, Node, Value, Vars};
use crate::yaml;

/// The name under which the texts stand in messages.
const SOURCE: &str = "--extra-vars";

/// Reads all `-e` in order; a later one wins.
#[must_use]
pub fn parse(given: &[String]) -> Loaded<Vars> {
    let mut vars = Vars::new();
    let mut problems = Problems::default();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let found = match text.as_bytes()[0] {
            b'@' => var_files::read_vars(Path::new(&text[1..]), &mut problems),
            b'/' | b'.' => {
                let problem = Diagnostic::error(format!("`{text}` is no `key=value`"));
                problems.push(problem.hint(format!("a file is given as `@{text}`")));
                None
            }
            b'[' | b'{' => mapping(text, &mut problems),
            _ => words(text, &mut problems),
        };
        vars.extend(found.unwrap_or_default());
    }
    (vars, problems)
}

fn mapping(text: &str, problems: &mut Problems) -> Option<Vars> {
    let (node, found) = yaml::load(Path::new(SOURCE), text);
    problems.extend(found);
    let node = node?;
    match node.value {
        Value::Map(map) => Some(
            map.into_iter()
                .map(|(name, entry)| (name, entry.node))
                .collect(),
        ),
        _ => {
            let problem = format!("extra variables are a mapping, and this is {}", node.kind());
            problems.push(Diagnostic::error(problem).at(&node.origin));
            None
        }
    }
}

fn words(text: &str, problems: &mut Problems) -> Option<Vars> {
    let origin = Origin::whole(SOURCE, text);
    let Some(words) = split(text) else {
        let problem = Diagnostic::error("a quote or a `{{` has no end").at(&origin);
        problems.push(problem);
        return None;
    };
    let mut vars = Vars::new();
    for word in words {
        let word = unescape(&word);
        let at = text.find(word.trim()).map_or_else(
            || origin.clone(),
            |start| Origin::new(&origin.source, start..start + word.trim().len()),
        );
        match assignment(&word) {
            Some((name, value)) => {
                let value = unquote(value.trim()).to_owned();
                vars.insert(name.trim().to_owned(), Node::new(Value::Str(value), at));
            }
            None if word.trim().is_empty() => {}
            None => {
                let problem = format!("`{}` is no `key=value`", word.trim());
                let hint = "a value with blanks is quoted: key='a b'";
                problems.push(Diagnostic::error(problem).at(&at).hint(hint));
            }
        }
    }
    Some(vars)
}

// At the first `=` that no backslash escapes, and that is not the first letter.
fn assignment(word: &str) -> Option<(&str, &str)> {
    word.match_indices('=')
        .map(|(at, _)| at)
        .find(|at| *at > 0 && !word[..*at].ends_with('\\'))
        .map(|at| (&word[..at], &word[at + 1..]))
}

fn unquote(text: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.ends_with('\\')) {
            return inner;
        }
    }
    text
}

/// Splits at blanks and newlines outside quotes and templates; nothing if one of these has no end.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut quote: Option<char> = None;
    // Open `{{`, `{%` and `{#`.
    let mut depth = [0_usize; 3];
    let lines: Vec<&str> = text.split('\n').collect();
    for (line_index, line) in lines.iter().enumerate() {
        let mut continued = false;
        for (index, token) in line.split(' ').enumerate() {
            if token.is_empty() && index != 0 {
                last(&mut words).push(' ');
                continue;
            }
            if token == "\\" && quote.is_none() {
                continued = true;
                continue;
            }
            let was_quoted = quote.is_some();
            quote = quote_after(token, quote);
            let in_template = depth.iter().any(|depth| *depth > 0);
            let mut appended = false;
            if quote.is_some() && !was_quoted && !in_template {
                words.push(token.to_owned());
                appended = true;
            } else if in_template || quote.is_some() || was_quoted {
                let word = last(&mut words);
                if index > 0 {
                    word.push(' ');
                }
                word.push_str(token);
                appended = true;
            }
            for (depth, (open, close)) in
                depth
                    .iter_mut()
                    .zip([("{{", "}}"), ("{%", "%}"), ("{#", "#}")])
            {
                let before = *depth;
                *depth = (before + token.matches(open).count())
                    .saturating_sub(token.matches(close).count());
                if *depth != before && !appended {
                    words.push(token.to_owned());
                    appended = true;
                }
            }
            let in_template = depth.iter().any(|depth| *depth > 0);
            if !in_template && quote.is_none() && !appended && !token.is_empty() {
                words.push(token.to_owned());
            }
        }
        if line_index + 1 < lines.len() && !continued {
            last(&mut words).push('\n');
        }
    }
    let closed = quote.is_none() && depth.iter().all(|depth| *depth == 0);
    closed.then_some(words)
}

fn last(words: &mut Vec<String>) -> &mut String {
    if words.is_empty() {
        words.push(String::new());
    }
    let at = words.len() - 1;
    &mut words[at]
}

fn quote_after(token: &str, mut quote: Option<char>) -> Option<char> {
    let mut before = None;
    for c in token.chars() {
        if matches!(c, '"' | '\'') && before != Some('\\') {
            match quote {
                Some(open) if open == c => quote = None,
                Some(_) => {}
                None => quote = Some(c),
            }
        }
        before = Some(c);
    }
    quote
}

// `\n`, `\x41`, `\u00e9` and their like; other backslashes stay.
fn unescape(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        match decode(escape) {
            Some((c, length)) => {
                text.push(c);
                rest = &escape[length..];
            }
            None => {
                text.push('\\');
                rest = escape;
            }
        }
    }
    text.push_str(rest);
    text
}

fn decode(escape: &str) -> Option<(char, usize)> {
    let kind = escape.chars().next()?;
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '\\' | '\'' | '"' => return Some((kind, 1)),
        'a' => return Some(('\u{7}', 1)),
        'b' => return Some(('\u{8}', 1)),
        'f' => return Some(('\u{c}', 1)),
        'n' => return Some(('\n', 1)),
        'r' => return Some(('\r', 1)),
        't' => return Some(('\t', 1)),
        'v' => return Some(('\u{b}', 1)),
        _ => return None,
    };
    let number = escape.get(1..=digits)?;
    if !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let c = char::from_u32(u32::from_str_radix(number, 16).ok()?)?;
    Some((c, digits + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (vars, problems) = parse(&[text.to_owned()]);
        if problems.has_errors() {
            return format!("error: {problems}");
        }
        let pairs: Vec<String> = vars
            .iter()
            .map(|(name, node)| format!("{name}={}", node.to_json()))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn words_are_strings_and_quotes_keep_them_together() {
        assert_eq!(
            shown("a=1 b=true c='x y' d=\"p q\""),
            r#"a="1" b="true" c="x y" d="p q""#
        );
        assert_eq!(
            shown("a={{ x | default('q r') }} b=2"),
            r#"a="{{ x | default('q r') }}" b="2""#
        );
        assert_eq!(shown("a=b=c"), r#"a="b=c""#);
        assert_eq!(shown(r"a=x\ny"), r#"a="x\ny""#);
        assert_eq!(shown("a= b=1"), r#"a="" b="1""#);
    }

    #[test]
    fn mappings_keep_their_types() {
        assert_eq!(shown(r#"{"a": 1, "b": [true]}"#), "a=1 b=[true]");
        assert_eq!(shown("{a: yes, b: 010}"), "a=true b=8");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(shown("a=1 oops").contains("`oops` is no `key=value`"));
        assert!(shown("a='1").contains("no end"));
        assert!(shown("[1, 2]").contains("a mapping"));
        assert!(shown("./vars.yml").contains("@./vars.yml"));
        assert!(shown("@/no/such/file").contains("cannot be read"));
    }
}
