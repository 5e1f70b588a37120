//! What is said on the wire: reads into calls of the loop's functions, and the
//! loop's frames back into replies.
//!
//! Pure. `loop.sh` is the other half; a change of one is a change of both and
//! of `VERSION`. All files of a batch go into one call, all states into one,
//! so that the host starts `head`, `stat` and `sha256sum` once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::frames::{Frame, find_from};
use super::{FileReply, Output, PathState, Read, Reply};
use crate::shell::{self, Command};

/// Which calls and frames are spoken; `loop.sh` says the same as `d_version`.
/// Remembered reads of another version are not answered.
const VERSION: u32 = 1;

/// Where the host keeps the reads of the last run (below the root prefix).
pub const REMEMBERED: &str = "/var/lib/deploy/remembered";

/// Most bytes of standard error that are kept of one call.
pub(crate) const STDERR_LIMIT: usize = 64 << 10;

/// Paths in one `head`, `stat` or `sha256sum`; far below the system's limit on
/// arguments (2 MiB) with the longest paths (4 KiB) in mind.
const PATHS_PER_CALL: usize = 400;

/// One call of a function of the loop, and which reads it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Files {
        reads: Vec<usize>,
    },
    States {
        reads: Vec<usize>,
    },
    Glob {
        read: usize,
    },
    Run {
        read: usize,
    },
    /// Several commands under one time limit.
    Group {
        reads: Vec<usize>,
    },
    Remembered {
        reads: Vec<usize>,
    },
}

/// A batch as shell text for the loop, with what is needed to read the answer.
#[derive(Debug)]
pub(crate) struct Request {
    /// Text for the loop to evaluate.
    pub(crate) text: String,
    /// When the host must have answered, at the latest.
    pub(crate) patience: Duration,
    /// More bytes than this cannot be an answer to it.
    pub(crate) bytes: u64,
    calls: Vec<Call>,
}

/// What the loop told when it started, and the prefix it was given.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    /// A spelling of `/` that stands before each path in headers.
    pub(crate) noise: String,
    /// Root prefix; empty on real hosts.
    pub(crate) root: String,
}

/// Why a path cannot be asked for; nothing is sent then.
fn unspeakable(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("the path is not absolute");
    }
    if path.contains(['\n', '\0']) {
        return Some("the path holds a line feed or NUL");
    }
    None
}

/// Whole seconds, at least one: what every `timeout` understands.
pub(crate) fn seconds(limit: Duration) -> u64 {
    let whole = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    whole.max(1)
}

/// How the commands of a batch are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// In one shell under one time limit: the fewest programs on the host.
    Together,
    /// Each under its own time limit.
    Alone,
}

/// A shell takes 128 KiB in one argument; groups stay far below.
const GROUP_TEXT: usize = 48 << 10;

/// The reads as one request.
pub(crate) fn request(reads: &[Read], grouping: Grouping) -> Request {
    let mut files: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut states = Vec::new();
    let mut others = Vec::new();
    let mut commands = Vec::new();
    let mut remembered = Vec::new();
    let mut patience = Duration::from_secs(60);
    let mut bytes: u64 = 4 << 20;
    for (index, read) in reads.iter().enumerate() {
        bytes = bytes.saturating_add(8 << 10);
        match read {
            Read::File { path, limit } => {
                if unspeakable(path).is_some() {
                    continue;
                }
                bytes = bytes.saturating_add(*limit);
                match files
                    .iter_mut()
                    .find(|(l, r)| l == limit && r.len() < PATHS_PER_CALL)
                {
                    Some((_, reads)) => reads.push(index),
                    None => files.push((*limit, vec![index])),
                }
            }
            Read::State { path, limit, .. } => {
                if unspeakable(path).is_none() {
                    bytes = bytes.saturating_add(*limit);
                    states.push(index);
                }
            }
            Read::Glob { .. } => {
                bytes = bytes.saturating_add(16 << 20);
                others.push(Call::Glob { read: index });
            }
            Read::Command { timeout, limit, .. } => {
                patience = patience.saturating_add(Duration::from_secs(seconds(*timeout)));
                bytes = bytes.saturating_add(*limit).saturating_add(1 << 20);
                commands.push(index);
            }
            Read::Remembered => {
                patience = patience.saturating_add(Duration::from_secs(600));
                bytes = bytes.saturating_add(256 << 20);
                remembered.push(index);
            }
        }
    }
    let mut calls: Vec<Call> = files
        .into_iter()
        .map(|(_, reads)| Call::Files { reads })
        .collect();
    calls.extend(states.chunks(PATHS_PER_CALL).map(|reads| Call::States {
        reads: reads.to_vec(),
    }));
    calls.append(&mut others);
    match grouping {
        Grouping::Together => calls.extend(groups(&commands, reads)),
        Grouping::Alone => calls.extend(commands.iter().map(|read| Call::Run { read: *read })),
    }
    // Last, because how many frames it answers with is not known beforehand.
    if !remembered.is_empty() {
        calls.push(Call::Remembered { reads: remembered });
    }
    let mut text = String::new();
    for call in &calls {
        write_call(&mut text, call, reads);
    }
    Request {
        text,
        patience,
        bytes,
        calls,
    }
}

