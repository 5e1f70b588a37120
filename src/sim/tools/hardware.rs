//! What a boot makes of the cards alone: what they forget without power, and how
//! the kernel and the driver find them.
//!
//! A real host that was given the cards of a simulated machine has files, units and
//! processes of its own, which are not the simulator's to end or to start.

use std::io;

use crate::sim::iommu;
use crate::sim::machine::{Host, Machine};
use crate::sim::vgpu;
use crate::sim::{amd, host, intel};

use super::{Outcome, binding, power, sysfs};

/// The name under which this binary boots the cards of the machine's folder, and
/// nothing else of it. No program of that name exists on any machine.
pub(super) const NAME: &str = "deploy-sim-hardware";

/// Boots the cards of a machine whose other parts are real.
pub(super) fn run(host: &Host) -> io::Result<Outcome> {
    host.update(|machine| power_cycle(host, machine))?;
    Ok(Outcome::silent())
}

/// Takes away what does not outlive a boot and loads the driver.
pub(super) fn power_cycle(host: &Host, machine: &mut Machine) -> io::Result<()> {
    power::unload_driver(machine);
    amd::power_cycle(host, machine)?;
    for gpu in &mut machine.gpus {
        let card = machine
            .spec
            .gpus
            .iter()
            .find(|card| card.product == gpu.product);
        gpu.persistence = card.is_none_or(|card| card.persistence);
    }
    let functions: Vec<String> = machine.functions.keys().cloned().collect();
    for address in functions {
        if let Some(function) = machine.functions.get_mut(&address) {
            function.busy = false;
        }
        // Refused where the driver cannot be told; then they go without it.
        let _ = sysfs::set_num_vfs(host, machine, &address, 0);
        if let Some(function) = machine.functions.get(&address) {
            sysfs::put_num_vfs(host, function, &address, 0)?;
        }
        host.write(
            &format!(
                "{}/sriov_drivers_autoprobe",
                host::device_directory(&address)
            ),
            "1\n",
        )?;
    }
    binding::boot(host, machine)?;
    iommu::set_up(host, machine)?;
    intel::boot(host, machine)?;
    machine.licensed = false;
    vgpu::show(host, machine)?;
    host::modules(host, machine)?;
    host::amd_driver(host, machine)?;
    host::write_capabilities(host, machine)
}
