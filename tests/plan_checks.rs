//! A step's check against a real file tree: it holds while the host is as it was planned,
//! and whatever moves afterwards makes it fail with words that name the thing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::facts::HostFacts;
use deploy::module;
use deploy::plan::{self, HostInput, PlanInput, Planned, ReadCache};
use deploy::playbook::{self, Project, Tags};
use deploy::shell::Script;
use deploy::step::Step;
use deploy::transport::{Output, PathState, Read, Reply};
use deploy::value::{HostName, Vars};

/// A host that is a folder, with a `systemctl` that says what a file says.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().expect("a folder"));
        for folder in [
            "etc/old",
            "sys/module/loaded",
            "var/lib/deploy/runs/r/snapshot",
            "bin",
        ] {
            fs::create_dir_all(host.at(folder)).expect("a folder");
        }
        fs::write(host.at("etc/changed"), "before\n").expect("a file");
        fs::write(host.at("etc/mode"), "same\n").expect("a file");
        fs::write(host.at("etc/gone"), "x\n").expect("a file");
        symlink("somewhere", host.at("etc/link")).expect("a link");
        for name in ["etc/changed", "etc/mode", "etc/gone"] {
            mode(&host.at(name), 0o600);
        }
        mode(&host.at("etc/old"), 0o755);
        fs::write(host.at("unit"), "active enabled\n").expect("a unit");
        let systemctl = host.at("bin/systemctl");
        let text = "#!/bin/sh\nread -r active enabled <\"$R/unit\"\n\
            case $1 in is-active) echo \"$active\" ;; is-enabled) echo \"$enabled\" ;; esac\n";
        fs::write(&systemctl, text).expect("a tool");
        mode(&systemctl, 0o755);
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn answer(&self, read: &Read) -> Reply {
        match read {
            Read::State { path, .. } => Reply::State(look(&self.at(path.trim_start_matches('/')))),
            Read::Command { command, .. } if command.display().starts_with("systemctl show") => {
                let unit = fs::read_to_string(self.at("unit")).expect("a unit");
                let (active, enabled) = unit.trim().split_once(' ').expect("two words");
                said(&format!(
                    "LoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\nNeedDaemonReload=no\n"
                ))
            }
            Read::Command { .. } => said(&format!("{}\n{}\n", owner().0, owner().1)),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the script succeeds, and what it says.
    fn run(&self, script: &Script) -> (bool, String) {
        let library: String = ["lib/flush.sh", "lib.sh"]
            .map(|name| fs::read_to_string(format!("src/apply/host/{name}")).expect("the library"))
            .concat();
        let text = format!("{library}\n{}\n", script.to_sh());
        let path = std::env::var("PATH").expect("a PATH");
        let output = Command::new("sh")
            .args(["-c", &text])
            .env("R", self.0.path())
            .env("RUN", self.at("var/lib/deploy/runs/r"))
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    fn plan(&self) -> Vec<Step> {
        let content = Content::shipped();
        let catalog = Catalog::load(&content).expect("sound");
        let project = Project::new(content, None);
        let (playbook, problems) =
            playbook::load(Path::new("play.yml"), PLAYBOOK, &module::names(), &project);
        assert!(!problems.has_errors(), "{problems}");
        let (host, vars, tags) = (HostName::from("h1"), Vars::new(), Tags::default());
        let input = PlanInput {
            host: HostInput {
                playbook: &playbook,
                plays: &[0],
                host: &host,
                vars: &vars,
                extra: &vars,
                groups: None,
            },
            facts: &facts(),
            catalog: &catalog,
            project: &project,
            tags: &tags,
            allow_reboot: false,
            share: None,
        };
        let mut cache = ReadCache::default();
        for _ in 0..5 {
            match plan::host(&input, &cache).unwrap_or_else(|problems| panic!("{problems}")) {
                Planned::Complete(found) => return found.plan.steps,
                Planned::Needs(reads) => {
                    let replies = reads.iter().map(|read| self.answer(read)).collect();
                    cache.add(&reads, replies);
                }
            }
        }
        panic!("the plan never has enough");
    }
}

const PLAYBOOK: &str = "
- hosts: all
  tasks:
    - copy: {dest: /etc/changed, content: 'after'}
    - copy: {dest: /etc/new, content: 'after'}
    - file: {path: /etc/mode, state: file, mode: '0644'}
    - file: {path: /etc/old, state: directory, mode: '0700'}
    - file: {path: /etc/dir, state: directory}
    - file: {path: /etc/gone, state: absent}
    - file: {src: elsewhere, path: /etc/link, state: link}
    - systemd: {name: app, state: stopped, enabled: false}
    - modprobe: {name: loaded, state: absent}
    - modprobe: {name: fresh}
    - command: {cmd: 'true', creates: /etc/made, undo: 'true'}
    - command: {cmd: 'true', removes: /etc/mode, undo: 'true'}
";

fn facts() -> HostFacts {
    HostFacts {
        ..HostFacts::default()
    }
}

fn said(text: &str) -> Reply {
    Reply::Command(Output {
        stdout: text.as_bytes().to_vec(),
        ..Output::default()
    })
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("ours");
}

/// Our own user and group, by name.
fn owner() -> (String, String) {
    let id = |flag: &str| {
        let output = Command::new("id").arg(flag).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    (id("-un"), id("-gn"))
}

fn look(path: &Path) -> PathState {
    let Ok(found) = fs::symlink_metadata(path) else {
        return PathState::Absent;
    };
    let (owner, group) = owner();
    let mode = found.permissions().mode() & 0o7777;
    if found.is_symlink() {
        let target = fs::read_link(path).expect("a link");
        return PathState::Link {
            target: target.to_string_lossy().into_owned(),
        };
    }
    if found.is_dir() {
        return PathState::Directory { mode, owner, group };
    }
    use sha2::{Digest, Sha256};
    let content = fs::read(path).expect("a file");
    let sha256 = Sha256::digest(&content);
    PathState::File {
        mode,
        owner,
        group,
        size: content.len() as u64,
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        content: Some(content),
    }
}

/// What may happen to a thing between plan and run.
type Move = (&'static str, &'static str, fn(&Path));

const MOVES: &[Move] = &[
    ("file:/etc/changed", "etc/changed", |path| {
        fs::write(path, "other\n").expect("ours");
    }),
    ("file:/etc/changed", "etc/changed", |path| mode(path, 0o640)),
    ("file:/etc/changed", "etc/changed", |path| {
        fs::remove_file(path).expect("ours");
    }),
    ("file:/etc/changed", "etc/changed", |path| {
        fs::remove_file(path).expect("ours");
        symlink("elsewhere", path).expect("a link");
    }),
    ("file:/etc/new", "etc/new", |path| {
        fs::write(path, "").expect("ours");
    }),
    ("file:/etc/new", "etc/new", |path| {
        fs::create_dir(path).expect("ours");
    }),
    ("file:/etc/mode", "etc/mode", |path| mode(path, 0o660)),
    ("directory:/etc/old", "etc/old", |path| mode(path, 0o750)),
    ("directory:/etc/old", "etc/old", |path| {
        fs::remove_dir(path).expect("empty");
        fs::write(path, "").expect("ours");
    }),
    ("directory:/etc/dir", "etc/dir", |path| {
        fs::create_dir(path).expect("ours");
    }),
    ("absent:/etc/gone", "etc/gone", |path| {
        fs::write(path, "new\n").expect("ours");
    }),
    ("absent:/etc/gone", "etc/gone", |path| {
        fs::remove_file(path).expect("ours");
    }),
    ("link:/etc/link", "etc/link", |path| {
        fs::remove_file(path).expect("ours");
        symlink("third", path).expect("a link");
    }),
    ("link:/etc/link", "etc/link", |path| {
        fs::remove_file(path).expect("ours");
    }),
    ("unit:app.service:enabled", "unit", |path| {
        fs::write(path, "active disabled\n").expect("ours");
    }),
    ("unit:app.service:state", "unit", |path| {
        fs::write(path, "inactive enabled\n").expect("ours");
    }),
    ("module:loaded", "sys/module/loaded", |path| {
        fs::remove_dir(path).expect("empty");
    }),
    ("module:fresh", "sys/module/fresh", |path| {
        fs::create_dir(path).expect("ours");
    }),
    ("command:true", "etc/made", |path| {
        fs::write(path, "").expect("ours");
    }),
    ("command:true#2", "etc/mode", |path| {
        fs::remove_file(path).expect("ours");
    }),
];

#[test]
fn whatever_moves_after_the_plan_fails_the_check_of_its_step() {
    let mut untried: Vec<String> = Host::new()
        .plan()
        .into_iter()
        .map(|step| step.id.0)
        .collect();
    assert_eq!(untried.len(), 13, "{untried:?}");
    for (id, path, happen) in MOVES {
        let host = Host::new();
        let steps = host.plan();
        for step in &steps {
            let (well, said) = host.run(&step.check);
            assert!(well, "{} before anything moved: {said}", step.id);
        }
        let step = steps.iter().find(|step| step.id.0 == *id);
        let step = step.unwrap_or_else(|| panic!("no step {id}"));
        happen(&host.at(path));
        let (well, said) = host.run(&step.check);
        assert!(!well, "{id} did not notice");
        let name = match *path {
            "unit" => "unit app.service",
            path => path.rsplit('/').next().expect("a name"),
        };
        assert!(said.contains(name), "{id}: {said}");
        untried.retain(|other| other != id);
    }
    assert_eq!(untried, [""; 0], "steps that nothing happened to");
}

#[test]
fn another_owner_is_noticed_too() {
    let host = Host::new();
    let steps = host.plan();
    let path = host.at("etc/changed");
    if chown(&path, Some(12_345), None).is_err() {
        // Who is not root cannot give a file away; nobody else can meddle so either.
        assert_ne!(owner().0, "root");
        return;
    }
    let (well, said) = host.run(&steps[0].check);
    assert!(!well && said.contains("/etc/changed: owner is"), "{said}");
}
