//! Running `deploy drift` again and again: by systemd, by cron, or by a Kubernetes cluster.
//!
//! Here is what a scheduler has to be told, as texts: unit files, a line of a crontab,
//! manifests. Nothing is read, written or started here, and what the scheduled command
//! does is not known: it is a list of words.

mod cron;
mod every;
mod kubernetes;
mod systemd;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::content::Content;
use crate::error::{Diagnostic, Problems, Source};
use crate::render::{self, Binding, Halt, Layer, Scope};

pub use every::Every;
pub use kubernetes::PROJECT;
pub use systemd::UNITS;

/// What is to be run, and how often.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What units, jobs and objects are called.
    pub name: Name,
    /// How often.
    pub every: Every,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its words: the verb, inventories as absolute paths, and the like.
    pub words: Vec<String>,
    /// Files and folders that the program reads, as absolute paths.
    pub reads: Vec<PathBuf>,
    /// Folders that it writes to beside its own, as absolute paths.
    pub writes: Vec<PathBuf>,
}

/// A name that systemd, Kubernetes and a file may have: what RFC 1123 calls a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Longest name, so that with what schedulers put behind it it still is one: a `CronJob`
    /// may have 52 characters.
    const LONGEST: usize = 52;

    /// Takes what the user wrote.
    ///
    /// # Errors
    /// Says what a name may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=Self::LONGEST).contains(&text.len());
        let ends_well = !text.starts_with('-') && !text.ends_with('-');
        match fits && ends_well && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "a name has 1 to {} small letters, digits and inner dashes",
                Self::LONGEST
            )),
        }
    }

    /// The name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file that a scheduler reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it belongs on the machine, or what it is called.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// What only systemd is told.
#[derive(Debug, Clone)]
pub struct Systemd {
    /// Who the service runs as; else a user that systemd makes up for it.
    pub user: Option<String>,
    /// The private key to log in with, handed over as a credential.
    pub key: Option<PathBuf>,
}

/// What only Kubernetes is told.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// The image that has the program.
    pub image: String,
    /// Where the objects belong.
    pub namespace: String,
    /// Whether the inventories come as a `ConfigMap`; else they lie in the image.
    pub mounts_project: bool,
    /// How many shards work side by side.
    pub shards: u32,
    /// What keeps the history; else it ends with each pod.
    pub state_claim: Option<String>,
}

/// The units of a timer that runs it.
///
/// # Errors
/// The user's own template cannot be rendered.
pub fn systemd(
    schedule: &Schedule,
    more: &Systemd,
    content: &Content,
) -> Result<Vec<Artifact>, Problems> {
    systemd::artifacts(schedule, more, content)
}

/// The lines of a crontab that run it.
#[must_use]
pub fn cron(schedule: &Schedule) -> String {
    cron::lines(schedule)
}

/// The manifests that run it on a cluster.
///
/// # Errors
/// The user's own template cannot be rendered.
pub fn kubernetes(
    schedule: &Schedule,
    more: &Kubernetes,
    content: &Content,
) -> Result<String, Problems> {
    kubernetes::manifests(schedule, more, content)
}

/// A template with these variables.
fn rendered(content: &Content, template: &str, vars: &Json) -> Result<String, Problems> {
    let Some(shipped) = content.template(template) else {
        return Err(Diagnostic::error(format!("there is no template `{template}`")).into());
    };
    let source = Arc::new(Source {
        path: shipped.path,
        text: shipped.text,
    });
    let mut scope = Scope::default();
    for (name, value) in vars.as_object().into_iter().flatten() {
        scope.set(Layer::Set, name.clone(), Binding::Known(value.clone()));
    }
    match render::template(&source, &scope) {
        Ok(text) => Ok(text),
        Err(Halt::Problem(problem)) => Err((*problem).into()),
        Err(Halt::Pending) => Err(Diagnostic::error(format!(
            "the template `{template}` asks for something of a host"
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_everywhere() {
        for good in ["deploy-drift", "a", "gpu2"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "-a", "a-", "A", "a b", "a/b", "a.b", &"x".repeat(53)] {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }
}
