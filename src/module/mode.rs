//! File permissions as Ansible takes them.

use crate::error::Diagnostic;

/// Bits that `chmod` knows: set-id, sticky, and read, write, execute for three.
const ALL: u32 = 0o7777;

/// A mode that was written as a number. YAML reads `0644` as an octal one; `644`
/// is decimal and means something that nobody wants.
pub(super) fn from_int(bits: i64) -> Result<u32, Diagnostic> {
    let decimal = format!("{bits}");
    let looks_octal = decimal.len() >= 3 && decimal.chars().all(|c| ('0'..='7').contains(&c));
    match u32::try_from(bits) {
        Ok(mode) if mode <= ALL && !(looks_octal && odd(mode)) => Ok(mode),
        _ => Err(
            Diagnostic::error(format!("mode {bits} is a decimal number (octal {bits:o})"))
                .hint(format!("write it as '0{decimal}' with quotes")),
        ),
    }
}

/// Whether a mode gives others or the group more than the owner, or the owner nothing
/// to read: decimal numbers that were meant to be octal do.
fn odd(mode: u32) -> bool {
    let (owner, group, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    owner & 4 == 0 || group & !owner != 0 || other & !owner != 0
}

/// A mode that was written as a text: octal digits, or changes of `now`.
pub(super) fn apply(text: &str, now: u32, directory: bool) -> Result<u32, Diagnostic> {
    let wrong = || {
        Diagnostic::error(format!("`{text}` is no file mode"))
            .hint("write it as '0644' or 'u=rw,g=r,o=r'")
    };
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return u32::from_str_radix(digits, 8)
            .ok()
            .filter(|mode| *mode <= ALL)
            .ok_or_else(wrong);
    }
    let mut mode = now & ALL;
    for clause in text.split(',') {
        mode = one_clause(clause, mode, directory).ok_or_else(wrong)?;
    }
    Ok(mode)
}

fn one_clause(clause: &str, mode: u32, directory: bool) -> Option<u32> {
    let at = clause.find(['=', '+', '-'])?;
    let (who, mut rest) = clause.split_at(at);
    let mut who_mask = 0;
    for c in who.chars() {
        who_mask |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => ALL,
            _ => return None,
        };
    }
    if who.is_empty() {
        who_mask = ALL;
    }
    let mut mode = mode;
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
        let (letters, more) = rest.split_at(end);
        rest = more;
        let mut bits = 0;
        for c in letters.chars() {
            bits |= match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if directory || mode & 0o111 != 0 => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                'u' => spread(mode >> 6),
                'g' => spread(mode >> 3),
                'o' => spread(mode),
                _ => return None,
            };
        }
        bits &= who_mask;
        match operator {
            '+' => mode |= bits,
            '-' => mode &= !bits,
            '=' => mode = mode & !(who_mask & if directory { 0o777 } else { ALL }) | bits,
            _ => return None,
        }
    }
    Some(mode)
}

/// Three bits for all three.
fn spread(bits: u32) -> u32 {
    (bits & 7) * 0o111
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_in_all_of_ansibles_forms() {
        assert_eq!(apply("0644", 0, false), Ok(0o644));
        assert_eq!(apply("644", 0, false), Ok(0o644));
        assert_eq!(apply("0o755", 0, false), Ok(0o755));
        assert_eq!(apply("4755", 0, false), Ok(0o4755));
        assert_eq!(apply("u=rw,g=r,o=", 0o777, false), Ok(0o640));
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), Ok(0o755));
        assert_eq!(apply("a+x", 0o644, false), Ok(0o755));
        assert_eq!(apply("go-w", 0o666, false), Ok(0o644));
        assert_eq!(apply("g=u", 0o700, false), Ok(0o770));
        assert!(apply("rw-r--r--", 0, false).is_err());
        assert!(apply("99999", 0, false).is_err());
        assert!(apply("", 0, false).is_err());
    }

    #[test]
    fn a_decimal_number_that_was_meant_to_be_octal_is_told() {
        assert_eq!(from_int(0o644), Ok(0o644));
        assert_eq!(from_int(0o1777), Ok(0o1777));
        assert!(from_int(644).is_err());
        assert!(from_int(755).is_err());
        assert!(from_int(-1).is_err());
    }
}
