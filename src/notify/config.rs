//! The file of `--notify`: who is told of what, and how.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;

use crate::desired::Block;
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{Loaded, Node};

/// For how long the same news is not told again if nothing else is said, hours.
const USUAL_REPEAT_HOURS: i64 = 24;

/// Of what news there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Somebody changed something on a host.
    Drifted,
    /// Something else is wanted than was applied.
    Pending,
    /// A host failed, or nothing could be begun.
    Failed,
    /// A host could not be reached.
    Unreachable,
    /// Drift comes back each time.
    Flapping,
    /// Runs of the schedule are missing.
    Missed,
    /// Something that was told is over.
    Recovered,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Drifted,
        Self::Pending,
        Self::Failed,
        Self::Unreachable,
        Self::Flapping,
        Self::Missed,
        Self::Recovered,
    ];

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Drifted => "drifted",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Flapping => "flapping",
            Self::Missed => "missed",
            Self::Recovered => "recovered",
        }
    }
}

/// Who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// What it is called; what was told is remembered by it.
    pub name: String,
    /// Of what.
    pub on: Vec<Kind>,
    /// After how long the same news is told again.
    pub repeat: SignedDuration,
    /// The template of the message.
    pub template: Option<PathBuf>,
    /// Seconds for all of the sending.
    pub timeout_s: u32,
    /// How.
    pub way: Way,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// By an HTTP request.
    Webhook {
        /// To where.
        url: Url,
        /// With these headers.
        headers: Vec<(String, String)>,
        /// And one whose value is secret.
        secret: Option<SecretHeader>,
    },
    /// By a program that gets the message on its standard input.
    Command(Vec<String>),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// As it is written.
    Written(String),
    /// As a file has it, because it is a secret itself.
    InFile(PathBuf),
}

/// A header whose value is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretHeader {
    /// Its name.
    pub header: String,
    /// What stands before the secret.
    pub prefix: String,
    /// The file.
    pub file: PathBuf,
}

/// Reads the document of a file; paths in it are relative to its folder.
#[must_use]
pub fn read(document: Option<&Node>, folder: &Path) -> Loaded<Vec<Channel>> {
    let mut problems = Problems::default();
    let mut block = Block::new("", document, &mut problems);
    let entries = list(&mut block, "notifications");
    block.finish();
    let what = "it has a list `notifications`, each with a `name` and a `webhook` or a `command`";
    if document.is_some_and(|node| node.as_seq().is_some()) {
        let problem = Diagnostic::error("the file of `--notify` begins with a list");
        problems = Problems::default();
        problems.push(problem.hint(what));
    } else if entries.is_empty() && !problems.has_errors() {
        problems.push(Diagnostic::error("the file of `--notify` names nobody").hint(what));
    }
    let mut channels: Vec<Channel> = Vec::new();
    for node in entries {
        let Some(channel) = channel(node, folder, &mut problems) else {
            continue;
        };
        if channels.iter().any(|known| known.name == channel.name) {
            let message = format!("there are two notifications `{}`", channel.name);
            problems.push(Diagnostic::error(message).at(&node.origin));
        }
        channels.push(channel);
    }
    (channels, problems)
}

fn list<'v>(block: &mut Block<'v, '_>, key: &'static str) -> &'v [Node] {
    let Some(node) = block.node(key) else {
        return &[];
    };
    let nodes = node.as_seq();
    if nodes.is_none() {
        let message = format!(
            "`{}` must be a list, not {}",
            block.path_of(key),
            node.kind()
        );
        block
            .problems
            .push(Diagnostic::error(message).at(&node.origin));
    }
    nodes.unwrap_or_default()
}

