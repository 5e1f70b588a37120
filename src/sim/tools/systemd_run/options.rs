//! The arguments of `systemd-run`: what they mean, and what is refused with
//! which words.

use crate::sim::units::{exit, process, span};

/// What `--version` prints.
pub(super) const VERSION: &str = "systemd 257 (257.13-1~deb13u1)\n";

/// Why nothing is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// `--version` was asked for.
    Version,
    /// What is wrong.
    Text(String),
}

/// What is to be run, and how.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) unit: Option<String>,
    pub(super) description: Option<String>,
    pub(super) collect: bool,
    pub(super) quiet: bool,
    pub(super) wait: bool,
    pub(super) pipe: bool,
    pub(super) no_block: bool,
    /// `NAME=VALUE`
    pub(super) environment: Vec<String>,
    pub(super) unit_properties: Vec<(String, String)>,
    pub(super) service_properties: Vec<(String, String)>,
    pub(super) timer_properties: Vec<(String, String)>,
    pub(super) command: Vec<String>,
}

impl Options {
    /// Whether a timer is to start the service.
    pub(super) fn is_timer(&self) -> bool {
        self.timer_properties
            .iter()
            .any(|(key, _)| key.starts_with("On"))
    }

    /// Whether the end of the service is waited for.
    pub(super) fn waits(&self) -> bool {
        self.wait || self.pipe
    }

    /// The unit's full name; `kind` is added where there is none.
    pub(super) fn unit_name(&self, kind: &str) -> String {
        const KINDS: [&str; 4] = [".service", ".timer", ".scope", ".target"];
        match &self.unit {
            Some(name) if KINDS.iter().any(|kind| name.ends_with(kind)) => name.clone(),
            Some(name) => format!("{name}{kind}"),
            None => format!("run-p{}-i{}{kind}", std::process::id(), process::uptime()),
        }
    }
}

/// What a property's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Span,
    Switch,
    Signal,
    OneOf(&'static [&'static str]),
}

const KILL_MODES: &[&str] = &["control-group", "process", "mixed", "none"];
const TYPES: &[&str] = &[
    "simple",
    "exec",
    "forking",
    "oneshot",
    "dbus",
    "notify",
    "notify-reload",
    "idle",
];
const COLLECT_MODES: &[&str] = &["inactive", "inactive-or-failed"];

/// Properties of `[Unit]` that a transient unit may have.
const UNIT_PROPERTIES: &[(&str, Kind)] = &[
    ("After", Kind::Text),
    ("Before", Kind::Text),
    ("BindsTo", Kind::Text),
    ("CollectMode", Kind::OneOf(COLLECT_MODES)),
    ("Conflicts", Kind::Text),
    ("DefaultDependencies", Kind::Switch),
    ("Description", Kind::Text),
    ("IgnoreOnIsolate", Kind::Switch),
    ("JobTimeoutSec", Kind::Span),
    ("OnFailure", Kind::Text),
    ("OnFailureJobMode", Kind::Text),
    ("OnSuccess", Kind::Text),
    ("PartOf", Kind::Text),
    ("RefuseManualStop", Kind::Switch),
    ("Requires", Kind::Text),
    ("Requisite", Kind::Text),
    ("StartLimitBurst", Kind::Text),
    ("StartLimitIntervalSec", Kind::Span),
    ("Wants", Kind::Text),
];

/// Properties of `[Service]` that a transient unit may have.
const SERVICE_PROPERTIES: &[(&str, Kind)] = &[
    ("CPUAccounting", Kind::Switch),
    ("CPUQuota", Kind::Text),
    ("CPUWeight", Kind::Text),
    ("Environment", Kind::Text),
    ("ExecStartPost", Kind::Text),
    ("ExecStartPre", Kind::Text),
    ("ExecStop", Kind::Text),
    ("ExecStopPost", Kind::Text),
    ("FinalKillSignal", Kind::Signal),
    ("Group", Kind::Text),
    ("IOWeight", Kind::Text),
    ("IgnoreSIGPIPE", Kind::Switch),
    ("KillMode", Kind::OneOf(KILL_MODES)),
    ("KillSignal", Kind::Signal),
    ("LimitNOFILE", Kind::Text),
    ("MemoryAccounting", Kind::Switch),
    ("MemoryMax", Kind::Text),
    ("Nice", Kind::Text),
    ("NoNewPrivileges", Kind::Switch),
    ("OOMPolicy", Kind::Text),
    ("OOMScoreAdjust", Kind::Text),
    ("PrivateTmp", Kind::Text),
    ("ProtectSystem", Kind::Text),
    ("RemainAfterExit", Kind::Switch),
    ("RuntimeMaxSec", Kind::Span),
    ("SendSIGHUP", Kind::Switch),
    ("SendSIGKILL", Kind::Switch),
    ("Slice", Kind::Text),
    ("StandardError", Kind::Text),
    ("StandardInput", Kind::Text),
    ("StandardOutput", Kind::Text),
    ("SuccessExitStatus", Kind::Text),
    ("SyslogIdentifier", Kind::Text),
    ("TasksMax", Kind::Text),
    ("TimeoutAbortSec", Kind::Span),
    ("TimeoutSec", Kind::Span),
    ("TimeoutStartSec", Kind::Span),
    ("TimeoutStopSec", Kind::Span),
    ("Type", Kind::OneOf(TYPES)),
    ("UMask", Kind::Text),
    ("User", Kind::Text),
    ("WorkingDirectory", Kind::Text),
];

