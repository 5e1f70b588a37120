//! `tee`: as coreutils', but a write below `/sys` is what the kernel makes of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Call, Outcome, sysfs};

/// Copies standard input to standard output and to every file.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let mut append = false;
    let mut files = Vec::new();
    let mut only_files = false;
    for arg in call.args {
        match arg.as_str() {
            "--" if !only_files => only_files = true,
            "-a" | "--append" if !only_files => append = true,
            "-i" | "--ignore-interrupts" | "-p" if !only_files => {}
            option if !only_files && option.starts_with('-') && option.len() > 1 => {
                return Ok(Outcome::err(
                    format!("tee: unrecognized option '{option}'\n"),
                    1,
                ));
            }
            file => files.push(PathBuf::from(file)),
        }
    }
    let mut outcome = Outcome::default();
    let mut open: Vec<(&PathBuf, File)> = Vec::new();
    let mut attributes = Vec::new();
    for path in &files {
        if let Some(attribute) = attribute(call, path) {
            attributes.push((path, attribute));
            continue;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .append(append)
            .truncate(!append)
            .open(path);
        match file {
            Ok(file) => open.push((path, file)),
            Err(error) => complain(&mut outcome, path, &error),
        }
    }
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    for (path, mut file) in open {
        if let Err(error) = file.write_all(&input) {
            complain(&mut outcome, path, &error);
        }
    }
    for (path, attribute) in attributes {
        if let Err(error) = sysfs::write(call.host, &attribute, &String::from_utf8_lossy(&input)) {
            complain(&mut outcome, path, &error);
        }
    }
    outcome.stdout = input;
    Ok(outcome)
}

fn complain(outcome: &mut Outcome, path: &Path, error: &io::Error) {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    outcome
        .stderr
        .extend_from_slice(format!("tee: {}: {reason}\n", path.display()).as_bytes());
    outcome.status = 1;
}

/// The attribute that a path below the machine's `/sys` means, links resolved.
fn attribute(call: &Call<'_>, path: &Path) -> Option<PathBuf> {
    let sys = fs::canonicalize(call.host.path("/sys")).ok()?;
    // A bare name stands in the folder where the tool was called.
    let parent = match path.parent()? {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let parent = fs::canonicalize(parent).ok()?;
    parent
        .starts_with(sys)
        .then(|| parent.join(path.file_name().unwrap_or_default()))
}
