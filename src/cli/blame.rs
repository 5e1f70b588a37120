//! Who may have changed what drifted, as far as the host can tell: when a file was changed and
//! whose it is, what the journal says last of a unit, who logged in last.
//!
//! Asked only where something drifted, in one batch, and only to be told: nothing is decided
//! by it, and what a host does not answer is left out.

use std::time::Duration;

use jiff::Timestamp;

use crate::drift::Finding;
use crate::shell::Command;
use crate::step::Change;
use crate::text::{moment, printable_line};
use crate::transport::{Output, Probe, Read, Reply, TransportError};

/// Most things of one host that are asked about.
const MOST_ASKED: usize = 20;
/// Most bytes of one answer, and most characters that are told of it.
const LIMIT: u64 = 4096;
const MOST_TOLD: usize = 200;

/// What an answer is about.
enum About {
    /// When the file of this finding was changed.
    File(usize),
    /// The unit of this finding.
    Unit(usize),
    /// The host.
    Logins,
}

/// Adds to the findings what the host can tell of them.
///
/// # Errors
/// The connection failed.
pub(super) async fn ask(
    probe: &mut dyn Probe,
    findings: &mut [Finding],
) -> Result<(), TransportError> {
    let mut asked: Vec<(About, Read)> = Vec::new();
    for (index, finding) in findings.iter().enumerate() {
        match &finding.drift {
            Some(Change::Path { path, .. }) => {
                // The time of its status: a new mode or owner leaves that of the content alone.
                let stat = Command::new("stat").args(["-c", "%U %Z", "--"]).path(path);
                asked.push((About::File(index), read(stat)));
            }
            Some(Change::Setting { .. }) => {
                if let Some(unit) = unit_of(&finding.step.0) {
                    let journal = Command::new("journalctl").args([
                        "-q",
                        "--no-pager",
                        "-o",
                        "short-iso",
                        "-n",
                        "1",
                        "-u",
                        unit,
                    ]);
                    asked.push((About::Unit(index), read(journal)));
                }
            }
            _ => {}
        }
    }
    asked.truncate(MOST_ASKED);
    asked.push((About::Logins, read(Command::new("last").args(["-n", "3"]))));
    let (about, reads): (Vec<About>, Vec<Read>) = asked.into_iter().unzip();
    let replies = probe.batch(&reads).await?;
    for (about, reply) in about.into_iter().zip(replies) {
        let Reply::Command(output) = reply else {
            continue;
        };
        match about {
            About::File(index) => tell(findings.get_mut(index), file(&output)),
            About::Unit(index) => tell(findings.get_mut(index), unit(&output)),
            About::Logins => {
                let said = logins(&output);
                for finding in findings.iter_mut().filter(|finding| finding.is_drifted()) {
                    tell(Some(finding), said.clone());
                }
            }
        }
    }
    Ok(())
}

fn tell(finding: Option<&mut Finding>, said: Option<String>) {
    if let (Some(finding), Some(said)) = (finding, said) {
        finding.who.push(said);
    }
}

fn read(command: Command) -> Read {
    Read::Command {
        command,
        timeout: Duration::from_secs(10),
        limit: LIMIT,
    }
}

/// The unit that a step is about, by its id `unit:NAME:WHAT`.
fn unit_of(id: &str) -> Option<&str> {
    let (unit, _) = id.strip_prefix("unit:")?.rsplit_once(':')?;
    (!unit.is_empty()).then_some(unit)
}

/// Of `OWNER SECONDS`.
fn file(output: &Output) -> Option<String> {
    let text = said(output)?;
    let (owner, seconds) = text.trim().split_once(' ')?;
    let at = Timestamp::from_second(seconds.parse().ok()?).ok()?;
    let owner = printable_line(owner, 64);
    Some(format!("changed {}, owned by {owner}", moment(at)))
}

/// The last line of a unit's journal.
fn unit(output: &Output) -> Option<String> {
    let text = said(output)?;
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty() && !line.starts_with("-- "))?;
    Some(format!("journal: {}", printable_line(line, MOST_TOLD)))
}

/// The last logins, without the line that says since when they are kept.
fn logins(output: &Output) -> Option<String> {
    let text = said(output)?;
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("wtmp"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let all = printable_line(&lines.join("; "), MOST_TOLD);
    (!lines.is_empty()).then(|| format!("last logins: {all}"))
}

fn said(output: &Output) -> Option<String> {
    let told = output.success() && !output.stdout.is_empty();
    told.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Output {
        Output {
            stdout: text.as_bytes().to_vec(),
            ..Output::default()
        }
    }

    #[test]
    fn what_a_host_says_is_told_in_a_line_and_escaped() {
        let told = file(&output("ada 1764000000\n")).expect("it is in form");
        assert!(
            told.starts_with("changed 2025-11-24") && told.ends_with("owned by ada"),
            "{told}"
        );
        assert_eq!(file(&output("ada soon\n")), None);
        let told = unit(&output(
            "2026-11-23T10:00:00 n1 systemd[1]: Stopped \u{1b}[2Jx.\n",
        ));
        assert!(told.is_some_and(|told| told.contains("Stopped") && !told.contains('\u{1b}')));
        let text = "ada  pts/0  desk  Mon Nov 23 10:00\n\nwtmp begins Sun Nov 1\n";
        let told = logins(&output(text));
        assert_eq!(
            told.as_deref(),
            Some("last logins: ada pts/0 desk Mon Nov 23 10:00")
        );
        assert_eq!(logins(&output("\nwtmp begins Sun Nov 1\n")), None);
    }

    #[test]
    fn a_step_of_a_unit_names_it() {
        assert_eq!(
            unit_of("unit:gpu-count.service:state"),
            Some("gpu-count.service")
        );
        assert_eq!(
            unit_of("unit:user@1:x.service:enabled"),
            Some("user@1:x.service")
        );
        assert_eq!(unit_of("file:/etc/x"), None);
    }
}
