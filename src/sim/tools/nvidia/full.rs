//! `-q` and `-q -x`: captures with what belongs to a machine's state put in its
//! place. The text is that of 590.48.01 on an H100, the XML that of 535.54.03
//! on an A100, less its list of supported clocks.

use crate::sim::machine::{Gpu, Machine};
use crate::sim::product::Product;

use super::list::{Device, cuda, devices, gpu_name};
use super::mode::COMPUTE_MODES;
use super::query::{bar1_mib, device_id, free_mib, instance_used, reserved_mib, used_mib};
use super::vgpu;

const TEXT: &str = include_str!("../../data/q.txt");
const XML: &str = include_str!("../../data/q.xml");

/// `-q`.
pub(super) fn text(machine: &Machine, selected: &[usize]) -> String {
    let mut text = String::from("\n==============NVSMI LOG==============\n\n");
    for (name, value) in [
        ("Timestamp", now()),
        (
            "Driver Version",
            machine.spec.driver.clone().unwrap_or_default(),
        ),
        ("CUDA Version", cuda(machine.branch()).to_owned()),
    ] {
        text.push_str(&format!("{name:<54} : {value}\n"));
    }
    text.push_str(&format!(
        "\n{:<54} : {}\n",
        "Attached GPUs",
        machine.gpus.len()
    ));
    for &index in selected {
        let gpu = &machine.gpus[index];
        let Some(product) = machine.product(gpu) else {
            continue;
        };
        let list = devices(gpu, product)
            .iter()
            .map(|device| device_text(gpu, product, device))
            .collect();
        let processes = processes_text(machine, index);
        text.push_str(&fill(TEXT, machine, index, product, list, processes));
    }
    text
}

/// `-q -x`.
pub(super) fn xml(machine: &Machine, selected: &[usize]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n<nvidia_smi_log>\n    \
         <timestamp>{}</timestamp>\n    <driver_version>{}</driver_version>\n    <cuda_version>{}</cuda_version>\n    \
         <attached_gpus>{}</attached_gpus>\n",
        now(),
        machine.spec.driver.as_deref().unwrap_or_default(),
        cuda(machine.branch()),
        machine.gpus.len()
    );
    for &index in selected {
        let gpu = &machine.gpus[index];
        let Some(product) = machine.product(gpu) else {
            continue;
        };
        let list: Vec<String> = devices(gpu, product)
            .iter()
            .map(|device| device_xml(gpu, product, device))
            .collect();
        let list = if list.is_empty() {
            "        <mig_devices>\n            None\n        </mig_devices>\n".to_owned()
        } else {
            format!(
                "        <mig_devices>\n{}        </mig_devices>\n",
                list.concat()
            )
        };
        text.push_str(&fill(
            XML,
            machine,
            index,
            product,
            list,
            processes_xml(machine, index),
        ));
        text.push('\n');
    }
    text.push_str("</nvidia_smi_log>\n");
    text
}

/// The time as the tool prints it.
pub(super) fn now() -> String {
    jiff::Zoned::now()
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string()
}