/// Commands in groups; one that would be alone in its group needs none.
fn groups(commands: &[usize], reads: &[Read]) -> Vec<Call> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in commands {
        let Read::Command { command, .. } = &reads[*index] else {
            continue;
        };
        let length = command.to_sh().len();
        match groups.last_mut() {
            Some((sum, group)) if *sum + length < GROUP_TEXT => {
                *sum += length;
                group.push(*index);
            }
            _ => groups.push((length, vec![*index])),
        }
    }
    let groups = groups.into_iter().map(|(_, group)| group);
    groups
        .map(|group| match group.as_slice() {
            [read] => Call::Run { read: *read },
            _ => Call::Group { reads: group },
        })
        .collect()
}

fn write_call(text: &mut String, call: &Call, reads: &[Read]) {
    match call {
        Call::Files { reads: indices } => {
            let limit = indices.iter().find_map(|index| match &reads[*index] {
                Read::File { limit, .. } => Some(*limit),
                _ => None,
            });
            let mut command =
                Command::new("d_files").arg(limit.unwrap_or(0).saturating_add(1).to_string());
            for index in indices {
                if let Read::File { path, .. } = &reads[*index] {
                    command = command.path(path);
                }
            }
            write_with_noise(text, &command);
        }
        Call::States { reads: indices } => {
            let mut command = Command::new("d_states");
            for index in indices {
                if let Read::State {
                    path,
                    unless,
                    limit,
                } = &reads[*index]
                {
                    command = command.arg(limit.to_string());
                    command = command.arg(unless.as_deref().unwrap_or("-")).path(path);
                }
            }
            write_with_noise(text, &command);
        }
        Call::Glob { read } => {
            if let Read::Glob { pattern } = &reads[*read] {
                let _ = writeln!(
                    text,
                    "set +f\nd_glob \"$R\"{}\nset -f",
                    shell::pattern(pattern)
                );
            }
        }
        Call::Run { read } => {
            if let Read::Command {
                command,
                timeout,
                limit,
            } = &reads[*read]
            {
                let limit = limit.saturating_add(1);
                let _ = writeln!(
                    text,
                    "d_run {} {limit} {}",
                    seconds(*timeout),
                    command.to_sh()
                );
            }
        }
        Call::Group { reads: indices } => write_group(text, indices, reads),
        Call::Remembered { .. } => {
            let folder = REMEMBERED
                .rsplit_once('/')
                .map_or("/", |(folder, _)| folder);
            let command = Command::new("d_remembered").path(REMEMBERED).path(folder);
            let _ = writeln!(text, "{}", command.to_sh());
        }
    }
}

/// A group has the longest limit of its commands. Where one hangs, or all
/// together are slower than that, the rest is asked for again, each alone.
fn write_group(text: &mut String, indices: &[usize], reads: &[Read]) {
    let (mut longest, mut bytes) = (0, 0_u64);
    let mut body = String::new();
    for index in indices {
        if let Read::Command {
            command,
            timeout,
            limit,
        } = &reads[*index]
        {
            longest = seconds(*timeout).max(longest);
            // Room for the end line as well.
            bytes = bytes.saturating_add(*limit).saturating_add(128);
            let _ = writeln!(body, "{}\nd_r", command.to_sh());
        }
    }
    let command = Command::new("d_group")
        .arg(longest.to_string())
        .arg(bytes.to_string())
        .arg(body);
    let _ = writeln!(text, "{}", command.to_sh());
}

