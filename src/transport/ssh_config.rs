//! The user's `ssh_config`: which settings apply to a host, the first of each.
//!
//! Settings from the command line or the inventory are put in front as if they
//! stood in the file, so there is one precedence. A keyword that would change
//! where or as whom we connect, and that is not read here, is an error where it
//! applies to a host in use; those known to change neither are passed over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::known_hosts::matches_list;
use super::ssh_settings::{HostSettings, expand, interpret};
use crate::error::{Diagnostic, Origin, Problems, Source};

/// How deep files may include each other; OpenSSH's own limit.
const INCLUDE_DEPTH: usize = 16;

/// Keywords whose values are used.
const READ: &[&str] = &[
    "addressfamily",
    "certificatefile",
    "connecttimeout",
    "globalknownhostsfile",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "port",
    "proxycommand",
    "proxyjump",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

/// Keywords that change neither where nor as whom we connect, nor what is trusted.
const HARMLESS: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "channeltimeout",
    "checkhostip",
    "ciphers",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "gssapikexalgorithms",
    "gssapikeyexchange",
    "gssapirenewalforcesrekey",
    "gssapitrustdns",
    "hashknownhosts",
    "hostbasedauthentication",
    "hostkeyalgorithms",
    "ignoreunknown",
    "ipqos",
    "kbdinteractiveauthentication",
    "challengeresponseauthentication",
    "kexalgorithms",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "macs",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitlocalcommand",
    "permitremoteopen",
    "preferredauthentications",
    "protocol",
    "proxyusefdpass",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "pubkeyauthentication",
    "refuseconnection",
    "rekeylimit",
    "remoteforward",
    "requesttty",
    "requiredrsasize",
    "sendenv",
    "sessiontype",
    "setenv",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "useroaming",
    "usekeychain",
    "verifyhostkeydns",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];

/// Keywords that matter and are not read: an error where they apply.
const UNREAD: &[&str] = &[
    "bindaddress",
    "bindinterface",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizehostname",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "casignaturealgorithms",
    "hostbasedacceptedalgorithms",
    "knownhostscommand",
    "pkcs11provider",
    "remotecommand",
    "revokedhostkeys",
    "securitykeyprovider",
    "tag",
];

/// One setting, wherever it was written.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// In lower case.
    pub(crate) keyword: String,
    pub(crate) words: Vec<String>,
    pub(crate) origin: Option<Origin>,
}

/// When the lines of a block apply.
#[derive(Debug)]
enum Condition {
    Host(Vec<String>),
    Match(Vec<String>),
}

#[derive(Debug)]
struct Item {
    setting: Setting,
    conditions: Vec<Arc<Condition>>,
}

/// The lines of one file and all that it includes, in order.
#[derive(Debug, Default)]
pub struct SshConfig {
    items: Vec<Item>,
    problems: Problems,
}

/// The user's home folder.
pub(crate) fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

/// The name of the user who runs us.
pub(crate) fn local_user() -> String {
    let named = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    named.unwrap_or_else(|| "root".to_owned())
}

impl SshConfig {
    /// The user's file and the system's, as `ssh` reads them without `-F`.
    #[must_use]
    pub fn of_user() -> Self {
        let mut config = Self::default();
        let user = home().join(".ssh/config");
        if let Some(problem) = bad_permissions(&user) {
            config.problems.push(problem);
        } else {
            config.read(&user, &home().join(".ssh"), &[], 0, false);
        }
        config.read(
            Path::new("/etc/ssh/ssh_config"),
            Path::new("/etc/ssh"),
            &[],
            0,
            false,
        );
        config
    }

