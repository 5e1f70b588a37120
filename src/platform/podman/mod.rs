//! Podman: containers as units of systemd through Quadlet, each with its slice by a name of the
//! container device interface.
//!
//! `wanted` reads the variables, `look` the host, `devices` shares out the slices; `cdi`,
//! `rootless`, `unit` and `kept` say what is to be there. Nothing in a container is allowed
//! that was not asked for, and what was is named in the plan.

mod cdi;
mod devices;
mod doctor;
mod kept;
mod limits;
mod look;
mod ours;
mod preflight;
mod rootless;
mod secrets;
mod unit;
mod wanted;

use std::collections::BTreeSet;

use serde_json::json;

use crate::catalog::Catalog;
use crate::desired::{Block, Desired, Located, ResourceLimits};
use crate::error::{Origin, Problems};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::transport::{PathState, Read};
use crate::value::Node;

use super::{Finding, GpuInstance, Host, Platform, PlatformFile, View, Wish};
use devices::{Device, Name, Offer};
use kept::{Kept, Record};
use look::Seen;
use ours::{Users, Wants};
use unit::Place;
use wanted::{Container, Pod, PodmanWanted};

/// Content of larger files is not read: what is ours is small.
const MOST_CONTENT: u64 = 256 * 1024;

/// The platform.
#[derive(Debug)]
pub(super) struct Podman;

impl Platform for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn variable(&self) -> &'static str {
        wanted::VARIABLE
    }

    fn needs_block(&self, desired: &Desired) -> bool {
        // Exporters in containers are podman's too.
        super::exporters::in_containers(desired).is_empty()
    }

    fn check(&self, desired: &Desired, _: &Catalog, problems: &mut Problems) {
        let wanted = wanted::read(desired, problems);
        if !problems.has_errors() {
            preflight::check_offline(&wanted, desired, problems);
        }
    }

    fn gpu_instances(&self, desired: &Desired) -> Vec<GpuInstance> {
        preflight::gpu_instances(&wanted::read(desired, &mut Problems::default()), desired)
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        expect(&wanted, None, host);
        let kept = kept::read(host)?;
        let seen = look_at(&wanted, &kept, host)?;
        expect(&wanted, Some(&seen), host);
        let offer = devices::offered(view);
        let mut problems = preflight::check(&wanted, &seen, view);
        problems.extend(rootless::unknown(&wanted, &seen));
        let shares = match devices::shared_out(&wanted, &offer, view) {
            Ok(shares) => shares,
            Err(more) => {
                problems.extend(more);
                Vec::new()
            }
        };
        super::halted(problems)?;
        let mut wishes = preflight::notes(&wanted);
        let all: Vec<&Device> = shares.iter().flatten().collect();
        wishes.extend(cdi::wishes(&all, &offer, &seen)?);
        wishes.extend(preflight::selinux(&all, &seen));
        let users = users(&wanted, &shares);
        for (user, devices) in users.values() {
            wishes.extend(rootless::wishes(user, devices, &seen)?);
        }
        let mut wants = Wants::of(&all, &users, &seen, host)?;
        let mut units = Units {
            records: true,
            view,
            seen: &seen,
            offer: &offer,
            host,
            wishes,
            kept: Vec::new(),
        };
        for pod in &wanted.pods {
            units.pod(pod)?;
        }
        for (container, devices) in wanted.containers.iter().zip(&shares) {
            units.container(container, devices)?;
        }
        let (mut wishes, now) = (units.wishes, units.kept);
        wants.folders(&wishes, host)?;
        wishes.extend(settled(now, wants, &kept, &seen, view, host)?);
        Ok(wishes)
    }

    fn removal(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let kept = kept::read(host)?;
        if kept.is_empty() {
            return Ok(Vec::new());
        }
        let seen = look_at(&PodmanWanted::default(), &kept, host)?;
        settled(Vec::new(), Wants::default(), &kept, &seen, view, host)
    }

    fn health(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        let wanted = read(view)?;
        let kept = kept::read(host)?;
        let seen = look_at(&wanted, &kept, host)?;
        let mut wishes = Vec::new();
        for container in &wanted.containers {
            let place = place_of(container.user.as_ref(), &seen)?;
            wishes.push(Wish::Step(Box::new(healthy(container, &place))));
        }
        Ok(wishes)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        doctor::examine(&read(view)?, view, host)
    }

    fn library(&self) -> &'static str {
        include_str!("podman.sh")
    }
}

