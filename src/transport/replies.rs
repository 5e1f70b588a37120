//! The loop's frames back into replies. Pure; `wire` made the request.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::frames::{Frame, find_from};
use super::wire::{Call, Dialect, Grouping, Request, STDERR_LIMIT, request, seconds, unspeakable};
use super::{FileReply, Output, PathState, Read, Reply};
use crate::text::hex;

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
        Some(content) if hex(&Sha256::digest(content)) == sum => Some(content.to_vec()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_between_hash_and_content_is_not_taken_for_either() {
        let stat = Stat {
            mode: 0o644,
            size: 4,
            owner: "root".to_owned(),
            group: "root".to_owned(),
        };
        let sum = hex(&Sha256::digest(b"old\n"));
        let state = |content: &[u8]| file_state(&stat, &sum, Some(content), true);
        assert!(matches!(
            state(b"old\n"),
            PathState::File { content: Some(content), .. } if content == b"old\n"
        ));
        assert!(matches!(state(b"new\n"), PathState::Unreadable(_)));
    }
}