fn channel(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Channel> {
    let mut block = Block::new("notifications", Some(node), problems);
    let name = block.text("name", "").value;
    let has = |key: &str| node.as_map().is_some_and(|map| map.contains_key(key));
    // In YAML 1.1 a plain `on` is a boolean, as a key too.
    let on = kinds(&mut block, if has("true") { "true" } else { "on" });
    let repeat = repeat(&mut block);
    let template = block.text("template", "").value;
    let timeout_s = block.count("timeout", 10, 1, 120).value;
    let command = block.texts("command");
    let argv: Vec<String> = command.value.into_iter().map(|word| word.value).collect();
    let wants_webhook = has("webhook");
    let webhook = webhook(&mut block, folder);
    block.finish();
    let mut wrong = |message: &str, hint: &str| {
        problems.push(Diagnostic::error(message).at(&node.origin).hint(hint));
    };
    if name.is_empty() {
        wrong(
            "a notification has no name",
            "what was told is remembered by its `name`",
        );
        return None;
    }
    let way = match (wants_webhook, argv.is_empty()) {
        (true, true) => webhook?,
        (false, false) => Way::Command(argv),
        _ => {
            let hint = "give one of `webhook: {url: …}` and `command: [PROGRAM, …]`";
            wrong("it is not said how to tell it, or it is said twice", hint);
            return None;
        }
    };
    Some(Channel {
        name,
        on,
        repeat,
        template: (!template.is_empty()).then(|| folder.join(template)),
        timeout_s,
        way,
    })
}

fn kinds(block: &mut Block<'_, '_>, key: &'static str) -> Vec<Kind> {
    let written = block.texts(key);
    if written.origin.is_none() {
        return Kind::ALL.to_vec();
    }
    let mut kinds = Vec::new();
    for word in written.value {
        match Kind::ALL.into_iter().find(|kind| kind.word() == word.value) {
            Some(kind) => kinds.push(kind),
            None => {
                let message = format!("there is no news `{}`", word.value);
                let found = Diagnostic::error(message);
                let found = found.did_you_mean(&word.value, Kind::ALL.map(Kind::word));
                block.problems.push(word.blame(found));
            }
        }
    }
    kinds
}

fn repeat(block: &mut Block<'_, '_>) -> SignedDuration {
    let usual = SignedDuration::from_hours(USUAL_REPEAT_HOURS);
    let written = block.text("repeat", "");
    if written.value.is_empty() {
        return usual;
    }
    if written.value == "never" {
        return SignedDuration::MAX;
    }
    let span = written.value.parse::<jiff::Span>().ok();
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    match span.and_then(|span| span.to_duration(days).ok()) {
        Some(span) if span.is_positive() => span,
        _ => {
            let message = format!(
                "`{}` is no time such as 12h or 7d, nor `never`",
                written.value
            );
            block
                .problems
                .push(written.blame(Diagnostic::error(message)));
            usual
        }
    }
}

fn webhook(block: &mut Block<'_, '_>, folder: &Path) -> Option<Way> {
    let mut hook = block.child("webhook");
    let at: Option<Origin> = hook.origin.clone();
    let url = hook.text("url", "");
    let file = hook.text("url_file", "").value;
    let headers = headers(&mut hook);
    let written = hook.node("secret");
    if let Some(node) = written.filter(|node| node.as_map().is_none()) {
        // Without its place, which would be shown with the line and the secret in it.
        let (path, line) = (node.origin.path().display(), node.origin.line);
        let message = format!("{path}:{line}: the `secret` of a webhook does not stand here");
        let hint = "`secret: {file: FILE}` names the file that it is in";
        hook.problems.push(Diagnostic::error(message).hint(hint));
        return None;
    }
    let has_secret = written.is_some();
    let mut own = hook.child("secret");
    let secret = SecretHeader {
        header: own.text("header", "Authorization").value,
        prefix: own.text("prefix", "Bearer ").value,
        file: folder.join(own.text("file", "").value),
    };
    let lacks_file = secret.file == folder;
    own.finish();
    hook.finish();
    let at = at?;
    let mut wrong = |message: &str| block.problems.push(Diagnostic::error(message).at(&at));
    let is_http = road(&url.value).is_some();
    let to = match (url.value.is_empty(), file.is_empty()) {
        (false, true) if is_http => Url::Written(url.value),
        (true, false) => Url::InFile(folder.join(file)),
        (false, true) => {
            wrong("a `url` begins with https:// or http://");
            return None;
        }
        _ => {
            wrong("a webhook has a `url`, or a `url_file` where the address is a secret itself");
            return None;
        }
    };
    if has_secret && lacks_file {
        wrong("the `secret` of a webhook lacks the `file` that it is in");
    }
    if let (true, Url::Written(url)) = (has_secret, &to)
        && road(url) == Some(Road::Open)
    {
        wrong("a secret goes over https:// only, except to this machine");
    }
    Some(Way::Webhook {
        url: to,
        headers,
        secret: has_secret.then_some(secret),
    })
}

/// The road that a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// Nobody on it can read along.
    Tls,
    /// It stays on this machine.
    Here,
    /// Whoever is on it can read along.
    Open,
}

/// The road to an address, which is taken apart as the client does it that sends the request;
/// none where it is no address of the web.
pub(super) fn road(url: &str) -> Option<Road> {
    let url: ureq::http::Uri = url.parse().ok()?;
    let scheme = url.scheme_str()?.to_ascii_lowercase();
    let host = url.host().filter(|host| !host.is_empty())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match (scheme.as_str(), is_here) {
        ("https", _) => Some(Road::Tls),
        ("http", true) => Some(Road::Here),
        ("http", false) => Some(Road::Open),
        _ => None,
    }
}