fn fill(
    template: &str,
    machine: &Machine,
    index: usize,
    product: &Product,
    devices: String,
    processes: String,
) -> String {
    let gpu = &machine.gpus[index];
    let word = |on: bool| if on { "Enabled" } else { "Disabled" };
    let mig = |on: bool| if product.has_mig() { word(on) } else { "N/A" };
    let (bar1_total, bar1_used) = (
        bar1_mib(product),
        if gpu.mig { product.memory_mib } else { 1 },
    );
    let address = gpu.pci.to_uppercase();
    let device = device_id(gpu, machine);
    let remapped = if gpu.mig {
        format!("    {:<50} : N/A\n", "Remapped Rows")
    } else {
        let mut lines = "    Remapped Rows\n".to_owned();
        let line = |indent: usize, name: &str, value: &str| {
            format!(
                "{:<54} : {value}\n",
                format!("{}{name}", " ".repeat(indent))
            )
        };
        for (name, value) in [
            ("Correctable Error", "0"),
            ("Uncorrectable Error", "0"),
            ("Pending", "No"),
            ("Remapping Failure Occurred", "No"),
        ] {
            lines.push_str(&line(8, name, value));
        }
        lines.push_str("        Bank Remap Availability Histogram\n");
        for (name, value) in [
            ("Max", "2560"),
            ("High", "0"),
            ("Partial", "0"),
            ("Low", "0"),
            ("None", "0"),
        ] {
            lines.push_str(&line(12, name, &format!("{value} bank(s)")));
        }
        lines
    };
    let [virtualization, host_vgpu, heterogeneous] = vgpu::modes(machine, gpu);
    let values = [
        ("bus_id", gpu.bus_id()),
        ("name", gpu_name(machine, gpu)),
        ("architecture", product.architecture.clone()),
        ("persistence", word(gpu.persistence).to_owned()),
        ("mig_current", mig(gpu.mig).to_owned()),
        ("mig_pending", mig(gpu.mig_pending).to_owned()),
        ("mig_devices", devices),
        ("serial", gpu.serial.clone()),
        ("uuid", gpu.uuid.clone()),
        ("index", index.to_string()),
        ("vbios", product.vbios.clone()),
        ("driver", machine.spec.driver.clone().unwrap_or_default()),
        ("pci_bus", format!("0x{}", &address[5..7])),
        ("pci_device", format!("0x{}", &address[8..10])),
        ("pci_domain", format!("0x{}", &address[..4])),
        ("pci_bus_bare", address[5..7].to_owned()),
        ("pci_device_bare", address[8..10].to_owned()),
        ("pci_domain_bare", address[..4].to_owned()),
        ("device_id_bare", device.trim_start_matches("0x").to_owned()),
        ("device_id", device),
        (
            "sub_device_id_bare",
            product.subsystem.trim_start_matches("0x").to_owned(),
        ),
        ("sub_device_id", product.subsystem.clone()),
        ("memory_total", product.memory_mib.to_string()),
        ("memory_reserved", reserved_mib(machine, gpu).to_string()),
        ("memory_used", used_mib(gpu).to_string()),
        ("memory_free", free_mib(machine, gpu).to_string()),
        ("bar1_total", bar1_total.to_string()),
        ("bar1_used", bar1_used.to_string()),
        (
            "bar1_free",
            bar1_total.saturating_sub(bar1_used).to_string(),
        ),
        (
            "compute_mode",
            COMPUTE_MODES[usize::from(gpu.compute_mode.min(3))].to_owned(),
        ),
        (
            "utilization",
            if gpu.mig { "N/A" } else { "0 %" }.to_owned(),
        ),
        ("remapped_rows", remapped),
        ("power", product.power_w.to_string()),
        ("processes", processes),
        ("virtualization", virtualization.to_owned()),
        ("host_vgpu", host_vgpu.to_owned()),
        ("heterogeneous", heterogeneous.to_owned()),
        ("license", vgpu::license(machine, gpu)),
    ];
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), &value);
    }
    text
}

fn device_text(gpu: &Gpu, product: &Product, device: &Device<'_>) -> String {
    let numbers = Numbers::of(gpu, product, device);
    let mut text = "    MIG Device\n".to_owned();
    let mut line = |indent: usize, name: &str, value: &str| {
        let name = format!("{}{name}", " ".repeat(indent));
        text.push_str(&if value.is_empty() {
            format!("{name}\n")
        } else {
            format!("{name:<54} : {value}\n")
        });
    };
    line(8, "Index", &device.index.to_string());
    line(8, "GPU Instance ID", &device.instance.id.to_string());
    line(8, "Compute Instance ID", &device.compute.id.to_string());
    line(8, "Device Attributes", "");
    line(12, "Shared", "");
    let [copy, decode, encode, jpeg, flow] = device.profile.engines;
    for (name, value) in [
        ("Multiprocessor count", numbers.sm),
        ("Copy Engine count", copy),
        ("Encoder count", encode),
        ("Decoder count", decode),
        ("OFA count", flow),
        ("JPG count", jpeg),
    ] {
        line(16, name, &value.to_string());
    }
    line(8, "ECC Errors", "");
    line(12, "Volatile", "");
    line(16, "SRAM Uncorrectable", "0");
    line(8, "Shared FB Memory Usage", "");
    for (name, value) in [
        ("Total", numbers.total),
        ("Reserved", 0),
        ("Used", numbers.used),
        ("Free", numbers.free),
    ] {
        line(12, name, &format!("{value} MiB"));
    }
    line(8, "Shared BAR1 Memory", "");
    for (name, value) in [("Total", numbers.bar1), ("Used", 0), ("Free", numbers.bar1)] {
        line(12, name, &format!("{value} MiB"));
    }
    text
}

struct Numbers {
    sm: u32,
    total: u64,
    used: u64,
    free: u64,
    bar1: u64,
}

