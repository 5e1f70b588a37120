//! Before and after as people read them: data for `report`, no colours, no printing.
//!
//! One block a step: a unified diff of a file, a MIG layout drawn twice, a setting's
//! two values. Hosts whose blocks are equal make one group. All text is escaped
//! here, because files hold whatever somebody put into them.

use std::collections::HashMap;
use std::time::Duration;

use similar::{Algorithm, ChangeTag, TextDiff};

use crate::catalog::draw;
use crate::plan::{Guard, HostPlan};
use crate::step::{Change, Class, PathLook, Step, StepId};
use crate::text::printable_line;
use crate::value::HostName;

/// Columns that a drawn layout takes; with the indent of a plan it fits 80.
const DRAWING_WIDTH: usize = 66;
/// Most lines of one file's diff that are shown.
const MOST_LINES: usize = 400;
/// Most lines that are shown of a file that comes or goes as a whole.
const MOST_LINES_OF_WHOLE: usize = 24;
/// Longest line of a diff, in characters.
const LONGEST_LINE: usize = 500;

/// What one step changes, ready to be shown. All text is already printable:
/// control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// The step.
    pub id: StepId,
    /// What it does, in a few words.
    pub title: String,
    /// How careful to be.
    pub class: Class,
    /// What differs, line by line; empty for an action.
    pub lines: Vec<Line>,
}

/// One line of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// What it is.
    pub kind: LineKind,
    /// Its text, without a newline, with the `+`, `-` or blank before it where a
    /// unified diff has one.
    pub text: String,
}

/// What a line of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// Stands before and after.
    Context,
    /// Only afterwards.
    Added,
    /// Only before.
    Removed,
    /// `@@ … @@`, file names.
    Heading,
    /// Something to know that is neither.
    Info,
}

/// Hosts whose plans look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The hosts, in the order of the inventory.
    pub hosts: Vec<HostName>,
    /// What is changed on each of them.
    pub blocks: Vec<Block>,
    /// Sentences of the plan.
    pub notes: Vec<String>,
    /// Files of the user's project that replaced shipped ones.
    pub overridden: Vec<String>,
    /// What undoes it unless it ends well.
    pub guard: Option<Guard>,
}

