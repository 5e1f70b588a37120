//! Ansible's filters and tests on texts and single values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use regex::{Regex, RegexBuilder};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::text::hex;

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("b64encode", |text: String| STANDARD.encode(text));
    env.add_filter("b64decode", b64decode);
    env.add_filter("hash", hash);
    env.add_filter("regex_replace", regex_replace);
    env.add_filter("regex_search", regex_search);
    env.add_filter("regex_findall", regex_findall);
    env.add_filter("basename", basename);
    env.add_filter("dirname", dirname);
    env.add_filter("splitext", splitext);
    env.add_filter("quote", |text: String| python_quote(&text));
    env.add_filter("comment", comment);
    env.add_filter("bool", boolean);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("mandatory", mandatory);
    env.add_filter("ternary", ternary);
    env.add_filter("type_debug", type_debug);
    env.add_test("match", |text: String, pattern: String, options: Kwargs| {
        let regex = python_regex(&format!(r"\A(?:{pattern})"), &options)?;
        Ok::<_, Error>(regex.is_match(&text))
    });
    env.add_test("search", is_search);
    env.add_test("regex", is_search);
    env.add_test("version", is_version);
    env.add_test("version_compare", is_version);
    env.add_test("truthy", |value: Value| value.is_true());
    env.add_test("falsy", |value: Value| !value.is_true());
    env.add_test("changed", |result: Value| flag(&result, "changed"));
    env.add_test("skipped", |result: Value| flag(&result, "skipped"));
    env.add_test("failed", |result: Value| flag(&result, "failed"));
    env.add_test("succeeded", |result: Value| {
        flag(&result, "failed").map(|failed| !failed)
    });
    env.add_test("success", |result: Value| {
        flag(&result, "failed").map(|failed| !failed)
    });
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `result is changed` and its like, on what a task registered.
fn flag(result: &Value, name: &str) -> Result<bool, Error> {
    if result.kind() != ValueKind::Map {
        return Err(wrong(format!(
            "`is {name}` wants what a task has registered"
        )));
    }
    Ok(result.get_attr(name)?.is_true())
}

fn b64decode(text: String) -> Result<String, Error> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|_| wrong("b64decode: this is not base64"))?;
    String::from_utf8(bytes).map_err(|_| wrong("b64decode: the content is no UTF-8 text"))
}

fn hash(text: String, kind: Option<String>) -> Result<String, Error> {
    let kind = kind.as_deref().unwrap_or("sha1");
    match kind {
        "sha1" => Ok(hex(&Sha1::digest(text.as_bytes()))),
        "sha256" => Ok(hex(&Sha256::digest(text.as_bytes()))),
        "sha512" => Ok(hex(&Sha512::digest(text.as_bytes()))),
        _ => Err(wrong(format!(
            "hash: there is no `{kind}` here, but sha1, sha256 and sha512"
        ))),
    }
}

/// A pattern with Python's flags. What the engine here lacks is back-references
/// and look-around; its error says so.
fn python_regex(pattern: &str, options: &Kwargs) -> Result<Regex, Error> {
    let ignore_case = options.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multi_line = options.get::<Option<bool>>("multiline")?.unwrap_or(false);
    options.assert_all_used()?;
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .multi_line(multi_line)
        .build()
        .map_err(|error| {
            let last = error.to_string();
            let reason = last.lines().last().unwrap_or_default().trim().to_owned();
            wrong(format!(
                "the regular expression is not understood: {reason}"
            ))
        })
}

fn is_search(text: String, pattern: String, options: Kwargs) -> Result<bool, Error> {
    Ok(python_regex(&pattern, &options)?.is_match(&text))
}

fn regex_replace(
    text: String,
    pattern: String,
    replacement: String,
    options: Kwargs,
) -> Result<String, Error> {
    let regex = python_regex(&pattern, &options)?;
    Ok(regex
        .replace_all(&text, python_replacement(&replacement).as_str())
        .into_owned())
}

/// `\1` and `\g<name>` as `${1}` and `${name}`; a `$` is just one.
fn python_replacement(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some('g') if chars.peek() == Some(&'<') => {
                    chars.next();
                    out.push_str("${");
                    out.extend(chars.by_ref().take_while(|c| *c != '>'));
                    out.push('}');
                }
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn regex_search(
    text: String,
    pattern: String,
    groups: Rest<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let regex = python_regex(&pattern, &options)?;
    let Some(found) = regex.captures(&text) else {
        return Ok(Value::from(()));
    };
    if groups.is_empty() {
        return Ok(Value::from(found.get(0).map_or("", |whole| whole.as_str())));
    }
    let mut parts = Vec::new();
    for group in groups.iter() {
        let name = group.to_string();
        let part = if let Some(name) = name.strip_prefix("\\g<").and_then(|n| n.strip_suffix('>')) {
            found.name(name)
        } else {
            let number = name.strip_prefix('\\').and_then(|n| n.parse().ok());
            let number: usize = number.ok_or_else(|| {
                wrong("regex_search: a group is written as '\\\\1' or '\\\\g<name>'")
            })?;
            found.get(number)
        };
        parts.push(part.map_or(Value::from(()), |part| Value::from(part.as_str())));
    }
    Ok(Value::from(parts))
}

fn regex_findall(text: String, pattern: String, options: Kwargs) -> Result<Value, Error> {
    let regex = python_regex(&pattern, &options)?;
    let text_of = |group: Option<regex::Match<'_>>| Value::from(group.map_or("", |g| g.as_str()));
    let all: Vec<Value> = regex
        .captures_iter(&text)
        .map(|found| match found.len() {
            1 => text_of(found.get(0)),
            2 => text_of(found.get(1)),
            groups => Value::from(
                (1..groups)
                    .map(|group| text_of(found.get(group)))
                    .collect::<Vec<_>>(),
            ),
        })
        .collect();
    Ok(Value::from(all))
}

fn basename(path: String) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn dirname(path: String) -> String {
    match path.rfind('/') {
        Some(0) => "/".to_owned(),
        Some(at) => path[..at].trim_end_matches('/').to_owned(),
        None => String::new(),
    }
}

fn splitext(path: String) -> Value {
    let name_at = path.rfind('/').map_or(0, |at| at + 1);
    let name = &path[name_at..];
    let dots = name.len() - name.trim_start_matches('.').len();
    let at = name[dots..]
        .rfind('.')
        .map_or(path.len(), |at| name_at + dots + at);
    Value::from(vec![path[..at].to_owned(), path[at..].to_owned()])
}

/// As Python's `shlex.quote`.
fn python_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }
}