impl Numbers {
    fn of(gpu: &Gpu, product: &Product, device: &Device<'_>) -> Self {
        let (total, used) = (
            device.profile.memory_mib,
            instance_used(device.profile.size),
        );
        let bar1 = bar1_mib(product).saturating_sub(if gpu.mig { product.memory_mib } else { 0 });
        Self {
            sm: compute_sm(product, device),
            total,
            used,
            free: total.saturating_sub(used) + 1,
            bar1: bar1 * u64::from(device.profile.size) / u64::from(product.slices.max(1)),
        }
    }
}

/// Multiprocessors of a MIG device: all of its GPU instance's, or those of its slices.
pub(super) fn compute_sm(product: &Product, device: &Device<'_>) -> u32 {
    if device.compute.slices == device.profile.compute {
        return device.profile.sm;
    }
    let one = product.profiles.iter().find(|profile| profile.compute == 1);
    one.map_or(0, |profile| profile.sm) * device.compute.slices
}

fn device_xml(gpu: &Gpu, product: &Product, device: &Device<'_>) -> String {
    let numbers = Numbers::of(gpu, product, device);
    let [copy, decode, encode, jpeg, flow] = device.profile.engines;
    let lines = [
        (3, "<mig_device>".to_owned()),
        (4, format!("<index>{}</index>", device.index)),
        (
            4,
            format!("<gpu_instance_id>{}</gpu_instance_id>", device.instance.id),
        ),
        (
            4,
            format!(
                "<compute_instance_id>{}</compute_instance_id>",
                device.compute.id
            ),
        ),
        (4, "<device_attributes>".to_owned()),
        (5, "<shared>".to_owned()),
        (
            6,
            format!(
                "<multiprocessor_count>{}</multiprocessor_count>",
                numbers.sm
            ),
        ),
        (6, format!("<copy_engine_count>{copy}</copy_engine_count>")),
        (6, format!("<encoder_count>{encode}</encoder_count>")),
        (6, format!("<decoder_count>{decode}</decoder_count>")),
        (6, format!("<ofa_count>{flow}</ofa_count>")),
        (6, format!("<jpg_count>{jpeg}</jpg_count>")),
        (5, "</shared>".to_owned()),
        (4, "</device_attributes>".to_owned()),
        (4, "<ecc_error_count>".to_owned()),
        (5, "<volatile_count>".to_owned()),
        (6, "<sram_uncorrectable>0</sram_uncorrectable>".to_owned()),
        (5, "</volatile_count>".to_owned()),
        (4, "</ecc_error_count>".to_owned()),
        (4, "<fb_memory_usage>".to_owned()),
        (5, format!("<total>{} MiB</total>", numbers.total)),
        (5, "<reserved>0 MiB</reserved>".to_owned()),
        (5, format!("<used>{} MiB</used>", numbers.used)),
        (5, format!("<free>{} MiB</free>", numbers.free)),
        (4, "</fb_memory_usage>".to_owned()),
        (4, "<bar1_memory_usage>".to_owned()),
        (5, format!("<total>{} MiB</total>", numbers.bar1)),
        (5, "<used>0 MiB</used>".to_owned()),
        (5, format!("<free>{} MiB</free>", numbers.bar1)),
        (4, "</bar1_memory_usage>".to_owned()),
        (3, "</mig_device>".to_owned()),
    ];
    lines
        .iter()
        .map(|(depth, line)| format!("{}{line}\n", "    ".repeat(*depth)))
        .collect()
}

fn processes_text(machine: &Machine, index: usize) -> String {
    let holders: Vec<_> = machine
        .holders_of(index)
        .filter(|holder| holder.compute)
        .collect();
    if holders.is_empty() {
        return format!("{:<54} : None\n", "    Processes");
    }
    let mut text = "    Processes\n".to_owned();
    for holder in holders {
        text.push_str(&format!(
            "        GPU instance ID                                : N/A\n        Compute instance ID                            : N/A\n        \
             Process ID                                     : {}\n            Type                                       : C\n            \
             Name                                       : {}\n            Used GPU Memory                            : 512 MiB\n",
            holder.pid, holder.command
        ));
    }
    text
}

fn processes_xml(machine: &Machine, index: usize) -> String {
    let mut text = "        <processes>\n".to_owned();
    for holder in machine.holders_of(index).filter(|holder| holder.compute) {
        text.push_str(&format!(
            "            <process_info>\n                <gpu_instance_id>N/A</gpu_instance_id>\n                \
             <compute_instance_id>N/A</compute_instance_id>\n                <pid>{}</pid>\n                <type>C</type>\n                \
             <process_name>{}</process_name>\n                <used_memory>512 MiB</used_memory>\n            </process_info>\n",
            holder.pid, holder.command
        ));
    }
    text + "        </processes>"
}
