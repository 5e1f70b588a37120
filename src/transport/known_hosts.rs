//! Host keys that are known: OpenSSH's `known_hosts` files, read and appended to.
//!
//! Knows names, markers, hashes and patterns, and nothing of connections. What
//! OpenSSH would refuse is refused here. russh's own reader is not used: it
//! accepts revoked keys and misses patterns.

use std::fmt;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What to do with a host whose key is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Refuse it.
    #[default]
    Strict,
    /// Write the key of a host that was never seen down, and go on. A changed
    /// key is still refused.
    AcceptNew,
}

/// What stands at the start of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    CertAuthority,
}

/// One usable line of a file.
#[derive(Debug, Clone)]
struct Line {
    number: usize,
    marker: Marker,
    hosts: String,
    /// The key as it goes over the wire.
    key: Vec<u8>,
}

/// One file. Lines that cannot be read are left out, as OpenSSH does.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    path: PathBuf,
    lines: Vec<Line>,
}

/// A key that a file holds for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The file.
    pub path: PathBuf,
    /// 1-based.
    pub line: usize,
    /// The key as it goes over the wire.
    pub key: Vec<u8>,
}

/// The name under which a host's key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// `host`, or `[host]:port` if the port is not 22, in lower case.
    name: String,
    /// `host`, to fall back to.
    plain: Option<String>,
}

impl KeyName {
    /// The name for `host` at `port`; an alias stands for itself, without port.
    #[must_use]
    pub fn new(host: &str, port: u16, alias: Option<&str>) -> Self {
        if let Some(alias) = alias {
            return Self {
                name: alias.to_lowercase(),
                plain: None,
            };
        }
        let host = host.to_lowercase();
        match port {
            22 => Self {
                name: host,
                plain: None,
            },
            port => Self {
                name: format!("[{host}]:{port}"),
                plain: Some(host),
            },
        }
    }

    /// The host without the port, as certificates name it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.name)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What the files say of a key that a host showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is this host's.
    Known,
    /// It is marked as revoked, there.
    Revoked(Known),
    /// The host has another key of the same type, there.
    Changed(Known),
    /// The host is known by keys of other types only, one of them there.
    OtherType(Known),
    /// Nothing is known of this host.
    New,
}

impl KnownHosts {
    /// Reads a file; one that does not exist holds nothing.
    ///
    /// # Errors
    /// If it exists and cannot be read: going on would mean not to see that a
    /// key is revoked.
    pub fn load(path: &Path) -> std::io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::parse(path, &String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::parse(path, "")),
            Err(error) => Err(error),
        }
    }

    /// Reads the text of a file.
    #[must_use]
    pub fn parse(path: &Path, text: &str) -> Self {
        let lines = text.lines().enumerate();
        let lines = lines
            .filter_map(|(index, line)| parse_line(index + 1, line))
            .collect();
        Self {
            path: path.to_owned(),
            lines,
        }
    }

    /// The numbers of the lines that are about a name, whatever they say of it.
    #[must_use]
    pub fn lines_for(&self, name: &str) -> Vec<usize> {
        let name = name.to_lowercase();
        let about = self
            .lines
            .iter()
            .filter(|line| matches_hosts(&line.hosts, &name));
        about.map(|line| line.number).collect()
    }

    fn known(&self, line: &Line) -> Known {
        Known {
            path: self.path.clone(),
            line: line.number,
            key: line.key.clone(),
        }
    }
}

fn entries<'a>(
    files: &'a [std::sync::Arc<KnownHosts>],
    name: &'a str,
) -> impl Iterator<Item = (&'a KnownHosts, &'a Line)> {
    files.iter().flat_map(move |file| {
        let about = file
            .lines
            .iter()
            .filter(move |line| matches_hosts(&line.hosts, name));
        about.map(move |line| (file.as_ref(), line))
    })
}

/// What the files say of `key`, shown by the host `name`.
#[must_use]
pub fn verdict(files: &[std::sync::Arc<KnownHosts>], name: &KeyName, key: &[u8]) -> Verdict {
    let names = std::iter::once(&name.name).chain(&name.plain);
    for name in names.clone() {
        let revoked = entries(files, name)
            .find(|(_, line)| line.marker == Marker::Revoked && line.key == key);
        if let Some((file, line)) = revoked {
            return Verdict::Revoked(file.known(line));
        }
    }
    let plain = |name| entries(files, name).filter(|(_, line)| line.marker == Marker::None);
    // Without port only a key that fits counts: another one there is another server's.
    if names
        .clone()
        .any(|name| plain(name).any(|(_, line)| line.key == key))
    {
        return Verdict::Known;
    }
    if let Some((file, line)) =
        plain(&name.name).find(|(_, line)| key_type(&line.key) == key_type(key))
    {
        return Verdict::Changed(file.known(line));
    }
    match plain(&name.name).next() {
        Some((file, line)) => Verdict::OtherType(file.known(line)),
        None => Verdict::New,
    }
}

