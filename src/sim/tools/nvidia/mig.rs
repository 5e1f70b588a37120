//! `nvidia-smi mig`: its command line and its lists; `change` makes and destroys.

mod change;

use crate::sim::machine::{ComputeInstance, Gpu, GpuInstance, Machine};
use crate::sim::product::{Product, Profile};

use super::list::device_name;
use super::rows::Table;
use super::{Answer, code, placement};

/// The call, taken apart.
#[derive(Debug, Default)]
struct Request<'a> {
    gpus: Option<&'a str>,
    instances: Option<Vec<u32>>,
    computes: Option<Vec<u32>>,
    action: Option<Action<'a>>,
    with_compute: bool,
}

#[derive(Debug, Clone, Copy)]
enum Action<'a> {
    ListProfiles,
    ListPlacements,
    ListInstances,
    ListComputeProfiles,
    ListComputes,
    Create(&'a str),
    CreateComputes(Option<&'a str>),
    DestroyInstances,
    DestroyComputes,
}

/// Runs the subcommand.
pub(super) fn run(machine: &mut Machine, args: &[&str]) -> Answer {
    let Some(request) = parse(args) else {
        return Answer::new(
            "Invalid combination of input arguments. Please run 'nvidia-smi mig -h' for help.\n\n",
            code::INVALID_ARGUMENT,
        );
    };
    let Some(action) = request.action else {
        return Answer::new(
            "Option is missing. Please run 'nvidia-smi mig -h' for help.\n\n",
            code::INVALID_ARGUMENT,
        );
    };
    let mut selected = match super::select(machine, request.gpus) {
        Ok(selected) => selected,
        Err(answer) => return answer,
    };
    selected.retain(|index| {
        machine
            .product(&machine.gpus[*index])
            .is_some_and(Product::has_mig)
    });
    if selected.is_empty() {
        return Answer::new("No MIG-supported devices found.\n", code::NOT_FOUND);
    }
    // Profiles can be listed with the mode off since the 550 branch.
    let lists_offline =
        matches!(action, Action::ListProfiles | Action::ListPlacements) && machine.branch() >= 550;
    if !lists_offline {
        selected.retain(|index| machine.gpus[*index].mig);
        if selected.is_empty() {
            return Answer::new("No MIG-enabled devices found.\n", code::NOT_FOUND);
        }
    }
    match action {
        Action::ListProfiles => list_profiles(machine, &selected),
        Action::ListPlacements => list_placements(machine, &selected),
        Action::ListInstances => list_instances(machine, &selected, &request),
        Action::ListComputeProfiles => list_compute_profiles(machine, &selected, &request),
        Action::ListComputes => list_computes(machine, &selected, &request),
        Action::Create(list) => change::create(machine, &selected, list, request.with_compute),
        Action::CreateComputes(list) => change::create_computes(machine, &selected, &request, list),
        Action::DestroyInstances => change::destroy_instances(machine, &selected, &request),
        Action::DestroyComputes => change::destroy_computes(machine, &selected, &request),
    }
}

fn parse<'a>(args: &[&'a str]) -> Option<Request<'a>> {
    let mut request = Request::default();
    let mut rest = args.iter().copied().peekable();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg, None),
        };
        let mut value = || inline.or_else(|| rest.next());
        let action = match name {
            "-i" | "--id" => {
                request.gpus = Some(value()?);
                continue;
            }
            "-gi" | "--gpu-instance-id" => {
                request.instances = Some(numbers(value()?)?);
                continue;
            }
            "-ci" | "--compute-instance-id" => {
                request.computes = Some(numbers(value()?)?);
                continue;
            }
            "-C" | "--default-compute-instance" => {
                request.with_compute = true;
                continue;
            }
            "-lgip" | "--list-gpu-instance-profiles" => Action::ListProfiles,
            "-lgipp" | "--list-gpu-instance-possible-placements" => Action::ListPlacements,
            "-lgi" | "--list-gpu-instances" => Action::ListInstances,
            "-lcip" | "--list-compute-instance-profiles" => Action::ListComputeProfiles,
            "-lci" | "--list-compute-instances" => Action::ListComputes,
            "-cgi" | "--create-gpu-instance" => Action::Create(value()?),
            "-cci" | "--create-compute-instance" => {
                // The list may be left out: then each GPU instance gets its default one.
                let list = inline.or_else(|| rest.next_if(|next| !next.starts_with('-')));
                Action::CreateComputes(list)
            }
            "-dgi" | "--destroy-gpu-instance" => Action::DestroyInstances,
            "-dci" | "--destroy-compute-instance" => Action::DestroyComputes,
            _ => return None,
        };
        if request.action.replace(action).is_some() {
            return None;
        }
    }
    Some(request)
}

fn numbers(list: &str) -> Option<Vec<u32>> {
    list.split(',')
        .map(|item| item.trim().parse().ok())
        .collect()
}

impl Request<'_> {
    fn wants_instance(&self, id: u32) -> bool {
        self.instances.as_ref().is_none_or(|ids| ids.contains(&id))
    }

    fn wants_compute(&self, id: u32) -> bool {
        self.computes.as_ref().is_none_or(|ids| ids.contains(&id))
    }
}