    /// One file only, as with `ssh -F`; `none` is no file.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        let mut config = Self::default();
        if path != Path::new("none") {
            config.read(path, &home().join(".ssh"), &[], 0, true);
        }
        config
    }

    fn read(
        &mut self,
        path: &Path,
        folder: &Path,
        outer: &[Arc<Condition>],
        depth: usize,
        must: bool,
    ) {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if !must && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", path.display());
                self.problems
                    .push(Diagnostic::error(message).of_file(&error));
                return;
            }
        };
        let source = Arc::new(Source {
            path: path.to_owned(),
            text,
        });
        let mut conditions = outer.to_vec();
        let mut at = 0;
        for line in source.text.split_inclusive('\n') {
            let span = at..at + line.trim_end().len();
            at += line.len();
            let origin = Origin::new(&source, span);
            let words = match split(line) {
                Ok(words) => words,
                Err(why) => {
                    self.problems.push(Diagnostic::error(why).at(&origin));
                    continue;
                }
            };
            let Some((keyword, words)) = words.split_first() else {
                continue;
            };
            let keyword = keyword.to_lowercase();
            let words = words.to_vec();
            if words.is_empty() {
                self.problems
                    .push(Diagnostic::error(format!("`{keyword}` has no value")).at(&origin));
                continue;
            }
            match keyword.as_str() {
                "host" | "match" => {
                    let condition = match keyword.as_str() {
                        "host" => Condition::Host(words),
                        _ => Condition::Match(words),
                    };
                    conditions = outer.to_vec();
                    conditions.push(Arc::new(condition));
                }
                "include" if depth >= INCLUDE_DEPTH => {
                    let message =
                        format!("files include each other more than {INCLUDE_DEPTH} deep");
                    self.problems.push(Diagnostic::error(message).at(&origin));
                }
                "include" => {
                    for word in &words {
                        for file in glob(&folder.join(tilde(word))) {
                            self.read(&file, folder, &conditions, depth + 1, false);
                        }
                    }
                }
                _ => {
                    let setting = Setting {
                        keyword,
                        words,
                        origin: Some(origin),
                    };
                    self.items.push(Item {
                        setting,
                        conditions: conditions.clone(),
                    });
                }
            }
        }
    }

    /// What applies to the host that the user calls `name`; `front` goes before
    /// the file. Problems are those of lines that apply.
    pub(crate) fn settings(&self, name: &str, front: &[Setting]) -> (HostSettings, Problems) {
        let mut problems = self.problems.clone();
        let mut taken: Vec<&Setting> = Vec::new();
        for setting in front {
            take(&mut taken, setting, &mut problems);
        }
        for item in &self.items {
            let hostname = first(&taken, "hostname").map_or(name, |setting| &setting.words[0]);
            match applies(&item.conditions, name, &expand(hostname, &[('h', name)])) {
                Some(true) => take(&mut taken, &item.setting, &mut problems),
                Some(false) => {}
                None if HARMLESS.contains(&item.setting.keyword.as_str()) => {}
                None => {
                    let message = format!(
                        "`{}` stands below a `Match` that is not read",
                        item.setting.keyword
                    );
                    let hint = "of `Match`, `all`, `host`, `originalhost` and `localuser` are read; use `Host` instead";
                    problems.push(place(Diagnostic::error(message).hint(hint), &item.setting));
                }
            }
        }
        (interpret(name, &taken, &mut problems), problems)
    }
}

pub(crate) fn place(diagnostic: Diagnostic, setting: &Setting) -> Diagnostic {
    match &setting.origin {
        Some(origin) => diagnostic.at(origin),
        None => diagnostic,
    }
}

fn bad_permissions(path: &Path) -> Option<Diagnostic> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    let ours = metadata.uid() == 0 || metadata.uid() == rustix::process::getuid().as_raw();
    if ours && metadata.mode() & 0o022 == 0 {
        return None;
    }
    let message = format!(
        "`{}` belongs to or can be written by others",
        path.display()
    );
    Some(
        Diagnostic::error(message)
            .hint("as `ssh` does, we do not trust it; `chmod 600` mends that"),
    )
}

/// Whether all conditions hold; `None` if that cannot be said.
fn applies(conditions: &[Arc<Condition>], name: &str, hostname: &str) -> Option<bool> {
    let mut sure = true;
    for condition in conditions {
        let holds = match condition.as_ref() {
            Condition::Host(patterns) => {
                Some(matches_list(patterns.iter().map(String::as_str), name))
            }
            Condition::Match(words) => matches(words, name, hostname),
        };
        match holds {
            Some(false) => return Some(false),
            Some(true) => {}
            None => sure = false,
        }
    }
    sure.then_some(true)
}

