//! Incus, and LXD from which it comes: profiles with GPU devices, and the containers and
//! virtual machines that use them.
//!
//! The daemon on the host is asked and changed by its own client, over its local socket. What
//! is ours of a profile or an instance is listed in its setting `user.deploy` (`marks`); nothing
//! else there is touched, and what is no longer written goes again. Instances are made only
//! where an image is named; none is ever stopped, started or deleted. anklume's `infra.yml` is
//! read as a source of profiles and instances (`infra`).

mod device;
mod doctor;
mod infra;
mod marks;
mod plan;
mod prerequisites;
mod private;
mod seen;
mod slices;
mod steps;
mod wanted;

use crate::catalog::Catalog;
use crate::desired::Desired;
use crate::error::Problems;
use crate::render::{Halt, Rendered};

use super::{Finding, GpuInstance, Host, Platform, View, Wish};
use device::Kind;
use seen::Seen;
use steps::{Object, Steps};
use wanted::Wanted;

/// The platform.
#[derive(Debug)]
pub(super) struct Incus;

impl Platform for Incus {
    fn name(&self) -> &'static str {
        "incus"
    }

    fn variable(&self) -> &'static str {
        wanted::VARIABLE
    }

    fn check(&self, desired: &Desired, _: &Catalog, problems: &mut Problems) {
        Wanted::read(desired, problems);
    }

    fn gpu_instances(&self, desired: &Desired) -> Vec<GpuInstance> {
        Wanted::read(desired, &mut Problems::default()).gpu_instances()
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        let seen = Seen::ask(wanted.program, host)?;
        let mut problems = Problems::default();
        let mut wishes = prerequisites::wishes(&wanted, view, &mut problems);
        problems
            .0
            .extend(prerequisites::container_tools(&wanted, host)?);
        super::halted(problems)?;
        match plan::plan(&wanted, &seen, view) {
            Ok(found) => wishes.extend(found),
            Err(problems) => super::halted(problems)?,
        }
        Ok(wishes)
    }

    fn removal(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        // Which of both programs it was, only the block tells; without one it is Incus. What
        // else is wrong with a block that nobody wants is nobody's business.
        let program = Wanted::read(view.desired, &mut Problems::default()).program;
        let is_there = host.ask(&seen::is_there(program.word()))?;
        if !is_there.success() {
            return Ok(Vec::new());
        }
        let seen = match Seen::ask(program, host) {
            Ok(seen) => seen,
            Err(Halt::Pending) => return Err(Halt::Pending),
            Err(Halt::Problem(problem)) => {
                let message = problem.message;
                let note = format!("{message}; if deploy put anything there, it stays");
                return Ok(vec![Wish::Note(note)]);
            }
        };
        let nothing = Wanted {
            program,
            ..Wanted::default()
        };
        plan::plan(&nothing, &seen, view)
            .or_else(|problems| super::halted(problems).map(|()| Vec::new()))
    }

    fn health(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        let seen = Seen::ask(wanted.program, host)?;
        let mut steps = Steps::new(wanted.program);
        for instance in &wanted.instances {
            let known = (instance.project.clone(), instance.name.clone());
            let runs = seen.instances.get(&known).is_some_and(seen::Object::is_up);
            if wanted.gpus_of(instance).is_empty() {
                continue;
            }
            let (name, project) = (&instance.name, &instance.project);
            let by_hand = format!(
                "`{} exec {name} --project {project} -- nvidia-smi`",
                wanted.program.word()
            );
            match (instance.kind, runs) {
                (Kind::Container, true) => steps.answers(&Object::instance(project, name)),
                (Kind::Container, false) => steps.wishes.push(Wish::Note(format!(
                    "instance {name} does not run, so that its GPU was not tried; {by_hand} does, once it runs"
                ))),
                (Kind::Vm, _) => steps.wishes.push(Wish::Note(format!(
                    "instance {name} is a virtual machine and needs a driver of its own; {by_hand} tells whether it has one"
                ))),
            }
        }
        Ok(steps.wishes)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        doctor::examine(&read(view)?, view, host)
    }

    fn library(&self) -> &'static str {
        include_str!("incus.sh")
    }
}

/// The block, whose faults were told before connecting.
fn read(view: &View<'_>) -> Rendered<Wanted> {
    let mut problems = Problems::default();
    let wanted = Wanted::read(view.desired, &mut problems);
    super::halted(problems)?;
    Ok(wanted)
}