/// A card with its index and product.
fn cards<'m>(machine: &'m Machine, selected: &[usize]) -> Vec<(usize, &'m Gpu, &'m Product)> {
    let card = |index: &usize| {
        let gpu = &machine.gpus[*index];
        machine.product(gpu).map(|product| (*index, gpu, product))
    };
    selected.iter().filter_map(card).collect()
}

/// Profiles that this driver offers for a card.
fn offered(product: &Product, branch: u32) -> impl Iterator<Item = &Profile> {
    product
        .profiles
        .iter()
        .filter(move |profile| match (profile.compute, profile.size) {
            // The oldest drivers know neither the media nor the double memory kind.
            _ if profile.name.ends_with("+me") && product.slices == 8 => branch >= 470,
            _ if profile.name == "2g.12gb+me" => branch >= 525,
            (1, 2) if product.slices == 8 => branch >= 525,
            _ => true,
        })
}

fn list_profiles(machine: &Machine, selected: &[usize]) -> Answer {
    let branch = machine.branch();
    let (width, name) = match branch {
        ..500 => (74, 11),
        500..575 => (77, 14),
        _ => (79, 16),
    };
    let head = [
        " GPU instance profiles:".to_owned(),
        format!(
            " GPU   {:<pad$}ID    Instances   Memory     P2P    SM    DEC   ENC  ",
            "Name",
            pad = name + 3
        ),
        format!(
            "{}Free/Total   GiB              CE    JPEG  OFA  ",
            " ".repeat(name + 16)
        ),
    ];
    let mut table = Table::new(width, &head);
    for (index, gpu, product) in cards(machine, selected) {
        for profile in offered(product, branch) {
            let [copy, decode, encode, jpeg, flow] = profile.engines;
            table.line(&format!(
                "{index:>4}  MIG {:<name$}{:>2}     {}/{}        {:<11}No     {:<7}{decode:<6}{encode:<4}",
                profile.name,
                profile.id,
                placement::free(product, gpu, profile),
                profile.max,
                Product::gib(profile.memory_mib),
                profile.sm,
            ));
            table.line(&format!(
                "{}{copy:<6}{jpeg:<6}{flow:<4}",
                " ".repeat(width - 16)
            ));
            table.rule();
        }
    }
    Answer::new(table.finish(), 0)
}

fn list_placements(machine: &Machine, selected: &[usize]) -> Answer {
    let mut answer = Answer::default();
    for (index, _, product) in cards(machine, selected) {
        for profile in offered(product, machine.branch()) {
            let starts: Vec<String> = profile.starts.iter().map(u32::to_string).collect();
            let word = if starts.len() == 1 {
                "Placement "
            } else {
                "Placements"
            };
            answer.line(format!(
                "GPU {index:>2} Profile ID {:>2} {word}: {{{}}}:{}",
                profile.id,
                starts.join(","),
                profile.size
            ));
        }
    }
    answer
}

fn no_instances() -> Answer {
    Answer::new("No GPU instances found: Not Found\n", code::NOT_FOUND)
}

fn no_computes() -> Answer {
    Answer::new("No compute instances found: Not Found\n", code::NOT_FOUND)
}

fn list_instances(machine: &Machine, selected: &[usize], request: &Request<'_>) -> Answer {
    let (width, name) = match machine.branch() {
        ..500 => (52, 13),
        500..575 => (55, 16),
        _ => (57, 18),
    };
    let head = [
        " GPU instances:".to_owned(),
        format!(
            " GPU   {:<pad$}Profile  Instance   Placement  ",
            "Name",
            pad = name + 1
        ),
        format!("{}ID       ID       Start:Size ", " ".repeat(name + 10)),
    ];
    let mut table = Table::new(width, &head);
    let mut any = false;
    for (index, gpu, product) in cards(machine, selected) {
        // Rows stand by kind in the order of the profile list, then by id.
        for profile in &product.profiles {
            let of_kind = gpu
                .instances
                .iter()
                .filter(|instance| instance.profile == profile.id);
            for instance in of_kind.filter(|instance| request.wants_instance(instance.id)) {
                any = true;
                table.line(&format!(
                    "{index:>4}  MIG {:<name$}{:>2}       {:>2}          {:<8}",
                    profile.name,
                    profile.id,
                    instance.id,
                    format!("{}:{}", instance.start, instance.size),
                ));
                table.rule();
            }
        }
    }
    if any {
        Answer::new(table.finish(), 0)
    } else {
        no_instances()
    }
}

/// A kind of compute instance.
struct ComputeProfile {
    id: u32,
    name: String,
    slices: u32,
    sm: u32,
    total: u32,
    is_default: bool,
}

