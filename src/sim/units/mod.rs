//! The service manager of a simulated machine: services that are real processes,
//! timers that elapse in real time, and the order of a boot.
//!
//! Written from systemd's documentation and from what systemd 257 was seen to do.
//! A unit that runs has a keeper, this binary under `KEEPER_NAME`: a process of
//! the machine that belongs to nobody's session, adopts what the unit's processes
//! leave behind (so that its descendants are what a control group would hold), and
//! ends when the unit does, when the machine goes down or when its folder is gone.
//!
//! Simpler than the real one: no `Restart=`, no start limit, no dependencies but
//! ordering (`Wants=` and `Requires=` pull nothing in), no calendar timers (they
//! wait for ever), no sockets, paths, mounts or slices, `Type=notify`, `dbus` and
//! `forking` are up once the process was started or went to the background, users
//! and sandboxing are accepted and not played, files are read without
//! `daemon-reload`, timers elapse at the start of their `AccuracySec=` window, and
//! units that the distribution brought have no processes. Uptimes are those of the
//! real machine: only the boot id tells that a simulated one was booted.

pub(in crate::sim) mod boot;
pub(in crate::sim) mod exit;
pub(in crate::sim) mod files;
pub(in crate::sim) mod job;
pub(in crate::sim) mod line;
pub(in crate::sim) mod process;
pub(in crate::sim) mod program;
mod service;
pub(in crate::sim) mod span;
pub(in crate::sim) mod state;
mod timer;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::machine::Host;

pub(in crate::sim) use program::{PROGRAM_NAME, UNIT_VARIABLE, become_program};

/// The name under which this binary keeps a unit of a simulated machine.
pub(in crate::sim) const KEEPER_NAME: &str = "deploy-sim-unit";

/// What a keeper is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Duty {
    /// Start a service and keep it.
    Service,
    /// The same with the standard streams of whoever asked.
    Piped,
    /// Go on with a service whose main process runs.
    Watch,
    /// Stop a service that remains without processes.
    End,
    /// Start a timer and keep it.
    Timer,
    /// Stop all units, then boot anew.
    Reboot,
    /// Boot anew without any orderly end.
    PowerLoss,
}

const DUTIES: [(Duty, &str); 7] = [
    (Duty::Service, "service"),
    (Duty::Piped, "piped"),
    (Duty::Watch, "watch"),
    (Duty::End, "end"),
    (Duty::Timer, "timer"),
    (Duty::Reboot, "reboot"),
    (Duty::PowerLoss, "power-loss"),
];

impl Duty {
    fn word(self) -> &'static str {
        DUTIES
            .iter()
            .find(|duty| duty.0 == self)
            .map_or("", |duty| duty.1)
    }
}

/// The command that makes this binary a keeper.
fn keeper(host: &Host, duty: Duty, words: &[&str]) -> io::Result<Command> {
    let binary = std::fs::read_link(host.path("/usr/bin/systemctl"))?;
    let mut command = Command::new(binary);
    command
        .arg0(KEEPER_NAME)
        .arg(host.root())
        .arg(duty.word())
        .args(words)
        .env_clear()
        .envs(super::confine::environment(host.root()))
        .current_dir(host.root());
    if duty != Duty::Piped {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }
    Ok(command)
}

/// Starts a keeper.
pub(in crate::sim) fn spawn_keeper(host: &Host, duty: Duty, unit: &str) -> io::Result<Child> {
    keeper(host, duty, &[unit])?.spawn()
}

/// Is a keeper: `ROOT DUTY UNIT [PID]`. Gives back the exit status.
pub(in crate::sim) fn keep(args: &[OsString]) -> i32 {
    let mut stderr = io::stderr();
    let word = |number: usize| args.get(number).and_then(|arg| arg.to_str());
    let duty = DUTIES.iter().find(|duty| word(1) == Some(duty.1));
    let (Some(root), Some(duty)) = (args.first(), duty) else {
        let _ = writeln!(stderr, "usage: {KEEPER_NAME} ROOT DUTY UNIT");
        return 64;
    };
    // A full disk is the host's, not that of what plays the host.
    let _ = super::fault::lift_file_size_limit();
    let host = Host::new(root);
    let unit = word(2).unwrap_or_default();
    let kept = match duty.0 {
        Duty::Service | Duty::Piped => detach().and_then(|()| service::keep(&host, unit, duty.0)),
        Duty::Watch => {
            let main = word(3).and_then(|pid| pid.parse().ok()).unwrap_or(0);
            service::watch(&host, unit, main)
        }
        Duty::End => detach().and_then(|()| service::end(&host, unit)),
        Duty::Timer => detach().and_then(|()| timer::keep(&host, unit)),
        Duty::Reboot => detach().and_then(|()| boot::reboot(&host)),
        Duty::PowerLoss => detach().and_then(|()| boot::power_loss(&host)),
    };
    match kept {
        Ok(()) => 0,
        Err(error) => {
            if matches!(duty.0, Duty::Service | Duty::Piped | Duty::Watch) {
                service::abandon();
            }
            // Nobody listens to a keeper; the machine's folder may be gone.
            let _ = std::fs::write(host.private("keeper-error"), format!("{unit}: {error}\n"));
            1
        }
    }
}

/// Leaves the session of whoever started us, and adopts what our children leave.
fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Whether the machine's folder is still that of a machine.
fn exists(host: &Host) -> bool {
    host.private("state.json").exists()
}

/// Waits that get longer, so that what takes long is looked at seldom.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
}

impl Pace {
    /// The shortest and the longest wait.
    const RANGE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

    /// Waits for a twentieth of what was waited so far, within the range.
    fn rest(&mut self) {
        let nap = (self.waited / 20).clamp(Self::RANGE.0, Self::RANGE.1);
        std::thread::sleep(nap);
        self.waited += nap;
    }
}
