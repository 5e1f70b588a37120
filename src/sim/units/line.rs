//! The lines of `Exec…=`: how systemd splits them into words, what it replaces
//! in them, and how it writes the words of a transient unit.

/// Words as systemd splits them: blanks, quotes, and backslashes as in C.
pub(in crate::sim) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (_, '\\') => word.get_or_insert_default().push_str(&escape(&mut letters)),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if open == letter => quote = None,
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn escape(letters: &mut std::str::Chars<'_>) -> String {
    let Some(letter) = letters.next() else {
        return "\\".to_owned();
    };
    let plain = match letter {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        's' => ' ',
        '\\' | '"' | '\'' => letter,
        'x' => {
            let digits: String = letters.clone().take(2).collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if digits.len() == 2 && byte.is_ascii() => {
                    letters.nth(1);
                    char::from(byte)
                }
                _ => return "\\x".to_owned(),
            }
        }
        // What systemd does not know stays as it is.
        other => return format!("\\{other}"),
    };
    plain.to_string()
}

/// A word as it stands in the file of a transient unit.
pub(in crate::sim) fn quote(word: &str) -> String {
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            other if other.is_ascii_control() => {
                text.push_str(&format!("\\x{:02x}", u32::from(other)));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Replaces `%` specifiers as far as units of hosts use them.
pub(in crate::sim) fn specifiers(word: &str, unit: &str, host_name: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut text = String::new();
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => text.push('%'),
            Some('n') => text.push_str(unit),
            Some('N') => text.push_str(stem),
            Some('p') => text.push_str(prefix),
            Some('i' | 'I') => text.push_str(instance),
            Some('H') => text.push_str(host_name),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// Replaces variables: `$NAME` alone becomes the words of its value, `${NAME}`
/// its value wherever it stands, `$$` a dollar.
pub(in crate::sim) fn variables(
    words: Vec<String>,
    value: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut all = Vec::new();
    for word in words {
        let alone = word.strip_prefix('$').filter(|name| is_name(name));
        if let Some(name) = alone {
            let value = value(name).unwrap_or_default();
            all.extend(value.split_whitespace().map(str::to_owned));
            continue;
        }
        let mut text = String::new();
        let mut rest = word.as_str();
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let braced = rest
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(name, _)| is_name(name));
            if let Some((name, after)) = braced {
                text.push_str(&value(name).unwrap_or_default());
                rest = after;
            } else {
                text.push('$');
                rest = rest.strip_prefix('$').unwrap_or(rest);
            }
        }
        text.push_str(rest);
        all.push(text);
    }
    all
}

fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_systemd_splits_them() {
        assert_eq!(
            split(r#"/bin/sh -c "echo 'a  b'" x"#),
            ["/bin/sh", "-c", "echo 'a  b'", "x"]
        );
        assert_eq!(split(r#""a\"b\\" c\x20d \w"#), ["a\"b\\", "c d", "\\w"]);
    }

    #[test]
    fn quoted_words_come_back_as_they_were() {
        for word in ["", "a b", "q\"x", "n\nl", "t\tb\\n", "'$x'", "%s", "\u{7}é"] {
            assert_eq!(split(&quote(word)), [word], "{}", quote(word));
        }
    }

    // As `systemd-run --pipe echo …` of systemd 257 printed them.
    #[test]
    fn variables_are_replaced_as_systemd_replaces_them() {
        let words = [
            "echo", "$HOME", "x$PATH", "${PATH}", "$$PATH", "$$$$", "$TWO",
        ];
        let value = |name: &str| match name {
            "PATH" => Some("/bin".to_owned()),
            "TWO" => Some("a b".to_owned()),
            _ => None,
        };
        assert_eq!(
            variables(words.map(str::to_owned).to_vec(), value),
            ["echo", "x$PATH", "/bin", "$PATH", "$$", "a", "b"]
        );
    }

    #[test]
    fn specifiers_name_the_unit() {
        assert_eq!(
            specifiers("%n %p %i %% %H", "get@x.service", "h1"),
            "get@x.service get x % h1"
        );
    }
}