/// The types of the keys known for a host (`ssh-ed25519`, ..), in file order.
/// They are asked for first, or a host could be made to show another key.
#[must_use]
pub fn known_types(files: &[std::sync::Arc<KnownHosts>], name: &KeyName) -> Vec<String> {
    let names = std::iter::once(&name.name).chain(&name.plain);
    let mut types = Vec::new();
    for (_, line) in names.flat_map(|name| entries(files, name)) {
        let name = key_type(&line.key).to_owned();
        if line.marker == Marker::None && !types.contains(&name) {
            types.push(name);
        }
    }
    types
}

/// The keys whose certificates speak for a host, as they go over the wire.
#[must_use]
pub fn authorities(files: &[std::sync::Arc<KnownHosts>], name: &KeyName) -> Vec<Vec<u8>> {
    let names = std::iter::once(&name.name).chain(&name.plain);
    let lines = names.flat_map(|name| entries(files, name));
    lines
        .filter(|(_, line)| line.marker == Marker::CertAuthority)
        .map(|(_, line)| line.key.clone())
        .collect()
}

/// Writes a key down, under a lock, unless another process was faster.
///
/// # Errors
/// If the file cannot be written, or holds another key of the host by now.
pub fn append(path: &Path, name: &KeyName, key: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let now = KnownHosts::parse(path, &String::from_utf8_lossy(&bytes));
    match verdict(&[std::sync::Arc::new(now)], name, key) {
        Verdict::Known => return Ok(()),
        Verdict::New => {}
        _ => {
            return Err(std::io::Error::other(
                "another key of this host was added meanwhile",
            ));
        }
    }
    let mut line = String::new();
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        line.push('\n');
    }
    line.push_str(&format!(
        "{} {} {}\n",
        name.name,
        key_type(key),
        BASE64.encode(key)
    ));
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// The type that a key names itself.
#[must_use]
pub fn key_type(key: &[u8]) -> &str {
    let length = key
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    let name = key.get(4..4 + usize::try_from(length.min(256)).unwrap_or(0));
    name.and_then(|name| std::str::from_utf8(name).ok())
        .unwrap_or("")
}

/// A fingerprint as `ssh-keygen -l` prints it: `SHA256:` and unpadded base64.
#[must_use]
pub fn fingerprint(key: &[u8]) -> String {
    let hash = base64::engine::general_purpose::STANDARD_NO_PAD.encode(Sha256::digest(key));
    format!("SHA256:{hash}")
}

fn parse_line(number: usize, line: &str) -> Option<Line> {
    let mut fields = line
        .split([' ', '\t', '\r'])
        .filter(|field| !field.is_empty());
    let mut first = fields.next().filter(|field| !field.starts_with('#'))?;
    let marker = match first {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::CertAuthority,
        other if other.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        first = fields.next()?;
    }
    let named = fields.next()?;
    let key = BASE64.decode(fields.next()?).ok()?;
    // The type in front must be the key's own, or the line was tampered with.
    (key_type(&key) == named).then(|| Line {
        number,
        marker,
        hosts: first.to_owned(),
        key,
    })
}

/// Whether a host field is about `name` (in lower case): a hash, or patterns of
/// which one matches and no negated one does.
fn matches_hosts(hosts: &str, name: &str) -> bool {
    if let Some(hash) = hosts.strip_prefix("|1|") {
        let Some((salt, wanted)) = hash.split_once('|') else {
            return false;
        };
        let (Ok(salt), Ok(wanted)) = (BASE64.decode(salt), BASE64.decode(wanted)) else {
            return false;
        };
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else {
            return false;
        };
        mac.update(name.as_bytes());
        return mac.verify_slice(&wanted).is_ok();
    }
    matches_list(hosts.to_lowercase().split(','), name)
}

/// Whether one of the patterns matches and none of those that start with `!` does;
/// letters as they are written.
pub(crate) fn matches_list<'a>(patterns: impl IntoIterator<Item = &'a str>, name: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// OpenSSH's patterns: `*` is any text, `?` any one byte, all else itself.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
#[path = "known_hosts_tests.rs"]
mod tests;