/// Paths of this call are spelt with the noise, so that headers carry it.
fn write_with_noise(text: &mut String, command: &Command) {
    let _ = writeln!(text, "R=$d_noise$d_root\n{}\nR=$d_root", command.to_sh());
}

/// A command with input, as one line for the loop. The line is read with
/// `read -r`, which takes not a byte more (busybox `head` would), so that the
/// input can follow at once.
pub(crate) fn exec_line(command: &Command, timeout: Duration, input: usize) -> String {
    let words = command.to_sh().replace('\n', "'\"$d_nl\"'");
    format!("x d_exec {} {input} {words}\n", seconds(timeout))
}

/// The content of the file that `Read::Remembered` is answered from: the reads
/// as the loop's calls, and in JSON for the controller of a later run. It must
/// be owned by root and writable by nobody else, as it is evaluated there.
#[must_use]
pub fn remember(reads: &[Read]) -> Vec<u8> {
    let reads: Vec<Read> = reads
        .iter()
        .filter(|read| **read != Read::Remembered)
        .cloned()
        .collect();
    let json = serde_json::to_string(&reads).unwrap_or_else(|_| "[]".to_owned());
    let note = Command::new("d_note").arg(json).to_sh();
    let calls = request(&reads, Grouping::Together).text;
    let text = format!(
        "# What deploy looks at when it comes again; evaluated by its own shell only.\n\
         [ \"$d_version\" = {VERSION} ] || return 0\n{note}\n{calls}"
    );
    text.into_bytes()
}

/// The frames of an answer, in order, and the standard error of each call.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Frames up to the one that ends the answer, which is left out.
    pub(crate) frames: Vec<Frame>,
    /// Standard error, one frame a call, and one a command of a group.
    pub(crate) errors: Vec<Frame>,
    /// How long the answer took.
    pub(crate) took: Duration,
}

/// The replies in the order of the reads. Commands of a group that was ended
/// early have none; they are to be asked for alone.
pub(crate) fn replies(
    reads: &[Read],
    request: &Request,
    answer: Answer,
    dialect: &Dialect,
) -> Result<Vec<Option<Reply>>, String> {
    let mut replies: Vec<Option<Reply>> = vec![None; reads.len()];
    for (index, read) in reads.iter().enumerate() {
        match read {
            Read::File { path, .. } => {
                replies[index] =
                    unspeakable(path).map(|why| Reply::File(FileReply::Unreadable(why.into())));
            }
            Read::State { path, .. } => {
                replies[index] =
                    unspeakable(path).map(|why| Reply::State(PathState::Unreadable(why.into())));
            }
            _ => {}
        }
    }
    let mut reader = Reader {
        frames: answer.frames.into_iter(),
        errors: answer.errors.into_iter(),
        took: answer.took,
        dialect,
    };
    for call in &request.calls {
        reader.call(call, reads, &mut replies)?;
    }
    Ok(replies)
}

struct Reader<'a> {
    frames: std::vec::IntoIter<Frame>,
    errors: std::vec::IntoIter<Frame>,
    took: Duration,
    dialect: &'a Dialect,
}

