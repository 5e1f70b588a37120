//! The controller's side of one run on one host, over as many connections as it takes.
//!
//! The host acts by itself; here it is listened to. Where a connection is lost, or the
//! host restarts, another one is opened and the journal is heard from where it was.
//! What the end means, `ending` says.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::journal::{Entry, Follower, What};
use super::manifest::Manifest;
use super::status::HostStatus;
use super::upload::{JOURNAL_LIMIT, one_line};
use super::{Connect, RunId, STATE_DIR, scripts};
use crate::event::{Event, StepOutcome};
use crate::shell::Command;
use crate::transport::{Exec, Session};
use crate::value::HostName;

/// Between two tries to connect: short at first, as most cuts are short.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// For how long a host is asked again to end a run that has changed nothing: one that was
/// just booted may not be able to start anything yet.
const HOPELESS: Duration = Duration::from_secs(30);

/// What the runner can be asked for besides the run itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Confirm,
    Undo,
    UndoAnyway,
    Unlock,
    /// Undo what nobody is at any more.
    Expire,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Undo => "undo",
            Self::UndoAnyway => "undo-anyway",
            Self::Unlock => "unlock",
            Self::Expire => "expire",
        }
    }
}

/// Exit status of `runner.sh`: another run has the host.
pub(super) const LOCKED: u8 = 75;
/// Exit status of `runner.sh`: it is not done, and nothing was changed.
pub(super) const REFUSED: u8 = 76;
/// Exit status of `runner.sh`: what an undo would take away is in use.
pub(super) const IN_USE: u8 = 77;
/// Code of `attach.sh`: nobody is at the run any more, not even a guard.
const NOBODY: u8 = 3;

/// What was heard last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// The runner, or whoever followed it, came to an end.
    End {
        /// The runner's exit status, or 3 and 4 as `attach.sh` describes them.
        code: u8,
        /// The run's status on the host.
        status: HostStatus,
        /// What the runner said besides its journal.
        said: String,
    },
    /// The request failed before the host had the run; the connection is well.
    Refused {
        /// What was said.
        said: String,
    },
    /// The connection broke off.
    Lost {
        /// Whether the host has said that it acts by itself.
        received: bool,
        /// How it broke off.
        error: String,
    },
}

impl Heard {
    /// The run's status, none if the connection broke off.
    pub(super) fn status(&self) -> Option<&HostStatus> {
        match self {
            Self::End { status, .. } => Some(status),
            Self::Refused { .. } | Self::Lost { .. } => None,
        }
    }
}

/// A conversation about one run.
pub(super) struct Talk<'s> {
    pub(super) connect: &'s dyn Connect,
    pub(super) manifest: &'s Manifest,
    pub(super) run: RunId,
    pub(super) host: &'s HostName,
    pub(super) events: &'s UnboundedSender<Event>,
    /// Who asks, for the journal.
    pub(super) who: String,
    /// For how long to try to reach the host again after it was last heard.
    pub(super) patience: Duration,
    /// For how long to listen to a host that is there, but has no news.
    quiet: Duration,
    /// For how long the runner may work at one go.
    pub(super) work: Duration,
    /// How often the run was sent.
    pub(super) sent: u8,
    /// Lines of the journal that were heard.
    pub(super) lines: usize,
    /// Entries that tell a failure, in their order.
    pub(super) failures: Vec<Entry>,
    /// When the host undoes the run unless it is confirmed.
    pub(super) undo_at: Option<jiff::Timestamp>,
    /// Whether the guard was said to be still there when the run was over.
    pub(super) guard_left: bool,
}

