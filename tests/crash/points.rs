//! The points at which a run can be hit: every call of an external program that the
//! host makes for it, found by counting them in a run that nothing happens to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

use super::lab::{Slot, Wanted};

/// One call of an external program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    /// What the run is doing then.
    pub(super) phase: String,
    /// Program.
    pub(super) program: String,
    /// Program and arguments as a pattern of the shell's `case`.
    pub(super) pattern: String,
    /// How often the same call was made until then, itself included.
    pub(super) nth: usize,
    /// The call that fails in the run, as a pattern, so that the run is undone.
    pub(super) fails: Option<String>,
}

/// Programs that scripts of the run call: every word of theirs that is the name of a
/// program here or on the host. More than are called, never fewer: a name that is
/// put together at run time would be the only one to escape.
pub(super) fn programs(slot: &Slot) -> BTreeSet<String> {
    let mut here = BTreeSet::new();
    let own = ["usr/sbin", "usr/bin"].map(|folder| slot.root.join(folder));
    let ours = ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    for folder in own
        .iter()
        .map(std::path::PathBuf::as_path)
        .chain(ours.map(Path::new))
    {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            here.extend(entry.file_name().into_string());
        }
    }
    let mut words = BTreeSet::new();
    for text in scripts(slot) {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        words.extend(text.split(|c| !word(c)).map(str::to_owned));
    }
    here.intersection(&words).cloned().collect()
}

/// The texts of all that a run executes: ours, and what the plans of the prepared
/// machine wrote.
fn scripts(slot: &Slot) -> Vec<String> {
    let mut texts = vec![deploy::strategy::host_library()];
    for folder in ["src/apply/host", "src/apply/host/lib", "src/transport"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(folder).expect("our sources").flatten() {
            if entry.path().extension().is_some_and(|end| end == "sh") {
                texts.push(fs::read_to_string(entry.path()).expect("a script"));
            }
        }
    }
    for (run, _) in slot.runs() {
        let run = slot.root.join("var/lib/deploy/runs").join(run);
        for step in fs::read_dir(run.join("steps")).expect("steps").flatten() {
            for script in fs::read_dir(step.path()).expect("scripts").flatten() {
                texts.push(fs::read_to_string(script.path()).expect("a script"));
            }
        }
    }
    texts
}

/// The calls of one run that ends well, or is undone because that call fails, in their
/// order, those before the upload left out.
fn count(slot: &Slot, fails: Option<&str>) -> Vec<String> {
    slot.reset();
    slot.let_fail(fails);
    let programs = programs(slot);
    fs::write(slot.crash("log"), "").expect("our folder");
    slot.wrap(programs.iter().map(String::as_str));
    let done = slot.deploy(Wanted::Second, &["--yes"]).wait();
    let wanted = if fails.is_some() { 3 } else { 0 };
    assert_eq!(done.0, Some(wanted), "the run that is counted: {}", done.1);
    slot.at_rest().expect("the run that is counted ends");
    let log = fs::read(slot.crash("log")).expect("our file");
    let log = String::from_utf8_lossy(&log).into_owned();
    let calls: Vec<String> = log
        .split('\u{1e}')
        .map(|call| pattern(call, &slot.root))
        .skip_while(|call| !is_upload(call))
        .filter(|call| !call.is_empty() && !only_waits(call))
        .collect();
    assert!(calls.len() > 100, "too few calls were counted:\n{log}");
    calls
}

/// Calls beside the run: of those who wait until its time is over, of its guard, and of
/// who follows its journal.
fn only_waits(call: &str) -> bool {
    call.starts_with("sleep ")
        || ["cat ", "cat status"].contains(&call)
        || call.ends_with("/lock true")
}

fn is_upload(call: &str) -> bool {
    call.starts_with("mkdir ") && call.contains("/var/lib/deploy")
}

