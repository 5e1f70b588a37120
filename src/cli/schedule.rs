//! `deploy schedule`: what a scheduler has to be told to look for drift, printed; with
//! `--install` the units of systemd are put onto this machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::Failure;
use crate::content::Content;
use crate::error::{Diagnostic, Problems};
use crate::report;
use crate::report::exit::Exit;
use crate::schedule::{self, Artifact, Every, Kubernetes, Name, Schedule, Systemd};

/// `deploy schedule`.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// By what.
    #[command(subcommand)]
    pub by: By,
}

/// Who runs it again and again.
#[derive(Debug, Subcommand)]
pub enum By {
    /// A hardened service and its timer
    Systemd {
        /// What is run, and how often.
        #[command(flatten)]
        what: WhatArgs,
        /// Run as this user; else as one that systemd makes for it
        #[arg(long, value_name = "USER")]
        run_as: Option<String>,
        /// Log in with this key: the service gets it as a credential, whoever owns the file
        #[arg(long, value_name = "FILE")]
        private_key: Option<PathBuf>,
        /// Write the units to this machine, and start the timer
        #[arg(long)]
        install: bool,
    },
    /// Lines for `crontab -e`
    Cron {
        /// What is run, and how often.
        #[command(flatten)]
        what: WhatArgs,
        /// Log in with this key
        #[arg(long, value_name = "FILE")]
        private_key: Option<PathBuf>,
    },
    /// A CronJob of an Indexed Job, a shard of the hosts for each index
    Kubernetes {
        /// What is run, and how often.
        #[command(flatten)]
        what: WhatArgs,
        /// The image that has `deploy` as its entry point
        #[arg(long, value_name = "IMAGE")]
        image: String,
        /// Namespace of the objects
        #[arg(long, default_value = "default", value_name = "NAMESPACE", value_parser = name)]
        namespace: Name,
        /// How many shards work side by side
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        shards: u32,
    },
}

/// What is run, and how often.
#[derive(Debug, Args)]
pub struct WhatArgs {
    /// Inventory file or directory; may be given several times
    #[arg(
        short = 'i',
        long = "inventory",
        value_name = "INVENTORY",
        required = true
    )]
    pub inventory: Vec<PathBuf>,
    /// Only these hosts: names, groups, globs, `&` and `!`
    #[arg(short = 'l', long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Folder with the user's own playbooks/, templates/ and vars/
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// How often: 15m, 1h, daily, weekly
    #[arg(long, default_value = "1h", value_name = "SPAN")]
    pub every: Every,
    /// Also bring back what was last applied where it has drifted
    #[arg(long)]
    pub remediate: bool,
    /// What units and objects are called
    #[arg(long, default_value = "deploy-drift", value_name = "NAME", value_parser = name)]
    pub name: Name,
    /// Further words for `deploy drift`, such as `-- --forks 256`
    #[arg(last = true, value_name = "WORDS")]
    pub more: Vec<String>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text)
}

/// Runs `deploy schedule`.
///
/// # Errors
/// An inventory that is not there, the user's own template, or what `--install` could not do.
pub(super) fn run(args: &ScheduleArgs) -> Result<Exit, Failure> {
    match &args.by {
        By::Systemd {
            what,
            run_as,
            private_key,
            install,
        } => {
            let (schedule, content) = what.ready()?;
            let more = Systemd {
                user: run_as.clone(),
                key: private_key.as_deref().map(absolute).transpose()?,
            };
            let units = schedule::systemd(&schedule, &more, &content)?;
            match install {
                true => put_in_place(&schedule.name, &units)?,
                false => report::data(&shown(&units)),
            }
        }
        By::Cron { what, private_key } => {
            let (mut schedule, _) = what.ready()?;
            if let Some(key) = private_key {
                let key = absolute(key)?.to_string_lossy().into_owned();
                schedule.words.extend(["--private-key".to_owned(), key]);
            }
            report::data(&schedule::cron(&schedule));
        }
        By::Kubernetes {
            what,
            image,
            namespace,
            shards,
        } => {
            let (mut schedule, content) = what.ready()?;
            schedule.words = what.words(|path| {
                let name = path.file_name().unwrap_or(path.as_os_str());
                Ok(Path::new(schedule::PROJECT).join(name))
            })?;
            let more = Kubernetes {
                image: image.clone(),
                namespace: namespace.as_str().to_owned(),
                shards: *shards,
            };
            report::data(&schedule::kubernetes(&schedule, &more, &content)?);
        }
    }
    Ok(Exit::Done)
}