/// The plans as blocks, with the hosts whose plans look the same together, in the
/// order of their first host.
#[must_use]
pub fn group(plans: &[(HostName, &HostPlan)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // The first group of each look; hosts with equal steps and other notes stand apart.
    let mut places: HashMap<Vec<Block>, Vec<usize>> = HashMap::new();
    for (host, plan) in plans {
        let blocks = blocks(plan);
        let alike = places.entry(blocks.clone()).or_default();
        let same = alike.iter().find(|place| {
            let group = &groups[**place];
            group.notes == plan.notes
                && group.overridden == plan.overridden
                && group.guard == plan.guard
        });
        if let Some(place) = same {
            groups[*place].hosts.push(host.clone());
            continue;
        }
        alike.push(groups.len());
        groups.push(Group {
            hosts: vec![host.clone()],
            blocks,
            notes: plan.notes.clone(),
            overridden: plan.overridden.clone(),
            guard: plan.guard,
        });
    }
    groups
}

/// What each step of a plan changes.
#[must_use]
pub fn blocks(plan: &HostPlan) -> Vec<Block> {
    plan.steps.iter().map(block).collect()
}

fn block(step: &Step) -> Block {
    Block {
        id: step.id.clone(),
        title: printable_line(&step.title, LONGEST_LINE),
        class: step.class,
        lines: lines(&step.change, &step.title),
    }
}

fn lines(change: &Change, title: &str) -> Vec<Line> {
    // A subject that the title names is not said twice.
    let subject = |name: &str| {
        let line = Line::new(LineKind::Info, name);
        (!title.contains(name)).then_some(line)
    };
    match change {
        Change::Path {
            path,
            before,
            after,
        } => path_lines(path, before, after),
        Change::Layout {
            subject: of,
            grid,
            before,
            after,
        } => {
            let mut lines: Vec<Line> = subject(of).into_iter().collect();
            lines.extend(drawing(LineKind::Removed, "before", *grid, before));
            lines.extend(drawing(LineKind::Added, "after", *grid, after));
            lines
        }
        Change::Setting {
            subject: of,
            name,
            before,
            after,
        } => subject(of)
            .into_iter()
            .chain([
                Line::new(LineKind::Removed, format!("- {name}: {before}")),
                Line::new(LineKind::Added, format!("+ {name}: {after}")),
            ])
            .collect(),
        Change::Reboot { why } => why
            .iter()
            .map(|why| Line::new(LineKind::Info, why))
            .collect(),
        Change::Action { .. } | Change::Check { .. } => Vec::new(),
    }
}

fn drawing(kind: LineKind, word: &str, grid: u32, slices: &[crate::step::Slice]) -> Vec<Line> {
    draw::bar(grid, slices, DRAWING_WIDTH)
        .lines()
        .enumerate()
        .map(|(number, row)| {
            let label = if number == 0 { word } else { "" };
            Line::new(kind, format!("{label:<7}{row}"))
        })
        .collect()
}

fn path_lines(path: &str, before: &PathLook, after: &PathLook) -> Vec<Line> {
    let mut lines = vec![
        Line::new(LineKind::Heading, format!("--- {}", heading(path, before))),
        Line::new(LineKind::Heading, format!("+++ {}", heading(path, after))),
    ];
    lines.extend(content_lines(before, after));
    lines
}

fn heading(path: &str, look: &PathLook) -> String {
    match look {
        PathLook::Absent => "/dev/null".to_owned(),
        PathLook::File {
            mode, owner, group, ..
        } => format!("{path}  {mode:04o} {owner} {group}"),
        PathLook::Directory { mode, owner, group } => {
            format!("{path}/  {mode:04o} {owner} {group}")
        }
        PathLook::Link { target } => format!("{path} -> {target}"),
    }
}

fn content_lines(before: &PathLook, after: &PathLook) -> Vec<Line> {
    let (old, new) = (content(before), content(after));
    let (old, new) = match (old, new) {
        (Content::None, Content::None) => return Vec::new(),
        (Content::Text(old), Content::Text(new)) => (old, new),
        (Content::Text(old), Content::None) => (old, ""),
        (Content::None, Content::Text(new)) => ("", new),
        (old, new) => {
            if old.hash() == new.hash() {
                return Vec::new();
            }
            let mut lines = Vec::new();
            lines.extend(
                old.summary()
                    .map(|text| Line::new(LineKind::Removed, format!("- {text}"))),
            );
            lines.extend(
                new.summary()
                    .map(|text| Line::new(LineKind::Added, format!("+ {text}"))),
            );
            return lines;
        }
    };
    unified(old, new)
}

/// What of a path's content can be shown.
enum Content<'a> {
    /// It has none.
    None,
    Text(&'a str),
    /// Binary, too large or secret: hash and size only.
    Hidden {
        sha256: &'a str,
        size: u64,
    },
}

impl Content<'_> {
    fn hash(&self) -> Option<&str> {
        match self {
            Content::Hidden { sha256, .. } => Some(sha256),
            Content::None | Content::Text(_) => None,
        }
    }

    fn summary(&self) -> Option<String> {
        match self {
            Content::None => None,
            Content::Text(text) => Some(format!("{} bytes of text", text.len())),
            Content::Hidden { sha256, size } => {
                let short = sha256.get(..12).unwrap_or(sha256);
                Some(format!("{size} bytes that are not shown, sha256 {short}…"))
            }
        }
    }
}

fn content(look: &PathLook) -> Content<'_> {
    match look {
        PathLook::File {
            text: Some(text), ..
        } => Content::Text(text),
        PathLook::File { sha256, size, .. } => Content::Hidden {
            sha256,
            size: *size,
        },
        PathLook::Absent | PathLook::Directory { .. } | PathLook::Link { .. } => Content::None,
    }
}