impl Reader<'_> {
    fn frame(&mut self, tag: &str) -> Result<(Vec<u8>, String), String> {
        let Some(frame) = self.frames.next() else {
            return Err(format!("no `{tag}` frame came"));
        };
        match frame.fields.split_once(' ').unwrap_or((&frame.fields, "")) {
            (found, rest) if found == tag => Ok((frame.payload, rest.to_owned())),
            (found, _) => Err(format!(
                "a `{}` frame in place of `{tag}`",
                found.escape_debug()
            )),
        }
    }

    fn error(&mut self) -> Vec<u8> {
        self.errors
            .next()
            .map(|frame| frame.payload)
            .unwrap_or_default()
    }

    /// The commands of a group that were answered; the frame that a kill cut
    /// off is the group's own.
    fn group(
        &mut self,
        indices: &[usize],
        reads: &[Read],
        replies: &mut [Option<Reply>],
    ) -> Result<(), String> {
        let mut indices = indices.iter();
        loop {
            let frame = self.frames.next().ok_or("no `G` frame came")?;
            match frame.fields.split_once(' ') {
                None if frame.fields == "G" => break,
                Some(("r", status)) => {
                    let index = indices.next().ok_or("more answers than commands")?;
                    let stderr = self.error();
                    replies[*index] = self.output(&reads[*index], frame.payload, status, stderr)?;
                }
                _ => {
                    return Err(format!(
                        "a `{}` frame in a group",
                        frame.fields.escape_debug()
                    ));
                }
            }
        }
        // What the killed command said is dropped with it.
        while self.errors.next().is_some_and(|frame| frame.fields != "G") {}
        Ok(())
    }

    fn output(
        &self,
        read: &Read,
        mut stdout: Vec<u8>,
        status: &str,
        mut stderr: Vec<u8>,
    ) -> Result<Option<Reply>, String> {
        let Read::Command { timeout, limit, .. } = read else {
            return Ok(None);
        };
        stderr.truncate(STDERR_LIMIT);
        let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
        let truncated = stdout.len() > limit;
        stdout.truncate(limit);
        let status = parse_status(status)?;
        let timed_out = timed_out(status, *timeout, self.took);
        Ok(Some(Reply::Command(Output {
            status,
            timed_out,
            stdout,
            stderr,
            truncated,
        })))
    }

    fn name(&self, path: &str) -> String {
        format!("{}{}{path}", self.dialect.noise, self.dialect.root)
    }

    fn call(
        &mut self,
        call: &Call,
        reads: &[Read],
        replies: &mut [Option<Reply>],
    ) -> Result<(), String> {
        match call {
            Call::Files { reads: indices } => {
                let (payload, kinds) = self.frame("f")?;
                let errors = self.error();
                let contents = contents(&payload, &self.dialect.noise);
                for (position, index) in indices.iter().enumerate() {
                    let Read::File { path, limit } = &reads[*index] else {
                        continue;
                    };
                    let name = self.name(path);
                    let kind = kinds.as_bytes().get(position).copied();
                    let reply = file_reply(
                        kind,
                        contents.get(name.as_bytes()).copied(),
                        complaint(&errors, &name),
                        *limit,
                    );
                    replies[*index] = Some(Reply::File(reply));
                }
            }
            Call::States { reads: indices } => self.states(indices, reads, replies)?,
            Call::Glob { read } => {
                let (payload, _) = self.frame("g")?;
                self.error();
                let mut paths: Vec<String> = payload
                    .split(|byte| *byte == 0)
                    .filter(|path| !path.is_empty())
                    .map(|path| String::from_utf8_lossy(path).into_owned())
                    .collect();
                paths.sort();
                replies[*read] = Some(Reply::Glob(paths));
            }
            Call::Run { read } => {
                let (stdout, status) = self.frame("r")?;
                let stderr = self.error();
                replies[*read] = self.output(&reads[*read], stdout, &status, stderr)?;
            }
            Call::Group { reads: indices } => self.group(indices, reads, replies)?,
            Call::Remembered { reads: indices } => {
                let remembered = self.remembered();
                for index in indices {
                    replies[*index] = Some(Reply::Remembered(remembered.clone()));
                }
            }
        }
        Ok(())
    }

    fn states(
        &mut self,
        indices: &[usize],
        reads: &[Read],
        replies: &mut [Option<Reply>],
    ) -> Result<(), String> {
        let (_, kinds) = self.frame("s")?;
        let mut links = Vec::new();
        for _ in kinds.bytes().filter(|kind| *kind == b'l') {
            links.push(self.frame("l")?.0);
        }
        let (stats, _) = self.frame("t")?;
        let (sums, _) = self.frame("h")?;
        let (payload, _) = self.frame("c")?;
        let errors = self.error();
        let stats = stat_lines(&stats);
        let sums = sum_lines(&sums);
        let contents = contents(&payload, &self.dialect.noise);
        let mut links = links.into_iter();
        for (position, index) in indices.iter().enumerate() {
            let Read::State {
                path,
                unless,
                limit,
            } = &reads[*index]
            else {
                continue;
            };
            let name = self.name(path);
            let why =
                || complaint(&errors, &name).unwrap_or_else(|| "it could not be read".to_owned());
            let state = match kinds.as_bytes().get(position).copied() {
                Some(b'l') => match links.next() {
                    Some(target) if !target.is_empty() => PathState::Link {
                        target: String::from_utf8_lossy(&target).into_owned(),
                    },
                    _ => PathState::Unreadable("the link could not be read".to_owned()),
                },
                Some(b'f') => match (stats.get(name.as_bytes()), sums.get(name.as_bytes())) {
                    (Some(stat), Some(sum)) => {
                        let wanted = unless.as_deref() != Some(sum) && stat.size <= *limit;
                        file_state(stat, sum, contents.get(name.as_bytes()).copied(), wanted)
                    }
                    _ => PathState::Unreadable(why()),
                },
                Some(b'd') => match stats.get(name.as_bytes()) {
                    Some(stat) => PathState::Directory {
                        mode: stat.mode,
                        owner: stat.owner.clone(),
                        group: stat.group.clone(),
                    },
                    None => PathState::Unreadable(why()),
                },
                Some(b'a') => PathState::Absent,
                Some(b'u') => PathState::Unreadable("permission denied".to_owned()),
                Some(kind) => PathState::Other(kind_word(kind).to_owned()),
                None => return Err("fewer kinds than paths".to_owned()),
            };
            replies[*index] = Some(Reply::State(state));
        }
        Ok(())
    }

    /// What the host remembered, or nothing if its file is damaged, of another
    /// version, or not to be trusted: that costs a round trip and no more.
    fn remembered(&mut self) -> Vec<(Read, Reply)> {
        let Ok((json, _)) = self.frame("n") else {
            return Vec::new();
        };
        let Ok(reads) = serde_json::from_slice::<Vec<Read>>(&json) else {
            return Vec::new();
        };
        if reads.contains(&Read::Remembered) {
            return Vec::new();
        }
        let mut replies: Vec<Option<Reply>> = vec![None; reads.len()];
        for call in &request(&reads, Grouping::Together).calls {
            if self.call(call, &reads, &mut replies).is_err() {
                return Vec::new();
            }
        }
        let answered = reads.into_iter().zip(replies);
        answered
            .filter_map(|(read, reply)| reply.map(|reply| (read, reply)))
            .collect()
    }
}