/// A container of root's that stands in no `gpu_podman`, such as an exporter of metrics.
pub(super) struct Apart {
    /// What an entry of `containers` would say; without cards.
    pub(super) entry: serde_json::Value,
    /// Names of the container device interface, or nodes, that it is given.
    pub(super) devices: Vec<String>,
    /// Files that it reads: it is restarted when one of them changes.
    pub(super) reads: Vec<String>,
}

/// What makes such containers run, each by its own unit. Limits that the host's variables have
/// for containers are not meant for these.
pub(super) fn apart(all: &[Apart], view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
    let mut desired = view.desired.clone();
    desired.integration.resource_limits = ResourceLimits::default();
    let entries: Vec<_> = all.iter().map(|one| &one.entry).collect();
    let block = json!({ "containers": entries });
    let node = Node::from_json(&block, &Origin::whole(wanted::VARIABLE, block.to_string()));
    desired.platforms = [(wanted::VARIABLE.to_owned(), node)].into_iter().collect();
    let view = &View {
        desired: &desired,
        ..*view
    };
    let wanted = read(view)?;
    let seen = look_at(&wanted, &Record::default(), host)?;
    super::halted(preflight::check(&wanted, &seen, view))?;
    let offer = Offer::default();
    let mut wishes = preflight::notes(&wanted);
    for one in all {
        if one
            .devices
            .iter()
            .any(|name| name.starts_with("nvidia.com/"))
        {
            wishes.extend(cdi::by_nvidia(one.devices.iter().cloned(), false, &seen)?);
        }
    }
    let mut units = Units {
        records: false,
        view,
        seen: &seen,
        offer: &offer,
        host,
        wishes,
        kept: Vec::new(),
    };
    for (container, one) in wanted.containers.iter().zip(all) {
        units.container_with(container, &[], one)?;
    }
    Ok(units.wishes)
}

/// A file of a unit of root's systemd, whose undo has the unit read it again.
pub(super) fn file_of(unit: &str, file: PlatformFile, secret: bool, runs: bool) -> Wish {
    let state = if runs { "active" } else { "inactive" };
    let undone = Command::new("podman_undone").args([root().scope.as_str(), unit, state]);
    Wish::FileThen {
        file: Box::new(file),
        secret,
        undone: Script::one(undone),
    }
}

/// A unit of root's systemd by a file that we write, such as one of an exporter.
pub(super) fn root_unit(unit: &str, file: PlatformFile, reads: &[String], runs: bool) -> Vec<Wish> {
    let place = root();
    let mut paths = vec![file.dest.clone()];
    paths.extend(reads.iter().cloned());
    let written = file_of(unit, file, false, runs);
    let verb = if runs { "restart" } else { "start" };
    vec![
        written,
        started(Box::new(run(&place, unit, None, None, verb)), runs, paths),
    ]
}

/// What takes units of root's away that run, with these files.
pub(super) fn without(unit: &str, files: &[String], runs: bool) -> Vec<Wish> {
    let scope = root().scope;
    let mut seen = Seen::default();
    seen.active.insert((scope.clone(), unit.to_owned()), runs);
    let gone = Kept {
        scope,
        unit: unit.to_owned(),
        files: files.to_vec(),
    };
    kept::removed([&gone].into_iter(), &[], &seen)
}

fn root() -> Place {
    Place {
        scope: "-".to_owned(),
        uid: None,
    }
}

/// A step that starts what does not run, or restarts what does where one of its files changes.
fn started(step: Box<Step>, runs: bool, paths: Vec<String>) -> Wish {
    match runs {
        false => Wish::Step(step),
        true => Wish::IfChanged { paths, step },
    }
}

/// An image with its registry, or this one.
pub(super) fn image_or(block: &mut Block<'_, '_>, default: &str) -> Located<String> {
    wanted::image(block, default)
}

/// The block; that it is right was seen before connecting, but for what templates gave.
fn read(view: &View<'_>) -> Rendered<PodmanWanted> {
    let mut problems = Problems::default();
    let wanted = wanted::read(view.desired, &mut problems);
    super::sound(wanted, problems)
}

/// What goes because only containers wanted it that are not wanted any more, and the record of
/// what stays.
fn settled(
    units: Vec<Kept>,
    mut wants: Wants,
    kept: &Record,
    seen: &Seen,
    view: &View<'_>,
    host: &mut dyn Host,
) -> Rendered<Vec<Wish>> {
    wants.others(&kept.set, view.desired);
    let gone = (kept.units.iter()).filter(|old| units.iter().all(|new| !new.same(old)));
    let mut wishes = kept::removed(gone, &units, seen);
    wants.around_files(host)?;
    if !units.is_empty() || !wants.recorded(&kept.set).is_empty() {
        wants.folder(unit::OWN_FOLDER, host)?;
    }
    let set = wants.recorded(&kept.set);
    let now = Record { units, set };
    let unset = wants.gone(&kept.set);
    wishes.extend(ours::removed(&unset, seen));
    wishes.extend(kept::record(&now, kept));
    wishes.extend(ours::emptied(&unset));
    Ok(wishes)
}