impl WhatArgs {
    fn ready(&self) -> Result<(Schedule, Content), Failure> {
        let (content, problems) = Content::find(self.project.as_deref(), &self.inventory);
        let mut problems: Problems = problems;
        for path in &self.inventory {
            if !path.exists() {
                problems.push(
                    Diagnostic::error(format!("there is no inventory `{}`", path.display()))
                        .hint("a schedule reads a file or a folder, not a list of hosts"),
                );
            }
        }
        if problems.has_errors() {
            return Err(problems.into());
        }
        report::problems(&problems);
        let program = std::env::current_exe().context("where this program lies is not known")?;
        let mut reads = Vec::new();
        for path in self.inventory.iter().chain(&self.project) {
            reads.push(absolute(path)?);
        }
        let schedule = Schedule {
            name: self.name.clone(),
            every: self.every,
            program,
            words: self.words(absolute)?,
            reads,
        };
        Ok((schedule, content))
    }

    /// The words of the command, with each path where `place` has it.
    fn words(
        &self,
        place: impl Fn(&Path) -> Result<PathBuf, Failure>,
    ) -> Result<Vec<String>, Failure> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut words = vec!["drift".to_owned()];
        for path in &self.inventory {
            words.extend(["-i".to_owned(), text(place(path)?)]);
        }
        if let Some(limit) = &self.limit {
            words.extend(["-l".to_owned(), limit.clone()]);
        }
        if let Some(project) = &self.project {
            words.extend(["--project".to_owned(), text(place(project)?)]);
        }
        if self.remediate {
            words.extend(["--remediate".to_owned(), "--yes".to_owned()]);
        }
        words.extend(self.more.iter().cloned());
        Ok(words)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path);
    Ok(path.context("the folder that we were started in is not known")?)
}

/// Each file with its path before it.
fn shown(units: &[Artifact]) -> String {
    let with_path = |unit: &Artifact| format!("# {}\n{}", unit.path.display(), unit.text);
    units.iter().map(with_path).collect::<Vec<_>>().join("\n")
}

/// Writes the units and starts the timer, and reads back that it runs.
fn put_in_place(name: &Name, units: &[Artifact]) -> Result<(), Failure> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Diagnostic::error("systemd does not run on this machine")
            .hint("without --install the units are printed, and `deploy schedule cron` has a line for cron")
            .into());
    }
    let mut text = String::new();
    for unit in units {
        let path = unit.path.display();
        if fs::read_to_string(&unit.path).is_ok_and(|there| there == unit.text) {
            text += &format!("kept    {path}\n");
            continue;
        }
        replace(&unit.path, &unit.text).with_context(|| format!("{path} cannot be written"))?;
        text += &format!("written {path}\n");
    }
    let timer = format!("{}.timer", name.as_str());
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", &timer])?;
    // One whose span was changed is told anew.
    systemctl(&["restart", &timer])?;
    for asked in ["is-enabled", "is-active"] {
        systemctl(&[asked, "--quiet", &timer])?;
    }
    text += &format!("started {timer}\n");
    report::data(&text);
    Ok(())
}

/// The old file or the new one, readable for all.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".deploy-new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn systemctl(words: &[&str]) -> Result<(), Failure> {
    let said = Command::new("systemctl")
        .args(words)
        .output()
        .context("systemctl cannot be started")?;
    if said.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    let problem = Diagnostic::error(format!("`systemctl {}` failed: {error}", words.join(" ")));
    Err(problem
        .hint("the units stand there; mend what is wrong and run it again")
        .into())
}