/// An exit status as the loop writes it.
pub(crate) fn parse_status(text: &str) -> Result<i32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{}` in place of an exit status", text.escape_debug()))
}

/// Whether a status says that the time limit ended the command. `timeout`
/// answers 124, or 137 where it was killed with it; a command may end like that
/// by itself, but not when it had its whole time.
pub(crate) fn timed_out(status: i32, limit: Duration, took: Duration) -> bool {
    matches!(status, 124 | 137) && took >= Duration::from_secs(seconds(limit)).mul_f64(0.95)
}

fn kind_word(kind: u8) -> &'static str {
    match kind {
        b'b' => "block device",
        b'c' => "character device",
        b'p' => "pipe",
        b's' => "socket",
        b'd' => "directory",
        _ => "something else",
    }
}

fn file_reply(
    kind: Option<u8>,
    content: Option<&[u8]>,
    complaint: Option<String>,
    limit: u64,
) -> FileReply {
    match (kind, complaint, content) {
        (Some(b'a'), _, _) => FileReply::Absent,
        (Some(b'u'), _, _) => FileReply::Unreadable("permission denied".to_owned()),
        (Some(b'f'), None, Some(content)) => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            FileReply::Content {
                bytes: content[..content.len().min(limit)].to_vec(),
                truncated: content.len() > limit,
            }
        }
        (Some(b'f'), Some(why), _) => FileReply::Unreadable(why),
        (Some(b'f'), None, None) => FileReply::Unreadable("it could not be read".to_owned()),
        (Some(kind), _, _) => FileReply::Unreadable(format!("it is a {}", kind_word(kind))),
        (None, _, _) => FileReply::Unreadable("the host did not say what it is".to_owned()),
    }
}

struct Stat {
    mode: u32,
    size: u64,
    owner: String,
    group: String,
}

fn file_state(stat: &Stat, sum: &str, content: Option<&[u8]>, wanted: bool) -> PathState {
    let content = match content.filter(|_| wanted) {
        Some(content) if hex_sha256(content) == sum => Some(content.to_vec()),
        Some(_) => return PathState::Unreadable("it changed while it was read".to_owned()),
        None => None,
    };
    PathState::File {
        mode: stat.mode,
        owner: stat.owner.clone(),
        group: stat.group.clone(),
        size: stat.size,
        sha256: sum.to_owned(),
        content,
    }
}

/// SHA-256 in lower-case hexadecimal, as `sha256sum` prints it.
fn hex_sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Lines `mode:size:uid:gid:user:group:name`; names stand last as they may hold colons.
fn stat_lines(payload: &[u8]) -> HashMap<&[u8], Stat> {
    let lines = payload.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.splitn(7, |byte| *byte == b':');
            let mut text = || {
                fields
                    .next()
                    .and_then(|field| std::str::from_utf8(field).ok())
            };
            let mode = u32::from_str_radix(text()?, 16).ok()? & 0o7777;
            let size = text()?.parse().ok()?;
            let (uid, gid) = (text()?, text()?);
            let named = |name: &str, number: &str| match name {
                "" | "UNKNOWN" => number.to_owned(),
                name => name.to_owned(),
            };
            let owner = named(text()?, uid);
            let group = named(text()?, gid);
            Some((
                fields.next()?,
                Stat {
                    mode,
                    size,
                    owner,
                    group,
                },
            ))
        })
        .collect()
}

/// Lines `hash  name`; GNU marks names with backslashes by one in front, and doubles them.
fn sum_lines(payload: &[u8]) -> HashMap<Vec<u8>, String> {
    let lines = payload.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let (line, escaped) = match line.strip_prefix(b"\\") {
                Some(rest) => (rest, true),
                None => (line, false),
            };
            let hash = std::str::from_utf8(line.get(..64)?).ok()?;
            let name = line.get(66..)?;
            let name = match escaped {
                true => unescape(name),
                false => name.to_vec(),
            };
            hash.bytes()
                .all(|byte| byte.is_ascii_hexdigit())
                .then(|| (name, hash.to_ascii_lowercase()))
        })
        .collect()
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.extend(bytes.next().copied()),
            byte => plain.push(*byte),
        }
    }
    plain
}

/// The files that one or more `head` calls printed, by name. A header is
/// recognised by the noise in the name, which no content can guess.
fn contents<'a>(payload: &'a [u8], noise: &str) -> HashMap<&'a [u8], &'a [u8]> {
    let mark = format!("==> {noise}").into_bytes();
    let mut found = HashMap::new();
    let mut open: Option<(&[u8], usize)> = None;
    let mut from = 0;
    while let Some(at) = find_from(payload, &mark, from) {
        let name_at = at + 4;
        let Some(end) = find_from(payload, b" <==\n", name_at) else {
            break;
        };
        if let Some((name, start)) = open.take() {
            // `head` puts a line feed before each header but its first.
            let stop = if at > start { at - 1 } else { at };
            found.insert(name, &payload[start..stop]);
        }
        from = end + 5;
        open = Some((&payload[name_at..end], from));
    }
    found
}

/// What a tool said of a path on standard error, without the path.
fn complaint(errors: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(errors);
    let line = text.lines().find(|line| {
        let mut rest = *line;
        while let Some(at) = rest.find(name) {
            rest = &rest[at + name.len()..];
            // The name and not only the start of a longer one.
            if rest.is_empty() || rest.starts_with(['\'', ':', '’', '"']) {
                return true;
            }
        }
        false
    })?;
    let why = line.rsplit(": ").next().unwrap_or(line);
    Some(why.trim().to_lowercase())
}
