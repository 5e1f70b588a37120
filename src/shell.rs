//! Commands for a host's POSIX `sh`, built from words and never by formatting.
//!
//! `Command` is one call: words, environment, and paths that live under the
//! host's root prefix. `Script` is a list of calls of which the first that
//! fails ends the script. Only this file turns words into shell text; a
//! property test holds the quoting against real shells.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Passed as it is.
    Text(String),
    /// An absolute path on the host; the root prefix (`$R`) is put before it.
    Path(String),
    /// A path in the run directory (`$RUN`), such as `payload/003`.
    Run(String),
}

/// One call of a program or of a function of the run's library.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Program first, then its arguments. Never empty.
    pub words: Vec<Word>,
    /// Environment for this call only; names are fixed by our own code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
}

impl Command {
    /// A call of `program`, looked up on the host's `PATH`.
    #[must_use]
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            words: vec![Word::Text(program.into())],
            env: Vec::new(),
        }
    }

    /// Adds a word.
    #[must_use]
    pub fn arg(mut self, text: impl Into<String>) -> Self {
        self.words.push(Word::Text(text.into()));
        self
    }

    /// Adds several words.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.words
            .extend(texts.into_iter().map(|text| Word::Text(text.into())));
        self
    }

    /// Adds an absolute path on the host.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.words.push(Word::Path(path.into()));
        self
    }

    /// Adds a path in the run directory.
    #[must_use]
    pub fn run_path(mut self, path: impl Into<String>) -> Self {
        self.words.push(Word::Run(path.into()));
        self
    }

    /// Sets an environment variable for the call.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The call as one line of POSIX `sh`. `$R` and `$RUN` must be set there.
    #[must_use]
    pub fn to_sh(&self) -> String {
        let mut line = String::new();
        if !self.env.is_empty() {
            line.push_str("env ");
            for (name, value) in &self.env {
                let _ = write!(line, "{} ", quote(&format!("{name}={value}")));
            }
        }
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            match word {
                Word::Text(text) => line.push_str(&quote(text)),
                Word::Path(path) => {
                    line.push_str("\"$R\"");
                    line.push_str(&quote(path));
                }
                Word::Run(path) => {
                    line.push_str("\"$RUN\"/");
                    line.push_str(&quote(path));
                }
            }
        }
        line
    }

    /// The call as a person would type it, for plans and messages; the prefix is left out.
    #[must_use]
    pub fn display(&self) -> String {
        let words: Vec<String> = self
            .words
            .iter()
            .map(|word| match word {
                Word::Text(text) | Word::Path(text) | Word::Run(text) => quote(text),
            })
            .collect();
        words.join(" ")
    }
}

/// Calls in order; the first that fails ends the script with its status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script(pub Vec<Command>);

impl Script {
    /// A script of one call.
    #[must_use]
    pub fn one(command: Command) -> Self {
        Self(vec![command])
    }

    /// Adds a call at the end.
    #[must_use]
    pub fn then(mut self, command: Command) -> Self {
        self.0.push(command);
        self
    }

    /// Whether there is nothing to call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The body of the script, one line a call, each ending in `|| exit`.
    #[must_use]
    pub fn to_sh(&self) -> String {
        let mut text = String::new();
        for command in &self.0 {
            text.push_str(&command.to_sh());
            text.push_str(" || exit\n");
        }
        text
    }
}