fn look_at(wanted: &PodmanWanted, kept: &Record, host: &mut dyn Host) -> Rendered<Seen> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut units: BTreeSet<(String, String)> = BTreeSet::new();
    let scope = |user: &Option<Located<String>>| match user {
        Some(user) => user.value.clone(),
        None => "-".to_owned(),
    };
    for container in &wanted.containers {
        names.extend(container.user.iter().map(|user| user.value.clone()));
        units.insert((
            scope(&container.user),
            format!("{}.service", container.name.value),
        ));
    }
    for pod in &wanted.pods {
        names.extend(pod.user.iter().map(|user| user.value.clone()));
        units.insert((scope(&pod.user), format!("{}-pod.service", pod.name.value)));
    }
    let marked = kept.set.iter().filter_map(ours::Mark::user);
    names.extend(marked.map(str::to_owned));
    for old in &kept.units {
        if old.scope != "-" {
            names.insert(old.scope.clone());
        }
        units.insert((old.scope.clone(), old.unit.clone()));
    }
    look::look(host, &names, &units)
}

/// Has all paths read at once that will be asked for, instead of one after the other. Where
/// files of users lie is known once the host was looked at.
fn expect(wanted: &PodmanWanted, seen: Option<&Seen>, host: &mut dyn Host) {
    let mut paths: Vec<String> = Vec::new();
    let place = |user: Option<&Located<String>>| match seen {
        None if user.is_some() => None,
        None => place_of(user, &Seen::default()).ok(),
        Some(seen) => place_of(user, seen).ok(),
    };
    if seen.is_none() {
        let folders = [
            "/etc/cdi",
            "/etc/containers",
            "/etc/deploy",
            unit::OWN_FOLDER,
        ];
        paths.extend(folders.map(str::to_owned));
        paths.extend([kept::path(), cdi::NVIDIA_FILE.to_owned()]);
    }
    let units = (wanted
        .pods
        .iter()
        .map(|pod| (&pod.name, pod.user.as_ref(), "pod")))
    .chain(
        wanted
            .containers
            .iter()
            .map(|container| (&container.name, container.user.as_ref(), "container")),
    );
    for (name, user, kind) in units {
        let Some(place) = place(user) else {
            continue;
        };
        paths.extend([
            place.folder(),
            place.file(&name.value, kind),
            place.devices_file(&name.value),
        ]);
        if let Some(uid) = place.uid {
            paths.extend([rootless::drop_ins(uid), rootless::order_file(uid)]);
        }
    }
    // What is made where its folder is missing takes a look at that too.
    let mut all: BTreeSet<String> = BTreeSet::new();
    for path in &paths {
        let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0);
        all.extend(ends.map(|(at, _)| path[..at].to_owned()));
    }
    all.extend(paths);
    for path in all {
        host.expect(state_of(path));
    }
}

/// The question what stands at a path.
fn state_of(path: String) -> Read {
    Read::State {
        path,
        unless: Some(String::new()),
        limit: MOST_CONTENT,
    }
}

fn place_of(user: Option<&Located<String>>, seen: &Seen) -> Rendered<Place> {
    Ok(match user {
        None => Place {
            scope: "-".to_owned(),
            uid: None,
        },
        Some(name) => Place {
            scope: name.value.clone(),
            uid: Some(rootless::known(name, seen)?.uid),
        },
    })
}

/// The users, each with all devices of its containers.
fn users<'a>(wanted: &'a PodmanWanted, shares: &'a [Vec<Device>]) -> Users<'a> {
    let mut of = Users::new();
    for pod in &wanted.pods {
        if let Some(user) = &pod.user {
            of.entry(&user.value).or_insert((user, Vec::new()));
        }
    }
    for (container, devices) in wanted.containers.iter().zip(shares) {
        if let Some(user) = &container.user {
            let (_, all) = of.entry(&user.value).or_insert((user, Vec::new()));
            all.extend(devices);
        }
    }
    of
}

/// A folder that all may read.
pub(super) fn folder(path: &str) -> Wish {
    Wish::Module {
        name: "file",
        params: json!({ "path": path, "state": "directory", "mode": "0755" }),
    }
}

