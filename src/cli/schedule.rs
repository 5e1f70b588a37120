//! `deploy schedule`: what a scheduler has to be told to look for drift, printed; with
//! `--install` the units of systemd are put onto this machine.

use std::any::TypeId;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::cli::args::DriftArgs;
use crate::cli::{Failure, metrics};
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
        #[arg(long, value_name = "USER", value_parser = user)]
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
        /// The inventories and the project lie in the image, at the paths that are given; else
        /// they come as a ConfigMap, which holds no folders
        #[arg(long)]
        in_image: bool,
        /// How many shards work side by side
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        shards: u32,
        /// Keep the history in this PersistentVolumeClaim, and with it what tells missed runs; else
        /// it ends with each pod. Shards that work side by side need one that many can mount
        #[arg(long, value_name = "CLAIM", value_parser = name)]
        state_claim: Option<Name>,
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
    /// Write what a monitoring system wants to know of each run to this file; its folder must
    /// be writable by whoever runs it
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
    /// Tell others what each run finds, by the webhooks and commands that this file names
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
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

/// A user of this machine, as useradd(8) takes one.
fn user(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match begins_well && text.len() <= 32 && text.chars().all(inner) {
        true => Ok(text.to_owned()),
        false => Err("a user's name has letters, digits, `_` and `-`".to_owned()),
    }
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
            in_image,
            shards,
            state_claim,
        } => {
            let (schedule, content) = if *in_image {
                what.of_an_image()?
            } else {
                let (mut schedule, content) = what.ready()?;
                schedule.words = what.words_of_a_config_map()?;
                (schedule, content)
            };
            let more = Kubernetes {
                image: image.clone(),
                namespace: namespace.as_str().to_owned(),
                mounts_project: !in_image,
                shards: *shards,
                state_claim: state_claim.as_ref().map(|name| name.as_str().to_owned()),
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
        for path in &self.inventory {
            // Variables may lie beside it.
            let path = absolute(path)?;
            let folder = path.parent().map(Path::to_owned);
            reads.push(folder.unwrap_or(path));
        }
        if let Some(file) = &self.notify {
            let file = absolute(file)?;
            reads.extend(file.parent().map(Path::to_owned));
        }
        reads.extend(content.project().map(absolute).transpose()?);
        let words = self.words(absolute)?;
        if let Some(word) = words.iter().find(|word| word.contains(char::is_control)) {
            let message = format!("{word:?} has a character that no line of a schedule can hold");
            return Err(Diagnostic::error(message).into());
        }
        let schedule = Schedule {
            name: self.name.clone(),
            every: self.every,
            program,
            words,
            reads,
            writes: self.writes()?,
        };
        Ok((schedule, content))
    }

    /// The folders that it writes to beside its own.
    fn writes(&self) -> Result<Vec<PathBuf>, Failure> {
        let Some(file) = &self.textfile else {
            return Ok(Vec::new());
        };
        let file = absolute(file)?;
        Ok(file.parent().map(Path::to_owned).into_iter().collect())
    }

    /// For files that are not on this machine.
    fn of_an_image(&self) -> Result<(Schedule, Content), Failure> {
        for path in self.inventory.iter().chain(&self.project) {
            if path.is_relative() {
                let message = format!("`{}` is no absolute path", path.display());
                let hint = "with --in-image the paths are those in the image";
                return Err(Diagnostic::error(message).hint(hint).into());
            }
        }
        let schedule = Schedule {
            name: self.name.clone(),
            every: self.every,
            program: PathBuf::new(),
            words: self.words(|path| Ok(path.to_owned()))?,
            reads: Vec::new(),
            writes: self.writes()?,
        };
        Ok((schedule, Content::shipped()))
    }

    /// The words where each inventory is a file of one flat folder, and nothing lies beside it.
    fn words_of_a_config_map(&self) -> Result<Vec<String>, Failure> {
        let mut problems = Problems::default();
        let mut names = Vec::new();
        for path in &self.inventory {
            let beside = path.parent().unwrap_or(Path::new(""));
            let folders = ["group_vars", "host_vars", "playbooks", "templates", "vars"];
            let lost = folders.iter().find(|name| beside.join(name).is_dir());
            let name = path.file_name().unwrap_or(path.as_os_str());
            let why = match lost {
                _ if path.is_dir() => "it is a folder".to_owned(),
                Some(folder) => format!("`{folder}` lies beside it"),
                None if names.contains(&name) => "another one has the same name".to_owned(),
                None => {
                    names.push(name);
                    continue;
                }
            };
            problems.push(config_map_lacks(path, &why));
        }
        if let Some(project) = &self.project {
            problems.push(config_map_lacks(project, "it is a folder"));
        }
        if problems.has_errors() {
            return Err(problems.into());
        }
        self.words(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            Ok(Path::new(schedule::PROJECT).join(name))
        })
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
        words.extend(["--every".to_owned(), self.every.word()]);
        if let Some(file) = &self.textfile {
            words.extend(["--textfile".to_owned(), text(absolute(file)?)]);
        }
        if let Some(file) = &self.notify {
            words.extend(["--notify".to_owned(), text(place(file)?)]);
        }
        words.extend(self.more.iter().cloned());
        relative(&words)?;
        Ok(words)
    }
}

/// Refuses words that `deploy drift` does not take, and paths among them that would be looked for
/// wherever a scheduler starts it.
fn relative(words: &[String]) -> Result<(), Failure> {
    let command = DriftArgs::augment_args(clap::Command::new("deploy drift"));
    let is_path = |arg: &clap::Arg| arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    let paths: Vec<clap::Id> = command
        .get_arguments()
        .filter(|arg| is_path(arg))
        .map(|arg| arg.get_id().clone())
        .collect();
    let given = command.try_get_matches_from(words).map_err(|error| {
        let said = error.to_string();
        let line = said.lines().next().unwrap_or_default();
        let line = line.trim_start_matches("error: ");
        Diagnostic::error(format!("`deploy drift` does not take these words: {line}"))
            .hint("what stands behind `--` goes to `deploy drift`; `deploy drift --help` lists it")
    })?;
    let mut problems = Problems::default();
    let paths = paths.iter().flat_map(|id| {
        let values = given.get_raw(id.as_str()).into_iter().flatten();
        values.map(PathBuf::from)
    });
    let files = given.get_many::<String>("extra_vars").into_iter().flatten();
    let files = files.filter_map(|word| word.strip_prefix('@').map(PathBuf::from));
    for path in paths.chain(files).filter(|path| path.is_relative()) {
        let message = format!("`{}` is no absolute path", path.display());
        let hint = "a scheduler starts the command in a folder of its own";
        problems.push(Diagnostic::error(message).hint(hint));
    }
    Ok(problems.or(())?)
}

fn config_map_lacks(path: &Path, why: &str) -> Diagnostic {
    let message = format!("`{}` does not fit into a ConfigMap: {why}", path.display());
    Diagnostic::error(message)
        .hint("put the project into the image, and name its place there with --in-image")
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
        metrics::write(&unit.path, &unit.text)?;
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