/// A call as a pattern: what differs from host to host and from run to run is a `*`,
/// and so is all after the first line.
fn pattern(call: &str, root: &Path) -> String {
    let root = root.display().to_string();
    let mut lines = call.lines();
    let first = lines.next().unwrap_or_default();
    let rest = if lines.next().is_some() { "*" } else { "" };
    // Run ids, UUIDs, and with process ids the names that end in one; the time of a
    // boot that is over, in seconds; how much of a file is read.
    let changing = r"\d{8}T\d{6}Z-[0-9a-f]{6}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}";
    let numbers = r"(\bwake\.|\bsaid\.| -c )\d+|\b()\d+\.\d{2}\b|\b()\d{5,}\b";
    let first = first.replace(&root, "\u{1}");
    let first = Regex::new(changing)
        .expect("it is right")
        .replace_all(&first, "\u{1}");
    let first = Regex::new(numbers)
        .expect("it is right")
        .replace_all(&first, "${1}\u{1}");
    let mut text = String::new();
    for c in first.chars() {
        match c {
            '\u{1}' if text.ends_with('*') => {}
            '\u{1}' => text.push('*'),
            c if c.is_ascii_alphanumeric() || "/._- ".contains(c) || !c.is_ascii() => text.push(c),
            c => text.extend(['\\', c]),
        }
    }
    text + rest
}

/// The points of a run, and how many calls came in only one of two runs: those of
/// processes that only wait, which no case can be aimed at.
pub(super) fn points(slot: &Slot, fails: Option<&str>) -> (Vec<Point>, usize) {
    let one = numbered(count(slot, fails));
    let other: BTreeSet<(String, usize)> = numbered(count(slot, fails)).into_iter().collect();
    let all = one.len();
    let mut phase = "uploading".to_owned();
    let mut points = Vec::new();
    for (pattern, nth) in one {
        if let Some(next) = phase_that_begins(&pattern, &phase) {
            phase = next;
        }
        if other.contains(&(pattern.clone(), nth)) {
            points.push(Point {
                phase: phase.clone(),
                program: pattern.split(' ').next().unwrap_or_default().to_owned(),
                pattern,
                nth,
                fails: fails.map(str::to_owned),
            });
        }
    }
    let left = all - points.len();
    (points, left)
}

/// The points of an undo: the last step of the run cannot be read back. What comes before
/// that is as in a run that ends well.
pub(super) fn of_undo(slot: &Slot, well: &[Point]) -> (Vec<Point>, usize) {
    // Whoever follows the journal may call something in between.
    let reads_back =
        |point: &&Point| point.phase.starts_with("verify ") && point.pattern.ends_with("/verify");
    let last = well.iter().rfind(reads_back).expect("steps are read back");
    let call = &last.pattern;
    let (points, left) = points(slot, Some(call));
    let mut points: Vec<Point> = points
        .into_iter()
        .skip_while(|point| !point.phase.starts_with("undo "))
        .collect();
    for point in &mut points {
        if !point.phase.starts_with("undo ") {
            point.phase.insert_str(0, "undo-");
        }
    }
    (points, left)
}

fn numbered(calls: Vec<String>) -> Vec<(String, usize)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    calls
        .into_iter()
        .map(|call| {
            let nth = seen.entry(call.clone()).or_default();
            *nth += 1;
            (call, *nth)
        })
        .collect()
}

/// What a run does from this call on, if that is something else than before.
fn phase_that_begins(call: &str, now: &str) -> Option<String> {
    // Whatever is read back once more then belongs to it.
    if call.starts_with("mkfifo ") && now != "uploading" {
        return Some("confirming".to_owned());
    }
    if let Some(at) = call.find("/steps/")
        && now != "confirming"
        && (call.starts_with("sh ") || call.starts_with("setsid "))
    {
        let mut words = call[at + "/steps/".len()..].split('/');
        let step: String = words.next()?.chars().filter(|c| *c != '*').collect();
        let step = step.split('-').next().unwrap_or_default().to_owned();
        return Some(format!("{} {step}", words.next()?.split(' ').next()?));
    }
    let named = [
        ("each check", "checking"),
        ("each snapshot", "snapshot"),
        ("guard.sh arm", "arming"),
        ("guard.sh disarm", "disarming"),
    ];
    for (words, phase) in named {
        if call.contains(words) && !now.starts_with("apply") {
            return Some(phase.to_owned());
        }
    }
    if call.contains("runner.sh run") && now == "uploading" {
        return Some("starting".to_owned());
    }
    if call.starts_with("cp ") && call.contains("current.json") && now != "snapshot" {
        return Some("recording".to_owned());
    }
    // What the runner itself does once the step's script is over.
    if now.starts_with("verify") && call.starts_with("date ") {
        return Some(now.replace("verify", "after"));
    }
    None
}