/// Compute instance kinds of a GPU instance, the whole one last.
fn compute_profiles(product: &Product, profile: &Profile) -> Vec<ComputeProfile> {
    const IDS: [(u32, u32); 5] = [(1, 0), (2, 1), (3, 2), (4, 3), (7, 4)];
    let one_slice = product
        .profiles
        .iter()
        .find(|other| other.compute == 1)
        .map_or(0, |other| other.sm);
    let mut kinds: Vec<ComputeProfile> = IDS
        .iter()
        .filter(|(slices, _)| *slices < profile.compute && !(*slices == 3 && profile.compute == 4))
        .map(|(slices, id)| ComputeProfile {
            id: *id,
            name: format!("{slices}c.{}", profile.name),
            slices: *slices,
            sm: one_slice * slices,
            total: profile.compute / slices,
            is_default: false,
        })
        .collect();
    let id = IDS
        .iter()
        .find(|(slices, _)| *slices == profile.compute)
        .map_or(0, |(_, id)| *id);
    // A GH200 capture shows 7 for the one compute instance of a 1g of double memory.
    let doubled = product.slices == 8 && profile.compute == 1 && profile.size == 2;
    kinds.push(ComputeProfile {
        id: if doubled { 7 } else { id },
        name: profile.name.clone(),
        slices: profile.compute,
        sm: profile.sm,
        total: 1,
        is_default: true,
    });
    kinds
}

/// Where the next compute instance of some slices would start.
fn compute_start(instance: &GpuInstance, total: u32, slices: u32) -> Option<u32> {
    (0..=total.checked_sub(slices)?).find(|start| {
        let apart = |other: &ComputeInstance| {
            start + slices <= other.start || other.start + other.slices <= *start
        };
        instance.compute.iter().all(apart)
    })
}

fn compute_free(instance: &GpuInstance, total: u32, slices: u32) -> u32 {
    let mut instance = instance.clone();
    let mut made = 0;
    while let Some(start) = compute_start(&instance, total, slices) {
        instance.compute.push(ComputeInstance {
            id: 100 + made,
            slices,
            start,
        });
        made += 1;
    }
    made
}

fn list_compute_profiles(machine: &Machine, selected: &[usize], request: &Request<'_>) -> Answer {
    let head = [
        " Compute instance profiles:".to_owned(),
        " GPU     GPU       Name             Profile  Instances   Exclusive       Shared       "
            .to_owned(),
        "       Instance                       ID     Free/Total     SM       DEC   ENC   OFA  "
            .to_owned(),
        "         ID                                                          CE    JPEG       "
            .to_owned(),
    ];
    let mut table = Table::new(86, &head);
    let mut any = false;
    for (index, gpu, product) in cards(machine, selected) {
        for instance in gpu
            .instances
            .iter()
            .filter(|instance| request.wants_instance(instance.id))
        {
            let Some(profile) = product.profile_by_id(instance.profile) else {
                continue;
            };
            any = true;
            let [copy, decode, encode, jpeg, flow] = profile.engines;
            for kind in compute_profiles(product, profile) {
                let free = compute_free(instance, profile.compute, kind.slices);
                let star = if kind.is_default { '*' } else { ' ' };
                table.line(&format!(
                    "{index:>4}     {:>2}       MIG {:<16}{:>2}{star}     {free}/{}           {:<10}{decode:<6}{encode:<6}{flow:<4}",
                    instance.id, kind.name, kind.id, kind.total, kind.sm,
                ));
                table.line(&format!("{}{copy:<6}{jpeg:<6}    ", " ".repeat(70)));
                table.rule();
            }
        }
    }
    if any {
        Answer::new(table.finish(), 0)
    } else {
        no_instances()
    }
}

fn list_computes(machine: &Machine, selected: &[usize], request: &Request<'_>) -> Answer {
    let placed = machine.branch() >= 500;
    let mut head = [
        " Compute instances:".to_owned(),
        " GPU     GPU       Name             Profile   Instance ".to_owned(),
        "       Instance                       ID        ID     ".to_owned(),
        "         ID                                            ".to_owned(),
    ];
    if placed {
        head[1].push_str("  Placement  ");
        head[2].push_str("  Start:Size ");
    }
    let mut table = Table::new(if placed { 68 } else { 55 }, &head);
    let mut any = false;
    for (index, gpu, product) in cards(machine, selected) {
        for instance in gpu
            .instances
            .iter()
            .filter(|instance| request.wants_instance(instance.id))
        {
            let Some(profile) = product.profile_by_id(instance.profile) else {
                continue;
            };
            let kinds = compute_profiles(product, profile);
            for compute in instance
                .compute
                .iter()
                .filter(|compute| request.wants_compute(compute.id))
            {
                any = true;
                let kind = kinds.iter().find(|kind| kind.slices == compute.slices);
                let mut line = format!(
                    "{index:>4}     {:>2}       MIG {:<16}{:>2}        {:>2}     ",
                    instance.id,
                    device_name(profile, compute),
                    kind.map_or(0, |kind| kind.id),
                    compute.id,
                );
                if placed {
                    line.push_str(&format!(
                        "     {:<8}",
                        format!("{}:{}", compute.start, compute.slices)
                    ));
                }
                table.line(&line);
                table.rule();
            }
        }
    }
    if any {
        Answer::new(table.finish(), 0)
    } else {
        no_computes()
    }
}