/// Properties of `[Timer]`.
const TIMER_PROPERTIES: &[(&str, Kind)] = &[
    ("AccuracySec", Kind::Span),
    ("FixedRandomDelay", Kind::Switch),
    ("OnActiveSec", Kind::Span),
    ("OnBootSec", Kind::Span),
    ("OnCalendar", Kind::Text),
    ("OnStartupSec", Kind::Span),
    ("OnUnitActiveSec", Kind::Span),
    ("OnUnitInactiveSec", Kind::Span),
    ("Persistent", Kind::Switch),
    ("RandomizedDelaySec", Kind::Span),
    ("RemainAfterElapse", Kind::Switch),
    ("WakeSystem", Kind::Switch),
];

/// Options with a value: long name and letter.
const WITH_VALUE: &[(&str, Option<char>)] = &[
    ("unit", Some('u')),
    ("property", Some('p')),
    ("description", None),
    ("slice", None),
    ("service-type", None),
    ("uid", None),
    ("gid", None),
    ("nice", None),
    ("working-directory", None),
    ("setenv", Some('E')),
    ("on-active", None),
    ("on-boot", None),
    ("on-startup", None),
    ("on-unit-active", None),
    ("on-unit-inactive", None),
    ("on-calendar", None),
    ("timer-property", None),
    ("path-property", None),
    ("socket-property", None),
    ("expand-environment", None),
    ("background", None),
    ("json", None),
    ("job-mode", None),
    ("host", Some('H')),
    ("machine", Some('M')),
];

/// Options without one.
const PLAIN: &[(&str, Option<char>)] = &[
    ("collect", Some('G')),
    ("quiet", Some('q')),
    ("wait", None),
    ("pipe", Some('P')),
    ("pty", Some('t')),
    ("shell", Some('S')),
    ("no-block", None),
    ("no-ask-password", None),
    ("remain-after-exit", Some('r')),
    ("send-sighup", None),
    ("same-dir", Some('d')),
    ("scope", None),
    ("slice-inherit", None),
    ("user", None),
    ("system", None),
    ("ignore-failure", None),
    ("on-clock-change", None),
    ("on-timezone-change", None),
    ("version", None),
    ("help", Some('h')),
];

fn refused<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Text(text.into()))
}

/// Reads the arguments. `variable` gives the caller's environment.
pub(super) fn read(
    args: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Options, Refused> {
    let mut options = Options::default();
    let mut timer_property = false;
    let mut rest = args.iter();
    // What follows the first word that is no option is the command's.
    while let Some(arg) = rest.as_slice().first() {
        if arg == "--" {
            rest.next();
            break;
        }
        if !arg.starts_with('-') || arg == "-" {
            break;
        }
        rest.next();
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if PLAIN.iter().any(|plain| plain.0 == name) {
                if value.is_some() {
                    return refused(format!(
                        "systemd-run: option '--{name}' doesn't allow an argument"
                    ));
                }
                options.plain(name)?;
            } else if WITH_VALUE.iter().any(|other| other.0 == name) {
                let Some(value) = value.or_else(|| rest.next().cloned()) else {
                    return refused(format!(
                        "systemd-run: option '--{name}' requires an argument"
                    ));
                };
                timer_property |= name == "timer-property";
                options.valued(name, &value, &variable)?;
            } else {
                return refused(format!("systemd-run: unrecognized option '--{name}'"));
            }
            continue;
        }
        for (at, letter) in arg[1..].char_indices() {
            if let Some(plain) = PLAIN.iter().find(|plain| plain.1 == Some(letter)) {
                options.plain(plain.0)?;
                continue;
            }
            let Some(valued) = WITH_VALUE.iter().find(|other| other.1 == Some(letter)) else {
                return refused(format!("systemd-run: invalid option -- '{letter}'"));
            };
            let inline = &arg[1 + at + letter.len_utf8()..];
            let value = if inline.is_empty() {
                rest.next().cloned()
            } else {
                Some(inline.to_owned())
            };
            let Some(value) = value else {
                return refused(format!(
                    "systemd-run: option requires an argument -- '{letter}'"
                ));
            };
            options.valued(valued.0, &value, &variable)?;
            break;
        }
    }
    options.command = rest.cloned().collect();
    options.check(timer_property)?;
    Ok(options)
}