/// One word, quoted for POSIX `sh` if it needs to be. NUL bytes cannot be
/// carried by any argument and are dropped.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('\'');
    for c in word.chars() {
        match c {
            '\'' => quoted.push_str(r"'\''"),
            '\0' => {}
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// A path pattern for POSIX `sh`: `*`, `?` and `[…]` keep their meaning, all
/// else is quoted. A bracket without end, or with more in it than letters,
/// digits, `-`, `_`, `.` and a leading `!` or `^`, is taken literally.
#[must_use]
pub fn pattern(text: &str) -> String {
    let mut done = String::with_capacity(text.len() + 8);
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (special, length) = match c {
            '*' | '?' => (Some(c.to_string()), 1),
            '[' => match bracket(rest) {
                Some((class, length)) => (Some(class), length),
                None => (None, 1),
            },
            _ => (None, c.len_utf8()),
        };
        match special {
            Some(special) => {
                if !literal.is_empty() {
                    done.push_str(&quote(&std::mem::take(&mut literal)));
                }
                done.push_str(&special);
            }
            None => literal.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    if !literal.is_empty() || done.is_empty() {
        done.push_str(&quote(&literal));
    }
    done
}

/// A bracket expression at the start of `text`, and its length.
fn bracket(text: &str) -> Option<(String, usize)> {
    let end = text.find(']')?;
    let inner = &text[1..end];
    let (not, class) = match inner.strip_prefix(['!', '^']) {
        Some(class) => ("!", class),
        None => ("", inner),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if class.is_empty() || !class.chars().all(plain) {
        return None;
    }
    Some((format!("[{not}{class}]"), end + 1))
}

/// A command's argument quoted for a login shell that may not be POSIX: fish
/// gives a backslash between single quotes a meaning, so it stands outside.
#[must_use]
pub fn quote_for_login(word: &str) -> String {
    let parts: Vec<String> = word
        .split('\\')
        .map(|part| match part {
            "" => String::new(),
            part => format!("'{}'", part.replace('\0', "").replace('\'', "'\"'\"'")),
        })
        .collect();
    match parts.join("\\\\") {
        quoted if quoted.is_empty() => "''".to_owned(),
        quoted => quoted,
    }
}

/// A text cut into words as Python's `shlex.split` does, which Ansible uses for command
/// lines and SSH arguments: quotes and backslashes, no expansions. `None` if a quote
/// stays open or nothing follows a backslash.
#[must_use]
pub fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_under_the_root_prefix() {
        let command = Command::new("cp").path("/etc/a b").run_path("payload/1");
        assert_eq!(command.to_sh(), r#"cp "$R"'/etc/a b' "$RUN"/payload/1"#);
        assert_eq!(command.display(), "cp '/etc/a b' payload/1");
    }

    #[test]
    fn a_pattern_keeps_its_wildcards_and_nothing_else() {
        assert_eq!(pattern("/sys/a b/*/x[0-9]?"), "'/sys/a b/'*/x[0-9]?");
        assert_eq!(pattern("/a[$(x)]"), "'/a[$(x)]'");
        assert_eq!(pattern("/a[^b]"), "/a[!b]");
        assert_eq!(pattern(""), "''");
    }

    #[test]
    fn no_backslash_stands_between_quotes_for_a_login_shell() {
        assert_eq!(quote_for_login(r"a\nb's"), r#"'a'\\'nb'"'"'s'"#);
        assert_eq!(quote_for_login(""), "''");
    }

    #[test]
    fn an_assignment_as_program_is_not_an_assignment() {
        // `a=b` unquoted in first place would set a variable instead of running.
        assert_eq!(Command::new("echo").arg("a=b").to_sh(), "echo a=b");
    }

    #[test]
    fn commands_are_split_as_python_does() {
        let words = |text: &str| split(text).unwrap_or_default();
        assert_eq!(words("a  b\n c"), ["a", "b", "c"]);
        assert_eq!(
            words(r#"a 'b c' "d \" e" f\ g '' "#),
            ["a", "b c", "d \" e", "f g", ""]
        );
        assert_eq!(words(r#"x="1 2"'3'"#), ["x=1 23"]);
        assert_eq!(words(r#""a\nb""#), [r"a\nb"]);
        assert_eq!(words("a | b > c; $d"), ["a", "|", "b", ">", "c;", "$d"]);
        assert_eq!(split("a 'b"), None);
        assert_eq!(split("a \\"), None);
    }
}