fn unified(old: &str, new: &str) -> Vec<Line> {
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        // A pathological pair of files gets a coarser diff, not a slow one.
        .timeout(Duration::from_millis(500))
        .diff_lines(old, new);
    let mut lines = Vec::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        lines.push(Line::new(LineKind::Heading, hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let (kind, sign) = match change.tag() {
                ChangeTag::Equal => (LineKind::Context, ' '),
                ChangeTag::Delete => (LineKind::Removed, '-'),
                ChangeTag::Insert => (LineKind::Added, '+'),
            };
            let text = change.value();
            lines.push(Line::new(
                kind,
                format!("{sign}{}", text.trim_end_matches('\n')),
            ));
            if change.missing_newline() {
                lines.push(Line::new(LineKind::Info, "\\ No newline at end of file"));
            }
        }
    }
    let most = match old.is_empty() || new.is_empty() {
        true => MOST_LINES_OF_WHOLE,
        false => MOST_LINES,
    };
    if lines.len() > most {
        let more = lines.len() - most;
        lines.truncate(most);
        lines.push(Line::new(LineKind::Info, format!("… {more} lines more")));
    }
    lines
}

impl Line {
    fn new(kind: LineKind, text: impl AsRef<str>) -> Self {
        Self {
            kind,
            text: printable_line(text.as_ref(), LONGEST_LINE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Placement;
    use crate::step::Slice;

    fn plan(change: Change) -> HostPlan {
        HostPlan {
            steps: vec![Step::new(StepId("x".into()), "t", "do it".into(), change)],
            ..HostPlan::default()
        }
    }

    fn file(text: Option<&str>, mode: u32, sha256: &str) -> PathLook {
        PathLook::File {
            mode,
            owner: "root".into(),
            group: "root".into(),
            sha256: sha256.into(),
            size: 5,
            text: text.map(str::to_owned),
        }
    }

    fn shown(change: Change) -> String {
        let blocks = blocks(&plan(change));
        let lines: Vec<&str> = blocks[0]
            .lines
            .iter()
            .map(|line| line.text.as_str())
            .collect();
        lines.join("\n")
    }

    #[test]
    fn a_changed_file_is_a_unified_diff_with_mode_and_owner() {
        let text = shown(Change::Path {
            path: "/etc/a".into(),
            before: file(Some("a\nb\nc\n"), 0o600, "1"),
            after: file(Some("a\nB\nc"), 0o644, "2"),
        });
        insta::assert_snapshot!(text, @r"
        --- /etc/a  0600 root root
        +++ /etc/a  0644 root root
        @@ -1,3 +1,3 @@
         a
        -b
        -c
        +B
        +c
        \ No newline at end of file
        ");
    }

    #[test]
    fn a_file_that_is_not_text_shows_hash_and_size_only() {
        let text = shown(Change::Path {
            path: "/etc/a".into(),
            before: PathLook::Absent,
            after: file(None, 0o644, "0123456789abcdef"),
        });
        insta::assert_snapshot!(text, @r"
        --- /dev/null
        +++ /etc/a  0644 root root
        + 5 bytes that are not shown, sha256 0123456789ab…
        ");
    }

    #[test]
    fn escapes_in_a_file_are_written_out() {
        let text = shown(Change::Path {
            path: "/etc/a".into(),
            before: PathLook::Absent,
            after: file(Some("x\u{1b}[2J\u{202e}\r\n"), 0o644, "1"),
        });
        assert!(text.contains(r"+x\x1b[2J\u{202e}\x0d"), "{text}");
    }

    #[test]
    fn a_layout_is_drawn_before_and_after() {
        let slice = |start, size, profile: &str| Slice {
            placement: Placement { start, size },
            profile: profile.into(),
            compute: vec![profile.into()],
        };
        let text = shown(Change::Layout {
            subject: "GPU 0".into(),
            grid: 8,
            before: vec![slice(0, 8, "7g.80gb")],
            after: vec![
                slice(0, 4, "3g.40gb"),
                slice(4, 2, "2g.20gb"),
                slice(6, 1, "1g.10gb"),
            ],
        });
        insta::assert_snapshot!(text, @r"
        GPU 0
        before │7g.80gb                                                        │
        after  │3g.40gb                        │2g.20gb        │1g.10gb│·······│
        ");
    }

    #[test]
    fn hosts_with_the_same_changes_make_one_group() {
        let one = plan(Change::Action { what: "x".into() });
        let mut other = one.clone();
        other.steps[0].title = "do something else".into();
        let plans = [
            (HostName::from("a"), &one),
            (HostName::from("b"), &other),
            (HostName::from("c"), &one),
        ];
        let groups = group(&plans);
        let names: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.hosts.iter().map(HostName::as_str).collect())
            .collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"]]);
    }
}