/// Wishes for units in the making.
struct Units<'a, 'h> {
    /// Whether what it makes is kept in the record of `gpu_podman`.
    records: bool,
    view: &'a View<'a>,
    seen: &'a Seen,
    offer: &'a Offer,
    host: &'h mut dyn Host,
    wishes: Vec<Wish>,
    kept: Vec<Kept>,
}

impl Units<'_, '_> {
    fn pod(&mut self, pod: &Pod) -> Rendered<()> {
        let place = place_of(pod.user.as_ref(), self.seen)?;
        let name = &pod.name.value;
        let unit = format!("{name}-pod.service");
        let file = place.file(name, "pod");
        self.folders(&place);
        self.file(
            "podman_pod.j2",
            &file,
            unit::pod_vars(pod, &place),
            &place,
            &unit,
        );
        self.kept.push(Kept {
            scope: place.scope.clone(),
            unit: unit.clone(),
            files: vec![file.clone()],
        });
        // Its containers start it; where it runs already, they go with it.
        if self.seen.runs(&place.scope, &unit) {
            self.wishes.push(Wish::IfChanged {
                paths: vec![file],
                step: Box::new(run(&place, &unit, None, None, "restart")),
            });
        }
        Ok(())
    }

    fn container(&mut self, container: &Container, devices: &[Device]) -> Rendered<()> {
        let none = Apart {
            entry: serde_json::Value::Null,
            devices: Vec::new(),
            reads: Vec::new(),
        };
        self.container_with(container, devices, &none)
    }

    /// With what `more` has beside the entry itself.
    fn container_with(
        &mut self,
        container: &Container,
        devices: &[Device],
        more: &Apart,
    ) -> Rendered<()> {
        let place = place_of(container.user.as_ref(), self.seen)?;
        let name = &container.name.value;
        let unit = format!("{name}.service");
        let file = place.file(name, "container");
        let vars = unit::container_vars(container, devices, &more.devices, &place, self.view);
        let mut files = vec![file.clone()];
        self.folders(&place);
        self.file("podman_container.j2", &file, vars, &place, &unit);
        let mut renamed = false;
        if unit::has_mig(devices) {
            let path = place.devices_file(name);
            renamed = self.names(&path, devices, &place, &unit)?;
            files.push(path);
        }
        self.kept.push(Kept {
            scope: place.scope.clone(),
            unit: unit.clone(),
            files,
        });
        let verb = match self.seen.runs(&place.scope, &unit) {
            true => "restart",
            false => "start",
        };
        let pod = container.pod.as_ref().map(|pod| pod.value.as_str());
        let step = Box::new(run(&place, &unit, Some(name), pod, verb));
        let stays = verb == "restart" && !renamed;
        let mut paths = vec![file];
        paths.extend(more.reads.iter().cloned());
        self.wishes.push(started(step, stays, paths));
        Ok(())
    }

    fn folders(&mut self, place: &Place) {
        let own = self.records.then(|| unit::OWN_FOLDER.to_owned());
        for path in [Some(place.folder()), own].into_iter().flatten() {
            let made = self.wishes.iter().any(|wish| match wish {
                Wish::Module { params, .. } => params["path"] == path.as_str(),
                _ => false,
            });
            if !made {
                self.wishes.push(folder(&path));
            }
        }
    }

    fn file(
        &mut self,
        template: &'static str,
        dest: &str,
        vars: serde_json::Value,
        place: &Place,
        unit: &str,
    ) {
        let file = PlatformFile {
            template,
            dest: dest.to_owned(),
            mode: "0644",
            owner: None,
            vars,
        };
        self.wishes.push(Wish::FileThen {
            file: Box::new(file),
            secret: false,
            undone: self.undone(place, unit),
        });
    }

    fn undone(&self, place: &Place, unit: &str) -> Script {
        let state = match self.seen.runs(&place.scope, unit) {
            true => "active",
            false => "inactive",
        };
        let call = Command::new("podman_undone").args([place.scope.as_str(), unit, state]);
        Script::one(call)
    }