fn comment(text: String) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| format!("# {line}").trim_end().to_owned())
        .collect();
    format!("#\n{}\n#", lines.join("\n"))
}

/// As ansible-core 2.21: what is no boolean in any spelling is an error.
fn boolean(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Bool => return Ok(value),
        ValueKind::Number => match value.as_i64() {
            Some(1) => return Ok(Value::from(true)),
            Some(0) => return Ok(Value::from(false)),
            _ => {}
        },
        ValueKind::String => match value.to_string().trim().to_lowercase().as_str() {
            "yes" | "on" | "1" | "true" | "y" | "t" => return Ok(Value::from(true)),
            "no" | "off" | "0" | "false" | "n" | "f" => return Ok(Value::from(false)),
            _ => {}
        },
        _ => {}
    }
    Err(wrong(
        "bool: this is neither true nor false in any spelling",
    ))
}

/// As Jinja2: what is no number gives the default, which is 0.
fn int(value: Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let base = options.get::<Option<u32>>("base")?.unwrap_or(10);
    let named = options.get::<Option<Value>>("default")?;
    options.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(wrong("int: a base is between 2 and 36"));
    }
    let number = match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::Number => value
            .as_i64()
            .or_else(|| f64::try_from(value.clone()).ok().and_then(whole)),
        ValueKind::String => {
            let text = value.to_string().trim().replace('_', "");
            let digits = match base {
                16 => text.trim_start_matches("0x").trim_start_matches("0X"),
                8 => text.trim_start_matches("0o"),
                2 => text.trim_start_matches("0b"),
                _ => &text,
            };
            i64::from_str_radix(digits, base)
                .ok()
                .or_else(|| text.parse::<f64>().ok().and_then(whole))
        }
        _ => None,
    };
    Ok(number.map_or_else(
        || default.or(named).unwrap_or_else(|| Value::from(0)),
        Value::from,
    ))
}

/// A float cut to its whole part, if an integer can hold it.
fn whole(number: f64) -> Option<i64> {
    let whole = number.trunc();
    // Every float strictly between these bounds has an exact integer.
    (whole.abs() < 9.2e18).then_some(whole as i64)
}

fn float(value: Value, default: Option<Value>) -> Value {
    let number = match value.kind() {
        ValueKind::String => value.to_string().trim().parse::<f64>().ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value).ok(),
    };
    number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from)
}

fn mandatory(state: &State, value: Value, message: Option<String>) -> Result<Value, Error> {
    let _ = state;
    if value.is_undefined() {
        let message = message.unwrap_or_else(|| "a mandatory variable is not defined".to_owned());
        return Err(wrong(message));
    }
    Ok(value)
}

fn ternary(value: Value, yes: Value, no: Value, none: Option<Value>) -> Value {
    match none {
        Some(none) if value.is_none() => none,
        _ if value.is_true() => yes,
        _ => no,
    }
}

fn type_debug(value: Value) -> &'static str {
    match value.kind() {
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Map => "dict",
        ValueKind::Seq | ValueKind::Iterable => "list",
        _ => "object",
    }
}

/// `'1.10' is version('1.9', '>=')`, number by number as Ansible's loose versions.
fn is_version(
    value: Value,
    other: Value,
    operator: Option<String>,
    options: Kwargs,
) -> Result<bool, Error> {
    // Versions of drivers and kernels are loose ones; the other kinds compare alike for them.
    let _ = options.get::<Option<bool>>("strict")?;
    let _ = options.get::<Option<String>>("version_type")?;
    options.assert_all_used()?;
    let order = loose(&value.to_string()).cmp(&loose(&other.to_string()));
    let operator = operator.as_deref().unwrap_or("==");
    Ok(match operator {
        "==" | "=" | "eq" => order.is_eq(),
        "!=" | "<>" | "ne" => order.is_ne(),
        "<" | "lt" => order.is_lt(),
        "<=" | "le" => order.is_le(),
        ">" | "gt" => order.is_gt(),
        ">=" | "ge" => order.is_ge(),
        _ => return Err(wrong(format!("version: there is no operator `{operator}`"))),
    })
}

fn loose(version: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    for piece in version.trim().split(['.', '-', '+', '_']) {
        let digits = piece
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(piece.len());
        let number = piece[..digits].parse().unwrap_or(0);
        parts.push((number, piece[digits..].to_owned()));
    }
    parts
}
