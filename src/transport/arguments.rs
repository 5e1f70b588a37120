//! Options of `ssh`'s command line, as inventories carry them
//! (`ansible_ssh_common_args` and its like), and jump hosts as they are written.

use std::path::PathBuf;

use super::ssh_config::{self, Setting};
use super::target::Reader;
use crate::error::Diagnostic;
use crate::shell;

impl Reader<'_> {
    /// Options as on `ssh`'s command line; those that are not known are refused by name.
    pub(crate) fn arguments(
        &mut self,
        variable: &'static str,
        front: &mut Vec<Setting>,
        file: &mut Option<PathBuf>,
    ) {
        let Some((text, node)) = self
            .vars
            .get(variable)
            .and_then(|node| Some((node.as_str()?.to_owned(), node.clone())))
        else {
            return;
        };
        let mut refuse = |message: String| {
            self.problems
                .push(Diagnostic::error(message).at(&node.origin));
        };
        if text.contains("{{") {
            refuse(format!("`{variable}` is still a template"));
            return;
        }
        let Some(words) = shell::split(&text) else {
            refuse(format!("a quote in `{variable}` is not closed"));
            return;
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(letter) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) else {
                refuse(format!("`{word}` in `{variable}` is no option"));
                continue;
            };
            // Options that say nothing to us: compression, quietness, forwarding of the agent.
            if matches!(
                word.as_str(),
                "-C" | "-q" | "-v" | "-vv" | "-vvv" | "-a" | "-A" | "-T" | "-x" | "-4" | "-6"
            ) {
                if let Some(family) = match letter {
                    '4' => Some("inet"),
                    '6' => Some("inet6"),
                    _ => None,
                } {
                    front.push(Setting {
                        keyword: "addressfamily".into(),
                        words: vec![family.into()],
                        origin: Some(node.origin.clone()),
                    });
                }
                continue;
            }
            if !matches!(letter, 'o' | 'J' | 'i' | 'p' | 'l' | 'F') {
                refuse(format!(
                    "`{word}` in `{variable}` is not supported; `-o`, `-J`, `-i`, `-l`, `-p` and `-F` are"
                ));
                continue;
            }
            let attached = word[2..].to_owned();
            let value = if attached.is_empty() {
                words.next()
            } else {
                Some(attached)
            };
            let Some(value) = value else {
                refuse(format!("`{word}` in `{variable}` has no value"));
                continue;
            };
            let (keyword, value) = match letter {
                'o' => match value.split_once(|c: char| c == '=' || c.is_whitespace()) {
                    Some((keyword, value)) => (
                        keyword.trim().to_lowercase(),
                        value.trim_start_matches([' ', '=']).to_owned(),
                    ),
                    None => {
                        refuse(format!("`-o {value}` in `{variable}` has no value"));
                        continue;
                    }
                },
                'J' => ("proxyjump".to_owned(), value),
                'i' => ("identityfile".to_owned(), value),
                'p' => ("port".to_owned(), value),
                'l' => ("user".to_owned(), value),
                _ => {
                    *file = Some(PathBuf::from(ssh_config::tilde(&value)));
                    continue;
                }
            };
            let words = match keyword.as_str() {
                "userknownhostsfile" | "globalknownhostsfile" => {
                    value.split_whitespace().map(str::to_owned).collect()
                }
                _ => vec![value.trim_matches('"').to_owned()],
            };
            front.push(Setting {
                keyword,
                words,
                origin: Some(node.origin.clone()),
            });
        }
    }
}

/// `[user@]host[:port]`, also as `ssh://…` and with an IPv6 address in brackets.
pub(crate) fn split_hop(hop: &str) -> Option<(Option<&str>, &str, Option<&str>)> {
    let hop = hop
        .strip_prefix("ssh://")
        .unwrap_or(hop)
        .trim_end_matches('/');
    let (user, rest) = match hop.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, hop),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            // Several colons are an address.
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (rest, None),
        },
    };
    (!host.is_empty()).then_some((user, host, port))
}