    /// The file that names a container's MIG devices; whether it changes.
    fn names(
        &mut self,
        path: &str,
        devices: &[Device],
        place: &Place,
        unit: &str,
    ) -> Rendered<bool> {
        let mut asks: Vec<String> = Vec::new();
        let mut known = vec!["# Written by deploy: the MIG devices of a container.".to_owned()];
        let mut sure = true;
        for device in devices {
            let Name::Mig {
                card,
                profile,
                ordinal,
                now,
            } = &device.name
            else {
                continue;
            };
            asks.extend([card.clone(), profile.clone(), ordinal.to_string()]);
            match now {
                Some(uuid) => known.push(format!("GPU_{}={uuid}", known.len())),
                None => sure = false,
            }
        }
        let before = match self.host.look(path)? {
            PathState::File {
                content: Some(content),
                ..
            } => Some(String::from_utf8_lossy(&content).into_owned()),
            _ => None,
        };
        let wanted = known.join("\n") + "\n";
        sure &= devices
            .iter()
            .all(|device| !self.offer.pending.contains(&device.card));
        if sure && before.as_deref() == Some(wanted.as_str()) {
            return Ok(false);
        }
        let names_of = |text: &str| {
            let names = text.lines().filter_map(|line| line.split_once('='));
            names
                .map(|(_, uuid)| uuid.to_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let what: Vec<String> = devices.iter().map(Device::what).collect();
        let change = Change::Setting {
            subject: format!("unit {unit}{}", place.of()),
            name: "MIG devices".to_owned(),
            before: before.as_deref().map_or("none".to_owned(), names_of),
            after: match sure {
                true => names_of(&wanted),
                false => format!("{}, by the UUID that it will have", what.join(", ")),
            },
        };
        let id = StepId(format!("podman:{}:{unit}:devices", place.scope));
        let key = id.key();
        let title = format!("give {unit}{} its MIG devices", place.of());
        let mut step = Step::new(id, "", title, change);
        step.snapshot = Script::one(Command::new("path_snapshot").arg(&key).path(path));
        step.apply = Script::one(Command::new("podman_devices").path(path).args(&asks));
        step.verify = Script::one(Command::new("podman_devices_are").path(path).args(&asks));
        step.undo = Script::one(Command::new("path_restore").arg(&key).path(path));
        step.undo.0.extend(self.undone(place, unit).0);
        self.wishes.push(Wish::Step(Box::new(step)));
        Ok(true)
    }
}

/// Starts a unit, or restarts it. What it was before, the undo of its files brings back.
fn run(place: &Place, unit: &str, container: Option<&str>, pod: Option<&str>, verb: &str) -> Step {
    let scope = place.scope.as_str();
    let subject = format!("unit {unit}{}", place.of());
    let title = format!("{verb} {subject}");
    let starts = verb == "start";
    let change = match starts {
        true => Change::Setting {
            subject,
            name: "state".to_owned(),
            before: "inactive".to_owned(),
            after: "active".to_owned(),
        },
        false => Change::Action {
            what: title.clone(),
        },
    };
    let id = StepId(format!("podman:{scope}:{unit}:{verb}"));
    let mut step = Step::new(id, "", title, change);
    let is = |state: &str| Script::one(Command::new("podman_unit_is").args([scope, unit, state]));
    step.check = is(if starts { "inactive" } else { "active" });
    let pod = pod.map(|pod| format!("{pod}-pod.service"));
    let start = Command::new("podman_start").args([scope, unit, verb]);
    step.apply = Script::one(start.args(pod));
    step.verify = match container {
        Some(name) => Script::one(Command::new("podman_runs").args([scope, unit, name])),
        None => is("active"),
    };
    match starts {
        true => step.undo = Script::one(Command::new("podman_stop").args([scope, unit])),
        false => {
            step.class = Class::Disruptive;
            // Its files' undo restarts it.
            step.undo = Script::one(Command::new("true"));
        }
    }
    step.timeout_s = unit::START_TIMEOUT_S + 30;
    step
}

/// Looks whether a container runs and can use what it was given, as its user would.
fn healthy(container: &Container, place: &Place) -> Step {
    let name = &container.name.value;
    let what = format!("container {name}{} runs", place.of());
    let what = match container.health_command.is_empty() {
        true => what,
        false => format!("{what}, and its health command succeeds"),
    };
    let change = Change::Check { what: what.clone() };
    let id = StepId(format!("podman:{}:{name}:health", place.scope));
    let mut step = Step::new(id, "", format!("check that {what}"), change);
    step.phase = crate::step::Phase::Check;
    let unit = format!("{name}.service");
    let runs = Command::new("podman_runs").args([&place.scope, &unit, name]);
    step.verify = Script::one(runs);
    if !container.health_command.is_empty() {
        let call = Command::new("podman_as").args([&*place.scope, "podman", "exec", name]);
        step.verify = step.verify.then(call.args(&container.health_command));
    }
    step.timeout_s = 120;
    step
}
