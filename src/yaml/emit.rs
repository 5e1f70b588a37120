//! YAML in `PyYAML`'s layout, for the `to_yaml` and `to_nice_yaml` filters.
//!
//! A file that Ansible wrote and that we write again must not differ, so this
//! follows libyaml 0.2.5's emitter step by step: where it breaks lines, which
//! quotes it takes, how it indents. Keys are sorted, as Ansible's filters do.

use serde_json::Value as Json;

use super::scalar;

/// Column after which a line is broken at the next blank.
const WIDTH: usize = 80;

/// Longest key, in bytes, that stands before its `:` without a `?`.
const LONGEST_KEY: usize = 128;

/// How collections are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `to_yaml`: collections of scalars in one line, indented by 2.
    Terse,
    /// `to_nice_yaml`: every entry on a line of its own, indented by 4.
    Nice,
}

/// The text that Ansible's filter of that layout gives for a value.
#[must_use]
pub fn to_yaml(value: &Json, layout: Layout) -> String {
    let step = match layout {
        Layout::Terse => 2,
        Layout::Nice => 4,
    };
    to_yaml_by(value, layout, step)
}

/// The same with another indentation, as the filters' `indent` asks for; libyaml
/// knows 2 to 9 columns.
#[must_use]
pub fn to_yaml_by(value: &Json, layout: Layout, step: u8) -> String {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        whitespace: true,
        indention: true,
        indent: -1,
        step: step.clamp(2, 9).into(),
        layout,
        flow_level: 0,
    };
    emitter.node(value, Place::Root);
    emitter.write_indent();
    emitter.out
}

/// A number as Python's `repr` writes it: `1.0`, `1e+16`, `inf`.
#[must_use]
pub fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    // A key that stands before its `:`, and must stay on one line.
    Key,
    // A key behind a `?`.
    LongKey,
    Value,
}

struct Emitter {
    out: String,
    column: usize,
    // Whether the last thing written was white space, or nothing but indentation.
    whitespace: bool,
    indention: bool,
    indent: i32,
    step: i32,
    layout: Layout,
    flow_level: usize,
}

impl Emitter {
    fn node(&mut self, value: &Json, place: Place) {
        match value {
            Json::Array(items) => self.sequence(items, place),
            Json::Object(map) => self.mapping(map),
            scalar => {
                let (text, kind) = written(scalar);
                self.scalar(&text, kind, place);
            }
        }
    }

    fn sequence(&mut self, items: &[Json], place: Place) {
        let flow = self.flow_level > 0
            || items.is_empty()
            || (self.layout == Layout::Terse && items.iter().all(is_scalar));
        let outer = self.indent;
        if flow {
            self.indicator("[", true, true, false);
            self.increase_indent(true, false);
            self.flow_level += 1;
            for (index, item) in items.iter().enumerate() {
                self.flow_separator(index);
                self.node(item, Place::Item);
            }
            self.flow_level -= 1;
            self.indent = outer;
            self.indicator("]", false, false, false);
            return;
        }
        let in_mapping = matches!(place, Place::Value | Place::LongKey);
        self.increase_indent(false, in_mapping && !self.indention);
        for item in items {
            self.write_indent();
            self.indicator("-", true, false, true);
            self.node(item, Place::Item);
        }
        self.indent = outer;
    }

