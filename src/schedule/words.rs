//! A list of words as one line of a unit file or of a crontab.

use crate::shell::Command;

/// A word of `ExecStart=`: systemd.service(5) expands `$` and `%`, and knows quotes and
/// backslashes as C does.
pub(super) fn for_systemd(word: &str) -> String {
    if is_plain(word) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '$' | '%' => text.extend([c, c]),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text + "\""
}

/// Whether a word means itself wherever it stands in a unit file.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+".contains(c);
    !word.is_empty() && word.chars().all(plain)
}

/// A command of a crontab: words for `sh`, in which crontab(5) makes a newline of each `%`
/// that has no backslash.
pub(super) fn for_cron(command: &Command) -> String {
    command.display().replace('%', "\\%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_units_are_not_expanded() {
        assert_eq!(
            for_systemd("/srv/gpu/inventory.yml"),
            "/srv/gpu/inventory.yml"
        );
        assert_eq!(for_systemd("web:&eu 100%"), "\"web:&eu 100%%\"");
        assert_eq!(for_systemd("a$b\"c\\"), "\"a$$b\\\"c\\\\\"");
        assert_eq!(for_systemd(""), "\"\"");
        assert_eq!(for_systemd("a\nb\x07"), "\"a\\nb\\x07\"");
    }

    #[test]
    fn a_crontab_keeps_its_percent_signs() {
        let line = for_cron(&Command::new("/usr/bin/deploy").args(["-l", "a & b 5%"]));
        assert_eq!(line, "/usr/bin/deploy -l 'a & b 5\\%'");
    }
}