fn matches(words: &[String], name: &str, hostname: &str) -> Option<bool> {
    let mut sure = true;
    let mut words = words.iter();
    while let Some(criterion) = words.next() {
        let (negated, criterion) = match criterion.strip_prefix('!') {
            Some(rest) => (true, rest.to_lowercase()),
            None => (false, criterion.to_lowercase()),
        };
        let (criterion, value) = match criterion.split_once('=') {
            Some((criterion, value)) => (criterion.to_owned(), Some(value.to_owned())),
            None => (criterion, None),
        };
        if criterion == "all" {
            continue;
        }
        if matches!(criterion.as_str(), "canonical" | "final") {
            sure = false;
            continue;
        }
        let value = value.or_else(|| words.next().cloned()).unwrap_or_default();
        let list =
            |subject: &str| matches_list(value.to_lowercase().split(','), &subject.to_lowercase());
        let holds = match criterion.as_str() {
            "host" => list(hostname),
            "originalhost" => list(name),
            "localuser" => list(&local_user()),
            _ => {
                sure = false;
                continue;
            }
        };
        if holds == negated {
            return Some(false);
        }
    }
    sure.then_some(true)
}

pub(crate) fn first<'a>(taken: &[&'a Setting], keyword: &str) -> Option<&'a Setting> {
    taken
        .iter()
        .find(|setting| setting.keyword == keyword)
        .copied()
}

/// Takes a setting unless one of its keyword was taken before; lists collect.
fn take<'a>(taken: &mut Vec<&'a Setting>, setting: &'a Setting, problems: &mut Problems) {
    let keyword = setting.keyword.as_str();
    if READ.contains(&keyword) {
        // `ProxyJump` and `ProxyCommand` exclude each other: the first of either counts.
        let proxy = |name: &str| matches!(name, "proxyjump" | "proxycommand");
        let seen = taken
            .iter()
            .any(|other| other.keyword == keyword || (proxy(keyword) && proxy(&other.keyword)));
        if matches!(keyword, "identityfile" | "certificatefile") || !seen {
            taken.push(setting);
        }
    } else if UNREAD.contains(&keyword) {
        let off = matches!(
            setting.words.first().map(String::as_str),
            Some("no" | "none")
        );
        if !off {
            let message = format!("`{keyword}` is not supported and applies to a host in use");
            problems.push(place(Diagnostic::error(message), setting));
        }
    } else if !HARMLESS.contains(&keyword) {
        let known = READ.iter().chain(HARMLESS).chain(UNREAD).copied();
        let diagnostic = Diagnostic::error(format!("unknown keyword `{keyword}`"));
        problems.push(place(diagnostic.did_you_mean(keyword, known), setting));
    }
}

/// `~/x` in the user's home folder.
pub(crate) fn tilde(path: &str) -> String {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", home().display())
        }
        _ => path.to_owned(),
    }
}

/// The files that a path with patterns in its parts names, sorted.
fn glob(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy().into_owned();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(&text));
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let fitting =
                names.filter(|name| !name.starts_with('.') && matches_list([text.as_str()], name));
            next.extend(fitting.map(|name| folder.join(name)));
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.is_file());
    found
}

/// The words of a line: blanks or one `=` after the keyword, quotes, comments.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (_, '\\') if matches!(chars.peek(), Some((_, '"' | '\'' | '\\'))) => {
                    word.extend(chars.next().map(|(_, c)| c));
                }
                (None, c) if c.is_whitespace() || (c == '=' && words.is_empty()) => {
                    end = at;
                    break;
                }
                (_, c) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.push(word);
        rest = rest[end..].trim_start();
        if words.len() == 1 {
            rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        }
    }
    Ok(words)
}

#[cfg(test)]
#[path = "ssh_config_tests.rs"]
mod tests;