impl<'s> Talk<'s> {
    pub(super) fn new(
        connect: &'s dyn Connect,
        manifest: &'s Manifest,
        run: RunId,
        host: &'s HostName,
        events: &'s UnboundedSender<Event>,
        who: &str,
    ) -> Self {
        let window = manifest.guard.map_or(0, |guard| guard.window_s);
        // A server may take many minutes to come back; the step says how many.
        let restart: u64 = manifest
            .steps
            .iter()
            .filter(|step| step.change.is_reboot())
            .map(|step| u64::from(step.timeout_s))
            .sum();
        Self {
            connect,
            manifest,
            run,
            host,
            events,
            who: one_line(who),
            // The host undoes a run that cut it off; it is reachable again after that.
            patience: Duration::from_secs(2 * u64::from(window) + restart + 120),
            quiet: Duration::from_secs(u64::from(window) + 60),
            work: super::patience(manifest.steps.iter().map(|step| step.timeout_s)),
            sent: 1,
            lines: 0,
            failures: Vec::new(),
            undo_at: None,
            guard_left: false,
        }
    }

    /// Carries the conversation on until the run is closed on the host, or the host
    /// cannot be reached any more. `confirms` is whether we may say that all is well.
    pub(super) async fn until_the_end(
        &mut self,
        mut session: Option<Box<dyn Session + 's>>,
        mut heard: Heard,
        confirms: bool,
    ) -> Heard {
        let mut last_news = Instant::now();
        let mut last_lines = self.lines;
        loop {
            let verb = match (&heard, heard.status()) {
                // What stands between a status and its end is heard by attaching.
                (Heard::Lost { .. }, _) | (_, Some(HostStatus::Rebooting)) => {
                    session = None;
                    None
                }
                (Heard::End { code: NOBODY, .. }, _) => Some(Verb::Expire),
                // Its runner was ended before the guard was there to see it.
                (_, Some(HostStatus::Preparing)) => Some(Verb::Expire),
                (_, Some(HostStatus::Running | HostStatus::Undoing)) => None,
                (_, Some(HostStatus::Unconfirmed)) if confirms => {
                    // The host must be reachable anew, not just still be connected.
                    session = None;
                    Some(Verb::Confirm)
                }
                _ => break,
            };
            if self.lines != last_lines {
                last_lines = self.lines;
                last_news = Instant::now();
            }
            let limit = match &heard {
                Heard::Lost { .. } => self.patience,
                _ if heard.status() == Some(&HostStatus::Rebooting) => self.patience,
                _ => self.quiet,
            };
            if last_news.elapsed() > limit {
                break;
            }
            if session.is_none() {
                session = self.reconnect(last_news).await;
            }
            let Some(open) = session.as_mut() else { break };
            let before = heard.clone();
            heard = match verb {
                Some(verb) => self.ask_or_attach(open.as_mut(), verb).await,
                None => self.attach(open.as_mut()).await,
            };
            if let Heard::Refused { said } = heard {
                // The host has the run: what it could not start now it may later, and if it
                // cannot, its guard ends the run.
                heard = Heard::Lost {
                    received: true,
                    error: said,
                };
            }
            let hopeless = last_news.elapsed() > HOPELESS;
            if heard == before && heard.status() == Some(&HostStatus::Preparing) && hopeless {
                break;
            }
            if heard == before {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if let Some(open) = session {
            open.close().await;
        }
        heard
    }

    /// Another connection, or none if the host stays away.
    async fn reconnect(&self, since: Instant) -> Option<Box<dyn Session + 's>> {
        for tries in 0.. {
            if let Ok(session) = self.connect.connect().await {
                return Some(session);
            }
            if since.elapsed() > self.patience {
                return None;
            }
            let pause = PAUSES.get(tries).or(PAUSES.last()).copied();
            tokio::time::sleep(pause.unwrap_or_default()).await;
        }
        None
    }

    /// Has the host's runner do something with the run, and hears it.
    pub(super) async fn ask(&mut self, session: &mut dyn Session, verb: Verb) -> Heard {
        let exec = Exec {
            command: Command::new("sh")
                .arg("-c")
                .arg(scripts::follow())
                .arg("deploy")
                .path(self.run.directory())
                .arg(verb.word())
                .arg(self.who.as_str()),
            stdin: Vec::new(),
            timeout: self.work,
            limit: JOURNAL_LIMIT,
        };
        self.hear(session, &exec, 0).await
    }

    /// The same; if it was refused because somebody else was faster, such as the guard while
    /// the host could not be reached, what that one wrote is heard from where we were.
    async fn ask_or_attach(&mut self, session: &mut dyn Session, verb: Verb) -> Heard {
        let (lines, failures) = (self.lines, self.failures.len());
        let heard = self.ask(session, verb).await;
        if !matches!(&heard, Heard::End { code: LOCKED | REFUSED, status, .. } if *status != HostStatus::Unconfirmed)
        {
            return heard;
        }
        self.lines = lines;
        self.failures.truncate(failures);
        self.attach(session).await
    }

    /// Hears the run that goes on, from where it was.
    async fn attach(&mut self, session: &mut dyn Session) -> Heard {
        let exec = Exec {
            command: Command::new("sh")
                .arg("-c")
                .arg(scripts::attach())
                .arg("deploy")
                .path(STATE_DIR)
                .arg(self.run.as_str())
                .arg(self.quiet.as_secs().to_string())
                .arg(self.sent.to_string()),
            stdin: Vec::new(),
            timeout: self.quiet + Duration::from_secs(120),
            limit: JOURNAL_LIMIT,
        };
        self.hear(session, &exec, self.lines).await
    }

    /// Hears what a request prints; the first `known` lines were heard before.
    pub(super) async fn hear(
        &mut self,
        session: &mut dyn Session,
        exec: &Exec,
        known: usize,
    ) -> Heard {
        let mut follower = Follower::after(known);
        let output = session
            .exec(exec, &mut |bytes| {
                for entry in follower.push(bytes) {
                    self.entry(&entry);
                }
            })
            .await;
        if follower.received() {
            self.lines = follower.lines();
        }
        if follower.ended() {
            return Heard::End {
                code: follower.code(),
                status: follower.status().into(),
                said: follower.said(),
            };
        }
        let received = follower.received();
        match output {
            Ok(output) if !received => Heard::Refused {
                said: super::journal::bounded(&output.stderr),
            },
            Ok(output) => Heard::Lost {
                received,
                error: super::journal::bounded(&output.stderr),
            },
            Err(error) => Heard::Lost {
                received,
                error: error.to_string(),
            },
        }
    }

    fn entry(&mut self, entry: &Entry) {
        if entry.what.is_failure() {
            self.failures.push(entry.clone());
        }
        match entry.what {
            What::Unconfirmed => self.undo_at = entry.undo_at(),
            What::DisarmFailed => self.guard_left = true,
            _ => {}
        }
        if let Some(event) = event_of(entry, self.manifest, self.host) {
            // Nobody listens any more only when the program is about to end.
            let _ = self.events.send(event);
        }
    }
}

fn event_of(entry: &Entry, manifest: &Manifest, host: &HostName) -> Option<Event> {
    if entry.what == What::Guard {
        return Some(Event::Note {
            host: Some(host.clone()),
            text: format!("the host's guard undoes the run: {}", entry.detail),
        });
    }
    if entry.what == What::Told {
        return Some(Event::Note {
            host: Some(host.clone()),
            text: format!("warning: {}", entry.detail),
        });
    }
    let step = manifest.step_id(&entry.step)?;
    let host = host.clone();
    let outcome = match entry.what {
        What::Apply | What::Undo => return Some(Event::StepStart { host, step }),
        What::Done => StepOutcome::Changed,
        What::CheckFailed | What::SnapshotFailed | What::ApplyFailed | What::VerifyFailed => {
            StepOutcome::Failed
        }
        What::Undone => StepOutcome::Undone,
        What::UndoFailed => StepOutcome::UndoFailed,
        _ => return None,
    };
    Some(Event::StepEnd {
        host,
        step,
        outcome,
        message: entry.detail.clone(),
    })
}
