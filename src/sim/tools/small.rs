//! Programs of a few lines: who and where one is, and what a simulated machine
//! refuses to do.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Call, Outcome};

/// `id`: always root.
pub(super) fn id(call: &Call<'_>) -> io::Result<Outcome> {
    let options: String = call
        .args
        .iter()
        .filter(|arg| arg.starts_with('-'))
        .map(|arg| &arg[1..])
        .collect();
    let user = call
        .args
        .iter()
        .find(|arg| !arg.starts_with('-'))
        .map_or("root", String::as_str);
    let number = super::ownership::id(user);
    if user != "root" && number == 1000 {
        return Ok(Outcome::err(format!("id: '{user}': no such user\n"), 1));
    }
    let name = options.contains('n');
    Ok(Outcome::out(
        match options.chars().find(|letter| "ugG".contains(*letter)) {
            Some(_) if name => format!("{user}\n"),
            Some(_) => format!("{number}\n"),
            None => format!("uid={number}({user}) gid={number}({user}) groups={number}({user})\n"),
        },
        0,
    ))
}

/// `whoami`
pub(super) fn whoami(_: &Call<'_>) -> io::Result<Outcome> {
    Ok(Outcome::out("root\n", 0))
}

/// `uname`
pub(super) fn uname(call: &Call<'_>) -> io::Result<Outcome> {
    let mut letters: String = call
        .args
        .iter()
        .filter_map(|arg| arg.strip_prefix('-'))
        .collect();
    if letters.is_empty() {
        letters.push('s');
    }
    let host = call.host;
    let words: Vec<String> = [
        ('s', "Linux".to_owned()),
        ('n', host.read("/proc/sys/kernel/hostname")),
        ('r', host.read("/proc/sys/kernel/osrelease")),
        ('v', "#1 SMP PREEMPT_DYNAMIC".to_owned()),
        ('m', "x86_64".to_owned()),
        ('o', "GNU/Linux".to_owned()),
    ]
    .into_iter()
    .filter(|(letter, _)| letters.contains(*letter) || letters.contains('a'))
    .map(|(_, word)| word)
    .collect();
    Ok(Outcome::out(words.join(" ") + "\n", 0))
}

/// `hostname`
pub(super) fn hostname(call: &Call<'_>) -> io::Result<Outcome> {
    if call.args.iter().any(|arg| !arg.starts_with('-')) {
        return refuse(call);
    }
    Ok(Outcome::out(
        call.host.read("/proc/sys/kernel/hostname") + "\n",
        0,
    ))
}

/// `sudo`: we are root already, so the command runs as it is.
pub(super) fn sudo(call: &Call<'_>) -> io::Result<Outcome> {
    const WITH_VALUE: [&str; 10] = ["-u", "-g", "-p", "-C", "-h", "-r", "-t", "-D", "-R", "-T"];
    let mut rest = call.args.iter().peekable();
    let mut assignments = Vec::new();
    let mut shell = false;
    while let Some(arg) = rest.peek() {
        if *arg == "--" {
            rest.next();
            break;
        }
        if WITH_VALUE.contains(&arg.as_str()) {
            rest.next();
            rest.next();
        } else if arg.starts_with('-') && arg.len() > 1 {
            shell |= ["-s", "-i", "--shell", "--login"].contains(&arg.as_str());
            rest.next();
        } else if let Some((name, value)) = arg.split_once('=') {
            assignments.push((name.to_owned(), value.to_owned()));
            rest.next();
        } else {
            break;
        }
    }
    let mut command = match rest.next() {
        Some(program) if !shell => Command::new(program),
        Some(program) => {
            let mut command = Command::new("sh");
            command.args(["-c", "exec \"$@\"", "sh"]).arg(program);
            command
        }
        None if shell => Command::new("sh"),
        // `sudo -v`, `sudo -k`: nothing to ask for.
        None => return Ok(Outcome::silent()),
    };
    Err(command.args(rest).envs(assignments).exec())
}

/// `sysctl`: writes under the machine's `/proc/sys`, reads from it.
pub(super) fn sysctl(call: &Call<'_>) -> io::Result<Outcome> {
    let mut text = String::new();
    for word in call.args.iter().filter(|arg| !arg.starts_with('-')) {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (word.as_str(), None),
        };
        if key.contains("..") || key.contains('/') {
            return refuse(call);
        }
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        match value {
            Some(value) => call.host.write(&path, format!("{value}\n"))?,
            None if !call.host.path(&path).exists() => {
                return Ok(Outcome::err(
                    format!("sysctl: cannot stat {path}: No such file or directory\n"),
                    1,
                ));
            }
            None => {}
        }
        let value = call.host.read(&path);
        text.push_str(&if call.has("-n") {
            format!("{value}\n")
        } else {
            format!("{key} = {value}\n")
        });
    }
    Ok(Outcome::out(text, 0))
}

/// What has no meaning on a machine that is a folder, and would have one on the
/// machine that simulates it.
pub(super) fn refuse(call: &Call<'_>) -> io::Result<Outcome> {
    Ok(Outcome::err(
        format!("{}: not possible on a simulated host\n", call.name),
        1,
    ))
}