    fn mapping(&mut self, map: &serde_json::Map<String, Json>) {
        let mut entries: Vec<(&String, &Json)> = map.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let flow = self.flow_level > 0
            || entries.is_empty()
            || (self.layout == Layout::Terse && map.values().all(is_scalar));
        let outer = self.indent;
        if flow {
            self.indicator("{", true, true, false);
            self.increase_indent(true, false);
            self.flow_level += 1;
        } else {
            self.increase_indent(false, false);
        }
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if flow {
                self.flow_separator(index);
            } else {
                self.write_indent();
            }
            if is_simple_key(key) {
                self.scalar(key, Kind::Text, Place::Key);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, !flow);
                self.scalar(key, Kind::Text, Place::LongKey);
                if !flow || self.column > WIDTH {
                    self.write_indent();
                }
                self.indicator(":", true, false, !flow);
            }
            self.node(value, Place::Value);
        }
        self.indent = outer;
        if flow {
            self.flow_level -= 1;
            self.indicator("}", false, false, false);
        }
    }

    fn flow_separator(&mut self, index: usize) {
        if index > 0 {
            self.indicator(",", false, false, false);
        }
        if self.column > WIDTH {
            self.write_indent();
        }
    }

    fn scalar(&mut self, text: &str, kind: Kind, place: Place) {
        let simple_key = place == Place::Key;
        let allowed = Allowed::of(text);
        let plain = match kind {
            Kind::Other => true,
            Kind::Text => scalar::is_plain_text(text),
        };
        let plain_here = if self.flow_level > 0 {
            allowed.flow_plain
        } else {
            allowed.block_plain
        };
        let mut style = if simple_key && allowed.multiline {
            Style::Double
        } else {
            Style::Plain
        };
        if style == Style::Plain
            && (!plain_here || !plain || (text.is_empty() && (self.flow_level > 0 || simple_key)))
        {
            style = Style::Single;
        }
        if style == Style::Single && !allowed.single {
            style = Style::Double;
        }
        let outer = self.indent;
        self.increase_indent(true, false);
        match style {
            Style::Plain => self.plain(text, !simple_key),
            Style::Single => self.single(text, !simple_key),
            Style::Double => self.double(text, !simple_key),
        }
        self.indent = outer;
    }

    fn plain(&mut self, text: &str, breaks_allowed: bool) {
        if !self.whitespace && (!text.is_empty() || self.flow_level > 0) {
            self.put(' ');
        }
        let mut after_space = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == ' '
                && breaks_allowed
                && !after_space
                && self.column > WIDTH
                && chars.peek() != Some(&' ')
            {
                self.write_indent();
            } else {
                self.put(c);
            }
            after_space = c == ' ';
            if c != ' ' {
                self.indention = false;
            }
        }
        self.whitespace = false;
        self.indention = false;
    }

    fn single(&mut self, text: &str, breaks_allowed: bool) {
        self.indicator("'", true, false, false);
        let (mut after_space, mut after_break) = (false, false);
        let mut chars = text.chars().enumerate().peekable();
        let last = text.chars().count() - usize::from(!text.is_empty());
        while let Some((at, c)) = chars.next() {
            if c == ' ' {
                let next_is_space = chars.peek().is_some_and(|(_, next)| *next == ' ');
                let breaks = breaks_allowed && !after_space && self.column > WIDTH;
                if breaks && at != 0 && at != last && !next_is_space {
                    self.write_indent();
                } else {
                    self.put(c);
                }
                after_space = true;
            } else if is_break(c) {
                if !after_break && c == '\n' {
                    self.put_break('\n');
                }
                self.put_break(c);
                self.indention = true;
                after_break = true;
            } else {
                if after_break {
                    self.write_indent();
                }
                if c == '\'' {
                    self.put(c);
                }
                self.put(c);
                self.indention = false;
                after_space = false;
                after_break = false;
            }
        }
        if after_break {
            self.write_indent();
        }
        self.indicator("'", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn double(&mut self, text: &str, breaks_allowed: bool) {
        self.indicator("\"", true, false, false);
        let mut after_space = false;
        let mut chars = text.chars().enumerate().peekable();
        let last = text.chars().count() - usize::from(!text.is_empty());
        while let Some((at, c)) = chars.next() {
            if !is_printable(c) || is_break(c) || matches!(c, '"' | '\\' | '\u{feff}') {
                self.escape(c);
                after_space = false;
            } else if c == ' ' {
                if breaks_allowed && !after_space && self.column > WIDTH && at != 0 && at != last {
                    self.write_indent();
                    if chars.peek().is_some_and(|(_, next)| *next == ' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                after_space = true;
            } else {
                self.put(c);
                after_space = false;
            }
        }
        self.indicator("\"", false, false, false);
        self.whitespace = false;
        self.indention = false;
    }

    fn escape(&mut self, c: char) {
        let short = match c {
            '\0' => '0',
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\u{b}' => 'v',
            '\u{c}' => 'f',
            '\r' => 'r',
            '\u{1b}' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{a0}' => '_',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            _ => {
                let code = u32::from(c);
                let escaped = match code {
                    0..=0xff => format!("\\x{code:02X}"),
                    0x100..=0xffff => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                escaped.chars().for_each(|c| self.put(c));
                return;
            }
        };
        self.put('\\');
        self.put(short);
    }

    fn increase_indent(&mut self, flow: bool, indentless: bool) {
        if self.indent < 0 {
            self.indent = if flow { self.step } else { 0 };
        } else if !indentless {
            self.indent += self.step;
        }
    }

    fn indicator(
        &mut self,
        text: &str,
        need_whitespace: bool,
        is_whitespace: bool,
        is_indention: bool,
    ) {
        if need_whitespace && !self.whitespace {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
        self.whitespace = is_whitespace;
        self.indention = self.indention && is_indention;
    }

    fn write_indent(&mut self) {
        let indent = usize::try_from(self.indent).unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.put_break('\n');
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn put_break(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    // A string: it must not look like anything else.
    Text,
    // A number, a boolean, nothing: written as it is.
    Other,
}

fn written(value: &Json) -> (String, Kind) {
    match value {
        Json::String(text) => (text.clone(), Kind::Text),
        Json::Number(number) if number.is_f64() => {
            let text = python_float(number.as_f64().unwrap_or_default());
            // `1e+17` would be read back as a string.
            let text = if text.contains('.') {
                text
            } else {
                text.replace('e', ".0e")
            };
            (text, Kind::Other)
        }
        other => (other.to_string(), Kind::Other),
    }
}

fn is_scalar(value: &Json) -> bool {
    !matches!(value, Json::Array(_) | Json::Object(_))
}

fn is_simple_key(key: &str) -> bool {
    key.len() <= LONGEST_KEY && !key.contains(is_break)
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

// libyaml's IS_PRINTABLE, which knows no character beyond the first plane.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && c != '\u{feff}'
}

/// In which styles a text can be written (`yaml_emitter_analyze_scalar`).
struct Allowed {
    multiline: bool,
    flow_plain: bool,
    block_plain: bool,
    single: bool,
}

impl Allowed {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (Some(first), Some(last)) = (chars.first(), chars.last()) else {
            return Self {
                multiline: false,
                flow_plain: false,
                block_plain: true,
                single: true,
            };
        };
        let marker = text.starts_with("---") || text.starts_with("...");
        let (mut block_indicator, mut flow_indicator) = (marker, marker);
        let blank = |at: usize| {
            chars
                .get(at)
                .is_none_or(|c| matches!(c, ' ' | '\t' | '\0') || is_break(*c))
        };
        for (at, c) in chars.iter().enumerate() {
            let followed = blank(at + 1);
            let (flow, block) = if at == 0 {
                match c {
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\''
                    | '"' | '%' | '@' | '`' => (true, true),
                    '?' | ':' => (true, followed),
                    '-' => (followed, followed),
                    _ => (false, false),
                }
            } else {
                match c {
                    ',' | '?' | '[' | ']' | '{' | '}' => (true, false),
                    ':' => (true, followed),
                    '#' => (blank(at - 1), blank(at - 1)),
                    _ => (false, false),
                }
            };
            flow_indicator |= flow;
            block_indicator |= block;
        }
        let special = chars.iter().any(|c| !is_printable(*c));
        let multiline = chars.iter().any(|c| is_break(*c));
        let pair = |a: fn(char) -> bool, b: fn(char) -> bool| {
            chars.windows(2).any(|pair| a(pair[0]) && b(pair[1]))
        };
        let break_space = pair(is_break, |c| c == ' ');
        let space_break = pair(|c| c == ' ', is_break);
        let edge = |c: &char| *c == ' ' || is_break(*c);
        let plain =
            !edge(first) && !edge(last) && !break_space && !space_break && !special && !multiline;
        Self {
            multiline,
            flow_plain: plain && !flow_indicator,
            block_plain: plain && !block_indicator,
            single: !break_space && !space_break && !special,
        }
    }
}