impl Options {
    fn plain(&mut self, name: &str) -> Result<(), Refused> {
        match name {
            "collect" => {
                self.collect = true;
                self.unit_properties
                    .push(("CollectMode".to_owned(), "inactive-or-failed".to_owned()));
            }
            "quiet" => self.quiet = true,
            "wait" => self.wait = true,
            "pipe" => self.pipe = true,
            "no-block" => self.no_block = true,
            "remain-after-exit" => self.service("RemainAfterExit", "yes"),
            "send-sighup" => self.service("SendSIGHUP", "yes"),
            "version" => return Err(Refused::Version),
            "no-ask-password" | "system" | "same-dir" | "slice-inherit" => {}
            other => {
                return refused(format!(
                    "systemd-run: --{other} is not possible on a simulated host"
                ));
            }
        }
        Ok(())
    }

    fn service(&mut self, key: &str, value: &str) {
        self.service_properties
            .push((key.to_owned(), value.to_owned()));
    }

    fn valued(
        &mut self,
        name: &str,
        value: &str,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<(), Refused> {
        match name {
            "unit" => self.unit = Some(value.to_owned()),
            "description" => self.description = Some(value.to_owned()),
            "property" => self.property(value)?,
            "service-type" => self.property(&format!("Type={value}"))?,
            "uid" => self.service("User", value),
            "gid" => self.service("Group", value),
            "nice" => self.service("Nice", value),
            "slice" => self.service("Slice", value),
            "working-directory" => self.service("WorkingDirectory", value),
            "setenv" => match value.split_once('=') {
                Some(_) => self.environment.push(value.to_owned()),
                None => {
                    if let Some(own) = variable(value) {
                        self.environment.push(format!("{value}={own}"));
                    }
                }
            },
            "timer-property" => self.timer_property(value)?,
            "on-active" => self.timer_property(&format!("OnActiveSec={value}"))?,
            "on-boot" => self.timer_property(&format!("OnBootSec={value}"))?,
            "on-startup" => self.timer_property(&format!("OnStartupSec={value}"))?,
            "on-unit-active" => self.timer_property(&format!("OnUnitActiveSec={value}"))?,
            "on-unit-inactive" => self.timer_property(&format!("OnUnitInactiveSec={value}"))?,
            "on-calendar" => self.timer_property(&format!("OnCalendar={value}"))?,
            "background" | "json" => {}
            other => {
                return refused(format!(
                    "systemd-run: --{other} is not possible on a simulated host"
                ));
            }
        }
        Ok(())
    }

    fn property(&mut self, assignment: &str) -> Result<(), Refused> {
        let Some((key, value)) = assignment.split_once('=') else {
            return refused(format!("Not an assignment: {assignment}"));
        };
        if let Some(known) = UNIT_PROPERTIES.iter().find(|known| known.0 == key) {
            let value = check(*known, value, "service")?;
            if key == "Description" {
                self.description = Some(value);
            } else {
                self.collect |= key == "CollectMode" && value == "inactive-or-failed";
                self.unit_properties.push((key.to_owned(), value));
            }
            return Ok(());
        }
        match SERVICE_PROPERTIES.iter().find(|known| known.0 == key) {
            Some(known) => {
                let value = check(*known, value, "service")?;
                self.service_properties.push((key.to_owned(), value));
                Ok(())
            }
            None => refused(format!("Unknown assignment: {assignment}")),
        }
    }

    fn timer_property(&mut self, assignment: &str) -> Result<(), Refused> {
        let Some((key, value)) = assignment.split_once('=') else {
            return refused(format!("Not an assignment: {assignment}"));
        };
        let Some(known) = TIMER_PROPERTIES.iter().find(|known| known.0 == key) else {
            return refused(format!("Unknown assignment: {assignment}"));
        };
        let value = check(*known, value, "timer")?;
        self.timer_properties.push((key.to_owned(), value));
        Ok(())
    }

    fn check(&self, timer_property: bool) -> Result<(), Refused> {
        let timer = self.is_timer();
        if self.command.is_empty() && (!timer || self.unit.is_none()) {
            return refused("Command line to execute required.");
        }
        if self.pipe && timer {
            return refused("--pty/--pipe is not compatible in timer or --scope mode.");
        }
        if timer_property && !timer {
            return refused("--timer-property= has no effect without any other timer options.");
        }
        if self.wait && self.no_block {
            return refused("--wait may not be combined with --no-block.");
        }
        if self.wait && timer {
            return refused("--wait may not be combined with path, socket or timer operations.");
        }
        Ok(())
    }
}

/// The value as it is written into the unit's file.
fn check((key, kind): (&str, Kind), value: &str, unit: &str) -> Result<String, Refused> {
    match kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Span => match span::parse(value) {
            Some(micros) => Ok(span::show(micros)),
            None => refused(format!("Failed to parse {key}={value}: Invalid argument")),
        },
        Kind::Switch => match value {
            "1" | "yes" | "y" | "true" | "t" | "on" => Ok("yes".to_owned()),
            "0" | "no" | "n" | "false" | "f" | "off" => Ok("no".to_owned()),
            _ => refused(format!("Failed to parse {key}={value}: Invalid argument")),
        },
        Kind::Signal => match exit::signal_named(value) {
            Some(_) => Ok(value.to_owned()),
            None => refused(format!("Failed to parse {key}={value}: Invalid argument")),
        },
        Kind::OneOf(words) if words.contains(&value) => Ok(value.to_owned()),
        Kind::OneOf(_) => refused(format!(
            "Failed to start transient {unit} unit: Invalid {key} setting: {value}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Result<Options, Refused> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        read(&words, |name| (name == "OWN").then(|| "o".to_owned()))
    }

    // Each text is what systemd-run of systemd 257 said to these arguments.
    #[test]
    fn what_is_refused_is_refused_with_systemds_words() {
        for (words, text) in [
            (
                &["-p", "Nonsense=1", "true"][..],
                "Unknown assignment: Nonsense=1",
            ),
            (
                &["--property=KillMode=bogus", "true"],
                "Failed to start transient service unit: Invalid KillMode setting: bogus",
            ),
            (
                &["-p", "TimeoutStopSec=xx", "true"],
                "Failed to parse TimeoutStopSec=xx: Invalid argument",
            ),
            (
                &["-p", "TimeoutStopSec", "true"],
                "Not an assignment: TimeoutStopSec",
            ),
            (
                &["--on-active=xx", "true"],
                "Failed to parse OnActiveSec=xx: Invalid argument",
            ),
            (
                &["--timer-property=AccuracySec=1s", "true"],
                "--timer-property= has no effect without any other timer options.",
            ),
            (
                &["--timer-property=Bogus=1s", "--on-active=1", "true"],
                "Unknown assignment: Bogus=1s",
            ),
            (
                &["--wait", "--no-block", "true"],
                "--wait may not be combined with --no-block.",
            ),
            (
                &["--wait", "--on-active=10", "true"],
                "--wait may not be combined with path, socket or timer operations.",
            ),
            (
                &["--pipe", "--on-active=10", "true"],
                "--pty/--pipe is not compatible in timer or --scope mode.",
            ),
            (
                &["--bogus", "true"],
                "systemd-run: unrecognized option '--bogus'",
            ),
            (&["--unit=f"], "Command line to execute required."),
            (&[], "Command line to execute required."),
        ] {
            assert_eq!(
                read_words(words),
                Err(Refused::Text(text.to_owned())),
                "{words:?}"
            );
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let options = read_words(&[
            "-qG",
            "-uname",
            "-E",
            "OWN",
            "-EA=b",
            "-p",
            "KillMode=mixed",
            "--",
            "sh",
            "-c",
            "-x",
        ])
        .expect("they are right");
        assert_eq!(options.command, ["sh", "-c", "-x"]);
        assert_eq!(options.environment, ["OWN=o", "A=b"]);
        assert_eq!(options.unit_name(".service"), "name.service");
        assert!(options.quiet && options.collect && !options.is_timer());
        let timer = read_words(&["--on-active", "5min", "--unit", "t", "true", "--wait"])
            .expect("what is behind the command is its own");
        assert_eq!(
            timer.timer_properties,
            [("OnActiveSec".to_owned(), "5min".to_owned())]
        );
    }
}
