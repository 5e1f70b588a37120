//! `stat -c FORMAT FILE…`: as coreutils', with the machine's owners.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Call, Outcome, ownership};

/// Runs the tool.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let mut format = None;
    let mut follow = false;
    let mut files = Vec::new();
    let mut rest = call.args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-L" | "--dereference" => follow = true,
            "-c" | "--format" => format = rest.next().map(|format| (format.as_str(), true)),
            "-Lc" | "-cL" => {
                follow = true;
                format = rest.next().map(|format| (format.as_str(), true));
            }
            "--" => files.extend(rest.by_ref()),
            arg if arg.starts_with("--format=") => format = Some((&arg["--format=".len()..], true)),
            arg if arg.starts_with("--printf=") => {
                format = Some((&arg["--printf=".len()..], false));
            }
            arg if arg.starts_with("-c") => format = Some((&arg[2..], true)),
            arg if arg.starts_with('-') && arg.len() > 1 => {
                return Ok(Outcome::err(
                    format!("stat: unrecognized option '{arg}'\n"),
                    1,
                ));
            }
            _ => files.push(arg),
        }
    }
    let (format, newline) = format.unwrap_or((
        "  File: %N\\n  Size: %s\\tBlocks: %b\\tIO Block: %o %F\\nAccess: (0%a/%A)  Uid: (%u/%U)   Gid: (%g/%G)\\nModify: %y\\n",
        false,
    ));
    if files.is_empty() {
        return Ok(Outcome::err("stat: missing operand\n", 1));
    }
    let mut outcome = Outcome::default();
    for file in files {
        let path = Path::new(file);
        let metadata = if follow {
            fs::metadata(path)
        } else {
            fs::symlink_metadata(path)
        };
        match metadata {
            Ok(metadata) => {
                let text = expand(format, !newline, file, path, &metadata, follow);
                outcome.stdout.extend_from_slice(text.as_bytes());
                if newline {
                    outcome.stdout.push(b'\n');
                }
            }
            Err(error) => {
                let text = error.to_string();
                let reason = text.split(" (os error").next().unwrap_or(&text);
                let line = format!("stat: cannot statx '{file}': {reason}\n");
                outcome.stderr.extend_from_slice(line.as_bytes());
                outcome.status = 1;
            }
        }
    }
    Ok(outcome)
}

fn expand(
    format: &str,
    escapes: bool,
    name: &str,
    path: &Path,
    metadata: &Metadata,
    follow: bool,
) -> String {
    let resolved;
    let owned_path = match fs::canonicalize(path) {
        Ok(real) if follow => {
            resolved = real;
            resolved.as_path()
        }
        _ => path,
    };
    let owner = ownership::of(owned_path);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if escapes => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('0') => text.push('\0'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            '%' => directive(&mut text, letters.next(), name, path, metadata, &owner),
            letter => text.push(letter),
        }
    }
    text
}

fn directive(
    text: &mut String,
    letter: Option<char>,
    name: &str,
    path: &Path,
    metadata: &Metadata,
    owner: &ownership::Ownership,
) {
    let mode = metadata.mode();
    let seconds = |whole: i64| whole.to_string();
    let result = match letter {
        Some('a') => write!(text, "{:o}", mode & 0o7777),
        Some('A') => write!(text, "{}", permissions(metadata)),
        Some('b') => write!(text, "{}", metadata.blocks()),
        Some('B') => write!(text, "512"),
        Some('d') => write!(text, "{}", metadata.dev()),
        Some('D') => write!(text, "{:x}", metadata.dev()),
        Some('f') => write!(text, "{mode:x}"),
        Some('F') => write!(text, "{}", kind(metadata)),
        Some('g') => write!(text, "{}", ownership::id(&owner.group)),
        Some('G') => write!(text, "{}", owner.group),
        Some('h') => write!(text, "{}", metadata.nlink()),
        Some('i') => write!(text, "{}", metadata.ino()),
        Some('n') => write!(text, "{name}"),
        Some('N') => match fs::read_link(path) {
            Ok(target) => write!(text, "'{name}' -> '{}'", target.display()),
            Err(_) => write!(text, "'{name}'"),
        },
        Some('o') => write!(text, "{}", metadata.blksize()),
        Some('s') => write!(text, "{}", metadata.len()),
        Some('u') => write!(text, "{}", ownership::id(&owner.user)),
        Some('U') => write!(text, "{}", owner.user),
        Some('X') => write!(text, "{}", seconds(metadata.atime())),
        Some('Y') => write!(text, "{}", seconds(metadata.mtime())),
        Some('Z') => write!(text, "{}", seconds(metadata.ctime())),
        Some('y') => write!(text, "{}", stamp(metadata.mtime(), metadata.mtime_nsec())),
        Some('x') => write!(text, "{}", stamp(metadata.atime(), metadata.atime_nsec())),
        Some('z') => write!(text, "{}", stamp(metadata.ctime(), metadata.ctime_nsec())),
        Some('t' | 'T' | 'W') => write!(text, "0"),
        Some('w') => write!(text, "-"),
        Some('%') | None => write!(text, "%"),
        Some(_) => write!(text, "?"),
    };
    // Writing to a string cannot fail.
    let _ = result;
}

fn stamp(seconds: i64, nanoseconds: i64) -> String {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(seconds, nanoseconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S.%9f +0000").to_string(),
        Err(_) => "-".to_owned(),
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_block_device() {
        "block special file"
    } else if kind.is_char_device() {
        "character special file"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else if metadata.len() == 0 {
        "regular empty file"
    } else {
        "regular file"
    }
}

fn permissions(metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let mode = metadata.mode();
    let mut text = String::from(if kind.is_dir() {
        "d"
    } else if kind.is_symlink() {
        "l"
    } else {
        "-"
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