fn headers(hook: &mut Block<'_, '_>) -> Vec<(String, String)> {
    let Some(node) = hook.node("headers") else {
        return Vec::new();
    };
    let Some(map) = node.as_map() else {
        let message = format!("`headers` must be a mapping, not {}", node.kind());
        hook.problems
            .push(Diagnostic::error(message).at(&node.origin));
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (name, entry) in map {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let value = entry
            .node
            .as_str()
            .filter(|value| !value.contains(char::is_control));
        match value {
            Some(value) if !name.is_empty() && name.chars().all(is_token) => {
                headers.push((name.clone(), value.to_owned()));
            }
            _ => {
                let message = format!("`{name}` is no header with a text of one line");
                hook.problems
                    .push(Diagnostic::error(message).at(&entry.node.origin));
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Loaded<Vec<Channel>> {
        let (node, found) = crate::yaml::load(Path::new("notify.yml"), text);
        assert!(!found.has_errors(), "{found:?}");
        read(node.as_ref(), Path::new("/srv"))
    }

    #[test]
    fn a_file_names_who_is_told_of_what() {
        let (channels, problems) = of(
            "notifications:\n- name: chat\n  on: [drifted, recovered]\n  repeat: 7d\n  template: chat.j2\n  webhook:\n    url: https://chat.example/x\n    headers: {X-Room: gpu}\n    secret: {file: token}\n- {name: mail, command: [mail, ops]}\n",
        );
        assert!(problems.0.is_empty(), "{problems:?}");
        let chat = &channels[0];
        assert_eq!(chat.on, [Kind::Drifted, Kind::Recovered]);
        assert_eq!(chat.repeat.as_hours(), 168);
        assert_eq!(chat.template, Some(PathBuf::from("/srv/chat.j2")));
        let Way::Webhook {
            secret: Some(secret),
            headers,
            ..
        } = &chat.way
        else {
            panic!("{:?}", chat.way);
        };
        assert_eq!(
            (secret.header.as_str(), secret.prefix.as_str()),
            ("Authorization", "Bearer ")
        );
        assert_eq!(secret.file, Path::new("/srv/token"));
        assert_eq!(headers[..], [("X-Room".to_owned(), "gpu".to_owned())]);
        assert_eq!(channels[1].on.len(), 7);
        assert_eq!(
            channels[1].way,
            Way::Command(vec!["mail".to_owned(), "ops".to_owned()])
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, wrong) in [
            ("notifications: []\n", "names nobody"),
            ("- name: chat\n", "begins with a list"),
            ("notification: []\n", "notification"),
            ("notifications: [{command: [x]}]\n", "has no name"),
            ("notifications: [{name: a}]\n", "not said how"),
            (
                "notifications: [{name: a, command: [x], webhook: {url: 'https://x'}}]\n",
                "said twice",
            ),
            (
                "notifications: [{name: a, command: [x]}, {name: a, command: [y]}]\n",
                "two notifications `a`",
            ),
            (
                "notifications: [{name: a, command: [x], on: [drift]}]\n",
                "no news `drift`",
            ),
            (
                "notifications: [{name: a, command: [x], repeat: often}]\n",
                "no time",
            ),
            (
                "notifications: [{name: a, webhook: {url: 'ftp://x'}}]\n",
                "begins with https://",
            ),
            ("notifications: [{name: a, webhook: {}}]\n", "has a `url`"),
            (
                "notifications: [{name: a, webhook: {url: 'https://x', headers: {'a b': c}}}]\n",
                "is no header",
            ),
            (
                "notifications: [{name: a, webhook: {url: 'https://x', secret: s3cret}}]\n",
                "secret",
            ),
            (
                "notifications: [{name: a, webhook: {url: 'http://x.example/', secret: {file: f}}}]\n",
                "https:// only",
            ),
        ] {
            let (_, problems) = of(text);
            let told = problems.to_string();
            assert!(told.contains(wrong), "{text}: {told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
        for url in [
            "http://127.0.0.1:8080/x",
            "HTTP://127.0.0.1/",
            "http://[::1]/",
            "http://localhost",
        ] {
            assert_eq!(road(url), Some(Road::Here), "{url}");
        }
        for url in [
            "http://127.0.0.1.example/",
            "http://localhost@evil/",
            "http://10.0.0.1/",
            "HTTP://10.0.0.1/",
        ] {
            assert_eq!(road(url), Some(Road::Open), "{url}");
        }
        assert_eq!(road("HTTPS://10.0.0.1/"), Some(Road::Tls));
        for url in [
            "",
            "ftp://localhost/",
            "localhost",
            "https:///x",
            "http://a b/",
        ] {
            assert_eq!(road(url), None, "{url}");
        }
        // Nothing is taken off twice.
        assert_ne!(road("http://http://127.0.0.1/"), Some(Road::Here));
    }
}
